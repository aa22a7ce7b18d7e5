"""Weak orders of the schemes of functions: every scheme and kind of noise, by one step without sampling error.

A scheme of weak order p is off by `dt^(p + 1)` in the means of polynomials after one step. Its own mean is a
Gauss-Hermite sum over the normals of the step, that of the solution the series `sum_k dt^k L^k phi / k!` of the
generator L, exact polynomials in the start.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import sympy
import torch
from torch import Tensor

from qsde.models import SDE
from qsde.schemes import (
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

D = torch.float64
SIZES = [2.0**-k for k in range(8, 13)]
#: Where powers of sqrt(dt) follow each other the first of them shows later.
FINER = [2.0**-k for k in range(12, 17)]
Y = sympy.symbols("y0 y1")
Matrix = list[list[sympy.Expr]]


@dataclass(frozen=True, eq=False)
class Problem:
    """Polynomials of two variables: drift, and diffusion with a column for each Brownian motion; and a start."""

    drift: list[sympy.Expr]
    diffusion: Matrix
    start: tuple[float, float] = (0.4, 0.7)


a, b = Y
#: Nothing special about them, but that noise commutes where it is said to.
PROBLEMS = {
    "diagonal": Problem([b * b - a, a * b / 2 + 0.1], [[1 + a * a / 3, 0], [0, b / 2 + 0.3 * b * b]]),
    "scalar": Problem([b * b - a, a * b / 2 + 0.1], [[1 + b * a / 3], [b / 2 + 0.3 * a * a]]),
    "additive": Problem([b * b - a, a * b / 2 + 0.1], [[0.8, 0.3], [-0.2, 0.5]]),
    "general": Problem([b * b - a, a * b / 2 + 0.1], [[b, 0.6], [0.5, a * a / 2]]),
}
TESTED = [a, b, a * a, a * b, b * b]


def generator(problem: Problem, phi: sympy.Poly, interpretation: str) -> sympy.Poly:
    """`L phi = f . grad phi + sum_j (g_j . grad)^2 phi / 2`, for Ito without the gradient of g_j."""

    def along(field: list[sympy.Poly], p: sympy.Poly) -> sympy.Poly:
        return field[0] * p.diff(a) + field[1] * p.diff(b)

    out = along([poly(f) for f in problem.drift], phi)
    for column in zip(*problem.diffusion, strict=True):
        g = [poly(entry) for entry in column]
        if interpretation == "stratonovich":
            out += along(g, along(g, phi)) * 0.5
        else:
            out += (g[0] * along(g, phi.diff(a)) + g[1] * along(g, phi.diff(b))) * 0.5
    return out


def poly(expression: sympy.Expr) -> sympy.Poly:
    return sympy.Poly(expression, *Y, domain="RR")


@functools.cache
def exact_means(problem: Problem, interpretation: str, n_terms: int = 4) -> list[list[float]]:
    """Coefficients of `dt^k` in the mean of each tested polynomial."""
    rows = []
    for phi in TESTED:
        term, row = poly(phi), []
        for k in range(n_terms):
            row.append(float(term(*problem.start)) / math.factorial(k))
            term = generator(problem, term, interpretation)
        rows.append(row)
    return rows


def function(entries: list[sympy.Expr]) -> Callable[[Tensor], Tensor]:
    compiled = sympy.lambdify(Y, entries, "math")

    def at(y: Tensor) -> Tensor:
        one = torch.ones_like(y[:, 0])
        return torch.stack([value * one for value in compiled(y[:, 0], y[:, 1])], -1)

    return at


def sde_of(problem: Problem, noise: str, interpretation: str, **parameters: float) -> SDE:
    drift, m = function(problem.drift), len(problem.diffusion[0])
    if noise == "diagonal":
        entries = [problem.diffusion[0][0], problem.diffusion[1][1]]
    else:
        entries = [g for row in problem.diffusion for g in row]
    flat = function(entries)
    tail = (2, m) if noise in ("additive", "general") else (2,)
    return SDE(
        lambda t, y, p: drift(y), lambda t, y, p: flat(y).unflatten(-1, tail), parameters=parameters,
        noise=noise, interpretation=interpretation,  # type: ignore[arg-type]
    )  # fmt: skip


def scheme_means(sde: SDE, scheme: SDEScheme, start: tuple[float, float], dt: float) -> Tensor:
    """Means of the tested polynomials after one step, by the product rule over all its normals."""
    y0 = torch.tensor([start], dtype=D)
    bound = scheme.bound(sde.dynamics(y0.expand(3, -1), torch.zeros((), dtype=D)))
    assert bound.dynamics is not None
    n = bound.normals(bound.dynamics)
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(10 if n < 4 else 8))
    z = torch.stack([x.flatten() for x in torch.meshgrid(*[nodes] * n, indexing="ij")])
    weight = torch.stack([x.flatten() for x in torch.meshgrid(*[weights] * n, indexing="ij")]).prod(0)
    y = y0.expand(z.shape[1], -1).contiguous()
    size = torch.tensor(dt, dtype=D)
    constants = bound.constants(sde)
    state = bound.start(bound.dynamics.at(constants), torch.zeros((), dtype=D), y)
    c = torch.stack([torch.zeros_like(size), size, size.sqrt()]).unsqueeze(-1)
    u, v = bound.step(state, c, z, z[:0], constants)[0].unbind(-1)
    return torch.stack([u, v, u * u, u * v, v * v]) @ (weight / weight.sum())


def local_errors(sde: SDE, problem: Problem, scheme: SDEScheme, sizes: list[float] = SIZES) -> list[float]:
    series = torch.tensor(exact_means(problem, sde.interpretation), dtype=D)
    errors = []
    for dt in sizes:
        exact = series @ torch.tensor([dt**k for k in range(series.shape[1])], dtype=D)
        errors.append(float((scheme_means(sde, scheme, problem.start, dt) - exact).norm()))
    return errors


def slope(errors: list[float]) -> float:
    """Least-squares slope of the base-2 logarithm over halvings of the step."""
    logs = torch.tensor(errors, dtype=D).log2()
    x = torch.arange(len(errors), dtype=D)
    x = x - x.mean()
    return -float((x * logs).sum() / (x * x).sum())


SCHEMES_HERE: list[SDEScheme] = [
    EulerMaruyama(), ItoMilstein(), ItoMilstein(derivative_free=True), StratonovichMilstein(),
    StratonovichMilstein(derivative_free=True), Heun(), Midpoint(), EulerHeun(), ReversibleHeun(), SRA1(), SRID2(),
    LogODE(), ShARK(), PlatenWeak2(), NinomiyaVictoir(),
]  # fmt: skip
CASES = [
    pytest.param(s, n, id=f"{_}-{n}") for s in SCHEMES_HERE for _ in [repr(s).removesuffix("()")] for n in s.orders
]


@pytest.mark.parametrize(("scheme", "noise"), CASES)
def test_weak_order(scheme: SDEScheme, noise: str) -> None:
    problem = PROBLEMS[noise]
    sde = sde_of(problem, noise, scheme.interpretation)
    order = slope(local_errors(sde, problem, scheme, FINER if isinstance(scheme, SRID2) else SIZES)) - 1
    assert order == pytest.approx(scheme.orders[noise].weak, abs=0.15)  # type: ignore[index]


def test_weak_order_of_langevin_dynamics() -> None:
    """A spring that hardens."""
    problem = Problem([b, -2 * a - a**3 - 1.2 * b], [[sympy.Integer(0)], [sympy.Float(0.9)]])
    sde = sde_of(problem, "additive", "ito", friction=1.2)
    assert slope(local_errors(sde, problem, UBU())) - 1 == pytest.approx(2.0, abs=0.15)


KAPPA, THETA, SIGMA, RHO = 1.5, 0.3, 0.6, -0.7


def heston_drift_flow(t: Tensor, dt: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    """Variance to its level; the log-price has half its integral, and the correction of the correlation."""
    x, v = y.unbind(-1)
    level, decay = THETA - SIGMA**2 / (4 * KAPPA), torch.exp(-KAPPA * dt)
    mean = level * dt + (v - level) * (1 - decay) / KAPPA
    return torch.stack([x - mean / 2 - RHO * SIGMA / 4 * dt, level + (v - level) * decay], -1)


def heston_noise_flow(t: Tensor, dw: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    """The variance's own noise with its share of the log-price, between two halves of the rest, which are one draw."""
    x, v = y.unbind(-1)
    own, other = dw.flatten(1).unbind(-1)
    new = (torch.sqrt(v) + SIGMA / 2 * other) ** 2
    return torch.stack([x + RHO / SIGMA * (new - v) + torch.sqrt((1 - RHO**2) * (v + new) / 2) * own, new], -1)


