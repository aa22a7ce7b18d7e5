"""American options under Black-Scholes, which have exact prices: which ones, and that all engines agree on them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from qsde.errors import InputError, NumericsError
from qsde.market.american import american_price
from qsde.market.curves import FlatCurve, PillarCurve, ShiftedCurve
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model, merton
from qsde.payoffs import American, Bermudan, European
from qsde.pricing import Auto, Fourier, LeastSquares, MonteCarlo, price
from qsde.pricing.exact import why_not_exact

MARKET = Market(100.0, rate=0.05, dividend_yield=0.02)
MODEL = BlackScholes(0.25)
PUT, CALL = American(110.0, 1.0, "put"), American(95.0, 0.5, "call")


def test_the_default_engine_takes_the_exact_price() -> None:
    found = price(MODEL, [PUT, European(100.0, 1.0), CALL], MARKET)
    assert found.methods == ("boundary", "fourier", "boundary")
    assert found.n_paths == 0
    assert found.std_error.tolist() == [0.0, 0.0, 0.0]
    assert bool(found.upper.isnan().all())
    options = ((110.0, 1.0, False), (95.0, 0.5, True))
    expected = [float(american_price(100.0, k, t, 0.25, 0.05, 0.02, call)) for k, t, call in options]
    assert found.value[[0, 2]].tolist() == pytest.approx(expected, rel=1e-12)
    assert bool((found.numerical_error < 3e-4).all())
    assert float(price(MODEL, PUT, MARKET, Fourier()).value) == pytest.approx(float(found.value[0]), rel=1e-12)


def test_it_lies_between_the_bounds_of_the_simulation_of_many_dates() -> None:
    engine = MonteCarlo(n_paths=1 << 13, compile="never")
    for option in (PUT, CALL):
        exact = float(price(MODEL, option, MARKET).value)
        found = price(MODEL, option, MARKET, engine, least_squares=LeastSquares(outer=256, inner=32))
        assert found.methods == ("least_squares",)
        assert float(found.value) - 3.5 * float(found.std_error) < exact
        assert exact < 1.002 * float(found.upper) + 3.5 * float(found.upper_std_error)  # fifty dates a year


def test_dates_a_year_do_not_matter_and_models_are_priced_together() -> None:
    vols = torch.tensor([[0.1], [0.25], [0.6]], dtype=torch.float64)
    book = [PUT, American(110.0, 1.0, "put", dates_per_year=3), CALL]
    together = price(BlackScholes(vols), book, MARKET).value
    assert together.shape == (3, 1, 3)
    assert together[..., 0].tolist() == together[..., 1].tolist()
    alone = [price(BlackScholes(float(vol)), book, MARKET).value for vol in vols]
    torch.testing.assert_close(together[:, 0], torch.stack(alone))


def test_limits() -> None:
    plain = Market(100.0, rate=0.05)
    call = price(MODEL, [American(110.0, 2.0, "call"), European(110.0, 2.0, "call")], plain).value
    assert float(call[0]) == pytest.approx(float(call[1]), rel=1e-12)
    spot = torch.tensor(40.0, dtype=torch.float64, requires_grad=True)
    deep = price(MODEL, American(100.0, 2.0, "put"), Market(spot, rate=0.05)).value
    (delta,) = torch.autograd.grad(deep, spot)
    assert float(deep.detach()) == pytest.approx(60.0, rel=1e-14)
    assert float(delta) == pytest.approx(-1.0, rel=1e-14)
    dates = [price(MODEL, Bermudan(110.0, [i / n for i in range(n + 1)]), plain,
                   MonteCarlo(1 << 12, compile="never")).value for n in (2, 16)]  # fmt: skip
    assert float(dates[0]) < float(dates[1]) < float(price(MODEL, American(110.0, 1.0), plain).value) + 0.02


def test_gradients_are_those_of_bumps() -> None:
    values = {"spot": 100.0, "vol": 0.25, "rate": 0.05, "dividend": 0.02, "strike": 110.0}

    def value(p: dict[str, Any]) -> torch.Tensor:
        book = [American(p["strike"], 1.0, kind) for kind in ("put", "call")]  # type: ignore[arg-type]
        return price(BlackScholes(p["vol"]), book, Market(p["spot"], p["rate"], p["dividend"])).value.sum()

    leaves = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in values.items()}
    slopes = torch.autograd.grad(value(leaves), list(leaves.values()))
    for (name, x), slope in zip(values.items(), slopes, strict=True):
        h = 1e-4 * x
        bumped = float(value({**values, name: x + h}) - value({**values, name: x - h})) / (2 * h)
        assert float(slope) == pytest.approx(bumped, rel=1e-5), name


CURVE = PillarCurve([0.5, 1.0], [0.02, 0.04])


@pytest.mark.parametrize(
    ("model", "market", "says"),
    [
        (Heston.typical(), MARKET, "under Heston, only under BlackScholes"),
        (merton(0.2, 0.1, 0.0, 0.1), MARKET, "only under BlackScholes"),
        (MODEL, Market(100.0, dividends=[CashDividend(0.5, 1.0)]), "with discrete dividends"),
        (MODEL, Market(100.0, dividends=[ProportionalDividend(0.5, 0.01)]), "with discrete dividends"),
        (MODEL, Market(100.0, rate=CURVE), "under curves, only at a constant rate"),
        (MODEL, Market(100.0, dividend_yield=CURVE), "under curves, only at a constant rate"),
        (BlackScholes(0.0), MARKET, "without volatility"),
        (MODEL, Market(100.0, rate=-0.01, dividend_yield=-0.02), "between two boundaries"),
    ],
)
def test_what_is_not_exact_says_why_and_is_simulated(model: Model, market: Market, says: str) -> None:
    reason = why_not_exact(model, PUT, market)
    assert reason is not None
    assert reason.startswith("American has no exact price")
    assert says in reason
    with pytest.raises(InputError, match=r"payoffs\[0\]: American has no exact price.*; use MonteCarlo"):
        price(model, PUT, market, Fourier())
    few = Auto(MonteCarlo(256, 0.25, compile="never"))
    assert price(model, PUT, market, few, least_squares=LeastSquares(outer=0)).methods == ("least_squares",)


def test_two_boundaries_depend_on_the_kind_and_shifted_flat_curves_are_flat() -> None:
    negative = Market(100.0, rate=-0.01, dividend_yield=-0.02)
    assert why_not_exact(MODEL, CALL, negative) is None
    shifted = Market(100.0, rate=ShiftedCurve(FlatCurve(0.04), 0.01), dividend_yield=0.02)
    assert float(price(MODEL, PUT, shifted).value) == float(price(MODEL, PUT, MARKET).value)
    assert why_not_exact(MODEL, PUT, Market(100.0, rate=ShiftedCurve(CURVE, 0.01))) is not None
    with pytest.raises(NumericsError, match="use MonteCarlo"):
        price(BlackScholes(10.0), American(100.0, 30.0), Market(100.0, rate=1e-8))
    assert not math.isnan(float(price(BlackScholes(1e-4), PUT, MARKET).value))
