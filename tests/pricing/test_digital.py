"""Digital prices: tables, closed forms, the call they make up, wings, gradients and refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.models import BlackScholes, FourierModel, Heston, JumpDiffusion, KouJumps, MertonJumps, bates, kou, merton
from qsde.pricing.digital import price_digital
from qsde.pricing.fourier import Fourier, price_european

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
HESTON = Heston(v0=0.04, kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)
MODELS = [
    BlackScholes(0.2),
    HESTON,
    Heston(v0=0.01, kappa=0.2, theta=0.02, sigma=1.5, rho=-0.95),
    Heston(v0=0.04, kappa=1.0, theta=0.04, sigma=0.3, rho=1.0),
    merton(0.1, 0.5, -0.1, 0.2),
    kou(0.16, 1.0, 0.4, 10.0, 5.0),
    bates(0.02, 1.5, 0.03, 0.4, -0.7, 0.1, -0.3, 0.25),
    JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)),
]
each = pytest.mark.parametrize("model", MODELS, ids=[f"{i}-{m.name}" for i, m in enumerate(MODELS)])
T = torch.tensor([[2 / 365], [0.25], [1.0], [10.0]], dtype=torch.float64)
STRIKES = 100 * torch.exp(torch.linspace(-1.5, 1.5, 31, dtype=torch.float64))


def row(name: str) -> tuple[dict[str, float], FourierModel, dict[str, float]]:
    found = pd.read_csv(REFERENCE / f"{name}.csv").iloc[0]
    t, r, q = (float(found[x]) for x in ("t", "r", "q"))
    inputs = {"t": t, "forward": found["spot"] * math.exp((r - q) * t), "discount_factor": math.exp(-r * t)}
    return found.to_dict(), BlackScholes(float(found["vol"])), inputs


def test_haug_tables() -> None:
    want, model, inputs = row("digital_cash_euro")
    found = 10 * price_digital(model, want["strike"], **inputs, is_call=False).value
    assert float(found) == pytest.approx(want["price"], abs=want["tol"])
    want, model, inputs = row("digital_asset_euro")
    found = price_digital(model, want["strike"], **inputs, is_call=False, pays="asset").value
    assert float(found) == pytest.approx(want["price"], abs=want["tol"])
    want, model, inputs = row("digital_gap_euro")
    cash, asset = (price_digital(model, want["strike"], **inputs, pays=p).value for p in ("cash", "asset"))
    assert float(asset - 57.0 * cash) == pytest.approx(want["price"], abs=want["tol"])


@each
def test_asset_less_cash_is_the_call_and_cash_its_slope(model: FourierModel) -> None:
    cash, asset = (price_digital(model, STRIKES, T, 100.0, 0.9, pays=p) for p in ("cash", "asset"))
    strike = STRIKES.clone().requires_grad_()
    call = price_european(model, strike, T.squeeze(-1), 100.0, 0.9).value
    torch.testing.assert_close(asset.value - STRIKES * cash.value, call.detach(), rtol=0, atol=1e-10)
    for i in range(len(T)):
        (slope,) = torch.autograd.grad(call[i].sum(), strike, retain_graph=True)
        torch.testing.assert_close(cash.value[i], -slope, rtol=0, atol=1e-11)
    assert (cash.error < 1e-11).all()
    assert (asset.error < 1e-9).all()


@each
@pytest.mark.parametrize("pays", ["cash", "asset"])
def test_call_and_put_are_the_whole_and_neither_is_negative(model: FourierModel, pays: str) -> None:
    call, put = (price_digital(model, STRIKES, T, 100.0, 0.9, c, pays).value for c in (True, False))  # type: ignore[arg-type]
    whole = 0.9 if pays == "cash" else 90.0
    torch.testing.assert_close(call + put, torch.full_like(call, whole), rtol=1e-14, atol=0)
    for option, direction in ((call, -1.0), (put, 1.0)):
        assert (option >= 0).all()
        assert (direction * option.diff() >= -1e-13 * whole).all(), "monotone in the strike"


def test_black_scholes_wings_to_relative_precision() -> None:
    k = torch.linspace(-12, 12, 25, dtype=torch.float64) * 0.2
    h = -k / 0.2
    cash = price_digital(BlackScholes(0.2), torch.exp(k), 1.0, 1.0, is_call=k >= 0).value
    asset = price_digital(BlackScholes(0.2), torch.exp(k), 1.0, 1.0, is_call=k >= 0, pays="asset").value
    side = torch.where(k >= 0, 1.0, -1.0)
    # erfc keeps the tails that torch.special.ndtr loses
    for found, d in ((cash, h - 0.1), (asset, h + 0.1)):
        torch.testing.assert_close(found, 0.5 * torch.erfc(-side * d / math.sqrt(2)), rtol=1e-11, atol=0)


@pytest.mark.parametrize("vol", [0.1, 0.0])
@pytest.mark.parametrize("strike", [60.0, 95.0, 100.0, 109.0, 150.0])
def test_merton_is_a_mixture(vol: float, strike: float) -> None:
    """Given n jumps the price is lognormal, so the sum over n is exact; without diffusion there is an atom at 108."""
    intensity, mean, std, t = 0.7, -0.1, 0.2, 1.5
    cash = asset = 0.0
    for n in range(40):
        chance = math.exp(-intensity * t) * (intensity * t) ** n / math.factorial(n)
        drift = -intensity * t * (math.exp(mean + std**2 / 2) - 1) + n * (mean + std**2 / 2)
        spread = max(1e-9, math.sqrt(vol**2 * t + n * std**2))
        d1 = (math.log(100 / strike) + drift) / spread + spread / 2
        cash += chance * 0.5 * math.erfc(-(d1 - spread) / math.sqrt(2))
        asset += chance * 100 * math.exp(drift) * 0.5 * math.erfc(-d1 / math.sqrt(2))
    model = merton(vol, intensity, mean, std)
    assert float(price_digital(model, strike, t, 100.0).value) == pytest.approx(cash, abs=1e-13)
    assert float(price_digital(model, strike, t, 100.0, pays="asset").value) == pytest.approx(asset, abs=1e-11)


HESTONS = st.builds(
    Heston,
    v0=st.floats(1e-4, 2), kappa=st.floats(1e-3, 30), theta=st.floats(1e-4, 2), sigma=st.floats(1e-3, 6),
    rho=st.floats(-0.99, 0.99).map(lambda x: round(x, 6)),
)  # fmt: skip
LAWS = st.one_of(
    st.builds(MertonJumps, intensity=st.floats(0, 10), mean=st.floats(-1, 0.5), std=st.floats(0.01, 0.8)),
    st.builds(
        KouJumps,
        intensity=st.floats(0, 10),
        p_up=st.floats(0, 1),
        eta_up=st.floats(1.2, 80),
        eta_down=st.floats(0.5, 80),
    ),
)


@settings(max_examples=40, deadline=None)
@given(
    diffusion=HESTONS, law=st.one_of(st.none(), LAWS), t=st.floats(1 / 365, 20), distance=st.floats(-8, 8),
    pays=st.sampled_from(["cash", "asset"]),
)  # fmt: skip
def test_error_estimates_are_honest(
    diffusion: Heston, law: MertonJumps | KouJumps | None, t: float, distance: float, pays: str
) -> None:
    """A run with 16 times the nodes agrees within the estimates, or the price is refused: never a wrong number."""
    model = diffusion if law is None else JumpDiffusion(diffusion, law)
    k = distance * math.sqrt(float(model.total_variance(torch.tensor(t, dtype=torch.float64))))
    strike, is_call = math.exp(max(-20.0, min(20.0, k))), k > 0
    try:
        usual = price_digital(model, strike, t, 1.0, 1.0, is_call, pays)  # type: ignore[arg-type]
        fine = price_digital(model, strike, t, 1.0, 1.0, is_call, pays, Fourier(nodes=1536))  # type: ignore[arg-type]
    except NumericsError:
        event("refused")
        return
    assert abs(float(usual.value - fine.value)) <= 10 * float(usual.error + fine.error) + 1e-14


def test_arguments_and_parameters_broadcast() -> None:
    many = MODELS[6].map(lambda p: p * torch.tensor([[0.8], [1.2]], dtype=torch.float64))
    grid = price_digital(many, STRIKES, 0.5, 100.0).value
    assert grid.shape == (2, 31)
    one = MODELS[6].map(lambda p: p * 1.2)
    torch.testing.assert_close(grid[1, 4], price_digital(one, STRIKES[4], 0.5, 100.0).value, rtol=1e-12, atol=1e-15)
    assert price_digital(HESTON, 100.0, 1.0, 100.0).value.shape == ()
    both = price_digital(HESTON, 100.0, 1.0, 100.0, 1.0, torch.tensor([True, False])).value
    assert float(both.sum()) == pytest.approx(1.0)


def test_more_options_than_fit_together() -> None:
    strikes = torch.linspace(50, 200, 5000, dtype=torch.float64)
    found = price_digital(HESTON, strikes, 1.0, 100.0).value
    assert (found.diff() < 0).all()
    torch.testing.assert_close(found[[0, 4500]], price_digital(HESTON, strikes[[0, 4500]], 1.0, 100.0).value)


@each
@pytest.mark.parametrize("strike", [60.0, 100.0, 140.0])
def test_gradients_equal_bumps(model: FourierModel, strike: float) -> None:
    inputs = {**model.params, "strike": torch.tensor(strike), "t": torch.tensor(0.5), "forward": torch.tensor(100.0)}
    inputs = {name: x.double().clone().requires_grad_() for name, x in inputs.items()}

    def value(**x: Tensor) -> Tensor:
        m = model.with_params({name: x[name] for name in model.params})
        cash, asset = (price_digital(m, x["strike"], x["t"], x["forward"], pays=p).value for p in ("cash", "asset"))
        return 100 * cash + asset

    gradient = dict(zip(inputs, torch.autograd.grad(value(**inputs), list(inputs.values())), strict=True))
    for name, x in inputs.items():
        step = 1e-5 * max(1e-2, abs(x.item()))
        if name == "rho" and abs(x.item()) == 1:
            continue
        with torch.no_grad():
            up, down = (value(**{**inputs, name: x + s}) for s in (step, -step))
        assert gradient[name].item() == pytest.approx(float(up - down) / (2 * step), rel=2e-5, abs=2e-5), name


def test_zero_volatility_is_a_step() -> None:
    found = price_digital(BlackScholes(0.0), torch.tensor([80.0, 120.0]), 1.0, 100.0).value
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)


def test_too_small_a_budget_is_an_error_not_a_number() -> None:
    with pytest.raises(NumericsError, match="1 digital prices did not converge with 12 Fourier nodes"):
        price_digital(HESTON, 250.0, 0.1, 100.0, engine=Fourier(nodes=6, max_nodes=12))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"strike": -1.0}, "strike must be positive"), ({"t": 0.0}, "t must be positive"),
     ({"forward": math.nan}, "forward"), ({"pays": "shares"}, "'cash' or 'asset'")],
)  # fmt: skip
def test_bad_inputs_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        price_digital(HESTON, **{"strike": 100.0, "t": 1.0, "forward": 100.0, **change})  # type: ignore[arg-type]
