"""Series: what is refused and in which words, masks and windows."""

import pytest
import torch

from qsde.errors import InputError
from qsde.latent import Series

TIMES = torch.tensor([0.0, 0.5, 2.0])
NAN = float("nan")


@pytest.mark.parametrize(
    ("times", "values", "mask", "words"),
    [
        (TIMES, torch.tensor([[1.0], [NAN], [2.0]]), None, "series 0 has nan at observation 1, channel 0"),
        (TIMES, torch.tensor([[1.0], [2.0], [float("inf")]]), None, "set mask to False"),
        (torch.tensor([0.0, 2.0, 1.0]), torch.zeros(3, 1), None, "2 followed by 1"),
        (torch.tensor([0.0, 1.0, 1.0]), torch.zeros(3, 1), None, "times must increase"),
        (torch.tensor([0.0, NAN, 1.0]), torch.zeros(3, 1), None, "times must be finite"),
        (TIMES, torch.zeros(4, 1), None, "N = 4"),
        (torch.zeros(1), torch.zeros(1, 1), None, "2 observations or more, got 1"),
        (TIMES, torch.zeros(3), None, r"\[B, N, d\]"),
        (TIMES, torch.zeros(3, 1, dtype=torch.int64), None, "floating"),
        (TIMES, torch.zeros(0, 3, 1), None, r"\[B, N, d\]"),
        (TIMES, torch.zeros(3, 1), torch.ones(2, 3, 1, dtype=torch.bool), "mask must be bool"),
        (TIMES, torch.zeros(3, 1), torch.ones(1, 3, 1), "mask must be bool"),
        (TIMES, torch.zeros(2, 3, 1), torch.tensor([[True] * 3, [False] * 3]), "series 1 has no value"),
    ],
)
def test_bad_series_are_refused(times: torch.Tensor, values: torch.Tensor, mask: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Series(times, values, mask)  # type: ignore[arg-type]


def test_what_was_not_seen_may_be_nan() -> None:
    values = torch.tensor([[1.0, 5.0], [NAN, 6.0], [2.0, NAN]])
    series = Series(TIMES, values, ~values.isnan().unsqueeze(0))
    assert series.values[0].tolist() == [[1.0, 5.0], [0.0, 6.0], [2.0, 0.0]]
    assert int(series.seen.sum()) == 4
    assert int(series.between(1, 3).seen.sum()) == 2


def test_windows_hold_the_stretches_with_their_masks() -> None:
    values = torch.arange(20.0).view(10, 2)
    mask = torch.ones(1, 10, 2, dtype=torch.bool)
    mask[0, 4, 1] = False
    windows = Series(torch.arange(10) * 0.1 + 3.0, values, mask).windows(4, stride=2)
    assert len(windows) == 4
    assert torch.allclose(windows.times, torch.arange(4, dtype=torch.float64) * 0.1)
    assert windows.values[1, 0].tolist() == [4.0, 5.0]
    assert [int((~m).sum()) for m in windows.seen] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("series", "length", "words"),
    [
        (Series(TIMES, torch.zeros(3, 1)), 2, "equally spaced"),
        (Series(torch.arange(3.0), torch.zeros(2, 3, 1)), 2, "one series"),
        (Series(torch.arange(3.0), torch.zeros(3, 1)), 4, "2 <= length <= 3"),
        (Series(torch.arange(3.0), torch.zeros(3, 1)), 1, "2 <= length <= 3"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(series: Series, length: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        series.windows(length)
