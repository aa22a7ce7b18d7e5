"""Greeks of any payoff under any model, each with its standard error and unit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.greeks.controlled import controlled
from qsde.greeks.early import FROZEN, EarlyGreeks, check_early
from qsde.greeks.exact import exact_greeks
from qsde.greeks.inputs import Inputs
from qsde.greeks.methods import Method, check_exact_greeks, check_method, described, engine_for
from qsde.greeks.table import Greek, Units, greeks_of, parameter_greek
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.payoffs import American, AtExpiry, Claim, EarlyExercise, Payoff
from qsde.payoffs.checks import book_of
from qsde.pricing.american import LeastSquares
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.exact import exact_method
from qsde.pricing.fourier import Fourier
from qsde.pricing.price import check_types

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Greeks:
    """Greeks of a book.

    Attributes:
        payoffs: names of the payoffs.
        greeks: the Greeks, in the order of the columns.
        value: [payoffs, greeks] in `units`.
        std_error: standard errors, likewise; 0 for exact ones.
        units: "trader" or "raw".
        methods: how each payoff was treated.
        n_paths: paths simulated, 0 for exact ones.
        seconds: wall-clock time.
    """

    payoffs: tuple[str, ...]
    greeks: tuple[Greek, ...]
    value: Tensor
    std_error: Tensor
    units: Units
    methods: tuple[str, ...]
    n_paths: int
    seconds: float

    def __repr__(self) -> str:
        """`frame` as text."""
        return self.frame().to_string(index=False)

    def __getitem__(self, name: str) -> Tensor:
        """Values [payoffs] of one Greek."""
        return self.value[:, self._column(name)]

    def error(self, name: str) -> Tensor:
        """Standard errors [payoffs] of one Greek."""
        return self.std_error[:, self._column(name)]

    def unit(self, name: str) -> str:
        """The unit of one Greek, in words."""
        greek = self.greeks[self._column(name)]
        return greek.unit if self.units == "trader" else greek.raw_unit

    def frame(self) -> pd.DataFrame:
        """One row for each payoff and Greek: value, standard error, unit, method."""
        rows = [
            {
                "payoff": payoff,
                "greek": greek.name,
                "value": float(self.value[i, j]),
                "std_error": float(self.std_error[i, j]),
                "unit": self.unit(greek.name),
                "method": self.methods[i],
            }
            for i, payoff in enumerate(self.payoffs)
            for j, greek in enumerate(self.greeks)
        ]
        return pd.DataFrame(rows)

    def _column(self, name: str) -> int:
        names = [greek.name for greek in self.greeks]
        if name not in names:
            raise InputError(f"there is no {name!r} here; there are {', '.join(names)}")
        return names.index(name)


@torch.enable_grad()
def greeks(
    model: Model,
    payoffs: Claim | Sequence[Claim],
    market: Market | Markets,
    engine: MonteCarlo | Fourier | Auto | None = None,
    which: Sequence[str] | None = None,
    units: Units = "trader",
    method: Method = "auto",
    total: bool = False,
    progress: Progress | None = None,
    *,
    least_squares: LeastSquares | None = None,
) -> Greeks:
    """First- and second-order Greeks, exact or by simulation.

    By simulation each payoff is treated as suits it (`qsde.greeks.methods.method_for`): by its conditional mean
    given the path of the variance (from date to date where it ends or lives on at dates, `qsde.pricing.survival`),
    path by path, or with likelihood ratios. Second derivatives are derivatives of smooth conditional means, or of
    likelihood ratios on pathwise deltas. For payoffs with barriers watched continuously, whose pathwise deltas have
    heavy tails, delta and gamma are differences of values at the spot moved up and down by 1 % with the same noise
    (less where a barrier is closer), and vanna is one of vegas; where the scheme tells the price's own noise from the
    rest, half of the paths are looked at near the barrier, too (`qsde.pricing.near`). Theta and charm are
    derivatives to the time elapsed, which brings all dates closer at the same spot, parameters and curves of time to a
    date: columns of the same sweeps. Where vanna, volga or charm are asked for, payoffs at expiry are regressed on a
    vanilla with known Greeks (`qsde.greeks.controlled`). Standard
    errors come from 32 independent parts of the paths, or from the scrambles of a low-discrepancy noise.

    Vega is the derivative to a parallel shift of implied vols: along the move of the parameters that shifts them best
    (`qsde.greeks.inputs.parallel_shift`). Derivatives to jump intensities are, by simulation, what one more jump at a
    uniform time would do (`qsde.greeks.extra_jump`): paths do not move smoothly with them, nor with the time in which
    jumps may come.

    Of several underlyings (a `MultiAsset` and `Markets`) the names carry the number of the underlying: `delta_1`,
    `vega_2`, `gamma_1_2` (`qsde.greeks.table.greeks_of`), and `d_correlation_1_2` is the derivative to a correlation.
    Second derivatives are likelihood ratios of the joint normal law of the log-prices on pathwise deltas where all
    underlyings are Black-Scholes and the payoff looks at dates, else differences; `methods` says which.

    Rights to exercise early (`American`, `Bermudan`, ...) have, by simulation, pathwise Greeks with the exercise policy
    frozen (`qsde.greeks.early.EarlyGreeks`), and no volga.

    Args:
        model: one model, without batch axes.
        payoffs: one payoff or a list, rights to exercise early among them.
        market: spot, curves, dividends; `Markets` for several underlyings.
        engine: `Fourier()` for payoffs of the price at expiry under models with a characteristic function, and American
            options with an exact price (the default where it can for the whole book), or `MonteCarlo(...)`; `Auto(...)`
            sets the simulation where it cannot.
        which: names of Greeks, of `qsde.greeks.GREEKS` or `d_` and a parameter; None for all there are.
        units: "trader" (vega and vanna per vol point, theta and charm per calendar day, rho per 1 %) or "raw".
        method: "auto", or one method for all payoffs.
        total: Greeks of the whole book as one: by simulation one backward sweep instead of one for each payoff.
        progress: called with (parts done, parts).
        least_squares: how the policies of rights to exercise early are found.

    Raises:
        InputError: an unknown Greek, a batch of models, or a method that would give wrong numbers.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> found = greeks(BlackScholes(0.2), European(100.0, 1.0), Market(100.0, rate=0.05))
        >>> [round(float(found[name]), 4) for name in ("delta", "gamma", "vega", "theta")]
        [0.6368, 0.0188, 0.3752, -0.0176]
    """
    began = time.perf_counter()
    check_types(model, market, engine)
    book = book_of(payoffs)
    if method not in get_args(Method):
        raise InputError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if isinstance(engine, Fourier) and method != "auto":
        raise InputError(f"method {method!r} is for simulations: leave it out with Fourier(), or give MonteCarlo()")
    if units not in ("trader", "raw"):
        raise InputError(f"units must be 'trader' or 'raw', got {units!r}")
    engine = engine_for(engine, model, book, market, method)
    inputs = Inputs.of(model, market, book)
    early = isinstance(engine, MonteCarlo) and any(isinstance(payoff, EarlyExercise) for payoff in book)
    wanted = _wanted(model, inputs, which, early)
    needs = {greek.name for greek in wanted}
    for payoff in book:
        payoff.check_spot((market.spots if isinstance(market, Markets) else torch.as_tensor(market.spot)).detach())
    if isinstance(engine, Fourier):
        exact = [check_exact_greeks(model, payoff, market) for payoff in book]
        value, n_paths = _exact(exact, inputs, engine, needs, wanted), 0
        names: list[str] = [exact_method(payoff) for payoff in exact]
        value = value.sum(0, keepdim=True) if total else value
        error = torch.zeros_like(value)
    else:
        columns = [greek.name for greek in wanted]
        simulated = _Simulated(book, inputs, engine, method, least_squares or LeastSquares(), progress)
        samples, names, n_paths = simulated.samples(columns, total)
        value, error = samples.mean(0), samples.std(0) / len(samples) ** 0.5
    scale = torch.tensor([greek.scale if units == "trader" else 1.0 for greek in wanted], dtype=torch.float64)
    titles = [payoff.name for payoff in book]
    if total:
        titles, names = ["book"], ["+".join(dict.fromkeys(names))]
    seconds = time.perf_counter() - began
    return Greeks(tuple(titles), tuple(wanted), value * scale, error * scale, units, tuple(names), n_paths, seconds)


@dataclass(frozen=True)
class _Simulated:
    """A book whose Greeks are simulated: payoffs all together, rights to exercise early one after the other."""

    book: list[Claim]
    inputs: Inputs
    engine: MonteCarlo
    method: Method
    least_squares: LeastSquares
    progress: Progress | None

    def samples(self, columns: list[str], total: bool) -> tuple[Tensor, list[str], int]:
        """Raw Greeks [parts, payoffs (one if `total`), columns], how each was found, and the paths."""
        payoffs = {i: claim for i, claim in enumerate(self.book) if isinstance(claim, Payoff)}
        rights = {i: claim for i, claim in enumerate(self.book) if isinstance(claim, EarlyExercise)}
        for claim in rights.values():
            check_early(claim, self.method)
        jobs = bool(payoffs) + len(rights)
        names, n_paths = dict.fromkeys(rights, FROZEN), 0
        tables: list[Tensor] = []
        if payoffs:
            model, engine = self.inputs.model, self.engine
            some = list(payoffs.values())
            methods = [check_method(payoff, model, engine, self.method) for payoff in some]
            table, n_paths = controlled(some, methods, self.inputs, engine, columns, total, self._told(0, jobs))
            tables.append(table)
            names |= {i: described(p, model, engine, m) for (i, p), m in zip(payoffs.items(), methods, strict=True)}
        for claim in rights.values():
            early = EarlyGreeks(claim, self.inputs, self.engine, self.least_squares)
            row, n_paths = early.sampled(columns, self._told(len(tables), jobs))
            tables.append(row.unsqueeze(1))
        samples = torch.cat(tables, 1)
        samples = samples.sum(1, keepdim=True) if total else samples[:, torch.tensor([*payoffs, *rights]).argsort()]
        return samples, [names[i] for i in range(len(self.book))], n_paths

    def _told(self, job: int, jobs: int) -> Progress:
        """Progress of one of the jobs as that of all."""
        tell = self.progress or (lambda done, parts: None)
        return lambda done, parts: tell(job * parts + done, jobs * parts)


def _wanted(model: Model, inputs: Inputs, which: Sequence[str] | None, early: bool) -> list[Greek]:
    """The Greeks asked for, or all that there are."""
    if which is not None and (isinstance(which, str) or not isinstance(which, Sequence) or not which):
        raise InputError(f"which must be a list of names, such as ['delta', 'vega'], or None for all, got {which!r}")
    if early and any(name.startswith("volga") for name in which or ()):
        raise InputError("volga of a right to exercise early needs the policy's own derivative; leave it out of which=")
    left_out: tuple[str, ...] = ("volga",) if early else ()
    if not inputs.has_vols:
        left_out += ("vega", "vanna", "volga")
    known = {name: g for name, g in greeks_of(inputs.labels).items() if not name.startswith(left_out)}
    known |= {f"d_{name}": parameter_greek(name) for name in model.params if model.params[name].dim() == 0}
    if which is None:
        return list(known.values())
    unknown = [name for name in which if name not in known]
    if unknown:
        by_quotes = unknown[0].startswith(left_out) and not inputs.has_vols
        hint = "; derivatives to quoted vols are those of quote_sensitivities(fit, payoffs)" if by_quotes else ""
        raise InputError(f"no Greek {unknown[0]!r} for {model.name} here; there are {', '.join(known)}{hint}")
    return [known[name] for name in which]


def _exact(
    book: list[AtExpiry | American], inputs: Inputs, engine: Fourier, needs: set[str], wanted: list[Greek]
) -> Tensor:
    rows = [exact_greeks(payoff, inputs, engine, needs) for payoff in book]
    return torch.stack([torch.stack([found[greek.name] for greek in wanted]) for found in rows])
