"""Several steps at once are so many steps, to the digit, with the same gradient."""

from __future__ import annotations

import pytest
import torch

from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, KouJumps, Model, bates, kou
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.payoffs import Asian, Barrier, European, Payoff
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.schemes import Exact, HestonQE, Scheme, WithJumps
from qsde.schemes.base import Stretch
from qsde.schemes.sampled import Sampled
from qsde.solve import walk

HESTON = Heston(0.04, 1.5, 0.04, 1.2, -0.7)
BLACK_SCHOLES = BlackScholes(0.2)
BATES = bates(0.04, 1.5, 0.04, 1.2, -0.7, 2.0, -0.1, 0.1)
KOU = kou(0.2, 3.0, 0.4, 10.0, 5.0)
CASES: list[tuple[Scheme, Model]] = [
    (Exact(), BLACK_SCHOLES),
    (Exact(averaged=True), BLACK_SCHOLES),
    (HestonQE(), HESTON),
    (HestonQE(averaged=True), HESTON),
    (WithJumps(HestonQE()), BATES),
    (WithJumps(HestonQE(averaged=True), tracked=True), BATES),
    (WithJumps(Exact(), (KouJumps,)), KOU),
    (Sampled(HestonQE(averaged=True)), HESTON),
    (Sampled(WithJumps(HestonQE(averaged=True), tracked=True), own=1, tracked=True), BATES),
]


@pytest.mark.parametrize(("scheme", "model"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_by_one(scheme: Scheme, model: Model, dtype: torch.dtype) -> None:
    batch = model.map(lambda p: (p * torch.linspace(0.5, 1.0, 3)).to(dtype))
    state = tuple(s.unsqueeze(-1).to(dtype).expand(3, 64).contiguous() for s in scheme.initial(batch))
    sizes = torch.tensor([0.1, 0.02, 0.3, 0.1], dtype=torch.float64).unsqueeze(-1)
    c = scheme.coefficients(batch, sizes).unsqueeze(-1).to(dtype)
    numbers, (n, m) = torch.Generator().manual_seed(1), scheme.draws(batch, 0.3)
    normals = torch.randn((n, 4, 1, 64), generator=numbers, dtype=dtype)
    uniforms = torch.rand((m, 4, 1, 64), generator=numbers, dtype=dtype).clamp(1e-6, 1 - 1e-6)
    stretch = Stretch(c, normals, uniforms)
    for found, wanted in zip(scheme.steps(state, stretch), Scheme.steps(scheme, state, stretch), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("model", [BLACK_SCHOLES, HESTON, BATES, KOU])
@pytest.mark.parametrize("noise", [Threefry(1), Sobol(1), Antithetic(Threefry(1))])
@pytest.mark.parametrize(
    "payoff", [Asian(100.0, (0.0, 0.25, 0.5, 1.0)), European(100.0, 1.0), Barrier(100.0, 130.0, 1.0, "up-and-out")]
)
def test_prices_and_gradients(monkeypatch: pytest.MonkeyPatch, model: Model, noise: Noise, payoff: Payoff) -> None:
    engine = MonteCarlo(n_paths=64, max_dt=0.04, noise=noise)
    own = model.with_params({k: p.clone().requires_grad_("intensity" not in k) for k, p in model.params.items()})

    def found() -> tuple[float, list[float]]:
        value = price(own, payoff, Market(100.0), engine).value
        gradients = torch.autograd.grad(value, [p for p in own.params.values() if p.requires_grad])
        with torch.no_grad():
            alone = price(model, payoff, Market(100.0), engine).value
        assert alone == value
        return float(alone), [float(g) for g in gradients]

    value, gradient = found()
    monkeypatch.setattr(walk, "_AT_ONCE", 640)  # ten steps
    assert found()[0] == value
    monkeypatch.setattr(walk, "_FEW", 0)
    wanted, slope = found()
    assert wanted == value
    assert gradient == pytest.approx(slope, rel=1e-9)
