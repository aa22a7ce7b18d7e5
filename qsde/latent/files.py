"""Fits in files: tensors by safetensors, all else as JSON in its header; nothing in them is ever run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from qsde.errors import FileFormatError, InputError
from qsde.latent.model import LatentSDE, Sizes, Solver
from qsde.latent.networks import Diffusion, Drift
from qsde.writing import write_atomic

_KEY = "qsde.latent"


def save(model: LatentSDE, path: str | Path) -> None:
    """Writes a model to one file.

    Raises:
        InputError: its prior or diffusion is a module of the user's own, which a file cannot hold, or the file cannot
            be written.
    """
    if type(model.prior) is not Drift or type(model.diffusion) is not Diffusion:
        raise InputError("a model with a prior or diffusion of one's own cannot be saved; save its state_dict()")
    write(path, dict(model.state_dict()), description(model))


def load(path: str | Path) -> LatentSDE:
    """The model in a file.

    Raises:
        FileFormatError: the file is not one that `save` wrote.
    """
    tensors, about = read(path)
    try:
        sizes, solver = Sizes(**about["sizes"]), Solver(**about["solver"])
        model = LatentSDE(sizes.channels, sizes.latent, sizes.context, sizes.hidden, solver=solver)
        model.to(tensors["prior_start"].dtype).load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, InputError) as reason:
        raise FileFormatError(f"{path}: not a latent SDE ({str(reason).splitlines()[0]}); save it again") from reason
    return model


def description(model: LatentSDE) -> dict[str, Any]:
    """Sizes and solver of a model, for JSON."""
    return {"sizes": asdict(model.sizes), "solver": asdict(model.solver)}


def write(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Tensors and JSON to one file, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    whole = {name: t.detach().contiguous() for name, t in tensors.items()}
    with write_atomic(path, binary=True) as file:
        file.write(to_bytes(whole, {_KEY: json.dumps(about)}))


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON of a file.

    Raises:
        FileFormatError: it does not exist, or is not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as reason:
        raise FileFormatError(f"{path}: not a file of qsde.latent ({str(reason).splitlines()[0]})") from reason
    if not isinstance(about, dict):
        raise FileFormatError(f"{path}: not a file of qsde.latent (its header is not a JSON object)")
    return tensors, about
