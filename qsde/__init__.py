"""qsde: calibration and Greeks engine for quantitative finance on PyTorch."""

__version__ = "0.1.0"
