"""Gradients of first order: what they say to whoever differentiates them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import constant

#: What is said of a second derivative path by path.
SECOND_ORDER = (
    "simulated prices have gradients of first order: differentiating a gradient once more would miss the kinks of "
    "the payoffs; use qsde.greeks.greeks, or a difference of first-order gradients with the same noise"
)
_OTHER_STRATEGY = "this gradient strategy has gradients of first order only; use gradient='direct' for second"


def once(
    gradients: Sequence[Tensor | None], *inputs: Tensor, otherwise: str = _OTHER_STRATEGY
) -> tuple[Tensor | None, ...]:
    """The same gradients; whoever differentiates them, as to their inputs, gets an InputError that says `otherwise`."""
    found = [g for g in gradients if g is not None]
    sealed = iter(_Once.apply(otherwise, len(found), *found, *inputs) if found else ())  # type: ignore[no-untyped-call]
    return tuple(None if g is None else next(sealed) for g in gradients)


def first_order(values: Tensor) -> Tensor:
    """The same values, whose gradient may not be differentiated again: kinks of a payoff have no second derivative.

    Without it the second derivative of a price to the spot would come out as 0.
    """
    sealed: Tensor = values if constant(values) else _FirstOrder.apply(values)  # type: ignore[no-untyped-call]
    return sealed


class _Once(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(otherwise: str, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors[:n])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.otherwise = inputs[0]

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[None, ...]:
        raise InputError(ctx.otherwise)


class _FirstOrder(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor | None:
        # the gradient of a kink does not depend on the values; that it seems to makes the second one ask here
        return once([gradient], *ctx.saved_tensors, otherwise=SECOND_ORDER)[0]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.view_as(tangent)
