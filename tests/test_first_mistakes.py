"""What newcomers type first: text for numbers, percent for decimals, dates for years, a table for a surface."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pandas as pd
import pytest
import torch

from qsde import (
    SDE,
    Asian,
    BlackScholes,
    European,
    Heston,
    JumpDiffusion,
    Market,
    MonteCarlo,
    QsdeError,
    Surface,
    build_surface,
    calibrate,
    calibrate_many,
    read_quotes,
    sdeint,
)
from qsde.market.quotes import Quotes

STRIKES, VOLS = [90.0, 100.0, 110.0], [0.22, 0.2, 0.19]
DAY = date(2030, 1, 15)


def surface(**changed: object) -> Surface:
    return Surface.from_vols(**{"t": 1.0, "strike": STRIKES, "iv": VOLS, "forward": 100.0, **changed})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BlackScholes("0.2"), "BlackScholes.vol must be a number, a list of numbers or a tensor, got '0.2'"),
        (lambda: BlackScholes(20.0), "vol (volatility, annualised decimal) must be from 0 to 10, got 20.0"),
        (lambda: JumpDiffusion(Heston.typical(), Heston.typical()), "JumpDiffusion: jumps must be a JumpLaw, as in"),
        (lambda: Market("100"), "spot must be one positive finite number, got '100'"),
        (lambda: European(100.0, DAY), "expiry must be a number, got datetime.date(2030, 1, 15); times are years from"),
        (lambda: Asian(100.0, [0.5, DAY]), "fixings[-1] must be a number, got datetime.date(2030, 1, 15); times are"),
        (lambda: Asian(100.0, [0.5], expiry=DAY), "expiry must be a number, got datetime.date"),
        (lambda: surface(iv=[22.0, 20.0, 19.0]), "iv[0] is 22: vols are annualised decimals: 0.2, not 20"),
        (lambda: surface(iv_ask=[0.23, 21.0, 0.2]), "iv_ask[1] is 21: vols are annualised decimals"),
        (lambda: surface(strike=["90", "x", "110"]), "strike must be a number or a list of numbers, got ['90', 'x'"),
        (lambda: surface(iv=[0.2, 0.2]), "one entry for each quote; the lengths are strike 3, iv 2"),
        (lambda: MonteCarlo(noise=3), "noise must be one of qsde.noise, such as Threefry(seed=1), got 3"),
        (lambda: MonteCarlo(scheme="euler"), "scheme must be one of qsde.schemes, such as HestonQE(), got 'euler'"),
        (
            lambda: sdeint(SDE(lambda t, y, p: -y, lambda t, y, p: y), torch.ones(2, 1), [0, 1], max_dt=1.0, noise=3),
            "noise must be one of qsde.noise",
        ),
        (lambda: calibrate("heston", surface()), "model must be a template, such as Heston.typical(), got 'heston'"),
        (lambda: calibrate(Heston, surface()), "model must be a template, such as Heston.typical(), got <class"),
        (lambda: calibrate(Heston.typical(), Quotes.from_frame(pd.DataFrame())), "target must be a Surface"),
        (lambda: calibrate_many(Heston.typical(), surface()), "surfaces must be a list: [surface]"),
        (lambda: calibrate_many(Heston.typical(), ["x"]), "each of the surfaces must be a Surface"),
        (lambda: build_surface(pd.DataFrame()), "a DataFrame becomes Quotes by Quotes.from_frame(frame)"),
        (lambda: read_quotes(pd.DataFrame()), "read_quotes reads a file, got DataFrame"),
    ],
)
def test_a_first_mistake_is_answered_with_the_fix(build: Callable[[], object], message: str) -> None:
    with pytest.raises(QsdeError) as caught:
        build()
    assert message in str(caught.value)
