"""Pricing requests: payoffs as text and back, engines, markets, and the place that every message names."""

import json
import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from qsde import payoffs
from qsde.calibration.fit import Fit
from qsde.errors import FitStatus, InputError
from qsde.market.black import black_price
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Model
from qsde.noise import Antithetic, Sobol, Threefry
from qsde.payoffs import Asian, Bermudan, European, PathFunction, Terminal
from qsde.pricing.american import price_early
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.pricing.price import price as choose_and_price
from qsde.schemes import Correlated, LogEuler, WithJumps
from qsde.spec import (
    PAYOFFS,
    MonteCarloSpec,
    PriceRequest,
    PriceResult,
    UnderlyingSpec,
    checked,
    parsed,
    payoff_from,
    payoff_spec,
    spec_of,
    template,
)
from qsde.spec.payoffs import AnyPayoffSpec, NoTextForm, wire_type

QUARTERS = [0.25, 0.5, 0.75, 1.0]
#: Two contracts of every class: as few words as possible, and all that there are.
CONTRACTS: list[dict[str, Any]] = [
    {"type": "european", "strike": 100.0, "expiry": 1.0},
    {"type": "european", "strike": 90.0, "expiry": 0.5, "kind": "put"},
    {"type": "digital", "strike": 100.0, "expiry": 1.0},
    {"type": "digital", "strike": 100.0, "expiry": 1.0, "kind": "put", "cash": 10.0},
    {"type": "asset_digital", "strike": 100.0, "expiry": 1.0},
    {"type": "asset_digital", "strike": 100.0, "expiry": 1.0, "kind": "put"},
    {"type": "gap", "strike": 100.0, "trigger": 105.0, "expiry": 1.0},
    {"type": "gap", "strike": 100.0, "trigger": 95.0, "expiry": 1.0, "kind": "put"},
    {"type": "asian", "strike": 100.0, "fixings": QUARTERS},
    {"type": "asian", "strike": 100.0, "fixings": QUARTERS, "kind": "put", "average": "geometric", "expiry": 1.1,
     "past": [99.0, 101.0]},
    {"type": "average_strike", "fixings": QUARTERS},
    {"type": "average_strike", "fixings": QUARTERS, "kind": "put", "average": "geometric", "expiry": 1.5,
     "past": [99.0]},
    {"type": "forward_start", "start": 0.5, "expiry": 1.0},
    {"type": "forward_start", "start": 0.5, "expiry": 1.0, "moneyness": 0.9, "kind": "put", "pays": "return"},
    {"type": "cliquet", "resets": [0.0, *QUARTERS]},
    {"type": "cliquet", "resets": QUARTERS, "local_floor": -0.1, "local_cap": 0.1, "global_floor": 0.0,
     "global_cap": 0.3, "notional": 1000.0},
    {"type": "autocallable", "observations": [1.0, 2.0], "initial": 100.0, "coupon": 0.05},
    {"type": "autocallable", "observations": [1.0, 2.0], "initial": 100.0, "coupon": 0.05,
     "autocall_barrier": [1.0, 0.95], "coupon_barrier": 0.7, "memory": True, "knock_in": 0.6, "knock_in_dates": [2.0],
     "strike": 1.0, "notional": 1000.0},
    {"type": "variance_swap", "strike": 0.04, "observations": QUARTERS},
    {"type": "variance_swap", "strike": 0.04, "observations": QUARTERS, "notional": 5.0, "periods_per_year": 4.0},
    {"type": "volatility_swap", "strike": 0.2, "observations": QUARTERS},
    {"type": "volatility_swap", "strike": 0.2, "observations": QUARTERS, "notional": 5.0, "periods_per_year": 4.0},
    {"type": "variance_option", "strike": 0.04, "observations": QUARTERS},
    {"type": "variance_option", "strike": 0.04, "observations": QUARTERS, "kind": "put", "notional": 5.0,
     "periods_per_year": 4.0},
    {"type": "barrier", "strike": 100.0, "barrier": 120.0, "expiry": 1.0, "style": "up-and-out"},
    {"type": "barrier", "strike": 100.0, "barrier": 80.0, "expiry": 1.0, "style": "down-and-in", "kind": "put",
     "rebate": 2.0, "rebate_at": "expiry", "monitoring": QUARTERS},
    {"type": "double_barrier", "strike": 100.0, "lower": 80.0, "upper": 120.0, "expiry": 1.0, "style": "knock-out"},
    {"type": "double_barrier", "strike": 100.0, "lower": 80.0, "upper": 120.0, "expiry": 1.0, "style": "knock-in",
     "kind": "put", "rebate": 2.0, "rebate_at": "expiry", "monitoring": QUARTERS},
    {"type": "one_touch", "expiry": 1.0, "upper": 120.0},
    {"type": "one_touch", "expiry": 1.0, "lower": 80.0, "pays": "asset", "pay_at": "expiry", "monitoring": QUARTERS},
    {"type": "no_touch", "expiry": 1.0, "lower": 80.0, "upper": 120.0},
    {"type": "no_touch", "expiry": 1.0, "lower": 80.0, "cash": 10.0, "monitoring": QUARTERS},
    {"type": "fixed_lookback", "strike": 100.0, "expiry": 1.0},
    {"type": "fixed_lookback", "strike": 100.0, "expiry": 1.0, "kind": "put", "start": 0.5},
    {"type": "floating_lookback", "expiry": 1.0},
    {"type": "floating_lookback", "expiry": 1.0, "kind": "put", "extreme": 110.0, "monitoring": QUARTERS},
    {"type": "american", "strike": 100.0, "expiry": 1.0},
    {"type": "american", "strike": 100.0, "expiry": 1.0, "kind": "call", "dates_per_year": 12.0},
    {"type": "american_barrier", "strike": 100.0, "barrier": 120.0, "expiry": 1.0, "style": "up-and-out"},
    {"type": "american_barrier", "strike": 100.0, "barrier": 80.0, "expiry": 1.0, "style": "down-and-in", "kind": "put",
     "dates_per_year": 12.0},
    {"type": "bermudan", "strike": 100.0, "dates": QUARTERS},
    {"type": "bermudan", "strike": 100.0, "dates": QUARTERS, "kind": "call"},
    {"type": "exercisable", "dates": QUARTERS,
     "payoff": {"type": "digital", "strike": 100.0, "expiry": 1.0, "kind": "put", "cash": 10.0}},
    {"type": "exercisable", "dates": QUARTERS,
     "payoff": {"type": "best_of", "weights": [1.0, 1.0], "strike": 100.0, "expiry": 1.0, "kind": "call"}},
    {"type": "basket", "weights": [0.5, 0.5], "strike": 100.0, "expiry": 1.0},
    {"type": "basket", "weights": [1.0, -1.0, 0.5], "strike": 0.0, "expiry": 1.0, "kind": "put"},
    {"type": "spread", "strike": 5.0, "expiry": 1.0},
    {"type": "spread", "strike": -5.0, "expiry": 1.0, "kind": "put"},
    {"type": "best_of", "weights": [1.0, 1.0], "strike": 100.0, "expiry": 1.0},
    {"type": "best_of", "weights": [1.0, 2.0], "strike": 100.0, "expiry": 1.0, "kind": "put"},
    {"type": "worst_of", "weights": [1.0, 1.0], "strike": 100.0, "expiry": 1.0},
    {"type": "worst_of", "weights": [1.0, 2.0], "strike": 100.0, "expiry": 1.0, "kind": "put"},
]  # fmt: skip
FLAT = {"model": "black_scholes", "vol": 0.2}
HESTON = {"model": "heston", "v0": 0.04, "kappa": 1.5, "theta": 0.05, "sigma": 0.4, "rho": -0.7}
CALL = {"type": "european", "strike": 100.0, "expiry": 1.0}
#: Two underlyings and the right to exchange them.
PAIR = {"model": {"model": "multi_asset", "models": [FLAT, {**FLAT, "vol": 0.3}], "correlation": [[1, 0.5], [0.5, 1]]},
        "market": [{"spot": 100.0, "rate": 0.03}, {"spot": 95.0, "rate": 0.03, "dividend_yield": 0.02}],
        "payoffs": [{"type": "spread", "strike": 0.0, "expiry": 1.0}]}  # fmt: skip


