"""Greeks against published tables, against Fourier, against bumps with the same noise, and against parity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from qsde.errors import InputError
from qsde.greeks import GREEKS, Greeks, greeks
from qsde.market.underlying import Market
from qsde.models import SDE, BlackScholes, Heston, Model, bates, merton
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.payoffs import Asian, AssetDigital, Autocallable, Barrier, Digital, European, Gap, Payoff
from qsde.pricing.engine import Auto
from qsde.pricing.fourier import Fourier
from qsde.pricing.montecarlo import MonteCarlo, price

REFERENCE = Path(__file__).parents[1] / "reference"
HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.15)
MARKET = Market(spot=100.0, rate=0.03, dividend_yield=0.01)
QUARTERS = (0.25, 0.5, 0.75, 1.0)
FEW = MonteCarlo(n_paths=1 << 14, max_dt=1 / 16, noise=Threefry(7))


def test_fourier_against_thirty_digit_greeks() -> None:
    """All but the mixed derivative, which the table has from a difference quotient, good to 1e-6."""
    table = pd.read_csv(REFERENCE / "heston_greeks_computed_mpmath.csv")
    names = {
        "delta": "d_S", "gamma": "d2_S", "rho": "d_r", "dividend_rho": "d_q", "d_v0": "d_v0", "d_kappa": "d_k",
        "d_theta": "d_th", "d_sigma": "d_s", "d_rho": "d_rho",
    }  # fmt: skip
    for row in table.itertuples():
        model = Heston(row.v0, row.k, row.th, row.s, row.rho)
        got = greeks(model, European(row.strike, row.T), Market(row.S, row.r, row.q), Fourier(), units="raw")
        for name, column in names.items():
            assert float(got[name]) == pytest.approx(getattr(row, column), rel=1e-8, abs=1e-8)
        assert float(got["theta"]) == pytest.approx(-row.d_T, rel=1e-8, abs=1e-8)


def test_fourier_against_the_black_scholes_table() -> None:
    table = pd.read_csv(REFERENCE / "bsm_greeks_haug.csv")
    checked = 0
    for row in table.itertuples():
        name, units = ("theta", "trader") if row.greek == "theta_per_day" else (row.greek, "raw")
        found = greeks(BlackScholes(row.vol), European(row.strike, row.t, row.type.lower()),
                       Market(row.spot, row.r, row.q), units=units)  # fmt: skip
        got = found["delta"] * row.spot / found["price"] if name == "elasticity" else found[name]
        assert float(got) == pytest.approx(row.value, abs=1e-4)
        checked += 1
    assert checked == 11


@pytest.mark.parametrize("model", [HESTON, BATES, merton(0.2, 0.3, -0.1, 0.15)], ids=lambda m: m.name)
def test_conditioning_agrees_with_fourier(model: Model) -> None:
    book = [European(95.0, 1.0), Digital(105.0, 1.0, cash=100.0), AssetDigital(100.0, 0.5, "put")]
    _agree(greeks(model, book, MARKET, FEW), greeks(model, book, MARKET, Fourier()))


@pytest.mark.parametrize("method", ["pathwise", "likelihood"])
@pytest.mark.parametrize("model", [BlackScholes(0.2), HESTON], ids=lambda m: m.name)
def test_the_other_methods_agree_with_fourier(model: Model, method: str) -> None:
    book = European(105.0, 1.0, "put")
    _agree(greeks(model, book, MARKET, FEW, method=method), greeks(model, book, MARKET, Fourier()))  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [Antithetic(Threefry(3)), Sobol(3)], ids=lambda n: type(n).__name__)
def test_other_noises_agree_with_fourier(noise: Noise) -> None:
    engine = MonteCarlo(n_paths=1 << 14, max_dt=1 / 16, noise=noise)
    book = [European(105.0, 1.0, "put"), Gap(100.0, 95.0, 1.0)]
    _agree(greeks(HESTON, book, MARKET, engine), greeks(HESTON, book, MARKET, Fourier()))


def test_a_vanilla_with_known_greeks_takes_the_noise_off() -> None:
    book = [European(95.0, 1.0), Digital(104.0, 1.0, cash=10.0)]
    which = ["delta", "gamma", "vanna", "charm", "d_rho", "d_sigma"]
    got, plain = (greeks(HESTON, book, MARKET, replace(FEW, control_variate=c), which) for c in (True, False))
    _agree(got, greeks(HESTON, book, MARKET, Fourier(), which))
    share = (got.std_error / plain.std_error)[0]
    assert (share < 1.1).all()
    assert (share[[0, 3, 4, 5]] < 0.5).all()
    total = greeks(HESTON, book, MARKET, FEW, which, total=True)
    torch.testing.assert_close(total.value[0], got.value.sum(0), rtol=1e-8, atol=1e-10)


def _agree(got: Greeks, want: Greeks, bias: float = 0.01) -> None:
    """Within 4 standard errors and the bias of the steps, of which 1 % of the larger of value and error is allowed."""
    for greek in got.greeks:
        gap = (got[greek.name] - want[greek.name]).abs()
        room = 4 * got.error(greek.name) + bias * want[greek.name].abs()
        assert bool((gap <= room).all()), (greek.name, got[greek.name], want[greek.name], got.error(greek.name))


@pytest.mark.parametrize(
    "payoff",
    [
        Barrier(100.0, 85.0, 1.0, "down-and-out", monitoring=QUARTERS),
        Barrier(100.0, 85.0, 1.0, "down-and-in"),
        Asian(100.0, QUARTERS),
        Autocallable(observations=QUARTERS, initial=100.0, coupon=0.02),
    ],
    ids=["discrete barrier", "continuous barrier", "Asian", "autocallable"],
)
def test_path_dependent_greeks_agree_with_wide_bumps(payoff: Payoff) -> None:
    """Within 4 errors of both; the bumps are differences of many more paths with the same noise."""
    many = MonteCarlo(n_paths=1 << 17, noise=Threefry(11))

    def value(spot: float = 100.0, vol: float = 0.2) -> torch.Tensor:
        with torch.no_grad():
            return price(BlackScholes(vol), payoff, Market(spot, 0.03, 0.01), many).value

    got = greeks(BlackScholes(0.2), payoff, MARKET, MonteCarlo(n_paths=1 << 16), units="raw")
    base = value()
    bumps = {
        "delta": (value(101.0) - value(99.0)) / 2,
        "gamma": (value(104.0) - 2 * base + value(96.0)) / 16,
        "vega": (value(vol=0.205) - value(vol=0.195)) / 0.01,
    }
    for name, want in bumps.items():
        room = 4 * float(got.error(name)) + 0.03 * abs(float(want)) + (0.002 if name == "gamma" else 0.02)
        assert abs(float(got[name]) - float(want)) < room, name


def test_the_total_is_the_sum() -> None:
    book = [European(95.0, 1.0), Asian(100.0, QUARTERS), Digital(100.0, 0.5)]
    which = ["price", "delta", "gamma", "vega", "theta", "d_kappa"]
    each = greeks(HESTON, book, MARKET, FEW, which=which)
    total = greeks(HESTON, book, MARKET, FEW, which=which, total=True)
    torch.testing.assert_close(total.value[0], each.value.sum(0), rtol=1e-9, atol=1e-10)
    assert total.payoffs == ("book",)


def test_parity_of_calls_and_puts_holds_exactly_on_one_path_set() -> None:
    """Linear in the payoff: to the error of the forward, which the control variate takes out."""
    call, put = European(100.0, 1.0), European(100.0, 1.0, "put")
    got = greeks(HESTON, [call, put], MARKET, FEW)
    assert float(got["price"][0] - got["price"][1]) == pytest.approx(
        float(MARKET.discount(1.0) * (MARKET.forward(1.0) - 100.0)), abs=1e-9
    )
    assert float(got["gamma"][0] - got["gamma"][1]) == pytest.approx(0.0, abs=1e-9)


def test_units_and_frame() -> None:
    trader, raw = (greeks(HESTON, European(100.0, 1.0), MARKET, units=u) for u in ("trader", "raw"))
    for greek in trader.greeks:
        assert float(trader[greek.name]) == pytest.approx(float(raw[greek.name]) * greek.scale, rel=1e-12)
    frame = trader.frame()
    assert list(frame.columns) == ["payoff", "greek", "value", "std_error", "unit", "method"]
    assert set(frame["greek"]) == {*GREEKS, *(f"d_{name}" for name in HESTON.params)}
    assert trader.unit("vega") == "per vol point"


def test_an_sde_of_functions_has_pathwise_greeks() -> None:
    sde = SDE(
        lambda t, y, p: -0.5 * p["vol"] ** 2 * torch.ones_like(y), lambda t, y, p: p["vol"] * torch.ones_like(y),
        [0.0], {"vol": 0.2}, martingale=True,
    )  # fmt: skip
    got = greeks(sde, European(100.0, 1.0), MARKET, FEW, which=["delta", "d_vol", "gamma"])
    want = greeks(BlackScholes(0.2), European(100.0, 1.0), MARKET, which=["delta", "d_vol", "gamma"])
    _agree(got, want, bias=0.05)


def test_charm_with_jumps_is_how_theta_moves() -> None:
    """Also of payoffs with control variates, which the jumps move as well."""
    asian, model = Asian(100.0, QUARTERS), merton(0.15, 0.8, -0.1, 0.15)
    engine = MonteCarlo(1 << 13, 0.25, noise=Threefry(2))
    found = greeks(model, asian, MARKET, engine, ["charm"], "raw")
    ends = [greeks(model, asian, Market(s, 0.03, 0.01), engine, ["theta"], "raw")["theta"] for s in (99.0, 101.0)]
    assert abs(float(found["charm"] - (ends[1] - ends[0]) / 2)) < 4 * float(found.error("charm")) < 0.12


def test_without_gradients_around_them_greeks_are_the_same() -> None:
    with torch.no_grad():
        inside = greeks(HESTON, Digital(100.0, 1.0), MARKET, which=["delta", "gamma"])
    assert torch.equal(inside.value, greeks(HESTON, Digital(100.0, 1.0), MARKET, which=["delta", "gamma"]).value)


def test_what_would_be_wrong_is_refused() -> None:
    digital, barrier = Digital(100.0, 1.0), Barrier(100.0, 85.0, 1.0, "down-and-out", monitoring=QUARTERS)
    with pytest.raises(
        InputError, match="Barrier jumps, so its pathwise Greeks would be wrong; use method='conditional'"
    ):
        greeks(HESTON, barrier, MARKET, FEW, method="pathwise")
    with pytest.raises(InputError, match="no Greek 'speed' for Heston here; there are price, delta"):
        greeks(HESTON, digital, MARKET, which=["speed"])
    with pytest.raises(InputError, match="Greeks are of one model, got a batch"):
        greeks(BlackScholes([0.2, 0.3]), digital, MARKET)
    with pytest.raises(InputError, match="use MonteCarlo"):
        greeks(HESTON, Asian(100.0, QUARTERS), MARKET, Fourier())
    with pytest.raises(InputError, match="units must be"):
        greeks(HESTON, digital, MARKET, units="percent")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="method must be one of auto, conditional"):
        greeks(HESTON, digital, MARKET, method="magic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'pathwise' is for simulations"):
        greeks(HESTON, digital, MARKET, Fourier(), method="pathwise")
    for which in ("delta", [], 3):
        with pytest.raises(InputError, match="which must be a list of names"):
            greeks(HESTON, digital, MARKET, which=which)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="looks at today's price"):
        greeks(HESTON, Asian(100.0, (0.0, 1.0)), MARKET, FEW, ["gamma"], method="likelihood")
    for wrong in ((None, digital, MARKET), (HESTON, digital, 100.0), (HESTON, digital, MARKET, "fast")):
        with pytest.raises(InputError, match="must be of type"):
            greeks(*wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there are no payoffs"):
        greeks(HESTON, [], MARKET)


def test_an_automatic_engine_integrates_or_simulates() -> None:
    few = Auto(MonteCarlo(n_paths=256, max_dt=0.5))
    exact = greeks(HESTON, European(100.0, 1.0), MARKET, few, which=["delta"])
    assert exact.n_paths == 0
    drawn = greeks(HESTON, Asian(100.0, (0.5, 1.0)), MARKET, few, which=["delta"])
    assert drawn.n_paths == 256
    with pytest.raises(InputError, match="Auto: simulation must be of type MonteCarlo"):
        Auto("fast")  # type: ignore[arg-type]
