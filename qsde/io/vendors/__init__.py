"""The table of known formats and the choice among them: a format is one entry here."""

from __future__ import annotations

import re
import shlex
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


#: Canonical columns in the place of a missing one, and what names of columns that mean them look like.
_LIKELY: dict[str, dict[str, str]] = {
    "strike": {"strike": "strike|^k$"},
    "option_type": {"option_type": "type|call|^cp|right|side"},
    "expiry": {"expiry": "expir|matur|^exp"},
    "bid": {"bid": "bid|^b$", "ask": "ask|offer|^a$", "mid": "mid|last|close|mark|premium|price"},
}
#: Numbers of something else than the option.
_NO_OPTION = "underl|spot|stock|strike|size|iv|vol"


def _unrecognised(names: Collection[str], found: Sequence[str], path: str) -> str:
    lacking = TIDY.missing(names)
    said = f"{path}: the columns are those of no known format. Found: {_listed(found)}. Missing: {_spoken(lacking)}. "
    if len(lacking) == len(TIDY.needs.split()):
        said += "If it is a chain of options, perhaps without its line of column names, say"
    else:
        said += "Say"
    guesses = _guesses([group.split("|")[0] for group in lacking], found)
    options = " ".join(f"--map {shlex.quote(f'{ours}={theirs}')}" for ours, theirs in guesses.items())
    return (
        f"{said} which column is which: {options} (column_map={guesses}). "
        f"Known formats: {', '.join(v.title for v in VENDORS.values())}"
    )


def _guesses(lacking: Sequence[str], found: Sequence[str]) -> dict[str, str]:
    """Canonical column -> the one of the file that looks like it; "..." where none does."""
    guesses: dict[str, str] = {}
    for name in lacking:
        near = {ours: _like(pattern, found, name == "bid") for ours, pattern in _LIKELY[name].items()}
        known = {ours: theirs for ours, theirs in near.items() if theirs is not None}
        if {"bid", "ask"} <= known.keys():
            known.pop("mid", None)
        guesses |= known or {"mid" if name == "bid" else name: "..."}
    return guesses


def _like(pattern: str, found: Sequence[str], price: bool) -> str | None:
    names = (f for f in found if not (price and re.search(_NO_OPTION, f, re.IGNORECASE)))
    return next((f[:40] for f in names if re.search(pattern, f, re.IGNORECASE)), None)


def _spoken(groups: Sequence[str]) -> str:
    return ", ".join(" or ".join(group.split("|")) for group in groups)


def _listed(found: Sequence[str], most: int = 40) -> str:
    shown = ", ".join(repr(name[:40]) for name in found[:most])
    return (shown or "none") + (f" and {len(found) - most} more" if len(found) > most else "")
