"""Arrays out of MATLAB's files, of version 5 to 7 as of 7.3, which is HDF5."""

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from cache.errors import DataError, first_line

Source = bytes | Path

HDF5 = b"\x89HDF\r\n\x1a\n"
BEGINS = (0, 512)  # where it stands: MATLAB writes 512 bytes of its own before it


def shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """The variables of a file and their shapes, as MATLAB has them; no values are read. Raises
    DataError for what is no such file."""
    from scipy.io import whosmat

    with _opened(source) as (file, hdf5):
        if hdf5 is None:
            return {name: tuple(shape) for name, shape, _ in whosmat(file)}
        return {name: one.shape[::-1] for name, one in hdf5.items() if hasattr(one, "shape")}


def arrays(source: Source, names: Collection[str]) -> dict[str, np.ndarray]:
    """Those of the variables `names` that a file has, in two dimensions or more, as MATLAB has
    them; they may be complex. Raises DataError for one that is not of numbers, and for what is no
    such file."""
    from scipy.io import loadmat
    from scipy.sparse import issparse

    with _opened(source) as (file, hdf5):
        held: dict[str, Any]
        if hdf5 is None:
            every = loadmat(file, variable_names=list(names))
            held = {name: every[name] for name in names if name in every}
        else:  # which is in C's order
            held = {n: hdf5[n][()].T for n in names if n in hdf5 and hasattr(hdf5[n], "shape")}
    found = {}
    for name, value in held.items():
        found[name] = np.asarray(value.toarray() if issparse(value) else value)
        if found[name].dtype.names == ("real", "imag"):  # as 7.3 has complex numbers
            found[name] = found[name]["real"] + 1j * found[name]["imag"]
        if found[name].dtype.kind not in "fiubc":
            raise DataError(f"{name} is of {found[name].dtype}, not of numbers")
    return found


@contextmanager
def _opened(source: Source) -> Iterator[tuple[IO[bytes], Any]]:
    """The file, and what h5py makes of it where it is HDF5. Whatever fails becomes DataError:
    damaged bytes make the libraries raise anything."""
    import h5py

    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            begin = file.read(BEGINS[-1] + len(HDF5))
            file.seek(0)
            if any(begin[at : at + len(HDF5)] == HDF5 for at in BEGINS):
                with h5py.File(file, "r") as hdf5:
                    yield file, hdf5
            else:
                yield file, None
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"no MATLAB file that can be read ({first_line(error)})") from error
