"""A picture's file becomes upright RGB pixels, once and safely, or a `PictureError` says why.

Every rule that decides a pixel is written down in `RULE`, which is part of a view's key.
Pixels are uint8 arrays of shape (H, W, 3); boxes are those of `cache.boxes`.
"""

import hashlib
import io
import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from cache.boxes import Box, clip
from cache.errors import DataError, first_line
from cache.statuses import StatusWord
from extract.settings import Fit

# Formats that people keep photographs in; every other decoder of Pillow stays closed. Pillow
# opens the MPO files of some cameras and phones as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# The largest picture that is decoded, in pixels: the one above which Pillow itself warns.
LIMIT = 89_478_485

# What shows through transparent pixels, as in a viewer with a white page.
GROUND = (255, 255, 255)

# The mean colour of ImageNet: it says least to a network that was trained there.
MEAN_GREY = (124, 116, 104)

RULE = {
    "version": 1,
    "decoder": f"Pillow {PIL.__version__}",
    "jpeg": f"libjpeg {features.version('jpg')}, "
    f"libjpeg-turbo {features.version_feature('libjpeg_turbo') or 'absent'}",
    "frame": "first",
    "orientation": "EXIF, applied",
    "colour": "Pillow to RGB, no ICC; 16-bit grey times 255/65535 rounded, 16-bit colour high byte",
    "ground": list(GROUND),
    "crop": "floor and ceiling of the box, clipped to the picture",
    "mask": f"pixels the box touches painted {MEAN_GREY}",
    "square": "enlarged longer side, moved into the picture, cut where larger",
    "resize": "bilinear, antialiased, squashed to a square, Pillow",
}

# What else decides a pixel where a view's `fit` is "pad"; a part of the keys of such views alone.
PAD_RULE = (
    f"longer side resized to the square's, shorter one in proportion, centred, rest {MEAN_GREY}"
)

# How EXIF orientations 2 to 8 are undone, in Pillow's words.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(DataError):
    """A picture that cannot be read. `reason` in words; `status` is the index's word for it."""

    def __init__(self, reason: str, status: StatusWord = "unreadable") -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True)
class Header:
    """What a picture's file says without being decoded.

    id: SHA-256 of the bytes; width, height: after EXIF rotation; orientation: EXIF's 1 to 8,
    where 5 to 8 exchange width and height.
    """

    id: str
    width: int
    height: int
    orientation: int

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height as the file stores them, before EXIF rotation."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright pixels (H, W, 3) uint8 RGB, and the SHA-256 of the bytes they came from."""

    pixels: np.ndarray = field(repr=False)
    id: str

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


def is_below(path: str) -> bool:
    """Whether a path, relative to a root, stays in it as far as its words say."""
    parts = PurePosixPath(path)
    stays = not parts.is_absolute() and ".." not in parts.parts
    return stays and bool(parts.name) and "\0" not in path


def place(root: Path, path: str, follow_links: bool = False) -> Path:
    """Where a picture of a data set lies, links followed; root: resolved. PictureError where that
    is not below `root`, unless `follow_links` lets links lead out of it."""
    if not is_below(path):
        raise PictureError("the path is not below data.root: it is not opened")
    try:
        found = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, half a character
        raise PictureError(f"the path leads nowhere: {first_line(error)}", "missing") from error
    if not follow_links and not found.is_relative_to(root):
        raise PictureError(
            "a link leads out of data.root: it is not followed; set data.follow_links to true for "
            "data that you trust"
        )
    return found


def load(source: Path | str, limit: int = LIMIT) -> bytes:
    """The bytes of a picture's file; PictureError where it is missing or cannot be read."""
    try:
        found = os.stat(source)
        if not stat.S_ISREG(found.st_mode):
            raise PictureError("not a file")
        if found.st_size > 8 * limit:  # no format here needs more than 8 bytes a pixel
            raise PictureError(f"the file has {found.st_size} bytes, too many for {limit} px")
        return Path(source).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PictureError("no such file", "missing") from error
    except PictureError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        raise PictureError(f"the file cannot be read: {first_line(error)}") from error


