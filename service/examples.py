"""Requests that work: shown in the documentation, sent by the tests, and computed to warm workers up."""

from __future__ import annotations

from typing import Any

_HESTON = {"model": "heston", "v0": 0.04, "kappa": 1.5, "theta": 0.05, "sigma": 0.4, "rho": -0.7}
_MARKET = {"spot": 100.0, "rate": 0.03, "dividend_yield": 0.01}

PRICE: dict[str, Any] = {
    "europeans": {
        "model": _HESTON,
        "market": _MARKET,
        "payoffs": [
            {"type": "european", "strike": 100.0, "expiry": 1.0},
            {"type": "european", "strike": 90.0, "expiry": 0.5, "kind": "put"},
        ],
        "engine": {"type": "fourier"},
    },
    "mixed": {
        "model": _HESTON,
        "market": _MARKET,
        "payoffs": [
            {"type": "european", "strike": 100.0, "expiry": 1.0},
            {"type": "asian", "strike": 100.0, "fixings": [0.25, 0.5, 0.75, 1.0]},
        ],
        "engine": {"type": "auto", "paths": 4096, "max_dt": 0.125},
    },
    "barrier": {
        "model": _HESTON,
        "market": _MARKET,
        "payoffs": [{"type": "barrier", "strike": 100.0, "barrier": 130.0, "expiry": 1.0, "style": "up-and-out"}],
        "engine": {"type": "monte_carlo", "paths": 4096, "noise": "sobol", "seed": 7},
    },
}

GREEKS: dict[str, Any] = {
    "europeans": {**PRICE["europeans"], "greeks": {"which": ["delta", "gamma", "vega"]}},
    "asian": {
        "model": _HESTON,
        "market": _MARKET,
        "payoffs": [{"type": "asian", "strike": 100.0, "fixings": [0.25, 0.5, 0.75, 1.0]}],
        "engine": {"type": "monte_carlo", "paths": 4096, "max_dt": 0.125},
        "greeks": {"which": ["delta", "vega"]},
    },
}

SCENARIOS: dict[str, Any] = {
    "europeans": {**PRICE["europeans"], "scenarios": {"spots": [-0.1, 0.1], "vols": [-0.02, 0.02]}},
    "barrier": {
        **PRICE["barrier"],
        "engine": {"type": "monte_carlo", "paths": 1024, "noise": "sobol", "seed": 7},
        "scenarios": {"spots": [-0.2, 0.3], "vols": [0.05], "which": ["delta"]},
    },
}

IMPLIED_VOL: dict[str, Any] = {
    "smile": {
        "price": [12.5, 7.97, 4.6],
        "forward": 100.0,
        "strike": [92.0, 100.0, 108.0],
        "expiry": 1.0,
        "discount_factor": 0.97,
    }
}

_SMILES = {
    0.25: {90.0: 0.2279, 95.0: 0.2132, 100.0: 0.1983, 105.0: 0.1839, 110.0: 0.1711},
    1.0: {80.0: 0.2387, 90.0: 0.2189, 100.0: 0.2005, 110.0: 0.1840, 120.0: 0.1706},
}
_QUOTES: list[dict[str, Any]] = [
    {
        "underlying": "INDEX", "quote_date": "2024-01-02", "t_years": t, "strike": strike,
        "option_type": "C" if strike >= 100.0 else "P", "implied_vol": vol, "spot": 100.0, "forward": 100.0,
        "discount_factor": 1.0,
    }
    for t, smile in _SMILES.items()
    for strike, vol in smile.items()
]  # fmt: skip

UPLOADS: dict[str, Any] = {"records": _QUOTES, "columns": {name: [q[name] for q in _QUOTES] for name in _QUOTES[0]}}

CALIBRATIONS: dict[str, Any] = {
    "heston": {"quotes": _QUOTES, "calibration": {"model": "heston", "starts": 4}},
    "black_scholes": {"quotes": _QUOTES, "calibration": {"model": "black_scholes", "weights": "equal"}},
}
