"""QE-M on the standard hard cases of the literature."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from qsde.models import Heston
from qsde.schemes import HestonQE

ROWS = pd.read_csv(Path(__file__).parents[1] / "reference" / "heston_mc_standard_cases.csv")
KEYS = ["pyfeng_sheet", "spot", "T", "r", "q", "v0", "kappa", "theta", "sigma", "rho"]
GROUPS = {f"{name[0]}-{frame['case'].iloc[0][:24]}": frame for name, frame in ROWS.groupby(KEYS, sort=True)}

#: What QE-M may be off beside its standard error, in basis points of the forward, by steps per year.
ALLOWED = {8: 10.0, 32: 3.0}
N_PATHS = 40_000


def steps(t: float, per_year: int) -> int:
    """At least four: a week needs some steps too."""
    return max(4, math.ceil(t * per_year))


def check(rows: pd.DataFrame, x: Tensor, allowed: float) -> None:
    """Every option against its published price (some have three decimals only)."""
    first = rows.iloc[0]
    forward = first["spot"] * math.exp((first["r"] - first["q"]) * first["T"])
    s, discount = forward * torch.exp(x.double()), math.exp(-first["r"] * first["T"])
    for _, row in rows.iterrows():
        sign = 1 if row["type"] == "Call" else -1
        value = (sign * (s - row["strike"])).clamp(min=0)
        cov = torch.cov(torch.stack([value, s]))
        value = discount * (value - cov[0, 1] / cov[1, 1] * (s - forward))
        error = float(value.std()) / x.numel() ** 0.5
        off = abs(float(value.mean()) - row["price"])
        assert off < 4 * error + 1e-4 * allowed * forward * discount, (row["strike"], off, error)


@pytest.mark.parametrize("per_year", [8, 32])
@pytest.mark.parametrize("case", GROUPS)
def test_standard_cases(case: str, per_year: int, simulate: Callable) -> None:
    rows = GROUPS[case]
    p = rows.iloc[0]
    model = Heston(*(float(p[k]) for k in ("v0", "kappa", "theta", "sigma", "rho")))
    t = float(p["T"])
    x = simulate(model, HestonQE(), t, steps(t, per_year), N_PATHS, dtype=torch.float32)[0]
    check(rows, x, ALLOWED[per_year])
