"""A pickle of NumPy arrays is read without pickle: nothing that it names is ever called.

The file is a program for a small machine. `pickletools` knows its steps and reads the argument of
each, and the machine below obeys those that make plain values and arrays. A name in the file
(`numpy.core.multiarray._reconstruct`) stands for one of a few makers below, which look at what they
are given; any other name is refused before anything happens. So are names that pickles find in
other ways: persistent ids, the registry of extensions, classes.
"""

import codecs
import io
import math
import pickletools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cache.errors import DataError, first_line

DEPTH = 64  # how deep containers may lie in each other
VALUES = 50_000_000  # how many values there may be, shared ones counted wherever they occur

ORDERS: tuple[Literal["<", ">", "|", "="], ...] = ("<", ">", "|", "=")
# b: bool; i, u, f, c: numbers; S, U: text. Objects and records are none of them.
SIMPLE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|c(?:8|16)|[SU]\d{1,6})")


def load_arrays(data: bytes) -> Any:
    """What a pickle of protocol 0 to 5 holds, where that is NumPy arrays and numbers, dicts, lists,
    tuples, text, bytes, numbers, truth values and None; those of Python 2 as well, with their
    strings as latin1, as the arrays in them are.

    Arrays are read-only. Keys of dicts are text, bytes, numbers, truth values or None; arrays of
    objects and of records are refused. Raises DataError, and nothing else, for other contents (it
    names what the pickle asks for), for bytes that are no pickle or are truncated, for containers
    that hold themselves, lie deeper than `DEPTH`, or expand to more than `VALUES` values. Memory
    stays in proportion to the length of `data`.
    """
    try:
        return _Machine().run(data)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError("there is no memory for what the pickle holds") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, Warning) as error:
        raise DataError(f"it is no pickle that can be read: {first_line(error)}") from error


class _Mark:
    """Where the values of a container begin."""


@dataclass(eq=False)
class _Type:
    """A dtype as the pickle describes it, in two steps."""

    dtype: np.dtype[Any]


@dataclass(eq=False)
class _Array:
    """An array that the pickle has announced; its contents follow."""

    array: np.ndarray | None = None


@dataclass(eq=False)
class _Name:
    """A name that the pickle may ask for, and what it stands for; None: nothing is called."""

    name: str
    make: Callable[..., Any] | None


MARK = _Mark()


