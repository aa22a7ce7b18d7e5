"""One-step discretisations of the models, and the one to take for each."""

from qsde.schemes.base import Scheme, State
from qsde.schemes.exact import Exact
from qsde.schemes.heston_near_exact import HestonNearExact
from qsde.schemes.heston_qe import HestonQE
from qsde.schemes.heston_tq import HestonTQ
from qsde.schemes.leverage import Leveraged
from qsde.schemes.leverage_free import FreeVolatility
from qsde.schemes.log_euler import LogEuler
from qsde.schemes.milstein import Milstein
from qsde.schemes.multi_asset import Correlated
from qsde.schemes.sde import (
    SRA1,
    SRID2,
    UBU,
    EulerHeun,
    EulerMaruyama,
    Heun,
    ItoMilstein,
    LogODE,
    Midpoint,
    NinomiyaVictoir,
    PlatenWeak2,
    ReversibleHeun,
    SDEScheme,
    ShARK,
    Strang,
    StratonovichMilstein,
)
from qsde.schemes.table import SCHEMES, SchemeRow, scheme_for
from qsde.schemes.with_jumps import WithJumps

__all__ = [
    "SCHEMES",
    "SRA1",
    "SRID2",
    "UBU",
    "Correlated",
    "EulerHeun",
    "EulerMaruyama",
    "Exact",
    "FreeVolatility",
    "HestonNearExact",
    "HestonQE",
    "HestonTQ",
    "Heun",
    "ItoMilstein",
    "Leveraged",
    "LogEuler",
    "LogODE",
    "Midpoint",
    "Milstein",
    "NinomiyaVictoir",
    "PlatenWeak2",
    "ReversibleHeun",
    "SDEScheme",
    "Scheme",
    "SchemeRow",
    "ShARK",
    "State",
    "Strang",
    "StratonovichMilstein",
    "WithJumps",
    "scheme_for",
]
