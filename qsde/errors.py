"""What can go wrong, as types: errors that are raised at the edge and statuses that travel with results."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class QsdeError(Exception):
    """Base of every error qsde raises on purpose; its text says what was wrong and what to do instead."""


class InputError(QsdeError, ValueError):
    """A value given by the user cannot be used: the message names the field or row and the fix."""


class FileFormatError(InputError):
    """A file cannot be read as option quotes: empty, truncated, or with columns nobody recognises."""


class QuoteError(InputError):
    """The quotes are readable but cannot serve the purpose, such as none left after cleaning."""


class ParameterError(InputError):
    """A model parameter lies outside its domain."""


class NumericsError(QsdeError, ArithmeticError):
    """A computation left the finite numbers or missed its tolerance; the message names the model and the place."""


class StepLimitError(NumericsError):
    """Adaptive steps tried as many as they may; the message names the limit and the time that was reached."""


class Reject(StrEnum):
    """Why a quote is set aside; the value is the label that reports count."""

    UNREADABLE = "unreadable"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    BAD_STRIKE = "bad strike"
    BAD_TYPE = "bad option type"
    NEGATIVE_PRICE = "negative price"
    NO_QUOTE = "no quote"
    ZERO_BID = "zero bid"
    CROSSED = "crossed"
    STALE = "stale"
    WIDE = "wide"
    PARITY = "parity"
    OUTLIER = "outlier"
    NO_VEGA = "no vega"
    NO_FORWARD = "no forward"
    ARBITRAGE_BOUNDS = "outside no-arbitrage bounds"
    IN_THE_MONEY = "in the money"
    NOT_SELECTED = "not selected"


class VolStatus(IntEnum):
    """Outcome of one implied-volatility inversion. `OK` is 0, so `status == 0` selects the good quotes."""

    OK = 0
    AT_INTRINSIC = 1
    BELOW_INTRINSIC = 2
    ABOVE_MAXIMUM = 3
    BAD_INPUT = 4
    NOT_CONVERGED = 5

    @property
    def message(self) -> str:
        """The sentence a user reads for this outcome."""
        return _VOL_MESSAGES[self]


_VOL_MESSAGES = {
    VolStatus.OK: "implied volatility found",
    VolStatus.AT_INTRINSIC: "price equals intrinsic value: no time value, so no volatility can be implied",
    VolStatus.BELOW_INTRINSIC: "price is below intrinsic value: check forward, discount factor and option type",
    VolStatus.ABOVE_MAXIMUM: "price is at or above the no-arbitrage maximum (forward for a call, strike for a put, "
    "discounted)",
    VolStatus.BAD_INPUT: "price, forward, strike, expiry and discount factor must be finite and all but the price "
    "positive",
    VolStatus.NOT_CONVERGED: "the search for the volatility did not converge: please report this quote",
}


class FitStatus(StrEnum):
    """How a calibration ended; the value is the sentence a user reads."""

    CONVERGED = "converged"
    MAX_ITERATIONS = "stopped at the iteration limit before converging; raise max_iterations or fix a parameter"
    STALLED = "stopped: no step lowers the error any further, although the gradient is not zero"
    INACCURATE = "stopped: the prices of the residuals miss the exact ones by more than 10 bp of vol, or defy the check"
    FAILED = "failed: the model gave no finite prices at any start"

    @property
    def converged(self) -> bool:
        """Whether the fit met its convergence test."""
        return self is FitStatus.CONVERGED
