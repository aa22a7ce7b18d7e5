"""Paths of a user's own SDE at the times asked for, through the same loop as prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.sde import SDE
from qsde.noise import Noise, Threefry
from qsde.numerics import holds
from qsde.schemes import SDEScheme
from qsde.solve.adaptive import Adaptive
from qsde.solve.compiled import Compile
from qsde.solve.jumps import Jumps
from qsde.solve.run import Options, Run
from qsde.solve.strategies import Gradient

_SEED_0 = Threefry(seed=0)
#: Times closer than this are one date to the grid.
_CLOSEST = 2e-9


def sdeint(
    sde: SDE,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    *,
    max_dt: float | None = None,
    scheme: SDEScheme | None = None,
    noise: Noise = _SEED_0,
    per_path: Mapping[str, Tensor] | None = None,
    gradient: Gradient = "checkpoint",
    adaptive: Adaptive | None = None,
    jumps: Jumps | None = None,
    compile: Compile = "auto",
    memory_budget: int = 1 << 30,
) -> Tensor:
    """Solves `dy = drift(t, y) dt + diffusion(t, y) dW` on many paths: y at the times `ts`.

    Differentiable in `y0`, in the parameters of the SDE and in `ts`, in one of five ways:

    | `gradient` | is | states in memory, n steps | besides |
    |---|---|---|---|
    | "checkpoint" | exact for the discrete solution | 100 + n / 100 | `torch.func` |
    | "direct" | the same, by plain autograd | some n | `torch.func`; second derivatives |
    | "forward" | the same, by tangents | constant | at most 512 numbers to differentiate to; not to `ts` |
    | "reversible" | the same, steps undone | constant | `scheme=ReversibleHeun()` |
    | "stochastic_adjoint" | within the error of the steps | constant | any scheme |

    Inside `torch.func.grad`, `jvp` and `vmap` what vmap maps over shares the noise. Path `i` sees the same noise
    whatever the number of paths and of blocks.

    Where a time moves, the normals stay: a longer step has a larger increment, so that gradients to `ts` are unbiased
    for means over paths, though a path of Brownian motion itself has no derivative in time.

    Args:
        sde: the equation. Its `initial` is not needed.
        y0: state of each path at `ts[0]`, [P, *shape], float32 or float64; paths are simulated in its dtype, on its
            device.
        ts: increasing times; the first is the start, which need not be 0.
        max_dt: largest step, in the unit of `ts`. Between two times the steps are equal.
        scheme: None takes `EulerMaruyama()`, or `Heun()` for a Stratonovich SDE; with adaptive steps `ItoMilstein()`
            where noise is diagonal or scalar.
        noise: the random numbers, a value: same noise, same digits.
        per_path: further parameters of the functions that differ from path to path, [P, ...] each, such as the context
            of an encoder; differentiable. Modules get them as a mapping in a third argument.
        gradient: see above.
        adaptive: steps that follow the error, in place of `max_dt`. The grid is found first, without gradients; the
            solution on it, and its gradient, is then that of given steps.
        jumps: jumps of a Poisson process besides; steps end where a path jumps, and the functions are given `t` as
            [P, 1, ...].
        compile: "auto" compiles when the job is large enough to pay, "always" or "never". A kernel belongs to its
            functions: define them once, not anew for each call.
        memory_budget: bytes that one block of paths may take; it decides the size of blocks, never the result.

    Returns:
        [len(ts), P, *shape], of which the first is `y0`.

    Raises:
        InputError: `y0` or `ts` has the wrong shape, the functions do not fit, a gradient would be lost, or the
            strategy, the scheme and the steps do not go together.
        NumericsError: a path left the finite numbers, or the tolerance asks for steps below `min_dt`.
        StepLimitError: adaptive steps reached their limit.

    Reference:
        Kloeden, Platen (1992), "Numerical Solution of Stochastic Differential Equations", chapter 10; Li, Wong, Chen,
        Duvenaud (2020), "Scalable gradients for stochastic differential equations", arXiv:2001.01328.

    Example:
        An Ornstein-Uhlenbeck process from 1,000 starts, and the gradient of its mean to the speed:

        >>> speed = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> ou = SDE(lambda t, y, p: -p["speed"] * y, lambda t, y, p: 0.3 + 0 * y, parameters={"speed": speed})
        >>> y0 = torch.linspace(0.0, 2.0, 1000, dtype=torch.float64)
        >>> y = sdeint(ou, y0, [1.0, 1.5, 2.0], max_dt=0.01)
        >>> y.shape
        torch.Size([3, 1000])
        >>> (slope,) = torch.autograd.grad(y[-1].mean(), speed)
        >>> abs(float(slope) + 0.1353) < 0.02  # -exp(-2)
        True
    """
    model, times, own = prepared(sde, y0, ts, per_path)
    options = Options(max_dt, scheme, noise, gradient, adaptive, compile, memory_budget, jumps)
    return Run.of(model, y0, times, own, options).paths()[0]


def prepared(
    sde: SDE, y0: Tensor, ts: Tensor | Sequence[float], per_path: Mapping[str, Tensor] | None
) -> tuple[SDE, Tensor, dict[str, Tensor]]:
    """The SDE in the dtype of `y0`, the times, and the parameters of each path, all checked."""
    _check_states(sde, y0)
    times = _checked_times(ts)
    own = _checked_per_path(per_path or {}, sde, y0)
    return sde.with_params({name: p.to(y0.device, y0.dtype) for name, p in sde.params.items()}), times, own


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
