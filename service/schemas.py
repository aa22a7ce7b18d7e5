"""What the service answers, and the one request that the library has no spec for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qsde import __version__
from qsde.errors import InputError, VolStatus
from qsde.spec import EngineSpec, GreeksSpec, PayoffGreeks, PricedPayoff, PricingModelSpec, Spec


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Failed(Answer):
    """A contract that could not be priced; its neighbours are priced without it.

    Attributes:
        status: "error".
        type: what it called itself.
        field: where in the request, such as `payoffs.2.strike`.
        message: what is wrong and what to do.
    """

    status: Literal["error"] = "error"
    type: str | None
    field: str
    message: str


class Priced(PricedPayoff):
    """The value of one contract; see `qsde.spec.PricedPayoff`."""

    status: Literal["ok"] = "ok"


class PricedGreeks(PayoffGreeks):
    """The Greeks of one contract; see `qsde.spec.PayoffGreeks`."""

    status: Literal["ok"] = "ok"


class PriceAnswer(Answer):
    """Prices in the order of the request.

    Attributes:
        qsde_version: version that priced.
        units: of values and errors.
        seconds: time of the computation, shared with requests that were priced together.
        n_paths: paths simulated; null without a simulation.
        model: the model.
        engine: the engine with its defaults filled in: the same request gives the same digits.
        payoffs: one for each contract; the `method` of each says whether it was integrated or simulated.
    """

    qsde_version: str = __version__
    units: str = "values and errors discounted, in the currency of the spot; times in years"
    seconds: float
    n_paths: int | None
    model: PricingModelSpec
    engine: EngineSpec
    payoffs: list[Annotated[Priced | Failed, Field(discriminator="status")]]


class GreeksAnswer(Answer):
    """Greeks in the order of the request; one `book` if a total is asked for.

    Attributes:
        qsde_version: version that computed.
        units: "trader" or "raw"; each Greek says its own.
        seconds: time of the computation.
        n_paths: paths simulated; null without a simulation.
        model: the model.
        engine: the engine with its defaults filled in.
        greeks: which Greeks, and how.
        payoffs: one for each contract.
    """

    qsde_version: str = __version__
    units: Literal["trader", "raw"]
    seconds: float
    n_paths: int | None
    model: PricingModelSpec
    engine: EngineSpec
    greeks: GreeksSpec
    payoffs: list[Annotated[PricedGreeks | Failed, Field(discriminator="status")]]


#: Most quotes that a request may hold at all; the service's own limit is lower.
_MOST = 1_000_000
Numbers = float | Annotated[tuple[float, ...], Field(min_length=1, max_length=_MOST)]
Flags = bool | Annotated[tuple[bool, ...], Field(min_length=1, max_length=_MOST)]


class ImpliedVolRequest(Spec):
    """Prices of European options whose Black volatilities are wanted; a single number stands for every option.

    Attributes:
        price: prices today.
        forward: forward prices to expiry.
        strike: strikes.
        expiry: years to expiry.
        discount_factor: value today of 1 paid at expiry.
        is_call: calls or puts.
    """

    price: Numbers
    forward: Numbers
    strike: Numbers
    expiry: Numbers
    discount_factor: Numbers = 1.0
    is_call: Flags = True

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        lengths = {
            name: len(value) for name in type(self).model_fields if isinstance(value := getattr(self, name), tuple)
        }
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InputError(f"lists must be equally long, one number for each option; got {shown}")
        return self

    @property
    def count(self) -> int:
        """Number of options."""
        values = [getattr(self, name) for name in type(self).model_fields]
        return max(len(value) if isinstance(value, tuple) else 1 for value in values)


class ImpliedVolItem(Answer):
    """One volatility.

    Attributes:
        status: "ok", or why there is none.
        vol: annualised decimal; null if there is none.
        message: the status in words.
    """

    status: str
    vol: float | None
    message: str


class ImpliedVolAnswer(Answer):
    """Volatilities in the order of the request."""

    qsde_version: str = __version__
    items: list[ImpliedVolItem]


#: Statuses as they are sent.
VOL_STATUS = {status: status.name.lower() for status in VolStatus}


class ParameterText(Answer):
    """One parameter of a model.

    Attributes:
        name: as it is sent.
        text: what it is, with its unit.
        domain: where the model is defined.
        typical: a plausible value for an equity index.
    """

    name: str
    text: str
    domain: str
    typical: float


class ModelText(Answer):
    """One model; `request` is what goes into the field `model` of a request.

    Attributes:
        name: as it is sent.
        exact_prices: whether the fourier engine prices under it.
        parameters: its parameters.
        request: a plausible parameter set.
        json_schema: the schema of the field `model`.
    """

    name: str
    exact_prices: bool
    parameters: list[ParameterText]
    request: dict[str, object]
    json_schema: dict[str, object]


class Models(Answer):
    """The models that requests may name."""

    models: list[ModelText]


class PayoffText(Answer):
    """One kind of payoff: its name in the field `type`, what it is, and the schema of its fields."""

    name: str
    text: str
    json_schema: dict[str, object]


class Payoffs(Answer):
    """The payoffs that requests may hold."""

    payoffs: list[PayoffText]


class Health(Answer):
    """Whether the service runs; `ready` if it takes requests."""

    status: Literal["ok", "ready", "starting", "closing"]
