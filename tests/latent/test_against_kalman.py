"""A latent SDE whose answers are known: an Ornstein-Uhlenbeck process seen with noise, against the Kalman filter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from qsde.latent import LatentSDE, Series, Settings, Solver, fit, forecast, reconstruct
from qsde.noise import Threefry

SPEED, SIZE, SEEN = 1.5, 0.8, 0.3
#: Irregular, of which some are near each other.
TIMES = torch.tensor([0.0, 0.1, 0.35, 0.4, 0.8, 1.0], dtype=torch.float64)
STEP = 0.05


class Pull(nn.Module):
    """Drift `-speed z`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("speed", torch.tensor(SPEED))

    def forward(self, z: Tensor) -> Tensor:
        return -self.speed * z


class Constant(nn.Module):
    """Diffusion that is the same everywhere."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.full_like(z, SIZE)


def ou_model(hidden: int = 32, seed: int = 0) -> LatentSDE:
    """A model whose prior, diffusion and likelihood are those of the process, with a posterior to be learned."""
    model = LatentSDE(1, latent=1, context=8, hidden=hidden, solver=Solver(STEP, gradient="direct"), seed=seed)
    model.prior, model.diffusion = Pull(), Constant()
    with torch.no_grad():
        model.likelihood.decode.weight.fill_(1.0)
        model.likelihood.decode.bias.zero_()
        model.likelihood.extra.fill_(math.log(math.expm1(SEEN - 1e-3)))
        model.prior_start[1].fill_(math.log(SIZE / math.sqrt(2 * SPEED)))
    for weight in (*model.likelihood.parameters(), model.prior_start):
        weight.requires_grad_(False)
    return model


def ou_series(n: int, seed: int, missing: bool = False) -> Series:
    """Exact draws of the process and of what is seen of it."""
    draws = Threefry(seed).block(torch.arange(n), 2 * len(TIMES), 1, 0, torch.float64, "cpu")
    shocks = torch.stack([draws.draw(i)[0][0] for i in range(2 * len(TIMES))])
    z = [SIZE / math.sqrt(2 * SPEED) * shocks[0]]
    for i, gap in enumerate(TIMES.diff().tolist()):
        keep = math.exp(-SPEED * gap)
        z.append(keep * z[-1] + SIZE * math.sqrt((1 - keep**2) / (2 * SPEED)) * shocks[i + 1])
    values = torch.stack(z) + SEEN * shocks[len(TIMES) :]
    mask = torch.ones(n, len(TIMES), dtype=torch.bool)
    if missing:
        mask[::2, 2] = mask[::3, 4] = False
    return Series(TIMES, values.T.unsqueeze(-1).float(), mask)


def kalman(series: Series, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Log density of each series [B], and mean and variance of the last state given all of it.

    Of the process if `exact`, else of its Euler steps of size `STEP`.
    """
    values, seen = series.values[..., 0].double(), series.seen[..., 0]
    mean, variance = torch.zeros(len(series)).double(), torch.full((len(series),), SIZE**2 / (2 * SPEED)).double()
    total = torch.zeros_like(mean)
    for i in range(len(TIMES)):
        if i:
            gap = float(TIMES[i] - TIMES[i - 1])
            n = math.ceil(gap / STEP - 1e-9)
            for _ in range(1 if exact else n):
                keep = math.exp(-SPEED * gap) if exact else 1 - SPEED * gap / n
                added = (1 - keep**2) / (2 * SPEED) if exact else gap / n
                mean, variance = keep * mean, keep**2 * variance + SIZE**2 * added
        spread = variance + SEEN**2
        error = values[:, i] - mean
        density = -0.5 * (math.log(2 * math.pi) + torch.log(spread) + error**2 / spread)
        gain = variance / spread
        total = total + torch.where(seen[:, i], density, 0.0)
        mean = torch.where(seen[:, i], mean + gain * error, mean)
        variance = torch.where(seen[:, i], (1 - gain) * variance, variance)
    return total, mean, variance


