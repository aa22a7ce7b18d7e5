"""The page for those who come from torchsde or diffrax: our blocks run, in order, and every name in it exists."""

import re
from pathlib import Path

import pytest

import qsde.schemes

PAGE = (Path(__file__).resolve().parents[1] / "notebooks" / "from_torchsde_and_diffrax.md").read_text(encoding="utf-8")
KINDS = ("diagonal", "additive", "general")
BLOCKS = re.findall(r"^```python qsde\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, on first forward tangents
def test_our_blocks_run_in_order() -> None:
    assert len(BLOCKS) >= 4
    names: dict[str, object] = {"__name__": "page"}
    for code in BLOCKS:
        exec(compile(code, "from_torchsde_and_diffrax.md", "exec"), names)


def test_the_table_states_the_declared_orders() -> None:
    """`strong order (diagonal / additive / general)`, where the row is one scheme of ours for all three."""
    row = r"\| `(\w+)\((?:derivative_free=True|drift_flow=\.\.\., noise_flow=\.\.\.)?\)` \| (\S+) / (\S+) / (\S+) \|"
    found = re.findall(row, PAGE)
    assert len(found) >= 8
    for name, *stated in found:
        orders = getattr(qsde.schemes, name).orders
        declared = [f"{orders[kind].strong:g}" if kind in orders else None for kind in KINDS]
        assert declared == [None if text in ("refused", "-") else text for text in stated], name
