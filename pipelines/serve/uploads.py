"""Pictures out of a request, in memory alone: nothing that is uploaded is put in a file, and no
name that comes with it is opened."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

LONGEST_NAME = 80
FIELD = 1024  # bytes of a field that is no file
FRAME = 16_384  # bytes that a form adds to its files: boundaries, names


@dataclass(frozen=True)
class Upload:
    """A picture's bytes, and what it was called: to be shown, never to be opened."""

    name: str
    data: bytes


async def pictures_of(
    request: Request, field: str, *, most: int, each_mb: float, all_mb: float, seconds: float
) -> tuple[list[Upload], Mapping[str, str]]:
    """The files of that name in a form, and its other fields.

    most: files; each_mb, all_mb: of one and of all; seconds: in which they must have come. Raises
    HTTPException with a sentence: 400 no form, 408, 413, 415 another content type, 422 no file.
    """
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
        if len(upload.data) > each_mb * 1e6:
            raise HTTPException(413, f"{upload.name} is larger than {each_mb:g} MB")
    if not uploads:
        raise HTTPException(422, f"the form has no file {field!r}")
    return uploads, {name: value for name, value in form.items() if isinstance(value, str)}


class _InMemory(MultiPartParser):
    spool_max_size = 0  # of bytes in memory before a file on disk is begun: no limit

    async def parse(self) -> FormData:
        form = await super().parse()
        files = [one for _, one in form.multi_items() if isinstance(one, UploadFile)]
        if len(files) < self._current_files:  # one has begun and never ended
            await form.close()
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it breaks off")
        return form


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
