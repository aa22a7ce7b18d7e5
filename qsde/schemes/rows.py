"""Coefficients of a step as rows of one tensor, worked out in float64 and stored in the model's dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from qsde.models.base import Model


def double(model: Model, dt: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Parameters and step size in float64 on the model's device; differences such as `1 - exp(-kappa dt)` need it."""
    params = {name: p.double() for name, p in model.params.items()}
    device = next(iter(params.values())).device
    return params, dt.to(device, torch.float64)


def rows(model: Model, *values: Tensor) -> Tensor:
    """`values`, broadcast against each other, as [C, *batch] in the model's dtype.

    Example:
        >>> from qsde.models import BlackScholes
        >>> rows(BlackScholes(vol=[0.1, 0.2]), torch.tensor(1.0), torch.tensor([2.0, 3.0]))
        tensor([[1., 1.],
                [2., 3.]], dtype=torch.float64)
    """
    dtype = model_dtype(model)
    shape = torch.broadcast_shapes(model.batch_shape, *(v.shape for v in values))
    return torch.stack([v.to(dtype).expand(shape) for v in values])


def model_dtype(model: Model) -> torch.dtype:
    """The widest dtype among the parameters."""
    dtype = torch.float32
    for p in model.params.values():
        dtype = torch.promote_types(dtype, p.dtype)
    return dtype
