"""The inputs that Greeks are derivatives of, as leaf tensors from which model and market are made again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.clock import Clock
from qsde.market.curves import Curve, ShiftedCurve
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.models.jumps import moves_by_jumps
from qsde.models.multi_asset import MultiAsset
from qsde.payoffs import Claim, Payoff
from qsde.pricing.controls import Companion, companion
from qsde.pricing.fourier import model_vols

#: Singular values of the map from parameters to implied vols below this share of the largest are not used.
_RANK = 0.02
#: Expiries, as shares of the longest, and strikes, in standard deviations, at which implied vols are shifted.
_EXPIRIES = (0.25, 0.5, 1.0)
_DEVIATIONS = (-1.0, -0.5, 0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Inputs:
    """Model and market in terms of numbers that may be differentiated by.

    Attributes:
        model, market: as given.
        labels: what tells the underlyings apart in names: "" for one, "_1", "_2" and so on for several.
        leaves: spot and dividend_yield (a shift) of each underlying, rate (a shift), the time elapsed, and every
            parameter that is one number, each a 0-dim leaf; tables and weights are held.
        maturity: up to which implied vols count, years.
        first: the first date later than now on which something happens.
    """

    model: Model
    market: Market | Markets
    labels: tuple[str, ...]
    leaves: dict[str, Tensor]
    maturity: float
    first: float

    @cached_property
    def directions(self) -> dict[str, dict[str, Tensor]]:
        """By how much each parameter moves per 1.00 of a parallel shift of an underlying's implied vols, by its label.

        Of several, each follows its own model; those without implied vols are left out.
        """
        models = self.model.models if isinstance(self.model, MultiAsset) else [self.model]
        prefixes = [f"asset{i + 1}_" if isinstance(self.model, MultiAsset) else "" for i in range(len(models))]
        markets = self.market.markets if isinstance(self.market, Markets) else [self.market]
        return {
            label: {prefix + name: slope for name, slope in parallel_shift(one, market, self.maturity).items()}
            for prefix, one, market, label in zip(prefixes, models, markets, self.labels, strict=True)
            if one.has_cf
        }

    @property
    def has_vols(self) -> bool:
        """Whether there are implied vols to shift."""
        return any(one.has_cf for one in (self.model.models if isinstance(self.model, MultiAsset) else [self.model]))

    @classmethod
    def of(cls, model: Model, market: Market | Markets, book: Sequence[Claim]) -> Inputs:
        """Inputs of a book under a model without batch axes.

        Raises:
            InputError: the model has batch axes, or as many underlyings as there are not markets.
        """
        if model.batch_shape:
            raise InputError(
                f"Greeks are of one model, got a batch of shape {tuple(model.batch_shape)}; call greeks for each"
            )
        markets = tuple(market.markets) if isinstance(market, Markets) else (market,)
        if model.assets != len(markets):
            raise InputError(f"{model.name} simulates {model.assets} underlyings, and there are {len(markets)} markets")
        labels = tuple(f"_{i + 1}" for i in range(len(markets))) if isinstance(market, Markets) else ("",)
        zero = torch.zeros((), dtype=torch.float64)
        found = {f"spot{a}": torch.as_tensor(m.spot) for a, m in zip(labels, markets, strict=True)}
        found |= {"rate": zero, "elapsed": zero} | {f"dividend_yield{a}": zero for a in labels}
        found |= {name: value for name, value in model.params.items() if not value.dim()}
        leaves = {name: value.detach().clone() for name, value in found.items()}
        dates = {t for claim in book for t in (*claim.times, *(claim.window or ()))} | {*market.dividend_times}
        first = min(t for t in dates if t > 0)
        return cls(model, market, labels, leaves, max(claim.maturity for claim in book), first)

    def at(
        self,
        frozen: tuple[str, ...] = (),
        folds: int = 0,
        spot: float = 0.0,
        vol: float = 0.0,
        parameter: tuple[str, float] | None = None,
        label: str | None = None,
    ) -> Point:
        """The inputs as fresh leaves, with a spot moved by a share and its implied vols by `vol`.

        Args:
            frozen: inputs that are held constant.
            folds: give every leaf so many copies, so that each part of the paths has a gradient of its own; 0 is one
                set of leaves without that axis.
            spot: relative move of the spot.
            vol: parallel shift of implied vols.
            parameter: name of a parameter and its move.
            label: of the underlying whose spot and vols move; None is the first.
        """
        label = self.labels[0] if label is None else label
        moved = dict(self.leaves)
        if parameter is not None:
            moved[parameter[0]] = moved[parameter[0]] + parameter[1]
        moved[f"spot{label}"] = moved[f"spot{label}"] * (1 + spot)
        for name, slope in self.directions.get(label, {}).items() if vol else ():
            moved[name] = moved[name] + vol * slope
        leaves = {k: v.detach().clone().requires_grad_(k not in frozen) for k, v in moved.items()}
        whole = Point(self._model(leaves), self._market(leaves), leaves, self.labels)
        if not folds:
            return whole
        copies = {
            k: v.detach().expand(folds, *(1,) * (k not in self.model.params)).clone().requires_grad_(v.requires_grad)
            for k, v in leaves.items()
        }
        return Point(self._model(copies), self._market(copies), copies, self.labels, whole)

    def beside(self, point: Point, spot: float, label: str) -> Point:
        """The point with a spot of its own, moved by a share, and all else the same: paths do not depend on spots."""
        name = f"spot{label}"
        own = (point.leaves[name].detach() * (1 + spot)).requires_grad_()
        leaves = point.leaves | {name: own}
        whole = None if point.whole is None else self.beside(point.whole, spot, label)
        return replace(point, market=self._market(leaves), leaves=leaves, whole=whole)

    def _model(self, leaves: dict[str, Tensor]) -> Model:
        return self.model.with_params({name: leaves[name] for name in self.model.params if name in leaves})

    def _market(self, leaves: Mapping[str, Tensor]) -> Market | Markets:
        if isinstance(self.market, Market):
            return moved_market(self.market, leaves, self.labels[0], self.first)
        each = zip(self.market.markets, self.labels, strict=True)
        return Markets([moved_market(one, leaves, label, self.first) for one, label in each])

    def along(self, gradient: Mapping[str, Tensor], label: str) -> Tensor:
        """The derivative to a parallel shift of an underlying's implied vols, from those to the parameters."""
        return torch.stack([gradient[name] * slope for name, slope in self.directions[label].items()]).sum(0)


