"""Many at once: some wait, some are sent away, nobody waits forever, and nothing breaks."""

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx2
import pytest

from cache.errors import SettingsError
from pipelines.serve.app import make_app
from pipelines.serve.desk import Desk
from pipelines.serve.line import Busy, Line
from pipelines.serve.run import listen
from tests.pipelines.serve.conftest import LIMITS, picture, running

PICTURES = [picture(200, 120, seed) for seed in range(8)]


def desk_of(predictor, **limits) -> Desk:
    return Desk(predictor, LIMITS.model_copy(update=limits))


async def post(url, data, **more):
    async with httpx2.AsyncClient(timeout=30) as client:
        return await client.post(f"{url}/api/predict", files={"picture": ("a", data)}, **more)


def test_each_of_many_gets_its_own_answer(predictor):
    want = [predictor.answer(data).result(0.4)["people"] for data in PICTURES]
    with running(desk_of(predictor)) as url:

        async def many():
            return await asyncio.gather(*(post(url, PICTURES[n % 8]) for n in range(40)))

        answers = asyncio.run(many())
    assert [one.status_code for one in answers] == [200] * 40
    for number, one in enumerate(answers):
        assert one.json()["people"] == want[number % 8]
    assert len({one.json()["token"] for one in answers}) == 40


def until(true):
    for _ in range(400):
        if true():
            return
        time.sleep(0.02)
    pytest.fail("waited in vain")


def test_beyond_the_line_they_are_sent_away_and_told_when_to_come_back(predictor, finds):
    finds.hold, desk = None, desk_of(predictor, queue=3)
    finds.hold = threading.Event()
    with running(desk) as url:

        async def many():
            first = [asyncio.ensure_future(post(url, PICTURES[0])) for _ in range(12)]
            while sum(one.done() for one in first) < 9:
                await asyncio.sleep(0.01)
            async with httpx2.AsyncClient() as client:  # it goes on answering what needs no network
                health = (await client.get(f"{url}/healthz")).json()
            finds.hold.set()
            return health, await asyncio.gather(*first)

        health, answers = asyncio.run(many())
        assert health == {"status": "ok", "waiting": 3}
        away = [one for one in answers if one.status_code == 503]
        assert len(away) == 9 and len(answers) - len(away) == 3
        assert all(one.headers["retry-after"] == "5" for one in away)
        assert "try again" in away[0].json()["detail"]
        assert asyncio.run(post(url, PICTURES[1])).status_code == 200


def test_who_waits_too_long_is_sent_away_and_their_picture_dropped(predictor, finds):
    desk = desk_of(predictor, seconds=0.5)
    finds.hold = threading.Event()
    first, second, third = (picture(width, 120) for width in (200, 210, 220))
    with running(desk) as url:

        async def two():
            begun = asyncio.ensure_future(post(url, first))
            await asyncio.sleep(0.2)
            return await asyncio.gather(begun, post(url, second))

        answers = asyncio.run(two())
        assert [one.status_code for one in answers] == [503, 503]
        finds.hold.set()
        until(lambda: asyncio.run(post(url, third)).status_code == 200)
    assert 200 in finds.widths and 220 in finds.widths
    assert 210 not in finds.widths  # it had not begun


def test_the_picture_of_a_client_that_left_is_dropped(predictor, finds):
    desk = desk_of(predictor)
    finds.hold, before = threading.Event(), finds.calls
    with running(desk) as url:

        async def leave():
            tasks = [asyncio.ensure_future(post(url, PICTURES[0])) for _ in range(4)]
            await asyncio.sleep(0.4)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(leave())
        until(lambda: httpx2.get(f"{url}/healthz").json()["waiting"] == 0)
        finds.hold.set()
        assert asyncio.run(post(url, PICTURES[1])).status_code == 200
    assert finds.calls <= before + 2


