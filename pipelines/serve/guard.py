"""What every request passes before and every answer after: who may ask, and what a browser may do
with the answer. Plain ASGI, so that it stands outside of all else, errors too."""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]

KEEPS = "/api/persons"  # below it, to ask is to have something kept in place of something else
LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Scripts, styles and pictures of this server alone; pictures also as addresses of themselves.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Refuses, with a sentence, requests for another host than `hosts` (None: any), which stops a
    foreign name that leads here (DNS rebinding), and what a page of another origin sends."""

    def __init__(self, app: Application, hosts: Collection[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [
                    *message["headers"],
                    *(one for one in more if one[0] not in given),
                ]
            await send(message)

        headers = {name.decode("latin-1"): of.decode("latin-1") for name, of in scope["headers"]}
        if refusal := self._refusal(scope["method"], scope["path"], headers):
            await _say(answer, *refusal)
            return
        await self.app(scope, receive, answer)

    def _refusal(
        self, method: str, path: str, headers: Mapping[str, str]
    ) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 400, (
                "this server answers to the names of this machine alone: open it as "
                f"{' or '.join(sorted(self.hosts))}, or start it with another --host"
            )
        if method in ("GET", "HEAD", "OPTIONS") and not path.startswith(KEEPS):
            return None  # changes nothing, and a foreign page cannot read the answer
        own = {f"{scheme}://{host}".lower() for scheme in ("http", "https")}
        foreign = "origin" in headers and headers["origin"].lower() not in own
        # "none": typed by the user; programs that are no browser send neither header
        if foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "a page of another site sent this: only this server's own page may"
        return None


def _name(host: str) -> str:
    """The name in a Host header, without its port; "" where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _say(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
