"""Pictures out of a request, in memory alone: nothing that is uploaded is put in a file, and no
name that comes with it is opened."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import starlette
from fastapi import HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cache.errors import SettingsError
from pipelines.settings import Serve

LONGEST_NAME = 80
FIELD = 1024  # bytes of a field that is no file
FRAME = 16_384  # bytes that a form adds to its files: boundaries, names


@dataclass(frozen=True)
class Upload:
    """A picture's bytes, and what it was called: to be shown, never to be opened."""

    name: str
    data: bytes


async def pictures_of(
    request: Request, field: str, limits: Serve, *, many: bool = False
) -> tuple[list[Upload], Mapping[str, str]]:
    """The one file of that name in a form, or as many as `limits.batch`, and its other fields.

    Raises HTTPException with a sentence: 400 no form, 408, 413, 415 another content type, 422 no
    file.
    """
    most, seconds = (limits.batch if many else 1), limits.upload_seconds
    all_mb = limits.batch_mb if many else limits.upload_mb
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(
            415, f"send the picture as the file {field!r} of a form (multipart/form-data)"
        )
    too_many = f"more than {most} file{'' if most == 1 else 's'}"
    try:
        async with asyncio.timeout(seconds):
            body = limited(request, int(all_mb * 1e6) + FRAME, f"{all_mb:g} MB")
            parser = _InMemory(
                request.headers, body, max_files=most, max_fields=8, max_part_size=FIELD
            )
            form = await parser.parse()
    except TimeoutError:
        raise HTTPException(408, f"the upload took longer than {seconds:g} s") from None
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise HTTPException(413, f"{too_many}: send fewer at once") from None
        raise HTTPException(400, f"the form is damaged: {error.message}") from None
    files = [one for one in form.getlist(field) if isinstance(one, UploadFile)]
    uploads = [Upload(named(one.filename), await one.read()) for one in files]
    await form.close()
    for upload in uploads:
        if len(upload.data) > limits.upload_mb * 1e6:
            raise HTTPException(413, f"{upload.name} is larger than {limits.upload_mb:g} MB")
    if not uploads:
        raise HTTPException(422, f"the form has no file {field!r}")
    return uploads, {name: value for name, value in form.items() if isinstance(value, str)}


def check_parser() -> None:
    """Raises SettingsError where the form parser has no setting any more, or not yet, that keeps a
    large file out of a temporary one."""
    if not hasattr(MultiPartParser, "spool_max_size"):
        raise SettingsError(
            f"starlette {starlette.__version__} would put uploads into files, and `emocache serve` "
            "does not: pip install 'starlette>=1.8'"
        )


class _InMemory(MultiPartParser):
    spool_max_size = 0  # of bytes in memory before a file on disk is begun: no limit
    ended = False

    def on_end(self) -> None:
        self.ended = True

    async def parse(self) -> FormData:
        self.stream = self._to_its_end(self.stream)
        return await super().parse()

    async def _to_its_end(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Raises from within the body, where what was read so far is closed."""
        async for chunk in body:
            yield chunk
        if not self.ended:
            raise MultiPartException("it breaks off")


async def limited(request: Request, most: int, words: str) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Raises HTTPException 413 as soon as it is, or says it is, longer than
    `most` bytes; words: how many these are."""
    refusal = HTTPException(413, f"the request is larger than {words}")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise refusal
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > most:
            raise refusal
        yield chunk


def named(name: str | None) -> str:
    """The last part of a file's name, printable and short."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    shown = "".join(one if one.isprintable() else "?" for one in last).strip()
    if len(shown) > LONGEST_NAME:
        shown = f"{shown[: LONGEST_NAME - 13]}...{shown[-10:]}"
    return shown or "picture"


def wished(fields: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """A field with one of these values, the first of them where it is left out. Raises
    HTTPException 422."""
    value = fields.get(name, choices[0])
    if value not in choices:
        raise HTTPException(422, f"{name}: should be {', '.join(choices)}")
    return str(value)
