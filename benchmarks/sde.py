"""Users' own SDEs: geometric Brownian motion by Euler and Milstein against torchsde 0.2.6 and diffrax.

Work: dy = mu y dt + sigma y dW as functions with parameters mu and sigma, 16,384 paths, 100 steps, y at time 1; forward
alone, and with the gradient of the mean of y to y0, mu and sigma. All run in one process and in turn; the first call,
which compiles, is not counted. torchsde: `sdeint` with its default BrownianInterval, differentiated through the solver,
and `sdeint_adjoint` with its default adjoint method. diffrax: jitted and vmapped over the paths, on VirtualBrownianTree
(default adjoint for gradients) and on UnsafeBrownianPath, which has no reverse mode.

The number of steps matters to torchsde. In float32 a hundred steps of 0.01 end just short of 1, so it takes one more of
about 1e-6; being the 101st query, that is when BrownianInterval builds a tree down to this step, 50,000 nodes, which
takes 30 times as long as all the rest. Euler is therefore also timed with 128 steps, which float32 adds up exactly;
there torchsde has to be beaten, by no given factor.

torchsde's own benchmark shapes and a neural SDE follow: see `sde_shapes.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sde_shapes
import torch
from harness import Row, arguments, report, seconds
from torch import Tensor

from qsde.models import SDE
from qsde.noise import Threefry
from qsde.schemes import EulerMaruyama, ItoMilstein
from qsde.solve import sdeint

PATHS, STEPS, EXACT_STEPS = 16_384, 100, 128
MU, SIGMA = 0.1, 0.2
#: Means of y and of its derivatives to y0, mu and sigma, and standard errors of their estimates from all paths.
EXACT = (math.exp(MU), math.exp(MU), math.exp(MU), 0.0)
_SPREAD = math.exp(MU) * math.sqrt(math.expm1(SIGMA**2))
ERRORS = tuple(
    e / math.sqrt(PATHS) for e in (_SPREAD, _SPREAD, _SPREAD, math.exp(MU + SIGMA**2 / 2) * math.sqrt(1 + SIGMA**2))
)
SCHEMES = {"Euler": EulerMaruyama(), "Milstein": ItoMilstein()}
#: Least ratio of our compiled run to each peer.
FLOORS = {"torchsde": 20.0, "torchsde adjoint": 20.0, "diffrax tree": 1.0, "diffrax unsafe": 1.0}

Answer = tuple[float, ...]
Work = Callable[[], Answer]


@dataclass(frozen=True)
class Task:
    """What everybody does: scheme, precision, whether the gradient is wanted, and the number of steps."""

    scheme: str
    double: bool
    gradient: bool
    steps: int = STEPS

    @property
    def label(self) -> str:
        """Its name in the table."""
        work = "forward+backward" if self.gradient else "forward"
        steps = "" if self.steps == STEPS else f", {self.steps} steps"
        return f"{self.scheme} float{64 if self.double else 32} {work}{steps}"

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the paths."""
        return torch.float64 if self.double else torch.float32


