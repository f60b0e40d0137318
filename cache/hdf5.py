"""A cache as one HDF5 file, for programs that read no Zarr and for putting it away; and back.

/                       attributes: format, dataset, note, index_digest
/labels                 (C,) names
/persons/...            id, picture, box (P, 4), split, status, labels (P, C): for reading
/pictures/...           id, path, width, height, split, status: for reading
/views/<name>           attributes key, rows
/views/<name>/<array>   (N, ...) as in the cache; `status` too, 0 where a row has no features
/index/<file>           the index's files, byte for byte
/about                  JSON with its own hash: SHA-256 of every file of the index and array of a
                        view, and of each view its record, rows done and reasons

An import reads `views`, `index` and `about`, and takes nothing that `about` does not prove.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.check import require_whole
from cache.errors import CacheError, FormatError
from cache.files import sync, write_atomic, writing_to
from cache.index import Index, recover_index
from cache.keys import of_sealed_text, sealed_text
from cache.lock import only_writer
from cache.manifest import write_manifest
from cache.paths import index_folder, view_names
from cache.progress import Progress, silent
from cache.settings import Cache
from cache.share import merge
from cache.store import StoredView, ViewLayout, open_view
from cache.writer import ViewWriter

FORMAT = 1


def export_hdf5(
    root: Path,
    file: Path,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[str, int]:
    """Write the views `names` of the cache at `root` (all if None) with its index to `file`.

    Returns the committed rows of each view. Raises CacheError where the file exists and
    `overwrite` is False, where the cache is damaged, or where it has no such view.
    """
    root, file = Path(root), Path(file)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise CacheError(f"{file} is a folder, or lies in one that is not there: name a file")
    if file.exists() and not overwrite:
        raise CacheError(f"{file} exists: name another file, or give --overwrite")
    found = require_whole(root, names)
    index = Index.read(root)
    names = list(names or view_names(root))
    _require_room(file, root, names)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    with writing_to(file):
        try:
            with h5py.File(partial, "w") as out:
                about: dict[str, Any] = {"index": _write_index(out, root, index), "views": {}}
                for number, name in enumerate(names, 1):
                    view = out.create_group(f"views/{name}")
                    about["views"][name] = _write_view(view, open_view(root, name))
                    progress(number, len(names))
                out["about"] = np.frombuffer(sealed_text(about), np.uint8)
            sync(partial)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    return {name: found.rows[name] for name in names}


def _require_room(file: Path, root: Path, names: Sequence[str]) -> None:
    """Refuse what the disk cannot hold before HDF5 begins, which dies of a full disk."""
    need = 2 * sum(path.stat().st_size for path in index_folder(root).iterdir())
    for view in (open_view(root, name) for name in names):
        need += len(view) * view.spec.row_bytes
    free = shutil.disk_usage(file.parent).free
    if free < need:
        raise CacheError(
            f"no room for {file}: it takes {need / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free "
            "on its disk: name a file on another one"
        )


def _write_index(out: h5py.File, root: Path, index: Index) -> dict[str, str]:
    """Gives the SHA-256 of each file of the index."""
    out.attrs["format"] = FORMAT
    out.attrs["dataset"], out.attrs["note"] = index.dataset, index.note
    out.attrs["index_digest"] = index.digest()
    text = h5py.string_dtype()
    out.create_dataset("labels", data=list(index.labels), dtype=text)
    proofs = {}
    for path in sorted(index_folder(root).iterdir()):
        proofs[path.name] = _write(out, f"index/{path.name}", np.fromfile(path, np.uint8))
    persons, pictures = out.create_group("persons"), out.create_group("pictures")
    for name in ("id", "split", "status"):
        persons.create_dataset(name, data=index.persons[name].to_pylist(), dtype=text)
    persons["picture"], persons["box"] = index.picture_rows, index.boxes
    persons["labels"] = index.targets
    for name in ("id", "path", "split", "status"):
        pictures.create_dataset(name, data=index.pictures[name].to_pylist(), dtype=text)
    for name in ("width", "height"):
        pictures[name] = index.pictures[name].to_numpy()
    return proofs


def _write_view(out: h5py.Group, view: StoredView) -> dict[str, Any]:
    """Gives what `about` says of the view."""
    out.attrs["key"], out.attrs["rows"] = view.key, view.space
    proofs = {name: _write(out, name, view.read(name)) for name in view.spec.arrays}
    return {
        "record": view.layout.record(),
        "done": np.flatnonzero(view.done).tolist(),
        "reasons": view.reasons,
        "arrays": {**proofs, "status": _write(out, "status", view.status)},
    }


def _write(out: h5py.Group, name: str, values: np.ndarray) -> str:
    out[name] = values
    return hashlib.sha256(values.tobytes()).hexdigest()


def import_hdf5(cache: Cache, file: Path, progress: Progress = silent) -> dict[str, Any]:
    """Bring an exported file into the cache at `cache.root`: bit for bit where there is none yet,
    else as `cache.share.merge` does.

    Returns what the merge did. Raises CacheError for a file that is damaged, of another program or
    of a newer format; nothing is left of it then, nor of a folder that was not there before.
    """
    file, root = Path(file), cache.root
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is not there"
        raise CacheError(f"{file} {what}: name a file that `emocache cache export` wrote")
    made = root / ".import.partial"
    new = [folder for folder in (root, *root.parents) if not folder.exists()]
    with only_writer(root, "cache import"), _gone_with_failure(new), writing_to(root):
        recover_index(root)
        shutil.rmtree(made, ignore_errors=True)
        try:
            with h5py.File(file) as source:
                _check_format(source, file)
                rows = _read(source, file, made, progress)
        except BaseException as error:  # a stop, too
            shutil.rmtree(made, ignore_errors=True)
            damaged = isinstance(error, OSError | KeyError | ValueError | TypeError)
            if not damaged or isinstance(error, CacheError):
                raise
            raise CacheError(f"{file} is damaged, or no HDF5 file: {error}") from error
        if not index_folder(root).exists() and not view_names(root):
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


@contextlib.contextmanager
def _gone_with_failure(new: Sequence[Path]) -> Iterator[None]:
    """Take the folders away that were made for a cache, the inmost first, where it did not come to
    be; for the one who holds its lock."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # somebody else put something there
            if new and os.listdir(new[0]) == [".lock"]:
                (new[0] / ".lock").unlink()
                for folder in new:
                    folder.rmdir()
        raise


