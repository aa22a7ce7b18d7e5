"""Residuals and Jacobian of a calibration: vols from any guess, derivatives against bumps, padding without effect."""

import numpy as np
import pytest
import torch
from torch import Tensor

from qsde.calibration import Feller, Prior
from qsde.calibration.objective import FAR, PRICE_FLOOR, VOL_FLOOR, Data, Objective, black, quote_weights, total_vol
from qsde.calibration.space import Space
from qsde.errors import InputError
from qsde.market.implied_vol import implied_vol
from qsde.market.surface import Surface
from qsde.models import Heston
from qsde.pricing.fourier import model_vols, price_european
from qsde.spec import MODEL_TEMPLATES, template

PENALTIES = (Feller(), Prior({"rho": -0.2, "v0": 0.1}, {"rho": 0.3, "v0": 0.02}))


def grid(*sizes: np.ndarray) -> list[Tensor]:
    return [torch.tensor(x).flatten() for x in np.meshgrid(*sizes, indexing="ij")]


def objective(model: str, surface: Surface, penalties: tuple = (), in_vol: bool = True) -> Objective:
    data = Data.of([surface], "equal")
    return Objective(data, Space.of(template(model), None, ()), penalties, in_vol, 256)


def test_total_vol_from_any_guess() -> None:
    size = 10 ** np.linspace(-2.5, 0.5, 31)
    k, s, guess = grid(np.linspace(0, 2, 41), size, size[::3])
    price = black(k, s) + PRICE_FLOOR
    found, vega = total_vol(price, k, guess)
    forward = torch.exp(-0.5 * k)
    exact = implied_vol(price, forward, torch.exp(0.5 * k), 1.0, 1.0, True)
    assert exact.ok.all()
    torch.testing.assert_close(found, exact.vol, rtol=1e-8, atol=0)
    again, _ = total_vol(price, -k, guess)
    torch.testing.assert_close(again, found, rtol=0, atol=0)
    bump = 1e-6 * s
    slope = (black(k, found + bump) - black(k, found - bump)) / (2 * bump)
    well = slope > 1e-6
    torch.testing.assert_close(vega[well], slope[well], rtol=1e-4, atol=0)


@pytest.mark.parametrize("price", [-1.0, 0.0, 1e-300, 0.9999999, 5.0, torch.inf])
def test_impossible_prices_give_finite_vols(price: float) -> None:
    k, guess = grid(np.linspace(-2, 2, 9), np.array([0.01, 0.3, 3.0]))
    vol, vega = total_vol(torch.full_like(k, price), k, guess)
    assert torch.isfinite(vol).all()
    assert (vol > 0).all()
    assert (vega > 0).all()


@pytest.mark.parametrize("model", ["black_scholes", "heston", "merton", "kou", "bates", "heston_kou"])
@pytest.mark.parametrize("in_vol", [True, False])
def test_jacobian_equals_finite_differences(model: str, in_vol: bool, model_surface) -> None:
    penalties = PENALTIES if "heston" in model or model == "bates" else ()
    o = objective(model, model_surface(Heston.typical(), strikes=7), penalties, in_vol)
    x = o.space.to_unknowns(o.space.starts(3, o.data.levels, seed=5))
    rows = torch.arange(1)
    r, jacobian = o.residuals(x, rows)
    assert r.shape == (1, 3, 35 + 3 * bool(penalties))
    h = 1e-3

    def rise(bump: Tensor) -> Tensor:
        return o.residuals(x + bump, rows)[0] - o.residuals(x - bump, rows)[0]

    for i in range(x.shape[-1]):
        bump = torch.zeros(x.shape[-1], dtype=torch.float64)
        bump[i] = h
        slope = (8 * rise(bump) - rise(2 * bump)) / (12 * h)
        scale = jacobian.abs().amax()
        torch.testing.assert_close(jacobian[..., i], slope, rtol=1e-5, atol=1e-6 * float(scale))


def test_fixed_parameters_have_no_column(dax) -> None:
    data = Data.of([dax], "equal")
    every = Objective(data, Space.of(template("bates"), None, ()), (), True, 128)
    some = Objective(data, Space.of(template("bates"), None, ("kappa", "jump_std")), (), True, 128)
    p = torch.stack([every.space.model.params[n] for n in every.space.free])[None, None]
    kept = [every.space.free.index(n) for n in some.space.free]
    rows = torch.arange(1)
    _, full = every.prices(p, rows)
    _, part = some.prices(p[..., kept], rows)
    torch.testing.assert_close(part, full[..., kept])


