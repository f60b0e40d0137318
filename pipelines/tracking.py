"""The views of a cache in the files of DVC, which want each output by name."""

import re
from collections.abc import Sequence
from pathlib import Path

from cache.errors import DataError
from cache.files import write_atomic

FILES = (Path("dvc.yaml"), Path("pipelines/studies/dvc.yaml"))
_VIEWS = re.compile(
    r"(?m)^(?P<before> *- \$\{cache\.root\}/)\w+\.zarr(?P<after>[^\n]*)\n"
    r"(?:^ *- \$\{cache\.root\}/\w+\.zarr[^\n]*\n)*"
)


def track(views: Sequence[str], files: Sequence[Path] = FILES) -> list[Path]:
    """Name these views wherever the files name views; those that were changed. Lines that are
    comments stay. Raises DataError for a file that is absent or names no view."""
    changed = []
    for file in files:
        if not file.is_file():
            raise DataError(f"no {file} here: work in the project's folder")
        text = file.read_text(encoding="utf-8")

        def of_each(found: re.Match[str]) -> str:
            lines = [f"{found['before']}{name}.zarr{found['after']}\n" for name in views]
            return "".join(lines)

        new, count = _VIEWS.subn(of_each, text)
        if not count:
            raise DataError(f"{file} names no view, as ${{cache.root}}/body.zarr: add one")
        if new != text:
            write_atomic(file, new.encode())
            changed.append(file)
    return changed
