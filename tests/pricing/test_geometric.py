"""Geometric Asian, average-strike and forward-start prices: tables, closed forms, laws, gradients, refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import roots_genlaguerre
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.black import black_price
from qsde.market.curves import PillarCurve
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.underlying import Market
from qsde.models import BlackScholes, FourierModel, Heston, JumpDiffusion, KouJumps, bates, kou, merton
from qsde.payoffs import Asian, AverageStrike, ForwardStart
from qsde.pricing.fourier import Fourier, price_european
from qsde.pricing.geometric import (
    geometric_mean,
    price_continuous_geometric_asian,
    price_forward_start,
    price_geometric_asian,
    price_geometric_average_strike,
)
from qsde.pricing.montecarlo import MonteCarlo, price

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
HESTON = Heston(v0=0.04, kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)
MODELS = [
    BlackScholes(0.2),
    HESTON,
    Heston(v0=0.01, kappa=0.2, theta=0.02, sigma=1.5, rho=-0.95),
    Heston(v0=0.04, kappa=0.3, theta=0.04, sigma=1.2, rho=0.9),
    merton(0.1, 0.5, -0.1, 0.2),
    kou(0.16, 1.0, 0.4, 10.0, 5.0),
    bates(0.02, 1.5, 0.03, 0.4, -0.7, 0.1, -0.3, 0.25),
    JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)),
]
each = pytest.mark.parametrize("model", MODELS, ids=[f"{i}-{m.name}" for i, m in enumerate(MODELS)])
MARKET = Market(100.0, rate=0.03, dividend_yield=0.01)
STRIKES = torch.tensor([40.0, 80.0, 95.0, 100.0, 105.0, 130.0, 250.0], dtype=torch.float64)
FIXINGS = (0.25, 0.5, 0.6, 1.0)
#: Times to expiry of Kim, Kim, Kim and Wee, and equal intervals, where the table says days and weeks.
YEARS = {30: 1 / 12, 91: 0.25, 182: 0.5, 365: 1.0, 730: 2.0, 1095: 3.0}


def asian_heston(kind: str, source: str) -> pd.DataFrame:
    table = pd.read_csv(REFERENCE / "asian_heston.csv")
    return table[(table["kind"] == kind) & table["reference"].str.startswith(source)]


def heston(row: pd.Series) -> Heston:
    return Heston(*(float(row[name]) for name in ("v0", "kappa", "theta", "sigma", "rho")))


def market(row: pd.Series) -> Market:
    return Market(float(row["spot"]), float(row["r"]), float(row["q"]))


def test_discrete_heston_table() -> None:
    """Weekly fixings of Kim, Kim, Kim and Wee (2016), printed to four decimals."""
    table = asian_heston("geometric_discrete_weekly", "Kim-Kim")
    for _, row in table.iterrows():
        t, n = YEARS[int(row["days"])], int(row["days"]) // 7
        found = price_geometric_asian(heston(row), market(row), row["strike"], [t * i / n for i in range(1, n + 1)])
        assert float(found.value) == pytest.approx(row["call_price"], abs=6e-5), row.to_dict()
    assert len(table) == 18


def test_continuous_heston_table() -> None:
    """Kim and Wee (2011), printed to four decimals."""
    table = asian_heston("geometric_continuous", "Kim-Wee")
    for keys, rows in table.groupby(["days", "v0", "kappa", "theta", "sigma", "rho", "spot", "r", "q"]):
        row, t = rows.iloc[0], float(keys[0].split("T=")[1].rstrip(")"))
        strikes = torch.tensor(rows["strike"].to_numpy())
        found = price_continuous_geometric_asian(heston(row), market(row), strikes, t)
        assert found.value.tolist() == pytest.approx(rows["call_price"].tolist(), abs=6e-5)
        assert (found.error < 3e-6).all()
    assert len(table) == 30


def test_continuous_limits_of_the_discrete_table() -> None:
    """The paper cuts its series short and drifts off by up to 3e-4 at three years, where finer rules agree with us."""
    table = asian_heston("geometric_continuous", "Kim-Kim")
    for days, rows in table.groupby("days"):
        row, t = rows.iloc[0], YEARS[int(days)]
        strikes = torch.tensor(rows["strike"].astype(float).to_numpy())
        found = price_continuous_geometric_asian(heston(row), market(row), strikes, t)
        assert found.value.tolist() == pytest.approx(rows["call_price"].tolist(), abs=3e-4 if t >= 1 else 1e-4)
        if t == 3:
            finer = price_continuous_geometric_asian(heston(row), market(row), strikes, t, intervals=512)
            torch.testing.assert_close(found.value, finer.value, rtol=0, atol=1e-6)
    assert len(table) == 18


def test_black_scholes_table() -> None:
    table = pd.read_csv(REFERENCE / "asian_bsm_geometric.csv").set_index("kind")
    row = table.loc["discrete_geometric_avgprice"]
    found = price_geometric_asian(BlackScholes(0.2), market(row), 100.0, [i / 10 for i in range(1, 11)])
    assert float(found.value) == pytest.approx(row["price"], abs=row["tol"])
    row = table.loc["continuous_geometric_avgprice"]
    found = price_continuous_geometric_asian(BlackScholes(row["vol"]), market(row), row["strike"], row["T"], "put")
    assert float(found.value) == pytest.approx(row["price"], abs=row["tol"])


def test_average_strike_row_leaves_out_the_dividends_before_its_first_fixing() -> None:
    """The third row is QuantLib's own and `exp(q t_1)` too high: also with one fixing, where it is a forward start."""
    row = pd.read_csv(REFERENCE / "asian_bsm_geometric.csv").set_index("kind").loc["discrete_geometric_avgstrike"]
    fixings = [i / 10 for i in range(1, 11)]
    found = price_geometric_average_strike(BlackScholes(row["vol"]), market(row), fixings)
    assert float(found.value) == pytest.approx(
        lognormal(0.2, market(row), [0.1] * 10, fixings, 1.0, math.exp(-0.06), 1.0)
    )
    assert float(found.value) * math.exp(row["q"] * fixings[0]) == pytest.approx(row["price"], abs=row["tol"])


