"""Root-mean-square error against seconds, ours and QuantLib's Monte Carlo engines, with a plot.

Each contract is priced at several path counts with many seeds, ours and QuantLib in turn, on the same steps: 36 of ten
days under Heston (quadratic-exponential, both), one under Black-Scholes, where both are exact, twelve exercise dates of
the Bermudan put. Errors are against Fourier prices, closed forms, a finite-difference grid or a run of ours on 2^21
paths, so they contain the bias of steps and policies; the bias seen at the most paths is in the notes. The time to an
error of 1 bp of the spot is on the line `error = c n^-1/2` through all counts (Sobol points: `c n^-p`) and the times
between neighbouring counts; notes say where it lies outside the counts that were run. "Best" is the quickest way that
was run, for 1 bp and for 0.1 bp: few paths of ours cost as much as none. QuantLib runs on one thread, its control
variates and antithetic paths count, its Sobol points do not, as a seed does not change them.
`--plot FILE` draws all lines (needs matplotlib).
"""

from __future__ import annotations

import importlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, parser, report

from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, Model
from qsde.noise import Noise, Sobol, Threefry
from qsde.payoffs import Asian, Barrier, Bermudan, European, Payoff
from qsde.pricing.american import LeastSquares, price_early
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

Pricer = Callable[[int, int], float]  # paths, seed

MODEL = (0.04, 1.5, 0.04, 0.5, -0.7)
HESTON, BLACK_SCHOLES = Heston(*MODEL), BlackScholes(0.2)
SPOT, RATE, EARLY_RATE, STRIKE, LEVEL = 100.0, 0.03, 0.06, 100.0, 130.0
MARKET = Market(SPOT, RATE)
DAYS = [30 * k for k in range(1, 13)]
DATES = [d / 365 for d in DAYS]
EXPIRY, STEPS = DATES[-1], 36
#: Added to the peer's seeds: MCBarrierEngine draws its bridges with seed 5, whatever the seed of the paths.
_SEED = 100
#: Least ratio of the times to 1 bp, for contracts that have a floor.
FLOOR = 100.0


@dataclass(frozen=True)
class Line:
    """One way to price one contract.

    Attributes:
        label: the way.
        counts: path counts.
        pricer: the price from so many paths and a seed.
        slope: how the error falls with the paths; None is fitted.
    """

    label: str
    counts: Sequence[int]
    pricer: Pricer
    slope: float | None = -0.5


@dataclass(frozen=True)
class Contest:
    """A contract: what it is worth, our ways and the peer's."""

    name: str
    reference: float
    ours: list[Line]
    peer: list[Line]
    floor: float | None = None


@dataclass(frozen=True)
class Measured:
    """Errors and seconds of one line at its counts."""

    line: Line
    error: np.ndarray
    seconds: np.ndarray
    bias: float
    bias_error: float

    def seconds_to(self, target: float) -> tuple[float, str]:
        """Seconds to this error, and how they were found."""
        n = np.array(self.line.counts, dtype=float)
        slope = self.line.slope
        if slope is None:
            slope = float(np.clip(np.polyfit(np.log(n), np.log(self.error), 1)[0], -1.5, -0.5))
        level = float(np.mean(np.log(self.error) - slope * np.log(n)))
        needed = math.exp((math.log(target) - level) / slope)
        if needed <= n[0]:
            return float(self.seconds[0]), f"at most: the fewest paths run, {n[0]:.0f}, are more than enough"
        if needed <= n[-1]:
            return float(np.interp(needed, n, self.seconds)), f"{needed:.0f} paths"
        return float(self.seconds[-1] / n[-1] * needed), f"{needed:.3g} paths, extrapolated"


def powers(first: int, last: int, step: int = 1) -> list[int]:
    return [1 << k for k in range(first, last + 1, step)]


def simulated(model: Model, payoff: Payoff, noise: Callable[[int], Noise], **settings: Any) -> Pricer:
    """Ours, in float64, not compiled."""
    engine = MonteCarlo(max_dt=EXPIRY / STEPS, compile="never", **settings)
    return lambda n, seed: float(price(model, payoff, MARKET, replace(engine, n_paths=n, noise=noise(seed))).value)


