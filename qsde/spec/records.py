"""Fits as JSON: everything a `Fit` holds, so that a report can be written or a price made from the file alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field

from qsde import __version__
from qsde.calibration.fit import Fit
from qsde.calibration.penalties import Feller, Penalty, Prior
from qsde.calibration.training import TrainedFit
from qsde.errors import FitStatus, InputError
from qsde.market.quotes import COLUMNS, TEXT_COLUMNS, TIME_COLUMNS, empty_rejected
from qsde.market.surface import QUOTE_COLUMNS, SLICE_COLUMNS, Surface
from qsde.spec.base import checked, parsed
from qsde.spec.leveraged import ModelSpec, spec_of
from qsde.spec.training import TrainingRecord

Cell = str | float | int | bool | None
Table = dict[str, list[Cell]]
Numbers = list[float | None]
#: Columns of rejected quotes that are worth keeping in a fit file.
REJECTED_COLUMNS = ("row", "expiry", "strike", "option_type", "bid", "ask", "mid", "reason", "detail")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SurfaceRecord(_Record):
    """A `Surface` as columns of JSON values; missing numbers are null."""

    underlying: str
    quote_time: str
    spot: float | None
    source: str
    slices: Table
    quotes: Table
    rejected: Table
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, surface: Surface) -> SurfaceRecord:
        """The record of `surface`."""
        return cls(
            underlying=surface.underlying,
            quote_time=surface.quote_time,
            spot=_number(surface.spot),
            source=surface.source,
            slices=_columns(surface.slices),
            quotes=_columns(surface.quotes),
            rejected=_columns(surface.rejected[[c for c in REJECTED_COLUMNS if c in surface.rejected]]),
            warnings=surface.warnings,
        )

    def build(self) -> Surface:
        """The surface.

        Raises:
            InputError: a column is missing, is of another length than the others, or holds what it cannot hold.
        """
        slices = _table("surface.slices", self.slices, SLICE_COLUMNS)
        quotes = _table("surface.quotes", self.quotes, QUOTE_COLUMNS)
        if not quotes["slice"].isin(range(len(slices))).all():
            raise InputError(
                f"surface.quotes.slice: must be numbers from 0 to {len(slices) - 1}, rows of surface.slices"
            )
        return Surface(
            slices=slices,
            quotes=quotes,
            underlying=self.underlying,
            quote_time=self.quote_time,
            spot=math.nan if self.spot is None else self.spot,
            rejected=_rejected(self.rejected),
            warnings=self.warnings,
            source=self.source,
        )


class FellerRecord(_Record):
    """A `Feller` penalty."""

    penalty: Literal["feller"] = "feller"
    strength: float


class PriorRecord(_Record):
    """A `Prior` penalty."""

    penalty: Literal["prior"] = "prior"
    mean: dict[str, float]
    std: dict[str, float]
    noise: float


PenaltyRecord = Annotated[FellerRecord | PriorRecord, Field(discriminator="penalty")]


class FitSummary(_Record):
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


class _Versioned(_Record):
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
        same |= {name: _number(getattr(fit, name)) for name in _MEASURES}
        return cls(
            model=spec_of(fit.model),
            status=fit.status.name.lower(),
            status_text=fit.status.value,
            std_errors={name: _number(value) for name, value in fit.std_errors.items()},
            correlation=_matrix(fit.correlation),
            covariance=_matrix(fit.covariance),
            surface=SurfaceRecord.of(fit.surface),
            model_iv=_numbers(fit.model_iv),
            residual_bp=_numbers(fit.residual_bp),
            weight=_numbers(fit.weight),
            jacobian=_matrix(fit.jacobian),
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
            model_iv=_array(self.model_iv),
            weight=_array(self.weight),
            jacobian=_tensor(self.jacobian, len(self.free)),
            covariance=_tensor(self.covariance, len(self.free)),
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


class _FitFile(_Record):
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


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: np.ndarray) -> Numbers:
    return [_number(x) for x in values.tolist()]


def _array(values: Numbers) -> np.ndarray:
    return np.array([math.nan if x is None else x for x in values], dtype=float)


def _matrix(matrix: torch.Tensor) -> list[Numbers]:
    return [_numbers(row) for row in matrix.detach().numpy()]


def _tensor(rows: list[Numbers], columns: int) -> torch.Tensor:
    return torch.tensor([_array(row).tolist() for row in rows], dtype=torch.float64).reshape(len(rows), columns)


def _columns(frame: pd.DataFrame) -> Table:
    return {str(name): [_cell(x) for x in frame[name].tolist()] for name in frame.columns}


def _cell(x: Any) -> Cell:
    if x is None or x is pd.NA or x is pd.NaT:
        return None
    if isinstance(x, float):
        return _number(x)
    return x if isinstance(x, (bool, int, str)) else str(x)


def _table(place: str, table: Table, columns: Sequence[str]) -> pd.DataFrame:
    """A table of a surface, checked."""
    for name in columns:
        if name not in table:
            raise InputError(f"{place}: has no column {name!r}")
    lengths = {len(values) for values in table.values()}
    if len(lengths) > 1 or lengths == {0}:
        raise InputError(f"{place}: columns must be equally long and not empty, got lengths {sorted(lengths)}")
    frame = _frame(table)
    for name in columns:
        kind, good = _KINDS.get(name, _NUMBERS)
        if not good(frame[name]):
            raise InputError(f"{place}.{name}: must be {kind}, got {str(frame[name].tolist()[:3])[:60]} ...")
    return frame


def _is_text(values: pd.Series) -> bool:
    return all(isinstance(value, str) or pd.isna(value) for value in values)


def _is_numbers(values: pd.Series) -> bool:
    return values.dtype.kind in "if"


def _is_positive(values: pd.Series) -> bool:
    return _is_numbers(values) and bool((np.isfinite(values) & (values > 0)).all())


_NUMBERS = ("numbers", _is_numbers)
#: What the columns of a surface's tables hold, where it is not just any numbers.
_KINDS: dict[str, tuple[str, Callable[[pd.Series], bool]]] = {
    **dict.fromkeys(("expiry", "option_type", "forward_source", "discount_source"), ("text", _is_text)),
    **dict.fromkeys(("t", "forward", "discount_factor", "strike", "iv"), ("positive numbers", _is_positive)),
}


def _frame(table: Table) -> pd.DataFrame:
    return pd.DataFrame({name: _series(values) for name, values in table.items()})


def _series(values: list[Cell]) -> pd.Series:
    kinds = {type(x) for x in values if x is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and None not in values:
        return pd.Series(values, dtype="int64")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series(values, dtype="object")


def _rejected(table: Table) -> pd.DataFrame:
    if not table or not next(iter(table.values())):
        return empty_rejected()
    frame = _frame(table)
    absent = {c: None if c in (*TEXT_COLUMNS, *TIME_COLUMNS) else math.nan for c in COLUMNS if c not in frame}
    return frame.assign(**absent)[[*COLUMNS, "reason", "detail"]]
