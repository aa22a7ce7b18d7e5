"""Payoffs at spots at which they have been knocked already."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs import Claim, Flows, Paths, Payoff
from qsde.payoffs.base import Staged


@dataclass(frozen=True)
class Settled(Payoff):
    """A payoff at whatever spot: beyond a barrier it is worth what is left of it, which its flows say."""

    payoff: Payoff

    @property
    def times(self) -> tuple[float, ...]:
        """Those of the payoff."""
        return self.payoff.times

    @property
    def window(self) -> tuple[float, float] | None:
        """That of the payoff."""
        return self.payoff.window

    @property
    def maturity(self) -> float:
        """That of the payoff."""
        return self.payoff.maturity

    @property
    def name(self) -> str:
        """That of the payoff."""
        return self.payoff.name

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """As the payoff."""
        return self.payoff.continuous

    def flows(self, paths: Paths) -> Flows:
        """Those of the payoff."""
        return self.payoff.flows(paths)

    def stages(self) -> Staged | None:
        """Those of the payoff."""
        return self.payoff.stages()


def settled(payoff: Payoff) -> Payoff:
    """The payoff without its refusal of spots, where it has one."""
    return payoff if type(payoff).check_spot is Claim.check_spot else Settled(payoff)


def refuses(payoff: Claim, spot: Tensor) -> bool:
    """Whether the payoff has been knocked already at this spot, or makes no sense there."""
    try:
        payoff.check_spot(spot)
    except InputError:
        return True
    return False
