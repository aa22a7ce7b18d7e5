"""The networks of a latent SDE: encoder, drifts, control and diffusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """A GRU that reads the observations backwards: the context at a time sums up what is seen from then on.

    Each observation enters with its mask and with the time to the next, so that times may be irregular.

    Args:
        observed: channels d.
        context: numbers c that sum up the future.
        hidden: width of the GRU.
    """

    def __init__(self, observed: int, context: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(2 * observed + 1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, context)

    def forward(self, times: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Contexts [B, N, c] of standardised values [B, N, d] seen at times [N]."""
        gap = torch.cat([times.diff(), times.new_zeros(1)]).expand(len(values), -1).unsqueeze(-1)
        rows = torch.cat([values * mask, mask.to(values), gap], -1)
        states, _ = self.gru(rows.flip(1))
        contexts: Tensor = self.out(states.flip(1))
        return contexts


class Drift(nn.Module):
    """`-exp(k) z + f(z)` with a bounded network f: whatever its weights, paths cannot run away.

    Args:
        latent: components of the state.
        hidden: width of the two hidden layers.
    """

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.log_pull = nn.Parameter(torch.full((latent,), -1.0))
        self.net = nn.Sequential(
            nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, latent)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Drift [P, k] at states [P, k]."""
        out: Tensor = self.net(z) - torch.exp(self.log_pull) * z
        return out


class Control(nn.Module):
    """`u(z, context, time to the next observation)`: posterior drift minus prior drift, over the diffusion.

    Its last layer starts at 0, so that learning starts from the prior.

    Args:
        latent: components of the state.
        context: numbers of the context.
        hidden: width of the two hidden layers.
    """

    def __init__(self, latent: int, context: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(latent + context + 1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )  # fmt: skip
        self.out = nn.Linear(hidden, latent)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor, context: Tensor, ahead: Tensor) -> Tensor:
        """Control [P, k] at states [P, k], contexts [P, c] and a time 0-dim."""
        rows = torch.cat([z, context, ahead.expand(len(z), 1)], -1)
        out: Tensor = self.out(self.net(rows))
        return out


class Diffusion(nn.Module):
    """`g_i(z_i)`, each component of its own: positive, bounded, and never nearly 0.

    `g_i = exp(s_i) (0.05 + sigmoid(f_i(z_i)))` with a network f_i of one hidden layer.

    Args:
        latent: components of the state.
        hidden: width of each component's network.
    """

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.log_size = nn.Parameter(torch.zeros(latent))
        self.inner = nn.Parameter(torch.randn(latent, hidden))
        self.bend = nn.Parameter(torch.randn(latent, hidden))
        self.outer = nn.Parameter(torch.randn(latent, hidden) / hidden)

    def forward(self, z: Tensor) -> Tensor:
        """Diffusion [P, k] at states [P, k]."""
        layer = torch.tanh(z.unsqueeze(-1) * self.inner + self.bend)
        return torch.exp(self.log_size) * (0.05 + torch.sigmoid((layer * self.outer).sum(-1)))
