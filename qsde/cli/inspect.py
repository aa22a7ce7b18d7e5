"""`qsde inspect`: what is in a file, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsde.cli import options as o
from qsde.cli.chains import Choice, label, read_parts
from qsde.cli.grouped import grouped
from qsde.cli.guard import warn
from qsde.cli.show import line, number, progress, records, table
from qsde.errors import QsdeError

if TYPE_CHECKING:
    import pandas as pd

    from qsde.market.quotes import Quotes
    from qsde.market.surface import Surface
    from qsde.spec import MarketSpec


@grouped
def inspect(
    *,
    file: o.ChainFile,
    choice: Choice,
    selection: o.Selection,
    reading: o.Reading,
) -> None:
    """Say what is in a file of option quotes, and what is wrong with it.

    [bold]Example:[/bold] qsde inspect data/spx_vix_2023-02-15/spx_2023-02-15.parquet
    """
    market = selection.spec()
    parts = read_parts(file, reading.spec())
    line(f"{file}: {parts[0].vendor if parts else 'no'} format, {sum(map(len, parts)):,} readable quotes, "
         f"{sum(len(p.rejected) for p in parts):,} unreadable or unusable")  # fmt: skip
    chosen = choice.of(parts)
    with progress("cleaning") as tell:
        built = []
        for done, (i, part) in enumerate(chosen, start=1):
            built.append((i, part, _build(part, market)))
            tell(done, len(chosen))
    _overview(built)
    if len(built) == 1 and not isinstance(built[0][2], str):
        _details(built[0][2])


def _build(part: Quotes, market: MarketSpec) -> Surface | str:
    try:
        return market.surface(part)
    except QsdeError as error:
        return str(error)


def _overview(built: list[tuple[int, Quotes, Surface | str]]) -> None:
    rows: list[list[str]] = []
    problems: dict[str, list[str]] = {}
    for i, part, surface in built:
        read = f"{len(part) + len(part.rejected):,}"
        if isinstance(surface, str):
            rows.append(
                [
                    str(i),
                    label(part),
                    "-",
                    read,
                    "0",
                    "-",
                    "-",
                    _reasons(part.rejected) if len(part.rejected) else "see the warning",
                ]
            )
            problems.setdefault(surface, []).append(label(part))
            continue
        expiries = f"{surface.slices['expiry'].iloc[0]} .. {surface.slices['expiry'].iloc[-1]}"
        rows.append([str(i), label(part), expiries, read, f"{len(surface):,}", str(len(surface.slices)),
                     number(surface.spot, ",.2f"), _reasons(surface.rejected)])  # fmt: skip
        for text in surface.warnings:
            problems.setdefault(text, []).append(label(part))
    head = ["#", "surface", "expiries", "quotes read", "usable", "expiries", "spot", "set aside (quotes)"]
    table("Surfaces", head, rows, text_columns=3)
    for text, labels in problems.items():
        warn(f"{labels[0] if len(labels) == 1 else f'{len(labels)} surfaces'}: {text}")


def _reasons(rejected: pd.DataFrame) -> str:
    counts = rejected["reason"].value_counts()
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _details(surface: Surface) -> None:
    head = ["expiry", "forward from", "years", "forward", "discount factor", "zero rate, % p.a.", "pairs", "quotes",
            "ATM vol, %"]  # fmt: skip
    atm = surface.quotes.assign(gap=(surface.quotes["strike"] / surface.quotes["forward"] - 1).abs())
    atm_vol = atm.sort_values("gap").groupby("slice")["iv"].first()
    rows = [
        [str(r.expiry), str(r.forward_source), number(r.t, ".4f"), number(r.forward, ",.2f"),
         number(r.discount_factor, ".5f"), number(100 * r.rate, ".3f"), str(int(r.n_pairs)), str(int(r.n_quotes)),
         number(100 * float(atm_vol[i]), ".2f")]
        for i, r in enumerate(records(surface.slices))
    ]  # fmt: skip
    table("Forwards and rates", head, rows, text_columns=2)
