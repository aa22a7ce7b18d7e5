"""The Greeks by name: what they are derivatives of, and the units in which traders quote them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, product
from typing import Literal

Units = Literal["trader", "raw"]

#: Calendar days of a year.
DAYS = 365.0


@dataclass(frozen=True)
class Greek:
    """One Greek.

    Attributes:
        name: the name.
        text: what it is.
        of: what is differentiated: the "price", the "delta" or the "vega".
        by: what it is differentiated by: "spot", "vol", "time", "rate", "dividend_yield", or nothing for the price.
        scale: what the raw derivative is multiplied by in the units of traders.
        unit: that unit, in words.
        raw: the unit of the raw derivative, in words; empty if it is the same.
    """

    name: str
    text: str
    of: str
    by: str
    scale: float
    unit: str
    raw: str = ""

    @property
    def raw_unit(self) -> str:
        """The unit of the raw derivative, in words."""
        return self.raw or self.unit


#: Every Greek that is not a derivative to a parameter of the model.
GREEKS: dict[str, Greek] = {
    g.name: g
    for g in (
        Greek("price", "present value", "price", "", 1.0, "currency"),
        Greek("delta", "to the spot", "price", "spot", 1.0, "per 1.00 of spot"),
        Greek("gamma", "delta to the spot", "delta", "spot", 1.0, "per 1.00 of spot, twice"),
        Greek("vega", "to a parallel shift of implied vols", "price", "vol", 0.01, "per vol point", "per 1.00 of vol"),
        Greek("theta", "to the passing of time", "price", "time", 1 / DAYS, "per calendar day", "per year"),
        Greek("rho", "to a parallel shift of interest rates", "price", "rate", 0.01, "per 1 %", "per 1.00 of rate"),
        Greek(
            "dividend_rho",
            "to a parallel shift of dividend yields",
            "price",
            "dividend_yield",
            0.01,
            "per 1 %",
            "per 1.00 of yield",
        ),
        Greek(
            "vanna",
            "delta to a parallel shift of implied vols",
            "delta",
            "vol",
            0.01,
            "per 1.00 of spot, vol point",
            "per 1.00 of spot, 1.00 of vol",
        ),
        Greek(
            "volga",
            "vega to a parallel shift of implied vols",
            "vega",
            "vol",
            1e-4,
            "per vol point, twice",
            "per 1.00 of vol, twice",
        ),
        Greek(
            "charm",
            "delta to the passing of time",
            "delta",
            "time",
            1 / DAYS,
            "per 1.00 of spot, calendar day",
            "per 1.00 of spot, year",
        ),
    )
}


def parameter_greek(name: str) -> Greek:
    """The Greek of a model parameter, `d_kappa` and so on: raw in every unit."""
    return Greek(f"d_{name}", f"to the parameter {name}", "price", name, 1.0, f"per 1.00 of {name}")


def greeks_of(labels: Sequence[str]) -> dict[str, Greek]:
    """The Greeks of several underlyings by name: `GREEKS` with the numbers of the underlyings at the end.

    `delta_1`, `vega_1`, `volga_1`, `charm_1` and `dividend_rho_1` are of one underlying, `gamma_1_2` (each pair once)
    the derivative of the first's delta to the second's spot and the other way round, `vanna_1_2` that of the first's
    delta to the second's implied vols. Price, theta and rho are of all.

    Args:
        labels: ends of the names, such as ("_1", "_2"); ("",) for one underlying.

    Example:
        >>> list(greeks_of(("_1", "_2")))[:6]
        ['price', 'delta_1', 'delta_2', 'gamma_1_1', 'gamma_1_2', 'gamma_2_2']
    """
    if tuple(labels) == ("",):
        return dict(GREEKS)
    found = [_labelled(g, ends) if ends else g for g in GREEKS.values() for ends in _ends(g, labels)]
    return {g.name: g for g in found}


def _owners(greek: Greek) -> int:
    """How many underlyings are in the name of a Greek."""
    if greek.name == "volga":
        return 1
    return (greek.of in ("delta", "vega")) + (greek.by in ("spot", "vol", "dividend_yield"))


def _ends(greek: Greek, labels: Sequence[str]) -> list[tuple[str, ...]]:
    owners = _owners(greek)
    each_once = owners == 2 and greek.by == "spot"
    return list(combinations_with_replacement(labels, 2) if each_once else product(labels, repeat=owners))


def _labelled(greek: Greek, ends: tuple[str, ...]) -> Greek:
    numbers = " and ".join(end.removeprefix("_") for end in ends)
    return replace(greek, name=greek.name + "".join(ends), text=f"{greek.text}, of underlyings {numbers}")
