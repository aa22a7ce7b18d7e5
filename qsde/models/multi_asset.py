"""Several underlyings driven by correlated Brownian motions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import constraints

from qsde.errors import InputError, ParameterError
from qsde.models.base import Model, Parameter
from qsde.models.black_scholes import BlackScholes
from qsde.models.correlation import check_correlation
from qsde.models.heston import Heston
from qsde.numerics import holds

#: A correlation in a full matrix may differ from the Heston parameter rho by this much.
_SAME = 1e-8


@dataclass(frozen=True, eq=False)
class MultiAsset(Model):
    r"""`n` underlyings, each Black-Scholes or Heston, in any mix, whose Brownian motions are correlated.

    Write `W_i` for the Brownian motion of price `i` and `B_i` for that of its variance, where it is a Heston. Each
    underlying alone follows its own model, so that its vanillas keep their prices whatever the correlations. There are
    two ways to give these:

    - **prices only**, `[n, n]`: `d<W_i, W_j> = c_ij dt`, and variances move together only as far as the prices make
      them: `B_i = rho_i W_i + sqrt(1 - rho_i^2) Z_i` with `Z_i` independent of all else. Hence
      `d<W_i, B_j> = c_ij rho_j dt` and `d<B_i, B_j> = rho_i c_ij rho_j dt`. These correlations exist (are positive
      semi-definite) whenever `c` and the `rho` are such, since the construction makes the variables. Price
      correlations can be estimated or implied; the others hardly can (Dimitroff, Lorenz and Szimayer, who also build
      the model from asset correlations only).
    - **in full**, `[n + h, n + h]` with `h` the number of Heston underlyings, in the order `W_1 ... W_n`, then the
      `B_i` of those that are Heston. The entry of `(W_i, B_i)` must be `rho` of that model.

    Parameters are those of underlying 1, 2, ... as `asset1_vol`, `asset2_v0` and so on, then the correlations
    `correlation_1_2` (of prices), `correlation_1_v2` (of price 1 and variance 2) and `correlation_v1_v2`, each once;
    that of `(W_i, B_i)` is `asset1_rho`. The upper triangle is what is read, so that is where gradients arrive.
    Leading batch axes are parameter sets, of matrices too. `with_params` takes values unchecked, as for every model:
    correlations that do not exist are then cut to ones that do, pivot by pivot.

    Args:
        models: two or more of `BlackScholes` and `Heston`.
        correlation: [*batch, n, n] or [*batch, n + h, n + h].

    Raises:
        InputError: fewer than two models, or one that is neither Black-Scholes nor Heston.
        ParameterError: a matrix of the wrong size, not symmetric, without ones on the diagonal, with entries beyond 1,
            or not positive semi-definite (the message names the smallest eigenvalue; `nearest_correlation` mends it);
            a full matrix that disagrees with a `rho`.

    Reference:
        Dimitroff, Lorenz, Szimayer (2011), "A parsimonious multi-asset Heston model: calibration and derivative
        pricing", Int. J. Theor. Appl. Finance 14(8).

    Example:
        >>> heston = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.5)
        >>> model = MultiAsset([heston, BlackScholes(0.2)], correlation=[[1.0, 0.6], [0.6, 1.0]])
        >>> list(model.params)[-2:]
        ['asset2_vol', 'correlation_1_2']
        >>> model.full_correlation
        tensor([[ 1.0000,  0.6000, -0.5000],
                [ 0.6000,  1.0000, -0.3000],
                [-0.5000, -0.3000,  1.0000]], dtype=torch.float64)
    """

    models: Sequence[Model]
    correlation: Tensor | Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        models = tuple(self.models)
        if len(models) < 2:
            raise InputError(f"MultiAsset: models has {len(models)} entries; give at least two, or use the one alone")
        for i, model in enumerate(models):
            if not isinstance(model, BlackScholes | Heston):
                got = getattr(model, "name", type(model).__name__)
                raise InputError(f"MultiAsset: models[{i}] must be a BlackScholes or a Heston, got {got}")
        object.__setattr__(self, "models", models)
        object.__setattr__(self, "correlation", _tensor(self.correlation))
        check_correlation("MultiAsset: correlation", self._given)
        self._check_size()
        self._check_rho()

    @property
    def assets(self) -> int:
        """Number of underlyings."""
        return len(self.models)

    @property
    def name(self) -> str:
        """`MultiAsset(Heston, BlackScholes)`."""
        return f"MultiAsset({', '.join(m.name for m in self.models)})"

    @property
    def variances(self) -> tuple[int, ...]:
        """Numbers (from 0) of the underlyings whose variance is stochastic."""
        return tuple(i for i, model in enumerate(self.models) if isinstance(model, Heston))

    @property
    def params(self) -> dict[str, Tensor]:
        """The parameters of each underlying, then the correlations."""
        own = {f"asset{i + 1}_{k}": v for i, model in enumerate(self.models) for k, v in model.params.items()}
        return own | {name: self._given[..., i, j] for name, (i, j) in self._pairs.items()}

    @property
    def table(self) -> Mapping[str, Parameter]:
        """Description, domain, bounds and typical value of each parameter."""
        own = {f"asset{i + 1}_{k}": p for i, model in enumerate(self.models) for k, p in model.table.items()}
        return own | dict.fromkeys(self._pairs, _CORRELATION)

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same model with some parameters replaced; values are taken as they are, unchecked."""
        unknown = set(params) - set(self.params)
        if unknown:
            raise ParameterError(f"{self.name} has no parameter {sorted(unknown)}; it has {list(self.params)}")
        new = copy.copy(self)
        models = tuple(_replaced(model, f"asset{i + 1}_", params) for i, model in enumerate(self.models))
        object.__setattr__(new, "models", models)
        entries = {pair: params.get(name, self._given[..., *pair]) for name, pair in self._pairs.items()}
        object.__setattr__(new, "correlation", new._assembled(entries))
        return new

    @property
    def full_correlation(self) -> Tensor:
        """Correlations of `W_1 ... W_n` and then the `B_i`: [*batch, n + h, n + h]."""
        c = self._given
        if self._full or not self.variances:
            return c
        rho = self._rho()
        among = c[..., self.variances, :][..., :, self.variances]
        cross = c[..., :, self.variances] * rho.unsqueeze(-2)
        inner = rho.unsqueeze(-1) * among * rho.unsqueeze(-2)
        inner = inner + torch.diag_embed(1 - rho * rho)
        shape = torch.broadcast_shapes(cross.shape[:-2], inner.shape[:-2])
        c, cross, inner = (part.expand(*shape, *part.shape[-2:]) for part in (c, cross, inner))
        return torch.cat([torch.cat([c, cross], -1), torch.cat([cross.mT, inner], -1)], -2)

    @property
    def _given(self) -> Tensor:
        assert isinstance(self.correlation, Tensor), "made a tensor when the model is made"
        return self.correlation

    @property
    def _full(self) -> bool:
        """Whether correlations of variances were given."""
        return self._given.shape[-1] > self.assets

    @property
    def _pairs(self) -> dict[str, tuple[int, int]]:
        """Row and column of each correlation that is a parameter."""
        labels = [str(i + 1) for i in range(self.assets)]
        labels += [f"v{i + 1}" for i in self.variances] if self._full else []
        names = ((i, j) for i in range(len(labels)) for j in range(i + 1, len(labels)) if labels[j] != f"v{labels[i]}")
        return {f"correlation_{labels[i]}_{labels[j]}": (i, j) for i, j in names}

    def _rho(self) -> Tensor:
        """`rho` of the Heston underlyings, [*batch, h]."""
        return torch.stack(torch.broadcast_tensors(*(self.models[i].params["rho"] for i in self.variances)), -1)

    def _assembled(self, entries: Mapping[tuple[int, int], Tensor]) -> Tensor:
        """The matrix given, with these entries above the diagonal."""
        size, n = self._given.shape[-1], self.assets
        known = dict(entries)
        if self._full:
            known |= {(i, n + k): self.models[i].params["rho"] for k, i in enumerate(self.variances)}
        one = torch.ones_like(next(iter(known.values())))
        cells = [known[min(i, j), max(i, j)] if i != j else one for i in range(size) for j in range(size)]
        matrix: Tensor = torch.stack(torch.broadcast_tensors(*cells), -1).unflatten(-1, (size, size))
        return matrix

    def _check_size(self) -> None:
        got, sizes = self._given.shape[-1], sorted({self.assets, self.assets + len(self.variances)})
        if got not in sizes:
            raise ParameterError(
                f"MultiAsset: correlation must be {' or '.join(f'{k} x {k}' for k in sizes)} for {self.assets} assets "
                f"of which {len(self.variances)} have a stochastic variance, got {got} x {got}"
            )

    def _check_rho(self) -> None:
        if not self._full:
            return
        for k, i in enumerate(self.variances):
            given, rho = self._given[..., i, self.assets + k], self.models[i].params["rho"]
            if not holds((given - rho).abs() <= _SAME):
                raise ParameterError(
                    f"MultiAsset: correlation[{i}][{self.assets + k}] is that of price and variance of asset {i + 1} "
                    f"and must be the rho of its model, {rho.tolist()}, got {given.tolist()}"
                )


_CORRELATION = Parameter("correlation", constraints.interval(-1.0, 1.0), (-0.9999, 0.9999), (-0.9, 0.9), 0.5)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)


def _replaced(model: Model, prefix: str, params: Mapping[str, Tensor]) -> Model:
    return model.with_params({k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)})
