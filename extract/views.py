"""The views: which frozen network sees which pixels of which person, and what is kept of it.

A view states its key (`parts`) from settings and weight hashes alone, without loading a network,
so that an unchanged cache costs nothing; networks are loaded when the first row is computed.
Raise a view's `version` when its code changes a number.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cache.boxes import WHOLE, Box, Corners, clip, is_subject, square_around
from cache.index import Index
from cache.keys import key_of
from cache.spec import ArraySpec, Row, RowSpace, ViewSpec
from extract import images
from extract import settings as config
from extract.backbones import backbones
from extract.backbones.vision import check_side
from extract.detectors import Detections, detectors
from extract.families import Families
from extract.loaded import Networks
from extract.weights import config_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Subject:
    """What a view computes one row from: upright RGB pixels (H, W, 3) uint8 and a person's box
    in pixels; their face, where it is annotated; nobody: the box is the whole picture because no
    person was found."""

    pixels: np.ndarray
    box: Box = WHOLE
    face: Box | None = None
    nobody: bool = False


# A person, and the picture (3, H, W) that a detector sees, where it is not the person's own.
Seen = tuple[Subject, "torch.Tensor | None"]


class View:
    """One view. `settings` is its section of `params.yaml`; `dtype` that of the kept features."""

    name: ClassVar[str]
    space: ClassVar[RowSpace]  # what a row is of
    kind: ClassVar[str] = "picture"  # of the backbone
    finds: ClassVar[str] = ""  # kind of the detector, for views that have one
    version: ClassVar[int] = 1
    decoder: str = ""  # the reader that takes its recordings out of files; "": it sees pictures
    # `Index.definitions`, where rows are labels: see `know`
    definitions: Sequence[Mapping[str, str]] | None = None

    def __init__(self, settings: Any, dtype: str = "float16"):
        self.settings, self.dtype = settings, dtype

    @property
    def pictureless(self) -> bool:
        """Whether its rows are made of what the index says, and no picture is read for them."""
        return self.space == "labels"

    def know(self, index: Index) -> None:
        """Take from the index what rows are made of beside pictures: see `give_definitions`."""
        if self.space == "labels":
            self.definitions = [dict(one) for one in index.definitions]

    def network_names(self) -> list[str]:
        """The frozen networks the view runs."""
        return [name for _, name, _ in self._networks()]

    def backbone(self, networks: Networks) -> Any:
        """The network that gives its features."""
        return networks.backbone(self.settings.network, self.kind)

    def detector(self, networks: Networks) -> Any:
        """The network that finds what it looks at."""
        return networks.detector(self.settings.detector, self.finds)

    def key(self, networks: Networks) -> str:
        """The content key of its rows: see `cache.keys`."""
        return key_of(self.parts(networks))

    def parts(self, networks: Networks) -> dict[str, Any]:
        """Everything that decides the view's numbers, by name. Raises SettingsError for a size that
        the backbone cannot take."""
        identities = self._identities(networks)
        self._check_size(identities)
        settings = self.settings.model_dump(mode="json")
        rule: dict[str, Any] = {} if self.pictureless else images.RULE
        if settings.get("fit") == "squash":
            del settings["fit"]  # what there was before there was a choice, under the same key
        elif "fit" in settings:
            rule = rule | {"pad": images.PAD_RULE}
        return {
            "view": self.name,
            "version": self.version,
            "settings": settings,
            "networks": identities,
            "images": rule,
            "precision": networks.precision,
            "dtype": self.dtype,
        }

    def _networks(self) -> list[tuple[Families[Any], str, str]]:
        """Each network's register, name and kind."""
        found: list[tuple[Families[Any], str, str]] = [
            (backbones, self.settings.network, self.kind)
        ]
        if self.finds:
            found.append((detectors, self.settings.detector, self.finds))
        return found

    def _identities(self, networks: Networks) -> dict[str, Any]:
        """Each network's weight hash and its rule: what it does to the pixels it is given."""
        found = {}
        for families, name, kind in self._networks():
            # A wrong name is said before weights are sought.
            families.get(name, kind, config_of(name, networks.settings))
            weights = networks.weights(name)
            rule = families.describe(weights, kind)
            found[name] = {"sha256": weights.sha256, "rule": rule}
        return found

    def _check_size(self, identities: Mapping[str, Any]) -> None:
        network = getattr(self.settings, "network", "")  # a view of detections has none
        patch = identities[network]["rule"].get("patch") if network else None
        if patch and self.kind == "picture":
            check_side(self.settings.size, patch, network, f"views.{self.name}.size")

    def spec(self, networks: Networks) -> ViewSpec:
        """The view's layout in the store; loads its networks to learn their widths."""
        weights = [networks.weights(name).facts() for name in self.network_names()]
        return ViewSpec(
            self.name,
            self.space,
            self.arrays(networks),
            self.parts(networks),
            weights,
            self.facts(networks),
        )

    def facts(self, networks: Networks) -> dict[str, Any]:
        """What readers want to know of the view, and what decides no number."""
        return {}

    def arrays(self, networks: Networks) -> dict[str, ArraySpec]:
        """What it keeps of a row: `features`, as wide as the backbone's, and what a view adds."""
        width = self.backbone(networks).width
        return {"features": ArraySpec((width,), self.dtype, dims=("feature",))}

    def told(self, rows: Sequence[int]) -> list[Any]:
        """What `prepare` takes for these rows, where no picture is read."""
        return [self.subject((self.definitions or ())[row]) for row in rows]

    def subject(self, label: Mapping[str, str]) -> Any:
        """What `prepare` takes for a label of `definitions`, where rows are labels: here the
        definition."""
        return label["definition"]

    def prepare(self, subject: Any) -> Any:
        """What `compute` takes for this subject: all that can be done before a network is asked,
        in a thread beside the networks. Raises PictureError for a box without a pixel."""
        return subject

    def compute(self, inputs: Sequence[Any], networks: Networks) -> list[Row]:
        """One row for each prepared subject, in order. It does not depend on the others.

        Here: squares (S, S, 3) uint8 through the backbone.
        """
        return [Row("ok", {"features": f}) for f in self._features(inputs, networks)]

    def run(self, subjects: Sequence[Any], networks: Networks) -> list[Row]:
        """Prepare and compute in one go."""
        return self.compute([self.prepare(subject) for subject in subjects], networks)

    def _features(self, squares: Sequence[np.ndarray], networks: Networks) -> np.ndarray:
        """(n, width) float32: the backbone on squares of the view's size."""
        network = self.backbone(networks)
        if not squares:
            return np.zeros((0, network.width), np.float32)
        return network(_stack(squares)).cpu().numpy()

    def _squares(
        self, places: Sequence[tuple[np.ndarray, Box]], networks: Networks
    ) -> list[np.ndarray]:
        """What a detector found, cut out of its picture and resized: (S, S, 3) each."""
        size = self.settings.size
        with networks.meter.measure("crop"):
            return list(
                networks.map(lambda place: images.resize(images.crop(*place), size), places)
            )


