"""Files written in one piece: there whole, or as they were before."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from qsde.errors import InputError


@contextmanager
def write_atomic(path: str | os.PathLike[str], binary: bool = False) -> Iterator[IO[Any]]:
    """Opens a file that appears under its name only when everything has been written.

    The data goes to a temporary name in the same folder and is renamed at the end; if the block raises, or the process
    is killed, an earlier file of that name is left as it was.

    Args:
        path: where the file shall be.
        binary: yield a file of bytes instead of UTF-8 text.

    Raises:
        InputError: the folder does not exist or cannot be written, or the name is that of a folder or a device.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_atomic(Path(folder) / "fit.json") as file:
        ...         _ = file.write("{}")
        ...     (Path(folder) / "fit.json").read_text()
        '{}'
    """
    target, temporary, file = _opened(path, binary)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def reserve(*paths: str | os.PathLike[str] | None) -> None:
    """Makes the folders of files to come, if wanted, and sees that they can be written: before the work, not after it.

    Raises:
        InputError: one of them cannot be written.
    """
    for path in paths:
        if path is None:
            continue
        try:
            Path(path).resolve().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.filename}: {error.strerror}") from error
        _, temporary, file = _opened(path, binary=True)
        file.close()
        temporary.unlink()


def _opened(path: str | os.PathLike[str], binary: bool) -> tuple[Path, Path, IO[Any]]:
    """Where the file shall be, and a new one beside it."""
    target = Path(path).resolve()
    if target.is_dir():
        raise InputError(f"{path}: is a folder: give a file name in it")
    if target.exists() and not target.is_file():  # a rename would put a file in its place
        raise InputError(f"{path}: is a device or a pipe: give a file name")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        file = temporary.open("xb") if binary else temporary.open("x", encoding="utf-8", newline="")
    except OSError as error:
        hint = "" if target.parent.is_dir() else f"; make the folder first: mkdir -p {target.parent}"
        raise InputError(f"{path}: cannot be written: {error.strerror}{hint}") from error
    return target, temporary, file
