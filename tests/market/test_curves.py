import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qsde.errors import FileFormatError, ParameterError, QuoteError
from qsde.market.curves import Curve, FlatCurve, PillarCurve, as_curve, read_treasury, treasury_curve

PATH = "data/history_rates/ust_par_yields_1998_2022.csv"


def par_price(curve, tenor, par_yield):
    if tenor <= 0.5:
        return float(curve.discount(tenor) * (1 + par_yield * tenor))
    coupons = np.arange(1, round(2 * tenor) + 1) / 2
    discount = curve.discount(coupons).numpy()
    return par_yield / 2 * discount.sum() + discount[-1]


def test_flat_and_pillar_agree_on_a_flat_curve():
    t = torch.tensor([0.0, 0.1, 1.0, 7.5, 40.0])
    pillars = PillarCurve([0.5, 2.0, 10.0], [0.03, 0.03, 0.03])
    torch.testing.assert_close(pillars.discount(t), FlatCurve(0.03).discount(t))
    torch.testing.assert_close(pillars.zero_rate(t), FlatCurve(0.03).zero_rate(t))


def test_log_discount_is_linear_between_pillars_and_forward_flat_after():
    curve = PillarCurve([1.0, 2.0], [0.02, 0.04])
    log_discount = -torch.log(curve.discount([0.5, 1.0, 1.5, 2.0, 3.0]))
    torch.testing.assert_close(log_discount, torch.tensor([0.01, 0.02, 0.05, 0.08, 0.14], dtype=torch.float64))


def test_gradients_reach_the_pillars():
    rates = torch.tensor([0.02, 0.04], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: PillarCurve(t, r).discount([0.0, 0.3, 1.7, 5.0]), (rates,))
    assert torch.autograd.gradcheck(lambda r: PillarCurve(t, r).zero_rate([0.0, 0.3, 1.7, 5.0]), (rates,))


@pytest.mark.parametrize(
    ("t", "rates", "message"),
    [
        ([1.0, 1.0], [0.0, 0.0], "increasing"),
        ([0.0, 1.0], [0.0, 0.0], "positive"),
        ([1.0], [0.0, 0.0], "one zero rate per pillar"),
        ([], [], "one zero rate per pillar"),
        ([1.0], [float("nan")], "finite"),
    ],
)
def test_bad_pillars_are_refused(t, rates, message):
    with pytest.raises(ParameterError, match=message):
        PillarCurve(t, rates)


def test_as_curve():
    curve = FlatCurve(0.01)
    assert as_curve(curve) is curve
    assert isinstance(as_curve(0.02), Curve)
    with pytest.raises(ParameterError, match="not percent"):
        as_curve(3.0)
    with pytest.raises(ParameterError, match="not percent"):
        as_curve(float("nan"))
    with pytest.raises(ParameterError, match="dividend_yield must be"):
        as_curve("high", "dividend_yield")


@given(st.floats(0.0, 0.14), st.lists(st.floats(-0.01, 0.01), min_size=8, max_size=8))
def test_par_bonds_reprice(level, moves):
    yields = [level + move for move in moves]
    tenors = (1 / 12, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
    smooth = np.convolve([yields[0], *yields, yields[-1]], [0.25, 0.5, 0.25], mode="valid")
    par = dict(zip(tenors, smooth.tolist(), strict=True))
    curve = treasury_curve(par)
    for tenor, y in par.items():
        assert abs(par_price(curve, tenor, y) - 1) < 1e-12


def test_a_par_curve_that_no_discount_factors_have_is_refused():
    with pytest.raises(QuoteError, match="no discount factor makes a par bond of 30 years"):
        treasury_curve({1.0: 0.0, 10.0: 0.0, 30.0: 0.111328})


def test_every_thousandth_day_of_the_treasury_file_reprices_and_is_near_its_par_yields():
    table = pd.read_csv(PATH)
    years = {"1M": 1 / 12, "3M": 0.25, "6M": 0.5} | {f"{n}Y": float(n) for n in (1, 2, 3, 5, 7, 10, 20, 30)}
    for i in range(0, len(table), 1000):
        curve = read_treasury(PATH, table["date"][i])
        for column, tenor in years.items():
            y = table[column][i] / 100
            if np.isfinite(y):
                assert abs(par_price(curve, tenor, y) - 1) < 1e-12
                assert abs(curve.zero_rate(tenor).item() - 2 * np.log1p(y / 2)) < 0.006


def test_treasury_dates():
    friday = read_treasury(PATH, "2022-02-11")
    with pytest.warns(UserWarning, match="2022-02-13: those of 2022-02-11 are used"):
        sunday = read_treasury(PATH, "2022-02-13")
    torch.testing.assert_close(sunday.zero_rates, friday.zero_rates)
    with pytest.raises(QuoteError, match="covers 1998-01-02 to 2022-03-11"):
        read_treasury(PATH, "2023-02-15")
    with pytest.raises(QuoteError, match="not a date"):
        read_treasury(PATH, "soon")


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b\n1,2\n", b"date,1M\nsoon,4.1\n", b"date,1M\n2024-01-02,high\n", b"\xff\xfe\x00\x81", b'date,1M\n"2024'],
)
def test_files_that_hold_no_yields(content, tmp_path):
    path = tmp_path / "yields.csv"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"^{path}: .*date,1M,3M,...,30Y"):
        read_treasury(path, "2024-01-02")


def test_missing_tenors_are_skipped_and_none_is_an_error(tmp_path):
    torch.testing.assert_close(
        treasury_curve({1.0: 0.05, 2.0: float("nan")}).t, torch.tensor([1.0], dtype=torch.float64)
    )
    with pytest.raises(QuoteError, match="no par yield"):
        treasury_curve({1.0: float("nan")})
    with pytest.raises(QuoteError, match="half years"):
        treasury_curve({0.75: 0.05})
    with pytest.raises(QuoteError, match="check the yields"):
        treasury_curve({1.0: 0.9, 30.0: -0.9})
    with pytest.raises(QuoteError, match="not percent"):
        treasury_curve({1.0: 5.0})
    path = tmp_path / "x.csv"
    path.write_text("day,value\n2020-01-01,1\n")
    with pytest.raises(FileFormatError, match=r"expected columns date,1M"):
        read_treasury(path, "2020-01-01")
