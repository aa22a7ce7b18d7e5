"""What the README shows must run: its Python blocks as they stand, and its command lines in order."""

import glob
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qsde.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^qsde .*$", README, re.MULTILINE)


@pytest.fixture(autouse=True)
def beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in an empty folder with the data of the repository in it."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", PYTHON, ids=[f"block {i}" for i in range(1, len(PYTHON) + 1)])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, on first forward tangents
def test_python_block(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_command_lines() -> None:
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        words = [path for word in shlex.split(command)[1:] for path in (sorted(glob.glob(word)) or [word])]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{command}\n{result.output}"


def test_every_path_named_exists() -> None:
    paths = set(re.findall(r"(?:\]\(|\b)((?:data|notebooks|benchmarks|tests)/[\w./-]*\w)", README))
    assert len(paths) > 8
    missing = [p for p in paths if not (ROOT / p).exists()]
    assert not missing


def test_commands_are_two_and_make_knows_them() -> None:
    quickstart = README.split("## Quickstart")[1].split("## ")[0]
    wanted = re.findall(r"^make (\w+)", quickstart, re.MULTILINE)
    assert wanted == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in wanted)
