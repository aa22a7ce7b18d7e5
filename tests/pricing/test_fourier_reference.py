"""Every published European price and Greek of the models with a characteristic function, row by row."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from qsde.models import BlackScholes, Heston, Model, bates, kou, merton
from qsde.pricing.fourier import price_european

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def columns(table: pd.DataFrame, *names: str) -> list[Tensor]:
    return [torch.tensor(table[name].to_numpy(float)) for name in names]


def table_prices(table: pd.DataFrame, model: Model, t: str = "T") -> Tensor:
    """Prices of the rows of a table, each row its own parameter set, expiry and strike."""
    spot, strike, years, r, q = columns(table, "spot", "strike", t, "r", "q")
    is_call = torch.tensor((table["type"].str.lower() == "call").to_numpy())
    forward = (spot * torch.exp((r - q) * years))[:, None]
    result = price_european(
        model, strike[:, None, None], years[:, None], forward, torch.exp(-r * years)[:, None], is_call[:, None, None]
    )
    value = result.value.flatten()
    assert (result.error.flatten() <= 1e-9 * value + 1e-12).all()
    return value


def worst(got: Tensor, expected: Tensor, tolerance: Tensor | float) -> float:
    return float(((got - expected).abs() / tolerance).max())


def printed_half_unit(path: Path, column: str) -> Tensor:
    """Half a unit of the last printed digit of each number."""
    exponents = [Decimal(text).as_tuple().exponent for text in pd.read_csv(path, dtype=str)[column]]
    return 0.5 * 10.0 ** torch.tensor(exponents, dtype=torch.float64)


def heston_of(table: pd.DataFrame) -> Heston:
    return Heston(*columns(table, "v0", "kappa", "theta", "sigma", "rho"))


def test_heston_prices_within_each_rows_tolerance() -> None:
    table = pd.read_csv(REFERENCE / "heston_european_prices.csv")
    expected, tolerance = columns(table, "price", "tol")
    assert len(table) == 160
    assert worst(table_prices(table, heston_of(table)), expected, tolerance) <= 1


def test_heston_prices_to_the_last_digits_of_exact_rows() -> None:
    table = pd.read_csv(REFERENCE / "heston_european_prices.csv")
    exact = table[table["case"] == "lewis2012"].reset_index(drop=True)
    (expected,) = columns(exact, "price")
    assert len(exact) >= 10
    assert worst(table_prices(exact, heston_of(exact)), expected, 1e-13 * expected) <= 1


def test_heston_standard_simulation_cases() -> None:
    table = pd.read_csv(REFERENCE / "heston_mc_standard_cases.csv")
    (expected,) = columns(table, "price")
    printed = printed_half_unit(REFERENCE / "heston_mc_standard_cases.csv", "price") + 1e-12 * expected
    got = table_prices(table, heston_of(table))
    typo = torch.tensor((table["price"].sub(5.78515545).abs() < 5e-9).to_numpy())  # Fang-Oosterlee T=1, see README
    assert int(typo.sum()) == 1
    assert float(got[typo]) == pytest.approx(5.785155434, abs=1e-9)
    assert worst(got[~typo], expected[~typo], 1.1 * printed[~typo]) <= 1


def test_bates_prices_against_quantlibs_converged_quadrature() -> None:
    table = pd.read_csv(REFERENCE / "bates_european_quantlib144.csv")
    names = ("v0", "kappa", "theta", "sigma", "rho", "jump_lambda", "jump_mean_log", "jump_std")
    (expected,) = columns(table, "price_gausslobatto_1e-12")
    got = table_prices(table, bates(*columns(table, *names)))
    assert len(table) == 40
    assert worst(got, expected, 1e-11 + 1e-10 * expected) <= 1


def test_merton_prices_of_haug() -> None:
    table = pd.read_csv(REFERENCE / "merton76_haug.csv")
    total, intensity, share, expected, tolerance = columns(
        table, "total_vol", "jump_intensity", "gamma_frac", "price", "tol"
    )
    jump_std = total * torch.sqrt(share / intensity)
    model = merton(total * torch.sqrt(1 - share), intensity, -0.5 * jump_std**2, jump_std)
    got = table_prices(table, model, t="t")
    assert len(table) == 135
    assert worst(got, expected, tolerance) <= 1


def test_kou_prices() -> None:
    table = pd.read_csv(REFERENCE / "kou2002.csv").rename(columns={"S": "spot", "K": "strike"})
    (expected,) = columns(table, "value")
    model = kou(*columns(table, "sigma", "lambda", "p_up", "eta1_up", "eta2_down"))
    printed = printed_half_unit(REFERENCE / "kou2002.csv", "value")
    replicated = torch.tensor(table["value_source"].str.startswith("COS").to_numpy())  # off by one in the last digit
    tolerance = torch.where(replicated, 3.0 * printed, 1.1 * printed + 1e-12)
    assert worst(table_prices(table, model), expected, tolerance) <= 1


@pytest.mark.parametrize(
    ("problem", "model"),
    [
        ("problem4", Heston(v0=0.0225, kappa=2.0, theta=0.0225, sigma=0.25, rho=-0.5)),
        ("problem5", merton(0.15, 0.4, -0.5, 0.4)),
    ],
)
def test_benchop_stochastic_volatility_and_jumps(problem: str, model: Model) -> None:
    row = json.loads((REFERENCE / "benchop_european.json").read_text())[problem]
    spot = torch.tensor(row["S"], dtype=torch.float64)
    expected = torch.tensor([float(p) for p in row["european_call"]["price"]], dtype=torch.float64)
    df = torch.exp(torch.tensor(-row["r"] * row["T"], dtype=torch.float64))
    got = torch.stack([price_european(model, row["K"], row["T"], s / df, df).value for s in spot])
    assert worst(got, expected, 1e-10) <= 1  # the publication's own cells are good to about 1e-11


@pytest.mark.parametrize("setting", ["setI", "setII"])
def test_benchop_black_scholes(setting: str) -> None:
    record = json.loads((REFERENCE / "benchop_european.json").read_text())
    row, key = record[setting], f"european_call_{setting.removeprefix('set')}"
    expected = torch.tensor([float(p) for p in record["problem1"][key]["price"]], dtype=torch.float64)
    spot = torch.tensor(row["S"], dtype=torch.float64)
    df = torch.exp(torch.tensor(-row["r"] * row["T"], dtype=torch.float64))
    model = BlackScholes(row["sigma"])
    got = torch.stack([price_european(model, row["K"], row["T"], s / df, df).value for s in spot])
    assert worst(got, expected, 1e-11 * expected) <= 1


def greeks(row: pd.Series) -> dict[str, float]:
    names = ("S", "v0", "k", "th", "s", "rho", "r", "q", "T")
    x = {name: torch.tensor(float(row[name]), dtype=torch.float64, requires_grad=True) for name in names}
    model = Heston(x["v0"], x["k"], x["th"], x["s"], x["rho"])
    forward, df = x["S"] * torch.exp((x["r"] - x["q"]) * x["T"]), torch.exp(-x["r"] * x["T"])
    price = price_european(model, float(row["strike"]), x["T"], forward, df).value
    first = dict(zip(names, torch.autograd.grad(price, list(x.values()), create_graph=True), strict=True))
    second = torch.autograd.grad(first["S"], [x["S"], x["v0"]], retain_graph=True)
    (d2_v0,) = torch.autograd.grad(first["v0"], x["v0"])
    out = {f"d_{name}": value for name, value in first.items()}
    out |= {"price": price, "d2_S": second[0], "d2_S_v0": second[1], "d2_v0": d2_v0}
    return {name: value.item() for name, value in out.items()}


@pytest.mark.parametrize("i", range(5))
def test_greeks_through_autograd_against_30_digits(i: int) -> None:
    row = pd.read_csv(REFERENCE / "heston_greeks_computed_mpmath.csv").iloc[i]
    got = greeks(row)
    for name, value in got.items():
        # the table's mixed derivative is a difference quotient: at 30 digits it converges to ours as the bump shrinks
        rel = 1e-6 if name == "d2_S_v0" else 1e-8
        assert value == pytest.approx(float(row[name]), rel=rel, abs=1e-10), name
