"""The search space of a calibration: which parameters are free, their bounds by construction, and where to start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model, Parameter, stated


@dataclass(frozen=True)
class Space:
    """Maps unconstrained unknowns to model parameters: `p = lower + (upper - lower) sigmoid(x)`.

    The map is `torch.distributions.biject_to(interval(lower, upper))` for all parameters in one operation.

    Attributes:
        model: template; its values fill the fixed parameters and the first start.
        free: names of the parameters that move, in the order of `model.params`; tensors of several numbers, such as
            the initial state of an SDE, never do.
        lower, upper: bounds of the free parameters [P].
    """

    model: Model
    free: tuple[str, ...]
    lower: Tensor
    upper: Tensor

    @classmethod
    def of(
        cls, model: Model, bounds: Mapping[str, tuple[float, float]] | None, fixed: Sequence[str] | Mapping[str, float]
    ) -> Space:
        """Space of a template model with some bounds replaced and some parameters fixed (by name, or name and value).

        Raises:
            InputError: unknown parameter, reversed bounds, bounds outside the domain, none where the model's table has
                none (an SDE), or nothing left free.
        """
        if model.batch_shape:
            raise InputError("the template model must be a single parameter set, without batch axes")
        held = [name for name, p in model.params.items() if p.dim()]  # an SDE's initial state, weights
        names = [name for name in fixed if name not in held]
        values = dict(fixed) if isinstance(fixed, Mapping) else {name: float(_get(model, name)) for name in names}
        bounds = dict(bounds or {})
        for name in (*values, *bounds):
            if _get(model, name).dim():
                raise InputError(f"{name} is a tensor of several numbers: it keeps the template's value")
        for name, value in values.items():
            _check_domain(name, model.table[name], value)
        model = model.with_params({name: torch.tensor(float(v), dtype=torch.float64) for name, v in values.items()})
        free = tuple(name for name in model.params if name not in values and name not in held)
        if not free:
            raise InputError("every parameter is fixed: nothing is left to calibrate")
        for name, (low, high) in bounds.items():
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InputError(f"bounds of {name} must be finite and low < high, got ({low}, {high})")
            for end in (low, high):
                _check_domain(name, model.table[name], end)
        pairs = [bounds.get(name, model.table[name].bounds) for name in free]
        open_ended = [name for name, pair in zip(free, pairs, strict=True) if not all(map(math.isfinite, pair))]
        if open_ended:
            raise InputError(
                f"{model.name} says nothing of the size of {', '.join(open_ended)}: "
                f"give bounds={{{open_ended[0]!r}: (low, high), ...}}, or fix it"
            )
        lower, upper = torch.tensor(pairs, dtype=torch.float64).T
        return cls(model, free, lower, upper)

    def to_params(self, x: Tensor) -> Tensor:
        """Parameters [..., P] from unknowns [..., P]."""
        return self.lower + (self.upper - self.lower) * torch.sigmoid(x)

    def slope(self, p: Tensor) -> Tensor:
        """`dp/dx` at parameters `p`."""
        return (p - self.lower) * (self.upper - p) / (self.upper - self.lower)

    def to_unknowns(self, p: Tensor) -> Tensor:
        """Unknowns from parameters; points on or outside a bound are first moved inside by 1e-6 of the interval."""
        share = ((p - self.lower) / (self.upper - self.lower)).clamp(1e-6, 1 - 1e-6)
        return torch.logit(share)

    def with_free(self, p: Tensor) -> Model:
        """The model whose free parameters are the last axis of `p`; other axes are batch axes."""
        return self.model.with_params(dict(zip(self.free, p.unbind(-1), strict=True)))

    def starts(self, n: int, levels: Mapping[str, Tensor], seed: int) -> Tensor:
        """Starting points [S, n, P]: the template first, then a scrambled Sobol sample of the search ranges.

        Args:
            n: points per surface.
            levels: what relative search ranges are relative to, by name, each [S] (see `Parameter.relative_to`).
            seed: seed of the scrambling.
        """
        n_surfaces = next(iter(levels.values())).shape[0]
        first = torch.stack([self.model.params[name] for name in self.free]).expand(n_surfaces, 1, -1)
        if n == 1:
            return first.clone()
        sobol = torch.quasirandom.SobolEngine(len(self.free), scramble=True, seed=seed)
        unit = sobol.draw(n - 1, dtype=torch.float64)
        columns = [_sample(unit[:, i], self._searched(i), levels, n_surfaces) for i in range(len(self.free))]
        sampled = torch.stack(columns, -1)
        margin = 1e-3 * (self.upper - self.lower)
        sampled = torch.minimum(torch.maximum(sampled, self.lower + margin.clamp(max=1e-4)), self.upper - margin)
        return torch.cat([first, sampled], 1)

    def _searched(self, i: int) -> Parameter:
        """The row of a free parameter; where it names no range to search, that is all between the bounds."""
        row = self.model.table[self.free[i]]
        if all(map(math.isfinite, row.search)):
            return row
        return replace(row, search=(float(self.lower[i]), float(self.upper[i])))

    def at_bounds(self, p: Tensor) -> tuple[str, ...]:
        """Free parameters at a bound.

        Within 0.1 % of the interval from the upper one; from the lower one, which may be far smaller than the interval,
        within a tenth of its own size (0.001 at most) or a millionth of the interval.
        """
        interval = self.upper - self.lower
        near_low = p - self.lower <= torch.maximum(0.1 * self.lower.abs().clamp(max=1e-2), 1e-6 * interval)
        near_high = self.upper - p <= 1e-3 * interval
        return tuple(name for name, hit in zip(self.free, (near_low | near_high).tolist(), strict=True) if hit)


def _sample(unit: Tensor, parameter: Parameter, levels: Mapping[str, Tensor], n_surfaces: int) -> Tensor:
    low, high = parameter.search
    spread = low * (high / low) ** unit if low > 0 else low + (high - low) * unit
    if parameter.relative_to:
        return levels[parameter.relative_to].unsqueeze(-1) * spread
    return spread.expand(n_surfaces, -1)


def _get(model: Model, name: str) -> Tensor:
    if name not in model.params:
        raise InputError(f"{model.name} has no parameter {name!r}; it has {', '.join(model.params)}")
    return model.params[name]


def _check_domain(name: str, parameter: Parameter, value: float) -> None:
    if not math.isfinite(value) or not bool(parameter.domain.check(torch.tensor(value, dtype=torch.float64))):
        raise InputError(f"{name} = {value} is outside its domain: {parameter.text} must be {stated(parameter.domain)}")
