"""What is seen of the latent state: one law for each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from qsde.errors import InputError

#: "level": `x = m(z) + s e` with a learned s. "return": `x = m + exp(l(z)) e`, whose size follows the state.
Channel = Literal["level", "return"]

_LOG_2PI = math.log(2 * math.pi)
#: Noise of a level, in standard deviations of the channel: at the start, and at least.
_FIRST_NOISE, _LEAST_NOISE = 0.5, 1e-3


class Likelihood(nn.Module):
    """Independent normal observations of each channel given the latent state, linear in the state.

    In units of the channel's own mean and standard deviation (see `standardise`):

        level:   x = m(z) + s e
        return:  x = m + exp(l(z)) e

    with linear m(z), l(z), e ~ N(0, 1), and learned s or m.

    Args:
        channels: the law of each.
        latent: components of the latent state.
    """

    shift: Tensor
    scale: Tensor
    is_return: Tensor

    def __init__(self, channels: Sequence[Channel], latent: int) -> None:
        super().__init__()
        for channel in channels:
            if channel not in ("level", "return"):
                raise InputError(f"a channel is 'level' or 'return', got {channel!r}")
        d = len(channels)
        self.decode = nn.Linear(latent, d)
        start = [0.0 if c == "return" else math.log(math.expm1(_FIRST_NOISE)) for c in channels]
        self.extra = nn.Parameter(torch.tensor(start))
        self.register_buffer("shift", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        self.register_buffer("is_return", torch.tensor([c == "return" for c in channels]), persistent=False)

    @torch.no_grad()
    def standardise(self, values: Tensor, mask: Tensor) -> None:
        """Takes mean and standard deviation of each channel [B, N, d] as its units; returns keep their zero."""
        for c in range(values.shape[-1]):
            seen = values[..., c][mask[..., c]]
            mean = torch.zeros_like(seen[0]) if self.is_return[c] else seen.mean()
            spread = (seen - mean).square().mean().sqrt()
            if not spread > 0:
                raise InputError(f"channel {c} is constant: nothing can be learned from it; drop it")
            self.shift[c], self.scale[c] = mean, spread

    def standard(self, values: Tensor) -> Tensor:
        """Values in units of their channel."""
        return (values - self.shift) / self.scale

    def mean(self, z: Tensor) -> Tensor:
        """Expected values [*, d] given states [*, k]."""
        centre, _ = self._law(z)
        return self.shift + self.scale * centre

    def spread(self, z: Tensor) -> Tensor:
        """Standard deviations [*, d] of the values given states [*, k]."""
        _, log_spread = self._law(z)
        return self.scale * torch.exp(log_spread)

    def log_prob(self, values: Tensor, mask: Tensor, z: Tensor) -> Tensor:
        """Log densities of the values [*, d] given states [*, k], summed over the channels that were seen: [*]."""
        centre, log_spread = self._law(z)
        error = (self.standard(values) - centre) * torch.exp(-log_spread)
        log_density = -0.5 * (error * error + _LOG_2PI) - log_spread - torch.log(self.scale)
        return torch.where(mask, log_density, 0.0).sum(-1)

    def _law(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of each channel, in its units."""
        decoded = self.decode(z)
        noise = torch.log(functional.softplus(self.extra) + _LEAST_NOISE)
        centre = torch.where(self.is_return, self.extra, decoded)
        return centre, torch.where(self.is_return, decoded, noise)