def request(**changes: Any) -> dict[str, Any]:
    plain = {"model": HESTON, "market": {"spot": 100.0, "rate": 0.03}, "payoffs": [CALL],
             "engine": {"type": "monte_carlo", "paths": 1024, "max_dt": 0.25}}  # fmt: skip
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}  # None leaves it out


def refused(**changes: Any) -> str:
    """The message of a request that cannot be built."""
    with pytest.raises(InputError) as caught:
        parsed(PriceRequest, json.dumps(request(**changes))).build()
    return str(caught.value)


def answer(**changes: Any) -> PriceResult:
    wanted = parsed(PriceRequest, json.dumps(request(**changes)))
    return PriceResult.of(wanted, wanted.build())


def test_every_payoff_has_two_contracts_here_but_functions() -> None:
    assert {terms["type"] for terms in CONTRACTS} == set(PAYOFFS)
    public = {name for name in payoffs.__all__ if isinstance(getattr(payoffs, name), type)}
    left = public - {payoff.__name__ for payoff in PAYOFFS.values()}
    assert left == {
        "AtExpiry",
        "Claim",
        "EarlyExercise",
        "Flows",
        "PathFunction",
        "Paths",
        "Payoff",
        "Terminal",
        "Watched",
    }


@pytest.mark.parametrize("terms", CONTRACTS, ids=lambda terms: terms["type"])
def test_payoffs_survive_the_way_to_text_and_back(terms: dict[str, Any]) -> None:
    payoff = payoff_from(terms)
    assert type(payoff) is PAYOFFS[terms["type"]]
    text = json.dumps(payoff_spec(payoff))
    assert terms.items() <= json.loads(text).items()
    assert parsed(AnyPayoffSpec, text).build() == payoff