def ours(model: Model, payoff: Payoff, few: int, many: int) -> list[Line]:
    """Plain simulation, and with all that reduces variance, on pseudo-random numbers and on Sobol points."""
    plain = {"control_variate": False, "conditional": False}
    return [
        Line("plain", powers(few, many, 2), simulated(model, payoff, Threefry, **plain)),
        Line("reduced", powers(few, many, 2), simulated(model, payoff, Threefry)),
        Line("reduced, Sobol", powers(few, many, 2), simulated(model, payoff, Sobol), slope=None),
    ]


class QuantLib:
    """The peer's contracts and engines."""

    def __init__(self) -> None:
        ql: Any = importlib.import_module("QuantLib")
        self.ql = ql
        self.today = ql.Date(1, 1, 2023)
        ql.Settings.instance().evaluationDate = self.today
        self.call = ql.PlainVanillaPayoff(ql.Option.Call, STRIKE)
        self.put = ql.PlainVanillaPayoff(ql.Option.Put, STRIKE)
        self.expiry = ql.EuropeanExercise(self.today + DAYS[-1])
        self.spot = ql.QuoteHandle(ql.SimpleQuote(SPOT))
        self.heston = ql.HestonProcess(self.flat(RATE), self.flat(0.0), self.spot, *MODEL)

    def flat(self, rate: float) -> Any:
        """A flat curve."""
        ql = self.ql
        return ql.YieldTermStructureHandle(ql.FlatForward(self.today, rate, ql.Actual365Fixed()))

    def black_scholes(self, rate: float = RATE) -> Any:
        """The process at 20 %."""
        ql = self.ql
        vol = ql.BlackConstantVol(self.today, ql.NullCalendar(), 0.2, ql.Actual365Fixed())
        return ql.BlackScholesMertonProcess(
            self.spot, self.flat(0.0), self.flat(rate), ql.BlackVolTermStructureHandle(vol)
        )

    def european(self) -> Any:
        """The call."""
        return self.ql.VanillaOption(self.call, self.expiry)

    def asian(self) -> Any:
        """The average-price call."""
        fixings = [self.today + d for d in DAYS]
        return self.ql.DiscreteAveragingAsianOption(self.ql.Average.Arithmetic, 0.0, 0, fixings, self.call, self.expiry)

    def barrier(self) -> Any:
        """The up-and-out call."""
        return self.ql.BarrierOption(self.ql.Barrier.UpOut, LEVEL, 0.0, self.call, self.expiry)

    def early(self) -> Any:
        """The put, exercised at the ends of the engine's steps."""
        return self.ql.VanillaOption(self.put, self.ql.AmericanExercise(self.today, self.today + DAYS[-1]))

    def pricer(self, option: Any, engine: str, process: Any, calibrated: bool = False, **settings: Any) -> Pricer:
        """Prices of an option from so many paths and a seed."""
        make = getattr(self.ql, engine)

        def run(paths: int, seed: int) -> float:
            more = {"nCalibrationSamples": paths} if calibrated else {}
            made = make(process, "PseudoRandom", requiredSamples=paths, seed=seed + _SEED, **settings, **more)
            option.setPricingEngine(made)
            return float(option.NPV())

        return run

    def barrier_reference(self) -> float:
        """Closed form."""
        option = self.barrier()
        option.setPricingEngine(self.ql.AnalyticBarrierEngine(self.black_scholes()))
        return float(option.NPV())

    def bermudan_reference(self) -> float:
        """Finite differences, good to 1e-3 bp of the spot."""
        ql = self.ql
        option = ql.VanillaOption(self.put, ql.BermudanExercise([self.today + d for d in DAYS]))
        option.setPricingEngine(ql.FdBlackScholesVanillaEngine(self.black_scholes(EARLY_RATE), 1200, 2000))
        return float(option.NPV())


