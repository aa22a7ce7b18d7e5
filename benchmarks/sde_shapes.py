"""torchsde's own benchmark shapes and a neural SDE: forward, backprop and adjoint, against torchsde and diffrax.

Work: 100 Euler steps over unit time in float32, y at the end, and for gradients the mean of y differentiated to the
start (and all weights). The equation of torchsde's benchmarks, dy = y dt + exp(-y) dW, starts at 2 here: from 0, where
theirs starts, paths leave the finite numbers, which we refuse. The neural SDE has one hidden layer of 64 in drift and
diffusion. Peers as in `sde.py`: torchsde on its default BrownianInterval, a hundred steps of which end in a step of
about 1e-6 that makes it build a tree; 128 steps do not, and have rows of their own without a floor. "adjoint" is
torchsde's `sdeint_adjoint`; ours is the same exact gradient as under "backprop".
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from harness import Row, seconds
from torch import Tensor, nn

from qsde.models import SDE
from qsde.noise import Threefry
from qsde.solve import sdeint

SHAPES = ((128, 5), (256, 128), (512, 256))
NEURAL = (1024, 16)
HIDDEN = 64
MODES = ("forward", "backprop", "adjoint")
STEPS, EXACT_STEPS = 100, 128
START = 2.0
FLOOR = 5.0

Work = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    """What everybody does."""

    batch: int
    dim: int
    neural: bool
    mode: str
    steps: int = STEPS

    @property
    def label(self) -> str:
        """Its name in the table."""
        kind = "neural SDE" if self.neural else "dy = y dt + exp(-y) dW"
        steps = "" if self.steps == STEPS else f", {self.steps} steps"
        return f"{kind}, {self.batch} x {self.dim}, {self.mode}{steps}"

    @property
    def gradient(self) -> bool:
        """Whether there is one."""
        return self.mode != "forward"


class Net(nn.Module):
    """One hidden layer of the state; the diffusion's is kept positive and small."""

    def __init__(self, dim: int, squashed: bool) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, HIDDEN), nn.Linear(HIDDEN, dim)
        self.squashed = squashed

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """At states [P, dim]."""
        out = self.outer(torch.tanh(self.inner(y)))
        return 0.5 * torch.sigmoid(out) if self.squashed else out


