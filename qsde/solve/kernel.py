"""One step of a scheme with its noise, and the product of a gradient with its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.noise.base import BlockNoise
from qsde.schemes.base import Scheme, State
from qsde.solve.pullback import Tensors, pullback

#: `advance(state, c, constants, block, step) -> state`
Advance = Callable[[State, Tensor, Tensors, BlockNoise, int | Tensor], State]
#: `pull(state, c, constants, block, step, gradient) -> (gradient of the state, of c, of the constants)`
Pull = Callable[[State, Tensor, Tensors, BlockNoise, int | Tensor, State], tuple[State, Tensor, Tensors]]


@dataclass(frozen=True)
class Kernel:
    """One step of a scheme with its noise, and its vector-Jacobian product; either may be compiled.

    Attributes:
        scheme: the scheme.
        advance, pull: the two functions.
        spare: uniforms of a step, the last ones, that are not the scheme's.
        compiled: whether the functions are compiled, and draw in their own code.
    """

    scheme: Scheme
    advance: Advance
    pull: Pull
    spare: int = 0
    compiled: bool = False

    @classmethod
    def eager(cls, scheme: Scheme, spare: int = 0) -> Kernel:
        """The plain functions."""

        def advance(state: State, c: Tensor, constants: Tensors, block: BlockNoise, step: int | Tensor) -> State:
            return scheme.step(state, c, *draws(block, step, spare), constants)

        def pull(
            state: State, c: Tensor, constants: Tensors, block: BlockNoise, step: int | Tensor, gradient: State
        ) -> tuple[State, Tensor, Tensors]:
            normals, uniforms = draws(block, step, spare)

            def step_of(state: State, c: Tensors, constants: Tensors) -> State:
                return scheme.step(state, c[0], normals, uniforms, constants)

            _, (flow, (of_c,), of_constants) = pullback(step_of, (state, (c,), constants), lambda _: gradient)
            return flow, of_c, of_constants

        return cls(scheme, advance, pull, spare)

    def number(self, k: int, device: torch.device) -> int | Tensor:
        """The number of a step as the functions take it: a tensor if they would be compiled for each number."""
        return torch.full((), k, device=device) if self.compiled else k


def draws(block: BlockNoise, step: int | Tensor, spare: int) -> tuple[Tensor, Tensor]:
    """Normals and uniforms of a step, without the last `spare` uniforms."""
    normals, uniforms = block.draw(step)
    return normals, uniforms[: len(uniforms) - spare]
