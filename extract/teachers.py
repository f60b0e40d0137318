"""The views that UniEmoX's student is drawn to: what its frozen teachers say of a picture and of
the text composed of its attributes. `emocache pretrain` reads them, and no head does."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from cache.boxes import Box
from cache.index import Index
from cache.keys import key_of
from cache.spec import ArraySpec, Row
from extract import images
from extract import settings as config
from extract.describe import descriptions
from extract.loaded import Networks
from extract.views import Subject, View

RATIO = 3 / 4, 4 / 3  # of a crop's width to its height
DRAWS = 10  # crops that are tried, until one fits
MOST = np.iinfo(np.int16).max  # tokens that are counted


def make_teachers(settings: config.Views, dtype: str) -> dict[str, View]:
    """The teachers by name; one whose network is set to null is left out."""
    classes: tuple[type[View], ...] = (TeacherImage, TeacherText)
    views = {cls.name: cls(getattr(settings, cls.name), dtype) for cls in classes}
    return {name: view for name, view in views.items() if view.settings.network is not None}


@dataclass(frozen=True)
class Crops:
    """n parts of a picture. boxes: in pixels; flips: 1 for the mirrored ones; squares: (S, S, 3)
    each, mirrored where it says so."""

    boxes: Float32[np.ndarray, "n 4"]
    flips: UInt8[np.ndarray, " n"]
    squares: Sequence[UInt8[np.ndarray, "S S 3"]]


class TeacherImage(View):
    """O: the whole picture through the backbone, or n random crops of it, half of them mirrored,
    with what they are: `crop` (x1 y1 x2 y2 in pixels) and `flip`.

    A picture's crops hang on its pixels and `seed` alone, and the first of many are those of few.
    """

    name, space = "teacher_image", "pictures"

    def arrays(self, networks: Networks) -> dict[str, ArraySpec]:
        count, width = max(1, self.settings.crops), self.backbone(networks).width
        return {
            "features": ArraySpec((count, width), self.dtype, dims=("crop", "feature")),
            "crop": ArraySpec((count, 4), "float32", dims=("crop", "side")),
            "flip": ArraySpec((count,), "uint8", dims=("crop",)),
        }

    def prepare(self, subject: Subject) -> Crops:
        boxes, flips = self._drawn(subject.pixels)
        squares = []
        for box, flip in zip(boxes.tolist(), flips, strict=True):
            square = images.square(
                images.crop(subject.pixels, box), self.settings.size, self.settings.fit
            )
            squares.append(square[:, ::-1] if flip else square)
        return Crops(boxes, flips, squares)

    def compute(self, inputs: Sequence[Crops], networks: Networks) -> list[Row]:
        count = max(1, self.settings.crops)
        some = max(1, networks.batch // count)  # pictures: those of a block may be too many squares
        rows = []
        for start in range(0, len(inputs), some):
            part = inputs[start : start + some]
            features = self._features([square for one in part for square in one.squares], networks)
            rows += [
                Row("ok", {"features": seen, "crop": one.boxes, "flip": one.flips})
                for one, seen in zip(part, np.split(features, len(part)), strict=True)
            ]
        return rows

    def _drawn(
        self, pixels: UInt8[np.ndarray, "H W 3"]
    ) -> tuple[Float32[np.ndarray, "n 4"], UInt8[np.ndarray, " n"]]:
        """Boxes, and which of them are mirrored."""
        height, width = pixels.shape[:2]
        whole = (0.0, 0.0, float(width), float(height))
        if not self.settings.crops:
            return np.array([whole], np.float32), np.zeros(1, np.uint8)
        seed = hashlib.sha256(f"{self.settings.seed} ".encode())
        seed.update(pixels.tobytes())
        draw = np.random.default_rng(int.from_bytes(seed.digest(), "big"))
        boxes, flips = [], []
        for _ in range(self.settings.crops):
            boxes.append(random_crop(whole, self.settings.scale, draw))
            flips.append(draw.integers(2))
        return np.array(boxes, np.float32), np.array(flips, np.uint8)


class TeacherText(View):
    """L: each picture's description (`extract.describe`) through the text encoder, and how many
    `tokens` it has: those beyond the fact `longest` were cut. Where there is nothing to tell, zeros
    and the status `no_text`.

    Every description is part of the key: one that changes makes all rows stale, those of others
    too, and so does a new picture. No picture is read for them, so that this costs little.
    """

    name, space, kind = "teacher_text", "pictures", "text"
    pictureless = True
    descriptions: Sequence[str] | None = None  # of each picture: see `give_definitions`
    digest = ""  # of all of them

    def know(self, index: Index) -> None:
        self.descriptions = descriptions(index, self.settings.attributes)
        self.digest = key_of(dict(zip(index.ids("pictures"), self.descriptions, strict=True)))

    def told(self, rows: Sequence[int]) -> list[str]:
        return [(self.descriptions or ())[row] for row in rows]

    def parts(self, networks: Networks) -> dict[str, Any]:
        if self.descriptions is None:
            raise ValueError(f"the view {self.name!r} has no key before `give_definitions`")
        return super().parts(networks) | {"descriptions": self.digest}

    def facts(self, networks: Networks) -> dict[str, Any]:
        return {"longest": self.backbone(networks).longest}

    def arrays(self, networks: Networks) -> dict[str, ArraySpec]:
        return super().arrays(networks) | {"tokens": ArraySpec((), "int16")}

    def compute(self, inputs: Sequence[str], networks: Networks) -> list[Row]:
        network = self.backbone(networks)
        rows = [Row("no_text") for _ in inputs]
        said = {number: text for number, text in enumerate(inputs) if text}
        features = network(list(said.values()), pooling=self.settings.pooling).cpu().numpy()
        tokens = np.minimum(network.lengths(list(said.values())), MOST)
        for number, vector, count in zip(said, features, tokens, strict=True):
            rows[number] = Row("ok", {"features": vector, "tokens": count})
        return rows


def random_crop(box: Box, scale: tuple[float, float], draw: np.random.Generator) -> Box:
    """A part of the box in whole pixels, as torchvision's RandomResizedCrop draws it: its area a
    share of the box's in `scale`, its width to its height log-uniform in `RATIO`. Where `DRAWS` of
    them do not fit, the largest in the middle whose sides are within `RATIO`."""
    left, top = math.floor(box[0]), math.floor(box[1])
    wide, high = math.ceil(box[2]) - left, math.ceil(box[3]) - top
    for _ in range(DRAWS):
        area = wide * high * draw.uniform(*scale)
        ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= wide and 0 < height <= high:
            x, y = (int(draw.integers(room + 1)) for room in (wide - width, high - height))
            break
    else:
        ratio = min(max(wide / high, RATIO[0]), RATIO[1])
        width, height = min(wide, round(high * ratio)), min(high, round(wide / ratio))
        x, y = (wide - width) // 2, (high - height) // 2
    x, y = left + x, top + y
    return float(x), float(y), float(x + width), float(y + height)
