"""A pricing request as text: a model, a market, payoffs and an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from pydantic import Field, GetJsonSchemaHandler, model_validator

from qsde.calibration.fit import Fit
from qsde.errors import InputError
from qsde.market.markets import Markets
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import Model
from qsde.payoffs import Claim
from qsde.pricing.american import LeastSquares
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.spec.base import LONGEST, Spec, at
from qsde.spec.engine import AutoSpec, EngineSpec, FourierSpec
from qsde.spec.leveraged import LEVERAGED, spec_of
from qsde.spec.models import canonical_name
from qsde.spec.multi_asset import PricingModelSpec
from qsde.spec.payoffs import AnyPayoffSpec
from qsde.spec.underlying import UnderlyingSpec

#: Most payoffs of one request.
MAX_PAYOFFS = 10_000

#: Finds the fits of a file by its name.
Library = Callable[[str], list[Fit]]


class FitSource(Spec):
    """A file of fits written by `qsde calibrate --out`, and which of its models; a text alone is the file.

    For the pricing service `file` is the id of a stored fit.

    Example:
        >>> FitSource.model_validate("heston.json")
        FitSource(file='heston.json', model=None)
    """

    file: str = Field(min_length=1)
    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _file_alone(cls, given: Any) -> Any:
        return {"file": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Says that a text will do."""
        schema = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"type": "string", "minLength": 1}, {**schema}], "title": cls.__name__}


@dataclass(frozen=True)
class PricingJob:
    """A request made of objects: everything that is needed to price; `least_squares` is for early exercise."""

    model: Model
    payoffs: list[Claim]
    market: Market | Markets
    engine: MonteCarlo | Fourier | Auto
    least_squares: LeastSquares | None = None


class JobRequest(Spec):
    """What every request says: payoffs under one model in one market, and an engine.

    Attributes:
        model: the model by its parameters, such as `{"model": "black_scholes", "vol": 0.2}`; or give `fit`.
        fit: file of a fit, with the model to take where it holds several; open fields of `market` come from its quotes.
        market: spot, rates and dividends; a list of them, one for each underlying, for a model of several.
        payoffs: the payoffs, each with its name in `type`; they share the paths of a simulation.
        engine: how to price; by default exactly what has an exact price, and the rest by simulation.
    """

    model: PricingModelSpec | None = None
    fit: FitSource | None = None
    market: UnderlyingSpec | tuple[UnderlyingSpec, ...] = UnderlyingSpec()
    payoffs: tuple[AnyPayoffSpec, ...] = Field(min_length=1, max_length=MAX_PAYOFFS)
    engine: EngineSpec = AutoSpec()

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.fit is None):
            raise InputError("give a model or a fit, one of the two")
        return self

    def build(self, library: Library | None = None) -> PricingJob:
        """The objects of the request.

        Args:
            library: finds the fits of the file that `fit` names; without it a request with `fit` is refused.

        Raises:
            InputError: parameters, dates or levels that make no sense; the message starts with the field, such as
                `payoffs.2.strike`.
        """
        model, market = self.setting(library)
        payoffs = [_payoff(i, spec, model, market) for i, spec in enumerate(self.payoffs)]
        with at("engine", fields=type(self.engine).model_fields):
            engine = self.engine.build(model)
        if isinstance(self.engine, FourierSpec):
            return PricingJob(model, payoffs, market, engine)
        with at("engine.least_squares", fields=type(self.engine.least_squares).model_fields):
            return PricingJob(model, payoffs, market, engine, self.engine.least_squares.build())

    def setting(self, library: Library | None = None) -> tuple[Model, Market | Markets]:
        """Model and market, without a look at the payoffs; arguments and errors as in `build`."""
        fitted = None if self.fit is None else _fitted(self.fit, library)
        with at("model"):
            model = fitted.model if fitted is not None else self.model.build()  # type: ignore[union-attr]
        with at("market"):
            return model, _market(self.market, model, None if fitted is None else fitted.surface)


class PriceRequest(JobRequest):
    """Payoffs to price under one model in one market.

    Example:
        >>> request = PriceRequest.model_validate({
        ...     "model": {"model": "black_scholes", "vol": 0.2},
        ...     "market": {"spot": 100.0, "rate": 0.03},
        ...     "payoffs": [{"type": "european", "strike": 100.0, "expiry": 1.0}],
        ... })
        >>> request.build().payoffs
        [European(strike=100.0, expiry=1.0, kind='call')]
    """


def _fitted(source: FitSource, library: Library | None) -> Fit:
    if library is None:
        raise InputError("fit: no files are read here; give the model by its parameters")
    with at("fit"):
        return choose_fit(library(source.file), source.model, source.file)


def choose_fit(fits: list[Fit], name: str | None, source: str, field: str = "model") -> Fit:
    """The fit of the model called `name`, or the only one; `field` is where users give the name.

    Raises:
        InputError: there is no such fit, or several and no name; the message lists those of the `source`.
    """
    wanted = [f for f in fits if name is None or spec_of(f.model).model == canonical_name(name, LEVERAGED)]
    if len(wanted) != 1:
        held = ", ".join(spec_of(f.model).model for f in fits)
        raise InputError(f"{source} holds the fits {held}: choose with {field}")
    return wanted[0]


def _market(
    spec: UnderlyingSpec | tuple[UnderlyingSpec, ...], model: Model, surface: Surface | None
) -> Market | Markets:
    given = 1 if isinstance(spec, UnderlyingSpec) else len(spec)
    if given != model.assets:
        raise InputError(f"give one for each underlying of {model.name}, {model.assets} in all, not {given}")
    if isinstance(spec, UnderlyingSpec):
        return spec.build(surface)
    return Markets(list(_each(spec))) if given > 1 else spec[0].build(surface)


def _each(specs: tuple[UnderlyingSpec, ...]) -> Iterator[Market]:
    for i, spec in enumerate(specs):
        with at(str(i)):
            yield spec.build()


def _payoff(index: int, spec: AnyPayoffSpec, model: Model, market: Market | Markets) -> Claim:
    with at(f"payoffs.{index}", fields=spec.terms):
        payoff = spec.build()
        if payoff.assets != model.assets:
            raise InputError(
                f"{spec.name} takes the prices of {payoff.assets}, {model.name} has {model.assets} underlyings"
            )
        payoff.check_spot(market.spots if isinstance(market, Markets) else torch.as_tensor(market.spot))
        if payoff.maturity > LONGEST:
            raise InputError(f"ends in {payoff.maturity:,.10g} years: times are years, not days")
    return payoff
