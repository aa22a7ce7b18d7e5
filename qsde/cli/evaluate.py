"""`qsde evaluate`: models fitted to part of a surface, judged on the rest, and compared on exotics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsde.cli import options as o
from qsde.cli.chains import Choice, read_parts
from qsde.cli.grouped import grouped
from qsde.cli.show import line, number, progress, records, table
from qsde.errors import InputError
from qsde.writing import reserve, write_atomic

if TYPE_CHECKING:
    from qsde.calibration.evaluation import Evaluation, Fitter
    from qsde.calibration.fit import Fit
    from qsde.market.surface import Surface
    from qsde.spec import CalibrationSpec


@grouped
def evaluate(
    *,
    file: o.ChainFile,
    model: Annotated[list[str], typer.Option("--model", "-m", help="As for qsde calibrate. Repeatable.")],
    hold_out: Annotated[int, typer.Option(help="Hold out every n-th strike of each expiry; 0 for none.")] = 5,
    expiry: Annotated[
        int | None,
        typer.Option(
            help="Hold out this expiry too: its number, from the last if negative. Default: the last but one."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Fit simulated models with so many seeds.", min=1)] = 1,
    exotics: Annotated[bool, typer.Option("--exotics/--no-exotics", help="Price exotics under every model.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write both tables to this JSON file.")] = None,
    choice: Choice,
    selection: o.Selection,
    weights: o.Weights = "spread",
    max_iterations: o.MaxIterations = None,
    simulating: o.Simulating,
    reading: o.Reading,
) -> None:
    """Fit models to part of a surface; report fresh paths, held-out quotes, step bias, seeds and exotic prices.

    [bold]Example:[/bold] qsde evaluate data/deribit_btc_eth/btc_2023-07.parquet --surface 1
    --model heston --model local_vol --model lsv --min-days 7 --max-deviations 3
    """  # fmt: skip
    from qsde.calibration.evaluation import HeldOut, exotic_book
    from qsde.calibration.evaluation import evaluate as compare
    from qsde.greeks.quotes import market_of

    simulated, fitting = simulating.by_model(model), o.Fitting(weights=weights, max_iterations=max_iterations)
    specs = {name: fitting.spec(name, **simulated[name]) for name in dict.fromkeys(model)}
    how, market = reading.spec(), selection.spec()
    reserve(out)
    chain = market.surface(choice.one(read_parts(file, how)))
    held = HeldOut.of(chain, hold_out, _expiry(chain, expiry)) if hold_out else None
    count = int(held.any.sum()) if held else 0
    line(f"{chain.name}: {len(chain) - count:,} quotes to fit, {count:,} held out, {len(chain.slices)} expiries")
    book, where = {}, None
    if exotics:
        if not math.isfinite(chain.spot):
            raise InputError("exotics need the price of the underlying: give --spot, or --no-exotics")
        where = market_of(chain)
        book = exotic_book(chain.spot, _about_a_year(chain))
    with progress("evaluating") as tell:
        found = compare(
            chain, {name: _fitter(spec) for name, spec in specs.items()}, held_out=held, seeds=range(seeds),
            exotics=book, market=where, progress=tell,
        )  # fmt: skip
    _write(found, out)
    _show(found)


def _expiry(chain: Surface, wanted: int | None) -> int | None:
    """The expiry to hold out: a single one is not held out unless it is asked for."""
    return -2 if wanted is None and len(chain.slices) > 1 else wanted


def _fitter(spec: CalibrationSpec) -> Fitter:
    def fitted(surface: Surface, seed: int) -> Fit:
        return spec.model_copy(update={"seed": seed}).fit(surface)

    return fitted


def _about_a_year(chain: Surface) -> float:
    """The quoted expiry nearest to a year."""
    t = chain.slices["t"].to_numpy(float)
    return float(t[abs(t - 1.0).argmin()])


def _write(found: Evaluation, out: Path | None) -> None:
    if out is None:
        return

    parts = {"models": found.models, "exotics": found.exotics}
    text = ", ".join(f'"{name}": {frame.to_json(orient="records")}' for name, frame in parts.items())
    with write_atomic(out) as file:
        file.write("{" + text + "}")


def _show(found: Evaluation) -> None:
    rows = [
        [r.model, str(r.seed), number(r.rmse_bp, ".2f"), number(r.rmse_error_bp, ".2f"),
         number(100 * r.inside_share, ".0f"), number(r.held_strikes_bp, ".2f"), number(r.held_expiry_bp, ".2f"),
         number(r.held_error_bp, ".2f"), number(r.step_bias_bp, ".2f"), number(r.seconds, ".1f")]
        for r in records(found.models)
    ]  # fmt: skip
    head = ["model", "seed", "RMSE, bp", "std. error", "inside, %", "held-out strikes, bp", "held-out expiry, bp",
            "std. error", "half steps, bp", "seconds"]  # fmt: skip
    table("Errors of implied vol on fresh paths", head, rows)
    if not len(found.exotics):
        return
    names = list(dict.fromkeys(found.exotics["model"]))
    values = {(r.payoff, r.model): r for r in records(found.exotics)}
    rows = [
        [r.payoff, *(_value(values[r.payoff, name]) for name in names), number(100 * r.spread, ".1f")]
        for r in records(found.spread)
    ]
    table("Exotics: value ± std. error", ["payoff", *names, "spread, %"], rows)


def _value(row: object) -> str:
    value, error = (float(getattr(row, name)) for name in ("value", "std_error"))
    return f"{value:.5g} ± {error:.2g}"
