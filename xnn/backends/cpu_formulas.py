"""Formulas and programs as NumPy calls.

Each is lowered once to a *plan*: NumPy's functions and the names of what they read and write, with
registers for intermediate results. Bound to arrays, it is a list of calls.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from . import formulas
from .base import Array, Call

#: Maps a register's number, a shape and a dtype to memory.
Registers = Callable[[int, tuple[int, ...], Any], Array]

# Names that no operand has, as they are not identifiers.
_OUT = ".out"
_CONSTANT, _REGISTER, _MASK = "=", "#", "?"

# Below this many elements SciPy's one call is quicker than NumPy's four vectorised ones.
_SMALL = 300


@dataclass(frozen=True)
class Plan:
    """The calls that evaluate a formula or a program, in terms of names."""

    calls: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...]
    constants: Mapping[str, float]
    registers: tuple[str, ...]
    masks: tuple[str, ...]

    def bound(self, out: Array, operands: Mapping[str, Any], registers: Registers) -> list[Call]:
        """Return the calls for some operands, and ``out`` or an array like the result."""
        dtype, shape = out.dtype, out.shape
        found: dict[str, Any] = {_OUT: out}
        for numbers in (operands, self.constants):
            for name, value in numbers.items():
                found[name] = value if isinstance(value, np.ndarray) else np.array(value, dtype)
        for number, name in enumerate(self.registers):
            found[name] = registers(number, shape, dtype)
        for name in self.masks:
            found[name] = np.empty(shape, np.bool_)
        return [(f, tuple([found[name] for name in names])) for f, names in self.calls]


def formula(text: str, out: Array, operands: Mapping[str, Any]) -> Plan:
    """Return the plan of a formula for arrays like these."""
    arrays = (o for o in operands.values() if isinstance(o, np.ndarray))
    free = out.flags.c_contiguous and not any(np.may_share_memory(out, o) for o in arrays)
    return _formula(text, free, out.size < _SMALL)


def program(text: str, operands: Mapping[str, Any], size: int) -> Plan:
    """Return the plan of a program over ``size`` numbers, for operands of these names."""
    return _program(text, frozenset(operands), size < _SMALL)


@lru_cache(maxsize=1024)
def _formula(text: str, free: bool, small: bool) -> Plan:
    lowering = _Lowering([_OUT] if free else [], small)
    lowering.assign(formulas.parse(text), _OUT)
    return lowering.plan()


@lru_cache(maxsize=1024)
def _program(text: str, operands: frozenset[str], small: bool) -> Plan:
    lowering = _Lowering([], small)
    statements = formulas.program(text)
    written = {name for name, _ in statements} & operands
    own = {name for name, _ in statements} - written
    for name, tree in statements:
        if name in written:
            lowering.assign(tree, name)
        elif isinstance(tree, ast.Name) and tree.id not in written | own:
            lowering.names[name] = lowering.names.get(tree.id, tree.id)  # an alias
        else:
            # Kept to the end of the program, so no longer scratch.
            kept = lowering.take()
            lowering.scratch.remove(kept)
            lowering.assign(tree, kept)
            lowering.names[name] = kept
    return lowering.plan()


class _Lowering:
    """Turns formulas into calls that write into what is ``free`` and as few registers as possible.

    ``small`` says that they are over few numbers.
    """

    def __init__(self, free: list[str], small: bool) -> None:
        self.free, self.small = free, small
        self.scratch = set(free)
        self.names: dict[str, str] = {}  # where a program's own names are kept
        self.calls: list[tuple[Callable[..., Any], tuple[str, ...]]] = []
        self.constants: dict[str, float] = {}
        self.registers: list[str] = []
        self.masks: list[str] = []

    def plan(self) -> Plan:
        made = tuple(self.calls), self.constants, tuple(self.registers), tuple(self.masks)
        return Plan(*made)

    def assign(self, tree: ast.expr, into: str) -> None:
        if isinstance(tree, ast.Name | ast.Constant):
            self.calls.append((np.copyto, (into, self.value(tree))))
        else:
            self.value(tree, into)

    def value(self, node: ast.expr, into: str | None = None) -> str:
        """Evaluate a node, ``into`` a place if one is given; return where the result is."""
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int | float)
            name = f"{_CONSTANT}{node.value}"
            self.constants[name] = node.value
            return name
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        name, children = formulas.operation(node)
        masks = [name == "multiply" and _compares(child) for child in children]
        if all(masks):
            masks = [False for _ in children]
        arguments = [
            self.value(child, self.mask() if mask else None)
            for child, mask in zip(children, masks, strict=True)
        ]
        self.free += [argument for argument in arguments if argument in self.scratch]
        if into is None:
            into = self.take()
        if name == "sigmoid":
            self.sigmoid(arguments[0], into)
        else:
            function = _CLIPS.get(name) or getattr(np, name)
            self.calls.append((function, (*arguments, into)))
        return into

    def take(self) -> str:
        if not self.free:
            name = f"{_REGISTER}{len(self.registers)}"
            self.registers.append(name)
            self.scratch.add(name)
            self.free.append(name)
        return self.free.pop()

    def mask(self) -> str:
        self.masks.append(f"{_MASK}{len(self.masks)}")
        return self.masks[-1]

    def sigmoid(self, z: str, out: str) -> None:
        if self.small:
            from scipy.special import expit

            self.calls.append((expit, (z, out)))
            return
        one = self.value(ast.Constant(1))  # exp(-z) may overflow to infinity: 1 / ∞ = 0 is right
        self.calls += [
            (np.negative, (z, out)),
            (np.exp, (out, out)),
            (np.add, (out, one, out)),
            (np.divide, (one, out, out)),
        ]


def _compares(node: ast.expr) -> bool:
    """Return whether the root is a comparison. As a factor, booleans are faster than numbers."""
    return isinstance(node, ast.Compare)


# Their third positional argument is deprecated in NumPy 2.4.


def _maximum(a: Array, b: Array, out: Array) -> None:
    np.maximum(a, b, out=out)


def _minimum(a: Array, b: Array, out: Array) -> None:
    np.minimum(a, b, out=out)


_CLIPS: dict[str, Callable[..., Any]] = {"maximum": _maximum, "minimum": _minimum}
