"""No traceback reaches the user: errors become one message on stderr and an exit code."""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from qsde.errors import QsdeError

#: Exit codes: bad input, interrupted by Ctrl-C, error inside qsde.
BAD_INPUT, INTERRUPTED, INTERNAL = 2, 130, 70


class GuardedGroup(TyperGroup):
    """A command group that turns every exception into a message; `--debug` anywhere shows the traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes `--debug` out of the arguments, wherever it stands."""
        ctx.meta["debug"] = "--debug" in args
        return super().parse_args(ctx, [a for a in args if a != "--debug"])

    def invoke(self, ctx: Any) -> Any:
        """Runs the command and ends with an exit code for whatever it raises."""
        with warnings.catch_warnings():
            # where warnings are errors (tests, python -W error) they stay errors
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except BrokenPipeError:
                raise  # the reader of our output, such as head, has left: the framework ends quietly
            except (QsdeError, OSError) as error:
                raise typer.Exit(_explain(error, _sentence(error), BAD_INPUT, ctx.meta["debug"])) from error
            except KeyboardInterrupt as error:
                raise typer.Exit(_explain(error, "interrupted", INTERRUPTED, ctx.meta["debug"])) from error
            except Exception as error:
                if type(error).__module__.split(".")[0] in ("click", "typer"):
                    raise
                text = f"internal error ({type(error).__name__}: {error}); please report it with what --debug prints"
                raise typer.Exit(_explain(error, text, INTERNAL, ctx.meta["debug"])) from error


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error)


def _explain(error: BaseException, text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    stderr().print(f"error: {text}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(str(message))


def warn(text: str) -> None:
    """One warning on stderr."""
    stderr().print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def stderr() -> Console:
    """A console on the present stderr; plain text where it is not a terminal."""
    return Console(file=sys.stderr)
