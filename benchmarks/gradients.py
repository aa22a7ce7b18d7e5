"""Price and all first-order sensitivities against the price alone, and the memory of a gradient against its steps.

Work: European call under Heston QE-M, compiled, float32. Sensitivities: spot, rate, strike and the five parameters, by
the exact gradient of the simulated price. Memory is the peak of a fresh process per step count, above that of a process
that simulates one step.
"""

from __future__ import annotations

import subprocess
import sys

import torch
from harness import Row, alternate, arguments, report

from qsde.market.underlying import Market
from qsde.models import Heston
from qsde.payoffs import European
from qsde.pricing.montecarlo import MonteCarlo, price

MODEL = (0.04, 1.5, 0.04, 0.5, -0.7)
MEMORY = """
import re, sys
from pathlib import Path
sys.path.insert(0, "benchmarks")
from gradients import sensitivities, MonteCarlo
import torch
sensitivities(MonteCarlo(n_paths=1 << 16, max_dt=1 / int(sys.argv[1]), dtype=torch.float32, compile="never"))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def sensitivities(engine: MonteCarlo) -> list[float]:
    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (*MODEL, 100.0, 0.03, 100.0)]
    *parameters, spot, rate, strike = inputs
    estimate = price(Heston(*parameters), European(strike, 1.0), Market(spot, rate), engine)
    return [float(g) for g in torch.autograd.grad(estimate.value, inputs)]


def peak(steps: int) -> float:
    """Peak resident MiB of a process that takes one gradient: the largest of three, as allocators vary."""

    def once() -> float:
        done = subprocess.run([sys.executable, "-c", MEMORY, str(steps)], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    return max(once() for _ in range(3))


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    rounds, paths = (3, 1 << 16) if options.quick else (7, 1 << 17)
    rows = []
    model, call, market = Heston(*MODEL), European(100.0, 1.0), Market(100.0, 0.03)
    for label, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        engine = MonteCarlo(n_paths=paths, max_dt=1 / 96, dtype=dtype, compile="always", conditional=False)
        both, alone = alternate(
            lambda e=engine: sensitivities(e), lambda e=engine: price(model, call, market, e), rounds
        )  # fmt: skip
        scale = 1e9 / (paths * 96)
        note = f"price alone {alone * scale:.2f} ns/path-step, ratio {both / alone:.2f}"
        figure = f"price + 8 sensitivities, {label}, vs 3.5 times the price"
        rows.append(Row(figure, both * scale, 3.5 * alone * scale, 1.0, "ns/path-step", note=note))
    base, few, more = peak(1), peak(100), peak(1000)
    note = f"process peaks: {base:.0f} MiB at 1 step, {few:.0f} at 100, {more:.0f} at 1,000"
    figure = "memory of a gradient, 1,000 steps, vs 1.5 times 100 steps"
    rows.append(Row(figure, more - base, 1.5 * (few - base), 1.0, "MiB", note=note))
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