def long_run(model: Model, payoff: Payoff, quick: bool) -> float:
    """Sobol points and the geometric control on many paths."""
    return simulated(model, payoff, lambda seed: Sobol(seed, scrambles=32))(1 << (18 if quick else 21), 12345)


def european(ql: QuantLib, quick: bool) -> Contest:
    t = torch.tensor(EXPIRY, dtype=torch.float64)
    exact = float(price_european(HESTON, STRIKE, t, MARKET.forward(t), MARKET.discount(t)).value)
    pricer = ql.pricer(ql.european(), "MCEuropeanHestonEngine", ql.heston, timeSteps=STEPS)
    pairs = ql.pricer(ql.european(), "MCEuropeanHestonEngine", ql.heston, timeSteps=STEPS, antitheticVariate=True)
    peer = [Line("plain", powers(9, 13, 2), pricer), Line("antithetic", powers(9, 13, 2), pairs)]
    return Contest("European call, Heston", exact, ours(HESTON, European(STRIKE, EXPIRY), 9, 15), peer, FLOOR)


def asian_heston(ql: QuantLib, quick: bool) -> Contest:
    payoff = Asian(STRIKE, DATES)
    name, steps = "MCDiscreteArithmeticAPHestonEngine", {"timeSteps": STEPS}
    peer = [
        Line("plain", powers(9, 13, 2), ql.pricer(ql.asian(), name, ql.heston, **steps)),
        Line("control variate", powers(6, 12, 2), ql.pricer(ql.asian(), name, ql.heston, controlVariate=True, **steps)),
    ]
    return Contest("Asian call, Heston", long_run(HESTON, payoff, quick), ours(HESTON, payoff, 6, 14), peer, FLOOR)


def asian_black_scholes(ql: QuantLib, quick: bool) -> Contest:
    payoff, name, process = Asian(STRIKE, DATES), "MCDiscreteArithmeticAPEngine", ql.black_scholes()
    peer = [
        Line("plain", powers(9, 15, 2), ql.pricer(ql.asian(), name, process)),
        Line("control variate", powers(6, 14, 2), ql.pricer(ql.asian(), name, process, controlVariate=True)),
    ]
    reference = long_run(BLACK_SCHOLES, payoff, quick)
    return Contest("Asian call, Black-Scholes", reference, ours(BLACK_SCHOLES, payoff, 6, 14), peer, FLOOR)


def barrier(ql: QuantLib, quick: bool) -> Contest:
    payoff = Barrier(STRIKE, LEVEL, EXPIRY, "up-and-out")
    pricer = ql.pricer(ql.barrier(), "MCBarrierEngine", ql.black_scholes(), timeSteps=1)
    lines = ours(BLACK_SCHOLES, payoff, 7, 17)
    return Contest(
        "up-and-out call, Black-Scholes", ql.barrier_reference(), lines, [Line("plain", powers(11, 17, 2), pricer)]
    )


def bermudan(ql: QuantLib, quick: bool) -> Contest:
    claim, market = Bermudan(STRIKE, DATES), Market(SPOT, EARLY_RATE)
    method = LeastSquares(outer=0)

    def early(noise: Callable[[int], Noise], hedged: bool) -> Pricer:
        engine = MonteCarlo(compile="never")
        how = replace(method, hedged=hedged)
        return lambda n, seed: float(
            price_early(BLACK_SCHOLES, claim, market, replace(engine, n_paths=n, noise=noise(seed)), how).value
        )

    counts = powers(9, 15, 2)
    lines = [
        Line("plain", counts, early(Threefry, hedged=False)),
        Line("hedged", counts, early(Threefry, hedged=True)),
        Line("hedged, Sobol", counts, early(Sobol, hedged=True), slope=None),
    ]
    name, process = "MCAmericanEngine", ql.black_scholes(EARLY_RATE)
    steps = {"timeSteps": len(DATES), "calibrated": True}
    peer = [
        Line("plain", powers(9, 13, 2), ql.pricer(ql.early(), name, process, **steps)),
        Line("control variate", powers(9, 13, 2), ql.pricer(ql.early(), name, process, controlVariate=True, **steps)),
    ]
    return Contest("Bermudan put, Black-Scholes", ql.bermudan_reference(), lines, peer)


