"""Monte Carlo against Fourier, gradients against bumps, and digits that depend on nothing but the noise."""

from __future__ import annotations

import dataclasses
import logging
import math

import pytest
import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.curves import PillarCurve
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, Model, bates, kou, merton
from qsde.noise import Antithetic, Sobol, Threefry
from qsde.payoffs import Asian, Barrier, Digital, European, PathFunction
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)
MODELS = [
    BlackScholes(0.2),
    HESTON,
    merton(0.15, 0.5, -0.1, 0.2),
    kou(0.16, 1.0, 0.4, 10.0, 5.0),
    bates(0.04, 1.5, 0.06, 0.5, -0.7, 0.3, -0.2, 0.15),
    JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)),
]
MARKET = Market(spot=100.0, rate=0.03, dividend_yield=0.01)
STRIKES = (80.0, 100.0, 120.0)
QUICK = MonteCarlo(n_paths=1 << 15, compile="never")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_europeans_agree_with_fourier(model: Model) -> None:
    book = [European(k, 1.0, kind) for k in STRIKES for kind in ("call", "put")]  # type: ignore[arg-type]
    got = price(model, book, MARKET, QUICK)
    strikes = torch.tensor(STRIKES, dtype=torch.float64).repeat_interleave(2)
    is_call = torch.tensor([True, False] * 3)
    want = price_european(model, strikes, 1.0, MARKET.forward(1.0), MARKET.discount(1.0), is_call).value
    assert ((got.value - want).abs() <= 4 * got.std_error + 0.002).all(), (got.value - want) / got.std_error


def test_the_control_variate_lowers_the_error_and_keeps_the_mean() -> None:
    plain = price(HESTON, European(80.0, 1.0), MARKET, dataclasses.replace(QUICK, control_variate=False))
    better = price(HESTON, European(80.0, 1.0), MARKET, QUICK)
    assert float(better.std_error) < 0.3 * float(plain.std_error)
    assert abs(float(better.value - plain.value)) < 4 * float(plain.std_error)


@pytest.mark.parametrize("noise", [Threefry(5), Antithetic(Threefry(5)), Sobol(5, scrambles=32)], ids=str)
def test_standard_errors_are_the_spread_of_independent_runs(noise: Threefry | Antithetic | Sobol) -> None:
    runs = []
    for seed in range(40):
        fresh = Antithetic(Threefry(seed)) if isinstance(noise, Antithetic) else dataclasses.replace(noise, seed=seed)
        engine = MonteCarlo(n_paths=1 << 11, noise=fresh, compile="never")
        runs.append(price(BlackScholes(0.3), European(110.0, 1.0), MARKET, engine))
    spread = torch.stack([r.value for r in runs]).std()
    claimed = torch.stack([r.std_error for r in runs]).mean()
    assert float(spread / claimed) == pytest.approx(1.0, abs=0.4)
    exact = price_european(BlackScholes(0.3), 110.0, 1.0, MARKET.forward(1.0), MARKET.discount(1.0)).value
    assert abs(float(torch.stack([r.value for r in runs]).mean() - exact)) < 4 * float(spread) / math.sqrt(40)


@pytest.mark.parametrize("noise", [Threefry(2), Antithetic(Threefry(2)), Sobol(2)], ids=str)
def test_results_do_not_depend_on_the_block_size(noise: Threefry | Antithetic | Sobol) -> None:
    book = [European(100.0, 0.5), Asian(100.0, (0.25, 0.5))]
    engine = MonteCarlo(n_paths=5000, noise=noise, compile="never", max_dt=1 / 8)
    whole = price(HESTON, book, MARKET, engine)
    parts = price(HESTON, book, MARKET, dataclasses.replace(engine, memory_budget=1 << 20))
    torch.testing.assert_close(parts.value, whole.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.std_error, whole.std_error, rtol=1e-9, atol=0)


def test_a_batch_of_models_shares_the_noise_of_each_alone() -> None:
    vols = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    book = [European(90.0, 1.0), European(110.0, 1.0), Asian(100.0, (0.5, 1.0))]
    many = price(BlackScholes(vols), book, MARKET, QUICK)
    assert many.value.shape == (3, 3)
    for i, vol in enumerate(vols):
        alone = price(BlackScholes(float(vol)), book, MARKET, QUICK)
        torch.testing.assert_close(many.value[i], alone.value, rtol=1e-12, atol=0)


