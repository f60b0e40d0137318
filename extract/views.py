"""The views: which frozen network sees which pixels of which person, and what is kept of it.

A view states its key (`parts`) from settings and weight hashes alone, without loading a network,
so that an unchanged cache costs nothing; networks are loaded when the first row is computed.
Raise a view's `version` when its code changes a number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cache.shards import ArraySpec
from cache.store import RowSpace, ViewSpec
from cache.writer import Row
from extract import backbones, detectors, images
from extract import settings as config
from extract.weights import Weights, find

if TYPE_CHECKING:
    import torch

VIEW_NAMES = ("body", "head", "objects", "depth", "scene", "labels")


@dataclass(frozen=True)
class Subject:
    """What a view computes one row from: upright RGB pixels (H, W, 3) uint8 and a person's box
    in pixels (None for a whole picture)."""

    pixels: np.ndarray
    box: tuple[float, float, float, float] | None = None


@dataclass
class Networks:
    """The frozen networks of one run: weights found once, each network loaded when first used."""

    settings: config.Weights
    device: Callable[[], str] = lambda: "cpu"  # asked only when a network is loaded
    on_load: Callable[[Weights], None] = lambda weights: None
    _found: dict[str, Weights] = field(default_factory=dict)
    _loaded: dict[tuple[str, str], Any] = field(default_factory=dict)

    def weights(self, name: str) -> Weights:
        if name not in self._found:
            self._found[name] = find(name, self.settings)
        return self._found[name]

    def backbone(self, name: str, kind: str) -> Any:
        return self._load(name, kind, backbones.load_backbone)

    def detector(self, name: str, kind: str) -> Any:
        return self._load(name, kind, detectors.load_detector)

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self._loaded))

    def _load(self, name: str, kind: str, load: Callable[..., Any]) -> Any:
        if (name, kind) not in self._loaded:
            self.on_load(self.weights(name))
            self._loaded[name, kind] = load(name, self.settings, self.device(), kind)
        return self._loaded[name, kind]


class View:
    """One view. `settings` is its section of `params.yaml`; `dtype` that of the kept features."""

    name: ClassVar[str]
    rows: ClassVar[RowSpace]
    kind: ClassVar[str] = "picture"  # of the backbone
    finds: ClassVar[str] = ""  # kind of the detector, for views that have one
    version: ClassVar[int] = 1

    def __init__(self, settings: Any, dtype: str = "float16", batch: int = 32):
        self.settings, self.dtype, self.batch = settings, dtype, batch

    def network_names(self) -> list[str]:
        """The frozen networks the view runs."""
        return [self.settings.network, *([self.settings.detector] if self.finds else [])]

    def backbone(self, networks: Networks) -> Any:
        return networks.backbone(self.settings.network, self.kind)

    def detector(self, networks: Networks) -> Any:
        return networks.detector(self.settings.detector, self.finds)

    def parts(self, networks: Networks) -> dict[str, Any]:
        """Everything that decides the view's numbers, by name."""
        return {
            "view": self.name,
            "version": self.version,
            "settings": self.settings.model_dump(mode="json"),
            "networks": self._identities(networks),
            "images": images.RULE if self.rows != "labels" else {},
            "dtype": self.dtype,
        }

    def _identities(self, networks: Networks) -> dict[str, Any]:
        """Each network's weight hash and its rule: what it does to the pixels it is given."""
        name = self.settings.network
        backbones.backbones.get(name, self.kind)  # a wrong name is said before weights are sought
        weights = networks.weights(name)
        rule = backbones.describe(name, weights, self.kind)
        found = {name: {"sha256": weights.sha256, "rule": rule}}
        if self.finds:
            name = self.settings.detector
            detectors.detectors.get(name, self.finds)
            weights = networks.weights(name)
            rule = detectors.describe(name, weights, self.finds)
            found[name] = {"sha256": weights.sha256, "rule": rule}
        return found

    def spec(self, networks: Networks) -> ViewSpec:
        """The view's layout in the store; loads its networks to learn their widths."""
        weights = [networks.weights(name).facts() for name in self.network_names()]
        return ViewSpec(
            self.name,
            self.rows,
            self.arrays(networks),
            self.parts(networks),
            weights,
            self.facts(networks),
        )

    def facts(self, networks: Networks) -> dict[str, Any]:
        return {}

    def arrays(self, networks: Networks) -> Mapping[str, ArraySpec]:
        raise NotImplementedError

    def compute(self, subjects: Sequence[Any], networks: Networks) -> list[Row]:
        """One row a subject, in order. A subject's row does not depend on the other subjects."""
        raise NotImplementedError

    def _features(self, crops: Sequence[np.ndarray], networks: Networks) -> np.ndarray:
        """Resize each crop to the view's square and run its backbone: (n, width) float32."""
        network = self.backbone(networks)
        squares = [images.resize(crop, self.settings.size) for crop in crops]
        kept = [network(_stack(batch)).cpu().numpy() for batch in _batches(squares, self.batch)]
        return np.concatenate(kept) if kept else np.zeros((0, network.width), np.float32)


