"""Grounds and light of the demo scenes: photographs, textures and drawn gradients."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipelines.demo import cutouts
from pipelines.demo.cutouts import Photograph

Random = np.random.Generator
Size = tuple[int, int]  # width, height
CONFETTI = ((250, 210, 60), (240, 80, 120), (90, 200, 250), (150, 230, 110), (245, 245, 245))


class Grounds:
    """Draws a ground by name. Photographs are opened once, when one of them is first asked for."""

    def __init__(self) -> None:
        self._open: dict[Photograph, Image.Image] = {}

    def draw(self, name: str, size: Size, random: Random) -> Image.Image:
        """RGB of `size`, another crop, turn or tint each time."""
        return GROUNDS[name][1](self, size, random).convert("RGB")

    def photograph(self, source: Photograph) -> Image.Image:
        if source not in self._open:
            self._open[source] = source.open()
        return self._open[source]

    def crop(
        self, source: Photograph, size: Size, random: Random, area: cutouts.Box | None = None
    ) -> Image.Image:
        """A random part of `area` in the scene's shape, mirrored half the time."""
        x1, y1, x2, y2 = area or (0, 0, *source.size)
        most = min((x2 - x1) / size[0], (y2 - y1) / size[1])
        scale = most * random.uniform(0.75, 1)
        width, height = scale * size[0], scale * size[1]
        left, top = random.uniform(x1, x2 - width), random.uniform(y1, y2 - height)
        part = self.photograph(source).resize(
            size, Image.Resampling.BICUBIC, (left, top, left + width, top + height)
        )
        return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else part

    def tinted(
        self,
        source: Photograph,
        size: Size,
        random: Random,
        dark: tuple[int, ...],
        light: tuple[int, ...],
    ) -> Image.Image:
        """A grey texture between two colours."""
        grey = np.asarray(self.crop(source, size, random).convert("L"), np.float32)[..., None] / 255
        return _picture(np.array(dark) * (1 - grey) + np.array(light) * grey)


def lake(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    return grounds.crop(cutouts.LAKE, size, random)


def leaves(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    """The dark green out-of-focus leaves beside the flower."""
    part = grounds.crop(cutouts.FLOWER, size, random, (452, 0, 640, 380))
    part = part.filter(ImageFilter.GaussianBlur(2))
    return _picture(np.asarray(part, np.float32) * 1.5 + (14, 34, 12))


def meadow(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    """Blue sky over grass."""
    width, height = size
    horizon = int(height * random.uniform(0.4, 0.6))
    picture = gradient(size, (96, 158, 224), (206, 228, 244))
    grass = grounds.tinted(cutouts.GRASS, size, random, (30, 66, 16), (146, 186, 74))
    picture.paste(grass.crop((0, 0, width, height - horizon)), (0, horizon))
    return picture


def crowd(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    """The out-of-focus stand of a stadium, under confetti."""
    part = grounds.crop(cutouts.TOUCHLINE, size, random, (0, 0, 860, 196))
    picture = _picture(np.asarray(part, np.float32) * 1.6 + 12)
    draw = ImageDraw.Draw(picture)
    for _ in range(150):
        x, y = random.uniform(0, size[0]), random.uniform(0, size[1])
        turn, long = random.uniform(0, np.pi), random.uniform(2, 6)
        end = (x + long * np.cos(turn), y + long * np.sin(turn))
        colour = CONFETTI[random.integers(len(CONFETTI))]
        draw.line((x, y, *end), fill=colour, width=int(random.integers(2, 5)))
    return picture


def sunset(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    width, height = size
    half = height * 2 // 3
    picture = gradient(size, (255, 190, 60), (120, 30, 90))
    picture.paste(gradient((width, half), (92, 40, 128), (255, 170, 70)), (0, 0))
    y, x = np.mgrid[0:height, 0:width]
    centre = random.uniform(0.2, 0.8) * width
    sun = np.exp(-((((x - centre) ** 2 + (y - 0.58 * height) ** 2) / (0.11 * width) ** 2) ** 2))
    ripples = 14 * np.sin(y / 3.0 + 0.02 * x) * (y > half)
    return _picture(
        np.asarray(picture, np.float32) + sun[..., None] * (70, 90, 60) + ripples[..., None]
    )


def stars(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    part = np.asarray(grounds.crop(cutouts.STARS, size, random), np.float32)
    return _picture(part * 1.6 + np.asarray(gradient(size, (30, 8, 70), (80, 20, 90)), np.float32))


def wall(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    return grounds.tinted(cutouts.BRICK, size, random, (34, 30, 32), (140, 128, 122))


def fog(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    noise = random.normal(0, 1, (7, 10))
    cloud = np.asarray(Image.fromarray(noise.astype(np.float32)).resize(size, 3))[..., None]
    return _picture(
        np.asarray(gradient(size, (168, 172, 176), (112, 116, 120)), np.float32) + 9 * cloud
    )


def rubble(grounds: Grounds, size: Size, random: Random) -> Image.Image:
    """Grey stones under a grey sky."""
    width, height = size
    horizon = int(height * random.uniform(0.25, 0.45))
    picture = gradient(size, (104, 110, 118), (150, 152, 154))
    stones = grounds.tinted(cutouts.GRAVEL, size, random, (26, 26, 28), (150, 146, 140))
    picture.paste(stones.crop((0, 0, width, height - horizon)), (0, horizon))
    return picture


# name -> (group that the planted rules ask for, how it is drawn)
GROUNDS: dict[str, tuple[str, Callable[[Grounds, Size, Random], Image.Image]]] = {
    "lake": ("open", lake),
    "leaves": ("open", leaves),
    "meadow": ("open", meadow),
    "crowd": ("festive", crowd),
    "sunset": ("festive", sunset),
    "stars": ("festive", stars),
    "wall": ("bleak", wall),
    "fog": ("bleak", fog),
    "rubble": ("bleak", rubble),
}


def light(picture: Image.Image, dim: bool, random: Random) -> Image.Image:
    """The whole scene in warm daylight, or in the blue of late evening."""
    gain = random.uniform(0.46, 0.56) if dim else random.uniform(1.0, 1.1)
    colour = (0.82, 0.92, 1.2) if dim else (1.04, 1.0, 0.95)
    return _picture(np.asarray(picture, np.float32) * gain * np.array(colour, np.float32))


def gradient(size: Size, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    width, height = size
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = np.array(top) * (1 - share) + np.array(bottom) * share
    return _picture(np.broadcast_to(column, (height, width, 3)))


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
