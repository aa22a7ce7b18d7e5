"""The compiled step is the eager step to rounding, in one graph."""

from __future__ import annotations

import warnings

import pytest
import torch

from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, Model, bates
from qsde.schemes import HestonQE, LogEuler, Milstein, Scheme, scheme_for

pytestmark = pytest.mark.slow  # the compiler takes several seconds for each

HESTON = Heston(0.04, 0.5, 0.04, 1.0, -0.9)
NESTED = JumpDiffusion(bates(0.04, 0.5, 0.04, 1.0, -0.9, 0.3, -0.1, 0.15), KouJumps(0.5, 0.4, 10.0, 5.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("model", "scheme"),
    [
        (HESTON, HestonQE()),
        (HESTON, LogEuler()),
        (HESTON, Milstein()),
        (BlackScholes(0.2), scheme_for(BlackScholes(0.2))),
        (NESTED, scheme_for(NESTED)),
    ],
    ids=["qe", "log_euler", "milstein", "exact", "with_jumps"],
)
def test_compiled_is_eager(model: Model, scheme: Scheme, dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    n_paths, (n, m) = 4096, scheme.draws(model, 0.125)
    generator = torch.Generator().manual_seed(2)
    normals = torch.randn(n, n_paths, dtype=dtype, generator=generator)
    uniforms = torch.rand(m, n_paths, dtype=dtype, generator=generator).clamp(1e-6, 1 - 1e-6)
    c = scheme.coefficients(model, torch.tensor(0.125, dtype=torch.float64)).unsqueeze(-1).to(dtype)
    state = tuple(s.to(dtype).expand(n_paths).clone() for s in scheme.initial(model))
    if len(state) == 2:  # variances on both sides of the switch of QE
        state = state[0], torch.logspace(-4, 0, n_paths, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        compiled = torch.compile(scheme.step, dynamic=False, fullgraph=True)
        got = compiled(state, c, normals, uniforms)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-12
    for a, b in zip(got, scheme.step(state, c, normals, uniforms), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
