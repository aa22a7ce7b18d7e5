"""Hypothesis tries the same examples in every run, so that a red build is a change and not a throw of dice."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker of the service: digits depend on how torch splits its work among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
