"""The bound: its gradient, its zero, its digits; and what models refuse."""

from dataclasses import replace

import pytest
import torch

from qsde.errors import InputError
from qsde.latent import LatentSDE, Series, Solver, forecast, reconstruct, sample, stochastic_lorenz
from qsde.noise import Threefry

TIMES = torch.tensor([0.0, 0.13, 0.2, 0.55])


def some_series(n: int = 6, seed: int = 0) -> Series:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, 4, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(n, 4, 2, generator=generator) > 0.2
    mask[:, 0] = True
    return Series(TIMES, values, mask)


def some_model(gradient: str = "checkpoint", seed: int = 0) -> LatentSDE:
    solver = Solver(0.05, gradient=gradient)  # type: ignore[arg-type]
    model = LatentSDE(("return", "level"), latent=2, context=3, hidden=5, solver=solver, seed=seed).double()
    with torch.no_grad():
        model.control.out.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def gradient_of(model: LatentSDE, series: Series) -> list[torch.Tensor]:
    value = model.bound(series, Threefry(3), paths=2).value.sum()
    return list(torch.autograd.grad(value, list(model.parameters())))


def test_gradient_of_the_bound_against_a_bump() -> None:
    model, series = some_model(), some_series()
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in model.parameters()]
    along = sum(float((g * d).sum()) for g, d in zip(gradient_of(model, series), directions, strict=True))

    def moved(size: float) -> float:
        with torch.no_grad():
            for w, d in zip(model.parameters(), directions, strict=True):
                w += size * d
            value = float(model.bound(series, Threefry(3), paths=2).value.sum())
            for w, d in zip(model.parameters(), directions, strict=True):
                w -= size * d
        return value

    bump = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert along == pytest.approx(bump, rel=1e-6)


def test_every_weight_has_a_gradient() -> None:
    model = some_model()
    for (name, _), g in zip(model.named_parameters(), gradient_of(model, some_series()), strict=True):
        assert bool(g.isfinite().all()), name
        assert float(g.abs().max()) > 0, name


