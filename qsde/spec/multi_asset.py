"""Models of several underlyings as text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qsde.errors import InputError
from qsde.models import Model, MultiAsset
from qsde.spec.base import Spec, at
from qsde.spec.leveraged import AnyModelSpec, spec_of
from qsde.spec.models import BlackScholesSpec, HestonSpec

#: Most underlyings of one model.
MAX_ASSETS = 100


class MultiAssetSpec(Spec):
    """Several underlyings, each Black-Scholes or Heston, with correlated Brownian motions.

    Attributes:
        models: one for each underlying.
        correlation: of the prices, or of prices and then variances: rows of the matrix that `MultiAsset` takes.

    Example:
        >>> flat = BlackScholesSpec(vol=0.2)
        >>> MultiAssetSpec(models=(flat, flat), correlation=((1.0, 0.5), (0.5, 1.0))).build().name
        'MultiAsset(BlackScholes, BlackScholes)'
    """

    model: Literal["multi_asset"] = "multi_asset"
    models: tuple[Annotated[BlackScholesSpec | HestonSpec, Field(discriminator="model")], ...] = Field(
        min_length=2, max_length=MAX_ASSETS
    )
    correlation: tuple[tuple[float, ...], ...] = Field(min_length=2, max_length=2 * MAX_ASSETS)

    def build(self) -> Model:
        """The model.

        Raises:
            InputError: a parameter lies outside its domain, or the correlations are not those of any variables.
        """
        if len({len(row) for row in (self.correlation, *self.correlation)}) > 1:
            raise InputError("correlation: must be a square matrix, a list of rows as long as there are rows")
        models = []
        for i, spec in enumerate(self.models):
            with at(f"models.{i}"):
                models.append(spec.build())
        return MultiAsset(models, self.correlation)


#: Any model that a request may name, told apart by its field `model`.
PricingModelSpec = Annotated[AnyModelSpec | MultiAssetSpec, Field(discriminator="model")]


def pricing_spec_of(model: Model) -> AnyModelSpec | MultiAssetSpec:
    """The spec that builds `model`, of one underlying or several.

    Raises:
        InputError: the model has batch axes or no spec describes it.

    Example:
        >>> flat = BlackScholesSpec(vol=0.2)
        >>> both = MultiAssetSpec(models=(flat, flat), correlation=((1.0, 0.5), (0.5, 1.0)))
        >>> pricing_spec_of(both.build()) == both
        True
    """
    if not isinstance(model, MultiAsset):
        return spec_of(model)
    models = [spec_of(m) for m in model.models]
    return MultiAssetSpec.model_validate({"models": models, "correlation": model.correlation.tolist()})  # type: ignore[union-attr]
