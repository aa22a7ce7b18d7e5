"""Latent SDEs: the stochastic Lorenz attractor of the paper, and realised volatility of SPY forecast out of sample.

Lorenz: 1,024 series of 41 times on [0, 1], 64 of them held out. Figures: the bound of the held-out series, and the CRPS
of forecasts of their second half from their first, against the spread of all series at that time (climatology).

SPY: daily log returns (with dividends) and VIX closes. Weights are learned from 1998 to 2012; 2013 to 2015 decides when
to stop, and decided the sizes; forecasts are made after every fifth close of 2016 to March 2021 from the 64 days up to
it, and nothing later enters them. What is forecast is the distribution of realised volatility,
sqrt(252/h sum r^2), over the next 5 and 21 days. Peers get the same closes, and their parameters from 1998 to 2015:
GARCH(1,1) with normal and with Student's t innovations (library `arch`), simulated forward; a random walk, log-normal
around the volatility of the last h days; and HAR regressions of log volatility on those of the last 5, 21 and 63 days,
without and with log VIX, which have normal errors. All are ensembles of the same number of paths.

Scores: mean CRPS (smaller is better), and the density that was forecast of the log of what came, as its geometric mean,
which is the exponential of the mean log score (larger is better). Notes give the mean difference of CRPS, or of log
scores, ours minus theirs, its Newey-West standard error (8 lags of 5 days) and the Diebold-Mariano p-value. Floors of 1
stand where a latent SDE should win, that is against GARCH and the random walk; HAR has none, and `--quick` has none, as
what it trains has hardly begun to learn.

The last rows time one gradient: by both exact strategies, and of the same posterior in torchsde 0.2.6.

The fits are left in out/latent.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from harness import Row, alternate, arguments, report, seconds
from torch import Tensor

from qsde.latent import (
    LatentSDE,
    Record,
    Series,
    Settings,
    Solver,
    crps,
    diebold_mariano,
    fit,
    forecast,
    log_score,
    realised_volatility,
    save,
    stochastic_lorenz,
)
from qsde.noise import Threefry

ROOT = Path(__file__).resolve().parents[1]
HISTORY = ROOT / "data" / "history_rates"
FITS = ROOT / "out" / "latent"
LEARN_UNTIL, CHOOSE_UNTIL = "2012-12-31", "2015-12-31"
HORIZONS = (5, 21)
WINDOW, MONTH, STRIDE, LAGS = 64, 21, 5, 8
#: Peers that a latent SDE should beat.
TO_BEAT = ("GARCH(1,1)", "GARCH(1,1)-t", "random walk")


@dataclass(frozen=True)
class Daily:
    """Daily returns and log VIX, and how many days are for learning and for choosing."""

    dates: pd.DatetimeIndex
    returns: Tensor
    log_vix: Tensor
    seen: Tensor
    learn: int
    choose: int

    @classmethod
    def read(cls) -> Daily:
        """The shipped history; the one day without VIX is masked for us and carries the last VIX for peers."""
        spy = _read("spy_daily_1998_2021.csv")["adj_close"]
        vix = np.log(_read("vix_daily_1990_2026.csv")["close"].reindex(spy.index) / 100).iloc[1:]
        returns = np.log(spy).diff().iloc[1:]
        dates = pd.DatetimeIndex(returns.index)
        seen = torch.tensor(vix.notna().to_numpy())
        counts = (int((dates <= until).sum()) for until in (LEARN_UNTIL, CHOOSE_UNTIL))
        return cls(dates, torch.tensor(returns.to_numpy()), torch.tensor(vix.ffill().to_numpy()), seen, *counts)

    @property
    def series(self) -> Series:
        """Both channels, time in months of 21 trading days."""
        mask = torch.stack([torch.ones_like(self.seen), self.seen], -1)
        values = torch.stack([self.returns, self.log_vix], -1).float()
        return Series(torch.arange(len(values)).double() / MONTH, values, mask.unsqueeze(0))

    def past(self, h: int) -> Tensor:
        """Realised volatility of the h days up to each day; nan where there are fewer."""
        return _shifted(realised_volatility(self.returns.unfold(0, h, 1)), h - 1, 0)

    def next(self, h: int) -> Tensor:
        """Realised volatility of the h days after each day; nan where there are fewer."""
        return _shifted(realised_volatility(self.returns.unfold(0, h, 1))[1:], 0, h)


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(HISTORY / name, parse_dates=["date"], index_col="date")


def _shifted(x: Tensor, before: int, after: int) -> Tensor:
    return torch.nn.functional.pad(x, (before, after), value=math.nan)


def random_walk(daily: Daily, h: int, origins: Tensor, members: Tensor) -> Tensor:
    """Log-normal around the volatility of the last h days, as wide as its changes were."""
    last, coming = torch.log(daily.past(h)), torch.log(daily.next(h))
    known = (coming - last)[: daily.choose - h]
    return torch.exp(last[origins] + known[known.isfinite()].std() * members.unsqueeze(-1))


def har(daily: Daily, h: int, origins: Tensor, members: Tensor, vix: bool) -> Tensor:
    """Regression of log volatility on its past, with normal errors."""
    columns = [torch.log(daily.past(k)) for k in (5, 21, 63)] + [daily.log_vix] * vix
    x, y = torch.stack([torch.ones_like(columns[0]), *columns], -1), torch.log(daily.next(h))
    known = slice(62, daily.choose - h)
    weights = torch.linalg.lstsq(x[known], y[known, None]).solution[:, 0]
    spread = (y[known] - x[known] @ weights).std()
    return torch.exp(x[origins] @ weights + spread * members.unsqueeze(-1))


def garch(daily: Daily, origins: Tensor, paths: int, innovations: str) -> Tensor:
    """Returns of the next 21 days [paths, origins, 21] of a GARCH(1,1) with constant mean."""
    arch: Any = importlib.import_module("arch")
    percent = 100 * daily.returns.numpy()
    found = arch.arch_model(percent[: daily.choose], mean="Constant", vol="GARCH", dist=innovations).fit(disp="off")
    mean, base, shock, keep = (float(found.params[name]) for name in ("mu", "omega", "alpha[1]", "beta[1]"))
    variances = [float(found.conditional_volatility[0]) ** 2]
    for r in percent:
        variances.append(base + shock * (r - mean) ** 2 + keep * variances[-1])
    variance = np.tile(np.array(variances)[origins.numpy() + 1], (paths, 1))
    generator, out = np.random.default_rng(0), []
    for _ in range(max(HORIZONS)):
        error = np.sqrt(variance) * _innovations(generator, variance.shape, found.params.get("nu"))
        out.append((mean + error) / 100)
        variance = base + shock * error**2 + keep * variance
    return torch.tensor(np.stack(out, -1))


def _innovations(generator: np.random.Generator, shape: tuple[int, ...], nu: float | None) -> np.ndarray:
    if nu is None:
        return generator.standard_normal(shape)
    return generator.standard_t(nu, shape) * math.sqrt((nu - 2) / nu)


def peers(daily: Daily, origins: Tensor, paths: int) -> dict[int, dict[str, Tensor]]:
    """Ensembles [paths, origins] of the realised volatility over each horizon."""
    members = torch.special.ndtri((torch.arange(paths, dtype=torch.float64) + 0.5) / paths)
    simulated: dict[str, Tensor] = {}
    if importlib.util.find_spec("arch") is not None:
        simulated = {"GARCH(1,1)": garch(daily, origins, paths, "normal")}
        simulated["GARCH(1,1)-t"] = garch(daily, origins, paths, "t")
    return {
        h: {name: realised_volatility(returns[..., :h]) for name, returns in simulated.items()}
        | {
            "random walk": random_walk(daily, h, origins, members),
            "HAR": har(daily, h, origins, members, vix=False),
            "HAR with VIX": har(daily, h, origins, members, vix=True),
        }
        for h in HORIZONS
    }


def spy_model(daily: Daily) -> tuple[LatentSDE, Series, Series]:
    """An untrained model, and the windows for learning and for choosing."""
    series = daily.series
    learn = series.between(0, daily.learn).windows(WINDOW)
    choose = series.between(daily.learn, daily.choose).windows(WINDOW, stride=16)
    solver = Solver(1 / (2 * MONTH), gradient="direct")
    model = LatentSDE(("return", "level"), latent=3, context=8, hidden=24, solver=solver)
    model.standardise(learn)
    return model, learn, choose


def spy_forecast(model: LatentSDE, daily: Daily, origins: Tensor, paths: int) -> Tensor:
    """Returns of the next 21 days [paths, origins, 21], each from the window that ends on its origin."""
    first, last = int(origins[0]), int(origins[-1])
    windows = daily.series.between(first - WINDOW + 1, last + 1).windows(WINDOW, int(origins[1]) - first)
    ahead = windows.times[-1] + torch.arange(1, max(HORIZONS) + 1).double() / MONTH
    return forecast(model, windows, ahead, paths, Threefry(1)).paths[..., 0].double()


def compared(came: Tensor, ours: Tensor, theirs: Mapping[str, Tensor], h: int) -> list[Row]:
    """Two rows for each peer: CRPS, and density."""
    rows = []
    own = crps(ours, came), log_score(torch.log(ours), torch.log(came))
    for name, ensemble in theirs.items():
        floor = 1.0 if name in TO_BEAT else None
        other = crps(ensemble, came), log_score(torch.log(ensemble), torch.log(came))
        notes = []
        for a, b in zip(own, other, strict=True):
            gap = diebold_mariano(a, b, LAGS)
            notes.append(f"difference {gap.mean:+.4f} +- {gap.std_error:.4f}, p = {gap.p_value:.2g}")
        title = f"SPY {h} days, vs {name}"
        means = [float(score.mean()) for score in (*own, *other)]
        rows += [
            Row(f"CRPS, {title}", means[0], means[2], floor, "vol", note=notes[0]),
            Row(f"density, {title}", math.exp(means[1]), math.exp(means[3]), floor, "", True, notes[1]),
        ]
    return rows


def spy(quick: bool) -> list[Row]:
    daily = Daily.read()
    model, learn, choose = spy_model(daily)
    settings = Settings(iterations=800, kl_ramp=200, last_rate=0.05, check_every=50, patience=6)
    if quick:
        settings = replace(settings, iterations=60, kl_ramp=20, check_every=20)
    training = fit(model, learn, choose, settings, progress=show)
    if not quick:
        save(model, FITS / "spy_vix.safetensors")
    paths = 200 if quick else 1000
    origins = torch.arange(daily.choose, len(daily.returns) - max(HORIZONS), 42 if quick else STRIDE)
    returns = spy_forecast(model, daily, origins, paths)
    others = peers(daily, origins, paths)
    span = f"{daily.dates[int(origins[0])]:%Y-%m-%d} to {daily.dates[int(origins[-1])]:%Y-%m-%d}"
    note = f"best after {training.best} iterations; {len(origins)} forecasts, {span}"
    rows = [Row("SPY training", training.seconds, None, note=note)]
    for h in HORIZONS:
        rows += compared(daily.next(h)[origins], realised_volatility(returns[..., :h]), others[h], h)
    return rows


def lorenz(quick: bool) -> list[Row]:
    data = stochastic_lorenz(1024, torch.linspace(0.0, 1.0, 41), Threefry(0))
    values = data.values.float()  # noqa: PD011 not a data frame
    learn, held_out = (Series(data.times, part) for part in (values[64:], values[:64]))
    model = LatentSDE(3, latent=4, context=32, hidden=64, solver=Solver(0.0125, gradient="direct"))
    model.standardise(learn)
    settings = Settings(iterations=1500, batch=128, kl_ramp=300, last_rate=0.05, check_every=50)
    if quick:
        settings = replace(settings, iterations=40, kl_ramp=20, check_every=20)
    training = fit(model, learn, held_out, settings, progress=show)
    if not quick:
        save(model, FITS / "lorenz.safetensors")
    bounds = [r.held_out for r in training.records if r.held_out is not None]
    rows = [Row("Lorenz training", training.seconds, None, note=f"best after {training.best} iterations")]
    note = f"bound {bounds[0]:.1f} after {training.records[0].iteration} iterations, at best {max(bounds):.1f}"
    rows.append(Row("Lorenz bound of held-out series", max(bounds), None, None, "nats", True, note))
    half = 21
    paths = 200 if quick else 1000
    found = forecast(model, held_out.between(0, half), data.times[half:], paths, Threefry(2)).paths
    climate = values[64:, half:].unsqueeze(1).expand(-1, len(held_out), -1, -1)
    for steps in (1, 4, 20):
        came = values[:64, half + steps - 1]
        scores = [float(crps(x[:, :, steps - 1], came).mean()) for x in (found, climate)]
        rows.append(Row(f"Lorenz CRPS {steps} intervals ahead, vs climatology", *scores, 1.0, "sd"))
    return rows


def strategies() -> list[Row]:
    """One step of training with the exact gradient by replay, and through the loop."""
    daily = Daily.read()
    model, learn, _ = spy_model(daily)
    batch, times = learn.select(slice(0, 64)), {}
    for kind in ("checkpoint", "direct"):
        model.solver = replace(model.solver, gradient=kind)  # type: ignore[arg-type]

        def work() -> None:
            model.zero_grad()
            model.bound(batch, Threefry(0)).value.mean().backward()

        work()
        times[kind] = min(seconds(work) for _ in range(5))
    note = "64 series of 64 days, 126 steps; ours is gradient='direct', the peer gradient='checkpoint'"
    return [Row("bound and its gradient", times["direct"], times["checkpoint"], note=note)]


class Posterior(torch.nn.Module):
    """The posterior as torchsde asks for it, from the same networks."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, model: LatentSDE, times: Tensor, contexts: Tensor) -> None:
        super().__init__()
        self.model, self.contexts, self.times = model, contexts, times
        self.passed = times - 0.25 / (2 * MONTH)

    def f(self, t: Tensor, z: Tensor) -> Tensor:
        """Posterior drift."""
        following = int((self.passed <= t).sum().clamp(max=len(self.times) - 1))
        u = self.model.control(z, self.contexts[:, following], self.times[following] - t)
        return self.h(t, z) + self.g(t, z) * u

    def g(self, t: Tensor, z: Tensor) -> Tensor:
        """Diffusion."""
        return self.model.diffusion(z)

    def h(self, t: Tensor, z: Tensor) -> Tensor:
        """Prior drift."""
        return self.model.prior(z)