def drift(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return y


def diffusion(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return torch.exp(-y)


def nets(shape: Shape) -> tuple[Net, Net]:
    torch.manual_seed(0)
    return Net(shape.dim, False), Net(shape.dim, True)


def start(shape: Shape) -> Tensor:
    return torch.full((shape.batch, shape.dim), START, requires_grad=shape.gradient)


def ours(shape: Shape) -> Work:
    """`sdeint`, compiled, a new seed in each call."""
    seeds = itertools.count()
    sde = SDE(*nets(shape)) if shape.neural else SDE(drift, diffusion)

    def work() -> None:
        with torch.set_grad_enabled(shape.gradient):
            noise = Threefry(next(seeds))
            y = sdeint(sde, start(shape), [0.0, 1.0], max_dt=1 / shape.steps, noise=noise, compile="always")
        if shape.gradient:
            y[-1].mean().backward()

    return work


class Plain(nn.Module):
    """The equation as torchsde asks for it."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.neural:
            self.drift, self.diffusion = nets(shape)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """Drift."""
        return self.drift(t, y) if hasattr(self, "drift") else y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """Diffusion."""
        return self.diffusion(t, y) if hasattr(self, "diffusion") else torch.exp(-y)


def torchsde(shape: Shape) -> Work:
    """`torchsde.sdeint` or `sdeint_adjoint`, a new Brownian motion in each call."""
    peer: Any = importlib.import_module("torchsde")
    solve = peer.sdeint_adjoint if shape.mode == "adjoint" else peer.sdeint
    sde, ts = Plain(shape), torch.tensor([0.0, 1.0])

    def work() -> None:
        with torch.set_grad_enabled(shape.gradient):
            y = solve(sde, start(shape), ts, dt=1 / shape.steps, method="euler")
        if shape.gradient:
            y[-1].mean().backward()

    return work


def diffrax(shape: Shape) -> Work:
    """`diffrax.diffeqsolve`, jitted and vmapped: on UnsafeBrownianPath forward, on the tree where it differentiates."""
    dfx: Any = importlib.import_module("diffrax")
    jax: Any = importlib.import_module("jax")
    jnp: Any = importlib.import_module("jax.numpy")
    weights = {
        role: {k: jnp.asarray(v.detach().numpy()) for k, v in net.state_dict().items()}
        for role, net in zip(("f", "g"), nets(shape), strict=True)
    }

    def layer(w: Any, y: Any) -> Any:
        return w["outer.weight"] @ jnp.tanh(w["inner.weight"] @ y + w["inner.bias"]) + w["outer.bias"]

    def f(t: Any, y: Any, w: Any) -> Any:
        return layer(w["f"], y) if shape.neural else y

    def g(t: Any, y: Any, w: Any) -> Any:
        return 0.5 * jax.nn.sigmoid(layer(w["g"], y)) if shape.neural else jnp.exp(-y)

    adjoint = dfx.RecursiveCheckpointAdjoint() if shape.gradient else dfx.ForwardMode()

    def path(y0: Any, w: Any, key: Any) -> Any:
        struct = jax.ShapeDtypeStruct((shape.dim,), jnp.float32)
        motion = (
            dfx.VirtualBrownianTree(0.0, 1.0, tol=0.5 / shape.steps, shape=struct, key=key)
            if shape.gradient
            else dfx.UnsafeBrownianPath(shape=struct, key=key)
        )
        noise = dfx.ControlTerm(lambda t, y, p: dfx_diagonal(g(t, y, p)), motion)
        terms = dfx.MultiTerm(dfx.ODETerm(f), noise)
        return dfx.diffeqsolve(terms, dfx.Euler(), 0.0, 1.0, 1 / shape.steps, y0, args=w, adjoint=adjoint).ys[0]

    def dfx_diagonal(values: Any) -> Any:
        return importlib.import_module("lineax").DiagonalLinearOperator(values)

    def mean(y0: Any, w: Any, key: Any) -> Any:
        return jax.vmap(path, in_axes=(0, None, 0))(y0, w, jax.random.split(key, shape.batch)).mean()

    solve = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)) if shape.gradient else mean)
    seeds = itertools.count()
    y0 = jnp.full((shape.batch, shape.dim), START, jnp.float32)

    def work() -> None:
        jax.block_until_ready(solve(y0, weights, jax.random.key(next(seeds))))

    return work


PEERS: dict[str, Callable[[Shape], Work]] = {"torchsde": torchsde, "diffrax": diffrax}


def shapes(quick: bool) -> list[Shape]:
    """The lines of the table."""
    sizes = [(*SHAPES[0], False)] if quick else [*((b, d, False) for b, d in SHAPES), (*NEURAL, True)]
    steps = (STEPS,) if quick else (STEPS, EXACT_STEPS)
    return [Shape(*size, mode, n) for size in sizes for mode in MODES for n in steps]


def compare(shape: Shape, rounds: int) -> list[Row]:
    """Our run and those of the peers that are installed, in turn; the first call, which compiles, is not counted."""
    makers = {"ours": ours, **{n: make for n, make in PEERS.items() if importlib.util.find_spec(n) is not None}}
    if shape.mode == "adjoint" or shape.steps != STEPS:
        makers.pop("diffrax", None)
    work = {name: make(shape) for name, make in makers.items()}
    first = {name: seconds(run) for name, run in work.items()}
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            times[name].append(seconds(run))
    middle = {name: 1e3 * statistics.median(t) for name, t in times.items()}
    rows = []
    for name in PEERS:
        if name == "diffrax" and (shape.mode == "adjoint" or shape.steps != STEPS):
            continue
        floor = FLOOR if name == "torchsde" and shape.steps == STEPS else None
        note = f"first call {first['ours']:.1f} s" if name in work else "peer not installed"
        rows.append(Row(f"{shape.label}, vs {name}", middle["ours"], middle.get(name), floor, "ms", note=note))
    return rows


def rows(quick: bool) -> list[Row]:
    """All lines."""
    return [row for shape in shapes(quick) for row in compare(shape, 3 if quick else 5)]
