"""`emocache serve`: pictures in, people and their emotions out, over HTTP.

GET  /                   the page
GET  /api/about          the head, what it rests on, what it can be asked
POST /api/predict        one picture -> its people
POST /api/predict/batch  several pictures -> a result each
GET  /api/persons        the persons of the cache that the head was fitted on, by split
GET  /api/persons/{row}  one of them, by what is stored of it
POST /api/what-if        a person of any of these, without some of what the head saw
GET  /healthz, /docs, /openapi.json
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from cache.errors import CacheError, DataError, SettingsError
from extract import images
from pipelines.serve import schema
from pipelines.serve.desk import SHOWS, Desk
from pipelines.serve.guard import LOOPBACK, POLICY, Guard
from pipelines.serve.line import Busy, Line
from pipelines.serve.uploads import Upload, check_parser, limited, pictures_of, wished
from pipelines.studies.page import warnings_of

T = TypeVar("T")

QUESTION = 65_536  # bytes of a question, at most
LATER = "5"  # seconds after which one who was sent away may ask again
SHOW = {
    "default": SHOWS[0],
    "description": "whether the picture comes back, plain or with its marks drawn",
}
Show = Annotated[Literal["none", "plain", "marked"], Query(description=SHOW["description"])]
Split = Annotated[str | None, Query(max_length=64)]
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def make_app(desk: Desk, hosts: Collection[str] | None = LOOPBACK) -> Guard:
    """The whole server as an ASGI application; hosts: the names it answers to, None: any. Raises
    SettingsError where Starlette is one that would write uploads to files."""
    check_parser()
    limits = desk.settings
    line = Line("networks", limits.queue, limits.at_once, limits.seconds)
    questions = Line("what if", limits.queue, limits.queue, limits.seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        line.close()
        questions.close()

    about = desk.about()
    app = FastAPI(
        title="emocache",
        version=about["version"],
        description=f"{about['caution']}.\n\nHead {about['head']}, fitted on {about['dataset']}. "
        f"{_said(about)}",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _pages(app)
    _refusals(app)

    @app.get("/healthz", response_model=schema.Health, tags=["server"])
    async def health() -> dict[str, Any]:
        """Whether it answers, and how many requests wait."""
        return {"status": "ok", "waiting": line.waiting + questions.waiting}

    @app.get("/api/about", response_model=schema.About, tags=["server"])
    async def what_it_rests_on() -> dict[str, Any]:
        """The head, its labels and networks, and what must be said of them."""
        return about

    @app.post("/api/predict", response_model=schema.Prediction, **_takes("picture"))
    async def predict(request: Request) -> dict[str, Any]:
        """The people of one picture, and their emotions."""
        async with line.place():
            (upload,), fields = await pictures_of(request, "picture", limits)
            show = wished(fields, "show", SHOWS)
            job = partial(desk.predict, upload.name, upload.data, keep=True, show=show)
            try:
                return {**await _asked(request, line.run(job)), **desk.grounds}
            except images.PictureError as error:
                raise HTTPException(*_picture_refused(upload, error)) from None

    @app.post("/api/predict/batch", response_model=schema.Predictions, **_takes("pictures"))
    async def predict_batch(request: Request) -> dict[str, Any]:
        """Several pictures, a result each: one that cannot be read says why, the others go on."""
        async with line.place():
            uploads, _ = await pictures_of(request, "pictures", limits, many=True)
            found = []
            for upload in uploads:  # a turn each: others come between
                job = partial(desk.predict, upload.name, upload.data, keep=False)
                try:
                    found.append(await _asked(request, line.run(job)))
                except images.PictureError as error:
                    bad = {"status": error.status, "reason": error.reason, "people": []}
                    found.append({"picture": upload.name, **bad})
            return {"pictures": found, **desk.grounds}

    @app.get(
        "/api/persons",
        response_model=schema.CachedPersons,
        tags=["cache"],
        responses=_refused(403, 404, 503),
    )
    async def persons(split: Split = None) -> dict[str, Any]:
        """The rows of the persons of a split, or of all, and how many each split has."""
        return await asked_of_the_cache(partial(desk.rows, split))

    @app.get(
        "/api/persons/{row}",
        response_model=schema.CachedPerson,
        tags=["cache"],
        responses=_refused(403, 404, 422, 503),
    )
    async def person(row: int, show: Show = "none") -> dict[str, Any]:
        """A person of the cache by its row: no network runs, and only the index names a file."""
        return await asked_of_the_cache(partial(desk.person, row, show)) | desk.grounds

    async def asked_of_the_cache(job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        async with questions.place():
            try:
                return await questions.run(job)
            except DataError as error:
                raise HTTPException(404, str(error)) from None
            except CacheError as error:
                raise HTTPException(503, str(error)) from None

    @app.post(
        "/api/what-if",
        response_model=schema.WhatIf,
        tags=["pictures"],
        responses=_refused(400, 403, 404, 413, 422, 503),
        openapi_extra=_json(schema.Question),
    )
    async def what_if(request: Request) -> dict[str, Any]:
        """A person's scores without some views, objects or edges between labels, beside those with
        everything."""
        async with questions.place():
            asked = await _question(request, limits.upload_seconds)

            def job() -> dict[str, Any]:
                return desk.what_if(**asked.model_dump())

            try:
                return await questions.run(job)
            except KeyError:
                raise HTTPException(
                    404,
                    f"nothing is kept under this token (pictures and persons asked for last are, "
                    f"{limits.kept} of them): ask for it again",
                ) from None
            except (SettingsError, DataError) as error:
                raise HTTPException(422, str(error)) from None

    return Guard(app, hosts)


# ---- what is asked -------------------------------------------------------------------------------


async def _asked(request: Request, work: Awaitable[T]) -> T:
    """What the work gives, which is dropped where its client has left."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel()
            raise HTTPException(400, "the client has left")
        return doing.result()
    finally:
        leaving.cancel()