def test_weak_order_of_strang_for_heston() -> None:
    """Its second-order terms are polynomials, though the noise is not: `L` in the sense of Ito."""
    x, v = Y

    def next_term(phi: sympy.Expr) -> sympy.Expr:
        first = -v / 2 * sympy.diff(phi, x) + KAPPA * (THETA - v) * sympy.diff(phi, v)
        second = sympy.diff(phi, x, 2) + 2 * RHO * SIGMA * sympy.diff(phi, x, v) + SIGMA**2 * sympy.diff(phi, v, 2)
        return sympy.expand(first + v / 2 * second)

    start = (0.0, 0.25)
    rows = []
    for phi in TESTED:
        terms = [phi]
        for _ in range(4):
            terms.append(next_term(terms[-1]))
        rows.append([float(e.subs(dict(zip(Y, start, strict=True)))) / math.factorial(k) for k, e in enumerate(terms)])
    series = torch.tensor(rows, dtype=D)
    sde = SDE(
        lambda t, y, p: y, lambda t, y, p: y.unsqueeze(-1).expand(-1, -1, 2), noise="general",
        interpretation="stratonovich",
    )  # fmt: skip
    scheme = Strang(drift_flow=heston_drift_flow, noise_flow=heston_noise_flow)
    errors = []
    for dt in SIZES:
        exact = series @ torch.tensor([dt**k for k in range(5)], dtype=D)
        errors.append(float((scheme_means(sde, scheme, start, dt) - exact).norm()))
    assert slope(errors) - 1 == pytest.approx(Strang.orders["general"].weak, abs=0.15)
