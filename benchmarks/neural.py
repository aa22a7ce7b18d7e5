"""Neural models against real and synthetic quotes, and against the same network in plain autograd.

Parts, all by default or one by `--part`:

SPX, BTC, GOOG: SPX 2023-02-15 (the thin set of 96 quotes), BTC of 2023-07-11, the last snapshot of that July, and GOOG
at the close of 2015-12-23 (12 quotes for each expiry of 5 days and more, from 2 deviations below the forward to 1.5
above; those of GOOG, whose calls and puts of one strike disagree by 28 bp, narrowed by the other option of the strike).
A fit to the middles of all quotes, equally weighted, judged on fresh paths: root mean square error in basis points and
in half spreads, share inside bid and ask. BTC and GOOG have spreads of 120 bp of vol, which set what a fit to their
middles can mean.

seeds (or seeds-SPX, ...): the same markets, their quotes of at most 2 vol points between bid and ask (all of SPX's;
middles of wider ones say little at 20 bp), 6 for an expiry at least, with every fifth inner strike and one expiry
unseen; five seeds of network and paths; errors of what was unseen, spread from seed to seed, and prices of exotics
beside those of Heston and of the local volatility that fit the same quotes. "Smiles alone" is what the quotes
themselves tell of those unseen, without a model and with arbitrage: a cubic spline of each smile, and of the unseen
expiry the line in time between its neighbours, in deviations.

lsv-BTC, lsv-GOOG: the networks in the leverage of Heston and Bates there.

others: the local volatility, at which the networks start, on what the seeds do not show: all snapshots of that July,
quotes however wide, and each expiry left out in turn. No bounds.

synthetic: vols of a Heston model, refitted by a network that knows nothing of Heston.

cost: one gradient of the squared errors of 12 calls to all weights, for the same network, paths, steps and noise, in
turn. Plain autograd evaluates the network on every path at every step and keeps all of it. Memory is that of a process
of its own, less that before the gradient.

For SPX also laws: forwards at all dates, and calls on 50 dates and 50 strikes from one set of paths.

Each part is printed as it ends. `--json` keeps what the file already has of other parts.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from harness import Row, alternate, parser, report
from scipy.interpolate import CubicSpline
from surfaces import ROOT, spx_thin
from torch import Tensor

from qsde.calibration import TrainedFit, calibrate, neural_local_vol, neural_lsv, neural_sv, train
from qsde.calibration.evaluation import Evaluation, Fitter, HeldOut, evaluate, exotic_book, judge
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.training_grid import call_grid
from qsde.io import read_quotes
from qsde.market.build import build_surface
from qsde.market.cleaning import CleaningRules
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, JumpDiffusion, MertonJumps, Model, NeuralLeverage, leveraged
from qsde.noise import Sobol, Threefry
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import model_vols
from qsde.pricing.simulation import Simulation
from qsde.solve import TimeGrid

ENGINE = MonteCarlo(n_paths=1 << 15, max_dt=1 / 64, noise=Sobol(0, scrambles=4))
FINE = replace(ENGINE, n_paths=1 << 16)
QUICK = replace(ENGINE, n_paths=1 << 12)
SEEDS, STEPS_OF_SEED = 5, 4
PATHS, STEPS, LIMIT_MIB = 4096, 128, 2048
#: Largest root mean square error, held out, and least share inside bid and ask that the task asks for.
RMSE_BP, HELD_BP, INSIDE, SECONDS = 10.0, 20.0, 0.6, 600.0
MARKETS = ("SPX", "BTC", "GOOG")
FILES = {
    "BTC": "data/deribit_btc_eth/btc_2023-07.parquet",
    "GOOG": "data/goog_2015_intraday/goog_hourly_2015-12-23.parquet",
}
#: Widest spread of vol of the quotes of which some are unseen, and how many an expiry must have.
WIDEST, FEWEST = 0.02, 6


def quotes_of(market: str, widest: float = math.inf, which: int = -1) -> Surface:
    """Quotes of a market, of a spread of vol of `widest` at most, of one of the snapshots of its file."""
    if market == "SPX":
        return spx_thin()
    quotes = list(read_quotes(ROOT / FILES[market]).surfaces())[which]
    return thinned(build_surface(quotes, rules=CleaningRules(min_days=5, fold=market == "GOOG")), widest)


def thinned(surface: Surface, widest: float) -> Surface:
    """Twelve two-sided quotes of each expiry, nearest to places evenly spaced in deviations; none of fewer than 6."""
    q = surface.quotes.assign(k=np.log(surface.quotes["strike"] / surface.quotes["forward"]))
    narrow = q[q["iv_ask"] - q["iv_bid"] <= widest]
    keep = np.zeros(len(q), dtype=bool)
    for _, part in narrow.groupby("slice"):
        if len(part) < FEWEST:
            continue
        y = (part["k"] / (np.interp(0.0, part["k"], part["iv"]) * np.sqrt(part["t"]))).to_numpy()
        places = np.linspace(max(-2.0, y.min()), min(1.5, y.max()), 12)
        keep[part.index[np.abs(y[:, None] - places).argmin(0)]] = True
    return surface.select(keep)


def synthetic() -> Surface:
    """Ten vols of Heston on each of five expiries, with a spread of 6 bp."""
    truth, strikes = Heston(0.04, 1.5, 0.05, 0.5, -0.7), 10
    expiries = np.array([1 / 12, 0.25, 0.5, 1.0, 2.0])
    t = np.repeat(expiries, strikes)
    k = np.exp(np.tile(np.linspace(-2.0, 1.5, strikes), 5) * 0.2 * np.sqrt(t))
    vol = np.concatenate([model_vols(truth, torch.tensor(x), torch.tensor(k[t == x]), 1.0).flatten() for x in expiries])
    return Surface.from_vols(t, k, vol, 1.0, 1.0, vol - 0.0003, vol + 0.0003)


def told(fit_step: object) -> None:
    """Progress of a training."""
    print(fit_step, file=sys.stderr)


def fit_rows(name: str, fit: TrainedFit, rmse: float | None, inside: float | None) -> list[Row]:
    """Errors of one fit against the largest RMSE and the least share inside, if asked."""
    training, simulation = fit.training, fit.simulation
    assert simulation is not None
    quotes = fit.surface.quotes
    half = 0.5 * (quotes["iv_ask"] - quotes["iv_bid"])
    weighted = float((((fit.model_iv - quotes["iv"]) / half) ** 2).mean() ** 0.5)
    share = float(fit.quotes["inside"].astype(float).mean())
    steps, error = (float(v.square().mean().sqrt()) for v in (training.step_bias_bp, training.step_bias_error_bp))
    note = f"se {simulation.rmse_error:.2f}; median half spread {1e4 * half.median():.1f} bp; {len(quotes)} quotes"
    asked, floor = None if rmse is None else SECONDS, None if rmse is None else 1.0
    return [
        Row(f"{name}: RMSE on fresh paths", simulation.rmse, rmse, floor, "bp", note=note),
        Row(f"{name}: RMSE", weighted, None, unit="half spreads"),
        Row(f"{name}: share inside bid and ask", share, inside, inside and floor, "", larger_is_better=True),
        Row(f"{name}: change if steps are halved", steps, None, unit="bp", note=f"se {error:.2f}"),
        Row(f"{name}: seconds", fit.seconds, asked, floor, "s"),
    ]


def market_rows(market: str, quick: bool) -> list[Row]:
    """Heston, and networks in the leverage of a local volatility and, for SPX, of Heston, Bates and in a volatility."""
    surface = quotes_of(market)
    heston = calibrate(Heston.typical(), surface)
    rows = [Row(f"{market}, Heston by Fourier: RMSE", heston.rmse_bp, None, unit="bp")]
    starts: dict[str, Callable[[Surface], Model]] = {"neural local vol": partial(neural_local_vol, weights="equal")}
    if market == "SPX" and not quick:
        starts |= STARTS | {"neural SV": neural_sv}
    for name, start in starts.items():
        asked = name != "neural SV" and not quick
        fit = fitted(market, start, 2 if quick else 12, quick)
        rows += fit_rows(f"{market}, {name}", fit, *((RMSE_BP, INSIDE) if asked else (None, None)))
        if market == "SPX":
            rows.append(martingale(f"SPX, {name}", fit.model, surface.slices["t"].tolist()))
            rows += arbitrage(f"SPX, {name}", fit.model, 1.8)
    return rows


def lsv_rows(market: str) -> list[Row]:
    """Networks in the leverage of Heston and of Bates."""
    found = {name: fitted(market, start, 6) for name, start in STARTS.items()}
    return [row for name, fit in found.items() for row in fit_rows(f"{market}, {name}", fit, None, None)]


def fitted(market: str, start: Callable[[Surface], Model], most: int, quick: bool = False) -> TrainedFit:
    """A fit to the middles of all quotes; those of BTC want more paths."""
    surface = quotes_of(market)
    engine = QUICK if quick else FINE if market == "BTC" else ENGINE
    began = time.perf_counter()
    model = start(surface)
    spent = time.perf_counter() - began
    fit = train(model, surface, engine=engine, weights="equal", max_steps=most, progress=told)
    return replace(fit, seconds=fit.seconds + spent)


def on_bates(surface: Surface) -> Model:
    """The network in the leverage of a calibrated Bates."""
    return neural_lsv(
        surface, calibrate(JumpDiffusion(Heston.typical(), MertonJumps.typical()), surface).model, weights="equal"
    )


STARTS = {"neural LSV on Heston": partial(neural_lsv, weights="equal"), "neural LSV on Bates": on_bates}


def seeded(surface: Surface, seed: int) -> TrainedFit:
    """A neural local volatility from a seed of the network and of the paths."""
    engine = replace(ENGINE, noise=Sobol(1000 * seed, scrambles=4))
    start = neural_local_vol(surface, seed=seed)
    return train(start, surface, engine=engine, max_steps=STEPS_OF_SEED, progress=told)


def seed_rows(market: str) -> list[Row]:
    """Quotes that nothing has seen, and exotics."""
    surface = quotes_of(market, WIDEST)
    spot = float(surface.quotes["forward"].iloc[0])
    fitters: dict[str, Fitter] = {
        "Heston": lambda s, _: calibrate(Heston.typical(), s),
        "local vol": lambda s, _: calibrate_local_vol(s),
        "neural local vol": seeded,
    }
    found = [
        evaluate(surface, {name: fitter}, held_out=HeldOut.of(surface), engine=ENGINE,
                 seeds=tuple(range(SEEDS)) if name == "neural local vol" else (0,),
                 exotics=exotic_book(spot, 0.5), market=Market(spot), pricing=replace(QUICK, n_paths=1 << 15))
        for name, fitter in fitters.items()
    ]  # fmt: skip
    rows = [*smile_rows(market, surface), *(row for one in found for row in evaluation_rows(market, one))]
    return [replace(row, figure=f"unseen quotes, {row.figure}") for row in rows]


def smile_rows(market: str, surface: Surface) -> list[Row]:
    """What the smiles of the quotes that are seen say of those that are not."""
    held, quotes = HeldOut.of(surface), surface.quotes
    rows, iv = (quotes[c].to_numpy() for c in ("slice", "iv"))
    k = np.log((quotes["strike"] / quotes["forward"]).to_numpy())
    unseen = rows[held.expiry][0]
    smiles = {i: CubicSpline(k[own], iv[own], bc_type="natural") for i in range(len(surface.slices))
              if (own := (rows == i) & (~held.any | held.expiry)).any()}  # fmt: skip
    strikes = np.array([smiles[i](x) for i, x in zip(rows[held.strikes], k[held.strikes], strict=True)])
    before, at, after = surface.slices["t"].to_numpy()[unseen - 1 : unseen + 2]
    share = (at - before) / (after - before)
    level = {i: float(smiles[i](0.0)) ** 2 * year for i, year in ((unseen - 1, before), (unseen + 1, after))}
    own_level = (1 - share) * level[unseen - 1] + share * level[unseen + 1]
    y = k[held.expiry] / math.sqrt(own_level)
    shape = [_held(smiles[i], y * math.sqrt(w)) / float(smiles[i](0.0)) for i, w in level.items()]
    expiry = math.sqrt(own_level / at) * ((1 - share) * shape[0] + share * shape[1])
    return [
        Row(f"{market}, smiles alone: RMSE of unseen strikes", rmse_bp(strikes - iv[held.strikes]), None, unit="bp"),
        Row(f"{market}, smiles alone: RMSE of an unseen expiry", rmse_bp(expiry - iv[held.expiry]), None, unit="bp",
            note=f"its level at the money {1e4 * (math.sqrt(own_level / at) - float(smiles[unseen](0.0))):.1f} bp off"),
    ]  # fmt: skip


def other_rows() -> list[Row]:
    """The local volatility alone, where the seeds do not look."""
    snapshots = len(list(read_quotes(ROOT / FILES["BTC"]).surfaces()))
    sets = {"GOOG": quotes_of("GOOG"), "BTC": quotes_of("BTC")}
    sets |= {f"BTC {i + 1} of {snapshots}": quotes_of("BTC", WIDEST, i) for i in range(snapshots)}
    rows = []
    for name, surface in sets.items():
        held = HeldOut.of(surface)
        error = missed(surface, held.any)
        half = 5e3 * float((surface.quotes["iv_ask"] - surface.quotes["iv_bid"]).median())
        note = f"{len(surface)} quotes, median half spread {half:.0f} bp"
        rows += [
            Row(f"{name}, local vol: RMSE of unseen {what}", rmse_bp(error[unseen]), None, unit="bp", note=note)
            for what, unseen in (("strikes", held.strikes), ("expiry", held.expiry))
        ]
    for market in MARKETS:
        surface = quotes_of(market, WIDEST)
        slices = surface.quotes["slice"].to_numpy()
        inner = range(1, len(surface.slices) - 1)
        found = [rmse_bp(missed(surface, slices == i)[slices == i]) for i in inner]
        note = ", ".join(f"{x:.0f}" for x in found)
        rows.append(
            Row(
                f"{market}, local vol: RMSE of each expiry in turn", float(np.median(found)), None, unit="bp", note=note
            )
        )
    return rows


def missed(surface: Surface, unseen: np.ndarray) -> np.ndarray:
    """Errors of vol [Q] of the local volatility of the quotes that are seen."""
    judged = judge(calibrate_local_vol(surface.select(~unseen)).model, surface, ENGINE)
    return judged.vol - surface.quotes["iv"].to_numpy()


def _held(smile: CubicSpline, k: np.ndarray) -> np.ndarray:
    """A smile, straight beyond its quotes."""
    inside = np.clip(k, smile.x[0], smile.x[-1])
    return smile(inside) + smile(inside, 1) * (k - inside)


def rmse_bp(error: np.ndarray) -> float:
    """Root mean square, basis points."""
    return 1e4 * float(np.sqrt(np.mean(error**2)))


def evaluation_rows(market: str, found: Evaluation) -> list[Row]:
    """Means over the seeds, with the deviation from seed to seed."""
    name, models = found.models["model"].iloc[0], found.models
    rows = []
    for column, what, asked in (
        ("rmse_bp", "RMSE", None), ("held_strikes_bp", "RMSE of unseen strikes", HELD_BP),
        ("held_expiry_bp", "RMSE of an unseen expiry", HELD_BP), ("seconds", "seconds", None),
    ):  # fmt: skip
        unit = "s" if column == "seconds" else "bp"
        note = f"{len(models)} seeds: {models[column].min():.1f} to {models[column].max():.1f}"
        neural = name == "neural local vol"
        own = asked if neural else None
        rows.append(Row(f"{market}, {name}: {what}", float(models[column].mean()), own, None if own is None else 1.0,
                        unit, note=note if neural else ""))  # fmt: skip
    for _, x in found.exotics.iterrows():
        spread = "" if math.isnan(x["seed_std"]) else f"; {x['seed_std']:.3g} from seed to seed"
        rows.append(Row(f"{market}, {name}: {x['payoff']}, half a year", x["value"], None, unit="",
                        note=f"se {x['std_error']:.2g}{spread}"))  # fmt: skip
    return rows


def synthetic_rows() -> list[Row]:
    """Heston's own vols."""
    fit = train(neural_local_vol(synthetic()), synthetic(), engine=FINE, max_steps=8, progress=told)
    return fit_rows("Heston's vols, neural local vol", fit, 3.0, None)


