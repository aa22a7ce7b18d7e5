"""The same kernel, compiled: an accelerator that falls back to eager with a logged reason."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal

import torch

from qsde.errors import InputError
from qsde.schemes.base import Scheme
from qsde.solve.kernel import Kernel

Compile = Literal["auto", "always", "never"]

_log = logging.getLogger("qsde.solve")
#: Compiling takes seconds: it pays from about this many path-steps.
WORTH_COMPILING = 50_000_000
#: Inductor would inline the cipher's rounds into every use of a draw; stored once, it compiles in half the time.
_OPTIONS = {"realize_opcount_threshold": 8}
#: Shapes a kernel may be compiled for before torch gives up; its default of 8 falls back to eager without a word.
_SHAPES = 64


def kernel_for(scheme: Scheme, path_steps: int, compile: Compile, spare: int = 0) -> Kernel:
    """The compiled kernel if `compile` is "always", or "auto" and the job is large enough to pay; else the eager one.

    Raises:
        InputError: `compile` is something else.
    """
    if compile not in ("auto", "always", "never"):
        raise InputError(f"compile must be 'auto', 'always' or 'never', got {compile!r}")
    fast = compile == "always" or (compile == "auto" and path_steps >= WORTH_COMPILING)
    return compiled_kernel(scheme, spare) if fast else Kernel.eager(scheme, spare)


@functools.lru_cache(maxsize=32)
def compiled_kernel(scheme: Scheme, spare: int = 0) -> Kernel:
    """The kernel of a scheme through `torch.compile`; each distinct shape is compiled once and cached on disk."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES)
    eager = Kernel.eager(scheme, spare)
    return Kernel(scheme, OrEager(eager.advance, scheme), OrEager(eager.pull, scheme), spare, compiled=True)


class OrEager:
    """Calls the compiled function; if compiling fails, says why once and calls the plain one from then on."""

    def __init__(self, function: Callable[..., Any], scheme: Scheme) -> None:
        self._plain = function
        self._scheme = scheme
        self._fast: Callable[..., Any] | None = torch.compile(function, dynamic=False, options=_OPTIONS)  # type: ignore[arg-type]

    def __call__(self, *args: Any) -> Any:
        """The result of either."""
        if self._fast is None:
            return self._plain(*args)
        try:
            return self._fast(*args)
        except Exception as reason:  # torch raises many kinds, none of them its own base class
            _log.warning("%s runs uncompiled: %s", type(self._scheme).__name__, str(reason).splitlines()[0])
            self._fast = None
            return self._plain(*args)
