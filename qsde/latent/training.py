"""Fitting a latent SDE: stochastic gradient ascent of the evidence lower bound."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.latent.files import description, read, write
from qsde.latent.model import LatentSDE
from qsde.latent.series import Series
from qsde.noise import Threefry
from qsde.noise.seeds import other

_HELD_OUT = -1
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Stop(StrEnum):
    """Why a training ended; the value is the sentence a user reads."""

    ITERATIONS = "ran all iterations"
    PATIENCE = "stopped: the held-out bound no longer rises"


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        iterations: steps of the optimiser (Adam).
        batch: series in each, drawn without replacement.
        paths: posterior paths of each series.
        rate: first learning rate; it falls to `rate * last_rate` by the last iteration, geometrically.
        last_rate: see `rate`.
        kl_ramp: iterations over which the weight of the divergence rises from 0 to 1.
        clip: largest norm of the gradient of the bound per observed number.
        check_every: iterations between two looks at the held-out series.
        check_paths: posterior paths of each of those.
        patience: looks without improvement after the ramp, at which to stop.
        seed: of batches and paths; same seed, same digits.
    """

    iterations: int = 500
    batch: int = 64
    paths: int = 1
    rate: float = 1e-2
    last_rate: float = 0.1
    kl_ramp: int = 100
    clip: float = 1.0
    check_every: int = 25
    check_paths: int = 4
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("kl_ramp", "seed") else 1 if isinstance(value, int) else 1e-12
            if not least <= value < math.inf:
                raise InputError(f"Settings: {name} must be at least {least:g} and finite, got {value}")


@dataclass(frozen=True)
class Record:
    """One look at a training.

    Attributes:
        iteration: steps done.
        bound: of the last batch, per series, with the full weight of the divergence.
        divergence: of the last batch, per series.
        held_out: bound of the held-out series, per series; None without any.
        gradient: norm before clipping.
    """

    iteration: int
    bound: float
    divergence: float
    held_out: float | None
    gradient: float


@dataclass(frozen=True)
class Training:
    """What a training did.

    Attributes:
        records: looks, in order.
        best: the iteration whose weights the model has: that of the highest held-out bound, or the last.
        stop: why it ended.
        seconds: of this call.
    """

    records: tuple[Record, ...]
    best: int
    stop: Stop
    seconds: float


def fit(
    model: LatentSDE,
    series: Series,
    held_out: Series | None = None,
    settings: Settings | None = None,
    *,
    checkpoint: str | Path | None = None,
    progress: Callable[[Record], None] | None = None,
) -> Training:
    """Fits the weights of a model, in place, by raising its evidence lower bound.

    With held-out series the model ends with the weights that were best on them. The same seed gives the same digits,
    also when a training was interrupted and goes on from its checkpoint.

    Args:
        model: the model; call `model.standardise(series)` first unless the series are in units of order one.
        series: what to learn from.
        held_out: series that only decide when to stop.
        settings: how; None takes the defaults.
        checkpoint: a file written at every look; if it exists, the training it holds goes on.
        progress: called at every look.

    Raises:
        InputError: the checkpoint is of another model, of other series or of other settings.
        FileFormatError: the checkpoint cannot be read.
        NumericsError: the bound or its gradient is not finite.

    Reference:
        Li, Wong, Chen, Duvenaud (2020), section 5; Kingma, Ba (2015), "Adam".

    Example:
        >>> series = Series(torch.linspace(0, 1, 5), torch.linspace(0, 1, 80).view(8, 5, 2))
        >>> model = LatentSDE(observed=2, latent=2, context=4, hidden=8, solver=0.25)
        >>> training = fit(model, series, settings=Settings(iterations=20, check_every=10, kl_ramp=0))
        >>> training.best, training.records[-1].bound > training.records[0].bound
        (20, True)
    """
    start = time.perf_counter()
    run = _Run(model, series, held_out, settings or Settings())
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None and file.exists():
        run.resume(file)
    while run.stop is None:
        run.advance()
        if run.looks:
            record = run.look()
            if file is not None:
                write(file, run.tensors(), run.about())
            if progress is not None:
                progress(record)
    model.load_state_dict(run.best_weights)
    return Training(tuple(run.records), run.best, run.stop, time.perf_counter() - start)


