"""The functions of an SDE, how Brownian motions enter, and what a step may ask of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qsde.errors import InputError

#: `f(t, y, params)`, or a module called as `f(t, y)`.
Function = Callable[..., Tensor]
NoiseKind = Literal["diagonal", "scalar", "additive", "general"]
Interpretation = Literal["ito", "stratonovich"]
#: How a diffusion meets the Brownian motions: entry by entry, one for all entries, or by a matrix.
Layout = Literal["diagonal", "scalar", "matrix"]

NOISE_KINDS: tuple[NoiseKind, ...] = ("diagonal", "scalar", "additive", "general")
_RETURNS = {
    "diagonal": "[P, *shape]",
    "scalar": "[P, *shape]",
    "additive": "[P, *shape, m] or [*shape, m] (or [P, *shape] for a Brownian motion of each component)",
    "general": "[P, *shape, m]",
}


@dataclass(frozen=True)
class Dynamics:
    """An SDE without numbers: what a scheme is bound to and a kernel is compiled for.

    Attributes:
        drift, diffusion: functions of `(t, y, params)`, or modules of `(t, y)`.
        names: names of the parameters, in the order in which a step is given them.
        noise, interpretation: as in `SDE`.
        shape: shape of one path's state.
        layout: how the diffusion meets the Brownian motions.
        motions: number of Brownian motions.
        per_path: how many of the parameters, the last ones, differ from path to path.
    """

    drift: Function
    diffusion: Function
    names: tuple[str, ...]
    noise: NoiseKind
    interpretation: Interpretation
    shape: tuple[int, ...]
    layout: Layout
    motions: int
    per_path: int = 0

    @classmethod
    def of(
        cls, drift: Function, diffusion: Function, parameters: Mapping[str, Tensor], noise: NoiseKind,
        interpretation: Interpretation, y: Tensor, t: Tensor, per_path: Mapping[str, Tensor] | None = None,
    ) -> Dynamics:  # fmt: skip
        """The dynamics of these functions, which are tried on the states `y` [P, *shape] at time `t`.

        Args:
            drift: as in `SDE`.
            diffusion: likewise.
            parameters: values by name.
            noise: as in `SDE`.
            interpretation: likewise.
            y: some states; only their shape matters.
            t: a time.
            per_path: parameters whose first axis is that of the paths of `y`.

        Raises:
            InputError: a function returns the wrong shape, changes the state in place, or uses a tensor that requires
                grad and is no parameter.
        """
        own = per_path or {}
        names, shape = (*parameters, *own), tuple(y.shape[1:])
        trial = cls(drift, diffusion, names, noise, interpretation, shape, "diagonal", 1, len(own))
        values = [v.detach() for v in (*parameters.values(), *own.values())]
        with torch.enable_grad():
            equation = trial.at(values)
            f, g = (_tried(role, getattr(equation, role), t, y.detach().clone()) for role in ("drift", "diffusion"))
        _check_output("drift", f, "[P, *shape]", y, isinstance(f, Tensor) and f.shape == y.shape)
        layout = _layout(noise, g, y)
        motions = {"diagonal": math.prod(shape), "scalar": 1}.get(layout) or g.shape[-1]
        return cls(drift, diffusion, names, noise, interpretation, shape, layout, motions, len(own))

    def at(self, values: Sequence[Tensor]) -> Equation:
        """The equation with these values of its parameters, in the order of `names`."""
        return Equation(self, dict(zip(self.names, values, strict=True)))


@dataclass(frozen=True)
class Equation:
    """An SDE with its numbers: what a scheme asks of it. States are [P, *shape], times 0-dim.

    Attributes:
        dynamics: the functions.
        params: values by name.
    """

    dynamics: Dynamics
    params: Mapping[str, Tensor]

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift [P, *shape]."""
        return self._call("drift", self.dynamics.drift, t, y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion [P, *shape], or for the matrix layout what broadcasts to [P, *shape, m]."""
        return self._call("diffusion", self.dynamics.diffusion, t, y)

    def increments(self, values: Tensor) -> Tensor:
        """One number per Brownian motion [P, m], in the shape in which they meet the diffusion."""
        shape, ones = self.dynamics.shape, (1,) * len(self.dynamics.shape)
        tails = {"diagonal": shape, "scalar": ones, "matrix": (*ones, values.shape[-1])}
        return values.reshape(-1, *tails[self.dynamics.layout])

    def product(self, g: Tensor, dw: Tensor) -> Tensor:
        """`g dw` [P, *shape] of a diffusion and increments in the shape of `increments`."""
        return (g * dw).sum(-1) if self.dynamics.layout == "matrix" else g * dw

    def shock(self, t: Tensor, y: Tensor, dw: Tensor) -> Tensor:
        """`diffusion(t, y) dw` [P, *shape]."""
        return self.product(self.diffusion(t, y), dw)

    def _call(self, role: str, function: Function, t: Tensor, y: Tensor) -> Tensor:
        if not isinstance(function, nn.Module):
            return function(t, y, self.params)
        start = f"{role}."
        weights = {k.removeprefix(start): v for k, v in self.params.items() if k.startswith(start)}
        own = self.dynamics.names[len(self.dynamics.names) - self.dynamics.per_path :]
        args = (t, y, {name: self.params[name] for name in own}) if own else (t, y)
        out: Tensor = torch.func.functional_call(function, weights, args)
        return out


def _tried(role: str, function: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor) -> Tensor:
    """The function's value, if it leaves the state alone: the step, the other function and the gradient need it."""
    before = y._version
    try:
        out = function(t, y)
    except KeyError as missing:
        raise InputError(f"SDE: {role} asks for {missing}, which is not among its parameters={{...}}") from missing
    except TypeError as reason:
        if "positional argument" not in str(reason):
            raise
        raise InputError(f"SDE: {role} is called as {role}(t, y, parameters), a module as (t, y): {reason}") from reason
    if y._version != before:
        raise InputError(f"SDE: {role} changes y in place: write y * 2 instead of y.mul_(2), or take y.clone()")
    return out


def _layout(noise: NoiseKind, g: Any, y: Tensor) -> Layout:
    wide = isinstance(g, Tensor) and g.dim() == y.dim() + 1 and g.shape[:-1] == y.shape
    same = isinstance(g, Tensor) and g.shape == y.shape
    shared = isinstance(g, Tensor) and g.dim() == y.dim() > 1 and g.shape[:-1] == y.shape[1:]
    good = {"diagonal": same, "scalar": same, "general": wide, "additive": same or wide or shared}[noise]
    _check_output("diffusion", g, _RETURNS[noise], y, good)
    if noise == "additive":
        return "diagonal" if same else "matrix"
    return "matrix" if noise == "general" else noise


def _check_output(role: str, out: Any, wanted: str, y: Tensor, good: bool) -> None:
    if not good:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"SDE: {role} must return {wanted} for states [P, *shape] = {tuple(y.shape)}, got {got}")
    if out.requires_grad:
        raise InputError(
            f"SDE: {role} uses a tensor that requires grad and is not among its parameters, so its gradient would be "
            f"lost; pass it in parameters={{...}} and take it from the third argument, or make {role} an nn.Module"
        )
