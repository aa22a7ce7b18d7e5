"""Models with networks over HTTP: the requests of the other models, with the spec of the network in `model`."""

from __future__ import annotations

import httpx
import pytest

from qsde.models import BlackScholes, GridLeverage, Heston, Model, NeuralStochasticVol, bates, leveraged
from qsde.models.neural import NeuralLeverage
from qsde.spec import spec_of

LEVERAGE = NeuralLeverage.initialised(0.2, 0.1, 2.0, width=8)
MODELS: dict[str, Model] = {
    "local vol": leveraged(BlackScholes(0.2), LEVERAGE),
    "Heston": leveraged(Heston(0.04, 1.5, 0.05, 0.5, -0.7), LEVERAGE),
    "Bates": leveraged(bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.1), LEVERAGE),
    "free": NeuralStochasticVol.initialised(
        3.0, 0.5, -0.7, GridLeverage([0.0], [0.0], [[0.2]]), shortest=0.1, longest=2.0, width=8
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_prices_greeks_and_scenarios(address: str, name: str) -> None:
    body = {
        "model": spec_of(MODELS[name]).model_dump(mode="json"),
        "market": {"spot": 100.0, "rate": 0.03},
        "payoffs": [
            {"type": "european", "strike": 100.0, "expiry": 0.5},
            {"type": "fixed_lookback", "strike": 100.0, "expiry": 0.5},
        ],
        "engine": {"type": "monte_carlo", "paths": 1024, "max_dt": 0.1},
    }
    priced = httpx.post(f"{address}/v1/price", json=body, timeout=60).raise_for_status().json()
    option, lookback = (p["value"] for p in priced["payoffs"])
    assert 4 < option < lookback < 20
    which = {"which": ["delta", "gamma"]}
    greeks = httpx.post(f"{address}/v1/greeks", json={**body, "greeks": which}, timeout=60).raise_for_status()
    assert "delta" in greeks.text
    body["engine"] = {"type": "monte_carlo", "paths": 64, "max_dt": 0.1}
    assert httpx.post(f"{address}/v1/scenarios", json=body, timeout=60).status_code == 200
    body["model"]["hidden" if name == "free" else "backbone"] = "nonsense"  # type: ignore[index]
    refused = httpx.post(f"{address}/v1/price", json=body, timeout=60)
    assert refused.status_code == 422
    assert "model" in refused.json()["detail"]
