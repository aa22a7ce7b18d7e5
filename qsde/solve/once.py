"""Gradients that are not to be differentiated again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qsde.errors import InputError


def once(gradients: Sequence[Tensor | None], *inputs: Tensor) -> tuple[Tensor | None, ...]:
    """The same gradients; whoever differentiates them to the inputs that they were computed from gets an InputError."""
    found = [g.detach() for g in gradients if g is not None]
    sealed = iter(_Once.apply(len(found), *found, *inputs) if found else ())  # type: ignore[no-untyped-call]
    return tuple(None if g is None else next(sealed) for g in gradients)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors[:n])

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[None, ...]:
        raise InputError("this gradient strategy has gradients of first order only; use gradient='direct' for second")
