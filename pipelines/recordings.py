"""What rows of an index are called, and where they come from: of recordings there is no picture."""

from dataclasses import dataclass

from cache.index import Index


@dataclass(frozen=True)
class Terms:
    """What pages call a row of the two tables of an index."""

    one: str
    many: str
    source: str
    sources: str


PEOPLE = Terms("person", "persons", "picture", "pictures")
WINDOWS = Terms("window", "windows", "stretch", "stretches")


def terms(recordings: bool) -> Terms:
    """Of recordings, or of pictures."""
    return WINDOWS if recordings else PEOPLE


def terms_of(index: Index) -> Terms:
    """Of what this index holds."""
    return terms(bool(index.modalities))


def place_of(index: Index, row: int) -> str:
    """Where the person of this row comes from: the path of the picture. Of recordings "window 30 to
    60 s of S2/S2.pkl#1-baseline", or the path alone where it names a single row of features."""
    picture = index.pictures.slice(int(index.picture_rows[row]), 1).to_pylist()[0]
    start, _, end, _ = index.boxes[row].tolist()
    if not index.modalities or ((start, end) == (0, 1) and picture["width"] <= 1):
        return picture["path"]
    return f"window {start:g} to {end:g} s of {picture['path']}"
