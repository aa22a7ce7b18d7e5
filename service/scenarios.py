"""Ladders of spots and vols: what requests say of them, what is answered, and how it is computed."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from qsde import __version__
from qsde.errors import InputError
from qsde.greeks.scenarios import Scenarios, check_exact_scenarios, scenarios
from qsde.market.underlying import Market
from qsde.payoffs import Payoff
from qsde.spec import EngineSpec, JobRequest, PricingJob, PricingModelSpec, Spec
from qsde.spec.base import at
from service.schemas import Answer, Failed

#: Most steps of a ladder.
_MOST = 101
Column = Literal["price", "delta", "gamma", "vega"]


class LadderSpec(Spec):
    """Which scenarios, and what of them; see `qsde.greeks.scenarios`.

    Attributes:
        spots: relative moves of the spot, above -1; 0 is added.
        vols: parallel shifts of implied vols, 0.01 for one point; 0 is added.
        which: what is computed in each; "price" is added.
        units: "trader" (vega per vol point) or "raw".
    """

    spots: tuple[float, ...] = Field(default=(-0.1, -0.05, 0.0, 0.05, 0.1), min_length=1, max_length=_MOST)
    vols: tuple[float, ...] = Field(default=(-0.05, 0.0, 0.05), min_length=1, max_length=_MOST)
    which: tuple[Column, ...] = ("price", "delta", "gamma", "vega")
    units: Literal["trader", "raw"] = "trader"


class ScenariosRequest(JobRequest):
    """Payoffs under one model in one market, with the spot moved and implied vols shifted.

    Attributes:
        scenarios: which moves, and what of them.
    """

    scenarios: LadderSpec = LadderSpec()


class Laddered(Answer):
    """One contract in all scenarios; tables have a row for each spot and a column for each vol.

    Attributes:
        status: "ok".
        type: name of the payoff.
        method: how it was computed.
        knocked: for each spot, whether the contract has been knocked in or out there.
        values: tables of the price, of Greeks, and of "pnl", the price less that without a move.
        std_errors: their standard errors; null without a simulation.
    """

    status: Literal["ok"] = "ok"
    type: str
    method: str
    knocked: list[bool]
    values: dict[str, list[list[float]]]
    std_errors: dict[str, list[list[float]]] | None


class ScenariosAnswer(Answer):
    """Ladders in the order of the request.

    Attributes:
        qsde_version: version that computed.
        units: "trader" or "raw".
        seconds: time of the computation.
        n_paths: paths simulated; null without a simulation.
        model: the model.
        engine: the engine with its defaults filled in.
        spots: relative moves, increasing, 0 among them.
        levels: the spots.
        vols: shifts, increasing, 0 among them.
        payoffs: one for each contract.
    """

    qsde_version: str = __version__
    units: Literal["trader", "raw"]
    seconds: float
    n_paths: int | None
    model: PricingModelSpec
    engine: EngineSpec
    spots: list[float]
    levels: list[float]
    vols: list[float]
    payoffs: list[Annotated[Laddered | Failed, Field(discriminator="status")]]


def moved(request: ScenariosRequest, job: PricingJob) -> Scenarios:
    """The scenarios of a request.

    Raises:
        InputError: a payoff, the model or the moves allow none; the message starts with the field.
    """
    ladder = request.scenarios
    if not isinstance(job.market, Market):
        raise InputError("payoffs.0: there are no scenarios of several underlyings")
    for i, claim in enumerate(job.payoffs):
        if not isinstance(claim, Payoff):
            with at(f"payoffs.{i}"):
                check_exact_scenarios(job.model, claim, job.market, job.engine)
    with at("scenarios", fields=LadderSpec.model_fields):
        return scenarios(
            job.model, job.payoffs, job.market, job.engine, ladder.spots, ladder.vols, ladder.which, ladder.units
        )


def laddered(found: Scenarios, row: int, name: str) -> Laddered | None:
    """One contract of them; None if a number is not finite."""
    names = [*found.which, "pnl"]
    values = {column: found[column][row] for column in names}
    if not all(bool(torch.isfinite(table).all()) for table in values.values()):
        return None
    errors = {column: _table(found.error(column)[row]) for column in names} if found.n_paths else None
    return Laddered(
        type=name,
        method=found.methods[row],
        knocked=found.knocked[row].tolist(),
        values={column: _table(table) for column, table in values.items()},
        std_errors=errors,
    )


def _table(values: Tensor) -> list[list[float]]:
    rows: list[list[float]] = values.tolist()
    return rows
