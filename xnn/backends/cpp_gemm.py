"""A matrix product in C++, also for shapes at which a BLAS wastes time: few rows or columns.

``out ← alpha · a @ b + beta · out`` is made of *tiles*: some rows by some vectors of ``out``, small
enough that their sums stay in registers while a loop runs over the depth. ``a`` is read in place,
number by number; so is ``b``, vector by vector, a *panel* of its columns at a time. They are packed
first only if their layout differs, or they are far apart or not whole vectors; a BLAS always packs
both. (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.)
"""

from __future__ import annotations

from functools import lru_cache

from . import blas_threads, cplusplus, strides
from . import cpp_vectors as vectors
from .base import Array

# Sums of fewer numbers are read and written as often as they are added to, which a BLAS with a path
# for small products does as well; but not if there are also few sums.
_FEW = 16
_LITTLE = 4096

# The depth is divided into blocks of _DEEPEST, or up to four times that for narrower panels; rows
# into blocks of 24, or more if these have fewer than _BLOCK numbers, up to _TALLEST.
_DEEPEST = 384
_BLOCK = 24 * _DEEPEST
_TALLEST = 192
# This many bytes are near, eight times as many fill the pages that a TLB holds, and this much of b
# is packed at a time.
_NEAR = 32 * 1024
_PACKED = 1024 * 1024

_Heights = dict[int, tuple[int, ...]]
# Tiles: for each number of vectors of columns, the numbers of rows. Processors with vectors of 64
# bytes have 32 registers for them, and so has ARM; the others have 16.
_OF_32: _Heights = {1: (12, 4, 2, 1), 2: (12, 4, 2, 1), 3: (8, 4, 2, 1), 4: (6, 4, 2, 1)}
_OF_16: _Heights = {1: (8, 4, 2, 1), 2: (6, 4, 2, 1)}


def suits(a: Array, b: Array, out: Array) -> bool:
    """Return whether the kernel is the faster way to ``a @ b``; rows of ``out`` are contiguous."""
    depth, columns = b.shape
    if columns < 4:
        return False
    deep = depth >= _FEW or out.size * depth <= _LITTLE
    return deep or not strides.by_columns(a) or not blas_threads.quick_where_small()


