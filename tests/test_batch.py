"""Batches: one row per surface, failures as rows, nothing lost, nothing done twice."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import qsde.batch as batch_module
from qsde.batch import COLUMNS, Step, run_batch
from qsde.errors import FitStatus, InputError
from qsde.spec import CalibrationSpec

ROOT = Path(__file__).resolve().parents[1]


def chain(path: Path, days: int = 2, level: float = 0.2, expiry: str = "2024-06-21") -> Path:
    strike = np.tile(np.linspace(80.0, 120.0, 9), days)
    frame = pd.DataFrame({
        "quote_date": np.repeat([f"2024-01-{2 + d:02d}" for d in range(days)], 9),
        "underlying": "ABC", "expiry": expiry, "strike": strike,
        "option_type": np.where(strike < 100, "P", "C"), "implied_vol": level - 0.1 * np.log(strike / 100),
        "forward": 100.0, "discount_factor": 1.0,
    })  # fmt: skip
    frame.to_csv(path, index=False)
    return path


def run(files: list[Path], out: Path, **options: Any) -> Any:
    return run_batch(files, "black_scholes", out, **options)


def test_one_row_per_surface_with_parameters(tmp_path: Path) -> None:
    steps: list[Step] = []
    result = run([chain(tmp_path / "a.csv"), chain(tmp_path / "b.csv", 1, 0.3)], tmp_path / "fits.parquet",
                 progress=steps.append)  # fmt: skip
    assert result.exit_code == 0
    assert result.rows["status"].tolist() == ["converged"] * 3
    assert result.rows["underlying"].tolist() == ["ABC"] * 3
    np.testing.assert_allclose(result.rows["vol"], [0.2, 0.2, 0.3], atol=0.01)
    assert (result.rows["vol_se"] > 0).all()
    assert list(result.rows.columns[: len(COLUMNS)]) == list(COLUMNS)
    pd.testing.assert_frame_equal(pd.read_parquet(result.path), result.rows, check_dtype=False)
    assert [s.file_number for s in steps if s.total == 0] == [1, 2]


def test_two_runs_at_once_write_one_table(tmp_path: Path) -> None:
    first, second, out = chain(tmp_path / "a.csv", 1), chain(tmp_path / "b.csv", 1, 0.3), tmp_path / "fits.parquet"
    others: list[Any] = []

    def meanwhile(step: Step) -> None:
        if not others:
            others.append(run([second], out))

    result = run([first], out, progress=meanwhile)
    assert result.rows["file"].tolist() == [str(first)]
    assert sorted(pd.read_parquet(out)["file"]) == [str(first), str(second)]


def test_failures_become_rows_and_the_rest_is_fitted(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 and no more")
    expired = chain(tmp_path / "expired.csv", 1, expiry="2023-06-21")
    files = [tmp_path / "missing.csv", empty, torn, expired, chain(tmp_path / "good.csv", 1)]
    result = run(files, tmp_path / "fits.parquet")
    assert result.exit_code == 1
    assert result.rows["status"].tolist() == ["error"] * 4 + ["converged"]
    messages = result.rows["message"].str.lower().tolist()
    for words, message in zip(("no such file", "empty", "parquet", "expired"), messages, strict=False):
        assert words in message
    assert not result.rows["message"].str.contains("Traceback|unexpected").any()
    assert result.rows["quote_time"].tolist()[3:] == ["2024-01-02T21:00:00+00:00"] * 2


def test_rerun_skips_unchanged_files_and_redoes_changed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, out = chain(tmp_path / "a.csv"), chain(tmp_path / "b.csv", 1), tmp_path / "fits.parquet"
    first = run([a, b], out)
    assert first.skipped == 0
    with monkeypatch.context() as patched:
        patched.setattr(batch_module, "calibrate_many", lambda *_, **__: pytest.fail("nothing was to be fitted"))
        again = run([a, b], out)
    assert again.skipped == 2
    pd.testing.assert_frame_equal(again.rows, first.rows, check_dtype=False)
    chain(b, 1, 0.4)
    third = run([a, b], out)
    assert third.skipped == 1
    assert third.rows["vol"].iloc[-1] == pytest.approx(0.4, abs=0.01)
    assert len(third.rows) == 3


def test_other_settings_are_other_work(tmp_path: Path) -> None:
    a, out = chain(tmp_path / "a.csv", 1), tmp_path / "fits.parquet"
    run([a], out)
    assert run_batch([a], CalibrationSpec(model="black_scholes", weights="equal"), out).skipped == 0
    merton = run_batch([a], CalibrationSpec(model="merton", starts=1, max_iterations=3), out)
    assert merton.rows["model"].tolist() == ["merton"]
    table = pd.read_parquet(out)
    assert table["model"].tolist() == ["black_scholes", "merton"]
    assert {"vol", "vol_se", "jump_mean", "jump_mean_se"} <= set(table.columns)


def test_interruption_keeps_finished_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, out = chain(tmp_path / "a.csv", 1), chain(tmp_path / "b.csv", 1), tmp_path / "fits.parquet"

    def interrupt(step: Step) -> None:
        if step.file == str(b):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([a, b], out, progress=interrupt)
    assert pd.read_parquet(out)["file"].tolist() == [str(a)]
    assert run([a, b], out).skipped == 1


KILLED = """
import os, signal, sys
from qsde.batch import run_batch
def die(step):
    if step.file.endswith("b.csv"):
        os.kill(os.getpid(), signal.SIGKILL)