def _check_format(source: h5py.File, file: Path) -> None:
    if "format" not in source.attrs or "about" not in source:
        raise CacheError(f"{file} was not written by `emocache cache export`")
    if (there := int(source.attrs["format"])) != FORMAT:
        raise FormatError.of(file, there, FORMAT, "export it again")


def _read(source: h5py.File, file: Path, root: Path, progress: Progress) -> dict[str, int]:
    about = of_sealed_text(source["about"][:].tobytes())
    if about is None:
        raise CacheError(f"{file} is damaged, /about does not have its hash: export it again")
    for name, proof in about["index"].items():
        data = _proven(source["index"][name], proof, file).tobytes()
        with writing_to(index_folder(root)):
            write_atomic(index_folder(root) / name, data)
    index = Index.read(root)
    rows = {}
    for number, (name, facts) in enumerate(about["views"].items(), 1):
        layout = ViewLayout.of(facts["record"], Path(f"{file}:/views/{name}"))
        writer = ViewWriter(
            root,
            layout.spec,
            index.ids(layout.spec.space),
            layout.shard_rows,
            layout.compression,
        )
        arrays = {
            array: _proven(source[f"views/{name}/{array}"], proof, file)
            for array, proof in facts["arrays"].items()
        }
        status = arrays.pop("status")
        reasons = {int(row): why for row, why in facts["reasons"].items()}
        writer.put_all({row: row for row in facts["done"]}, arrays, status, reasons)
        rows[name] = len(facts["done"])
        progress(number, len(about["views"]))
    write_manifest(root, index.digest())
    return rows


def _proven(values: h5py.Dataset, proof: str, file: Path) -> np.ndarray:
    array = values[:]
    if hashlib.sha256(array.tobytes()).hexdigest() != proof:
        raise CacheError(
            f"{file} is damaged, {values.name} does not have its SHA-256: export it again"
        )
    return array
