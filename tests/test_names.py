"""The names at the top: each is what its home calls it, and asking for none of them costs nothing."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import qsde

STUB = ast.parse(Path(qsde.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
HOMES = {alias.name: node.module for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_every_name_is_listed_once_and_found() -> None:
    assert len(HOMES) > 50
    assert sorted(HOMES) == sorted(qsde.__all__)
    for name, home in HOMES.items():
        room = importlib.import_module(f"qsde.{home or name}")
        assert getattr(qsde, name) is (getattr(room, name) if home else room)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="Hestn"):
        qsde.Hestn  # type: ignore[attr-defined]  # noqa: B018


def test_importing_qsde_does_not_import_torch() -> None:
    code = "import sys, qsde; print('torch' in sys.modules, qsde.greeks.greeks.__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "greeks", "True"]
