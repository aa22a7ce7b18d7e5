"""Calibration of models to option surfaces and to any priced instruments."""

from qsde.calibration.calibrate import calibrate, calibrate_many
from qsde.calibration.fit import Fit
from qsde.calibration.instruments import Instrument, InstrumentFit
from qsde.calibration.penalties import Feller, Penalty, Prior
from qsde.calibration.quality import Simulated

__all__ = [
    "Feller",
    "Fit",
    "Instrument",
    "InstrumentFit",
    "Penalty",
    "Prior",
    "Simulated",
    "calibrate",
    "calibrate_many",
]
