"""What a Brownian bridge does between two prices that are seen: stay, leave, and how far it went.

Between two neighbouring times log price is a Brownian bridge with quadratic variation w. All formulas are exact for it;
they take logarithmic distances, so that one formula serves barriers above and below. They stay finite, with finite
gradients, at w = 0 and for ends on or beyond a barrier.

References:
    Borodin and Salminen, Handbook of Brownian Motion (2002), part II, section 1;
    Beaglehole, Dybvig and Zhou, "Going to extremes", Financial Analysts Journal 53 (1997), 62-68.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsde.numerics import holds
from qsde.payoffs.picked import Picked

#: Bridges with less quadratic variation have this much: paths within a millionth of a barrier may count as over it.
_LEAST_VARIANCE = 1e-12
#: Images on either side, and up to which variance in units of the squared width they are exact to 1e-15; beyond, sines.
_IMAGES, _FEW_UP_TO, _IMAGES_UP_TO, _SINES = 3, 0.1, 0.6, 3
#: The same without any, for bridges whose ends are half a width apart at most.
_NONE_UP_TO = 0.028
#: Rounds of a fixed point in which an extreme and the variance to it find each other: 0.1 % with steps of 1/8 year.
_ROUNDS = 2
#: The variance on the way to a level is at least this share of the interval's own, before the root.
_LEAST_SHARE = 1e-3
#: Bridges whose way to a barrier has this exponent, or more, do not get there.
_NEVER = 30.0
#: Exponents below this count as this.
_LEAST_EXPONENT = -80.0
#: Arguments up to which the product that defines erfcx is good to 1e-13, or to rounding; erfc vanishes soon after.
_ERFCX_UP_TO = {torch.float64: 25.0, torch.float32: 9.0}
#: The same for the mean exit time, exact to 1e-7.
_EXIT_IMAGES, _EXIT_FEW_UP_TO, _EXIT_UP_TO = 4, 0.24, 2.0


def survival(start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
    """Probability that a bridge stays on its side of one barrier: `1 - exp(-2 start end / variance)`.

    Args:
        start: log distance from the barrier at the start, positive on the side that counts: `log(B / S)` under a
            barrier above, `log(S / B)` over one below.
        end: the same at the end.
        variance: quadratic variation of log price in between.

    Returns:
        Probabilities of the broadcast shape; 0 where an end is on the barrier or beyond.

    Example:
        >>> survival(torch.tensor([0.2, 0.2]), torch.tensor([0.1, -0.1]), torch.tensor(0.04))
        tensor([0.6321, 0.0000])
    """
    return -torch.expm1(-2.0 * torch.relu(start) * torch.relu(end) / variance.clamp(min=_LEAST_VARIANCE))


def variance_to(variance: Tensor, slope: Tensor | None, offset: Tensor) -> Tensor:
    """Quadratic variation w with which a bridge goes to a level, where the variance moves with the price.

    Under stochastic volatility correlated with the price, a path that has gone up has less variance (rho < 0) than the
    ends of the interval tell. Given both ends, the variance at log price x has the mean `w + slope (x - m)`, m the
    middle of the two ends. In the coordinate in which the path is a Brownian motion, the time integral of
    `dx / sqrt(variance)`, the distances to the level are the log distances with w replaced by
    `sqrt(w (w + slope offset))`, to leading order in the length of the interval. It takes the error of an up-and-out
    call under Heston at 32 steps a year from 3 % to 0.3 %.

    Args:
        variance: quadratic variation over the interval.
        slope: its change per unit of log price; None leaves the variance as it is.
        offset: log distance of the level from the middle of the two ends, positive above.

    Example:
        >>> variance_to(torch.tensor(0.04), torch.tensor(-0.1), torch.tensor(0.3))
        tensor(0.0200)
    """
    if slope is None:
        return variance
    w = variance.clamp(min=_LEAST_VARIANCE)
    return w * torch.sqrt((1.0 + slope * offset / w).clamp(min=_LEAST_SHARE))


def reach(variance: Tensor, slope: Tensor | None, side: float) -> Tensor:
    """How far beyond both its ends a bridge gets with a probability below `exp(-30)`.

    The probability of going x beyond is at most `exp(-2 x^2 / w)`; the variance w on the way there (`variance_to`) is
    at most `w + slope x / 2`, or the least that it may be.

    Args:
        variance: quadratic variation of log price in between.
        slope: its change per unit of log price, if there is one.
        side: 1 for above, -1 for below.

    Example:
        >>> reach(torch.tensor(0.04), None, 1.0)
        tensor(0.7746)
    """
    square = (0.5 * _NEVER) * variance.clamp(min=_LEAST_VARIANCE)
    if slope is None:
        return torch.sqrt(square)
    lean = (0.125 * _NEVER * side) * slope
    least = _LEAST_SHARE**0.25 * torch.sqrt(square)
    return torch.maximum(torch.addcmul(square, lean, lean).sqrt_().add_(lean), least)


def may_reach(beyond: Tensor, variance: Tensor, slope: Tensor | None, side: float, depth: Tensor) -> Tensor:
    """Whether an extreme drawn with `-log u = depth` lies so far beyond both ends of its bridge, 0 or more.

    Example:
        >>> may_reach(torch.tensor([0.89, 0.90]), torch.tensor(0.04), None, 1.0, torch.tensor(40.0))
        tensor([ True, False])
    """
    left = beyond if slope is None else beyond - torch.relu((0.25 * side) * slope) * depth
    return beyond * left <= 0.5 * depth * variance


def time_to_hit(start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
    """Mean of the share of the interval that passes before a bridge hits a barrier, times the probability of a hit.

    With b and e the distances at start and end divided by the square root of the variance, it is
    `b sqrt(pi / 2) exp(-2 b max(e, 0)) erfcx((b + |e|) / sqrt 2)`, the integral of the share against the density of the
    first passage time. Divided by `1 - survival` it is the mean of the share given a hit. Variance is taken to accrue
    evenly over the interval.

    Args:
        start: log distance from the barrier at the start; beyond it counts as on it.
        end: the same at the end.
        variance: quadratic variation of log price in between.

    Example:
        >>> at_the_money = time_to_hit(torch.tensor(0.2), torch.tensor(0.0), torch.tensor(0.04))
        >>> round(float(at_the_money), 4)
        0.6557
    """
    size = torch.sqrt(variance.clamp(min=_LEAST_VARIANCE))
    before, after = torch.relu(start) / size, end / size
    hit = _exp(-2.0 * before * torch.relu(after))
    return math.sqrt(0.5 * math.pi) * before * hit * _erfcx(math.sqrt(0.5) * (before + after.abs()))


def _passage(distance: Tensor, end: Tensor, nearer: Tensor) -> Tensor:
    """One image's part in the mean time to a barrier, `a sqrt(pi / 2) exp((m^2 - (|a| + |e|)^2) / 2) erfc(...)`.

    Args:
        distance: signed distance a of the image from the barrier, over the square root of the variance, as all here.
        end: distance e left at the end; the path itself moves by m = d - e.
        nearer: the path's own distance at the start less that of the image, `d - |a|`, at most 0: the exponent is
            written in it because m and |a| + |e| cancel.
    """
    away = distance.abs()
    exponent = (0.5 * nearer - torch.relu(end)) * (2.0 * away + nearer + 2.0 * torch.relu(-end))
    scaled = _erfcx(math.sqrt(0.5) * (away + end.abs()))
    return math.sqrt(0.5 * math.pi) * distance * _exp(exponent) * scaled


def _erfcx(x: Tensor) -> Tensor:
    """`exp(x^2) erfc(x)` for x >= 0, in a third of the time of torch's own."""
    most = _ERFCX_UP_TO[x.dtype]
    low, large = x.clamp(max=most), x > most
    some = Picked(large.reshape(-1))
    high = some.back(torch.special.erfcx(some.of(x.reshape(-1))), 0.0).reshape(x.shape)
    return torch.where(large, high, torch.exp(low.square()) * torch.special.erfc(low))


