import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qsde.errors import InputError
from qsde.market.black import black_price
from qsde.market.curves import PillarCurve
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.underlying import Market
from qsde.models import Heston
from qsde.pricing.fourier import price_european

REFERENCE = Path(__file__).parents[1] / "reference"
DAY = 1 / 365
RATE = PillarCurve([0.5, 1.0, 3.0], [0.01, 0.03, 0.04])
YIELD = PillarCurve([1.0, 2.0], [0.02, 0.005])
HESTON = Heston(v0=0.09, kappa=2.0, theta=0.09, sigma=0.5, rho=-0.6)
#: Cash, proportional and both on one day, given out of order.
MIXED = (
    ProportionalDividend(500 * DAY, 0.02),
    CashDividend(90 * DAY, 2.0),
    ProportionalDividend(200 * DAY, 0.05),
    CashDividend(200 * DAY, 3.0),
    CashDividend(700 * DAY, 4.0),
    ProportionalDividend(90 * DAY, 0.0),
)


def mixed(dividends=MIXED, spot=100.0):
    return Market(spot, RATE, YIELD, dividends)


def on(day, dividends):
    """Cash amount and fraction of one day."""
    today = [d for d in dividends if round(d.time / DAY) == day]
    cash = sum(d.amount for d in today if isinstance(d, CashDividend))
    kept = 1.0
    for d in today:
        kept *= 1 - d.fraction if isinstance(d, ProportionalDividend) else 1.0
    return cash, kept


