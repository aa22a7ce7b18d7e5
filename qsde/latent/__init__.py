"""Latent SDEs: time series as noisy looks at a hidden diffusion, fitted by variational inference."""

from qsde.latent.files import load, save
from qsde.latent.forecast import Ensemble, forecast, reconstruct, sample
from qsde.latent.likelihood import Channel, Likelihood
from qsde.latent.lorenz import stochastic_lorenz
from qsde.latent.model import Bound, LatentSDE, Posterior, Solver
from qsde.latent.realised import realised_volatility
from qsde.latent.scores import Difference, crps, diebold_mariano, log_score
from qsde.latent.series import Series
from qsde.latent.training import Record, Settings, Stop, Training, fit

__all__ = [
    "Bound",
    "Channel",
    "Difference",
    "Ensemble",
    "LatentSDE",
    "Likelihood",
    "Posterior",
    "Record",
    "Series",
    "Settings",
    "Solver",
    "Stop",
    "Training",
    "crps",
    "diebold_mariano",
    "fit",
    "forecast",
    "load",
    "log_score",
    "realised_volatility",
    "reconstruct",
    "sample",
    "save",
    "stochastic_lorenz",
]