class _Machine:
    """One pickle's stack and memo.

    A container is closed once it lies in another one: it cannot change any more, so none can hold
    itself, and how deep and how large each is is known then. Tuples that hold dtypes or names are
    tools, of arrays to be made, and cannot be part of what is returned.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.made: list[Any] = []  # keeps containers alive, so that no two have one id
        self.extent: dict[int, tuple[int, int]] = {}  # of each container: depth, values
        self.closed: set[int] = set()
        self.tools: set[int] = set()

    def run(self, data: bytes) -> Any:
        for code, argument in _steps(io.BytesIO(data)):
            step = STEPS.get(code.name)
            if step is None:
                raise DataError(f"the pickle has {code.name}, which no arrays need: it is refused")
            step(self, argument)
        if len(self.stack) != 1:
            raise DataError(f"the pickle ends with {len(self.stack)} values, not one")
        return self.contents(self.stack[0])

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise DataError("the pickle takes a value where there is none")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """The values above the last mark, taken away with it."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is MARK:
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        raise DataError("the pickle ends a container that it has not begun")

    def contents(self, value: Any) -> Any:
        """A value as it may stand in what is returned."""
        if isinstance(value, _Array):
            if value.array is None:
                raise DataError("the pickle has an array without contents")
            return value.array
        if value is MARK or isinstance(value, _Type | _Name) or id(value) in self.tools:
            raise DataError("the pickle holds a type or a name, not values")
        return value

    def begin(self, container: Any) -> None:
        """A new container, empty so far."""
        self.made.append(container)
        self.extent[id(container)] = (1, 1)
        self.stack.append(container)

    def grow(self, container: Any, values: list[Any]) -> None:
        """Note that these values come into a container."""
        if id(container) in self.closed and values:
            raise DataError("the pickle changes a container that another one holds already")
        depth, count = self.extent[id(container)]
        for value in values:
            inner = self.extent.get(id(value), (0, 1))
            if id(value) in self.extent:
                if value is container:
                    raise DataError("the pickle has a container that holds itself")
                self.closed.add(id(value))
            depth, count = max(depth, inner[0] + 1), count + inner[1]
        if depth > DEPTH:
            raise DataError(f"the pickle's containers lie more than {DEPTH} deep in each other")
        if count > VALUES:
            raise DataError(f"the pickle expands to more than {VALUES:,} values")
        self.extent[id(container)] = (depth, count)

    def tuple_of(self, values: list[Any]) -> None:
        """Arrays that are there already stand for themselves."""
        kept = [v.array if isinstance(v, _Array) and v.array is not None else v for v in values]
        if any(value is MARK for value in kept):
            raise DataError("the pickle has a mark where a value should be")
        new = tuple(kept)
        self.begin(new)
        self.grow(new, kept)
        if any(isinstance(v, _Type | _Name | _Array) or id(v) in self.tools for v in kept):
            self.tools.add(id(new))

    def extend(self, values: list[Any]) -> None:
        into = self.stack[-1] if self.stack else None
        if not isinstance(into, list):
            raise DataError("the pickle appends to what is no list")
        values = [self.contents(value) for value in values]
        self.grow(into, values)
        into.extend(values)

    def set_items(self, values: list[Any]) -> None:
        into = self.stack[-1] if self.stack else None
        if not isinstance(into, dict) or len(values) % 2:
            raise DataError("the pickle sets items of what is no dict")
        values = [self.contents(value) for value in values]
        self.grow(into, values)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | bytes | int | float | type(None)):
                raise DataError(f"the pickle has a {type(key).__name__} as key of a dict")
            into[key] = value

    def put(self, at: int) -> None:
        if not self.stack or self.stack[-1] is MARK:
            raise DataError("the pickle keeps a value where there is none")
        self.memo[at] = self.stack[-1]

    def get(self, at: int) -> None:
        if at not in self.memo:
            raise DataError(f"the pickle takes up value {at}, which it has not kept")
        self.stack.append(self.memo[at])

    def name(self, module: Any, name: Any) -> None:
        found = NAMES.get((module, name))
        if found is None:
            raise DataError(f"the pickle asks for {module}.{name}: it is not opened")
        self.stack.append(found)

    def call(self) -> None:
        arguments, what = self.pop(), self.pop()
        if not isinstance(what, _Name) or what.make is None or not isinstance(arguments, tuple):
            raise DataError("the pickle calls what is not to be called: it is not opened")
        try:
            self.stack.append(what.make(*arguments))
        except (TypeError, ValueError) as error:
            raise DataError(f"the pickle calls {what.name} in a way of its own") from error

    def build(self) -> None:
        state, what = self.pop(), self.stack[-1] if self.stack else None
        if not isinstance(state, tuple):
            raise DataError("the pickle describes an array by what is no tuple")
        if isinstance(what, _Type):
            what.dtype = _described(what.dtype, state)
        elif isinstance(what, _Array) and what.array is None and len(state) == 5:
            what.array = _filled(*state[1:])
        else:
            raise DataError("the pickle fills in what is no array: it is not opened")


