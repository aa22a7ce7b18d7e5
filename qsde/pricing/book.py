"""European options that are priced again and again: everything that does not depend on the model is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models.base import Model, fourier_model
from qsde.numerics import broadcast_shape, complex_exp
from qsde.pricing.contours import lewis_range, nodes_for_ripples, nodes_needed
from qsde.pricing.fourier import Fourier, FourierPrice, Number, check_positive, finish, to_tensor
from qsde.pricing.grid import LewisGrid

#: Grids kept per book; a grid serves all models whose total variances round to the same powers of sqrt(2).
_GRIDS = 32


class EuropeanBook:
    """European calls and puts on a grid of expiries and strikes, prepared for many models.

    `price(model)` gives what `price_european` gives, several times faster, because nodes and trigonometric tables are
    kept from call to call. Gradients run to the model's parameters; strikes, expiries and forwards are constants (use
    `price_european` for gradients to those). Results depend on the model alone, never on earlier calls.

    Args:
        strike: [E, K] or [K].
        t: years to expiry [E], or a scalar.
        forward: broadcasts to [E].
        discount_factor: broadcasts to [E].
        is_call: bool or a tensor that broadcasts to [E, K].
        engine: quadrature settings.

    Raises:
        InputError: an entry is not positive and finite, or there are batch axes.

    Example:
        >>> from qsde.models import Heston
        >>> book = EuropeanBook(strike=torch.tensor([90.0, 100.0, 110.0]), t=torch.tensor([0.5, 1.0]), forward=100.0)
        >>> book.price(Heston.typical()).value.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        strike: Number,
        t: Number,
        forward: Number,
        discount_factor: Number = 1.0,
        is_call: bool | Tensor = True,
        engine: Fourier | None = None,
    ) -> None:
        self.engine = engine or Fourier()
        given = {"strike": strike, "t": t, "forward": forward, "discount_factor": discount_factor}
        tensors = {name: to_tensor(x).detach() for name, x in given.items()}
        check_positive(**tensors)
        strike, t, forward, df = tensors.values()
        if strike.dim() > 2 or max(t.dim(), forward.dim(), df.dim()) > 1:
            raise InputError("a book has strikes [E, K] or [K], and t, forward and discount_factor [E]: no batch axes")
        rows = broadcast_shape(t.shape, forward.shape, df.shape, strike.shape[:-1], (1,))
        n_strikes = strike.shape[-1] if strike.dim() else 1
        self._shape = (*(rows if t.dim() or (len(rows) and rows[0] > 1) else ()), *strike.shape[-1:])
        self._t = t.expand(rows).unsqueeze(-1)
        forward_, df_ = forward.expand(rows).unsqueeze(-1), df.expand(rows).unsqueeze(-1)
        strike = strike.expand(*rows, n_strikes)
        self._k = torch.log(strike / forward_)
        self._scale = torch.sqrt(strike * forward_) * df_
        call = torch.as_tensor(is_call).expand(*rows, n_strikes)
        intrinsic = torch.where(call, forward_ - strike, strike - forward_) * df_
        self._intrinsic = torch.where((self._k < 0) == call, intrinsic, 0.0)
        self._farthest = self._k.abs().amax(-1, keepdim=True)
        self._grids: dict[tuple[float, ...], tuple[LewisGrid, Tensor, Tensor]] = {}

    def price(self, model: Model) -> FourierPrice:
        """Prices [*batch, E, K] and their error estimates.

        Raises:
            NumericsError: the quadrature did not reach its tolerance.
        """
        batch, fourier = model.batch_shape, fourier_model(model)
        shaped = fourier.map(lambda p: p.expand(batch).reshape(-1, 1, 1)) if batch else fourier
        with torch.no_grad():
            variance = shaped.total_variance(self._t).reshape(-1, *self._t.shape)
            grid, needed, reach = self._prepared(variance)
            ripples = nodes_for_ripples(shaped, self._t, self._farthest, reach)
        phi = complex_exp(shaped.log_cf(grid.u, self._t))
        first = grid.integral(phi if phi.dim() == 3 else phi.unsqueeze(0))
        needed = needed if ripples is None else torch.maximum(needed, ripples)
        ratio, error = finish(first, needed, variance, shaped, self._t, self._k, self.engine)
        value = torch.addcmul(self._intrinsic, ratio, self._scale)
        error = torch.add(error * self._scale, value.detach().abs(), alpha=4e-16)
        shape = (*batch, *self._shape)
        return FourierPrice(value.reshape(shape), error.reshape(shape))

    def _prepared(self, variance: Tensor) -> tuple[LewisGrid, Tensor, Tensor]:
        """Grid for these total variances [B, E, 1], the nodes that the strikes need and the reach [E, 1]."""
        low, high = (variance[0], variance[0]) if len(variance) == 1 else torch.aminmax(variance, dim=0)
        levels = torch.round(2 * torch.log2(torch.cat([low, high], -1).clamp(min=1e-14)))
        key = tuple(levels.flatten().tolist())
        if key not in self._grids:
            if len(self._grids) >= _GRIDS:
                self._grids.clear()
            least, most = (2 ** (0.5 * levels)).split(1, -1)
            scale, reach = lewis_range(least, most, self._farthest)
            grid = LewisGrid.of(self._k, most, scale, reach, self.engine.nodes).with_half_rule(self._k, most)
            self._grids[key] = grid, nodes_needed(least, self._farthest), reach
        return self._grids[key]
