"""Gradient law: adjoint against the price bumped on the same noise, for every model, scheme and smooth payoff.

In float64, below 1e-6 of the derivative wherever the paths are continuous in the parameters. HestonQE is continuous
where no path crosses psi = 3/2, as under parameters far from the switch; elsewhere the law does not hold for it, and
HestonTQ is the scheme for which it does.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import (
    SDE,
    BlackScholes,
    GridLeverage,
    Heston,
    JumpDiffusion,
    KouJumps,
    LocalStochasticVol,
    MertonJumps,
    Model,
    MultiAsset,
    NeuralLeverage,
    NeuralStochasticVol,
)
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.payoffs import (
    Asian,
    AverageStrike,
    Barrier,
    Basket,
    BestOf,
    Cliquet,
    DoubleBarrier,
    European,
    FixedLookback,
    FloatingLookback,
    ForwardStart,
    NoTouch,
    OneTouch,
    PathFunction,
    Payoff,
    Spread,
    VarianceSwap,
    VolatilitySwap,
)
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.schemes import (
    SCHEMES,
    Correlated,
    EulerMaruyama,
    Exact,
    FreeVolatility,
    HestonNearExact,
    HestonQE,
    HestonTQ,
    ItoMilstein,
    Leveraged,
    LogEuler,
    Milstein,
    Scheme,
    SDEScheme,
    WithJumps,
)

MILD = Heston(0.09, 1.5, 0.09, 0.3, -0.7)
ROUGH = Heston(0.04, 0.5, 0.04, 1.0, -0.9)
MERTON, KOU = MertonJumps(0.8, -0.1, 0.15), KouJumps(0.8, 0.4, 12.0, 6.0)
CEV = SDE(
    drift=lambda t, y, p: -0.5 * p["vol"] ** 2 * torch.exp(2 * p["lean"] * y),
    diffusion=lambda t, y, p: p["vol"] * torch.exp(p["lean"] * y),
    initial=[0.0],
    parameters={"vol": 0.2, "lean": -0.5},
)
MARKET = Market(spot=100.0, rate=0.03)
QUARTERS = (0.25, 0.5, 0.75, 1.0)

DATED: list[Payoff] = [
    European(97.0, 1.0),
    European(108.0, 1.0, "put"),
    Asian(99.0, QUARTERS),
    Asian(99.0, QUARTERS, "put", "geometric"),
    AverageStrike(QUARTERS),
    Cliquet(QUARTERS, local_floor=-0.031, local_cap=0.052, global_floor=0.0),
    ForwardStart(0.5, 1.0),
    VarianceSwap(0.04, QUARTERS),
    VolatilitySwap(0.2, QUARTERS),
    PathFunction(QUARTERS, lambda s: torch.log(s).sum(-1)),
]
WATCHED: list[Payoff] = [
    Barrier(97.0, 125.0, 1.0, "up-and-out"),
    DoubleBarrier(97.0, 60.0, 140.0, 1.0, "knock-out"),
    FixedLookback(103.0, 1.0),
    FloatingLookback(1.0),
    OneTouch(1.0, lower=80.0),
    NoTouch(1.0, upper=130.0),
]
HEDGED: list[Payoff] = [Basket((0.4, 0.6), 98.0, 1.0), Spread(2.0, 1.0), BestOf((1.0, 1.0), 103.0, 1.0)]

DIFFUSIONS: list[tuple[Model, Scheme]] = [
    (BlackScholes(0.2), Exact()),
    (BlackScholes(0.2), LogEuler()),
    (MILD, LogEuler()),
    (MILD, Milstein()),
    (MILD, HestonQE()),
    (MILD, HestonTQ()),
    (ROUGH, HestonTQ()),
]
JUMPS: list[tuple[Model, Scheme]] = [
    (JumpDiffusion(BlackScholes(0.2), MERTON), WithJumps(Exact(), (MertonJumps,))),
    (JumpDiffusion(BlackScholes(0.2), KOU), WithJumps(Exact(), (KouJumps,))),
    (JumpDiffusion(MILD, MERTON), WithJumps(LogEuler(), (MertonJumps,))),
    (JumpDiffusion(MILD, MERTON), WithJumps(Milstein(), (MertonJumps,))),
    (JumpDiffusion(MILD, MERTON), WithJumps(HestonQE(), (MertonJumps,))),
    (JumpDiffusion(MILD, MERTON), WithJumps(HestonTQ(), (MertonJumps,))),
    (JumpDiffusion(JumpDiffusion(ROUGH, MERTON), KOU), WithJumps(HestonTQ(), (MertonJumps, KouJumps))),
]
SMOOTH = NeuralLeverage.initialised(scale=0.3, shortest=0.1, longest=2.0, width=8)
LEVERAGE = SMOOTH.with_params({"outer": SMOOTH.params["outer"].abs() * 0.2})
FREE = NeuralStochasticVol.initialised(3.0, 0.5, -0.7, GridLeverage([0.0], [0.0], [[0.2]]), 0.1, 2.0)
LEVERED: list[tuple[Model, Scheme]] = [
    (LocalStochasticVol(BlackScholes(0.2), LEVERAGE), Leveraged()),
    (LocalStochasticVol(MILD, LEVERAGE), Leveraged()),
    (FREE, FreeVolatility()),
]
SDES: list[tuple[Model, Scheme]] = [(CEV, EulerMaruyama()), (CEV, ItoMilstein())]


def cases(*pairs: tuple[Model, Scheme]) -> list[object]:
    return [pytest.param(m, s, id=f"{m.name}{'-rough' if 'ROUGH' in _names(m) else ''}-{_label(s)}") for m, s in pairs]


def _names(model: Model) -> str:
    return "ROUGH" if float(model.params.get("sigma", torch.tensor(0.0))) == 1.0 else ""


def _label(scheme: Scheme) -> str:
    return f"jumps-{_label(scheme.diffusion)}" if isinstance(scheme, WithJumps) else type(scheme).__name__


def check_law(model: Model, scheme: Scheme, book: list[Payoff], market: Market | Markets, noise: Noise) -> None:
    """Every derivative to every scalar parameter, to the (first) spot and to the rate."""
    engine = MonteCarlo(256, 0.25, scheme, noise, control_variate=False, compile="never")
    first = market.markets[0] if isinstance(market, Markets) else market
    inputs = {n: p for n, p in model.params.items() if p.dim() == 0 and not n.endswith("intensity")}
    inputs |= {"spot": torch.tensor(float(first.spot), dtype=torch.float64)}
    inputs |= {"rate": torch.tensor(0.03, dtype=torch.float64)}

    def values(at: dict[str, Tensor]) -> Tensor:
        moved = model.with_params({n: p for n, p in at.items() if n in model.params})
        one = replace(first, spot=at["spot"], rate=at["rate"])
        rest = [replace(m, rate=at["rate"]) for m in market.markets[1:]] if isinstance(market, Markets) else []
        where = Markets([one, *rest]) if rest else one
        return price(moved, book, where, engine).value

    def slope(name: str, p: Tensor, h: float) -> Tensor:
        if isinstance(model, (SDE, MultiAsset, NeuralStochasticVol)) or name not in model.params:  # no batch axes
            return (values(inputs | {name: p + h}) - values(inputs | {name: p - h})) / (2 * h)
        up, down = values(inputs | {name: torch.stack([p + h, p - h])})
        return (up - down) / (2 * h)

    def gradients() -> tuple[Tensor, Tensor]:
        leaves = {n: p.detach().double().clone().requires_grad_() for n, p in inputs.items()}
        found = values(leaves)
        rows = [torch.autograd.grad(v, list(leaves.values()), retain_graph=True) for v in found]
        return found, torch.stack([torch.stack(row) for row in rows])

    found, adjoint = gradients()
    with pytest.MonkeyPatch.context() as patch:  # as if there were no memory to keep what the steps compute
        patch.setattr("qsde.solve.loop._recorded", lambda *_: None)
        torch.testing.assert_close(gradients()[1], adjoint, rtol=1e-10, atol=1e-10)
    for column, (name, p) in enumerate(inputs.items()):
        h = 2e-6 * max(0.1, abs(float(p)))
        with torch.no_grad():
            bump = slope(name, p, h)
        # a derivative that is nearly 0 is measured by the price per unit of the input
        scale = torch.maximum(bump.abs(), 1e-3 * found.detach().abs() / max(0.1, abs(float(p))))
        gap = (adjoint[:, column] - bump).abs() / scale
        assert float(gap.max()) < 1e-6, (name, book[int(gap.argmax())].name, float(gap.max()))


@pytest.mark.parametrize(("model", "scheme"), cases(*DIFFUSIONS, *JUMPS, *LEVERED, *SDES))
def test_payoffs_of_dates(model: Model, scheme: Scheme) -> None:
    check_law(model, scheme, DATED, MARKET, Threefry(11))


@pytest.mark.parametrize(("model", "scheme"), cases(*DIFFUSIONS, *JUMPS))
def test_conditional_europeans(model: Model, scheme: Scheme) -> None:
    check_law(model, scheme, [European(97.0, 1.0), European(108.0, 1.0, "put")], MARKET, Sobol(11))


@pytest.mark.parametrize(("model", "scheme"), cases(*DIFFUSIONS, JUMPS[0], JUMPS[5]))
def test_payoffs_watched_all_the_time(model: Model, scheme: Scheme) -> None:
    check_law(model, scheme, WATCHED, MARKET, Antithetic(Threefry(11)))


@pytest.mark.parametrize("scheme", [HestonTQ(), LogEuler(), Milstein()], ids=_label)
def test_several_assets(scheme: Scheme) -> None:
    model = MultiAsset([MILD, BlackScholes(0.25)], torch.tensor([[1.0, 0.4], [0.4, 1.0]], dtype=torch.float64))
    both = Correlated((scheme, Exact()), (Heston, BlackScholes))
    check_law(model, both, HEDGED, Markets([MARKET, Market(95.0, 0.03)]), Threefry(11))


def test_every_scheme_is_here() -> None:
    """Other schemes of functions go through the same steps; tests/solve has the law for each of them.

    HestonNearExact obeys it in the mean only (tests/schemes/test_near_exact.py).
    """
    here = {type(s) for _, s in [*DIFFUSIONS, *JUMPS, *LEVERED, *SDES]} | {Correlated, HestonNearExact}
    assert here >= {row.scheme for row in SCHEMES.values() if not issubclass(row.scheme, SDEScheme)}


def test_the_law_fails_where_qe_crosses_its_switch() -> None:
    """v0 at psi = 3/2 of the first step: all paths jump at once, and no derivative tells."""
    leaf = torch.tensor(0.0, dtype=torch.float64)

    def value(v0: Tensor, scheme: Scheme) -> Tensor:
        engine = MonteCarlo(256, 0.25, scheme, Threefry(1), control_variate=False, compile="never")
        return price(Heston(v0, 0.5, 0.04, 1.0, -0.9), European(100.0, 0.5), MARKET, engine).value

    low, high = 0.12, 0.2
    for _ in range(60):  # psi falls as v0 grows
        middle = 0.5 * (low + high)
        mean = 0.04 + (middle - 0.04) * torch.exp(leaf - 0.125)
        decay, span = torch.exp(leaf - 0.125), -torch.expm1(leaf - 0.125) / 0.5
        psi = span * (middle * decay + 0.02 * (1 - decay)) / mean**2
        low, high = (middle, high) if float(psi) > 1.5 else (low, middle)
    ends = torch.tensor([low - 1e-9, low + 1e-9], dtype=torch.float64)
    jump = {type(s): float((value(ends[1], s) - value(ends[0], s)).abs()) for s in (HestonQE(), HestonTQ())}
    assert jump[HestonQE] > 1e-4
    assert jump[HestonTQ] < 1e-6