def lognormal(
    vol: float, m: Market, weights: list[float], times: list[float], strike: float, discount: float, over: float = 0.0
) -> float:
    """Call on `exp(sum w log S)`, or on `S_T - k` of it with `T = over`, by the normal law of the logarithms."""
    forward = [float(m.forward(t)) for t in times]
    weighted = list(zip(weights, times, strict=True))
    variance = vol**2 * sum(a * b * min(s, t) for a, s in weighted for b, t in weighted)
    mean = math.exp(
        sum(w * (math.log(f) - vol**2 * t / 2) for w, f, t in zip(weights, forward, times, strict=True)) + variance / 2
    )
    if not over:
        return discount * float(black_price(mean, strike, 1.0, math.sqrt(variance)))
    spread = variance + vol**2 * (over - 2 * sum(w * t for w, t in weighted))
    return discount * float(black_price(float(m.forward(over)), strike * mean, 1.0, math.sqrt(spread)))


CURVES = Market(
    100.0, PillarCurve([0.5, 2.0], [0.02, 0.05]), PillarCurve([1.0], [0.03]), [ProportionalDividend(0.55, 0.02)]
)


@pytest.mark.parametrize("m", [MARKET, CURVES], ids=["flat", "curves"])
def test_black_scholes_closed_forms(m: Market) -> None:
    weights, df = [0.1, 0.2, 0.3, 0.4], float(m.discount(1.5))
    for strike in (70.0, 100.0, 140.0):
        found = price_geometric_asian(BlackScholes(0.3), m, strike, FIXINGS, weights=weights, expiry=1.5)
        expected = lognormal(0.3, m, weights, list(FIXINGS), strike, df)
        assert float(found.value) == pytest.approx(expected, abs=1e-12)
    for ratio in (0.8, 1.0, 1.3):
        found = price_geometric_average_strike(
            BlackScholes(0.3), m, FIXINGS, moneyness=ratio, weights=weights, expiry=1.5
        )
        expected = lognormal(0.3, m, weights, list(FIXINGS), ratio, df, over=1.5)
        assert float(found.value) == pytest.approx(expected, abs=1e-12)


