"""Payoffs: frozen dataclasses that never simulate and never discount."""

from qsde.payoffs.asian import Asian, AverageStrike
from qsde.payoffs.autocallable import Autocallable
from qsde.payoffs.base import Claim, Flows, Paths, Payoff, Terminal, Watched
from qsde.payoffs.cliquet import Cliquet
from qsde.payoffs.european import AssetDigital, Digital, European, Gap
from qsde.payoffs.forward_start import ForwardStart
from qsde.payoffs.path import Barrier, PathFunction
from qsde.payoffs.variance import VarianceOption, VarianceSwap, VolatilitySwap

__all__ = [
    "Asian",
    "AssetDigital",
    "Autocallable",
    "AverageStrike",
    "Barrier",
    "Claim",
    "Cliquet",
    "Digital",
    "European",
    "Flows",
    "ForwardStart",
    "Gap",
    "PathFunction",
    "Paths",
    "Payoff",
    "Terminal",
    "VarianceOption",
    "VarianceSwap",
    "VolatilitySwap",
    "Watched",
]
