"""Payoffs: frozen dataclasses that never simulate and never discount."""

from qsde.payoffs.american import American, AmericanBarrier, Bermudan, Exercisable
from qsde.payoffs.asian import Asian, AverageStrike
from qsde.payoffs.autocallable import Autocallable
from qsde.payoffs.barrier import Barrier, DoubleBarrier
from qsde.payoffs.base import Claim, EarlyExercise, Flows, Payoff, Terminal
from qsde.payoffs.basket import Basket, BestOf, Spread, WorstOf
from qsde.payoffs.cliquet import Cliquet
from qsde.payoffs.european import AssetDigital, AtExpiry, Digital, European, Gap
from qsde.payoffs.forward_start import ForwardStart
from qsde.payoffs.lookback import FixedLookback, FloatingLookback
from qsde.payoffs.path import PathFunction
from qsde.payoffs.seen import Paths, Watched
from qsde.payoffs.touch import NoTouch, OneTouch
from qsde.payoffs.variance import VarianceOption, VarianceSwap, VolatilitySwap

__all__ = [
    "American",
    "AmericanBarrier",
    "Asian",
    "AssetDigital",
    "AtExpiry",
    "Autocallable",
    "AverageStrike",
    "Barrier",
    "Basket",
    "Bermudan",
    "BestOf",
    "Claim",
    "Cliquet",
    "Digital",
    "DoubleBarrier",
    "EarlyExercise",
    "European",
    "Exercisable",
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
