"""Paths of a user's own SDE at the times asked for, through the same loop as prices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.models.sde import SDE
from qsde.noise import Noise, Threefry
from qsde.noise.base import BlockNoise
from qsde.numerics import holds
from qsde.schemes import SDEScheme, State, scheme_for
from qsde.schemes.layers import refusal
from qsde.solve.compiled import Compile, kernel_for
from qsde.solve.grid import TimeGrid
from qsde.solve.loop import STORED, Job, Kernel, simulate
from qsde.solve.transforms import outside_transforms

#: More paths in a block do not run faster, fewer pay more for each operation.
_MOST_PATHS, _LEAST_PATHS = 1 << 16, 1 << 10
_SEED_0 = Threefry(seed=0)
#: Times closer than this are one date to the grid.
_CLOSEST = 2e-9


def sdeint(
    sde: SDE,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    *,
    max_dt: float,
    scheme: SDEScheme | None = None,
    noise: Noise = _SEED_0,
    per_path: Mapping[str, Tensor] | None = None,
    compile: Compile = "auto",
    memory_budget: int = 1 << 30,
) -> Tensor:
    """Solves `dy = drift(t, y) dt + diffusion(t, y) dW` on many paths: y at the times `ts`.

    Differentiable in `y0`, in the parameters of the SDE and in `ts`: the exact gradient of the discrete solution, of
    first order, by drawing the noise again (see `qsde.solve.loop`). `torch.func.grad`, `jvp` and `vmap` work too; what
    vmap maps over shares the noise. Path `i` sees the same noise whatever the number of paths and of blocks.

    Where a time moves, the normals stay: a longer step has a larger increment, so that gradients to `ts` are unbiased
    for means over paths, though a path of Brownian motion itself has no derivative in time.

    Args:
        sde: the equation. Its `initial` is not needed.
        y0: state of each path at `ts[0]`, [P, *shape], float32 or float64; paths are simulated in its dtype, on its
            device.
        ts: increasing times; the first is the start, which need not be 0.
        max_dt: largest step, in the unit of `ts`. Between two times the steps are equal.
        scheme: None takes `EulerMaruyama()`, or `Heun()` for a Stratonovich SDE.
        noise: the random numbers, a value: same noise, same digits.
        per_path: further parameters of the functions that differ from path to path, [P, ...] each, such as the context
            of an encoder; differentiable. Modules get them as a mapping in a third argument.
        compile: "auto" compiles when the job is large enough to pay, "always" or "never". A kernel belongs to its
            functions: define them once, not anew for each call.
        memory_budget: bytes that one block of paths may take; it decides the size of blocks, never the result.

    Returns:
        [len(ts), P, *shape], of which the first is `y0`.

    Raises:
        InputError: `y0` or `ts` has the wrong shape, the functions do not fit, or a gradient would be lost.
        NumericsError: a path left the finite numbers.

    Reference:
        Kloeden, Platen (1992), "Numerical Solution of Stochastic Differential Equations", chapter 10.

    Example:
        An Ornstein-Uhlenbeck process from 1,000 starts, and the gradient of its mean to the speed:

        >>> speed = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> ou = SDE(lambda t, y, p: -p["speed"] * y, lambda t, y, p: 0.3 + 0 * y, parameters={"speed": speed})
        >>> y0 = torch.linspace(0.0, 2.0, 1000, dtype=torch.float64)
        >>> y = sdeint(ou, y0, [1.0, 1.5, 2.0], max_dt=0.01)
        >>> y.shape
        torch.Size([3, 1000])
        >>> (slope,) = torch.autograd.grad(y[-1].mean(), speed)
        >>> abs(float(slope) + math.exp(-2.0)) < 0.02
        True
    """
    _check_states(sde, y0)
    times = _checked_times(ts)
    own = _checked_per_path(per_path or {}, sde, y0)
    model = sde.with_params({name: p.to(y0.device, y0.dtype) for name, p in sde.params.items()})
    run = _Run.of(model, y0, times, max_dt, scheme or scheme_for(model), noise, own, compile, memory_budget)  # type: ignore[arg-type]
    parts = [run.block(first) for first in range(0, len(y0), run.size)]
    return torch.cat(parts, 1)[:, : len(y0)] if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class _Run:
    """One call of `sdeint`: what all blocks share.

    Attributes:
        y0: starts of all paths, [P, *shape].
        shared: parameters that all paths share.
        own: parameters of each path, [P, ...].
        job: kernel and grid.
        coefficients: numbers of the steps, [steps, C, 1].
        noise: the random numbers.
        size: paths of a block.
    """

    y0: Tensor
    shared: tuple[Tensor, ...]
    own: tuple[Tensor, ...]
    job: Job
    coefficients: Tensor
    noise: Noise
    size: int

    @classmethod
    def of(
        cls, model: SDE, y0: Tensor, times: Tensor, max_dt: float, scheme: SDEScheme, noise: Noise,
        own: dict[str, Tensor], compile: Compile, memory_budget: int,
    ) -> _Run:  # fmt: skip
        if not isinstance(scheme, SDEScheme):
            raise refusal(f"{type(scheme).__name__} does not step functions", model)
        few = _few_paths(y0)
        dynamics = model.dynamics(y0.detach()[few], times[0].detach().to(y0), {k: v[few] for k, v in own.items()})
        scheme = scheme.bound(dynamics)
        grid = TimeGrid.of((times.detach() - times[0].detach()).tolist(), max_dt)
        n_paths, n_steps, entries = len(y0), len(grid.step_size), math.prod(y0.shape[1:])
        states = min(n_steps, STORED) + n_steps // STORED + 12 + 3 * len(times)
        normals = scheme.normals(dynamics)
        per_path = y0.dtype.itemsize * entries * states + noise.bytes_per_path(max(1, n_steps), normals, 0, y0.dtype)
        most = min(_MOST_PATHS, max(_LEAST_PATHS, memory_budget // per_path))
        size = math.ceil(n_paths / math.ceil(n_paths / most))
        job = Job.of(kernel_for(scheme, n_paths * n_steps * entries, compile), grid)
        coefficients = _coefficients(scheme, model, times, grid).to(y0.device, y0.dtype)
        return cls(y0, scheme.constants(model), tuple(own.values()), job, coefficients, noise, size)

    def block(self, first: int) -> Tensor:
        """The paths from this one on, [dates, size, *shape]; past the last path it is repeated, to keep the size."""
        y0, grid, scheme = self.y0, self.job.grid, self.scheme
        assert scheme.dynamics is not None
        with outside_transforms():
            paths = torch.arange(first, first + self.size).clamp(max=len(y0) - 1)
            steps = torch.tensor(grid.times, dtype=torch.float64)
            n_steps = max(1, self.job.n_steps)
            normals = scheme.normals(scheme.dynamics)
            draws = self.noise.block(paths, n_steps, normals, 0, y0.dtype, y0.device, steps)
            if not self.job.kernel.compiled:
                draws = draws.ahead(n_steps)
        constants = (*self.shared, *(self._rows(values, first) for values in self.own))
        equation = scheme.dynamics.at(constants)
        initial = scheme.start(equation, self.coefficients[0, 0, 0], self._rows(y0, first).contiguous())
        (out,) = simulate(self.job, draws, self.coefficients, initial, constants)
        if not holds(torch.isfinite(out.detach())):
            raise NumericsError(self._where_not_finite(draws, initial, constants))
        return out

    @property
    def scheme(self) -> SDEScheme:
        """The scheme, bound."""
        scheme = self.job.kernel.scheme
        assert isinstance(scheme, SDEScheme)
        return scheme

    def _rows(self, values: Tensor, first: int) -> Tensor:
        rows = values[first : first + self.size]
        missing = self.size - len(rows)
        return torch.cat([rows, values[-1:].expand(missing, *values.shape[1:])]) if missing else rows

    def _where_not_finite(self, draws: BlockNoise, state: State, constants: tuple[Tensor, ...]) -> str:
        kernel = Kernel.eager(self.scheme)
        state, constants = tuple(s.detach() for s in state), tuple(k.detach() for k in constants)
        for k, row in enumerate(self.job.rows):
            state = kernel.advance(state, self.coefficients[row].detach(), constants, draws, torch.tensor(k))
            if not bool(torch.isfinite(state[0]).all()):
                break
        time = float(self.coefficients[k, :2, 0].detach().sum())
        return f"SDE under {type(self.scheme).__name__}: a path is not finite at step {k} (t = {time:.4g})"


def _coefficients(scheme: SDEScheme, model: SDE, times: Tensor, grid: TimeGrid) -> Tensor:
    """Numbers of all steps, [steps, C, 1], differentiable in the times."""
    counts = torch.tensor(grid.observed_after).diff()
    sizes = (times.diff() / counts).repeat_interleave(counts)
    within = torch.cat([torch.arange(int(n)) for n in counts])
    starts = times[:-1].repeat_interleave(counts) + within * sizes
    return scheme.coefficients(model, sizes, starts).movedim(1, 0).unsqueeze(-1)


def _few_paths(y0: Tensor) -> Tensor:
    """Rows to try the functions on; how many is not the length of a path's state, which tells [P, d] from [d, m]."""
    few = 4 if y0.shape[1:2] == (3,) else 3
    return torch.arange(few, device=y0.device).clamp(max=len(y0) - 1)


