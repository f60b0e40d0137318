"""A cache as one HDF5 file, for programs that read no Zarr and for putting it away; and back.

/                       attributes: format, dataset, note, index_digest
/labels                 (C,) names
/persons/...            id, picture, box (P, 4), split, status, labels (P, C): for reading
/pictures/...           id, path, width, height, split, status: for reading
/views/<name>/<array>   (N, ...) as in the cache, `status` too; attribute sha256 of the bytes
/views/<name>           attribute key; datasets record (JSON), reasons (JSON), done (ranges)
/index/<file>           the index's files, byte for byte: an import gives them back
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.check import verify
from cache.errors import CacheError
from cache.files import sync, write_atomic, writing_to
from cache.index import Index, folder_of
from cache.lock import only_writer
from cache.settings import Cache
from cache.share import merge
from cache.store import WORDS, Stored, View, open_view, view_names, write_manifest
from cache.writer import Row, ViewWriter

FORMAT = 1
Progress = Callable[[int, int], None]


def export_hdf5(
    root: Path,
    file: Path,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Write the views `names` of the cache at `root` (all if None) with its index to `file`.

    Returns the committed rows of each view. Raises CacheError where the file exists and
    `overwrite` is False, where the cache is damaged, or where it has no such view.
    """
    root, file = Path(root), Path(file)
    if file.exists() and not overwrite:
        raise CacheError(f"{file} exists: name another file, or give --overwrite")
    found = verify(root, names)
    if not found.whole:
        damage = found.damages[0]
        raise CacheError(
            f"the cache {root} is damaged ({damage.file}: {damage.what}): run "
            "`emocache cache repair` first"
        )
    index = Index.read(root)
    names = list(names or view_names(root))
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    with writing_to(file):
        try:
            with h5py.File(partial, "w") as out:
                _write_index(out, root, index)
                for number, name in enumerate(names, 1):
                    _write_view(out.create_group(f"views/{name}"), open_view(root, name))
                    progress(number, len(names))
            sync(partial)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    return {name: found.rows[name] for name in names}


def _write_index(out: h5py.File, root: Path, index: Index) -> None:
    out.attrs["format"] = FORMAT
    out.attrs["dataset"], out.attrs["note"] = index.dataset, index.note
    out.attrs["index_digest"] = index.digest()
    text = h5py.string_dtype()
    out.create_dataset("labels", data=list(index.labels), dtype=text)
    for path in sorted(folder_of(root).iterdir()):
        data = path.read_bytes()
        kept = out.create_dataset(f"index/{path.name}", data=np.frombuffer(data, np.uint8))
        kept.attrs["sha256"] = hashlib.sha256(data).hexdigest()
    persons, pictures = out.create_group("persons"), out.create_group("pictures")
    for name in ("id", "split", "status"):
        persons.create_dataset(name, data=index.persons[name].to_pylist(), dtype=text)
    persons["picture"], persons["box"] = index.picture_rows, index.boxes
    persons["labels"] = index.targets
    for name in ("id", "path", "split", "status"):
        pictures.create_dataset(name, data=index.pictures[name].to_pylist(), dtype=text)
    for name in ("width", "height"):
        pictures[name] = index.pictures[name].to_numpy()


def _write_view(out: h5py.Group, view: View) -> None:
    out.attrs["key"], out.attrs["rows"] = view.key, view.rows
    text = h5py.string_dtype()
    out.create_dataset("record", data=json.dumps(view.stored.record()), dtype=text)
    out.create_dataset("reasons", data=json.dumps(view.reasons), dtype=text)
    out["done"] = np.flatnonzero(view.done)
    for name in (*view.spec.arrays, "status"):
        values = view.status if name == "status" else view.read(name)
        out[name] = values
        out[name].attrs["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()


def import_hdf5(
    cache: Cache, file: Path, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Bring an exported file into the cache at `cache.root`: bit for bit where there is none yet,
    else as `cache.share.merge` does.

    Returns what the merge did. Raises CacheError for a file that is damaged, of another program or
    of a newer format.
    """
    file, root = Path(file), cache.root
    made = root / ".import.partial"
    with only_writer(root, "cache import"), writing_to(root):
        shutil.rmtree(made, ignore_errors=True)
        try:
            with h5py.File(file) as source:
                _check_format(source, file)
                rows = _read(source, file, made, progress)
        except FileNotFoundError:
            raise CacheError(f"there is no file {file}") from None
        except (OSError, KeyError, ValueError, TypeError) as error:
            shutil.rmtree(made, ignore_errors=True)
            if isinstance(error, CacheError):
                raise
            raise CacheError(f"{file} is damaged, or no HDF5 file: {error}") from error
        if not folder_of(root).exists() and not view_names(root):
            for path in made.iterdir():
                if path.name != ".lock":
                    os.replace(path, root / path.name)
            shutil.rmtree(made)
            index = Index.read(root)
            return {
                "pictures": len(index.pictures),
                "persons": len(index.persons),
                "taken": rows,
                "both": {},
                "differ": {},
            }
    # The merge takes the lock itself.
    beside = root.with_name(f".{root.name}.import.partial")
    shutil.rmtree(beside, ignore_errors=True)
    os.replace(made, beside)
    try:
        return asdict(merge(cache, beside))
    finally:
        shutil.rmtree(beside)


def _check_format(source: h5py.File, file: Path) -> None:
    if "format" not in source.attrs or "views" not in source:
        raise CacheError(f"{file} was not written by `emocache cache export`")
    if source.attrs["format"] > FORMAT:
        raise CacheError(
            f"{file} has format {source.attrs['format']}, this emocache reads up to {FORMAT}: "
            "upgrade emocache"
        )


def _read(source: h5py.File, file: Path, root: Path, progress: Progress) -> dict[str, int]:
    for name, values in source["index"].items():
        write_atomic(folder_of(root) / name, _proven(values, file).tobytes())
    index = Index.read(root)
    rows = {}
    for number, (name, view) in enumerate(source["views"].items(), 1):
        stored = Stored.of(json.loads(view["record"][()]), Path(f"{file}:/views/{name}"))
        writer = ViewWriter(
            root,
            stored.spec,
            index.ids(stored.spec.rows),
            stored.shard_rows,
            stored.compression,
        )
        status = _proven(view["status"], file)
        arrays = {array: _proven(view[array], file) for array in stored.spec.arrays}
        reasons = json.loads(view["reasons"][()])
        done = view["done"][:].tolist()
        writer.expect(done)
        for row in done:
            values = {array: block[row] for array, block in arrays.items()}
            writer.put(row, Row(WORDS[int(status[row])], values, reasons.get(str(row), "")))
        rows[name] = len(done)
        progress(number, len(source["views"]))
    write_manifest(root, index.digest())
    return rows


def _proven(values: h5py.Dataset, file: Path) -> np.ndarray:
    array = values[:]
    if hashlib.sha256(array.tobytes()).hexdigest() != values.attrs["sha256"]:
        raise CacheError(f"{file} is damaged: {values.name} does not have its SHA-256")
    return array
