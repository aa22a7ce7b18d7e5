"""Monte Carlo with discrete dividends against Fourier prices and against paths simulated by hand."""

import math
from dataclasses import dataclass, field

import pytest
import torch

from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston
from qsde.noise import Threefry
from qsde.payoffs import Asian, Barrier, European, Flows, PathFunction, Paths, Payoff
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

HESTON = Heston(v0=0.06, kappa=2.0, theta=0.05, sigma=0.5, rho=-0.6)
VOL = 0.3
#: The second date pays both kinds.
DIVIDENDS = (
    CashDividend(0.25, 4.0),
    CashDividend(0.6, 5.0),
    ProportionalDividend(0.6, 0.03),
    ProportionalDividend(0.8, 0.02),
    CashDividend(1.5, 6.0),
)
MARKET = Market(100.0, 0.04, 0.01, DIVIDENDS)
ENGINE = MonteCarlo(n_paths=1 << 17, noise=Threefry(seed=7))


def fourier(option, model=HESTON, market=MARKET):
    forward, strike = market.effective(option.strike, option.expiry)
    discount = market.discount(option.expiry)
    return price_european(model, strike, option.expiry, forward, discount, option.kind == "call").value


def by_hand(t, seed, n=1 << 18, market=MARKET, last=None):
    """Black-Scholes prices [path, time] at `t`, date by date: the stock less the cash to come is what diffuses."""
    last = t[-1] if last is None else last
    generator = torch.Generator().manual_seed(seed)
    dividends = [d for d in market.dividends if d.time <= last]
    rate, dividend_yield = float(market.rate.rate), float(market.dividend_yield.rate)
    ex_dates = sorted({d.time for d in dividends})

    def on(date):
        cash = sum(d.amount for d in dividends if d.time == date and isinstance(d, CashDividend))
        kept = math.prod(1 - d.fraction for d in dividends if d.time == date and isinstance(d, ProportionalDividend))
        return cash, kept

    to_come, at = 0.0, last
    for date in [*ex_dates[::-1], 0.0]:
        to_come *= math.exp(-(rate - dividend_yield) * (at - date))
        at = date
        if date:
            cash, kept = on(date)
            to_come = to_come / kept + cash
    now, price_ = 0.0, torch.full((n,), float(market.spot), dtype=torch.float64)
    seen = []
    for date in sorted({*ex_dates, *t}):
        step = date - now
        growth = math.exp((rate - dividend_yield) * step)
        shock = torch.randn(n, generator=generator, dtype=torch.float64)
        diffusing = (price_ - to_come) * growth * torch.exp(VOL * math.sqrt(step) * shock - 0.5 * VOL**2 * step)
        price_, to_come, now = diffusing + to_come * growth, to_come * growth, date
        if date in ex_dates:
            cash, kept = on(date)
            price_, to_come = (price_ - cash) * kept, (to_come - cash) * kept
        if date in t:
            seen.append(price_)
    assert abs(to_come) < 1e-12
    return torch.stack(seen, -1)


def within(value, error, expected, expected_error=0.0, errors=3.0):
    gap, allowed = abs(value - expected), errors * math.hypot(float(error), float(expected_error))
    assert gap < allowed, f"{float(value)} against {float(expected)}: {float(gap)} > {allowed}"


def test_europeans_under_heston_equal_fourier():
    options = [European(k, t, kind) for k in (80.0, 100.0) for t in (0.2, 0.6, 1.0) for kind in ("call", "put")]
    found = price(HESTON, options, MARKET, ENGINE)
    for option, value, error in zip(options, found.value, found.std_error, strict=True):
        within(value, error, fourier(option))


def test_a_price_depends_neither_on_later_dividends_nor_on_its_neighbours():
    option, later = European(100.0, 0.6), European(90.0, 2.0)
    alone = price(BlackScholes(VOL), option, MARKET, ENGINE)
    without = Market(100.0, 0.04, 0.01, DIVIDENDS[:3])
    torch.testing.assert_close(alone.value, price(BlackScholes(VOL), option, without, ENGINE).value)
    within(alone.value, alone.std_error, fourier(option, BlackScholes(VOL)))
    beside = price(BlackScholes(VOL), [option, later], MARKET, ENGINE)
    within(beside.value[0], beside.std_error[0], fourier(option, BlackScholes(VOL)))
    within(beside.value[1], beside.std_error[1], fourier(later, BlackScholes(VOL)))


@pytest.mark.parametrize("model", [BlackScholes(VOL), HESTON], ids=lambda m: m.name)
def test_prices_are_forwards_on_average_also_on_ex_dates(model):
    dates = (0.1, 0.25, 0.6, 0.7, 0.8, 1.0)
    claims = [PathFunction(dates, lambda s, i=i: s[..., i]) for i in range(len(dates))]
    engine = MonteCarlo(n_paths=1 << 17, control_variate=False)
    found = price(model, claims, MARKET, engine)
    expected = MARKET.forward(dates) * MARKET.discount(1.0)
    for i in range(len(dates)):
        within(found.value[i], found.std_error[i], expected[i])


def test_the_discounted_total_return_is_a_martingale():
    """Dividends buy shares at the price just after the ex-date; the holding is worth the spot today."""

    def holding(s):
        after, end = s[..., :3], s[..., 3]
        cash = s.new_tensor([4.0, 5.0, 0.0])
        fraction = s.new_tensor([0.0, 0.03, 0.02])
        bought = (after / (1 - fraction) + cash) / after  # price before over price after
        return bought.prod(-1) * end

    claim = PathFunction((0.25, 0.6, 0.8, 1.0), holding)
    found = price(HESTON, claim, MARKET, MonteCarlo(n_paths=1 << 17, control_variate=False))
    reinvested_yield = math.exp(0.01)
    within(found.value * reinvested_yield, found.std_error * reinvested_yield, 100.0)


