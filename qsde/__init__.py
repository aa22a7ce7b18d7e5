"""qsde: calibration and Greeks engine for quantitative finance on PyTorch."""

import os
from typing import Any

# Threads that wait spin by default: two processes that share two cores then slow each other down tenfold (measured).
# This must be set before torch loads OpenMP; whoever set the variable keeps their choice.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_LAZY = {"sdeint": "qsde.solve", "SDE": "qsde.models"}


def __getattr__(name: str) -> Any:
    """The solver by its short name; torch is imported when it is first asked for."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'qsde' has no attribute {name!r}")
