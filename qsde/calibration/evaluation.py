"""Honest figures of calibrated models: fresh random numbers, quotes that were held out, and what exotics cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.calibration.quality import Simulated
from qsde.calibration.ramp import fresh, fresh_halved
from qsde.calibration.training_paths import Quoted, QuotedPaths
from qsde.errors import InputError
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.noise import Sobol
from qsde.payoffs import Autocallable, Barrier, FixedLookback, ForwardStart, Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import model_vols
from qsde.pricing.montecarlo import price

#: Fits a model to a surface; the number is a seed.
Fitter = Callable[[Surface, int], Fit]
#: Columns of `Evaluation.models`.
MODEL_COLUMNS = ("model", "seed", "rmse_bp", "rmse_error_bp", "inside_share", "held_strikes_bp", "held_expiry_bp",
                 "held_error_bp", "step_bias_bp", "seconds")  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """Implied vols of the quotes of a surface under a model, from random numbers that no fit has seen.

    Attributes:
        vol: by quote [Q].
        std_error: of `vol` [Q]; 0 for Fourier prices.
        step_bias: change of each vol if `max_dt` is halved [Q], the error of the steps about twice that; 0 for Fourier
            prices.
        simulation: errors as a fit keeps them; None for Fourier prices.
    """

    vol: np.ndarray
    std_error: np.ndarray
    step_bias: np.ndarray
    simulation: Simulated | None

    def rmse_bp(self, market: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
        """Root mean square error of some quotes, less the part that is noise, and its standard error; basis points."""
        error, noise = 1e4 * (self.vol - market)[rows], 1e4 * self.std_error[rows]
        if not len(error):
            return float("nan"), float("nan")
        rmse = float(np.sqrt(max(np.mean(error**2) - np.mean(noise**2), 0.0)))
        slope = error / max(float(np.sqrt(np.mean(error**2))), 1e-300)
        return rmse, float(np.sqrt(np.sum((slope * noise) ** 2)) / len(error))


def judge(model: Model, surface: Surface, engine: MonteCarlo | None = None) -> Judged:
    """Vols of a model at the quotes of a surface: by Fourier where it can, else from fresh paths.

    Args:
        model: the model, without batch axes.
        surface: the quotes.
        engine: paths and steps; 8 sets of these paths are simulated, each with a seed of its own, and 4 of half as
            many with half the steps. None takes 2^15 Sobol paths and steps of 1/64.

    Example:
        >>> from qsde.models import BlackScholes
        >>> surface = Surface.from_vols([0.5, 1.0], [90.0, 110.0], [0.21, 0.19], forward=100.0)
        >>> judge(BlackScholes(0.2), surface).vol.round(4).tolist()
        [0.2, 0.2]
    """
    quotes = surface.quotes
    nothing = np.zeros(len(quotes))
    with torch.no_grad():
        if model.has_cf:
            strike, t, forward = (torch.tensor(quotes[c].to_numpy()).unsqueeze(-1) for c in ("strike", "t", "forward"))
            vol = model_vols(model, t.squeeze(-1), strike, forward.squeeze(-1)).squeeze(-1)
            return Judged(vol.numpy(), nothing, nothing, None)
        engine = engine or MonteCarlo(n_paths=1 << 15, max_dt=1 / 64, noise=Sobol(0, scrambles=4))
        quoted = Quoted.of(surface)
        market = quoted.vols(quoted.price(quoted.vol, slice(None)))[0]  # type: ignore[arg-type]
        own, finer = (
            torch.stack([_errors(model, quoted, market, e) for e in engines])
            for engines in (fresh(engine), fresh_halved(engine))
        )
    mean = own.mean(0)
    empty = torch.zeros(0, dtype=torch.float64)
    simulation = Simulated.of(
        n_paths=engine.n_paths,
        fitted=1e4 * own[0],
        fresh=1e4 * mean,
        deviations=1e4 * (own - mean),
        gradients=torch.zeros(len(own), 0, dtype=torch.float64),
        halved=empty,
        normal=empty.reshape(0, 0),
        unit=torch.full_like(mean, 1e-4),
    )
    return Judged(
        quotes["iv"].to_numpy() + mean.numpy(),
        (own.std(0) / len(own) ** 0.5).numpy(),
        (finer.mean(0) - mean).numpy(),
        simulation,
    )


def _errors(model: Model, quoted: Quoted, market: Tensor, engine: MonteCarlo) -> Tensor:
    return quoted.vols(QuotedPaths(quoted, model, engine).prices(model).value)[0] - market


@dataclass(frozen=True)
class HeldOut:
    """Which quotes a fit does not see, each [Q]: some strikes of every expiry, and all of one expiry."""

    strikes: np.ndarray
    expiry: np.ndarray

    @classmethod
    def of(cls, surface: Surface, every: int = 5, expiry: int | None = -2) -> HeldOut:
        """Every n-th strike of each expiry, never one at its ends, and one expiry.

        Args:
            surface: the quotes.
            every: n, 2 at least.
            expiry: number of the expiry, from the last if negative; None holds none out.

        Raises:
            InputError: `every` is too small, or there is no such expiry, or it leaves none but itself.

        Example:
            >>> surface = Surface.from_vols(np.repeat([0.5, 1.0], 5), np.tile(np.arange(80.0, 130, 10), 2), 0.2, 100.0)
            >>> held = HeldOut.of(surface, every=3, expiry=1)
            >>> np.flatnonzero(held.strikes).tolist(), np.flatnonzero(held.expiry).tolist()
            ([1], [5, 6, 7, 8, 9])
        """
        count = len(surface.slices)
        if every < 2:
            raise InputError(f"every must be at least 2, so that quotes are left to fit, got {every}")
        if expiry is not None and not (-count <= expiry < count and count > 1):
            raise InputError(f"expiry must number one of {count} expiries, with others left to fit, got {expiry}")
        rows = surface.quotes["slice"].to_numpy()
        size = np.bincount(rows)
        rank = np.arange(len(rows)) - (np.cumsum(size) - size)[rows]
        whole = np.zeros(len(rows), dtype=bool) if expiry is None else rows == expiry % count
        inner = (rank > 0) & (rank < size[rows] - 1)
        return cls(inner & ~whole & (rank % every == every // 2), whole)

    @property
    def any(self) -> np.ndarray:
        """All that are held out."""
        both: np.ndarray = self.strikes | self.expiry
        return both


def exotic_book(spot: float, t: float) -> dict[str, Payoff]:
    """Contracts whose prices vanillas do not settle, on a spot and up to a time in years.

    What they see of a model: how vol moves after the price has moved (forward start, autocallable), and where paths go
    in between (lookback, barriers).

    Example:
        >>> list(exotic_book(100.0, 1.0))
        ['lookback call', 'down-and-out put', 'up-and-out call', 'autocallable', 'forward-start call']
    """
    quarters = tuple(t * (i + 1) / 4 for i in range(4))
    return {
        "lookback call": FixedLookback(spot, t),
        "down-and-out put": Barrier(spot, 0.8 * spot, t, "down-and-out", "put"),
        "up-and-out call": Barrier(spot, 1.2 * spot, t, "up-and-out", "call"),
        "autocallable": Autocallable(quarters, spot, 0.02, knock_in=0.75, notional=spot),
        "forward-start call": ForwardStart(start=0.5 * t, expiry=t),
    }


@dataclass(frozen=True)
class Evaluation:
    """Models that were fitted to the same quotes, compared.

    Attributes:
        models: one row per model and seed (`MODEL_COLUMNS`): error of the fitted quotes with its standard error, share
            of them within bid and ask, error of the held-out strikes and of the held-out expiry, the larger standard
            error of these two, root mean square effect of halving the steps, seconds of the fit.
        exotics: one row per payoff and model: `payoff`, `model`, `value` (mean over the seeds), `std_error` (of one
            simulation) and `seed_std` (of the value from seed to seed).
        fits: the fits by model, one per seed.
    """

    models: pd.DataFrame
    exotics: pd.DataFrame
    fits: Mapping[str, Sequence[Fit]]

    @property
    def spread(self) -> pd.DataFrame:
        """By payoff: least and largest value of the models, and their difference over the mean of the values."""
        grouped = self.exotics.groupby("payoff", sort=False)["value"]
        found = grouped.agg(least="min", largest="max", mean="mean").reset_index()
        return found.assign(spread=(found["largest"] - found["least"]) / found["mean"].abs())


def evaluate(
    surface: Surface,
    fitters: Mapping[str, Fitter],
    *,
    held_out: HeldOut | None = None,
    seeds: Sequence[int] = (0,),
    engine: MonteCarlo | None = None,
    exotics: Mapping[str, Payoff] | None = None,
    market: Market | None = None,
    pricing: MonteCarlo | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Fits each model without the held-out quotes, once for each seed, and says what came of it.

    Args:
        surface: all quotes.
        fitters: by name of the model, a function of a surface and a seed that returns a `Fit`.
        held_out: quotes that no fit sees; None holds none out.
        seeds: seeds of the fits; models that are fitted by Fourier prices have one only, as the others change nothing.
        engine: as in `judge`.
        exotics: payoffs by name, priced under every model.
        market: spot and curves of these.
        pricing: engine of these; None takes 2^16 paths and steps of 1/128.
        progress: called with (done, total).

    Raises:
        InputError: exotics without a market, or nothing to fit.

    Example:
        >>> from qsde.calibration import calibrate
        >>> from qsde.models import BlackScholes
        >>> surface = Surface.from_vols(np.repeat([0.5, 1.0], 4), np.tile([80.0, 90, 100, 110], 2), 0.2, 100.0)
        >>> flat = lambda s, seed: calibrate(BlackScholes(0.3), s)
        >>> found = evaluate(surface, {"flat": flat}, held_out=HeldOut.of(surface, every=3))
        >>> found.models[["model", "rmse_bp", "held_strikes_bp", "held_expiry_bp"]].round(3).values.tolist()
        [['flat', 0.0, 0.0, 0.0]]
    """
    if not fitters or not seeds:
        raise InputError("give at least one model to fit, and one seed")
    if exotics and market is None:
        raise InputError("exotics need a market: give market=Market(spot, rate, dividend_yield)")
    nothing = np.zeros(len(surface), dtype=bool)
    held = held_out or HeldOut(nothing, nothing)
    seen = surface.select(~held.any)
    rows, priced, fits = [], [], {}
    for i, (name, fitter) in enumerate(fitters.items()):
        found: list[Fit] = []
        for seed in seeds:
            if found and found[0].model.has_cf:
                break
            found.append(fitter(seen, seed))
            rows.append(_row(name, seed, found[-1], surface, held, engine))
            if progress is not None:
                progress(i * len(seeds) + len(found), len(fitters) * len(seeds))
        fits[name] = found
        if exotics and market is not None:
            priced += _priced(name, found, exotics, market, pricing)
    columns = ["payoff", "model", "value", "std_error", "seed_std"]
    return Evaluation(pd.DataFrame(rows, columns=list(MODEL_COLUMNS)), pd.DataFrame(priced, columns=columns), fits)


