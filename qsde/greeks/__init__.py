"""Greeks: derivatives of prices to the market, to model parameters and to quotes, with standard errors."""

from qsde.greeks.greeks import Greeks, greeks
from qsde.greeks.hedge import Hedge, hedge, liquid_quotes, neutralise
from qsde.greeks.implicit import quote_jacobian, recalibrated
from qsde.greeks.ladder import Ladder
from qsde.greeks.parameters import ParameterGradient, parameter_gradient
from qsde.greeks.quotes import QuoteSensitivities, market_of, quote_sensitivities
from qsde.greeks.scenarios import Scenarios, scenarios
from qsde.greeks.table import GREEKS, Greek, Units

__all__ = [
    "GREEKS",
    "Greek",
    "Greeks",
    "Hedge",
    "Ladder",
    "ParameterGradient",
    "QuoteSensitivities",
    "Scenarios",
    "Units",
    "greeks",
    "hedge",
    "liquid_quotes",
    "market_of",
    "neutralise",
    "parameter_gradient",
    "quote_jacobian",
    "quote_sensitivities",
    "recalibrated",
    "scenarios",
]
