"""The report: self-contained, safe with hostile text, complete, and refused where it makes no sense."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qsde.calibration import calibrate
from qsde.calibration.fit import Fit
from qsde.errors import FitStatus, InputError, Reject
from qsde.market.quotes import Quotes
from qsde.market.surface import Surface
from qsde.models import BlackScholes, Heston
from qsde.report import render, write_report
from qsde.report.arbitrage import arbitrage_section, fitted_arbitrage
from qsde.report.smiles import representative, residual_bins, smiles, variance_lines
from qsde.report.tables import correlation, rate_note
from qsde.spec import template

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>"


def surface(expiries: int = 3, name: str = "SPX") -> Surface:
    t = np.repeat(np.linspace(0.1, 1.5, expiries), 9)
    strike = np.tile(np.linspace(80, 120, 9), expiries)
    iv = 0.2 - 0.1 * np.log(strike / 100) / np.sqrt(t + 0.1)
    labels = [f"2024-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in range(expiries) for _ in range(9)]
    return Surface.from_vols(t, strike, iv, 100.0, np.exp(-0.03 * t), iv - 0.005, iv + 0.005, labels, name,
                             "2023-12-15T21:00:00+00:00", 99.5)  # fmt: skip


@pytest.fixture(scope="module")
def fits() -> list[Fit]:
    s = surface()
    return [calibrate(m, s, starts=1) for m in (template("black_scholes"), Heston.typical())]


@pytest.fixture(scope="module")
def page(fits: list[Fit]) -> str:
    return render(fits)


def body_of(page: str) -> str:
    """The page without the plotting library."""
    return re.sub(r"<script>/\*\*.*?</script><script>", "<script>", page, flags=re.DOTALL)


def data_of(page: str) -> dict[str, dict[str, object]]:
    match = re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])  # type: ignore[no-any-return]


def test_page_loads_nothing_from_the_network(page: str) -> None:
    body = body_of(page)
    assert len(body) < len(page) / 5
    assert "http:" not in body
    assert "https:" not in body
    assert not re.search(r"<(link|img|iframe|object|embed)\b|\bsrc=|@import|url\(", body)


def test_page_is_below_eight_megabytes_and_has_the_library_once(page: str) -> None:
    assert len(page.encode()) < 8e6
    assert page.count("plotly.js v") == 1


def test_page_tells_the_whole_story(page: str, fits: list[Fit]) -> None:
    body = body_of(page)
    for heading in ("Fit", "Parameters", "Smiles", "Residuals", "Total variance", "Static arbitrage",
                    "Forwards and rates", "Parameter correlations", "Quotes set aside"):  # fmt: skip
        assert re.search(rf"<h[23]>{heading}</h[23]>", body), heading
    assert "<h1>SPX: BlackScholes and Heston</h1>" in body
    assert "2023-12-15 21:00 UTC" in body
    assert "27 quotes used over 3 expiries" in body
    for fit in fits:
        assert f"<b>{fit.rmse_bp:.1f} bp</b>" in body
    assert body.count("<option") == 3


def test_every_axis_of_a_value_has_a_unit(page: str) -> None:
    titles = re.findall(r'"title":\{"text":"([^"]+)"', json.dumps(data_of(page), separators=(",", ":")))
    for quantity in ("implied vol, %", "model \\u2212 mid, bp of vol", "zero rate, continuous, % per year",
                     "forward price, currency of the strike", "years to expiry"):  # fmt: skip
        assert any(quantity in t for t in titles), quantity


def test_hostile_text_is_escaped_everywhere() -> None:
    s = surface(name=EVIL)
    quotes = Quotes.from_frame(pd.DataFrame({"strike": [1.0], "expiry": [EVIL], "option_type": [EVIL]}))
    evil = replace(
        s,
        slices=s.slices.assign(expiry=EVIL, forward_source=EVIL),
        quotes=s.quotes.assign(expiry=EVIL),
        rejected=quotes.reject([True], Reject.ZERO_BID, EVIL).rejected,
        warnings=(EVIL,),
        source=EVIL,
        quote_time=EVIL,
    )
    fit = replace(calibrate(BlackScholes(0.2), surface()), surface=evil, warnings=(EVIL,))  # type: ignore[arg-type]
    text = body_of(render(fit, title=EVIL))
    assert "<img" not in text
    assert "<script>alert" not in text
    assert text.count("</script>") == 3 - 1  # data and script; the library was taken out
    annotations = [a["text"] for a in data_of(text)["figures"]["smiles"]["layout"]["annotations"]]  # type: ignore[index]
    assert all("&lt;script&gt;" in a for a in annotations)


def test_failed_fit_is_marked_and_explained_at_the_top(fits: list[Fit]) -> None:
    failed = replace(fits[0], status=FitStatus.MAX_ITERATIONS)
    body = body_of(render(failed))
    assert "max iterations" in body
    assert body.index("raise max_iterations") < body.index("<h2>Fit</h2>")


def test_a_fit_without_prices_has_a_page(fits: list[Fit]) -> None:
    nothing = np.full(len(fits[0].surface), np.nan)
    page = render(replace(fits[0], status=FitStatus.FAILED, model_iv=nothing))
    assert FitStatus.FAILED.value in page


def test_many_expiries_stay_usable() -> None:
    s = surface(48)
    page = render(calibrate(BlackScholes(0.2), s))  # type: ignore[arg-type]
    data = data_of(page)
    assert len(data["expiries"]) == 48
    assert sum(key.startswith("xaxis") for key in data["figures"]["smiles"]["layout"]) == 12  # type: ignore[attr-defined,index]
    assert len(page.encode()) < 8e6


@pytest.mark.parametrize("expiries", [1, 2])
def test_few_expiries(expiries: int) -> None:
    assert "<h2>Smiles</h2>" in render(calibrate(BlackScholes(0.2), surface(expiries)))  # type: ignore[arg-type]


def test_one_quote_without_bid_and_ask() -> None:
    one = Surface.from_vols(0.5, 100.0, 0.2, 100.0)
    assert "1 quotes used" in render(calibrate(BlackScholes(0.3), one))  # type: ignore[arg-type]


def test_same_model_twice_is_numbered(fits: list[Fit]) -> None:
    assert "<h1>SPX: Heston 1 and Heston 2</h1>" in render([fits[1], fits[1]])


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ({}, "No violation at mid prices (there is no bid and ask)"),
        ({"iv_bid": 0.19, "iv_ask": 0.21}, "No violation that could be traded at the quoted bid and ask."),
        ({"iv_bid": [0.19, float("nan"), 0.19], "iv_ask": 0.21}, "or at mid prices where there is no bid and ask."),
    ],
)
def test_only_what_has_a_bid_and_an_ask_is_said_to_be_tradable(sides: dict[str, float], words: str) -> None:
    surface = Surface.from_vols(1.0, [90.0, 100.0, 110.0], 0.2, 100.0, **sides)
    assert words in arbitrage_section([calibrate(BlackScholes(0.2), surface)], ["BlackScholes"])


def test_correlations_that_are_not_known_are_no_table_of_dashes(fits: list[Fit]) -> None:
    unknown = replace(fits[1], covariance=torch.full_like(fits[1].covariance, torch.nan))
    assert correlation(unknown) == '<p class="note">Not known: the quotes do not determine all parameters.</p>'
    assert "<table" in correlation(fits[1])


def test_reports_of_nothing_or_of_different_surfaces_are_refused(fits: list[Fit]) -> None:
    with pytest.raises(InputError, match="at least one fit"):
        render([])
    other = replace(fits[0], surface=replace(fits[0].surface, underlying="NDX"))
    with pytest.raises(InputError, match="write a report for each"):
        render([fits[0], other])


def test_report_replaces_a_file_in_one_piece(fits: list[Fit], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_report(fits[0], path) == path
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InputError):
        write_report(fits[0], tmp_path / "missing" / "report.html")


def test_a_model_is_not_accused_of_arbitrage_by_rounding() -> None:
    # the fit to SPX 2023-02-15: rare huge jumps, whose far wings a loose quadrature gets wrong by 1e-5 of the forward
    jumpy = template("bates").with_params({
        k: torch.tensor(v, dtype=torch.float64) for k, v in
        {"v0": 0.0247, "kappa": 3.27, "theta": 0.0487, "sigma": 0.806, "rho": -0.69, "jump_intensity": 0.0063,
         "jump_mean": -2.16, "jump_std": 1.24}.items()
    })  # fmt: skip
    t = np.repeat([0.0219, 0.0356, 0.25, 1.0, 4.84], 9)
    s = Surface.from_vols(t, np.tile(np.linspace(2000, 6000, 9), 5), np.full(45, 0.22), 4150.0)
    fit = replace(calibrate(BlackScholes(0.2), s), model=jumpy)  # type: ignore[arg-type]
    assert not len(fitted_arbitrage(fit))


def test_rates_of_zero_are_explained() -> None:
    undiscounted = Surface.from_vols([0.5, 1.0], [100.0, 100.0], [0.2, 0.2], 100.0)
    assert "taken as undiscounted" in rate_note(undiscounted)
    assert "taken as undiscounted" not in rate_note(surface())


def test_model_curves_pass_through_the_residuals(fits: list[Fit]) -> None:
    for smile in smiles(fits):
        for curve, residual in zip(smile.curves, smile.residuals, strict=True):
            at_quotes = np.interp(np.log(smile.strike), np.log(smile.curve_strike), curve)
            np.testing.assert_allclose(at_quotes - smile.mid, residual / 100, atol=0.02)


def test_residual_bins_average_to_the_mean(fits: list[Fit]) -> None:
    everything = smiles(fits)
    one_bin = residual_bins(everything, 1, np.array([-50.0, 50.0]))
    np.testing.assert_allclose(one_bin.ravel(), [s.residuals[1].mean() for s in everything], rtol=1e-12)


def test_variance_lines_read_the_market(fits: list[Fit]) -> None:
    atm = next(line for line in variance_lines(fits, smiles(fits)) if line.moneyness == 0)
    np.testing.assert_allclose(atm.market, 0.04 * atm.t, rtol=1e-3)
    np.testing.assert_allclose(atm.models[0], fits[0].params["vol"] ** 2 * atm.t, rtol=1e-6)


def test_representative_expiries() -> None:
    assert representative(48)[0] == 0
    assert representative(48)[-1] == 47
    assert len(representative(48)) == 12
    assert representative(1) == [0]
