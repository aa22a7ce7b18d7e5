"""All options of a surface from one set of paths, whatever their number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from qsde.calibration.bumps import Bumps, models, slopes
from qsde.calibration.objective import Data, SurfaceObjective
from qsde.calibration.penalties import Penalty
from qsde.calibration.space import Space
from qsde.models.jumps import moves_by_jumps
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.simulation import Simulation

#: Options times paths worked on at a time: the temporaries stay near the size of a processor's cache.
_CHUNK = 1 << 17
#: Variances below this are as good as none, and roots are taken here.
_LEAST_VARIANCE = 1e-20
_ROOT_HALF, _INV_SQRT_2PI = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)


class SimulatedObjective(SurfaceObjective):
    """Errors of prices by Monte Carlo, all from the same paths and the same noise for every parameter set.

    Given the path of the variance (and the jumps) the price at an expiry is lognormal for schemes that say so
    (`Scheme.conditional`), and an option is worth its Black price: smooth in the parameters, with less variance. Its
    derivative is delta and vega times the change of the path's mean and variance, so that one price of every option on
    every path serves all parameters; only jump intensities, which move paths by whole jumps, take two more. For other
    schemes the same formulas hold with variance 0. The forward is the control variate of every option.
    """

    def __init__(
        self, data: Data, space: Space, penalties: Sequence[Penalty], in_vol: bool, engine: MonteCarlo
    ) -> None:
        super().__init__(data, space, penalties, in_vol)
        self.engine = engine
        self.bumps = Bumps.of(space)
        self.by_jumps = [i for i, name in enumerate(space.free) if moves_by_jumps(name)]
        sizes = (data.position[0] >= 0).sum(-1).tolist()
        self.strikes = [data.k[0, e, :size] for e, size in enumerate(sizes)]

    def prices(self, p: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """As `SurfaceObjective.prices`, for the one surface there is; NaN at sets whose paths leave the numbers."""
        found = self._means(self.bumps.sets(p[0]), self.bumps.widths(p[0]), self.by_jumps)
        return found[..., 0].unsqueeze(0), found[..., 1:].unsqueeze(0)

    def values(self, p: Tensor) -> Tensor:
        """Prices [E, K] at one parameter set [P]."""
        return self._means(p.expand(1, 1, -1), p.new_zeros(1, 0), [])[0, ..., 0]

    def _means(self, sets: Tensor, widths: Tensor, by_jumps: list[int]) -> Tensor:
        """Prices and derivatives [n, E, K, 1 + P] from parameter sets [n, 1 + 2 P, P] with bumps [n, P]."""
        totals: list[Tensor] = []
        with torch.no_grad():
            for states in self._blocks(sets):
                parts = [
                    _sums(k.to(y), y, w, widths.to(y), by_jumps).to(sets)
                    for k, y, w in zip(self.strikes, *states, strict=True)
                ]
                totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
        controlled = self.engine.control_variate and self.space.model.martingale
        out = sets.new_zeros(len(sets), *self.data.k.shape[1:], 1 + widths.shape[1])
        for e, total in enumerate(totals):
            out[:, e, : total.shape[1] - 1] = _regressed(total, controlled)
        return out

    def _blocks(self, sets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Log of the mean price and its variance given each path, [E, n, 1 + 2 P, path] both, block by block."""
        dates = self.data.t[0].tolist()
        each = [
            Simulation.of(model, dates, self.engine, averaged=self.engine.conditional)
            for model in models(self.space, sets.flatten(0, 1))
        ]
        columns = [each[0].job.grid.column(t) for t in dates]
        for first in range(0, each[0].n_paths, each[0].block_size):
            logs, variances = zip(*(_lognormal(s, first, columns) for s in each), strict=True)
            yield _joined(logs, sets.shape), _joined(variances, sets.shape)


