"""Pickles of arrays, read without pickle: what Python's own gives, and nothing that could run.

Oracle: Python's pickle, of pickles that were made here.
"""

import copyreg
import os
import pickle
import struct
import subprocess
import tracemalloc
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cache.errors import DataError
from extract.signals.unpickle import DEPTH, load_arrays
from tests.extract.signals.made_wesad import oracle, python2_pickle

SMALL = {
    "signal": {"chest": {"ACC": np.arange(6.0).reshape(2, 3), "ECG": np.ones((2, 1), np.float32)}},
    "label": np.array([0, 1, 2, 255], np.int32),
    "subject": "S2",
}
EVERY_KIND = {
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i4"),
    "scalar": np.float64(3.5),
    "byte": np.int8(-3),
    "text": np.array(["a", "bc"]),
    "bytes": np.array([b"x", b"\xff"]),
    "truth": np.array([[True], [False]]),
    "complex": np.array([1 + 2j]),
    "half": np.array([1.5], np.float16),
    "empty": np.zeros((0, 3)),
    "no dimension": np.array(5),
    "slice": np.arange(10)[::3],
    "plain": [1, -1, 2.5, 1e300, None, True, False, "é", "", b"x\xff", b"", 2**70, -(2**70), 300],
    "nested": ((), (1,), (1, (2, [3, {"a": ()}])), [[]], {}),
    1: {2.5: "number", None: "none", b"k": "bytes"},
}


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, all the way down."""
    if isinstance(a, np.ndarray):
        a, b = (one.astype(one.dtype.newbyteorder("=")) for one in (a, b))  # as pickle turns some
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (a != a and b != b)


# What is read


@pytest.mark.parametrize("protocol", range(6))
def test_every_kind_of_value_is_read_as_pickle_reads_it(protocol):
    data = pickle.dumps(EVERY_KIND, protocol)
    assert same(load_arrays(data), pickle.loads(data))


def test_names_of_older_numpy_are_known():
    data = pickle.dumps({"a": np.arange(4.0), "b": np.float32(2)}, 2)
    older = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert older != data
    assert same(load_arrays(older), pickle.loads(data))


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_python_2_are_read(protocol):
    data = python2_pickle(SMALL, protocol)
    assert same(load_arrays(data), oracle(data))
    assert same(load_arrays(data), SMALL)


@pytest.mark.parametrize("protocol", [0, 2])
def test_every_byte_of_a_python_2_string_survives(protocol):
    array = np.frombuffer(bytes(range(256)) * 8, np.float64)
    data = python2_pickle({"every byte": array, "quotes": "it's \"\\\n\r\t\x00\xff"}, protocol)
    assert same(load_arrays(data), oracle(data))


def test_what_stands_twice_is_held_once():
    array = np.arange(3.0)
    found = load_arrays(pickle.dumps({"a": array, "b": [array, array]}, 5))
    assert found["a"] is found["b"][0] is found["b"][1]


def test_arrays_cannot_be_written_to():
    found = load_arrays(pickle.dumps(np.arange(3), 2))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | hnp.arrays(st.sampled_from(["<f8", ">i2", "|u1", "?", "<c8", "<U3"]), hnp.array_shapes()),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_whatever_is_made_of_arrays_and_plain_values_comes_back(value, protocol):
    data = pickle.dumps(value, protocol)
    assert same(load_arrays(data), pickle.loads(data))


# What is refused


class Calls:
    """Pickles as a call."""

    def __init__(self, what, *arguments):
        self.reduced = what, arguments

    def __reduce__(self):
        return self.reduced


def touching(path: Path) -> dict[str, tuple[Any, str]]:
    """Calls that make the file, and the name by which they are refused."""
    code = f"open({str(path)!r}, 'w').close()"
    return {
        "os.system": (Calls(os.system, f"touch {path}"), f"{os.system.__module__}.system"),
        "builtins.eval": (Calls(eval, code), "eval"),
        "builtins.exec": (Calls(exec, code), "exec"),
        "builtins.open": (Calls(open, str(path), "w"), "open"),
        "subprocess": (
            Calls(subprocess.call, ["touch", str(path)]),
            "call",
        ),  # protocol 2 calls its module `commands`
        "partial": (Calls(partial, eval, code), "functools.partial"),
        "memmap": (Calls(np.memmap, str(path), "u1", "w+", 0, (1,)), "numpy.memmap"),
        "getattr": (Calls(Calls(getattr, os, "system"), f"touch {path}"), "getattr"),
        "copyreg": (Calls(copyreg._reconstructor, Path, object, None), "_reconstructor"),
        "import": (Calls(__import__, "antigravity"), "__import__"),
        "savetxt": (Calls(np.savetxt, str(path), [1.0]), "numpy.savetxt"),
    }


CALLS = tuple(touching(Path("x")))
RUN = ("os.system", "builtins.eval", "builtins.exec", "subprocess", "memmap", "savetxt")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_by_name_and_not_made(tmp_path, name, protocol):
    canary = tmp_path / "ran"
    try:
        call, said = touching(canary)[name]
        data = pickle.dumps({"signal": np.arange(3), "x": call}, protocol)
    except (TypeError, pickle.PicklingError):  # modules cannot be pickled
        data, said = b"cbuiltins\ngetattr\n(cos\nsystem\nVx\ntR.", "getattr"
    with pytest.raises(DataError, match=f"the pickle asks for .*{said}: it is not opened"):
        load_arrays(data)
    assert not canary.exists()


@pytest.mark.parametrize("name", RUN)
def test_the_calls_would_run(tmp_path, name):
    """The test above could fail: pickle itself runs them."""
    canary = tmp_path / "ran"
    pickle.loads(pickle.dumps(touching(canary)[name][0]))
    assert canary.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"Pabc\n.",  # a persistent id
        b"\x80\x02K\x01Q.",
        b"\x80\x02\x82\x01.",  # the registry of extensions
        b"\x80\x02\x83\x01\x00.",
        b"\x80\x02\x84\x01\x00\x00\x00.",
        b"(ios\nsystem\n.",  # INST
        b"(cos\nsystem\nVx\no.",  # OBJ
        b"\x80\x02cnumpy\ndtype\n)\x81.",  # NEWOBJ
        b"\x80\x05\x97.",  # a buffer from elsewhere
        b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",  # ndarray itself
        b"\x80\x02cnumpy\nndarray\n.",
        b"\x80\x02cnumpy\ndtype\nU\x02f8\x85R.",
        b"\x80\x02cnumpy\ndtype\nU\x02f8\x85R\x85.",  # a tuple of it
        b"\x80\x02]cnumpy\nndarray\na.",
        b"\x80\x02}U\x01acnumpy\nndarray\ns.",
        b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",  # 2 GB
        b"\x80\x02c_codecs\nencode\nU\x01aU\x05rot13\x86R.",
        b"\x80\x02cnumpy.core\nmultiarray._reconstruct\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x18core.multiarray.fromfile\x93.",
        b"\x80\x04K\x01K\x02\x93.",  # a name that is none
        b"\x80\x02}N(U\x01xK\x01tb.",  # the state of a dict
        b"\x80\x02K\x01K\x02K\x03\x85R.",
    ],
)
def test_other_ways_to_something_that_runs_are_refused(data, monkeypatch):
    monkeypatch.setattr(copyreg, "_inverted_registry", {1: ("os", "system")})
    with pytest.raises(DataError):
        load_arrays(data)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(
    "value",
    [
        np.array([None, "x"], object),
        np.array([(1, 2.0)], [("a", int), ("b", float)]),
        np.zeros(2, "2f8,i4"),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([1], "m8[s]"),
        np.dtype("f8"),
        np.ma.array([1, 2], mask=[0, 1]),
        np.random.default_rng(0),
        OrderedDict(a=1),
        {1, 2},
        1j,
        Path("x"),
        int,
        print,
        {(1, 2): 3},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_array_or_plain_value_is_refused(value, protocol):
    with pytest.raises(DataError):
        load_arrays(pickle.dumps({"x": [value]}, protocol))


def test_objects_hidden_behind_a_simple_type_are_refused():
    """The state of the dtype is what makes it one of records."""
    state = b"(K\x03U\x01|NU\x01a\x85}K\xffK\xffK\x00tb"
    with pytest.raises(DataError, match="records"):
        load_arrays(b"\x80\x02cnumpy\ndtype\nU\x02f8\x85R" + state + b".")


# Damage and bombs


def test_no_beginning_of_a_pickle_is_one():
    for data in (python2_pickle(SMALL, 2), python2_pickle(SMALL, 0), pickle.dumps(SMALL, 5)):
        for length in range(len(data)):
            with pytest.raises(DataError):
                load_arrays(data[:length])


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n"
FLOAT = b"cnumpy\ndtype\n(U\x02f8I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntb"


def announced(shape: bytes, data: bytes = b"U\x08" + bytes(8)) -> bytes:
    return b"\x80\x02" + ARRAY + b"(" + shape + b"t" + FLOAT + b"I00\n" + data + b"tb."


def test_the_array_of_the_next_test_is_one():
    assert same(load_arrays(announced(b"I1\n")), np.zeros(1))


def doubled(times: int) -> list:
    """Short in a pickle, endless to whoever walks through it."""
    value: list = []
    for _ in range(times):
        value = [value, value]
    return value


BOMBS = {
    "2^40 bytes to come": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "2^63 bytes to come": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 63) + b"x.",
    "a frame of 2^62": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b".",
    "a text of -1": b"\x80\x02T" + struct.pack("<i", -1) + b"x.",
    "4 GB of text": b"\x80\x02X" + struct.pack("<I", (1 << 32) - 1) + b"x.",
    "a number of 2 GB": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    "10^6 digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "kept at 2^32": b"\x80\x02]r\xff\xff\xff\xff",
    "lists in lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "a key of tuples": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
    "dicts in dicts": b"\x80\x02}" + b"U\x01a}" * 100_000 + b"s" * 100_000 + b".",
    "marks": b"(" * 1_000_000 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a list in its tuple": b"\x80\x02]q\x00h\x00\x85a.",
    "a dict in itself": b"\x80\x02}q\x00U\x01ah\x00s.",
    "2^60 lists": pickle.dumps(doubled(60), 2),
    "an array of 2^80": announced(b"I1208925819614629174706176\n"),
    "an array of 10^12": announced(b"I1000000000000\n"),
    "an array of -1": announced(b"I-1\n"),
    "an array of True": announced(b"I01\n"),
    "an array of nothing in 2^62": announced(b"I0\nL4611686018427387904L\n", b"U\x00"),
    "an array of lists": announced(b"I1\n", b"]K\x01a"),
    "an array of other text": announced(b"I1\n", b"X\x08\x00\x00\x00" + "ÿĀÿÿ".encode()),
    "an array without contents": b"\x80\x02" + ARRAY[:-4] + b".",
    "an array filled twice": announced(b"I1\n")[:-1] + b"(I1\n(I1\nt" + FLOAT + b"I00\nU\x00tb.",
    "33 dimensions": announced(b"I1\n" * 33),
    "two values": b"\x80\x02K\x01K\x02.",
    "no value": b"\x80\x02.",
    "a value not kept": b"\x80\x02h\x05.",
    "a list without end": b"\x80\x02](K\x01K\x02.",
    "the end of no list": b"\x80\x02K\x01e.",
    "half an item": b"\x80\x02}(K\x01u.",
    "an escape that is none": b"S'\\q\\777'\n.",
    "no quotes": b"Sabc\n.",
    "a name without a module": b"cos\n",
    "nothing": b"",
    "text": b"# ORDER;Base;TSST",
    "zeros": bytes(1000),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_the_price_of_its_bytes(name):
    data = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            load_arrays(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000 + 100 * len(data)


def test_containers_may_lie_as_deep_as_is_said():
    value: Any = 1
    for _ in range(DEPTH):
        value = [value]
    assert load_arrays(pickle.dumps(value, 4)) == value
    with pytest.raises(DataError, match=f"more than {DEPTH} deep"):
        load_arrays(pickle.dumps([value], 4))


PICKLES = [
    python2_pickle(SMALL, 2), python2_pickle(SMALL, 0), pickle.dumps(SMALL, 2),
    pickle.dumps(SMALL, 4), pickle.dumps(EVERY_KIND, 5), pickle.dumps(EVERY_KIND, 0),
    pickle.dumps(touching(Path("never"))["builtins.eval"][0], 2),
]  # fmt: skip


def reads_or_refuses(data: bytes) -> None:
    with suppress(DataError):
        load_arrays(data)


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_a_damaged_pickle_is_read_or_refused(data):
    """Any other exception fails."""
    found = bytearray(data.draw(st.sampled_from(PICKLES)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(found)))
        length = data.draw(st.integers(0, 8))
        found[at : at + length] = data.draw(
            st.binary(max_size=8) | st.sampled_from([found[at : at + 40], b"(", b"t", b"R", b"b"])
        )
    reads_or_refuses(bytes(found))


CODES = st.sampled_from(
    [bytes([n]) for n in b"()]}.012NIKJTUXcRbtsuaeqhrj\x85\x86\x87\x88\x8c\x93\x94"]
)


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(CODES | st.sampled_from([ARRAY, FLOAT, b"I1\n", b"U\x01a"]), max_size=40))
def test_any_steps_at_all_are_read_or_refused(steps):
    reads_or_refuses(b"\x80\x02" + b"".join(steps) + b".")
