"""Pricing models: diffusions, jump laws and their compositions."""

from qsde.models.base import FourierModel, Model, Parameter
from qsde.models.black_scholes import BlackScholes
from qsde.models.correlation import nearest_correlation
from qsde.models.heston import Heston
from qsde.models.jump_diffusion import JumpDiffusion, bates, kou, merton
from qsde.models.jumps import JumpLaw, KouJumps, MertonJumps
from qsde.models.leverage import GridLeverage, Leverage
from qsde.models.lsv import LocalStochasticVol, leveraged, unleveraged
from qsde.models.multi_asset import MultiAsset
from qsde.models.neural import NeuralLeverage
from qsde.models.neural_sv import NeuralStochasticVol
from qsde.models.sde import SDE

__all__ = [
    "SDE",
    "BlackScholes",
    "FourierModel",
    "GridLeverage",
    "Heston",
    "JumpDiffusion",
    "JumpLaw",
    "KouJumps",
    "Leverage",
    "LocalStochasticVol",
    "MertonJumps",
    "Model",
    "MultiAsset",
    "NeuralLeverage",
    "NeuralStochasticVol",
    "Parameter",
    "bates",
    "kou",
    "leveraged",
    "merton",
    "nearest_correlation",
    "unleveraged",
]
