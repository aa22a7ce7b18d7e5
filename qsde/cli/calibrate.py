"""`qsde calibrate`: one surface, one or more models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsde.cli import options as o
from qsde.cli.chains import Choice, read_parts
from qsde.cli.grouped import grouped
from qsde.cli.guard import warn
from qsde.cli.show import line, number, progress, table
from qsde.writing import reserve

if TYPE_CHECKING:
    from qsde.calibration.fit import Fit
    from qsde.market.surface import Surface
    from qsde.spec import CalibrationSpec


@grouped
def calibrate(
    *,
    file: o.ChainFile,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="black_scholes, heston, merton, kou, bates, heston_kou, local_vol, lsv, "
            "neural_local_vol, neural_lsv or neural_sv. Repeatable.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write the fits to this file: JSON, or .safetensors, smaller with networks.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the HTML report to this file.")] = None,
    choice: Choice,
    selection: o.Selection,
    fitting: o.Fitting,
    simulating: o.Simulating,
    reading: o.Reading,
) -> None:
    """Fit models to one surface; print a summary, and write the fits and an HTML report.

    Exit code 1 if a fit did not converge, 2 if the input cannot be used.

    [bold]Example:[/bold] qsde calibrate data/spx_vix_2023-02-15/spx_2023-02-15.parquet
    --model heston --model bates --min-days 7 --max-deviations 6 --report report.html
    """  # fmt: skip
    simulated = simulating.by_model(model)
    specs = [fitting.spec(name, **simulated[name]) for name in dict.fromkeys(model)]
    how, market = reading.spec(), selection.spec()
    reserve(out, report)
    chain = market.surface(choice.one(read_parts(file, how)))
    line(f"{chain.name}: {len(chain):,} quotes over {len(chain.slices)} expiries, {len(chain.rejected):,} set aside")
    fits = [_fit(spec, chain) for spec in specs]
    _write(fits, out, report)  # before anything is printed: a reader such as head may leave early
    _summary(fits)
    for kind, path in (("fits", out), ("report", report)):
        if path is not None:
            line(f"{kind}: {path}")
    raise typer.Exit(0 if all(fit.status.converged for fit in fits) else 1)


def _fit(spec: CalibrationSpec, surface: Surface) -> Fit:
    with progress(f"fitting {spec.model}") as tell:
        return spec.fit(surface, tell)


def _summary(fits: list[Fit]) -> None:
    rows = [
        [f.model.name, "yes" if f.status.converged else "NO", number(f.rmse_bp, ".1f"),
         number(f.weighted_rmse_bp, ".1f"), number(100 * f.inside_share, ".1f"), str(f.iterations),
         f"{f.starts_agreeing} of {f.starts}", number(f.seconds, ".2f")]
        for f in fits
    ]  # fmt: skip
    head = ["model", "converged", "RMSE, bp of vol", "weighted, bp", "inside bid/ask, %", "iterations",
            "starts agreeing", "seconds"]  # fmt: skip
    table("Fits", head, rows)
    for fit in fits:
        head = ["parameter", "meaning", "value", "std. error", ""]
        table(fit.model.name, head, [_parameter(fit, name) for name in fit.params], text_columns=2)
    for text in dict.fromkeys([*fits[0].surface.warnings, *(w for f in fits for w in _warnings(f))]):
        warn(text)


def _parameter(fit: Fit, name: str) -> list[str]:
    note = "fixed" if name not in fit.free else "at bound" if name in fit.at_bounds else ""
    error = number(fit.std_errors[name], ".2g") if name in fit.free else "-"
    return [name, fit.model.table[name].text, number(fit.params[name], ".6g"), error, note]


def _warnings(fit: Fit) -> list[str]:
    status = [] if fit.status.converged else [f"{fit.model.name}: {fit.status.value}"]
    return [*status, *(f"{fit.model.name}: {w}" for w in fit.warnings)]


def _write(fits: list[Fit], out: Path | None, report: Path | None) -> None:
    if out is not None:
        from qsde.io.fits import write_fits

        write_fits(fits, out)
    if report is not None:
        from qsde.report import write_report

        write_report(fits, report)
