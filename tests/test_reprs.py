"""What the interpreter shows of a result: numbers with their errors and units, never pages of tensors."""

from __future__ import annotations

import re

import pytest
import torch

from qsde import American, BlackScholes, European, Fit, Heston, Market, Surface, calibrate, price
from qsde.greeks import greeks, hedge, quote_sensitivities, scenarios
from qsde.market.quotes import Quotes
from qsde.pricing.engine import MonteCarlo

MODEL = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
MARKET = Market(spot=100.0, rate=0.03)
BOOK = [European(100.0, 1.0), European(110.0, 1.0)]


@pytest.fixture(scope="module")
def fit() -> Fit:
    t, strike = [0.5] * 3 + [1.0] * 3, [90.0, 100.0, 110.0] * 2
    vols = [0.22, 0.20, 0.19, 0.22, 0.21, 0.20]
    surface = Surface.from_vols(t, strike, vols, forward=100.0, underlying="XYZ", spot=100.0)
    return calibrate(Heston.typical(), surface, fixed={"kappa": 2.0})


def test_a_fit_shows_each_parameter_with_its_standard_error(fit: Fit) -> None:
    first, *rest = repr(fit).splitlines()
    assert first.startswith(f"Heston: {fit.status.value}, {fit.rmse_bp:.1f} bp of implied vol (RMSE) on 6 quotes")
    assert len(rest) == 5
    assert rest[0].split()[:4] == ["v0", f"{fit.params['v0']:.6g}", "±", f"{fit.std_errors['v0']:.2g}"]
    assert rest[1].split() == ["kappa", "2", "held"]


def test_surfaces_and_quotes_are_one_line(fit: Fit) -> None:
    assert repr(fit.surface) == "Surface(XYZ: 6 quotes over 2 expiries, spot 100, 0 set aside)"
    frame = fit.surface.quotes[["strike"]]
    assert repr(Quotes.from_frame(frame, "chain.csv")) == "Quotes(chain.csv, tidy: 6 quotes, 0 rejected)"


def test_greeks_show_value_error_unit_and_method() -> None:
    found = repr(greeks(MODEL, BOOK, MARKET, MonteCarlo(n_paths=1 << 8), which=["delta", "vega"]))
    assert len(found.splitlines()) == 5
    assert re.search(r"European +vega +0\.\d+ +0\.\d+ +per vol point", found)


def test_sensitivities_hedges_and_scenarios_fit_on_a_page(fit: Fit) -> None:
    sensitivities = quote_sensitivities(fit, BOOK)
    assert re.search(r"European 2: price \d+\.\d+, all quotes together 0\.\d+ per vol point", repr(sensitivities))
    assert re.search(r"spot -0\.\d+, cost", repr(hedge(fit, BOOK[0], instruments=[0, 3])))
    shown = repr(scenarios(MODEL, BOOK, MARKET, spots=[-0.1, 0.1], vols=[0.0]))
    assert len(shown.splitlines()) == 12


def test_prices_show_value_error_and_method() -> None:
    exact = repr(price(MODEL, BOOK, MARKET)).splitlines()
    assert re.fullmatch(r"Prices, 0 paths, \S+ s", exact[0])
    assert re.fullmatch(r"  9\.4775\d+ ± \S+e-1\d  fourier", exact[1])
    assert len(exact) == 3
    engine = MonteCarlo(n_paths=1 << 10)
    put = repr(price(MODEL, American(100.0, 1.0, kind="put", dates_per_year=4), MARKET, engine))
    assert re.search(r"\d+\.\d+ ± 0\.\d+  least_squares, at most \d+\.\d+", put)
    two = repr(price(BlackScholes([0.2, 0.3]), BOOK, MARKET))
    assert "Prices under the first of 2 models" in two


def test_prices_inside_a_transform_can_be_shown() -> None:
    def shown(vol: torch.Tensor) -> torch.Tensor:
        found = price(BlackScholes(vol), BOOK[0], MARKET, MonteCarlo(n_paths=1 << 8))
        assert repr(found)
        return found.value

    assert torch.func.vmap(shown)(torch.tensor([0.2, 0.3], dtype=torch.float64)).shape == (2,)
