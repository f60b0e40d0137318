"""A head's scores on one split: made by `train.run`, measured, written and read again elsewhere.
Nothing here loads torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import DataError
from cache.files import write_atomic
from train.labels import LabelKind, label_kind

LISTS = ("y_true", "y_score", "distribution", "vad", "y_vad")  # columns of lists, where they are


@dataclass(frozen=True)
class Scores:
    """A head's scores on one split, a row a person.

    person_rows, picture_rows (N,): rows in the index; y_true (N, C) 0 or 1; y_score (N, C),
    higher is more likely; index: its digest. Where labels are shares of 1, distribution (N, C) has
    them. Where the head predicts valence, arousal and dominance: vad, y_vad (N, 3), predicted and
    annotated, the latter NaN where not rated. declared: the kind of the labels as the index has it.
    units (N,): what a bootstrap draws whole, where that is not the picture; drawn: its name.

    Of scores just made, and not of those that were read from a file: dropped, reason -> persons of
    the split that could not be scored; info: of the head, from head.json; dataset, note: of the
    persons scored, who need not be of the data that the head was fitted on; train_mean (C,), or (N,
    C) where it differs, the mean of the distributions over the train persons; train_vad (3,), that
    of the ratings.
    """

    split: str
    labels: tuple[str, ...]
    person_rows: np.ndarray
    picture_rows: np.ndarray
    y_true: np.ndarray
    y_score: np.ndarray
    distribution: np.ndarray | None = None
    vad: np.ndarray | None = None
    y_vad: np.ndarray | None = None
    declared: LabelKind | Literal[""] = ""
    index: str = ""
    head_sha256: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""
    note: str = ""
    train_mean: np.ndarray | None = None
    units: np.ndarray | None = None
    drawn: str = "pictures"
    train_vad: np.ndarray | None = None

    def kind(self, *others: "Scores") -> LabelKind:
        """What the labels of these persons are, and of `others` too."""
        if self.declared:
            return self.declared
        if self.distribution is not None and label_kind(self.distribution) == "distribution":
            return "distribution"
        every = (self, *others)
        return "single" if all(label_kind(one.y_true) == "single" for one in every) else "multi"

    @property
    def resampled(self) -> np.ndarray:
        """(N,) what a bootstrap draws whole."""
        return np.asarray(self.picture_rows if self.units is None else self.units)

    def of(self, at: np.ndarray) -> "Scores":
        """The persons at these places."""
        names = ("person_rows", "picture_rows", "units", *LISTS)
        some = {name: getattr(self, name) for name in names}
        kept: dict[str, Any] = {n: v if v is None else v[at] for n, v in some.items()}
        return replace(self, **kept)

    def write(self, path: Path) -> None:
        """As a Parquet table: person, picture (rows in the index), split, and those of `LISTS` that
        there are, one row a person. The names of the labels, the digest of the index and the
        SHA-256 of the head stand in the metadata of the schema."""
        table = pa.table(
            {
                "person": pa.array(np.asarray(self.person_rows), pa.int32()),
                "picture": pa.array(np.asarray(self.picture_rows), pa.int32()),
                "split": [self.split] * len(self.person_rows),
                **({} if self.units is None else {"unit": pa.array(self.units, pa.int32())}),
                **{
                    name: pa.array(np.asarray(values).tolist(), pa.list_(pa.float32()))
                    for name in LISTS
                    if (values := getattr(self, name)) is not None
                },
            }
        )
        about = {
            "labels": json.dumps(list(self.labels)),
            "kind": self.declared,
            "index": self.index,
            "head_sha256": self.head_sha256,
            "drawn": self.drawn,
        }
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(about), sink)
        write_atomic(path, sink.getvalue().to_pybytes())

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """What `write` wrote. Raises DataError where it is absent or of an older emocache."""
        if not path.exists():
            raise DataError(f"no {path}: run `emocache evaluate` first")
        table = pq.read_table(path)
        about = table.schema.metadata or {}
        if b"labels" not in about:
            raise DataError(
                f"{path} does not say of which labels it is, as an older emocache left it: run "
                "`emocache evaluate` again"
            )

        def lists(name: str) -> np.ndarray | None:
            if name not in table.column_names:
                return None
            return table[name].combine_chunks().flatten().to_numpy().reshape(len(table), -1)

        found: dict[str, Any] = {name: lists(name) for name in LISTS}
        true, score = found.pop("y_true"), found.pop("y_score")
        if true is None or score is None:
            raise DataError(f"{path} has no scores: run `emocache evaluate` again")
        return cls(
            split=table["split"][0].as_py(),
            labels=tuple(json.loads(about[b"labels"])),
            person_rows=table["person"].to_numpy(),
            picture_rows=table["picture"].to_numpy(),
            y_true=true,
            y_score=score,
            **found,
            declared=about.get(b"kind", b"").decode(),
            units=table["unit"].to_numpy() if "unit" in table.column_names else None,
            drawn=about.get(b"drawn", b"pictures").decode(),
            index=about[b"index"].decode(),
            head_sha256=about.get(b"head_sha256", b"").decode(),
        )
