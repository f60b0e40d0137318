"""The content key of a view: the hash of everything that decides its numbers.

A key is made from its `parts`, a nested dictionary of plain values: network, SHA-256 of its
weights, code version of the view, decoder and resize rule with library versions, sizes, dtype.
Two caches hold the same numbers when their keys are equal; when they differ, the parts say why.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(parts: Mapping[str, Any]) -> str:
    """One spelling for equal parts: sorted keys, no spaces, no NaN."""
    return json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of the parts, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a hash of itself, so that a flipped bit in it is noticed."""
    return {**record, "seal": key_of(record)}


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether `record` is as `sealed` made it."""
    return record.get("seal") == key_of({k: v for k, v in record.items() if k != "seal"})


def sealed_text(record: Mapping[str, Any]) -> bytes:
    """JSON that ends with the hash of the bytes before, so that any change in it is noticed."""
    text = json.dumps(record, separators=(",", ":"))[:-1].encode()
    return text + _seal_of(text)


def of_sealed_text(data: bytes) -> dict[str, Any] | None:
    """The record that `sealed_text` wrote; None where a byte of it is another."""
    text = data[:-SEAL]
    return json.loads(text.decode() + "}") if data[-SEAL:] == _seal_of(text) else None


def _seal_of(text: bytes) -> bytes:
    return b',"seal":"%s"}' % hashlib.sha256(text).hexdigest().encode()


SEAL = len(_seal_of(b""))


def flatten(parts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"resize": {"size": 128}}` as `{"resize.size": 128}`."""
    flat: dict[str, Any] = {}
    for name, value in parts.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Every part in which two keys differ, as `name: ours -> theirs`."""
    a, b = flatten(ours), flatten(theirs)
    return [
        f"{name}: {a.get(name, 'absent')} -> {b.get(name, 'absent')}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name) or (name in a) != (name in b)
    ]


def in_short(ours: Mapping[str, Any], theirs: Mapping[str, Any], most: int = 3) -> str:
    """The differences that a person would name: settings where any differ, else the first few."""
    found = differences(ours, theirs)
    settings = [one for one in found if one.startswith("settings.")]
    shown = (settings or found)[:most]
    rest = len(settings or found) - len(shown)
    return "; ".join(shown) + (f"; and {rest} more" if rest else "")
