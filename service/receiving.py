"""Uploads: a body, or the file of a form, as a file on the disk, no larger than it may be."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fastapi import Request
from pydantic_core import from_json, to_json
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from qsde.errors import QsdeError
from qsde.spec import checked
from service.errors import Problem
from service.kept import SurfaceOptions
from service.limits import exceeded
from service.settings import Settings
from service.uploads import Upload

_FORM = "multipart/form-data"
#: Fields of a form, and bytes of each but the file.
_FIELDS, _FIELD_BYTES = 40, 1 << 16
#: Bytes that a form may have beside the file.
_AROUND = _FIELDS * _FIELD_BYTES
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Received:
    """An upload, and a digest that is equal for equal files and options."""

    upload: Upload
    digest: str


@asynccontextmanager
async def received(request: Request, settings: Settings) -> AsyncIterator[Received]:
    """The upload of a request; its file is there as long as the context.

    Raises:
        Problem: 413 if it is too large, 422 if its options or its form cannot be read.
    """
    path = _path(settings)
    try:
        with path.open("xb") as file:
            if request.headers.get("content-type", "").startswith(_FORM):
                name, options = await _form(request, settings, file)
            else:
                name, options = "upload", dict(request.query_params)
                async for part in _limited(request, settings, settings.max_upload_bytes):
                    file.write(part)
        yield await asyncio.to_thread(_received, path, name, _options(options))
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def written(settings: Settings, content: bytes, name: str, options: SurfaceOptions) -> Iterator[Upload]:
    """Bytes as an upload."""
    path = _path(settings)
    try:
        path.write_bytes(content)
        yield Upload(path, name, options)
    finally:
        path.unlink(missing_ok=True)


def _path(settings: Settings) -> Path:
    folder = settings.data_dir / "uploads"
    folder.mkdir(exist_ok=True)
    return folder / uuid.uuid4().hex


async def _limited(request: Request, settings: Settings, most: int) -> AsyncGenerator[bytes]:
    taken = 0
    async for part in request.stream():
        taken += len(part)
        if taken > most:
            limit = settings.max_upload_bytes
            raise exceeded("max_upload_bytes", limit, "bytes in an upload", "split the file, or pack it with gzip", 413)
        yield part


async def _form(request: Request, settings: Settings, target: IO[bytes]) -> tuple[str, dict[str, str]]:
    parts = _limited(request, settings, settings.max_upload_bytes + _AROUND)
    parser = MultiPartParser(request.headers, parts, max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        raise Problem(422, f"the form cannot be read: {error}") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(422, "file: give the quotes as a file in the field `file` of the form", "file")
        if (file.size or 0) > settings.max_upload_bytes:
            limit = settings.max_upload_bytes
            raise exceeded("max_upload_bytes", limit, "bytes in an upload", "split the file, or pack it with gzip", 413)
        while part := await file.read(_CHUNK):
            target.write(part)
        fields = {name: str(value) for name, value in form.multi_items() if name != "file"}
        return _plain(file.filename), {**dict(request.query_params), **fields}
    finally:
        await form.close()


def _plain(name: str | None) -> str:
    """A file name to show: its last part, without what does not print."""
    last = PurePosixPath((name or "").replace("\\", "/")).name[:100]
    return "".join(c for c in last if c.isprintable()) or "upload"


def _options(given: Mapping[str, str]) -> SurfaceOptions:
    """Options from texts; those that stand for a mapping are JSON objects."""
    try:
        options: SurfaceOptions = checked(SurfaceOptions, {name: _value(text) for name, text in given.items()})
        options.check()
    except QsdeError as error:
        raise Problem.of(str(error)) from None
    return options


def _value(text: str) -> Any:
    if not text.startswith("{"):
        return text
    try:
        return from_json(text)
    except ValueError:
        return text


def _received(path: Path, name: str, options: SurfaceOptions) -> Received:
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    digest = hashlib.sha256(content + to_json(options)).hexdigest()
    return Received(Upload(path, name, options), digest)
