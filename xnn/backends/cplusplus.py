"""Formulas as C++: for CUDA on a GPU, for a C++ compiler on the CPU."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Any

import numpy as np

from . import formulas

# The C++ names of the dtypes that a data set, its labels or a network may have.
TYPES = {
    "?": "bool",
    "b": "signed char",
    "B": "unsigned char",
    "h": "short",
    "H": "unsigned short",
    "i": "int",
    "I": "unsigned int",
    "l": "long long" if np.dtype("l").itemsize == 8 else "int",
    "L": "unsigned long long" if np.dtype("L").itemsize == 8 else "unsigned int",
    "q": "long long",
    "Q": "unsigned long long",
    "f": "float",
    "d": "double",
}


def kind(array: Any) -> str | None:
    """Return the C++ name of an array's dtype, or None if it has none."""
    return TYPES.get(array.dtype.char) if array.dtype.isnative else None


_FUNCTIONS = """
// NaN in an argument is NaN in the result, unlike with fmax: divergence must not hide.
template <typename T> {0} T maximum(T a, T b) {{ return a != a || a > b ? a : b; }}
template <typename T> {0} T minimum(T a, T b) {{ return a != a || a < b ? a : b; }}
template <typename T> {0} T sign(T a) {{ return a != a ? a : T((a > 0) - (a < 0)); }}
template <typename T> {0} T square(T a) {{ return a * a; }}
"""

_SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "greater": ">",
    "less": "<",
}


def functions(prefix: str) -> str:
    """Return the functions of formulas that C++ lacks, each with ``prefix`` before it."""
    return _FUNCTIONS.format(prefix)


@lru_cache(maxsize=1024)
def names(formula: str) -> frozenset[str]:
    """Return the names that a formula reads."""
    tree = formulas.parse(formula)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    named = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return frozenset(node.id for node in named if id(node) not in called)


def expression(node: ast.expr) -> str:
    """Return a formula as C++; its names become variables of type ``T`` with prefix ``v_``."""
    match node:
        case ast.Name(id=name):
            return f"v_{name}"
        case ast.Constant(value=value):
            return f"T({value!r})"
    name, children = formulas.operation(node)
    parts = [expression(child) for child in children]
    match name:
        case "negative":
            return f"(-{parts[0]})"
        case "greater" | "less":
            return f"T({parts[0]} {_SIGNS[name]} {parts[1]})"
        case _ if name in _SIGNS:
            return f"({parts[0]} {_SIGNS[name]} {parts[1]})"
        case "abs":
            return f"fabs({parts[0]})"
    return f"{name}({', '.join(parts)})"


def statements(text: str, known: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Return a program's assignments as C++, given the declared names, and what it assigns to."""
    lines, have = [], set(known)
    for name, tree in formulas.program(text):
        lines.append(f"{'' if name in have else 'T '}v_{name} = {expression(tree)};")
        have.add(name)
    return lines, frozenset(name for name, _ in formulas.program(text))
