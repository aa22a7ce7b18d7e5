"""`qsde serve`: what it says when it cannot start, and that the library does not need the service."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from qsde.cli.app import app


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    answer = CliRunner().invoke(app, ["serve"])
    assert answer.exit_code == 2
    assert "pip install 'qsde[service]'" in answer.stderr


def test_says_which_setting_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")
    monkeypatch.setenv("QSDE_MAX_PATHS", "many")
    answer = CliRunner().invoke(app, ["serve"])
    assert answer.exit_code == 2
    assert "max_paths" in answer.stderr
    assert "many" in answer.stderr


def test_library_does_not_import_the_service() -> None:
    code = "import sys, qsde.cli.app; sys.exit(any(m.split('.')[0] in ('service', 'fastapi') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
