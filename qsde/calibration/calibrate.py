"""From surfaces and instruments to fits: which calibration does it, and what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import overload

import numpy as np
import pandas as pd

from qsde.calibration.fit import Fit
from qsde.calibration.fourier import FourierJob
from qsde.calibration.instrument_job import InstrumentJob
from qsde.calibration.instruments import Instrument, InstrumentFit
from qsde.calibration.penalties import Penalty
from qsde.calibration.simulated import SurfaceJob
from qsde.calibration.space import Space
from qsde.calibration.training import is_neural, trained
from qsde.errors import InputError, QuoteError
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import Fourier

Weights = str | Callable[[pd.DataFrame], np.ndarray]
Progress = Callable[[int, int], None]

#: Complex numbers that one evaluation may hold at once; longer lists of surfaces are fitted in chunks.
_CHUNK = 8_000_000


@overload
def calibrate(
    model: Model,
    target: Surface,
    *,
    engine: Fourier | MonteCarlo | None = None,
    weights: Weights = "spread",
    objective: str = "implied_vol",
    starts: int | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fixed: Sequence[str] | Mapping[str, float] = (),
    penalties: Sequence[Penalty] = (),
    max_iterations: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fit: ...


@overload
def calibrate(
    model: Model,
    target: Sequence[Instrument],
    *,
    market: Market,
    engine: MonteCarlo | None = None,
    starts: int | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fixed: Sequence[str] | Mapping[str, float] = (),
    penalties: Sequence[Penalty] = (),
    max_iterations: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> InstrumentFit: ...


def calibrate(
    model: Model,
    target: Surface | Sequence[Instrument],
    *,
    market: Market | None = None,
    engine: Fourier | MonteCarlo | None = None,
    weights: Weights = "spread",
    objective: str = "implied_vol",
    starts: int | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fixed: Sequence[str] | Mapping[str, float] = (),
    penalties: Sequence[Penalty] = (),
    max_iterations: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fit | InstrumentFit:
    """Fits a model to one surface, or to any priced instruments, by weighted least squares.

    Models with a characteristic function are fitted to a surface through Fourier prices. With `engine=MonteCarlo(...)`
    every model is, and to any instruments. All prices are then from the same random numbers, so that the error is a
    smooth function of the parameters; the derivatives are central differences on those numbers. All starts are explored
    on 1/64 of the paths (1024 at least), the best 2 go on with 1/8 and the best of them with all. In the end 8 sets of
    fresh paths, each as many as the fit's, say how good the fit is and how far the noise moved the parameters, and 4
    with half the step how far the time steps did (`Fit.simulation`); standard errors include the noise.

    Models with a network are trained (`train`, which has more settings).

    Args:
        model: template: its type says what to fit, its parameter values are the first start. Parameters of several
            numbers, such as the initial state of an SDE, stay.
        target: the quotes, or a list of `Instrument`.
        market: spot, curves and dividends of the instruments; a surface brings its forwards.
        engine: None or `Fourier` (whose settings are those of the final, exact prices), or `MonteCarlo`. Its `max_dt`
            must suit the speed of mean reversion (`kappa max_dt` well below 1). `noise=Sobol(seed, scrambles=4)` saves
            paths where the model fits well.
        weights: "spread" (`1 / sqrt(half_spread^2 + (50 bp)^2)` in vol, the default), "equal", or a function from
            `surface.quotes` to one weight per quote. Instruments have their `uncertainty`.
        objective: "implied_vol" (default) minimises errors of implied vol, "price" errors of price divided by market
            vega.
        starts: starting points, the template among them; by default 8, and 4 more for each parameter beyond 5.
        bounds: bounds by parameter name, in place of those of the model's table; an SDE needs them.
        fixed: names of parameters to keep at the template's value, or a mapping of names to values.
        penalties: soft constraints such as `Feller()` and `Prior(...)`.
        max_iterations: Levenberg-Marquardt iterations of the final stage.
        seed: seed of the extra starts; same seed (and same noise of the engine), same digits.
        progress: called with (done, total) as the work goes on.

    Returns:
        The fit. One that did not converge says so in `status`; nothing is raised for it.

    Raises:
        InputError: an argument makes no sense; the message names it.
        QuoteError: the surface is empty.

    Example:
        >>> import torch
        >>> from qsde.models import Heston
        >>> from qsde.pricing.fourier import model_vols
        >>> t = np.repeat([0.25, 1.0], 7)
        >>> strike = np.tile(np.linspace(80, 120, 7), 2)
        >>> truth = Heston(v0=0.04, kappa=2.0, theta=0.06, sigma=0.5, rho=-0.6)
        >>> iv = model_vols(truth, torch.tensor([0.25, 1.0]), torch.tensor(strike[:7]), 100.0).flatten().numpy()
        >>> fit = calibrate(Heston.typical(), Surface.from_vols(t, strike, iv, forward=100.0))
        >>> fit.status.converged, {name: round(value, 4) for name, value in fit.params.items()}
        (True, {'v0': 0.04, 'kappa': 2.0, 'theta': 0.06, 'sigma': 0.5, 'rho': -0.6})

        By simulation, from any contracts with a price:

        >>> from qsde.calibration import Instrument
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> quotes = [Instrument(European(strike, expiry=1.0), implied_vol=0.25) for strike in (90.0, 110.0)]
        >>> engine = MonteCarlo(n_paths=1 << 12)
        >>> fit = calibrate(BlackScholes(0.2), quotes, market=Market(100.0), engine=engine)
        >>> fit.status.converged, abs(fit.params["vol"] - 0.25) < 3 * fit.std_errors["vol"]
        (True, True)
    """
    _check_model(model)
    if not isinstance(target, Surface | Sequence):
        raise InputError(f"target must be a Surface (of build_surface) or a list of Instrument, got {target!r:.60}")
    if engine is not None and not isinstance(engine, Fourier | MonteCarlo):
        raise InputError(f"engine must be Fourier(...) or MonteCarlo(...), got {type(engine).__name__}")
    if isinstance(target, Surface):
        if market is not None:
            raise InputError("a surface brings its own forwards and discount factors: leave market out")
        if is_neural(model):
            if starts is not None or bounds or fixed or penalties or objective != "implied_vol":
                raise InputError(
                    f"{model.name} is trained, so starts, bounds, fixed, penalties and objective are to be left out"
                )
            return trained(model, target, engine, weights, max_iterations, progress or (lambda done, total: None))
        if not isinstance(engine, MonteCarlo):
            return calibrate_many(
                model, [target], engine=engine, weights=weights, objective=objective, starts=starts, bounds=bounds,
                fixed=fixed, penalties=penalties, max_iterations=max_iterations, seed=seed, progress=progress,
            )[0]  # fmt: skip
    _check([target] if isinstance(target, Surface) else [], objective, starts, max_iterations)
    space = Space.of(model, bounds, fixed)
    stage = _stage(progress or (lambda done, total: None), 0, 100)
    job: SurfaceJob | InstrumentJob
    if isinstance(target, Surface):
        assert isinstance(engine, MonteCarlo)
        job = SurfaceJob(space, target, engine, weights, tuple(penalties), objective == "implied_vol")
    else:
        if weights != "spread" or objective != "implied_vol":
            raise InputError("instruments have their own uncertainty: leave weights and objective out")
        job = InstrumentJob.of(space, target, market, engine, penalties)
    return job.run(_n_starts(starts, space), max_iterations, seed, stage)


def calibrate_many(
    model: Model,
    surfaces: Sequence[Surface],
    *,
    engine: Fourier | None = None,
    weights: Weights = "spread",
    objective: str = "implied_vol",
    starts: int | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fixed: Sequence[str] | Mapping[str, float] = (),
    penalties: Sequence[Penalty] = (),
    max_iterations: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Fit]:
    """Fits the same model to many surfaces as one tensor problem; arguments as in `calibrate`, one fit per surface.

    The result for a surface does not depend on the others in the list beyond rounding.
    """
    _check_model(model)
    _check(surfaces, objective, starts, max_iterations)
    if not model.has_cf:
        raise InputError(
            f"{model.name} has no characteristic function, so there are no Fourier prices; calibrate it by simulation: "
            "engine=MonteCarlo(...)"
        )
    space = Space.of(model, bounds, fixed)
    n_starts = _n_starts(starts, space)
    exact = engine or Fourier(tolerance=1e-8)
    job = FourierJob(
        space, weights, tuple(penalties), objective == "implied_vol", n_starts, max_iterations, seed, exact
    )
    chunks = _chunks(surfaces, n_starts * 64 * (12 + len(space.free)))
    report = progress or (lambda done, total: None)
    fits: list[Fit] = []
    for i, chunk in enumerate(chunks):
        fits.extend(job.run(chunk, _stage(report, 100 * i, 100 * len(chunks))))
    return fits


def _check_model(model: object) -> None:
    if not isinstance(model, Model):
        raise InputError(f"model must be a template, such as Heston.typical(), got {model!r:.60}")


def _check(surfaces: Sequence[Surface], objective: str, starts: int | None, max_iterations: int) -> None:
    if objective not in ("implied_vol", "price"):
        raise InputError(f"objective must be 'implied_vol' or 'price', got {objective!r}")
    if starts is not None and starts < 1:
        raise InputError(f"starts must be at least 1, got {starts}")
    if max_iterations < 1:
        raise InputError(f"max_iterations must be at least 1, got {max_iterations}")
    if isinstance(surfaces, Surface):
        raise InputError("surfaces must be a list: [surface], or calibrate(model, surface) for one")
    for surface in surfaces:
        if not isinstance(surface, Surface):
            raise InputError(f"each of the surfaces must be a Surface (build_surface(quotes)), got {surface!r:.60}")
        if len(surface) == 0:
            raise QuoteError(f"{surface.name}: the surface has no quotes to calibrate to")


def _n_starts(starts: int | None, space: Space) -> int:
    return starts or (8 + 4 * max(0, len(space.free) - 5) if len(space.free) > 1 else 1)


def _chunks(surfaces: Sequence[Surface], per_expiry: int) -> list[list[Surface]]:
    chunks: list[list[Surface]] = []
    held = 0
    for surface in surfaces:
        size = len(surface.slices) * per_expiry
        if not chunks or held + size > _CHUNK:
            chunks.append([])
            held = 0
        chunks[-1].append(surface)
        held += size
    return chunks


def _stage(progress: Progress, done: int, total: int) -> Callable[[float], None]:
    return lambda share: progress(done + round(100 * share), total)
