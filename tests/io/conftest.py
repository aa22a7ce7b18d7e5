from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qsde.io import read_quotes
from qsde.market.quotes import Quotes

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def data() -> Path:
    return REPOSITORY / "data"


@pytest.fixture
def fixtures() -> Path:
    return REPOSITORY / "tests" / "fixtures"


@pytest.fixture
def read_text(tmp_path: Path) -> Callable[..., Quotes]:
    """Reads a text as a file whose name says nothing."""

    def read(text: str, name: str = "file", **options: object) -> Quotes:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_quotes(path, **options)  # type: ignore[arg-type]

    return read