class Body(View):
    """f_s: the person's box, clipped to the picture, through the backbone."""

    name, rows = "body", "persons"

    def arrays(self, networks):
        width = self.backbone(networks).width
        return {"features": ArraySpec((width,), self.dtype, dims=("feature",))}

    def compute(self, subjects, networks):
        crops = [images.crop(subject.pixels, subject.box) for subject in subjects]
        return [Row("ok", {"features": f}) for f in self._features(crops, networks)]


class Head(View):
    """f_h: the best face inside the person's box, enlarged to the head, through the backbone.

    No face above the score leaves zeros and the status `no_face`.
    """

    name, rows, finds = "head", "persons", "faces"

    def arrays(self, networks):
        width = self.backbone(networks).width
        return {
            "features": ArraySpec((width,), self.dtype, dims=("feature",)),
            "box": ArraySpec((4,), "float32", dims=("side",)),
            "score": ArraySpec((), "float32"),
        }

    def compute(self, subjects, networks):
        crops = [images.crop(subject.pixels, subject.box) for subject in subjects]
        found = self.detector(networks)([_tensor(crop) for crop in crops])
        rows: list[Row] = [Row("no_face") for _ in subjects]
        heads: dict[int, np.ndarray] = {}
        for number, (subject, faces) in enumerate(zip(subjects, found, strict=True)):
            scores = np.asarray(faces.scores)
            if not len(scores) or scores.max() < self.settings.score:
                continue
            best = int(scores.argmax())
            height, width = subject.pixels.shape[:2]
            left, top = (math.floor(max(0.0, side)) for side in subject.box[:2])
            face = np.asarray(faces.boxes)[best] + (left, top, left, top)
            if not images.clip(tuple(face), width, height):
                continue  # found in the border about the crop: no pixel of the picture is in it
            box = images.square_around(face, self.settings.enlarge, width, height)
            rows[number] = Row("ok", {"box": np.asarray(box), "score": scores[best]})
            heads[number] = images.crop(subject.pixels, box)
        for number, features in zip(
            heads, self._features(list(heads.values()), networks), strict=True
        ):
            rows[number].values["features"] = features
        return rows


class Objects(View):
    """The top-k objects on the picture with the person masked out: boxes, classes, scores, each
    region through the backbone, and the detector's own region features where it has any."""

    name, rows, finds = "objects", "persons", "objects"

    def facts(self, networks):
        return {"classes": list(self.detector(networks).classes)}

    def arrays(self, networks):
        width = self.backbone(networks).width
        detector = self.detector(networks)
        k = self.settings.k
        arrays = {
            "features": ArraySpec((k, width), self.dtype, dims=("object", "feature")),
            "box": ArraySpec((k, 4), "float32", dims=("object", "side")),
            "label": ArraySpec((k,), "int16", -1, dims=("object",)),
            "score": ArraySpec((k,), "float32", dims=("object",)),
            "count": ArraySpec((), "int16"),
        }
        if detector.region_width:
            # Another axis than `feature`: its width is the detector's, not the backbone's.
            region = (k, detector.region_width)
            arrays["region"] = ArraySpec(region, self.dtype, dims=("object", "region_feature"))
        return arrays

    def compute(self, subjects, networks):
        detector = self.detector(networks)
        rows = []
        for some in _batches(subjects, self.batch):
            masked = [images.mask_subject(subject.pixels, subject.box) for subject in some]
            found = detector([_tensor(picture) for picture in masked])
            rows += self._rows(masked, found, networks)
        return rows

    def _rows(self, pictures, found, networks) -> list[Row]:
        rows, crops = [], []
        for pixels, things in zip(pictures, found, strict=True):
            scores = np.asarray(things.scores)
            boxes = np.asarray(things.boxes)
            # Stable order: by falling score, equal scores as the detector gave them.
            order = np.argsort(-scores, kind="stable")
            height, width = pixels.shape[:2]
            kept = [
                i
                for i in order[scores[order] >= self.settings.score]
                if images.clip(tuple(boxes[i]), width, height)
            ][: self.settings.k]
            values = {
                "box": self._pad(boxes[kept], (4,), "float32"),
                "label": self._pad(np.asarray(things.labels)[kept], (), "int16", -1),
                "score": self._pad(scores[kept], (), "float32"),
                "count": np.int16(len(kept)),
            }
            if things.regions is not None:
                regions = np.asarray(things.regions)
                values["region"] = self._pad(regions[kept], regions.shape[1:], "float32")
            rows.append(Row("ok" if kept else "no_object", values))
            crops += [images.crop(pixels, boxes[i]) for i in kept]
        features = self._features(crops, networks)
        start = 0
        for row in rows:
            stop = start + int(row.values["count"])
            row.values["features"] = self._pad(features[start:stop], features.shape[1:], "float32")
            start = stop
        return rows

    def _pad(self, values, shape, dtype, fill=0):
        padded = np.full((self.settings.k, *shape), fill, dtype)
        padded[: len(values)] = values
        return padded


