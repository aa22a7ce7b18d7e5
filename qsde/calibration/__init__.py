"""Calibration of models to option surfaces and to any priced instruments."""

from qsde.calibration.calibrate import calibrate, calibrate_many
from qsde.calibration.fit import Fit
from qsde.calibration.instruments import Instrument, InstrumentFit
from qsde.calibration.penalties import Feller, Penalty, Prior
from qsde.calibration.quality import Simulated
from qsde.calibration.training import TrainedFit, Training, train
from qsde.calibration.training_start import neural_local_vol, neural_lsv, neural_sv
from qsde.calibration.training_state import Round

__all__ = [
    "Feller",
    "Fit",
    "Instrument",
    "InstrumentFit",
    "Penalty",
    "Prior",
    "Round",
    "Simulated",
    "TrainedFit",
    "Training",
    "calibrate",
    "calibrate_many",
    "neural_local_vol",
    "neural_lsv",
    "neural_sv",
    "train",
]
