"""Payoffs: frozen dataclasses that never simulate and never discount."""

from qsde.payoffs.base import Claim, Flows, Paths, Payoff, Terminal, Watched
from qsde.payoffs.european import Digital, European
from qsde.payoffs.path import Asian, Barrier, PathFunction

__all__ = [
    "Asian",
    "Barrier",
    "Claim",
    "Digital",
    "European",
    "Flows",
    "PathFunction",
    "Paths",
    "Payoff",
    "Terminal",
    "Watched",
]