class Depth(View):
    """f_d: pooled encoder features of the depth network on the whole picture, and its map
    shrunk to a `grid` x `grid` by area means."""

    name, rows, kind = "depth", "pictures", "depth"

    def arrays(self, networks):
        width = self.backbone(networks).width
        grid = self.settings.grid
        return {
            "features": ArraySpec((width,), self.dtype, dims=("feature",)),
            "map": ArraySpec((grid, grid), self.dtype, dims=("row", "column")),
        }

    def compute(self, subjects, networks):
        from torch.nn.functional import adaptive_avg_pool2d

        network = self.backbone(networks)
        rows = []
        squares = [images.resize(subject.pixels, self.settings.size) for subject in subjects]
        for batch in _batches(squares, self.batch):
            features, maps = network(_stack(batch))
            small = adaptive_avg_pool2d(maps[:, None], self.settings.grid)[:, 0]
            for feature, grid in zip(features.cpu().numpy(), small.cpu().numpy(), strict=True):
                rows.append(Row("ok", {"features": feature, "map": grid}))
        return rows


class Scene(View):
    """f_g: the whole picture through the backbone."""

    name, rows = "scene", "pictures"

    def arrays(self, networks):
        width = self.backbone(networks).width
        return {"features": ArraySpec((width,), self.dtype, dims=("feature",))}

    def compute(self, subjects, networks):
        whole = [subject.pixels for subject in subjects]
        return [Row("ok", {"features": f}) for f in self._features(whole, networks)]


class Labels(View):
    """One row a label: its definition read by the text encoder. Subjects are sentences."""

    name, rows, kind = "labels", "labels", "text"

    def __init__(self, settings: Any, dtype: str = "float16", batch: int = 32):
        super().__init__(settings, dtype, batch)
        self.definitions: list[dict[str, str]] = []

    def parts(self, networks):
        return super().parts(networks) | {"definitions": self.definitions}

    def arrays(self, networks):
        width = self.backbone(networks).width
        return {"features": ArraySpec((width,), self.dtype, dims=("feature",))}

    def compute(self, subjects, networks):
        network = self.backbone(networks)
        features = network(list(subjects), pooling=self.settings.pooling).cpu().numpy()
        return [Row("ok", {"features": f}) for f in features]


def make_views(settings: config.Views, dtype: str, batch: int) -> dict[str, View]:
    """Every view by name, in the order in which they are computed."""
    classes: tuple[type[View], ...] = (Body, Head, Objects, Depth, Scene, Labels)
    return {cls.name: cls(getattr(settings, cls.name), dtype, batch) for cls in classes}


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _tensor(pixels: np.ndarray) -> "torch.Tensor":
    """(H, W, 3) uint8 array to (3, H, W) uint8 tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _stack(squares: Sequence[np.ndarray]) -> "torch.Tensor":
    """n squares (S, S, 3) to one (n, 3, S, S) uint8 tensor."""
    import torch

    return torch.stack([_tensor(square) for square in squares])