@dataclass(frozen=True)
class Point:
    """Model and market made of leaves.

    Attributes:
        model, market: made of the leaves.
        leaves: by name.
        labels: of the underlyings.
        whole: the same point without the axis of folds; None if it has none.
    """

    model: Model
    market: Market | Markets
    leaves: dict[str, Tensor]
    labels: tuple[str, ...]
    whole: Point | None = None

    def companion(self, payoff: Payoff) -> Companion:
        """The control variate of a payoff, its exact price linear in the leaves: all that a first derivative sees."""
        one = self.whole or self
        if isinstance(one.market, Markets):
            return None
        found = companion(one.model, one.market, payoff)
        if found is None:
            return None
        akin, exact = found
        if not torch.is_grad_enabled():
            return akin, exact
        moving = [k for k, v in one.leaves.items() if v.requires_grad]
        slopes = torch.autograd.grad(exact, [one.leaves[k] for k in moving], allow_unused=True)
        total = exact.detach()
        for k, slope in zip(moving, slopes, strict=True):
            if slope is not None:
                leaf = self.leaves[k] if self.whole is None else self.leaves[k].flatten()
                total = total + slope * (leaf - leaf.detach())
        return akin, total


def moved_market(market: Market, leaves: Mapping[str, Tensor], label: str = "", first: float | None = None) -> Market:
    """The market with the spot and the shifts of its curves from the leaves of this label.

    Time passes towards its `first` date where something is differentiated by it.
    """
    moved = copy.copy(market)  # as it is: leaves may have axes, which the checks of a market are not made for
    curves: list[Curve] = [market.rate, market.dividend_yield]  # type: ignore[list-item]
    shifts = (leaves["rate"], leaves[f"dividend_yield{label}"])
    for name, curve, shift in zip(("rate", "dividend_yield"), curves, shifts, strict=True):
        object.__setattr__(moved, name, ShiftedCurve(curve, shift))
    object.__setattr__(moved, "spot", leaves[f"spot{label}"])
    if first is not None and leaves["elapsed"].requires_grad:
        object.__setattr__(moved, "clock", Clock(leaves["elapsed"], first))
    return moved


def parallel_shift(model: Model, market: Market, maturity: float) -> dict[str, Tensor]:
    """The move of the parameters, per 1.00, that best shifts all implied vols up to `maturity` in parallel.

    Least squares over three expiries and five strikes within one standard deviation, in relative moves of the
    parameters; directions in which they hardly move implied vols are left alone, and so are jump intensities. For
    Black-Scholes it is the volatility itself.

    Args:
        model: a model with a characteristic function, without batch axes.
        market: the market.
        maturity: longest expiry, years.

    Example:
        >>> from qsde.models import BlackScholes
        >>> parallel_shift(BlackScholes(0.2), Market(100.0), 1.0)
        {'vol': tensor(1.0000, dtype=torch.float64)}
    """
    names = [name for name in model.params if not moves_by_jumps(name)]
    point = torch.stack([model.params[name].detach().double() for name in names])
    size = torch.where(point.abs() > 1e-6, point.abs(), 1.0)

    def vols(p: Tensor) -> Tensor:
        moved = model.with_params(dict(zip(names, p.unbind(0), strict=True)))
        rows = []
        for share in _EXPIRIES:
            t = torch.tensor(share * maturity, dtype=torch.float64)
            forward = market.forward(t).detach()
            deviation = torch.sqrt(model.total_variance(t).detach().clamp(min=1e-8))  # type: ignore[attr-defined]
            strikes = forward * torch.exp(deviation * torch.tensor(_DEVIATIONS, dtype=torch.float64))
            rows.append(model_vols(moved, t, strikes, forward))
        return torch.cat(rows)

    jacobian: Tensor = torch.autograd.functional.jacobian(vols, point, vectorize=True) * size
    shift = size * (torch.linalg.pinv(jacobian, rtol=_RANK) @ torch.ones(len(jacobian), dtype=torch.float64))
    return dict(zip(names, shift.unbind(0), strict=True))