def test_float32_agrees_with_float64_path_by_path() -> None:
    fine = price(HESTON, European(100.0, 1.0), MARKET, QUICK)
    coarse = price(HESTON, European(100.0, 1.0), MARKET, dataclasses.replace(QUICK, dtype=torch.float32))
    assert abs(float(fine.value - coarse.value)) < 0.3 * float(fine.std_error)


def gradients(model: Model, engine: MonteCarlo, strike: float = 105.0) -> dict[str, Tensor]:
    inputs = {
        **model.params, "spot": torch.tensor(100.0), "rate": torch.tensor(0.03), "strike": torch.tensor(strike),
    }  # fmt: skip
    inputs = {n: x.double().clone().requires_grad_() for n, x in inputs.items() if n != "jump_intensity"}
    moved = model.with_params({name: inputs[name] for name in model.params if name in inputs})
    market = Market(inputs["spot"], inputs["rate"], 0.01)
    book = [European(inputs["strike"], 1.0), Asian(inputs["strike"], (0.25, 0.5, 1.0), "put")]
    total = price(moved, book, market, engine).value.sum()
    return dict(zip(inputs, torch.autograd.grad(total, list(inputs.values())), strict=True))


@pytest.mark.parametrize("model", [MODELS[0], HESTON, MODELS[4]], ids=lambda m: m.name)
def test_gradients_equal_bumps_with_common_random_numbers(model: Model) -> None:
    engine = MonteCarlo(n_paths=4096, max_dt=1 / 8, compile="never", control_variate=False)
    found = gradients(model, engine)

    def value(**bumped: float) -> float:
        moved = model.with_params(
            {n: torch.tensor(x, dtype=torch.float64) for n, x in bumped.items() if n in model.params}
        )
        market = Market(bumped.get("spot", 100.0), bumped.get("rate", 0.03), 0.01)
        strike = bumped.get("strike", 105.0)
        return float(
            price(moved, [European(strike, 1.0), Asian(strike, (0.25, 0.5, 1.0), "put")], market, engine).value.sum()
        )

    start = {**{n: float(p) for n, p in model.params.items()}, "spot": 100.0, "rate": 0.03, "strike": 105.0}
    for name in ("spot", "rate", "strike", "vol", "v0", "theta", "jump_mean"):
        if name not in start:
            continue
        step = 1e-6 * max(abs(start[name]), 0.01)
        slope = (value(**{name: start[name] + step}) - value(**{name: start[name] - step})) / (2 * step)
        # QE jumps between its branches path by path, so a bump sees a little more than the derivative
        assert found[name].item() == pytest.approx(slope, rel=2e-2 if name in ("v0", "theta") else 1e-4), name


def test_gradients_need_no_more_memory_for_more_steps_than_stored_states() -> None:
    """Replay over segments gives the same gradient as keeping every state, and as keeping all that steps compute."""

    engine = MonteCarlo(n_paths=1024, max_dt=1 / 64, compile="never")
    everything = gradients(HESTON, engine)
    engine = dataclasses.replace(engine, memory_budget=1 << 20)
    states = gradients(HESTON, engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qsde.solve.job.STORED", 5)
        few = gradients(HESTON, engine)
    for name, want in everything.items():
        torch.testing.assert_close(states[name], want, rtol=1e-12, atol=0)
        torch.testing.assert_close(few[name], want, rtol=1e-12, atol=0)


def test_delta_agrees_with_fourier() -> None:
    spot = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    estimate = price(HESTON, European(100.0, 1.0), Market(spot, 0.03, 0.01), QUICK)
    (delta,) = torch.autograd.grad(estimate.value, spot)
    other = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    exact = price_european(HESTON, 100.0, 1.0, Market(other, 0.03, 0.01).forward(1.0), MARKET.discount(1.0)).value
    (want,) = torch.autograd.grad(exact, other)
    assert delta.item() == pytest.approx(want.item(), abs=0.005)


def test_a_curve_with_pillars_prices_each_maturity_with_its_own_rate() -> None:
    curve = PillarCurve([1.0, 2.0], [0.01, 0.04])
    market = Market(100.0, curve)
    got = price(BlackScholes(0.2), [European(100.0, 1.0), European(100.0, 2.0)], market, QUICK)
    for i, t in enumerate((1.0, 2.0)):
        want = price_european(BlackScholes(0.2), 100.0, t, market.forward(t), market.discount(t)).value
        assert abs(float(got.value[i] - want)) < 4 * float(got.std_error[i])


def test_discrete_barriers_and_digitals_price_but_refuse_a_pathwise_gradient() -> None:
    dates = tuple(i / 12 for i in range(1, 13))
    out, into = (Barrier(100.0, 120.0, 1.0, style, monitoring=dates) for style in ("up-and-out", "up-and-in"))
    book = [out, into, Digital(100.0, 1.0)]
    got = price(BlackScholes(0.2), book, MARKET, QUICK)
    vanilla = price(BlackScholes(0.2), European(100.0, 1.0), MARKET, QUICK)
    assert abs(float(got.value[0] + got.value[1] - vanilla.value)) < 4 * float(vanilla.std_error)
    spot = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError, match="Digital jumps, so its pathwise gradient is wrong"):
        price(BlackScholes(0.2), Digital(100.0, 1.0), Market(spot), QUICK)


