"""An exported predictor, opened and used: pictures -> people -> views -> head.onnx -> emotions.

What `pipelines.export` wrote; nothing of stage 2 is loaded, and no model of torch but the frozen
networks.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from cache.boxes import Box
from cache.errors import CacheError, DataError, FormatError, KeyMismatch, SettingsError
from cache.files import sha256_file
from cache.keys import differences, flatten, in_short
from cache.settings import Cache, Once, Section, sentence
from cache.statuses import STATUS, USABLE
from extract import images
from extract.loaded import Networks
from extract.new_pictures import columns, read_views, subjects
from extract.settings import Extract, People, Views, Weights
from extract.views import View, make_views
from pipelines.answers import Answering

log = logging.getLogger("extract")
ABOUT, SETTINGS, CARD, ONNX = "predictor.json", "settings.yaml", "README.md", "head.onnx"
FORMAT = 1
# Of a view's key these are versions of libraries: another one may change the last bits of a pixel,
# and an exported folder is there to be used elsewhere.
LIBRARIES = ("images.decoder", "images.jpeg")


class Needed(Section):
    """The settings that a prediction needs, as `settings.yaml` has them; each section is that of
    `params.yaml`."""

    device: str = "auto"
    people: People = People()
    cache: Cache = Cache()
    weights: Weights = Weights()
    views: Views = Views()
    extract: Extract = Extract()


@dataclass(frozen=True)
class ExportedHead:
    """A head that reads features by name: `inputs` of predictor.json. info: all of that file."""

    info: Mapping[str, Any]
    session: Any  # onnxruntime.InferenceSession

    @classmethod
    def open(cls, folder: Path | str) -> "ExportedHead":
        """Raises CacheError where a file is absent or is not the one that was exported."""
        folder = Path(folder)
        info = _about(folder)
        for name, facts in info["files"].items():
            if not name.startswith(ONNX):  # head.onnx, and head.onnx.data of a large one
                continue
            path = folder / name
            if not path.exists():
                raise CacheError(f"no {path}: copy the whole folder that `emocache export` wrote")
            if sha256_file(path) != facts["sha256"]:
                raise CacheError(
                    f"{path} is not the file that {folder / ABOUT} describes: copy the folder "
                    "anew, or run `emocache export` again"
                )
        return cls(info, _session(folder / ONNX))

    def __call__(self, **features: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of predictor.json of N persons, whose features are given by the names of its
        inputs, (N, *shape) each. Raises DataError for features that are not these."""
        wanted = {port["name"]: port for port in self.info["inputs"]}
        if missing := sorted(wanted.keys() - features.keys()):
            raise DataError(f"the head reads {', '.join(missing)} too: see inputs in {ABOUT}")
        if more := sorted(features.keys() - wanted.keys()):
            raise DataError(f"the head does not read {', '.join(more)}: see inputs in {ABOUT}")
        persons = len(next(iter(features.values())))
        given = {}
        for name, port in wanted.items():
            values, shape = np.asarray(features[name]), (persons, *port["shape"])
            if values.shape != shape:
                raise DataError(f"{name} of {persons} persons is {values.shape}, not {shape}")
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise DataError(f"{name} holds values that are not finite")
            given[name] = np.ascontiguousarray(values, port["dtype"])
        taken = {one.name for one in self.session.get_inputs()}
        names = [one.name for one in self.session.get_outputs()]
        found = self.session.run(names, {n: v for n, v in given.items() if n in taken})
        return dict(zip(names, found, strict=True))


