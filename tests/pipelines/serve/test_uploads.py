"""Hostile uploads: each is refused with a sentence, nothing reaches the disk, and the next picture
is answered as ever."""

import io
import struct
import tempfile
import zlib

import numpy as np
import pytest
from PIL import Image

from cache.errors import SettingsError
from pipelines.serve.app import make_app
from tests.pipelines.serve.conftest import picture, send

GOOD = picture()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, and which has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def bomb() -> bytes:
    """A true picture: 36 million black pixels in 36 kB."""
    held = io.BytesIO()
    Image.new("L", (6000, 6000)).save(held, "PNG", optimize=True)
    return held.getvalue()


def never(*given, **more):
    raise AssertionError(f"called with {given}")


JPEG = picture(form="JPEG")
BAD = {
    "empty": (b"", "empty"),
    "text": (b"not a picture\n", "not a picture in one of"),
    "page": (b"<html><script>alert(1)</script></html>", "not a picture in one of"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture in one of"),
    "archive": (b"PK\x03\x04" + bytes(100), "not a picture in one of"),
    "truncated": (JPEG[: len(JPEG) // 2], "damaged or truncated"),
    "header alone": (JPEG[:20], "not a picture"),
    "huge": (png_of(60_000, 60_000), "pixels"),
    "too many pixels": (bomb(), "6000x6000 is more than 250000 pixels"),
    "no pixels": (png_of(0, 0), ""),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in one of"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_picture_is_refused_with_a_sentence(client, what):
    data, says = BAD[what]
    answer = send(client, data, "a.jpg")
    assert answer.status_code == 422 and set(answer.json()) == {"detail"}
    assert answer.json()["detail"].startswith("a.jpg: ") and says in answer.json()["detail"]
    assert "Traceback" not in answer.text and "/" not in answer.json()["detail"][7:]
    assert send(client, GOOD).status_code == 200


def test_a_hundred_kinds_of_random_bytes(client):
    starts = [
        b"",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF....WEBP",
        b"BM",
        b"P6 ",
    ]
    for seed in range(100):
        rng = np.random.default_rng(seed)
        data = starts[seed % len(starts)] + rng.bytes(int(rng.integers(1, 5000)))
        answer = send(client, data)
        assert answer.status_code == 422 and answer.json()["detail"], seed
    assert send(client, GOOD).status_code == 200


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\windows\\system32\\a.png", "a.png"),
        ("a\x01\n.png", "a??.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("x" * 300 + ".png", "x" * 67 + "..." + "x" * 6 + ".png"),
        ("..", ".."),
        ("folder/", "picture"),
        ("ü ☺.png", "ü ☺.png"),
    ],
)
def test_a_name_is_shown_short_and_never_opened(client, name, shown, monkeypatch):
    from extract import images

    monkeypatch.setattr(images, "load", never)
    boundary = "b"
    quoted = name.replace('"', "%22")
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; '
        f'filename="{quoted}"\r\n\r\n'
    ).encode()
    body = body.replace(b"\n.png", b"\x02.png") + GOOD + f"\r\n--{boundary}--\r\n".encode()
    kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
    answer = client.post("/api/predict", content=body, headers=kind)
    assert answer.status_code == 200, answer.text
    assert answer.json()["picture"] == shown
    assert answer.headers["content-type"] == "application/json"


def test_nothing_is_written_to_a_file(client, monkeypatch):
    """Also not the temporary one that form parsers begin where a file is larger than 1 MB."""
    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, never)
    files = [("pictures", ("a", picture(300, 300, seed, "BMP"))) for seed in range(3)]
    assert sum(len(data) for _, (_, data) in files) > 500_000
    assert client.post("/api/predict/batch", files=files).status_code == 200
    from pipelines.serve.uploads import _InMemory

    with tempfile.SpooledTemporaryFile(_InMemory.spool_max_size) as spooled:
        spooled.write(bytes(5_000_000))


def test_a_form_parser_that_would_write_files_is_refused_at_the_start(desk, monkeypatch):
    from starlette.formparsers import MultiPartParser

    monkeypatch.delattr(MultiPartParser, "spool_max_size")
    with pytest.raises(SettingsError, match=r"would put uploads into files.*starlette>="):
        make_app(desk)


# ---- sizes


def test_too_large_a_file_is_refused(client):
    answer = send(client, bytes(600_000))
    assert answer.status_code == 413
    assert answer.json()["detail"] == "the request is larger than 0.5 MB"


def test_too_large_a_file_in_a_batch_is_refused(client):
    answer = client.post("/api/predict/batch", files={"pictures": ("a", bytes(600_000))})
    assert answer.status_code == 413 and answer.json()["detail"] == "a is larger than 0.5 MB"
    files = [("pictures", ("a", bytes(400_000)))] * 3
    answer = client.post("/api/predict/batch", files=files)
    assert answer.status_code == 413 and "larger than 1 MB" in answer.json()["detail"]


def test_too_many_files_are_refused(client):
    files = [("pictures", ("a", GOOD))] * 4
    answer = client.post("/api/predict/batch", files=files)
    assert answer.status_code == 413 and answer.json()["detail"].startswith("more than 3 files")
    answer = client.post("/api/predict", files=[("picture", ("a", GOOD))] * 2)
    assert answer.status_code == 413 and answer.json()["detail"].startswith("more than 1 file:")


def test_too_large_a_question_is_refused(client):
    answer = client.post("/api/what-if", json={"token": "x" * 70_000, "person": 0})
    assert answer.status_code == 413


# ---- forms


@pytest.mark.parametrize("path", ["/api/predict", "/api/predict/batch"])
@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        ({}, 415, "multipart/form-data"),
        ({"json": {"picture": "a.png"}}, 415, "multipart/form-data"),
        ({"content": GOOD, "headers": {"content-type": "image/png"}}, 415, "of a form"),
        ({"data": {"picture": "/etc/passwd"}}, 415, "multipart/form-data"),
        ({"files": {"file": ("a", GOOD)}}, 422, "the form has no file 'picture"),
        ({"files": {"picture": (None, "/etc/passwd"), "pictures": (None, "x")}}, 422, "no file"),
        (
            {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}},
            400,
            "the form is damaged",
        ),
        (
            {"content": b"zzz", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "the form is damaged",
        ),
    ],
)
def test_another_form_is_refused_with_what_to_send(client, path, given, status, says):
    answer = client.post(path, **given)
    assert answer.status_code == status and says in answer.json()["detail"], answer.text


def test_a_form_that_breaks_off_is_no_picture(client):
    body = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n' + GOOD
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/predict", content=body[:-30], headers=kind)
    assert answer.status_code == 400 and "breaks off" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("way", "path", "status"),
    [
        ("GET", "/api/predict", 405),
        ("PUT", "/api/predict", 405),
        ("DELETE", "/api/predict/batch", 405),
        ("POST", "/api/about", 405),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/serve.py", 404),
        ("GET", "/static/..%2f..%2fetc/passwd", 404),
        ("GET", "/results/head/head.json", 404),
    ],
)
def test_other_addresses_and_methods_are_refused(client, way, path, status):
    answer = client.request(way, path)
    assert answer.status_code == status and "see /docs" in answer.json()["detail"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"token": 5}', b"\xff\xfe", b"null"])
def test_a_question_that_is_none_is_refused(client, text):
    answer = client.post("/api/what-if", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.json()["detail"]
    assert client.post("/api/what-if", content=text).status_code == 415