def survival_between(start: Tensor, end: Tensor, width: Tensor, variance: Tensor) -> Tensor:
    """Probability that a bridge stays between two barriers.

    For small variance w the series over images, `sum_n exp(-2 n L (n L + y - x) / w) - exp(-2 (n L + x)(n L + y) / w)`
    with x and y the log distances from the lower barrier and L the width; for large w the sine series of the same
    function. Both are exact to about 1e-15.

    Args:
        start: log distance above the lower barrier at the start.
        end: the same at the end.
        width: log distance between the barriers.
        variance: quadratic variation in between.

    Example:
        >>> survival_between(torch.tensor(0.1), torch.tensor(0.1), torch.tensor(0.2), torch.tensor(0.01))
        tensor(0.7300)
    """
    x, y = (torch.minimum(torch.relu(d), width) for d in (start, end))
    square = width * width
    limit = _IMAGES_UP_TO * square
    near = torch.minimum(variance.clamp(min=_LEAST_VARIANCE), limit)
    if not (_any_above(variance, _NONE_UP_TO * square) or _any_above((x - y).abs(), 0.5 * width)):
        probability = _image_series(x, y, width, near, 0)
    elif _any_above(variance, _FEW_UP_TO * square):
        far = _sine_series(x, y, width, torch.maximum(variance, limit))
        probability = torch.where(variance <= limit, _image_series(x, y, width, near, _IMAGES), far)
    else:
        probability = _image_series(x, y, width, near, 1)
    within = (start > 0) & (end > 0) & (start < width) & (end < width)
    return torch.where(within, probability.clamp(0.0, 1.0), torch.zeros_like(probability))


def _any_above(variance: Tensor, limit: Tensor) -> bool:
    """Whether a long series is needed; where values cannot be looked at, inside `torch.func.vmap`, it is."""
    return holds((variance > limit).any())


