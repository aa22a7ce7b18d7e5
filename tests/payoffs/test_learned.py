"""Every payoff on one underlying under every model with a network has a price, within bounds."""

import pytest
import torch

from qsde import payoffs
from qsde.errors import InputError
from qsde.market.underlying import Market
from qsde.models import BlackScholes, GridLeverage, Heston, Model, MultiAsset, NeuralStochasticVol, bates, leveraged
from qsde.models.neural import NeuralLeverage
from qsde.payoffs import Payoff
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.price import price

Q = (0.25, 0.5, 0.75, 1.0)
BOOK: list[Payoff] = [
    payoffs.European(100.0, 1.0),
    payoffs.Digital(105.0, 1.0, cash=100.0),
    payoffs.AssetDigital(105.0, 1.0),
    payoffs.Gap(100.0, 105.0, 1.0),
    payoffs.Asian(100.0, Q),
    payoffs.AverageStrike(Q),
    payoffs.Barrier(100.0, 80.0, 1.0, "down-and-out"),
    payoffs.Barrier(100.0, 120.0, 1.0, "up-and-in", monitoring=Q),
    payoffs.DoubleBarrier(strike=100.0, lower=80.0, upper=125.0, expiry=1.0, style="knock-out"),
    payoffs.OneTouch(1.0, upper=120.0),
    payoffs.NoTouch(1.0, lower=80.0),
    payoffs.FixedLookback(100.0, 1.0),
    payoffs.FloatingLookback(1.0),
    payoffs.ForwardStart(start=0.5, expiry=1.0),
    payoffs.Cliquet(resets=(0.0, *Q), local_floor=0.0, local_cap=0.05),
    payoffs.VarianceSwap(0.0, (0.0, *Q)),
    payoffs.VolatilitySwap(0.0, (0.0, *Q)),
    payoffs.VarianceOption(0.04, (0.0, *Q)),
    payoffs.Autocallable(observations=Q, initial=100.0, coupon=0.02, knock_in=0.7, notional=100.0),
    payoffs.American(100.0, 1.0, kind="put", dates_per_year=4),
    payoffs.Bermudan(100.0, Q, kind="put"),
    payoffs.AmericanBarrier(100.0, 130.0, 1.0, "up-and-out", "put", dates_per_year=4),
    payoffs.PathFunction(Q, lambda s: s.amax(-1) - s[..., -1]),
]
ENGINE = MonteCarlo(n_paths=1 << 10, max_dt=1 / 8)


def models() -> dict[str, Model]:
    """With their weights moved off the start."""
    source = torch.Generator().manual_seed(1)

    def moved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {n: w + 0.3 * torch.randn(w.shape, generator=source, dtype=w.dtype) for n, w in weights.items()}

    leverage = NeuralLeverage.initialised(0.2, 0.1, 2.0, width=8)
    leverage = leverage.with_params(moved(leverage.params))
    free = NeuralStochasticVol.initialised(3.0, 0.5, -0.7, GridLeverage([0.0], [0.0], [[0.2]]), 0.1, 2.0, width=8)
    network = {n: w for n, w in free.params.items() if n.startswith("network.")}
    return {
        "local vol": leveraged(BlackScholes(0.2), leverage),
        "Heston": leveraged(Heston(0.04, 1.5, 0.05, 0.5, -0.7), leverage),
        "Bates": leveraged(bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.1), leverage),
        "free": free.with_params(moved(network)),
    }


@pytest.mark.parametrize("name", models())
def test_every_payoff_has_a_price(name: str) -> None:
    found = price(models()[name], BOOK, Market(100.0, rate=0.03), ENGINE)
    assert bool((torch.isfinite(found.value) & (found.value > 0)).all())
    assert bool((found.value < 110).all())
    value = dict(zip((type(p).__name__ for p in BOOK), found.value.tolist(), strict=True))
    assert value["OneTouch"] < 1
    assert value["NoTouch"] < 1
    assert value["American"] >= value["Bermudan"] - 0.3
    assert value["DoubleBarrier"] < value["European"] < value["FixedLookback"]


@pytest.mark.parametrize("name", models())
def test_several_underlyings_are_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=r"MultiAsset: models\[0\] must be a BlackScholes or a Heston"):
        MultiAsset([models()[name], BlackScholes(0.3)], correlation=[[1.0, 0.5], [0.5, 1.0]])
