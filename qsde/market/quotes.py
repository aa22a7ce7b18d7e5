"""Option quotes as read: one tidy table, and every row that was set aside with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from qsde.errors import QuoteError, Reject

#: Columns of the tidy table and what they hold. Text columns hold str or NA, all others float64.
COLUMNS: dict[str, str] = {
    "row": "1-based row of the source file (0 where a quote has no row of its own)",
    "underlying": "name of the underlying, upper case",
    "quote_time": "time of the quote, UTC timestamp",
    "expiry_time": "time the option expires, UTC timestamp",
    "expiry": "expiry date as printed by the exchange, YYYY-MM-DD",
    "t": "years from quote to expiry, ACT/365F on the timestamps (or as the file gives them)",
    "strike": "strike price",
    "option_type": "C or P",
    "bid": "bid price, discounted, in the currency of the strike",
    "ask": "ask price, as bid",
    "mid": "price to use where there is no bid and ask (settlement, mark)",
    "iv_bid": "implied volatility at the bid, annualised decimal, where the file gives it",
    "iv_ask": "implied volatility at the ask",
    "implied_vol": "implied volatility at the mid or settlement",
    "spot": "price of the underlying",
    "forward": "forward price to this expiry, where the file gives it",
    "discount_factor": "discount factor to this expiry, where the file gives it",
    "volume": "contracts traded",
    "open_interest": "open contracts",
    "exercise_style": "E (European), A (American) or NA",
    "root": "option root symbol, such as SPX or SPXW",
}
TEXT_COLUMNS = ("underlying", "expiry", "option_type", "exercise_style", "root")
TIME_COLUMNS = ("quote_time", "expiry_time")


@dataclass(frozen=True)
class Quotes:
    """Option quotes of a file: accepted rows, rejected rows with reasons, and where they came from.

    Attributes:
        frame: accepted quotes, exactly the columns of `COLUMNS`, index 0..n-1.
        rejected: rejected quotes, the same columns and `reason` (a `Reject` label) and `detail` (a sentence).
        source: file name or another description of the origin.
        vendor: name of the recognised format, such as "tidy" or "deribit".
        warnings: sentences a user should read.
    """

    frame: pd.DataFrame
    rejected: pd.DataFrame
    source: str = "memory"
    vendor: str = "tidy"
    warnings: tuple[str, ...] = field(default=())

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, source: str = "memory", vendor: str = "tidy") -> Quotes:
        """Takes a frame whose columns are among `COLUMNS`; absent ones become NaN or NA.

        Where `t` is missing and both times are there, it is their distance, ACT/365F.

        Raises:
            QuoteError: a column is not one of `COLUMNS`.
        """
        unknown = [c for c in frame.columns if c not in COLUMNS]
        if unknown:
            raise QuoteError(f"unknown columns {unknown}; a tidy frame has {list(COLUMNS)}")
        full = pd.DataFrame(index=pd.RangeIndex(len(frame)))
        for name in COLUMNS:
            given = frame[name].reset_index(drop=True) if name in frame.columns else None
            if name in TIME_COLUMNS:
                empty = pd.Series(pd.NaT, index=full.index, dtype="datetime64[ns, UTC]")
                full[name] = pd.to_datetime(given, utc=True) if given is not None else empty
            elif name in TEXT_COLUMNS:
                full[name] = given.astype("object") if given is not None else None
            elif name == "row":
                full[name] = given.astype("int64") if given is not None else np.arange(1, len(frame) + 1)
            else:
                full[name] = given.astype("float64") if given is not None else np.nan
        seconds = (full["expiry_time"] - full["quote_time"]).dt.total_seconds()
        full["t"] = full["t"].fillna(seconds / (365 * 86400))
        return cls(full, empty_rejected(), source, vendor)

    def __repr__(self) -> str:
        return f"Quotes({self.source}, {self.vendor}: {len(self):,} quotes, {len(self.rejected):,} rejected)"

    def __len__(self) -> int:
        return len(self.frame)

    def reject(self, mask: pd.Series | np.ndarray, reason: Reject, detail: str | Sequence[str]) -> Quotes:
        """Moves the rows where `mask` is true to `rejected`, with the reason and a sentence of detail.

        Args:
            mask: one flag per row of `frame`.
            reason: why.
            detail: one sentence for all moved rows, or one for each of them in their order.

        Example:
            >>> quotes = Quotes.from_frame(pd.DataFrame({"strike": [90.0, -1.0]}))
            >>> rest = quotes.reject(quotes.frame["strike"] <= 0, Reject.BAD_STRIKE, "strike must be positive")
            >>> len(rest), rest.rejected_counts()
            (1, {'bad strike': 1})
        """
        bad = np.asarray(mask, dtype=bool)
        if not bad.any():
            return self
        moved = self.frame[bad].assign(reason=reason.value, detail=detail)
        rejected = pd.concat([self.rejected, moved], ignore_index=True) if len(self.rejected) else moved
        return replace(self, frame=self.frame[~bad].reset_index(drop=True), rejected=rejected.reset_index(drop=True))

    def warn(self, *sentences: str) -> Quotes:
        """Adds warnings, each once."""
        new = tuple(dict.fromkeys((*self.warnings, *sentences)))
        return replace(self, warnings=new)

    def rejected_counts(self) -> dict[str, int]:
        """Number of rejected quotes by reason, the most frequent first."""
        return {str(k): int(v) for k, v in self.rejected["reason"].value_counts().items()}

    def surfaces(self) -> Iterator[Quotes]:
        """One `Quotes` for each underlying and quote time, in order; rejected rows go with their surface."""
        parts = [part[["underlying", "quote_time"]] for part in (self.frame, self.rejected) if len(part)]
        if not parts:
            return
        keys = pd.concat(parts).drop_duplicates().sort_values(["underlying", "quote_time"])
        for underlying, time in keys.itertuples(index=False):
            yield replace(
                self,
                frame=_select(self.frame, underlying, time),
                rejected=_select(self.rejected, underlying, time),
            )


def empty_rejected() -> pd.DataFrame:
    """A table of rejected quotes with no rows."""
    return pd.DataFrame(columns=[*COLUMNS, "reason", "detail"])


def _select(frame: pd.DataFrame, underlying: object, time: object) -> pd.DataFrame:
    same_name = frame["underlying"].isna() if pd.isna(underlying) else frame["underlying"] == underlying  # type: ignore[call-overload]
    same_time = frame["quote_time"].isna() if pd.isna(time) else frame["quote_time"] == time  # type: ignore[call-overload]
    return frame[same_name & same_time].reset_index(drop=True)
