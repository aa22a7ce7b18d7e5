"""Heston by simulation: path-steps per second against QuantLib, eager and the cost of drawing the noise alone.

Work: a European call under Heston, quadratic-exponential scheme with martingale correction, 96 steps a year. QuantLib
1.44 runs MCEuropeanHestonEngine (its default discretisation is the same scheme) in double precision on one thread, on
fewer paths; figures are per path-step. The batch row prices 1,000 parameter sets x 100 payoffs on common noise in one
call, and one set at a time.
"""

from __future__ import annotations

import importlib
import importlib.util
import resource
import statistics
import sys
from typing import Any

import torch
from harness import Row, arguments, report, seconds

from qsde.market.underlying import Market
from qsde.models import Heston
from qsde.payoffs import European
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price

MODEL = (0.04, 1.5, 0.04, 0.5, -0.7)
STEPS, PATHS = 96, 1 << 17
CALL = European(100.0, 1.0)
MARKET = Market(100.0, 0.03, 0.0)


def ours(dtype: torch.dtype, compile_: str, paths: int, rounds: int) -> float:
    """Median seconds per path-step, after a warm-up that compiles."""
    engine = MonteCarlo(n_paths=paths, max_dt=1 / STEPS, dtype=dtype, compile=compile_, conditional=False)  # type: ignore[arg-type]
    model = Heston(*MODEL)
    price(model, CALL, MARKET, engine)
    times = [seconds(lambda: price(model, CALL, MARKET, engine)) for _ in range(rounds)]
    return statistics.median(times) / (paths * STEPS)


def quantlib(paths: int, rounds: int) -> float:
    """Median seconds per path-step of MCEuropeanHestonEngine."""
    ql: Any = importlib.import_module("QuantLib")
    today = ql.Date(1, 1, 2023)
    ql.Settings.instance().evaluationDate = today
    count = ql.Actual365Fixed()
    flat = [ql.YieldTermStructureHandle(ql.FlatForward(today, rate, count)) for rate in (0.03, 0.0)]
    spot = ql.QuoteHandle(ql.SimpleQuote(100.0))
    process = ql.HestonProcess(*flat, spot, *MODEL)
    option = ql.VanillaOption(ql.PlainVanillaPayoff(ql.Option.Call, 100.0), ql.EuropeanExercise(today + 365))
    times = []
    for seed in range(1, rounds + 1):
        option.setPricingEngine(
            ql.MCEuropeanHestonEngine(process, "PseudoRandom", timeSteps=STEPS, requiredSamples=paths, seed=seed)
        )
        times.append(seconds(option.NPV))
    return statistics.median(times) / (paths * STEPS)


def draws(dtype: torch.dtype, rounds: int) -> float:
    """Seconds per path-step to draw two normals with torch's own generator into memory that is there."""
    out = torch.empty(2, 1 << 16, dtype=dtype)
    g = torch.Generator().manual_seed(1)
    out.normal_(generator=g)
    return statistics.median(seconds(lambda: out.normal_(generator=g)) for _ in range(20 * rounds)) / (1 << 16)


def batch(n_sets: int, n_payoffs: int, paths: int) -> Row:
    """Parameter sets x payoffs in one call against a loop over the sets (timed on some of them)."""
    g = torch.Generator().manual_seed(2)
    scale = 0.8 + 0.4 * torch.rand(n_sets, generator=g, dtype=torch.float64)
    many = Heston(*MODEL).map(lambda p: p * scale)
    book = [European(float(k), 1.0) for k in torch.linspace(60, 140, n_payoffs)]
    engine = MonteCarlo(n_paths=paths, max_dt=1 / 12, dtype=torch.float32, compile="never", conditional=False)
    together = seconds(lambda: price(many, book, MARKET, engine)) / n_sets
    some = range(0, n_sets, max(1, n_sets // 10))
    alone = statistics.median(
        seconds(lambda i=i: price(many.map(lambda p: p[i]), book, MARKET, engine)) for i in some
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = f"{paths} paths x 12 steps, float32, eager; peer: one set at a time; peak {peak:.0f} MiB"
    return Row(f"{n_sets} sets x {n_payoffs} payoffs in one call, per set", together, alone, note=note)


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    rounds = 3 if options.quick else 7
    has_peer = importlib.util.find_spec("QuantLib") is not None
    peer = quantlib(1 << 12, rounds) if has_peer else None
    single = ours(torch.float32, "always", PATHS, rounds)
    double = ours(torch.float64, "always", PATHS, rounds)
    eager = ours(torch.float32, "never", PATHS // 4, 3)
    ns = 1e9
    rows = [
        Row("Heston QE-M float32 compiled, vs QuantLib", single * ns, peer and peer * ns, 40.0, "ns/path-step"),
        Row("Heston QE-M float64 compiled, vs QuantLib", double * ns, peer and peer * ns, None, "ns/path-step"),
        Row("Heston QE-M float32 compiled, vs our eager", single * ns, eager * ns, 4.0, "ns/path-step"),
        Row("simulation over drawing its two normals", single * ns, draws(torch.float32, rounds) * ns, None,
            "ns/path-step", note="peer: torch.Tensor.normal_, float32"),
    ]  # fmt: skip
    engine = MonteCarlo(n_paths=PATHS, max_dt=1 / STEPS, dtype=torch.float64, compile="always", conditional=False)
    estimate = price(Heston(*MODEL), CALL, MARKET, engine)
    exact = price_european(Heston(*MODEL), 100.0, 1.0, MARKET.forward(1.0), MARKET.discount(1.0)).value
    gap = float((estimate.value - exact).abs() / estimate.std_error)
    note = f"standard error {float(estimate.std_error):.4f}, {PATHS} paths"
    rows.append(Row("|price - Fourier| in standard errors", gap, 4.0, 1.0, "se", note=note))
    rows.append(batch(100 if options.quick else 1000, 100, 4096))
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
