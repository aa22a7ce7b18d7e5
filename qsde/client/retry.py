"""When a request is sent again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: Answers that say "come again": too many requests, not available.
AGAIN = (429, 503)


@dataclass(frozen=True)
class Retry:
    """Waits that double, with some chance in them so that clients do not come back together.

    Every request may be sent again: those that compute change nothing, those that create carry an Idempotency-Key.

    Attributes:
        attempts: how often a request is sent at most.
        first: seconds before the second attempt.
        longest: most seconds between two attempts; a service that asks for more is not asked again.
    """

    attempts: int = 6
    first: float = 0.2
    longest: float = 30.0

    def waits(self, chance: random.Random) -> Iterator[float]:
        """Seconds before each further attempt.

        Example:
            >>> [round(x, 1) for x in Retry(attempts=4, first=1.0, longest=3.0).waits(random.Random(1))]
            [0.6, 1.8, 2.6]
        """
        for attempt in range(self.attempts - 1):
            yield min(self.longest, self.first * 2**attempt) * (0.5 + 0.5 * chance.random())

    def asked(self, wait: float, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait where the service names some as well; None if they are too many."""
        named = headers.get("retry-after", "")
        seconds = max(wait, float(named)) if named.isdigit() else wait
        return seconds if seconds <= self.longest else None
