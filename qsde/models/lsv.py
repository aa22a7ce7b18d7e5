"""A volatility model times a leverage function: local volatility, and local-stochastic volatility."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from qsde.errors import InputError, ParameterError
from qsde.models.base import Model, Parameter
from qsde.models.black_scholes import BlackScholes
from qsde.models.heston import Heston
from qsde.models.jump_diffusion import JumpDiffusion
from qsde.models.leverage import Leverage

_PREFIX = "leverage."


@dataclass(frozen=True, eq=False)
class LocalStochasticVol(Model):
    """`dx = -L(t, x)^2 v dt / 2 + L(t, x) sqrt(v) dW` with the variance `v` of a backbone and a leverage `L`.

    With the backbone `BlackScholes` (`v = vol^2`) it is a local volatility `vol L(t, x)`, with `Heston` a
    local-stochastic volatility. Jumps go around it: `JumpDiffusion(LocalStochasticVol(...), jumps)`, which `leveraged`
    builds from a Bates model. At `L = 1` it is the backbone.

    Discounted prices are exact martingales of the simulation at any leverage and step (`qsde.schemes.Leveraged`). The
    parameters of the leverage appear as `leverage.values`, and so on.

    Args:
        backbone: `BlackScholes` or `Heston`.
        leverage: the function; its parameters have no batch axes, those of the backbone may.

    Raises:
        InputError: another backbone.

    References:
        Dupire (1994), "Pricing with a smile", Risk 7(1). Ren, Madan, Qian Qian (2007), "Calibrating and pricing with
        embedded local volatility models", Risk 20(9).

    Example:
        >>> from qsde.models import GridLeverage
        >>> flat = GridLeverage([0.0], [0.0], [[1.1]])
        >>> list(LocalStochasticVol(BlackScholes(0.2), flat).params)
        ['vol', 'leverage.values']
    """

    backbone: Model
    leverage: Leverage

    def __post_init__(self) -> None:
        if isinstance(self.backbone, JumpDiffusion):
            raise InputError(
                "LocalStochasticVol: jumps go around it: JumpDiffusion(LocalStochasticVol(Heston(...), leverage), "
                "jumps); leveraged(model, leverage) builds that"
            )
        if not isinstance(self.backbone, BlackScholes | Heston):
            raise InputError(
                f"LocalStochasticVol: the backbone must be a BlackScholes or a Heston, got {self.backbone.name}"
            )

    @property
    def name(self) -> str:
        """LocalVol, or LocalHeston."""
        return "LocalVol" if isinstance(self.backbone, BlackScholes) else f"Local{self.backbone.name}"

    @property
    def params(self) -> dict[str, Tensor]:
        """The parameters of the backbone, then those of the leverage with their prefix."""
        return {**self.backbone.params, **{_PREFIX + k: v for k, v in self.leverage.params.items()}}

    @property
    def table(self) -> Mapping[str, Parameter]:
        """Description, domain, bounds and typical value of each parameter."""
        return {**self.backbone.table, **{_PREFIX + k: v for k, v in self.leverage.table.items()}}

    @property
    def batch_shape(self) -> torch.Size:
        """That of the backbone."""
        return self.backbone.batch_shape

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same model with some parameters replaced; values are taken as they are, unchecked."""
        unknown = set(params) - set(self.params)
        if unknown:
            raise ParameterError(f"{self.name} has no parameter {sorted(unknown)}; it has {list(self.params)}")
        of_leverage = {k.removeprefix(_PREFIX): v for k, v in params.items() if k.startswith(_PREFIX)}
        new = copy.copy(self)
        rest = {k: v for k, v in params.items() if not k.startswith(_PREFIX)}
        object.__setattr__(new, "backbone", self.backbone.with_params(rest))
        object.__setattr__(new, "leverage", self.leverage.with_params(of_leverage))
        return new


def leveraged(model: Model, leverage: Leverage) -> Model:
    """The model with its volatility times a leverage, under the same jumps.

    Example:
        >>> from qsde.models import GridLeverage, merton
        >>> model = leveraged(merton(0.2, 0.3, -0.1, 0.15), GridLeverage([0.0], [0.0], [[1.1]]))
        >>> model.name
        'LocalVol+MertonJumps'
    """
    if isinstance(model, JumpDiffusion):
        return JumpDiffusion(leveraged(model.diffusion, leverage), model.jumps)
    return LocalStochasticVol(model, leverage)


def unleveraged(model: Model) -> Model:
    """The backbone with the jumps: the model at leverage 1, which has Fourier prices.

    Example:
        >>> from qsde.models import GridLeverage, merton
        >>> unleveraged(leveraged(merton(0.2, 0.3, -0.1, 0.15), GridLeverage([0.0], [0.0], [[1.1]]))).name
        'Merton'
    """
    if isinstance(model, JumpDiffusion):
        return JumpDiffusion(unleveraged(model.diffusion), model.jumps)
    return model.backbone if isinstance(model, LocalStochasticVol) else model
