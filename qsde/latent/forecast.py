"""What a fitted latent SDE says: forecasts beyond a history, and the history again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.latent.model import LatentSDE
from qsde.latent.series import Series
from qsde.noise import Noise, Threefry
from qsde.noise.seeds import other

_SEED_0 = Threefry(0)
#: Numbers of context that one chunk of series may hold.
_CHUNK = 1 << 24


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Equally likely paths: a distribution over the future, or over the past.

    Attributes:
        times: [T].
        paths: [M, B, T, d]: M paths for each of B series.
    """

    times: Tensor
    paths: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over the paths, [B, T, d]."""
        return self.paths.mean(0)

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """Quantiles over the paths: [B, T, d], or [len(q), B, T, d] for several.

        Example:
            >>> Ensemble(torch.zeros(1), torch.arange(5.0).view(5, 1, 1, 1)).quantile([0.25, 0.5]).flatten()
            tensor([1., 2.])
        """
        return torch.quantile(self.paths, torch.as_tensor(q, dtype=self.paths.dtype), 0)


@torch.no_grad()
def forecast(
    model: LatentSDE,
    history: Series,
    times: Tensor | Sequence[float],
    paths: int = 1000,
    noise: Noise = _SEED_0,
) -> Ensemble:
    """Observations to come after each history: posterior to its last time, prior from there on, likelihood.

    Args:
        model: a fitted model.
        history: B series; nothing after them is used.
        times: [T] later times, increasing.
        paths: paths M for each series.
        noise: random numbers, a value: same noise, same digits.

    Raises:
        InputError: a time is not later than the history, or times do not increase.

    Example:
        >>> model = LatentSDE(observed=1, latent=2, context=4, hidden=8, solver=0.1)
        >>> history = Series(torch.tensor([0.0, 0.1, 0.4]), torch.zeros(5, 3, 1))
        >>> forecast(model, history, [0.5, 1.0], paths=16).quantile(0.9).shape
        torch.Size([5, 2, 1])
    """
    later = torch.as_tensor(times, dtype=torch.float64)
    start = history.times[-1:]
    if later.dim() != 1 or not len(later) or not bool((torch.cat([start, later]).diff() > 0).all()):
        raise InputError(f"forecast times must increase and be later than {float(start):g}, got {later.tolist()}")

    def part(some: Series, noise: Noise) -> Tensor:
        z = model.posterior(some, noise, paths).states[-1].flatten(0, 1)
        ahead = model.prior_from(z, torch.cat([start, later]), noise)[1:]
        return model.observe(ahead, noise)

    return Ensemble(later, _in_chunks(model, history, paths, noise, part))


@torch.no_grad()
def reconstruct(model: LatentSDE, series: Series, paths: int = 1000, noise: Noise = _SEED_0) -> Ensemble:
    """Expected observations along posterior paths, at the times of the series: what is left without its noise.

    Args:
        model: a fitted model.
        series: B series.
        paths: paths M for each series.
        noise: random numbers, a value: same noise, same digits.

    Example:
        >>> model = LatentSDE(observed=1, latent=2, context=4, hidden=8, solver=0.1)
        >>> series = Series(torch.tensor([0.0, 0.1, 0.4]), torch.zeros(5, 3, 1))
        >>> reconstruct(model, series, paths=16).paths.shape
        torch.Size([16, 5, 3, 1])
    """

    def part(some: Series, noise: Noise) -> Tensor:
        return model.likelihood.mean(model.posterior(some, noise, paths).states.flatten(1, 2))

    return Ensemble(series.times, _in_chunks(model, series, paths, noise, part))


@torch.no_grad()
def sample(model: LatentSDE, times: Tensor, paths: int = 1000, noise: Noise = _SEED_0) -> Ensemble:
    """Observations of the prior from its start at the first of the times: [M, 1, T, d].

    Example:
        >>> model = LatentSDE(observed=1, latent=2, context=4, hidden=8, solver=0.1)
        >>> sample(model, torch.linspace(0.0, 1.0, 5), paths=16).paths.shape
        torch.Size([16, 1, 5, 1])
    """
    z = model.prior_paths(times.double(), noise, paths)
    return Ensemble(times, model.observe(z, noise).movedim(0, 1).unsqueeze(1))


def _in_chunks(
    model: LatentSDE, series: Series, paths: int, noise: Noise, part: Callable[[Series, Noise], Tensor]
) -> Tensor:
    """`part` [T, M b, d] of as many series at a time as memory allows, put together to [M, B, T, d]."""
    if paths < 1:
        raise InputError(f"paths must be 1 or more, got {paths}")
    size = max(1, _CHUNK // (paths * len(series.times) * model.sizes.context))
    out = []
    for number, first in enumerate(range(0, len(series), size)):
        some = series.select(slice(first, first + size))
        found = part(some, other(noise, number))
        out.append(found.view(len(found), paths, len(some), -1).permute(1, 2, 0, 3))
    return torch.cat(out, 1)