run_batch(sys.argv[1:3], "black_scholes", sys.argv[3], progress=die)
"""


def test_kill_9_keeps_finished_files(tmp_path: Path) -> None:
    a, b, out = chain(tmp_path / "a.csv", 1), chain(tmp_path / "b.csv", 1), tmp_path / "fits.parquet"
    done = subprocess.run([sys.executable, "-c", KILLED, a, b, out], check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert pd.read_parquet(out)["file"].tolist() == [str(a)]
    again = run([a, b], out)
    assert again.skipped == 1
    assert again.exit_code == 0


def test_one_bad_surface_does_not_take_its_file_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = batch_module.calibrate_many

    def moody(model: Any, surfaces: list[Any], **options: Any) -> Any:
        if any("2024-01-03" in s.quote_time for s in surfaces):
            raise ArithmeticError("no finite price")
        return real(model, surfaces, **options)

    monkeypatch.setattr(batch_module, "calibrate_many", moody)
    result = run([chain(tmp_path / "a.csv", 3)], tmp_path / "fits.parquet")
    assert result.rows["status"].tolist() == ["converged", "error", "converged"]
    assert result.rows["message"][1] == "unexpected ArithmeticError: no finite price"


def test_slow_fits_are_not_done_again_for_a_bad_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fitted = CalibrationSpec.fit, []

    def moody(spec: CalibrationSpec, surface: Any, progress: Any = None) -> Any:
        fitted.append(surface.quote_time[:10])
        if surface.quote_time.startswith("2024-01-04"):
            raise ArithmeticError("no finite price")
        return real(spec, surface, progress)

    monkeypatch.setattr(CalibrationSpec, "fit", moody)
    result = run_batch([chain(tmp_path / "a.csv", 3)], "local_vol", tmp_path / "fits.parquet")
    assert result.rows["status"].tolist() == ["converged", "converged", "error"]
    assert fitted == ["2024-01-02", "2024-01-03", "2024-01-04"]


def test_fit_that_did_not_converge_fails_and_can_be_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = batch_module.calibrate_many
    a, out = chain(tmp_path / "a.csv", 1), tmp_path / "fits.parquet"
    with monkeypatch.context() as patched:
        patched.setattr(
            batch_module,
            "calibrate_many",
            lambda *x, **o: [replace(f, status=FitStatus.STALLED) for f in real(*x, **o)],
        )
        result = run([a], out)
    assert result.exit_code == 1
    assert result.rows["status"].tolist() == ["stalled"]
    assert run([a], out).exit_code == 1
    assert run([a], out, retry_failed=True).exit_code == 0


def test_output_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    a = chain(tmp_path / "a.csv", 1)
    with pytest.raises(InputError, match=r"name it .*fits\.parquet"):
        run([a], tmp_path / "fits.csv")
    other = tmp_path / "other.parquet"
    pd.DataFrame({"x": [1]}).to_parquet(other)
    with pytest.raises(InputError, match="not a table of fits"):
        run([a], other)
    other.write_bytes(b"garbage")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        run([a], other)
    with pytest.raises(InputError, match="no files"):
        run([], tmp_path / "fits.parquet")
