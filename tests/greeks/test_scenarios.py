"""Ladders of spots and vols: every cell against prices and Greeks of its own, barriers that are crossed, parity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qsde.errors import InputError
from qsde.greeks import greeks, scenarios
from qsde.greeks.inputs import parallel_shift
from qsde.market.dividends import CashDividend
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models import SDE, BlackScholes, Heston, Model, merton
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.payoffs import (
    American,
    Asian,
    AssetDigital,
    Autocallable,
    Barrier,
    Digital,
    DoubleBarrier,
    European,
    FloatingLookback,
    OneTouch,
    Payoff,
)
from qsde.pricing.fourier import Fourier
from qsde.pricing.montecarlo import MonteCarlo, price

MARKET = Market(100.0, 0.03, 0.01)
HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
MERTON = merton(0.2, 0.3, -0.1, 0.15)
FEW = MonteCarlo(n_paths=1 << 10, max_dt=1 / 2, noise=Threefry(3))
BOOK: list[Payoff] = [
    European(100.0, 1.0),
    Digital(100.0, 1.0),
    Asian(100.0, (0.5, 1.0)),
    Barrier(100.0, 80.0, 1.0, "down-and-out"),
    Barrier(100.0, 80.0, 1.0, "down-and-out", monitoring=(0.5, 1.0)),
    FloatingLookback(1.0),
    Autocallable(observations=(0.5, 1.0), initial=100.0, coupon=0.02),
]
GREEKS = ("delta", "gamma", "vega")


def moved(model: Model, vol: float) -> Model:
    slopes = parallel_shift(model, MARKET, 1.0)
    return model.with_params({k: p + vol * slopes.get(k, 0.0) for k, p in model.params.items()})


@pytest.mark.parametrize("model", [BlackScholes(0.2), HESTON, MERTON], ids=lambda m: m.name)
def test_every_cell_is_what_separate_calls_give(model: Model) -> None:
    """To rounding: the random numbers are the same."""
    got = scenarios(model, BOOK, MARKET, FEW, spots=(-0.1, 0.05), vols=(0.02,))
    assert got.levels.tolist() == pytest.approx([90.0, 100.0, 105.0])
    for s, v in ((2, 1), (1, 0)):
        market = Market(float(got.levels[s]), 0.03, 0.01)
        shifted = moved(model, float(got.vols[v]))
        with torch.no_grad():
            want = price(shifted, BOOK, market, FEW)
        torch.testing.assert_close(got["price"][:, s, v], want.value, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(got.error("price")[:, s, v], want.std_error, rtol=1e-8, atol=1e-10)
        if s == 1:
            continue
        each = greeks(shifted, BOOK, market, FEW, ("delta", "gamma"))
        for name in ("delta", "gamma"):
            torch.testing.assert_close(got[name][:, s, v], each[name], rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(got.error(name)[:, s, v], each.error(name), rtol=1e-8, atol=1e-9)
    each = greeks(model, BOOK, Market(105.0, 0.03, 0.01), FEW, ["vega"])  # the same direction: found without a move
    torch.testing.assert_close(got["vega"][:, 2, 0], each["vega"], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(got.error("vega")[:, 2, 0], each.error("vega"), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("noise", [Antithetic(Threefry(3)), Sobol(3)], ids=lambda n: type(n).__name__)
def test_other_noises_give_the_cells_of_separate_calls(noise: Noise) -> None:
    engine = MonteCarlo(n_paths=1 << 10, max_dt=1 / 2, noise=noise)
    book = [BOOK[0], BOOK[2], BOOK[3]]
    got = scenarios(HESTON, book, MARKET, engine, spots=(0.05,), vols=(-0.02,))
    market, shifted = Market(105.0, 0.03, 0.01), moved(HESTON, -0.02)
    with torch.no_grad():
        want = price(shifted, book, market, engine)
    torch.testing.assert_close(got["price"][:, 1, 0], want.value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got["delta"][:, 1, 0], greeks(shifted, book, market, engine, ["delta"])["delta"])


@pytest.mark.parametrize("model", [BlackScholes(0.2), HESTON], ids=lambda m: m.name)
def test_fourier_cells_are_those_of_separate_calls(model: Model) -> None:
    book = [European(95.0, 1.0), European(105.0, 0.5, "put"), Digital(100.0, 1.0), AssetDigital(100.0, 0.5, "put")]
    got = scenarios(model, book, MARKET, spots=(-0.1, 0.1), vols=(-0.02, 0.03))
    assert got.methods == ("fourier",) * 4
    assert not got.std_error.any()
    for s, v in ((0, 0), (2, 2), (1, 1)):
        market = Market(float(got.levels[s]), 0.03, 0.01)
        want = greeks(moved(model, float(got.vols[v])), book, market, Fourier(), ("price", "delta", "gamma"))
        for name in ("price", "delta", "gamma"):
            torch.testing.assert_close(got[name][:, s, v], want[name], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(got["vega"][:, 1, 1], greeks(model, book, MARKET, Fourier(), ["vega"])["vega"])
    simulated = scenarios(model, book, MARKET, MonteCarlo(1 << 13, 1 / 16), spots=(-0.1, 0.1), vols=(-0.02, 0.03))
    for name in ("price", *GREEKS, "pnl"):
        room = 4.5 * simulated.error(name) + 0.01 * got[name].abs() + 1e-9
        assert bool(((simulated[name] - got[name]).abs() < room).all()), name


def test_pnl_is_relative_to_no_move_and_knows_the_common_noise() -> None:
    got = scenarios(HESTON, BOOK[2], MARKET, FEW, spots=(0.01,), vols=(0.01,))
    torch.testing.assert_close(got["pnl"], got["price"] - got["price"][:, :1, :1])
    assert float(got["pnl"][0, 0, 0]) == float(got.error("pnl")[0, 0, 0]) == 0.0
    assert float(got.error("pnl")[0, 1, 0]) < 0.5 * float(got.error("price")[0, 1, 0] * 2**0.5)
    taylor = got["delta"][0, 0, 0] + 0.5 * got["gamma"][0, 0, 0]
    assert float(got["pnl"][0, 1, 0]) == pytest.approx(float(taylor), rel=0.02)
    assert float(got["pnl"][0, 0, 1]) == pytest.approx(float(got["vega"][0, 0, 0]), rel=0.05)


def test_parity_in_every_cell() -> None:
    book = [European(100.0, 1.0), European(100.0, 1.0, "put")]
    got = scenarios(HESTON, book, MARKET, FEW)
    forward = torch.stack([Market(float(s), 0.03, 0.01).forward(1.0) for s in got.levels])
    parity = (MARKET.discount(1.0) * (forward - 100.0)).unsqueeze(-1).expand(-1, 3)
    torch.testing.assert_close(got["price"][0] - got["price"][1], parity, rtol=0, atol=1e-8)
    torch.testing.assert_close(got["gamma"][0], got["gamma"][1], rtol=0, atol=1e-9)
    torch.testing.assert_close(got["vega"][0], got["vega"][1], rtol=0, atol=1e-9)


def test_a_crossed_barrier_leaves_the_value_after_the_knock() -> None:
    """A rebate, nothing, a payment now or at expiry, or the vanilla with its Greeks."""
    discount = float(MARKET.discount(1.0))
    book: list[Payoff] = [
        Barrier(100.0, 90.0, 1.0, "down-and-out"),
        Barrier(100.0, 90.0, 1.0, "down-and-out", rebate=3.0),
        Barrier(100.0, 90.0, 1.0, "down-and-out", rebate=3.0, rebate_at="expiry"),
        OneTouch(1.0, lower=90.0, cash=5.0),
        OneTouch(1.0, lower=90.0, cash=5.0, pay_at="expiry"),
        DoubleBarrier(100.0, 90.0, 120.0, 1.0, "knock-out", monitoring=(0.0, 0.5, 1.0)),
        Barrier(100.0, 90.0, 1.0, "down-and-in"),
    ]
    got = scenarios(BlackScholes(0.2), [*book, European(100.0, 1.0)], MARKET, FEW, spots=(-0.2, -0.1), vols=())
    assert got.knocked.tolist() == [*[[True, True, False]] * 7, [False, False, False]]
    for s in (0, 1):
        worth = got["price"][:6, s, 0].tolist()
        assert worth == pytest.approx([0.0, 3.0, 3.0 * discount, 5.0, 5.0 * discount, 0.0], abs=1e-9)
        for name in (*GREEKS, "price"):
            if name != "price":
                assert got[name][:6, s, 0].tolist() == pytest.approx([0.0] * 6, abs=1e-9), name
            room = 4 * float(got.error(name)[6:, s, 0].sum()) + 1e-9
            assert abs(float(got[name][6, s, 0] - got[name][7, s, 0])) < room, name


def test_dividends_stay_and_functions_are_refused() -> None:
    market = Market(100.0, 0.03, dividends=[CashDividend(0.5, 4.0)])
    book = [Asian(100.0, (0.25, 1.0)), Barrier(100.0, 80.0, 1.0, "down-and-out")]
    got = scenarios(BlackScholes(0.2), book, market, FEW, spots=(0.1,), vols=(0.05,))
    with torch.no_grad():
        want = price(BlackScholes(0.25), book, Market(110.0, 0.03, dividends=[CashDividend(0.5, 4.0)]), FEW).value
    torch.testing.assert_close(got["price"][:, 1, 1], want, rtol=1e-10, atol=1e-10)
    with pytest.raises(InputError, match="dividends"):
        scenarios(BlackScholes(0.2), book, market, FEW, spots=(-0.97,))
    sde = SDE(
        lambda t, y, p: -0.5 * p["vol"] ** 2 * torch.ones_like(y), lambda t, y, p: p["vol"] * torch.ones_like(y),
        [0.0], {"vol": 0.2}, martingale=True,
    )  # fmt: skip
    with pytest.raises(InputError, match="one parameter set at a time"):
        scenarios(sde, BOOK[0], MARKET, FEW)


def test_frame_table_and_plot(tmp_path: Path) -> None:
    got = scenarios(BlackScholes(0.2), BOOK[:3], MARKET, FEW, spots=(-0.1, 0.1), vols=(0.05,), units="raw")
    frame = got.frame()
    assert len(frame) == 3 * 3 * 2
    assert {"payoff", "spot", "spot_move", "vol_shift", "price", "vega_std_error", "pnl", "knocked"} <= set(frame)
    table = got.table("vega", payoff=2)
    row = frame[(frame["payoff"] == "Asian") & (frame["spot_move"] == 0.1) & (frame["vol_shift"] == 0.05)]
    assert float(row["vega"].iloc[0]) == table.loc[got.levels.tolist()[2], 0.05] == float(got["vega"][2, 2, 1])
    figure = got.plot(tmp_path / "grid.html", payoff=1)
    assert len(figure.data) == 5 * 2
    assert list(figure.data[0].y) == got["price"][1, :, 0].tolist()
    assert "plotly" in (tmp_path / "grid.html").read_text()


def test_refusals() -> None:
    with pytest.raises(InputError, match="no 'theta' in scenarios"):
        scenarios(HESTON, BOOK[0], MARKET, which=["theta"])
    with pytest.raises(InputError, match="takes the parameter vol to"):
        scenarios(BlackScholes(0.2), BOOK[0], MARKET, vols=(-0.25,))
    with pytest.raises(InputError, match="above -1"):
        scenarios(HESTON, BOOK[0], MARKET, spots=(-1.0,))
    for spots in ("abc", 0.1, ["a"], None):
        with pytest.raises(InputError, match="spots must be a list of numbers"):
            scenarios(HESTON, BOOK[0], MARKET, spots=spots)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="exercised early"):
        scenarios(HESTON, American(100.0, 1.0), MARKET)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one spot"):
        scenarios(HESTON, BOOK[0], Markets([MARKET]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="use MonteCarlo"):
        scenarios(HESTON, BOOK[3], MARKET, Fourier())