def test_a_large_upload_is_refused_as_it_comes_though_its_length_is_not_told(predictor):
    """The client hears the sentence, and so little was held that the line is free at once."""
    with running(desk_of(predictor)) as url:
        sent = 0

        def endless():
            nonlocal sent
            yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
            for _ in range(300):
                sent += 100_000
                yield bytes(100_000)

        kind = {"content-type": "multipart/form-data; boundary=x"}
        answer = httpx2.post(f"{url}/api/predict", content=endless(), headers=kind, timeout=30)
        assert answer.status_code == 413 and "larger than 0.5 MB" in answer.json()["detail"]
        assert asyncio.run(post(url, PICTURES[0])).status_code == 200
        # A length that is told is believed before anything is read.
        answer = httpx2.post(
            f"{url}/api/predict", content=bytes(5_000_000), headers=kind, timeout=30
        )
        assert answer.status_code == 413


def test_a_client_that_sends_all_before_it_listens_hears_why_not(predictor):
    """As most do: were the connection closed on it, it would see a broken pipe and no sentence."""
    with running(desk_of(predictor)) as url:
        place = urlsplit(url)
        kind = {"content-type": "multipart/form-data; boundary=x"}
        for headers, status in ((kind, 413), ({**kind, "origin": "http://evil.example"}, 403)):
            connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
            connection.request("POST", "/api/predict", bytes(20_000_000), headers)
            answer = connection.getresponse()
            assert answer.status == status and b"detail" in answer.read()
            connection.close()


def test_an_upload_that_stalls_is_given_up_while_others_are_answered(predictor):
    with running(desk_of(predictor, upload_seconds=0.5)) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=20) as stalls:
            stalls.sendall(
                b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            )
            assert asyncio.run(post(url, PICTURES[0])).status_code == 200
            said = b""
            while b"detail" not in said and (part := stalls.recv(4096)):
                said += part
        assert b" 408 " in said and b"took longer than 0.5 s" in said


def test_a_client_that_leaves_within_its_upload_is_no_failure(desk):
    """Nothing is raised, which would be a page of traceback where the server runs."""
    coming = [
        {"type": "http.request", "body": b"--x\r\n", "more_body": True},
        {"type": "http.disconnect"},
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/predict",
        "raw_path": b"/api/predict",
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"multipart/form-data; boundary=x"),
        ],
    }
    said = []

    async def receive():
        return coming.pop(0)

    async def send(message):
        said.append(message)

    asyncio.run(make_app(desk)(scope, receive, send))
    assert said[0]["status"] == 400 and coming == []


def test_ending_does_not_wait_for_those_in_line(predictor, finds):
    desk = desk_of(predictor)
    finds.hold = threading.Event()

    def later():
        time.sleep(1.5)
        finds.hold.set()

    with running(desk) as url:
        asking = [threading.Thread(target=lambda: _quietly(url), daemon=True) for _ in range(3)]
        for one in asking:
            one.start()
        time.sleep(0.4)
        before = finds.calls
        threading.Thread(target=later).start()
    assert finds.calls - before <= 1  # the one that had begun


def _quietly(url):
    with contextlib.suppress(httpx2.HTTPError):
        asyncio.run(post(url, PICTURES[0]))


# ---- the line by itself


def test_a_line_holds_so_many_at_once_in_the_order_in_which_they_came():
    async def run():
        line, order, inside = Line("x", 10, 2, 5), [], 0

        async def one(number):
            nonlocal inside
            async with line.place():
                inside += 1
                assert inside <= 2
                order.append(await line.run(lambda: number))
                inside -= 1

        await asyncio.gather(*map(one, range(8)))
        assert line.waiting == 0
        line.close()
        return order

    assert asyncio.run(run()) == list(range(8))


def test_a_line_gives_its_place_back_when_a_job_fails():
    async def run():
        line = Line("x", 1, 1, 5)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with line.place():
                    await line.run(lambda: 1 / 0)
        async with line.place():
            with pytest.raises(Busy):
                async with line.place():
                    pass
        line.close()
        return line.waiting

    assert asyncio.run(run()) == 0


# ---- where it listens


def test_a_port_in_use_is_refused_with_the_setting_to_change():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"port {port}.*set serve\.port"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1.*serve\.host"):
        listen("192.0.2.1", 0)
