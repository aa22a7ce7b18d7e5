"""A prepared book gives the prices of `price_european`, whatever was priced before."""

from __future__ import annotations

import pytest
import torch

from qsde.errors import InputError
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, Model, bates, kou, merton
from qsde.pricing.book import EuropeanBook
from qsde.pricing.fourier import Fourier, price_european

T = torch.tensor([5 / 365, 0.5, 4.0], dtype=torch.float64)
STRIKE = 100 * torch.exp(torch.linspace(-0.8, 0.6, 15, dtype=torch.float64))
FORWARD = torch.tensor([100.0, 101.0, 108.0], dtype=torch.float64)
DF = torch.tensor([1.0, 0.98, 0.9], dtype=torch.float64)
IS_CALL = torch.arange(15) % 2 == 0
HESTON = Heston(0.04, 1.5, 0.06, 0.5, -0.7)
MODELS = [
    BlackScholes(0.2),
    HESTON,
    Heston(0.01, 0.2, 0.02, 1.5, -0.95),
    merton(0.1, 0.5, -0.5, 0.02),
    kou(0.16, 1.0, 0.4, 10.0, 5.0),
    bates(0.02, 1.5, 0.03, 0.4, -0.7, 0.1, -0.3, 0.25),
    JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_prices_are_those_of_price_european(model: Model) -> None:
    got = EuropeanBook(STRIKE, T, FORWARD, DF, IS_CALL).price(model)
    want = price_european(model, STRIKE, T, FORWARD, DF, IS_CALL)
    assert got.value.shape == want.value.shape == (3, 15)
    assert ((got.value - want.value).abs() <= 2 * (got.error + want.error) + 1e-13).all()
    torch.testing.assert_close(got.value, want.value, rtol=1e-9, atol=1e-11)


def test_batches_and_gradients() -> None:
    scale = torch.linspace(0.5, 1.3, 7, dtype=torch.float64).requires_grad_()
    many = MODELS[5].map(lambda p: p * scale)
    got = EuropeanBook(STRIKE, T, FORWARD, DF).price(many).value
    want = price_european(many, STRIKE, T, FORWARD, DF).value
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    slopes = [torch.autograd.grad(x.sum(), scale, retain_graph=True)[0] for x in (got, want)]
    torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-9)


def test_results_do_not_depend_on_earlier_calls() -> None:
    fresh = EuropeanBook(STRIKE, T, FORWARD).price(HESTON).value
    used = EuropeanBook(STRIKE, T, FORWARD)
    for vol in torch.linspace(0.05, 2.0, 40):
        used.price(BlackScholes(float(vol)))
    assert torch.equal(used.price(HESTON).value, fresh)


def test_scalars_drop_their_axes() -> None:
    assert EuropeanBook(100.0, 1.0, 100.0).price(HESTON).value.shape == ()
    assert EuropeanBook(STRIKE, 1.0, 100.0).price(HESTON).value.shape == (15,)
    assert EuropeanBook(100.0, T, 100.0).price(HESTON).value.shape == (3,)
    tight = EuropeanBook(100.0, 1.0, 100.0, engine=Fourier(nodes=16)).price(HESTON).value
    torch.testing.assert_close(tight, price_european(HESTON, 100.0, 1.0, 100.0).value, rtol=1e-9, atol=0)


def test_bad_inputs_are_named() -> None:
    with pytest.raises(InputError, match="strike must be positive"):
        EuropeanBook(-STRIKE, T, FORWARD)
    with pytest.raises(InputError, match="no batch axes"):
        EuropeanBook(STRIKE, T.expand(2, 3), FORWARD)
