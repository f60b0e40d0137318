"""EmoSet-118K (Yang et al., ICCV 2023): pictures, eight emotions of Mikels, six kinds of
attributes.

`train.json`, `val.json` and `test.json` hold rows [emotion, picture, annotation] (or, in the first
release, [emotion, id, picture, annotation]), paths below the root. Each annotation is a JSON with
any of brightness, colorfulness, scene, object, facial_expression and human_action, kept as
attributes of the picture.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.errors import DataError
from extract import images
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import LabelNames, json_of
from extract.definitions import shipped

ATTRIBUTES = (
    "scene", "object", "brightness", "colorfulness", "facial_expression", "human_action",
)  # fmt: skip


@dataset("emoset")
class EmoSet(Dataset):
    """EmoSet by its lists."""

    kind = "single"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.definitions = shipped("mikels")
        self.labels = tuple(self.definitions)
        self._names = LabelNames(self.labels, self.counts)
        self._lists = {s: self.root / f"{s}.json" for s in ("train", "val", "test")}
        if not any(path.is_file() for path in self._lists.values()):
            raise DataError(
                f"{self.root} has none of train.json, val.json and test.json: set data.root to "
                "the folder of EmoSet"
            )
        self.note = "EmoSet-118K"

    def records(self) -> Iterator[PictureRecord]:
        """Pictures in the order of the lists; one that two lists have is in the first."""
        self.counts.clear()
        seen: set[str] = set()
        for split, file in self._lists.items():
            if not file.is_file():
                self.counts[f"{file.name} absent"] += 1
                continue
            rows = json_of(file)
            if not isinstance(rows, list):
                raise DataError(f"{file} is no list of pictures: see data.root")
            for at, row in enumerate(rows):
                where = f"{file}, entry {at + 1}"
                if (
                    not isinstance(row, list)
                    or len(row) not in (3, 4)
                    or not all(isinstance(cell, str) for cell in row)
                ):
                    raise DataError(f"{where} is not [emotion, picture, annotation]")
                path = row[-2].replace("\\", "/")
                if path in seen:
                    self.counts["pictures listed twice (the first entry counts)"] += 1
                    continue
                seen.add(path)
                person = PersonRecord(None, split, self._names.vector(row[:1], where))
                more = self._attributes(row[-1].replace("\\", "/"))
                yield PictureRecord(path, split, "EmoSet", None, None, [person], "", more)

    def _attributes(self, path: str) -> dict[str, Any]:
        """Those that the annotation has; none, and counted, where it cannot be read."""
        try:
            text = images.place(self.root.resolve(), path).read_bytes()
            found = json.loads(text, parse_constant=lambda word: None)  # NaN is no JSON
            return {name: found[name] for name in ATTRIBUTES if found.get(name) not in (None, "")}
        except (OSError, ValueError, AttributeError, RecursionError):
            self.counts["annotations that cannot be read, without attributes"] += 1
            return {}
