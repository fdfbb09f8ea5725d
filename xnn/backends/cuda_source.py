"""CUDA C++ for the operations of a backend. Text in, text out: nothing here needs a GPU.

Each kernel is one ``extern "C"`` function. Matrices come as a pointer and two strides, counted in
elements, so that views, transposes and broadcasts (a stride of 0) need no copies.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from . import formulas

#: Threads of a block of `elementwise`, `update` and `gather`, which take one number each.
BLOCK = 256
#: Threads of a block of the others, each warp of which takes a row.
WARPS = 4 * 32

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

_FUNCTIONS = """
// NaN in an argument is NaN in the result, unlike with fmax: divergence must not hide.
template <typename T> __device__ T maximum(T a, T b) { return a != a || a > b ? a : b; }
template <typename T> __device__ T minimum(T a, T b) { return a != a || a < b ? a : b; }
template <typename T> __device__ T sign(T a) { return a != a ? a : T((a > 0) - (a < 0)); }
template <typename T> __device__ T sigmoid(T z) { return T(1) / (T(1) + exp(-z)); }
template <typename T> __device__ T square(T a) { return a * a; }
"""

# Which element a thread takes. Division of 64-bit numbers takes longer than most formulas.
_PLACE = """
#define PLACE(rows, columns)                                                                     \\
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;                              \\
    if (i >= rows * columns) return;                                                             \\
    long long row = 0;                                                                           \\
    if (rows > 1) row = rows * columns >> 32 ? i / columns : (unsigned)i / (unsigned)columns;    \\
    long long column = i - row * columns;
"""

_SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "greater": ">",
    "less": "<",
}


@lru_cache(maxsize=1024)
def names(formula: str) -> frozenset[str]:
    """Return the names that a formula reads."""
    tree = formulas.parse(formula)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    named = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return frozenset(node.id for node in named if id(node) not in functions)


def ctype(dtype: np.dtype) -> str:
    """Return the C++ name of a dtype. Raises `ValueError` where a GPU has no such numbers."""
    name = TYPES.get(np.dtype(dtype).char)
    if name is None:
        raise ValueError(f"dtype {dtype} cannot be used on a GPU; convert it to float32")
    return name


def expression(formula: str) -> str:
    """Return a formula as C++, over variables of type ``T`` with the formula's names."""
    return _expression(formulas.parse(formula))


