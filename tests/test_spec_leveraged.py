"""Models with tables and networks as text: there and back, refused where they make no sense, fitted by name."""

import numpy as np
import pytest
import torch

from qsde.calibration.training import TrainedFit
from qsde.calibration.training_start import neural_local_vol, neural_lsv, neural_sv
from qsde.errors import InputError
from qsde.io.fits import packed, unpacked
from qsde.market.surface import Surface
from qsde.models import BlackScholes, GridLeverage, Heston, LocalStochasticVol, Model, bates, leveraged
from qsde.spec import CalibrationSpec, ModelSpec, PriceRequest, PriceResult, checked, parsed, spec_of

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.5, rho=-0.7)
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.1)
TABLE = GridLeverage([0.5, 1.0], [[-0.1, 0.1], [-0.2, 0.2]], [[1.2, 0.9], [1.1, 1.0]], scale=0.2)


@pytest.fixture(scope="module")
def surface() -> Surface:
    t, k = np.repeat([0.25, 1.0], 5), np.tile([80.0, 90.0, 100.0, 110.0, 120.0], 2)
    vol = 0.2 - 0.1 * np.log(k / 100)
    return Surface.from_vols(t, k, vol, 100.0, 0.99, vol - 0.002, vol + 0.002, spot=100.0, underlying="X")


def models(surface: Surface) -> dict[str, Model]:
    flat = BlackScholes(torch.tensor(1.0, dtype=torch.float64))
    return {
        "local_vol": LocalStochasticVol(flat, TABLE),
        "lsv": leveraged(BATES, TABLE),
        "neural_local_vol": neural_local_vol(surface, width=4),
        "neural_lsv": neural_lsv(surface, backbone=BATES, base=TABLE, width=4),
        "neural_sv": neural_sv(surface, start=HESTON, width=4),
    }


@pytest.mark.parametrize("name", ["local_vol", "lsv", "neural_local_vol", "neural_lsv", "neural_sv"])
def test_text_builds_the_same_model(surface: Surface, name: str) -> None:
    model = models(surface)[name]
    spec = spec_of(model)
    again = parsed(ModelSpec, spec.model_dump_json()).build()  # type: ignore[attr-defined]
    assert spec.model == name
    assert again.name == model.name
    assert spec_of(again) == spec
    for key, value in model.params.items():
        assert torch.equal(value, again.params[key])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"leverage": {"values": [[1.2, 0.9], [1.1]]}}, "leverage.values: rows must be equally long"),
        ({"leverage": {"values": [[1.2, -0.9], [1.1, 1.0]]}}, "leverage"),
        ({"leverage": {"times": [1.0, 0.5]}}, "leverage.*increase"),
        ({"leverage": {"scale": 0.0}}, "leverage.scale"),
        ({"leverage": {"values": [[float("nan"), 1.0], [1.0, 1.0]]}}, "leverage.values"),
        ({"model": "local_vol"}, "model: with this backbone and leverage it is 'lsv'"),
        ({"leverage": {"code": "import os"}}, "code"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict, text: str) -> None:
    data = spec_of(LocalStochasticVol(HESTON, TABLE)).model_dump()
    for key, value in change.items():
        data[key] = data[key] | value if isinstance(value, dict) else value
    with pytest.raises(InputError, match=text):
        checked(ModelSpec, data).build()


@pytest.mark.parametrize(
    ("model", "values", "text"),
    [
        ("local_vol", {"paths": 1024}, "paths: not for local_vol"),
        ("heston", {"max_dt": 0.1}, "max_dt: not for heston"),
        ("neural_sv", {"backbone": "bates"}, "backbone: not for neural_sv"),
        ("lsv", {"fixed": {"kappa": 1.0}}, "fixed: lsv has no parameters"),
        ("neural_lsv", {"feller": 0.01}, "feller: neural_lsv has no parameters"),
        ("neural_lsv", {"objective": "price"}, "fitted to implied vols"),
        ("neural_lvs", {}, "no model is called"),
    ],
)
def test_settings_that_a_model_does_not_have_are_refused(model: str, values: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        checked(CalibrationSpec, {"model": model, **values})


@pytest.mark.parametrize("name", ["neural-local-vol", "Neural LSV", "neural_sv"])
def test_networks_are_trained_by_name_and_survive_a_file(surface: Surface, name: str) -> None:
    seen = []
    spec = CalibrationSpec(model=name, paths=1 << 10, max_dt=1 / 16, max_iterations=2, weights="equal")
    assert CalibrationSpec.model_validate(spec.model_dump()) == spec
    fit = spec.fit(surface, lambda done, total: seen.append((done, total)))
    assert isinstance(fit, TrainedFit)
    assert fit.rmse_bp < 150
    assert seen[-1] == (fit.iterations, 2)
    (again,) = unpacked(packed([fit]))
    assert spec_of(again.model).model == spec.model
    request = PriceRequest.model_validate(
        {
            "fit": {"file": "fit", "model": name},
            "payoffs": [
                {"type": "european", "strike": 100.0, "expiry": 1.0},
                {"type": "fixed_lookback", "strike": 100.0, "expiry": 0.5},
            ],
            "engine": {"type": "monte_carlo", "paths": 1024, "max_dt": 0.1},
        }
    )
    answer = PriceResult.of(request, request.build(lambda file: [again]))
    assert answer.payoffs[0].value == pytest.approx(0.99 * 8.0, rel=0.2)
    assert answer.payoffs[1].value > 5
