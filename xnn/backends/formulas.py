"""Elementwise formulas: written once as text, parsed here, run by each backend in its own way.

A formula is a Python expression over array names, such as ``"a * (1 - a) * e"``. The CPU turns it
into a list of NumPy calls that write into scratch memory; a GPU pastes it into one fused kernel.
The language is small, so that both can support it: numbers, names, ``+ - * /``, ``** 2``, unary
minus, ``>`` and ``<`` (which give 1 or 0), and the functions in `FUNCTIONS`.

A *program* is a list of assignments of formulas to names, such as
``"v = mu * v - rate * g; w = w + v"``: what an optimizer does to the numbers of a parameter.
"""

from __future__ import annotations

import ast
from functools import lru_cache

# Function name -> number of arguments.
FUNCTIONS = {
    "abs": 1,
    "cos": 1,
    "exp": 1,
    "log": 1,
    "log1p": 1,
    "maximum": 2,
    "minimum": 2,
    "sigmoid": 1,
    "sign": 1,
    "sin": 1,
    "sqrt": 1,
    "tanh": 1,
}

BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Gt: "greater",
    ast.Lt: "less",
}

Node = ast.expr


@lru_cache(maxsize=512)
def parse(formula: str) -> Node:
    """Return the expression tree of ``formula``, checked against the language above.

    Raises `ValueError` if the formula uses anything else.
    """
    try:
        tree = ast.parse(formula, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"formula {formula!r} is not an expression: {error.msg}") from None
    _check(tree, formula)
    return tree


@lru_cache(maxsize=512)
def program(text: str) -> tuple[tuple[str, Node], ...]:
    """Return the assignments of a program in order: each a name, and what it is set to.

    Raises `ValueError` if there is anything else.
    """
    try:
        statements = ast.parse(text).body
    except SyntaxError as error:
        raise ValueError(f"program {text!r} is not a list of assignments: {error.msg}") from None
    result = []
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                _check(value, text)
                result.append((name, value))
            case _:
                raise ValueError(f"program {text!r} is not a list of assignments")
    return tuple(result)


def operation(node: Node) -> tuple[str, list[Node]]:
    """Return the operation at the root of a checked ``node``, and its arguments."""
    match node:
        case ast.UnaryOp(operand=operand):
            return "negative", [operand]
        case ast.BinOp(left=left, op=ast.Pow()):
            return "square", [left]
        case ast.BinOp(left=left, op=op, right=right):
            return BINARY[type(op)], [left, right]
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return BINARY[type(op)], [left, right]
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return name, list(arguments)
    raise AssertionError(f"not an operation: {ast.dump(node)}")


def _check(node: Node, formula: str) -> None:
    match node:
        case ast.Name():
            parts: list[Node] = []
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            parts = []
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            parts = [operand]
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=2)):
            parts = [left]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            parts = [left, right]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in BINARY:
            parts = [left, right]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if FUNCTIONS.get(
            name
        ) == len(arguments):
            parts = arguments
        case _:
            raise ValueError(f"formula {formula!r} has an unsupported part: {ast.unparse(node)}")
    for part in parts:
        _check(part, formula)
