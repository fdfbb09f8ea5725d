"""A matrix product in C++ where ``a`` has few rows and ``b`` is column-major: dot products.

That is a layer's forward pass with a small mini-batch: ``a`` is its inputs, ``b`` the transpose of
its weights. Nothing is packed, as it would be read only a few times: sums run along rows of ``a``
and columns of ``b`` in place, a vector at a time, some rows by some columns together, and each
vector of sums is reduced at the end.
"""

from __future__ import annotations

from functools import lru_cache

from . import cplusplus, strides
from . import cpp_vectors as vectors
from .base import Array

# With more rows than _MOST, or a depth of less than _LEAST per row, packed panels are faster.
_MOST = 32
_LEAST = 12
# Tiles: rows by columns. The last is for what the others leave.
_OF_32 = ((6, 4), (4, 4), (2, 4), (1, 8))
_OF_16 = ((3, 4), (2, 4), (1, 8))


def suits(a: Array, b: Array, out: Array) -> bool:
    """Return whether the kernel is the faster way to ``a @ b``; rows of ``out`` are contiguous."""
    rows, depth = a.shape
    few = rows <= min(_MOST, max(1, depth // _LEAST))
    return few and strides.by_columns(b) and not strides.by_columns(a)


def kernel(a: Array, b: Array, out: Array) -> tuple[str, list[int], int]:
    """Return the kernel, the contents of ``v``, and how many bytes of workspace it needs."""
    _, between = strides.matrix(b)
    values = [*out.shape, a.shape[1], strides.row(a), between, strides.row(out)]
    return dots(str(cplusplus.kind(out))), values, 64 * sum(out.shape)


@lru_cache(maxsize=2)
def dots(kind: str) -> str:
    """Return the kernel.

    At ``p``: ``a``, ``b``, ``out``, ``alpha``, ``beta``, workspace. In ``v``: rows, columns and
    depth; the row stride of ``a``, the column stride of ``b``, the row stride of ``out``.
    """
    both = []
    for choice in (_OF_32, _OF_16):
        text = "".join(_tile(*sizes) for sizes in choice)
        text += "static void run(const Rows& p, I rows, I j, I wide) {\n    I i = 0;\n"
        for rows, columns in choice:
            text += f"    for (; i + {rows} <= rows; i += {rows})\n"
            text += f"        for (I n = 0; n < wide; n += {columns})\n"
            text += f"            tile{rows}x{columns}(p, i, j + n, least({columns}, wide - n));\n"
        both.append(text + "}\n")
    return f"""
{vectors.begin(kind)}
{_ALONG}
#if REGISTERS == 32
{both[0]}
#else
{both[1]}
#endif
{_WHOLE}
{vectors.END}
"""


_ALONG = """
// Otherwise GCC reloads from memory whatever is used more than once.
#if defined(__x86_64__)
#define KEEP(x) asm("" : "+v"(x))
#elif defined(__aarch64__)
#define KEEP(x) asm("" : "+w"(x))
#else
#define KEEP(x)
#endif
static inline I least(I a, I b) { return a < b ? a : b; }

struct Rows {
    const T* a; I down;
    const T* b; I across;
    T* out; I row;
    T alpha, beta;
    I depth;  // of whole vectors
    const T *a_rest, *b_rest;  // the rest of each row and column, padded with zeros; or null
};

// The sum of each of L vectors.
static inline V along(V* x) {
#pragma GCC unroll 4
    for (I half = L / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (I i = 0; i < half; i++) x[i] = LOW(x[i], x[i + half]) + HIGH(x[i], x[i + half]);
    return x[0];
}

template <int ROWS, int COLUMNS>
static inline void finish(const Rows& p, I i, I j, I columns, V* sums) {
    T made[(ROWS * COLUMNS + L - 1) / L * L];
    T* out = p.out + i * p.row + j;
#pragma GCC unroll 16
    for (I n = 0; n < ROWS * COLUMNS; n += L) *(V*)(made + n) = p.alpha * along(sums + n);
    if (p.beta != 0)
        for (I r = 0; r < ROWS; r++)
            for (I c = 0; c < columns; c++) made[r * COLUMNS + c] += p.beta * out[r * p.row + c];
    if (columns == COLUMNS)
        for (I r = 0; r < ROWS; r++)
            __builtin_memcpy(out + r * p.row, made + r * COLUMNS, COLUMNS * sizeof(T));
    else
        for (I r = 0; r < ROWS; r++)
            for (I c = 0; c < columns; c++) out[r * p.row + c] = made[r * COLUMNS + c];
}
"""


def _tile(rows: int, columns: int) -> str:
    """Return the function that computes ``rows`` by ``columns`` numbers, or fewer columns.

    Everything is unrolled, sum by sum, so that a compiler has little to do.
    """
    every = [(i, j) for i in range(rows) for j in range(columns)]
    zeros = ", ".join(f"s{i}_{j} = {{}}" for i, j in every)
    left = "\n".join(f"    const T* a{i} = p.a + (i + {i}) * p.down;" for i in range(rows))
    # The first column stands in for missing ones.
    right = "\n".join(
        f"    const I n{j} = j + ({j} < columns ? {j} : 0); const T* b{j} = p.b + n{j} * p.across;"
        for j in range(columns)
    )
    loads = ", ".join(f"x{i} = *(const V*)(a{i} + k)" for i in range(rows))
    rests = ", ".join(f"x{i} = *(const V*)(p.a_rest + (i + {i}) * L)" for i in range(rows))

    def sums(column: str) -> str:
        return "\n".join(
            f"        {{ V y = *(const V*)({column.format(j=j)}); KEEP(y); "
            f"{' '.join(f's{i}_{j} += x{i} * y;' for i in range(rows))} }}"
            for j in range(columns)
        )

    keep = " ".join(f"KEEP(x{i});" for i in range(rows))
    listed = ", ".join(f"s{i}_{j}" for i, j in every)
    return f"""
APART void tile{rows}x{columns}(const Rows& p, I i, I j, I columns) {{
    V {zeros};
{left}
{right}
    for (I k = 0; k < p.depth; k += L) {{
        V {loads}; {keep}
{sums("b{j} + k")}
    }}
    if (p.a_rest) {{
        V {rests}; {keep}
{sums("p.b_rest + n{j} * L")}
    }}
    V sums[({rows * columns} + L - 1) / L * L] = {{{listed}}};
    finish<{rows}, {columns}>(p, i, j, columns, sums);
}}
"""


_WHOLE = """
// Copies the ends of rows, padded with zeros to whole vectors.
static void ends(const T* from, I step, I count, I rest, T* to) {
    for (I i = 0; i < count; i++, from += step, to += L) {
        *(V*)to = V{};
        few(to, from, rest);
    }
}

extern "C" void NAME(void** p, const I* v) {
    const I rows = v[0], columns = v[1], depth = v[2], rest = depth % L, whole = depth - rest;
    Rows all = {(const T*)p[0], v[3], (const T*)p[1], v[4], (T*)p[2], v[5],
                *(const T*)p[3], *(const T*)p[4], whole, 0, 0};
    if (rest) {
        T* const room = (T*)p[5];
        ends(all.a + whole, v[3], rows, rest, room);
        ends(all.b + whole, v[4], columns, rest, room + rows * L);
        all.a_rest = room, all.b_rest = room + rows * L;
    }
    // A few columns at a time, which stay in cache for all rows.
    const I wide = rows > 1 ? 4 : 8;
    for (I j = 0; j < columns; j += wide) run(all, rows, j, least(wide, columns - j));
}
"""
