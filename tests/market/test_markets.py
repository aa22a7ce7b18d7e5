import pytest
import torch

from qsde.errors import InputError
from qsde.market.curves import FlatCurve, PillarCurve
from qsde.market.dividends import CashDividend
from qsde.market.markets import Markets
from qsde.market.underlying import Market

RATE = PillarCurve([1.0, 2.0], [0.02, 0.03])
PLAIN = Market(100.0, RATE, 0.01)
PAYING = Market(50.0, RATE, dividends=[CashDividend(0.5, 2.0), CashDividend(1.5, 1.0)])
LATER = Market(20.0, RATE, dividends=[CashDividend(0.7, 1.0), CashDividend(1.5, 1.0)])


def test_each_asset_is_its_own_market():
    t = torch.tensor([[0.1, 0.5], [1.0, 2.0]], dtype=torch.float64)
    both = Markets([PLAIN, PAYING])
    assert torch.equal(both.forward(t), torch.stack([PLAIN.forward(t), PAYING.forward(t)]))
    for arguments in ((), (True,), (False, 1.0)):
        scale, shift = both.affine(t, *arguments)
        for i, market in enumerate((PLAIN, PAYING)):
            assert torch.equal(torch.stack([scale[i], shift[i]]), torch.stack(market.affine(t, *arguments)))
    assert torch.equal(both.discount(t), RATE.discount(t))
    assert both.spots.tolist() == [100.0, 50.0]
    assert both.forward(1.0).shape == (2,)


def test_what_the_engine_asks():
    assert Markets([PLAIN, PAYING, LATER]).dividend_times == (0.5, 0.7, 1.5)
    assert Markets([PLAIN, PAYING]).has_cash
    assert not Markets([PLAIN]).has_cash


def test_gradients_reach_every_spot_and_the_rate():
    def forwards(a, b, rate):
        return Markets([Market(a, rate), Market(b, rate, 0.02, PAYING.dividends)]).forward([1.0, 2.0])

    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, 50.0, 0.03)]
    assert torch.autograd.gradcheck(forwards, inputs)
    spots = torch.tensor([40.0, 50.0], dtype=torch.float64)
    apart = torch.stack([forwards(s, 2 * s, 0.03) for s in spots])
    torch.testing.assert_close(torch.func.vmap(lambda s: forwards(s, 2 * s, 0.03))(spots), apart)


def test_equal_rates_may_be_different_objects():
    assert (
        Markets([Market(1.0, 0.02), Market(1.0, FlatCurve(0.02)), Market(1.0, PillarCurve([1.0], [0.02]))]).spots.sum()
        == 3
    )


@pytest.mark.parametrize(
    ("markets", "message"),
    [
        ([], "markets is empty"),
        ([PLAIN, 100.0], r"markets\[1\] must be a Market, got float"),
        ([PLAIN, PAYING, Market(1.0, 0.02)], r"markets\[2\] discounts at another rate"),
    ],
)
def test_bad_sets_are_refused(markets, message):
    with pytest.raises(InputError, match=message):
        Markets(markets)
