"""The closed-form problems, which the benchmarks use too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).parents[2] / "benchmarks" / "closed_forms.py"
_SPEC = importlib.util.spec_from_file_location("closed_forms", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
closed_forms = importlib.util.module_from_spec(_SPEC)
sys.modules["closed_forms"] = closed_forms
_SPEC.loader.exec_module(closed_forms)


@pytest.fixture(params=closed_forms.PROBLEMS, ids=lambda p: p.name)
def problem(request: pytest.FixtureRequest) -> Any:
    """One of the paper's three problems."""
    return request.param