async def _left(request: Request) -> None:
    """Returns when the client has gone; its request was read to the end before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _question(request: Request, seconds: float) -> schema.Question:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send the question as application/json")
    try:
        async with asyncio.timeout(seconds):
            body = limited(request, QUESTION, f"{QUESTION // 1024} kB")
            text = b"".join([chunk async for chunk in body])
    except TimeoutError:
        raise HTTPException(408, f"the question took longer than {seconds:g} s") from None
    try:
        return schema.Question.model_validate_json(text)
    except ValueError as error:  # pydantic's
        raise HTTPException(422, _sentence(error)) from None


def _picture_refused(upload: Upload, error: images.PictureError) -> tuple[int, str]:
    """ "missing" is what `images.read` says where memory ended: no fault of the picture."""
    return (503 if error.status == "missing" else 422), f"{upload.name}: {error.reason}"


# ---- refusals ------------------------------------------------------------------------------------

PLAIN = {
    404: "there is nothing here: see /docs",
    405: "this address wants another method: see /docs",
}


def _refusals(app: FastAPI) -> None:
    """Every refusal is JSON with a sentence, `{"detail": ...}`."""

    def said(status: int, detail: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"detail": detail}, status, headers)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        detail = str(error.detail)
        if detail in ("Not Found", "Method Not Allowed"):
            detail = PLAIN[error.status_code]
        return said(error.status_code, detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        return said(422, _sentence(error))

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return said(503, "too many pictures wait: try again soon", {"retry-after": LATER})

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return said(400, "the client has left")

    @app.exception_handler(MemoryError)
    async def full(request: Request, error: MemoryError) -> Response:
        return said(503, "no memory is left for this: try again, or a smaller picture")

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return said(500, "the server failed on this: where it runs stands why")


def _sentence(error: Any) -> str:
    """What pydantic found wrong, without the values, which came from outside."""
    found = []
    for one in error.errors():
        where = ".".join(str(part) for part in one["loc"])
        what = one["msg"].replace("Input should", "should")
        found.append(f"{where}: {what}" if where else what)
    return "; ".join(found)


# ---- pages ---------------------------------------------------------------------------------------


def _pages(app: FastAPI) -> None:
    """The page with its files, and that of the API: nothing of them comes from elsewhere."""
    own = resources.files("pipelines") / "templates"
    swagger = resources.files("fastapi_offline") / "static"
    docs = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="emocache: API",
        swagger_js_url="/swagger-ui-bundle.js",
        swagger_css_url="/swagger-ui.css",
        swagger_favicon_url="data:,",
    ).body
    # Its one script stands in the page and runs by its hash alone; its styles come as it runs.
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(docs), re.S)
    hashes = [base64.b64encode(hashlib.sha256(one).digest()).decode() for one in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    policy = POLICY.replace("script-src 'self'", f"script-src 'self' {allowed}")
    policy = policy.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")

    files: dict[str, tuple[bytes, str]] = {
        "/": ((own / "serve.html").read_bytes(), "html"),
        "/look.css": ((own / "look.css").read_bytes(), "css"),
        "/serve.css": ((own / "serve.css").read_bytes(), "css"),
        "/serve.js": ((own / "serve.js").read_bytes(), "js"),
        "/docs": (bytes(docs), "html"),
        "/swagger-ui-bundle.js": ((swagger / "swagger-ui-bundle.js").read_bytes(), "js"),
        "/swagger-ui.css": ((swagger / "swagger-ui.css").read_bytes(), "css"),
    }

    def page(path: str) -> Callable[[], Awaitable[Response]]:
        body, kind = files[path]
        headers = {"content-security-policy": policy} if path == "/docs" else None

        async def get() -> Response:
            return Response(body, media_type=TYPES[kind], headers=headers)

        return get

    for path in files:
        app.add_api_route(path, page(path), methods=["GET"], include_in_schema=False)


def _said(about: dict[str, Any]) -> str:
    return " ".join(f"**{one}.**" for one in warnings_of(about["note"], about["untrained"]))


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schema.Refusal} for status in statuses}


def _takes(field: str) -> dict[str, Any]:
    """What the addresses share that take pictures: a form, for the OpenAPI page, which
    `uploads.pictures_of` reads; "picture" is one of them."""
    file = {"type": "string", "format": "binary"}
    fields: dict[str, Any] = {field: {"type": "array", "items": file}}
    if field == "picture":
        fields = {field: file, "show": {**SHOW, "type": "string", "enum": list(SHOWS)}}
    form = {"type": "object", "properties": fields, "required": [field]}
    return {
        "tags": ["pictures"],
        "responses": _refused(400, 403, 408, 413, 415, 422, 503),
        "openapi_extra": _body("multipart/form-data", form),
    }


def _json(model: Any) -> dict[str, Any]:
    return _body("application/json", model.model_json_schema())


def _body(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}
