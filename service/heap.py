"""Garbage collection of processes that live long."""

from __future__ import annotations

import gc


def settle() -> None:
    """Leaves all that the start has made out of garbage collections, which would look at it for tenths of a second."""
    gc.collect()
    gc.freeze()