class Body(View):
    """f_s: the person's box, clipped to the picture, through the backbone."""

    name, space = "body", "persons"

    def prepare(self, subject: Subject) -> np.ndarray:
        crop = images.crop(subject.pixels, subject.box)
        return images.square(crop, self.settings.size, self.settings.fit)


class Head(View):
    """f_h: the best face inside the person's box, enlarged to the head, through the backbone.

    An annotated face is taken as it is, with the score 1. No face above the score leaves zeros and
    the status `no_face`.
    """

    name, space, finds = "head", "persons", "faces"

    def arrays(self, networks: Networks) -> dict[str, ArraySpec]:
        return super().arrays(networks) | {
            "box": ArraySpec((4,), "float32", dims=("side",)),
            "score": ArraySpec((), "float32"),
        }

    def prepare(self, subject: Subject) -> Seen:
        if subject.face is not None:
            return subject, None
        return subject, detector_input(images.crop(subject.pixels, subject.box))

    def compute(self, inputs: Sequence[Seen], networks: Networks) -> list[Row]:
        crops = {number: crop for number, (_, crop) in enumerate(inputs) if crop is not None}
        found: dict[int, Detections] = {}
        if crops:
            detector = self.detector(networks)
            found = dict(zip(crops, detector(list(crops.values())), strict=True))
        rows: list[Row] = [Row("no_face") for _ in inputs]
        heads: dict[int, tuple[np.ndarray, Box]] = {}
        for number, (subject, _) in enumerate(inputs):
            best = self._face(subject, found.get(number))
            if best is None:
                continue
            face, score = best
            height, width = subject.pixels.shape[:2]
            box = square_around(face, self.settings.enlarge, width, height)
            rows[number] = Row("ok", {"box": np.asarray(box), "score": np.asarray(score)})
            heads[number] = subject.pixels, box
        squares = self._squares(list(heads.values()), networks)
        for number, features in zip(heads, self._features(squares, networks), strict=True):
            rows[number].values["features"] = features
        return rows

    def _face(self, subject: Subject, faces: Detections | None) -> tuple[Corners, float] | None:
        """The subject's face in the picture and its score; None where there is none."""
        if subject.face is not None:
            return subject.face, 1.0
        if faces is None or not len(faces) or faces.scores.max() < self.settings.score:
            return None
        best = int(faces.scores.argmax())
        height, width = subject.pixels.shape[:2]
        left, top = (math.floor(max(0.0, side)) for side in subject.box[:2])
        face = np.asarray(faces.boxes)[best] + (left, top, left, top)
        if not clip(tuple(face), width, height):
            return None  # found in the border about the crop: no pixel of the picture is in it
        return face, faces.scores[best]


