"""Where `torch.func` transforms are at work: what the solver must know about them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack


def inside_transform() -> bool:
    """Whether a `torch.func` transform (grad, jvp, vmap) is running."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def several_at_once(tensors: Iterable[Tensor]) -> bool:
    """Whether each of these stands for many that it does not show: in a transform, or with `is_grads_batched`."""
    return inside_transform() or any(torch._C._functorch.is_legacy_batchedtensor(t) for t in tensors)


def outside_transforms() -> AbstractContextManager[object]:
    """Tensors made in this context belong to no transform.

    Whatever is made inside a transform is wrapped for it; noise is replayed by the backward sweep, where the wrapping
    no longer fits.

    Example:
        >>> with outside_transforms():
        ...     inside_transform()
        False
    """
    return temporarily_clear_interpreter_stack()
