"""The latent SDE: a prior and a posterior that share one diffusion, seen through a likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qsde.errors import InputError
from qsde.latent.likelihood import Channel, Likelihood
from qsde.latent.networks import Control, Diffusion, Drift, Encoder
from qsde.latent.series import Series
from qsde.models.sde import SDE
from qsde.noise import Noise
from qsde.noise.seeds import other
from qsde.solve import sdeint

Params = Mapping[str, Tensor]
#: Purposes that need random numbers apart from those of the paths.
_START, _PRIOR_START, _AHEAD, _SEEN = 1, 2, 3, 4
#: A step that starts at a time of observation may start a rounding error before it.
_EARLY = 0.25


@dataclass(frozen=True)
class Solver:
    """How paths of the latent state are computed, by `qsde.solve.sdeint`.

    Attributes:
        max_dt: largest step in the unit of the times. The posterior of a state given the one before cannot be narrower
            than a step of the diffusion: precise observations want several steps between them.
        gradient: strategy of the gradient: exact by replay ("checkpoint"), exact and twice as fast with all steps in
            memory ("direct"), or the paper's own in constant memory, within the error of the steps.
        compile: whether the step is compiled.
    """

    max_dt: float
    gradient: Literal["checkpoint", "direct", "stochastic_adjoint"] = "checkpoint"
    compile: Literal["auto", "always", "never"] = "never"


@dataclass(frozen=True)
class Sizes:
    """What a latent SDE is built from, besides its weights.

    Attributes:
        channels: law of each observed channel.
        latent: components of the latent state.
        context: numbers that sum up the future in the posterior.
        hidden: width of all networks.
    """

    channels: tuple[Channel, ...]
    latent: int
    context: int
    hidden: int

    def __post_init__(self) -> None:
        for name, size in asdict(self).items():
            if not (len(size) if name == "channels" else size >= 1):
                raise InputError(f"LatentSDE: {name} must be at least 1, got {size!r}")


@dataclass(frozen=True)
class Posterior:
    """Paths of the latent state given what was seen.

    Attributes:
        states: at the times of observation, [N, S, B, k] for S paths of each of B series.
        kl_start: divergence of the law of the first state from its prior, [B].
        kl_path: divergence of the path from there on, path by path, [S, B].
    """

    states: Tensor
    kl_start: Tensor
    kl_path: Tensor


@dataclass(frozen=True)
class Bound:
    """The evidence lower bound of each series, [B] each: `value <= log p(series)` in expectation.

    Attributes:
        log_likelihood: mean log density of what was seen given the path.
        kl_start, kl_path: divergence of the posterior from the prior.
    """

    log_likelihood: Tensor
    kl_start: Tensor
    kl_path: Tensor

    def weighted(self, kl_weight: float) -> Tensor:
        """The bound with the divergence multiplied by a weight."""
        return self.log_likelihood - kl_weight * (self.kl_start + self.kl_path)

    @property
    def value(self) -> Tensor:
        """The bound."""
        return self.weighted(1.0)


class LatentSDE(nn.Module):
    """A latent SDE with its variational posterior.

        prior:      z_0 ~ N(m, s^2),           dz = f(z) dt + g(z) dW
        posterior:  z_0 ~ N(m(c_0), s(c_0)^2), dz = (f(z) + g(z) u(z, c_t)) dt + g(z) dW
        seen:       x_i ~ likelihood(z(t_i))

    Both share the diagonal diffusion g, so by Girsanov's theorem the divergence of their paths is the expectation of
    `integral |u|^2 / 2 dt`, which is carried along as one more component of the state. The control u is the paper's
    difference of drifts over the diffusion, as one network. The context c_t sums up all observations after t: a GRU
    reads them backwards. All paths and gradients come from `qsde.solve.sdeint`.

    The prior does not depend on time, so that it can go on after the last observation. A module of one's own may take
    the place of `prior` or `diffusion` ([P, k] -> [P, k]).

    Args:
        observed: number of channels, all of them levels, or the kind of each: "level" or "return"
            (see `qsde.latent.Likelihood`).
        latent: components of the latent state.
        context: numbers that sum up the future.
        hidden: width of all networks.
        solver: step size and the like; a number is the largest step.
        seed: of the first weights.

    Raises:
        InputError: a size below 1, or an unknown kind of channel.

    Reference:
        Li, Wong, Chen, Duvenaud (2020), "Scalable Gradients for Stochastic Differential Equations", section 5,
        equations (9) to (11).

    Example:
        >>> from qsde.noise import Threefry
        >>> model = LatentSDE(observed=2, latent=3, context=4, hidden=8, solver=0.1)
        >>> series = Series(torch.tensor([0.0, 0.1, 0.4]), torch.zeros(5, 3, 2))
        >>> model.bound(series, Threefry(1), paths=2).value.shape
        torch.Size([5])
    """

    def __init__(
        self,
        observed: int | Sequence[Channel],
        latent: int,
        context: int = 16,
        hidden: int = 32,
        *,
        solver: Solver | float,
        seed: int = 0,
    ) -> None:
        super().__init__()
        levels: tuple[Channel, ...] = ("level",)
        channels = levels * observed if isinstance(observed, int) else tuple(observed)
        self.sizes = Sizes(channels, latent, context, hidden)
        self.solver = solver if isinstance(solver, Solver) else Solver(solver)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(len(channels), context, hidden)
            self.start = nn.Linear(context, 2 * latent)
            self.prior_start = nn.Parameter(torch.zeros(2, latent))
            self.prior: nn.Module = Drift(latent, hidden)
            self.control = Control(latent, context, hidden)
            self.diffusion: nn.Module = Diffusion(latent, min(hidden, 16))
            self.likelihood = Likelihood(channels, latent)

    def standardise(self, series: Series) -> None:
        """Measures each channel in its mean and standard deviation over these series, the training data."""
        self._check(series)
        self.likelihood.standardise(series.values, series.seen)

    def posterior(self, series: Series, noise: Noise, paths: int = 1) -> Posterior:
        """Paths of the latent state given the series.

        Args:
            series: B series.
            noise: random numbers, a value: same noise, same digits.
            paths: paths S of each series.
        """
        self._check(series)
        times, (values, mask) = series.times, self._data(series)
        contexts = self.encoder(times.to(values), self.likelihood.standard(values), mask)
        mean, log_spread = self.start(contexts[:, 0]).chunk(2, -1)
        k, b = mean.shape[1], len(series)
        shock = normals(other(noise, _START), paths * b, k, mean)
        z = mean.repeat(paths, 1) + torch.exp(log_spread).repeat(paths, 1) * shock
        per_path = {"contexts": contexts.repeat(paths, 1, 1)}
        solved = self._solve(self._posterior_drift, self._posterior_diffusion, padded(z), times, noise, per_path)
        states = solved.view(len(times), paths, b, k + 1)
        return Posterior(states[..., :k], self._kl_start(mean, log_spread), states[-1, ..., k])

    def bound(self, series: Series, noise: Noise, paths: int = 1) -> Bound:
        """The evidence lower bound of each series, from this many paths."""
        found = self.posterior(series, noise, paths)
        values, mask = (x.movedim(1, 0).unsqueeze(1) for x in self._data(series))
        log_density = self.likelihood.log_prob(values, mask, found.states).sum(0).mean(0)
        return Bound(log_density, found.kl_start, found.kl_path.mean(0))

    def prior_paths(self, times: Tensor, noise: Noise, paths: int) -> Tensor:
        """Latent states of the prior at the times, the first of them its start: [N, P, k]."""
        mean, log_spread = self.prior_start
        shock = normals(other(noise, _PRIOR_START), paths, len(mean), mean)
        return self.prior_from(mean + torch.exp(log_spread) * shock, times, noise)

    def prior_from(self, z: Tensor, times: Tensor, noise: Noise) -> Tensor:
        """Latent states of the prior at the times from states [P, k] at the first of them: [N, P, k]."""
        return self._solve(self._prior_drift, self._prior_diffusion, z, times, other(noise, _AHEAD), {})

    def observe(self, z: Tensor, noise: Noise) -> Tensor:
        """Observations [N, P, d] drawn given states [N, P, k]."""
        n, paths, d = len(z), torch.arange(z.shape[1]), len(self.sizes.channels)
        block = other(noise, _SEEN).block(paths, n, d, d, z.dtype, z.device)
        draws = [[x.movedim(0, -1) for x in block.draw(i)] for i in range(n)]
        return self.likelihood.sample(z, *(torch.stack(x) for x in zip(*draws, strict=True)))

    def _solve(
        self, drift: Any, diffusion: Any, y: Tensor, times: Tensor, noise: Noise, per_path: Mapping[str, Tensor]
    ) -> Tensor:
        parts = {"prior": self.prior, "control": self.control, "diffusion": self.diffusion}
        weights = {f"{part}.{n}": w for part, module in parts.items() for n, w in module.named_parameters()}
        gap = min(self.solver.max_dt, float(times.diff().min()))
        clock = {"times": times, "passed": times - _EARLY * gap}
        sde = SDE(drift, diffusion, parameters={**weights, **clock})
        s = self.solver
        return sdeint(
            sde, y, times, max_dt=s.max_dt, noise=noise, per_path=per_path, gradient=s.gradient, compile=s.compile
        )  # fmt: skip

    def _posterior_drift(self, t: Tensor, y: Tensor, p: Params) -> Tensor:
        z, (context, ahead) = y[:, :-1], coming(t, p)
        u = called(self.control, "control", p, z, context, ahead)
        drift = called(self.prior, "prior", p, z) + called(self.diffusion, "diffusion", p, z) * u
        return torch.cat([drift, 0.5 * (u * u).sum(-1, keepdim=True)], -1)

    def _posterior_diffusion(self, t: Tensor, y: Tensor, p: Params) -> Tensor:
        return padded(called(self.diffusion, "diffusion", p, y[:, :-1]))

    def _prior_drift(self, t: Tensor, z: Tensor, p: Params) -> Tensor:
        return called(self.prior, "prior", p, z)

    def _prior_diffusion(self, t: Tensor, z: Tensor, p: Params) -> Tensor:
        return called(self.diffusion, "diffusion", p, z)

    def _kl_start(self, mean: Tensor, log_spread: Tensor) -> Tensor:
        prior_mean, prior_log_spread = self.prior_start
        log_ratio = 2 * (log_spread - prior_log_spread)
        gap = (mean - prior_mean) * torch.exp(-prior_log_spread)
        kl: Tensor = 0.5 * (torch.exp(log_ratio) + gap * gap - 1 - log_ratio).sum(-1)
        return kl

    def _data(self, series: Series) -> tuple[Tensor, Tensor]:
        """Values and mask [B, N, d] where the weights are."""
        return series.values.to(self.prior_start), series.seen.to(self.prior_start.device)

    def _check(self, series: Series) -> None:
        if not isinstance(series, Series):
            raise InputError(f"a latent SDE takes a qsde.latent.Series, got {type(series).__name__}")
        if series.channels != len(self.sizes.channels):
            raise InputError(
                f"the model observes {len(self.sizes.channels)} channels, the series has {series.channels}"
            )


def called(module: nn.Module, name: str, p: Params, *args: Tensor) -> Tensor:
    """The module with the weights that a step is given under its name."""
    own = next(module.named_parameters(), None)
    if own is None or p[f"{name}.{own[0]}"] is own[1]:
        plain: Tensor = module(*args)  # gradient="direct" steps with the weights themselves; this is twice as fast
        return plain
    start = f"{name}."
    weights = {key.removeprefix(start): w for key, w in p.items() if key.startswith(start)}
    out: Tensor = torch.func.functional_call(module, weights, args, tie_weights=False)
    return out


def coming(t: Tensor, p: Params) -> tuple[Tensor, Tensor]:
    """Context [P, c] of the observations after t, and the time to the next of them."""
    contexts, times = p["contexts"], p["times"]
    following = (p["passed"].detach() <= t.detach()).sum().clamp(max=len(times) - 1).view(1)
    return contexts.index_select(1, following).squeeze(1), times.detach().index_select(0, following) - t.detach()


def padded(x: Tensor) -> Tensor:
    """A column of zeros more."""
    return torch.cat([x, torch.zeros_like(x[:, :1])], -1)


def normals(noise: Noise, paths: int, n: int, like: Tensor) -> Tensor:
    """Standard normals [paths, n], apart from those of the steps, in the dtype and on the device of a tensor."""
    block = noise.block(torch.arange(paths), 1, n, 0, like.dtype, like.device)
    return block.draw(0)[0].movedim(0, -1).contiguous()
