"""Greeks of American options under Black-Scholes, which are exact: against QuantLib, differences and the equation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from qsde.errors import InputError
from qsde.greeks import greeks, scenarios
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston
from qsde.payoffs import American, Asian, Bermudan, European
from qsde.pricing import Auto, Fourier, MonteCarlo

TABLE = pd.read_csv(Path(__file__).resolve().parents[1] / "reference" / "american_quantlib144.csv")
MODEL, MARKET = BlackScholes(0.25), Market(100.0, 0.05, 0.02)
PUT = American(110.0, 1.0, "put")
SECOND = ("gamma", "vanna", "volga", "charm")


@pytest.mark.parametrize("row", list(TABLE.iloc[::9].itertuples()), ids=lambda row: f"{row.type}-{row.strike:g}")
def test_quantlib(row: Any) -> None:
    option = American(row.strike, row.t, row.type)
    found = greeks(BlackScholes(row.vol), option, Market(row.spot, row.r, row.q), units="raw")
    assert (found.methods, found.n_paths) == (("boundary",), 0)
    assert float(found.std_error.abs().max()) == 0.0
    for name in ("price", "delta", "gamma", "vega", "theta", "rho", "dividend_rho"):
        assert float(found[name]) == pytest.approx(getattr(row, name), rel=1e-5, abs=2e-4), name
    assert float(found["d_vol"]) == pytest.approx(float(found["vega"]), rel=1e-8)


def test_second_derivatives_are_differences_of_first_ones() -> None:
    def first(spot: float = 100.0, vol: float = 0.25, t: float = 1.0) -> dict[str, float]:
        found = greeks(BlackScholes(vol), American(110.0, t), Market(spot, 0.05, 0.02), units="raw")
        return {name: float(found[name]) for name in ("delta", "vega", *SECOND)}

    exact = first()
    for name, of, move, sign in (("gamma", "delta", {"spot": 0.1}, 1), ("vanna", "delta", {"vol": 1e-3}, 1),
                                 ("volga", "vega", {"vol": 1e-3}, 1), ("charm", "delta", {"t": 1e-3}, -1)):  # fmt: skip
        base, ((key, h),) = {"spot": 100.0, "vol": 0.25, "t": 1.0}, move.items()
        slope = (first(**{key: base[key] + h})[of] - first(**{key: base[key] - h})[of]) / (2 * h)
        assert exact[name] == pytest.approx(sign * slope, rel=1e-4), name


def test_exercised_at_once() -> None:
    found = greeks(MODEL, American(200.0, 1.0), MARKET, units="raw")
    assert float(found["price"]) == pytest.approx(100.0, rel=1e-14)
    assert float(found["delta"]) == pytest.approx(-1.0, rel=1e-14)
    for name in ("vega", "theta", "rho", "dividend_rho", *SECOND):
        assert float(found[name]) == pytest.approx(0.0, abs=1e-12), name


def test_a_call_without_yield_has_the_greeks_of_the_european() -> None:
    book = [American(110.0, 1.0, "call"), European(110.0, 1.0, "call")]
    found = greeks(MODEL, book, Market(100.0, 0.05), units="raw")
    assert found.methods == ("boundary", "fourier")
    torch.testing.assert_close(found.value[0], found.value[1], rtol=1e-9, atol=1e-9)


def test_a_book_with_a_simulated_contract_is_simulated() -> None:
    few = Auto(MonteCarlo(n_paths=1 << 10, max_dt=0.25, compile="never"))
    for other in (Asian(100.0, (0.5, 1.0)), Bermudan(110.0, (0.5, 1.0))):
        found = greeks(MODEL, [PUT, other], MARKET, few, which=["delta"])
        assert found.n_paths >= 1 << 10
        assert found.methods[0].startswith("pathwise, frozen policy")
        exact = float(greeks(MODEL, PUT, MARKET, few, which=["delta"])["delta"])
        assert float(found["delta"][0]) == pytest.approx(exact, abs=5 * float(found.error("delta")[0]) + 0.01)
    with pytest.raises(InputError, match="volga of a right"):
        greeks(MODEL, PUT, MARKET, few.simulation, which=["volga"])
    with pytest.raises(InputError, match="American has no exact price under Heston, only under BlackScholes; use Mon"):
        greeks(Heston.typical(), PUT, MARKET, Fourier())
    with pytest.raises(InputError, match=r"and of American options, not of Bermudan; use MonteCarlo\(\)"):
        greeks(MODEL, Bermudan(110.0, (1.0,)), MARKET, Fourier())


def test_scenarios_are_prices_and_greeks_at_moved_spots_and_vols() -> None:
    found = scenarios(MODEL, [PUT, European(100.0, 1.0)], MARKET, spots=(-0.4, 0.1), vols=(-0.1, 0.05), units="raw")
    assert (found.methods, found.n_paths) == (("boundary", "fourier"), 0)
    for s, spot in enumerate(found.levels.tolist()):
        for v, vol in enumerate((0.15, 0.25, 0.30)):
            cell = greeks(BlackScholes(vol), PUT, Market(spot, 0.05, 0.02), units="raw")
            for name in ("price", "delta", "gamma", "vega"):
                assert float(found[name][0, s, v]) == pytest.approx(float(cell[name]), rel=1e-8, abs=1e-10), name
    assert float(found["price"][0, 0, 1]) == pytest.approx(50.0)  # exercised
    asian, few = Asian(100.0, (0.5, 1.0)), Auto(MonteCarlo(256, compile="never"))
    mixed = scenarios(MODEL, [asian, PUT], MARKET, few, spots=(-0.4, 0.1), vols=(-0.1, 0.05), units="raw")
    assert (mixed.methods, mixed.n_paths) == (("pathwise", "boundary"), 256)
    alone = scenarios(MODEL, asian, MARKET, few, spots=(-0.4, 0.1), vols=(-0.1, 0.05), units="raw")
    torch.testing.assert_close(mixed.value, torch.stack([alone.value[0], found.value[0]]))
    torch.testing.assert_close(mixed.pnl[1], found.pnl[0])
    assert float(mixed.std_error[1].max()) < 1e-12
    for claim, engine, says in ((PUT, few.simulation, "leave MonteCarlo"), (Bermudan(110.0, (1.0,)), None, "Bermudan")):
        with pytest.raises(InputError, match=rf"exercised early, so that there are scenarios.*{says}"):
            scenarios(MODEL, claim, MARKET, engine)
