"""Laws of European prices over all models, honest error estimates, and agreement with 60-digit integration."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.black import black_price
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, MertonJumps, Model, bates, kou, merton
from qsde.pricing.fourier import Fourier, model_vols, price_european

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
T = torch.tensor([2 / 365, 0.25, 1.0, 10.0], dtype=torch.float64)
STRIKES = 100 * torch.exp(torch.linspace(-1.0, 1.0, 41, dtype=torch.float64))
FORWARD = 100.0


def each() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("model", MODELS, ids=[f"{i}-{m.name}" for i, m in enumerate(MODELS)])


@each()
def test_put_call_parity_and_bounds(model: Model) -> None:
    df = torch.tensor([0.99, 0.98, 0.95, 0.6], dtype=torch.float64)
    call, put = (price_european(model, STRIKES, T, FORWARD, df, c).value for c in (True, False))
    torch.testing.assert_close(call - put, df[:, None] * (FORWARD - STRIKES), rtol=0, atol=1e-12)
    for price, ceiling in ((call, torch.full_like(STRIKES, FORWARD)), (put, STRIKES)):
        assert (price >= 0).all()
        assert (price <= df[:, None] * ceiling).all()


@each()
def test_no_static_arbitrage(model: Model) -> None:
    strikes = torch.linspace(40, 250, 106, dtype=torch.float64)
    call = price_european(model, strikes, T, FORWARD).value
    slope = (call[:, 1:] - call[:, :-1]) / 2.0
    assert (slope <= 1e-13).all()
    assert (slope >= -1 - 1e-13).all()
    assert (slope[:, 1:] - slope[:, :-1] >= -1e-12).all(), "calls are convex in strike"
    assert (call[1:] - call[:-1] >= -1e-12).all(), "calls on the forward rise with expiry"


def integrate(model: Model, k: float, t: float) -> float:
    """Out-of-the-money price over sqrt(F K) by 60-digit quadrature of an independent transcription of the models."""
    mp.mp.dps = 60
    p = {name: mp.mpf(float(value)) for name, value in model.params.items()}
    k, t = mp.mpf(k), mp.mpf(t)

    def log_mgf(z: mp.mpc) -> mp.mpc:
        if "vol" in p:
            total = p["vol"] ** 2 * t * (z * z - z) / 2
        else:
            xi = p["kappa"] - p["rho"] * p["sigma"] * z
            d = mp.sqrt(xi * xi + p["sigma"] ** 2 * (z - z * z))
            g, e = (xi - d) / (xi + d), mp.exp(-d * t)
            a = p["kappa"] * p["theta"] / p["sigma"] ** 2 * ((xi - d) * t - 2 * mp.log((1 - g * e) / (1 - g)))
            total = a + p["v0"] * (xi - d) / p["sigma"] ** 2 * (1 - e) / (1 - g * e)
        if "jump_intensity" in p:
            total += p["jump_intensity"] * t * (jump(z) - 1 - z * (jump(mp.mpf(1)) - 1))
        return total

    def jump(z: mp.mpc) -> mp.mpc:
        if "jump_std" in p:
            return mp.exp(p["jump_mean"] * z + p["jump_std"] ** 2 * z * z / 2)
        up, down = p["jump_eta_up"], p["jump_eta_down"]
        return p["jump_p_up"] * up / (up - z) + (1 - p["jump_p_up"]) * down / (down + z)

    def integrand(y: mp.mpf) -> mp.mpf:
        z = mp.mpc(0.5, y)
        return mp.re(mp.exp(log_mgf(z) - (z - 0.5) * k)) / (y * y + mp.mpf("0.25"))

    scale = 1 / math.sqrt(float(model.total_variance(torch.tensor(float(t), dtype=torch.float64))))
    ends = [0, *(scale * 2.0**j / 8 for j in range(20))]
    covered = mp.quad(integrand, ends, maxdegree=9) / mp.pi  # = sqrt(F K) min(F, K) minus the price, over F K
    return float(mp.exp(-abs(k) / 2) - covered)


@pytest.mark.slow  # 60-digit quadrature takes about a second a price
@pytest.mark.parametrize("i", [1, 4, 5, 6, 7])
def test_wings_to_relative_precision(i: int) -> None:
    model = MODELS[i]
    for t, distance in ((2 / 365, 6.0), (0.25, -7.0), (1.0, 8.0), (10.0, -3.0)):
        deviation = math.sqrt(float(model.total_variance(torch.tensor(t, dtype=torch.float64))))
        k = distance * deviation
        got = price_european(model, math.exp(k), t, 1.0, is_call=k > 0)
        expected = integrate(model, k, t) * math.exp(k / 2)
        assert float(got.value) == pytest.approx(expected, rel=1e-9, abs=0), (t, k)
        assert abs(float(got.value) - expected) <= float(got.error) + 1e-13 * expected <= 1e-7 * expected


def test_black_scholes_vols_come_back_in_all_wings() -> None:
    model = BlackScholes(0.2)
    k = torch.linspace(-12, 12, 49, dtype=torch.float64) * model.vol * torch.sqrt(T)[:, None]
    vols = model_vols(model, T, FORWARD * torch.exp(k), FORWARD)
    torch.testing.assert_close(vols, torch.full_like(vols, 0.2), rtol=1e-11, atol=0)


HESTONS = st.builds(
    Heston,
    v0=st.floats(1e-4, 2), kappa=st.floats(1e-3, 30), theta=st.floats(1e-4, 2), sigma=st.floats(0, 6),
    rho=st.floats(-0.99, 0.99),
)  # fmt: skip
LAWS = st.one_of(
    st.builds(MertonJumps, intensity=st.floats(0, 10), mean=st.floats(-1, 0.5), std=st.floats(0.01, 0.8)),
    st.builds(KouJumps, intensity=st.floats(0, 10), p_up=st.floats(0, 1), eta_up=st.floats(1.2, 80),
              eta_down=st.floats(0.5, 80)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    diffusion=HESTONS, law=st.one_of(st.none(), LAWS), t=st.floats(1 / 365, 20), distance=st.floats(-8, 8),
)  # fmt: skip
def test_error_estimates_are_honest(
    diffusion: Heston, law: MertonJumps | KouJumps | None, t: float, distance: float
) -> None:
    """A run with 16 times the nodes agrees within the estimates, or the price is refused: never a wrong number."""
    model = diffusion if law is None else JumpDiffusion(diffusion, law)
    k = distance * math.sqrt(float(model.total_variance(torch.tensor(t, dtype=torch.float64))))
    strike, is_call = math.exp(max(-20.0, min(20.0, k))), k > 0
    try:
        usual = price_european(model, strike, t, 1.0, is_call=is_call)
        fine = price_european(model, strike, t, 1.0, is_call=is_call, engine=Fourier(nodes=1536))
    except NumericsError:
        event("refused")
        return
    gap = abs(float(usual.value - fine.value))
    assert gap <= 10 * float(usual.error + fine.error) + 1e-14 * math.sqrt(strike)


def test_batch_of_parameters_expiries_and_strikes_is_the_loop() -> None:
    g = torch.Generator().manual_seed(3)
    scale = 0.5 + torch.rand(6, generator=g, dtype=torch.float64)
    many = MODELS[6].map(lambda p: p * scale)
    grid = price_european(many, STRIKES, T, torch.tensor([100.0, 101, 103, 120]), 0.9).value
    assert grid.shape == (6, 4, 41)
    for b in range(6):
        one = MODELS[6].map(lambda p, b=b: p * scale[b])
        for e, forward in enumerate((100.0, 101.0, 103.0, 120.0)):
            alone = price_european(one, STRIKES, T[e], forward, 0.9).value
            torch.testing.assert_close(grid[b, e], alone, rtol=1e-9, atol=1e-13)


def test_shapes_of_scalars_and_grids() -> None:
    assert price_european(HESTON, 100.0, 1.0, 100.0).value.shape == ()
    assert price_european(HESTON, STRIKES, 1.0, 100.0).value.shape == (41,)
    assert price_european(HESTON, 100.0, T, 100.0).value.shape == (4,)
    assert price_european(HESTON, STRIKES, T, 100.0).value.shape == (4, 41)
    assert price_european(HESTON, STRIKES.expand(4, 41), T, FORWARD * T).value.shape == (4, 41)
    two = HESTON.map(lambda p: p.expand(2))
    assert price_european(two, 100.0, 1.0, 100.0).value.shape == (2,)
    assert price_european(two, STRIKES, 1.0, 100.0).value.shape == (2, 41)
    assert price_european(two, 100.0, T, 100.0).value.shape == (2, 4)


@each()
@pytest.mark.parametrize("strike", [60.0, 100.0, 140.0])
def test_gradients_equal_bumps(model: Model, strike: float) -> None:
    bump = 1e-5
    inputs = {**model.params, "strike": torch.tensor(strike), "t": torch.tensor(0.5), "forward": torch.tensor(100.0)}
    inputs = {name: x.double().clone().requires_grad_() for name, x in inputs.items()}

    def price(**x: Tensor) -> Tensor:
        parameters = {name: x[name] for name in model.params}
        return price_european(model.with_params(parameters), x["strike"], x["t"], x["forward"]).value

    gradient = dict(zip(inputs, torch.autograd.grad(price(**inputs), list(inputs.values())), strict=True))
    for name, x in inputs.items():
        step = bump * max(1e-2, abs(x.item()))
        if name == "rho" and abs(x.item()) == 1:
            continue
        with torch.no_grad():
            up, down = (price(**{**inputs, name: x + s}) for s in (step, -step))
        assert gradient[name].item() == pytest.approx(float(up - down) / (2 * step), rel=2e-5, abs=2e-7), name


def test_gradients_of_the_far_wings_are_finite_and_right() -> None:
    strike = torch.tensor([30.0, 260.0], dtype=torch.float64)
    spot = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    price = price_european(HESTON, strike, 0.1, spot, is_call=torch.tensor([False, True])).value
    assert (price < 1e-9).all()
    for i in range(2):
        (delta,) = torch.autograd.grad(price[i], spot, retain_graph=True)
        with torch.no_grad():
            up, down = (
                price_european(HESTON, strike[i], 0.1, spot + h, is_call=bool(i)).value for h in (1e-3, -1e-3)
            )  # fmt: skip
        assert delta.item() == pytest.approx(float(up - down) / 2e-3, rel=1e-6)


def test_one_day_options_keep_their_time_value() -> None:
    """A fixed cutoff of the integral underprices short options; here even an hour is exact for Black-Scholes."""
    for t in (1 / 365, 1 / (365 * 24)):
        got = price_european(BlackScholes(0.2), 100.0, t, 100.0).value
        torch.testing.assert_close(got, black_price(100.0, 100.0, t, 0.2), rtol=1e-12, atol=0)


def test_zero_volatility_is_worth_intrinsic() -> None:
    value = price_european(BlackScholes(0.0), torch.tensor([80.0, 120.0]), 1.0, 100.0).value
    torch.testing.assert_close(value, torch.tensor([20.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("strike", [60.0, 95.0, 100.0, 105.0, 150.0])
def test_pure_jumps_leave_an_atom_and_still_price(strike: float) -> None:
    """Without diffusion `log S` has an atom; given n jumps Merton's price is Black's, so the sum over n is exact."""
    intensity, mean, std, t = 0.7, -0.1, 0.2, 1.0
    drift = -intensity * t * (math.exp(mean + std**2 / 2) - 1)
    expected = math.exp(-intensity * t) * max(0.0, 100 * math.exp(drift) - strike)
    for n in range(1, 30):
        chance = math.exp(-intensity * t) * (intensity * t) ** n / math.factorial(n)
        forward = 100 * math.exp(drift + n * (mean + std**2 / 2))
        expected += chance * float(black_price(forward, strike, 1.0, std * math.sqrt(n)))
    got = price_european(merton(0.0, intensity, mean, std), strike, t, 100.0)
    assert float(got.value) == pytest.approx(expected, abs=1e-9)


def test_too_small_a_budget_is_an_error_not_a_number() -> None:
    with pytest.raises(NumericsError, match="1 prices did not converge with 12 Fourier nodes"):
        price_european(HESTON, 250.0, 0.1, 100.0, engine=Fourier(nodes=6, max_nodes=12))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"strike": -1.0}, "strike must be positive"), ({"t": 0.0}, "t must be positive"),
     ({"forward": math.nan}, "forward"), ({"discount_factor": 0.0}, "discount_factor")],
)  # fmt: skip
def test_bad_inputs_are_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        price_european(HESTON, **{"strike": 100.0, "t": 1.0, "forward": 100.0, **change})
