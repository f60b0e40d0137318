"""What the head would say of persons without a view or an object, for their cards in the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.progress import Progress, silent

if TYPE_CHECKING:  # it loads torch
    from train.run import Opened

BATCH = 64  # persons between two steps of the progress bar


@dataclass(frozen=True)
class WhatIf:
    """Scores of M persons of a gallery, C labels. asked (M,): their places among all its persons.

    without_view (M, V, C): without each of `views` alone. without_object: without each single
    object, those of person m being first[m] to first[m + 1], in the order of `objects_of`; first
    (M + 1,). edges: whether the head has a label graph to cut.
    """

    asked: np.ndarray
    views: tuple[str, ...]
    without_view: np.ndarray
    first: np.ndarray
    without_object: np.ndarray
    edges: bool = False


def what_if(
    opened: "Opened",
    rows: np.ndarray,
    objects_of: Callable[[int], np.ndarray],
    asked: np.ndarray,
    progress: Progress = silent,
) -> WhatIf:
    """What the head would say of the persons at these places (M,) among all of a gallery, whose
    rows in the index are `rows` (N,); objects_of: see `Seen`. What is taken away, and how, stands
    at `train.whatif`."""
    import torch

    from train.whatif import edges_of, singles

    views: tuple[str, ...] = ()
    labels = len(opened.features.labels)
    without_view, without_object, counts = [], [np.zeros((0, labels))], []
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        found = singles(opened.model, opened.features, torch.as_tensor(rows[some]))
        views = found.views
        without_view.append(found.without_view)
        for place, scores in zip(some, found.without_object, strict=True):
            numbers = objects_of(int(place))
            without_object.append(scores[numbers])
            counts.append(len(numbers))
        progress(start + len(some), len(asked))
    return WhatIf(
        asked=asked,
        views=views,
        without_view=np.concatenate(without_view or [np.zeros((0, 0, labels))]),
        first=np.concatenate([[0], np.cumsum(counts, dtype=int)]),
        without_object=np.concatenate(without_object),
        edges=bool(edges_of(opened.model)),
    )