def martingale(name: str, model: Model, dates: list[float]) -> Row:
    """Largest error of a forward in standard errors."""
    simulation = Simulation.of(model, dates, MonteCarlo(n_paths=1 << 16, max_dt=1 / 64, noise=Threefry(77)))
    growth = torch.exp(simulation.block(0).states[0]).detach()
    z = (growth.mean(-1) - 1).abs() / (growth.std(-1) / math.sqrt(growth.shape[-1]))
    return Row(f"{name}: worst forward, standard errors", float(z.max()), 3.0, 1.0, "")


def arbitrage(name: str, model: Model, longest: float) -> list[Row]:
    """Portfolios of negative worth among 50 x 50 calls, and how far calendars are below 0 before they are repaired."""
    k = torch.linspace(-0.6, 0.4, 50, dtype=torch.float64)
    dates = np.linspace(longest / 50, longest, 50).tolist()
    calls = call_grid(model, dates, k, QUICK)
    slope = calls.diff(dim=1) / torch.exp(k).diff()
    bad = (calls.diff(dim=0) < 0).sum() + (slope > 0).sum() + (slope < -1 - 1e-12).sum()
    count = int(bad) + int((slope.diff(dim=1) < -1e-12).sum())
    simulation = Simulation.of(model, dates, MonteCarlo(n_paths=1 << 16, max_dt=1 / 64, noise=Threefry(78)))
    growth, worst = torch.exp(simulation.block(0).states[0]).detach().double(), 0.0
    for strike in torch.exp(k):
        later = (growth - strike).clamp(min=0).diff(dim=0)
        error = later.std(-1) / math.sqrt(later.shape[-1])
        worst = min(worst, float((later.mean(-1) / error.clamp(min=1e-300)).min()))
    return [
        Row(f"{name}: static arbitrage in a grid of 50 x 50 calls", count, None, unit="", note="0 is asked"),
        Row(f"{name}: worst of its 2,450 calendars unrepaired, standard errors below 0", -worst, 4.0, 1.0, ""),
    ]