def kernel(a: Array, b: Array, out: Array) -> tuple[str, list[int], int]:
    """Return the kernel, the contents of ``v``, and how many bytes of workspace it needs."""
    depth, columns = b.shape
    vector = 64 // out.itemsize
    of_b = min(depth * (columns // vector + 1) * vector, _PACKED // out.itemsize)
    room = of_b + min(4 * _BLOCK, _TALLEST * depth)
    steps = [*strides.matrix(a), *strides.matrix(b), strides.row(out)]
    text = gemm(str(cplusplus.kind(out)), strides.by_columns(a))
    return text, [*out.shape, depth, *steps, of_b], room * out.itemsize


@lru_cache(maxsize=4)
def gemm(kind: str, a_by_columns: bool) -> str:
    """Return the kernel.

    At ``p``: ``a``, ``b``, ``out``, ``alpha``, ``beta``, workspace. In ``v``: rows, columns and
    depth; the row and column strides of ``a``, then of ``b``, one of each pair being 1; the row
    stride of ``out``; how many numbers of ``b`` fit in the workspace.
    """
    return f"""
{vectors.begin(kind)}
enum : I {{ WIDEST = REGISTERS / 8, MOST = 64, TALLEST = {_TALLEST} }};
enum : I {{ NEAR = {_NEAR} / sizeof(T), FAR = 8 * NEAR, DEEPEST = {_DEEPEST}, BLOCK = {_BLOCK} }};
{_PARTS}
{_tiles(_OF_32, _OF_16, a_by_columns)}
{_WHOLE}
{vectors.END}
"""


_PARTS = """
// Prefetches what is read four rows later.
#define SOON(j) if (j * BYTES % 64 == 0) __builtin_prefetch(b + 4 * p.next + j * L)

struct Panel {
    const T* a; I down, across;
    const T* b; I next;  // from row to row
    I depth;
    T* out; I row, columns;
    T alpha, beta;
};

// Transposes up to L rows of L numbers; columns for missing rows hold arbitrary numbers.
APART void transpose(const T* from, I row, I rows, T* to, I next) {
    V x[L], y[L];
#pragma GCC unroll 16
    for (I i = 0; i < L; i++) x[i] = *(const V*)(from + (i < rows ? i : 0) * row);
#pragma GCC unroll 4
    for (I turn = 1; turn < L; turn *= 2) {
#pragma GCC unroll 8
        for (I i = 0; i < L / 2; i++) {
            y[2 * i] = LOW(x[i], x[i + L / 2]);
            y[2 * i + 1] = HIGH(x[i], x[i + L / 2]);
        }
#pragma GCC unroll 16
        for (I i = 0; i < L; i++) x[i] = y[i];
    }
#pragma GCC unroll 16
    for (I i = 0; i < L; i++) *(V*)(to + i * next) = x[i];
}

// Copies the panel's part of b, rows padded to whole vectors with any numbers.
static void pack(Panel& p, I down, I across, T* to) {
    const I full = p.columns / L, rest = p.columns % L, width = (full + (rest > 0)) * L;
    I k = 0;
    if (across == 1)
        for (; k < p.depth; k++) {
            const T* from = p.b + k * down;
            for (I j = 0; j < full; j++) *(V*)(to + k * width + j * L) = *(const V*)(from + j * L);
            if (rest) *(V*)(to + k * width + full * L) = V{};
            few(to + k * width + full * L, from + full * L, rest);
        }
    else {
        for (; k + L <= p.depth; k += L)
            for (I j = 0; j < p.columns; j += L)
                transpose(p.b + j * across + k, across, p.columns - j, to + k * width + j, width);
        for (; k < p.depth; k++)
            for (I j = 0; j < width; j++)
                to[k * width + j] = p.b[k + (j < p.columns ? j : 0) * across];
    }
    p.b = to, p.next = width;
}

APART void finish(const Panel& p, const V* sums, I rows, I vectors) {
    const I full = p.columns / L, rest = p.columns % L;
    T* out = p.out;
    for (I i = 0; i < rows; i++, out += p.row, sums += vectors) {
        for (I j = 0; j < full; j++) {
            V* at = (V*)(out + j * L);
            *at = p.beta != 0 ? p.alpha * sums[j] + p.beta * *at : p.alpha * sums[j];
        }
        if (rest) {
            V made = p.alpha * sums[full], old = {};
            if (p.beta != 0) {
                few((T*)&old, out + full * L, rest);
                made += p.beta * old;
            }
            few(out + full * L, (const T*)&made, rest);
        }
    }
}

template <void TILE(const Panel&), int ROWS>
static inline void tiles(Panel& p, I& rows) {
    for (; rows >= ROWS; rows -= ROWS) {
        TILE(p);
        p.a += ROWS * p.down, p.out += ROWS * p.row;
    }
}
"""


def _tiles(of_32: _Heights, of_16: _Heights, columns: bool) -> str:
    """Return all tiles, and what applies them to a panel: the tallest that the rows allow.

    It leaves the panel at the next rows.
    """
    both = []
    for choice in (of_32, of_16):
        text = "".join(_tile(h, n, columns) for n, heights in choice.items() for h in heights)
        text += "static void run(Panel& p, I rows) {\n    switch ((p.columns + L - 1) / L) {\n"
        for n, heights in choice.items():
            calls = " ".join(f"tiles<tile{h}x{n}, {h}>(p, rows);" for h in heights)
            text += f"    case {n}: {calls} break;\n"
        both.append(text + "    }\n}\n")
    return "#if REGISTERS == 32\n{}#else\n{}#endif\n".format(*both)


def _tile(rows: int, vectors: int, by_columns: bool) -> str:
    """Return the function that computes a tile.

    Everything is unrolled, sum by sum, so that a compiler has little to do.
    """
    across = range(vectors)
    if by_columns:
        places, begin, go_on = (
            [f"a[{i}]" for i in range(rows)],
            "const T* a = p.a;",
            "a += p.across;",
        )
    else:  # a pointer per three rows: addressing adds the stride to it once or twice
        places = [f"a{i - i % 3}[{i % 3} * p.down]" for i in range(rows)]
        begin = " ".join(f"const T* a{i} = p.a + {i} * p.down;" for i in range(0, rows, 3))
        go_on = " ".join(f"a{i}++;" for i in range(0, rows, 3))
    zeros = ", ".join(f"s{i}_{j} = {{}}" for i in range(rows) for j in across)
    loads = ", ".join(f"b{j} = *(const V*)(b + {j} * L)" for j in across)
    soon = " ".join(f"SOON({j});" for j in across)
    sums = "\n".join(
        f"        {{ const T n = {place}; {' '.join(f's{i}_{j} += n * b{j};' for j in across)} }}"
        for i, place in enumerate(places)
    )
    listed = ", ".join(f"s{i}_{j}" for i in range(rows) for j in across)

    def written(value: str) -> str:
        return "\n".join(
            f"        {{ V* at = (V*)(p.out + {i} * p.row); "
            f"{' '.join(f'at[{j}] = {value.format(i=i, j=j)};' for j in across)} }}"
            for i in range(rows)
        )

    return f"""
APART void tile{rows}x{vectors}(const Panel& p) {{
    V {zeros};
    const T* b = p.b;
    {begin}
    for (I k = 0; k < p.depth; k++) {{
        const V {loads};
        {soon}
{sums}
        b += p.next; {go_on}
    }}
    if (p.columns != {vectors} * L) {{
        const V sums[] = {{{listed}}};
        finish(p, sums, {rows}, {vectors});
    }} else if (p.beta != 0) {{
{written("p.alpha * s{i}_{j} + p.beta * at[{j}]")}
    }} else {{
{written("p.alpha * s{i}_{j}")}
    }}
}}
"""


# Loops run over blocks of the depth, over as many of a block's panels of b as the workspace holds,
# and within that over blocks of rows. So a panel comes from one cache, and a block of rows of a,
# which each panel uses, from a nearer one.
_WHOLE = """
static inline I least(I a, I b) { return a < b ? a : b; }
static inline I up(I a, I b) { return (a + b - 1) / b; }

// Copies a block of columns, so that they lie on few pages.
static void gather(const T* from, I across, I depth, I rows, T* to, I next) {
    const I full = rows / L;
    for (I k = 0; k < depth; k++, from += across, to += next) {
        for (I i = 0; i < full; i++) *(V*)(to + i * L) = *(const V*)(from + i * L);
        few(to + full * L, from + full * L, rows % L);
    }
}

extern "C" void NAME(void** p, const I* v) {
    const I rows = v[0], columns = v[1], depth = v[2], row = v[7];
    const I vectors = up(columns, L), panels = up(vectors, WIDEST), widest = up(vectors, panels);
    const I wide = vectors - panels * (widest - 1);  // of the panels; others have a vector less
    const I deepest = up(depth, up(depth, DEEPEST * WIDEST / widest));
    const I block = least(TALLEST, up(BLOCK / deepest, 24) * 24);
    const bool packs = v[6] != 1 || (rows >= TALLEST && deepest * v[5] > NEAR);
    const bool gathers = v[3] == 1 && panels > 1 && deepest * v[4] > FAR;
    const I held = least(MOST, v[8] / (deepest * widest * L));
    const I group = rows > block || gathers ? up(panels, up(panels, held)) : 1;
    T *const of_b = (T*)p[5], *const of_a = of_b + v[8];
    Panel parts[MOST];
    for (I k = 0; k < depth; k += deepest)
        for (I first = 0, j = 0; first < panels; first += group) {
            const I deep = least(deepest, depth - k), count = least(group, panels - first);
            for (I n = 0; n < count; n++) {
                const I width = (widest - (first + n >= wide)) * L;
                parts[n] = {(const T*)p[0] + k * v[4], v[3], v[4],
                            (const T*)p[1] + k * v[5] + j * v[6], v[5], deep,
                            (T*)p[2] + j, row, least(width, columns - j),
                            *(const T*)p[3], k ? T(1) : *(const T*)p[4]};
                if (packs || parts[n].columns % L)
                    pack(parts[n], v[5], v[6], of_b + n * deepest * widest * L);
                if (gathers) parts[n].across = block;
                j += width;
            }
            const T* from = parts[0].a;
            for (I i = 0; i < rows; i += block, from += block) {
                const I high = least(block, rows - i);
                if (gathers) gather(from, v[4], deep, high, of_a, block);
                for (I n = 0; n < count; n++) {
                    if (gathers) parts[n].a = of_a;
                    run(parts[n], high);
                }
            }
        }
}
"""
