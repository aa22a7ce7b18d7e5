"""The law of the ratio of two geometric combinations of prices, in the form in which the quadratures take a model."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from qsde.models.affine import affine, log_moment, moment_exists
from qsde.models.base import FourierModel, Model, Parameter, fourier_model
from qsde.numerics import FEW

#: Candidates per pass, and passes, of the search for the end of the strip: it is found to about 1e-6 of its width.
_CANDIDATES, _PASSES = 256, 3
#: Few exponents come in multiples of so many: torch computes what is left beside vector registers by other
#: instructions, so that a law among others would have other last digits than alone. Many are never put together.
MULTIPLE = 16


@dataclass(frozen=True)
class Exposure:
    """Two linear combinations of `x = log(S/F)` at several dates, as exponents of its increments.

    Attributes:
        steps: lengths of the intervals, years, [interval].
        below, above: exponents of the increments in the denominator and the numerator, likewise.
    """

    steps: Tensor
    below: Tensor
    above: Tensor

    @classmethod
    def of(cls, times: Tensor, below: Sequence[float], above: Sequence[float]) -> Exposure:
        """From weights of `x` at increasing times: an increment belongs to every later date. `x_0 = 0` drops out."""
        first = int(not times[0] > 0)
        steps = times.diff(prepend=times.new_zeros(1))[first:]
        return cls(steps, *(steps.new_tensor(_from_the_end(row)[first:]) for row in (below, above)))

    def exponents(self, z: Tensor) -> Tensor:
        """`below + z (above - below)`, [interval, ...]."""
        low, high = (row.to(z.device).reshape(-1, *(1,) * z.dim()) for row in (self.below, self.above))
        return low + z * (high - low)


@dataclass(frozen=True, eq=False)
class LogRatio(FourierModel):
    """The law of `y = log(N / M)` under the measure of the numeraire `M`, as if it were that of `x` at one date.

    `N` and `M` are products of powers of `exp(x)` at several dates. With `L(z) = log E[M^(1 - z) N^z]`,

        log_cf(u) = L(i u) - (1 - i u) L(0) - i u L(1),

    so that `exp(y - E[N] / E[M])` has mean 1. Options `(N - k M)^+` are `E[M]` times options `(N/M - k)^+` of this law,
    and European pricers price those. The time that their methods take means nothing here.

    Args:
        model: any affine model.
        rules: (factor, exposure) pairs: `L` is the sum of factor times that of the exposure. One pair with factor 1
            except where rules for a continuous average are extrapolated.
        label: name for messages.
    """

    model: Model
    rules: tuple[tuple[float, Exposure], ...]
    label: str

    @property
    def name(self) -> str:
        """Label and name of the model."""
        return f"{self.label} under {self.model.name}"

    @property
    def params(self) -> dict[str, Tensor]:
        """Those of the model."""
        return self.model.params

    @property
    def table(self) -> Mapping[str, Parameter]:
        """That of the model."""
        return self.model.table

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same with some parameters of the model replaced."""
        new = copy.copy(self)
        object.__setattr__(new, "model", self.model.with_params(params))
        return new

    @property
    def gaussian(self) -> bool:
        """Whether it is that of the model."""
        return fourier_model(self.model).gaussian

    @property
    def log_means(self) -> tuple[Tensor, Tensor]:
        """`log E[M]` and `log E[N]`, each of the shape of the parameters."""
        shaped = self.model.map(lambda p: p.unsqueeze(-1))
        device = next(iter(self.params.values())).device
        ends = _log_moment(shaped, self.rules, _ends(0, self.rules, torch.complex128, device)).real
        return ends[..., -2], ends[..., -1]

    def log_cf(self, u: Tensor, t: Tensor) -> Tensor:
        """`log E^M[exp(i u (y - log(E[N] / E[M])))]`."""
        z = 1j * u
        n = z.shape[-1]
        ends = _ends(n, self.rules, z.dtype, z.device)
        found = _log_moment(self.model, self.rules, torch.cat([z, ends.expand(*z.shape[:-1], len(ends))], -1))
        value, low, high = found[..., :n], found[..., -2:-1], found[..., -1:]
        return value - (1 - z) * low - z * high

    def total_variance(self, t: Tensor) -> Tensor:
        """Variance that sets the scale of the quadrature: that of increments times squared exponents."""
        _, exposure = self.rules[0]
        below, above = exposure.below.to(t), exposure.above.to(t)
        dates = torch.nn.functional.pad(exposure.steps.detach().to(t).cumsum(0), (1, 0))
        growth = fourier_model(self.model).total_variance(dates).diff(dim=-1)
        return ((above - below).square() * growth).sum(-1, keepdim=True) + torch.zeros_like(t)

    def ripple(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        """That of the model, stretched: its extent by the typical exponent, its distance by the largest."""
        _, exposure = self.rules[0]
        model, whole = fourier_model(self.model), torch.full_like(t, float(exposure.steps.sum()))
        found = model.ripple(whole)
        if found is None:
            return None
        most = float((exposure.above - exposure.below).abs().max())
        typical = torch.sqrt(self.total_variance(t) / model.total_variance(whole).clamp(min=1e-14)).clamp(min=1e-6)
        return found[0] / typical, found[1] * most

    def moment_range(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where `L` is finite, found by trial."""
        return -self._room(t, 0.0, -1.0), 1 + self._room(t, 1.0, 1.0)

    @torch.no_grad()
    def _room(self, t: Tensor, base: float, side: float) -> Tensor:
        """How far beyond `base` the moment is finite."""
        _, exposure = self.rules[0]
        model = affine(self.model)
        trial = torch.logspace(-9, 8, _CANDIDATES, dtype=t.dtype, device=t.device)
        low = torch.zeros_like(t)
        for _ in range(_PASSES):
            alive = moment_exists(model, exposure.exponents(base + side * trial), exposure.steps)
            alive, trial = torch.broadcast_tensors(alive, trial)
            passed = alive.to(torch.int8).cumprod(-1).sum(-1, keepdim=True)  # candidates before the first that fails
            low = torch.where(passed > 0, trial.gather(-1, (passed - 1).clamp(min=0)), low)
            high = trial.gather(-1, passed.clamp(max=_CANDIDATES - 1))
            trial = low + (high - low) * torch.linspace(0, 1, _CANDIDATES, dtype=t.dtype, device=t.device)
        return low


def _log_moment(model: Model, rules: Sequence[tuple[float, Exposure]], z: Tensor) -> Tensor:
    return sum(
        (factor * log_moment(affine(model), exposure.exponents(z), exposure.steps) for factor, exposure in rules),
        torch.zeros((), dtype=z.dtype, device=z.device),
    )


def _ends(n: int, rules: Sequence[tuple[float, Exposure]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros and a last 1: two numbers, or as many as make a multiple with the `n` exponents before them."""
    few = len(rules[0][1].steps) * (n + MULTIPLE) < FEW
    zeros = 1 + (-(n + 2) % MULTIPLE if few else 0)
    return torch.tensor([0.0] * zeros + [1.0], dtype=dtype, device=device)


def _from_the_end(weights: Sequence[float]) -> list[float]:
    """Sums of each weight and those after it."""
    return list(itertools.accumulate(reversed(weights)))[::-1]
