"""Correlation matrices: what makes one, the nearest one, and a factor that exists for singular ones too."""

from __future__ import annotations

import torch
from torch import Tensor

from qsde.errors import NumericsError, ParameterError
from qsde.numerics import holds

#: Rounding that symmetry, the diagonal and the smallest eigenvalue are allowed.
_ROUNDING = 1e-10
#: Pivots below this are 0: the variable is a combination of those before it.
_PIVOT = 1e-12
_ITERATIONS = 10_000


def check_correlation(owner: str, matrix: Tensor) -> None:
    """Raises ParameterError unless every `[..., n, n]` is a correlation matrix, to rounding of 1e-10.

    Symmetric with ones on the diagonal, entries from -1 to 1, positive semi-definite.
    """
    c = matrix.detach().double()
    if c.dim() < 2 or c.shape[-1] != c.shape[-2]:
        raise ParameterError(f"{owner} must be square matrices [..., n, n], got shape {tuple(c.shape)}")
    for condition, text in (
        (torch.isfinite(c), "have finite entries"),
        ((c - c.mT).abs() <= _ROUNDING, "be symmetric; take (c + c.mT) / 2 if the two halves are two estimates"),
        ((c.diagonal(dim1=-2, dim2=-1) - 1).abs() <= _ROUNDING, "have ones on the diagonal; divide out the deviations"),
        (c.abs() <= 1 + _ROUNDING, "have entries from -1 to 1 (decimals, not percent)"),
    ):
        if not holds(condition):
            raise ParameterError(f"{owner} must {text}")
    eigenvalues = torch.linalg.eigvalsh(c)
    if not holds(eigenvalues >= -_ROUNDING):
        raise ParameterError(
            f"{owner} must be positive semi-definite, its smallest eigenvalue is {float(eigenvalues.min()):.4g}: no "
            "variables have these correlations; use qsde.models.nearest_correlation(matrix)"
        )


def nearest_correlation(matrix: Tensor, tolerance: float = 1e-10) -> Tensor:
    """The correlation matrix that is nearest to a symmetric one in the Frobenius norm, [..., n, n] in float64.

    Projections onto positive semi-definite matrices and onto matrices with a unit diagonal in turn, with Dykstra's
    correction. The last iterate is scaled to a unit diagonal, so that what comes back is positive semi-definite to
    rounding. It carries no gradient.

    Args:
        matrix: symmetric, [..., n, n].
        tolerance: change between iterations, relative to the norm, at which to stop.

    Raises:
        ParameterError: the matrix is not square, finite and symmetric.
        NumericsError: no convergence within 10000 iterations.

    Reference:
        Higham (2002), "Computing the nearest correlation matrix: a problem from finance", IMA J. Numer. Anal. 22,
        Algorithm 3.3.

    Example:
        >>> nearest_correlation(torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]))
        tensor([[1.0000, 0.7607, 0.1573],
                [0.7607, 1.0000, 0.7607],
                [0.1573, 0.7607, 1.0000]], dtype=torch.float64)
    """
    given = torch.as_tensor(matrix).detach().double()
    if given.dim() < 2 or given.shape[-1] != given.shape[-2]:
        raise ParameterError(f"matrix must be square, [..., n, n], got shape {tuple(given.shape)}")
    if not holds(torch.isfinite(given)) or not holds((given - given.mT).abs() <= _ROUNDING * given.abs().amax()):
        raise ParameterError("matrix must be finite and symmetric; take (matrix + matrix.mT) / 2")
    current, correction = given, torch.zeros_like(given)
    for _ in range(_ITERATIONS):
        corrected = current - correction
        projected = _semi_definite(corrected)
        correction = projected - corrected
        new = projected.clone()
        new.diagonal(dim1=-2, dim2=-1).fill_(1)
        moved = torch.linalg.matrix_norm(new - current)
        current = new
        if holds(moved <= tolerance * torch.linalg.matrix_norm(new)):
            return _unit_diagonal(_semi_definite(current))
    raise NumericsError(
        f"the nearest correlation matrix is not found within {_ITERATIONS} iterations; raise tolerance from {tolerance}"
    )


def correlation_factor(matrix: Tensor) -> Tensor:
    """The lower triangular `L` with `L L^T = matrix`, [..., n, n], for positive semi-definite matrices.

    Cholesky's factor where the matrix is positive definite. A pivot below 1e-12 is taken for 0 and so is its column:
    that variable is a combination of those before it. Derivatives are finite everywhere; those through a pivot of 0,
    where the true ones are not finite, are 0.

    Example:
        >>> correlation_factor(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        tensor([[ 1.,  0.],
                [-1.,  0.]])
    """
    n = matrix.shape[-1]
    rows = torch.arange(n, device=matrix.device)
    left, columns = matrix, []
    for j in range(n):
        pivot = left[..., j, j].unsqueeze(-1)
        positive = pivot > _PIVOT
        root = torch.sqrt(torch.where(positive, pivot, torch.ones_like(pivot)))
        column = left[..., :, j] / root
        column = torch.where(positive & (rows >= j), column, torch.zeros_like(column))
        columns.append(column)
        left = left - column.unsqueeze(-1) * column.unsqueeze(-2)
    return torch.stack(columns, -1)


def _semi_definite(matrix: Tensor) -> Tensor:
    """The nearest positive semi-definite matrix: negative eigenvalues become 0."""
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.mT))
    nearest: Tensor = (vectors * values.clamp(min=0).unsqueeze(-2)) @ vectors.mT
    return nearest


def _unit_diagonal(matrix: Tensor) -> Tensor:
    scale = matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
    scaled = matrix * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    scaled.diagonal(dim1=-2, dim2=-1).fill_(1)
    return 0.5 * (scaled + scaled.mT)
