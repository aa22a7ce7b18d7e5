"""The Brownian tree: laws of increments and space-time Levy areas, Chen's relation, and one path for every order."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from qsde.errors import InputError
from qsde.noise.brownian_tree import BrownianTree, _part

D = torch.float64
TREE = BrownianTree(seed=11, start=0.5, end=2.5, tolerance=1e-3)
INTERVALS = [(0.5, 2.5), (0.5, 0.500001), (0.7, 1.1), (1.0, 1.5), (1.37, 1.9), (1.2301, 1.2331)]


def joined(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], a: float, b: float) -> tuple[Tensor, Tensor]:
    """Chen's relation: `W` and `H` of an interval from those of its parts of lengths a and b."""
    (w1, h1), (w2, h2), whole = first, second, a + b
    return w1 + w2, (a * h1 + b * h2 + 0.5 * (b * w1 - a * w2)) / whole


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_increment_and_area_are_independent_normals_of_the_right_variance(
    interval: tuple[float, float], dtype: torch.dtype
) -> None:
    s, t = interval
    w, h = (v.flatten().double() for v in TREE.block(torch.arange(20_000), 2, dtype).between(s, t))
    w, h = w / math.sqrt(t - s), h * math.sqrt(12 / (t - s))
    for x in (w, h, (w + h) / math.sqrt(2), (w - h) / math.sqrt(2)):
        assert stats.kstest(x.numpy(), "norm").pvalue > 1e-3
        assert abs(float(x.mean())) < 4 / math.sqrt(len(x))
        assert abs(float(x.var()) - 1) < 4 * math.sqrt(2 / len(x))
    assert abs(float((w * h).mean())) < 4 / math.sqrt(len(w))


def test_disjoint_intervals_motions_and_paths_are_independent() -> None:
    times = [0.5, 0.71, 0.72, 1.3, 1.31, 1.5, 2.2, 2.5]
    points = [TREE.block(torch.arange(40_000), 2).at(t) for t in times]
    columns = []
    for a, b in pairwise(points):
        w, h = a.until(b)
        columns += [w[:, 0], h[:, 0], w[:, 1], h[:, 1]]
    correlation = torch.corrcoef(torch.stack([*columns, columns[0].roll(1)]))
    off = correlation - torch.eye(len(correlation), dtype=D)
    assert float(off.abs().max()) < 4.5 / math.sqrt(40_000)


@pytest.mark.parametrize("x", [0.02, 0.25, 0.5, 0.7, 0.999])
def test_a_part_has_the_conditional_law_given_the_whole_exactly(x: float) -> None:
    # the four unit vectors in place of (W, H, first draw, second draw) give the linear map
    unit = torch.eye(4, dtype=D) * torch.tensor([1.0, 1 / math.sqrt(12), 1.0, 1.0], dtype=D)
    w, h = _part(torch.tensor(x, dtype=D), 1.0, *unit)
    rest = 1 - x
    w_rest = unit[0] - w
    h_rest = (unit[1] - x * h - 0.5 * (rest * w - x * w_rest)) / rest
    rows = torch.stack([w, h, w_rest, h_rest])
    wanted = torch.diag(torch.tensor([x, x / 12, rest, rest / 12], dtype=D))
    torch.testing.assert_close(rows @ rows.T, wanted, rtol=1e-12, atol=1e-13)


def test_midpoint_given_the_interval_has_the_published_mean_and_variance() -> None:
    # W(s, mid) = W/2 + 3H/2 + N(0, h/16); H(s, mid) = H/4 - Z/2 + N(0, h/48)
    block = TREE.block(torch.arange(50_000), 1)
    (w, h), (left, bend) = block.between(0.5, 1.5), block.between(0.5, 1.0)
    z = left - 0.5 * w - 1.5 * h
    rest = bend - 0.25 * h + 0.5 * z
    for x, variance in ((z, 1 / 16), (rest, 1 / 48)):
        assert stats.kstest(x.flatten().numpy() / math.sqrt(variance), "norm").pvalue > 1e-3
        for known in (w, h):
            assert abs(float(torch.corrcoef(torch.cat([x, known], 1).T)[0, 1])) < 4 / math.sqrt(len(x))


@given(st.lists(st.floats(0.5, 2.5), min_size=3, max_size=3, unique=True).map(sorted))
def test_chens_relation_holds_to_rounding(times: list[float]) -> None:
    s, r, t = times
    block = TREE.block(torch.arange(5), 3)
    w, h = joined(block.between(s, r), block.between(r, t), r - s, t - r)
    whole_w, whole_h = block.between(s, t)
    torch.testing.assert_close(w, whole_w, rtol=0, atol=1e-14)
    torch.testing.assert_close(h, whole_h, rtol=0, atol=1e-14 / (t - s) + 1e-13)