class Epoch:
    """One gradient to all weights, ours and in plain autograd."""

    def __init__(self, steps: int) -> None:
        network = NeuralLeverage.initialised(scale=0.2, shortest=0.1, longest=1.0)
        source = torch.Generator().manual_seed(1)
        self.weights = {
            name: (w + 0.1 * torch.randn(w.shape, generator=source, dtype=w.dtype)).requires_grad_()
            for name, w in network.params.items()
        }
        self.network, self.steps = network, steps
        self.strikes = torch.linspace(0.8, 1.2, 12, dtype=torch.float64)
        self.noise = Threefry(0)
        self.times = TimeGrid.of([1.0], 1 / steps, knots=network.knots).times

    def loss(self, x: Tensor) -> Tensor:
        """Squares of what calls are worth, as if 0 were right."""
        growth = torch.exp(x)
        return torch.stack([(growth - k).clamp(min=0).mean() for k in self.strikes]).square().sum()

    def plain(self) -> list[Tensor]:
        """The network on every path at every step."""
        leverage = self.network.with_params(self.weights)
        block = self.noise.block(torch.arange(PATHS), len(self.times), 1, 0, torch.float64, "cpu")
        x = torch.zeros(PATHS, dtype=torch.float64)
        for i, (start, end) in enumerate(pairwise(self.times)):
            dt = end - start
            level = 0.2 * leverage.at(torch.tensor([start], dtype=torch.float64), x.unsqueeze(0))[0]
            x = x - 0.5 * level.square() * dt + level * math.sqrt(dt) * block.draw(i)[0][0]
        return list(torch.autograd.grad(self.loss(x), list(self.weights.values())))

    def ours(self) -> list[Tensor]:
        """The network at the nodes of every step, and paths replayed."""
        model = leveraged(BlackScholes(torch.tensor(0.2)), self.network)
        model = model.with_params({f"leverage.{name}": w for name, w in self.weights.items()})
        engine = MonteCarlo(n_paths=PATHS, max_dt=1 / self.steps, noise=self.noise, compile="never")
        simulation = Simulation.of(model, [1.0], engine)
        return list(torch.autograd.grad(self.loss(simulation.block(0).states[0][-1]), list(self.weights.values())))


