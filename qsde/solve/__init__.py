"""The solver: time grid, time loop, gradients, compilation."""

from qsde.solve.grid import TimeGrid
from qsde.solve.integrate import sdeint
from qsde.solve.loop import STORED, Job, Kernel, simulate

__all__ = ["STORED", "Job", "Kernel", "TimeGrid", "sdeint", "simulate"]
