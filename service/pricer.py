"""What the workers that price do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic_core import to_json

from service import fitted
from service.answers import Reply, Task, alone, answer, check_machine
from service.examples import GREEKS, IMPLIED_VOL, PRICE, SCENARIOS
from service.settings import Settings
from service.workers import Handle, Tell


def prepare(settings: Settings) -> Handle:
    """Warms up, so that the first request is not slow."""
    torch.set_num_threads(1)  # the digits of shared simulations depend on it
    fitted.open_library(settings)
    check_machine()
    for endpoint, examples in (
        ("price", PRICE),
        ("greeks", GREEKS),
        ("scenarios", SCENARIOS),
        ("implied_vol", IMPLIED_VOL),
    ):
        for example in examples.values():
            status, body = alone(endpoint, to_json(example))
            assert status == 200, body
    return _answers


def _answers(tasks: Sequence[Task], tell: Tell) -> list[Reply]:
    return answer(tasks)
