"""`qsde keys`: API keys of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from qsde.errors import InputError

if TYPE_CHECKING:
    from service.security.keys import Keys

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys of the service (QSDE_DATABASE_URL).")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called: a person or a system.")],
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests a second (else QSDE_KEY_RATE).")] = None,
    quota: Annotated[int | None, typer.Option(min=1, help="Requests a day (else QSDE_KEY_QUOTA).")] = None,
) -> None:
    """Make a key and print it, once: the database keeps its digest only.

    [bold]Example:[/bold] qsde keys create desk --rate 100
    """
    typer.echo(_keys().create(name, rate, quota))


@keys.command("list")
def list_() -> None:
    """Show names, limits and dates of all keys."""
    table = Table("name", "rate", "quota", "created", "revoked")
    for key in _keys().all():
        cells = key.rate, key.quota, *(when and f"{when:%Y-%m-%d %H:%M}" for when in (key.created, key.revoked))
        table.add_row(key.name, *("" if cell is None else str(cell) for cell in cells))
    Console().print(table)


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="Name of the key.")]) -> None:
    """End a key; running services notice within seconds."""
    _keys().revoke(name)


def _keys() -> Keys:
    try:
        from pydantic import ValidationError

        from service.security.keys import Keys
        from service.settings import Settings
    except ModuleNotFoundError as missing:
        raise InputError(f"{missing.name} is not installed: pip install 'qsde[service]'") from missing
    from qsde.spec.base import explain

    try:
        return Keys.of(Settings())
    except ValidationError as error:
        raise InputError(f"settings (QSDE_*): {explain(error)}") from None
