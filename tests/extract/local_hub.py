"""A model hub on this machine, for tests: one repository, which may stop answering at a stage.

The routes are those that huggingface_hub's `snapshot_download` asks for.
"""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

COMMIT = "c" * 40


class LocalHub:
    """`stall` names what is never answered: "head", "info", "tree", "metadata", "file" (no byte of
    it comes) or "half" (half of it comes). `asked` lists every request."""

    def __init__(self, name: str, files: Mapping[str, bytes], stall: str = "", status: int = 0):
        self.name, self.files, self.stall, self.status = name, files, stall, status
        self.asked: list[str] = []
        self.over = threading.Event()
        self.url = ""

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path, method = urlsplit(request.path).path, request.command
        self.asked.append(f"{method} {path}")
        if self.status:
            return self.answer(request, b"{}", status=self.status)
        api, resolve = f"/api/models/{self.name}", f"/{self.name}/resolve/"
        if path == "/":
            return self.answer(request, b"", at="head")
        if path.startswith(f"{api}/tree/"):
            return self.answer(request, json.dumps(self.tree()).encode(), at="tree")
        if path.startswith(api):
            about = {"id": self.name, "sha": COMMIT, "siblings": []}
            return self.answer(request, json.dumps(about).encode(), at="info")
        if path.startswith(resolve):
            body = self.files[path.removeprefix(resolve).split("/", 1)[1]]
            at = "metadata" if method == "HEAD" else "file"
            return self.answer(request, body, at, {"ETag": f'"{digest(body)}"'})
        return self.answer(request, b"", status=404)

    def tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": path, "size": len(body), "oid": digest(body)}
            for path, body in self.files.items()
        ]

    def answer(self, request, body: bytes, at: str = "", headers=None, status: int = 200) -> None:
        if at and at == self.stall:
            self.over.wait()
            return
        request.send_response(status)
        for key, value in {"X-Repo-Commit": COMMIT, **(headers or {})}.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "HEAD":
            return
        if at == "file" and self.stall == "half":
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            self.over.wait()
            return
        request.wfile.write(body)


def digest(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


@contextmanager
def serving(hub: LocalHub) -> Iterator[LocalHub]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.handle(self)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
