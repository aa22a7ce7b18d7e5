"""qsde: calibration and Greeks engine for quantitative finance on PyTorch."""

import os

# Threads that wait spin by default: two processes that share two cores then slow each other down tenfold (measured).
# This must be set before torch loads OpenMP; whoever set the variable keeps their choice.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
