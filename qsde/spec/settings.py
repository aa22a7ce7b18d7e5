"""How to calibrate and which curves to use, as text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from qsde.calibration.calibrate import calibrate
from qsde.calibration.fit import Fit
from qsde.calibration.penalties import Feller, Penalty, Prior
from qsde.errors import InputError
from qsde.market.build import build_surface
from qsde.market.cleaning import CleaningRules
from qsde.market.curves import Curve, FlatCurve, PillarCurve, as_curve, read_treasury
from qsde.market.quotes import Quotes
from qsde.market.surface import Surface
from qsde.models import Model
from qsde.spec.base import Spec, at
from qsde.spec.fitting import fit_leveraged
from qsde.spec.leveraged import LEVERAGED
from qsde.spec.models import MODEL_TEMPLATES, canonical_name, model_from, template

#: Default strength of the Feller penalty, in vol.
FELLER_STRENGTH = 0.01

#: Settings of a simulation, and the models that are fitted by one.
SIMULATED: dict[str, tuple[str, ...]] = {
    "backbone": ("lsv", "neural_lsv"),
    "paths": ("lsv", "neural_local_vol", "neural_lsv", "neural_sv"),
    "max_dt": ("lsv", "neural_local_vol", "neural_lsv", "neural_sv"),
}
Rate = float | dict[float, float]
Progress = Callable[[int, int], None]


class MarketSpec(Spec):
    """What a user says about the market: rates, dividend yields, and which quotes to use.

    Attributes:
        rate: interest rate, annualised decimal, or `{years: zero rate}`; None means implied from the quotes.
        dividend_yield: dividend or borrow yield in the same form; None means implied from the quotes.
        treasury: CSV file of US Treasury par yields (date,1M,...,30Y in percent), instead of `rate`.
        min_days: shortest time to expiry to use.
        max_days: longest time to expiry to use; None for no limit.
        max_deviations: farthest strike to use, in at-the-money standard deviations of its expiry; None for no limit.
        early_exercise: remove the premium of early exercise from options marked American, before vols are implied.
        fold: narrow each quote by the other option of its strike.

    Example:
        >>> MarketSpec(rate={0.5: 0.04, 1.0: 0.045}).rate_curve().zero_rate(1.0)
        tensor(0.0450, dtype=torch.float64)
    """

    rate: Rate | None = None
    dividend_yield: Rate | None = None
    treasury: str | None = None
    min_days: float = Field(default=0.0, ge=0)
    max_days: float | None = Field(default=None, gt=0)
    max_deviations: float | None = Field(default=None, gt=0)
    early_exercise: bool = True
    fold: bool = False

    @model_validator(mode="after")
    def _one_rate(self) -> MarketSpec:
        if self.rate is not None and self.treasury is not None:
            raise InputError("give a rate or a file of Treasury yields, not both")
        return self

    @model_validator(mode="after")
    def _some_days(self) -> MarketSpec:
        self.rules()
        return self

    def surface(self, quotes: Quotes) -> Surface:
        """The clean surface of `quotes`, with the rates of their own day where a Treasury file is given.

        Raises:
            QuoteError: no quote is usable, or the Treasury file has no yields for the day.
        """
        return build_surface(quotes, self.rate_curve(_day(quotes)), self.dividend_curve(), self.rules())

    def rules(self) -> CleaningRules:
        """The rules of the cleaning, with this selection."""
        return CleaningRules(
            min_days=self.min_days,
            max_days=math.inf if self.max_days is None else self.max_days,
            max_deviations=math.inf if self.max_deviations is None else self.max_deviations,
            early_exercise=self.early_exercise,
            fold=self.fold,
        )

    def rate_curve(self, day: str | None = None) -> Curve | None:
        """The interest rate curve of `day` (ISO date), None where the quotes decide."""
        if self.treasury is None:
            return _curve(self.rate, "rate")
        if day is None:
            raise InputError(f"the Treasury curve of {self.treasury} needs a day, and the quotes have no time")
        return read_treasury(self.treasury, day)

    def dividend_curve(self) -> Curve | None:
        """The dividend curve, None where the quotes decide."""
        return _curve(self.dividend_yield, "dividend yield")


def _day(quotes: Quotes) -> str | None:
    times = (quotes.frame if len(quotes) else quotes.rejected)["quote_time"].dropna()
    return f"{times.iloc[0]:%Y-%m-%d}" if len(times) else None


def _curve(rate: Rate | None, name: str) -> Curve | None:
    if rate is None:
        return None
    if isinstance(rate, dict):
        for years, value in rate.items():
            as_curve(value, f"{name} at {years:g} years")
        pillars = sorted(rate)
        with at(name):
            return PillarCurve(pillars, [rate[t] for t in pillars])
    return as_curve(rate, name) if rate else FlatCurve(0.0)


class PriorSpec(Spec):
    """A belief about one parameter: `mean` with a standard deviation `std`, in the parameter's own unit."""

    mean: float
    std: float = Field(gt=0)


