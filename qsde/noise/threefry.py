"""Counter-based random numbers in tensor operations: computed from their counters where they are used, never stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from qsde.errors import InputError
from qsde.noise.base import BlockNoise, Columns, Noise, check_block, check_seed
from qsde.noise.transforms import box_muller, word_uniform

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA

#: The second counter word is `step << 12 | slot`. Slots 0-1023 make pairs of normals and 2048-3071 pairs of uniforms;
#: the slots 1024 above add the low words of float64.
_SLOT_BITS = 12
_UNIFORM_SLOTS = 2048
_LOW_WORDS = 1024
MAX_STEPS = 1 << (32 - _SLOT_BITS)
MAX_FACTORS = 2 * _LOW_WORDS
MAX_PATHS = 1 << 32
#: Blocks of at most so many paths are drawn for several steps at once, about so many numbers together.
_FEW_PATHS, _AT_ONCE = 1 << 13, 1 << 15
#: More normals than this are drawn as one tensor.
_FEW_FACTORS = 4

_Words = tuple[Tensor, Tensor]


def threefry2x32(first: Tensor, second: Tensor | int, key: Tensor, rounds: int = 20) -> _Words:
    """Threefry-2x32: a keyed bijection of 64-bit counters whose outputs are as good as independent random words.

    int32 tensors carry the unsigned words, since wrapping addition, xor and shifts have the same bits either way and
    the inductor vectorises int32. 20 rounds are the authors' recommendation with a margin; 13 pass BigCrush.

    Args:
        first: first counter word, int32, any shape.
        second: second counter word, int32, broadcastable with `first`.
        key: int32 `[2]`.
        rounds: mixing rounds.

    Returns:
        Two int32 words of the broadcast shape.

    Reference:
        Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC11 (2011).

    Example:
        >>> zero = torch.zeros((), dtype=torch.int32)
        >>> [f"{int(word) & 0xFFFFFFFF:08x}" for word in threefry2x32(zero, zero, torch.zeros(2, dtype=torch.int32))]
        ['6b200159', '99ba4efe']
    """
    k0, k1 = key.unbind(0)
    keys = (k0, k1, k0 ^ k1 ^ _PARITY)
    a, b = first + k0, second + k1
    for i in range(rounds):
        a = a + b
        b = _rotate(b, _ROTATIONS[i // 4 % 2][i % 4]) ^ a
        if i % 4 == 3:
            turn = i // 4 + 1
            a, b = a + keys[turn % 3], b + (keys[(turn + 1) % 3] + turn)
    return a, b


def threefry_draw(
    words: Tensor,
    step: int | Tensor,
    key: Tensor,
    n_normals: int,
    n_uniforms: int,
    dtype: torch.dtype,
    rounds: int = 13,
) -> tuple[Columns, Columns]:
    """Normals and uniforms of one step, from nothing but counters: the form that a compiled step inlines.

    Each draw depends on (key, path, step, factor) alone: not on how many factors there are, and on the dtype only in
    its rounding, as float64 refines the float32 draw with further bits. Normals are Box-Muller pairs (|z| <= 5.77 in
    float32, 8.57 in float64), uniforms odd multiples of 2^-24 or 2^-53, so `1 - u` is exact.

    Args:
        words: low 32 bits of the path numbers as int32 `[P]` (see `path_words`).
        step: step number below 2^20; a 0-dim integer tensor inside a compiled graph.
        key: int32 `[2]` on the same device (see `seed_key`).
        n_normals: at most 2048.
        n_uniforms: at most 2048.
        dtype: torch.float32 or torch.float64.
        rounds: Threefry rounds.

    Example:
        >>> words = path_words(torch.arange(3), "cpu")
        >>> normals, uniforms = threefry_draw(words, 7, seed_key(1, "cpu"), 2, 1, torch.float64)
        >>> len(normals), len(uniforms), normals[0].shape
        (2, 1, torch.Size([3]))
    """
    first = _step_word(step)
    wide = dtype == torch.float64

    of_normals = range((n_normals + 1) // 2)
    of_uniforms = range(_UNIFORM_SLOTS, _UNIFORM_SLOTS + (n_uniforms + 1) // 2)
    several: dict[int, _Words] = {}
    if isinstance(step, Tensor) and step.dim():  # few paths: one operation for all slots
        slots = [i + part for i in (*of_normals, *of_uniforms) for part in ((0, _LOW_WORDS) if wide else (0,))]
        index = torch.tensor(slots, dtype=torch.int32, device=words.device).reshape(-1, *(1,) * step.dim())
        several = dict(zip(slots, zip(*threefry2x32(words, first | index, key, rounds), strict=True), strict=True))

    def slot(index: int) -> _Words:
        return several[index] if several else threefry2x32(words, first | index, key, rounds)

    def low(index: int) -> _Words | tuple[None, None]:
        return slot(index + _LOW_WORDS) if wide else (None, None)

    normals: list[Tensor] = []
    for i in of_normals:
        normals += box_muller(slot(i), low(i))
    uniforms: list[Tensor] = []
    for i in of_uniforms:
        uniforms += [word_uniform(high, fine) for high, fine in zip(slot(i), low(i), strict=True)]
    return tuple(normals[:n_normals]), tuple(uniforms[:n_uniforms])


def threefry_matrix(
    words: Tensor, step: int | Tensor, key: Tensor, n_normals: int, dtype: torch.dtype, rounds: int = 13
) -> Tensor:
    """The normals of `threefry_draw` as one tensor [*, P, n]: a handful of operations, however many factors there are.

    Args:
        words: as in `threefry_draw`.
        step: step number, or a tensor [*, 1, 1] of several.
        key: as in `threefry_draw`.
        n_normals: likewise.
        dtype: likewise.
        rounds: likewise.

    Example:
        >>> words, key = path_words(torch.arange(3), "cpu"), seed_key(1, "cpu")
        >>> normals, _ = threefry_draw(words, 7, key, 5, 0, torch.float64)
        >>> torch.equal(threefry_matrix(words, 7, key, 5, torch.float64), torch.stack(normals, -1))
        True
    """
    slots = torch.arange((n_normals + 1) // 2, dtype=torch.int32, device=words.device) | _step_word(step)
    first = words.unsqueeze(-1)
    low = threefry2x32(first, slots + _LOW_WORDS, key, rounds) if dtype == torch.float64 else (None, None)
    pairs = torch.stack(box_muller(threefry2x32(first, slots, key, rounds), low), -1)
    return pairs.flatten(-2)[..., :n_normals]


def path_words(paths: Tensor, device: torch.device | str) -> Tensor:
    """Path numbers in [0, 2^32) as the int32 words with the same bits."""
    return torch.where(paths >= 1 << 31, paths - (1 << 32), paths).to(device, torch.int32)


def seed_key(seed: int, device: torch.device | str) -> Tensor:
    """The 64 bits of a seed as the two int32 words of a Threefry key.

    Example:
        >>> seed_key(2**32 + 5, "cpu")
        tensor([5, 1], dtype=torch.int32)
    """
    return torch.tensor([_signed(seed), _signed(seed >> 32)], dtype=torch.int32, device=device)


@dataclass(frozen=True)
class Threefry(Noise):
    """Independent draws from a counter-based generator.

    Seeds are 64 bits, paths 32 bits, steps 20 bits, and 2048 normal and as many uniform factors: distinct
    (seed, path, step, factor) never share a counter.

    Attributes:
        seed: integer from 0 to 2^64 - 1.
        rounds: Threefry rounds: 13 pass the BigCrush battery, 20 keep the authors' safety margin and cost about half
            as much again.

    Example:
        >>> block = Threefry(42).block(torch.arange(4), 10, 2, 1, torch.float32, "cpu")
        >>> normals, uniforms = block.draw(3)
        >>> normals.shape, uniforms.shape
        (torch.Size([2, 4]), torch.Size([1, 4]))
    """

    seed: int
    rounds: int = 13

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.rounds not in range(13, 33):
            raise InputError(
                f"rounds must be an integer from 13 (the fewest that pass BigCrush) to 32, got {self.rounds}"
            )

    def block(
        self,
        paths: Tensor,
        n_steps: int,
        n_normals: int,
        n_uniforms: int,
        dtype: torch.dtype,
        device: torch.device | str,
        times: Tensor | None = None,
    ) -> ThreefryBlock:
        """The draws of these paths; `times` do not matter to independent draws."""
        check_block(paths, MAX_PATHS, n_steps, n_normals, n_uniforms, dtype)
        _check_limit("steps", n_steps, MAX_STEPS, "use a larger step size")
        _check_limit("normal factors per step", n_normals, MAX_FACTORS, "use fewer factors")
        _check_limit("uniform factors per step", n_uniforms, MAX_FACTORS, "use fewer factors")
        words, key = path_words(paths, device), seed_key(self.seed, device)
        return ThreefryBlock(words, key, n_normals, n_uniforms, dtype, self.rounds)

    def bytes_per_path(self, n_steps: int, n_normals: int, n_uniforms: int, dtype: torch.dtype) -> int:
        """One counter word."""
        return 4


@dataclass(frozen=True)
class ThreefryBlock(BlockNoise):
    """Counters of a block of paths; the draws are computed on demand.

    Seed and paths are tensors, so blocks of the same size share one compiled graph.
    """

    words: Tensor
    key: Tensor
    n_normals: int
    n_uniforms: int
    dtype: torch.dtype
    rounds: int

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """`threefry_draw` at this block's counters."""
        return threefry_draw(self.words, step, self.key, self.n_normals, self.n_uniforms, self.dtype, self.rounds)

    def empty(self) -> Tensor:
        """A tensor `[0, P]`."""
        return self.words.new_empty((0, self.words.shape[0]), dtype=self.dtype)

    def draw(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """The draws stacked; many normals are drawn as one tensor."""
        if self.n_normals <= _FEW_FACTORS:
            return super().draw(step)
        uniforms = threefry_draw(self.words, step, self.key, 0, self.n_uniforms, self.dtype, self.rounds)[1]
        return self._matrix(step).mT, self._stacked(uniforms)

    def ahead(self, n_steps: int) -> BlockNoise:
        """Draws of several steps at once: with few paths a step costs what torch takes to start its operations."""
        if len(self.words) * max(1, self.n_normals // _FEW_FACTORS) > _FEW_PATHS:
            return self
        return Stretches(self, n_steps, max(1, _AT_ONCE // (len(self.words) * max(1, self.n_normals))))

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Normals and uniforms of the steps from `first` to before `last`, [steps, n, P]."""
        steps = torch.arange(first, last, device=self.words.device).unsqueeze(-1)
        few = self.n_normals if self.n_normals <= _FEW_FACTORS else 0
        normals, uniforms = threefry_draw(self.words, steps, self.key, few, self.n_uniforms, self.dtype, self.rounds)
        many = self._matrix(steps.unsqueeze(-1)).mT if self.n_normals > few else self._columns(normals, len(steps))
        return many, self._columns(uniforms, len(steps))

    def _matrix(self, step: int | Tensor) -> Tensor:
        return threefry_matrix(self.words, step, self.key, self.n_normals, self.dtype, self.rounds)

    def _columns(self, columns: Columns, n_steps: int) -> Tensor:
        return torch.stack(columns, 1) if columns else self.empty().expand(n_steps, 0, -1)


class Stretches(BlockNoise):
    """Draws of a block made for a stretch of steps at a time; the last two stretches are kept.

    Args:
        block: the block.
        n_steps: how many steps there are.
        together: steps of a stretch.
    """

    def __init__(self, block: BlockNoise, n_steps: int, together: int) -> None:
        self._block, self._n_steps, self._together = block, n_steps, together
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def columns(self, step: int | Tensor) -> tuple[Columns, Columns]:
        """A row of each."""
        normals, uniforms = self.draw(step)
        return normals.unbind(0), uniforms.unbind(0)

    def draw(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """A row of the stretch that the step lies in."""
        number, k = divmod(int(step), self._together)
        if number not in self._kept:
            if len(self._kept) == 2:
                del self._kept[next(iter(self._kept))]
            first = number * self._together
            with temporarily_clear_interpreter_stack():  # kept tensors must belong to no torch.func transform
                self._kept[number] = self._block.stretch(first, min(first + self._together, self._n_steps))
        normals, uniforms = self._kept[number]
        return normals[k], uniforms[k]

    def stretch(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Those of the block."""
        return self._block.stretch(first, last)

    def empty(self) -> Tensor:
        """A tensor `[0, P]`."""
        return self._block.empty()


def _check_limit(what: str, value: int, limit: int, fix: str) -> None:
    if value > limit:
        raise InputError(f"Threefry has counters for {limit} {what}, got {value}; {fix}")


def _signed(word: int) -> int:
    """The low 32 bits as a signed integer."""
    return ((word + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def _rotate(x: Tensor, n: int) -> Tensor:
    # >> on int32 drags the sign bit along; the mask removes it
    low = (x >> (32 - n)) & ((1 << n) - 1)
    # eagerly a product and a sum are one operation, compiled two shifts are faster
    return (x << n) | low if torch.compiler.is_compiling() else torch.add(low, x, alpha=1 << n)


def _step_word(step: int | Tensor) -> int | Tensor:
    if isinstance(step, Tensor):
        return step.to(torch.int32) << _SLOT_BITS
    return _signed(step << _SLOT_BITS)