def drift(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["mu"] * y


def diffusion(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["sigma"] * y


def in_torch(task: Task, mean: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Work:
    """The mean of y, and if wanted its gradient by reverse mode."""

    def work() -> Answer:
        y0 = torch.ones(PATHS, 1, dtype=task.dtype, requires_grad=task.gradient)
        mu, sigma = (torch.tensor(v, dtype=task.dtype, requires_grad=task.gradient) for v in (MU, SIGMA))
        value = mean(y0, mu, sigma)
        if not task.gradient:
            return (float(value.detach()),)
        by_y0, by_mu, by_sigma = torch.autograd.grad(value, [y0, mu, sigma])
        return float(value.detach()), float(by_y0.sum()), float(by_mu), float(by_sigma)

    return work


def ours(task: Task, compile_: str) -> Work:
    """`sdeint`, a new seed in each call."""
    seeds = itertools.count()

    def mean(y0: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
        sde = SDE(drift, diffusion, [1.0], {"mu": mu, "sigma": sigma})
        noise = Threefry(next(seeds))
        scheme = SCHEMES[task.scheme]
        y = sdeint(sde, y0, [0.0, 1.0], max_dt=1 / task.steps, scheme=scheme, noise=noise, compile=compile_)  # type: ignore[arg-type]
        return y[-1].mean()

    return in_torch(task, mean)


class Gbm(torch.nn.Module):
    """The equation as torchsde asks for it."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, mu: Tensor, sigma: Tensor) -> None:
        super().__init__()
        self.mu, self.sigma = mu, sigma

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """Drift."""
        return self.mu * y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """Diffusion."""
        return self.sigma * y


def torchsde(task: Task, adjoint: bool) -> Work:
    """`torchsde.sdeint`, or `sdeint_adjoint`, on its default Brownian motion, a new one in each call."""
    peer: Any = importlib.import_module("torchsde")
    options: dict[str, Any] = {"dt": 1 / task.steps, "method": task.scheme.lower()}

    def mean(y0: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
        sde, ts = Gbm(mu, sigma), torch.tensor([0.0, 1.0], dtype=task.dtype)
        if adjoint:
            return peer.sdeint_adjoint(sde, y0, ts, adjoint_params=(mu, sigma), **options)[-1].mean()
        return peer.sdeint(sde, y0, ts, **options)[-1].mean()

    return in_torch(task, mean)


def diffrax(task: Task, tree: bool) -> Work:
    """`diffrax.diffeqsolve`, jitted and vmapped; new keys in each call."""
    dfx: Any = importlib.import_module("diffrax")
    jax: Any = importlib.import_module("jax")
    np: Any = importlib.import_module("jax.numpy")
    solver = {"Euler": dfx.Euler, "Milstein": dfx.ItoMilstein}[task.scheme]()
    adjoint = dfx.RecursiveCheckpointAdjoint() if task.gradient else dfx.ForwardMode()

    def path(y0: Any, mu: Any, sigma: Any, key: Any) -> Any:
        motion = (
            dfx.VirtualBrownianTree(0.0, 1.0, tol=0.5 / task.steps, shape=(), key=key)
            if tree
            else dfx.UnsafeBrownianPath(shape=(), key=key)
        )
        terms = dfx.MultiTerm(
            dfx.ODETerm(lambda t, y, p: p[0] * y), dfx.ControlTerm(lambda t, y, p: p[1] * y, motion)
        )  # fmt: skip
        return dfx.diffeqsolve(terms, solver, 0.0, 1.0, 1 / task.steps, y0, args=(mu, sigma), adjoint=adjoint).ys[0]

    def mean(y0: Any, mu: Any, sigma: Any, key: Any) -> Any:
        return jax.vmap(path, in_axes=(0, None, None, 0))(y0, mu, sigma, jax.random.split(key, PATHS)).mean()

    solve = jax.jit(jax.value_and_grad(mean, argnums=(0, 1, 2)) if task.gradient else mean)
    seeds = itertools.count()

    def work() -> Answer:
        jax.config.update("jax_enable_x64", task.double)  # where it is on, diffrax computes float32 paths in float64
        dtype = np.float64 if task.double else np.float32
        out = solve(np.ones(PATHS, dtype), dtype(MU), dtype(SIGMA), jax.random.key(next(seeds)))
        if not task.gradient:
            return (float(out),)
        value, (by_y0, by_mu, by_sigma) = out
        return float(value), float(by_y0.sum()), float(by_mu), float(by_sigma)

    return work


def contestants(task: Task) -> dict[str, Work]:
    """Who can do the task here."""
    makers: dict[str, tuple[str, bool, Callable[[], Work]]] = {
        "compiled": ("qsde", True, lambda: ours(task, "always")),
        "eager": ("qsde", True, lambda: ours(task, "never")),
        "torchsde": ("torchsde", True, lambda: torchsde(task, adjoint=False)),
        "torchsde adjoint": ("torchsde", task.gradient, lambda: torchsde(task, adjoint=True)),
        "diffrax tree": ("diffrax", True, lambda: diffrax(task, tree=True)),
        "diffrax unsafe": ("diffrax", not task.gradient, lambda: diffrax(task, tree=False)),
    }
    return {
        name: make()
        for name, (package, can, make) in makers.items()
        if can and importlib.util.find_spec(package) is not None
    }


def compare(task: Task, rounds: int, gaps: dict[str, float]) -> list[Row]:
    """Rows of one task; `gaps` collects how far answers are from the exact ones, in standard errors."""
    work = contestants(task)
    first = {name: seconds(run) for name, run in work.items()}
    times: dict[str, list[float]] = {name: [] for name in work}
    answers: dict[str, Answer] = {}
    for _ in range(rounds):
        for name, run in work.items():
            times[name].append(seconds(lambda name=name, run=run: answers.update({name: run()})))  # type: ignore[misc]
    for name, answer in answers.items():
        gap = max(abs(a - b) / e for a, b, e in zip(answer, EXACT, ERRORS, strict=False))
        gaps[name] = max(gaps.get(name, 0.0), gap)
    middle = {name: 1e9 * statistics.median(t) / (PATHS * task.steps) for name, t in times.items()}
    unit = "ns/path-step"
    rows = []
    for peer, floor in FLOORS.items():
        if peer == "torchsde adjoint" and not task.gradient:
            continue
        refused = peer == "diffrax unsafe" and task.gradient
        note = "diffrax refuses reverse mode on UnsafeBrownianPath" if refused else _first_calls(peer, first)
        floor = floor if task.steps == STEPS else 1.0
        rows.append(
            Row(f"{task.label}, vs {peer}", middle["compiled"], middle.get(peer), None if refused else floor, unit,
                note=note)
        )  # fmt: skip
    rows.append(Row(f"{task.label}, eager vs torchsde", middle["eager"], middle.get("torchsde"), None, unit))
    return rows


def _first_calls(peer: str, first: dict[str, float]) -> str:
    if peer not in first:
        return "peer not installed"
    return f"first call {first['compiled']:.1f} s, peer's {first[peer]:.1f} s"


def agreement(gaps: dict[str, float], tasks: Sequence[Task]) -> list[Row]:
    """Everybody's mean and gradient against the exact ones: within 4 standard errors in the worst of the tasks."""
    note = f"worst of the mean and its gradient in {len(tasks)} tasks; standard error of the mean {ERRORS[0]:.4f}"
    return [Row(f"|answer - exact|, {name}", gap, 4.0, 1.0, "se", note=note) for name, gap in gaps.items()]


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    warnings.filterwarnings("ignore", module="torchsde")
    precisions = [False] if options.quick else [False, True]
    kinds = itertools.product(["Euler"] if options.quick else SCHEMES, precisions, [False, True])
    tasks = [Task(*kind) for kind in kinds]
    if not options.quick:
        tasks += [Task("Euler", *kind, EXACT_STEPS) for kind in itertools.product(precisions, [False, True])]
    gaps: dict[str, float] = {}
    rows = [row for task in tasks for row in compare(task, 3 if options.quick else 5, gaps)]
    rows += agreement(gaps, tasks) + sde_shapes.rows(options.quick)
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
