"""Training of neural leverage: what it fits, that its parts are right, and that it can be stopped and repeated."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from qsde.calibration import Round, calibrate, neural_local_vol, neural_lsv, neural_sv, train
from qsde.calibration.training import _Job
from qsde.calibration.training_paths import Quoted, QuotedPaths
from qsde.calibration.training_start import at_the_money, term_structure
from qsde.errors import FileFormatError, InputError, QuoteError
from qsde.market.surface import Surface
from qsde.models import BlackScholes, GridLeverage, Heston, bates, leveraged
from qsde.noise import Sobol, Threefry
from qsde.pricing.engine import MonteCarlo
from qsde.pricing.fourier import model_vols

TRUTH = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.5, rho=-0.7)
ENGINE = MonteCarlo(n_paths=1 << 11, max_dt=1 / 16, noise=Sobol(0, scrambles=4))


def quoted_by(model: Heston, expiries: tuple[float, ...] = (0.25, 0.5, 1.0), strikes: int = 7) -> Surface:
    """Vols of a model within 1.5 deviations, with a spread of 10 bp."""
    t = np.repeat(expiries, strikes)
    k = np.exp(np.tile(np.linspace(-1.5, 1.2, strikes), len(expiries)) * 0.2 * np.sqrt(t))
    vol = np.concatenate(
        [model_vols(model, torch.tensor(x), torch.tensor(k[t == x]), 1.0).flatten().numpy() for x in expiries]
    )
    return Surface.from_vols(t, k, vol, 1.0, 1.0, vol - 0.0005, vol + 0.0005)


SURFACE = quoted_by(TRUTH)
#: A start far from the quotes.
FLAT = GridLeverage([0.0], [0.0], [[1.0]])


@pytest.mark.parametrize(
    "model",
    [
        leveraged(BlackScholes(0.2), GridLeverage([0.5], [-0.2, 0.2], [[1.2, 0.9]])),
        leveraged(TRUTH, GridLeverage([0.5], [-0.2, 0.2], [[1.1, 0.9]])),
        leveraged(bates(0.03, 1.5, 0.04, 0.4, -0.6, 0.3, -0.1, 0.1), GridLeverage([0.5], [-0.2, 0.2], [[1.1, 0.9]])),
    ],
    ids=["local_vol", "heston", "bates"],
)
def test_jacobian_is_that_of_differences(model: BlackScholes) -> None:
    quoted = Quoted.of(SURFACE)
    paths = QuotedPaths(quoted, model, MonteCarlo(n_paths=1 << 10, max_dt=1 / 8))
    paths._control = None  # whose regression moves
    none = torch.zeros(len(SURFACE), dtype=torch.float64)
    found = paths.jacobian(model, ["leverage.values"], none)
    values = model.params["leverage.values"]
    for i in range(values.numel()):
        h = 1e-5 * torch.nn.functional.one_hot(torch.tensor(i), values.numel()).view_as(values)
        up, down = (paths._simulation(model.with_params({"leverage.values": v})) for v in (values + h, values - h))
        both = [
            torch.cat([paths._payoff(rows, x[e]).mean(-1) for e, rows in enumerate(paths.rows)])
            for x in (s.block(0).states[0] for s in (up, down))
        ]
        assert torch.allclose(found[:, i], (both[0] - both[1]) / 2e-5, rtol=1e-3, atol=1e-6)


def test_jacobian_to_the_backbone_has_the_start_and_refuses_intensities() -> None:
    """The variance today moves paths without a coefficient of any step."""
    model = leveraged(TRUTH, GridLeverage([0.5], [-0.2, 0.2], [[1.1, 0.9]]))
    paths = QuotedPaths(Quoted.of(SURFACE), model, MonteCarlo(n_paths=1 << 10, max_dt=1 / 8))
    paths._control = None
    names = ["v0", "kappa", "leverage.values"]
    found = paths.jacobian(model, names, torch.zeros(len(SURFACE), dtype=torch.float64))
    for i, name in enumerate(names[:2]):
        at = model.params[name]
        both = [
            torch.cat([paths._payoff(rows, x[e]).mean(-1) for e, rows in enumerate(paths.rows)])
            for h in (1e-5, -1e-5)
            for x in (paths._simulation(model.with_params({name: at + h})).block(0).states[0],)
        ]
        assert torch.allclose(found[:, i], (both[0] - both[1]) / 2e-5, rtol=1e-3, atol=1e-6)
    jumpy = leveraged(bates(0.03, 1.5, 0.04, 0.4, -0.6, 0.3, -0.1, 0.1), FLAT)
    with pytest.raises(InputError, match="jump_intensity"):
        train(jumpy, SURFACE, engine=ENGINE, parameters=["jump_intensity"])


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes that tensors take at one moment."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return int(np.max(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])))


def test_memory_of_a_jacobian_does_not_grow_with_the_steps() -> None:
    model = neural_local_vol(SURFACE, FLAT, width=16)
    none = torch.zeros(len(SURFACE), dtype=torch.float64)

    def peak(steps: int) -> int:
        paths = QuotedPaths(Quoted.of(SURFACE), model, MonteCarlo(n_paths=1 << 10, max_dt=1 / steps))
        return peak_bytes(lambda: paths.jacobian(model, ["leverage.outer"], none))

    assert peak(256) < 1.25 * peak(64)


def test_control_variate_makes_the_backbone_exact() -> None:
    """At leverage 1 the option under the backbone is the option itself."""
    model = leveraged(TRUTH, GridLeverage([0.0], [0.0], [[1.0]]))
    quoted = Quoted.of(SURFACE)
    priced = QuotedPaths(quoted, model, MonteCarlo(n_paths=1 << 10, max_dt=1 / 8)).prices(model)
    assert torch.allclose(quoted.vols(priced.value)[0], quoted.vol, atol=1e-6)


def test_term_structure_repeats_the_vols_at_the_money() -> None:
    surface = Surface.from_vols([0.1, 0.5, 1.0], [100.0] * 3, [0.3, 0.2, 0.25], forward=100.0)
    base = term_structure(surface, BlackScholes(0.25))
    t = torch.linspace(0.0, 1.0, 100_001, dtype=torch.float64)[:-1]
    variance = (0.25 * base.at(t, torch.zeros(len(t), 1).double())).square().cumsum(0).squeeze() * 1e-5
    wanted = torch.tensor([0.3, 0.2, 0.25]).double().square() * torch.tensor([0.1, 0.5, 1.0])
    assert torch.allclose(variance[[9_999, 49_999, 99_999]], wanted, rtol=1e-4)
    assert at_the_money(surface)[1].tolist() == [0.3, 0.2, 0.25]


def test_a_network_fits_heston_without_knowing_it_and_repeats_itself(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Round] = []
    caplog.set_level(logging.INFO, logger="qsde")
    model = neural_local_vol(SURFACE, FLAT, width=16)
    fit = train(model, SURFACE, engine=ENGINE, held_out=5, max_steps=7, progress=seen.append)
    assert fit.simulation is not None
    assert fit.rmse_bp < 15
    assert fit.training.held_out_bp < 20
    assert seen[0].rmse_bp > 10 * fit.rmse_bp
    assert "bp, held out" in str(seen[-1])
    assert [str(step) for step in seen] == [record.getMessage() for record in caplog.records]
    assert fit.training.jacobian.shape == (len(SURFACE), sum(w.numel() for w in model.params.values()) - 1)
    assert not fit.weight[fit.training.held_out].any()
    again = train(model, SURFACE, engine=ENGINE, held_out=5, max_steps=7)
    assert np.array_equal(fit.model_iv, again.model_iv)


def test_the_ladder_answers_a_quote_that_moves() -> None:
    """Vols of the model move as the quotes do: the Jacobian times the response is about the identity."""
    fit = train(neural_lsv(SURFACE, TRUTH, width=16), SURFACE, engine=ENGINE, max_steps=2)
    moved = fit.training.jacobian @ fit.training.response() @ torch.full((len(SURFACE),), 0.01, dtype=torch.float64)
    assert float((moved - 0.01).abs().max()) < 0.002


def test_training_goes_on_from_a_checkpoint_to_the_same_digits(tmp_path: Path) -> None:
    model, file = neural_local_vol(SURFACE, FLAT, width=16), tmp_path / "training.safetensors"
    engine = MonteCarlo(n_paths=1 << 11, max_dt=1 / 8, noise=Sobol(0, scrambles=4))
    whole = train(model, SURFACE, engine=engine, max_steps=3)
    train(model, SURFACE, engine=engine, max_steps=2, checkpoint=file)
    resumed = train(model, SURFACE, engine=engine, max_steps=3, checkpoint=file)
    assert np.array_equal(whole.model_iv, resumed.model_iv)
    assert [r.rmse_bp for r in whole.training.rounds] == [r.rmse_bp for r in resumed.training.rounds]
    with pytest.raises(InputError, match="weights, the model"):
        train(neural_local_vol(SURFACE, FLAT, width=8), SURFACE, engine=engine, checkpoint=file)
    file.write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match="no checkpoint"):
        train(model, SURFACE, engine=engine, checkpoint=file)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    """With as many weights, it would hand over a network that fits something else."""
    model, file = neural_local_vol(SURFACE, FLAT, width=16), tmp_path / "training.safetensors"
    engine = replace(ENGINE, n_paths=1 << 10, max_dt=1 / 4)
    train(model, SURFACE, engine=engine, max_steps=1, checkpoint=file)
    before = file.read_bytes()
    moved = quoted_by(TRUTH.with_params({"v0": torch.tensor(0.05, dtype=torch.float64)}))
    near = model.with_params({"leverage.hidden": model.params["leverage.hidden"] + 1e-9})  # no text shows that
    others: list[tuple[str, Callable[[], object]]] = [
        ("other quotes", lambda: train(model, moved, engine=engine, checkpoint=file)),
        ("other quotes", lambda: train(model, SURFACE, engine=engine, held_out=5, checkpoint=file)),
        ("other quotes", lambda: train(model, SURFACE, engine=engine, weights="equal", checkpoint=file)),
        ("other start", lambda: train(neural_local_vol(SURFACE, FLAT, 16, 1), SURFACE, engine=engine, checkpoint=file)),
        ("other start", lambda: train(near, SURFACE, engine=engine, checkpoint=file)),
        ("other engine", lambda: train(model, SURFACE, engine=ENGINE, checkpoint=file)),
    ]
    for message, again in others:
        with pytest.raises(InputError, match=message):
            again()
    assert file.read_bytes() == before
    with pytest.raises(InputError, match="is a folder"):
        train(model, SURFACE, engine=engine, checkpoint=tmp_path)


def test_a_crash_in_the_middle_of_a_write_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = neural_local_vol(SURFACE, FLAT, width=16), tmp_path / "training.safetensors"
    engine = replace(ENGINE, n_paths=1 << 10, max_dt=1 / 4)
    whole = train(model, SURFACE, engine=engine, max_steps=3)
    train(model, SURFACE, engine=engine, max_steps=1, checkpoint=file)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", crash)  # everything is written, but not yet under its name
        with pytest.raises(KeyboardInterrupt):
            train(model, SURFACE, engine=engine, max_steps=3, checkpoint=file)
    resumed = train(model, SURFACE, engine=engine, max_steps=3, checkpoint=file)
    assert np.array_equal(whole.model_iv, resumed.model_iv)


def test_steps_are_no_longer_than_one() -> None:
    """Quotes of 300 % from a start of 20 % pull hard."""
    t, k = np.repeat([0.5, 1.0], 5), np.tile(np.linspace(0.8, 1.2, 5), 2)
    model, wild = neural_local_vol(SURFACE, FLAT, width=16), Surface.from_vols(t, k, 3.0, 1.0)
    engine = replace(ENGINE, n_paths=1 << 10, max_dt=1 / 4)
    fit = train(model, wild, engine=engine, max_steps=1)
    moved = torch.cat([(fit.model.params[n] - w).flatten() for n, w in model.params.items()])
    assert 0 < float(moved.norm()) <= 1 + 1e-12


def test_the_step_that_fits_held_out_quotes_best_is_kept() -> None:
    """Those that are held out say 22 % for every strike, and the others something else."""
    t, k = np.repeat([0.5, 1.0], 9), np.tile(np.linspace(0.8, 1.2, 9), 2)
    apart = np.arange(18) % 3 == 1
    surface = Surface.from_vols(t, k, np.where(apart, 0.22, 0.3), 1.0)
    start = neural_local_vol(surface, FLAT, width=16)  # at the money, which is held out
    seen: list[Round] = []
    fit = train(start, surface, engine=ENGINE, held_out=apart, max_steps=4, progress=seen.append)
    assert seen[-1].held_out_bp > 500
    assert fit.training is not None
    assert fit.training.held_out_bp < 10
    assert fit.rmse_bp > 500


def test_errors_and_their_derivatives_have_noise_of_their_own() -> None:
    """A square's gradient `2 r J` is biased by the covariance of r and J from the same paths."""
    model, quoted = leveraged(BlackScholes(0.2), GridLeverage([0.0], [0.0], [[1.2]])), Quoted.of(SURFACE)
    job = _Job(
        model, SURFACE, replace(ENGINE, n_paths=1 << 10), ("leverage.values",), np.zeros(21, bool), "equal", print
    )
    assert job._slopes(1).engine.noise.seed != job._paths(1).engine.noise.seed  # type: ignore[attr-defined]
    samples = []
    for seed in range(48):
        engine = MonteCarlo(n_paths=64, max_dt=1 / 2, noise=Threefry(seed))
        paths = QuotedPaths(quoted, model, engine)
        paths._control = None
        found = paths.prices(model)
        samples.append((found.value, paths.jacobian(model, ["leverage.values"], 0 * found.beta)[:, 0]))
    value, slope = (torch.stack(column) for column in zip(*samples, strict=True))
    wings = quoted.k < -0.1
    centred = (value - value.mean(0)) * (slope - slope.mean(0))
    apart = (value - value.mean(0)) * (slope - slope.mean(0)).roll(1, 0)
    same, other = (c[:, wings].mean(1) for c in (centred, apart))
    assert float(same.mean()) > 4 * float(same.std()) / 48**0.5
    assert abs(float(other.mean())) < 3 * float(other.std()) / 48**0.5


