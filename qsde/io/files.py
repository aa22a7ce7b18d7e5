"""Files as bytes: recognising what they hold, and opening them with a size limit."""

from __future__ import annotations

import difflib
import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qsde.errors import FileFormatError

Progress = Callable[[int, int], None]

#: Largest file read without asking, in bytes after decompression.
MAX_BYTES = 2 * 1024**3

_MAGIC = {
    b"PAR1": "parquet",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "an Excel workbook or zip archive: save the sheet as CSV, or unpack the archive, and give that file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save the sheet as CSV and give that file",
    b"BZh": "bzip2-compressed: unpack it (bunzip2) and give that file",
    b"(\xb5/\xfd": "zstd-compressed: unpack it (unzstd) and give that file",
    b"\xfd7zXZ": "xz-compressed: unpack it (unxz) and give that file",
    b"%PDF": "a PDF: give the data as CSV, Parquet or JSON",
}
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Limits:
    """How much may be read, and whom to tell about progress (bytes done, bytes in all)."""

    max_bytes: int = MAX_BYTES
    progress: Progress | None = None

    def check(self, path: Path, size: int) -> None:
        """Raises FileFormatError where `size` is above the limit."""
        if size > self.max_bytes:
            raise FileFormatError(
                f"{path}: holds at least {size:,} bytes, above the limit of {self.max_bytes:,}; split the file, or "
                f"raise the limit with --max-bytes {2 * size} (max_bytes={2 * size})"
            )

    def report(self, done: int, total: int) -> None:
        """Tells the progress callback, if there is one."""
        if self.progress is not None:
            self.progress(min(done, total), total)


class InputFile:
    """A file opened for reading, decompressed on the way where it is gzip."""

    def __init__(self, path: Path, limits: Limits, kind: str) -> None:
        self.path = path
        self.limits = limits
        self.size = path.stat().st_size
        self._taken = 0
        if kind == "plain":
            limits.check(path, self.size)
        self._raw = path.open("rb")
        self._stream: io.BufferedIOBase = gzip.GzipFile(fileobj=self._raw) if kind == "gzip" else self._raw

    def __enter__(self) -> InputFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._raw.close()

    def read(self, count: int) -> bytes:
        """The next bytes, at most `count`; empty at the end.

        Raises:
            FileFormatError: the compressed data is damaged or incomplete, or the limit is passed.
        """
        try:
            data = self._stream.read(count)
        except (EOFError, OSError, zlib.error) as error:
            raise FileFormatError(
                f"{self.path}: the file is damaged or incomplete ({error}); copy or download it again"
            ) from error
        self._taken += len(data)
        self.limits.check(self.path, self._taken)
        self.limits.report(self._raw.tell(), self.size)
        return data

    def read_all(self) -> bytes:
        """All bytes that are left, within the limit."""
        parts = []
        while part := self.read(1 << 22):
            parts.append(part)
        return b"".join(parts)


def sniff(path: Path) -> tuple[str, str]:
    """What a file holds, by its first bytes: ("plain" or "gzip", "parquet", "json" or "text").

    Raises:
        FileFormatError: no such file, a folder, empty, or a kind that is not read; the message says what to do.
    """
    head = _head(path)
    packing = "gzip" if head.startswith(b"\x1f\x8b") else "plain"
    if packing == "gzip":
        with InputFile(path, Limits(), "gzip") as file:
            head = file.read(65536)
    if not head.strip():
        raise FileFormatError(f"{path}: is empty; give a CSV, Parquet or JSON file with one option per row")
    for magic, meaning in _MAGIC.items():
        if head.startswith(magic):
            if meaning == "parquet" and packing == "plain":
                return packing, meaning
            raise FileFormatError(f"{path}: this is {meaning if meaning not in _READ else 'packed twice: unpack it'}")
    if b"\0" in head and not head.startswith(_BYTE_ORDER_MARKS):
        raise FileFormatError(f"{path}: binary data that is neither Parquet nor gzip; give CSV, Parquet or JSON")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise FileFormatError(f"{path}: this is a web page, not a table: download the file that it shows or links to")
    return packing, "json" if _looks_like_json(start) else "text"


_READ = ("parquet", "gzip")


def _head(path: Path) -> bytes:
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return file.read(65536)
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: no such file{_suggestion(path)}") from error
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{str(path)!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise FileFormatError(f"{path}: is a folder; give one file, for example {_example_in(path)}")


def _example_in(folder: Path) -> Path:
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in (".csv", ".parquet", ".json", ".gz"))
    return files[0] if files else folder / "quotes.csv"


def _suggestion(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor a folder {path.parent}"
    close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _looks_like_json(start: bytes) -> bool:
    # OptionsDX headers begin with "[QUOTE_UNIXTIME]", which JSON never does
    after = start[1:].lstrip()[:1]
    return (start[:1] == b"{") or (start[:1] == b"[" and (after in b'{["]-tfn0123456789'))