@pytest.mark.parametrize("terms", CONTRACTS, ids=lambda terms: terms["type"])
def test_no_contract_takes_what_is_no_number(terms: dict[str, Any]) -> None:
    for name, value in terms.items():
        if isinstance(value, float):
            for bad in (math.nan, math.inf, "1", True, [[1.0]]):
                with pytest.raises(InputError, match=rf"\b{name}\b"):
                    payoff_from({**terms, name: bad})
        with pytest.raises(InputError, match=r"extra inputs are not permitted"):
            payoff_from({**terms, name + "s": value})


def test_tensors_become_numbers() -> None:
    option = Asian(strike=torch.tensor(95.0, dtype=torch.float64, requires_grad=True), fixings=[0.5, 1.0])
    assert payoff_spec(option)["strike"] == 95.0
    with pytest.raises(InputError, match="strike must be one number"):
        payoff_spec(European(torch.tensor([90.0, 95.0]), expiry=1.0))


def test_functions_have_no_text_form() -> None:
    with pytest.raises(InputError, match=r"PathFunction has no text form; american, .*european"):
        payoff_spec(PathFunction((1.0,), lambda s: s[..., -1]))
    with pytest.raises(NoTextForm, match=r"dict.* has no text form"):
        wire_type(dict[str, float])


def test_a_payoff_may_hold_another() -> None:
    held = TypeAdapter(wire_type(Terminal))
    assert held.validate_python({**CALL, "strike": 90.0}).build() == European(90.0, 1.0)
    with pytest.raises(ValidationError, match="barrier"):  # not paid by the prices at dates alone
        held.validate_python(next(terms for terms in CONTRACTS if terms["type"] == "barrier"))


def test_schema_says_what_a_payoff_is() -> None:
    schema = TypeAdapter(AnyPayoffSpec).json_schema()
    assert set(schema["discriminator"]["mapping"]) == set(PAYOFFS)
    european = schema["$defs"]["EuropeanSpec"]
    assert european["properties"]["kind"]["enum"] == ["call", "put"]
    assert set(european["required"]) == {"strike", "expiry"}
    assert "call" in european["description"]
    for kind in (PriceRequest, PriceResult):
        assert "AsianSpec" in kind.model_json_schema(mode="serialization")["$defs"]


@pytest.mark.parametrize(("name", "noise"), [("threefry", Threefry(5)), ("sobol", Sobol(5)),
                                             ("antithetic", Antithetic(Threefry(5)))])  # fmt: skip