def _image_series(x: Tensor, y: Tensor, width: Tensor, variance: Tensor, images: int) -> Tensor:
    lower, upper = -2.0 * x * y / variance, -2.0 * (width - x) * (width - y) / variance
    # 1 - exp(lower) - exp(upper), the largest terms, without cancellation near either barrier
    total = torch.expm1(lower) * torch.expm1(upper) - _exp(lower + upper)
    for n in range(1, images + 1):
        for shift in (n * width, -n * width):
            total = total + _exp(-2.0 * shift * (shift + y - x) / variance)
        for shift in (n * width, -(n + 1) * width):
            total = total - _exp(-2.0 * (shift + x) * (shift + y) / variance)
    return total


def _exp(x: Tensor) -> Tensor:
    """The exponential, with what is next to nothing cut off: denormal numbers take twenty times as long."""
    return torch.exp(x.clamp(min=_LEAST_EXPONENT))


def _sine_series(x: Tensor, y: Tensor, width: Tensor, variance: Tensor) -> Tensor:
    unit = math.pi / width
    terms = (
        torch.sin(k * unit * x) * torch.sin(k * unit * y) * torch.exp(-0.5 * (k * unit) ** 2 * variance)
        for k in range(1, _SINES + 1)
    )
    series = sum(terms, torch.zeros_like(x + y + variance))
    return 2.0 / width * torch.sqrt(2.0 * math.pi * variance) * torch.exp(0.5 * (y - x) ** 2 / variance) * series


def time_to_exit(start: Tensor, end: Tensor, width: Tensor, variance: Tensor) -> Tensor:
    """Mean share of the interval that passes before a bridge leaves a corridor, times the probability that it leaves.

    The series over images of `time_to_hit` for both barriers. Above a variance of twice the squared width, where the
    path leaves early, that of a shorter interval with the same drift is scaled: the error is below 0.01 of an interval.

    Args:
        start: log distance above the lower barrier at the start.
        end: the same at the end.
        width: log distance between the barriers.
        variance: quadratic variation in between.
    """
    length = torch.minimum(variance.clamp(min=_LEAST_VARIANCE), _EXIT_UP_TO * width * width)
    shrink = length / variance.clamp(min=_LEAST_VARIANCE)
    x = torch.minimum(torch.relu(start), width)
    move = (end - x) * shrink
    size = torch.sqrt(length)
    images = _EXIT_IMAGES if _any_above(variance, _EXIT_FEW_UP_TO * width * width) else 1
    total = torch.zeros_like(move)
    for near, end_distance in ((x, x + move), (width - x, width - x - move)):
        for n in range(-images, images + 1):
            nearer = -2.0 * n * width if n >= 0 else 2.0 * (near + n * width)
            total = total + _passage((near + 2 * n * width) / size, end_distance / size, nearer / size)
    return total * shrink


def sampled_maximum(
    start: Tensor, end: Tensor, variance: Tensor, uniform: Tensor, slope: Tensor | None = None
) -> Tensor:
    """Largest log price of a bridge between two, drawn by inversion of its distribution.

    `(start + end + sqrt((end - start)^2 - 2 w log u)) / 2` with w the variance, that to the largest price
    (`variance_to`) if it moves with the price.

    Args:
        start: log prices at the start of the interval.
        end: log prices at its end.
        variance: quadratic variation of log price in between.
        uniform: independent uniforms in (0, 1).
        slope: change of the variance per unit of log price, if there is one.

    Example:
        >>> sampled_maximum(torch.tensor(0.2), torch.tensor(0.1), torch.tensor(0.0), torch.tensor(0.5))
        tensor(0.2000)
    """
    return 0.5 * (start + end + _reach(end - start, variance, uniform, slope, 0.5))


def sampled_minimum(
    start: Tensor, end: Tensor, variance: Tensor, uniform: Tensor, slope: Tensor | None = None
) -> Tensor:
    """Smallest log price of a bridge between two: `(start + end - sqrt((end - start)^2 - 2 w log u)) / 2`.

    Args:
        start: log prices at the start of the interval.
        end: log prices at its end.
        variance: quadratic variation of log price in between.
        uniform: independent uniforms in (0, 1).
        slope: change of the variance per unit of log price, if there is one.
    """
    return 0.5 * (start + end - _reach(end - start, variance, uniform, slope, -0.5))


def _reach(d: Tensor, variance: Tensor, uniform: Tensor, slope: Tensor | None, side: float) -> Tensor:
    """`sqrt(d^2 - 2 w log u)`, with gradient 0 at 0; the extreme is `side` of it from the middle of the ends."""
    depth = -2.0 * torch.log(uniform.clamp(min=torch.finfo(uniform.dtype).tiny))
    reach = _root(d * d + variance * depth)
    for _ in range(0 if slope is None else _ROUNDS):
        reach = _root(d * d + variance_to(variance, slope, side * reach) * depth)
    return reach


def _root(square: Tensor) -> Tensor:
    return torch.sqrt(square.clamp(min=torch.finfo(square.dtype).tiny))
