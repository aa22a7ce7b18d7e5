"""Schemes for SDEs of functions, in the sense of Ito or of Stratonovich."""

from qsde.schemes.sde.base import Orders, SDEScheme, Step
from qsde.schemes.sde.components import Components
from qsde.schemes.sde.euler import EulerMaruyama
from qsde.schemes.sde.heun import EulerHeun, Heun, Midpoint
from qsde.schemes.sde.log_ode import LogODE, ShARK
from qsde.schemes.sde.milstein import ItoMilstein, StratonovichMilstein
from qsde.schemes.sde.reversible import ReversibleHeun
from qsde.schemes.sde.roessler import SRA1, SRID2
from qsde.schemes.sde.splitting import UBU, Strang
from qsde.schemes.sde.weak import NinomiyaVictoir, PlatenWeak2

__all__ = [
    "SRA1",
    "SRID2",
    "UBU",
    "Components",
    "EulerHeun",
    "EulerMaruyama",
    "Heun",
    "ItoMilstein",
    "LogODE",
    "Midpoint",
    "NinomiyaVictoir",
    "Orders",
    "PlatenWeak2",
    "ReversibleHeun",
    "SDEScheme",
    "ShARK",
    "Step",
    "Strang",
    "StratonovichMilstein",
]
