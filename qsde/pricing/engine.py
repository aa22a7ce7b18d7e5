"""Settings of a simulation, and what comes out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from numbers import Integral

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.noise import Noise, Threefry
from qsde.schemes import Scheme
from qsde.solve.compiled import Compile

#: Most paths of one simulation.
_MAX_PATHS = 1 << 36
#: torch knows more devices, some of which hold no numbers.
_DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?")


@dataclass(frozen=True)
class MonteCarlo:
    """Settings of a simulation.

    Attributes:
        n_paths: paths; rounded up to whole groups of the noise.
        max_dt: largest step in years, ignored by exact schemes.
        scheme: None takes the default of the model (`scheme_for`).
        noise: the random numbers, a value: same noise, same digits.
        dtype: float32 or float64 of the paths; sums are float64 always.
        device: where the paths live: "cpu", "cuda" or one of several, such as "cuda:1".
        control_variate: regress each payoff on quantities of known mean: the forward always, the geometric average for
            an arithmetic one, the vanilla for options with a barrier (`qsde.pricing.controls`).
        conditional: where every payoff looks at the price at its expiry only, simulate what drives the variance and the
            jumps, and take the mean over the rest in closed form (schemes that can: `HestonQE`, and jumps). It makes
            digitals smooth, so that they may be differentiated.
        compile: "auto" compiles when the job is large enough to pay, "always" or "never".
        memory_budget: bytes that one block may take; it decides the block size, and how much of its steps a gradient
            keeps, never the result.

    Raises:
        InputError: a setting out of its range, or a device that is not there.
    """

    n_paths: int = 1 << 16
    max_dt: float = 1 / 32
    scheme: Scheme | None = None
    noise: Noise = field(default_factory=lambda: Threefry(seed=0))
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    control_variate: bool = True
    conditional: bool = True
    compile: Compile = "auto"
    memory_budget: int = 1 << 30

    def __post_init__(self) -> None:
        if not _is_whole(self.n_paths):
            raise InputError(f"n_paths must be an integer, such as 65536, got {self.n_paths!r}")
        if not 2 <= self.n_paths <= _MAX_PATHS:
            raise InputError(f"n_paths must be from 2 to {_MAX_PATHS:,} (2^36), got {self.n_paths:,}")
        if not self.max_dt > 0:
            raise InputError(f"max_dt must be positive (years per step), got {self.max_dt}")
        if not isinstance(self.noise, Noise):
            raise InputError(f"noise must be one of qsde.noise, such as Threefry(seed=1), got {self.noise!r:.60}")
        if not isinstance(self.scheme, Scheme | None):
            raise InputError(f"scheme must be one of qsde.schemes, such as HestonQE(), got {self.scheme!r:.60}")
        if self.dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be torch.float32 or torch.float64, got {self.dtype}")
        if self.compile not in ("auto", "always", "never"):
            raise InputError(f"compile must be 'auto', 'always' or 'never', got {self.compile!r}")
        if self.memory_budget < 1 << 20:
            raise InputError(f"memory_budget is {self.memory_budget} bytes; give at least 1 MiB")
        if not _DEVICE.fullmatch(str(self.device)):
            raise InputError(f"device: choose cpu, cuda or one of several, such as cuda:1, not {self.device!r}")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as reason:
            raise InputError(f"device {self.device!r} is not there: {str(reason).splitlines()[0]}") from None


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


@dataclass(frozen=True)
class Auto:
    """Exact prices (mostly Fourier integrals) for every payoff that has one, and a simulation for the others.

    Attributes:
        simulation: how the others are simulated.
    """

    simulation: MonteCarlo = field(default_factory=MonteCarlo)

    def __post_init__(self) -> None:
        if not isinstance(self.simulation, MonteCarlo):
            raise InputError(f"Auto: simulation must be of type MonteCarlo, got {self.simulation!r:.60}")


@dataclass(frozen=True)
class Estimate:
    """A simulated price.

    Attributes:
        value: [*batch] for one payoff, [*batch, payoffs] for a list; differentiable.
        std_error: standard error of the value, same shape, without gradient.
        n_paths: paths simulated.
        noise: the random numbers used: with the same noise the same digits come back.
        seconds: wall-clock time.
        variance_ratio: how many times more paths the same error would take by plain simulation, same shape: what
            control variates, antithetic or low-discrepancy noise and conditioning gained; 1 where there are none.
    """

    value: Tensor
    std_error: Tensor
    n_paths: int
    noise: Noise
    seconds: float
    variance_ratio: Tensor