class ExportedPredictor(Answering):
    """An exported head with the networks of the views it reads.

    differs: which libraries here are of other versions than those it was fitted with, as
    `view: part: there -> here`; its numbers may then differ in their last digits.
    """

    def __init__(
        self,
        head: ExportedHead,
        settings: Needed,
        networks: Networks,
        views: Mapping[str, View],
        differs: Sequence[str] = (),
    ):
        self.head, self.settings, self.networks = head, settings, networks
        self.views, self.differs = views, tuple(differs)
        self.info, self.thresholds = head.info, head.info["thresholds"]

    @classmethod
    def load(
        cls, folder: Path | str, weights: Weights | None = None, device: str | None = None
    ) -> "ExportedPredictor":
        """weights: where those of the frozen networks lie, in place of what settings.yaml says;
        device: as in params.yaml.

        Raises CacheError where the folder is damaged, KeyMismatch where networks, settings or rules
        here are others than those it was fitted with, DataError for a head that reads signals of
        recordings, WeightsError where weights are not to be had.
        """
        folder = Path(folder)
        head = ExportedHead.open(folder)
        settings = _settings(folder / SETTINGS)
        chosen = settings.device if device is None else device
        networks = Networks(
            settings.weights if weights is None else weights,
            lambda: _device(chosen),
            batch=settings.extract.batch,
            precision=settings.views.precision,
        )
        known = head.info["views"]
        views = make_views(settings.views, settings.cache.dtype)
        views = read_views(known, views, head.info["head"])
        differs = []
        for name, view in views.items():
            differs += _differs(name, known[name]["parts"], view.parts(networks))
        if differs:
            log.warning(
                "other versions than those the head was fitted with: %s", "; ".join(differs)
            )
        return cls(head, settings, networks, views, differs)

    @property
    def finds(self) -> People:
        return self.settings.people

    def about(self, found: bool = True) -> dict[str, Any]:
        return {**super().about(found), "differs": list(self.differs)}

    def features(
        self, picture: images.Picture, boxes: Sequence[Box]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What the head reads of these people by the names of its inputs, and which of them count:
        true where no view failed. Rounded as the cache rounds, float32 then."""
        arrays, usable = self._views(picture, boxes)
        return self._inputs(picture, boxes, arrays), usable

    def see(self, picture: images.Picture, boxes: Sequence[Box]) -> tuple[Any, Any]:
        """What the head saw, with the fields of `train.explain.Explanation` that a prediction
        reads; and its inputs, of the people who count."""
        arrays, usable = self._views(picture, boxes)
        rows = np.flatnonzero(usable)
        given = {n: values[rows] for n, values in self._inputs(picture, boxes, arrays).items()}
        found = {"scores": np.zeros((0, len(self.info["labels"])), np.float32)}
        if len(rows):
            found = self.head(**given)
        seen = SimpleNamespace(
            labels=tuple(self.info["labels"]),
            classes=tuple(self.info["classes"]),
            person_rows=rows,
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4)[rows],
            y_score=found["scores"],
            attention=found.get("attention"),
            objects=None,
            faces=None,
        )
        if (things := arrays.get("objects")) is not None:
            seen.objects = SimpleNamespace(
                boxes=things["box"][rows],
                labels=things["label"][rows],
                scores=things["score"][rows],
                mask=things["mask"][rows],
            )
        if (faces := arrays.get("head")) is not None:
            seen.faces = SimpleNamespace(boxes=faces["box"][rows], mask=faces["mask"][rows])
        return seen, given

    def _views(
        self, picture: images.Picture, boxes: Sequence[Box]
    ) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
        """The arrays of each view, of persons and with masks, as `train.data.Batch` has them."""
        given = subjects(picture, boxes)
        found: dict[str, dict[str, np.ndarray]] = {}
        usable = np.ones(len(boxes), bool)
        for name, view in self.views.items():
            arrays, status = columns(view, given[view.space], self.networks)
            if view.space == "pictures":
                arrays = {n: values.repeat(len(boxes), axis=0) for n, values in arrays.items()}
                status = status.repeat(len(boxes))
            if "count" in arrays:
                arrays["mask"] = np.arange(arrays["box"].shape[1]) < arrays["count"][:, None]
            elif view.space == "persons":
                arrays["mask"] = status == STATUS["ok"]
                arrays["features"] = arrays["features"] * arrays["mask"][:, None]
            usable &= np.isin(status, [STATUS[word] for word in USABLE])
            found[name] = arrays
        return found, usable

    def _inputs(
        self,
        picture: images.Picture,
        boxes: Sequence[Box],
        arrays: Mapping[str, Mapping[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        diagonal = max(np.hypot(picture.width, picture.height), 1)
        plain = {
            "box": np.asarray(boxes, np.float32).reshape(-1, 4),
            "diagonal": np.full(len(boxes), diagonal, np.float32),
        }
        return {
            port["name"]: np.asarray(
                arrays[port["view"]][port["array"]] if port["view"] else plain[port["name"]],
                port["dtype"],
            )
            for port in self.info["inputs"]
        }


def is_exported(folder: Path | str) -> bool:
    """Whether `emocache export` wrote this folder."""
    return (Path(folder) / ABOUT).is_file()


def _about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not path.exists():
        raise CacheError(f"no {path}: name a folder that `emocache export` wrote")
    try:
        info = json.loads(path.read_text("utf-8"))
        found = info.get("format")
    except (ValueError, AttributeError):
        raise CacheError(f"{path} is damaged: copy the folder anew") from None
    if found != FORMAT:
        raise FormatError.of(path, found, FORMAT, "run `emocache export` again")
    return dict(info)


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise SettingsError(
            "onnxruntime is not installed, and head.onnx needs it: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what else it says is of its own optimisations
    return onnxruntime.InferenceSession(
        path, sess_options=options, providers=["CPUExecutionProvider"]
    )


class _Loader(Once, yaml.SafeLoader):
    pass


def _settings(path: Path) -> Needed:
    if not path.is_file():
        raise CacheError(f"no {path}: copy the whole folder that `emocache export` wrote")
    try:
        return Needed.model_validate(yaml.load(path.read_bytes(), _Loader) or {})
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        told = "; ".join(sentence(part) for part in error.errors())
        raise SettingsError(f"{path}: {told}") from None


def _device(name: str) -> str:
    """As `pipelines.workplace.device_of`, which knows the settings of stage 2."""
    if name != "auto":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _differs(name: str, known: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The libraries whose versions differ. Raises KeyMismatch where anything else does."""
    theirs, ours = (
        {part: value for part, value in flatten(parts).items() if part not in LIBRARIES}
        for parts in (known, here)
    )
    if theirs != ours:
        raise KeyMismatch(
            f"view {name!r} as it is made here is not what the head was fitted on "
            f"({in_short(theirs, ours)}): leave the views in {SETTINGS} as they were exported, and "
            "set weights there to where the networks' weights lie"
        )
    return [f"{name}: {one}" for one in differences(known, here)]
