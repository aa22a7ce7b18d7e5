"""Blocks of simulated paths of a model: the state at the dates that somebody wants to see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.clock import Clock
from qsde.market.markets import Markets
from qsde.market.underlying import Market
from qsde.models.base import Model
from qsde.models.jumps import moves_by_jumps
from qsde.noise import Noise
from qsde.noise.base import BlockNoise
from qsde.noise.folded import Folded
from qsde.noise.remembered import Remembered
from qsde.payoffs import Watched
from qsde.payoffs.checks import differentiated
from qsde.pricing.engine import MonteCarlo
from qsde.schemes import Scheme, scheme_for
from qsde.schemes.base import State
from qsde.schemes.sampled import Sampled
from qsde.solve import STORED, Job, Kernel, TimeGrid, simulate
from qsde.solve.compiled import kernel_for
from qsde.solve.transforms import inside_transform, outside_transforms

#: Paths per block: more do not run faster, fewer pay more for each operation.
_MOST_PATHS, _LEAST_PATHS = 1 << 16, 1 << 10

#: Steps whose coefficients are worked out together.
_ROWS = 64

#: Numbers of a state that a piece of a block holds, and paths of the shortest piece.
_PIECE, _LEAST_PIECE = 1 << 18, 1 << 6


@dataclass(frozen=True)
class Bridges:
    """What lies between the dates of a window, whatever the spot: x at them [time, ...].

    Attributes as in `Watched`; ends are those of x, None where x does not jump.
    """

    dates: tuple[float, ...]
    x: Tensor
    ends: Tensor | None
    variance: Tensor
    slope: Tensor | None
    uniforms: Tensor
    reaches: dict[float, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """One block of simulated paths.

    Attributes:
        states: components of the state that were kept, [dates, *batch, P] each; log-prices first.
        noise: the draws of the block, padded to full size.
        n_paths: paths of the block.
        assets: number of underlyings.
        numbers: numbers of the paths in the noise, [P] (of all folds one after the other).
        dates: when the states were kept, years.
        averaged: whether the states hold mean and variance of the log-price instead of the log-price.
        sampled: whether they hold mean and variance beside the log-price.
        tracked: whether they end with the jump of the last step.
        first: where a piece of a block begins in it.
        kept: whether others will look at the block, too, so that what its pieces hold is kept.
        bridges: what lies between the dates of windows, by these dates, as far as somebody asked.
        watched: the same at the prices of a market, with the market, by its identity and the dates.
        near: weights and moves of samples near barriers, by what made them.
        exponentials: `exp(x)` by underlying and date, as far as somebody asked.
    """

    states: State
    noise: BlockNoise
    n_paths: int
    assets: int
    numbers: Tensor
    dates: tuple[float, ...]
    averaged: bool
    sampled: bool
    tracked: bool
    first: int = 0
    kept: bool = False
    # known of these states only: a block that replaces another begins without
    bridges: dict[tuple[float, ...], Bridges] = field(default_factory=dict, init=False)
    watched: dict[object, tuple[Market | Markets, Watched]] = field(default_factory=dict, init=False)
    near: dict[object, list[tuple[Tensor, Tensor]]] = field(default_factory=dict, init=False)
    exponentials: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False)

    def grown(self, asset: int, column: int) -> Tensor:
        """`exp(x)` of an underlying at one of the dates, [*batch, P], made when first asked for."""
        if (asset, column) not in self.exponentials:
            self.exponentials[asset, column] = torch.exp(self.by_date[asset][column])
        return self.exponentials[asset, column]

    @property
    def pieces(self) -> Iterable[Block]:
        """The block in pieces that fit into the processor's caches, where every step of the paths is looked at."""
        return self._pieces if self.kept else self._cut()

    @cached_property
    def _pieces(self) -> list[Block]:
        return list(self._cut())

    def _cut(self) -> Iterator[Block]:
        most = max(_LEAST_PIECE, _PIECE * self.n_paths // self.states[0].numel())
        # split, not sliced: the gradient of each slice would be as long as the whole
        for i, states in enumerate(zip(*(s.split(most, -1) for s in self.states), strict=True)):
            yield self._with(states, i * most)

    def _with(self, states: Sequence[Tensor], first: int = 0) -> Block:
        """The block with other states, or a part of it."""
        return replace(self, states=tuple(states), n_paths=states[0].shape[-1], first=self.first + first)

    @cached_property
    def by_date(self) -> tuple[tuple[Tensor, ...], ...]:
        """The states, date by date."""
        return tuple(s.unbind(0) for s in self.states)  # and so are gradients until all are put together

    def lognormal(self, column: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of the log-price at a date given everything but its own noise, [*batch, P] each."""
        return self.by_date[int(self.sampled)][column], self.by_date[-2 if self.tracked else -1][column]

    @property
    def mean(self) -> Tensor:
        """Mean of the log-price given everything but its own noise, [dates, *batch, P]."""
        return self.states[int(self.sampled)]

    @property
    def variance(self) -> Tensor:
        """Variance of the log-price given everything but its own noise, [dates, *batch, P]."""
        return self.states[-2 if self.tracked else -1]

    def moved(self, jump: Tensor, of_step: Tensor) -> Block:
        """The block with log-prices moved by `jump`, [dates, *batch, P]; those of each step where jumps are kept."""
        first = 1 + self.sampled
        states = [*(s + jump for s in self.states[:first]), *self.states[first:]]
        if self.tracked:
            states[-1] = states[-1] + of_step
        return self._with(states)

    @cached_property
    def half(self) -> Block:
        """The first half of its paths."""
        n = -(-self.n_paths // 2)
        return self._with([s[..., :n] for s in self.states])

    def with_x(self, x: Tensor) -> Block:
        """The block with other log-prices, [dates, *batch, P]."""
        return self._with([x, *self.states[1:]])

    def uniforms(self, steps: Iterable[int], which: int = -1) -> Tensor:
        """A uniform that is left over for payoffs at these steps, [*, P, steps]: the last, or another, from the end."""
        noise = self.noise
        drawn = (noise.last(k) if isinstance(noise, Remembered) else noise.columns(k)[1] for k in steps)
        own = slice(self.first, self.first + self.n_paths)
        return torch.stack([columns[which][..., own] for columns in drawn]).movedim(0, -1)


@dataclass(frozen=True)
class Parts:
    """Independent parts of the paths of a noise.

    Attributes:
        offsets: number of the first path of each part.
        stride: between the numbers of neighbours in a part.
        folded: whether the parts are a batch axis, each set of parameters having paths of its own.
    """

    offsets: tuple[int, ...]
    stride: int
    folded: bool

    def numbers(self, paths: Tensor) -> Tensor:
        """Numbers in the noise of these paths of all parts, one part after the other."""
        return (torch.tensor(self.offsets).unsqueeze(-1) + self.stride * paths).flatten()


@dataclass(frozen=True)
class Simulation:
    """What all blocks of paths of a model share.

    Attributes:
        model, engine: what is simulated, and how.
        scheme: the scheme, bound to the model.
        job: kernel and grid.
        coefficients: numbers of the steps, [rows, C, *batch, 1].
        constants: what steps need besides.
        initial: state at time 0, [*batch, 1] each.
        draws: normals and uniforms of a step.
        group: neighbouring paths that form one independent sample; minus the number of scrambles for Sobol points.
        n_paths: paths in all.
        block_size: paths of a block.
        averaged: whether the state holds mean and variance of the log-price instead of the log-price.
        sampled: whether it holds them beside the log-price.
        tracked: whether the state ends with the jump of the last step.
    """

    model: Model
    engine: MonteCarlo
    scheme: Scheme
    job: Job
    coefficients: Tensor
    constants: tuple[Tensor, ...]
    initial: State
    draws: tuple[int, int]
    group: int
    n_paths: int
    block_size: int
    averaged: bool
    sampled: bool
    tracked: bool

    @classmethod
    def of(
        cls,
        model: Model,
        dates: Iterable[float],
        engine: MonteCarlo,
        windows: Iterable[tuple[float, float]] = (),
        whole_state: bool = False,
        averaged: bool = False,
        fine: bool = False,
        clock: Clock | None = None,
        sampled: bool = False,
    ) -> Simulation:
        """Prepares the simulation of a model to all dates.

        Args:
            model: the model.
            dates: observation dates, years.
            engine: settings.
            windows: stretches of time in which every step is observed; they keep the whole state and one more uniform.
            whole_state: keep every component of the state, not only log-prices.
            averaged: leave the price's own noise out where the scheme can (`Scheme.conditional`).
            fine: keep to `max_dt` even if the scheme is exact.
            clock: differentiate by the passing of time: steps up to the first date shrink with it.
            sampled: keep the mean and the variance of the log-price beside it, where the scheme can.

        Raises:
            InputError: the scheme does not step the model, or the grid is too large.
        """
        windows = list(windows)
        scheme = engine.scheme or scheme_for(model)
        scheme.check(model)
        scheme = scheme.bind(model)
        longest = scheme.longest(model)
        mean, both = scheme.conditional() if averaged else None, Sampled.of(scheme, model) if sampled else None
        averaged = mean is not None and any(mean.draws(model, engine.max_dt))
        sampled = both is not None
        scheme = both or (mean if mean is not None and averaged else scheme)
        if windows:
            scheme = scheme.watching()
        max_dt = math.inf if scheme.exact and not fine and not (windows and scheme.jumps) else engine.max_dt
        grid = TimeGrid.of(dates, min(max_dt, longest), windows, scheme.knots(model))
        initial = tuple(s.unsqueeze(-1).to(engine.device, engine.dtype) for s in scheme.initial(model))
        seen = range(len(initial)) if windows or whole_state or averaged or sampled else range(model.assets)
        normals, uniforms = scheme.draws(model, max(grid.sizes, default=0.0))
        # a watched step with jumps takes one for each half and one for its middle
        extra = (3 if scheme.jumps else 1) if windows else 0
        draws = normals, uniforms + extra
        group, together = _groups(engine.noise)
        n_paths = -(-engine.n_paths // together) * together
        sets = max(1, model.batch_shape.numel())
        per_path = _bytes_per_path(sets, grid, len(initial), len(seen), draws, extra, engine)
        most = _MOST_PATHS if torch.device(engine.device).type == "cpu" else n_paths  # a GPU wants them all at once
        size = min(most, max(_LEAST_PATHS, engine.memory_budget // per_path), n_paths)
        size = max(together, size // together * together)
        kernel = kernel_for(scheme, n_paths * len(grid.step_size) * sets, engine.compile, extra)
        # for the gradient: a quarter of the budget is left to the way back, and all blocks are kept at once
        memory = max(0, engine.memory_budget * 3 // 4 - size * per_path) * size // n_paths
        job = Job.of(kernel, grid, seen, memory, apart=clock is not None)
        times = job.row_times() if clock is None else clock.steps(*job.row_times())  # [*batch, rows]
        dt, t = (v.movedim(-1, 0).reshape(v.shape[-1], *v.shape[:-1] or (1,) * len(model.batch_shape)) for v in times)
        # a few rows at a time: what a network makes of all of them on its way would grow with the steps
        parts = [scheme.coefficients(model, *rows) for rows in zip(dt.split(_ROWS), t.split(_ROWS), strict=True)]
        coefficients = torch.cat(parts, 1).movedim(1, 0).unsqueeze(-1)
        constants = tuple(k.to(engine.device, engine.dtype) for k in scheme.constants(model))
        return cls(
            model, engine, scheme, job, coefficients.to(engine.device, engine.dtype), constants, initial, draws,
            group, n_paths, size, averaged, sampled, bool(windows) and scheme.jumps,
        )  # fmt: skip

    def block(self, first: int, noise: Noise | None = None, parts: Parts | None = None) -> Block:
        """The block whose first path has this number.

        The last block is padded to full size, so that one compiled shape serves all.

        Args:
            first: number of the first path.
            noise: other random numbers than the engine's.
            parts: other paths of the noise than those numbered alike.
        """
        paths, draws = self.drawn(first, noise, parts)
        states = simulate(self.job, draws, self.coefficients, self.start(), self.constants)
        n = min(self.block_size, self.n_paths - first)
        return Block(
            tuple(s[..., :n] for s in states),
            draws,
            n,
            self.model.assets,
            paths,
            self.job.grid.dates,
            self.averaged,
            self.sampled,
            self.tracked,
        )

    def drawn(self, first: int, noise: Noise | None = None, parts: Parts | None = None) -> tuple[Tensor, BlockNoise]:
        """Numbers of the paths of a block, and their draws; arguments as those of `block`."""
        engine = self.engine
        with outside_transforms():
            paths = torch.arange(first, first + self.block_size)
            if parts is not None:
                paths = parts.numbers(paths)
            times = torch.tensor(self.job.grid.times, dtype=torch.float64)
            n_steps = max(1, self.job.n_steps)
            draws = (noise or engine.noise).block(paths, n_steps, *self.draws, engine.dtype, engine.device, times)
            if not self.job.kernel.compiled:
                draws = draws.ahead(n_steps)
            if parts is not None and parts.folded:
                draws = Folded(draws, len(parts.offsets))
        if self.job.kernel.spare and not (self.job.kernel.compiled or inside_transform()):
            draws = Remembered(draws, self.job.kernel.spare)
        return paths, draws

    def start(self) -> State:
        """State at time 0, [*batch, P] each."""
        return tuple(s.expand(*self.model.batch_shape, self.block_size).contiguous() for s in self.initial)

    def where_not_finite(self, noise: BlockNoise) -> str:
        """Finds the step at which a path leaves the finite numbers, and says so."""
        kernel, state = Kernel.eager(self.scheme, self.job.kernel.spare), tuple(s.detach() for s in self.start())
        coefficients, constants = self.coefficients.detach(), tuple(k.detach() for k in self.constants)
        step = "the payoff"
        for k, row in enumerate(self.job.rows):
            state = kernel.advance(state, coefficients[row], constants, noise, k)
            if not all(bool(torch.isfinite(s).all()) for s in state):
                step = f"step {k} (t = {self.job.grid.times[k + 1]:.4g} years)"
                break
        shown = {name: value.detach().flatten()[:3].tolist() for name, value in self.model.params.items()}
        return (
            f"{self.model.name} under {type(self.scheme).__name__}: a path is not finite at {step}; parameters {shown}"
        )


def refuse_intensity_gradient(model: Model) -> None:
    """Raises InputError if a gradient to a jump intensity is asked for, which paths do not have."""
    moving = [name for name, p in model.params.items() if moves_by_jumps(name) and differentiated(p)]
    if moving:
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


def _bytes_per_path(
    sets: int, grid: TimeGrid, components: int, seen: int, draws: tuple[int, int], extra: int, engine: MonteCarlo
) -> int:  # fmt: skip
    """States, observed columns, stored and replayed states of the gradient, spare uniforms, the noise's own."""
    item = engine.dtype.itemsize
    n = len(grid.step_size)
    stored = min(n, STORED) + n // STORED
    kept = components * (stored + 12) + (3 + seen) * len(grid.dates) + 8
    return item * (sets * kept + n * extra) + engine.noise.bytes_per_path(max(1, n), *draws, engine.dtype)
