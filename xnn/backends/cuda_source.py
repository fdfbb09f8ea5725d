"""CUDA C++ for the operations of a backend. Text in, text out: nothing here needs a GPU.

Each kernel is one ``extern "C"`` function. Matrices are passed as a pointer and two strides,
counted in elements, so that views, transposes and broadcasts (a stride of 0) need no copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from . import cplusplus, formulas

#: Threads per block of `elementwise`, `update` and `gather`, which take one number each.
BLOCK = 256
#: Threads per block of the others, each warp of which takes a row.
WARPS = 4 * 32
#: A warp takes this many numbers of a row to be summed, and a row has at most this many warps.
PART, PARTS = 1024, 1024

_FUNCTIONS = (
    cplusplus.functions("__device__")
    + """
template <typename T> __device__ T sigmoid(T z) { return T(1) / (T(1) + exp(-z)); }
"""
)

# Which element a thread takes. Division of 64-bit numbers takes longer than most formulas.
_PLACE = """
#define PLACE(rows, columns)                                                                     \\
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;                              \\
    if (i >= rows * columns) return;                                                             \\
    long long row = 0;                                                                           \\
    if (rows > 1) row = rows * columns >> 32 ? i / columns : (unsigned)i / (unsigned)columns;    \\
    long long column = i - row * columns;
"""


def ctype(dtype: np.dtype) -> str:
    """Return the C++ name of a dtype. Raises `ValueError` if a GPU has no such numbers."""
    name = cplusplus.TYPES.get(np.dtype(dtype).char)
    if name is None:
        raise ValueError(f"dtype {dtype} cannot be used on a GPU; convert it to float32")
    return name


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
    out[row * out_r + column * out_c] = {cplusplus.expression(formulas.parse(formula))};
}}
"""


@lru_cache(maxsize=1024)
def flat(
    formula: str,
    out: str,
    operands: tuple[tuple[str, str | None], ...],
    steps: tuple[int, ...],
    each: int = 1,
) -> str:
    """Return the kernel ``run`` that evaluates a formula over contiguous numbers.

    As `elementwise`, but ``steps`` has, for each array among the operands, 1 if it has a number for
    each of ``out``, or 0 if it has one for all. A thread takes ``each`` numbers at a time: more
    than one only if arrays start and end at multiples of ``each`` and those with step 1 are all of
    one type. Parameters: the size; pointers of ``out`` and of the arrays, in order; the numbers.
    """
    arrays = [(name, kind) for name, kind in operands if kind is not None]
    numbers = [name for name, kind in operands if kind is None]
    parameters = ["long long size", "T* out", *(f"const {kind}* p_{n}" for n, kind in arrays)]
    parameters += [f"T v_{name}" for name in numbers]
    swept = [name for (name, _), step in zip(arrays, steps, strict=True) if step]
    place, alone = ("some_{}.v[u]", "made.v[u]") if each > 1 else ("p_{}[i]", "out[i]")
    loads = [f"T v_{n} = T({place.format(n) if n in swept else f'*p_{n}'});" for n, _ in arrays]
    value = cplusplus.expression(formulas.parse(formula))
    body = f"{' '.join(loads)}\n    {alone} = {value};"
    if each > 1:
        body = f"""{" ".join(f"const Some some_{n} = *(const Some*)(p_{n} + i);" for n in swept)}
    Some made;
    #pragma unroll
    for (int u = 0; u < {each}; u++) {{
        {body}
    }}
    *(Some*)(out + i) = made;"""
    return f"""{_head(out)}
struct alignas({each} * sizeof(T)) Some {{ T v[{each}]; }};
extern "C" __global__ void run({", ".join(parameters)}) {{
    long long i = {each} * (blockIdx.x * (long long)blockDim.x + threadIdx.x);
    if (i >= size) return;
    {body}
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
    lines, written = cplusplus.statements(program, frozenset(name for name, _ in operands))
    parameters, loads = ["long long size"], []
    for name, kind in operands:
        if kind is None:
            parameters.append(f"T v_{name}")
            continue
        const = "" if name in written else "const "
        parameters.append(f"{const}{kind}* p_{name}")
        loads.append(f"T v_{name} = T(p_{name}[{'i' if name in swept else '0'}]);")
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
    """Return the kernel ``run`` that copies the rows that an index names.

    Parameters: rows, columns; pointer and row stride of ``out``; of ``source``; the index.
    """
    return f"""{_head(out)}{_PLACE}
extern "C" __global__ void run(long long rows, long long columns, T* out, long long out_r,
                               const {source}* source, long long source_r, const {index}* index) {{
    PLACE(rows, columns)
    out[row * out_r + column] = T(source[(long long)index[row] * source_r + column]);
}}
"""


@lru_cache(maxsize=8)
def beyond(kind: str) -> str:
    """Return the kernel ``run`` that sets ``found`` if a number is NaN or outside ±``most``.

    Parameters: rows, columns; pointer and strides of values; ``most``; the pointer of ``found``.
    """
    return f"""{_head(kind)}{_PLACE}
