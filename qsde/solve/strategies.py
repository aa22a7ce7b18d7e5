"""The table of gradient strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from qsde.errors import InputError
from qsde.noise.base import BlockNoise
from qsde.schemes.base import State
from qsde.schemes.sde import SDEScheme
from qsde.solve.backwards import AdjointWalk, ReversibleWalk, Walk, simulate_backwards
from qsde.solve.direct import simulate_direct
from qsde.solve.forward import simulate_forward
from qsde.solve.job import Job
from qsde.solve.loop import simulate
from qsde.solve.pullback import Tensors
from qsde.solve.transforms import inside_transform

Gradient = Literal["checkpoint", "direct", "forward", "reversible", "stochastic_adjoint"]
#: `(job, block, coefficients, initial, constants) -> what is seen`
Simulate = Callable[[Job, BlockNoise, Tensor, State, Tensors], Tensors]


@dataclass(frozen=True)
class Strategy:
    """One way to the gradient.

    Attributes:
        simulate: the loop.
        constant_memory: whether memory stays the same however many steps there are.
        transforms: whether it works inside `torch.func` transforms.
    """

    simulate: Simulate
    constant_memory: bool
    transforms: bool


def _walking(walk: type[Walk]) -> Simulate:
    def run(job: Job, block: BlockNoise, coefficients: Tensor, initial: State, constants: Tensors) -> Tensors:
        scheme = job.kernel.scheme
        assert isinstance(scheme, SDEScheme)
        return simulate_backwards(walk(scheme), job, block, coefficients, initial, constants)

    return run


#: Every strategy by name.
STRATEGIES: dict[Gradient, Strategy] = {
    "checkpoint": Strategy(simulate, constant_memory=False, transforms=True),
    "direct": Strategy(simulate_direct, constant_memory=False, transforms=True),
    "forward": Strategy(simulate_forward, constant_memory=True, transforms=False),
    "reversible": Strategy(_walking(ReversibleWalk), constant_memory=True, transforms=False),
    "stochastic_adjoint": Strategy(_walking(AdjointWalk), constant_memory=True, transforms=False),
}


def strategy_for(gradient: Gradient, scheme: SDEScheme, wrapped: bool = False) -> Strategy:
    """The row of this name.

    Args:
        gradient: the name.
        scheme: what moves y.
        wrapped: whether there are jumps or events.

    Raises:
        InputError: there is none, the scheme cannot be undone, or it does not work here.
    """
    if gradient not in STRATEGIES:
        raise InputError(f"gradient must be one of {', '.join(map(repr, get_args(Gradient)))}, got {gradient!r}")
    if gradient == "reversible" and not scheme.reversible:
        raise InputError(
            f"gradient='reversible' undoes the steps of a reversible scheme, and {type(scheme).__name__} is none; use "
            "scheme=ReversibleHeun() on a Stratonovich SDE, or gradient='checkpoint', which is exact for every scheme"
        )
    strategy = STRATEGIES[gradient]
    if wrapped and gradient in ("reversible", "stochastic_adjoint"):
        raise InputError(f"gradient={gradient!r} steps back through no jumps or events; use gradient='checkpoint'")
    if inside_transform() and not strategy.transforms:
        raise InputError(
            f"gradient={gradient!r} does not work inside torch.func transforms; use gradient='checkpoint' or 'direct'"
        )
    return strategy
