"""The search space: bounds that hold by construction, starts that repeat."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import biject_to, constraints

from qsde.calibration.space import Space
from qsde.errors import InputError
from qsde.models import Heston
from qsde.spec import MODEL_TEMPLATES, template

MODELS = list(MODEL_TEMPLATES)
LEVELS = {"short variance": torch.tensor([0.04, 0.09]), "long variance": torch.tensor([0.05, 0.06]),
          "vol": torch.tensor([0.2, 0.3])}  # fmt: skip
LEVELS = {name: value.double() for name, value in LEVELS.items()}


def space(name: str = "heston", **options: Any) -> Space:
    return Space.of(template(name), options.get("bounds"), options.get("fixed", ()))


def test_map_is_the_bijection_of_torch_distributions() -> None:
    s = space("bates")
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)[:, None].expand(33, len(s.free))
    for i in range(len(s.free)):
        peer = biject_to(constraints.interval(float(s.lower[i]), float(s.upper[i])))
        torch.testing.assert_close(s.to_params(x)[:, i], peer(x[:, i]), rtol=1e-13, atol=1e-15)
        back = s.to_unknowns(s.to_params(x))[:, i]
        torch.testing.assert_close(back, x[:, i], rtol=1e-7, atol=1e-7)


def test_slope_is_the_derivative_of_the_map() -> None:
    s = space("heston_kou")
    x = torch.linspace(-5, 5, len(s.free), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(s.to_params, x)
    torch.testing.assert_close(s.slope(s.to_params(x)), jacobian.diagonal(), rtol=1e-10, atol=0)
    assert torch.count_nonzero(jacobian - jacobian.diagonal().diag()) == 0


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(MODELS), data=st.data())
def test_bounds_hold_for_any_unknowns(name: str, data: st.DataObject) -> None:
    s = space(name)
    x = data.draw(st.lists(st.floats(-1e300, 1e300), min_size=len(s.free), max_size=len(s.free)))
    p = s.to_params(torch.tensor(x, dtype=torch.float64))
    assert (p >= s.lower).all()
    assert (p <= s.upper).all()
    s.with_free(p)  # and the model accepts them


def test_points_on_and_outside_a_bound_are_moved_inside() -> None:
    s = space(bounds={"rho": (-0.5, 0.5)})
    p = torch.stack([s.lower - 1, s.upper + 1, s.lower, s.upper])
    back = s.to_params(s.to_unknowns(p))
    assert ((back > s.lower) & (back < s.upper)).all()
    torch.testing.assert_close(back[0], s.lower + 1e-6 * (s.upper - s.lower), rtol=1e-9, atol=0)


def test_fixed_by_name_and_by_value() -> None:
    by_name = space(fixed=("kappa",))
    assert by_name.free == ("v0", "theta", "sigma", "rho")
    p = by_name.to_params(torch.zeros(4, dtype=torch.float64))
    assert float(by_name.with_free(p).params["kappa"]) == float(Heston.typical().params["kappa"])
    by_value = space(fixed={"kappa": 3.5, "rho": -0.1})
    assert by_value.free == ("v0", "theta", "sigma")
    batch = by_value.with_free(by_value.to_params(torch.zeros(2, 3, dtype=torch.float64)))
    assert batch.batch_shape == (2,)
    assert batch.params["kappa"].tolist() == 3.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": ("kapa",)}, r"Heston has no parameter 'kapa'; it has v0, kappa"),
        ({"bounds": {"kapa": (0.0, 1.0)}}, r"no parameter 'kapa'"),
        ({"bounds": {"kappa": (2.0, 1.0)}}, r"bounds of kappa must be finite and low < high, got \(2.0, 1.0\)"),
        ({"bounds": {"kappa": (1.0, 1.0)}}, "low < high"),
        ({"bounds": {"kappa": (0.0, float("inf"))}}, "must be finite"),
        ({"bounds": {"kappa": (float("nan"), 1.0)}}, "must be finite"),
        ({"bounds": {"rho": (-2.0, 0.0)}}, "rho = -2.0 is outside its domain"),
        ({"fixed": {"rho": -1.5}}, "rho = -1.5 is outside its domain"),
        ({"fixed": {"v0": float("nan")}}, "v0 = nan is outside its domain"),
        ({"fixed": ("v0", "kappa", "theta", "sigma", "rho")}, "nothing is left to calibrate"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        space(**options)


def test_batch_templates_are_refused() -> None:
    with pytest.raises(InputError, match="without batch axes"):
        Space.of(Heston.typical().map(lambda p: p.expand(2)), None, ())


def test_at_bounds_names_the_parameters() -> None:
    s = space()
    middle = (s.lower + s.upper) / 2
    assert s.at_bounds(middle) == ()
    low, high = middle.clone(), middle.clone()
    low[0], high[4] = s.lower[0], s.upper[4]
    assert s.at_bounds(low) == ("v0",)
    assert s.at_bounds(high) == ("rho",)
    assert s.at_bounds(s.to_params(torch.full((5,), 40.0, dtype=torch.float64))) == s.free


@pytest.mark.parametrize("name", MODELS)
def test_starts_repeat_and_lie_inside(name: str) -> None:
    s = space(name)
    starts = s.starts(50, LEVELS, seed=3)
    assert starts.shape == (2, 50, len(s.free))
    assert ((starts > s.lower) & (starts < s.upper)).all()
    torch.testing.assert_close(starts[:, 0], torch.stack([s.model.params[n] for n in s.free]).expand(2, -1))
    torch.testing.assert_close(starts, s.starts(50, LEVELS, seed=3), rtol=0, atol=0)
    assert not torch.equal(starts, s.starts(50, LEVELS, seed=4))
    torch.testing.assert_close(s.starts(1, LEVELS, seed=3), starts[:, :1], rtol=0, atol=0)


def test_starts_scale_with_the_level_of_the_market() -> None:
    s = space()
    starts = s.starts(20, LEVELS, seed=0)[:, 1:, s.free.index("v0")]
    torch.testing.assert_close(starts[1] / starts[0], torch.full((19,), 0.09 / 0.04, dtype=torch.float64))


@settings(max_examples=50, deadline=None)
@given(low=st.floats(1e-6, 1.0), width=st.floats(1e-6, 1.0), n=st.integers(1, 20))
def test_starts_lie_inside_narrow_bounds_too(low: float, width: float, n: int) -> None:
    s = space(bounds={"theta": (low, low + width)})
    starts = s.starts(n, LEVELS, seed=1)[:, 1:, s.free.index("theta")]
    assert ((starts > low) & (starts < low + width)).all()


def test_a_lower_bound_of_zero_is_a_bound_too() -> None:
    s = space("merton", bounds={"jump_intensity": (0.0, 5.0)})
    p = s.to_params(s.to_unknowns((s.lower + s.upper) / 2))
    i = s.free.index("jump_intensity")
    for value, named in ((1e-7, ("jump_intensity",)), (1e-3, ())):
        p[i] = value
        assert s.at_bounds(p) == named