def test_kemna_and_vorst() -> None:
    """The continuous average of Black-Scholes: lognormal with a third of the variance (1990)."""
    vol, t = 0.3, 2.0
    mean = 100 * math.exp((0.02 - vol**2 / 6) * t / 2)
    for strike in (80.0, 100.0, 120.0):
        expected = float(black_price(mean, strike, t, vol / math.sqrt(3), math.exp(-0.03 * t)))
        found = price_continuous_geometric_asian(BlackScholes(vol), MARKET, strike, t)
        assert abs(float(found.value) - expected) <= float(found.error) < 1e-6


def test_continuous_average_follows_the_curves() -> None:
    fine = [i / 1000 for i in range(1, 1001)]
    weights = [*(1e-3 for _ in fine[:-1]), 0.5e-3]
    fixed = price_geometric_asian(HESTON, CURVES, 100.0, [0.0, *fine], weights=[0.5e-3, *weights])
    found = price_continuous_geometric_asian(HESTON, CURVES, 100.0, 1.0)
    assert float(found.value) == pytest.approx(float(fixed.value), abs=2e-3)  # the dividend falls between two dates


@each
def test_one_date_is_the_european_option(model: FourierModel) -> None:
    for kind in ("call", "put"):
        found = price_geometric_asian(model, MARKET, STRIKES, [1.0], kind)  # type: ignore[arg-type]
        expected = price_european(model, STRIKES, 1.0, MARKET.forward(1.0), MARKET.discount(1.0), kind == "call")
        torch.testing.assert_close(found.value, expected.value, rtol=1e-12, atol=1e-12)
    assert float(geometric_mean(model, MARKET, [1.0])) == pytest.approx(float(MARKET.forward(1.0)), rel=1e-13)


@each
def test_parity(model: FourierModel) -> None:
    """`call - put` is `D (E[G] - K)`, and `D (E[S_T] - k E[G])` for the average strike."""
    df, mean = MARKET.discount(1.0), geometric_mean(model, MARKET, FIXINGS)
    assert float(mean) < float(MARKET.forward(torch.tensor(FIXINGS)).mean())
    call, put = (price_geometric_asian(model, MARKET, STRIKES, FIXINGS, k).value for k in ("call", "put"))  # type: ignore[arg-type]
    torch.testing.assert_close(call - put, df * (mean - STRIKES), rtol=0, atol=1e-11)
    assert (call >= 0).all()
    assert (put >= 0).all()
    ratio = torch.tensor([0.7, 1.0, 1.4], dtype=torch.float64)
    call, put = (
        price_geometric_average_strike(model, MARKET, FIXINGS, k, moneyness=ratio).value
        for k in ("call", "put")  # type: ignore[arg-type]
    )
    torch.testing.assert_close(call - put, df * (MARKET.forward(1.0) - ratio * mean), rtol=0, atol=1e-11)


@each
def test_error_estimates_hold_with_more_nodes(model: FourierModel) -> None:
    fine = Fourier(nodes=1536)
    often = [i / 16 for i in range(1, 17)]
    for pricer in (
        lambda engine: price_geometric_asian(model, MARKET, STRIKES, often, engine=engine),
        lambda engine: price_geometric_average_strike(model, MARKET, often, moneyness=STRIKES / 100, engine=engine),
        lambda engine: price_forward_start(model, MARKET, 0.5, 1.0, STRIKES / 100, pays="return", engine=engine),
    ):
        usual, exact = pricer(None), pricer(fine)
        assert ((usual.value - exact.value).abs() <= 10 * (usual.error + exact.error) + 1e-13).all()
        assert (usual.error <= 1e-9).all()


