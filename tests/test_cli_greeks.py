"""`qsde greeks`: the tables, the answer file, the options for European ones, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qsde.calibration import calibrate
from qsde.cli import app
from qsde.market.surface import Surface
from qsde.spec import GreeksRequest, GreeksResult, dump_fits, parsed, template

REQUESTS = Path(__file__).resolve().parents[1] / "data" / "requests"
CALL = {"type": "european", "strike": 100.0, "expiry": 1.0}
PLAIN: dict[str, Any] = {
    "model": {"model": "black_scholes", "vol": 0.2},
    "market": {"spot": 100.0, "rate": 0.05},
    "payoffs": [CALL],
    "engine": {"type": "fourier"},
    "greeks": {"which": ["delta", "gamma", "vega", "theta"]},
}
FLAT = ["--model", "black_scholes", "-p", "vol=0.2", "--strike", 100, "--expiry", 1]


def qsde(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def refused(*args: object) -> str:
    """The message of a command that must end with exit code 2, one line and no traceback."""
    result = qsde(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr.splitlines()[-1]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(**changes: Any) -> Path:
        path = tmp_path / "request.json"
        path.write_text(json.dumps({**PLAIN, **changes}), encoding="utf-8")
        return path

    return to_file


def rows(result: Result) -> list[list[str]]:
    """The cells of the lines of all tables."""
    assert result.exit_code == 0, result.output
    cells = [[c.strip() for c in text.split("  ") if c.strip()] for text in result.stdout.splitlines()]
    return [row for row in cells if len(row) == 5 and row[0] != "greek"]


def test_the_example_runs_and_its_answer_is_a_request_again(tmp_path: Path) -> None:
    out = tmp_path / "new" / "result.json"
    path = REQUESTS / "greeks.json"
    result = qsde("greeks", path, "--out", out)
    assert result.exit_code == 0, result.output
    assert "\x1b[" not in result.output
    answer = parsed(GreeksResult, out.read_bytes())
    assert answer.request == parsed(GreeksRequest, path.read_bytes())
    assert [p.type for p in answer.payoffs] == ["european", "digital", "asian"]
    assert [p.method.split()[0] for p in answer.payoffs] == ["conditional", "conditional", "pathwise"]
    assert list(out.parent.iterdir()) == [out]
    shown = rows(result)
    assert len(shown) == 3 * 8
    for row, (payoff, greek) in zip(shown, [(p, g) for p in answer.payoffs for g in p.greeks], strict=True):
        assert row[0] == greek.greek
        assert float(row[1].replace(",", "")) == pytest.approx(greek.value, rel=1e-7)
        assert float(row[2]) == pytest.approx(greek.std_error, rel=0.05)
        assert row[3:] == [greek.unit, payoff.method]


def test_exact_greeks_to_the_digit(write: Any) -> None:
    result = qsde("greeks", write())
    assert rows(result) == [
        ["delta", "0.63683065", "-", "per 1.00 of spot", "fourier"],
        ["gamma", "0.018762017", "-", "per 1.00 of spot, twice", "fourier"],
        ["vega", "0.37524035", "-", "per vol point", "fourier"],
        ["theta", "-0.017572678", "-", "per calendar day", "fourier"],
    ]
    assert "BlackScholes, spot 100; at 1 years forward 105.12711, discount factor 0.95122942" in result.stdout
    assert "european: strike 100, expiry 1" in result.stdout
    assert "Greeks of 1 payoff" in result.stderr


def test_each_payoff_has_its_table_and_a_book_has_one(write: Any) -> None:
    payoffs = [CALL, {**CALL, "type": "digital", "kind": "put"}]
    each = qsde("greeks", write(payoffs=payoffs))
    assert "european: strike 100, expiry 1" in each.stdout
    assert "digital: strike 100, expiry 1, kind put" in each.stdout
    assert len(rows(each)) == 8
    book = qsde("greeks", write(payoffs=payoffs, greeks={**PLAIN["greeks"], "total": True}))
    assert "book of 2 payoffs" in book.stdout
    both = [float(a[1]) + float(b[1]) for a, b in zip(rows(each)[:4], rows(each)[4:], strict=True)]
    assert [float(row[1]) for row in rows(book)] == pytest.approx(both, abs=2e-8)


def test_the_same_seed_gives_the_same_digits(write: Any) -> None:
    asian = {"type": "asian", "strike": 100.0, "fixings": [0.5, 1.0]}
    path = write(payoffs=[asian], engine={"type": "monte_carlo", "paths": 1024, "seed": 3})
    first, second = (qsde("greeks", path) for _ in range(2))
    assert rows(first) == rows(second)
    assert "Monte Carlo, 1,024 paths, threefry noise, seed 3, float64" in first.stdout
    other = write(payoffs=[asian], engine={"type": "monte_carlo", "paths": 1024, "seed": 4})
    assert rows(qsde("greeks", other)) != rows(first)


def test_options_are_the_request_for_european_options(write: Any, tmp_path: Path) -> None:
    names = [part for name in PLAIN["greeks"]["which"] for part in ("-g", name)]
    out = tmp_path / "answer.json"
    quick = qsde("greeks", *FLAT, "--spot", 100, "--rate", 0.05, *names, "--out", out)
    assert rows(quick) == rows(qsde("greeks", write()))
    assert parsed(GreeksResult, out.read_bytes()).request.engine.type == "auto"
    raw = qsde("greeks", *FLAT, "--spot", 100, "--rate", "0.05", "-g", "vega", "--units", "raw", "--put")
    assert rows(raw) == [["vega", "37.524035", "-", "per 1.00 of vol", "fourier"]]
    assert "strike 100, expiry 1, kind put" in raw.stdout
    price = qsde("price", *FLAT, "--spot", 100, "--rate", 0.05).stdout.strip().splitlines()[-1].split()[1]
    worth = rows(qsde("greeks", *FLAT, "--spot", 100, "--rate", 0.05, "-g", "price"))[0][1]
    assert float(worth) == pytest.approx(float(price), abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, on first forward tangents
def test_a_fit_stands_in_for_model_and_market(tmp_path: Path) -> None:
    surface = Surface.from_vols(1.0, [80.0, 90.0, 100.0, 110.0, 120.0], 0.2, 105.1271096, 0.9512294245, spot=100.0)
    file = tmp_path / "fit.json"
    file.write_text(dump_fits([calibrate(template("black_scholes"), surface)]))
    found = rows(qsde("greeks", "--fit", file, "--strike", 100, "--expiry", 1, "-g", "delta"))
    assert float(found[0][1]) == pytest.approx(0.63683065, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"greeks": {"which": ["delta", "speed"]}},
            "greeks: no Greek 'speed' for BlackScholes here; there are price, d",
        ),
        ({"greeks": {"units": "percent"}}, "greeks.units: input should be 'trader' or 'raw'"),
        ({"payoffs": [CALL, {**CALL, "strike": -1}]}, "payoffs.1.strike: must be positive and finite, got -1.0"),
        ({"payoffs": []}, "payoffs: needs at least 1, has 0"),
    ],
)
def test_bad_requests_name_file_and_field(changes: dict[str, Any], message: str, write: Any) -> None:
    path = write(**changes)
    assert refused("greeks", path).startswith(f"error: {path}: {message}")


def test_an_answer_of_before_survives_a_failure(write: Any, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    out.write_text("before")
    refused("greeks", write(greeks={"which": ["speed"]}), "--out", out)
    assert out.read_text() == "before"
    assert "is a folder: give a file name" in refused("greeks", write(), "--out", tmp_path)
    assert "is a folder: give a file name" in refused("greeks", *FLAT, "--spot", 100, "--out", tmp_path)


@pytest.mark.parametrize("option", [["--spot", "100"], ["--put"], ["-g", "delta"], ["--units", "raw"], ["-m", "kou"]])
def test_options_do_not_mix_with_a_request(option: list[str], write: Any) -> None:
    assert "says what to price, so leave out --" in refused("greeks", write(), *option)


def test_options_that_are_missing_or_wrong() -> None:
    assert "give --strike and --expiry, or a request file: qsde greeks request.json" in refused("greeks")
    assert "give --spot" in refused("greeks", *FLAT)
    assert "no Greek 'speed'" in refused("greeks", *FLAT, "--spot", 100, "-g", "speed")
    assert "greeks.units: input should be" in refused("greeks", *FLAT, "--spot", 100, "--units", "percent")
    assert "give a model: --model" in refused("greeks", "--strike", 100, "--expiry", 1, "--spot", 100)
