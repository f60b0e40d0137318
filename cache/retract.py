"""Take what is damaged out of a cache: it is whole then, and lacks rows, which `extract.repair`
makes again."""

from pathlib import Path

import numpy as np

from cache.check import Damage, Examination, Findings, identify
from cache.errors import CacheError
from cache.files import delete, discard, sweep, write_atomic, writing_to
from cache.index import Index
from cache.paths import index_folder, manifest_file, view_folder
from cache.writer import ViewWriter


def retract(root: Path, found: Findings, index: Index) -> dict[str, np.ndarray]:
    """Take what is damaged out of the cache: it is whole then, and lacks rows.

    Proven rows keep their bytes, metadata is written anew from its other copy. Returns the rows
    to extract again, by view. Call it with the cache locked.
    Raises CacheError where the shards belong to another index than the one there.
    """
    root = Path(root)
    rows: dict[str, np.ndarray] = {}
    by_view: dict[str, list[Damage]] = {}
    for damage in found.damages:
        if damage.view:
            by_view.setdefault(damage.view, []).append(damage)
        if damage.foreign:
            raise CacheError(
                f"{root / damage.file} {damage.what}: put the index back that the cache was made "
                f"with (`dvc checkout --force {index_folder(root)}`), or set cache.root; if the "
                "rows are worthless, delete the view's folder and run `emocache extract`"
            )
    if manifest_file(root).is_dir():  # else it is just written anew
        delete(manifest_file(root))
    for name, damages in by_view.items():
        with writing_to(view_folder(root, name)):
            rows[name] = _retract(root, name, damages, index)
    return rows


def _retract(root: Path, name: str, damages: list[Damage], index: Index) -> np.ndarray:
    path = view_folder(root, name)
    layout, known = identify(root, name)
    if layout is None:
        discard(path)
        return np.arange(max(len(index.persons), len(index.pictures), len(index.labels)))
    one = Examination(root, layout, known, index)
    sweep(path)
    for file, data in one.own.items():
        if not (path / file).is_file() or (path / file).read_bytes() != data:
            delete(path / file)
            write_atomic(path / file, data)
    for damage in one.damages:  # records that prove nothing, and files that no record proves
        if damage.file.removeprefix(f"{path.name}/") not in one.own:
            delete(root / damage.file)
    for damage in damages:
        if (root / damage.file).is_dir():
            delete(root / damage.file)
    for shard in {d.shard for d in one.damages if d.shard is not None} - set(one.commits):
        for array, of_array in layout.arrays.items():
            delete(path / of_array.file(array, shard))
    writer = ViewWriter(
        root,
        layout.spec,
        index.ids(layout.spec.space),
        layout.shard_rows,
        layout.compression,
    )
    for shard in sorted({d.shard for d in damages if d.rows and d.shard in one.commits}):
        lost = [row for d in damages if d.shard == shard for row in d.rows]
        writer.retract(shard, np.unique(lost))
    return np.unique([row for damage in damages for row in damage.rows]).astype(int)
