"""Hedges of quoted options: what they neutralise, what they cost, and how they fare when the surface moves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from qsde.calibration import Fit, calibrate
from qsde.errors import InputError
from qsde.greeks import (
    QuoteSensitivities,
    hedge,
    liquid_quotes,
    market_of,
    neutralise,
    quote_sensitivities,
    recalibrated,
)
from qsde.greeks.ladder import buckets_of
from qsde.market.black import black_price
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Model
from qsde.noise import Sobol
from qsde.payoffs import Asian, Barrier, European, Payoff
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

ENGINE = MonteCarlo(n_paths=1 << 15, noise=Sobol(0, scrambles=16), compile="never")


@pytest.fixture(scope="module")
def fit(fits) -> Fit:
    return fits["spx", "heston"]


@pytest.fixture(scope="module")
def exotics(fit) -> QuoteSensitivities:
    spot = fit.surface.spot
    book: list[Payoff] = [
        Asian(1.02 * spot, fixings=(0.125, 0.25, 0.375, 0.5)),
        Barrier(1.02 * spot, barrier=0.85 * spot, expiry=0.5, style="down-and-out"),
    ]
    return quote_sensitivities(fit, book, engine=ENGINE)


def book_worth(found: QuoteSensitivities, model: Model, market: Market) -> Tensor:
    with torch.no_grad():
        return price(model, found.payoffs, market, ENGINE).value.sum()


def options_worth(fit: Fit, rows: np.ndarray, model: Model, growth: float = 1.0) -> Tensor:
    q = fit.surface.quotes.iloc[rows]
    strike, t, forward, df = (torch.tensor(q[c].to_numpy()) for c in ("strike", "t", "forward", "discount_factor"))
    is_call = torch.tensor((q["option_type"] == "C").to_numpy()).unsqueeze(-1)
    return price_european(model, strike.unsqueeze(-1), t, growth * forward, df, is_call).value.squeeze(-1)


def scenarios(surface: Surface) -> dict[str, np.ndarray]:
    """Moves of the quoted vols of up to a vol point: level, skew, term structure, and each quote by itself."""
    q = surface.quotes
    skew = -np.log(q["strike"] / q["forward"]).to_numpy() / 10
    term = (0.01 * np.exp(-2 * q["t"])).to_numpy()
    rng = np.random.default_rng(7)
    noise = {f"noise {i}": 0.002 * rng.standard_normal(len(q)) for i in range(3)}
    return {"up": np.full(len(q), 0.01), "down": np.full(len(q), -0.01), "skew": skew, "term": term, **noise}


def test_the_hedged_book_moves_ten_times_less_when_the_surface_moves(fit, exotics) -> None:
    found = neutralise(exotics)
    market = market_of(fit.surface)
    rows, position = found.positions["quote"].to_numpy(), torch.tensor(found.positions["position"].to_numpy())
    before, base = book_worth(exotics, fit.model, market), options_worth(fit, rows, fit.model)
    bare, hedged = {}, {}
    for name, move in scenarios(fit.surface).items():
        moved = recalibrated(fit, move)
        bare[name] = float(book_worth(exotics, moved, market) - before)
        hedged[name] = bare[name] + float(position @ (options_worth(fit, rows, moved) - base))
    # this book is nearly neutral to the skew from the start: what is left there is of second order
    for name in bare.keys() - {"skew"}:
        assert abs(hedged[name]) < 0.1 * abs(bare[name]), name
    sizes = [np.sqrt(np.mean(np.square(list(x.values())))) for x in (hedged, bare)]
    assert sizes[0] < 0.1 * sizes[1]


def test_buckets_are_hedged_at_market_prices(fit, exotics) -> None:
    found = neutralise(exotics, target="buckets")
    surface, rows = fit.surface, found.positions["quote"].to_numpy()
    cells = pd.Series(found.after.numpy()).groupby(buckets_of(surface)).sum()
    assert cells.abs().max() < 1e-9 * float(found.before.abs().max())
    q = surface.quotes.iloc[rows]
    strike, t, forward, df, iv = (
        torch.tensor(q[c].to_numpy()) for c in ("strike", "t", "forward", "discount_factor", "iv")
    )
    call = torch.tensor((q["option_type"] == "C").to_numpy())
    position, market = torch.tensor(found.positions["position"].to_numpy()), market_of(surface)
    before, base = book_worth(exotics, fit.model, market), black_price(forward, strike, t, iv, df, call)
    by_cell = 0.005 * np.random.default_rng(3).standard_normal(buckets_of(surface).max() + 1)[buckets_of(surface)]
    for move in (by_cell, np.full(len(surface), 0.005), np.full(len(surface), -0.005)):
        bare = book_worth(exotics, recalibrated(fit, move), market) - before
        hedged = bare + position @ (black_price(forward, strike, t, iv + torch.tensor(move[rows]), df, call) - base)
        assert abs(float(hedged)) < 0.1 * abs(float(bare))


def test_the_hedged_book_has_no_delta(fit, exotics) -> None:
    found = neutralise(exotics)
    rows, position = found.positions["quote"].to_numpy(), torch.tensor(found.positions["position"].to_numpy())
    market, size = market_of(fit.surface), 2e-3
    spot = float(market.spot)

    def worth(growth: float) -> tuple[float, float]:
        moved = Market(spot * growth, market.rate, market.dividend_yield)
        bare = float(book_worth(exotics, fit.model, moved))
        options = float(position @ options_worth(fit, rows, fit.model, growth))
        return bare, bare + options + found.spot * spot * growth

    up, down = worth(1 + size), worth(1 - size)
    bare, hedged = (a - b for a, b in zip(up, down, strict=True))
    assert abs(hedged) < 0.02 * abs(bare)


@pytest.mark.parametrize("target", ["quotes", "parameters"])
@pytest.mark.parametrize("n", [5, 9])
def test_as_many_instruments_as_parameters_leave_nothing(target, n: int, fit, exotics) -> None:
    rows = liquid_quotes(fit)
    chosen = rows[np.linspace(0, len(rows) - 1, n).astype(int)]
    found = neutralise(exotics, instruments=chosen, target=target)
    exposure = found.parameters
    assert (exposure["after"].abs() < 1e-8 * exposure["before"].abs()).all()
    assert found.left < 1e-8


def test_fewer_instruments_leave_the_least(fit, exotics) -> None:
    rows = [20, 56, 70]
    found = neutralise(exotics, instruments=rows)
    assert 0 < found.left < 1
    best = float(found.after.norm())
    moves = exotics.quote_jacobian * exotics.scale
    alone = [quote_sensitivities(fit, _option(fit, row)).gradient.gradient[0] @ moves for row in rows]
    position = torch.tensor(found.positions["position"].to_numpy())
    np.testing.assert_allclose(found.after, found.before + position @ torch.stack(alone), atol=1e-6)
    for i in range(3):
        for step in (-1e-3, 1e-3):
            assert float((found.after + step * alone[i]).norm()) > best


def _option(fit: Fit, row: int) -> European:
    q = fit.surface.quotes.iloc[row]
    return European(q["strike"], q["t"], "call" if q["option_type"] == "C" else "put")


def test_a_quoted_option_is_hedged_by_itself(fit) -> None:
    row = 56
    found = hedge(fit, _option(fit, row), instruments=[row])
    assert float(found.positions["position"].iloc[0]) == pytest.approx(-1, abs=1e-9)
    assert found.spot == pytest.approx(0, abs=1e-9)
    quote = fit.surface.quotes.iloc[row]
    assert found.cost == pytest.approx((quote["ask"] - quote["bid"]) / 2)
    assert float(found.positions["price"].iloc[0]) == pytest.approx(float(fit.quotes["model_price"].iloc[row]))


def test_cost_counts_as_much_as_asked(exotics) -> None:
    found = [neutralise(exotics, cost_weight=c) for c in (0.0, 1.0, 10.0, 1e6)]
    assert [h.left for h in found] == sorted(h.left for h in found)
    assert [h.cost for h in found] == sorted((h.cost for h in found), reverse=True)
    assert found[-1].left == pytest.approx(1, abs=1e-3)
    assert found[-1].cost < 1e-3 * found[0].cost


def test_liquid_quotes_are_the_tightest_of_their_bucket(fit) -> None:
    rows = liquid_quotes(fit, strike_buckets=(0.95, 1.05))
    q = fit.surface.quotes
    cell = list(zip(q["slice"], np.digitize(q["strike"] / q["forward"], [0.95, 1.05]), strict=True))
    spread = (q["iv_ask"] - q["iv_bid"]).to_numpy()
    assert len(rows) == len({cell[i] for i in rows}) == len(set(cell))
    for i in rows:
        assert spread[i] == min(s for s, c in zip(spread, cell, strict=True) if c == cell[i])


def test_quotes_without_spreads_have_no_cost_and_the_nearest_are_taken(fits) -> None:
    fit = fits["dax", "heston"]
    q = fit.surface.quotes
    rows = liquid_quotes(fit, strike_buckets=())
    distance = np.abs(np.log(q["strike"] / q["forward"])).to_numpy()
    assert [distance[i] for i in rows] == [distance[(q["slice"] == s).to_numpy()].min() for s in range(len(rows))]
    found = hedge(fit, European(4500.0, 1.0), instruments=rows)
    assert found.positions["cost"].isna().all()
    assert found.cost == 0
    assert found.left < 1e-6


def test_what_is_refused() -> None:
    surface = Surface.from_vols([0.5, 0.5, 1.0], [90.0, 110.0, 100.0], 0.2, 100.0, spot=100.0)
    found = quote_sensitivities(calibrate(BlackScholes(0.3), surface, weights="equal"), European(100.0, 1.0))
    for rows in ([], [3], [-1], [1, 1], [0.5], "all", 2):
        with pytest.raises(InputError, match="instruments"):
            neutralise(found, instruments=rows)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="target"):
        neutralise(found, target="vega")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cost_weight"):
        neutralise(found, cost_weight=-1.0)
