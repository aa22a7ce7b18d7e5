"""The application: its commands, its version, its entry point."""

from __future__ import annotations

from typing import Annotated

import typer

from qsde import __version__
from qsde.cli.batch import batch
from qsde.cli.calibrate import calibrate
from qsde.cli.evaluate import evaluate
from qsde.cli.greeks import greeks
from qsde.cli.guard import GuardedGroup
from qsde.cli.implied_vol import implied_vol
from qsde.cli.inspect import inspect
from qsde.cli.keys import keys
from qsde.cli.price import price
from qsde.cli.serve import serve

app = typer.Typer(
    name="qsde",
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Calibrate option models to market quotes, and price with them.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qsde {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Calibrate option models to market quotes, and price with them.

    Start with [bold]qsde inspect FILE[/bold], then [bold]qsde calibrate FILE --model heston[/bold].
    """


for command, name in ((inspect, "inspect"), (calibrate, "calibrate"), (batch, "batch"), (evaluate, "evaluate"),
                      (price, "price"), (greeks, "greeks"), (implied_vol, "implied-vol"),
                      (serve, "serve")):  # fmt: skip
    app.command(name)(command)
app.add_typer(keys, name="keys")


def main() -> None:
    """The entry point of the `qsde` command."""
    app()
