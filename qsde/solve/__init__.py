"""The solver: time grid, time loop, gradients, compilation."""

from qsde.solve.grid import TimeGrid
from qsde.solve.loop import Job, Kernel, simulate

__all__ = ["Job", "Kernel", "TimeGrid", "simulate"]
