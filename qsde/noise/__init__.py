"""Noise as a value: `(seed, path, step, factor) -> draw`, the same digits whatever the block size or the order."""

from qsde.noise.antithetic import Antithetic
from qsde.noise.base import BlockNoise, Columns, Noise
from qsde.noise.bridge import BrownianBridge
from qsde.noise.brownian_tree import BrownianBlock, BrownianPoint, BrownianTree
from qsde.noise.sobol import Sobol
from qsde.noise.threefry import Threefry, threefry2x32, threefry_draw

__all__ = [
    "Antithetic",
    "BlockNoise",
    "BrownianBlock",
    "BrownianBridge",
    "BrownianPoint",
    "BrownianTree",
    "Columns",
    "Noise",
    "Sobol",
    "Threefry",
    "threefry2x32",
    "threefry_draw",
]
