"""`emocache serve` under load: the real server as a process of its own, with a head fitted on the
demo's made-up scenes.

    python benchmarks/serve.py [--scenes 24] [--requests 200] [--again 50] [--hostile 100]
                               [--among 20] [--json]

alone     single requests one after another: what a picture takes when nobody else asks
load      `--requests` requests at the same moment; who is sent away (503) asks again after the
          seconds that the answer names. Seconds of an answered request are counted from its first
          try to its answer, waiting for its turn in them
hostile   `--hostile` uploads that are no pictures, or no uploads: empty, text, truncated, promising
          60,000 x 60,000 pixels, more pixels or bytes than allowed, random bytes, broken forms,
          foreign hosts and origins; `--among` good pictures go among them. All of the hostile
          ones must be refused (4xx)
again     `--again` more good requests: whether it still answers, and whether memory has grown

Memory is what the server's process holds (resident), asked five times a second.
"""

import argparse
import asyncio
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
from made import ROOT, machine
from PIL import Image

START = (
    "from pipelines.process import settle; settle(); import typer; "
    "from pipelines.commands.serve import serve; typer.run(serve)"
)
TRIES = 200  # of a request that is sent away
PACKAGES = ["fastapi", "starlette", "uvicorn", "torch", "pillow"]


def make_project(folder: Path, scenes: int) -> list[bytes]:
    """Index, features and a head of made-up scenes; the pictures."""
    from pipelines import stages
    from pipelines.demo.scenes import make_scenes
    from pipelines.settings import load

    os.chdir(folder)
    changes = ["data.root=data", f"demo.pictures={scenes}", "train.epochs=20"]
    settings = load(ROOT / "params.yaml", changes)
    make_scenes(settings.data.root, settings.demo)
    stages.prepare(settings)
    stages.extract(settings)
    stages.train(settings)
    pictures = sorted(path for path in (folder / "data").rglob("*") if path.suffix == ".jpg")
    return [path.read_bytes() for path in pictures]


