"""Payoffs: frozen dataclasses that never simulate and never discount."""

from qsde.payoffs.base import Payoff
from qsde.payoffs.european import Digital, European
from qsde.payoffs.path import Asian, Barrier, PathFunction

__all__ = ["Asian", "Barrier", "Digital", "European", "PathFunction", "Payoff"]
