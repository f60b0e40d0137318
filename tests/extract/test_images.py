"""Pictures of every kind become upright RGB or a reason; never a crash, never a changed person."""

import hashlib
import io
import json
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from cache.boxes import turned
from cache.errors import DataError
from extract import images
from extract.images import PictureError, crop, header, mask_subject, read, resize, square
from tests.shared import shared

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def quarters(width: int = 48, height: int = 32) -> Image.Image:
    """Red, green over blue, white: every turn of it looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = WHITE
    return Image.fromarray(pixels)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(v) for v in pixels[y, x]) for y, x in ((2, 2), (2, -3), (-3, 2), (-3, -3))]


# Pictures as they should be


def test_real_pictures_equal_pillow_upright_rgb():
    paths = sorted(shared("data/emotic_pictures/mscoco/images").glob("*.jpg"))
    assert len(paths) == 30
    for path in paths:
        picture = read(path)
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        np.testing.assert_array_equal(picture.pixels, expected)
        assert picture.id == hashlib.sha256(path.read_bytes()).hexdigest()
        head = header(path)
        assert (head.id, head.width, head.height) == (picture.id, picture.width, picture.height)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(form, orientation):
    """Stored turned, and tagged so: read gives what was meant, header its size."""
    meant = quarters()
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    stored = meant.transpose(images.TURNS[undo]) if orientation > 1 else meant
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(form, {})
    data = encoded(stored, form, exif=exif, **options)
    picture, head = read(data), header(data)
    assert picture.pixels.shape == (32, 48, 3)
    difference = np.abs(picture.pixels.astype(int) - np.asarray(meant).astype(int))
    assert difference[::31, ::47].max() <= 8  # the corners; JPEG blurs the middle
    assert (head.width, head.height) == (48, 32)
    assert head.stored == stored.size
    assert head.orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_box_holds_the_same_pixels(orientation):
    stored = np.zeros((40, 60, 3), np.uint8)
    box = (5, 10, 25, 17)
    stored[10:17, 5:25] = WHITE
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read(encoded(Image.fromarray(stored), exif=exif)).pixels
    x1, y1, x2, y2 = map(int, turned(tuple(map(float, box)), orientation, 60, 40))
    assert (upright[y1:y2, x1:x2] == 255).all()
    assert upright.astype(bool).sum() == 3 * (y2 - y1) * (x2 - x1) == 3 * 20 * 7


def test_grey_and_one_bit():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    np.testing.assert_array_equal(
        read(encoded(ramp)).pixels, np.repeat(np.asarray(ramp)[:, :, None], 3, 2)
    )
    bits = read(encoded(ramp.point(lambda v: 255 * (v > 99)).convert("1"))).pixels
    assert set(np.unique(bits)) == {0, 255} and bits.shape == (16, 16, 3)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_are_scaled_not_clipped(form):
    values = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    pixels = read(encoded(Image.fromarray(values), form)).pixels
    np.testing.assert_array_equal(pixels[:, :, 0], np.round(values / 257).astype(np.uint8))
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()
    assert len(np.unique(pixels)) == 256


def test_sixteen_bits_of_colour_are_scaled():
    """A 16-bit RGB PNG written by hand, as Pillow writes none."""
    values = np.zeros((1, 3, 3), ">u2")
    values[0] = [[65535, 0, 0], [0, 32768, 0], [0, 0, 257]]

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body
            + struct.pack(">I", zlib.crc32(name + body))
        )  # fmt: skip

    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" + values.tobytes()))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read(data).pixels[0], [[255, 0, 0], [0, 128, 0], [0, 0, 1]])


def test_cmyk_jpeg_keeps_its_colours():
    picture = read(encoded(quarters().convert("CMYK"), "JPEG", quality=98))
    for seen, meant in zip(corners(picture.pixels), (RED, GREEN, BLUE, WHITE), strict=True):
        assert np.abs(np.subtract(seen, meant)).max() < 20


def test_palette():
    palette = quarters().convert("P", palette=Image.Palette.ADAPTIVE)
    assert corners(read(encoded(palette)).pixels) == [RED, GREEN, BLUE, WHITE]
    assert corners(read(encoded(palette, "GIF")).pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_pixels_show_the_stated_ground(mode):
    options = {}
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (20, 10), (*((0, 0, 0) if mode == "RGBA" else (0,)), 255))
        image.paste(Image.new(mode, (10, 10), 0), (10, 0))
    else:  # one colour is declared transparent
        image = Image.new(mode, (20, 10), 0)
        if mode == "P":
            image.putpalette([0, 0, 0, 10, 10, 10])
        image.paste(10 if mode == "L" else 1 if mode == "P" else (10, 10, 10), (10, 0, 20, 10))
        options["transparency"] = {"L": 10, "P": 1, "RGB": (10, 10, 10)}[mode]
    pixels = read(encoded(image, **options)).pixels
    assert tuple(pixels[5, 5]) == (0, 0, 0)
    assert tuple(pixels[5, 15]) == images.GROUND


def test_half_transparent_pixels_are_mixed():
    pixels = read(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))).pixels
    assert tuple(pixels[0, 0]) == (127, 127, 127)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_first_frame_of_many(form):
    frames = [Image.new("RGB", (24, 16), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    pixels = read(data).pixels.astype(int)
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels - RED).max() <= 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_leaves_the_pixels_alone():
    whole = encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff garbage", quality=95)
    assert read(whole).pixels.shape == (32, 48, 3)
    assert header(whole).orientation == 1
    exif = Image.Exif()
    exif[0x0112] = 77
    assert header(encoded(quarters(), "JPEG", exif=exif)).orientation == 1


# Pictures as they should not be


def reason(source, **options) -> str:
    """Why it cannot be read; the same exception for a header that cannot."""
    with pytest.raises(PictureError) as caught:
        read(source, **options)
    assert isinstance(caught.value, DataError)
    assert caught.value.status in ("missing", "unreadable")
    assert "\n" not in caught.value.reason
    return caught.value.reason


def test_a_lack_of_memory_says_nothing_about_the_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(images, "_rgb", full)
    with pytest.raises(PictureError, match="no memory") as caught:
        read(path)
    assert caught.value.status == "missing"  # an extraction tries such again


def test_missing_empty_and_not_a_picture(tmp_path):
    assert reason(tmp_path / "none.jpg") == "no such file"
    with pytest.raises(PictureError) as caught:
        header(tmp_path / "none.jpg")
    assert caught.value.status == "missing"
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "empty.jpg") == "the file is empty"
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    assert "not a picture" in reason(tmp_path / "page.jpg")
    assert reason(tmp_path) == "not a file"
    assert reason(tmp_path / "page.jpg" / "below.jpg") == "no such file"
    os.mkfifo(tmp_path / "pipe.jpg")  # reading one would wait for ever
    assert reason(tmp_path / "pipe.jpg") == "not a file"
    assert "cannot be read" in reason("nul\0byte.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated(form):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, form)
    assert "damaged" in reason(data[: len(data) // 2]) or form in ("TIFF", "WEBP")
    reason(data[: len(data) // 2])


def test_truncated_real_picture():
    path = sorted(shared("data/emotic_pictures/mscoco/images").glob("*.jpg"))[0]
    assert "truncated" in reason(path.read_bytes()[:20_000])


def test_formats_outside_the_list_are_refused():
    for form in ("ICO", "PDF", "PCX", "TGA", "EPS"):
        assert "not a picture in one of JPEG" in reason(encoded(quarters(), form))


def test_colours_without_a_white_are_refused():
    assert "colour mode F" in reason(encoded(Image.new("F", (4, 4), 0.5), "TIFF"))
    assert "colour mode I" in reason(encoded(Image.new("I", (4, 4), 70_000), "TIFF"))
    lab = ImageCms.profileToProfile(
        quarters(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert "colour mode LAB" in reason(encoded(lab, "TIFF"))


def test_bomb_is_refused_before_it_is_decoded():
    """A file of 100 kB that would take 268 MB of pixels, and one above Pillow's own limit."""
    bomb = encoded(Image.new("1", (10_000, 9_500)))
    tracemalloc.start()
    assert "more than 89478485 pixels" in reason(bomb)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    # The header of a PNG that claims 100,000 x 100,000 pixels.
    claim = bytearray(encoded(Image.new("1", (8, 8))))
    claim[16:24] = struct.pack(">II", 100_000, 100_000)
    claim[29:33] = struct.pack(">I", zlib.crc32(claim[12:29]))
    assert "more than" in reason(bytes(claim))


