"""Prices of quoted options from one set of paths, with the backbone as control variate, and their Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qsde.calibration.objective import PRICE_FLOOR, black, total_vol
from qsde.calibration.training_slopes import slopes
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.jump_diffusion import JumpDiffusion
from qsde.models.lsv import unleveraged
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import model_vols
from qsde.pricing.moments import Control, Moments
from qsde.pricing.simulation import Simulation
from qsde.schemes import Leveraged, Scheme, WithJumps, scheme_for
from qsde.schemes.jump_samplers import SAMPLERS
from qsde.schemes.leverage_free import FreeVolatility

#: Without a spread the half of it counts as this, in vol.
_UNKNOWN_SPREAD = 0.0010
#: Error of vol that the weights allow for beside half the spread, and that of all quotes of equal weight.
_FLOOR, _EQUAL = 0.0003, 0.0005
#: From half spreads to weights: 1 over the error of vol that is as good as none.
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "spread": lambda half: 1 / torch.sqrt(half**2 + _FLOOR**2),
    "equal": lambda half: torch.full_like(half, 1 / _EQUAL),
}


@dataclass(frozen=True)
class Quoted:
    """The quotes of a surface as tensors [Q], in their order there; prices in units of sqrt(forward strike).

    Attributes:
        t: the expiries, years.
        slice: expiry of each quote.
        k: log(strike / forward).
        vol: market vol.
        half: half the bid/ask spread in vol.
    """

    t: tuple[float, ...]
    slice: Tensor
    k: Tensor
    vol: Tensor
    half: Tensor

    @classmethod
    def of(cls, surface: Surface) -> Quoted:
        """From a surface; quotes without two sides count as the widest."""
        q = surface.quotes
        half = (q["iv_ask"].to_numpy() - q["iv_bid"].to_numpy()) / 2
        known = np.isfinite(half)
        half = np.where(known, half, half[known].max() if known.any() else _UNKNOWN_SPREAD)
        k = np.log(q["strike"].to_numpy() / q["forward"].to_numpy())
        return cls(
            tuple(surface.slices["t"].tolist()),
            torch.tensor(q["slice"].to_numpy()),
            *(torch.tensor(v) for v in (k, q["iv"].to_numpy(), half)),
        )

    @cached_property
    def root_t(self) -> Tensor:
        """Root of the time to expiry."""
        return torch.tensor(self.t, dtype=torch.float64)[self.slice].sqrt()

    def price(self, vol: Tensor, rows: Tensor) -> Tensor:
        """Out-of-the-money prices of some quotes at these vols."""
        return black(self.k[rows], vol * self.root_t[rows])

    def vols(self, price: Tensor) -> tuple[Tensor, Tensor]:
        """Vols and vegas of prices; both sides of a residual have the same small floor under the price."""
        total, vega = total_vol(price + PRICE_FLOOR, self.k, self.vol * self.root_t)
        return total / self.root_t, vega * self.root_t


@dataclass(frozen=True)
class Priced:
    """Prices [Q] of quoted options, their standard errors, and the regression on the forward, [Q] each."""

    value: Tensor
    std_error: Tensor
    beta: Tensor


class QuotedPaths:
    """Prices of quoted options under models of one structure, always from the same random numbers.

    Each option is regressed on the forward and, if the backbone has Fourier prices, on the same option under the
    backbone: its paths see the same noise, so their error is nearly the same. They are simulated once.
    """

    def __init__(self, quoted: Quoted, model: Model, engine: MonteCarlo) -> None:
        self.quoted, self.engine = quoted, engine
        self.rows = [torch.nonzero(quoted.slice == e).squeeze(1) for e in range(len(quoted.t))]
        self._control: list[Tensor] | None = None
        with torch.no_grad():
            self._start(model)

    def _start(self, model: Model) -> None:
        """Simulates the control variate, the model without its smile, and works out its exact prices; others have none.

        Where that is a volatility that depends on time, it is Black-Scholes to each expiry, or Merton.
        """
        simulation = self._simulation(model)
        scheme, of_jumps = simulation.scheme, 0
        if isinstance(scheme, WithJumps):
            of_jumps, scheme = sum(SAMPLERS[law].rows for law in scheme.laws), scheme.diffusion
        if not isinstance(scheme, Leveraged | FreeVolatility):
            return
        jumps, c = simulation.coefficients.split([of_jumps, simulation.coefficients.shape[1] - of_jumps], 1)
        c, added = scheme.without_smile(c)
        self._control = [x for _, x in self._blocks(replace(simulation, coefficients=torch.cat([jumps, c], 1)))]
        backbone = unleveraged(model) if added is None else constant(model)
        backbone = backbone.map(lambda p: p.detach())
        self._exact = torch.empty_like(self.quoted.k)
        for t, rows in zip(self.quoted.t, self.rows, strict=True):
            own = backbone
            if added is not None:
                n = simulation.job.grid.observed_after[simulation.job.grid.column(t)]
                own = backbone.with_params({"vol": (added[:n].sum() / t).sqrt().double().cpu()})
            vols = model_vols(own, torch.tensor(t, dtype=torch.float64), torch.exp(self.quoted.k[rows]), 1.0)
            self._exact[rows] = self.quoted.price(vols, rows)

    def prices(self, model: Model) -> Priced:
        """Prices of the model, without gradient."""
        with torch.no_grad():
            simulation = self._simulation(model)
            merged: list[Moments] = []
            for i, (_, x) in enumerate(self._blocks(simulation)):
                found = [self._moments(e, x[e], i) for e in range(len(self.rows))]
                merged = [m.merge(f) for m, f in zip(merged, found, strict=True)] if merged else found
            results = [m.result() for m in merged]
            order = torch.cat(self.rows).argsort()
            return Priced(
                torch.cat([r.value for r in results])[order].cpu(),
                torch.cat([r.std_error for r in results])[order].cpu(),
                torch.cat([m.beta()[:, 0] for m in merged])[order].cpu(),
            )

    def jacobian(self, model: Model, names: Sequence[str], beta: Tensor) -> Tensor:
        """Derivatives [Q, W] of the prices to all entries of these parameters, one after the other.

        The forward, whose derivative is 0, takes out part of the noise.

        Args:
            model: the model.
            names: its parameters.
            beta: regression on the forward [Q].
        """
        # no adjoint of the variance where only the leverage moves
        scheme = self.engine.scheme or scheme_for(model)
        if all(name.startswith("leverage.") for name in names):
            scheme = frozen(scheme)
        with torch.no_grad():
            simulation = Simulation.of(model, self.quoted.t, replace(self.engine, scheme=scheme))
        return slopes(simulation, model, names, self.rows, lambda rows, x: self._slope(rows, x, beta))

    def _simulation(self, model: Model) -> Simulation:
        return Simulation.of(model, self.quoted.t, self.engine)

    def _blocks(self, simulation: Simulation) -> Iterator[tuple[int, Tensor]]:
        for first in range(0, simulation.n_paths, simulation.block_size):
            yield first, simulation.block(first).states[0]

    def _payoff(self, rows: Tensor, x: Tensor) -> Tensor:
        """Out-of-the-money payoffs [quotes, P] over sqrt(forward strike)."""
        k = self.quoted.k[rows].unsqueeze(-1).to(x)
        side = torch.where(k >= 0, 1.0, -1.0)
        return (side * (torch.exp(x - 0.5 * k) - torch.exp(0.5 * k))).clamp(min=0)

    def _slope(self, rows: Tensor, x: Tensor, beta: Tensor) -> Tensor:
        """Derivatives of payoffs less beta times the forward to x, [quotes, P]."""
        k = self.quoted.k[rows].unsqueeze(-1).to(x)
        side = torch.where(k >= 0, 1.0, -1.0)
        hit = torch.where(side * (x - k) > 0, side * torch.exp(-0.5 * k), 0.0)
        return (hit - beta[rows].unsqueeze(-1).to(x)) * torch.exp(x)

    def _moments(self, e: int, x: Tensor, block: int) -> Moments:
        rows = self.rows[e]
        controls = [torch.expm1(x).expand(len(rows), -1)]
        if self._control is not None:
            other = self._control[block][e]
            controls.append(self._payoff(rows, other) - self._exact[rows].unsqueeze(-1).to(x))
        return Moments.of(self._payoff(rows, x), Control.of(torch.stack(controls, 1)))


def frozen(scheme: Scheme) -> Scheme:
    """The scheme without gradients through the variance."""
    if isinstance(scheme, WithJumps):
        return replace(scheme, diffusion=frozen(scheme.diffusion))
    return replace(scheme, frozen=True) if isinstance(scheme, Leveraged) else scheme


def constant(model: Model) -> Model:
    """Black-Scholes under the jumps of the model."""
    if isinstance(model, JumpDiffusion):
        return JumpDiffusion(constant(model.diffusion), model.jumps)
    return BlackScholes(torch.ones((), dtype=torch.float64))
