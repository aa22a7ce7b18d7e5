"""Error and time of every gradient strategy against step size, and peak memory against the number of steps.

The problems are the three closed forms of Li, Wong, Chen, Duvenaud (2020) in ten dimensions (`closed_forms.py`), in the
sense of Stratonovich, to time 1: the gradient of the mean of the solution to its parameters, against that of the
closed form on the same Brownian paths, as a relative error. Strategies step Heun, "reversible" steps ReversibleHeun.
The peer is torchsde on the same problem with as many steps: `sdeint` and `sdeint_adjoint` with Heun's method, and
`sdeint_adjoint` with reversible Heun; it draws its own paths, so that its error has the same law, not the same digits.

All of ours runs uncompiled, so that memory is that of the solver and not of the compiler.

Memory is the growth of the process's peak while one gradient is taken on example 2, in a fresh process for each
figure. A strategy of constant memory holds if a further step adds less than a fiftieth of one state. `--plot FILE`
draws all three (needs matplotlib).
"""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import statistics
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from closed_forms import DIM, EXAMPLE_2, PROBLEMS, D, Problem
from harness import Row, parser, report, seconds
from torch import Tensor

from qsde.noise import Threefry
from qsde.schemes import Heun, ReversibleHeun
from qsde.solve import sdeint

PATHS, MEMORY_PATHS = 256, 1024
STEPS = (16, 64, 256, 1024)
MEMORY_STEPS = (100, 1000, 10_000)
STRATEGIES = ("checkpoint", "direct", "forward", "reversible", "stochastic_adjoint")
#: "direct" would take 11 GB for 10,000.
MOST_DIRECT = 1000
#: A strategy of constant memory adds less than one state in so many steps (lists of step numbers and times).
FLAT = 50.0
CONSTANT = ("forward", "reversible", "stochastic_adjoint")
#: torchsde's method, and whether its adjoint is used.
PEERS = {
    "direct": ("heun", None),
    "reversible": ("reversible_heun", "adjoint_reversible_heun"),
    "stochastic_adjoint": ("heun", "heun"),
}


#: A gradient, and how to get the exact one on the same paths.
Answer = tuple[Tensor, Callable[[], Tensor]]


@dataclass(frozen=True)
class Point:
    """One gradient: its relative error and the seconds it took."""

    error: float
    seconds: float


def ours(problem: Problem, strategy: str, steps: int, paths: int, seed: int) -> Answer:
    """Our gradient to the parameters."""
    params, y0, noise = problem.params(), problem.start(paths).detach(), Threefry(seed)
    scheme = ReversibleHeun() if strategy == "reversible" else Heun()
    sde = problem.sde(params, "stratonovich")
    y = sdeint(sde, y0, [0.0, 1.0], max_dt=1 / steps, scheme=scheme, noise=noise, gradient=strategy, compile="never")  # type: ignore[arg-type]
    found = torch.autograd.grad(y[-1].sum(-1).mean(), list(params.values()))
    return torch.cat(found), lambda: exact(problem, y0, params, motion(noise, steps, paths))


def motion(noise: Threefry, steps: int, paths: int) -> Tensor:
    """The Brownian motions at 1."""
    block = noise.block(torch.arange(paths), steps, DIM, 0, D, "cpu").ahead(steps)
    return sum((block.draw(k)[0] for k in range(steps)), torch.zeros(DIM, paths, dtype=D)).T / steps**0.5


def exact(problem: Problem, y0: Tensor, params: dict[str, Tensor], w: Tensor) -> Tensor:
    """The gradient of the closed form."""
    value = problem.solution(y0, 1.0, w, params).sum(-1).mean()
    return torch.cat(torch.autograd.grad(value, list(params.values())))


class Theirs(torch.nn.Module):
    """A problem as torchsde asks for it."""

    sde_type, noise_type = "stratonovich", "diagonal"

    def __init__(self, problem: Problem, params: dict[str, Tensor]) -> None:
        super().__init__()
        self.problem = problem
        self.weights = torch.nn.ParameterDict({k: torch.nn.Parameter(v.detach()) for k, v in params.items()})

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """Drift."""
        return self.problem.stratonovich_drift(t, y, self.weights)  # type: ignore[arg-type]

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """Diffusion."""
        return self.problem.diffusion(t, y, self.weights)  # type: ignore[arg-type]


def theirs(problem: Problem, strategy: str, steps: int, paths: int, seed: int) -> Answer:
    """That of torchsde."""
    peer: Any = importlib.import_module("torchsde")
    method, adjoint = PEERS[strategy]
    sde, y0 = Theirs(problem, problem.params()), problem.start(paths).detach()
    bm = peer.BrownianInterval(0.0, 1.0, size=(paths, DIM), dtype=D, entropy=seed, dt=1 / steps)
    options: dict[str, Any] = {"method": method, "dt": 1 / steps, "bm": bm}
    ts = torch.tensor([0.0, 1.0], dtype=D)
    if adjoint is None:
        y = peer.sdeint(sde, y0, ts, **options)
    else:
        y = peer.sdeint_adjoint(sde, y0, ts, adjoint_method=adjoint, **options)
    weights = dict(sde.weights.items())
    found = torch.cat(torch.autograd.grad(y[-1].sum(-1).mean(), list(weights.values())))
    return found, lambda: exact(problem, y0, weights, bm(0.0, 1.0))


