"""Everything that is simulated runs on a device other than the CPU, with the same results, on one that is pretended."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).with_name("cases.py")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = subprocess.run([sys.executable, CASES], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_same_results_on_another_device(found: dict[str, Any]) -> None:
    answers = {name: answer for name, answer in found.items() if name != "waits"}
    assert len(answers) > 45
    assert not {name: answer for name, answer in answers.items() if answer != "same"}


def test_a_device_does_not_wait_at_every_step(found: dict[str, Any]) -> None:
    few, many = found["waits"]  # of 12 and of 48 steps
    assert few > 0
    assert many - few < 12
