"""Files that a command is to write: seen to before its work."""

from __future__ import annotations

from pathlib import Path


def reserve(*paths: Path | None) -> None:
    """Makes the folders of the files that are wanted.

    Raises:
        InputError: one of them cannot be written.
    """
    from qsde.io import files

    for path in paths:
        if path is not None:
            files.reserve(path)
