"""The command line: every command, every message a user may meet, and no traceback."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from typer.testing import CliRunner, Result

from qsde import __version__
from qsde.calibration import Fit
from qsde.cli import app
from qsde.cli.show import progress
from qsde.errors import NumericsError
from qsde.spec import load_fits

DATA = Path(__file__).resolve().parents[1] / "data"
DAX = str(DATA / "dax_2002-07-05" / "dax_2002-07-05.csv")
GOOG = str(DATA / "goog_2015_intraday" / "goog_hourly_2015-12-23.parquet")
COMMANDS = ("inspect", "calibrate", "batch", "price", "implied-vol")
HESTON = ["-p", "v0=0.04", "-p", "kappa=1.5", "-p", "theta=0.05", "-p", "sigma=0.4", "-p", "rho=-0.7"]


def qsde(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def refused(*args: object) -> str:
    """The message of a command that must end with exit code 2, one line and no traceback."""
    result = qsde(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert "\x1b[" not in result.output
    return result.stderr


@pytest.fixture(scope="module")
def fit_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    folder = tmp_path_factory.mktemp("fits") / "new"
    out, report = folder / "fit.json", folder / "report.html"
    result = qsde("calibrate", DAX, "--model", "heston", "-m", "black_scholes", "--out", out, "--report", report)
    return out, report, result


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    frame = pd.DataFrame({"K": [90.0, 100.0, 110.0], "option_type": ["P", "C", "C"], "expiry": "2024-06-21",
                          "quote_date": "2024-01-02", "implied_vol": [0.22, 0.2, 0.19], "forward": 100.0})  # fmt: skip
    path = tmp_path / "tiny.csv"
    frame.to_csv(path, index=False)
    return path


def test_version_and_help() -> None:
    assert qsde("--version").stdout == f"qsde {__version__}\n"
    overview = qsde("--help").stdout
    assert all(command in overview for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    result = qsde(command, "--help")
    assert result.exit_code == 0
    assert f"qsde {command}" in result.stdout.split("Example:")[1]


def test_the_package_is_the_command() -> None:
    shown = subprocess.run([sys.executable, "-m", "qsde", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"qsde {__version__}\n"


def test_help_is_quick_because_it_does_not_load_torch() -> None:
    code = "import sys; from qsde.cli import app; app(['--help'], standalone_mode=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
    assert "pandas" not in done.stderr


def test_inspect_one_surface_shows_forwards() -> None:
    result = qsde("inspect", DAX)
    assert result.exit_code == 0, result.output
    assert "DAX 2002-07-05" in result.stdout
    assert "Forwards and rates" in result.stdout
    assert "zero rate, % p.a." in result.stdout
    assert "\x1b[" not in result.output


def test_inspect_lists_surfaces_and_chooses() -> None:
    every = qsde("inspect", GOOG)
    assert every.stdout.count("GOOG 2015-12-23") == 7
    # each of the seven surfaces says how large the premium was
    assert every.stderr.count("American options: early-exercise premium removed") == 7
    assert qsde("inspect", GOOG, "--surface", "3").stdout.count("GOOG 2015-12-23 17:00") == 1
    assert qsde("inspect", GOOG, "--date", "2015-12-23T18").stdout.count("GOOG 2015-12-23 18:00") == 1
    assert "taken as European" in qsde("inspect", GOOG, "--surface", "3", "--as-european", "--fold").stderr
    assert "no surface matches; the file holds GOOG 2015-12-23 15:00" in refused("inspect", GOOG, "--symbol", "AAPL")


def test_calibrate_prints_a_summary_and_writes_both_files(fit_files: tuple[Path, Path, Result]) -> None:
    out, report, result = fit_files
    assert result.exit_code == 0, result.output
    for words in ("RMSE, bp of vol", "Heston", "BlackScholes", "mean reversion per year", "std. error", str(report)):
        assert words in result.stdout, words
    heston, flat = load_fits(out.read_text())
    assert heston.model.name == "Heston"
    assert heston.rmse_bp < flat.rmse_bp
    assert heston.sse_vol_percent < 182  # the least there is in implied vol
    assert "<h1>DAX: Heston and BlackScholes</h1>" in report.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, on first forward tangents
def test_calibrate_obeys_fix_and_bound(tmp_path: Path) -> None:
    out = tmp_path / "fit.json"
    result = qsde("calibrate", DAX, "-m", "heston", "--fix", "kappa=2", "--bound", "rho=-0.5,0.5", "--feller",
                  "--prior", "v0=0.1,0.01", "--weights", "equal", "--starts", 2, "--out", out)  # fmt: skip
    assert result.exit_code in (0, 1), result.output
    (fit,) = load_fits(out.read_text())
    assert fit.params["kappa"] == pytest.approx(2.0, abs=1e-12)
    assert "kappa" not in fit.free
    assert -0.5 <= fit.params["rho"] <= 0.5
    assert "fixed" in result.stdout


def test_calibrate_that_does_not_converge_says_so() -> None:
    result = qsde("calibrate", DAX, "-m", "heston", "--max-iterations", 1, "--starts", 1)
    assert result.exit_code == 1
    assert "NO" in result.stdout
    assert "raise max_iterations" in result.stderr


def test_calibrate_asks_which_surface() -> None:
    message = refused("calibrate", GOOG, "-m", "heston")
    assert "7 surfaces" in message
    assert "GOOG 2015-12-23 15:00:00Z" in message
    assert "--date" in message
    assert "qsde batch" in message


def test_columns_can_be_mapped(tiny: Path) -> None:
    assert "--map" in refused("calibrate", tiny, "-m", "black_scholes")
    result = qsde("calibrate", tiny, "-m", "black_scholes", "--map", "strike=K", "--underlying", "abc",
                  "--rate", "0.02", "--timezone", "America/New_York")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "ABC" in result.stdout


def test_treasury_rates_are_those_of_the_quote_day() -> None:
    yields = DATA / "history_rates" / "ust_par_yields_1998_2022.csv"
    result = qsde("inspect", GOOG, "--surface", 1, "--treasury", yields)
    assert result.exit_code == 0, result.output
    rate = float(result.stdout.strip().splitlines()[-1].split()[5])  # % per year, two years, December 2015
    assert 0.9 < rate < 1.1
    assert "not both" in refused("inspect", GOOG, "--treasury", yields, "--rate", 0.01)
    assert "nowhere.csv" in refused("inspect", GOOG, "--surface", 1, "--treasury", "nowhere.csv")


BAD_OPTIONS = [
    (["-m", "sabr"], "no model is called 'sabr'"),
    (["-m", "heston", "--fix", "kappa"], "--fix 'kappa': write NAME=VALUE, such as kappa=2"),
    (["-m", "heston", "--fix", "kappa=two"], "--fix kappa: 'two' is not a number"),
    (["-m", "heston", "--fix", "kapa=2"], "heston has no parameter 'kapa'"),
    (["-m", "heston", "--fix", "kappa=2", "--fix", "kappa=3"], "kappa is given twice"),
    (["-m", "heston", "--fix", "rho=-2"], "Heston.rho"),
    (["-m", "heston", "--bound", "kappa=10,0.1"], "the lower bound 10 must be below the upper bound 0.1"),
    (["-m", "heston", "--bound", "kappa=10"], "write two numbers, such as kappa=0.1,10"),
    (["-m", "heston", "--weights", "vega"], "weights: input should be 'spread' or 'equal'"),
    (["-m", "heston", "--starts", "0"], "starts: input should be greater than or equal to 1"),
    (["-m", "merton", "--feller"], "no variance process"),
    (["-m", "heston", "--rate", "4.5"], "not percent"),
    (["-m", "heston", "--rate", "1y"], "--rate: '1y' is not a number"),
    (["-m", "heston", "--rate", "-1=0.04"], "rate: pillars must be positive"),
    (["-m", "heston", "--seed", str(1 << 64)], "seed: input should be less than 18446744073709551616"),
    (["-m", "heston", "--treasury", str(DATA)], f"{DATA}: is a directory"),
    (["-m", "heston", "--spot", "-5"], "spot: input should be greater than 0"),
    (["-m", "heston", "--map", "strike"], "--map 'strike': write NAME=VALUE, such as strike=K"),
    (["-m", "heston", "--date", "1999"], "no surface matches; the file holds DAX 2002-07-05"),
    (["-m", "heston", "--out", "/"], "is a folder: give a file name"),
    (["-m", "heston", "--report", "/proc/none/report.html"], "/proc/none"),
    (["-m", "heston", "--vendor", "nobody"], "nobody"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=[" ".join(o[2:] or o) for o, _ in BAD_OPTIONS])
def test_bad_options(options: list[str], message: str) -> None:
    assert message in refused("calibrate", DAX, *options)


def table(**columns: object) -> str:
    base = {"quote_date": "2024-01-02", "underlying": "X", "expiry": ["2024-06-21"] * 2, "strike": [90.0, 110.0],
            "option_type": ["P", "C"], "bid": [1.0, 1.2], "ask": [1.1, 1.3], "forward": 100.0}  # fmt: skip
    return pd.DataFrame({**base, **columns}).to_csv(index=False)


BAD_FILES = {
    "empty.csv": (b"", "empty"),
    "header.csv": (table().splitlines()[0].encode(), "no "),
    "columns.csv": (b"apple,pear\n1,2\n", "apple"),
    "expired.csv": (table(expiry=["2023-06-21"] * 2).encode(), "expired"),
    "negative.csv": (table(bid=[-1.0, -2.0], ask=[-0.5, -1.0]).encode(), "negative price"),
    "nan.csv": (table(bid=[np.nan] * 2, ask=[np.nan] * 2).encode(), "no quote"),
    "words.csv": (table(strike=["ninety", "many"]).encode(), "2 unreadable): the first of them says: strike"),
    "word_bids.csv": (table(bid=["n/a", "oops"]).encode(), "1 unreadable, 1 zero bid"),
    "half.parquet": (Path(GOOG).read_bytes()[:100_000], "not a complete parquet file; copy or download it again"),
    "renamed.parquet": (b"apple,pear\n1,2\n", "found: 'apple', 'pear'"),
    "torn.parquet": (b"PAR1\x00\x01", "parquet"),
    "broken.json": (b'{"a": [1, 2', "json"),
    "binary.csv": (bytes(range(256)) * 8, ""),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name: str, tmp_path: Path) -> None:
    content, word = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert word in refused("calibrate", path, "-m", "black_scholes").lower()


def one_day(path: Path, option_types: str = "CP", repeat: int = 1, **columns: object) -> Path:
    """Quotes at 20 % vol of one expiry without spot, forward or rate."""
    strike, forward, t = np.linspace(80.0, 120.0, 9), 100.0, 171 / 365
    call = norm.cdf(np.log(forward / strike) / (0.2 * np.sqrt(t)) + 0.1 * np.sqrt(t)) * forward - strike * norm.cdf(
        np.log(forward / strike) / (0.2 * np.sqrt(t)) - 0.1 * np.sqrt(t)
    )
    parts = [
        pd.DataFrame({"strike": strike, "option_type": side, "price": call if side == "C" else call - forward + strike})
        for side in option_types
    ]
    frame = pd.concat(parts * repeat).assign(
        quote_time="2024-01-02T21:00Z", expiry_time="2024-06-21T21:00Z", expiry="2024-06-21", underlying="X",
        bid=lambda q: 0.99 * q["price"], ask=lambda q: 1.01 * q["price"], **columns,
    )  # fmt: skip
    frame.drop(columns="price").to_csv(path, index=False)
    return path


def fitted_vol(*args: object) -> tuple[float, str]:
    result = qsde("calibrate", *args, "-m", "black_scholes")
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    row = next(line.split() for line in result.stdout.splitlines() if line.strip().startswith("vol "))
    return float(row[4]), result.stderr


def test_one_quote_is_fitted_with_every_doubt_spoken_out(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("\n".join(table().splitlines()[:2]))
    vol, warnings = fitted_vol(path)
    assert 0.1 < vol < 0.25
    for words in ("only one expiry", "fewer than 5 strikes", "standard errors need more quotes than parameters"):
        assert words in warnings, words
    assert "no discount factor for 1 of 1 expiries: 1 is assumed" in warnings


def test_one_expiry_without_spot_or_rate_is_fitted_from_parity(tmp_path: Path) -> None:
    vol, warnings = fitted_vol(one_day(tmp_path / "day.csv"))
    assert vol == pytest.approx(0.2, abs=1e-4)
    assert "only one expiry: the term structure of the model is not determined" in warnings


def test_duplicated_rows_count_once(tmp_path: Path) -> None:
    path = one_day(tmp_path / "twice.csv", repeat=2)
    assert fitted_vol(path)[0] == pytest.approx(0.2, abs=1e-4)
    assert "duplicate 18" in qsde("inspect", path).stdout


def test_some_missing_and_negative_prices_cost_only_their_rows(tmp_path: Path) -> None:
    path = one_day(tmp_path / "spoilt.csv")
    frame = pd.read_csv(path)
    frame.loc[2, ["bid", "ask"]] = np.nan
    frame.loc[15, "bid"] = -1.0
    frame.to_csv(path, index=False)
    assert fitted_vol(path)[0] == pytest.approx(0.2, abs=1e-4)
    shown = qsde("inspect", path)
    assert "negative price 1" in shown.stdout
    assert "no quote 1" in shown.stdout


@pytest.mark.parametrize("side", ["C", "P"])
def test_one_side_only_needs_a_forward_from_elsewhere(side: str, tmp_path: Path) -> None:
    path = one_day(tmp_path / "side.csv", side)
    message = refused("calibrate", path, "-m", "heston")
    assert "9 no forward" in message
    assert "--rate 0.03 --dividend-yield 0.01 --spot 100" in message
    assert "--spot 100" in refused("calibrate", path, "-m", "heston", "--rate", 0, "--dividend-yield", 0)
    vol, _ = fitted_vol(path, "--rate", 0, "--dividend-yield", 0, "--spot", 100)
    assert vol == pytest.approx(0.2, abs=1e-4)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refused("inspect", tmp_path / "missing.csv")
    assert str(tmp_path) in refused("inspect", tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ["calibrate", DAX, "-m", "heston", "--out"],
        ["calibrate", DAX, "-m", "heston", "--report"],
        ["evaluate", DAX, "-m", "heston", "--out"],
        ["batch", DAX, "-m", "heston", "--out"],
    ],
    ids=lambda command: " ".join(command[::4]),
)
def test_what_cannot_be_written_is_said_before_the_work(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file" / "fits.parquet", "/proc/fits.parquet", tmp_path / "pipe", ""):
        message = refused(*command, path)
        assert "fitting" not in message or "batch" in command
        assert "cannot be written" in message or "give a file name" in message


def test_evaluate_holds_out_no_single_expiry_and_asks_for_the_spot(tmp_path: Path) -> None:
    strike = np.linspace(80.0, 120.0, 9)
    frame = pd.DataFrame({"strike": strike, "option_type": np.where(strike < 100, "P", "C"), "expiry": "2024-06-21",
                          "quote_date": "2024-01-02", "implied_vol": 0.2, "forward": 100.0})  # fmt: skip
    path = tmp_path / "one.csv"
    frame.to_csv(path, index=False)
    asked = ["evaluate", path, "-m", "black_scholes", "--hold-out", 3]
    assert "exotics need the price of the underlying: give --spot, or --no-exotics" in refused(*asked)
    result = qsde(*asked, "--no-exotics")
    assert result.exit_code == 0, result.output
    assert "3 held out, 1 expiries" in result.stdout
    assert "others left to fit" in refused(*asked, "--no-exotics", "--expiry", 1)


def test_size_limit_is_named() -> None:
    assert "--max-bytes" in refused("inspect", DAX, "--max-bytes", "1000")


def test_selection_is_counted_and_is_part_of_the_settings(tmp_path: Path) -> None:
    selected = ["--min-days", 30, "--max-days", 400, "--max-deviations", 2]
    result = qsde("inspect", DAX, *selected)
    assert result.exit_code == 0, result.output
    assert "not selected" in result.stdout
    report, out = tmp_path / "report.html", tmp_path / "fits.parquet"
    fitted = qsde("calibrate", DAX, "-m", "black_scholes", *selected, "--report", report)
    assert fitted.exit_code == 0, fitted.output
    assert "not selected" in report.read_text(encoding="utf-8")
    for options, earlier in ((selected, False), (selected, True), ([], False)):
        again = qsde("batch", DAX, "-m", "black_scholes", *options, "--out", out)
        assert ("done earlier" in again.stdout) == earlier
    assert "min_days = 9 and max_days = 3" in refused("inspect", DAX, "--min-days", 9, "--max-days", 3)
    assert "max_deviations: input should be greater than 0" in refused("inspect", DAX, "--max-deviations", 0)
    assert "widen the selection" in refused("calibrate", DAX, "-m", "heston", "--min-days", 9999)


def test_batch_rows_resume_and_exit_codes(tmp_path: Path) -> None:
    out = tmp_path / "fits.parquet"
    good = qsde("batch", GOOG, "-m", "black_scholes", "--out", out)
    assert good.exit_code == 0, good.output
    assert "7 surfaces, 7 converged, 0 failed" in good.stdout
    mixed = qsde("batch", GOOG, tmp_path / "missing.csv", "-m", "black_scholes", "--out", out)
    assert mixed.exit_code == 1
    assert "8 surfaces, 7 converged, 1 failed, 1 files done earlier" in mixed.stdout
    assert "missing.csv: no such file" in mixed.stdout.replace("\n", "")
    assert len(pd.read_parquet(out)) == 8
    assert "parquet" in refused("batch", GOOG, "-m", "heston", "--out", tmp_path / "fits.csv")


def test_price_of_a_model_by_name() -> None:
    result = qsde("price", "--model", "heston", *HESTON, "--strike", 100, "-k", 110, "--expiry", 0.5, "--spot", 100,
                  "--rate", 0.03)  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.strip().startswith(("100 ", "110 "))]
    assert [float(r[1]) for r in rows] == pytest.approx([6.351530834, 1.982644221], rel=1e-9)
    assert all(float(r[3]) < 1e-8 for r in rows)


def test_price_from_a_fit(fit_files: tuple[Path, Path, Result]) -> None:
    fit: Fit = load_fits(fit_files[0].read_text())[0]
    row = fit.surface.quotes.iloc[len(fit.surface.quotes) // 2]
    side = "--call" if row["option_type"] == "C" else "--put"
    result = qsde("price", "--fit", fit_files[0], "-m", "Heston", "-k", row["strike"], "--expiry", row["expiry"], side)
    assert result.exit_code == 0, result.output
    printed = float(result.stdout.strip().splitlines()[-1].split()[1])
    assert printed == pytest.approx(float(fit.quotes["model_price"][row.name]), rel=1e-6)
    assert "choose with --model" in refused("price", "--fit", fit_files[0], "-k", 4000, "--expiry", 1)
    assert "beyond the last expiry" not in result.stderr
    far = qsde("price", "--fit", fit_files[0], "-m", "Heston", "-k", 4000, "--expiry", 30)
    assert "30 years lie beyond the last expiry of the fit's quotes" in far.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "heston", "-p", "v0=0.04"], "kappa: field required"),
        (["-m", "heston", *HESTON[:-1], "rho=-7"], "Heston.rho"),
        (["-m", "heston", *HESTON, "-p", "x=1"], "x: extra inputs"),
        (["-m", "heston", *HESTON, "--spot", "1e308"], "spot: input should be less than or equal to 1000000000000000"),
        ([], "give a model: --model heston --param v0=0.04"),
        (["--fit", "nowhere.json"], "nowhere.json"),
        (["-m", "heston", *HESTON, "--expiry", "soon"], "give years (0.5) or a date"),
        (["-m", "heston", *HESTON, "--expiry", "2001-01-01"], "expiry must lie in the future"),
        (["-m", "heston", *HESTON, "--expiry", "-1"], "expiry must lie in the future"),
        (["-m", "heston", *HESTON, "--forward", "99"], "not both"),
    ],
)
def test_bad_prices(options: list[str], message: str) -> None:
    defaults = [] if "--expiry" in options else ["--expiry", "1"]
    assert message in refused("price", "-k", 100, "--spot", 100, *defaults, *options)


def test_fit_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({"fits": [{}]}))
    assert "fits.0.model: field required" in refused("price", "--fit", path, "-k", 1, "--expiry", 1)


def test_implied_vol_and_back() -> None:
    market = ["--strike", 100, "--expiry", 1, "--spot", 100, "--rate", 0.05]
    forth = qsde("implied-vol", "--price", 10.45058357, *market)
    assert forth.exit_code == 0, forth.output
    assert float(forth.stdout.strip().splitlines()[-1].split()[2]) == pytest.approx(20.0, abs=1e-6)
    back = qsde("implied-vol", "--vol", 0.2, *market)
    assert float(back.stdout.strip().splitlines()[-1].split()[1]) == pytest.approx(10.45058357, abs=1e-8)
    assert "at or above the no-arbitrage maximum" in refused("implied-vol", "--price", 200, *market)
    assert "below intrinsic value" in refused("implied-vol", "--price", 1, *market)
    assert "either --price" in refused("implied-vol", *market)
    assert "volatilities are positive annualised decimals" in refused("implied-vol", "--vol", -1, *market)


def test_usage_errors_have_no_traceback() -> None:
    assert "Missing" in refused("calibrate")
    assert "No such option" in refused("inspect", DAX, "--nonsense")


def test_numerics_error_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NumericsError("Heston: no convergence")

    monkeypatch.setattr("qsde.io.read_quotes", fail)
    assert refused("inspect", DAX).splitlines()[-1] == "error: Heston: no convergence"


def test_bugs_ask_for_a_report_and_debug_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops [bold]")

    monkeypatch.setattr("qsde.io.read_quotes", fail)
    result = qsde("inspect", DAX)
    assert result.exit_code == 70
    assert result.stderr.splitlines()[-1] == (
        "error: internal error (ZeroDivisionError: oops [bold]); please report it with what --debug prints"
    )
    assert "Traceback" in qsde("inspect", DAX, "--debug").stderr
    assert "Traceback" in qsde("--debug", "inspect", DAX).stderr


def test_interruption_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qsde.io.read_quotes", interrupt)
    result = qsde("inspect", DAX)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_what_is_logged_meanwhile_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as the error after each step of a training."""
    log = logging.getLogger("qsde.calibration.training")
    with progress("fitting") as tell:
        tell(1, 2)
        log.info("step 1: 3.21 bp")
        log.debug("not this")
    log.info("nor this")
    assert capsys.readouterr().err.splitlines() == ["fitting ...", "step 1: 3.21 bp"]
