"""What a policy is worth, on paths that had no part in finding it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.pricing.american.basis import exercise
from qsde.pricing.american.constant import constant
from qsde.pricing.american.policy import Policy, as_amount, begun, carried
from qsde.pricing.american.stages import Sample, Stages


@dataclass(frozen=True)
class Worth:
    """What a policy gets on each path.

    Attributes:
        value: worth today less the gains of the hedges, [P], differentiable.
        chance: probability that the right is exercised, [P].
        time: that probability times when, [P].
    """

    value: Tensor
    chance: Tensor
    time: Tensor


def worth(stages: Stages, sample: Sample, policy: Policy) -> Worth:
    """Backwards over the stages; the decisions are without gradient.

    Raises:
        InputError: a gradient of amounts that jump.
    """
    claim, discounts, last = stages.claim, stages.discounts(), stages.last
    view = stages.view(sample.at(last), last)
    if view.prices.requires_grad and not claim.continuous:
        raise InputError(
            f"{claim.name} jumps, so its pathwise gradient is wrong; price it under torch.no_grad() or with inputs "
            "that do not require grad"
        )
    amount = exercise(claim, view)
    value, chance = torch.relu(amount), (amount > 0).to(amount.dtype)
    when = chance * stages.times[last]
    one = torch.ones_like(discounts[0])
    waiting = [as_amount(claim.never, view), torch.zeros_like(chance), torch.zeros_like(chance)]
    for i in reversed(range(last)):
        before, knock, rule = sample.at(i), sample.knocks[i], policy.rules[i]
        view, growth = stages.view(before, i), stages.growth(before, sample.at(i + 1))
        with constant():  # hedges of constant amounts, so that the gradient of their gains has mean 0 as well
            stop, held = policy.decided(stages, i, view)
            waiting_held = rule.waiting.both(view)[1] if rule.waiting is not None else held
        if rule.waiting is not None and knock is not None:
            waiting = [
                begun(discounts[i + 1], knock, waiting[0], value) - (waiting_held * growth).sum(0),
                begun(one, knock, waiting[1], chance).detach(),
                begun(one, knock, waiting[2], when).detach(),
            ]
        kept = carried(claim, discounts[i + 1], knock, value) - (held * growth).sum(0)
        survival = 1.0 if knock is None or claim.knocks_in else knock.survival.detach()
        value = torch.where(stop, exercise(claim, view), kept)
        chance = torch.where(stop, torch.ones_like(chance), survival * chance)
        when = torch.where(stop, torch.full_like(when, stages.times[i]), survival * when)
    return Worth(*waiting) if claim.knocks_in else Worth(value, chance, when)
