"""The `qsde` command. Commands parse text, call the library and print; they hold no maths."""

from qsde.cli.app import app, main

__all__ = ["app", "main"]
