"""Calibration to any priced instruments by Monte Carlo: vanillas, Asians, barriers, variance swaps and the like."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.calibration.bumps import Bumps, models, slopes
from qsde.calibration.instruments import Instrument, InstrumentFit
from qsde.calibration.objective import VOL_FLOOR, with_penalties
from qsde.calibration.penalties import Penalty
from qsde.calibration.quality import Simulated, fit_warnings, parameter_covariance, simulation_warnings
from qsde.calibration.ramp import compiled, fresh, fresh_halved, ramp
from qsde.calibration.space import Space
from qsde.errors import InputError, NumericsError
from qsde.market.underlying import Market
from qsde.payoffs import AtExpiry, Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.pricing.montecarlo import price


@dataclass(frozen=True)
class InstrumentJob:
    """A calibration by simulation to instruments; fields as the arguments of `calibrate`."""

    space: Space
    instruments: tuple[Instrument, ...]
    market: Market
    engine: MonteCarlo
    penalties: Sequence[Penalty]

    @classmethod
    def of(
        cls,
        space: Space,
        instruments: Sequence[Instrument],
        market: Market | None,
        engine: Fourier | MonteCarlo | None,
        penalties: Sequence[Penalty],
    ) -> InstrumentJob:
        """A job of things that belong together.

        Raises:
            InputError: no instruments, something else among them, no market, or another engine than MonteCarlo.
        """
        if not instruments:
            raise InputError("there are no instruments to calibrate to")
        for i, instrument in enumerate(instruments):
            if not isinstance(instrument, Instrument):
                raise InputError(
                    f"instruments[{i}] must be an Instrument(payoff, ...), got {type(instrument).__name__}"
                )
        if market is None:
            raise InputError("instruments need a market: give market=Market(spot, rate, dividend_yield)")
        if isinstance(engine, Fourier):
            raise InputError("instruments are priced by simulation: give engine=MonteCarlo(...), or leave it out")
        return cls(space, tuple(instruments), market, engine or MonteCarlo(), tuple(penalties))

    def run(self, n_starts: int, max_iterations: int, seed: int, progress: Callable[[float], None]) -> InstrumentFit:
        """The fit."""
        began = time.perf_counter()
        space = self.space
        targets = torch.tensor([i.target(self.market) for i in self.instruments], dtype=torch.float64)
        target, uncertainty = targets.unbind(-1)
        book = _Book(tuple(i.payoff for i in self.instruments), self.market, space)
        objective = _Objective(book, target, uncertainty, self.penalties)
        x = space.to_unknowns(space.starts(n_starts, _levels(space), seed))
        ramped = ramp(objective.residuals, x, self.engine, max_iterations, lambda share: progress(0.9 * share))
        p = space.to_params(ramped.x)
        simulation, prices, slope, normal = objective.judged(p, self.engine)
        progress(1.0)
        by_quotes = parameter_covariance(normal.unsqueeze(0), torch.ones(1, dtype=torch.float64))[0]
        at_bounds, free = space.at_bounds(p), space.free
        determined = bool(torch.isfinite(by_quotes).all())
        return InstrumentFit(
            model=space.with_free(p),
            instruments=self.instruments,
            market=self.market,
            status=ramped.status,
            target=target.numpy(),
            uncertainty=uncertainty.numpy(),
            model_price=prices.numpy(),
            free=free,
            jacobian=slope,
            covariance=by_quotes + simulation.covariance,
            at_bounds=at_bounds,
            iterations=ramped.iterations,
            starts=n_starts,
            starts_agreeing=ramped.agreeing,
            seconds=time.perf_counter() - began,
            simulation=simulation,
            warnings=fit_warnings(0, None, len(free), at_bounds, determined, gap=0.0)
            + simulation_warnings(free, by_quotes, simulation),
        )


@dataclass(frozen=True)
class _Objective:
    """Errors of the prices in uncertainties, and penalties."""

    book: _Book
    target: Tensor
    uncertainty: Tensor
    penalties: Sequence[Penalty]

    def residuals(self, engine: MonteCarlo) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Residuals and their Jacobian, from unknowns, on the paths of an engine."""

        def at(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            p = self.book.space.to_params(x)
            return self._weighted(p, *self.book.slopes(p[0], engine))

        return at

    def sample(self, p: Tensor, engine: MonteCarlo) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Prices, derivatives, and gradient and normal matrix of the squared errors in uncertainties."""
        value, slope = self.book.slopes(p.expand(1, -1), engine)
        r, jacobian = (v[0, 0] for v in self._weighted(p.expand(1, 1, -1), value, slope))
        jacobian = jacobian / self.book.space.slope(p)
        scale = len(self.target) / VOL_FLOOR**2
        return value[0], slope[0], scale * (jacobian.mT @ r), scale * (jacobian.mT @ jacobian)

    def judged(self, p: Tensor, engine: MonteCarlo) -> tuple[Simulated, Tensor, Tensor, Tensor]:
        """What fresh paths say of a solution, and their prices; derivatives and normal matrix on the fit's own."""
        fitted, slope, _, normal = self.sample(p, compiled(engine))
        prices, _, gradients, _ = map(torch.stack, zip(*(self.sample(p, e) for e in fresh(engine)), strict=True))
        mean, unit = prices.mean(0), self.uncertainty
        simulation = Simulated.of(
            n_paths=engine.n_paths,
            fitted=(fitted - self.target) / unit,
            fresh=(mean - self.target) / unit,
            deviations=(prices - mean) / unit,
            gradients=gradients,
            halved=torch.stack([self.sample(p, e)[2] for e in fresh_halved(engine)]).mean(0),
            normal=normal,
            unit=unit,
        )
        return simulation, mean, slope, normal

    def _weighted(self, p: Tensor, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        # an error of one uncertainty is as 50 bp of vol
        unit, space = VOL_FLOOR / (self.uncertainty * math.sqrt(len(self.target))), self.book.space
        jacobian = unit.unsqueeze(-1) * slope * space.slope(p[0]).unsqueeze(-2)
        r = unit * (value - self.target)
        return with_penalties(r.unsqueeze(0), jacobian.unsqueeze(0), self.penalties, space, p)


@dataclass(frozen=True)
class _Book:
    """Prices of payoffs for many parameter sets on the same random numbers."""

    payoffs: tuple[Payoff, ...]
    market: Market
    space: Space

    def slopes(self, p: Tensor, engine: MonteCarlo) -> tuple[Tensor, Tensor]:
        """Prices [n, Q] and their derivatives [n, Q, P] at parameters [n, P]."""
        bumps = Bumps.of(self.space, rough=not all(payoff.continuous for payoff in self.payoffs))
        sets = bumps.sets(p)
        values = self.prices(sets.flatten(0, 1), engine).unflatten(0, sets.shape[:2])
        return values[:, 0], slopes(values, bumps.widths(p))

    def prices(self, p: Tensor, engine: MonteCarlo) -> Tensor:
        """Prices [m, Q] at parameters [m, P]; NaN at sets whose paths leave the finite numbers."""
        out = p.new_empty(len(p), len(self.payoffs))
        with torch.no_grad():
            for columns in self._groups(engine):
                out[:, columns] = self._group(p, [self.payoffs[i] for i in columns], engine)
        return out

    def _groups(self, engine: MonteCarlo) -> list[list[int]]:
        """Payoffs at expiry apart from the others, so that their prices are conditional expectations."""
        at_expiry = [engine.conditional and isinstance(payoff, AtExpiry) for payoff in self.payoffs]
        groups = ([i for i, is_one in enumerate(at_expiry) if is_one == kind] for kind in (True, False))
        return [group for group in groups if group]

    def _group(self, p: Tensor, payoffs: list[Payoff], engine: MonteCarlo) -> Tensor:
        try:
            found = [price(model, payoffs, self.market, engine).value for model in models(self.space, p)]
        except NumericsError:
            if len(p) == 1:
                return p.new_full((1, len(payoffs)), torch.nan)
            return torch.cat([self._group(row, payoffs, engine) for row in p.split(1)])
        return torch.cat([value.reshape(-1, len(payoffs)).to(p) for value in found])


def _levels(space: Space) -> dict[str, Tensor]:
    """Starts are drawn around the template: the levels that search ranges are relative to are its own."""
    relative = {row.relative_to: space.model.params[name] for name, row in space.model.table.items() if row.relative_to}
    return {name: value.detach().double().reshape(1) for name, value in {"": torch.ones(1), **relative}.items()}
