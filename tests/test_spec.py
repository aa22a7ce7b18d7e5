"""Text to objects and back: specs, their messages, and fit files."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import torch

from qsde.calibration import Feller, Prior, calibrate
from qsde.calibration.fit import Fit
from qsde.errors import FitStatus, InputError, ParameterError, Reject
from qsde.market.cleaning import CleaningRules
from qsde.market.quotes import Quotes
from qsde.market.surface import Surface
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, MertonJumps
from qsde.spec import (
    MODEL_TEMPLATES,
    CalibrationSpec,
    ContractSpec,
    FitRecord,
    MarketSpec,
    checked,
    dump_fits,
    load_fits,
    model_from,
    parsed,
    spec_of,
    template,
)
from qsde.spec.leveraged import ModelSpec


def small_fit(model: str = "black_scholes", **options: object) -> Fit:
    strike = np.array([80.0, 90.0, 100.0, 110.0, 120.0])
    iv = np.array([0.26, 0.23, 0.2, 0.19, 0.195])
    surface = Surface.from_vols(0.5, strike, iv, 101.0, 0.98, [0.25, 0.22, np.nan, 0.18, 0.19], iv + 0.01,
                                expiry=["2024-06-21"] * 5, underlying="X", quote_time="2024-01-02T21:00")  # fmt: skip
    bad = Quotes.from_frame(pd.DataFrame({"strike": [95.0, 96.0], "bid": [0.0, 2.0], "ask": [1.0, 1.0]}))
    rejected = bad.reject([True, False], Reject.ZERO_BID, "bid is 0").reject([True], Reject.CROSSED, "2 > 1").rejected
    return calibrate(template(model), replace(surface, rejected=rejected, warnings=("thin",)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODEL_TEMPLATES)
def test_model_spec_round_trip(name: str) -> None:
    model = template(name)
    spec = spec_of(model)
    assert spec.model == name
    again = parsed(ModelSpec, spec.model_dump_json()).build()
    assert again.name == model.name
    assert {k: float(v) for k, v in again.params.items()} == {k: float(v) for k, v in model.params.items()}


@pytest.mark.parametrize("name", ["Heston-Kou", "HESTON_KOU", "hestonkou", " heston kou "])
def test_model_names_are_forgiving(name: str) -> None:
    assert template(name).name == "HestonKou"


def test_unknown_model_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"no model is called 'sabr'; choose one of black_scholes, heston"):
        template("sabr")


def test_model_parameters_are_checked_by_name() -> None:
    with pytest.raises(InputError, match=r"kappa: field required.*v1: extra inputs are not permitted"):
        model_from("heston", {"v0": 0.04, "theta": 0.04, "sigma": 0.3, "rho": 0.0, "v1": 1.0})
    with pytest.raises(InputError, match=r"vol: input should be a finite number"):
        model_from("black_scholes", {"vol": math.nan})
    with pytest.raises(ParameterError, match=r"Heston.rho"):
        model_from("heston", {"v0": 0.04, "kappa": 1, "theta": 0.04, "sigma": 0.3, "rho": -1.5})


def test_models_without_text_form_are_refused() -> None:
    stacked = JumpDiffusion(JumpDiffusion(BlackScholes(0.2), MertonJumps.typical()), KouJumps.typical())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no text form"):
        spec_of(stacked)
    with pytest.raises(InputError, match="batch shape"):
        spec_of(BlackScholes(torch.tensor([0.1, 0.2])))


def test_calibration_spec_builds_template_and_arguments() -> None:
    spec = CalibrationSpec(model="bates", fixed={"kappa": 2.5}, bounds={"rho": (-0.9, 0.0)}, feller=0.02,
                           prior={"v0": {"mean": 0.03, "std": 0.01}}, starts=3)  # type: ignore[dict-item] # fmt: skip
    assert float(spec.build_template().params["kappa"]) == 2.5
    arguments = spec.arguments()
    assert arguments["fixed"] == ("kappa",)
    assert arguments["bounds"] == {"rho": (-0.9, 0.0)}
    assert arguments["penalties"] == (Feller(0.02), Prior({"v0": 0.03}, {"v0": 0.01}))
    assert arguments["starts"] == 3
    assert "max_iterations" not in arguments


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "batse"}, "no model is called 'batse'"),
        ({"model": "heston", "weights": "vega"}, "weights: input should be 'spread' or 'equal'"),
        ({"model": "heston", "starts": 0}, "starts: input should be greater than or equal to 1"),
        (
            {"model": "heston", "fixed": {"jump_mean": 1}},
            "fixed: heston has no parameter 'jump_mean'; it has v0",
        ),
        ({"model": "heston", "bounds": {"kappa": (3, 1)}}, "lower bound 3 must be below the upper bound 1"),
        ({"model": "merton", "feller": 0.1}, "merton has no variance process"),
        ({"model": "heston", "prior": {"v0": {"mean": 1, "std": 0}}}, "prior.v0.std: input should be greater than 0"),
    ],
)
def test_calibration_spec_messages(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked(CalibrationSpec, values)


def test_fixed_value_outside_domain() -> None:
    with pytest.raises(ParameterError, match=r"Heston\.kappa"):
        CalibrationSpec(model="heston", fixed={"kappa": -1}).build_template()


def test_market_spec_selects() -> None:
    assert MarketSpec().rules() == CleaningRules()
    rules = MarketSpec(min_days=7, max_days=90, max_deviations=6).rules()
    assert (rules.min_days, rules.max_days, rules.max_deviations) == (7, 90, 6)
    rules = MarketSpec(early_exercise=False, fold=True).rules()
    assert (rules.early_exercise, rules.fold) == (False, True)
    with pytest.raises(ValueError, match="min_days = 7"):
        MarketSpec(min_days=7, max_days=6)


def test_market_spec_curves() -> None:
    market = MarketSpec(rate=0.0, dividend_yield={2.0: 0.03, 1.0: 0.02})
    rate, dividend = market.rate_curve(), market.dividend_curve()
    assert rate is not None
    assert dividend is not None
    assert float(rate.discount(3.0)) == 1.0
    assert float(dividend.zero_rate(1.0)) == pytest.approx(0.02, abs=1e-15)
    assert MarketSpec().rate_curve() is None
    with pytest.raises(InputError, match="not percent"):
        MarketSpec(rate=4.5).rate_curve()
    with pytest.raises(InputError, match="not percent"):
        MarketSpec(rate={1.0: 4.5}).rate_curve()


def test_contract_forward_from_spot_and_dates() -> None:
    start = datetime(2026, 1, 1, 21, tzinfo=UTC)  # 16:00 in New York
    contract = checked(ContractSpec, {"strikes": [100], "expiry": "2027-01-01", "valuation_time": start, "spot": 100.0,
                                      "rate": 0.04, "dividend_yield": 0.01}).build()  # fmt: skip
    assert contract.t == pytest.approx(1.0)
    assert contract.forward == pytest.approx(100 * math.exp(0.03))
    assert contract.discount_factor == pytest.approx(math.exp(-0.04))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strikes": (100.0,), "expiry": 1.0}, "give --forward, or --spot"),
        ({"strikes": (100.0,), "expiry": 1.0, "spot": 1.0, "forward": 1.0}, "not both"),
        ({"strikes": (-1.0,), "expiry": 1.0, "spot": 1.0}, "strikes must be positive"),
        ({"strikes": (1.0,), "expiry": 0.0, "spot": 1.0}, "expiry must lie in the future"),
    ],
)
def test_contract_messages(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked(ContractSpec, values).build()


def test_contract_takes_forward_and_rate_from_a_surface() -> None:
    surface = small_fit().surface
    contract = checked(ContractSpec, {"strikes": (100.0,), "expiry": "2024-06-21"}).build(surface)
    assert contract.t == 0.5
    assert contract.forward == pytest.approx(101.0)
    assert contract.discount_factor == pytest.approx(0.98)


def test_fit_file_round_trip() -> None:
    fit = small_fit("merton", max_iterations=20)
    (again,) = load_fits(dump_fits([fit]))
    assert again.model.name == "Merton"
    assert again.params == fit.params
    assert again.status is fit.status
    for name in ("rmse_bp", "weighted_rmse_bp", "rmse_price", "inside_share", "free", "at_bounds", "iterations",
                 "starts", "starts_agreeing", "seconds", "warnings"):  # fmt: skip
        assert getattr(again, name) == getattr(fit, name), name
    torch.testing.assert_close(again.jacobian, fit.jacobian, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(again.covariance, fit.covariance, rtol=0, atol=0, equal_nan=True)
    pd.testing.assert_frame_equal(again.surface.quotes, fit.surface.quotes, check_dtype=False)
    pd.testing.assert_frame_equal(again.surface.slices, fit.surface.slices, check_dtype=False)
    pd.testing.assert_frame_equal(again.quotes, fit.quotes, check_dtype=False)
    assert again.surface.rejected["reason"].tolist() == ["zero bid", "crossed"]
    assert again.surface.name == fit.surface.name
    assert again.surface.warnings == ("thin",)
    assert dump_fits([again]) == dump_fits([fit])


def test_record_shows_errors_and_status() -> None:
    record = FitRecord.of(replace(small_fit(), status=FitStatus.MAX_ITERATIONS))
    assert record.version == 1
    assert record.status == "max_iterations"
    assert "raise max_iterations" in record.status_text
    assert record.build().status is FitStatus.MAX_ITERATIONS
    assert list(record.std_errors) == ["vol"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "fit.json: invalid JSON"),
        ("[1]", "fit.json: input should be an object"),
        ('{"fits": [{"version": 2}]}', "fits.0.version: input should be 1"),
        ('{"fits": [{"model": {"model": "sabr"}}]}', "fits.0.model"),
    ],
)
def test_fit_file_messages(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_fits(text, "fit.json")


def test_heston_template_is_the_typical_one() -> None:
    assert spec_of(template("heston")) == spec_of(Heston.typical())


def test_a_fit_keeps_its_objective_and_penalties_in_a_file() -> None:
    surface = Surface.from_vols(0.5, np.array([90.0, 100.0, 110.0]), np.array([0.22, 0.2, 0.19]), forward=100.0)
    penalties = (Feller(0.02), Prior({"kappa": 2.0}, {"kappa": 1.0}))
    fit = calibrate(Heston.typical(), surface, penalties=penalties, objective="price", starts=1)
    back = load_fits(dump_fits([fit]))[0]
    assert back.objective == "price"
    assert back.penalties == penalties