def test_limit_is_an_argument(tmp_path):
    data = encoded(quarters(48, 32))
    assert read(data, limit=48 * 32).width == 48
    assert reason(data, limit=48 * 32 - 1) == "48x32 is more than 1535 pixels"
    with pytest.raises(PictureError, match="more than 1535"):
        header(data, limit=1535)
    path = tmp_path / "noise.bmp"
    path.write_bytes(encoded(quarters(480, 320), "BMP"))
    assert "too many" in reason(path, limit=1000)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM",
                           b"RIFF\x20\0\0\0WEBPVP8 ", b"II*\0\x08\0\0\0", b"P6 9 9 255\n"]),
    rest=st.binary(max_size=300),
)  # fmt: skip
def test_any_bytes_give_pixels_or_a_reason(start, rest):
    for function in (read, header):
        try:
            function(start + rest, limit=1_000_000)
        except PictureError as error:
            assert error.reason


@pytest.fixture(scope="module")
def kinds() -> list[bytes]:
    """A real JPEG, small, and the same picture in other forms with metadata."""
    path = sorted(shared("data/emotic_pictures/mscoco/images").glob("*.jpg"))[0]
    with Image.open(path) as image:
        small = image.convert("RGB").resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded(small, "JPEG", exif=exif),
        encoded(small, "JPEG", progressive=True),
        encoded(small, "PNG", exif=exif),
        encoded(small.convert("P"), "GIF"),
        encoded(small, "WEBP", exif=exif),
        encoded(small, "TIFF", exif=exif, compression="tiff_lzw"),
    ]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_pictures_give_pixels_or_a_reason(kinds, data):
    damaged = bytearray(data.draw(st.sampled_from(kinds)))
    for _ in range(data.draw(st.integers(1, 8))):
        # Half the damage falls on the header, where it does most.
        reach = data.draw(st.sampled_from([200, len(damaged)]))
        at = data.draw(st.integers(0, min(reach, len(damaged)) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(1, len(damaged))) :]
    size = None
    try:
        pixels = read(bytes(damaged), limit=1_000_000).pixels
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        size = pixels.shape[1], pixels.shape[0]
    except PictureError as error:
        assert error.status == "unreadable"
    if size is not None:
        found = header(bytes(damaged), limit=1_000_000)
        assert (found.width, found.height) == size