def test_a_pathwise_gradient_to_a_jump_intensity_is_refused_with_the_way_out() -> None:
    moving = {"jump_intensity": torch.tensor(0.3, dtype=torch.float64, requires_grad=True)}
    model = MODELS[4].with_params(moving)
    with pytest.raises(InputError, match=r"Bates: the number of jumps .* take this one derivative from price_european"):
        price(model, European(100.0, 1.0), MARKET, QUICK)
    with torch.no_grad():
        assert float(price(model, European(100.0, 1.0), MARKET, QUICK).value) > 0


def test_a_payoff_of_the_users_own() -> None:
    mean = PathFunction((0.25, 0.5, 1.0), lambda s: torch.relu(s.mean(-1) - 100.0))
    plain = dataclasses.replace(QUICK, control_variate=False)
    both = price(HESTON, [mean, Asian(100.0, (0.25, 0.5, 1.0))], MARKET, plain)
    assert float(both.value[0]) == float(both.value[1])


def test_progress_ends_at_the_number_of_paths() -> None:
    seen: list[tuple[int, int]] = []
    price(HESTON, European(100.0, 0.25), MARKET, dataclasses.replace(QUICK, memory_budget=1 << 20),
          progress=lambda *at: seen.append(at))  # fmt: skip
    assert seen[-1] == (1 << 15, 1 << 15)
    assert len(seen) > 3


def test_a_path_that_leaves_the_finite_numbers_is_an_error_that_names_it() -> None:
    broken = HESTON.with_params({"theta": torch.tensor(math.nan, dtype=torch.float64)})
    with pytest.raises(NumericsError, match=r"Heston under HestonQE: a path is not finite at step 0 .*theta"):
        price(broken, European(100.0, 1.0), MARKET, QUICK)
    with pytest.raises(NumericsError, match="not finite at the payoff"):
        price(HESTON, PathFunction((1.0,), lambda s: s[..., 0] / 0.0), MARKET, QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_paths": 1}, "n_paths must be from 2 to"),
        ({"max_dt": 0.0}, "max_dt must be positive"),
        ({"dtype": torch.float16}, "dtype must be"),
        ({"compile": "yes"}, "compile must be"),
        ({"memory_budget": 10}, "memory_budget is 10 bytes"),
        ({"device": "cuda:77"}, "is not there"),
    ],
)
def test_bad_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MonteCarlo(**change)  # type: ignore[arg-type]


def test_bad_requests_are_named() -> None:
    with pytest.raises(InputError, match="no payoffs"):
        price(HESTON, [], MARKET, QUICK)
    with pytest.raises(InputError, match="more than 1,048,576 steps"):
        price(HESTON, European(100.0, 10.0), MARKET, dataclasses.replace(QUICK, max_dt=1e-6))
    with pytest.raises(InputError, match="spot must be one positive finite number"):
        Market(spot=-1.0)


@pytest.mark.slow  # compiling takes some seconds per kernel
def test_compiled_and_eager_agree(caplog: pytest.LogCaptureFixture) -> None:
    engine = MonteCarlo(n_paths=4096, max_dt=1 / 8, compile="never")
    with caplog.at_level(logging.WARNING, logger="qsde.solve"):
        fast = gradients(HESTON, dataclasses.replace(engine, compile="always"))
    assert not caplog.records
    for name, want in gradients(HESTON, engine).items():
        torch.testing.assert_close(fast[name], want, rtol=1e-10, atol=1e-10)