@pytest.mark.parametrize("name", list(MODEL_TEMPLATES))
def test_prices_and_vols_agree_with_the_exact_ones(name: str, model_surface) -> None:
    model = template(name)
    surface = model_surface(model)
    o = objective(name, surface)
    p = torch.stack(list(model.params.values()))[None, None]
    price, _ = o.prices(p, torch.arange(1))
    k, t = o.data.k[0], o.data.t[0]
    exact = price_european(model, torch.exp(k), t, 1.0, 1.0, k >= 0).value / torch.exp(0.5 * k)
    torch.testing.assert_close(price[0, 0], exact, rtol=0, atol=1e-11)
    vol, _, vega = o.vols(p)
    floor = PRICE_FLOOR / vega
    assert ((vol[0, 0] - model_vols(model, t, torch.exp(k), 1.0)).abs() <= 1.1 * floor[0, 0] + 1e-9).all()
    gap = o.quadrature_gap(price[:, 0], model_vols(model, t, torch.exp(k), 1.0).unsqueeze(0), vega.squeeze(1))
    assert float(gap) < 1e-8


def test_residuals_vanish_at_the_truth(model_surface) -> None:
    model = template("heston_kou")
    for in_vol in (True, False):
        o = objective("heston_kou", model_surface(model), in_vol=in_vol)
        x = o.space.to_unknowns(torch.stack(list(model.params.values())))[None, None]
        r, _ = o.residuals(x, torch.arange(1))
        assert float(r.abs().max()) < 1e-9


def test_padding_and_neighbours_have_no_effect(model_surface, dax) -> None:
    surfaces = [
        model_surface(Heston.typical(), times=(0.5,), strikes=3),
        dax,
        model_surface(Heston.typical(), times=(0.1, 1.0, 3.0), strikes=21),
    ]
    space = Space.of(Heston.typical(), None, ())
    data = Data.of(surfaces, "equal")
    assert (data.weight.flatten(1) > 0).sum(1).tolist() == [3, 104, 63]
    x = space.to_unknowns(space.starts(4, data.levels, seed=1))
    together, _ = Objective(data, space, PENALTIES, True, 128).residuals(x, torch.arange(3))
    for i, surface in enumerate(surfaces):
        single = Data.of([surface], "equal")
        alone, _ = Objective(single, space, PENALTIES, True, 128).residuals(x[i : i + 1], torch.arange(1))
        torch.testing.assert_close((together[i] ** 2).sum(-1), (alone[0] ** 2).sum(-1), rtol=1e-9, atol=0)
        some, _ = Objective(data, space, PENALTIES, True, 128).residuals(x[i : i + 1], torch.tensor([i]))
        torch.testing.assert_close(some[0], together[i], rtol=1e-9, atol=1e-14)


def test_weights(model_surface) -> None:
    surface = model_surface(Heston.typical(), half_spread=0.004)
    q = surface.quotes.copy()
    np.testing.assert_allclose(quote_weights(q, "equal"), 1.0)
    q.loc[3, "iv_ask"] += 0.02
    q.loc[5, ["iv_bid", "iv_ask"]] = np.nan  # one price only: as the widest
    spread = quote_weights(q, "spread")
    assert np.mean(spread**2) == pytest.approx(1.0)
    expected = np.hypot(0.014, VOL_FLOOR) / np.hypot(0.004, VOL_FLOOR)
    np.testing.assert_allclose(spread[0] / spread[[3, 5]], expected)
    own = quote_weights(q, lambda frame: (frame["strike"] > 100).to_numpy())
    assert set(np.flatnonzero(own)) == set(np.flatnonzero(q["strike"] > 100))
    assert np.mean(own**2) == pytest.approx(1.0)
    np.testing.assert_allclose(quote_weights(q.assign(iv_bid=np.nan, iv_ask=np.nan), "spread"), 1.0)


@pytest.mark.parametrize(
    "bad", [lambda q: -np.ones(len(q)), lambda q: np.zeros(len(q)), lambda q: np.full(len(q), np.nan), lambda q: [1.0]]
)
def test_bad_weights_are_refused(bad, model_surface) -> None:
    with pytest.raises(InputError, match="65 finite numbers >= 0, not all zero"):
        quote_weights(model_surface(Heston.typical()).quotes, bad)


def test_unknown_weights_are_refused(dax) -> None:
    with pytest.raises(InputError, match="must be 'spread', 'equal' or a function"):
        quote_weights(dax.quotes, "vega")


def test_far_quotes_have_no_weight() -> None:
    strike = 100 * np.exp(0.2 * np.sqrt(0.1) * np.array([-FAR - 1, -FAR + 1, 0.0, 2.0]))
    data = Data.of([Surface.from_vols(0.1, strike, [9.0, 9.0, 0.2, 0.2], 100.0)], "equal")
    assert (data.weight > 0).flatten().tolist() == [False, True, True, True]