# Boxes


def test_crop_and_mask_are_clipped_to_the_picture():
    pixels = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    np.testing.assert_array_equal(crop(pixels, (-5, 2, 4, 99)), pixels[2:10, 0:4])
    np.testing.assert_array_equal(crop(pixels, (3.2, 2.9, 5.1, 3.1)), pixels[2:4, 3:6])
    masked = mask_subject(pixels, (-5, 2, 4, 99))
    assert (masked[2:10, 0:4] == images.MEAN_GREY).all()
    untouched = np.ones((10, 20), bool)
    untouched[2:10, 0:4] = False
    np.testing.assert_array_equal(masked[untouched], pixels[untouched])
    assert (mask_subject(pixels, (0, 0, 20, 10), (1, 2, 3)) == (1, 2, 3)).all()
    assert pixels[5, 2].tolist() == [(5 * 60 + 6 + i) % 256 for i in range(3)]  # input is kept


@pytest.mark.parametrize(
    "box", [(20, 0, 25, 5), (5, 5, 5, 9), (9, 9, 2, 2), (-9, -9, 0, 0), (np.nan, 0, 1, 1)]
)
def test_box_without_a_pixel_is_refused(box):
    pixels = np.zeros((10, 20, 3), np.uint8)
    for function in (crop, mask_subject):
        with pytest.raises(PictureError) as caught:
            function(pixels, box)
        assert caught.value.status == "bad_box"


