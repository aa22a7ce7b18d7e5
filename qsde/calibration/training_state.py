"""Where a training is, and its checkpoint: one safetensors file that holds numbers and JSON, no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from qsde.errors import FileFormatError, InputError
from qsde.writing import write_atomic

#: Damping of the first step.
DAMPING = 1e-2
_KIND = "qsde training 2"


@dataclass(frozen=True)
class Round:
    """One step of a training.

    Attributes:
        step: number of the step, from 1; 0 is the start.
        n_paths: paths of the errors.
        rmse_bp: root mean square error of the quotes that are trained on, basis points of vol, on the paths of the fit.
        held_out_bp: the same of those that are not; NaN if there are none.
        inside: share of the trained quotes within bid and ask.
        seconds: since the start.
    """

    step: int
    n_paths: int
    rmse_bp: float
    held_out_bp: float
    inside: float
    seconds: float

    def __str__(self) -> str:
        held = "" if np.isnan(self.held_out_bp) else f", held out {self.held_out_bp:.2f} bp"
        return (
            f"step {self.step}: {self.rmse_bp:.2f} bp{held}, {self.inside:.0%} inside, {self.n_paths:,} paths, "
            f"{self.seconds:.0f} s"
        )


@dataclass
class State:
    """Where the training is; what a checkpoint holds."""

    weights: Tensor
    best: Tensor
    best_score: float = float("inf")
    damping: float = DAMPING
    stage: int = 0
    steps: int = 0
    steps_of_stage: int = 0
    idle: int = 0
    done: bool = False


def save(path: Path, state: State, rounds: list[Round], origin: Mapping[str, str]) -> None:
    """Writes a checkpoint of a training with this origin; a crash leaves the one before."""
    numbers = {k: v for k, v in vars(state).items() if not isinstance(v, Tensor)}
    about = {
        "kind": _KIND,
        "state": json.dumps(numbers),
        "rounds": json.dumps([asdict(r) for r in rounds]),
        "origin": json.dumps(dict(origin)),
    }
    with write_atomic(path, binary=True) as file:
        file.write(to_bytes({"weights": state.weights, "best": state.best}, about))


def load(path: Path, like: State, origin: Mapping[str, str]) -> tuple[State, list[Round]]:
    """Reads a checkpoint of a training that started like this one.

    Args:
        path: the file.
        like: the start.
        origin: what else the training depends on, each with what tells it from others.

    Raises:
        FileFormatError: the file is no checkpoint.
        InputError: it is that of another training.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ("weights", "best")}
        if about.get("kind") != _KIND:
            raise ValueError("it says that it is something else")
        numbers, rounds, known = (json.loads(about[name]) for name in ("state", "rounds", "origin"))
        state, found = State(**tensors, **numbers), [Round(**r) for r in rounds]
        others = [name for name, value in origin.items() if known[name] != value]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as reason:
        raise FileFormatError(f"{path} is no checkpoint of a training: {reason}; delete it to start anew") from None
    if {w.shape for w in tensors.values()} != {like.weights.shape}:
        raise InputError(
            f"checkpoint {path} has {state.weights.numel()} weights, the model {like.weights.numel()}: it is of another"
        )
    if others:
        raise InputError(
            f"checkpoint {path} is of a training with other {' and '.join(others)}; delete it to start anew, or name "
            "another file"
        )
    return state, found


def digest(*values: object) -> str:
    """What tells values from others by every digit of their numbers; texts of arrays leave most of them out.

    Args:
        values: dataclasses, such as models, mappings, sequences, tensors, arrays and what has a text.

    Example:
        >>> from qsde.models import BlackScholes
        >>> one, other = BlackScholes(0.2), BlackScholes(0.2 + 1e-15)
        >>> digest(one) == digest(BlackScholes(0.2)), digest(one) == digest(other)
        (True, False)
    """
    found = hashlib.sha256()
    for piece in _pieces(values):
        found.update(len(piece).to_bytes(8) + piece)
    return found.hexdigest()


def _pieces(value: object) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in fields(value):
            yield from _pieces(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from _pieces(tuple(value.items()))
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _pieces(one)
    else:
        yield repr(value).encode()
