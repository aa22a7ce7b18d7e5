"""Greeks against values from code that shares nothing with qsde: closed forms, convolutions, transforms and grids."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from qsde.spec import GreeksRequest, GreeksResult

TABLE = pd.read_csv(Path(__file__).resolve().parents[1] / "reference" / "greeks_computed.csv")
CASES = [rows for _, rows in TABLE.groupby(["case", "model", "payoff", "market"], sort=False)]
#: Exact where there are formulas, else enough paths for standard errors well below the values.
ENGINE = {"type": "auto", "paths": 1 << 13, "max_dt": 1 / 32, "seed": 3, "least_squares": {"outer": 0}}


@pytest.mark.parametrize(
    "rows", CASES, ids=lambda rows: f"{json.loads(rows.iloc[0].model)['model']}: {rows.iloc[0].case}"
)
def test_greeks_of_the_table(rows: pd.DataFrame) -> None:
    given = {name: json.loads(rows.iloc[0][name]) for name in ("model", "market", "payoff")}
    greeks = {"which": rows.greek.tolist(), "units": "raw"}
    request = GreeksRequest.model_validate(
        {"model": given["model"], "market": given["market"], "payoffs": [given["payoff"]], "engine": ENGINE,
         "greeks": greeks}
    )  # fmt: skip
    (found,) = GreeksResult.of(request, request.build()).payoffs
    for row, greek in zip(rows.itertuples(), found.greeks, strict=True):
        error = math.hypot(greek.std_error or 0.0, row.accuracy * abs(row.value))
        assert abs(greek.value - row.value) < 4 * error, f"{row.greek}: {greek.value:.6g}, not {row.value:.6g}"
        assert error < 0.2 * abs(row.value), f"{row.greek}: a standard error of {error:.2g} says nothing"
