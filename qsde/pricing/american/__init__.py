"""American and Bermudan options: least-squares Monte Carlo from below, duality from above."""

from qsde.pricing.american.price import price_early
from qsde.pricing.american.settings import EarlyEstimate, LeastSquares

__all__ = ["EarlyEstimate", "LeastSquares", "price_early"]
