"""Monte Carlo prices of any payoff under any model, with standard errors and exact gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.noise import Noise, Threefry
from qsde.payoffs import Payoff
from qsde.pricing.moments import Control, Moments
from qsde.schemes import Scheme, scheme_for
from qsde.schemes.base import State
from qsde.solve import STORED, Job, Kernel, TimeGrid, simulate

Progress = Callable[[int, int], None]

#: Compiling takes seconds: it pays from about this many path-steps.
_WORTH_COMPILING = 50_000_000
#: Paths per block: more do not run faster, fewer pay more for each operation.
_MOST_PATHS, _LEAST_PATHS = 1 << 16, 1 << 10


@dataclass(frozen=True)
class MonteCarlo:
    """Settings of a simulation.

    Attributes:
        n_paths: paths; rounded up to whole groups of the noise.
        max_dt: largest step in years, ignored by exact schemes.
        scheme: None takes the default of the model (`scheme_for`).
        noise: the random numbers, a value: same noise, same digits.
        dtype: float32 or float64 of the paths; sums are float64 always.
        device: where the paths live.
        control_variate: regress each payoff on the forward's known mean.
        compile: "auto" compiles when the job is large enough to pay, "always" or "never".
        memory_budget: bytes that one block may take; it decides the block size, never the result.
    """

    n_paths: int = 1 << 16
    max_dt: float = 1 / 32
    scheme: Scheme | None = None
    noise: Noise = field(default_factory=lambda: Threefry(seed=0))
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    control_variate: bool = True
    compile: Literal["auto", "always", "never"] = "auto"
    memory_budget: int = 1 << 30

    def __post_init__(self) -> None:
        if self.n_paths < 2:
            raise InputError(f"n_paths must be at least 2, got {self.n_paths}")
        if not self.max_dt > 0:
            raise InputError(f"max_dt must be positive (years per step), got {self.max_dt}")
        if self.dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be torch.float32 or torch.float64, got {self.dtype}")
        if self.compile not in ("auto", "always", "never"):
            raise InputError(f"compile must be 'auto', 'always' or 'never', got {self.compile!r}")
        if self.memory_budget < 1 << 20:
            raise InputError(f"memory_budget is {self.memory_budget} bytes; give at least 1 MiB")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as reason:
            raise InputError(f"device {self.device!r} is not there: {str(reason).splitlines()[0]}") from None


@dataclass(frozen=True)
class Estimate:
    """A simulated price.

    Attributes:
        value: [*batch] for one payoff, [*batch, payoffs] for a list; differentiable.
        std_error: standard error of the value, same shape, without gradient.
        n_paths: paths simulated.
        noise: the random numbers used: with the same noise the same digits come back.
        seconds: wall-clock time.
    """

    value: Tensor
    std_error: Tensor
    n_paths: int
    noise: Noise
    seconds: float


def price(
    model: Model,
    payoffs: Payoff | Sequence[Payoff],
    market: Market,
    engine: MonteCarlo | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Prices payoffs by Monte Carlo, all from the same paths.

    Leading batch axes of the model's parameters are models that are priced together and share the noise. The value is
    differentiable in reverse mode in everything that is a tensor: spot, curves, parameters, payoff constants; the
    gradient is exact for the simulated price. What a pathwise gradient would get wrong is refused: payoffs that jump
    (`continuous` False), and jump intensities, which move the paths by whole jumps.

    Args:
        model: the model.
        payoffs: one payoff or a list.
        market: spot and curves.
        engine: settings.
        progress: called with (paths done, paths) after each block.

    Raises:
        InputError: nothing to price, a scheme that does not step the model, or a gradient that would be wrong.
        NumericsError: a path left the finite numbers.

    Example:
        >>> from qsde.models import BlackScholes
        >>> from qsde.payoffs import European
        >>> estimate = price(BlackScholes(0.2), European(100.0, expiry=1.0), Market(spot=100.0))
        >>> abs(float(estimate.value) - 7.9656) < 4 * float(estimate.std_error)
        True
    """
    began = time.perf_counter()
    engine = engine or MonteCarlo()
    many = not isinstance(payoffs, Payoff)
    book: list[Payoff] = list(payoffs) if not isinstance(payoffs, Payoff) else [payoffs]
    if not book:
        raise InputError("there are no payoffs to price")
    run = _Run.of(model, book, market, engine)
    value, std_error = run.finish(run.moments(progress or (lambda done, total: None)))
    if not many:
        value, std_error = value[..., 0], std_error[..., 0]
    return Estimate(value, std_error, run.n_paths, engine.noise, time.perf_counter() - began)