class Objects(View):
    """The top-k objects about a person: boxes, classes, scores, each region through the backbone,
    and the detector's own region features where it has any.

    `mask: subject` is the paper's way: the detector and the backbone see the picture with the
    person painted over, once for each person. `mask: drop` runs the detector once a picture, leaves
    out the boxes that are the person (`is_subject`), and gives all its persons the same features of
    a region. A picture that stands for a person itself is neither painted over nor searched for
    the person.
    """

    name, space, finds = "objects", "persons", "objects"

    def facts(self, networks: Networks) -> dict[str, Any]:
        return {"classes": list(self.detector(networks).classes)}

    def arrays(self, networks: Networks) -> dict[str, ArraySpec]:
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

    def prepare(self, subject: Subject) -> Seen:
        if self.settings.mask == "drop" or subject.nobody:
            return subject, None
        return subject, detector_input(images.mask_subject(subject.pixels, subject.box))

    def compute(self, inputs: Sequence[Seen], networks: Networks) -> list[Row]:
        pictures, of = self._pictures(inputs)
        pixels = [picture.numpy().transpose(1, 2, 0) for picture in pictures]
        found = self.detector(networks)(pictures)
        kept = [
            self._best(found[at], pixels[at].shape[0], pixels[at].shape[1], subject)
            for at, (subject, _) in zip(of, inputs, strict=True)
        ]
        # Persons of one picture may share a region: it goes through the backbone once.
        regions = sorted({(at, i) for at, some in zip(of, kept, strict=True) for i in some})
        places = [(pixels[at], tuple(found[at].boxes[i].tolist())) for at, i in regions]
        features = self._features(self._squares(places, networks), networks)
        number = {region: n for n, region in enumerate(regions)}
        return [
            self._row(found[at], some, features[[number[at, i] for i in some]])
            for at, some in zip(of, kept, strict=True)
        ]

    def _pictures(self, inputs: Sequence[Seen]) -> tuple[list["torch.Tensor"], list[int]]:
        """The pictures that the detector sees, (3, H, W), and which of them is each subject's."""
        pictures: list[torch.Tensor] = []
        of: list[int] = []
        numbers: dict[int, int] = {}
        for subject, masked in inputs:
            source = id(subject.pixels if masked is None else masked)  # persons may share pixels
            if source not in numbers:
                numbers[source] = len(pictures)
                pictures.append(detector_input(subject.pixels) if masked is None else masked)
            of.append(numbers[source])
        return pictures, of

    def _best(self, things: Detections, height: int, width: int, subject: Subject) -> list[int]:
        """Numbers of the k best things by falling score; equal scores as the detector gave them."""
        order = np.argsort(-things.scores, kind="stable")
        kept = [
            i
            for i in order[things.scores[order] >= self.settings.score].tolist()
            if clip(tuple(things.boxes[i]), width, height)
        ]
        if self.settings.mask == "drop" and not subject.nobody:
            kept = [i for i in kept if not is_subject(things.boxes[i], subject.box)]
        return kept[: self.settings.k]

    def _row(self, things: Detections, kept: list[int], features: np.ndarray) -> Row:
        values = {
            "features": self._pad(features, features.shape[1:], "float32"),
            "box": self._pad(things.boxes[kept], (4,), "float32"),
            "label": self._pad(things.labels[kept], (), "int16", -1),
            "score": self._pad(things.scores[kept], (), "float32"),
            "count": np.asarray(len(kept), np.int16),
        }
        if things.regions is not None:
            shape = things.regions.shape[1:]
            values["region"] = self._pad(things.regions[kept], shape, "float32")
        return Row("ok" if kept else "no_object", values)

    def _pad(
        self, values: np.ndarray, shape: tuple[int, ...], dtype: str, fill: float = 0
    ) -> np.ndarray:
        """(k, *shape): the values, and the fill behind them."""
        padded = np.full((self.settings.k, *shape), fill, dtype)
        padded[: len(values)] = values
        return padded


