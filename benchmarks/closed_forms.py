"""The three equations with closed-form solutions of Li, Wong, Chen, Duvenaud (2020), in ten dimensions.

Rackauckas, Nie (2017), Discrete Contin. Dyn. Syst. B 22, examples 1 to 3. Solutions are explicit in `W(t)`, and so are
their derivatives to the parameters. Parameters are logistic functions of normals, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.models.sde import SDE

D = torch.float64
DIM = 10
Params = dict[str, Tensor]


@dataclass(frozen=True)
class Problem:
    """Ito drift, diffusion, the Stratonovich drift where it differs, and `y(t)` from `y0`, `t` and `W(t)`."""

    name: str
    names: tuple[str, ...]
    drift: Callable[[Tensor, Tensor, Params], Tensor]
    diffusion: Callable[[Tensor, Tensor, Params], Tensor]
    stratonovich_drift: Callable[[Tensor, Tensor, Params], Tensor]
    solution: Callable[[Tensor, float, Tensor, Params], Tensor]
    noise: str = "diagonal"

    def params(self) -> Params:
        """Parameters that gradients are wanted for, [10] each."""
        g = torch.Generator().manual_seed(4)
        return {n: torch.sigmoid(torch.randn(DIM, generator=g, dtype=D)).requires_grad_() for n in self.names}

    def sde(self, params: Params, interpretation: str) -> SDE:
        """The equation."""
        drift = self.drift if interpretation == "ito" else self.stratonovich_drift
        return SDE(drift, self.diffusion, parameters=params, noise=self.noise, interpretation=interpretation)  # type: ignore[arg-type]

    def start(self, paths: int) -> Tensor:
        """Starts of so many paths, [P, 10]."""
        g = torch.Generator().manual_seed(5)
        return torch.sigmoid(torch.randn(paths, DIM, generator=g, dtype=D)).requires_grad_()


EXAMPLE_1 = Problem(
    "example 1",
    ("a", "b"),
    lambda t, y, p: -p["a"] * y,
    lambda t, y, p: p["b"] * y,
    lambda t, y, p: -(p["a"] + 0.5 * p["b"] ** 2) * y,
    lambda y0, t, w, p: y0 * torch.exp(-(p["a"] + 0.5 * p["b"] ** 2) * t + p["b"] * w),
)
EXAMPLE_2 = Problem(
    "example 2",
    ("p",),
    lambda t, y, p: -(p["p"] ** 2) * torch.sin(y) * torch.cos(y) ** 3,
    lambda t, y, p: p["p"] * torch.cos(y) ** 2,
    lambda t, y, p: torch.zeros_like(y) * p["p"],
    lambda y0, t, w, p: torch.atan(p["p"] * w + torch.tan(y0)),
)
EXAMPLE_3 = Problem(
    "example 3",
    ("a", "b"),
    lambda t, y, p: p["b"] / torch.sqrt(1 + t) - y / (2 + 2 * t),
    lambda t, y, p: p["a"] * p["b"] / torch.sqrt(1 + t) + 0 * y,
    lambda t, y, p: p["b"] / torch.sqrt(1 + t) - y / (2 + 2 * t),
    lambda y0, t, w, p: (y0 + p["b"] * (t + p["a"] * w)) / (1 + t) ** 0.5,
    "additive",
)
PROBLEMS = (EXAMPLE_1, EXAMPLE_2, EXAMPLE_3)