def child(which: str, steps: int) -> float:
    """MiB that a gradient adds to the peak of a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--child", which, str(steps)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(found.stdout.strip().splitlines()[-1]))


def run_child(which: str, steps: int) -> None:
    """Prints the MiB."""
    getattr(Epoch(1), which)()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of a process is also that of whoever started it
    before = peak()
    getattr(Epoch(steps), which)()
    print(json.dumps(peak() - before))


def peak() -> float:
    """Largest memory of this process so far, MiB (Linux)."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return float(line.split()[1]) / 1024


def cost_rows() -> list[Row]:
    """Seconds and memory of one gradient."""
    epoch = Epoch(STEPS)
    ours, plain = alternate(epoch.ours, epoch.plain, rounds=3)
    gap = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(epoch.ours(), epoch.plain(), strict=True))
    per_step = child("plain", 2 * STEPS) / (2 * STEPS)
    most = int(LIMIT_MIB / per_step)
    note = f"{PATHS:,} paths, {STEPS} steps; gradients differ by {gap:.1%}: ours has steps of second order"
    return [
        Row("one gradient", ours, plain, 1.0, "s", note=note),
        Row("memory of one gradient", child("ours", STEPS), child("plain", STEPS), 1.0, "MiB", note=f"{STEPS} steps"),
        Row(
            "memory of one gradient on a grid 4 times as long as plain autograd's in 2 GiB",
            child("ours", 4 * most), LIMIT_MIB, 1.0, "MiB", note=f"{4 * most:,} steps against {most:,}",
        ),
    ]  # fmt: skip


def main() -> int:
    """Prints the table; exit code 1 if a figure misses its bound."""
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        torch.set_num_threads(1)
        run_child(sys.argv[2], int(sys.argv[3]))
        return 0
    asked = parser(__doc__)
    parts: dict[str, Callable[[], list[Row]]] = {
        **{market: lambda m=market: market_rows(m, options.quick) for market in MARKETS},
        **{f"seeds-{market}": partial(seed_rows, market) for market in MARKETS},
        "others": other_rows,
        **{f"lsv-{market}": partial(lsv_rows, market) for market in ("BTC", "GOOG")},
        "synthetic": synthetic_rows,
        "cost": cost_rows,
    }  # fmt: skip
    asked.add_argument("--part", choices=[*parts, "seeds"], action="append", help="this part only; repeatable")
    options = asked.parse_args()
    wanted = options.part or (["SPX", "cost"] if options.quick else list(parts))
    chosen = [name for part in wanted for name in parts if name == part or name.startswith(f"{part}-")]
    held = [report(parts[name](), options.json, merge=True) for name in chosen]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
