"""Steps between the times of a solution, for all paths or for each, with coefficients differentiable in those times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.models.sde import SDE
from qsde.schemes.sde import SDEScheme
from qsde.solve.grid import TimeGrid


@dataclass(frozen=True)
class Steps:
    """Steps as fractions of the interval between two times in which they lie.

    Attributes:
        counts: number of steps in each interval.
        begins, ends: float64 [n_steps, 1], or [n_steps, P] where each path has steps of its own; steps of paths that
            need fewer are empty.
        parts: what lies between, likewise; apart, because differences of large numbers of small steps round.
    """

    counts: tuple[int, ...]
    begins: Tensor
    ends: Tensor
    parts: Tensor

    @classmethod
    def equal(cls, counts: Sequence[int]) -> Steps:
        """Steps of equal size in each interval."""
        edges = [torch.arange(n + 1, dtype=torch.float64).unsqueeze(-1) / n for n in counts]
        parts = torch.cat([e.new_full((len(e) - 1, 1), 1 / (len(e) - 1)) for e in edges])
        return cls(tuple(counts), torch.cat([e[:-1] for e in edges]), torch.cat([e[1:] for e in edges]), parts)

    @classmethod
    def between(cls, counts: Sequence[int], begins: Tensor, ends: Tensor) -> Steps:
        """Steps of any size."""
        return cls(tuple(counts), begins, ends, ends - begins)

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.begins)

    def times(self, ts: Tensor) -> tuple[Tensor, Tensor]:
        """Starts and ends [n_steps, 1 or P] for times [n]."""
        ts = ts.to(self.begins.device)
        counts = torch.tensor(self.counts, device=ts.device)
        first, span = (t.repeat_interleave(counts).unsqueeze(-1) for t in (ts[:-1], ts.diff()))
        return first + self.begins * span, first + self.ends * span

    def coefficients(self, scheme: SDEScheme, model: SDE, ts: Tensor) -> Tensor:
        """Numbers of all steps, [n_steps, 3, 1 or P], differentiable in the times; an empty step has no size."""
        counts = torch.tensor(self.counts, device=self.begins.device)
        starts, _ = self.times(ts)
        full = self.parts > 0
        span = ts.to(self.begins.device).diff().repeat_interleave(counts).unsqueeze(-1)
        sizes = torch.where(full, self.parts, 1.0) * span
        c = scheme.coefficients(model, sizes, starts)
        return torch.cat([c[:1], torch.where(full, c[1:], 0.0)]).movedim(1, 0)

    def grid(self, ts: Tensor) -> TimeGrid:
        """When the times come, counted in steps; sizes are nominal."""
        dates = (ts.detach() - ts[0].detach()).tolist()
        spans = ts.detach().diff().tolist()
        sizes = tuple(span / n for span, n in zip(spans, self.counts, strict=True))
        which = tuple(i for i, n in enumerate(self.counts) for _ in range(n))
        after = torch.tensor((0, *self.counts)).cumsum(0).tolist()
        return TimeGrid(tuple(dates), sizes, which, tuple(after))
