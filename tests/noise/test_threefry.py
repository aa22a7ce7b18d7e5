"""The generator itself: known answers, chunking, order, limits."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsde.errors import InputError
from qsde.noise import Antithetic, Noise, Sobol, Threefry, threefry2x32, threefry_draw
from qsde.noise.threefry import path_words, seed_key

NOISES = [
    Threefry(7),
    Threefry(7, rounds=20),
    Antithetic(Threefry(7)),
    Sobol(7, scrambles=4),
    Sobol(7, 4, bridge=False),
]
N_STEPS, N_PATHS = 6, 203
TIMES = torch.tensor([0.0, 0.1, 0.15, 0.6, 1.0, 1.1, 2.0], dtype=torch.float64)


def word(value: int) -> Tensor:
    return torch.tensor(value - (1 << 32) if value >= 1 << 31 else value, dtype=torch.int32)


@pytest.mark.parametrize(
    ("rounds", "counter", "key", "answer"),
    [
        (20, (0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        (20, (0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        (20, (0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
        (13, (0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
        (13, (0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0xFD36D048, 0x2D17272C)),
        (13, (0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xBA3E4725, 0xF27D669E)),
    ],
)
def test_known_answers(rounds: int, counter: tuple[int, int], key: tuple[int, int], answer: tuple[int, int]) -> None:
    """Vectors of the Random123 distribution (`kat_vectors`)."""
    words = threefry2x32(word(counter[0]), word(counter[1]), torch.stack([word(k) for k in key]), rounds)
    assert tuple(int(w) & 0xFFFFFFFF for w in words) == answer


def plain_threefry(counter: tuple[int, int], key: tuple[int, int], rounds: int) -> tuple[int, int]:
    """The cipher in Python integers, written from the paper."""
    mask, keys = 0xFFFFFFFF, (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    a, b = (counter[0] + key[0]) & mask, (counter[1] + key[1]) & mask
    for i, turn in zip(range(rounds), itertools.cycle((13, 15, 26, 6, 17, 29, 16, 24)), strict=False):
        a = (a + b) & mask
        b = ((b << turn | b >> (32 - turn)) & mask) ^ a
        if i % 4 == 3:
            j = i // 4 + 1
            a, b = (a + keys[j % 3]) & mask, (b + keys[(j + 1) % 3] + j) & mask
    return a, b


words32 = st.integers(0, 2**32 - 1)


@given(st.tuples(words32, words32), st.tuples(words32, words32), st.sampled_from([13, 20]))
@settings(deadline=None, max_examples=50)
def test_tensor_cipher_is_the_integer_cipher(counter: tuple[int, int], key: tuple[int, int], rounds: int) -> None:
    words = threefry2x32(word(counter[0]), word(counter[1]), torch.stack([word(k) for k in key]), rounds)
    assert tuple(int(w) & 0xFFFFFFFF for w in words) == plain_threefry(counter, key, rounds)


def all_draws(noise: Noise, paths: Tensor, dtype: torch.dtype, steps: list[int] | None = None) -> Tensor:
    """`[n_steps, 3, P]`, drawn in the given order of steps and returned in the natural one."""
    block = noise.block(paths, N_STEPS, 2, 1, dtype, "cpu", TIMES)
    rows = {step: torch.cat(block.draw(step)) for step in steps or range(N_STEPS)}
    return torch.stack([rows[step] for step in range(N_STEPS)])


WHOLE = {
    (noise, dtype): all_draws(noise, torch.arange(N_PATHS), dtype)
    for noise in NOISES
    for dtype in (torch.float32, torch.float64)
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", NOISES, ids=str)
@given(data=st.data())
@settings(deadline=None, max_examples=15)
def test_digits_do_not_depend_on_blocks_or_order(noise: Noise, dtype: torch.dtype, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, N_PATHS - 1), max_size=5)))
    order = torch.tensor(data.draw(st.permutations(range(N_PATHS))))
    steps = data.draw(st.permutations(range(N_STEPS)))
    for paths in torch.tensor_split(order, cuts):
        assert torch.equal(all_draws(noise, paths, dtype, steps), WHOLE[noise, dtype][..., paths])


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_step_as_a_tensor_and_columns_give_the_same_digits(noise: Noise) -> None:
    block = noise.block(torch.arange(5), N_STEPS, 2, 1, torch.float32, "cpu", TIMES)
    normals, uniforms = block.draw(4)
    for step in (torch.tensor(4), torch.tensor(4, dtype=torch.int32)):
        columns = block.columns(step)
        assert torch.equal(torch.stack(columns[0]), normals)
        assert torch.equal(torch.stack(columns[1]), uniforms)


@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize(("n_normals", "n_uniforms"), [(0, 0), (0, 2), (1, 0), (3, 1)])
def test_shapes(noise: Noise, n_normals: int, n_uniforms: int) -> None:
    for n_paths in (0, 1, 4):
        block = noise.block(torch.arange(n_paths), 3, n_normals, n_uniforms, torch.float32, "cpu")
        normals, uniforms = block.draw(2)
        assert normals.shape == (n_normals, n_paths)
        assert uniforms.shape == (n_uniforms, n_paths)
        assert normals.dtype == uniforms.dtype == torch.float32


def test_draw_depends_on_its_own_factor_only() -> None:
    words, key = path_words(torch.arange(9), "cpu"), seed_key(3, "cpu")
    many = threefry_draw(words, 2, key, 5, 3, torch.float32)
    few = threefry_draw(words, 2, key, 1, 2, torch.float32)
    assert torch.equal(few[0][0], many[0][0])
    assert torch.equal(torch.stack(few[1]), torch.stack(many[1][:2]))


def test_float32_is_float64_rounded() -> None:
    """One stream for both precisions, so that they can be compared path by path."""
    single, double = WHOLE[NOISES[0], torch.float32].double(), WHOLE[NOISES[0], torch.float64]
    assert (single[:, 2] - double[:, 2]).abs().max() < 2.0**-23
    torch.testing.assert_close(single[:, :2], double[:, :2], rtol=1e-3, atol=1e-5)


def test_counters_are_never_shared() -> None:
    """All words of many seeds, paths, steps and factors differ as 64-bit pairs."""
    seen: list[Tensor] = []
    for seed, step in itertools.product((0, 1, 2**32, 2**64 - 1), (0, 1, 2**20 - 1)):
        for factor in (0, 1, 1023, 2048, 4095):
            paths = path_words(torch.tensor([0, 1, 2**31, 2**32 - 1]), "cpu")
            high, low = threefry2x32(paths, int(word(step << 12 & 0xFFFFFFFF)) | factor, seed_key(seed, "cpu"), 13)
            seen.append(high.long() << 32 | (low.long() & 0xFFFFFFFF))
    assert len(torch.cat(seen).unique()) == 4 * 3 * 5 * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": torch.tensor([2**32])}, "second seed"),
        ({"paths": torch.tensor([-1])}, "second seed"),
        ({"paths": torch.tensor([0.0])}, "int64 vector"),
        ({"n_steps": 2**20 + 1}, "1048576 steps"),
        ({"n_steps": 0}, "n_steps"),
        ({"n_normals": 2049}, "2048 normal factors"),
        ({"n_uniforms": 2049}, "2048 uniform factors"),
        ({"dtype": torch.float16}, "float32 or torch.float64"),
    ],
)
def test_bad_blocks_name_the_limit(change: dict[str, object], message: str) -> None:
    request = {"paths": torch.arange(2), "n_steps": 2, "n_normals": 1, "n_uniforms": 1, "dtype": torch.float32} | change
    with pytest.raises(InputError, match=message):
        Threefry(1).block(**request, device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "x", None])
def test_bad_seeds(seed: object) -> None:
    for kind in (Threefry, Sobol):
        with pytest.raises(InputError, match="seed must be an integer"):
            kind(seed)  # type: ignore[arg-type]


def test_too_few_rounds() -> None:
    with pytest.raises(InputError, match="BigCrush"):
        Threefry(1, rounds=12)


@pytest.mark.parametrize("noise", [Threefry(3), Antithetic(Threefry(3))], ids=["Threefry", "Antithetic"])
@pytest.mark.parametrize("n_paths", [2, 700])
def test_draws_made_ahead_are_the_same_digits(noise: Noise, n_paths: int) -> None:
    block = noise.block(torch.arange(5, 5 + n_paths), 50, 3, 1, torch.float64, "cpu")
    ahead = block.ahead(50)
    for step in (0, 23, 49):
        for one, other in zip(block.draw(step), ahead.draw(torch.tensor(step)), strict=True):
            assert torch.equal(one, other)
    assert type(noise.block(torch.arange(1 << 14), 2, 1, 0, torch.float32, "cpu").ahead(2).draw(0)[0]) is torch.Tensor