@pytest.mark.parametrize(
    ("model", "start"), [*((m, 0.0) for m in MODELS), *((m, 0.25) for m in (MODELS[0], MODELS[4], MODELS[5]))]
)
def test_forward_start_of_independent_increments_is_an_option_today(model: FourierModel, start: float) -> None:
    """`(S_T - m S_t)^+` is worth `exp(-q t)` times the option over `T - t` today; for all models if it starts today."""
    ratio = torch.tensor([0.6, 0.9, 1.0, 1.2], dtype=torch.float64)
    found = price_forward_start(model, MARKET, start, start + 0.75, ratio)
    expected = price_european(model, 100 * ratio, 0.75, MARKET.forward(0.75), MARKET.discount(0.75)).value
    torch.testing.assert_close(found.value, expected * math.exp(-0.01 * start), rtol=1e-11, atol=1e-12)
    share = price_forward_start(model, MARKET, start, start + 0.75, ratio, pays="return")
    torch.testing.assert_close(share.value, expected / 100 * math.exp(-0.03 * start), rtol=1e-11, atol=1e-13)


def test_forward_start_under_heston_is_an_average_over_the_variance_at_the_start() -> None:
    """Far away the variance at the start is gamma, so a return option is a mixture of options of today."""
    m = Heston(v0=0.04, kappa=3.0, theta=0.06, sigma=0.5, rho=-0.7)
    shape, scale = float(2 * m.kappa * m.theta / m.sigma**2), float(m.sigma**2 / (2 * m.kappa))
    nodes, weights = (torch.from_numpy(x) for x in roots_genlaguerre(60, shape - 1))
    many = Heston(v0=nodes * scale, kappa=m.kappa, theta=m.theta, sigma=m.sigma, rho=m.rho)
    options = price_european(many.map(lambda p: p.expand(60)), 1.05, 0.5, MARKET.forward(0.5) / 100).value
    expected = (weights * options).sum() / weights.sum()
    found = price_forward_start(m, MARKET, 12.0, 12.5, 1.05, pays="return").value / MARKET.discount(12.5)
    assert float(found) == pytest.approx(float(expected), rel=1e-10)


@each
def test_average_strike_of_one_fixing_is_forward_start(model: FourierModel) -> None:
    start = price_forward_start(model, MARKET, 0.5, 1.5, 1.1, "put")
    average = price_geometric_average_strike(model, MARKET, [0.5], "put", moneyness=1.1, expiry=1.5)
    assert float(start.value) == pytest.approx(float(average.value), rel=1e-12)


@pytest.mark.parametrize("model", [HESTON, MODELS[6], MODELS[5]], ids=lambda m: m.name)
def test_simulation_agrees(model: FourierModel) -> None:
    engine = MonteCarlo(n_paths=1 << 15, max_dt=1 / 32, compile="never")
    past = [98.0, 103.0]
    payoffs = [
        Asian(105.0, FIXINGS, "put", average="geometric", past=past, expiry=1.25),
        AverageStrike(FIXINGS, average="geometric", expiry=1.25, past=past),
        ForwardStart(0.5, 1.0, 1.05),
        ForwardStart(0.5, 1.0, 0.95, "put", pays="return"),
    ]
    exact = [
        price_geometric_asian(model, MARKET, 105.0, FIXINGS, "put", past=past, expiry=1.25),
        price_geometric_average_strike(model, MARKET, FIXINGS, past=past, expiry=1.25),
        price_forward_start(model, MARKET, 0.5, 1.0, 1.05),
        price_forward_start(model, MARKET, 0.5, 1.0, 0.95, "put", pays="return"),
    ]
    found = price(model, payoffs, MARKET, engine)
    expected = torch.stack([e.value for e in exact])
    assert ((found.value - expected).abs() <= 3.5 * found.std_error + 2e-4 * expected).all()