def _row(name: str, seed: int, fit: Fit, surface: Surface, held: HeldOut, engine: MonteCarlo | None) -> list[object]:
    judged = judge(fit.model, surface, engine)
    quotes = surface.quotes
    market = quotes["iv"].to_numpy()
    (rmse, error), (strikes, strikes_error), (expiry, expiry_error) = (
        judged.rmse_bp(market, rows) for rows in (~held.any, held.strikes, held.expiry)
    )
    two_sided = ~held.any & np.isfinite(quotes["iv_bid"].to_numpy() + quotes["iv_ask"].to_numpy())
    inside = (judged.vol >= quotes["iv_bid"].to_numpy()) & (judged.vol <= quotes["iv_ask"].to_numpy())
    share = float(inside[two_sided].mean()) if two_sided.any() else float("nan")
    bias = 1e4 * float(np.sqrt(np.mean(judged.step_bias**2)))
    doubt = float(np.nanmax([strikes_error, expiry_error, 0.0]))
    return [name, seed, rmse, error, share, strikes, expiry, doubt, bias, fit.seconds]


def _priced(
    name: str, fits: Sequence[Fit], exotics: Mapping[str, Payoff], market: Market, engine: MonteCarlo | None
) -> list[list[object]]:
    engine = engine or MonteCarlo(n_paths=1 << 16, max_dt=1 / 128)
    with torch.no_grad():
        found = [price(fit.model, list(exotics.values()), market, engine) for fit in fits]
    values = torch.stack([f.value for f in found]).double()
    spread = values.std(0) if len(found) > 1 else torch.full_like(values[0], torch.nan)
    return [
        [payoff, name, float(values[:, j].mean()), float(found[0].std_error[j]), float(spread[j])]
        for j, payoff in enumerate(exotics)
    ]
