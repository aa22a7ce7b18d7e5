"""Greeks: derivatives of prices to the market, to model parameters and to quotes, with standard errors."""

from qsde.greeks.greeks import Greeks, greeks
from qsde.greeks.table import GREEKS, Greek, Units

__all__ = ["GREEKS", "Greek", "Greeks", "Units", "greeks"]
