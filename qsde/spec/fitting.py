"""How models with a leverage are fitted to a surface, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qsde.calibration.calibrate import calibrate
from qsde.calibration.fit import Fit
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.lsv import calibrate_lsv
from qsde.calibration.particles import PARTICLES
from qsde.calibration.training import train
from qsde.calibration.training_start import neural_local_vol, neural_lsv, neural_sv
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.noise import Sobol
from qsde.pricing.engine import MonteCarlo
from qsde.spec.models import template

if TYPE_CHECKING:
    from qsde.spec.settings import CalibrationSpec

Progress = Callable[[int, int], None]
#: Most steps of a training, unless the spec says so.
_STEPS = 25


def fit_leveraged(spec: CalibrationSpec, surface: Surface, progress: Progress | None = None) -> Fit:
    """The fit that a spec of a model with a leverage asks for."""
    return _FITTERS[spec.model](spec, surface, progress or (lambda done, total: None))


def _local_vol(spec: CalibrationSpec, surface: Surface, progress: Progress) -> Fit:
    limit: dict[str, Any] = {} if spec.max_iterations is None else {"max_iterations": spec.max_iterations}
    return calibrate_local_vol(surface, weights=spec.weights, **limit)


def _lsv(spec: CalibrationSpec, surface: Surface, progress: Progress) -> Fit:
    engine = _engine(spec, PARTICLES)
    return calibrate_lsv(surface, backbone=_backbone(spec, surface), engine=engine, weights=spec.weights,
                         progress=progress)  # fmt: skip


def _neural(spec: CalibrationSpec, surface: Surface, progress: Progress, start: Model) -> Fit:
    steps = spec.max_iterations or _STEPS
    engine = _engine(spec, MonteCarlo(n_paths=1 << 15, max_dt=1 / 64, noise=Sobol(spec.seed, scrambles=4)))
    return train(start, surface, engine=engine, weights=spec.weights, max_steps=steps,
                 progress=lambda done: progress(done.step, steps))  # fmt: skip


def _neural_local_vol(spec: CalibrationSpec, surface: Surface, progress: Progress) -> Fit:
    return _neural(spec, surface, progress, neural_local_vol(surface, seed=spec.seed, weights=spec.weights))


def _neural_lsv(spec: CalibrationSpec, surface: Surface, progress: Progress) -> Fit:
    start = neural_lsv(surface, backbone=_backbone(spec, surface), seed=spec.seed, weights=spec.weights)
    return _neural(spec, surface, progress, start)


def _neural_sv(spec: CalibrationSpec, surface: Surface, progress: Progress) -> Fit:
    return _neural(spec, surface, progress, neural_sv(surface, seed=spec.seed))


def _backbone(spec: CalibrationSpec, surface: Surface) -> Model:
    return calibrate(template(spec.backbone or "heston"), surface, weights=spec.weights, seed=spec.seed).model


def _engine(spec: CalibrationSpec, usual: MonteCarlo) -> MonteCarlo:
    return replace(usual, n_paths=spec.paths or usual.n_paths, max_dt=spec.max_dt or usual.max_dt)


_FITTERS: dict[str, Callable[[CalibrationSpec, Surface, Progress], Fit]] = {
    "local_vol": _local_vol,
    "lsv": _lsv,
    "neural_local_vol": _neural_local_vol,
    "neural_lsv": _neural_lsv,
    "neural_sv": _neural_sv,
}