def test_resize_is_antialiased_and_squashes():
    stripes = np.zeros((256, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, 64)
    assert small.shape == (64, 64, 3) and small.flags.writeable
    assert np.abs(small.astype(int) - 127).max() <= 6  # without antialiasing: 0 or 255
    np.testing.assert_array_equal(resize(small, 64), small)


def test_resize_agrees_with_torchs_antialiased_bilinear():
    torch = pytest.importorskip("torch")
    path = sorted(shared("data/emotic_pictures/mscoco/images").glob("*.jpg"))[0]
    pixels = read(path).pixels
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(
        tensor, (128, 128), mode="bilinear", antialias=True, align_corners=False
    )
    expected = expected[0].permute(1, 2, 0).numpy()
    assert np.abs(resize(pixels, 128) - expected).max() <= 1.01


def test_a_squashed_square_is_the_resized_picture():
    pixels = np.array(quarters())
    np.testing.assert_array_equal(square(pixels, 20), resize(pixels, 20))
    np.testing.assert_array_equal(square(pixels, 20, "squash"), resize(pixels, 20))


@pytest.mark.parametrize(
    "width, height, place",  # left, top, right and bottom of the picture in a square of 64
    [
        (48, 32, (0, 10, 64, 53)),  # 64 x 42.67
        (32, 48, (10, 0, 53, 64)),
        (64, 64, (0, 0, 64, 64)),
        (16, 8, (0, 16, 64, 48)),  # enlarged
        (640, 5, (0, 31, 64, 32)),  # half a pixel high: one is left of it
        (5, 640, (31, 0, 32, 64)),
        (4000, 3, (0, 31, 64, 32)),
    ],
)
def test_a_padded_square_has_all_of_the_picture_in_the_middle(width, height, place):
    pixels = np.array(quarters(width, height)) if min(width, height) > 5 else None
    if pixels is None:
        pixels = np.full((height, width, 3), RED, np.uint8)
    found = square(pixels, 64, "pad")
    assert found.shape == (64, 64, 3) and found.dtype == np.uint8 and found.flags.writeable
    left, top, right, bottom = place
    inside = np.zeros((64, 64), bool)
    inside[top:bottom, left:right] = True
    assert (found[~inside] == images.MEAN_GREY).all()
    seen = Image.fromarray(pixels).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[inside].reshape(bottom - top, right - left, 3), seen)


def test_a_padded_square_keeps_the_aspect():
    """A disc in a wide picture stays as wide as it is high."""
    y, x = np.mgrid[:100, :400]
    disc = ((x - 200) ** 2 + (y - 50) ** 2 < 40**2)[..., None] * np.full(3, 255, np.uint8)
    bright = square(disc.astype(np.uint8), 200, "pad").min(axis=2) > 127
    assert bright.any(axis=0).sum() == bright.any(axis=1).sum() == 40
    bright = square(disc.astype(np.uint8), 200, "squash").min(axis=2) > 127
    assert bright.any(axis=0).sum() == 40 and bright.any(axis=1).sum() > 150


def test_rule_names_the_libraries_and_fits_a_key():
    text = json.dumps(images.RULE, allow_nan=False)
    import PIL

    assert f"Pillow {PIL.__version__}" in text and "libjpeg" in text
