"""The tables. Rows are written once; whatever is large is a Parquet payload that its row names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Double, ForeignKey, Index, LargeBinary, String, Text, select
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column
from sqlalchemy.types import TypeDecorator


class Utc(TypeDecorator[datetime]):
    """A time with its zone, also where the database keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Times go in as UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Times come out as UTC."""
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


def now() -> datetime:
    """The time that rows are stamped with."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""


class SurfaceRow(Base):
    """A surface made of an upload.

    Attributes:
        id: 32 hex digits.
        created: when it was stored.
        owner: name of the API key that sent it, "" without keys.
        name: underlying and quote time.
        report: what was kept and what was set aside, as it is answered.
        payload: name of its tables in the data folder.
    """

    __tablename__ = "surfaces"
    __table_args__ = (Index("ix_surfaces_created", "created", "id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[datetime] = mapped_column(Utc, default=now)
    owner: Mapped[str] = mapped_column(String(100), default="")
    name: Mapped[str] = mapped_column(Text)
    report: Mapped[dict[str, Any]] = mapped_column(JSON)
    payload: Mapped[str] = mapped_column(String(100))


class JobRow(Base):
    """A calibration that was accepted; whether it waits, runs or failed, the queue knows.

    Attributes:
        id: 32 hex digits, also of the workflow and of the fit.
        created: when it was accepted.
        owner: name of the API key that sent it, "" without keys.
        surface_id: what is fitted.
        request: how, a `qsde.spec.CalibrationSpec`.
        cancelled: when it was cancelled; then it has no fit, and a job with a fit is never cancelled.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_created", "created", "id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[datetime] = mapped_column(Utc, default=now)
    owner: Mapped[str] = mapped_column(String(100), default="")
    surface_id: Mapped[str] = mapped_column(ForeignKey("surfaces.id"))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    cancelled: Mapped[datetime | None] = mapped_column(Utc)


class FitRow(Base):
    """A fit; there is at most one for each job.

    Attributes:
        id: that of the job.
        created: when it was stored.
        surface_id: what was fitted.
        model: name of the model.
        record: the `qsde.spec.FitRecord` without its surface and its numbers by quote.
        payload: name of the numbers by quote in the data folder.
        owner: that of the job.
    """

    __tablename__ = "fits"
    __table_args__ = (Index("ix_fits_created", "created", "id"),)

    id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    created: Mapped[datetime] = mapped_column(Utc, default=now)
    surface_id: Mapped[str] = mapped_column(ForeignKey("surfaces.id"))
    model: Mapped[str] = mapped_column(String(50))
    record: Mapped[dict[str, Any]] = mapped_column(JSON)
    payload: Mapped[str] = mapped_column(String(100))
    owner: Mapped[str] = column_property(select(JobRow.owner).where(JobRow.id == id).scalar_subquery())


class AnsweredRow(Base):
    """An answer that is given again to the same Idempotency-Key; written together with what it created.

    Attributes:
        owner: name of the API key, "" without keys.
        operation: such as "POST /v1/calibrations".
        key: the Idempotency-Key.
        created: when it was answered first.
        digest: SHA-256 of the request.
        status, location, body: the answer.
    """

    __tablename__ = "answered"

    owner: Mapped[str] = mapped_column(String(100), primary_key=True)
    operation: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    created: Mapped[datetime] = mapped_column(Utc, default=now)
    digest: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    location: Mapped[str] = mapped_column(String(200))
    body: Mapped[bytes] = mapped_column(LargeBinary)


class KeyRow(Base):
    """An API key.

    Attributes:
        name: what it is called.
        digest: SHA-256 of the key, hex digits.
        rate: requests a second; None is the service's own limit.
        quota: requests a day; None is the service's own limit.
        created: when it was made.
        revoked: when it was revoked.
    """

    __tablename__ = "keys"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    rate: Mapped[float | None] = mapped_column(Double)
    quota: Mapped[int | None]
    created: Mapped[datetime] = mapped_column(Utc, default=now)
    revoked: Mapped[datetime | None] = mapped_column(Utc)


class UsageRow(Base):
    """Requests of a key on a day.

    Attributes:
        name: of the key.
        day: such as "2026-01-31", UTC.
        requests: how many.
    """

    __tablename__ = "usage"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
