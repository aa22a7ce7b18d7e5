"""What a deployment is made of names things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'qsde[service]'")

from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILES = ("Dockerfile", "compose.yaml", "service/SETTINGS.md")


@pytest.mark.parametrize("name", FILES)
def test_environment_variables_are_settings(name: str) -> None:
    named = set(re.findall(r"QSDE_([A-Z_]+)", (ROOT / name).read_text()))
    assert named
    assert {variable.lower() for variable in named} <= set(Settings.model_fields)


def test_the_table_of_settings_is_complete_and_right() -> None:
    text = (ROOT / "service/SETTINGS.md").read_text()
    rows = dict(re.findall(r"^\| `QSDE_([A-Z_]+)` \| (.*?) \|", text, re.MULTILINE))
    assert list(rows) == [name.upper() for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        if field.default_factory is None:
            assert rows[name.upper()] == f"`{field.default}`", name


def test_the_image_runs_without_root_and_says_how_it_is() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER (?!root|0)\w+$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert all((ROOT / path).exists() for line in copied for path in line.split())