def test_calibrate_trains_a_neural_model() -> None:
    fit = calibrate(neural_local_vol(SURFACE, FLAT, width=16), SURFACE, engine=ENGINE, max_iterations=2)
    assert fit.simulation is not None
    assert fit.iterations == 2


def test_training_begins_near_the_quotes() -> None:
    """At the local volatility that reprices them."""
    quoted = Quoted.of(SURFACE)
    model = neural_local_vol(SURFACE, width=16)
    found = quoted.vols(QuotedPaths(quoted, model, replace(ENGINE, n_paths=1 << 14)).prices(model).value)[0]
    assert float((found - quoted.vol).square().mean().sqrt()) < 6e-4


def test_training_leaves_alone_what_the_spreads_explain() -> None:
    quotes = SURFACE.quotes
    t, strike, iv = (quotes[c] for c in ("t", "strike", "iv"))
    wide = Surface.from_vols(t, strike, iv, 1.0, 1.0, iv - 0.01, iv + 0.01)
    model = neural_local_vol(wide, width=16)
    fits = {w: train(model, wide, engine=ENGINE, weights=w, max_steps=1) for w in ("spread", "equal")}
    assert {w: fit.iterations for w, fit in fits.items()} == {"spread": 0, "equal": 1}
    assert fits["spread"].status.converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 1}, "at least 2"),
        ({"held_out": [True]}, "booleans"),
        ({"weights": "price"}, "weights must be"),
        ({"parameters": ["volume"]}, "has no"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(neural_local_vol(SURFACE, FLAT), SURFACE, engine=ENGINE, **options)  # type: ignore[arg-type]


def test_models_without_a_leverage_are_sent_elsewhere() -> None:
    with pytest.raises(InputError, match="calibrate"):
        train(TRUTH, SURFACE)
    with pytest.raises(QuoteError, match="no quotes"):
        train(neural_local_vol(SURFACE, FLAT), SURFACE.select(np.zeros(len(SURFACE), dtype=bool)))


def test_paths_in_float32_fit_as_well() -> None:
    model = neural_local_vol(SURFACE, FLAT, width=16)
    fits = [train(model, SURFACE, engine=replace(ENGINE, dtype=d), max_steps=1) for d in (torch.float32, torch.float64)]
    assert fits[0].rmse_bp == pytest.approx(fits[1].rmse_bp, abs=1.0)


K5 = np.array([80.0, 90.0, 100.0, 110.0, 120.0])
SKEW = 0.2 - 0.1 * np.log(K5 / 100)
#: Quotes (t, strike, vol, half spread) that are few, extreme or contradict each other.
ODD = {
    "one quote": (0.5, 100.0, 0.2, 0.002),
    "one expiry": (0.5, K5, SKEW, 0.002),
    "all equal": (0.5, [100.0] * 4, 0.2, 0.002),
    "vols of 500 %": (0.5, K5, SKEW + 4.8, 0.002),
    "a day": (1 / 365, 100 + 0.1 * (K5 - 100), SKEW, 0.002),
    "no spread": (0.5, K5, SKEW, 0.0),
    "no bid and ask": (0.5, K5, SKEW, np.nan),
    "one side": (0.5, K5, SKEW, [0.002, np.nan, 0.002, 0.002, 0.002]),
    "zigzag": (0.5, K5, [0.1, 0.3, 0.1, 0.3, 0.1], 0.002),
    "calendar arbitrage": ([0.5, 1.0], 100.0, [0.6, 0.1], 0.002),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("start", ["local vol", "Heston", "free"])
def test_odd_quotes_end_in_a_fit_that_says_how_good_it_is(name: str, start: str) -> None:
    t, k, vol, half = (np.asarray(v, float) for v in ODD[name])
    surface = Surface.from_vols(t, k, vol, 100.0, 1.0, vol - half, vol + half)
    starts = {
        "local vol": lambda: neural_local_vol(surface, FLAT, width=8),
        "Heston": lambda: neural_lsv(surface, TRUTH, width=8),
        "free": lambda: neural_sv(surface, TRUTH, width=8),
    }
    engine = MonteCarlo(n_paths=1 << 10, max_dt=1 / 8, noise=Sobol(0, scrambles=4))
    fit = train(starts[start](), surface, engine=engine, max_steps=2)
    assert np.isfinite(fit.model_iv).all()
    assert fit.rmse_bp == pytest.approx(1e4 * np.sqrt(np.mean((fit.model_iv - surface.quotes["iv"]) ** 2)))
    assert all(bool(torch.isfinite(p).all()) for p in fit.model.params.values())


def test_quotes_that_are_none_are_named() -> None:
    for bad in (np.nan, np.inf, 0.0, -0.1):
        with pytest.raises(QuoteError, match=r"iv\[1\] is"):
            Surface.from_vols(0.5, [90.0, 100.0], [0.2, bad], 100.0)