@dataclass(frozen=True)
class _Run:
    """One call of `price`: what all blocks share."""

    model: Model
    book: list[Payoff]
    market: Market
    engine: MonteCarlo
    scheme: Scheme
    job: Job
    coefficients: Tensor
    initial: State
    forward: Tensor
    columns: list[Tensor]
    draws: tuple[int, int]
    group: int
    n_paths: int
    block_size: int

    @classmethod
    def of(cls, model: Model, book: list[Payoff], market: Market, engine: MonteCarlo) -> _Run:
        scheme = engine.scheme or scheme_for(model)
        scheme.check(model)
        _refuse_intensity_gradient(model)
        grid = TimeGrid.of(
            [t for payoff in book for t in payoff.times], float("inf") if scheme.exact else engine.max_dt
        )
        sizes = [torch.tensor(size, dtype=torch.float64) for size in grid.sizes]
        coefficients = torch.stack([scheme.coefficients(model, dt) for dt in sizes]).unsqueeze(-1)
        coefficients = coefficients.to(engine.device, engine.dtype)
        initial = tuple(s.unsqueeze(-1).to(engine.device, engine.dtype) for s in scheme.initial(model))
        forward = market.forward(torch.tensor(grid.dates, dtype=torch.float64)).to(engine.device, engine.dtype)
        columns = [torch.tensor([grid.column(t) for t in p.times], device=engine.device) for p in book]
        draws = scheme.draws(model, max(grid.sizes, default=0.0))
        group, whole = _groups(engine.noise)
        n_paths = -(-engine.n_paths // whole) * whole
        per_path = _bytes_per_path(model, grid, initial, draws, engine)
        size = min(_MOST_PATHS, max(_LEAST_PATHS, engine.memory_budget // per_path), n_paths)
        size = max(whole, size // whole * whole)
        path_steps = n_paths * len(grid.step_size) * max(1, model.batch_shape.numel())
        fast = engine.compile == "always" or (engine.compile == "auto" and path_steps >= _WORTH_COMPILING)
        if fast:
            from qsde.solve.compiled import compiled_kernel

            kernel = compiled_kernel(scheme)
        else:
            kernel = Kernel.eager(scheme)
        job = Job(kernel, grid)
        return cls(
            model, book, market, engine, scheme, job, coefficients, initial, forward, columns, draws,
            group, n_paths, size,
        )  # fmt: skip

    def moments(self, progress: Progress) -> Moments:
        """All blocks, merged. Scrambles of a low-discrepancy noise span blocks, so their means are summed first."""
        merged: Moments | None = None
        sums: list[tuple[Tensor, Tensor]] = []
        for first in range(0, self.n_paths, self.block_size):
            done = min(first + self.block_size, self.n_paths)
            if self.group < 0:
                values, controls = zip(*self.samples(first), strict=True)
                sums.append((torch.stack(values) * (done - first), torch.stack(controls) * (done - first)))
            else:
                block = self._block_moments(first)
                merged = block if merged is None else merged.merge(block)
            progress(done, self.n_paths)
        if merged is not None:
            return merged
        value, control = (sum(part[1:], part[0]) / self.n_paths for part in zip(*sums, strict=True))
        return Moments.of(value, Control.of(control))

    def _block_moments(self, first: int) -> Moments:
        """Payoff by payoff, so that no more than one payoff's samples of all parameter sets are held at once."""
        controls: dict[int, Control] = {}
        parts = []
        for value, control in self.samples(first):
            if id(control) not in controls:
                controls[id(control)] = Control.of(control)
            parts.append(Moments.of(value, controls[id(control)]))
        return Moments.stack(parts)

    def samples(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Value and control [*batch, samples] of each payoff in one block; payoffs of one maturity share the control.

        The last block is padded to full size, so that one compiled shape serves all.
        """
        engine, grid = self.engine, self.job.grid
        paths = torch.arange(first, first + self.block_size)
        times = torch.tensor(grid.times, dtype=torch.float64)
        noise = engine.noise.block(paths, self.job.n_steps, *self.draws, engine.dtype, engine.device, times)
        batch = self.model.batch_shape
        initial = tuple(s.expand(*batch, self.block_size).contiguous() for s in self.initial)
        x = simulate(self.job, noise, self.coefficients, initial)[..., : min(self.block_size, self.n_paths - first)]
        prices = (self.forward.reshape(-1, *(1,) * (x.dim() - 1)) * torch.exp(x)).movedim(0, -1)
        controls: dict[int, Tensor] = {}
        for payoff, columns in zip(self.book, self.columns, strict=True):
            last = int(columns[-1])
            if last not in controls:
                controls[last] = _grouped(torch.expm1(x[last]), self.group)
            amount = self._amount(payoff, prices, columns)
            if not bool(torch.isfinite(amount.detach().sum())):
                raise NumericsError(self._where_not_finite(noise, initial))
            yield _grouped(amount, self.group), controls[last]

    def _amount(self, payoff: Payoff, prices: Tensor, columns: Tensor) -> Tensor:
        seen = prices.index_select(-1, columns)
        if not payoff.continuous and seen.requires_grad:
            raise InputError(
                f"{payoff.name} jumps, so its pathwise gradient is wrong; price it under torch.no_grad() or with "
                "inputs that do not require grad"
            )
        return payoff(seen)

    def finish(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """Discounted value and standard error [*batch, payoffs]."""
        # a regression on the few independent scrambles would be mostly noise
        value, error = moments.estimate(self.engine.control_variate and self.group > 0)
        maturities = torch.tensor([p.maturity for p in self.book], dtype=torch.float64)
        discount = self.market.discount(maturities).to(value.device)
        return value.movedim(0, -1) * discount, error.movedim(0, -1) * discount.detach()

    def _where_not_finite(self, noise: object, initial: State) -> str:
        """Finds the step at which a path leaves the finite numbers."""
        kernel, state = Kernel.eager(self.scheme), tuple(s.detach() for s in initial)
        step = "the payoff"
        for n, size in enumerate(self.job.grid.step_size):
            state = kernel.advance(state, self.coefficients[size].detach(), noise, torch.tensor(n))  # type: ignore[arg-type]
            if not all(bool(torch.isfinite(s).all()) for s in state):
                step = f"step {n} (t = {self.job.grid.times[n + 1]:.4g} years)"
                break
        shown = {name: value.detach().flatten()[:3].tolist() for name, value in self.model.params.items()}
        return (
            f"{self.model.name} under {type(self.scheme).__name__}: a path is not finite at {step}; parameters {shown}"
        )


def _refuse_intensity_gradient(model: Model) -> None:
    moving = [name for name, p in model.params.items() if name.endswith("intensity") and p.requires_grad]
    if moving and torch.is_grad_enabled():
        raise InputError(
            f"{model.name}: the number of jumps on a path does not move smoothly with {moving[0]}, so the pathwise "
            f"gradient would miss most of it; detach {moving[0]}, or take this one derivative from price_european"
        )


def _groups(noise: Noise) -> tuple[int, int]:
    """Neighbouring paths that form one sample, and the number of paths that must stay together.

    Plain noise: every path is a sample. Antithetic: pairs. Sobol: paths i, i + s, i + 2s ... share scramble i of s.
    """
    ids = noise.groups(torch.arange(1 << 12))
    if bool((ids == torch.arange(1 << 12)).all()):
        return 1, 1
    if bool((ids[:-1] <= ids[1:]).all()):
        size = int((ids == ids[0]).sum())
        return size, size
    scrambles = int(ids.max()) + 1
    return -scrambles, scrambles


def _grouped(values: Tensor, group: int) -> Tensor:
    """Samples [..., n] from paths [..., P]: means over neighbours, or (negative) over one path in `-group`."""
    if group == 1:
        return values
    rows, axis = (values.unflatten(-1, (-1, group)), -1) if group > 1 else (values.unflatten(-1, (-1, -group)), -2)
    means: Tensor = rows.mean(axis)
    return means


def _bytes_per_path(
    model: Model, grid: TimeGrid, initial: State, draws: tuple[int, int], engine: MonteCarlo
) -> int:  # fmt: skip
    """States, observed columns, stored and replayed states of the gradient, and what the noise stores."""
    item = 8 if engine.dtype == torch.float64 else 4
    sets = max(1, model.batch_shape.numel())
    n = len(grid.step_size)
    stored = min(n, STORED) + n // STORED
    kept = len(initial) * (stored + 12) + 4 * len(grid.dates) + 8
    return item * sets * kept + engine.noise.bytes_per_path(n, *draws, engine.dtype)
