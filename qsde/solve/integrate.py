"""Paths of a user's own SDE at the times asked for, through the same loop as prices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.models.sde import SDE
from qsde.noise import Noise, Threefry
from qsde.noise.base import BlockNoise
from qsde.numerics import holds
from qsde.schemes import Scheme, scheme_for
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
    scheme: Scheme | None = None,
    noise: Noise = _SEED_0,
    compile: Compile = "auto",
    memory_budget: int = 1 << 30,
) -> Tensor:
    """Solves `dy = drift(t, y) dt + diffusion(t, y) dW` on many paths: y at the times `ts`.

    Differentiable in `y0` and in the parameters of the SDE: the exact gradient of the discrete solution, of first
    order, by drawing the noise again (see `qsde.solve.loop`). `torch.func.grad`, `jvp` and `vmap` work too; what vmap
    maps over shares the noise. Path `i` sees the same noise whatever the number of paths and of blocks.

    Args:
        sde: the equation. Its `initial` only says how many components there are.
        y0: state of each path at `ts[0]`, [P, d], float32 or float64; paths are simulated in its dtype, on its device.
        ts: increasing times; the first is the start, which need not be 0.
        max_dt: largest step, in the unit of `ts`. Between two times the steps are equal.
        scheme: None takes `EulerMaruyama()`; `ItoMilstein()` has strong order 1 for diagonal and scalar noise.
        noise: the random numbers, a value: same noise, same digits.
        compile: "auto" compiles when the job is large enough to pay, "always" or "never". A kernel belongs to its
            functions: define them once, not anew for each call.
        memory_budget: bytes that one block of paths may take; it decides the size of blocks, never the result.

    Returns:
        [len(ts), P, d], of which the first is `y0`.

    Raises:
        InputError: `y0` or `ts` has the wrong shape, the functions do not fit, or a gradient would be lost.
        NumericsError: a path left the finite numbers.

    Reference:
        Kloeden, Platen (1992), "Numerical Solution of Stochastic Differential Equations", chapter 10.

    Example:
        An Ornstein-Uhlenbeck process from 1,000 starts, and the gradient of its mean to the speed:

        >>> speed = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> ou = SDE(lambda t, y, p: -p["speed"] * y, lambda t, y, p: 0.3 + 0 * y, [0.0], {"speed": speed})
        >>> y0 = torch.linspace(0.0, 2.0, 1000, dtype=torch.float64).unsqueeze(-1)
        >>> y = sdeint(ou, y0, [1.0, 1.5, 2.0], max_dt=0.01)
        >>> y.shape
        torch.Size([3, 1000, 1])
        >>> (slope,) = torch.autograd.grad(y[-1].mean(), speed)
        >>> abs(float(slope) + math.exp(-2.0)) < 0.02
        True
    """
    _check_states(sde, y0)
    times = _checked_times(ts)
    model = sde.with_params({name: p.to(y0.device, y0.dtype) for name, p in sde.params.items()})
    run = _Run.of(model, y0, times, max_dt, scheme or scheme_for(model), noise, compile, memory_budget)
    parts = [run.block(first) for first in range(0, len(y0), run.size)]
    return torch.cat(parts, 1)[:, : len(y0)] if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class _Run:
    """One call of `sdeint`: what all blocks share.

    Attributes:
        model: the SDE in the dtype and on the device of the paths.
        y0: starts of all paths, [P, d].
        start: time of the start; the grid counts from it.
        job: kernel and grid.
        coefficients: numbers of the steps, [rows, C, 1].
        noise: the random numbers.
        factors: normals and uniforms of a step.
        size: paths of a block.
    """

    model: SDE
    y0: Tensor
    start: float
    job: Job
    coefficients: Tensor
    noise: Noise
    factors: tuple[int, int]
    size: int

    @classmethod
    def of(
        cls, model: SDE, y0: Tensor, times: list[float], max_dt: float,
        scheme: Scheme, noise: Noise, compile: Compile, memory_budget: int,
    ) -> _Run:  # fmt: skip
        scheme.check(model)
        scheme = scheme.bind(model)
        grid = TimeGrid.of([t - times[0] for t in times], max_dt)
        n_paths, d = y0.shape
        n_steps = len(grid.step_size)
        factors = scheme.draws(model, max(grid.sizes, default=0.0))
        states = min(n_steps, STORED) + n_steps // STORED + 12 + 3 * len(times)
        per_path = y0.dtype.itemsize * d * states + noise.bytes_per_path(max(1, n_steps), *factors, y0.dtype)
        most = min(_MOST_PATHS, max(_LEAST_PATHS, memory_budget // per_path))
        size = math.ceil(n_paths / math.ceil(n_paths / most))
        job = Job.of(kernel_for(scheme, n_paths * n_steps, compile), grid, range(d))
        dt, t = job.row_times()
        coefficients = scheme.coefficients(model, dt, t + times[0]).movedim(1, 0).unsqueeze(-1)
        return cls(model, y0, times[0], job, coefficients.to(y0.device, y0.dtype), noise, factors, size)

    def block(self, first: int) -> Tensor:
        """The paths from this one on, [dates, size, d]; past the last path it is repeated, so that shapes are equal."""
        y0, grid, size = self.y0, self.job.grid, self.size
        with outside_transforms():
            paths = torch.arange(first, first + size).clamp(max=len(y0) - 1)
            steps = torch.tensor(grid.times, dtype=torch.float64)
            draws = self.noise.block(paths, max(1, self.job.n_steps), *self.factors, y0.dtype, y0.device, steps)
        rows = y0[first : first + size]
        if len(rows) < size:
            rows = torch.cat([rows, y0[-1:].expand(size - len(rows), -1)])
        initial = tuple(component.contiguous() for component in rows.unbind(-1))
        constants = self.job.kernel.scheme.constants(self.model)
        out = torch.stack(simulate(self.job, draws, self.coefficients, initial, constants), -1)
        if not holds(torch.isfinite(out.detach())):
            raise NumericsError(self._where_not_finite(draws, initial, constants))
        return out

    def _where_not_finite(self, draws: BlockNoise, state: tuple[Tensor, ...], constants: tuple[Tensor, ...]) -> str:
        job = replace(self.job, kernel=Kernel.eager(self.job.kernel.scheme))
        state, constants = tuple(s.detach() for s in state), tuple(k.detach() for k in constants)
        for k, row in enumerate(job.rows):
            state = job.kernel.advance(state, self.coefficients[row], constants, draws, torch.tensor(k))
            if not all(bool(torch.isfinite(s).all()) for s in state):
                break
        time = self.start + job.grid.times[k + 1]
        return f"SDE under {type(job.kernel.scheme).__name__}: a path is not finite at step {k} (t = {time:.4g})"


def _check_states(sde: SDE, y0: Tensor) -> None:
    if not isinstance(sde, SDE):
        raise InputError(f"sdeint solves an SDE, got {type(sde).__name__}; other models: qsde.pricing.montecarlo.price")
    d = len(sde.params["initial"])
    if not isinstance(y0, Tensor) or y0.dim() != 2 or not len(y0) or y0.shape[1] != d:
        got = list(y0.shape) if isinstance(y0, Tensor) else type(y0).__name__
        raise InputError(f"y0 must be a tensor [P, {d}], the state of each path at ts[0], got {got}")
    if y0.dtype not in (torch.float32, torch.float64):
        raise InputError(f"y0 must be float32 or float64, got {y0.dtype}")
    if not holds(torch.isfinite(y0)):
        raise InputError("y0 must be finite, got an entry that is not")


def _checked_times(ts: Tensor | Sequence[float]) -> list[float]:
    if isinstance(ts, Tensor) and ts.requires_grad:
        raise InputError("ts has no gradient: times are where the grid lies; pass ts.detach()")
    times = torch.as_tensor(ts, dtype=torch.float64)
    if times.dim() != 1 or len(times) < 2 or not bool(torch.isfinite(times).all()):
        raise InputError(f"ts must be a vector of two or more finite times, the first of them the start, got {ts}")
    if not bool((times.diff() > _CLOSEST).all()):
        raise InputError(f"ts must increase by more than {_CLOSEST:g} from each to the next, got {times.tolist()}")
    out: list[float] = times.tolist()
    return out
