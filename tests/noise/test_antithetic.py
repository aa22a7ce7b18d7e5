"""Antithetic pairs."""

from __future__ import annotations

import pytest
import torch

from qsde.errors import InputError
from qsde.noise import Antithetic, Sobol, Threefry


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_mirror_exactly(dtype: torch.dtype) -> None:
    paths = torch.arange(1000)
    block = Antithetic(Threefry(3)).block(paths, 4, 3, 2, dtype, "cpu")
    plain = Threefry(3).block(paths[:500], 4, 3, 2, dtype, "cpu")
    for step in range(4):
        normals, uniforms = block.draw(step)
        even, odd = normals[:, ::2], normals[:, 1::2]
        assert torch.equal(even, -odd)
        assert torch.equal(uniforms[:, 1::2], 1 - uniforms[:, ::2])
        assert torch.equal(uniforms[:, ::2], 1 - uniforms[:, 1::2])
        assert torch.equal(torch.cat([even, uniforms[:, ::2]]), torch.cat(plain.draw(step)))


def test_groups_are_pairs() -> None:
    assert Antithetic(Threefry(1)).groups(torch.tensor([0, 1, 2, 3, 9])).tolist() == [0, 0, 1, 1, 4]
    assert Threefry(1).groups(torch.tensor([0, 1, 9])).tolist() == [0, 1, 9]


def test_pair_means_have_less_variance() -> None:
    normals, _ = Antithetic(Threefry(1)).block(torch.arange(4096), 1, 1, 0, torch.float64, "cpu").draw(0)
    payoff = torch.exp(normals[0])
    pairs = payoff.view(-1, 2).mean(1)
    assert float(pairs.var()) < 0.35 * float(payoff.var())


def test_noises_are_values() -> None:
    assert Antithetic(Threefry(1)) == Antithetic(Threefry(1))
    assert len({Threefry(1), Threefry(1), Threefry(2), Sobol(1)}) == 3


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"use Sobol\(seed\) alone"):
        Antithetic(Sobol(1))
    with pytest.raises(InputError, match="one wrapper too many"):
        Antithetic(Antithetic(Threefry(1)))


def test_memory_is_the_counters() -> None:
    assert Threefry(1).bytes_per_path(1000, 9, 9, torch.float64) == 4
    assert Antithetic(Threefry(1)).bytes_per_path(1000, 9, 9, torch.float64) == 12
    assert Sobol(1).bytes_per_path(1000, 2, 1, torch.float32) == 12_000