def header(source: Path | str | bytes, limit: int = LIMIT) -> Header:
    """Size and orientation of a picture; PictureError as in `read`, but the pixels stay unseen."""
    data = source if isinstance(source, bytes) else load(source, limit)
    with _open(data, limit) as image:
        orientation = _orientation(image)
        width, height = image.size
        # Pillow gives a TIFF's size as it is after rotation, any other's as it is stored.
        if orientation >= 5 and image.format != "TIFF":
            width, height = height, width
    return Header(hashlib.sha256(data).hexdigest(), width, height, orientation)


def read(source: Path | str | bytes, limit: int = LIMIT) -> Picture:
    """Decode a picture to upright RGB, whatever its kind; the first frame of an animation.

    source: a path, or the bytes of the file. limit: the most pixels to decode; a larger picture
    is refused before it is decoded (Pillow's own limit of about 179 million stands above it).
    Raises PictureError, and nothing else, for a file that is missing, empty, no picture, of a
    format not in `FORMATS`, truncated, too large, or in a colour space without a stated white.
    """
    data = source if isinstance(source, bytes) else load(source, limit)
    with _open(data, limit) as image:
        try:
            # Before decoding: Pillow turns a TIFF itself and forgets the orientation.
            turn = None if image.format == "TIFF" else TURNS.get(_orientation(image))
            image.load()
            upright = image if turn is None else image.transpose(turn)
            pixels = _rgb(upright, image.format)
        except PictureError:
            raise
        except MemoryError as error:  # says nothing about the file: it is tried again
            raise PictureError("no memory to decode the picture", "missing") from error
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise PictureError(
                f"the picture is damaged or truncated: {first_line(error)}"
            ) from error
    return Picture(pixels, hashlib.sha256(data).hexdigest())


def crop(pixels: np.ndarray, box: Box) -> np.ndarray:
    """A copy of the pixels (h, w, 3) that the box touches; PictureError when it touches none."""
    rows, columns = _span(pixels, box)
    return pixels[rows, columns].copy()


def mask_subject(
    pixels: np.ndarray, box: Box, fill: tuple[int, int, int] = MEAN_GREY
) -> np.ndarray:
    """A copy of the picture (H, W, 3) with every pixel the box touches painted `fill`."""
    rows, columns = _span(pixels, box)
    masked = pixels.copy()
    masked[rows, columns] = fill
    return masked


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3): bilinear with antialiasing; the aspect is not kept, nothing is cut off."""
    if pixels.shape[:2] == (size, size):
        return pixels.copy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR))


def square(pixels: np.ndarray, size: int, fit: Fit = "squash") -> np.ndarray:
    """(size, size, 3) in which all of the picture is seen. `squash`: as `resize`; `pad`: the aspect
    is kept, the picture is in the middle, and what is left is `MEAN_GREY`."""
    if fit == "squash":
        return resize(pixels, size)
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    left, top = ((size - side) // 2 for side in inner)
    page = Image.new("RGB", (size, size), MEAN_GREY)
    page.paste(image.resize(inner, Image.Resampling.BILINEAR), (left, top))
    return np.array(page)


def _span(pixels: np.ndarray, box: Box) -> tuple[slice, slice]:
    """Rows and columns of the pixels that the box touches."""
    height, width = pixels.shape[:2]
    inside = clip(box, width, height)
    if inside is None:
        raise PictureError(f"box {box} has no pixel in a picture of {width}x{height}", "bad_box")
    x1, y1, x2, y2 = inside
    return slice(math.floor(y1), math.ceil(y2)), slice(math.floor(x1), math.ceil(x2))


def _open(data: bytes, limit: int) -> Image.Image:
    """The picture with its header read and nothing decoded."""
    if not data:
        raise PictureError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture in one of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"more than {limit} pixels: {first_line(error)}") from error
    except Exception as error:  # a parser may raise anything on a damaged header
        raise PictureError(f"the picture's header is damaged: {first_line(error)}") from error
    width, height = image.size
    if width * height > limit:
        image.close()
        raise PictureError(f"{width}x{height} is more than {limit} pixels")
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or the EXIF block is broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def _rgb(image: Image.Image, form: str | None) -> np.ndarray:
    """(H, W, 3) uint8 of a decoded picture of any mode."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and form == "PPM"):
        grey = np.asarray(image).astype(np.uint32).clip(0, 65535)
        grey = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("I", "F", "LAB"):
        raise PictureError(f"colour mode {mode} has no stated white: save it as 8 or 16 bits, RGB")
    if mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (*GROUND, 255))
        image = Image.alpha_composite(page, image)
    return np.array(image.convert("RGB"))