def _steps(stream: io.BytesIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Every step with its argument, up to the end that the pickle gives itself."""
    name = ""
    while name != "STOP":
        byte = stream.read(1)
        code = CODES.get(byte.decode("latin1"))
        if code is None:
            raise DataError("it is no pickle, or a truncated one")
        name = code.name
        if name == "STRING":
            yield code, _string(stream.readline())
        else:
            yield code, None if code.arg is None else code.arg.reader(stream)


def _string(line: bytes) -> str:
    """A string of protocol 0, as latin1: `pickletools` takes them for ASCII, which the bytes of
    an array are not."""
    quoted = line.rstrip(b"\r\n")
    if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in (b"'", b'"'):
        raise DataError("the pickle has a string without quotes, or is truncated")
    return codecs.escape_decode(quoted[1:-1])[0].decode("latin1")


# What the names stand for


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """numpy.core.multiarray._reconstruct(ndarray, (0,), b"b"): an array to be filled in."""
    if kind is not NDARRAY or shape != (0,) or code not in ("b", b"b"):
        raise ValueError
    return _Array()


def _dtype(code: Any, align: Any = 0, copy: Any = 1) -> _Type:
    """numpy.dtype("f8", 0, 1)."""
    code = code.decode("latin1") if isinstance(code, bytes) else code
    if not isinstance(code, str) or not SIMPLE.fullmatch(code):
        raise DataError(
            f"the pickle has an array of {str(code)[:20]!r}: only numbers and text are read"
        )
    return _Type(np.dtype(code))


def _described(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    """The dtype in the order of bytes that its state (version, order, sub-array, names, fields,
    size, alignment, flags, ...) says."""
    if len(state) < 8 or any(part is not None for part in state[2:5]):
        raise DataError("the pickle has an array of records: only numbers and text are read")
    order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
    for known in ORDERS:
        if order == known:
            return dtype if known == "|" else dtype.newbyteorder(known)
    raise DataError("the pickle has an array whose order of bytes is unknown")


def _filled(shape: Any, kind: Any, fortran: Any, data: Any) -> np.ndarray:
    """The array of that shape over the bytes `data`."""
    if not isinstance(kind, _Type) or fortran not in (0, 1):
        raise DataError("the pickle has an array of an unknown type")
    if isinstance(data, str):  # Python 2
        data = data.encode("latin1")
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not isinstance(data, bytes | bytearray) or not sizes or len(shape) > 32:
        raise DataError("the pickle has an array without a shape or without bytes")
    wanted = math.prod(shape) * kind.dtype.itemsize
    if len(data) != wanted:
        raise DataError(f"the pickle has {len(data)} bytes for an array of {wanted}")
    if not wanted:
        return np.zeros(shape, kind.dtype)
    array = np.frombuffer(bytes(data) if isinstance(data, bytearray) else data, kind.dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """numpy._core.numeric._frombuffer, of protocol 5."""
    if order not in ("C", "F"):
        raise ValueError
    return _filled(shape, kind, order == "F", data)


def _scalar(kind: Any, data: Any) -> Any:
    """numpy.core.multiarray.scalar."""
    return _filled((), kind, False, data)[()]


def _encode(text: Any, encoding: Any) -> bytes:
    """_codecs.encode(text, "latin1"): how protocols below 3 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """bytes(), the empty ones."""
    return b""


def _names() -> Iterator[tuple[tuple[str, str], _Name]]:
    makers: Mapping[str, Callable[..., Any]] = {"_reconstruct": _reconstruct, "scalar": _scalar}
    for core in ("numpy.core", "numpy._core"):
        for name, make in makers.items():
            yield (f"{core}.multiarray", name), _Name(name, make)
        yield (f"{core}.numeric", "_frombuffer"), _Name("_frombuffer", _frombuffer)
    yield ("numpy", "dtype"), _Name("dtype", _dtype)
    yield ("numpy", "ndarray"), NDARRAY
    yield ("_codecs", "encode"), _Name("encode", _encode)
    for builtins in ("builtins", "__builtin__"):
        yield (builtins, "bytes"), _Name("bytes", _no_bytes)


NDARRAY = _Name("ndarray", None)
NAMES = dict(_names())


CODES = {code.code: code for code in pickletools.opcodes}

# What each step does; a step that is not here is refused


def _nothing(machine: _Machine, argument: Any) -> None: ...


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _constant(value: Any) -> "_Step":
    return lambda machine, _: machine.stack.append(value)


def _tuple(length: int) -> "_Step":
    def step(machine: _Machine, argument: Any) -> None:
        machine.tuple_of([machine.pop() for _ in range(length)][::-1])

    return step


def _from_mark(container: type, fill: Callable[[_Machine, list[Any]], None]) -> "_Step":
    def step(machine: _Machine, argument: Any) -> None:
        values = machine.since_mark()
        machine.begin(container())
        fill(machine, values)

    return step


def _set_item(machine: _Machine, argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _global(machine: _Machine, argument: str) -> None:
    machine.name(*argument.split(" ", 1))


def _stack_global(machine: _Machine, argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise DataError("the pickle asks for what has no name: it is not opened")
    machine.name(module, name)


_Step = Callable[[_Machine, Any], None]
STEPS: dict[str, _Step] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    **dict.fromkeys(("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"), _push),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE", "BINUNICODE8"), _push),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING", "SHORT_BINUNICODE"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "MARK": _constant(MARK),
    "EMPTY_LIST": lambda machine, _: machine.begin([]),
    "EMPTY_DICT": lambda machine, _: machine.begin({}),
    "EMPTY_TUPLE": _tuple(0),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.tuple_of(machine.since_mark()),
    "LIST": _from_mark(list, _Machine.extend),
    "DICT": _from_mark(dict, _Machine.set_items),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
