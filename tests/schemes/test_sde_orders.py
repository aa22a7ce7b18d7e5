"""Strong orders of the schemes of functions: every scheme and kind of noise against closed forms on the same path.

All levels of steps see one Brownian motion: increments and space-time Levy areas of a fine grid, put together exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from qsde.models import SDE
from qsde.noise import Noise
from qsde.noise.base import BlockNoise, Columns
from qsde.schemes import (
    SCHEMES,
    SRA1,
    SRID2,
    UBU,
    EulerHeun,
    EulerMaruyama,
    Heun,
    ItoMilstein,
    LogODE,
    Midpoint,
    NinomiyaVictoir,
    PlatenWeak2,
    ReversibleHeun,
    SDEScheme,
    ShARK,
    Strang,
    StratonovichMilstein,
)
from qsde.solve import sdeint

D = torch.float64
LEVELS = (16, 32, 64, 128, 256)


@dataclass(frozen=True, eq=False)
class Path:
    """Brownian motions of many paths on a fine grid of [0, 1]: increments and Levy areas [fine, m, P]."""

    w: Tensor
    h: Tensor

    @classmethod
    def drawn(cls, n_paths: int, motions: int, fine: int) -> Path:
        generator = torch.Generator().manual_seed(7)
        normals = torch.randn(fine, 2 * motions, n_paths, generator=generator, dtype=D) / math.sqrt(fine)
        return cls(normals[:, :motions], normals[:, motions:] / math.sqrt(12))

    @functools.cache  # noqa: B019 (a path lives as long as the tests)
    def coarse(self, n_steps: int) -> Path:
        """The same path on fewer steps: `dt (H + W / 2)` is the integral of the path above its start."""
        w, h = (x.unflatten(0, (n_steps, -1)) for x in (self.w, self.h))
        before = w.cumsum(1) - w
        whole = w.sum(1)
        return Path(whole, (before + w / 2 + h).mean(1) - whole / 2)

    @property
    def end(self) -> Tensor:
        """W at 1, [P, m]."""
        return self.w.sum(0).T

    @property
    def integral(self) -> Tensor:
        """The integral of W from 0 to 1, [P, m]."""
        whole = self.coarse(1)
        return (whole.w[0] / 2 + whole.h[0]).T


@dataclass(frozen=True, eq=False)
class Given(Noise, BlockNoise):
    """The normals of a given path, as a scheme of n steps draws them."""

    path: Path
    dtype: torch.dtype = D

    def block(self, paths: Tensor, n_steps: int, n_normals: int, *args: object, **more: object) -> Given:
        return replace(self, path=self.path.coarse(n_steps))

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        root = math.sqrt(len(self.path.w))
        w, h = self.path.w[int(step)] * root, self.path.h[int(step)] * (root * math.sqrt(12))
        return (*w, *h), ()

    def empty(self) -> Tensor:
        return self.path.w[0, :0]

    def bytes_per_path(self, *args: object) -> int:
        return 0


Functions = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Problem:
    """A Stratonovich equation, the correction that makes it an Ito one, and its solution at 1 on a path."""

    drift: Functions
    diffusion: Functions
    correction: Functions
    start: list[float]
    exact: Callable[[Path], Tensor]
    flows: tuple[Callable[..., Tensor], Callable[..., Tensor]]
    motions: int

    def sde(self, noise: str, interpretation: str) -> SDE:
        def drift(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
            return self.drift(t, y, p) + (self.correction(t, y, p) if interpretation == "ito" else 0 * y)

        return SDE(drift, self.diffusion, self.start, noise=noise, interpretation=interpretation)  # type: ignore[arg-type]


# y_0 = sinh(W / 2), and y_1 = exp(int W dt / 4 + W' / 2), where W' is W if there is one Brownian motion
def pair(motions: int) -> Problem:
    def drift(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.stack([0 * y[:, 0], torch.asinh(y[:, 0]) * y[:, 1] / 2], -1)

    def diffusion(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.stack([torch.sqrt(1 + y[:, 0] ** 2), y[:, 1]], -1) / 2

    def drift_flow(t: Tensor, dt: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        return torch.stack([y[:, 0], y[:, 1] * torch.exp(torch.asinh(y[:, 0]) * dt / 2)], -1)

    def noise_flow(t: Tensor, dw: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        first, last = dw[:, 0], dw[:, -1]
        return torch.stack([torch.sinh(torch.asinh(y[:, 0]) + first / 2), y[:, 1] * torch.exp(last / 2)], -1)

    def exact(path: Path) -> Tensor:
        w = path.end
        return torch.stack([torch.sinh(w[:, 0] / 2), torch.exp(path.integral[:, 0] / 4 + w[:, -1] / 2)], -1)

    return Problem(drift, diffusion, lambda t, y, p: y / 8, [0.0, 1.0], exact, (drift_flow, noise_flow), motions)


def additive() -> Problem:
    """`y_0 = exp(-t / 2) W`, `y_1 = exp(int W^2 dt / 5)`, `y_2 = (1 + t)^2 (t + W') / 80`, noise of t."""

    def drift(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        a, b, c = y.unbind(-1)
        return torch.stack([-a / 2, a * a * torch.exp(t) * b / 5, 2 * c / (1 + t) + (1 + t) ** 2 / 80], -1)

    def diffusion(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        zero = torch.zeros_like(t)
        rows = [[torch.exp(-t / 2), zero], [zero, zero], [zero, (1 + t) ** 2 / 80]]
        return torch.stack([torch.stack(row) for row in rows])

    def drift_flow(t: Tensor, dt: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        a, b, c = y.unbind(-1)
        grown = (1 + t + dt) ** 2
        b = b * torch.exp(a * a * torch.exp(t) / 5 * dt)
        return torch.stack([a * torch.exp(-dt / 2), b, grown * (c / (1 + t) ** 2 + dt / 80)], -1)

    def noise_flow(t: Tensor, dw: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        return y + (diffusion(t, y, p) * dw).sum(-1)

    def exact(path: Path) -> Tensor:
        w = path.end
        return torch.stack([w[:, 0] / math.sqrt(math.e), torch.exp(squared(path) / 5), (1 + w[:, 1]) / 20], -1)

    return Problem(drift, diffusion, lambda t, y, p: 0 * y, [0.0, 1.0, 0.0], exact, (drift_flow, noise_flow), 2)


def squared(path: Path) -> Tensor:
    """`int W^2 dt` of the first motion, its expectation given the path; the rest is of order 1.5 in the fine step."""
    w, h = path.w[:, 0], path.h[:, 0]
    before, dt = w.cumsum(0) - w, 1 / len(w)
    mean = before**2 + w**2 / 3 + 1.2 * h**2 + before * w + 2 * before * h + w * h
    return (mean * dt + dt * dt / 15).sum(0)


def levy_area() -> Problem:
    """Two Brownian motions and their Levy area, the noise that does not commute; its Ito equation is the same."""

    def diffusion(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        a, b, zero = y[:, 0], y[:, 1], 0 * y[:, 0]
        return torch.stack(
            [torch.stack([zero + 1, zero], -1), torch.stack([zero, zero + 1], -1), torch.stack([-b / 2, a / 2], -1)], 1
        )

    def exact(path: Path) -> Tensor:
        """The area of the fine grid: what it leaves out is a 32nd of what the finest level does (in variance)."""
        w = path.w
        before = w.cumsum(0) - w
        area = (before[:, 0] * w[:, 1] - before[:, 1] * w[:, 0]).sum(0) / 2
        return torch.cat([path.end, area.unsqueeze(-1)], -1)

    def noise_flow(t: Tensor, dw: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
        return y + (diffusion(t, y, p) * dw).sum(-1)

    zero: Functions = lambda t, y, p: 0 * y  # noqa: E731
    return Problem(zero, diffusion, zero, [0.0] * 3, exact, (lambda t, dt, y, p: y, noise_flow), 2)


PROBLEMS = {"diagonal": pair(2), "scalar": pair(1), "additive": additive(), "general": levy_area()}
#: Paths and steps of the fine grid.
SIZES = {"diagonal": (500, 256), "scalar": (500, 256), "additive": (1500, 1 << 11), "general": (256, 1 << 13)}
SCHEMES_HERE: list[SDEScheme | type[Strang]] = [
    EulerMaruyama(), ItoMilstein(), ItoMilstein(derivative_free=True), StratonovichMilstein(),
    StratonovichMilstein(derivative_free=True), Heun(), Midpoint(), EulerHeun(), ReversibleHeun(), SRA1(), SRID2(),
    LogODE(), ShARK(), PlatenWeak2(), NinomiyaVictoir(), Strang,
]  # fmt: skip
# LogODE takes two Jacobian-vector products inside each other: seconds a case
CASES = [
    pytest.param(s, n, id=f"{s!r}-{n}", marks=[pytest.mark.slow] if isinstance(s, LogODE) else [])
    for s in SCHEMES_HERE
    for n in s.orders
]


def path_of(noise: str) -> Path:
    n_paths, fine = SIZES[noise]
    return _PATHS.setdefault(noise, Path.drawn(n_paths, PROBLEMS[noise].motions, fine))


_PATHS: dict[str, Path] = {}


def slope(errors: list[float]) -> float:
    """Least-squares slope of the base-2 logarithm over halvings of the step."""
    logs = torch.tensor(errors, dtype=D).log2()
    x = torch.arange(len(errors), dtype=D)
    x = x - x.mean()
    return -float((x * logs).sum() / (x * x).sum())


def strong_error(sde: SDE, scheme: SDEScheme, path: Path, exact: Tensor, n_steps: int) -> float:
    """Root mean square error at time 1."""
    y0 = sde.params["initial"].expand(len(exact), -1)
    got = sdeint(sde, y0, [0.0, 1.0], max_dt=1 / n_steps, scheme=scheme, noise=Given(path))[-1]
    return float((got - exact).square().sum(-1).mean().sqrt())


@pytest.mark.parametrize(("scheme", "noise"), CASES)
def test_strong_order(scheme: SDEScheme | type[Strang], noise: str) -> None:
    problem, path = PROBLEMS[noise], path_of(noise)
    used = scheme if isinstance(scheme, SDEScheme) else scheme(drift_flow=problem.flows[0], noise_flow=problem.flows[1])
    sde, exact = problem.sde(noise, scheme.interpretation), problem.exact(path)
    errors = [strong_error(sde, used, path, exact, n) for n in LEVELS]
    assert slope(errors) == pytest.approx(scheme.orders[noise].strong, abs=0.15)  # type: ignore[index]


def test_strong_order_of_langevin_dynamics() -> None:
    """A damped spring: `y = exp(A) y_0 + int exp(A (1 - s)) b dW`, its integrand linear over each of 4,096 steps."""
    spring, friction, vol, fine, n_paths = 9.0, 1.5, 0.8, 1 << 12, 200
    sde = SDE(
        lambda t, y, p: torch.stack([y[:, 1], -spring * y[:, 0] - p["friction"] * y[:, 1]], 1),
        lambda t, y, p: y.new_tensor([0.0, vol]).unsqueeze(-1),
        [1.0, 0.0], {"friction": friction}, noise="additive",
    )  # fmt: skip
    path = Path.drawn(n_paths, 1, fine)
    a = torch.tensor([[0.0, 1.0], [-spring, -friction]], dtype=D)
    left = 1 - (torch.arange(fine, dtype=D) + 0.5) / fine
    weight = torch.linalg.matrix_exp(a * left.view(-1, 1, 1)) @ torch.tensor([0.0, vol], dtype=D)
    noise = torch.einsum("kp,ki->pi", path.w[:, 0], weight)
    noise = noise + torch.einsum("kp,ki->pi", path.h[:, 0], weight @ a.T) / fine
    exact = torch.linalg.matrix_exp(a) @ torch.tensor([1.0, 0.0], dtype=D) + noise
    errors = [strong_error(sde, UBU(), path, exact, n) for n in LEVELS]
    assert slope(errors) == pytest.approx(UBU.orders["additive"].strong, abs=0.15)


def test_every_scheme_has_its_orders_tested() -> None:
    tested = {s if isinstance(s, type) else type(s) for s in SCHEMES_HERE} | {UBU}
    assert tested == {row.scheme for row in SCHEMES.values() if issubclass(row.scheme, SDEScheme)}


def test_the_integral_of_brownian_motion_is_exact() -> None:
    """`dy_1 = y_0 dt`, `dy_0 = dW`: one step with the area gives `int W dt`, where Euler is off by half the noise."""
    path = path_of("scalar")
    sde = SDE(
        lambda t, y, p: torch.stack([0 * y[:, 0], y[:, 0]], -1), lambda t, y, p: y.new_tensor([[1.0], [0.0]]),
        [0.0, 0.0], noise="additive",
    )  # fmt: skip
    y0 = torch.zeros(SIZES["scalar"][0], 2, dtype=D)
    wanted = torch.cat([path.end, path.integral], -1)
    for scheme in (SRA1(), ShARK(), LogODE()):
        got = sdeint(sde, y0, [0.0, 1.0], max_dt=1.0, scheme=scheme, noise=Given(path))[-1]
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
