"""The compiled draw is the eager draw."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

from qsde.noise import Antithetic, BlockNoise, Noise, Sobol, Threefry

pytestmark = pytest.mark.slow


def drawn(block: BlockNoise, step: Tensor) -> Tensor:
    normals, uniforms = block.columns(step)
    return torch.stack([*normals, *uniforms])


@pytest.mark.parametrize(
    ("noise", "other"),
    [
        (Threefry(7), Threefry(2**40)),
        (Antithetic(Threefry(7)), Antithetic(Threefry(8))),
        (Sobol(7, 4), Sobol(8, 4)),
    ],
    ids=["threefry", "antithetic", "sobol"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_graph_for_all_steps_and_seeds(noise: Noise, other: Noise, dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    graphs = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        compiled = torch.compile(drawn, backend=graphs, dynamic=False, fullgraph=True)
        for value in (noise, other):
            block = value.block(torch.arange(1001), 1000, 2, 1, dtype, "cpu")
            for step in (0, 7, 999):
                eager = drawn(block, torch.tensor(step))
                tolerance = 8 * torch.finfo(dtype).eps
                torch.testing.assert_close(compiled(block, torch.tensor(step)), eager, rtol=tolerance, atol=tolerance)
    assert graphs.frame_count == 1


def test_compiled_uniforms_have_the_same_digits_in_every_block_size() -> None:
    """Uniforms are exact arithmetic, so compiled and eager agree to the bit, tails of the vector loop included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n_paths in (1, 17, 1000):
            torch._dynamo.reset()
            block = Threefry(1).block(torch.arange(n_paths), 2**20, 0, 2, torch.float32, "cpu")
            step = torch.tensor(2**20 - 1)
            assert torch.equal(torch.compile(drawn, dynamic=False)(block, step), drawn(block, step))