def _expression(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return f"v_{name}"
        case ast.Constant(value=value):
            return f"T({value!r})"
    name, children = formulas.operation(node)
    parts = [_expression(child) for child in children]
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


@lru_cache(maxsize=1024)
def elementwise(formula: str, out: str, operands: tuple[tuple[str, str | None], ...]) -> str:
    """Return the kernel ``run`` that evaluates a formula.

    ``out`` and ``operands`` are C++ types, None for a number. Parameters: rows and columns; the
    pointer and strides of ``out`` and of each array among the operands, in order; the numbers.
    """
    arrays = [(name, kind) for name, kind in operands if kind is not None]
    numbers = [name for name, kind in operands if kind is None]
    parameters = ["long long rows", "long long columns", "T* out, long long out_r, long long out_c"]
    parameters += [
        f"const {kind}* p_{n}, long long p_{n}_r, long long p_{n}_c" for n, kind in arrays
    ]
    parameters += [f"T v_{name}" for name in numbers]
    loads = [f"T v_{n} = T(p_{n}[row * p_{n}_r + column * p_{n}_c]);" for n, _ in arrays]
    return f"""{_head(out)}{_PLACE}
extern "C" __global__ void run({", ".join(parameters)}) {{
    PLACE(rows, columns)
    {" ".join(loads)}
    out[row * out_r + column * out_c] = {expression(formula)};
}}
"""


@lru_cache(maxsize=256)
def update(
    program: str, operands: tuple[tuple[str, str | None], ...], swept: frozenset[str]
) -> str:
    """Return the kernel ``run`` of a program over ``size`` numbers.

    ``operands`` are C++ types, None for a number. Those ``swept`` are arrays of that size, other
    arrays hold one number. Parameters: the size; each operand in order, by pointer or by value.
    """
    statements = formulas.program(program)
    written = {name for name, _ in statements}
    parameters, loads, lines = ["long long size"], [], []
    for name, kind in operands:
        if kind is None:
            parameters.append(f"T v_{name}")
            continue
        const = "" if name in written else "const "
        parameters.append(f"{const}{kind}* p_{name}")
        loads.append(f"T v_{name} = T(p_{name}[{'i' if name in swept else '0'}]);")
    known = {name for name, _ in operands}
    for name, tree in statements:
        lines.append(f"{'' if name in known else 'T '}v_{name} = {_expression(tree)};")
        known.add(name)
    lines += [f"p_{name}[i] = v_{name};" for name, _ in operands if name in written]
    head = _head(next(kind for name, kind in operands if kind and name in swept))
    return f"""{head}
extern "C" __global__ void run({", ".join(parameters)}) {{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= size) return;
    {" ".join(loads)}
    {" ".join(lines)}
}}
"""


@lru_cache(maxsize=256)
def gather(source: str, index: str, out: str) -> str:
    """Return the kernel ``run`` that copies the rows which an index names.

    Parameters: rows, columns; pointer and row stride of ``out``; of ``source``; the index.
    """
    return f"""{_head(out)}{_PLACE}
extern "C" __global__ void run(long long rows, long long columns, T* out, long long out_r,
                               const {source}* source, long long source_r, const {index}* index) {{
    PLACE(rows, columns)
    out[row * out_r + column] = T(source[(long long)index[row] * source_r + column]);
}}
"""


_ROWS = """
// Each warp takes a row. The grid's warps are as many as there are rows, or a few more.
#define FOR_EACH_ROW(rows)                                                                       \\
    long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;                     \\
    int lane = threadIdx.x % 32;                                                                 \\
    if (row >= rows) return;

template <typename T> __device__ T warp_sum(T v) {
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
    return v;
}
template <typename T> __device__ T warp_maximum(T v) {
    for (int step = 16; step; step /= 2) v = maximum(v, __shfl_xor_sync(~0u, v, step));
    return v;
}
"""


@lru_cache(maxsize=8)
def softmax(kind: str) -> str:
    """Return the kernel ``run``: rows, columns; pointer and row stride of ``z``, of ``out``."""
    return f"""{_head(kind)}{_ROWS}
extern "C" __global__ void run(long long rows, long long columns, const T* z, long long z_r,
                               T* out, long long out_r) {{
    FOR_EACH_ROW(rows)
    z += row * z_r;
    out += row * out_r;
    T most = -T(__int_as_float(0x7f800000)), sum = 0;
    for (long long j = lane; j < columns; j += 32) most = maximum(most, z[j]);
    most = warp_maximum(most);
    for (long long j = lane; j < columns; j += 32) sum += out[j] = exp(z[j] - most);
    sum = warp_sum(sum);
    for (long long j = lane; j < columns; j += 32) out[j] /= sum;
}}
"""


@lru_cache(maxsize=8)
def row_sums(kind: str) -> str:
    """Return the kernel ``run``: rows, columns; pointer and row stride of values; ``out``."""
    return f"""{_head(kind)}{_ROWS}
extern "C" __global__ void run(long long rows, long long columns, const T* values,
                               long long values_r, T* out) {{
    FOR_EACH_ROW(rows)
    T sum = 0;
    for (long long j = lane; j < columns; j += 32) sum += values[row * values_r + j];
    sum = warp_sum(sum);
    if (lane == 0) out[row] = sum;
}}
"""


@lru_cache(maxsize=8)
def argmax(kind: str) -> str:
    """Return the kernel ``run``: rows, columns; pointer and row stride of values; ``out``.

    Of equals the first; NaN is the largest of all, as with NumPy.
    """
    return f"""{_head(kind)}{_ROWS}
__device__ bool before(T a, long long i, T b, long long j) {{
    bool a_nan = a != a, b_nan = b != b;
    if (a_nan || b_nan) return a_nan && (!b_nan || i < j);
    return a > b || (a == b && i < j);
}}
extern "C" __global__ void run(long long rows, long long columns, const T* values,
                               long long values_r, long long* out) {{
    FOR_EACH_ROW(rows)
    values += row * values_r;
    long long best = lane < columns ? lane : 0;
    for (long long j = best + 32; j < columns; j += 32)
        if (before(values[j], j, values[best], best)) best = j;
    for (int step = 16; step; step /= 2) {{
        long long other = __shfl_xor_sync(~0u, best, step);
        if (before(values[other], other, values[best], best)) best = other;
    }}
    if (lane == 0) out[row] = best;
}}
"""


def _head(kind: str) -> str:
    return f"using T = {kind};\n{_FUNCTIONS}"


def operand_types(operands: Mapping[str, object]) -> tuple[tuple[str, str | None], ...]:
    """Return name and C++ type of each operand, None for a number."""
    return tuple(
        (name, ctype(value.dtype) if hasattr(value, "dtype") else None)
        for name, value in operands.items()
    )