def measured(work: Callable[[int], Answer], rounds: int) -> Point:
    """Root-mean-square relative error over several seeds, and the median time."""
    errors, times = [], []
    for seed in range(rounds):
        out: list[Answer] = []
        times.append(seconds(lambda out=out, seed=seed: out.append(work(seed))))  # type: ignore[misc]
        found, wanted = out[0][0], out[0][1]()
        errors.append(float((found - wanted).norm() / wanted.norm()))
    return Point(statistics.mean(e * e for e in errors) ** 0.5, statistics.median(times))


def peak(strategy: str, steps: int) -> int:
    """The growth of this process's peak memory by one gradient, in bytes."""
    torch.set_num_threads(1)
    ours(EXAMPLE_2, strategy, 10, MEMORY_PATHS, 0)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _kilobytes("VmRSS")
    ours(EXAMPLE_2, strategy, steps, MEMORY_PATHS, 1)
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def memory(strategy: str, steps: int) -> float:
    """Peak memory of one gradient, in a process of its own, in MB."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak, strategy, steps).result() / 2**20


def accuracy_rows(problem: Problem, steps: tuple[int, ...], rounds: int) -> tuple[list[Row], dict[str, list[Point]]]:
    """Errors and times of one problem, for the table and for the plot."""
    rows, lines = [], {}
    peer_here = importlib.util.find_spec("torchsde") is not None
    for strategy in STRATEGIES:
        lines[strategy] = []
        for n in steps:
            mine = measured(lambda seed, s=strategy, n=n: ours(problem, s, n, PATHS, seed), rounds)  # type: ignore[misc]
            lines[strategy].append(mine)
            peer = None
            if strategy in PEERS and peer_here:
                peer = measured(lambda seed, s=strategy, n=n: theirs(problem, s, n, PATHS, seed), rounds)  # type: ignore[misc]
            label = f"{problem.name}, {strategy}, {n} steps"
            rows.append(Row(f"{label}: gradient error", mine.error, peer.error if peer else None, None, "rel"))
            rows.append(Row(f"{label}: time", mine.seconds, peer.seconds if peer else None, None))
    return rows, lines


def memory_rows(steps: tuple[int, ...]) -> tuple[list[Row], dict[str, list[float]]]:
    """Peaks, and what a further step adds, against the size of one state."""
    rows, lines = [], {}
    state = MEMORY_PATHS * DIM * 8 / 2**10
    for strategy in STRATEGIES:
        mine = [n for n in steps if strategy != "direct" or n <= MOST_DIRECT]
        lines[strategy] = [memory(strategy, n) for n in mine]
        for n, size in zip(mine, lines[strategy], strict=True):
            rows.append(Row(f"{strategy}, {n} steps: peak memory", size, None, None, "MB"))
        added = 1024 * (lines[strategy][-1] - lines[strategy][0]) / (mine[-1] - mine[0])
        floor = FLAT if strategy in CONSTANT else None
        rows.append(
            Row(f"{strategy}: memory of a further step, and of one state", max(added, 1e-3), state, floor, "kB")
        )
    return rows, lines


def plot(
    errors: dict[str, dict[str, list[Point]]], steps: tuple[int, ...], peaks: dict[str, list[float]],
    memory_steps: tuple[int, ...], path: Path,
) -> None:  # fmt: skip
    """Gradient error and time against step size for each problem, and memory against steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(17, 8))
    for column, (problem, lines) in enumerate(errors.items()):
        for strategy, points in lines.items():
            sizes = [1 / n for n in steps]
            axes[0, column].loglog(sizes, [p.error for p in points], "o-", label=strategy)
            axes[1, column].loglog(sizes, [p.seconds for p in points], "o-", label=strategy)
        axes[0, column].set(title=problem, xlabel="step size", ylabel="relative gradient error")
        axes[1, column].set(title=problem, xlabel="step size", ylabel="seconds, forward and backward")
    for strategy, sizes in peaks.items():
        axes[0, 3].loglog(memory_steps[: len(sizes)], sizes, "o-", label=strategy)
    axes[0, 3].set(title="example 2, 1,024 paths", xlabel="steps", ylabel="peak memory, MB")
    axes[0, 3].legend()
    axes[1, 3].axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Prints all figures; exit code 1 if the memory of a constant-memory strategy grows."""
    asked = parser(__doc__)
    asked.add_argument("--plot", type=Path, metavar="FILE", help="also draw them, as PNG")
    options = asked.parse_args()
    warnings.filterwarnings("ignore", module="torchsde")
    steps = STEPS[:2] if options.quick else STEPS
    memory_steps = (100, 400) if options.quick else MEMORY_STEPS
    problems = PROBLEMS[:1] if options.quick else PROBLEMS
    rows, errors = [], {}
    for problem in problems:
        found, errors[problem.name] = accuracy_rows(problem, steps, 2 if options.quick else 5)
        rows += found
    found, peaks = memory_rows(memory_steps)
    if options.plot:
        plot(errors, steps, peaks, memory_steps, options.plot)
    return 0 if report(rows + found, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
