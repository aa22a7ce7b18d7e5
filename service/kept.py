"""Requests and answers about what the service keeps: surfaces, jobs and fits."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from qsde.errors import InputError
from qsde.spec import CalibrationSpec, FitSummary, MarketSpec, ReadingSpec, Spec, checked
from qsde.spec.settings import Rate
from service.jobs.queue import State
from service.schemas import Answer

#: Most quotes that a request may hold at all; the limit of its bytes is met before.
_MOST_QUOTES = 100_000
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class SurfaceOptions(Spec):
    """How to read quotes, as the options of `qsde calibrate`; all may be left out.

    Attributes:
        column_map: tidy name of a column to the file's, such as {"strike": "K"}.
        timezone: zone of times without one, such as "America/New_York".
        quote_time: time of the quotes where the file has none.
        underlying: name of the underlying where the file has none.
        spot: price of the underlying where the file has none.
        vendor: format, where the columns do not tell.
        rate: interest rate, annualised decimal, or {years: zero rate}; implied from the quotes if left out.
        dividend_yield: dividend or borrow yield in the same form.
        min_days, max_days: times to expiry to use.
        max_deviations: farthest strike to use, in at-the-money standard deviations of its expiry.
        early_exercise: remove the premium of early exercise from options marked American, before vols are implied.
        fold: narrow each quote by the other option of its strike.
        date: quote time of the surface to take, or its beginning, such as 2023-02-15.
        symbol: underlying of the surface to take.
        surface: number of the surface to take, from 1, in order of underlying and time.
    """

    column_map: dict[str, str] | None = None
    timezone: str | None = None
    quote_time: str | None = None
    underlying: str | None = None
    spot: float | None = Field(default=None, gt=0)
    vendor: str | None = None
    rate: Rate | None = None
    dividend_yield: Rate | None = None
    min_days: float = Field(default=0.0, ge=0)
    max_days: float | None = Field(default=None, gt=0)
    max_deviations: float | None = Field(default=None, gt=0)
    early_exercise: bool = True
    fold: bool = False
    date: str | None = None
    symbol: str | None = None
    surface: int | None = Field(default=None, ge=1)

    def check(self) -> None:
        """Raises InputError if an option makes no sense, whatever the quotes."""
        self.reading()
        self.market().rate_curve()
        self.market().dividend_curve()

    def reading(self) -> ReadingSpec:
        """How to read the file."""
        found: ReadingSpec = checked(ReadingSpec, {name: getattr(self, name) for name in _READING})
        return found

    def market(self) -> MarketSpec:
        """Which quotes to use, and the curves."""
        found: MarketSpec = checked(MarketSpec, {name: getattr(self, name) for name in _MARKET})
        return found


_READING = ReadingSpec.model_fields.keys() & SurfaceOptions.model_fields.keys()
_MARKET = MarketSpec.model_fields.keys() & SurfaceOptions.model_fields.keys()


class Expiry(Answer):
    """One expiry of a surface.

    Attributes:
        expiry: as the exchange prints it.
        t: years.
        forward, discount_factor, rate: to this expiry; the rate is continuous.
        forward_source: where the forward came from: parity, file, curve or given.
        pairs: call/put pairs behind it.
        quotes: quotes kept.
        share_in_spread: share of pairs that agree within bid and ask; null without pairs.
    """

    expiry: str
    t: float | None
    forward: float | None
    discount_factor: float | None
    rate: float | None
    forward_source: str
    pairs: int
    quotes: int
    share_in_spread: float | None


class SurfaceReport(Answer):
    """What was made of the quotes of one underlying at one time.

    Attributes:
        name: underlying and quote time.
        underlying: its name.
        quote_time: ISO time, "" if unknown.
        spot: price of the underlying; null if unknown.
        read: quotes in the file.
        quotes: out-of-the-money quotes kept.
        set_aside: number of the others by reason.
        expiries: forwards, rates and counts.
        warnings: sentences to read.
    """

    name: str
    underlying: str
    quote_time: str
    spot: float | None
    read: int
    quotes: int
    set_aside: dict[str, int]
    expiries: list[Expiry]
    warnings: list[str]


class SurfaceAnswer(SurfaceReport):
    """A stored surface and its quality report."""

    id: Id
    created: datetime


class Unusable(Answer):
    """A surface of an upload that could not be built, and why."""

    name: str
    message: str


class Uploaded(Answer):
    """The surfaces of an upload; those that could not be built are named with the reason."""

    surfaces: list[SurfaceAnswer]
    unusable: list[Unusable]


class Page(Answer):
    """A page of a list, the newest first; `next` is the cursor of the page after it, null at the end."""

    next: str | None


class Surfaces(Page):
    """Stored surfaces."""

    surfaces: list[SurfaceAnswer]


class CalibrationRequest(Spec):
    """A calibration: what to fit, and how.

    Attributes:
        surface: id of a stored surface; or give `quotes`.
        quotes: rows of one underlying at one time, in the tidy format: strike, option_type, expiry or t_years, and
            prices or vols.
        options: how to read the quotes.
        calibration: model and settings, as `qsde calibrate` has them.
    """

    surface: Id | None = None
    quotes: list[dict[str, str | float | None]] | None = Field(default=None, min_length=1, max_length=_MOST_QUOTES)
    options: SurfaceOptions = SurfaceOptions()
    calibration: CalibrationSpec

    @model_validator(mode="after")
    def _one_surface(self) -> Self:
        if (self.surface is None) == (self.quotes is None):
            raise InputError("give a surface or quotes, one of the two")
        return self


class Accepted(Answer):
    """A job that will be done: it is in the database.

    Attributes:
        job: its id; the fit will have the same.
        surface: id of the surface to fit.
        created: when it was accepted.
    """

    job: Id
    surface: Id
    created: datetime


class JobProgress(Answer):
    """How far a job is, as `done` of `total` parts of the work."""

    done: int
    total: int


class JobItem(Answer):
    """A job.

    Attributes:
        id: its id.
        state: queued, running, succeeded, failed or cancelled; the last three do not change any more.
        created, started, ended: times; null before.
        surface: id of the surface.
        calibration: model and settings.
        fit: id of the fit if it succeeded.
        error: why it failed.
    """

    id: Id
    state: State
    created: datetime
    started: datetime | None
    ended: datetime | None
    surface: Id
    calibration: CalibrationSpec
    fit: Id | None
    error: str | None


class JobAnswer(JobItem):
    """A job and its progress; null before its first message."""

    progress: JobProgress | None


class Jobs(Page):
    """Jobs."""

    jobs: list[JobItem]


class FitItem(Answer):
    """A stored fit; `{"fit": "ID"}` in a pricing request stands for its model and its market.

    Attributes:
        id: its id, which is also that of its job.
        created: when it was stored.
        surface: id of the surface.
        family: name of the model, as a calibration asks for it.
        status: how the calibration ended: converged, max_iterations, stalled, inaccurate or failed.
        rmse_bp: root mean square error, basis points of vol.
    """

    id: Id
    created: datetime
    surface: Id
    family: str
    status: str
    rmse_bp: float | None


class FitAnswer(FitSummary, FitItem):
    """A fit with its quality; its numbers by quote are in the report."""


class Fits(Page):
    """Stored fits."""

    fits: list[FitItem]
