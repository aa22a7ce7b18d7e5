"""Which method suits the Greeks of a payoff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from qsde.errors import InputError
from qsde.greeks.gaussian import GaussianRun, jointly_gaussian
from qsde.greeks.likelihood import LikelihoodRun
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import American, AtExpiry, Claim, Payoff
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.exact import why_not_exact
from qsde.pricing.fourier import Fourier
from qsde.schemes import scheme_for

Method = Literal["auto", "conditional", "pathwise", "likelihood"]


def why_no_exact_greeks(model: Model, payoff: Claim, market: Market | Markets) -> str | None:
    """What stands in the way of derivatives of an exact price, in words; None if nothing does.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import ForwardStart
        >>> why_no_exact_greeks(BlackScholes(0.2), ForwardStart(0.5, 1.0), Market(100.0))
        'exact Greeks are those of payoffs of the price at expiry and of American options, not of ForwardStart'
    """
    if not isinstance(payoff, (AtExpiry, American)):
        return f"exact Greeks are those of payoffs of the price at expiry and of American options, not of {payoff.name}"
    return why_not_exact(model, payoff, market)


def check_exact_greeks(
    model: Model, payoff: Claim, market: Market | Markets, instead: str = "MonteCarlo()"
) -> AtExpiry | American:
    """The payoff, if its Greeks are derivatives of an exact price.

    Raises:
        InputError: they are not; the message names the engine to use `instead`.
    """
    reason = why_no_exact_greeks(model, payoff, market)
    if isinstance(payoff, (AtExpiry, American)) and reason is None:
        return payoff
    raise InputError(f"{reason}; use {instead}")


def engine_for(
    engine: MonteCarlo | Fourier | Auto | None,
    model: Model,
    book: Sequence[Claim],
    market: Market | Markets,
    method: Method = "auto",
) -> MonteCarlo | Fourier:
    """The one engine for the Greeks of a whole book: the one given, or the choice of `Auto`, which None stands for.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> type(engine_for(None, BlackScholes(0.2), [European(100.0, 1.0)], Market(100.0))).__name__
        'Fourier'
    """
    engine = engine or Auto()
    if not isinstance(engine, Auto):
        return engine
    exact = method == "auto" and all(why_no_exact_greeks(model, payoff, market) is None for payoff in book)
    return Fourier() if exact else engine.simulation


def method_for(payoff: Payoff, model: Model, engine: MonteCarlo) -> Method:
    """The method for one payoff.

    - "conditional": it looks at the price at expiry only, or it jumps at dates at which it ends or lives on, and the
      scheme can leave the price's own noise out: the mean over that noise, date by date, is a closed form, smooth in
      everything.
    - "pathwise": it is continuous in the path.
    - "likelihood": it jumps.

    Raises:
        InputError: none of them is right.

    Example:
        >>> from qsde.models import BlackScholes, Heston
        >>> from qsde.payoffs import Digital
        >>> [method_for(Digital(100.0, 1.0), m, MonteCarlo()) for m in (Heston.typical(), BlackScholes(0.2))]
        ['conditional', 'likelihood']
    """
    conditional = (engine.scheme or scheme_for(model)).conditional()
    if isinstance(payoff, AtExpiry) and conditional is not None and any(conditional.draws(model, engine.max_dt)):
        return "conditional"
    if payoff.continuous:
        return "pathwise"
    if conditional is not None and payoff.stages() is not None:
        return "conditional"
    if has_ratios(payoff, model, engine):
        return "likelihood"
    raise InputError(
        f"{payoff.name} jumps and {model.name} offers no way around it with this scheme: neither conditioning nor "
        "likelihood ratios; bump and reprice with the same noise, or use the model's default scheme"
    )


def check_method(payoff: Payoff, model: Model, engine: MonteCarlo, method: Method) -> Method:
    """The method asked for, if it is right for the payoff.

    Raises:
        InputError: it would be wrong; the message names the one to use.
    """
    best = method_for(payoff, model, engine)
    if method in ("auto", best):
        return best
    if method == "pathwise" and not payoff.continuous:
        raise InputError(f"{payoff.name} jumps, so its pathwise Greeks would be wrong; use method='{best}'")
    if method == "conditional":
        raise InputError(f"{payoff.name} under {model.name} has no conditional mean in closed form; use '{best}'")
    if method == "likelihood" and payoff.times[0] == 0:
        raise InputError(f"{payoff.name} looks at today's price, which likelihood ratios hold fixed; use '{best}'")
    return method


def likelihood_for(model: Model, engine: MonteCarlo) -> type[LikelihoodRun] | type[GaussianRun] | None:
    """The likelihood ratios there are: of normal log-prices jointly, or given the rest of one underlying's path."""
    if jointly_gaussian(model, engine):
        return GaussianRun
    return None if (engine.scheme or scheme_for(model)).conditional() is None else LikelihoodRun


def has_ratios(payoff: Payoff, model: Model, engine: MonteCarlo) -> bool:
    """Whether likelihood ratios on its pathwise delta give the second derivatives of a continuous payoff.

    Not where it looks at today's price, which moves with the spot while the law of the others does.
    """
    return payoff.window is None and payoff.times[0] > 0 and likelihood_for(model, engine) is not None


def described(payoff: Payoff, model: Model, engine: MonteCarlo, method: Method) -> str:
    """The method in words; second derivatives of "pathwise" are by likelihood ratios unless it says otherwise.

    Payoffs with barriers watched continuously have delta and gamma from values at moved spots (`qsde.pricing.near`).

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import Barrier
        >>> described(Barrier(100.0, 80.0, 1.0, "down-and-out"), BlackScholes(0.2), MonteCarlo(), "pathwise")
        'pathwise (spot and second derivatives: differences)'
    """
    if method != "pathwise":
        return method
    if payoff.steep:
        return "pathwise (spot and second derivatives: differences)"
    return method if has_ratios(payoff, model, engine) else "pathwise (second derivatives: differences)"