def test_engine_spec_builds_the_engine(name: str, noise: object) -> None:
    values = {"type": "monte_carlo", "paths": 512, "max_dt": 0.5, "seed": 5, "noise": name, "dtype": "float32",
              "control_variate": False, "conditional": False, "compile": "never"}  # fmt: skip
    engine = checked(MonteCarloSpec, values).build(template("heston"))
    assert engine == MonteCarlo(
        512, 0.5, noise=noise, dtype=torch.float32, control_variate=False, conditional=False, compile="never"
    )  # type: ignore[arg-type]


def test_engine_spec_has_the_defaults_of_the_engine() -> None:
    assert MonteCarloSpec().build(template("heston")) == MonteCarlo()


def test_scheme_by_name_gets_the_jumps_of_the_model() -> None:
    named = MonteCarloSpec(scheme="log_euler")
    assert named.build(template("heston")).scheme == LogEuler()
    bates = named.build(template("bates")).scheme
    assert isinstance(bates, WithJumps)
    assert bates.diffusion == LogEuler()
    with pytest.raises(InputError, match="use HestonQE"):
        MonteCarloSpec(scheme="exact").build(template("heston"))


def test_market_spec_builds_the_market() -> None:
    dividends = [{"type": "cash", "time": 0.5, "amount": 2.0}, {"type": "proportional", "time": 0.9, "fraction": 0.01}]
    spec = checked(UnderlyingSpec, {"spot": 100, "rate": {"1": 0.02, "2": 0.03}, "dividend_yield": 0.01,
                                    "dividends": dividends})  # fmt: skip
    market = spec.build()
    assert market.dividends == (CashDividend(0.5, 2.0), ProportionalDividend(0.9, 0.01))
    plain = Market(100.0, dividend_yield=0.01, dividends=market.dividends)
    assert float(market.discount(2.0)) == pytest.approx(math.exp(-0.06), rel=1e-14)
    assert float(market.forward(0.4)) == pytest.approx(float(plain.forward(0.4)) * math.exp(0.4 * 0.02), rel=1e-14)


def test_simulation_is_the_one_of_the_library() -> None:
    terms = [CALL, {"type": "asian", "strike": 95.0, "fixings": QUARTERS, "kind": "put"}]
    found = answer(payoffs=terms, engine={"type": "monte_carlo", "paths": 1024, "max_dt": 0.25, "seed": 3})
    ours = price(template("heston").with_params({k: torch.tensor(v, dtype=torch.float64) for k, v in HESTON.items()
                                                 if k != "model"}),
                 [European(100.0, 1.0), Asian(95.0, QUARTERS, "put")], Market(100.0, rate=0.03),
                 MonteCarlo(1024, 0.25, noise=Threefry(3)))  # fmt: skip
    assert [p.value for p in found.payoffs] == ours.value.tolist()
    assert [p.std_error for p in found.payoffs] == ours.std_error.tolist()
    assert [p.type for p in found.payoffs] == ["european", "asian"]
    assert [p.variance_ratio for p in found.payoffs] == ours.variance_ratio.tolist()
    assert found.n_paths == 1024


def test_fourier_is_the_one_of_the_library_and_of_black() -> None:
    terms = [{**CALL, "strike": 90.0, "kind": "put"}, {**CALL, "expiry": 2.0}]
    market = {"spot": 100.0, "rate": 0.03, "dividends": [{"type": "cash", "time": 1.5, "amount": 4.0}]}
    found = answer(payoffs=terms, market=market, engine={"type": "fourier"})
    heston = parsed(PriceRequest, json.dumps(request())).build().model
    forward = (100 - 4 * math.exp(-0.045)) * math.exp(0.06)
    wanted = [price_european(heston, 90.0, 1.0, 100 * math.exp(0.03), math.exp(-0.03), False),
              price_european(heston, 100.0, 2.0, forward, math.exp(-0.06))]  # fmt: skip
    assert [p.value for p in found.payoffs] == pytest.approx([float(w.value) for w in wanted], rel=1e-12)
    assert all(p.std_error is None and 0 < (p.numerical_error or 0) < 1e-10 for p in found.payoffs)
    assert found.n_paths is None
    flat = answer(model={"model": "black_scholes", "vol": 0.2}, engine={"type": "fourier"}).payoffs[0].value
    black = float(black_price(100 * math.exp(0.03), 100.0, 1.0, 0.2, math.exp(-0.03), True))
    assert flat == pytest.approx(black, rel=1e-12)


