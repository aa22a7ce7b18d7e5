"""The table of known formats and the choice among them: a format is one entry here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qsde.errors import FileFormatError, InputError
from qsde.io.vendors.base import Vendor
from qsde.io.vendors.coins import COINS
from qsde.io.vendors.listed import LISTED
from qsde.io.vendors.tidy import TIDY, TIDY_WIDE

#: Every known format by name; of equally specific ones the earlier wins.
VENDORS: dict[str, Vendor] = {v.name: v for v in (*LISTED, *COINS, TIDY, TIDY_WIDE)}

#: Columns of the tidy format, the names a column map may give.
CANONICAL = tuple(sorted(TIDY.used() | TIDY_WIDE.used()))


def known_columns() -> frozenset[str]:
    """Every column name any format uses."""
    return frozenset().union(*(v.used() for v in VENDORS.values()))


def choose_vendor(
    names: Collection[str], found: Sequence[str], path: str, wanted: str | None = None, mapped: bool = False
) -> Vendor:
    """The format whose needed columns are all there; of several, the one that needs most.

    Args:
        names: normal column names of the file, after the user's map.
        found: names as printed, for the message.
        path: file, for the message.
        wanted: format asked for by name.
        mapped: the user mapped columns to tidy names, so that the tidy format goes first.

    Raises:
        FileFormatError: no format fits; lists what was found, what is needed and how to map it.
        InputError: no format of the wanted name.
    """
    if wanted is not None:
        return _named(wanted, names, found, path)
    fitting = [v for v in VENDORS.values() if not v.missing(names)]
    if mapped and TIDY in fitting:
        return TIDY
    if not fitting:
        raise FileFormatError(_unrecognised(names, found, path))
    return max(fitting, key=lambda v: len(v.needs.split()))


def _named(wanted: str, names: Collection[str], found: Sequence[str], path: str) -> Vendor:
    if wanted not in VENDORS:
        raise InputError(f"vendor {wanted!r} is not known; choose one of {', '.join(VENDORS)}, or leave it out")
    vendor = VENDORS[wanted]
    lacking = vendor.missing(names)
    if lacking:
        raise FileFormatError(
            f"{path}: lacks {_spoken(lacking)}, which {vendor.title} has; found {_listed(found)}. "
            "Leave out the vendor to have the format recognised by its columns"
        )
    return vendor


def _unrecognised(names: Collection[str], found: Sequence[str], path: str) -> str:
    lacking = TIDY.missing(names)
    spare = next((f for f, n in zip(found, names, strict=False) if n and n not in TIDY.used()), "K")
    example = f"{lacking[0].split('|')[0]}={spare[:40]}"
    return (
        f"{path}: the columns are those of no known format. Found: {_listed(found)}. "
        f"Needed: {_spoken(TIDY.needs.split())}; missing: {_spoken(lacking)}. "
        f"Say which column is which with --map, canonical=found, for example --map {example!r} "
        f"(column_map={{{example.partition('=')[0]!r}: {spare[:40]!r}}}). "
        f"Known formats: {', '.join(v.title for v in VENDORS.values())}"
    )


def _spoken(groups: Sequence[str]) -> str:
    return ", ".join(" or ".join(group.split("|")) for group in groups)


def _listed(found: Sequence[str], most: int = 40) -> str:
    shown = ", ".join(repr(name[:40]) for name in found[:most])
    return (shown or "none") + (f" and {len(found) - most} more" if len(found) > most else "")
