"""The examples in the docstrings of the service run."""

from __future__ import annotations

import doctest
import importlib

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")


@pytest.mark.parametrize("name", ["service.errors", "service.reading", "service.storage.database"])
def test_examples(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert failed == 0
