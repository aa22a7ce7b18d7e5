"""Observed time series: several of them on common times, with a mask for what was not seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError

#: Observations below which there is nothing to learn from.
_FEWEST = 2
#: Relative difference of times below which windows count as equally spaced.
_EQUAL = 1e-3


@dataclass(frozen=True, eq=False)
class Series:
    """B time series of d channels on N common times, which may be irregular.

    Series seen at different times share the union of their times; the mask says who was seen when.

    Attributes:
        times: [N], increasing, float64, in a unit in which the series turns over in about one (a month of trading days
            for volatility): networks learn best where their inputs and outputs are of order one.
        values: [B, N, d], floating; a single series may be given as [N, d].
        mask: [B, N, d] or [B, N], true where a value was seen; None where all were. Values that were not seen are set
            to 0 and never used.

    Raises:
        InputError: the times do not increase, there are fewer than two, shapes do not fit, a seen value is not finite,
            or a series has no value at all.

    Example:
        >>> series = Series(torch.tensor([0.0, 0.1, 0.4]), torch.zeros(5, 3, 2))
        >>> series
        Series(5 series, 3 times from 0 to 0.4, 2 channels, 30 values)
    """

    times: Tensor
    values: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        values = self.values.unsqueeze(0) if self.values.dim() == 2 else self.values
        if values.dim() != 3 or not values.is_floating_point() or 0 in values.shape:
            raise InputError(
                f"values must be floating numbers [B, N, d]: series, times, channels; got {values.dtype} "
                f"{list(self.values.shape)}"
            )
        times = _checked_times(self.times, values.shape[1])
        mask = _checked_mask(self.mask, values)
        _check_finite(values, mask)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "values", torch.where(mask, values, 0.0))
        object.__setattr__(self, "mask", mask)

    @property
    def seen(self) -> Tensor:
        """The mask [B, N, d]."""
        assert self.mask is not None
        return self.mask

    @property
    def channels(self) -> int:
        """Number d of channels."""
        return self.values.shape[2]

    def __len__(self) -> int:
        """Number B of series."""
        return len(self.values)

    def __repr__(self) -> str:
        b, n, d = self.values.shape
        span = f"{n} times from {float(self.times[0]):g} to {float(self.times[-1]):g}"
        return f"Series({b} series, {span}, {d} channels, {int(self.seen.sum())} values)"

    def select(self, index: Tensor | slice) -> Series:
        """Some of the series.

        Example:
            >>> Series(torch.arange(3.0), torch.zeros(5, 3, 2)).select(slice(0, 2))
            Series(2 series, 3 times from 0 to 2, 2 channels, 12 values)
        """
        return Series(self.times, self.values[index], self.seen[index])

    def between(self, first: int, last: int) -> Series:
        """The observations numbered `first` to `last - 1` of every series.

        Example:
            >>> Series(torch.arange(5.0), torch.zeros(5, 5, 2)).between(0, 3)
            Series(5 series, 3 times from 0 to 2, 2 channels, 30 values)
        """
        return Series(self.times[first:last], self.values[:, first:last], self.seen[:, first:last])

    def windows(self, length: int, stride: int = 1) -> Series:
        """Stretches of `length` observations of one equally spaced series, as series whose time starts at 0.

        Raises:
            InputError: several series, times that are not equally spaced, or fewer than `length` of them.

        Example:
            >>> Series(torch.arange(10.0), torch.arange(10.0).unsqueeze(-1)).windows(4, stride=3).values.squeeze(-1)
            tensor([[0., 1., 2., 3.],
                    [3., 4., 5., 6.],
                    [6., 7., 8., 9.]])
        """
        gaps = self.times.diff()
        if len(self) != 1 or bool((gaps - gaps.mean()).abs().max() > _EQUAL * gaps.mean()):
            raise InputError(
                f"windows are cut from one series on equally spaced times, got {self!r}; number trading days, not "
                "calendar days, or put the series on a grid with a mask"
            )
        if not _FEWEST <= length <= len(self.times) or stride < 1:
            raise InputError(
                f"windows need {_FEWEST} <= length <= {len(self.times)} observations and stride >= 1, got "
                f"length={length}, stride={stride}"
            )
        values, mask = (x[0].unfold(0, length, stride).movedim(-1, 1) for x in (self.values, self.seen))
        return Series(torch.arange(length, dtype=torch.float64) * gaps.mean(), values, mask)


def _checked_times(times: Tensor, n: int) -> Tensor:
    if times.dim() != 1 or len(times) != n:
        raise InputError(f"times must be [N] with N = {n}, the second axis of values, got {list(times.shape)}")
    if n < _FEWEST:
        raise InputError(f"a series needs {_FEWEST} observations or more, got {n}")
    out = times.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(out).all()):
        raise InputError(f"times must be finite, got {float(out[~torch.isfinite(out)][0])}")
    if not bool((out.diff() > 0).all()):
        at = int((out.diff() <= 0).nonzero()[0])
        raise InputError(
            f"times must increase, got {float(out[at]):g} followed by {float(out[at + 1]):g} (number {at + 1}); sort "
            "them and join observations of one time"
        )
    return out


def _checked_mask(mask: Tensor | None, values: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(values, dtype=torch.bool)
    wide = mask.unsqueeze(-1).expand_as(values) if mask.shape == values.shape[:2] else mask
    if wide.shape != values.shape or wide.dtype != torch.bool:
        raise InputError(
            f"mask must be bool {list(values.shape)} or {list(values.shape[:2])}, got {mask.dtype} {list(mask.shape)}"
        )
    empty = ~wide.flatten(1).any(1)
    if bool(empty.any()):
        raise InputError(f"series {int(empty.nonzero()[0])} has no value that was seen; drop it")
    return wide


def _check_finite(values: Tensor, mask: Tensor) -> None:
    bad = mask & ~torch.isfinite(values)
    if bool(bad.any()):
        b, n, c = bad.nonzero()[0].tolist()
        raise InputError(
            f"series {b} has {float(values[b, n, c])} at observation {n}, channel {c}; drop it, or set mask to False "
            "there"
        )
