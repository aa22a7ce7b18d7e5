"""Prices of payoffs under models: exact ones by Fourier integrals, simulated ones with standard errors."""

from qsde.pricing.american import LeastSquares
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.pricing.price import Prices, price

__all__ = ["Auto", "Fourier", "LeastSquares", "MonteCarlo", "Prices", "price"]
