"""Greeks: what they cost beside the price, and how exact they are beside bumping and revaluing.

- Cost: all first-order Greeks of a Heston book of 20 payoffs as one, theta among them, at most 4 times the price of
  the book; the price and six Greeks of an Asian by one backward sweep against seven prices with the same noise.
- Variance: delta and gamma of barriers, digitals and autocallables, the level from far to touching, against central
  differences of prices on the same plain paths (with control variates, without conditioning), at spots 0.1 % and 1 %
  apart from the middle. Ratios are of variance times seconds: how many times more time the bumps take for the same
  error. The floor of 10 is for 0.1 %; at 1 % bumps have less variance and more bias, in `bias` rows. Both sides ran
  with the same seeds; means are compared with Fourier (digitals) or with each other.
- Exactness: every Greek of a Heston European against Fourier, in standard errors and in percent at a million paths,
  by the scheme whose steps have the least bias; and what QE's have, of order one in the step, at vanna, where it shows.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from harness import Row, alternate, arguments, report

from qsde.greeks import greeks
from qsde.market.underlying import Market
from qsde.models import Heston
from qsde.noise import Threefry
from qsde.payoffs import Asian, Autocallable, Barrier, Cliquet, Digital, European, FixedLookback, Payoff, VarianceSwap
from qsde.pricing.fourier import Fourier
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.schemes import HestonNearExact, HestonQE

PARAMETERS = (0.04, 1.5, 0.04, 0.5, -0.7)
HESTON, MARKET = Heston(*PARAMETERS), Market(100.0, 0.03, 0.01)
MONTHS = [k / 12 for k in range(1, 13)]
QUARTERS = [k / 4 for k in range(1, 5)]
FIRST_ORDER = ("price", "delta", "vega", "theta", "rho", "dividend_rho", *(f"d_{name}" for name in HESTON.params))
SMOOTH: list[Payoff] = [
    *(European(k, t) for k in (90.0, 100.0, 110.0) for t in (0.5, 1.0)),
    *(European(k, 1.0, "put") for k in (80.0, 90.0)),
    *(Asian(k, MONTHS) for k in (90.0, 100.0, 110.0)),
    *(Barrier(100.0, b, 1.0, "up-and-out") for b in (125.0, 150.0)),
    *(Barrier(100.0, b, 1.0, "down-and-in", "put") for b in (70.0, 80.0)),
    *(FixedLookback(k, 1.0) for k in (100.0, 120.0)),
    Cliquet([0.0, *QUARTERS], local_floor=-0.05, local_cap=0.08, global_floor=0.0, notional=100.0),
    VarianceSwap(0.04, [0.0, *MONTHS], notional=100.0),
    Asian(100.0, QUARTERS, "put"),
]
MIXED: list[Payoff] = [
    *SMOOTH[:15],
    *(Digital(k, 1.0, cash=10.0) for k in (90.0, 110.0)),
    Barrier(100.0, 125.0, 1.0, "up-and-out", monitoring=MONTHS),
    *(Autocallable(QUARTERS, 100.0, 0.02, level, knock_in=0.7, notional=100.0) for level in (1.0, 1.1)),
]
#: Relative moves of the spot in bumps, and the one whose ratio has a floor.
MOVES, STRICT = (0.001, 0.01), 0.001


def cost_of_books(quick: bool, rounds: int) -> list[Row]:
    """All first-order Greeks of a book as one against 4 times its price."""
    engine = MonteCarlo(n_paths=1 << (12 if quick else 15), max_dt=1 / 32, compile="never")
    rows = []
    for title, book in (("continuous", SMOOTH), ("with jumping payoffs", MIXED)):
        both, alone = alternate(
            lambda b=book: greeks(HESTON, b, MARKET, engine, FIRST_ORDER, total=True),
            lambda b=book: price(HESTON, b, MARKET, engine),
            rounds,
        )
        figure = f"first-order Greeks of {len(book)} payoffs, {title}, vs 4 times the price"
        note = f"price alone {alone:.3g} s, ratio {both / alone:.2f}; {engine.n_paths} paths x 32 steps, float64, eager"
        rows.append(Row(figure, both, 4 * alone, 1.0, note=note))
    return rows


def cost_of_bumps(quick: bool, rounds: int) -> Row:
    """The price and six Greeks by one sweep against one price more for each."""
    engine = MonteCarlo(n_paths=20_000 if quick else 200_000, max_dt=1 / 50, compile="never", control_variate=False)
    quarters = Asian(100.0, [0.24, 0.5, 0.74, 1.0])
    start = [*PARAMETERS, 100.0]

    def value(x: list[float] | list[torch.Tensor]) -> torch.Tensor:
        return price(Heston(*x[:5]), quarters, Market(x[5], 0.03, 0.01), engine).value

    def sweep() -> list[float]:
        leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in start]
        return [float(g) for g in torch.autograd.grad(value(leaves), leaves)]

    def bumps() -> list[float]:
        middle, found = float(value(start)), []
        for i, x in enumerate(start):
            moved = [*start[:i], x * (1 + 1e-4), *start[i + 1 :]]
            found.append((float(value(moved)) - middle) / (1e-4 * x))
        return found

    ours, peer = alternate(sweep, bumps, rounds)
    names = ("v0", "kappa", "theta", "sigma", "rho", "spot")
    gaps = ", ".join(f"{n} {abs(a / b - 1):.1e}" for n, a, b in zip(names, sweep(), bumps(), strict=True))
    note = f"{engine.n_paths} paths x 50 steps; peer: seven prices on the same noise; relative gaps {gaps}"
    return Row("price + 6 Greeks of an Asian vs one-sided bumps", ours, peer, note=note)


@dataclass(frozen=True)
class Sampled:
    """Delta and gamma from several seeds [seeds, 2], and the seconds of one."""

    values: np.ndarray
    seconds: float

    @property
    def mean(self) -> np.ndarray:
        """Means [2]."""
        return self.values.mean(0)

    @property
    def variance(self) -> np.ndarray:
        """Variances of one seed [2]."""
        return self.values.var(0, ddof=1)

    @property
    def error(self) -> np.ndarray:
        """Standard errors of the means."""
        return np.sqrt(self.variance / len(self.values))


def sample(work: Callable[[int], tuple[float, float]], seeds: int) -> Sampled:
    runs, times = [], []
    for seed in range(1, seeds + 1):
        start = time.perf_counter()
        runs.append(work(seed))
        times.append(time.perf_counter() - start)
    return Sampled(np.array(runs), statistics.median(times))


def adjoint(payoff: Payoff, engine: MonteCarlo) -> Callable[[int], tuple[float, float]]:
    """Ours, by the method that suits the payoff."""

    def work(seed: int) -> tuple[float, float]:
        found = greeks(HESTON, payoff, MARKET, replace(engine, noise=Threefry(seed)), ("delta", "gamma"))
        return float(found["delta"]), float(found["gamma"])

    return work


def bump(payoff: Payoff, engine: MonteCarlo, move: float) -> Callable[[int], tuple[float, float]]:
    """Central differences on the same noise."""
    spot = float(MARKET.spot)
    h = spot * move

    def work(seed: int) -> tuple[float, float]:
        plain = replace(engine, noise=Threefry(seed), conditional=False)
        down, middle, up = (
            float(price(HESTON, payoff, replace(MARKET, spot=spot + x), plain).value) for x in (-h, 0, h)
        )
        return (up - down) / (2 * h), (up - 2 * middle + down) / h**2

    return work


def cases(quick: bool) -> dict[str, Payoff]:
    """Levels from far to touching."""
    levels = (125.0,) if quick else (150.0, 125.0, 102.0)
    out: dict[str, Payoff] = {}
    for b in levels:
        out[f"barrier {b:g}, monthly"] = Barrier(100.0, b, 1.0, "up-and-out", monitoring=MONTHS)
    for b in levels:
        out[f"barrier {b:g}, continuous"] = Barrier(100.0, b, 1.0, "up-and-out")
    for k in levels:
        out[f"digital {k:g}"] = Digital(k, 1.0, cash=100.0)
    for b in levels:
        out[f"autocallable {b:g}"] = Autocallable(QUARTERS, 100.0, 0.02, b / 100, knock_in=0.7, notional=100.0)
    return out


def variances(quick: bool) -> list[Row]:
    """Ratios of variance times seconds, and the distances of the means."""
    engine = MonteCarlo(n_paths=1 << (11 if quick else 14), max_dt=1 / 32, compile="never")
    seeds = 4 if quick else 16  # derivatives of watched barriers by bumps have heavy tails: fewer say little of them
    rows = []
    for name, payoff in cases(quick).items():
        mine = sample(adjoint(payoff, engine), seeds)
        theirs = {move: sample(bump(payoff, engine, move), seeds) for move in MOVES}
        target, target_error, against = reference(payoff, theirs[MOVES[-1]])
        for i, greek in enumerate(("delta", "gamma")):
            for move, found in theirs.items():
                x, y = (float(s.variance[i]) * s.seconds for s in (mine, found))
                note = f"{mine.seconds:.3g} s and {found.seconds:.3g} s for one; {seeds} seeds"
                floor = 10.0 if move == STRICT else None
                figure = f"{greek}, {name}, variance x seconds, bump {move:.1%}"
                rows.append(Row(figure, x, y, floor, "", note=note))
            error = math.hypot(mine.error[i], target_error[i])
            gap = abs(float(mine.mean[i] - target[i])) / error
            note = f"{mine.mean[i]:.4g} +- {mine.error[i]:.2g}, {against} {target[i]:.4g} +- {target_error[i]:.2g}"
            rows.append(Row(f"{greek}, {name}, bias", gap, 4.0, 1.0, "se", note=note))
    return rows


def reference(payoff: Payoff, bumped: Sampled) -> tuple[np.ndarray, np.ndarray, str]:
    """Fourier for digitals; else the wider bump, whose errors are smaller."""
    if not isinstance(payoff, Digital):
        return bumped.mean, bumped.error, "bump"
    found = greeks(HESTON, payoff, MARKET, Fourier(), ("delta", "gamma"))
    return np.array([float(found["delta"]), float(found["gamma"])]), np.zeros(2), "Fourier"


def exactness(quick: bool) -> list[Row]:
    """Every Greek of a European against Fourier."""
    paths = 1 << (15 if quick else 20)
    engine = MonteCarlo(n_paths=paths, max_dt=1 / 16, scheme=HestonNearExact(), compile="never")
    payoff = European(100.0, 1.0)
    found, exact = (greeks(HESTON, payoff, MARKET, e) for e in (engine, Fourier()))
    names = [g.name for g in found.greeks]
    miss = ((found.value - exact.value).abs() / found.std_error)[0]
    share = 100 * (found.std_error / exact.value.abs())[0] * math.sqrt(paths / 1e6)
    listed = ", ".join(f"{n} {z:.1f} se, {s:.2f} %" for n, z, s in zip(names, miss, share, strict=True))
    rows = []
    for title, chosen in (("Greeks", [not n.startswith("d_") for n in names]),
                          ("parameters", [n.startswith("d_") for n in names])):  # fmt: skip
        i, j = (int(torch.where(torch.tensor(chosen), x, -1.0).argmax()) for x in (miss, share))
        rows.append(Row(f"{title} of a European, {paths} paths, worst: {names[i]}", float(miss[i]), 3.0, 1.0, "se"))
        figure = f"{title} of a European, error at a million paths, widest: {names[j]}"
        rows.append(Row(figure, float(share[j]), 0.5, 1.0, "%", note=f"in {found.seconds:.1f} s: {listed}"))
    return rows


def step_bias(quick: bool) -> list[Row]:
    """Vanna of the same European by QE, what it misses of Fourier at halved steps."""
    payoff, paths = European(100.0, 1.0), 1 << (14 if quick else 18)
    exact = float(greeks(HESTON, payoff, MARKET, Fourier(), ["vanna"])["vanna"])
    rows = []
    for steps in (4, 8, 16):
        engine = MonteCarlo(n_paths=paths, max_dt=1 / steps, scheme=HestonQE(), compile="never")
        found = greeks(HESTON, payoff, MARKET, engine, ["vanna"])
        miss, error = (100 * float(x) / abs(exact) for x in (found["vanna"] - exact, found.error("vanna")))
        rows.append(
            Row(f"vanna of a European by QE, {steps} steps, bias", miss, None, unit="%", note=f"+- {error:.2g} %")
        )
    return rows


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    rounds = 3 if options.quick else 5
    rows = [
        *cost_of_books(options.quick, rounds),
        cost_of_bumps(options.quick, 2),
        *exactness(options.quick),
        *step_bias(options.quick),
        *variances(options.quick),
    ]
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
