"""Greeks of rights to exercise early: pathwise derivatives with the exercise policy frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks.estimators import Estimator
from qsde.greeks.extra_jump import extra_jumps
from qsde.greeks.inputs import Inputs, Point
from qsde.greeks.likelihood import Change
from qsde.greeks.methods import Method
from qsde.greeks.sampler import Sampler
from qsde.greeks.sampling import frozen, replicates
from qsde.payoffs import EarlyExercise
from qsde.pricing.american import LeastSquares
from qsde.pricing.american.lower import worth
from qsde.pricing.american.policy import Policy
from qsde.pricing.american.price import find_policy, prepared, samples
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.simulation import Parts

#: How such rights are treated, in words.
FROZEN = "pathwise, frozen policy (second derivatives: differences)"


class _Frozen(Estimator):
    """What a policy that does not move is worth, differentiated path by path."""

    def __init__(self, point: Point, claim: EarlyExercise, engine: MonteCarlo, policy: Policy) -> None:
        super().__init__(point)
        self._claim, self._engine, self._policy = claim, engine, policy
        self._stages = prepared(point.model, claim, point.market, engine)

    def _values(self, parts: Parts) -> list[Tensor]:
        return [self._mean(parts, None)]

    def changes(self, parts: Parts, change: Change) -> list[Tensor]:
        """By how much the value moves if the paths are changed."""
        return [self._mean(parts, change) - self.values(parts)[0]]

    def _mean(self, parts: Parts, change: Change | None) -> Tensor:
        drawn = samples(self._stages, self._stages.simulation.engine.noise, parts, change)
        return torch.cat([worth(self._stages, sample, self._policy).value for sample in drawn]).mean().cpu()

    def has_deltas(self, i: int) -> bool:
        """Second derivatives are differences."""
        return False

    def deltas(self, parts: Parts, change: Change | None = None) -> dict[int, list[Tensor]]:
        """None."""
        return {}

    def beside(self, inputs: Inputs, spot: float, label: str, rows: Sequence[int]) -> _Frozen:
        """With a spot moved by a share."""
        return _Frozen(inputs.beside(self.point, spot, label), self._claim, self._engine, self._policy)


@dataclass(frozen=True)
class EarlyGreeks:
    """Greeks of one right to exercise early.

    The policy is found once, where the Greeks are taken, by regression on paths that are used for nothing else. What it
    is worth on the others is differentiated with the policy held: by the envelope theorem the first derivatives are
    those of the price if the policy is optimal, since moving it then changes nothing of first order. Delta and vega at
    moved spots, whose differences are gamma and vanna, need no other policy either: when to exercise depends on the
    price then, not on the spot now. Only today's decision does, and it is held as it is. Volga is not there: at other
    vols the policy is not optimal, and pathwise derivatives would be wrong. The price is the lower bound of
    `qsde.pricing.american.price_early`.

    Reference:
        V. Piterbarg, "Computing deltas of callable Libor exotics in forward Libor models", J. Computational Finance
        7(3) (2004), on derivatives with the exercise boundary held.

    Attributes:
        claim: the right.
        inputs: what it depends on.
        engine: settings; as many paths as it has find the policy, as many value it.
        least_squares: settings of the regression.
    """

    claim: EarlyExercise
    inputs: Inputs
    engine: MonteCarlo
    least_squares: LeastSquares

    def sampled(self, names: Sequence[str], progress: Callable[[int, int], None] | None = None) -> tuple[Tensor, int]:
        """Raw Greeks [parts, names] from independent parts of the paths, and the number of paths of all parts.

        Args:
            names: the Greeks.
            progress: called with (parts done, parts).
        """
        inputs, claim = self.inputs, self.claim
        one, parts = replicates(inputs.model, self.engine)
        apart = [Parts((offset,), part.stride, folded=False) for part in parts for offset in part.offsets]
        policy = self._policy(apart[0])

        base = _Frozen(inputs.at(frozen(inputs, set(names))), claim, one, policy)
        jumps = extra_jumps(inputs.model, claim.maturity, self.engine.noise)
        run = Sampler(inputs, base, [[0]], set(names), jumps)
        rows = []
        for done, part in enumerate(apart, 1):
            (row,) = run(part)
            rows.append(torch.stack([row[name].detach().double() for name in names]))
            if progress is not None:
                progress(done, len(apart))
        return torch.stack(rows), one.n_paths * len(apart)

    def _policy(self, some: Parts) -> Policy:
        """The policy with today's decision made."""
        stages = prepared(self.inputs.model, self.claim, self.inputs.market, self.engine)
        policy = find_policy(stages, self.least_squares)
        few = prepared(self.inputs.model, self.claim, self.inputs.market, replace(self.engine, n_paths=2))
        with torch.no_grad():
            sample = next(samples(few, self.engine.noise, some))
            stop, _ = policy.decided(stages, 0, stages.view(sample.at(0), 0))
        return replace(policy, now=bool(stop.any()))


def check_early(claim: EarlyExercise, method: Method) -> None:
    """Raises InputError if the right cannot be differentiated path by path, or something else is asked for."""
    if method not in ("auto", "pathwise"):
        raise InputError(f"{claim.name} has pathwise Greeks with its policy frozen only; use method='auto'")
    if not claim.continuous:
        raise InputError(f"{claim.name} jumps, so its pathwise Greeks would be wrong; bump it with price_early")