@pytest.mark.parametrize(
    "claim",
    [
        Asian(95.0, (0.2, 0.25, 0.3, 0.6, 0.9)),
        Asian(95.0, (0.1, 0.5, 0.7), kind="put"),
        Barrier(100.0, 88.0, 1.0, "down-and-out", monitoring=(0.24, 0.26, 0.5, 0.61, 1.0)),
        Barrier(100.0, 112.0, 0.8, "up-and-in", "put", monitoring=(0.25, 0.6)),
    ],
    ids=["asian on ex-dates", "asian", "barrier around ex-dates", "barrier on ex-dates"],
)
def test_path_dependent_claims_equal_paths_simulated_by_hand(claim):
    with torch.no_grad():
        found = price(BlackScholes(VOL), claim, MARKET, ENGINE)
    amounts = claim.flows(Paths(by_hand(claim.times, seed=11))).amounts[..., 0] * MARKET.discount(claim.maturity)
    within(found.value, found.std_error, amounts.mean(), amounts.std() / math.sqrt(len(amounts)))


def test_an_observation_on_an_ex_date_sees_the_price_after_the_dividend():
    """Just before, at the same time to nine digits, the price is higher by the cash and the fraction."""
    market = Market(100.0, dividends=[CashDividend(0.5, 10.0), ProportionalDividend(0.5, 0.1)])
    dates = (0.5 - 1e-6, 0.5)
    dropped = PathFunction(dates, lambda s: ((s[..., 0] - 10.0) * 0.9 - s[..., 1]).abs())
    assert float(price(BlackScholes(VOL), dropped, market, MonteCarlo(n_paths=1 << 10)).value) < 0.03  # vol of 30 s
    option = European(85.0, 0.5)
    found = price(BlackScholes(VOL), option, market, ENGINE)
    within(found.value, found.std_error, fourier(option, BlackScholes(VOL), market))


def test_gradients_equal_bumps_of_the_same_paths_and_fourier_gradients():
    def value(spot, cash, fraction, rate, pricer):
        dividends = [CashDividend(0.5, cash), ProportionalDividend(0.5, fraction), CashDividend(0.9, 2 * cash)]
        return pricer(Market(spot, rate, 0.01, dividends))

    option, asian = European(95.0, 1.0), Asian(95.0, (0.4, 0.5, 0.9))
    engine = MonteCarlo(n_paths=1 << 14, noise=Threefry(seed=3))
    at = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, 3.0, 0.05, 0.02)]
    found = torch.autograd.grad(value(*at, lambda m: price(HESTON, asian, m, engine).value), at)
    for i, h in enumerate((1e-3, 1e-3, 1e-5, 1e-5)):
        with torch.no_grad():
            up, down = (
                value(
                    *(x + s * h * (j == i) for j, x in enumerate(at)), lambda m: price(HESTON, asian, m, engine).value
                )
                for s in (1, -1)
            )
        assert abs((up - down) / (2 * h) - found[i]) < 2e-3 * abs(found[i])
    found = torch.autograd.grad(value(*at, lambda m: price(HESTON, option, m, engine).value), at)
    exact = torch.autograd.grad(value(*at, lambda m: fourier(option, HESTON, m)), at)
    torch.testing.assert_close(torch.stack(found), torch.stack(exact), rtol=0.02, atol=0.0)


def test_without_dividends_the_digits_stay():
    plain = Market(100.0, 0.04, 0.01)
    none = Market(100.0, 0.04, 0.01, [CashDividend(0.3, 0.0), ProportionalDividend(0.7, 0.0)])
    claim = PathFunction((0.5, 1.0), lambda s: torch.relu(s.mean(-1) - 100.0))
    a, b = (price(BlackScholes(VOL), claim, m, ENGINE).value for m in (plain, none))
    torch.testing.assert_close(a, b, rtol=1e-14, atol=0.0)


@dataclass(frozen=True)
class Watching(Payoff):
    """Pays nothing and keeps what it has seen of the first block."""

    seen: list = field(default_factory=list)
    times = (1.0,)
    window = (0.0, 1.0)

    def flows(self, paths: Paths) -> Flows:
        self.seen.append(paths)
        return Flows((1.0,), paths.prices[..., -1:] * 0)


def test_between_dates_the_price_is_seen_just_before_and_after_the_dividends():
    """The dividends of a watched stretch are dates of the grid, and on them the price drops."""
    watching = Watching()
    price(BlackScholes(VOL), watching, MARKET, MonteCarlo(n_paths=1 << 8))
    seen = watching.seen[0].watched
    assert {0.25, 0.6, 0.8} <= set(seen.times)
    after = seen.prices[..., 1:]
    expected = after.clone()
    for date, cash, fraction in ((0.25, 4.0, 0.0), (0.6, 5.0, 0.03), (0.8, 0.0, 0.02)):
        i = seen.times.index(date) - 1
        expected[..., i] = after[..., i] / (1 - fraction) + cash
    torch.testing.assert_close(seen.log_ends.exp(), expected)
    torch.testing.assert_close(seen.prices[..., -1:], watching.seen[0].prices)