CONTESTS: tuple[Callable[[QuantLib, bool], Contest], ...] = (
    european,
    asian_heston,
    asian_black_scholes,
    barrier,
    bermudan,
)


def measure(contest: Contest, seeds: int) -> tuple[list[Measured], list[Measured]]:
    """All lines in turn, seed by seed, after one run of each."""
    runs: dict[tuple[int, int], list[tuple[float, float]]] = {}
    lines = [*contest.ours, *contest.peer]
    for line in lines:
        line.pricer(line.counts[0], 0)
    for seed in range(1, seeds + 1):
        for i, line in enumerate(lines):
            for k, n in enumerate(line.counts):
                start = time.perf_counter()
                value = line.pricer(n, 1000 * seed + k)  # scrambles are kept: another seed for each count
                runs.setdefault((i, n), []).append((time.perf_counter() - start, value - contest.reference))
    found = [_measured(line, [runs[i, n] for n in line.counts]) for i, line in enumerate(lines)]
    return found[: len(contest.ours)], found[len(contest.ours) :]


def _measured(line: Line, runs: list[list[tuple[float, float]]]) -> Measured:
    misses = np.array([[miss for _, miss in run] for run in runs])
    times = np.array([statistics.median(s for s, _ in run) for run in runs])
    last = misses[-1]
    error = np.sqrt((misses**2).mean(1))
    return Measured(line, error, times, float(last.mean()), float(last.std(ddof=1) / math.sqrt(len(last))))


def rows(contest: Contest, mine: list[Measured], theirs: list[Measured]) -> list[Row]:
    """Plain against plain, our best against the peer's plain simulation, and the best of each."""

    def row(bp: float, a: Measured | None, b: Measured | None, title: str, floor: float | None = None) -> Row:
        target = bp * 1e-4 * SPOT
        a, b = (m or min(side, key=lambda m: m.seconds_to(target)[0]) for m, side in ((a, mine), (b, theirs)))
        (x, how), (y, their_how) = a.seconds_to(target), b.seconds_to(target)
        note = f"ours {a.line.label}: {how}, {_bias(a)}; QuantLib {b.line.label}: {their_how}, {_bias(b)}"
        return Row(f"{contest.name}, {bp:g} bp, {title}", x, y, floor, "s", note=note)

    return [
        row(1.0, mine[0], theirs[0], "both plain"),
        row(1.0, None, theirs[0], "ours best, peer plain", contest.floor),
        row(1.0, None, None, "both best"),
        row(0.1, None, None, "both best"),
    ]


def _bias(m: Measured) -> str:
    bp = 1e4 / SPOT
    return f"bias {m.bias * bp:.2f} +- {m.bias_error * bp:.2f} bp"


def plot(results: list[tuple[Contest, list[Measured], list[Measured]]], path: Path) -> None:
    """One panel per contract: error against seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(15, 9))
    for axis, (contest, mine, theirs) in zip(axes.flat, results, strict=False):
        for who, side, style in (("qsde", mine, "o-"), ("QuantLib", theirs, "s--")):
            for m in side:
                axis.plot(m.seconds, m.error / SPOT * 1e4, style, label=f"{who}, {m.line.label}")
        axis.axhline(1, color="k", lw=1, ls=":")
        axis.set(title=contest.name, xscale="log", yscale="log", xlabel="seconds", ylabel="RMSE, bp of spot")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes.flat[-1].axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    asked = parser(__doc__)
    asked.add_argument("--plot", type=Path, metavar="FILE", help="also draw error against seconds, as PNG")
    options = asked.parse_args()
    peer = QuantLib()
    results = []
    for make in CONTESTS:
        contest = make(peer, options.quick)
        results.append((contest, *measure(contest, 4 if options.quick else 48)))
    if options.plot:
        plot(results, options.plot)
    found = [row for contest, mine, theirs in results for row in rows(contest, mine, theirs)]
    return 0 if report(found, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
