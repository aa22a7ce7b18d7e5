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
#: Largest share of wide returns, and what a share and a width start from.
_MOST_WIDE, _FIRST_TAIL = 0.5, (-2.0, 0.5)


class Likelihood(nn.Module):
    """Independent normal observations of each channel given the latent state, linear in the state.

    In units of the channel's own mean and standard deviation (see `standardise`):

        level:   x = m(z) + s e
        return:  x = m + exp(l(z)) e b,  b = c with probability p, else 1

    with linear m(z), l(z), e ~ N(0, 1), and learned s, m, p < 1/2 and c > 1: returns have fat tails beyond what the
    movement of their size explains.

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
        self.tail = nn.Parameter(torch.tensor(_FIRST_TAIL).unsqueeze(-1).repeat(1, d))
        self.register_buffer("shift", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        self.register_buffer("is_return", torch.tensor([c == "return" for c in channels]), persistent=False)

    @torch.no_grad()
    def standardise(self, values: Tensor, mask: Tensor) -> None:
        """Takes mean and standard deviation of each channel [B, N, d] as its units; returns keep their zero.

        Raises:
            InputError: a channel is constant or was never seen.
        """
        for c in range(values.shape[-1]):
            seen = values[..., c][mask[..., c]]
            if not len(seen):
                raise InputError(f"channel {c} has no value that was seen: nothing can be learned from it; drop it")
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

    def sample(self, z: Tensor, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Values [*, d] given states [*, k], from as many normals and uniforms."""
        centre, log_spread = self._law(z)
        share, width = self.wide
        wide = torch.where(self.is_return & (uniforms < share), width, 1.0)
        return self.shift + self.scale * (centre + torch.exp(log_spread) * wide * normals)

    def log_prob(self, values: Tensor, mask: Tensor, z: Tensor) -> Tensor:
        """Log densities of the values [*, d] given states [*, k], summed over the channels that were seen: [*]."""
        centre, log_spread = self._law(z)
        error = (self.standard(values) - centre) * torch.exp(-log_spread)
        share, width = self.wide
        plain = -0.5 * error * error
        fat = torch.logaddexp(torch.log1p(-share) + plain, torch.log(share / width) + plain / (width * width))
        log_density = torch.where(self.is_return, fat, plain) - 0.5 * _LOG_2PI - log_spread - torch.log(self.scale)
        return torch.where(mask, log_density, 0.0).sum(-1)

    @property
    def noise(self) -> Tensor:
        """Standard deviation s [d] of what is seen of each level, in the unit of the series."""
        return self.scale * (functional.softplus(self.extra) + _LEAST_NOISE)

    @property
    def wide(self) -> tuple[Tensor, Tensor]:
        """Share p [d] and width c [d] of the wide returns of each return."""
        return _MOST_WIDE * torch.sigmoid(self.tail[0]), 1 + functional.softplus(self.tail[1])

    def _law(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of each channel, in its units."""
        decoded = self.decode(z)
        noise = torch.log(self.noise / self.scale)
        centre = torch.where(self.is_return, self.extra, decoded)
        return centre, torch.where(self.is_return, decoded, noise)
