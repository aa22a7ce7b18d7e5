"""The solver: time grid, time loop, gradients, compilation."""

from qsde.solve.adaptive import PID, Adaptive
from qsde.solve.grid import TimeGrid
from qsde.solve.integrate import sdeint
from qsde.solve.job import STORED, Job
from qsde.solve.jumps import Jumps
from qsde.solve.kernel import Kernel
from qsde.solve.loop import simulate
from qsde.solve.stopping import Killed, Stopped, killed, stopped
from qsde.solve.strategies import STRATEGIES

__all__ = [
    "PID",
    "STORED",
    "STRATEGIES",
    "Adaptive",
    "Job",
    "Jumps",
    "Kernel",
    "Killed",
    "Stopped",
    "TimeGrid",
    "killed",
    "sdeint",
    "simulate",
    "stopped",
]
