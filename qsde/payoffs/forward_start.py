"""Options whose strike is set at a later date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from qsde.payoffs.base import Kind, Terminal, vanilla
from qsde.payoffs.checks import check_choice, check_kind, check_positive, check_times

Pays = Literal["price", "return"]


@dataclass(frozen=True)
class ForwardStart(Terminal):
    """A call or put whose strike is `moneyness` times the price at `start`.

    A call pays `max(S_T - m S_start, 0)`, or `max(S_T / S_start - m, 0)` if it pays on the return (a percentage
    option, for a notional of 1).

    Args:
        start: when the strike is set, years; 0 is today.
        expiry: years, after `start`.
        moneyness: strike as a fraction of the price at `start`, positive; 1 is at the money.
        kind: "call" or "put".
        pays: "price" or "return".

    Raises:
        InputError: an expiry that does not follow the start, a moneyness that is not positive, or an unknown word.

    Example:
        >>> import torch
        >>> path = torch.tensor([[80.0, 100.0]])
        >>> ForwardStart(start=0.5, expiry=1.0)(path), ForwardStart(start=0.5, expiry=1.0, pays="return")(path)
        (tensor([20.]), tensor([0.2500]))
    """

    start: float
    expiry: float
    moneyness: float | Tensor = 1.0
    kind: Kind = "call"
    pays: Pays = "price"

    def __post_init__(self) -> None:
        check_times(f"{self.name} (start, expiry)", [self.start, self.expiry])
        check_positive(self.name, moneyness=self.moneyness)
        check_kind(self.name, self.kind)
        check_choice(self.name, "pays", self.pays, Pays)

    @property
    def times(self) -> tuple[float, ...]:
        """Start and expiry."""
        return (float(self.start), float(self.expiry))

    def __call__(self, prices: Tensor) -> Tensor:
        """Vanilla payoff of the price or of its ratio to the one at the start."""
        first, last = prices.unbind(-1)
        if self.pays == "return":
            return vanilla(last / first, self.moneyness, self.kind)
        return vanilla(last, self.moneyness * first, self.kind)
