"""The file of word vectors: read by `extract.backbones.words`, written from text and packages.

A .safetensors file with `words`, uint8, UTF-8 with a line for each, and `vectors`, float32 (N, D).
"""

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from cache.errors import WeightsError


def write_vectors(words: list[str], vectors: np.ndarray, to: Path) -> None:
    """Raises ValueError unless vectors are (N, D) for N words."""
    from safetensors.numpy import save_file

    if vectors.ndim != 2 or len(words) != len(vectors):
        raise ValueError(f"{len(words)} words for vectors of shape {vectors.shape}")
    text = np.frombuffer("\n".join(words).encode(), np.uint8)
    save_file({"vectors": np.ascontiguousarray(vectors, np.float32), "words": text}, to)


def read_vectors(path: Path) -> tuple[list[str], Float32[np.ndarray, "N D"]]:
    """The words of the rows, and the rows. Raises ValueError, KeyError or what safetensors raises
    for a file of other tensors."""
    from safetensors.numpy import load_file

    found = load_file(path)
    words = found["words"].tobytes().decode().split("\n")
    vectors = found["vectors"]
    if vectors.ndim != 2 or len(vectors) != len(words):
        raise ValueError(f"{len(words)} words for vectors {vectors.shape}")
    return words, vectors


def vectors_from_text(path: Path, to: Path) -> None:
    """Write what is in GloVe's text format: a word and its D numbers a line, parted by spaces;
    perhaps below a line with N and D, as word2vec and fastText write.

    Raises WeightsError naming the line that is otherwise.
    """
    words: list[str] = []
    numbers = array("f")
    said, width = None, 0
    for number, line in enumerate(_lines(path), 1):
        if number == 1 and _is_header(line):
            said, width = (int(field) for field in line.split(" "))
            continue
        if not line:
            continue
        width = width or line.count(" ")
        word, *fields = line.rsplit(" ", width)  # some vocabularies have words with spaces
        try:
            numbers.extend(map(float, fields))
        except ValueError:
            fields = []
        if not width or len(fields) != width:
            raise WeightsError(
                f"{path}, line {number}: not a word and {width or 'its'} numbers; see "
                "weights.folder and views.words.network"
            )
        words.append(word)
    if not words or said not in (None, len(words)):
        more = "" if said is None else f", its first line says {said}"
        raise WeightsError(f"{path} has {len(words)} words{more}; see weights.folder")
    vectors = np.frombuffer(numbers, np.float32).reshape(len(words), width)
    if not np.isfinite(vectors).all():
        bad = words[int(np.argmin(np.isfinite(vectors).all(1)))]
        raise WeightsError(
            f"{path}: a number of the word {bad!r} is not finite; see weights.folder"
        )
    write_vectors(words, vectors, to)


def begins_with_vector(path: Path) -> bool:
    """Whether a text file is one of word vectors, by its first line."""
    line = next(iter(_lines(path)), "")
    try:
        return bool([float(field) for field in line.split(" ")[1:]])
    except ValueError:
        return False


def _lines(path: Path) -> Iterator[str]:
    # By newline alone: vocabularies have words with other marks that Python ends a line at.
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        yield from (line.rstrip(" \r\n") for line in file)


def _is_header(line: str) -> bool:
    fields = line.split(" ")
    return len(fields) == 2 and all(field.isdecimal() for field in fields)
