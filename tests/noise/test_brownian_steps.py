"""The Brownian tree as the noise of given steps."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from qsde.errors import InputError
from qsde.noise import BrownianTree
from qsde.noise.brownian_steps import BrownianSteps, BrownianStepsBlock

D = torch.float64
TREE = BrownianTree(seed=4, start=0.0, end=1.0, tolerance=1e-3)
EDGES = torch.tensor([0.0, 0.1, 0.1, 0.35, 0.5, 1.0], dtype=D).unsqueeze(-1)
SHARED = BrownianSteps(TREE, 2, EDGES[:-1], EDGES[1:])


def block(steps: BrownianSteps, paths: torch.Tensor, normals: int = 4) -> BrownianStepsBlock:
    return steps.block(paths, len(steps.starts), normals, 0, D, "cpu")


def test_draws_are_independent_standard_normals_and_0_where_a_step_is_empty() -> None:
    drawn = torch.stack([block(SHARED, torch.arange(20_000)).draw(k)[0] for k in range(5)])
    assert drawn.shape == (5, 4, 20_000)
    assert float(drawn[1].abs().max()) == 0.0
    rows = drawn[[0, 2, 3, 4]].flatten(0, 1)
    for row in rows:
        assert stats.kstest(row.numpy(), "norm").pvalue > 1e-3
    off = torch.corrcoef(rows) - torch.eye(len(rows), dtype=D)
    assert float(off.abs().max()) < 4.5 / math.sqrt(20_000)


def test_draws_are_those_of_the_tree() -> None:
    paths = torch.tensor([3, 9])
    w, h = TREE.block(paths, 2).between(0.1, 0.35)
    normals = block(SHARED, paths).draw(2)[0]
    torch.testing.assert_close(normals[:2] * 0.5, w.T, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(normals[2:] * 0.5 / math.sqrt(12), h.T, rtol=1e-12, atol=1e-13)
    increments = block(SHARED, paths, 2).draw(2)[0]
    torch.testing.assert_close(increments, normals[:2])


def test_stretches_are_the_same_draws_in_any_order() -> None:
    plain = block(SHARED, torch.arange(7))
    ahead = plain.ahead(5)
    for k in (4, 0, 2, 1, 3):
        torch.testing.assert_close(ahead.draw(k)[0], plain.draw(k)[0], rtol=1e-14, atol=1e-15)
        assert torch.equal(torch.stack(plain.columns(k)[0]), plain.draw(k)[0])


def test_paths_may_have_steps_of_their_own() -> None:
    other = torch.tensor([0.0, 0.2, 0.2, 0.3, 0.9, 1.0], dtype=D).unsqueeze(-1)
    both = torch.cat([EDGES, other], 1)
    own = BrownianSteps(TREE, 2, both[:-1], both[1:])
    drawn = block(own, torch.tensor([1, 0]))
    alone = block(BrownianSteps(TREE, 2, other[:-1], other[1:]), torch.tensor([1]))
    shared = block(SHARED, torch.tensor([0]))
    for k in range(5):
        torch.testing.assert_close(drawn.draw(k)[0][:, :1], alone.draw(k)[0], rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(drawn.draw(k)[0][:, 1:], shared.draw(k)[0], rtol=1e-13, atol=1e-14)


def test_what_the_steps_do_not_have_is_refused() -> None:
    for n_steps, normals, uniforms in ((4, 2, 0), (5, 3, 0), (5, 2, 1)):
        with pytest.raises(InputError, match="the steps have 2 motions, 5 steps"):
            SHARED.block(torch.arange(3), n_steps, normals, uniforms, D, "cpu")