def test_both_engines_agree() -> None:
    terms = [CALL, {**CALL, "strike": 110.0, "kind": "put"}]
    simulated = answer(payoffs=terms, engine={"type": "monte_carlo", "paths": 1 << 14, "max_dt": 0.125})
    exact = answer(payoffs=terms, engine={"type": "fourier"})
    for a, b in zip(simulated.payoffs, exact.payoffs, strict=True):
        assert abs(a.value - b.value) < 4 * (a.std_error or 0)


def test_without_an_engine_the_library_chooses_for_each_payoff() -> None:
    terms = [{"type": "asian", "strike": 95.0, "fixings": QUARTERS}, CALL]
    found = answer(payoffs=terms, model=FLAT, engine=None)
    ours = choose_and_price(BlackScholes(0.2), [Asian(95.0, QUARTERS), European(100.0, 1.0)], Market(100.0, rate=0.03))
    assert [p.method for p in found.payoffs] == list(ours.methods) == ["monte_carlo", "fourier"]
    assert [p.value for p in found.payoffs] == ours.value.tolist()
    assert found.n_paths == MonteCarlo().n_paths
    assert (found.payoffs[0].numerical_error, found.payoffs[1].std_error) == (None, None)
    assert found.request.engine.type == "auto"
    assert parsed(PriceResult, found.model_dump_json()) == found
    few = answer(payoffs=terms, model=FLAT, engine={"type": "auto", "paths": 256, "seed": 3})
    plain = answer(payoffs=terms, model=FLAT, engine={"type": "monte_carlo", "paths": 256, "seed": 3})
    assert few.payoffs == [plain.payoffs[0], found.payoffs[1]]


def test_the_answer_repeats_the_request_and_gives_the_digits_again() -> None:
    first = answer(engine={"type": "monte_carlo", "paths": 256, "noise": "antithetic", "seed": 9})
    again = parsed(PriceResult, first.model_dump_json())
    assert again == first
    second = PriceResult.of(again.request, again.request.build())
    assert second.payoffs == first.payoffs
    assert second.model == first.model


def test_several_underlyings_have_a_market_each() -> None:
    found = answer(**PAIR, engine={"type": "monte_carlo", "paths": 1 << 14})
    vol = math.sqrt(0.2**2 + 0.3**2 - 2 * 0.5 * 0.2 * 0.3)
    margrabe = float(black_price(100.0, 95.0 * math.exp(-0.02), 1.0, vol, 1.0, True))
    assert abs(found.payoffs[0].value - margrabe) < 4 * (found.payoffs[0].std_error or 0)
    assert parsed(PriceResult, found.model_dump_json()) == found
    assert found.model == found.request.model


def test_schemes_by_name_step_every_underlying() -> None:
    job = parsed(
        PriceRequest, json.dumps(request(**PAIR, engine={"type": "monte_carlo", "scheme": "log_euler"}))
    ).build()
    assert isinstance(job.engine, MonteCarlo)
    assert isinstance(job.engine.scheme, Correlated)
    assert job.engine.scheme.schemes == (LogEuler(), LogEuler())
    job.engine.scheme.check(job.model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"market": {"spot": 100.0}},
            "market: give one for each underlying of MultiAsset(BlackScholes, BlackScholes), ",
        ),
        ({"model": FLAT}, "market: give one for each underlying of BlackScholes, 1 in all, not 2"),
        ({"payoffs": [CALL]}, "payoffs.0: european takes the prices of 1, MultiAsset(BlackScholes, BlackScho"),
        ({"market": [{"spot": 100.0}]}, "market: give one for each underlying of MultiAsset(B"),
        ({"market": [{"spot": 100.0}, {"spot": -1}]}, "market.1.spot: input should be greater than 0 (got -1)"),
        ({"market": [{"spot": 100.0}, {"rate": 0.1}]}, "market.1.spot: field required"),
        ({"market": [{"spot": 100.0}, {"spot": 50.0, "rate": 5}]}, "market.1.rate: is 5, 500% a year"),
        ({"market": [{"spot": 100.0}, {"spot": 50.0, "rate": 0.1}]}, "market: markets[1] discounts at another rate"),
        ({"model": {**PAIR["model"], "correlation": [[1, 2], [2, 1]]}}, "model: MultiAsset: correlation"),
        ({"model": {**PAIR["model"], "correlation": [[1, 0], [0]]}}, "model.correlation: must be a square matrix"),
        ({"model": {**PAIR["model"], "correlation": [[1, 0, 0], [0, 1, 0]]}}, "model.correlation: must be a square ma"),
        ({"model": {**PAIR["model"], "models": [FLAT, {**FLAT, "vol": -1}]}}, "model.models.1: BlackScholes.vol"),
        ({"model": {**PAIR["model"], "models": [FLAT, {"model": "heston"}]}}, "model.models.1.v0: field required"),
    ],
)
def test_messages_about_several_underlyings(changes: dict[str, Any], message: str) -> None:
    assert refused(**{**PAIR, **changes}).removeprefix("JSON: ").startswith(message)