extern "C" __global__ void run(long long rows, long long columns, const T* values,
                               long long values_r, long long values_c, T most, int* found) {{
    PLACE(rows, columns)
    T v = values[row * values_r + column * values_c];
    if (!(-most <= v && v <= most)) *found = 1;
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
    """Return the kernel ``run`` that sums each row in parts, ``out`` (rows, parts).

    Parameters: rows, parts, columns; pointer and row stride of values; ``out``.
    """
    return f"""{_head(kind)}{_ROWS}
extern "C" __global__ void run(long long rows, long long parts, long long columns, const T* values,
                               long long values_r, T* out) {{
    FOR_EACH_ROW(rows * parts)
    T sum = 0;
    values += row / parts * values_r;
    for (long long j = row % parts * 32 + lane; j < columns; j += parts * 32) sum += values[j];
    sum = warp_sum(sum);
    if (lane == 0) out[row] = sum;
}}
"""


@lru_cache(maxsize=8)
def product(kind: str, lanes: int) -> str:
    """Return the kernel ``run``: ``out ← alpha · a @ b + beta · out``, for products of little work.

    Each number of ``out`` is summed by one thread, or by the 32 ``lanes`` of a warp. Parameters:
    rows, columns, depth; the pointer and both strides of ``a``, ``b`` and ``out``; the pointers of
    ``alpha`` and ``beta``.
    """
    strides = ", ".join(f"long long {name}_r, long long {name}_c" for name in "ab")
    return f"""{_head(kind)}{_ROWS}
extern "C" __global__ void run(long long rows, long long columns, long long depth, const T* a,
                               const T* b, T* out, {strides}, long long out_r, const T* alpha,
                               const T* beta) {{
    const int lanes = {lanes};
    long long i = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / lanes;
    if (i >= rows * columns) return;
    long long row = (unsigned)i / (unsigned)columns, column = i - row * columns;
    int first = threadIdx.x % lanes;
    a += row * a_r + first * a_c;
    b += column * b_c + first * b_r;
    out += row * out_r + column;
    // All loads are issued at once: a launch takes as long as what it waits for.
    T scale = *alpha, share = *beta, old = 0, sum = 0;
    if (share != 0 && !first) old = share * *out;
    for (int k = first; k < (int)depth; k += 8 * lanes) {{
        T x[8], y[8];
        #pragma unroll
        for (int u = 0; u < 8; u++) {{
            bool there = k + u * lanes < (int)depth;
            x[u] = there ? a[u * lanes * a_c] : 0;
            y[u] = there ? b[u * lanes * b_r] : 0;
        }}
        #pragma unroll
        for (int u = 0; u < 8; u++) sum += x[u] * y[u];
        a += 8 * lanes * a_c;
        b += 8 * lanes * b_r;
    }}
    if (lanes > 1) sum = warp_sum(sum);
    if (!first) *out = scale * sum + old;
}}
"""


@lru_cache(maxsize=8)
def added(kind: str) -> str:
    """Return the kernel ``run``: ``out ← alpha · Σ some + beta · out``, for matrices ``some``.

    Each number of ``out`` is summed by a warp. Parameters: rows, columns, how many matrices; the
    pointers of these and of ``out``, the row stride of ``out``, the pointers of ``alpha`` and
    ``beta``.
    """
    return f"""{_head(kind)}{_ROWS}
extern "C" __global__ void run(long long rows, long long columns, long long parts, const T* some,
                               T* out, long long out_r, const T* alpha, const T* beta) {{
    FOR_EACH_ROW(rows * columns)
    T sum = 0, share = *beta;
    for (long long k = lane; k < parts; k += 32) sum += some[k * rows * columns + row];
    sum = *alpha * warp_sum(sum);
    out += row / columns * out_r + row % columns;
    if (lane == 0) *out = share == 0 ? sum : sum + share * *out;
}}
"""


@lru_cache(maxsize=8)
def argmax(kind: str) -> str:
    """Return the kernel ``run``: rows, columns; pointer and row stride of values; ``out``.

    The first of equals; NaN is the largest, as in NumPy.
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


def operand_types(operands: Mapping[str, Any]) -> tuple[tuple[str, str | None], ...]:
    """Return name and C++ type of each operand, None for a number."""
    return tuple(
        (name, ctype(value.dtype) if is_array(value) else None) for name, value in operands.items()
    )


def is_array(operand: object) -> bool:
    """Return whether an operand is an array. NumPy's scalars have a dtype too, but are not."""
    return hasattr(operand, "dtype") and not isinstance(operand, np.generic)