def test_gradient_strategies_agree() -> None:
    replayed, direct = (gradient_of(some_model(kind), some_series()) for kind in ("checkpoint", "direct"))
    for a, b in zip(replayed, direct, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_the_stochastic_adjoint_of_the_paper_tends_to_the_exact_gradient() -> None:
    def off(step: float) -> float:
        exact, adjoint = (some_model(kind) for kind in ("direct", "stochastic_adjoint"))
        for model in (exact, adjoint):
            model.solver = replace(model.solver, max_dt=step)
        a, b = (torch.cat([g.flatten() for g in gradient_of(m, some_series())]) for m in (exact, adjoint))
        return float((a - b).norm() / a.norm())

    coarse, fine = off(0.05), off(0.0125)
    # of strong order 1/2: a quarter of the step, half of the error
    assert coarse < 5e-3
    assert fine < 0.75 * coarse


def test_no_divergence_where_the_posterior_is_the_prior() -> None:
    model = some_model()
    with torch.no_grad():
        model.control.out.weight.zero_()
        model.start.weight.zero_()
        model.start.bias.copy_(model.prior_start.flatten())
    bound = model.bound(some_series(), Threefry(1))
    assert bound.kl_path.tolist() == [0.0] * 6
    assert bound.kl_start.tolist() == [0.0] * 6
    # and then posterior paths are prior paths: the same law, seen through means and spreads
    posterior = model.posterior(some_series(), Threefry(1), paths=1000).states.flatten(1, 2)
    prior = model.prior_paths(TIMES, Threefry(2), 6000)
    error = posterior.std(1) * (2 / 6000) ** 0.5
    assert bool(((posterior.mean(1) - prior.mean(1)).abs() < 4.5 * error).all())
    assert torch.allclose(posterior.std(1), prior.std(1), rtol=0.06)


def test_divergence_of_the_start_is_that_of_normals() -> None:
    model, series = some_model(), some_series()
    contexts = model.encoder(series.times, model.likelihood.standard(series.values), series.seen)
    mean, log_spread = model.start(contexts[:, 0]).chunk(2, -1)
    q = torch.distributions.Normal(mean, log_spread.exp())
    p = torch.distributions.Normal(model.prior_start[0], model.prior_start[1].exp())
    exact = torch.distributions.kl_divergence(q, p).sum(-1)
    assert torch.allclose(model.bound(series, Threefry(1)).kl_start, exact)


def test_same_noise_same_digits() -> None:
    series = some_series()
    once, again = (some_model().bound(series, Threefry(5), 3).value for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, some_model().bound(series, Threefry(6), 3).value)
    assert not torch.equal(once, some_model(seed=1).bound(series, Threefry(5), 3).value)


def test_making_a_model_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    some_model()
    assert torch.equal(before, torch.random.get_rng_state())


def test_values_that_were_not_seen_do_not_matter() -> None:
    series = some_series()
    other = Series(TIMES, torch.where(series.seen, series.values, 1e3), series.seen)
    assert torch.equal(some_model().bound(series, Threefry(1)).value, some_model().bound(other, Threefry(1)).value)


def test_standardising_takes_the_unit_of_the_data() -> None:
    # in other units the bound moves by the log of the unit for each value that was seen
    series = some_series()
    small, large = some_model(), some_model()
    scaled = Series(TIMES, series.values * 100, series.seen)
    small.standardise(series)
    large.standardise(scaled)
    moved = small.bound(series, Threefry(1)).value - large.bound(scaled, Threefry(1)).value
    assert torch.allclose(moved, series.seen.sum((1, 2)) * torch.log(torch.tensor(100.0, dtype=torch.float64)))


def test_a_channel_that_was_never_seen_is_named() -> None:
    series = some_series()
    seen = series.seen.clone()
    seen[..., 1] = False
    with pytest.raises(InputError, match="channel 1 has no value that was seen"):
        some_model().standardise(Series(TIMES, series.values, seen))


def test_laws_of_the_channels_are_densities_and_are_what_is_sampled() -> None:
    law = some_model().likelihood
    with torch.no_grad():
        law.shift[1], law.scale[:] = 2.0, torch.tensor([0.01, 3.0])
        law.tail.copy_(torch.tensor([[0.5, 0.0], [1.0, 0.0]]))
    state = torch.tensor([0.3, -0.7], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    uniforms = torch.rand(200_000, 2, generator=generator, dtype=torch.float64)
    drawn = law.sample(state, normals, uniforms).detach()
    for channel in range(2):
        only = torch.arange(2) == channel
        centre, spread = drawn[:, channel].mean(), drawn[:, channel].std()
        grid = (centre + spread * torch.linspace(-12, 12, 4001, dtype=torch.float64)).unsqueeze(-1)
        density = torch.exp(law.log_prob(grid.expand(-1, 2), only.expand(4001, 2), state)).detach()
        assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1.0, abs=1e-6)
        cdf = torch.cumulative_trapezoid(density, grid[:, 0])
        at = torch.searchsorted(grid[1:, 0].contiguous(), drawn[:, channel].sort().values).clamp(max=3999)
        apart = (cdf[at] - torch.linspace(0, 1, 200_000, dtype=torch.float64)).abs().max()
        assert float(apart) < 0.006  # Kolmogorov-Smirnov at 0.1 %: 0.0044, plus the grid
        fourth = ((drawn[:, channel] - centre) / spread).pow(4).mean()
        assert (float(fourth) > 3.5) == (channel == 0)


def test_forecasts_have_the_asked_shape_and_the_same_digits_for_fewer_times() -> None:
    model, series = some_model(), some_series()
    ahead = forecast(model, series, [0.6, 0.9, 2.0], paths=50)
    assert ahead.paths.shape == (50, 6, 3, 2)
    assert ahead.mean.shape == (6, 3, 2)
    low, high = ahead.quantile([0.1, 0.9])
    assert bool((low < high).all())
    # what is forecast for a time does not depend on which later times are asked for
    assert torch.equal(ahead.paths[:, :, :1], forecast(model, series, [0.6], paths=50).paths)
    assert sample(model, torch.tensor([0.0, 0.5]), paths=20).paths.shape == (20, 1, 2, 2)
    assert reconstruct(model, series, paths=20).paths.shape == (20, 6, 4, 2)


@pytest.mark.parametrize("times", [[0.5], [0.9, 0.8], [], [0.55], [float("nan")]])
def test_forecast_refuses_times_that_are_not_ahead(times: list[float]) -> None:
    with pytest.raises(InputError, match=r"later than 0\.55"):
        forecast(some_model(), some_series(), times, paths=8)


def test_models_refuse() -> None:
    with pytest.raises(InputError, match="latent must be at least 1"):
        LatentSDE(2, latent=0, solver=0.1)
    with pytest.raises(InputError, match="'level' or 'return', got 'volume'"):
        LatentSDE(("level", "volume"), latent=1, solver=0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 channels, the series has 1"):
        some_model().bound(Series(TIMES, torch.zeros(4, 1)), Threefry(0))
    with pytest.raises(InputError, match=r"qsde\.latent\.Series"):
        some_model().bound(torch.zeros(4, 2), Threefry(0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="channel 1 is constant"):
        some_model().standardise(Series(TIMES, torch.stack([TIMES, torch.ones(4)], -1)))
    with pytest.raises(InputError, match="paths must be 1 or more"):
        forecast(some_model(), some_series(), [1.0], paths=0)


def test_lorenz_series_are_standardised_and_reproducible() -> None:
    times = torch.linspace(0.0, 1.0, 21)
    series = stochastic_lorenz(256, times, Threefry(1))
    assert torch.equal(series.values, stochastic_lorenz(256, times, Threefry(1)).values)
    assert torch.allclose(series.values.mean((0, 1)), torch.zeros(3, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(series.values.std((0, 1)), torch.ones(3, dtype=torch.float64), atol=1e-2)
