"""Synthetic chains with known forwards and rates, and the market data files as quotes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qsde.market.black import black_price
from qsde.market.quotes import COLUMNS, Quotes

ROOT = Path(__file__).parents[2]
FILES = {
    "spx_dirty": "tests/fixtures/spx_eod_yahoo/spx_2026-07-31.parquet",
    "spx": "data/spx_vix_2023-02-15/spx_2023-02-15.parquet",
    "vix": "data/spx_vix_2023-02-15/vix_2023-02-15.parquet",
    "goog": "data/goog_2015_intraday/goog_hourly_2015-12-23.parquet",
    "btc": "data/deribit_btc_eth/btc_2023-07.parquet",
    "dax": "data/dax_2002-07-05/dax_2002-07-05.csv",
    "sepp": "data/sepp_multiasset_surfaces/surfaces_btc_spy_gld.csv",
}


def smile(k, t):
    """A steep but convex smile, in vols."""
    return 0.2 + 0.06 * (np.sqrt((k / np.sqrt(t) - 0.1) ** 2 + 0.05) - 0.9 * k / np.sqrt(t))


def make_chain(
    times=(0.1, 0.5, 2.0), spot=100.0, rate=0.03, dividend=0.01, half_spread=0.01, n=41, vol=smile, **columns
):
    """Calls and puts of every expiry around known forwards; `half_spread` is a fraction of the price."""
    parts = []
    for t in times:
        forward = spot * np.exp((rate - dividend) * t)
        strike = np.round(forward * np.exp(np.linspace(-2.5, 2.0, n) * 0.25 * np.sqrt(t)), 2)
        both = pd.DataFrame({"strike": np.tile(strike, 2), "option_type": ["C"] * n + ["P"] * n, "t": t})
        sigma = torch.tensor(vol(np.log(both["strike"].to_numpy() / forward), t))
        is_call = torch.tensor((both["option_type"] == "C").to_numpy())
        strikes = torch.tensor(both["strike"].to_numpy())
        price = black_price(forward, strikes, t, sigma, np.exp(-rate * t), is_call).numpy()
        parts.append(both.assign(bid=price * (1 - half_spread), ask=price * (1 + half_spread), expiry=f"in {t:g}y"))
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(underlying="X", quote_time=pd.Timestamp("2024-01-02 21:00", tz="UTC"), **columns)


def moment(text):
    """Dates are the close in New York; times carry their zone."""
    if len(text) == 10:
        return pd.Timestamp(f"{text} 16:00", tz="America/New_York").tz_convert("UTC")
    return pd.Timestamp(text).tz_convert("UTC")


def load_quotes(name, drop=()):
    path = ROOT / FILES[name]
    raw = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    raw = raw.drop(columns=list(drop))
    for column, source in (("quote_time", "quote_date"), ("expiry_time", "expiry")):
        raw[column] = raw[source].map({text: moment(text) for text in raw[source].unique()})
    raw = raw.rename(columns={"t_years": "t"}).assign(expiry=raw["expiry"].str[:10])
    return Quotes.from_frame(raw[[c for c in raw.columns if c in COLUMNS]], source=path.name)


@pytest.fixture(scope="session")
def chain():
    return make_chain


@pytest.fixture(scope="session")
def load():
    return load_quotes