class _Run:
    """A training under way: everything a checkpoint holds."""

    def __init__(self, model: LatentSDE, series: Series, held_out: Series | None, settings: Settings) -> None:
        self.model, self.series, self.held_out, self.settings = model, series, held_out, settings
        self.noise = Threefry(settings.seed)
        self.adam = torch.optim.Adam(model.parameters(), settings.rate)
        self.iteration, self.best, self.best_bound = 0, 0, -math.inf
        self.best_weights = _copied(model)
        self.records: list[Record] = []
        self.last: tuple[float, float, float] = (math.nan, math.nan, math.nan)

    @property
    def looks(self) -> bool:
        """Whether this is an iteration to look at."""
        return self.iteration % self.settings.check_every == 0 or self.iteration == self.settings.iterations

    @property
    def stop(self) -> Stop | None:
        """Why the training is over, if it is."""
        s = self.settings
        waited = (self.iteration - max(self.best, s.kl_ramp)) // s.check_every
        if self.held_out is not None and waited >= s.patience:
            return Stop.PATIENCE
        return Stop.ITERATIONS if self.iteration >= s.iterations else None

    def advance(self) -> None:
        """One step of the optimiser."""
        s, i = self.settings, self.iteration
        order = torch.randperm(len(self.series), generator=torch.Generator().manual_seed(s.seed + (i << 20)))
        batch = self.series.select(order[: s.batch])
        for group in self.adam.param_groups:
            group["lr"] = s.rate * s.last_rate ** (i / s.iterations)
        bound = self.model.bound(batch, other(self.noise, i), s.paths)
        loss = -bound.weighted(min(1.0, (i + 1) / max(1, s.kl_ramp))).mean() * len(batch) / batch.seen.sum()
        self.adam.zero_grad()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip))
        if not math.isfinite(norm) or not math.isfinite(float(loss.detach())):
            raise NumericsError(
                f"iteration {i}: the bound is {-float(loss.detach()):g} and its gradient {norm:g}; lower the rate "
                f"({s.rate:g}) or the largest step ({self.model.solver.max_dt:g})"
            )
        self.adam.step()
        self.iteration += 1
        divergence = float((bound.kl_start + bound.kl_path).mean().detach())
        self.last = (float(bound.value.mean().detach()), divergence, norm)

    @torch.no_grad()
    def look(self) -> Record:
        """Records where the training stands, and keeps the weights if they are the best."""
        held_out = None
        if self.held_out is not None:
            noise = other(self.noise, _HELD_OUT)
            held_out = float(self.model.bound(self.held_out, noise, self.settings.check_paths).value.mean())
        # while the divergence has not its full weight, a bound is not what is being raised
        ramped = self.iteration >= min(self.settings.kl_ramp, self.settings.iterations)
        if held_out is None or (held_out > self.best_bound and ramped):
            self.best, self.best_weights = self.iteration, _copied(self.model)
            self.best_bound = -math.inf if held_out is None else held_out
        record = Record(self.iteration, self.last[0], self.last[1], held_out, self.last[2])
        self.records.append(record)
        return record

    def tensors(self) -> dict[str, Tensor]:
        """Weights, best weights and the optimiser's moments."""
        out = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        out |= {f"best.{name}": t for name, t in self.best_weights.items()}
        for name, weight in self.model.named_parameters():
            out |= {f"{moment}.{name}": self.adam.state[weight][moment] for moment in _MOMENTS}
        return {name: t.clone() for name, t in out.items()}

    def about(self) -> dict[str, Any]:
        """Where the training stands, and what it is a training of."""
        best_bound = self.best_bound if math.isfinite(self.best_bound) else None
        state = {"iteration": self.iteration, "best": self.best, "best_bound": best_bound}
        return {**self._identity(), **state, "records": [asdict(record) for record in self.records]}

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint."""
        tensors, about = read(path)
        for name, value in self._identity().items():
            if about.get(name) != value:
                raise InputError(f"{path} is the checkpoint of another training: its {name} differ; name another file")
        self.model.load_state_dict(_under(tensors, "model"))
        self.best_weights = _under(tensors, "best")
        self.iteration, self.best = about["iteration"], about["best"]
        self.best_bound = -math.inf if about["best_bound"] is None else about["best_bound"]
        self.records = [Record(**record) for record in about["records"]]
        for name, weight in self.model.named_parameters():
            moments = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            self.adam.state[weight] = {"step": torch.tensor(float(self.iteration)), **moments}

    def _identity(self) -> dict[str, Any]:
        found = description(self.model) | {"settings": asdict(self.settings), "series": _digest(self.series)}
        found["held_out"] = None if self.held_out is None else _digest(self.held_out)
        found["sizes"]["channels"] = list(found["sizes"]["channels"])
        return found


def _copied(model: LatentSDE) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items()}


def _under(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{start}."): t for name, t in tensors.items() if name.startswith(f"{start}.")}


def _digest(series: Series) -> str:
    found = hashlib.sha256()
    for t in (series.times, series.values, series.seen):
        found.update(t.contiguous().numpy().tobytes())
    return found.hexdigest()
