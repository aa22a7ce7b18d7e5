"""Pricing models: diffusions, jump laws and their compositions."""

from qsde.models.base import Model, Parameter
from qsde.models.black_scholes import BlackScholes
from qsde.models.heston import Heston
from qsde.models.jump_diffusion import JumpDiffusion, bates, kou, merton
from qsde.models.jumps import JumpLaw, KouJumps, MertonJumps

__all__ = [
    "BlackScholes",
    "Heston",
    "JumpDiffusion",
    "JumpLaw",
    "KouJumps",
    "MertonJumps",
    "Model",
    "Parameter",
    "bates",
    "kou",
    "merton",
]
