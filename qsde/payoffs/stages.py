"""Pieces of contracts that end or live on at dates."""

from __future__ import annotations

from torch import Tensor

from qsde.payoffs.base import Kind, Piece

Level = float | Tensor
#: Two levels, None where there is none.
Levels = tuple[Level | None, Level | None]


def vanilla_piece(strike: Level, kind: Kind, within: Levels, paid: float) -> Piece:
    """A vanilla that counts between two levels only.

    Example:
        >>> vanilla_piece(100.0, "call", (None, 120.0), 1.0)
        Piece(lower=100.0, upper=120.0, cash=-100.0, assets=1.0, paid=1.0)
    """
    lower, upper = within
    if kind == "call":
        return Piece(highest(strike, lower), upper, -strike, 1.0, paid)
    return Piece(lower, lowest(strike, upper), strike, -1.0, paid)


def outside(within: Levels, cash: Level, assets: Level, paid: float) -> tuple[Piece, ...]:
    """The same amounts on both sides of an interval, where it has an end."""
    lower, upper = within
    below = () if lower is None else (Piece(None, lower, cash, assets, paid),)
    return below if upper is None else (*below, Piece(upper, None, cash, assets, paid))


def highest(*levels: Level | None) -> Level | None:
    """The highest of the levels that are there."""
    given = [level for level in levels if level is not None]
    return max(given, key=float) if given else None


def lowest(*levels: Level | None) -> Level | None:
    """The lowest of the levels that are there."""
    given = [level for level in levels if level is not None]
    return min(given, key=float) if given else None
