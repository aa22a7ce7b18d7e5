"""What a calibration by simulation warns of."""

import torch

from qsde.calibration.quality import Simulated, simulation_warnings


def simulated(fresh: float) -> Simulated:
    one = torch.ones(3, dtype=torch.float64)
    deviations = torch.linspace(-1, 1, 8, dtype=torch.float64).unsqueeze(-1) * one
    return Simulated.of(
        1024, fitted=one, fresh=fresh * one, deviations=deviations, gradients=deviations[:, :1] / 10,
        halved=torch.zeros(1, dtype=torch.float64), normal=torch.eye(1, dtype=torch.float64), unit=one,
    )  # fmt: skip


def test_fresh_paths_that_fail_are_spoken_of() -> None:
    by_quotes = torch.eye(1, dtype=torch.float64)
    assert simulation_warnings(["vol"], by_quotes, simulated(2.0)) == ()
    (warning,) = simulation_warnings(["vol"], by_quotes, simulated(float("nan")))
    assert "fresh paths have no finite prices" in warning
