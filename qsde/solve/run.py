"""One call of `sdeint`: what all blocks of paths share, and the solution of one block."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.models.sde import SDE
from qsde.noise import Noise, Threefry
from qsde.noise.base import BlockNoise
from qsde.noise.brownian_steps import BrownianSteps
from qsde.numerics import holds
from qsde.schemes import EulerMaruyama, Heun, ItoMilstein, SDEScheme, State
from qsde.schemes.layers import refusal
from qsde.solve.adaptive import Adaptive, accepted_steps, check_adaptive, tree_for
from qsde.solve.compiled import Compile, kernel_for
from qsde.solve.grid import TimeGrid
from qsde.solve.job import STORED, Job
from qsde.solve.jumps import Jumping, JumpNoise, Jumps, jump_times, jumping_steps
from qsde.solve.kernel import Kernel
from qsde.solve.steps import Steps
from qsde.solve.strategies import Gradient, Strategy, strategy_for
from qsde.solve.transforms import inside_transform, outside_transforms
from qsde.solve.wrapped import Wrapped

#: More paths in a block do not run faster, fewer pay more for each operation.
_MOST_PATHS, _LEAST_PATHS = 1 << 16, 1 << 10


@dataclass(frozen=True)
class Options:
    """How to solve, as `sdeint` is told."""

    max_dt: float | None
    scheme: SDEScheme | None
    noise: Noise
    gradient: Gradient
    adaptive: Adaptive | None
    compile: Compile
    memory_budget: int
    jumps: Jumps | None = None
    wrap: Callable[[SDEScheme], Wrapped] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.noise, Noise):
            raise InputError(f"noise must be one of qsde.noise, such as Threefry(seed=1), got {self.noise!r:.60}")


@dataclass(frozen=True)
class Run:
    """What all blocks share.

    Attributes:
        y0: starts of all paths, [P, *shape].
        shared: parameters that all paths share.
        own: parameters of each path, [P, ...].
        job: kernel and grid.
        coefficients: numbers of the steps, [steps, C, 1 or P].
        noise: the random numbers.
        strategy: the way to the gradient.
        size: paths of a block.
    """

    y0: Tensor
    shared: tuple[Tensor, ...]
    own: tuple[Tensor, ...]
    job: Job
    coefficients: Tensor
    noise: Noise
    strategy: Strategy
    size: int

    @classmethod
    def of(cls, model: SDE, y0: Tensor, ts: Tensor, own: Mapping[str, Tensor], options: Options) -> Run:
        """The run, its steps found.

        Args:
            model: the SDE in the dtype and on the device of the paths.
            y0: starts.
            ts: times, float64 on the CPU.
            own: parameters of each path.
            options: how to solve.
        """
        few = _few_paths(y0)
        dynamics = model.dynamics(y0.detach()[few], ts[0].detach().to(y0), {k: v[few] for k, v in own.items()})
        scheme = options.scheme or _default(dynamics.interpretation, dynamics.noise, options.adaptive)
        if not isinstance(scheme, SDEScheme):
            raise refusal(f"{type(scheme).__name__} does not step functions", model)
        scheme = scheme.bound(dynamics)
        strategy = strategy_for(options.gradient, scheme, wrapped=options.jumps is not None or options.wrap is not None)
        shared = scheme.constants(model)
        n_paths, entries = len(y0), math.prod(y0.shape[1:])
        flags: Tensor | None = None
        if options.jumps is not None:
            scheme, steps, noise, flags = _with_jumps(options, options.jumps, scheme, y0, ts)
            grid, kernel = steps.grid(ts), Kernel.eager(scheme)
        elif options.adaptive is not None:
            steps, noise = _found(options, options.adaptive, scheme, y0, (*shared, *own.values()), ts)
            grid, kernel = steps.grid(ts), Kernel.eager(scheme)
        else:
            scheme = options.wrap(scheme) if options.wrap else scheme
            grid, steps, noise = _fixed(ts, options)
            kernel = kernel_for(scheme, n_paths * steps.n_steps * entries, options.compile)
        normals = scheme.normals(dynamics)
        stored = 0 if strategy.constant_memory else min(steps.n_steps, STORED) + steps.n_steps // STORED
        held = noise.bytes_per_path(max(1, steps.n_steps), normals, 0, y0.dtype)
        per_path = y0.dtype.itemsize * entries * (stored + 12 + 3 * len(ts)) + held
        most = min(_MOST_PATHS, max(_LEAST_PATHS, options.memory_budget // per_path))
        size = math.ceil(n_paths / math.ceil(n_paths / most))
        coefficients = steps.coefficients(scheme, model, ts).to(y0.device, y0.dtype)
        if flags is not None:
            coefficients = torch.cat([coefficients, flags.unsqueeze(1).to(coefficients)], 1)
        seen = scheme.seen if isinstance(scheme, Wrapped) else (0,)
        return cls(y0, shared, tuple(own.values()), Job.of(kernel, grid, seen), coefficients, noise, strategy, size)

    def paths(self) -> tuple[Tensor, ...]:
        """All paths at all times, [dates, P, *shape], and what else the scheme shows."""
        parts = [self.block(first) for first in range(0, len(self.y0), self.size)]
        if len(parts) == 1:
            return parts[0]
        return tuple(torch.cat(column, 1)[:, : len(self.y0)] for column in zip(*parts, strict=True))

    def block(self, first: int) -> tuple[Tensor, ...]:
        """The paths from this one on, [dates, size, *shape]; past the last path it is repeated, to keep the size."""
        scheme = self.scheme
        assert scheme.dynamics is not None
        draws = self._draws(first, scheme.normals(scheme.dynamics))
        constants = (*self.shared, *(self._rows(values, first) for values in self.own))
        c = self.coefficients
        if c.shape[-1] > 1:
            c = self._rows(c.movedim(-1, 0), first).movedim(0, -1)
        equation = scheme.dynamics.at(constants)
        initial = scheme.start(equation, c[0, 0, 0], self._rows(self.y0, first).contiguous())
        out = self.strategy.simulate(self.job, draws, c, initial, constants)
        if not holds(torch.isfinite(out[0].detach())):
            raise NumericsError(self._where_not_finite(draws, c.detach(), initial, constants))
        return out

    @property
    def scheme(self) -> SDEScheme:
        """The scheme, bound."""
        scheme = self.job.kernel.scheme
        assert isinstance(scheme, SDEScheme)
        return scheme

    def _draws(self, first: int, normals: int) -> BlockNoise:
        y0, n_steps = self.y0, max(1, self.job.n_steps)
        uniforms = self.scheme.uniforms if isinstance(self.scheme, Wrapped) else 0
        with outside_transforms():
            paths = torch.arange(first, first + self.size).clamp(max=len(y0) - 1)
            times = torch.tensor(self.job.grid.times, dtype=torch.float64)
            draws = self.noise.block(paths, n_steps, normals, uniforms, y0.dtype, y0.device, times)
            return draws if self.job.kernel.compiled else draws.ahead(n_steps)

    def _rows(self, values: Tensor, first: int) -> Tensor:
        rows = values[first : first + self.size]
        missing = self.size - len(rows)
        return torch.cat([rows, values[-1:].expand(missing, *values.shape[1:])]) if missing else rows

    def _where_not_finite(self, draws: BlockNoise, c: Tensor, state: State, constants: tuple[Tensor, ...]) -> str:
        kernel = Kernel.eager(self.scheme)
        state, constants = tuple(s.detach() for s in state), tuple(k.detach() for k in constants)
        for k, row in enumerate(self.job.rows):
            state = kernel.advance(state, c[row], constants, draws, k)
            if not bool(torch.isfinite(state[0]).all()):
                break
        time = float(c[k, :2].sum(0).max())
        return f"SDE under {type(self.scheme).__name__}: a path is not finite at step {k} (t = {time:.4g})"


def _default(interpretation: str, noise: str, adaptive: Adaptive | None) -> SDEScheme:
    """The scheme to take where none is given."""
    if interpretation == "stratonovich":
        return Heun()
    return ItoMilstein() if adaptive and noise in ("diagonal", "scalar") else EulerMaruyama()


def _fixed(ts: Tensor, options: Options) -> tuple[TimeGrid, Steps, Noise]:
    if options.max_dt is None:
        raise InputError("sdeint needs max_dt, the largest step, or adaptive=Adaptive(...)")
    grid = TimeGrid.of((ts.detach() - ts[0].detach()).tolist(), options.max_dt)
    counts = torch.tensor(grid.observed_after).diff().tolist()
    return grid, Steps.equal(counts), options.noise


def _found(
    options: Options, adaptive: Adaptive, scheme: SDEScheme, y0: Tensor, constants: tuple[Tensor, ...], ts: Tensor
) -> tuple[Steps, Noise]:
    """The steps that the error asks for, and the Brownian tree over them."""
    noise = options.noise
    if options.max_dt is not None:
        raise InputError("with adaptive steps give adaptive=Adaptive(max_dt=...) in place of max_dt")
    if options.compile == "always":
        raise InputError("adaptive steps are not compiled; use compile='auto'")
    if not isinstance(noise, Threefry):
        raise InputError(f"adaptive steps draw from a Brownian tree, got {noise}; use noise=Threefry(seed)")
    if inside_transform():
        raise InputError("adaptive steps depend on values and do not work inside torch.func transforms; use max_dt")
    check_adaptive(scheme)
    assert scheme.dynamics is not None
    tree = tree_for(adaptive, ts.detach(), noise.seed, noise.rounds)
    motions = scheme.dynamics.motions
    motion = tree.block(torch.arange(len(y0)), motions, y0.dtype, y0.device)
    with torch.no_grad():
        state = scheme.start(scheme.dynamics.at(constants), ts[0].detach().to(y0), y0.detach())
    steps = accepted_steps(adaptive, scheme, state, constants, ts.detach(), motion)
    return steps, BrownianSteps(tree, motions, *steps.times(ts.detach()))


def _with_jumps(
    options: Options, jumps: Jumps, scheme: SDEScheme, y0: Tensor, ts: Tensor
) -> tuple[SDEScheme, Steps, Noise, Tensor]:
    """The scheme with jumps, steps that end at them, their noise, and at which steps paths jump."""
    noise = options.noise
    if options.adaptive is not None or options.wrap is not None:
        raise InputError("jumps go with steps of max_dt, not with adaptive steps or events")
    if options.compile == "always":
        raise InputError("steps that end at jumps are not compiled; use compile='auto'")
    if not isinstance(noise, Threefry):
        raise InputError(f"steps that end at jumps draw from a Brownian tree, got {noise}; use noise=Threefry(seed)")
    if inside_transform():
        raise InputError("jumps depend on values and do not work inside torch.func transforms")
    if ts.requires_grad:
        raise InputError("with jumps there is no gradient to ts, since jumps come and go; pass ts.detach()")
    assert scheme.dynamics is not None
    if len(scheme.tails) > 1:
        raise InputError(f"{type(scheme).__name__} carries more than y along, which a jump would break; use Heun()")
    counts = _fixed(ts, options)[1].counts
    paths = torch.arange(len(y0), device=y0.device)
    times = jump_times(jumps, noise, paths, float(ts[0]), float(ts[-1]))
    steps, flags, which = jumping_steps(counts, ts, times)
    source = JumpNoise.of(noise, scheme.dynamics.motions, jumps.marks, steps, ts, which)
    return Jumping(scheme.dynamics, inner=scheme, law=jumps), steps, source, flags


def _few_paths(y0: Tensor) -> Tensor:
    """Rows to try the functions on; how many is not the length of a path's state, which tells [P, d] from [d, m]."""
    few = 4 if y0.shape[1:2] == (3,) else 3
    return torch.arange(few, device=y0.device).clamp(max=len(y0) - 1)
