"""`qsde price request.json`: the table, the answer file, and one sentence for whatever is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qsde import __version__
from qsde.calibration import calibrate
from qsde.cli import app
from qsde.market.surface import Surface
from qsde.spec import PriceRequest, PriceResult, dump_fits, parsed, template

REQUESTS = Path(__file__).resolve().parents[1] / "data" / "requests"
CALL = {"type": "european", "strike": 100.0, "expiry": 1.0}
PLAIN: dict[str, Any] = {
    "model": {"model": "black_scholes", "vol": 0.2},
    "market": {"spot": 100.0, "rate": 0.05},
    "payoffs": [CALL, {"type": "asian", "strike": 100.0, "fixings": [0.25, 0.5, 0.75, 1.0]}],
    "engine": {"type": "monte_carlo", "paths": 1024, "seed": 4},
}


def qsde(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def refused(*args: object) -> str:
    """The message of a command that must end with exit code 2, one line and no traceback."""
    result = qsde(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr.removeprefix("pricing 1 payoff ...\n")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(**changes: Any) -> Path:
        path = tmp_path / "request.json"
        path.write_text(json.dumps({**PLAIN, **changes}), encoding="utf-8")
        return path

    return to_file


def table(result: Result) -> list[list[str]]:
    lines = result.stdout.splitlines()
    start = next(i for i, text in enumerate(lines) if set(text.strip()) == {"─"})
    return [[cell.strip() for cell in text.split("  ") if cell.strip()] for text in lines[start + 1 :] if text.strip()]


@pytest.mark.parametrize("name", ["european", "exotics", "basket"])
def test_examples_run_and_their_answers_are_requests_again(name: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "result.json"
    result = qsde("price", REQUESTS / f"{name}.json", "--out", out)
    assert result.exit_code == 0, result.output
    assert "\x1b[" not in result.output
    answer = parsed(PriceResult, out.read_bytes())
    asked = parsed(PriceRequest, (REQUESTS / f"{name}.json").read_bytes())
    assert answer.request == asked
    assert [p.type for p in answer.payoffs] == [p.type for p in asked.payoffs]
    assert answer.qsde_version == __version__
    assert list(out.parent.iterdir()) == [out]
    again = qsde("price", REQUESTS / f"{name}.json")
    assert table(again) == table(result)[:-1]


def test_a_simulation_shows_values_with_errors_and_how_it_was_made(write: Any) -> None:
    result = qsde("price", write())
    assert result.exit_code == 0, result.output
    assert "BlackScholes, spot 100; at 1 years forward 105.12711, discount factor 0.95122942" in result.stdout
    assert "Monte Carlo, 1,024 paths, threefry noise, seed 4, float64" in result.stdout
    assert "discounted, in the currency of the spot; times in years" in result.stdout
    assert "pricing 2 payoffs" in result.stderr
    (call, asian) = table(result)
    assert call[:2] == ["european", "strike 100, expiry 1"]
    assert asian[:2] == ["asian", "strike 100, fixings [0.25 ... 1; 4]"]
    value, error, percent = (float(x) for x in call[2:])
    assert abs(value - 10.450584) < 4 * error
    assert percent == pytest.approx(100 * error / value, rel=0.05)


def test_rights_to_exercise_show_their_bounds(write: Any) -> None:
    put = {"type": "bermudan", "strike": 110.0, "dates": [0.5, 1.0]}
    result = qsde("price", write(payoffs=[CALL, put]))
    assert "upper bound" in result.stdout
    call, right = table(result)
    assert call[-2:] == ["-", "-"]
    assert right[:2] == ["bermudan", "strike 110, dates [0.5, 1]"]
    value, error, _, upper, upper_error = (float(x) for x in right[2:])
    assert abs(upper - value) < 4 * (error + upper_error) < 0.1 * value


def test_each_payoff_is_priced_by_what_suits_it(write: Any) -> None:
    result = qsde("price", write(engine={"type": "auto", "paths": 1024, "seed": 4}))
    call, asian = table(result)
    assert call[2:] == ["10.450584", "exact", "-"]
    assert asian == table(qsde("price", write()))[1]
    assert "Monte Carlo, 1,024 paths" in result.stdout
    alone = qsde("price", write(payoffs=[CALL], engine={"type": "auto"}))
    assert "exact prices" in alone.stdout
    assert float(table(alone)[0][-1]) < 1e-10


def test_fourier_shows_its_numerical_error(write: Any, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    result = qsde("price", write(payoffs=[CALL], engine={"type": "fourier"}), "--out", out)
    ((name, _, value, error), last) = table(result)
    assert name == "european"
    assert float(value) == pytest.approx(10.450584, abs=1e-6)
    assert float(error) < 1e-10
    assert last == [f"result: {out}"]
    (payoff,) = json.loads(out.read_text())["payoffs"]
    assert payoff["std_error"] is None
    assert payoff["value"] == pytest.approx(10.450583572185565, rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, on first forward tangents
def test_a_fit_stands_in_for_model_and_market(write: Any, tmp_path: Path) -> None:
    surface = Surface.from_vols(1.0, [80.0, 90.0, 100.0, 110.0, 120.0], 0.2, 103.0, 0.95, spot=100.0)
    file = tmp_path / "fit.json"
    file.write_text(dump_fits([calibrate(template("black_scholes"), surface)]))
    path = tmp_path / "with_fit.json"
    path.write_text(json.dumps({"fit": {"file": str(file)}, "payoffs": [CALL], "engine": {"type": "fourier"}}))
    result = qsde("price", path)
    assert "spot 100; at 1 years forward 103, discount factor 0.95" in result.stdout
    by_options = qsde("price", "--fit", file, "--strike", 100, "--expiry", 1).stdout
    assert float(table(result)[0][2]) == pytest.approx(float(by_options.strip().splitlines()[-1].split()[1]), rel=1e-7)
    path.write_text(json.dumps({"fit": {"file": str(file), "model": "heston"}, "payoffs": [CALL]}))
    assert refused("price", path).endswith("holds the fits black_scholes: choose with model\n")
    path.write_text(json.dumps({"fit": {"file": str(tmp_path / "none.json")}, "payoffs": [CALL]}))
    assert refused("price", path) == f"error: {tmp_path / 'none.json'}: no such file or directory\n"


def test_an_answer_of_before_survives_a_failure(write: Any, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    out.write_text("before")
    refused("price", write(payoffs=[{"type": "bermudan", "strike": 100.0, "dates": [1.0]}], engine={"type": "fourier"}),
            "--out", out)  # fmt: skip
    assert out.read_text() == "before"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payoffs": [CALL, CALL, {**CALL, "strike": -1}]}, "payoffs.2.strike: must be positive and finite, got -1.0"),
        ({"payoffs": [{**CALL, "strike": float("nan")}]}, "payoffs.0.strike: input should be a finite number (got nan"),
        ({"payoffs": []}, "payoffs: needs at least 1, has 0"),
        ({"payoffs": [{**CALL, "type": "swaption"}]}, "payoffs.0.type: 'swaption' is unknown; choose one of american"),
        ({"payoffs": [{"type": "digital", "expiry": 1}], "engine": {"type": "fourier"}}, "payoffs.0.strike: field"),
        ({"payoffs": [{"type": "bermudan", "strike": 100.0, "dates": [1.0]}], "engine": {"type": "fourier"}},
         "payoffs.0: Bermudan has no exact price"),
        ({"engine": {"type": "monte_carlo", "max_dt": 1e-7}, "payoffs": [CALL],
          "model": {"model": "heston", "v0": 0.04, "kappa": 1, "theta": 0.04, "sigma": 0.3, "rho": 0}},
         "more than 1,048,576 steps are needed"),
        ({"engine": {"type": "monte_carlo", "device": "quantum"}}, "engine.device: choose cpu, cuda or"),
    ],
)  # fmt: skip
def test_bad_requests_name_file_and_field(changes: dict[str, Any], message: str, write: Any) -> None:
    path = write(**changes)
    assert refused("price", path).startswith(f"error: {path}: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; give a JSON object"),
        (b"strike,expiry\n100,1\n", "invalid JSON"),
        (b'{"payoffs": [', "invalid JSON: EOF"),
        (b"[" * 100_000, "invalid JSON: recursion limit"),
        (b"\xff\xfe\x00", "invalid JSON"),
        (b"[1, 2]", "input should be an object"),
        (b'{"strike": 100}', "payoffs: field required; strike: extra inputs are not permitted"),
        (b" " * ((1 << 25) + 1), "a request has at most 33,554,432 bytes"),
    ],
    ids=["empty", "CSV", "cut off", "deep", "binary", "list", "other object", "huge"],
)
def test_files_that_are_no_requests(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(content)
    assert refused("price", path).startswith(f"error: {path}: {message}")


def test_files_that_are_no_files(write: Any, tmp_path: Path) -> None:
    assert "no such file" in refused("price", tmp_path / "none.json")
    assert "is a directory" in refused("price", tmp_path)
    assert "is a folder: give a file name" in refused("price", write(), "--out", tmp_path)


@pytest.mark.parametrize("option", [["--spot", "100"], ["--put"], ["-k", "100"], ["-m", "heston"], ["--rate", "0"]])
def test_options_do_not_mix_with_a_request(option: list[str], write: Any) -> None:
    assert "says what to price, so leave out --" in refused("price", write(), *option)


def test_neither_request_nor_options() -> None:
    assert "give --strike and --expiry, or a request file" in refused("price")
    assert "give --strike and --expiry, or a request file" in refused("price", "-m", "heston", "--expiry", 1)
    assert "--out goes with a request file" in refused("price", "--strike", 100, "--expiry", 1, "--out", "x.json")
