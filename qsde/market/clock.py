"""How far away dates are while time passes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.market.curves import Times


@dataclass(frozen=True)
class Clock:
    """Years to dates that all come closer by what has elapsed: `t - elapsed min(t / first, 1)`.

    Nothing happens before the `first` date, so what lies between now and it may be squeezed, and now stays now. The
    derivative to `elapsed` at 0 is that to the passing of time.

    Attributes:
        elapsed: years, 0-dim, or with an axis of 1 at the end.
        first: the first date that is later than now.

    Example:
        >>> Clock(torch.tensor(0.1, dtype=torch.float64), first=0.5)([0.0, 0.25, 0.5, 1.0])
        tensor([0.0000, 0.2000, 0.4000, 0.9000], dtype=torch.float64)
    """

    elapsed: Tensor
    first: float

    def __call__(self, dates: Times) -> Tensor:
        """Years to dates, in their shape; they may have the axes of `elapsed` in front."""
        dates = torch.as_tensor(dates, dtype=torch.float64)
        return dates - self.elapsed * self._share(dates)

    def steps(self, size: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Sizes and starts of steps likewise, exactly those given as long as nothing has elapsed."""
        lost = self._share(start + size) - self._share(start)
        return size - self.elapsed * lost, self(start)

    def _share(self, dates: Tensor) -> Tensor:
        return (dates / self.first).clamp(max=1.0)