def test_rights_to_exercise_come_with_an_upper_bound() -> None:
    put = {"type": "bermudan", "strike": 40.0, "dates": [0.25, 0.5, 0.75, 1.0]}
    terms = [put, {**CALL, "strike": 40.0, "kind": "put"}, put]
    market = {"spot": 36.0, "rate": 0.06}
    seen: list[tuple[int, int]] = []
    engine = {"type": "monte_carlo", "paths": 1 << 13, "max_dt": 0.25}
    wanted = PriceRequest.model_validate(request(model=FLAT, market=market, payoffs=terms, engine=engine))
    found = PriceResult.of(wanted, wanted.build(), lambda done, total: seen.append((done, total)))
    first, european, second = found.payoffs
    assert first == second  # each right has paths of its own, the same ones
    assert [p.type for p in found.payoffs] == ["bermudan", "european", "bermudan"]
    assert first.upper is not None
    errors = 4 * (first.std_error or 0) + 4 * (first.upper_std_error or 0)
    assert abs(first.upper - first.value) < errors < 0.3
    assert 3.844 < first.value < 4.478 + errors  # European; American, by Longstaff and Schwartz (2001)
    assert 0.5 < (first.exercise_probability or 0) < 1
    assert european.upper is None
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    alone = price_early(BlackScholes(0.2), Bermudan(40.0, (0.25, 0.5, 0.75, 1.0)), Market(36.0, rate=0.06),
                        MonteCarlo(1 << 13, 0.25))  # fmt: skip
    assert first.value == float(alone.value)
    assert first.upper == float(alone.upper)


def test_upper_bounds_can_be_left_out() -> None:
    engine = {"type": "monte_carlo", "paths": 256, "least_squares": {"outer": 0, "degree": 2}}
    (found,) = answer(model=FLAT, payoffs=[{"type": "american", "strike": 100.0, "expiry": 1.0}], engine=engine).payoffs
    assert found.upper is None
    assert found.upper_std_error is None


def fitted(model: Model, spot: float = math.nan) -> Fit:
    """A fit of one model to two expiries; forward and rate of both are the point here."""
    surface = Surface.from_vols([0.5, 0.5, 1.0, 1.0], [90.0, 110.0, 90.0, 110.0], 0.2, [101.0, 101.0, 103.0, 103.0],
                                [0.98, 0.98, 0.95, 0.95], spot=spot)  # fmt: skip
    none = torch.zeros(4, 0)
    vol = surface.quotes["iv"].to_numpy()
    return Fit(model=model, surface=surface, status=FitStatus.CONVERGED, model_iv=vol, weight=vol, free=(),
               jacobian=none, covariance=none, at_bounds=(), iterations=1, starts=1, starts_agreeing=1,
               seconds=0.0)  # fmt: skip


def test_a_fit_gives_model_and_market() -> None:
    wanted = PriceRequest.model_validate(request(model=None, fit={"file": "a.json"}, market={}))
    job = wanted.build(lambda name: [fitted(BlackScholes(0.2), spot=100.0)])
    assert job.market.forward([0.5, 1.0]).tolist() == pytest.approx([101.0, 103.0], rel=1e-14)
    assert job.market.discount([0.5, 1.0]).tolist() == pytest.approx([0.98, 0.95], rel=1e-14)
    assert float(job.market.spot) == 100.0
    assert spec_of(job.model).model == "black_scholes"