class Messages(nn.Module):
    """In place of the encoder: precision and weighted value of what all later observations say of the state, exactly.

    `log p(x_i, ..., x_N | z(t_i)) = -l_i z^2 / 2 + h_i z + const`, by the backward information filter.
    """

    def forward(self, times: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        out: list[Tensor] = []
        for i in range(len(times) - 1, -1, -1):
            here = torch.cat([mask[:, i].to(values), values[:, i] * mask[:, i]], -1) / SEEN**2
            out.insert(0, here + transported(out[0], times[i + 1] - times[i]) if out else here)
        return torch.stack(out, 1)


class Starts(nn.Module):
    """Law of the first state given its message: mean and log standard deviation."""

    def forward(self, message: Tensor) -> Tensor:
        precision = message[:, :1] + 2 * SPEED / SIZE**2
        return torch.cat([message[:, 1:] / precision, -0.5 * torch.log(precision)], -1)


class Exact(nn.Module):
    """The control of the exact posterior, `g d/dz log p(what comes | z)`."""

    def forward(self, z: Tensor, message: Tensor, ahead: Tensor) -> Tensor:
        precision, weighted = transported(message, ahead).chunk(2, -1)
        return SIZE * (weighted - precision * z)


def transported(message: Tensor, gap: Tensor) -> Tensor:
    """A message about the state a time later, as one about the state now."""
    keep = torch.exp(-SPEED * gap)
    precision, weighted = message.chunk(2, -1)
    shrink = 1 + precision * SIZE**2 * (1 - keep**2) / (2 * SPEED)
    return torch.cat([keep**2 * precision, keep * weighted], -1) / shrink


def with_exact_posterior(step: float) -> LatentSDE:
    """The model with the posterior of the process in continuous time."""
    model = ou_model().double()
    model.encoder, model.start, model.control = Messages(), Starts(), Exact()
    model.solver = Solver(step)
    return model


def gap(model: LatentSDE, series: Series, exact: bool) -> tuple[float, float]:
    """Log density minus bound, mean over the series and its standard error."""
    with torch.no_grad():
        bound = model.bound(series, Threefry(9), paths=4).value.double()
    lost = kalman(series, exact)[0] - bound
    return float(lost.mean()), float(lost.std()) / math.sqrt(len(series))


def test_bound_of_the_exact_posterior_tends_to_the_log_likelihood() -> None:
    series = ou_series(4096, seed=2, missing=True)
    coarse, _ = gap(with_exact_posterior(0.05), series, exact=True)
    fine, error = gap(with_exact_posterior(0.0125), series, exact=True)
    # what is lost is of first order in the step: 0.24 at 0.05
    assert 0.12 < coarse < 0.35
    assert -3 * error < fine < coarse / 4 + 3 * error


def test_learned_bound_is_below_the_log_likelihood_and_close() -> None:
    held_out = ou_series(1024, seed=2, missing=True)
    model = ou_model()
    before, _ = gap(model, held_out, exact=False)
    settings = Settings(iterations=200, batch=256, kl_ramp=0, rate=2e-2, last_rate=0.02, check_every=100)
    fit(model, ou_series(512, seed=1, missing=True), settings=settings)
    after, error = gap(model, held_out, exact=False)
    assert before > 10
    assert -3 * error < after < 0.7


def test_bound_never_exceeds_the_log_likelihood_of_its_own_steps() -> None:
    # not even where the posterior is a wild one
    series = ou_series(1024, seed=3)
    for seed in range(3):
        model = ou_model(seed=seed)
        with torch.no_grad():
            model.control.out.weight.normal_(generator=torch.Generator().manual_seed(seed))
        lost, error = gap(model, series, exact=False)
        assert lost > 3 * error


@pytest.mark.parametrize("missing", [False, True])
def test_forecasts_are_those_of_the_filter(missing: bool) -> None:
    history = ou_series(64, seed=4, missing=missing)
    _, mean, variance = kalman(history, exact=True)
    ahead = torch.tensor([0.3, 1.0], dtype=torch.float64)
    found = forecast(with_exact_posterior(0.0125), history, 1.0 + ahead, paths=4000, noise=Threefry(1)).paths[..., 0]
    keep = torch.exp(-SPEED * ahead)
    spread = keep**2 * variance.unsqueeze(-1) + SIZE**2 * (1 - keep**2) / (2 * SPEED) + SEEN**2
    off = (found.mean(0) - keep * mean.unsqueeze(-1)) / torch.sqrt(spread / 4000)
    # Euler's bias at this step is below a standard error
    assert float(off.abs().max()) < 5
    assert float(off.square().mean()) < 1.6
    assert torch.allclose(found.var(0), spread, rtol=0.12)


def test_reconstruction_ends_where_the_filter_ends() -> None:
    series = ou_series(64, seed=5)
    _, mean, variance = kalman(series, exact=True)
    found = reconstruct(with_exact_posterior(0.0125), series, paths=2000, noise=Threefry(1)).paths[:, :, -1, 0]
    off = (found.mean(0) - mean) / torch.sqrt(variance / 2000)
    assert float(off.square().mean()) < 2.5
    assert torch.allclose(found.var(0), variance, rtol=0.2)