def test_values_depend_neither_on_order_nor_on_what_is_asked_together() -> None:
    block = TREE.block(torch.arange(64), 3)
    times = torch.rand(20, dtype=D, generator=torch.Generator().manual_seed(1)) * 2 + 0.5
    forwards = [block.at(t) for t in times]
    backwards = [block.at(t) for t in times.flip(0)][::-1]
    together = block.at(times[:, None].expand(-1, 64))
    common = block.at(times[:, None])
    for k, point in enumerate(forwards):
        assert torch.equal(point.value, backwards[k].value)
        assert torch.equal(point.area, backwards[k].area)
        for several in (together, common):
            torch.testing.assert_close(several.value[k], point.value, rtol=1e-14, atol=1e-15)
            torch.testing.assert_close(several.area[k], point.area, rtol=1e-14, atol=1e-15)


def test_paths_have_times_and_numbers_of_their_own() -> None:
    times = torch.linspace(0.5, 2.5, 40, dtype=D)
    everybody = TREE.block(torch.arange(40), 2).at(times)
    part = TREE.block(torch.arange(25, 40).flip(0), 2).at(times[25:].flip(0))
    torch.testing.assert_close(everybody.value[25:].flip(0), part.value, rtol=1e-14, atol=1e-15)
    alone = TREE.block(torch.tensor([7]), 2).at(float(times[7]))
    torch.testing.assert_close(everybody.area[7:8], alone.area, rtol=1e-14, atol=1e-15)


def test_blocks_that_are_drawn_in_parts_have_the_same_values() -> None:
    large = TREE.block(torch.arange(60_000), 1).at(1.234)
    few = TREE.block(torch.arange(59_990, 60_000), 1).at(1.234)
    torch.testing.assert_close(large.value[-10:], few.value, rtol=1e-14, atol=1e-15)


def test_finer_tolerance_refines_the_same_path() -> None:
    fine = BrownianTree(seed=11, start=0.5, end=2.5, tolerance=1e-6)
    paths = torch.arange(1000)
    dyadic = 0.5 + 2 * torch.arange(0, 65, dtype=D)[:, None] / 64
    a, b = TREE.block(paths, 1).at(dyadic), fine.block(paths, 1).at(dyadic)
    torch.testing.assert_close(a.value, b.value, rtol=0, atol=1e-13)
    torch.testing.assert_close(a.area, b.area, rtol=0, atol=1e-13)
    gap = TREE.block(paths, 1).at(1.2345).value - fine.block(paths, 1).at(1.2345).value
    assert 0 < float(gap.abs().max()) < 6 * math.sqrt(1e-3)


def test_float32_is_the_float64_path_with_fewer_bits() -> None:
    paths = torch.arange(500)
    w32, h32 = TREE.block(paths, 2, torch.float32).between(0.9, 1.4)
    w64, h64 = TREE.block(paths, 2).between(0.9, 1.4)
    assert w32.dtype == torch.float32
    assert float((w32 - w64).abs().quantile(0.99)) < 1e-5
    assert float((h32 - h64).abs().quantile(0.99)) < 1e-5


def test_an_empty_interval_has_nothing() -> None:
    w, h = TREE.block(torch.arange(3), 1).between(1.0, 1.0)
    assert float(w.abs().max()) == float(h.abs().max()) == 0.0


def test_another_seed_gives_other_paths() -> None:
    a, b = (BrownianTree(seed, 0.0, 1.0, 0.1).block(torch.arange(20_000), 1).between(0.0, 1.0)[0] for seed in (1, 2))
    assert abs(float(torch.corrcoef(torch.cat([a, b], 1).T)[0, 1])) < 4 / math.sqrt(20_000)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": 1.0, "end": 1.0}, "start must lie before end"),
        ({"end": math.inf}, "both finite"),
        ({"tolerance": 0.0}, "tolerance must be at least"),
        ({"tolerance": math.nan}, "tolerance must be at least"),
        ({"seed": -1}, "seed must be an integer"),
        ({"rounds": 3}, "rounds must be"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BrownianTree(**{"seed": 1, "start": 0.0, "end": 1.0, "tolerance": 0.1, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("paths", [torch.tensor([-1]), torch.tensor([1 << 32]), torch.tensor([1.0])])
def test_bad_path_numbers_are_refused(paths: Tensor) -> None:
    with pytest.raises(InputError, match="path"):
        TREE.block(paths, 1)
