"""What a training leaves, as text."""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field

from qsde.calibration.training import Training
from qsde.calibration.training_state import Round
from qsde.errors import InputError
from qsde.spec.base import Record
from qsde.spec.columns import known


class RoundRecord(Record):
    """One step of a training; see `qsde.calibration.training_state.Round`."""

    step: int
    n_paths: int
    rmse_bp: float
    held_out_bp: float | None
    inside: float
    seconds: float


class TrainingRecord(Record):
    """A `Training`: the derivatives of the model's vols to its weights, which quote sensitivities need, and figures.

    Example:
        >>> list(TrainingRecord.model_fields)[:3]
        ['names', 'jacobian', 'weight']
    """

    names: tuple[str, ...] = Field(min_length=1)
    jacobian: list[list[float]]
    weight: list[float]
    damping: float = Field(ge=0, allow_inf_nan=False)
    held_out: list[bool]
    held_out_bp: float | None
    step_bias_bp: list[float]
    step_bias_error_bp: list[float]
    rounds: list[RoundRecord]

    @classmethod
    def of(cls, training: Training) -> TrainingRecord:
        """The record of a training."""
        rounds = [{**vars(r), "held_out_bp": known(r.held_out_bp)} for r in training.rounds]
        return cls.model_validate(
            {
                "names": training.names,
                **{
                    name: getattr(training, name).tolist()
                    for name in ("jacobian", "weight", "held_out", "step_bias_bp", "step_bias_error_bp")
                },
                "damping": training.damping,
                "held_out_bp": known(training.held_out_bp),
                "rounds": rounds,
            }
        )

    def build(self, quotes: int, weights: int) -> Training:
        """The training of a model with this many weights on this many quotes.

        Raises:
            InputError: tables of another size.
        """
        rows = ("jacobian", "weight", "held_out", "step_bias_bp", "step_bias_error_bp")
        sizes = {name: len(getattr(self, name)) for name in rows}
        if set(sizes.values()) != {quotes} or {len(row) for row in self.jacobian} - {weights}:
            raise InputError(
                f"training: its tables must have a row for each of {quotes} quotes, and the jacobian {weights} columns"
            )
        return Training(
            names=self.names,
            jacobian=torch.tensor(self.jacobian, dtype=torch.float64),
            weight=torch.tensor(self.weight, dtype=torch.float64),
            damping=self.damping,
            held_out=np.array(self.held_out, dtype=bool),
            held_out_bp=math.nan if self.held_out_bp is None else self.held_out_bp,
            step_bias_bp=torch.tensor(self.step_bias_bp, dtype=torch.float64),
            step_bias_error_bp=torch.tensor(self.step_bias_error_bp, dtype=torch.float64),
            rounds=tuple(
                Round(**{**r.model_dump(), "held_out_bp": math.nan if r.held_out_bp is None else r.held_out_bp})
                for r in self.rounds
            ),
        )
