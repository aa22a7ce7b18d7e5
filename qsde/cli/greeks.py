"""`qsde greeks`: Greeks of European options by options, or of any payoffs by a request file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsde.cli import options as o
from qsde.cli.contracts import Contracts, RequestFile
from qsde.cli.grouped import grouped
from qsde.cli.request import answer, counted, read_request, show_job, terms
from qsde.cli.show import number, table
from qsde.errors import InputError
from qsde.writing import reserve

if TYPE_CHECKING:
    from qsde.spec import GreeksRequest, GreeksResult, PricingJob

Which = Annotated[
    list[str] | None,
    typer.Option("--greek", "-g", metavar="NAME", help="Greek, such as delta. Repeatable. Default: all."),
]
UnitNames = Annotated[
    str | None, typer.Option(metavar="UNITS", help="trader (per vol point, day, 1 %; the default) or raw.")
]
Out = Annotated[Path | None, typer.Option(help="Write the answer to this JSON file.")]


@grouped
def greeks(
    *,
    request: RequestFile = None,
    contracts: Contracts,
    greek: Which = None,
    units: UnitNames = None,
    out: Out = None,
) -> None:
    """Greeks of European options with a model given by its parameters or by a fit, or of any payoffs by a REQUEST file.

    [bold]Example:[/bold] qsde greeks data/requests/greeks.json --out result.json

    qsde greeks --model heston -p v0=0.04 -p kappa=1.5 -p theta=0.05 -p sigma=0.4 -p rho=-0.7
    --strike 100 --expiry 0.5 --spot 100 --rate 0.03
    """
    if request is not None:
        contracts.refuse(request, greek=greek, units=units)
        from qsde.spec import GreeksRequest

        wanted, source = read_request(GreeksRequest, request, out), f"{request}: "
    else:
        contracts.require("greeks")
        reserve(out)
        wanted, source = _european(contracts, greek, units), ""
    from qsde.spec import GreeksResult

    answer(wanted, GreeksResult.of, "Greeks of", source, out, _show)


def _european(c: Contracts, which: list[str] | None, units: str | None) -> GreeksRequest:
    """The request that the options stand for."""
    from qsde.spec import GreeksRequest, checked, spec_of

    fitted, model = c.priced()
    if fitted is None and c.spot is None:
        raise InputError("Greeks need the price of the underlying: give --spot")
    contract = c.contract(fitted)
    kind = "put" if c.put else "call"
    source: dict[str, Any] = (
        {"model": spec_of(model).model_dump()} if c.fit is None else {"fit": {"file": str(c.fit), "model": c.model}}
    )
    values = source | {
        "market": _given({"spot": c.spot, "rate": o.rate(c.rate, "--rate"),
                          "dividend_yield": o.rate(c.dividend_yield, "--dividend-yield")}),
        "payoffs": [{"type": "european", "strike": k, "expiry": contract.t, "kind": kind} for k in c.strike or ()],
        "greeks": _given({"which": which or None, "units": units}),
    }  # fmt: skip
    request: GreeksRequest = checked(GreeksRequest, values)
    return request


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _show(request: GreeksRequest, job: PricingJob, result: GreeksResult) -> None:
    """A table for each payoff."""
    show_job(job, request.engine, result.n_paths, f"{result.seconds:.2f} s; units of {_UNITS[result.units]}")
    titles = [f"{spec.name}: {terms(spec)}" for spec in request.payoffs]
    if request.greeks.total:
        titles = [f"book of {counted(job)}"]
    for title, payoff in zip(titles, result.payoffs, strict=True):
        rows = [
            [g.greek, number(g.value, ",.8g"), "-" if g.std_error is None else number(g.std_error, ".2g"), g.unit,
             payoff.method]
            for g in payoff.greeks
        ]  # fmt: skip
        table(title, ["greek", "value", "std. error", "unit", "method"], rows)


_UNITS = {"trader": "traders", "raw": "the derivatives themselves"}
