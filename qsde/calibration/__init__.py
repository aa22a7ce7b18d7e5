"""Calibration of models to option surfaces."""

from qsde.calibration.calibrate import calibrate, calibrate_many
from qsde.calibration.fit import Fit
from qsde.calibration.penalties import Feller, Penalty, Prior

__all__ = ["Feller", "Fit", "Penalty", "Prior", "calibrate", "calibrate_many"]