def posterior_paths() -> list[Row]:
    """Posterior paths with their divergence, and the gradient of both, against torchsde with `logqp=True`."""
    daily = Daily.read()
    model, learn, _ = spy_model(daily)
    batch, seeds = learn.select(slice(0, 64)), itertools.count()
    start = torch.zeros(len(batch), 3)

    def ours() -> None:
        model.zero_grad()
        found = model.posterior(batch, Threefry(next(seeds)))
        (found.states.sum() + found.kl_path.sum()).backward()

    def theirs() -> None:
        torchsde: Any = importlib.import_module("torchsde")
        model.zero_grad()
        times = batch.times.float()
        contexts = model.encoder(times, model.likelihood.standard(batch.values.float()), batch.seen)  # noqa: PD011
        peer, names = Posterior(model, times, contexts), {"drift": "f", "diffusion": "g", "prior_drift": "h"}
        z, divergence = torchsde.sdeint(
            peer, start, times, dt=1 / (2 * MONTH), method="euler", logqp=True, names=names
        )  # fmt: skip
        (z.sum() + divergence.sum()).backward()

    if importlib.util.find_spec("torchsde") is None:
        return [Row("posterior paths and their gradient, vs torchsde", seconds(ours), None, 1.0)]
    mine, peers_ = alternate(ours, theirs, 5)
    return [Row("posterior paths and their gradient, vs torchsde", mine, peers_, 1.0, note="64 series of 64 days")]


def show(record: Record) -> None:
    held_out = "" if record.held_out is None else f", held out {record.held_out:.2f}"
    print(f"  {time.strftime('%H:%M:%S')} iteration {record.iteration}: bound {record.bound:.2f}{held_out}", flush=True)


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor."""
    options = arguments(__doc__)
    torch.set_num_threads(1)
    FITS.mkdir(parents=True, exist_ok=True)
    rows = [row for part in (lorenz, spy) for row in part(options.quick)] + strategies() + posterior_paths()
    if options.quick:
        rows = [replace(row, floor=None) for row in rows]
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
