"""The refusals of emocache: each says what was found, where, and the setting that mends it.

The command line turns any of them into one sentence and exit code 1; every other exception is a
bug and shows its traceback.
"""

import difflib
from collections.abc import Collection


class EmocacheError(Exception):
    """A refusal with a reason a person can act on."""


class SettingsError(EmocacheError, ValueError):
    """A setting is unknown, misspelt or out of range."""


class DataError(EmocacheError, ValueError):
    """The data set is missing, empty or not in the form its reader expects."""


class WeightsError(EmocacheError, LookupError):
    """No allowed source has the weights of a network, or their hash is wrong."""


class DeviceMemoryError(EmocacheError, MemoryError):
    """The memory of a device holds not even one input of a network."""


class ClusterError(EmocacheError, ConnectionError):
    """Other processes could not compute what was asked of them."""


class CacheError(EmocacheError, OSError):
    """The cache on disk is missing, damaged or of another format."""


class FormatError(CacheError):
    """What lies on the disk is of another version of emocache."""

    @classmethod
    def of(cls, where: object, found: object, known: int, older: str) -> "FormatError":
        """older: what to do about one that is older than `known`."""
        newer = isinstance(found, int) and found > known
        return cls(
            f"{where} has format {found}, this emocache reads {known}: "
            f"{'upgrade emocache' if newer else older}"
        )


class KeyMismatch(CacheError):
    """Two things that must share one key do not; both are named."""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a refusal of `name`: the nearest known one, and all of them where they are few."""
    near = difflib.get_close_matches(name, known, 1, cutoff=0)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return hint + (f" Known: {', '.join(sorted(known))}" if known and len(known) <= FEW else "")


def in_few(names: Collection[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    some = ", ".join(list(names)[:most])
    return some + (f" and {len(names) - most} more" if len(names) > most else "")


FEW = 12  # names that a refusal lists


def first_line(error: Exception) -> str:
    """The line of an error that says most, at most 200 characters, for a sentence of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # torch puts a heading first
        lines = lines[1:]
    return lines[0][:200] if lines else type(error).__name__