def test_own_spot_and_curves_win_over_those_of_the_fit() -> None:
    def market(**given: Any) -> Market:
        wanted = PriceRequest.model_validate(request(model=None, fit={"file": "a.json"}, market=given))
        return wanted.build(lambda name: [fitted(BlackScholes(0.2), spot=100.0)]).market

    assert float(market(spot=50.0).forward(1.0)) == pytest.approx(51.5, rel=1e-14)
    assert float(market(rate=0.0).discount(1.0)) == 1.0
    assert float(market(rate=0.0, dividend_yield=0.0).forward(1.0)) == 100.0
    dividend = {"type": "cash", "time": 0.4, "amount": 1.0}
    assert float(market(rate=0, dividend_yield=0, dividends=[dividend]).forward(1.0)) == 99.0
    with pytest.raises(InputError, match=r"market.dividends: the forwards of the fit contain all dividends already"):
        market(dividends=[dividend])


def test_fits_are_chosen_by_name_and_files_are_not_read_by_themselves() -> None:
    def build(**fit: str) -> Any:
        wanted = PriceRequest.model_validate(request(model=None, fit={"file": "a.json", **fit}))
        return wanted.build(lambda name: [fitted(BlackScholes(0.2)), fitted(template("heston"))])

    assert build(model="Heston").model.name == "Heston"
    with pytest.raises(InputError, match=r"^fit: a.json holds the fits black_scholes, heston: choose with model$"):
        build()
    assert "no files are read here" in refused(model=None, fit={"file": "/etc/passwd"})


