"""Where nothing is differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.autograd import forward_ad


@contextmanager
def constant() -> Iterator[None]:
    """What is computed here is a constant to both modes of differentiation; `torch.no_grad` stops the reverse one only.

    Example:
        >>> def f(x):
        ...     with constant():
        ...         frozen = 2 * x
        ...     return frozen * x
        >>> torch.func.jvp(f, (torch.tensor(3.0),), (torch.tensor(1.0),))[1]
        tensor(6.)
    """
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        yield
