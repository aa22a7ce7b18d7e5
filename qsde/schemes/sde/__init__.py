"""Schemes for SDEs of functions, in the sense of Ito or of Stratonovich."""

from qsde.schemes.sde.base import SDEScheme, Step
from qsde.schemes.sde.components import Components
from qsde.schemes.sde.euler import EulerMaruyama
from qsde.schemes.sde.heun import Heun
from qsde.schemes.sde.milstein import ItoMilstein
from qsde.schemes.sde.reversible import ReversibleHeun

__all__ = ["Components", "EulerMaruyama", "Heun", "ItoMilstein", "ReversibleHeun", "SDEScheme", "Step"]
