"""sdeint: exact gradients against an explicit loop, blocks, times, transforms, refusals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import qsde
from qsde.errors import InputError, NumericsError
from qsde.models import SDE, Heston
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.schemes import EulerMaruyama, HestonQE, ItoMilstein, Scheme
from qsde.solve import sdeint

D = torch.float64
NOISE = Threefry(5)
TIMES = [1.5, 1.75, 2.5]
MAX_DT = 0.125


class Drift(nn.Module):
    """A small network of time and state."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 5, dtype=D), nn.Linear(5, 2, dtype=D)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(torch.cat([y, t.expand(len(y), 1)], -1))))


def ou_drift(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["speed"] * (torch.sin(t) - y)


def diagonal(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["vol"] * torch.sqrt(1 + y * y) * (1 + 0.1 * t)


def scalar(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["vol"] * y


def general(t: Tensor, y: Tensor, p: dict[str, Tensor]) -> Tensor:
    a, b = y.unbind(-1)
    first = torch.stack([p["vol"][0] * a, p["vol"][1] * b, 0.1 * t + 0 * a], -1)
    return torch.stack([first, first.flip(-1) * 0.5], 1)


DIFFUSIONS = {"diagonal": diagonal, "scalar": scalar, "general": general}


def equation(noise: str, speed: Tensor, vol: Tensor) -> SDE:
    return SDE(ou_drift, DIFFUSIONS[noise], [0.0, 0.0], {"speed": speed, "vol": vol}, noise=noise)  # type: ignore[arg-type]


def by_hand(
    drift: Callable[[Tensor, Tensor], Tensor],
    diffusion: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    factors: int,
    derivative: Callable[[Tensor, Tensor], Tensor] | None = None,
    times: list[float] = TIMES,
    max_dt: float = MAX_DT,
) -> Tensor:
    """A plain loop: Euler, or Milstein if given the derivative of a diagonal diffusion; autograd does the rest."""
    sizes = [max_dt] * round((times[-1] - times[0]) / max_dt)
    block = NOISE.block(torch.arange(len(y)), len(sizes), factors, 0, D, "cpu")
    out, now = [y], times[0]
    for k, dt in enumerate(sizes):
        t = torch.tensor(now, dtype=D)
        dw = dt**0.5 * block.draw(k)[0].T
        g = diffusion(t, y)
        shock = torch.einsum("pdm,pm->pd", g, dw) if g.dim() == 3 else g * dw
        if derivative is not None:
            shock = shock + 0.5 * g * derivative(t, y) * (dw * dw - dt)
        y = y + drift(t, y) * dt + shock
        now += dt
        if any(abs(now - seen) < 1e-9 for seen in times):
            out.append(y)
    return torch.stack(out)


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    y0 = torch.randn(37, 2, generator=g, dtype=D)
    return (
        y0.requires_grad_(),
        torch.tensor(0.7, dtype=D, requires_grad=True),
        torch.tensor([0.3, 0.2], dtype=D, requires_grad=True),
    )


def weights(shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=D)


@pytest.mark.parametrize(("noise", "factors"), [("diagonal", 2), ("scalar", 1), ("general", 3)])
def test_values_and_gradients_are_those_of_a_plain_loop(noise: str, factors: int) -> None:
    y0, speed, vol = leaves()
    p = {"speed": speed, "vol": vol}
    got = sdeint(equation(noise, speed, vol), y0, TIMES, max_dt=MAX_DT, noise=NOISE)
    diffusion = DIFFUSIONS[noise]
    wanted = by_hand(lambda t, y: ou_drift(t, y, p), lambda t, y: diffusion(t, y, p), y0, factors)
    assert got.shape == (3, 37, 2)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    w = weights(got.shape)
    ours, theirs = (torch.autograd.grad((y * w).sum(), [y0, speed, vol]) for y in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_milstein_is_that_of_a_plain_loop() -> None:
    y0, speed, vol = leaves()
    p = {"speed": speed, "vol": vol}
    got = sdeint(equation("diagonal", speed, vol), y0, TIMES, max_dt=MAX_DT, noise=NOISE, scheme=ItoMilstein())
    wanted = by_hand(
        lambda t, y: ou_drift(t, y, p), lambda t, y: diagonal(t, y, p), y0, 2,
        lambda t, y: vol * y / torch.sqrt(1 + y * y) * (1 + 0.1 * t),
    )  # fmt: skip
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    w = weights(got.shape)
    ours, theirs = (torch.autograd.grad((y * w).sum(), [y0, speed, vol]) for y in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_weights_of_modules_get_the_gradients_of_a_plain_loop() -> None:
    torch.manual_seed(3)
    drift = Drift()
    y0, _, vol = leaves()
    p = {"vol": vol}
    sde = SDE(drift, diagonal, [0.0, 0.0], {"vol": vol})
    got = sdeint(sde, y0, TIMES, max_dt=MAX_DT, noise=NOISE)
    wanted = by_hand(drift, lambda t, y: diagonal(t, y, p), y0, 2)
    w, inputs = weights(got.shape), [y0, vol, *drift.parameters()]
    ours, theirs = (torch.autograd.grad((y * w).sum(), inputs) for y in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert all(bool((g != 0).any()) for g in ours)


def test_a_long_gradient_recomputes_states() -> None:
    """350 steps store every fourth state; a plain loop stores all."""
    y0, speed, vol = leaves()
    p = {"speed": speed, "vol": vol}
    times, dt = [0.0, 350 / 512], 1 / 512
    got = sdeint(equation("diagonal", speed, vol), y0, times, max_dt=dt, noise=NOISE)
    wanted = by_hand(lambda t, y: ou_drift(t, y, p), lambda t, y: diagonal(t, y, p), y0, 2, None, times, dt)
    ours, theirs = (torch.autograd.grad(y[-1].square().sum(), [y0, speed, vol]) for y in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scheme", [EulerMaruyama(), ItoMilstein()], ids=repr)
def test_gradient_is_a_difference_of_values(scheme: Scheme) -> None:
    y0, speed, vol = leaves()

    def value(y: Tensor, s: Tensor, v: Tensor) -> Tensor:
        return (
            sdeint(equation("diagonal", s, v), y, TIMES, max_dt=MAX_DT, noise=NOISE, scheme=scheme)[-1].square().sum()
        )

    h = 1e-6
    gradient = torch.autograd.grad(value(y0, speed, vol), [y0, speed, vol])
    start = [x.detach() for x in (y0, speed, vol)]
    for i in range(3):
        up, down = ([x + sign * h * (i == j) for j, x in enumerate(start)] for sign in (1, -1))
        assert float(gradient[i].sum()) == pytest.approx(float(value(*up) - value(*down)) / (2 * h), rel=1e-7)


@pytest.mark.parametrize("noise", ["diagonal", "general"])
def test_transforms_agree_with_autograd(noise: str) -> None:
    y0, speed, vol = leaves()

    def value(y: Tensor, s: Tensor) -> Tensor:
        return sdeint(equation(noise, s, vol.detach()), y, TIMES, max_dt=MAX_DT, noise=NOISE)[-1].square().sum()

    wanted = torch.autograd.grad(value(y0, speed), [y0, speed])
    y, s = y0.detach(), speed.detach()
    torch.testing.assert_close(torch.func.grad(value, (0, 1))(y, s), wanted, rtol=1e-12, atol=1e-12)
    flow = weights(y.shape)
    pushed = torch.func.jvp(value, (y, s), (flow, torch.ones_like(s)))[1]
    torch.testing.assert_close(pushed, (wanted[0] * flow).sum() + wanted[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.func.jacfwd(value, 1)(y, s), wanted[1], rtol=1e-12, atol=1e-12)
    starts, speeds = torch.stack([y, y + 1]), torch.stack([s, 2 * s])
    for f in (value, torch.func.grad(value, (0, 1))):
        got = torch.func.vmap(f)(starts, speeds)
        alone = [f(a, b) for a, b in zip(starts, speeds, strict=True)]
        for ours, theirs in zip(_listed(got), zip(*map(_listed, alone), strict=True), strict=True):
            torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scheme", [EulerMaruyama(), ItoMilstein()], ids=repr)
@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
def test_vmap_over_starts_alone(noise: str, scheme: Scheme) -> None:
    """The functions still see states [P, d]."""
    if noise == "general" and isinstance(scheme, ItoMilstein):
        pytest.skip("ItoMilstein refuses general noise")
    y0, speed, vol = (x.detach() for x in leaves())
    starts = torch.stack([y0, y0 + 1, 2 * y0])

    def solve(y: Tensor) -> Tensor:
        return sdeint(equation(noise, speed, vol), y, TIMES, max_dt=MAX_DT, noise=NOISE, scheme=scheme)

    torch.testing.assert_close(torch.func.vmap(solve)(starts), torch.stack([solve(y) for y in starts]))


def _listed(x: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [x] if isinstance(x, Tensor) else list(x)


@pytest.mark.parametrize("noise", [Threefry(1), Antithetic(Threefry(1)), Sobol(seed=1)], ids=lambda n: type(n).__name__)
def test_blocks_do_not_change_a_digit(noise: Noise) -> None:
    """3,000 paths in three blocks, the last of them padded, and in one."""
    _, speed, vol = (x.detach() for x in leaves())
    y0 = torch.randn(2999, 2, generator=torch.Generator().manual_seed(4), dtype=D)
    sde = equation("diagonal", speed, vol)
    whole, parts = (sdeint(sde, y0, TIMES, max_dt=MAX_DT, noise=noise, memory_budget=b) for b in (1 << 30, 1))
    assert torch.equal(whole, parts)


def test_a_path_keeps_its_noise_whatever_the_number_of_paths() -> None:
    _, speed, vol = (x.detach() for x in leaves())
    y0 = torch.randn(64, 2, generator=torch.Generator().manual_seed(4), dtype=D)
    sde = equation("diagonal", speed, vol)
    few, many = (sdeint(sde, y, TIMES, max_dt=MAX_DT) for y in (y0[:5], y0))
    assert torch.equal(few, many[:, :5])


def test_gradients_of_blocks_are_those_of_the_whole() -> None:
    _, speed, vol = leaves()
    y0 = torch.randn(2500, 2, generator=torch.Generator().manual_seed(4), dtype=D, requires_grad=True)
    sde = equation("diagonal", speed, vol)
    whole, parts = (
        torch.autograd.grad(
            sdeint(sde, y0, TIMES, max_dt=MAX_DT, memory_budget=b).square().mean(), [y0, speed, vol]
        )
        for b in (1 << 30, 1)
    )  # fmt: skip
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-14)


def test_the_compiled_solution_is_the_eager_one() -> None:
    y0, speed, vol = leaves()
    p = {"speed": speed, "vol": vol[0]}
    sde = SDE(ou_drift, scalar, [0.0], p)
    start = y0[:, :1]
    plain, fast = (sdeint(sde, start, TIMES, max_dt=MAX_DT, compile=c) for c in ("never", "always"))  # type: ignore[arg-type]
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(y[-1].square().sum(), [y0, speed, vol]) for y in (fast, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_float32_is_float64_rounded() -> None:
    y0, speed, vol = leaves()
    sde = equation("diagonal", speed, vol)
    single, double = (sdeint(sde, y, TIMES, max_dt=MAX_DT) for y in (y0.float(), y0))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)
    (ours,), (theirs,) = (torch.autograd.grad(y[-1].square().mean(), [speed]) for y in (single, double))
    assert ours.dtype == D
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_functions_see_the_time_they_are_called_at() -> None:
    """`dy = 2 t dt` from t = 3: Euler's sum of left ends, `y = 16 - 9 - 1/8` with steps of 1/8."""
    sde = SDE(lambda t, y, p: 2 * t + 0 * y, lambda t, y, p: 0 * y, [0.0])
    y = sdeint(sde, torch.zeros(2, 1, dtype=D), torch.tensor([3.0, 4.0]), max_dt=0.125)
    torch.testing.assert_close(y[-1], torch.full((2, 1), 7 - 0.125, dtype=D))


def test_steps_between_uneven_times_fit_them() -> None:
    sde = SDE(lambda t, y, p: 0 * y + 1, lambda t, y, p: 0 * y, [0.0])
    times = [-1.0, -0.95, 0.3, 2.0]
    y = sdeint(sde, torch.zeros(1, 1, dtype=D), times, max_dt=0.4)
    torch.testing.assert_close(y[:, 0, 0], torch.tensor(times, dtype=D) + 1)
    assert all(b > a for a, b in pairwise(y[:, 0, 0].tolist()))


GOOD = SDE(ou_drift, scalar, [0.0, 0.0], {"speed": 0.5, "vol": 0.2})
Y0 = torch.zeros(3, 2, dtype=D)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y0": Y0[0]}, r"y0 must be a tensor \[P, 2\]"),
        ({"y0": Y0[:, :1]}, r"y0 must be a tensor \[P, 2\]"),
        ({"y0": Y0[:0]}, r"y0 must be a tensor \[P, 2\]"),
        ({"y0": [[0.0, 0.0]]}, "got list"),
        ({"y0": Y0.long()}, "float32 or float64"),
        ({"y0": Y0 + torch.nan}, "y0 must be finite"),
        ({"ts": [1.0]}, "two or more finite times"),
        ({"ts": [[0.0, 1.0]]}, "two or more finite times"),
        ({"ts": [0.0, float("inf")]}, "two or more finite times"),
        ({"ts": [0.0, 1.0, 1.0]}, "ts must increase"),
        ({"ts": [1.0, 0.0]}, "ts must increase"),
        ({"max_dt": 0.0}, "max_dt must be positive"),
        ({"per_path": {"level": Y0[:2]}}, r"P = 3"),
        ({"per_path": {"vol": Y0}}, "another name"),
        (
            {
                "sde": SDE(ou_drift, scalar, [0.0, 0.0], {"speed": 0.5, "vol": 0.2}, interpretation="stratonovich"),
                "scheme": EulerMaruyama(),
            },
            r"use Heun\(\)",
        ),
        ({"scheme": HestonQE()}, "EulerMaruyama"),
        ({"compile": "maybe"}, "compile must be"),
        ({"sde": Heston(0.04, 1.5, 0.05, 0.4, -0.7)}, "sdeint solves an SDE, got Heston"),
        ({"sde": SDE(lambda t, y, p: y[:, :1], scalar, [0.0, 0.0], {"vol": 0.2})}, r"drift must return \[P, \*shape\]"),
        (
            {"sde": SDE(ou_drift, ou_drift, [0.0, 0.0], {"speed": 0.5}, noise="general")},
            r"must return \[P, \*shape, m\]",
        ),
        ({"sde": equation("general", Y0[0, 0], Y0[0]), "scheme": ItoMilstein()}, "use EulerMaruyama"),
    ],
)
def test_refusals_name_the_fix(change: dict[str, object], message: str) -> None:
    call = {"sde": GOOD, "y0": Y0, "ts": [0.0, 1.0], "max_dt": 0.5} | change
    with pytest.raises(InputError, match=message):
        sdeint(**call)  # type: ignore[arg-type]


def test_a_closure_over_a_tensor_that_requires_grad_is_refused() -> None:
    hidden = torch.tensor(0.5, dtype=D, requires_grad=True)
    sde = SDE(lambda t, y, p: hidden * y, lambda t, y, p: y, [0.0, 0.0])
    with pytest.raises(InputError, match="not among its parameters"):
        sdeint(sde, Y0, [0.0, 1.0], max_dt=0.5)


def test_an_explosion_is_an_error_that_names_the_time() -> None:
    sde = SDE(lambda t, y, p: y**3, lambda t, y, p: 0 * y, [0.0])
    with pytest.raises(NumericsError, match=r"EulerMaruyama: a path is not finite at step \d+ \(t = 5\.\d+\)"):
        sdeint(sde, torch.full((2, 1), 10.0, dtype=D), [5.0, 9.0], max_dt=0.1)


def test_second_derivatives_are_refused() -> None:
    y0, speed, vol = leaves()
    y = sdeint(equation("diagonal", speed, vol), y0, TIMES, max_dt=MAX_DT)
    (slope,) = torch.autograd.grad(y[-1].square().sum(), speed, create_graph=True)
    with pytest.raises(InputError, match="first order"):
        torch.autograd.grad(slope, speed)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general", "additive"])
def test_states_of_any_shape_are_solved_like_vectors(noise: str, shape: tuple[int, ...]) -> None:
    """The same numbers as the same equation for a flat vector."""
    entries = torch.Size(shape).numel()
    y0 = torch.randn(7, *shape, generator=torch.Generator().manual_seed(6), dtype=D)
    matrix = torch.randn(*shape, 4, generator=torch.Generator().manual_seed(7), dtype=D) / 4
    diffusions = {
        "diagonal": lambda t, y, p: 0.3 * torch.cos(y),
        "scalar": lambda t, y, p: 0.3 * torch.cos(y),
        "general": lambda t, y, p: matrix.view(*y.shape[1:], 4) * torch.cos(y).unsqueeze(-1),
        "additive": lambda t, y, p: matrix.view(*y.shape[1:], 4) * torch.exp(-t) + 0 * y.unsqueeze(-1),
    }
    shaped = SDE(lambda t, y, p: torch.sin(y + t), diffusions[noise], noise=noise)  # type: ignore[arg-type]
    got = sdeint(shaped, y0, TIMES, max_dt=MAX_DT, noise=NOISE)
    assert got.shape == (3, 7, *shape)
    flat = sdeint(shaped, y0.reshape(7, entries), TIMES, max_dt=MAX_DT, noise=NOISE)
    torch.testing.assert_close(got, flat.view_as(got), rtol=1e-13, atol=1e-13)


def test_additive_noise_may_be_shared_by_paths_or_belong_to_each_entry() -> None:
    matrix = torch.tensor([[0.3, 0.1, 0.0], [0.0, 0.2, -0.4]], dtype=D)

    def solve(diffusion: Callable[..., Tensor]) -> Tensor:
        return sdeint(SDE(lambda t, y, p: -y, diffusion, noise="additive"), Y0 + 1, [0.0, 1.0], max_dt=0.25)

    shared, wide = solve(lambda t, y, p: matrix), solve(lambda t, y, p: matrix.expand(len(y), 2, 3))
    assert torch.equal(shared, wide)
    own, square = solve(lambda t, y, p: torch.full_like(y, 0.3)), solve(lambda t, y, p: 0.3 * torch.eye(2, dtype=D))
    torch.testing.assert_close(own, square, rtol=1e-14, atol=1e-14)


class Pull(nn.Module):
    """Drift towards a level of each path."""

    def __init__(self) -> None:
        super().__init__()
        self.speed = nn.Parameter(torch.tensor(0.7, dtype=D))

    def forward(self, t: Tensor, y: Tensor, per_path: dict[str, Tensor]) -> Tensor:
        return self.speed * (per_path["level"] - y)


@pytest.mark.parametrize("budget", [1 << 30, 1])
def test_parameters_of_each_path(budget: int) -> None:
    """The same as a plain loop with the tensors of all paths, in one block and in three, and gradients to them."""
    y0 = torch.randn(2999, 2, generator=torch.Generator().manual_seed(4), dtype=D, requires_grad=True)
    level = torch.randn(2999, 2, generator=torch.Generator().manual_seed(5), dtype=D, requires_grad=True)
    drift = Pull()
    sde = SDE(drift, lambda t, y, p: 0.2 * p["level"])
    got = sdeint(sde, y0, TIMES, max_dt=MAX_DT, noise=NOISE, per_path={"level": level}, memory_budget=budget)
    wanted = by_hand(lambda t, y: drift(t, y, {"level": level}), lambda t, y: 0.2 * level, y0, 2)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    inputs, w = [y0, level, drift.speed], weights(got.shape)
    ours, theirs = (torch.autograd.grad((y * w).sum(), inputs) for y in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("over", ["starts", "levels"])
def test_vmap_with_parameters_of_each_path(over: str) -> None:
    y0, level = Y0 + torch.arange(3, dtype=D).unsqueeze(-1), torch.ones(3, 2, dtype=D)
    sde = SDE(Pull(), lambda t, y, p: 0.2 * p["level"])
    y0s, levels = (torch.stack([x, 2 * x]) for x in (y0, level))

    def solve(y: Tensor, c: Tensor) -> Tensor:
        return sdeint(sde, y, TIMES, max_dt=MAX_DT, noise=NOISE, per_path={"level": c})

    args, dims = ((y0s, level), (0, None)) if over == "starts" else ((y0, levels), (None, 0))
    got = torch.func.vmap(solve, dims)(*args)
    alone = [solve(y0s[i] if over == "starts" else y0, levels[i] if over == "levels" else level) for i in range(2)]
    torch.testing.assert_close(got, torch.stack(alone), rtol=1e-13, atol=1e-13)


def test_gradient_to_the_times_is_a_difference_of_values() -> None:
    """The largest step leaves room, so that a bump keeps their number."""
    ts = torch.tensor(TIMES, dtype=D, requires_grad=True)
    y0, speed, vol = (x.detach() for x in leaves())
    sde = equation("diagonal", speed, vol)

    def value(times: Tensor) -> Tensor:
        return sdeint(sde, y0, times, max_dt=1.04 * MAX_DT, noise=NOISE).square().sum()

    (slope,) = torch.autograd.grad(value(ts), ts)
    bumps = 1e-6 * torch.eye(3, dtype=D)
    differences = [(value(ts.detach() + e) - value(ts.detach() - e)) / 2e-6 for e in bumps]
    torch.testing.assert_close(slope, torch.stack(differences), rtol=1e-7, atol=1e-7)


def test_the_stratonovich_default_solves_geometric_brownian_motion() -> None:
    """`dy = y o dW` is `exp(W)`; Euler would give `exp(W - t / 2)`."""
    sde = SDE(lambda t, y, p: 0 * y, lambda t, y, p: 0.5 * y, interpretation="stratonovich")
    n, y0 = 256, torch.ones(64, 1, dtype=D)
    block = NOISE.block(torch.arange(64), n, 1, 0, D, "cpu")
    w = sum(block.draw(k)[0] for k in range(n))[0] / n**0.5  # type: ignore[index]
    got = sdeint(sde, y0, [0.0, 1.0], max_dt=1 / n, noise=NOISE)[-1, :, 0]
    assert float((got / torch.exp(0.5 * w) - 1).abs().max()) < 0.005


def test_the_package_exports_the_solver() -> None:
    assert qsde.sdeint is sdeint
    assert qsde.SDE is SDE