def test_seasoned_average_is_a_power_of_the_rest() -> None:
    """All but one fixing made: `G = past^(2/3) S_T^(1/3)`, here by the closed form of Black-Scholes."""
    found = price_geometric_asian(BlackScholes(0.4), MARKET, 101.0, [0.5], past=[99.0, 108.0])
    third, t, vol = 1 / 3, 0.5, 0.4
    level = math.exp((math.log(99.0) + math.log(108.0) + math.log(float(MARKET.forward(t)))) / 3)
    mean = level * math.exp(-(vol**2) * t / 2 * (third - third**2))
    expected = black_price(mean, 101.0, t, vol * third, float(MARKET.discount(t)))
    assert float(found.value) == pytest.approx(float(expected), abs=1e-12)


def test_todays_fixing_counts_as_made() -> None:
    today = price_geometric_asian(HESTON, MARKET, 100.0, [0.0, *FIXINGS])
    past = price_geometric_asian(HESTON, MARKET, 100.0, FIXINGS, past=[100.0])
    assert float(today.value) == pytest.approx(float(past.value), rel=1e-13)


def test_far_strikes_keep_relative_precision() -> None:
    """Contours through saddle points need the strip of the joint transform; Black-Scholes has a closed form."""
    weights = [0.25] * 4
    for strike in (20.0, 300.0):
        kind = "call" if strike > 100 else "put"
        found = price_geometric_asian(BlackScholes(0.2), MARKET, strike, FIXINGS, kind)
        expected = lognormal(0.2, MARKET, weights, list(FIXINGS), strike, float(MARKET.discount(1.0)))
        if kind == "put":
            variance = 0.04 * sum(min(s, t) for s in FIXINGS for t in FIXINGS) / 16
            mean = float(geometric_mean(BlackScholes(0.2), MARKET, FIXINGS))
            expected = float(
                black_price(mean, strike, 1.0, math.sqrt(variance), float(MARKET.discount(1.0)), is_call=False)
            )
        assert float(found.value) == pytest.approx(expected, rel=1e-9, abs=0)
        assert float(found.value) < 1e-15


@settings(max_examples=15, deadline=None)
@given(
    v0=st.floats(1e-3, 1), kappa=st.floats(0.01, 10), theta=st.floats(1e-3, 1), sigma=st.floats(0, 3),
    rho=st.floats(-0.95, 0.95), t=st.floats(0.05, 5), n=st.integers(1, 12), distance=st.floats(-4, 4),
)  # fmt: skip
def test_error_estimates_are_honest(
    v0: float, kappa: float, theta: float, sigma: float, rho: float, t: float, n: int, distance: float
) -> None:
    """A run with 16 times the nodes agrees within the estimates, or the price is refused: never a wrong number."""
    model = Heston(v0, kappa, theta, round(sigma, 6), round(rho, 6))
    spread = math.sqrt(float(model.total_variance(torch.tensor(t, dtype=torch.float64))) / 3)
    fixings, ratio = [t * i / n for i in range(1, n + 1)], math.exp(max(-4.0, min(4.0, distance * spread)))
    try:
        pairs = [
            [
                price_geometric_asian(model, MARKET, 100 * ratio, fixings, engine=engine),
                price_geometric_average_strike(model, MARKET, fixings, moneyness=ratio, expiry=1.2 * t, engine=engine),
            ]
            for engine in (None, Fourier(nodes=1536))
        ]
    except NumericsError:
        return
    for usual, fine in zip(*pairs, strict=True):
        assert abs(float(usual.value - fine.value)) <= 10 * float(usual.error + fine.error) + 1e-12


