"""Training of neural models on option quotes: Gauss-Newton steps in the space of the quotes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.calibration.quality import Simulated
from qsde.calibration.ramp import fresh, fresh_halved, reseeded
from qsde.calibration.training_paths import WEIGHTS, Quoted, QuotedPaths
from qsde.calibration.training_state import Round, State, digest, load, save
from qsde.errors import FitStatus, InputError, QuoteError
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.models.jumps import moves_by_jumps
from qsde.models.lsv import LocalStochasticVol
from qsde.models.neural import NeuralLeverage
from qsde.models.neural_sv import NeuralStochasticVol
from qsde.noise import Sobol
from qsde.pricing.engine import MonteCarlo
from qsde.schemes.layers import layers
from qsde.writing import reserve

_LOG = logging.getLogger(__name__)
#: Stages: shares of the paths, and most steps.
_STAGES = ((8, 6), (1, 100))
#: The Jacobian has a share of the paths of its stage, these at least and these at most.
_OF_JACOBIAN, _FEWEST, _MOST = 8, 1 << 10, 1 << 12
#: How the damping falls and rises, its least, and trials of one step.
_FALL, _RISE, _LEAST, _TRIALS = 0.25, 6.0, 1e-6, 4
#: A stage ends where the cost falls by less than this, twice.
_GAIN = 0.03
#: It also ends where errors, root mean square, are this share of those of the quotes, with few paths and with all.
_NEAR, _ENOUGH = 1.0, 0.3
#: Longest step of all weights together.
_LONGEST = 1.0
#: Steps after which a training ends anyway.
_MOST_STEPS = 25
#: The Jacobian's noise is that of another seed.
_OTHER = 1 << 20


@dataclass(frozen=True)
class Training:
    """What a training leaves besides the model.

    Attributes:
        names: parameters that moved.
        jacobian: derivatives of the model's vols to all their entries [Q, W], in the order of `names`.
        weight: what errors of vol were multiplied by, [Q]; 0 for held-out quotes.
        damping: damping of the last step.
        held_out: which quotes were not trained on, [Q].
        held_out_bp: root mean square error of these on fresh paths, NaN if there are none. It flatters, because they
            chose the step: what the model makes of quotes that nothing has seen, `qsde.calibration.evaluation` says.
        step_bias_bp: change of each quote's vol if the steps are halved, basis points, [Q]; the error is twice that.
        step_bias_error_bp: its standard error.
        rounds: the steps.
    """

    names: tuple[str, ...]
    jacobian: Tensor
    weight: Tensor
    damping: float
    held_out: np.ndarray
    held_out_bp: float
    step_bias_bp: Tensor
    step_bias_error_bp: Tensor
    rounds: tuple[Round, ...]

    def response(self) -> Tensor:
        """Change of all weights [W, Q] per change of a quoted vol: the step that follows the market."""
        return _inverse(self.jacobian, self.weight, self.damping)


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainedFit(Fit):
    """A `Fit` whose parameters are weights: `free` is empty, and what is known of them is in `training`."""

    training: Training


def train(
    model: Model,
    surface: Surface,
    *,
    engine: MonteCarlo | None = None,
    weights: str = "spread",
    held_out: int | Sequence[bool] | np.ndarray | None = None,
    parameters: Sequence[str] | None = None,
    max_steps: int = _MOST_STEPS,
    checkpoint: str | Path | None = None,
    progress: Callable[[Round], None] | None = None,
) -> TrainedFit:
    """Trains the weights of a neural model on the implied vols of a surface.

    There are far fewer quotes than weights, so each step is worked out among the quotes: with the Jacobian J of their
    errors r to the weights, both weighted, it is the shortest that solves the damped linear problem,
    `-J^T (J J^T + lambda I)^-1 r`. A network with smooth layers answers the shortest step with a smooth change. J comes
    from one backward sweep per expiry for all its quotes, on few paths of other random numbers than r, so that a step
    is unbiased; r from many, always the same, with the backbone as control variate, so that steps can be compared.

    What is minimised are squares of the errors of price over the vega of the market and over the error of the quote.
    It ends where they are 0.3 of that: what is left is noise, and a network that fits it is wrong between the
    quotes. Where quotes are held out, the model is that of the step that fits them best; that says something only if
    the start has not seen them either.

    Args:
        model: from `neural_local_vol`, `neural_lsv`, `neural_sv`, or any with a leverage; its weights are the start.
        surface: the quotes.
        engine: None takes 2^15 paths of Sobol points and steps of 1/64 year. Memory does not grow with the steps beyond
            100 stored states (`qsde.solve.loop`), except for Sobol points.
        weights: "spread" takes `sqrt(half_spread^2 + (3 bp)^2)` as the error of a quote; "equal" 5 bp, which fits the
            middle of wide quotes, too.
        held_out: quotes not to train on: every n-th, or one boolean per row of `surface.quotes`.
        parameters: names of the parameters to train; None takes those of the leverage or the network.
        max_steps: most Gauss-Newton steps.
        checkpoint: file (safetensors) written after each step; if it exists, training goes on from it. One of other
            quotes, another start or another engine is refused; `max_steps` may differ.
        progress: called after each step, with what is also logged (`logging`, level INFO).

    Returns:
        The fit, judged on fresh random numbers; `fit.simulation` has the standard error.

    Raises:
        InputError: an argument makes no sense.
        QuoteError: the surface is empty.

    Example:
        >>> from qsde.calibration import neural_local_vol
        >>> k, t = np.tile([90.0, 100.0, 110.0], 2), np.repeat([0.5, 1.0], 3)
        >>> surface = Surface.from_vols(t, k, [0.22, 0.2, 0.19, 0.22, 0.21, 0.2], forward=100.0)
        >>> fit = train(neural_local_vol(surface), surface, engine=MonteCarlo(n_paths=1 << 12, max_dt=1 / 16))
        >>> fit.rmse_bp < 20
        True
    """
    if len(surface) == 0:
        raise QuoteError(f"{surface.name}: the surface has no quotes to train on")
    if weights not in WEIGHTS:
        raise InputError(f"weights must be {' or '.join(map(repr, WEIGHTS))}, got {weights!r}")
    names = _names(model, parameters)
    reserve(checkpoint)
    engine = engine or MonteCarlo(n_paths=1 << 15, max_dt=1 / 64, noise=Sobol(0, scrambles=4))
    job = _Job(model, surface, engine, names, _mask(surface, held_out), weights, progress or (lambda _: None))
    return job.run(max_steps, None if checkpoint is None else Path(checkpoint))


def is_neural(model: Model) -> bool:
    """Whether the model has a network to train."""
    inner, _ = layers(model)
    if isinstance(inner, NeuralStochasticVol):
        return True
    return isinstance(inner, LocalStochasticVol) and isinstance(inner.leverage, NeuralLeverage)


def trained(
    model: Model,
    surface: Surface,
    engine: object,
    weights: object,
    max_steps: int,
    progress: Callable[[int, int], None],
) -> TrainedFit:
    """`train` with the arguments of `calibrate`.

    Raises:
        InputError: an engine that does not simulate.
    """
    if not isinstance(engine, MonteCarlo | None):
        raise InputError(f"{model.name} has no Fourier prices: give engine=MonteCarlo(...), or none")
    most = min(max_steps, _MOST_STEPS)
    return train(
        model,
        surface,
        engine=engine,
        weights=weights,  # type: ignore[arg-type]
        max_steps=most,
        progress=lambda r: progress(r.step, most),
    )


@dataclass(frozen=True)
class _Errors:
    """Errors of the quotes [Q], and what their derivatives need.

    Attributes:
        miss: error of the price over the market's vega, which is what is minimised: near the market it is the error of
            vol, and it stays a nearly linear function of the weights where an option is worth almost nothing.
        error: error of vol.
        vega: vega of the model's price.
        beta: regression of the option on the forward.
        noise: standard error of `miss`.
    """

    miss: Tensor
    error: Tensor
    vega: Tensor
    beta: Tensor
    noise: Tensor


class _Job:
    def __init__(
        self,
        model: Model,
        surface: Surface,
        engine: MonteCarlo,
        names: tuple[str, ...],
        held_out: np.ndarray,
        weights: str,
        progress: Callable[[Round], None],
    ) -> None:
        self.model, self.surface, self.engine, self.names, self.held_out = model, surface, engine, names, held_out
        self.progress = progress
        self.quoted = Quoted.of(surface)
        self.market_price = self.quoted.price(self.quoted.vol, torch.arange(len(self.quoted.k)))
        self.market, self.vega = self.quoted.vols(self.market_price)
        self.weighting = weights
        weight = WEIGHTS[weights](self.quoted.half)
        self.weight = torch.where(torch.tensor(held_out), 0.0, weight)
        self.rounds: list[Round] = []
        self.began = time.perf_counter()

    def run(self, max_steps: int, checkpoint: Path | None) -> TrainedFit:
        """All stages, and the judgement."""
        start = self._flat(self.model)
        state = State(start, start.clone())
        if checkpoint is not None and checkpoint.exists():
            state, self.rounds = load(checkpoint, state, self.origin)
        for stage in range(state.stage, len(_STAGES)):
            if stage != state.stage:
                state = replace(
                    state,
                    weights=state.best,
                    stage=stage,
                    steps_of_stage=0,
                    idle=0,
                    done=False,
                    best_score=float("inf"),
                )
            self._stage(state, max_steps, checkpoint)
        return self._fit(state)

    @cached_property
    def origin(self) -> dict[str, str]:
        """What the steps depend on besides the weights, for a checkpoint to be told from that of another training."""
        engine = replace(self.engine, device="cpu", compile="auto", memory_budget=MonteCarlo.memory_budget)
        quotes = self.surface.quotes[["t", "strike", "forward", "iv", "iv_bid", "iv_ask"]].to_numpy(float).round(9)
        return {
            "quotes": digest(quotes, self.held_out, self.weighting),
            "start": digest(self.names, self.model),
            "engine": repr(engine),
        }

    def _stage(self, state: State, max_steps: int, checkpoint: Path | None) -> None:
        share, most = _STAGES[state.stage]
        paths, slopes = self._paths(share), self._slopes(share)
        first = paths.engine.n_paths < self.engine.n_paths
        errors = self._errors(paths, state.weights)
        if not state.steps_of_stage:
            self._judge(state, errors, paths)
        enough = (_NEAR if first else _ENOUGH) ** 2 * int(self.weight.count_nonzero())
        while not state.done and state.steps < max_steps and state.steps_of_stage < most:
            noise = (self.weight * errors.noise).square().sum() if first else 0.0
            if self._cost(errors) < max(enough, noise):
                state.done = not first
                break
            jacobian = slopes.jacobian(self._with(state.weights), self.names, errors.beta) / self.vega.unsqueeze(-1)
            cost = self._cost(errors)
            for _ in range(_TRIALS):
                step = -_inverse(jacobian, self.weight, state.damping) @ errors.miss
                step = step * min(1.0, _LONGEST / max(float(step.norm()), 1e-300))
                trial = self._errors(paths, state.weights + step)
                if self._cost(trial) < cost:
                    state.weights, errors = state.weights + step, trial
                    state.damping = max(_LEAST, state.damping * _FALL)
                    break
                state.damping *= _RISE
            state.idle = state.idle + 1 if self._cost(errors) > (1 - _GAIN) * cost else 0
            state.done = state.idle >= 2
            state.steps, state.steps_of_stage = state.steps + 1, state.steps_of_stage + 1
            self._judge(state, errors, paths)
            if checkpoint is not None:
                save(checkpoint, state, self.rounds, self.origin)

    def _judge(self, state: State, errors: _Errors, paths: QuotedPaths) -> None:
        """Keeps the weights if they are the best so far on held-out quotes, or on all."""
        kept = torch.tensor(~self.held_out)
        rmse, held = (1e4 * float(errors.error[rows].square().mean().sqrt()) for rows in (kept, ~kept))
        score = float(self._cost(errors)) if np.isnan(held) else held
        if score < state.best_score:
            state.best, state.best_score = state.weights.clone(), score
        inside = float((errors.error.abs() <= self.quoted.half)[kept].double().mean())
        found = Round(state.steps, paths.engine.n_paths, rmse, held, inside, time.perf_counter() - self.began)
        self.rounds.append(found)
        _LOG.info("%s", found)
        self.progress(found)

    def _cost(self, errors: _Errors) -> Tensor:
        cost = (self.weight * errors.miss).square().sum()
        return torch.where(torch.isfinite(cost), cost, torch.inf)

    def _paths(self, share: int) -> QuotedPaths:
        n_paths = max(min(_FEWEST, self.engine.n_paths), self.engine.n_paths // share)
        return QuotedPaths(self.quoted, self.model, replace(self.engine, n_paths=n_paths))

    def _slopes(self, share: int) -> QuotedPaths:
        """Other paths than those of the errors, and fewer."""
        n_paths = min(max(_FEWEST, self.engine.n_paths // (share * _OF_JACOBIAN)), _MOST, self.engine.n_paths)
        noise = reseeded(self.engine.noise, _OTHER)
        return QuotedPaths(self.quoted, self.model, replace(self.engine, n_paths=n_paths, noise=noise, compile="never"))

    def _errors(self, paths: QuotedPaths, weights: Tensor) -> _Errors:
        priced = paths.prices(self._with(weights))
        vol, vega = self.quoted.vols(priced.value)
        miss, noise = (priced.value - self.market_price) / self.vega, priced.std_error / self.vega
        return _Errors(miss, vol - self.market, vega, priced.beta, noise)

    def _flat(self, model: Model) -> Tensor:
        return torch.cat([model.params[name].detach().flatten() for name in self.names])

    def _with(self, weights: Tensor) -> Model:
        sizes = [self.model.params[name].numel() for name in self.names]
        parts = zip(self.names, weights.split(sizes), strict=True)
        return self.model.with_params({name: part.view_as(self.model.params[name]) for name, part in parts})

    def _fit(self, state: State) -> TrainedFit:
        model = self._with(state.best)
        samples, halved = (
            [self._errors(QuotedPaths(self.quoted, self.model, e), state.best) for e in engines]
            for engines in (fresh(self.engine), fresh_halved(self.engine))
        )
        errors = torch.stack([s.error for s in samples])
        finer = torch.stack([s.error for s in halved])
        slopes = self._slopes(1)
        mean = errors.mean(0)
        jacobian = slopes.jacobian(model, self.names, samples[0].beta) / samples[0].vega.unsqueeze(-1)
        simulation = Simulated.of(
            n_paths=self.engine.n_paths,
            fitted=1e4 * self._errors(self._paths(1), state.best).error,
            fresh=1e4 * mean,
            deviations=1e4 * (errors - mean),
            gradients=torch.zeros(len(errors), 0, dtype=torch.float64),
            halved=torch.zeros(0, dtype=torch.float64),
            normal=torch.zeros(0, 0, dtype=torch.float64),
            unit=torch.full_like(mean, 1e-4),
        )
        held = torch.tensor(self.held_out)
        training = Training(
            names=self.names,
            jacobian=jacobian,
            weight=self.weight,
            damping=state.damping,
            held_out=self.held_out,
            held_out_bp=1e4 * float(mean[held].square().mean().sqrt()),
            step_bias_bp=1e4 * (finer.mean(0) - mean),
            step_bias_error_bp=1e4 * (finer.var(0) / len(finer) + errors.var(0) / len(errors)).sqrt(),
            rounds=tuple(self.rounds),
        )
        weight = self.weight / self.weight.square().mean().sqrt()
        return TrainedFit(
            model=model,
            surface=self.surface,
            status=FitStatus.CONVERGED if state.done else FitStatus.MAX_ITERATIONS,
            model_iv=self.surface.quotes["iv"].to_numpy() + mean.numpy(),
            weight=weight.numpy(),
            free=(),
            jacobian=jacobian[:, :0],
            covariance=torch.zeros(0, 0, dtype=torch.float64),
            at_bounds=(),
            iterations=state.steps,
            starts=1,
            starts_agreeing=1,
            seconds=time.perf_counter() - self.began,
            simulation=simulation,
            training=training,
        )


def _inverse(jacobian: Tensor, weight: Tensor, damping: float) -> Tensor:
    """`J^T W (W J J^T W + lambda I)^-1 W` [W, Q], lambda relative to the mean of the diagonal."""
    a = weight.unsqueeze(-1) * jacobian
    kernel = a @ a.mT
    damped = kernel + damping * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)
    solved: Tensor = a.mT @ torch.linalg.solve(damped, torch.diag(weight))
    return solved


def _names(model: Model, parameters: Sequence[str] | None) -> tuple[str, ...]:
    if parameters is None:
        parameters = [name for name in model.params if name.startswith(("leverage.", "network."))]
        if not parameters:
            raise InputError(
                f"{model.name} has no leverage or network to train: give parameters=[...], or use calibrate()"
            )
    unknown = [name for name in parameters if name not in model.params]
    if unknown or not parameters:
        raise InputError(f"parameters: {model.name} has no {unknown}; it has {', '.join(model.params)}")
    jumpy = [name for name in parameters if moves_by_jumps(name)]
    if jumpy:
        raise InputError(
            f"parameters: paths have no derivative to {jumpy[0]}, as they move by whole jumps; leave it out"
        )
    return tuple(parameters)


def _mask(surface: Surface, held_out: int | Sequence[bool] | np.ndarray | None) -> np.ndarray:
    n = len(surface)
    if held_out is None:
        return np.zeros(n, dtype=bool)
    if isinstance(held_out, int) and not isinstance(held_out, bool):
        if held_out < 2:
            raise InputError(f"held_out must be at least 2 (every n-th quote), got {held_out}")
        every: np.ndarray = np.arange(n) % held_out == held_out // 2
        return every
    mask = np.asarray(held_out)
    if mask.shape != (n,) or mask.dtype != bool or mask.all():
        raise InputError(f"held_out must be a number, or {n} booleans of which one at least is False")
    return mask