class Server:
    """The server's process, and what it holds in memory, in MB."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", START, "--port", "0", "--json"]
        command += ["--params", str(ROOT / "params.yaml")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]
        self._about, self.most, self._over = psutil.Process(self.process.pid), 0.0, False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def memory(self) -> float:
        return self._about.memory_info().rss / 1e6

    def _watch(self) -> None:
        while not self._over and self.process.poll() is None:
            self.most = max(self.most, self.memory())
            time.sleep(0.2)

    def end(self) -> int:
        self._over = True
        self._thread.join()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


# ---- good requests -------------------------------------------------------------------------------


async def ask(client: httpx2.AsyncClient, url: str, data: bytes) -> dict[str, Any]:
    """One picture until it is answered: seconds from the first try, and each status."""
    started, statuses = time.perf_counter(), []
    for _ in range(TRIES):
        try:
            answer = await client.post(f"{url}/api/predict", files={"picture": ("a.jpg", data)})
        except httpx2.HTTPError as error:
            statuses.append(type(error).__name__)
            break
        statuses.append(str(answer.status_code))
        if answer.status_code != 503:
            break
        await asyncio.sleep(float(answer.headers["retry-after"]))
    return {"seconds": time.perf_counter() - started, "statuses": statuses}


def client_of(connections: int) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=connections)
    return httpx2.AsyncClient(timeout=600, limits=limits)


async def at_once(url: str, pictures: list[bytes], count: int) -> dict[str, Any]:
    """So many requests at the same moment."""
    started = time.perf_counter()
    async with client_of(count) as client:
        tasks = [ask(client, url, pictures[n % len(pictures)]) for n in range(count)]
        found = await asyncio.gather(*tasks)
    return summary(found, time.perf_counter() - started)


async def one_by_one(url: str, pictures: list[bytes], count: int) -> dict[str, Any]:
    started = time.perf_counter()
    async with client_of(1) as client:
        found = [await ask(client, url, pictures[n % len(pictures)]) for n in range(count)]
    return summary(found, time.perf_counter() - started)


def summary(found: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    answered = [one["seconds"] for one in found if one["statuses"][-1] == "200"]
    p50, p95 = np.quantile(answered, [0.5, 0.95]) if answered else (None, None)
    return {
        "requests": len(found),
        "answered": len(answered),
        "statuses": dict(Counter(status for one in found for status in one["statuses"])),
        "p50_s": round(float(p50), 2),
        "p95_s": round(float(p95), 2),
        "a_second": round(len(answered) / seconds, 2),
    }


async def what_if(url: str, data: bytes, rounds: int = 30) -> dict[str, Any]:
    """Milliseconds of a question, over HTTP."""
    took = []
    async with client_of(1) as client:
        answer = await client.post(f"{url}/api/predict", files={"picture": ("a.jpg", data)})
        found = answer.json()
        edges = (await client.get(f"{url}/api/about")).json()["edges"][:1]
        asked = {"token": found["token"], "person": 0, "views": ["body"], "edges": edges}
        for _ in range(rounds):
            before = time.perf_counter()
            answer = await client.post(f"{url}/api/what-if", json=asked)
            took.append(time.perf_counter() - before)
            assert answer.status_code == 200, answer.text
    return {"rounds": rounds, "median_ms": round(1e3 * statistics.median(took), 1)}


# ---- hostile ones --------------------------------------------------------------------------------


def bad_pictures(good: bytes) -> dict[str, bytes]:
    bomb, huge = io.BytesIO(), io.BytesIO()
    Image.new("L", (9000, 9000)).save(bomb, "PNG")
    Image.new("RGB", (8, 8)).save(huge, "PNG")
    header = bytearray(huge.getvalue())
    header[16:24] = (60_000).to_bytes(4, "big") * 2  # the size in a PNG's header
    return {
        "empty": b"",
        "text": b"this is no picture\n" * 100,
        "truncated": good[: len(good) // 2],
        "promises too many pixels": bytes(header),
        "81 million black pixels": bomb.getvalue(),
        "20 MB": os.urandom(20_000_000),
    }


async def hostile(url: str, pictures: list[bytes], count: int, among: int) -> dict[str, Any]:
    """So many bad uploads at the same moment, and good ones among them."""
    bad = bad_pictures(pictures[0])
    post = f"{url}/api/predict"
    rng = np.random.default_rng(0)

    def form(data: bytes, name: str = "../../etc/passwd") -> dict[str, Any]:
        return {"files": {"picture": (name, data)}}

    kinds: dict[str, dict[str, Any]] = {name: form(data) for name, data in bad.items()}
    broken = {"content-type": "multipart/form-data; boundary=x"}
    kinds |= {
        "no form": {"content": pictures[0], "headers": {"content-type": "image/jpeg"}},
        "broken form": {"content": b"--y\r\n" + rng.bytes(3000), "headers": broken},
        "no file": {"files": {"other": ("a", pictures[0])}},
        "foreign page": {**form(pictures[0]), "headers": {"origin": "http://foreign.example"}},
        "foreign host": {**form(pictures[0]), "headers": {"host": "foreign.example"}},
    }
    names = [*kinds, *["random bytes"] * 4]

    async def one(number: int, client: httpx2.AsyncClient) -> tuple[str, str]:
        name = names[number % len(names)]
        given = kinds.get(name) or form(rng.bytes(int(rng.integers(1, 50_000))), "a\x00.png")
        for _ in range(TRIES):
            try:
                answer = await client.post(post, **given)
            except httpx2.HTTPError as error:
                return name, type(error).__name__
            if answer.status_code != 503:
                return name, str(answer.status_code)
            await asyncio.sleep(float(answer.headers["retry-after"]))
        return name, "503"

    async with client_of(count + among) as client:
        good = [ask(client, url, pictures[n % len(pictures)]) for n in range(among)]
        found = await asyncio.gather(*(one(n, client) for n in range(count)), *good)
    bad_ones, good_ones = found[:count], found[count:]
    by_kind: dict[str, Counter[str]] = {}
    for name, status in bad_ones:
        by_kind.setdefault(name, Counter())[status] += 1
    return {
        "uploads": count,
        "statuses": dict(Counter(status for _, status in bad_ones)),
        "by_kind": {name: dict(of) for name, of in by_kind.items()},
        "refused": sum(status.startswith("4") for _, status in bad_ones),
        "good_among_them": among,
        "good_answered": sum(one["statuses"][-1] == "200" for one in good_ones),
    }


# ---- all of it -----------------------------------------------------------------------------------


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pictures = make_project(place, asked.scenes)
        server = Server(place)
        try:
            memory = {"started": server.memory()}
            result: dict[str, Any] = {"machine": machine(*PACKAGES), "pictures": len(pictures)}
            result["alone"] = asyncio.run(one_by_one(server.url, pictures, asked.alone))
            memory["after alone"] = server.memory()
            result["what_if"] = asyncio.run(what_if(server.url, pictures[0]))
            result["load"] = asyncio.run(at_once(server.url, pictures, asked.requests))
            memory["after load"] = server.memory()
            result["hostile"] = asyncio.run(
                hostile(server.url, pictures, asked.hostile, asked.among)
            )
            memory["after hostile"] = server.memory()
            result["again"] = asyncio.run(at_once(server.url, pictures, asked.again))
            memory["after again"] = server.memory()
            health = httpx2.get(f"{server.url}/healthz").json()
            result["still_answers"] = health == {"status": "ok", "waiting": 0}
        finally:
            result["ended_with"] = server.end()
            os.chdir(ROOT)
        memory["most"] = server.most
        result["memory_MB"] = {name: round(value) for name, value in memory.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--alone", type=int, default=10)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--hostile", type=int, default=100)
    parser.add_argument("--among", type=int, default=20)
    parser.add_argument("--again", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()
    result = measure(asked)
    if asked.json:
        print(json.dumps(result))
        return
    for name, part in result.items():
        print(f"{name}: {json.dumps(part, indent=1)}")


if __name__ == "__main__":
    main()
