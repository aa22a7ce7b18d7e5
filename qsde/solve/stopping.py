"""The first time at which a path meets a barrier: paths that stop there, and the probability of not having stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.sde import SDE
from qsde.noise import Noise, Threefry
from qsde.schemes import SDEScheme
from qsde.solve.compiled import Compile
from qsde.solve.integrate import prepared
from qsde.solve.run import Options, Run
from qsde.solve.watching import Distance, Killing, Reward, Stopping, Watching
from qsde.solve.wrapped import Wrapped

_SEED_0 = Threefry(seed=0)


@dataclass(frozen=True)
class Stopped:
    """Paths that stay where they met the barrier.

    Attributes:
        y: [len(ts), P, *shape]; where the path met the barrier from then on.
        time: when it did, [P]; inf where it did not.
        hit: whether it did, [P].
    """

    y: Tensor
    time: Tensor
    hit: Tensor


@dataclass(frozen=True)
class Killed:
    """Paths that go on, and how likely they are not to have met the barrier, given their grid points.

    Attributes:
        y: [len(ts), P, *shape].
        survival: probability of no event so far, [len(ts), P].
        reward: expected reward of the event so far, [len(ts), P].
    """

    y: Tensor
    survival: Tensor
    reward: Tensor


def stopped(
    sde: SDE,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    distance: Distance,
    *,
    max_dt: float,
    scheme: SDEScheme | None = None,
    noise: Noise = _SEED_0,
    per_path: Mapping[str, Tensor] | None = None,
    compile: Compile = "auto",
    memory_budget: int = 1 << 30,
) -> Stopped:
    """Solves the SDE until `distance(t, y, params)` first is 0, and stays there.

    Whether a path meets the barrier inside a step is drawn from the law of the bridge, and when from that of its first
    passage (an inverse Gaussian). It has no gradient: moving a parameter moves paths across the barrier, which no
    derivative of a path sees. `killed` gives means with gradients.

    Args:
        sde: the equation.
        y0: starts, [P, *shape].
        ts: increasing times, the first of them the start.
        distance: [P], positive where the event has not happened; differentiable in y.
        max_dt: largest step.
        scheme: as in `sdeint`.
        noise: the random numbers.
        per_path: parameters of each path, as in `sdeint`.
        compile: as in `sdeint`.
        memory_budget: as in `sdeint`.

    Raises:
        InputError: as `sdeint`; or a gradient is asked for.

    Reference:
        Gobet (2000), "Weak approximation of killed diffusion using Euler schemes", Stoch. Proc. Appl. 87; Michael,
        Schucany, Haas (1976), Amer. Statist. 30, for the inverse Gaussian.

    Example:
        Brownian motion from 0 until it meets 1, which it does before time 4 with probability 2 N(-1/2):

        >>> brownian = SDE(lambda t, y, p: 0 * y, lambda t, y, p: 1 + 0 * y)
        >>> out = stopped(brownian, torch.zeros(20_000), [0.0, 4.0], lambda t, y, p: 1 - y, max_dt=0.5)
        >>> abs(float(out.hit.float().mean()) - 0.6171) < 0.01
        True
    """
    wanted = (y0, ts, *sde.params.values(), *(per_path or {}).values())
    if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in wanted):
        raise InputError(
            "stopped paths have no gradient, since events come and go; use qsde.solve.killed, whose means have one, or "
            "torch.no_grad()"
        )
    wrap = _wrapper(Stopping, distance)
    y, time = _run(sde, y0, ts, wrap, max_dt, scheme, noise, per_path, "checkpoint", compile, memory_budget).paths()
    return Stopped(y, time[-1], torch.isfinite(time[-1]))


def killed(
    sde: SDE,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    distance: Distance,
    reward: Reward | None = None,
    *,
    max_dt: float,
    scheme: SDEScheme | None = None,
    noise: Noise = _SEED_0,
    per_path: Mapping[str, Tensor] | None = None,
    gradient: Literal["checkpoint", "direct", "forward"] = "checkpoint",
    compile: Compile = "auto",
    memory_budget: int = 1 << 30,
) -> Killed:
    """Solves the SDE on, with the probability that `distance(t, y, params)` has not met 0, and a reward for it.

    `mean(f(y[-1]) survival[-1])` is the mean of f over paths without an event, `1 - mean(survival[-1])` the probability
    of the event, and `mean(reward[-1])` the mean reward: `reward=lambda t, y, p: t` with `mean(reward[-1] + T
    survival[-1])` gives the mean of the time of the event or of the end T. All are continuous in parameters, start and
    barrier, so that their gradients are unbiased for the discrete law; its bias is of the order of the step.

    Args:
        sde: the equation.
        y0: starts, [P, *shape].
        ts: increasing times, the first of them the start.
        distance: as in `stopped`.
        reward: what the event pays, from its time [P], the state there [P, *shape] and the parameters; None is 0.
        max_dt: largest step.
        scheme: as in `sdeint`.
        noise: the random numbers.
        per_path: parameters of each path, as in `sdeint`.
        gradient: as in `sdeint`.
        compile: as in `sdeint`.
        memory_budget: as in `sdeint`.

    Reference:
        Gobet (2000), Stoch. Proc. Appl. 87, theorem 2.1.

    Example:
        The same probability, and its derivative to the start:

        >>> brownian = SDE(lambda t, y, p: 0 * y, lambda t, y, p: 1 + 0 * y)
        >>> y0 = torch.zeros(20_000, requires_grad=True)
        >>> out = killed(brownian, y0, [0.0, 4.0], lambda t, y, p: 1 - y, max_dt=0.5)
        >>> hit = 1 - out.survival[-1].mean()
        >>> (slope,) = torch.autograd.grad(hit, y0)
        >>> abs(float(hit.detach()) - 0.6171) < 0.01, abs(float(slope.sum()) - 0.3521) < 0.01
        (True, True)
    """
    wrap = _wrapper(Killing, distance, reward=reward)
    return Killed(*_run(sde, y0, ts, wrap, max_dt, scheme, noise, per_path, gradient, compile, memory_budget).paths())


def _wrapper(kind: type[Watching], distance: Distance, **fields: Any) -> Callable[[SDEScheme], Wrapped]:
    return lambda scheme: kind(scheme.dynamics, inner=scheme, distance=distance, **fields)


def _run(
    sde: SDE, y0: Tensor, ts: Tensor | Sequence[float], wrap: Callable[[SDEScheme], Wrapped], max_dt: float,
    scheme: SDEScheme | None, noise: Noise, per_path: Mapping[str, Tensor] | None, gradient: Any, compile: Compile,
    memory_budget: int,
) -> Run:  # fmt: skip
    model, times, own = prepared(sde, y0, ts, per_path)
    return Run.of(
        model, y0, times, own, Options(max_dt, scheme, noise, gradient, None, compile, memory_budget, wrap=wrap)
    )
