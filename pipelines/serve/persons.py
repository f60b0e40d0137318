"""The persons of a cache, one at a time, for a head that was fitted on it: a row of each view that
it reads, straight from the store. No network runs, and of the cache only the index is in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cache.errors import CacheError, DataError
from cache.index import Index, split_order
from cache.statuses import STATUS, USABLE, WORDS
from cache.store import StoredView, open_view
from extract import images
from pipelines.settings import Settings
from pipelines.workplace import index_of
from train.checkpoint import check_keys
from train.data import (
    EVERY,
    INTERCHANGEABLE,
    Features,
    ViewData,
    array_of,
    from_arrays,
    view_of,
    views_in,
)
from train.labels import HAS
from train.settings import Train


@dataclass(frozen=True)
class Persons:
    """The persons of an index. views: what a head reads of persons and pictures; named: of each the
    array that it takes of those that replace each other; device: where features go."""

    settings: Settings
    index: Index
    views: Mapping[str, StoredView]
    named: Mapping[str, str]
    device: Any = "cpu"

    @classmethod
    def open(
        cls, settings: Settings, model: Any, info: Mapping[str, Any], device: Any = "cpu"
    ) -> "Persons":
        """Those of `cache.root`. Raises CacheError, KeyMismatch and DataError where the head was
        not fitted on what lies there, as `train.run.open_head`, but reads no features."""
        index = index_of(settings)
        names = model.views(Train.model_validate(info["settings"]))
        if EVERY in names:
            names = tuple(info["views"])
        root = settings.cache.root
        named = {view_of(name): array_of(name) for name in views_in(root, names)}
        views = {name: open_view(root, name) for name in named}
        check_keys(info, cls(settings, index, views, named)._features([]))
        seen = {name: view for name, view in views.items() if view.space != "labels"}
        found = cls(settings, index, seen, named, device)
        if not len(found.rows):
            raise DataError(f"no person in {root} has features: run `emocache extract`")
        return found

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows of the persons that count: neither the index nor a view says otherwise."""
        kept = self.index.person_status == "ok"
        for view in self.views.values():
            kept &= np.isin(self._codes(view), [STATUS[word] for word in USABLE])
        return np.flatnonzero(kept)

    def of(self, split: str | None = None) -> list[int]:
        """Rows of the persons that count, of that split, or of all."""
        rows = self.rows if split is None else self.rows[self.index.splits[self.rows] == split]
        return list(rows.tolist())

    @cached_property
    def splits(self) -> dict[str, int]:
        """How many persons of each split count."""
        names, counts = np.unique(self.index.splits[self.rows], return_counts=True)
        found = dict(zip(names.tolist(), counts.tolist(), strict=True))
        return {name: found[name] for name in sorted(found, key=split_order)}

    def features(self, row: int) -> Features:
        """What the head reads of one person, who is row 0 in it. Raises DataError for one who is
        not there or does not count, CacheError where the cache is not what it was."""
        count = len(self.index.persons)
        if not 0 <= row < count:
            raise DataError(f"no person {row}: the cache has {count}, numbered from 0")
        at = np.searchsorted(self.rows, row)
        if at == len(self.rows) or self.rows[at] != row:
            raise DataError(f"person {row} has no features: {self._why_not(row)}")
        return self._features([row])

    def known(self, row: int) -> dict[str, Any]:
        """What the index says of a person: split, true labels, the share of each, the picture."""
        truth = dict(zip(self.index.labels, self.index.targets[row].tolist(), strict=True))
        picture = self._picture(row)
        return {
            "row": row,
            "split": str(self.index.splits[row]),
            "true": [label for label, share in truth.items() if share > HAS],
            "shares": {label: round(share, 4) for label, share in truth.items()},
            **{name: picture[name] for name in ("width", "height")},
            "picture": picture["path"],
        }

    def picture(self, row: int) -> images.Picture:
        """The picture of a person, by the path that the index has. Raises `images.PictureError`
        where it is not there, or another one by now."""
        known, data = self._picture(row), self.settings.data
        root = data.root.expanduser().resolve()
        found = images.read(images.place(root, known["path"], data.follow_links))
        if found.id != known["id"]:
            raise images.PictureError("the file is another one than `emocache prepare` found")
        return found

    def _features(self, rows: Sequence[int]) -> Features:
        index, persons = self.index, list(rows)
        known = [self._picture(row) for row in persons]
        places = {"persons": persons, "pictures": index.picture_rows[persons].tolist()}
        views = {}
        for name, view in self.views.items():
            at = places.get(view.space, range(len(view)))
            arrays = {
                array: _read(view, array, at)
                for array in view.spec.arrays
                if array not in INTERCHANGEABLE or array == self.named[name]
            }
            views[name] = ViewData(view.spec, arrays, view.status[list(at)])
        return from_arrays(
            views=views,
            boxes=index.boxes[persons],
            sizes=np.array([(one["width"], one["height"]) for one in known]).reshape(-1, 2),
            pictures=np.arange(len(persons)),
            labels=index.labels,
            device=self.device,
            dataset=index.dataset,
            note=index.note,
        )

    def _picture(self, row: int) -> dict[str, Any]:
        at = int(self.index.picture_rows[row])
        return dict(self.index.pictures.slice(at, 1).to_pylist()[0])

    def _codes(self, view: StoredView) -> np.ndarray:
        """The status of each person in a view."""
        index = self.index
        count = len(index.persons if view.space == "persons" else index.pictures)
        codes = np.full(max(count, len(view)), STATUS["absent"], np.uint8)  # it may have grown
        codes[: len(view)] = view.status
        return codes[: len(index.persons)] if view.space == "persons" else codes[index.picture_rows]

    def _why_not(self, row: int) -> str:
        said = self.index.persons.slice(row, 1).to_pylist()[0]
        if said["status"] != "ok":
            return f"{said['status']} {said['reason']}".strip()
        words = {name: WORDS[int(self._codes(view)[row])] for name, view in self.views.items()}
        return ", ".join(f"{name}: {word}" for name, word in words.items() if word not in USABLE)


def _read(view: StoredView, name: str, rows: Sequence[int]) -> np.ndarray:
    """These rows of an array, from the shards that hold them, which are checked on the way."""
    layout = view.layout.arrays[name]
    found = layout.empty(len(rows))
    for number, row in enumerate(rows):
        shard, at = divmod(row, layout.shard_rows)
        some = layout.empty(min(layout.shard_rows, len(view) - shard * layout.shard_rows))
        file = layout.file(name, shard)
        proof = view.commits[shard].files.get(file)
        if proof is not None:  # else all are of the fill value
            if layout.read(view.path / file, some, proof.chunks):
                raise CacheError(
                    f"{view.path / file} is not what it was when the server began: start it again, "
                    "or run `emocache cache verify`"
                )
            found[number] = some[at]
    return found
