"""`qsde price`: a quick number, or a whole request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsde.cli.contracts import Contracts, ForwardPrice, RequestFile, market_line
from qsde.cli.grouped import grouped
from qsde.cli.request import price_request
from qsde.cli.show import number, progress, table
from qsde.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from qsde.models import Model
    from qsde.spec import Contract


@grouped
def price(
    *,
    request: RequestFile = None,
    contracts: Contracts,
    forward: ForwardPrice = None,
    out: Annotated[Path | None, typer.Option(help="Write the answer to REQUEST to this JSON file.")] = None,
) -> None:
    """Price European options with a model given by its parameters or by a fit, or any payoffs by a REQUEST file.

    [bold]Example:[/bold] qsde price data/requests/exotics.json --out result.json

    qsde price --model heston -p v0=0.04 -p kappa=1.5 -p theta=0.05 -p sigma=0.4 -p rho=-0.7
    --strike 100 --strike 110 --expiry 0.5 --spot 100 --rate 0.03
    """
    if request is not None:
        contracts.refuse(request, forward=forward)
        price_request(request, out)
        return
    if out is not None:
        raise InputError("--out goes with a request file: qsde price request.json --out result.json")
    contracts.require("price")
    fitted, priced = contracts.priced()
    contract = contracts.contract(fitted, forward)
    value, error, vols = _exact(priced, contract) if priced.has_cf else _simulated(priced, contract)
    rows = [
        [number(k, ",.10g"), number(v, ".10g"), number(100 * vol, ".6f") if vol > 0 else "-", number(e, ".1g")]
        for k, v, vol, e in zip(*(x.tolist() for x in (contract.strike, value, vols, error)), strict=True)
    ]
    market_line(priced.name, contract)
    kind = "numerical error of the price" if priced.has_cf else "std. error of the price"
    table("", ["strike", "price", "implied vol, %", kind], rows, text_columns=0)


def _exact(model: Model, c: Contract) -> tuple[Tensor, Tensor, Tensor]:
    """Prices, their errors, and implied vols."""
    from qsde.pricing.fourier import model_vols, price_european

    result = price_european(model, c.strike, c.t, c.forward, c.discount_factor, c.is_call)
    return result.value, result.error, model_vols(model, c.t, c.strike, c.forward)


def _simulated(model: Model, c: Contract) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a model without Fourier prices; errors are standard errors."""
    import torch

    from qsde.market.implied_vol import implied_vol as invert
    from qsde.market.underlying import Market
    from qsde.payoffs import European
    from qsde.pricing.montecarlo import MonteCarlo
    from qsde.pricing.montecarlo import price as simulate

    kind = "call" if c.is_call else "put"
    book = [European(k, c.t, kind) for k in c.strike.tolist()]  # type: ignore[arg-type]
    with torch.no_grad(), progress("simulating") as tell:
        found = simulate(model, book, Market(c.forward), MonteCarlo(n_paths=1 << 17, max_dt=1 / 128), tell)
    vols = invert(found.value, c.forward, c.strike, c.t, is_call=c.is_call).vol
    return found.value * c.discount_factor, found.std_error * c.discount_factor, vols