def test_a_fit_without_a_spot_needs_one() -> None:
    wanted = PriceRequest.model_validate(request(model=None, fit={"file": "a.json"}, market={}))
    with pytest.raises(InputError, match=r"^market.spot: field required, since the quotes of the fit came without one"):
        wanted.build(lambda name: [fitted(BlackScholes(0.2))])


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"strike": -100.0}, "payoffs.1.strike: must be positive and finite, got -100.0"),
        ({"strike": math.nan}, "payoffs.1.strike: input should be a finite number"),
        ({"strike": None}, "payoffs.1.strike: input should be a valid number"),
        ({"kind": "Call"}, "payoffs.1.kind: input should be 'call' or 'put' (got 'Call')"),
        ({"expiry": 0.0}, "payoffs.1.expiry: must be positive and finite, got 0.0"),
        ({"expiry": 365.0}, "payoffs.1: ends in 365 years: times are years, not days"),
        ({"type": "swaption"}, "payoffs.1.type: 'swaption' is unknown; choose one of american, "),
        ({"type": "asian", "expiry": "soon"}, "payoffs.1.fixings: field required; payoffs.1.expiry: input should be"),
        ({"type": "average_strike", "strike": 1.0}, "payoffs.1.strike: extra inputs are not permitted (got 1.0)"),
    ],
)
def test_messages_name_payoff_and_field(terms: dict[str, Any], message: str) -> None:
    assert message in refused(payoffs=[CALL, {**CALL, **terms}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payoffs": []}, "payoffs: needs at least 1, has 0"),
        ({"payoffs": [{"strike": 100.0, "expiry": 1.0}]}, "payoffs.0.type: field required"),
        ({"payoffs": [5]}, "payoffs.0: input should be an object (got 5)"),
        ({"payoffs": [{"type": "asian", "strike": 100.0, "fixings": [0.5, 0.25]}]}, "payoffs.0.fixings: times must in"),
        ({"payoffs": [{"type": "asian", "strike": 100.0, "fixings": [0.5, "x"]}]}, "payoffs.0.fixings.1: input should"),
        ({"payoffs": [{"type": "asian", "strike": 100.0, "fixings": [i / 1e4 for i in range(1, 20_000)]}]},
         "payoffs.0.fixings: has 19999 items, at most 16384 are allowed"),
        ({"payoffs": [{"type": "barrier", "strike": 100.0, "barrier": 90.0, "expiry": 1.0, "style": "up-and-out"}]},
         "payoffs.0.barrier: 90.0 lies at or below the spot 100 (up-and-out): the option is already knocked out"),
        ({"payoffs": [{"type": "barrier", "strike": 1.0, "barrier": True, "expiry": 1.0, "style": "up-and-in"}]},
         "payoffs.0.barrier: input should be a valid number (got True)"),
        ({"payoffs": [CALL] * 10_001}, "payoffs: has 10001 items, at most 10000 are allowed"),
        ({"model": None}, "give a model or a fit, one of the two"),
        ({"fit": {"file": "a.json"}}, "give a model or a fit, one of the two"),
        ({"model": {**HESTON, "rho": -1.5}}, "model: Heston.rho (correlation of spot and variance) must be from -1"),
        ({"model": {**HESTON, "model": "sabr"}}, "model.model: 'sabr' is unknown; choose one of black_scholes, heston"),
        ({"model": {"model": "heston", "v0": 0.04}}, "model.kappa: field required; model.theta: field required"),
        ({"market": {}}, "market.spot: field required"),
        ({"market": {"spot": 0}}, "market.spot: input should be greater than 0 (got 0)"),
        ({"market": {"spot": 100, "rate": 5}}, "market.rate: is 5, 500% a year: rates are decimals"),
        ({"market": {"spot": 100, "rate": {"a": 0.02}}}, "market.rate.a: input should be a valid number"),
        ({"market": {"spot": 100, "rate": {"0": 0.02, "1": 0.02}}}, "market.rate: pillars must be positive and"),
        ({"market": {"spot": 100, "dividends": [{"type": "cash", "time": -1, "amount": 1}]}},
         "market.dividends.0.time: must be positive and finite"),
        ({"market": {"spot": 100, "dividends": [{"type": "cash", "time": 1, "amount": 200}]}},
         "market.dividends: the cash dividends are worth 200 today"),
        ({"market": {"spot": 100, "dividends": [{"type": "proportional", "time": 1, "fraction": 2}]}},
         "market.dividends.0.fraction: must lie in [0, 1), got 2.0"),
        ({"market": {"spot": 100, "dividends": [{"type": "bonus"}]}}, "market.dividends.0.type: 'bonus' is unknown; "),
        ({"engine": {"type": "pde"}}, "engine.type: 'pde' is unknown; choose one of auto, monte_carlo, fourier"),
        ({"engine": {"type": "monte_carlo", "device": "tpu"}}, "engine.device: choose cpu, cuda or one of several"),
        ({"engine": {"type": "monte_carlo", "device": "cuda:99"}}, "engine.device: 'cuda:99' is not there"),
        ({"engine": {"type": "monte_carlo", "paths": 1}}, "engine.paths: input should be greater than or equal to 2"),
        ({"engine": {"type": "monte_carlo", "max_dt": 0}}, "engine.max_dt: input should be greater than 0"),
        ({"engine": {"type": "monte_carlo", "seed": -1}}, "engine.seed: input should be greater than or equal to 0"),
        ({"engine": {"type": "monte_carlo", "scheme": "rk4"}}, "engine.scheme: choose one of exact, log_euler, milste"),
        ({"engine": {"type": "monte_carlo", "scheme": "exact"}}, "engine: Exact steps a BlackScholes, got Heston"),
        ({"engine": {"type": "monte_carlo", "least_squares": {"inner": 48}}},
         "engine.least_squares.inner: must be a power of 2, at least 2, got 48"),
        ({"engine": {"type": "fourier", "paths": 5}}, "engine.paths: extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_messages_name_the_place(changes: dict[str, Any], message: str) -> None:
    assert refused(**changes).startswith((message, "JSON: " + message))


def test_fourier_refuses_what_it_cannot_price() -> None:
    asian = {"type": "asian", "strike": 95.0, "fixings": QUARTERS}
    with pytest.raises(InputError, match=r"payoffs.1: an arithmetic .*; use \{\"type\": \"monte_carlo\"\}"):
        answer(payoffs=[CALL, asian], engine={"type": "fourier"})
    early = {"type": "american", "strike": 95.0, "expiry": 1.0}
    with pytest.raises(InputError, match=r"payoffs.0: American has no exact price under Heston, only .*; use"):
        answer(model=HESTON, payoffs=[early], engine={"type": "fourier"})
    (found,) = answer(
        model=FLAT, market={"spot": 100.0, "rate": 0.05}, payoffs=[early], engine={"type": "auto"}
    ).payoffs
    assert (found.method, found.std_error, found.upper) == ("boundary", None, None)
    assert found.numerical_error is not None


def test_more_than_a_million_steps_are_refused() -> None:
    with pytest.raises(InputError, match="1,048,576 steps"):
        answer(engine={"type": "monte_carlo", "max_dt": 9e-7})