def test_batches_of_parameters_and_strikes_are_the_loop() -> None:
    scale = torch.tensor([[0.7, 1.0, 1.3], [0.8, 1.1, 1.2]], dtype=torch.float64)
    many = MODELS[6].map(lambda p: p * scale)
    ratio = STRIKES / 100
    grids = (
        price_geometric_asian(many, MARKET, STRIKES, FIXINGS).value,
        price_geometric_average_strike(many, MARKET, FIXINGS, moneyness=ratio).value,
        price_forward_start(many, MARKET, 0.5, 1.0, ratio, pays="return").value,
    )
    assert geometric_mean(many, MARKET, FIXINGS).shape == (2, 3)
    assert price_geometric_asian(many, MARKET, 100.0, FIXINGS).value.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            one = MODELS[6].map(lambda p, i=i, j=j: p * scale[i, j])
            alone = (
                price_geometric_asian(one, MARKET, STRIKES, FIXINGS).value,
                price_geometric_average_strike(one, MARKET, FIXINGS, moneyness=ratio).value,
                price_forward_start(one, MARKET, 0.5, 1.0, ratio, pays="return").value,
            )
            for grid, row in zip(grids, alone, strict=True):
                torch.testing.assert_close(grid[i, j], row, rtol=1e-9, atol=1e-12)


@each
def test_gradients_equal_bumps(model: FourierModel) -> None:
    inputs = {**model.params, "strike": torch.tensor(97.0), "spot": torch.tensor(100.0), "rate": torch.tensor(0.03)}
    inputs = {name: x.double().clone().requires_grad_() for name, x in inputs.items()}

    def value(**x: Tensor) -> Tensor:
        m = model.with_params({name: x[name] for name in model.params})
        underlying = Market(x["spot"], x["rate"], 0.01)
        asian = price_geometric_asian(m, underlying, x["strike"], FIXINGS, past=[96.0])
        average = price_geometric_average_strike(m, underlying, FIXINGS, "put", moneyness=x["strike"] / 100)
        return asian.value + average.value

    gradient = dict(zip(inputs, torch.autograd.grad(value(**inputs), list(inputs.values())), strict=True))
    for name, x in inputs.items():
        step = 1e-5 * max(1e-2, abs(x.item()))
        with torch.no_grad():
            up, down = (value(**{**inputs, name: x + s}) for s in (step, -step))
        assert gradient[name].item() == pytest.approx(float(up - down) / (2 * step), rel=2e-5, abs=1e-6), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixings": []}, "empty"),
        ({"fixings": [0.5, 0.4]}, "must increase"),
        ({"fixings": [0.0]}, "expired"),
        ({"past": [-1.0]}, r"past\[\d\] must be positive"),
        ({"weights": [0.5]}, "one for each of the 4 fixings"),
        ({"weights": [0.5, 0.5, 0.5, 0.0]}, r"weights\[\d\] must be positive"),
        ({"expiry": 0.9}, "not before the last fixing"),
        ({"kind": "straddle"}, "kind must be"),
        ({"strike": -1.0}, "strike must be positive"),
        ({"market": Market(100.0, dividends=[CashDividend(0.55, 2.0)])}, "cash dividends between its dates"),
    ],
)
def test_bad_inputs_are_named(change: dict[str, object], message: str) -> None:
    usual: dict[str, object] = {"market": MARKET, "strike": 100.0, "fixings": FIXINGS}
    with pytest.raises(InputError, match=message):
        price_geometric_asian(HESTON, **{**usual, **change})  # type: ignore[arg-type]


def test_more_bad_inputs_are_named() -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        price_continuous_geometric_asian(HESTON, MARKET, 100.0, 1.0, intervals=6)
    with pytest.raises(InputError, match="'price' or 'return'"):
        price_forward_start(HESTON, MARKET, 0.5, 1.0, pays="shares")
    with pytest.raises(InputError, match="must increase"):
        price_forward_start(HESTON, MARKET, 1.0, 1.0)


def test_cash_dividends_before_and_after_the_fixings_are_fine() -> None:
    """Before, they lower the forwards; after the last look at the price, they do not matter."""
    paid = Market(100.0, 0.03, 0.01, [CashDividend(0.1, 2.0), CashDividend(1.1, 3.0)])
    lower = Market(100.0 - 2.0 * math.exp(-0.02 * 0.1), 0.03, 0.01)
    found, expected = (price_geometric_asian(HESTON, m, 100.0, FIXINGS).value for m in (paid, lower))
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
