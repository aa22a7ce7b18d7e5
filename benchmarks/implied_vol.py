"""Implied volatility: time per quote and error, against QuantLib and py_lets_be_rational called in a Python loop.

The peers take one quote at a time, so the loop is part of what their Python user pays. QuantLib runs at accuracy 1e-12,
which is what it takes to be comparable; the error rows show what each reaches. One core each. On a hundred quotes the
fixed cost of torch operations dominates and a C++ call per quote is faster; that row has no floor.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from harness import Row, alternate, arguments, report
from torch import Tensor

from qsde.market.black import black_price
from qsde.market.implied_vol import implied_vol


@dataclass(frozen=True)
class Book:
    """Out-of-the-money quotes on one forward of 100, with the volatility each was priced at."""

    strike: Tensor
    t: Tensor
    vol: Tensor
    is_call: Tensor
    price: Tensor

    @staticmethod
    def of(n: int, seed: int = 7) -> Book:
        """`n` quotes within three standard deviations of the forward."""
        g = torch.Generator().manual_seed(seed)
        u, v, w = (torch.rand(n, generator=g, dtype=torch.float64) for _ in range(3))
        t, vol = 0.02 + 2.0 * u, 0.08 + 0.6 * v
        strike = 100.0 * torch.exp(vol * torch.sqrt(t) * (6.0 * w - 3.0))
        is_call = strike >= 100.0
        return Book(strike, t, vol, is_call, black_price(100.0, strike, t, vol, 1.0, is_call))


def ours(book: Book) -> Tensor:
    return implied_vol(book.price, 100.0, book.strike, book.t, 1.0, book.is_call).require()


def quantlib(book: Book) -> list[float]:
    ql: Any = importlib.import_module("QuantLib")
    call, put, invert, none = ql.Option.Call, ql.Option.Put, ql.blackFormulaImpliedStdDev, ql.nullDouble()
    rows = zip(book.is_call.tolist(), book.strike.tolist(), book.price.tolist(), book.t.tolist(), strict=True)
    return [invert(call if c else put, k, 100.0, p, 1.0, 0.0, none, 1e-12) / math.sqrt(t) for c, k, p, t in rows]


def lets_be_rational(book: Book) -> list[float]:
    lib: Any = importlib.import_module("py_lets_be_rational")
    invert = lib.implied_volatility_from_a_transformed_rational_guess
    rows = zip(book.is_call.tolist(), book.strike.tolist(), book.price.tolist(), book.t.tolist(), strict=True)
    return [invert(p, 100.0, k, t, 1.0 if c else -1.0) for c, k, p, t in rows]


PEERS: dict[str, tuple[str, Callable[[Book], list[float]]]] = {
    "QuantLib": ("QuantLib", quantlib),
    "py_lets_be_rational": ("py_lets_be_rational", lets_be_rational),
}
FLOORS = {("QuantLib", "large"): 5.0, ("QuantLib", "small"): None, ("py_lets_be_rational", "large"): 5.0}


def error(vols: Tensor | list[float], book: Book) -> float:
    got = torch.as_tensor(vols, dtype=torch.float64)
    return float(((got - book.vol) / book.vol).abs().max())


def rows_against(name: str, sizes: dict[str, int], rounds: int) -> list[Row]:
    module, peer = PEERS[name]
    try:
        importlib.import_module(module)
    except ImportError:
        book = Book.of(1000)
        return [Row(f"error vs {name}", error(ours(book), book), None, unit="rel")]
    rows = []
    for size, n in sizes.items():
        book = Book.of(n)
        a, b = alternate(lambda book=book: ours(book), lambda book=book: peer(book), rounds)
        rows.append(Row(f"{n} quotes vs {name}", 1e6 * a / n, 1e6 * b / n, FLOORS.get((name, size)), "us/quote"))
    book = Book.of(2000)
    rows.append(Row(f"worst error vs {name}", error(ours(book), book), error(peer(book), book), 0.5, "rel"))
    return rows


def main() -> int:
    options = arguments(__doc__)
    torch.set_num_threads(1)  # the peers run on one core
    sizes = {"large": 100_000, "small": 100}
    rows = [row for name in PEERS for row in rows_against(name, sizes, 3 if options.quick else 7)]
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
