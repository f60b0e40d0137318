"""Views of the cache as tensors on the device, and batches of persons out of them.

Whole views are read once and stay on the device in the store's dtype, or where they are larger
than the memory they may take, in a file from which blocks of persons come. Persons keep the row
numbers of the index, so a batch is a gather by row; views of pictures are reached through each
person's picture. Nothing here opens a picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cache.errors import CacheError, DataError, did_you_mean
from cache.index import Index
from cache.keys import key_of
from cache.paths import view_names
from cache.spec import ArraySpec, RowSpace, ViewSpec
from cache.statuses import STATUS, USABLE, WORDS
from cache.store import StoredView, open_view
from train import memory as files
from train.labels import HAS, LabelKind, label_kind

# Arrays that replace each other: a head that names `objects.region`, the detector's own features
# of the regions, gets them in place of the backbone's.
INTERCHANGEABLE = ("features", "region")
# What a head names that reads every view: of pictures those of f_I, in this order, all of which
# must be there; of recordings the modalities, by name.
EVERY = "*"
ORDER = ("body", "head", "objects", "depth", "scene")
# What `emocache pretrain` reads, and no head may: why not.
TEACHERS = {
    "teacher_text": "its text names the label, which is what a head is to find",
    "teacher_image": "its rows are of crops, for `emocache pretrain`; set views.scene.network to "
    "use the network as a backbone",
}
UNKNOWN = "these persons have no labels: fit and score on a cache's index"


@dataclass(frozen=True)
class ViewData:
    """One view in memory, as the store holds it or as extraction has just made it.

    spec: what it is; arrays: name -> (N, ...); status (N,): codes of `cache.statuses.STATUS`.
    """

    spec: ViewSpec
    arrays: Mapping[str, np.ndarray]
    status: np.ndarray

    @classmethod
    def of(
        cls,
        name: str,
        space: RowSpace,
        arrays: Mapping[str, np.ndarray],
        status: np.ndarray | None = None,
        **more: Any,
    ) -> "ViewData":
        """Of arrays of one's own, whose rows are all ok where no status is given. more: `parts`,
        `weights` and `facts` as in `ViewSpec`."""
        of_each = {n: ArraySpec(one.shape[1:], str(one.dtype)) for n, one in arrays.items()}
        count = len(next(iter(arrays.values())))
        spec = ViewSpec(name, space, of_each, **{"parts": {}, **more})
        ok = np.full(count, STATUS["ok"], np.uint8)
        return cls(spec, arrays, ok if status is None else status)


def view_of(name: str) -> str:
    """The view of a name that heads use: `objects.region` is an array of the view `objects`."""
    return name.partition(".")[0]


def array_of(name: str) -> str:
    """The array of such a name: `region`; `features` where it names none."""
    return name.partition(".")[2] or "features"


def expand(names: Sequence[str], specs: Mapping[str, ViewSpec]) -> tuple[str, ...]:
    """The names that heads give, `EVERY` as the views of features of persons and pictures, of which
    `specs` are at hand, but for `TEACHERS`. Raises DataError where one of these is named."""
    _refuse_teachers(names)
    if EVERY not in names:
        return tuple(names)
    there = {n for n, one in specs.items() if "features" in one.arrays and one.space != "labels"}
    there -= TEACHERS.keys()
    usual = ORDER if there & set(ORDER) else ()
    every = (*usual, *sorted(there - set(usual)))
    return (*every, *(name for name in names if name != EVERY and name not in every))


def views_in(root: Path | str, names: Sequence[str]) -> tuple[str, ...]:
    """`expand`, of what the cache at `root` holds. Raises CacheError where that is nothing."""
    if EVERY not in names:
        return expand(names, {})
    root = Path(root)
    found = expand(names, {name: open_view(root, name).spec for name in view_names(root)})
    if not found:
        raise CacheError(f"{root} has no view of features: run `emocache extract`")
    return found


def _refuse_teachers(names: Sequence[str]) -> None:
    for name in map(view_of, names):
        if name in TEACHERS:
            raise DataError(f"a head cannot read the view {name!r}: {TEACHERS[name]}")


@dataclass(frozen=True)
class Batch:
    """B persons. Floats are float32.

    box: x1 y1 x2 y2 of the subject in pixels; diagonal: of its picture, in pixels;
    target: label vectors, None where they are not known; vad: valence, arousal and dominance, NaN
    where a person was not rated, None where nobody was;
    views: view -> array -> (B, ...), the arrays of the store, and two masks (bool):
    views["head"]["mask"] (B,), false where no face was found (its features are zeros), and
    likewise for every view of persons; views["objects"]["mask"] (B, k), true for real objects.
    """

    box: Float[Tensor, "B 4"]
    diagonal: Float[Tensor, " B"]
    target: Float[Tensor, "B C"] | None
    views: Mapping[str, Mapping[str, Tensor]]
    vad: Float[Tensor, "B 3"] | None = None

    @property
    def truth(self) -> Float[Tensor, "B C"]:
        """The label vectors. Raises DataError where they are not known."""
        if self.target is None:
            raise DataError(UNKNOWN)
        return self.target


@dataclass(frozen=True)
class Features:
    """All that a head may read of P persons and M pictures. Made by `load` or `from_arrays`.

    Rows are person rows of the index. kept: persons that count; dropped: split -> reason -> how
    many of the others (removed persons are not part of the data set and in neither).
    declared: what the index says that the labels are, or ""; see `kind`.
    specs: what each view is; label_views: view of labels -> features of each label; block: persons
    whose rows are held at once where views lie in files, 0 where all are on the device (see
    `train.memory`). units (P,): what a bootstrap draws whole (see `Index.units`), the pictures
    where it is None; drawn: what they are called.
    """

    labels: tuple[str, ...]
    classes: tuple[str, ...]  # of the object detector; empty without the view
    box: Float[Tensor, "P 4"]
    diagonal: Float[Tensor, " P"]
    picture: Int[Tensor, " P"]
    target: Float[Tensor, "P C"] | None
    label_views: Mapping[str, Float[Tensor, "C W"]]
    split: np.ndarray
    kept: np.ndarray
    dropped: Mapping[str, Mapping[str, int]]
    views: Mapping[str, Mapping[str, Tensor]]
    specs: Mapping[str, ViewSpec]
    dataset: str = ""
    note: str = ""
    index_digest: str = ""
    vad: Float[Tensor, "P 3"] | None = None
    declared: LabelKind | Literal[""] = ""
    block: int = 0
    units: np.ndarray | None = None
    drawn: str = "pictures"
    _moments: dict[tuple[str, str, bytes], tuple[Tensor, Tensor]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def device(self) -> torch.device:
        return self.box.device

    def rows(self, *splits: str) -> Int[Tensor, " N"]:
        """Person rows that count, of the splits named, or of all when none is."""
        wanted = self.kept & np.isin(self.split, splits) if splits else self.kept
        return torch.from_numpy(np.flatnonzero(wanted)).to(self.device)

    def truth(self, rows: Int[Tensor, " N"]) -> Float[Tensor, "N C"]:
        """Label vectors of these rows. Raises DataError for persons whose labels are not known."""
        if self.target is None:
            raise DataError(UNKNOWN)
        return self.target[rows]

    def has(self, rows: Int[Tensor, " N"]) -> Bool[Tensor, "N C"]:
        """Which labels these persons have: see `train.labels`. Raises DataError as `truth`."""
        return self.truth(rows) > HAS

    @property
    def kind(self) -> LabelKind:
        """What the labels are: as declared, or what those of train and val look like."""
        return self.declared or label_kind(self.truth(self.rows("train", "val")).cpu().numpy())

    @property
    def keys(self) -> dict[str, str]:
        """The content key of each view."""
        return {name: spec.key for name, spec in self.specs.items()}

    @property
    def cache_key(self) -> str:
        """One key for what is made of them: of the views, and of the index."""
        return cache_key(self.index_digest, self.keys)

    @property
    def untrained(self) -> list[str]:
        """The networks that run on random weights, as `view: network`."""
        return [
            f"{name}: {one['network']}"
            for name, spec in self.specs.items()
            for one in spec.weights
            if not one["trained"]
        ]

    def require(self, names: Sequence[str], head: str) -> None:
        """Raises DataError where a view that the head reads is not among them."""
        missing = [n for n in expand(names, self.specs) if view_of(n) not in self.specs]
        if missing:
            raise DataError(
                f"{head} needs the views {', '.join(missing)} too: run `emocache extract`"
            )

    def width(self, view: str, array: str = "features") -> int:
        """Numbers in one row of an array (of one object, for an array of objects)."""
        return self.views[view][array].shape[-1]

    def only(self, views: Sequence[str]) -> "Features":
        """The same persons with these views alone; `objects.region` counts as `objects`."""
        some = {view_of(name) for name in expand(views, self.specs)}

        def of(given: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in given.items() if name in some}

        return replace(
            self, views=of(self.views), label_views=of(self.label_views), specs=of(self.specs)
        )

    def batch(self, rows: Int[Tensor, " B"]) -> Batch:
        """The persons of these rows, gathered on the device."""
        pictures = self.picture[rows]
        views: dict[str, dict[str, Tensor]] = {}
        for name, arrays in self.views.items():
            at = rows if self.specs[name].space == "persons" else pictures
            views[name] = {
                array: _plain(_take(values, at, self.device)) for array, values in arrays.items()
            }
            mask = views[name].get("mask")
            if mask is not None and mask.ndim == 1:
                views[name]["features"] = views[name]["features"] * mask[:, None]
        target = None if self.target is None else self.target[rows]
        vad = None if self.vad is None else self.vad[rows]
        return Batch(self.box[rows], self.diagonal[rows], target, views, vad)

    def batches(self, rows: Int[Tensor, " N"], size: int) -> Iterator[Batch]:
        """These persons in this order, `size` at a time.

        Of views that lie in files a block of many batches is read at once, in the order in which
        its rows lie, while the block before it is in use. The batches are the same ones.
        """
        if not self.block:
            for some in rows.split(size):
                yield self.batch(some)
            return
        blocks = rows.split(max(1, self.block // size) * size)
        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(self._held, block) for block in blocks[:1]]
            for number in range(len(blocks)):
                held = coming.pop().result()
                coming += [reader.submit(self._held, b) for b in blocks[number + 1 : number + 2]]
                for some in torch.arange(len(held.box), device=self.device).split(size):
                    yield held.batch(some)

    def _held(self, rows: Int[Tensor, " B"]) -> "Features":
        """These persons alone, on the device."""
        pictures, picture = self.picture[rows].unique(return_inverse=True)
        order = rows.argsort()
        back = order.argsort()
        views = {
            name: {
                array: _take(values, rows[order], self.device)[back]
                if self.specs[name].space == "persons"
                else _take(values, pictures, self.device)
                for array, values in arrays.items()
            }
            for name, arrays in self.views.items()
        }
        return replace(
            self,
            box=self.box[rows],
            diagonal=self.diagonal[rows],
            picture=picture,
            target=None if self.target is None else self.target[rows],
            vad=None if self.vad is None else self.vad[rows],
            views=views,
            block=0,
        )

    def moments(
        self, rows: Int[Tensor, " N"], view: str, array: str = "features"
    ) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        """Mean and standard deviation of an array of a view over the persons of `rows`.

        Missing faces and padded objects are left out. A feature that never changes gets
        deviation 1, so that dividing by it is safe.
        """
        about = view, array, sha256(rows.cpu().numpy().tobytes()).digest()
        if about in self._moments:
            return self._moments[about]
        width = self.width(view, array)
        count = 0
        total = torch.zeros(width, dtype=torch.float64)
        squares = torch.zeros(width, dtype=torch.float64)
        for batch in replace(self, views={view: self.views[view]}).batches(rows, 512):
            arrays = batch.views[view]
            values = arrays[array]
            values = values[arrays["mask"]] if "mask" in arrays else values
            values = values.reshape(-1, values.shape[-1]).cpu().double()
            count += len(values)
            total += values.sum(0)
            squares += values.square().sum(0)
        mean = total / max(count, 1)
        deviation = (squares / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        deviation[deviation < 1e-6] = 1
        self._moments[about] = mean.float().to(self.device), deviation.float().to(self.device)
        return self._moments[about]


def cache_key(index: str, views: Mapping[str, str]) -> str:
    """One key for a result: of the views (name -> key) that a head reads, and of the index of that
    digest."""
    return key_of({"index": index, **views})


def load(
    cache_root: Path | str,
    views: Sequence[str],
    device: torch.device | str = "cpu",
    memory: float | None = None,
) -> Features:
    """Read the index and the named views of a cache; `objects.region`: see `INTERCHANGEABLE`, "*":
    `EVERY`.

    memory: GB that views may take on the device; of larger ones the largest arrays go to a
    temporary file and come by blocks. None: all are held.

    Raises CacheError when the index or a view is absent or a counted person's row of it was never
    extracted, DataError when features are not finite, SettingsError where `memory` is too small.
    """
    root = Path(cache_root)
    index = Index.read(root)
    sizes = np.stack([index.pictures[side].to_numpy() for side in ("width", "height")], axis=1)
    named = {view_of(name): array_of(name) for name in views_in(root, views)}
    absent = [name for name in named if name not in view_names(root)]
    if absent:
        mend = ""
        if absent[0] == "words":
            mend = " with views.words.network set, or set the setting `words` of the head to labels"
        raise CacheError(absent_view(absent[0], root, index, mend))
    opened = {name: open_view(root, name) for name in named}
    for name, view in opened.items():
        if named[name] not in view.arrays:
            detector = view.spec.parts.get("settings", {}).get("detector", "its detector")
            raise CacheError(
                f"view {name!r} has no {named[name]!r}: {detector} gives none. Set "
                f"views.{name}.detector to one that does, or train.rrla.regions to features"
            )
    wanted = {
        (name, array): view.spec.arrays[array]
        for name, view in opened.items()
        for array in view.spec.arrays
        if array not in INTERCHANGEABLE or array == named[name]
    }
    large = {at: array for at, array in wanted.items() if opened[at[0]].space != "labels"}
    place = files.placement(
        {at: len(opened[at[0]]) for at in large},
        {at: array.row_bytes for at, array in large.items()},
        memory,
    )
    return from_arrays(
        views={
            name: ViewData(
                view.spec,
                {
                    array: _read(view, array, (name, array) in place.away)
                    for at, array in wanted
                    if at == name
                },
                view.status,
            )
            for name, view in opened.items()
        },
        boxes=index.boxes,
        sizes=sizes,
        pictures=index.picture_rows,
        labels=index.labels,
        targets=index.targets,
        splits=index.splits,
        status=index.person_status,
        device=device,
        dataset=index.dataset,
        note=index.note,
        index_digest=index.digest(),
        vad=index.vad,
        kind=index.kind,
        block=place.block,
        units=index.units if index.modalities else None,
        drawn=index.drawn,
    )


def absent_view(name: str, root: Path | str, index: Index, mend: str = "", reader: str = "") -> str:
    """Why a cache has no view of this name, in a sentence; reader: ", which hugme reads"."""
    if not index.modalities:
        return f"{root} has no view {name!r}{reader}: run `emocache extract`{mend}"
    if name in index.modalities:
        return f"{root} has no view {name!r} yet: run `emocache extract`"
    there = ", ".join(index.modalities)
    if name in (*ORDER, "labels", "words"):
        return (
            f"{root} holds recordings, with the views {there}, and no {name!r} of pictures: set "
            "train.head to one that reads any views (helo, mlp, linear, aa_knn, sa_bfgs), or its "
            "views to some of these"
        )
    return f"{root} has no view {name!r}{did_you_mean(name, index.modalities)}"


def _read(view: StoredView, array: str, away: bool) -> np.ndarray:
    spec = view.spec.arrays[array]
    if not away:
        return view.read(array)
    return view.read(array, files.mapped((len(view), *spec.shape), np.dtype(spec.dtype)))


def from_arrays(
    *,
    views: Mapping[str, ViewData],
    boxes: np.ndarray,
    sizes: np.ndarray,
    pictures: np.ndarray,
    labels: Sequence[str],
    targets: np.ndarray | None = None,
    splits: np.ndarray | None = None,
    status: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    dataset: str = "",
    note: str = "",
    index_digest: str = "",
    vad: np.ndarray | None = None,
    kind: LabelKind | Literal[""] = "",
    block: int = 0,
    units: np.ndarray | None = None,
    drawn: str = "pictures",
) -> Features:
    """Features of persons that need not be in a cache.

    boxes (P, 4) and sizes (M, 2), width and height, in pixels; pictures (P,) row of each person's
    picture; labels: the C names; targets (P, C); splits (P,) and status (P,), words of the index;
    vad (P, 3), NaN where not rated; kind: of the labels, "" to go by their values.
    Mapped arrays (`np.memmap`) stay where they are, and `block` says of how many persons they are
    read at once.
    Float arrays keep their dtype: to score new persons just as cached ones, round them to the
    cache's dtype first.
    """
    count = len(boxes)
    pictures = np.asarray(pictures, np.int64)
    for what, given, shape in (
        ("boxes", boxes, (count, 4)),
        ("sizes", sizes, (len(sizes), 2)),
        ("pictures", pictures, (count,)),
        ("targets", targets, (count, len(labels))),
        ("splits", splits, (count,)),
    ):
        if given is not None and np.shape(given) != shape:
            raise ValueError(f"{what} of {count} persons are {np.shape(given)}, not {shape}")
    split = np.full(count, "") if splits is None else np.asarray(splits)
    kept, dropped = _sort_out(views, pictures, split, status)
    tensors: dict[str, dict[str, Tensor]] = {}
    classes: tuple[str, ...] = ()
    label_views: dict[str, Tensor] = {}
    for name, view in views.items():
        arrays = {array: _tensor(values, device) for array, values in view.arrays.items()}
        for array, values in arrays.items():
            _check_finite(f"view {name!r}, array {array!r}", values)
        if view.spec.space == "labels":
            if len(view.status) != len(labels) or (view.status != STATUS["ok"]).any():
                raise CacheError(
                    f"view {name!r} has {int((view.status == STATUS['ok']).sum())} labels, the "
                    f"index has {len(labels)}: run `emocache extract`, or set views.{name}.network "
                    "to one that knows them all"
                )
            label_views[name] = arrays["features"].float()
            continue
        if "count" in arrays:
            k = arrays["box"].shape[1]
            arrays["mask"] = torch.arange(k, device=device) < arrays["count"][:, None]
            classes = tuple(view.spec.facts.get("classes", ()))
            _check_classes(name, arrays, classes)
        elif view.spec.space == "persons":
            arrays["mask"] = _tensor(view.status == STATUS["ok"], device)
        tensors[name] = arrays
    diagonals = np.hypot(*np.asarray(sizes, np.float32).T)
    return Features(
        labels=tuple(labels),
        classes=classes,
        box=_tensor(np.asarray(boxes, np.float32), device),
        diagonal=_tensor(np.maximum(diagonals[pictures], 1).astype(np.float32), device),
        picture=_tensor(pictures, device),
        target=None if targets is None else _tensor(np.asarray(targets, np.float32), device),
        label_views=label_views,
        split=split,
        kept=kept,
        dropped=dropped,
        views=tensors,
        specs={name: view.spec for name, view in views.items()},
        dataset=dataset,
        note=note,
        index_digest=index_digest,
        vad=_rated(vad, device),
        declared=kind,
        block=block,
        units=units,
        drawn=drawn,
    )


def _rated(vad: np.ndarray | None, device: torch.device | str) -> Tensor | None:
    if vad is None or np.isnan(vad).all():
        return None
    return _tensor(np.asarray(vad, np.float32), device)


def _sort_out(
    views: Mapping[str, ViewData],
    pictures: np.ndarray,
    split: np.ndarray,
    status: np.ndarray | None,
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """Who counts, and who does not and why. The index speaks first, then the views in order."""
    persons = np.arange(len(pictures))
    why = np.full(len(pictures), "", dtype=object)
    if status is not None:
        why[:] = np.where(np.asarray(status) == "ok", "", status)
    for name, view in views.items():
        if view.spec.space == "labels":
            continue
        rows = persons if view.spec.space == "persons" else pictures
        codes = np.zeros(max(len(view.status), int(rows.max(initial=-1)) + 1), np.uint8)
        codes[: len(view.status)] = view.status  # the index may have grown since
        words = np.array([WORDS[int(code)] for code in codes], dtype=object)[rows]
        absent = (why == "") & (words == "absent")
        if absent.any():
            raise CacheError(
                f"view {name!r} has no rows for {int(absent.sum())} of {len(persons)} persons "
                f"(the first: person {int(np.flatnonzero(absent)[0])}): run `emocache extract`"
            )
        bad = (why == "") & ~np.isin(words, USABLE)
        why[bad] = [f"{name}: {word}" for word in words[bad]]
    dropped: dict[str, dict[str, int]] = {}
    for at in np.flatnonzero((why != "") & (why != "removed")):
        reasons = dropped.setdefault(str(split[at]), {})
        reasons[why[at]] = reasons.get(why[at], 0) + 1
    return why == "", dropped


def _tensor(values: np.ndarray, device: torch.device | str) -> Tensor:
    writable = values if values.flags.writeable else values.copy()
    tensor = torch.from_numpy(np.ascontiguousarray(writable))
    return tensor if isinstance(values, np.memmap) else tensor.to(device)


def _take(values: Tensor, rows: Int[Tensor, " B"], device: torch.device) -> Tensor:
    return values[rows.to(values.device)].to(device)


def _plain(values: Tensor) -> Tensor:
    """float32, int64 or bool: what layers compute with."""
    if values.is_floating_point():
        return values.float()
    return values if values.dtype == torch.bool else values.long()


def _check_finite(what: str, values: Tensor) -> None:
    if values.is_floating_point() and values.numel():
        low, high = torch.aminmax(values)
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise DataError(
                f"{what} holds values that are not finite: run `emocache cache verify`, or extract "
                "it again with cache.dtype float32"
            )


def _check_classes(name: str, arrays: Mapping[str, Tensor], classes: tuple[str, ...]) -> None:
    real = arrays["label"][arrays["mask"]]
    if real.numel() and not 0 <= int(real.min()) <= int(real.max()) < len(classes):
        raise CacheError(
            f"view {name!r} has object classes {int(real.min())} to {int(real.max())}, its facts "
            f"name {len(classes)}: run `emocache extract` to make it again"
        )
