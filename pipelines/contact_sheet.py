"""The contact sheet: some persons of the index with their boxes, to look at before extraction is
paid for. Wrong boxes, labels that went astray and pictures on their side show here first. Of
recordings it is a table of some windows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from cache.index import Index, split_order
from extract import images
from pipelines import pages
from pipelines.overlay import PersonMark, draw
from pipelines.recordings import terms_of
from pipelines.settings import Settings
from train.labels import HAS

SHOWN = 48  # persons that count
DROPPED = 12  # persons that do not
PICTURE = 420  # longer side in pixels
SEED = 0

ORIGINS = {
    "annotated": "box annotated",
    "found": "person found by the detector",
    "face": "annotated face for the person",
    "whole": "nobody found: the whole picture",
}


def write(settings: Settings, prepared: Mapping[str, Any], path: Path) -> Path:
    """Write the page about what `prepare` found (`Prepared.as_dict`), and give its path."""
    index = Index.read(settings.cache.root)
    status = index.person_status
    recorded = bool(index.modalities)
    apart = _subjects(index) if recorded else index.persons["origin"].to_pylist()
    groups = defaultdict(list)
    for row in np.flatnonzero(status == "ok").tolist():
        groups[apart[row], int(index.targets[row].argmax())].append(row)
    lost = defaultdict(list)
    for row in np.flatnonzero((status != "ok") & (status != "removed")).tolist():
        lost[status[row]].append(row)
    root = None if recorded else settings.data.root.expanduser()
    return pages.render(
        "contact_sheet.html",
        path,
        prepared=prepared,
        splits=sorted(prepared["persons"], key=split_order),
        origins=[] if recorded else [(ORIGINS[name], n) for name, n in prepared["origins"].items()],
        modalities=index.modalities,
        terms=terms_of(index),
        shown=[_card(root, index, row) for row in sorted(_some(groups, SHOWN))],
        dropped=[_card(root, index, row) for row in _some(lost, DROPPED)],
        total=int((status == "ok").sum()),
        lost=int(((status != "ok") & (status != "removed")).sum()),
        seed=SEED,
    )


def _some(groups: Mapping[Any, Sequence[int]], count: int) -> list[int]:
    """At most `count` rows, as evenly from the groups as they allow, drawn once."""
    draw_from = np.random.default_rng(SEED)
    queues = [list(draw_from.permutation(rows)) for _, rows in sorted(groups.items())]
    chosen: list[int] = []
    while queues and len(chosen) < count:
        queues = [queue for queue in queues if queue]
        for queue in queues[: count - len(chosen)]:
            chosen.append(int(queue.pop()))
    return chosen


def _subjects(index: Index) -> list[str]:
    """The group of each window: a subject, where they are known."""
    return index.pictures["group"].take(pa.array(index.picture_rows)).to_pylist()


def _card(root: Path | None, index: Index, row: int) -> dict[str, Any]:
    """What the sheet says of a row; `root` is None where it is no picture."""
    person = index.persons.slice(row, 1).to_pylist()[0]
    picture = index.pictures.slice(person["picture"], 1).to_pylist()[0]
    shares = {
        label: value
        for label, value in zip(index.labels, person["labels"], strict=True)
        if value > (0 if index.kind == "distribution" else HAS)
    }
    ranked = sorted(shares.items(), key=lambda item: -item[1])[:4]
    labels = [
        f"{label} {value:.2f}" if index.kind == "distribution" else label for label, value in ranked
    ]
    if len(shares) > len(ranked):
        labels.append(f"and {len(shares) - len(ranked)} more")
    return {
        "labels": ", ".join(labels) or "no labels",
        "split": person["split"],
        "path": picture["path"],
        "group": picture["group"],
        "start": person["x1"],
        "end": person["x2"],
        "origin": ORIGINS.get(person["origin"], ""),
        "status": person["status"],
        "reason": person["reason"],
        **({} if root is None else _drawn(root / picture["path"], picture, person)),
    }


def _drawn(path: Path, picture: Mapping[str, Any], person: Mapping[str, Any]) -> dict[str, Any]:
    """The picture with the person's box and annotated face, for the page; nothing of one that
    cannot be read."""
    if picture["status"] != "ok":
        return {"image": ""}
    try:
        pixels = images.read(path).pixels
    except images.PictureError as error:
        return {"image": "", "reason": error.reason}
    box = tuple(person[side] for side in ("x1", "y1", "x2", "y2"))
    marks = []
    if np.isfinite(box).all():
        face = None if person["face"] is None else tuple(person["face"])
        marks = [PersonMark(box, face)]
    drawn = draw(Image.fromarray(pixels), marks, longest=PICTURE, zoom=1.2)
    url = pages.data_url(drawn, quality=74)
    return {"image": url, "width": drawn.width, "height": drawn.height}