def _lognormal(simulation: Simulation, first: int, columns: list[int]) -> tuple[Tensor, Tensor]:
    """Log of the mean price over the forward, and its variance, given each path: [E, m, path] both."""
    states = simulation.block(first).states
    x = states[0][columns].double()
    w = states[-1][columns].double() if simulation.averaged else torch.zeros_like(x)
    batch = (len(columns), -1, x.shape[-1])
    return (x + 0.5 * w).reshape(batch), w.reshape(batch)


def _joined(parts: Sequence[Tensor], sets: torch.Size) -> Tensor:
    joined: Tensor = torch.cat(list(parts), 1).unflatten(1, sets[:2])
    return joined


def _sums(k: Tensor, y: Tensor, w: Tensor, widths: Tensor, by_jumps: list[int]) -> Tensor:
    """Sums over paths for the options of one expiry, and in the last row for the forward: [n, K + 1, 2 + P].

    Columns: value, value times the forward's error, derivatives.

    Args:
        k: log(strike / forward), [K].
        y: log of the mean price over the forward given the path, [n, 1 + 2 P, path].
        w: its variance.
        widths: bumps [n, P].
        by_jumps: parameters whose derivative is a difference of prices.
    """
    error = torch.expm1(y[:, :1])
    weights = torch.cat([torch.ones_like(error), error], 1).mT
    dy, dw = slopes(y, widths), slopes(w, widths)
    parts = []
    for piece in k.split(max(1, _CHUNK // y[:, 0].numel())):
        price, by_y, by_w = _black(piece, y[:, :1], w[:, :1])
        parts.append(torch.cat([price @ weights, by_y @ dy + by_w @ dw], -1))
    parts.append(torch.cat([error @ weights, (1 + error) @ dy], -1))
    sums = torch.cat(parts, 1)
    for i in by_jumps:
        up, down = (_plain_sums(k, y[:, j : j + 1], w[:, j : j + 1]) for j in (1 + i, 1 + widths.shape[1] + i))
        sums[..., 2 + i] = (up - down) / (2 * widths[:, i : i + 1])
    return torch.cat([sums, sums.new_full((*sums.shape[:2], 1), y.shape[-1])], -1)


def _plain_sums(k: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The first column of `_sums`, [n, K + 1]."""
    pieces = k.split(max(1, _CHUNK // y.numel()))
    return torch.cat([*(_black(piece, y, w)[0].sum(-1) for piece in pieces), torch.expm1(y).sum(-1)], 1)


def _regressed(sums: Tensor, controlled: bool) -> Tensor:
    """Means and derivatives of the options, [n, K, 1 + P], less what the forward misses."""
    means = sums[..., :-1] / sums[..., -1:]
    option, forward = means[:, :-1], means[:, -1:]
    plain = option[..., [0, *range(2, option.shape[-1])]]
    if not controlled:
        return plain
    spread = (forward[..., 1] - forward[..., 0].square()).clamp(min=_LEAST_VARIANCE)
    beta = (option[..., 1] - option[..., 0] * forward[..., 0]) / spread
    return plain - beta.unsqueeze(-1) * forward[..., [0, *range(2, forward.shape[-1])]]


def _black(k: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Out-of-the-money prices in units of `sqrt(F K)` and their derivatives to y and w, [n, K, path] each.

    Args:
        k: log(strike / forward), [K].
        y: log of the mean of the price over the forward, [n, 1, path].
        w: variance of the logarithm, [n, 1, path].
    """
    k = k.unsqueeze(-1)
    side = torch.where(k >= 0, 1.0, -1.0).to(k)
    root = torch.sqrt(w.clamp(min=_LEAST_VARIANCE))
    d = (y - k) / root
    stock, cash = torch.exp(y - 0.5 * k), torch.exp(0.5 * k)
    high, low = d + 0.5 * root, d - 0.5 * root
    by_y = (0.5 * side) * stock * torch.special.erfc((-_ROOT_HALF * side) * high)
    price = by_y - (0.5 * side) * cash * torch.special.erfc((-_ROOT_HALF * side) * low)
    by_w = (0.5 * _INV_SQRT_2PI) * stock * torch.exp(-0.5 * high.square()) / root
    return price, by_y, by_w
