"""qsde: calibration and Greeks engine for quantitative finance on PyTorch.

The names that most programs need are found here (`__init__.pyi` lists them) and imported when they are first used;
`import qsde` alone loads nothing, torch included.

Example:
    >>> import qsde
    >>> found = qsde.price(qsde.Heston.typical(), qsde.European(strike=100.0, expiry=1.0), qsde.Market(spot=100.0))
    >>> round(float(found.value), 6)
    7.739841
"""

import os

import lazy_loader

# Threads that wait spin by default: two processes that share two cores then slow each other down tenfold (measured).
# This must be set before torch loads OpenMP; whoever set the variable keeps their choice.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