def day_by_day(spot, dividends, n):
    """Forward, and value of the cash to come, after the dividends of each day: one grows day by day, one shrinks."""
    t = torch.arange(n + 1, dtype=torch.float64) * DAY
    growth = (YIELD.discount(t) / RATE.discount(t)).tolist()
    forward = [spot]
    for day in range(1, n + 1):
        cash, kept = on(day, dividends)
        forward.append((forward[-1] * growth[day] / growth[day - 1] - cash) * kept)
    to_come = [0.0] * (n + 1)
    for day in range(n, 0, -1):
        cash, kept = on(day, dividends)
        to_come[day - 1] = (to_come[day] / kept + cash) * growth[day - 1] / growth[day]
    return t, torch.tensor(forward, dtype=torch.float64), torch.tensor(to_come, dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def test_forward_and_shift_are_those_of_a_simulation_day_by_day():
    t, forward, to_come = day_by_day(100.0, MIXED, 800)
    market = mixed()
    scale, shift = market.affine(t)
    close(market.forward(t), forward)
    close(shift, to_come)
    close(scale, forward - to_come)


@given(
    st.lists(
        st.one_of(
            st.builds(lambda day, c: CashDividend(day * DAY, c), st.integers(1, 60), st.floats(0.0, 5.0)),
            st.builds(lambda day, d: ProportionalDividend(day * DAY, d), st.integers(1, 60), st.floats(0.0, 0.3)),
        ),
        max_size=6,
    )
)
def test_any_schedule_follows_the_recursion(dividends):
    t, forward, to_come = day_by_day(1000.0, dividends, 60)
    scale, shift = mixed(dividends, spot=1000.0).affine(t)
    close(scale + shift, forward, 1e-11)
    close(shift, to_come, 1e-9)


@pytest.mark.parametrize("x", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize("day", [90, 200, 500, 700])
def test_every_path_drops_by_the_cash_and_then_by_the_fraction(x, day):
    market, growing = mixed(), torch.exp(torch.tensor(x).double())
    cash, kept = on(day, MIXED)
    scale, shift = market.affine(day * DAY)
    scale_before, shift_before = market.affine(day * DAY, before=True)
    close(scale * growing + shift, (scale_before * growing + shift_before - cash) * kept)
    just = market.affine(day * DAY - 1e-7)
    torch.testing.assert_close(just, (scale_before, shift_before), rtol=1e-7, atol=0)


def test_before_is_the_same_off_the_ex_dates():
    t = torch.tensor([0.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    assert torch.equal(torch.stack(mixed().affine(t)), torch.stack(mixed().affine(t, before=True)))


def test_without_dividends_nothing_changes():
    t = torch.tensor([0.0, 0.3, 1.7], dtype=torch.float64)
    for rate, dividend_yield in ((0.03, 0.01), (RATE, YIELD)):
        market = Market(100.0, rate, dividend_yield)
        as_before = market.spot * market.dividend_yield.discount(t) / market.rate.discount(t)
        assert torch.equal(market.forward(t), as_before)
        scale, shift = market.affine(t)
        assert torch.equal(scale, as_before)
        assert torch.equal(shift, torch.zeros(3, dtype=torch.float64))
        assert market.forward(1.0).shape == ()
        assert not market.has_cash
        assert market.dividend_times == ()


def test_what_the_engine_asks():
    market = mixed()
    assert market.has_cash
    assert market.dividend_times == pytest.approx([90 * DAY, 200 * DAY, 500 * DAY, 700 * DAY])
    assert not Market(1.0, dividends=[ProportionalDividend(1.0, 0.1)]).has_cash
    t = torch.ones(2, 3, dtype=torch.float64)
    assert [x.shape for x in market.affine(t)] == [(2, 3), (2, 3)]
    assert [x.shape for x in market.affine(1.0)] == [(), ()]


def test_proportional_dividends_alone_do_not_shift():
    market = Market(100.0, 0.02, dividends=[ProportionalDividend(0.5, 0.1), ProportionalDividend(1.0, 0.2)])
    scale, shift = market.affine([0.4, 0.5, 1.0])
    assert shift.tolist() == [0.0, 0.0, 0.0]
    close(scale * market.discount([0.4, 0.5, 1.0]), [100.0, 90.0, 72.0])


@pytest.mark.parametrize("horizon", [0.1, 90 * DAY, 1.0, 500 * DAY, 5.0])
def test_a_horizon_leaves_out_what_comes_after(horizon):
    t = torch.linspace(0, 3, 50, dtype=torch.float64)
    kept = [d for d in MIXED if d.time <= horizon]
    for before in (False, True):
        torch.testing.assert_close(
            mixed().affine(t, before, horizon), mixed(kept).affine(t, before), rtol=1e-14, atol=1e-14
        )


def test_at_its_own_horizon_the_price_is_the_forward_times_the_martingale():
    t = torch.tensor([90 * DAY, 1.0, 700 * DAY], dtype=torch.float64)
    scale, shift = mixed().affine(t, horizon=t)
    close(scale, mixed().forward(t))
    assert shift.tolist() == [0.0, 0.0, 0.0]
    forward, strike = mixed().effective(90.0, t)
    close(forward, mixed().forward(t))
    assert strike.tolist() == [90.0, 90.0, 90.0]


def test_put_call_parity_with_dividends():
    t = torch.tensor([[0.2], [1.0], [1.9]], dtype=torch.float64)
    strikes = torch.tensor([0.5, 60.0, 95.0, 180.0], dtype=torch.float64)
    market = mixed()
    for horizon in (None, math.inf, 1.5):
        forward, strike = market.effective(strikes, t, horizon)
        call, put = (black_price(forward, strike, t, 0.3, market.discount(t), kind) for kind in (True, False))
        close(call - put, market.discount(t) * (market.forward(t) - strikes), 1e-10)


def test_the_same_payment_costs_the_same_on_both_sides_of_an_ex_date():
    """One process: a call just before a cash dividend and one with the strike lowered by it just after."""
    market = Market(100.0, 0.05, dividends=[CashDividend(1.0, 8.0), CashDividend(2.0, 8.0)])
    before = market.effective(100.0, 1.0 - 1e-8, math.inf)
    after = market.effective(92.0, 1.0, math.inf)
    close(black_price(*before, 1.0, 0.3), black_price(*after, 1.0, 0.3), 1e-6)


def test_a_strike_below_the_dividends_to_come_is_always_exercised():
    market = Market(100.0, 0.02, dividends=[CashDividend(2.0, 50.0)])
    shift = float(market.affine(1.0)[1])
    strikes = torch.tensor([1.0, 30.0, shift, 48.999, 49.1], dtype=torch.float64)
    forward, strike = market.effective(strikes, 1.0, math.inf)
    intrinsic = market.forward(1.0) - strikes
    assert (strike > 0).all()
    one = torch.ones(5, dtype=torch.float64)
    close(forward - strike, intrinsic)
    for call, put in (
        [black_price(forward, strike, 1.0, 0.4, is_call=kind) for kind in (True, False)],
        [price_european(HESTON, strike[:, None], one, forward, 1.0, kind).value[:, 0] for kind in (True, False)],
    ):
        close(call[:3], intrinsic[:3], 1e-7)
        close(put[:3], [0.0, 0.0, 0.0], 1e-7)


def test_a_strike_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="strike must be positive and finite"):
        mixed().effective([100.0, 0.0], 1.0)


def test_benchop_proportional_dividend():
    for _, row in pd.read_csv(REFERENCE / "benchop_dividend.csv").iterrows():
        market = Market(row["spot"], row["r"], dividends=[ProportionalDividend(row["dividend_time"], row["fraction"])])
        forward, strike = market.effective(row["strike"], row["t"])
        price = black_price(forward, strike, row["t"], row["vol"], market.discount(row["t"]))
        assert abs(price - row["call"]) < 1e-8


def test_quantlib_escrowed_dividends():
    """Prices and deltas; QuantLib counts the dividends up to and including the day of expiry."""
    table = pd.read_csv(
        REFERENCE / "cash_dividends_quantlib144.csv", dtype={"dividend_days": str, "dividend_amounts": str}
    )
    for _, row in table.iterrows():
        days, amounts = row["dividend_days"].split(), row["dividend_amounts"].split()
        dividends = [CashDividend(int(d) / 365, float(c)) for d, c in zip(days, amounts, strict=True)]
        spot = torch.tensor(row["spot"], dtype=torch.float64, requires_grad=True)
        t = row["expiry_days"] / 365
        market = Market(spot, row["r"], row["q"], dividends)
        forward, strike = market.effective(row["strike"], t)
        price = black_price(forward, strike, t, row["vol"], market.discount(t), row["type"] == "Call")
        assert abs(price - row["price"]) < 1e-10, row["case"]
        assert abs(torch.autograd.grad(price, spot)[0] - row["delta"]) < 1e-10, row["case"]


def test_gradients_reach_everything():
    def values(spot, rates, dividend_yield, cash, fraction):
        dividends = [CashDividend(0.5, cash), ProportionalDividend(0.5, fraction), CashDividend(1.5, 2 * cash)]
        market = Market(spot, PillarCurve([1.0, 2.0], rates), dividend_yield, dividends)
        return (
            *market.affine([0.2, 0.5, 1.0, 2.0]),
            market.forward([0.2, 2.0]),
            *market.effective([3.0, 90.0], 1.0, 2.0),
        )

    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, [0.02, 0.03], 0.01, 4.0, 0.1)]
    assert torch.autograd.gradcheck(values, inputs)
    assert torch.autograd.gradgradcheck(values, inputs)


def test_a_market_can_be_made_inside_torch_func():
    spots = torch.tensor([90.0, 100.0], dtype=torch.float64)
    rates = torch.tensor([0.01, 0.05], dtype=torch.float64)

    def forward(spot, rate):
        return Market(spot, rate, 0.5 * rate, [CashDividend(0.5, spot / 50), ProportionalDividend(0.5, rate)]).forward(
            1.0
        )

    each = torch.stack([forward(s, r) for s, r in zip(spots, rates, strict=True)])
    close(torch.func.vmap(forward)(spots, rates), each)
    close(torch.func.vmap(lambda s: Market(s, 0.01).forward(1.0))(spots), Market(1.0, 0.01).forward(1.0) * spots)
    delta = torch.func.grad(forward)(spots[0], rates[0])
    close(delta, each[0] / spots[0])
    close(torch.func.jvp(lambda s: forward(s, rates[0]), (spots[0],), (spots[0],))[1], each[0])
    close(torch.func.vmap(torch.func.grad(forward))(spots, rates), each / spots)

    def curved(rate):
        return Market(100.0, PillarCurve([1.0, 2.0], torch.stack([rate, 2 * rate])), 0.0, MIXED).affine(1.0)[1]

    close(torch.func.vmap(curved)(rates), torch.stack([curved(r) for r in rates]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Market(0.0), "spot must be one positive finite number, got 0.0"),
        (lambda: Market(torch.ones(2)), "spot must be one positive"),
        (lambda: Market(float("nan")), "spot must be one positive"),
        (lambda: Market(100.0, dividends=[2.0]), r"dividends\[0\] must be a CashDividend .* got float"),
        (
            lambda: Market(10.0, dividends=[CashDividend(1.0, 6.0), CashDividend(2.0, 4.0)]),
            "worth 10 today.*spot is 10",
        ),
        (
            lambda: Market(10.0, dividends=[ProportionalDividend(0.5, 0.5), CashDividend(1.0, 6.0)]),
            "worth 12 today.*leave out the far ones",
        ),
    ],
)
def test_bad_markets_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
