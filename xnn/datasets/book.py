"""The book's ``mnist.pkl.gz``: a pickle, read without ever being executed.

A pickle is a program for a stack machine, which can call any function. The machine below knows only
the few instructions of a pickle of NumPy arrays in tuples, and has placeholders for the parts of an
array instead of functions. It refuses everything else. The instructions are described in CPython's
``Lib/pickletools.py``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import Source

_DTYPES = {"f4": 4, "f8": 8, "i8": 8, "i4": 4, "u1": 1}
_MOST_STEPS = 10_000


@dataclass
class _Array:
    """An array under construction: its state is set later."""

    state: Any = None


@dataclass
class _DType:
    name: Any
    state: Any = None


_MARK = object()
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),  # protocol 5
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how protocol 2 of Python 3 writes bytes
}


@dataclass(frozen=True)
class _Global:
    kind: str


def read(path: Path) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the three pairs ``(x, y)``: training, validation and test.

    ``x`` holds floats, ``(n, 784)``, and ``y`` integers, ``(n,)``. Raises `ValueError`, naming the
    file, if it holds anything else.
    """
    with Source(path) as source:
        result = _Machine(source).run()
        try:
            pairs = [(_array(x), _array(y)) for x, y in result]
            if len(pairs) != 3:
                raise ValueError(f"{len(pairs)} data sets")
        except (TypeError, ValueError) as error:
            raise source.refuse(f"does not hold three pairs of arrays: {error}") from None
    return pairs


class _Machine:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_STEPS):
            code = self.source.take(1, "pickle")
            if code == b".":
                if len(self.stack) != 1:
                    raise self.source.refuse("is not one whole pickle")
                return self.stack[0]
            if code not in _INSTRUCTIONS:
                raise self.source.refuse(
                    f"has pickle instruction {code!r}, which arrays do not need"
                )
            try:
                _INSTRUCTIONS[code](self)
            except (IndexError, KeyError, TypeError, UnicodeError) as error:
                raise self.source.refuse(f"has a broken pickle: {error!r}") from None
        raise self.source.refuse("has a pickle of too many instructions")

    def integer(self, form: str) -> int:
        size = struct.calcsize(form)
        return int(struct.unpack(form, self.source.take(size, "pickle"))[0])

    def marked(self) -> tuple[Any, ...]:
        """Pop everything down to the last mark."""
        at = (
            max(i for i, item in enumerate(self.stack) if item is _MARK)
            if _MARK in self.stack
            else -1
        )
        if at < 0:
            raise IndexError("no mark")
        items = tuple(self.stack[at + 1 :])
        del self.stack[at:]
        return items

    def last(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError("stack is empty")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def name(self, module: str, name: str) -> _Global:
        if (module, name) not in _GLOBALS:
            raise self.source.refuse(f"wants {module}.{name}, which arrays do not need")
        return _Global(name)

    def call(self) -> Any:
        function, arguments = self.last(2)
        match function, arguments:
            case _Global(kind="_reconstruct"), (_Global(kind="ndarray"), (0,), _):
                return _Array()
            case _Global(kind="_frombuffer"), (bytes() as data, _DType() as dtype, shape, "C"):
                return _Array((1, shape, dtype, False, data))
            case _Global(kind="dtype"), (str() | bytes() as name, *_):
                return _DType(name)
            case _Global(kind="encode"), (str() as text, "latin1" | "latin-1"):
                return text.encode("latin-1")
        raise self.source.refuse("has a pickle that calls what arrays do not need")

    def build(self) -> None:
        thing, state = self.last(2)
        if not isinstance(thing, _Array | _DType) or thing.state is not None:
            raise TypeError("state for something other than an array")
        thing.state = state
        self.stack.append(thing)


def _push(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value(m))


def _memoize(index: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    def store(m: _Machine) -> None:
        m.memo[index(m)] = m.stack[-1]

    return store


def _text(m: _Machine) -> str:
    return m.source.line("pickle").decode("ascii")


def _data(form: str) -> Callable[[_Machine], bytes]:
    return lambda m: m.source.take(m.integer(form), "data")


def _string(form: str) -> Callable[[_Machine], str]:
    return lambda m: m.source.take(m.integer(form), "text").decode("utf-8")


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.integer("<B"),  # PROTO
    b"\x95": lambda m: m.source.take(8, "pickle"),  # FRAME
    b"(": _push(lambda m: _MARK),
    b"N": _push(lambda m: None),
    b"\x88": _push(lambda m: True),
    b"\x89": _push(lambda m: False),
    b"J": _push(lambda m: m.integer("<i")),
    b"K": _push(lambda m: m.integer("<B")),
    b"M": _push(lambda m: m.integer("<H")),
    b"U": _push(_data("<B")),  # SHORT_BINSTRING, BINSTRING: bytes of Python 2
    b"T": _push(_data("<I")),
    b"C": _push(_data("<B")),  # SHORT_BINBYTES, BINBYTES, BINBYTES8
    b"B": _push(_data("<I")),
    b"\x8e": _push(_data("<Q")),
    b"\x96": _push(_data("<Q")),  # BYTEARRAY8
    b"\x8c": _push(_string("<B")),  # SHORT_BINUNICODE, BINUNICODE
    b"X": _push(_string("<I")),
    b")": _push(lambda m: ()),
    b"t": _push(lambda m: m.marked()),
    b"\x85": _push(lambda m: m.last(1)),
    b"\x86": _push(lambda m: m.last(2)),
    b"\x87": _push(lambda m: m.last(3)),
    b"]": _push(lambda m: []),
    b"c": _push(lambda m: m.name(_text(m), _text(m))),  # GLOBAL
    b"\x93": _push(lambda m: m.name(*m.last(2))),  # STACK_GLOBAL
    b"R": _push(lambda m: m.call()),
    b"b": lambda m: m.build(),
    b"q": _memoize(lambda m: m.integer("<B")),  # BINPUT, LONG_BINPUT, MEMOIZE
    b"r": _memoize(lambda m: m.integer("<I")),
    b"\x94": _memoize(lambda m: len(m.memo)),
    b"h": _push(lambda m: m.memo[m.integer("<B")]),  # BINGET, LONG_BINGET
    b"j": _push(lambda m: m.memo[m.integer("<I")]),
}


def _array(made: Any) -> NDArray[Any]:
    """Return the array that the pickle describes."""
    match made:
        case _Array(state=(_, tuple() as shape, _DType() as dtype, False, bytes() as data)):
            pass
        case _:
            raise ValueError("something other than an array stored by rows")
    name = dtype.name.decode("ascii") if isinstance(dtype.name, bytes) else dtype.name
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    if name not in _DTYPES or order not in (b"<", "<", b"|", "|"):
        raise ValueError(f"an array of dtype {name!r}")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape!r}")
    if math.prod(shape) * _DTYPES[name] != len(data):
        raise ValueError(f"an array of shape {shape} in {len(data)} bytes")
    return np.frombuffer(bytearray(data), f"<{name}").reshape(shape)
