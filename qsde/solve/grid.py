"""The time grid: the union of all observation dates, with as many equal steps between them as the step size asks."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass

from qsde.errors import InputError

#: Steps beyond which a grid is refused.
MAX_STEPS = 1 << 20
#: Times closer than this (years, 0.03 seconds) are one date.
_SAME = 1e-9


@dataclass(frozen=True)
class TimeGrid:
    """Steps from time 0 through all observation dates.

    Attributes:
        dates: observation dates, increasing; 0 is allowed and means today.
        sizes: distinct step sizes, years.
        step_size: for each step, the index of its size in `sizes`.
        observed_after: for each date, the number of steps taken before it is observed.
    """

    dates: tuple[float, ...]
    sizes: tuple[float, ...]
    step_size: tuple[int, ...]
    observed_after: tuple[int, ...]

    @classmethod
    def of(
        cls,
        dates: Iterable[float],
        max_dt: float,
        windows: Iterable[tuple[float, float]] = (),
        knots: Iterable[float] = (),
    ) -> TimeGrid:
        """The grid of all dates with steps of at most `max_dt` years (`inf`: one step from date to date).

        Every step's end inside one of the `windows` (start, end) is an observation date too. Steps also end at the
        `knots` that come before the last date.

        Raises:
            InputError: `max_dt` is not positive, there are no dates, one is nearer than 1e-9 years but not now, or the
                grid has more than 2^20 steps.

        Example:
            >>> grid = TimeGrid.of([0.5, 1.0, 0.5], max_dt=0.3)
            >>> grid.dates, grid.sizes, grid.observed_after
            ((0.5, 1.0), (0.25,), (2, 4))
            >>> TimeGrid.of([1.0], max_dt=0.3, windows=[(0.5, 1.0)]).dates
            (0.5, 0.75, 1.0)
        """
        if not max_dt > 0:
            raise InputError(f"max_dt must be positive (years per step), got {max_dt}")
        windows = list(windows)
        given = [*dates, *(end for window in windows for end in window)]
        near = [date for date in given if 0 < date <= _SAME]
        if near:
            raise InputError(
                f"a date in {near[0]:g} years is nearer than {_SAME:g} years (0.03 seconds), too near to be told from "
                "now; give 0 for now, or a later date"
            )
        merged = _merged(given)
        if not merged:
            raise InputError("there are no observation dates to simulate to")
        observed = set(merged)
        merged = _merged([*merged, *(t for t in knots if _SAME < t < merged[-1] and _apart(t, merged))])
        sizes: dict[float, int] = {}
        steps: list[int] = []
        seen: list[tuple[float, int]] = []
        now, watched = 0.0, False
        for date in merged:
            if date - now > _SAME:
                n = 1 if math.isinf(max_dt) else max(1, math.ceil((date - now) / max_dt - 1e-9))
                if len(steps) + n > MAX_STEPS:
                    raise InputError(
                        f"more than {MAX_STEPS:,} steps are needed to reach {date:g} years with max_dt = {max_dt:g}; "
                        "use a larger max_dt"
                    )
                watched = any(start <= now + _SAME and date <= end + _SAME for start, end in windows)
                if watched:
                    seen += [(now + (date - now) * (k / n), len(steps) + k) for k in range(1, n)]
                size = float(f"{(date - now) / n:.12g}")  # sizes that differ by rounding are one size
                steps += [sizes.setdefault(size, len(sizes))] * n
                now = date
            if date in observed or watched:
                seen.append((date, len(steps)))
        return cls(tuple(t for t, _ in seen), tuple(sizes), tuple(steps), tuple(k for _, k in seen))

    def column(self, date: float) -> int:
        """Index of a date among the observation dates."""
        after = bisect.bisect_left(self.dates, date)
        near = range(max(0, after - 1), min(after + 1, len(self.dates)))
        return min(near, key=lambda i: abs(self.dates[i] - date))

    @property
    def times(self) -> tuple[float, ...]:
        """Times of all steps' ends, with 0 first."""
        out = [0.0]
        for i in self.step_size:
            out.append(out[-1] + self.sizes[i])
        return tuple(out)


def _apart(time: float, dates: list[float]) -> bool:
    """Whether a time is none of the dates."""
    i = bisect.bisect_left(dates, time)
    return all(abs(time - date) > _SAME for date in dates[max(0, i - 1) : i + 1])


def _merged(dates: Iterable[float]) -> list[float]:
    merged: list[float] = []
    for date in sorted(dates):
        if not merged or date - merged[-1] > _SAME:
            merged.append(date)
    return merged