class Depth(View):
    """f_d: pooled encoder features of the depth network on the whole picture, and its map
    shrunk to a `grid` x `grid` by area means."""

    name, space, kind = "depth", "pictures", "depth"

    def arrays(self, networks: Networks) -> dict[str, ArraySpec]:
        grid = self.settings.grid
        return super().arrays(networks) | {
            "map": ArraySpec((grid, grid), self.dtype, dims=("row", "column")),
        }

    def prepare(self, subject: Subject) -> np.ndarray:
        return images.resize(subject.pixels, self.settings.size)

    def compute(self, inputs: Sequence[np.ndarray], networks: Networks) -> list[Row]:
        from torch.nn.functional import adaptive_avg_pool2d

        features, maps = self.backbone(networks)(_stack(inputs))
        small = adaptive_avg_pool2d(maps[:, None], self.settings.grid)[:, 0]
        pairs = zip(features.cpu().numpy(), small.cpu().numpy(), strict=True)
        return [Row("ok", {"features": feature, "map": grid}) for feature, grid in pairs]


class Scene(View):
    """f_g: the whole picture through the backbone."""

    name, space = "scene", "pictures"

    def prepare(self, subject: Subject) -> np.ndarray:
        return images.square(subject.pixels, self.settings.size, self.settings.fit)


class LabelView(View):
    """One row a label. Names and definitions decide the numbers, so they are part of the key."""

    space = "labels"

    def parts(self, networks: Networks) -> dict[str, Any]:
        if self.definitions is None:
            raise ValueError(f"the view {self.name!r} has no key before `give_definitions`")
        return super().parts(networks) | {"definitions": list(self.definitions)}


class Labels(LabelView):
    """Each label's definition read by the text encoder. Subjects are sentences."""

    name, kind = "labels", "text"

    def compute(self, inputs: Sequence[str], networks: Networks) -> list[Row]:
        network = self.backbone(networks)
        features = network(list(inputs), pooling=self.settings.pooling).cpu().numpy()
        return [Row("ok", {"features": f}) for f in features]


class Words(LabelView):
    """Each label's name as the mean of its words' vectors, features (D,). Subjects are labels with
    their definitions, as `Index.definitions` has them.

    A name is split wherever there is no letter (`Doubt/Confusion`: doubt, confusion); words that
    the vocabulary lacks are left out. A label of which it has no word takes the mean over the
    known words of its definition, and is named in the view's facts under `from_definition`; one
    of which it has none there either has the status `missing`, with a reason.
    """

    name, kind = "words", "words"

    def facts(self, networks: Networks) -> dict[str, Any]:
        known = self.definitions or ()
        taken = {one["label"]: self._vectors(one, networks)[0] for one in known}
        return {"from_definition": [name for name, text in taken.items() if text == "definition"]}

    def subject(self, label: Mapping[str, str]) -> Mapping[str, str]:
        return label

    def compute(self, inputs: Sequence[Mapping[str, str]], networks: Networks) -> list[Row]:
        return [self._row(label, networks) for label in inputs]

    def _row(self, label: Mapping[str, str], networks: Networks) -> Row:
        text, vectors = self._vectors(label, networks)
        if text:
            return Row("ok", {"features": vectors.mean(axis=0, dtype=np.float64)})
        return Row(
            "missing",
            reason=f"{self.settings.network} knows no word of the label {label['label']!r} or of "
            "its definition: set views.words.network to another vocabulary",
        )

    def _vectors(self, label: Mapping[str, str], networks: Networks) -> tuple[str, np.ndarray]:
        """Which text of the label has known words, "" for none; their vectors (n, D)."""
        network = self.backbone(networks)
        for text in ("label", "definition"):
            words = words_of(label[text])
            known = network(words)
            if known:
                return text, np.stack([known[word] for word in words if word in known])
        return "", np.zeros((0, network.width), np.float32)


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case: whatever stands between two characters that are no
    letters."""
    return re.findall(r"[^\W\d_]+", text.lower())


def make_views(settings: config.Views, dtype: str) -> dict[str, View]:
    """The views by name, in the order in which they are computed; one whose network is set to null
    is left out."""
    classes: tuple[type[View], ...] = (Body, Head, Objects, Depth, Scene, Labels, Words)
    views = {cls.name: cls(getattr(settings, cls.name), dtype) for cls in classes}
    return {name: view for name, view in views.items() if view.settings.network is not None}


def give_definitions(views: Mapping[str, View], index: Index) -> None:
    """Hand what the index says to the views that read it: labels with their definitions, what
    pictures are described with."""
    for view in views.values():
        view.know(index)


def detector_input(pixels: np.ndarray) -> "torch.Tensor":
    """What detectors take: (H, W, 3) uint8 array to (3, H, W) uint8 tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _stack(squares: Sequence[np.ndarray]) -> "torch.Tensor":
    """n squares (S, S, 3) to one (n, 3, S, S) uint8 tensor, its channels last in memory."""
    import torch

    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
