"""A few elements of large tensors, worked on by themselves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Picked:
    """The elements of tensors [*, path, time] that a mask picks.

    What is not picked costs next to nothing. Inside `torch.func.vmap`, where it cannot be known how many there are, all
    are worked on.

    Args:
        mask: which, [*, path, time], time-major in memory as simulated paths are.

    Example:
        >>> some = Picked(torch.tensor([[True, False]]))
        >>> some.back(torch.sqrt(some.of(torch.tensor([[4.0, 9.0]]))), 1.0)
        tensor([[2., 1.]])
    """

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask
        self._rows = _positions(mask)

    def of(self, values: Tensor) -> Tensor:
        """Those of `values`, which broadcasts against the mask."""
        values = values.expand(self._mask.shape)
        return values if self._rows is None else values.movedim(-1, 0).reshape(-1).index_select(0, self._rows)

    def back(self, values: Tensor, rest: float, before: int = 0, after: int = 0) -> Tensor:
        """`values` in their places and `rest` elsewhere, [*, path, before + time + after]."""
        if self._rows is None:
            return torch.nn.functional.pad(torch.where(self._mask, values, rest), (before, after), value=rest)
        n = self._mask.shape[-1]
        column = self._mask.shape[:-1].numel()
        flat = values.new_full(((before + n + after) * column,), rest)
        places = self._rows + before * column if before else self._rows
        return flat.index_copy_(0, places, values).reshape(-1, *self._mask.shape[:-1]).movedim(0, -1)


def _positions(mask: Tensor) -> Tensor | None:
    flat = mask.movedim(-1, 0).reshape(-1)
    if flat.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(flat):
        return torch.from_numpy(np.flatnonzero(flat.numpy()))  # nonzero() takes nine times as long
    try:
        return flat.nonzero().squeeze(-1)
    except RuntimeError as reason:
        if "vmap" not in str(reason):
            raise
        return None