def _check_states(sde: SDE, y0: Tensor) -> None:
    if not isinstance(sde, SDE):
        raise InputError(f"sdeint solves an SDE, got {type(sde).__name__}; other models: qsde.pricing.montecarlo.price")
    start = sde.params.get("initial")
    wanted = "*shape" if start is None else str(len(start))
    fits = isinstance(y0, Tensor) and y0.dim() > 0 and y0.numel() > 0
    if not fits or (start is not None and y0.shape[1:] != start.shape):
        got = list(y0.shape) if isinstance(y0, Tensor) else type(y0).__name__
        raise InputError(f"y0 must be a tensor [P, {wanted}], the state of each path at ts[0], got {got}")
    if y0.dtype not in (torch.float32, torch.float64):
        raise InputError(f"y0 must be float32 or float64, got {y0.dtype}")
    if not holds(torch.isfinite(y0)):
        raise InputError("y0 must be finite, got an entry that is not")


def _checked_per_path(per_path: Mapping[str, Tensor], sde: SDE, y0: Tensor) -> dict[str, Tensor]:
    for name, values in per_path.items():
        if name in sde.params:
            raise InputError(f"per_path[{name!r}] is a parameter of the SDE already; give one of them another name")
        if not isinstance(values, Tensor) or values.dim() == 0 or len(values) != len(y0):
            got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(f"per_path[{name!r}] must be a tensor [P, ...] with P = {len(y0)} as in y0, got {got}")
    return {name: values.to(y0.device, y0.dtype) for name, values in per_path.items()}


def _checked_times(ts: Tensor | Sequence[float]) -> Tensor:
    times = torch.as_tensor(ts, dtype=torch.float64).cpu()
    if times.dim() != 1 or len(times) < 2 or not holds(torch.isfinite(times)):
        raise InputError(f"ts must be a vector of two or more finite times, the first of them the start, got {ts}")
    if not holds(times.diff() > _CLOSEST):
        raise InputError(f"ts must increase by more than {_CLOSEST:g} from each to the next, got {times.tolist()}")
    return times
