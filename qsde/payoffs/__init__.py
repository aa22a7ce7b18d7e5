"""Payoffs: frozen dataclasses that never simulate and never discount."""

from qsde.payoffs.asian import Asian, AverageStrike
from qsde.payoffs.autocallable import Autocallable
from qsde.payoffs.barrier import Barrier, DoubleBarrier
from qsde.payoffs.base import Claim, Flows, Paths, Payoff, Terminal, Watched
from qsde.payoffs.basket import Basket, BestOf, Spread, WorstOf
from qsde.payoffs.cliquet import Cliquet
from qsde.payoffs.european import AssetDigital, AtExpiry, Digital, European, Gap
from qsde.payoffs.forward_start import ForwardStart
from qsde.payoffs.lookback import FixedLookback, FloatingLookback
from qsde.payoffs.path import PathFunction
from qsde.payoffs.touch import NoTouch, OneTouch
from qsde.payoffs.variance import VarianceOption, VarianceSwap, VolatilitySwap

__all__ = [
    "Asian",
    "AssetDigital",
    "AtExpiry",
    "Autocallable",
    "AverageStrike",
    "Barrier",
    "Basket",
    "BestOf",
    "Claim",
    "Cliquet",
    "Digital",
    "DoubleBarrier",
    "European",
    "FixedLookback",
    "FloatingLookback",
    "Flows",
    "ForwardStart",
    "Gap",
    "NoTouch",
    "OneTouch",
    "PathFunction",
    "Paths",
    "Payoff",
    "Spread",
    "Terminal",
    "VarianceOption",
    "VarianceSwap",
    "VolatilitySwap",
    "Watched",
    "WorstOf",
]
