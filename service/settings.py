"""Settings of the service, each read from an environment variable `QSDE_` and its name in capitals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What an operator may choose; `QSDE_MAX_PATHS=1048576`, say.

    Attributes:
        max_contracts: payoffs of one request, or quotes of one implied-volatility request.
        max_scenarios: contracts x spots x vols of one ladder.
        max_paths: paths of one simulation.
        max_steps: time steps of one simulation.
        max_path_steps: estimated work of one request: paths x (steps x underlyings + dates of all payoffs), times
            `service.limits.GREEKS_FACTOR` for Greeks.
        max_body_bytes: size of a request.
        max_seconds: time that a request may compute; the worker that is still at it is ended.
        max_queue_seconds: time that a request may wait for a worker; twice if a worker was lost with it and others.
        max_queue: requests that wait; those that come later are told to come again.
        max_batch: requests that are sent to a worker together.
        workers: processes that compute, on one thread each.
        worker_memory_bytes: data of one worker process; 0 is without limit.
        auth: "keys" asks for an API key of `qsde keys create`, which sees what was made with it and nothing else; "off"
            lets everybody in, and see everything: for local use, and for operators.
        api_keys: SHA-256 hex digests of more keys, separated by commas.
        key_rate: requests a second of one key, unless the key has a rate of its own; 0 is without limit.
        key_quota: requests a day (UTC) of one key, unless the key has a quota of its own; 0 is without limit.
        cors_origins: web pages that may call from browsers, such as `https://desk.example`, separated by commas.
        max_upload_bytes: size of an uploaded file.
        max_unpacked_bytes: size of an uploaded file after decompression.
        max_uploads: files that are received or read at a time; those that come later are told to come again.
        max_upload_seconds: time that reading an uploaded file may take.
        max_surfaces: surfaces made of one file.
        max_jobs: jobs that are not done; those that come later are told to come again.
        max_job_seconds: time that a job may compute.
        max_event_streams: clients that follow the events of jobs at a time.
        job_workers: processes that do jobs, on one thread each; 0 leaves jobs to other services on the same database.
        retention_days: days after which surfaces, fits, jobs that have ended and answers to Idempotency-Keys are
            deleted with their files, at the start and daily; a surface stays while a job needs it. 0 keeps all.
        data_dir: folder of the SQLite database and of large tables; processes that share a database share it.
        database_url: `postgresql://USER:PASSWORD@HOST/NAME`; empty is SQLite in the data folder.
        host, port: where `qsde serve` listens.
    """

    model_config = SettingsConfigDict(env_prefix="QSDE_", frozen=True, extra="forbid")

    max_contracts: int = Field(default=1_000, ge=1)
    max_scenarios: int = Field(default=100_000, ge=1)
    max_paths: int = Field(default=1 << 20, ge=2)
    max_steps: int = Field(default=10_000, ge=1)
    max_path_steps: int = Field(default=100_000_000, ge=1)
    max_body_bytes: int = Field(default=1 << 20, ge=1 << 10)
    max_seconds: float = Field(default=30.0, gt=0, le=3600)
    max_queue_seconds: float = Field(default=30.0, gt=0, le=3600)
    max_queue: int = Field(default=1024, ge=1)
    max_batch: int = Field(default=64, ge=1, le=1024)
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    worker_memory_bytes: int = Field(default=4 << 30, ge=0)
    auth: Literal["keys", "off"] = "keys"
    api_keys: str = ""
    key_rate: float = Field(default=1_000.0, ge=0, le=1e6)
    key_quota: int = Field(default=0, ge=0)
    cors_origins: str = ""
    max_upload_bytes: int = Field(default=64 << 20, ge=1 << 10)
    max_unpacked_bytes: int = Field(default=512 << 20, ge=1 << 10)
    max_uploads: int = Field(default=16, ge=1)
    max_upload_seconds: float = Field(default=60.0, gt=0, le=3600)
    max_surfaces: int = Field(default=100, ge=1)
    max_jobs: int = Field(default=1_000, ge=1)
    max_job_seconds: float = Field(default=900.0, gt=0, le=86_400)
    max_event_streams: int = Field(default=100, ge=1)
    job_workers: int = Field(default=1, ge=0, le=256)
    retention_days: float = Field(default=0.0, ge=0, le=36_500)
    data_dir: Path = Path("qsde-data")
    database_url: str = Field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)

    @field_validator("api_keys")
    @classmethod
    def _digests(cls, keys: str) -> str:
        for key in filter(None, keys.split(",")):
            if len(key) != 64 or set(key) - set("0123456789abcdef"):
                raise ValueError(
                    "give SHA-256 digests in lower-case hex, from `printf %s KEY | sha256sum`, not the keys"
                )
        return keys
