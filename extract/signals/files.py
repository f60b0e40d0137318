"""Files of recordings, read and hashed once for all of their stretches."""

import hashlib
import threading
from pathlib import Path

from extract import images
from extract.datasets import get_dataset
from extract.images import PictureError
from extract.signals.recording import Recording, identity, parts_of

LIMIT = 1 << 33  # bytes of a file: the largest subject of WESAD has one tenth of it


class Files:
    """Stretches of the files below `root`, through the reader `decoder`. The last file is kept: its
    stretches are asked for one after the other."""

    def __init__(self, root: Path, decoder: str):
        self.root, self.decode = root, get_dataset(decoder).decode
        self._lock = threading.Lock()
        self._last: tuple[str, bytes, str] | None = None

    def read(self, path: str, known: str) -> Recording:
        """The stretch `path` with the id `known`. A file that is gone, or changed since `prepare`,
        is `missing`, as pictures are: only bytes that the index knows can fail for good."""
        file, stretch = parts_of(path)
        data, digest = self._file(file)
        if identity(digest, stretch) != known:
            raise PictureError("the file has changed since `emocache prepare`", "missing")
        try:
            return Recording(self.decode(data, stretch), known)
        except PictureError:
            raise
        except MemoryError as error:
            raise PictureError("no memory to decode the recording", "missing") from error

    def _file(self, file: str) -> tuple[bytes, str]:
        with self._lock:
            if self._last is None or self._last[0] != file:
                self._last = None  # before the next is read: they may be large
                try:
                    data = images.load(self.root / file, LIMIT // 8)
                except PictureError as error:
                    raise PictureError(error.reason, "missing") from None
                self._last = file, data, hashlib.sha256(data).hexdigest()
            return self._last[1:]
