"""Where an encoder looked, over the pictures that it saw."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

SIDE = 200  # of a panel, in pixels
GAP = 6
MAP = "inferno"  # from dark to light, so that it says the same in grey


@dataclass(frozen=True)
class Look:
    """One picture, or one person of it. panels: name -> squares (S, S, 3) uint8 and the maps on
    them by name, (h, w) from 0 to 1."""

    caption: str
    panels: Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]


def overlay(square: np.ndarray, heat: np.ndarray, side: int = SIDE) -> Image.Image:
    """The map over the picture in grey, from its least value, dark, to its greatest, light;
    side x side."""
    seen = Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC)
    grey = np.asarray(seen.convert("L"), np.float32)[:, :, None].repeat(3, axis=2)
    low, high = float(heat.min()), float(heat.max())
    spread = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    soft = Image.fromarray(np.ascontiguousarray(spread, np.float32))
    strength = np.asarray(soft.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    colour = 255 * colormaps[MAP](strength)[:, :, :3]
    share = (0.25 + 0.5 * strength)[:, :, None]
    return Image.fromarray(((1 - share) * grey + share * colour).astype(np.uint8))


def sheet(look: Look) -> Image.Image:
    """One row: each panel's picture, and its maps beside."""
    tiles: list[tuple[str, Image.Image]] = []
    for name, (square, maps) in look.panels.items():
        plain = Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        tiles.append((name, plain))
        tiles += [(f"{name}: {kind}", overlay(square, heat)) for kind, heat in maps.items()]
    band = 20
    page = Image.new("RGB", (len(tiles) * (SIDE + GAP) - GAP, SIDE + band), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for at, (name, tile) in enumerate(tiles):
        x = at * (SIDE + GAP)
        pen.text((x + 2, 2), name, font=font, fill="#1d1c1a")
        page.paste(tile, (x, band))
    return page
