"""Files and options as users mangle them: each ends in a sentence that names the cause, or in the right numbers."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from qsde.cli import app
from qsde.io import read_quotes
from qsde.market.black import black_price

HESTON = ["-m", "heston", "-p", "v0=0.04", "-p", "kappa=1.5", "-p", "theta=0.05", "-p", "sigma=0.4", "-p", "rho=-0.7"]
PRICE = ["price", *HESTON, "--strike", "100", "--spot", "100"]


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def chain(rate: float = 0.03, expiry: str = "2024-06-21", days: int = 171, vol: float = 0.2) -> pd.DataFrame:
    """Calls and puts of one expiry at a flat vol, forward 100."""
    t, strike = days / 365, np.linspace(80.0, 120.0, 9)
    sides = [("C", True), ("P", False)]
    parts = [
        pd.DataFrame({"strike": strike, "option_type": name, "price": price.numpy()})
        for name, is_call in sides
        for price in [black_price(100.0, strike, t, vol, float(np.exp(-rate * t)), is_call)]
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.assign(quote_date="2024-01-02", underlying="ABC", expiry=expiry, bid=0.99 * frame["price"],
                         ask=1.01 * frame["price"], spot=100 * np.exp(-rate * t))  # fmt: skip
    return frame.drop(columns="price")


def inspected(path: Path, content: pd.DataFrame | str | bytes) -> str:
    if isinstance(content, pd.DataFrame):
        content = content.to_csv(index=False)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return run("inspect", path)[1]


@pytest.mark.parametrize(("column", "factor"), [("strike", 100), ("spot", 0.01)])
def test_other_units_of_strike_or_spot_are_named(column: str, factor: float, tmp_path: Path) -> None:
    frame = chain()
    shown = inspected(tmp_path / "cents.csv", frame.assign(**{column: frame[column] * factor}))
    assert "are strikes, prices and spot in the same unit" in shown
    assert "same unit" not in inspected(tmp_path / "fine.csv", frame)


def test_vols_in_percent_are_converted_with_a_warning(tmp_path: Path) -> None:
    frame = chain().drop(columns=["bid", "ask"]).assign(implied_vol=20.0, forward=100.0)
    shown = inspected(tmp_path / "percent.csv", frame)
    assert "implied_vol has a median of 20: taken as percent and divided by 100" in shown
    assert shown.rstrip().endswith("20.00")


def test_negative_rates_are_found(tmp_path: Path) -> None:
    shown = inspected(tmp_path / "negative.csv", chain(rate=-0.02))
    assert "-2.000" in shown
    assert shown.count("warning") == shown.count("only one expiry") == 1


def test_yesterdays_expiry_costs_only_its_rows(tmp_path: Path) -> None:
    yesterday = chain(expiry="2024-01-01", days=10)
    shown = inspected(tmp_path / "mixed.csv", pd.concat([yesterday, chain()]))
    assert "expired 18, in the money 9" in shown
    alone = inspected(tmp_path / "alone.csv", yesterday)
    assert "all 18 quotes expired before 2024-01-02" in alone
    assert "expired 18" in alone


def test_a_column_that_occurs_twice_is_said(tmp_path: Path) -> None:
    frame = chain()
    shown = inspected(tmp_path / "twice.csv", pd.concat([frame, frame[["bid"]] * 7], axis=1))
    assert "column 'bid' occurs more than once: the first is used" in shown
    assert shown.rstrip().endswith("20.00")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_marks_and_separators_of_spreadsheets(encoding: str, separator: str, tmp_path: Path) -> None:
    text = chain().to_csv(index=False, sep=separator, lineterminator="\r\n")
    assert inspected(tmp_path / "sheet.csv", text.encode(encoding)).rstrip().endswith("20.00")


def test_excel_separator_line_and_slashed_dates(tmp_path: Path) -> None:
    text = "sep=,\r\n" + chain(expiry="6/21/2024").assign(quote_date="1/2/2024").to_csv(index=False)
    assert inspected(tmp_path / "excel.csv", text).rstrip().endswith("20.00")


def test_decimal_commas_are_refused_never_read_as_thousands(tmp_path: Path) -> None:
    shown = inspected(tmp_path / "comma.csv", chain().to_csv(index=False, sep=";", decimal=","))
    assert "write decimals with a point (80.5), not a comma" in shown
    path = tmp_path / "mixed.csv"
    path.write_text("quote_date;expiry;strike;option_type;bid;ask\n"
                    "2024-01-02;2024-06-21;90;P;1,234;1,3\n2024-01-02;2024-06-21;95;P;2;3\n")  # fmt: skip
    quotes = read_quotes(path)
    assert quotes.frame["strike"].tolist() == [95.0]
    thousands = tmp_path / "thousands.csv"
    thousands.write_text('quote_date,expiry,strike,option_type,bid,ask\n2024-01-02,2024-06-21,"4,800",P,"1,234",1300\n')
    assert read_quotes(thousands).frame[["strike", "bid"]].to_numpy().tolist() == [[4800.0, 1234.0]]


@pytest.mark.parametrize(
    ("column", "value", "hint"),
    [
        ("quote_date", "45293", "it looks like an Excel day number"),
        ("expiry", "2999-01-01", "years 1900 to 2199 are read"),
        ("strike", "80 USD", "strike is '80 USD', which is no number"),
        ("option_type", "Kauf", "option type is 'Kauf'; C, P, call and put are known"),
    ],
)
def test_values_that_cannot_be_read_say_why(column: str, value: str, hint: str, tmp_path: Path) -> None:
    assert hint in inspected(tmp_path / "odd.csv", chain().assign(**{column: value}))


def test_bids_and_asks_the_wrong_way_round(tmp_path: Path) -> None:
    frame = chain()
    shown = inspected(tmp_path / "swapped.csv", frame.assign(bid=frame["ask"], ask=frame["bid"]))
    assert "18 crossed" in shown
    assert "is above ask" in shown
    assert "nan" not in shown


def test_nested_parquet_columns(tmp_path: Path) -> None:
    base = {"quote_date": ["2024-01-02"], "expiry": ["2024-06-21"], "strike": [90.0], "option_type": ["P"]}
    for name, extra, words in (
        ("struct", {"quote": [{"bid": 1.0, "ask": 1.1}]}, "no known format"),
        ("list", {"bid": [[1.0, 2.0]], "ask": [[1.0, 2.0]]}, "which is no number"),
    ):
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(pa.table({**base, **extra}), path)
        assert words in run("inspect", path)[1]


def test_names_that_promise_another_packing(tmp_path: Path) -> None:
    text = chain().to_csv(index=False).encode()
    assert inspected(tmp_path / "plain.csv.gz", text).rstrip().endswith("20.00")
    assert inspected(tmp_path / "packed.csv", gzip.compress(text)).rstrip().endswith("20.00")
    for content, words in (
        (gzip.compress(text)[:200], "damaged or incomplete"),
        (b"\x1f\x8b" + b"x" * 300, "damaged or incomplete"),
        (b"PK\x03\x04" + b"x" * 300, "Excel workbook or zip archive"),
        (b"\n<!DOCTYPE html><html>404</html>", "this is a web page, not a table"),
    ):
        assert words in inspected(tmp_path / "other.csv.gz", content)


def test_absurd_sizes_do_not_matter(tmp_path: Path) -> None:
    frame = chain()
    names = ["strike", "bid", "ask", "spot"]
    assert inspected(tmp_path / "big.csv", frame.assign(**1e9 * frame[names])).rstrip().endswith("20.00")


@pytest.mark.parametrize("rate", ["5", "-0.6", "0.5=0.04,1=4"])
@pytest.mark.parametrize("option", ["--rate", "--dividend-yield"])
def test_rates_in_percent_are_refused(option: str, rate: str) -> None:
    code, output = run(*PRICE, "--expiry", "0.5", option, rate)
    assert code == 2
    assert "rates are decimals: 0.05, not 5" in output


@pytest.mark.parametrize("rate", ["-0.5", "1", "0"])
def test_rates_at_the_limits_are_taken(rate: str) -> None:
    assert run(*PRICE, "--expiry", "0.5", "--rate", rate)[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*PRICE, "--expiry", "0.5", "--rate", "5%"], "--rate: '5%' is not a number; write a decimal: 0.05, not 5%"),
        ([*PRICE, "--expiry", "0.5", "--rate", "nan"], "error: rate: input should be a finite number (got nan)\n"),
        ([*PRICE, "--expiry", "nan"], "error: expiry: input should be a finite number (got nan)\n"),
        ([*PRICE, "--expiry", "20261218"], "expiry is 20,261,218 years away: give years (0.5) or a date (2026-12-18)"),
        ([*PRICE, "--expiry", "0.5", "-k", "inf"], "error: strikes.1: input should be a finite number (got inf)\n"),
        (["implied-vol", "--vol", "20", "--strike", "100", "--expiry", "1", "--spot", "100"],
         "volatilities are positive annualised decimals: 0.2, not 20"),
    ],
    ids=["percent sign", "nan", "nan years", "date as years", "infinite strike", "percent vol"],
)  # fmt: skip
def test_options_in_other_units(options: list[str], message: str) -> None:
    code, output = run(*options)
    assert code == 2
    assert message in output
