"""Contracts that end or live on at dates, by their mean from date to date: smooth in everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.payoffs.base import Piece, Stage
from qsde.payoffs.checks import as_like
from qsde.payoffs.stages import Level, Levels

#: Variances of an interval and prices before dividends below this count as this.
_LEAST, _LEAST_PRICE = 1e-14, 1e-12
#: Probabilities whose quantiles are taken stay inside these.
_LOW, _HIGH = 1e-300, 1 - 1e-16


@dataclass(frozen=True)
class Interval:
    """The law of the price at a date, given its logarithm at the date before and everything but its own noise.

    The price is `scale exp(x) + shift`, `x` normal with mean `mean` and deviation `root`.

    Attributes:
        mean, root: of each path, [*batch, path].
        scale, shift: of the date, broadcast against them.
    """

    mean: Tensor
    root: Tensor
    scale: Tensor
    shift: Tensor

    def distance(self, level: Level) -> Tensor:
        """Deviations from the mean of `x` up to a level of the price."""
        moving = (as_like(level, self.mean) - self.shift).clamp(min=_LEAST_PRICE)
        return (torch.log(moving / self.scale) - self.mean) / self.root

    def worth(self, piece: Piece) -> Tensor:
        """Mean of what a piece pays."""
        low, high = (None if level is None else self.distance(level) for level in (piece.lower, piece.upper))
        inside = _between(low, high)
        total = as_like(piece.cash, inside) * inside
        if not isinstance(piece.assets, Tensor) and piece.assets == 0:
            return total
        low, high = (None if z is None else z - self.root for z in (low, high))  # with the price as numeraire
        moving = self.scale * torch.exp(self.mean + 0.5 * self.root.square()) * _between(low, high)
        return total + as_like(piece.assets, inside) * (moving + self.shift * inside)

    def stay(self, levels: Levels, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Probability that the price lies between two levels, and its `x`, drawn given that it does."""
        low, high = (None if level is None else self.distance(level) for level in levels)
        inside = _between(low, high)
        if low is None:
            z = torch.special.ndtri((uniform * inside).clamp(_LOW, _HIGH))
        elif high is None:
            z = -torch.special.ndtri(((1 - uniform) * inside).clamp(_LOW, _HIGH))
        else:
            z = torch.special.ndtri((_below(low) + uniform * inside).clamp(_LOW, _HIGH))
        return inside, self.mean + self.root * z


def survived(
    stages: Sequence[Stage],
    means: Tensor,
    variances: Tensor,
    uniforms: Tensor,
    affine: tuple[Tensor, Tensor],
    discount: Callable[[float], Tensor],
    today: bool = False,
) -> Tensor:
    """Present value of a contract on each path, [*batch, path]: the mean of each date given the date before.

    At each date the price is drawn given that the contract lives on, and the probability that it does is kept as a
    weight: whatever jumps is replaced by its mean, which may be differentiated any number of times.

    Args:
        stages: the dates in order.
        means: mean of the log-price given everything but its own noise, at the dates, [date, *batch, path].
        variances: its variance, likewise.
        uniforms: independent uniforms, likewise.
        affine: scale and shift of the price at the dates, [date, *batch, 1] each.
        discount: discount factor to a time.
        today: whether the first date is now, when nothing is left to chance.

    References:
        Glasserman and Staum (2001), "Conditioning on one-step survival for barrier option simulations", Operations
        Research 49(6); Alm, Harrach, Harrach and Keller (2013), "A Monte Carlo pricing algorithm for autocallables that
        allows for stable differentiation", J. Computational Finance 17(1).
    """
    steps, spreads = (torch.diff(v, dim=0, prepend=torch.zeros_like(v[:1])) for v in (means, variances))
    x, alive = torch.zeros_like(means[0]), torch.ones_like(means[0])
    total = torch.zeros_like(x)
    for k, stage in enumerate(stages):
        if k == 0 and today:
            price = affine[0][0] + affine[1][0]
            total = total + _known(stage, price, discount)
            alive = alive * _inside(stage.stays, price)
            continue
        root = torch.sqrt(spreads[k].clamp(min=_LEAST))
        interval = Interval(x + steps[k], root, affine[0][k], affine[1][k])
        for piece in stage.pieces:
            total = total + alive * interval.worth(piece) * discount(piece.paid).to(x).unsqueeze(-1)
        if stage is not stages[-1]:
            inside, x = interval.stay(stage.stays, uniforms[k])
            alive = alive * inside
    return total


def _known(stage: Stage, price: Tensor, discount: Callable[[float], Tensor]) -> Tensor:
    """Present value of what is paid for a price that is there."""
    total = torch.zeros_like(price)
    for piece in stage.pieces:
        amount = as_like(piece.cash, price) + as_like(piece.assets, price) * price
        total = total + amount * _inside((piece.lower, piece.upper), price) * discount(piece.paid).to(price).unsqueeze(
            -1
        )
    return total


def _inside(levels: Levels, price: Tensor) -> Tensor:
    """1 where a price lies between two levels, 0 elsewhere."""
    lower, upper = levels
    inside = torch.ones_like(price, dtype=torch.bool)
    inside = inside if lower is None else inside & (price > lower)
    return (inside if upper is None else inside & (price < upper)).to(price.dtype)


def _between(low: Tensor | None, high: Tensor | None) -> Tensor:
    """Probability that a normal lies between two numbers."""
    if low is None:
        return torch.ones(()) if high is None else _below(high)
    return _below(-low) if high is None else (_below(high) - _below(low)).clamp(min=0)


def _below(z: Tensor) -> Tensor:
    probability: Tensor = 0.5 * torch.special.erfc(-math.sqrt(0.5) * z)
    return probability
