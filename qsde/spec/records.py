"""Fits as JSON: everything a `Fit` holds, so that a report can be written or a price made from the file alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field

from qsde import __version__
from qsde.calibration.fit import Fit
from qsde.calibration.penalties import Feller, Penalty, Prior
from qsde.calibration.training import TrainedFit
from qsde.errors import FitStatus, InputError
from qsde.spec.base import Record, checked, parsed
from qsde.spec.columns import Numbers, array, known, matrix, numbers, tensor
from qsde.spec.leveraged import ModelSpec, spec_of
from qsde.spec.surfaces import SurfaceRecord
from qsde.spec.training import TrainingRecord


class FellerRecord(Record):
    """A `Feller` penalty."""

    penalty: Literal["feller"] = "feller"
    strength: float


class PriorRecord(Record):
    """A `Prior` penalty."""

    penalty: Literal["prior"] = "prior"
    mean: dict[str, float]
    std: dict[str, float]
    noise: float


PenaltyRecord = Annotated[FellerRecord | PriorRecord, Field(discriminator="penalty")]


class FitSummary(Record):
    """What a `Fit` says of itself, without its numbers by quote.

    Attributes:
        qsde_version: version that fitted.
        model: the calibrated model.
        status: how the calibration ended: converged, max_iterations, stalled, inaccurate or failed.
        status_text: the status as a sentence.
        free: names of the fitted parameters.
        std_errors: their standard errors.
        correlation: of them, in their order.
        at_bounds: those that ended at a bound.
        rmse_bp: root mean square error, basis points of vol.
        weighted_rmse_bp: error with the weights of the objective.
        rmse_price: root mean square price error, discounted.
        inside_share: share of two-sided quotes whose bid and ask contain the model.
        iterations, starts, starts_agreeing: of the search.
        seconds: of the calibration.
        warnings: sentences to read.
    """

    qsde_version: str = __version__
    model: ModelSpec
    status: str
    status_text: str
    free: tuple[str, ...]
    std_errors: dict[str, float | None]
    correlation: list[Numbers]
    at_bounds: tuple[str, ...]
    rmse_bp: float | None
    weighted_rmse_bp: float | None
    rmse_price: float | None
    inside_share: float | None
    iterations: int
    starts: int
    starts_agreeing: int
    seconds: float
    warnings: tuple[str, ...]


class _Versioned(Record):
    """What a file is looked at for first."""

    version: Literal[1] = 1


class FitRecord(FitSummary, _Versioned):
    """A `Fit` as JSON. Volatilities and variances are annualised decimals, errors in basis points of vol.

    Example:
        >>> sorted(FitRecord.model_fields)[:4]
        ['at_bounds', 'correlation', 'covariance', 'free']
    """

    covariance: list[Numbers]
    surface: SurfaceRecord
    model_iv: Numbers
    residual_bp: Numbers
    weight: Numbers
    jacobian: list[Numbers]
    objective: str = "implied_vol"
    penalties: list[PenaltyRecord] | None = None
    training: TrainingRecord | None = None

    @classmethod
    def of(cls, fit: Fit) -> FitRecord:
        """The record of `fit`.

        Raises:
            InputError: the model has no text form.
        """
        same: dict[str, Any] = {name: getattr(fit, name) for name in _SAME}
        same |= {name: known(getattr(fit, name)) for name in _MEASURES}
        return cls(
            model=spec_of(fit.model),
            status=fit.status.name.lower(),
            status_text=fit.status.value,
            std_errors={name: known(value) for name, value in fit.std_errors.items()},
            correlation=matrix(fit.correlation),
            covariance=matrix(fit.covariance),
            surface=SurfaceRecord.of(fit.surface),
            model_iv=numbers(fit.model_iv),
            residual_bp=numbers(fit.residual_bp),
            weight=numbers(fit.weight),
            jacobian=matrix(fit.jacobian),
            penalties=_penalty_records(fit.penalties),
            training=_training_record(fit),
            **same,
        )

    def build(self) -> Fit:
        """The fit; measures such as `rmse_bp` follow from the vols and are computed again.

        Raises:
            InputError: the status or a free parameter is unknown, or a table is not that of such a fit; the message
                names it.
        """
        same: dict[str, Any] = {name: getattr(self, name) for name in _SAME}
        self._check_sizes()
        model = self.model.build()
        unknown = [name for name in self.free if name not in model.params]
        if unknown:
            raise InputError(f"free: {model.name} has no parameter {unknown[0]!r}; it has {', '.join(model.params)}")
        fit = Fit(
            model=model,
            surface=self.surface.build(),
            status=_status(self.status),
            model_iv=array(self.model_iv),
            weight=array(self.weight),
            jacobian=tensor(self.jacobian, len(self.free)),
            covariance=tensor(self.covariance, len(self.free)),
            penalties=None if self.penalties is None else tuple(_penalty(record) for record in self.penalties),
            **same,
        )
        if self.training is None:
            return fit
        absent = [name for name in self.training.names if name not in model.params]
        if absent:
            raise InputError(f"training.names: {model.name} has no {absent[0]!r}")
        weights = sum(model.params[name].numel() for name in self.training.names)
        training = self.training.build(len(fit.surface), weights)
        return TrainedFit(**{f.name: getattr(fit, f.name) for f in fields(Fit)}, training=training)

    def _check_sizes(self) -> None:
        quotes = max(map(len, self.surface.quotes.values()), default=0)
        sizes = {name: len(column) for name, column in self.surface.quotes.items()}
        sizes |= {"model_iv": len(self.model_iv), "weight": len(self.weight), "jacobian": len(self.jacobian)}
        for name, size in sizes.items():
            if size != quotes:
                raise InputError(f"{name}: has {size} entries for {quotes} quotes")
        widths = {len(row) for row in (*self.jacobian, *self.covariance)} - {len(self.free)}
        if widths or len(self.covariance) != len(self.free):
            raise InputError(f"jacobian, covariance: need {len(self.free)} columns, one for each free parameter")


_SAME = ("free", "at_bounds", "iterations", "starts", "starts_agreeing", "seconds", "warnings", "objective")
_MEASURES = ("rmse_bp", "weighted_rmse_bp", "rmse_price", "inside_share")


class _FitFile(Record):
    fits: list[FitRecord]


def dump_fits(fits: list[Fit]) -> str:
    """JSON text of one or more fits: `{"fits": [...]}`, each as `FitRecord`."""
    return _FitFile(fits=[FitRecord.of(fit) for fit in fits]).model_dump_json()


def load_fits(text: str | bytes, source: str = "fit file") -> list[Fit]:
    """The fits of a JSON text written by `dump_fits`.

    Raises:
        InputError: the text is not such a file; the message names the field.
    """
    return [record.build() for record in parsed(_FitFile, text, source).fits]


def fits_as_data(fits: list[Fit]) -> dict[str, Any]:
    """What `dump_fits` writes, as dictionaries and lists."""
    return _FitFile(fits=[FitRecord.of(fit) for fit in fits]).model_dump(mode="json")


def fits_from_data(data: dict[str, Any], source: str = "fit file") -> list[Fit]:
    """The fits of `fits_as_data`.

    Raises:
        InputError: the data are not such; the message names the field.
    """
    try:
        record: _FitFile = checked(_FitFile, data)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return [r.build() for r in record.fits]


def _training_record(fit: Fit) -> TrainingRecord | None:
    return TrainingRecord.of(fit.training) if isinstance(fit, TrainedFit) else None


def _penalty_records(penalties: Sequence[Penalty] | None) -> list[FellerRecord | PriorRecord] | None:
    """Records of the penalties; None, which stands for unknown, if one is of the user's own making."""
    records: list[FellerRecord | PriorRecord] = []
    for penalty in penalties or ():
        if isinstance(penalty, Feller):
            records.append(FellerRecord(strength=penalty.strength))
        elif isinstance(penalty, Prior):
            records.append(PriorRecord(mean=dict(penalty.mean), std=dict(penalty.std), noise=penalty.noise))
        else:
            return None
    return None if penalties is None else records


def _penalty(record: FellerRecord | PriorRecord) -> Penalty:
    if isinstance(record, FellerRecord):
        return Feller(record.strength)
    return Prior(record.mean, record.std, record.noise)


def _status(name: str) -> FitStatus:
    try:
        return FitStatus[name.upper()]
    except KeyError:
        raise InputError(f"status: {name!r} is none of {[s.name.lower() for s in FitStatus]}") from None
