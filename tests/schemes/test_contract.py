"""Which scheme steps what, its shapes and dtypes, and its refusals."""

from __future__ import annotations

import inspect

import pytest
import torch

import qsde.schemes
from qsde.errors import InputError
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, MertonJumps, Model, bates, kou, merton
from qsde.schemes import (
    SCHEMES,
    Exact,
    HestonQE,
    LogEuler,
    Milstein,
    Scheme,
    WithJumps,
    scheme_for,
)

HESTON = Heston(0.04, 1.5, 0.05, 0.4, -0.7)
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.15)
NESTED = JumpDiffusion(BATES, KouJumps(0.5, 0.4, 10.0, 5.0))


@pytest.mark.parametrize(
    ("model", "scheme"),
    [
        (BlackScholes(0.2), Exact()),
        (HESTON, HestonQE()),
        (merton(0.2, 0.3, -0.1, 0.15), WithJumps(Exact(), (MertonJumps,))),
        (BATES, WithJumps(HestonQE(), (MertonJumps,))),
        (NESTED, WithJumps(HestonQE(), (MertonJumps, KouJumps))),
    ],
    ids=lambda p: p.name if isinstance(p, Model) else repr(p),
)
def test_default(model: Model, scheme: Scheme) -> None:
    assert scheme_for(model) == scheme
    scheme.check(model)


@pytest.mark.parametrize(
    ("scheme", "model", "message"),
    [
        (HestonQE(), BlackScholes(0.2), r"HestonQE steps a Heston, got BlackScholes; use Exact\(\)"),
        (Milstein(), BlackScholes(0.2), r"Milstein steps a Heston, got BlackScholes; use Exact\(\)"),
        (Exact(), HESTON, r"Exact steps a BlackScholes, got Heston; use HestonQE\(\)"),
        (HestonQE(), BATES, r"got Bates; use WithJumps\(HestonQE\(\), \(MertonJumps,\)\)"),
        (LogEuler(), NESTED, r"use WithJumps\(HestonQE\(\), \(MertonJumps, KouJumps\)\)"),
        (WithJumps(Exact()), kou(0.2, 1.0, 0.4, 10.0, 5.0), r"got Kou; use WithJumps\(Exact\(\), \(KouJumps,\)\)"),
        (WithJumps(HestonQE()), HESTON, r"got Heston; use HestonQE\(\)"),
        (WithJumps(Exact()), BATES, "Exact steps a BlackScholes, got Heston"),
    ],
)
def test_refusals_name_what_fits(scheme: Scheme, model: Model, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scheme.check(model)


def test_unknown_law() -> None:
    with pytest.raises(InputError, match="laws must be a tuple of jump laws"):
        WithJumps(Exact(), ())


def test_table_covers_every_scheme() -> None:
    exported = {thing for thing in vars(qsde.schemes).values() if isinstance(thing, type) and issubclass(thing, Scheme)}
    assert {row.scheme for row in SCHEMES.values()} == {kind for kind in exported if not inspect.isabstract(kind)}


def test_jumps_keep_the_orders_of_their_diffusion() -> None:
    assert WithJumps(Exact()).exact
    assert WithJumps(Exact()).weak_order == float("inf")
    assert not WithJumps(HestonQE()).exact
    assert WithJumps(Milstein()).strong_order == Milstein.strong_order


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("model", "scheme"),
    [
        (BlackScholes(torch.full((3, 2), 0.2)), Exact()),
        (Heston(torch.full((3, 1), 0.04), 1.5, torch.full((2,), 0.05), 0.4, -0.7), HestonQE()),
        (Heston(torch.full((3, 1), 0.04), 1.5, torch.full((2,), 0.05), 0.4, -0.7), LogEuler()),
        (Heston(torch.full((3, 1), 0.04), 1.5, torch.full((2,), 0.05), 0.4, -0.7), Milstein()),
        (bates(torch.full((3, 1), 0.04), 1.5, 0.05, 0.4, -0.7, torch.full((2,), 0.3), -0.1, 0.15), None),
        (kou(torch.full((3, 1), 0.2), torch.full((2,), 0.3), 0.4, 10.0, 5.0), None),
    ],
)
def test_batches_and_dtypes(model: Model, scheme: Scheme | None, dtype: torch.dtype) -> None:
    """Every parameter set of a batch is stepped as it would be alone."""
    scheme = scheme or scheme_for(model)
    model = model.map(lambda p: p.to(dtype))
    dt = torch.tensor(0.1, dtype=torch.float64)
    n, m = scheme.draws(model, 0.1)
    torch.manual_seed(1)
    normals, uniforms = torch.randn(n, 5, dtype=dtype), torch.rand(m, 5, dtype=dtype)

    def stepped(one: Model) -> torch.Tensor:
        c = scheme.coefficients(one, dt)
        assert c.dtype == dtype
        assert c.shape[1:] == one.batch_shape
        start = tuple(s.unsqueeze(-1) for s in scheme.initial(one))
        return torch.stack(
            [s.expand(*one.batch_shape, 5) for s in scheme.step(start, c.unsqueeze(-1), normals, uniforms)]
        )

    together = stepped(model)
    alone = stepped(model.map(lambda p: p.expand(3, 2)[1, 1]))
    assert together.shape[1:] == (3, 2, 5)
    assert together.dtype == dtype
    torch.testing.assert_close(together[:, 1, 1], alone)
    columns = scheme.step(
        tuple(s.unsqueeze(-1) for s in scheme.initial(model)),
        scheme.coefficients(model, dt).unsqueeze(-1),
        tuple(normals),  # type: ignore[arg-type]
        tuple(uniforms),  # type: ignore[arg-type]
    )
    torch.testing.assert_close(torch.stack([s.expand(3, 2, 5) for s in columns]), together)