class CalibrationSpec(Spec):
    """What `qsde calibrate` and `qsde batch` need to know besides the quotes; None leaves the library's default.

    Attributes:
        model: model name, a key of `MODEL_TEMPLATES`.
        weights: "spread" weighs quotes by their bid/ask width, "equal" does not.
        objective: errors of implied vol, or of price divided by market vega.
        starts: number of starting points.
        bounds: open interval by parameter.
        fixed: parameters held at a value.
        feller: strength (in vol) of a penalty on Heston parameters with `2 kappa theta < sigma^2`, such as 0.01; None
            for no penalty.
        prior: beliefs by parameter.
        seed: seed of the random starts.
        max_iterations: iteration limit; steps of the training of a network.
        backbone: variance, and jumps, of "lsv" and "neural_lsv", calibrated first; None is heston.
        paths, max_dt: of the simulation by which "lsv" and networks are fitted.

    Models with a table or a network ("local_vol", "lsv", "neural_local_vol", "neural_lsv", "neural_sv") have no
    parameters to bound or fix.

    Example:
        >>> spec = CalibrationSpec(model="Heston", fixed={"kappa": 2.5})
        >>> spec.model, spec.build_template().params["kappa"].item()
        ('heston', 2.5)
    """

    model: str
    weights: Literal["spread", "equal"] = "spread"
    objective: Literal["implied_vol", "price"] = "implied_vol"
    starts: int | None = Field(default=None, ge=1, le=10_000)
    bounds: dict[str, tuple[float, float]] = Field(default_factory=dict)
    fixed: dict[str, float] = Field(default_factory=dict)
    feller: float | None = Field(default=None, gt=0)
    prior: dict[str, PriorSpec] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0, lt=1 << 64)
    max_iterations: int | None = Field(default=None, ge=1, le=100_000)
    backbone: Literal["heston", "bates"] | None = None
    paths: int | None = Field(default=None, ge=1 << 8, le=1 << 24)
    max_dt: float | None = Field(default=None, gt=0, le=1)

    @field_validator("model")
    @classmethod
    def _known_model(cls, name: str) -> str:
        return canonical_name(name, LEVERAGED)

    @model_validator(mode="after")
    def _parameters_exist(self) -> CalibrationSpec:
        for field, models in SIMULATED.items():
            if getattr(self, field) is not None and self.model not in models:
                raise InputError(f"{field}: not for {self.model}, only for {', '.join(models)}; leave it out")
        if self.model in LEVERAGED:
            return self._with_leverage()
        table = MODEL_TEMPLATES[self.model]().table
        for field in ("bounds", "fixed", "prior"):
            for name in getattr(self, field):
                if name not in table:
                    raise InputError(f"{field}: {self.model} has no parameter {name!r}; it has {', '.join(table)}")
        for name, (low, high) in self.bounds.items():
            if not low < high:
                raise InputError(f"bounds of {name}: the lower bound {low:g} must be below the upper bound {high:g}")
        if self.feller is not None and "kappa" not in table:
            raise InputError(f"feller: {self.model} has no variance process, so the Feller condition has no meaning")
        return self

    def _with_leverage(self) -> CalibrationSpec:
        for field in ("bounds", "fixed", "prior", "feller", "starts"):
            if getattr(self, field):
                raise InputError(f"{field}: {self.model} has no parameters for it; leave it out")
        if self.objective != "implied_vol":
            raise InputError(f"objective: {self.model} is fitted to implied vols")
        return self

    def fit(self, surface: Surface, progress: Progress | None = None) -> Fit:
        """The calibration.

        Raises:
            QuoteError: the surface is empty.

        Example:
            >>> surface = Surface.from_vols([0.5, 0.5, 1.0], [90.0, 110.0, 100.0], 0.2, forward=100.0)
            >>> CalibrationSpec(model="local-vol").fit(surface).model.name
            'LocalVol'
        """
        if self.model in LEVERAGED:
            return fit_leveraged(self, surface, progress)
        return calibrate(self.build_template(), surface, **self.arguments(), progress=progress)

    def build_template(self) -> Model:
        """The model to start from, with the fixed parameters at their values.

        Raises:
            ParameterError: a fixed value lies outside the parameter's domain.
            InputError: the model has a leverage, which a calibration builds.
        """
        if self.model in LEVERAGED:
            raise InputError(f"{self.model} has no template; CalibrationSpec(...).fit(surface) fits it")
        start = template(self.model)
        return model_from(self.model, {**{k: float(v) for k, v in start.params.items()}, **self.fixed})

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `qsde.calibration.calibrate` that this spec decides."""
        limits = {"starts": self.starts, "max_iterations": self.max_iterations}
        return {
            "weights": self.weights,
            "objective": self.objective,
            "bounds": dict(self.bounds) or None,
            "fixed": tuple(self.fixed),
            "penalties": self._penalties(),
            "seed": self.seed,
            **{k: v for k, v in limits.items() if v is not None},
        }

    def _penalties(self) -> tuple[Penalty, ...]:
        feller = (Feller(self.feller),) if self.feller is not None else ()
        mean, std = ({name: getattr(p, f) for name, p in self.prior.items()} for f in ("mean", "std"))
        return (*feller, *((Prior(mean, std),) if mean else ()))


class ReadingSpec(Spec):
    """How to read files, as the keyword arguments of `qsde.io.read_quotes`; None leaves it to the file.

    Attributes:
        column_map: our column name to the file's, such as `{"strike": "K"}`.
        timezone: zone of times without one, such as "America/New_York".
        quote_time: time of the quotes where the file has none.
        underlying: name of the underlying where the file has none.
        spot: price of the underlying where the file has none.
        vendor: format, where the columns do not tell.
        max_bytes: largest file to read.
    """

    column_map: dict[str, str] | None = None
    timezone: str | None = None
    quote_time: str | None = None
    underlying: str | None = None
    spot: float | None = Field(default=None, gt=0)
    vendor: str | None = None
    max_bytes: int | None = Field(default=None, gt=0)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that were given."""
        return self.model_dump(exclude_none=True)
