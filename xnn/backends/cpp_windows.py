"""C++ for windows over images on the CPU; see `xnn.backends.cpp_source`.

A kernel is specialised for one window and one size of images, so that the compiler knows the length
of every inner loop; ``v[0]`` is the number of images. Channels are contiguous, and the innermost
loop is over them.
"""

from __future__ import annotations

from functools import lru_cache

from . import cpp_source, strides
from .strides import Placement
from .windows import Window


def _constants(window: Window, image: Placement, place: Placement) -> str:
    """Return every kernel's constants: the window, images (I), and what is at its places (O)."""
    pairs = strides.named(window, image, place)
    told = "\n".join(f"const long long {name} = {value};" for name, value in pairs)
    return f"""{told}
const bool PADDED = {str(any(window.padding[0] + window.padding[1])).lower()};
const bool TIGHT = GAP_C == 1 && I_PIXEL == I_CHANNELS;  // a row of the window has no gaps
static inline bool inside(long long y, long long x) {{
    return !PADDED || (y >= 0 && y < I_HEIGHT && x >= 0 && x < I_WIDTH);
}}
"""


# Each place of the window on each image.
_PLACES = """
    for (long long s = 0; s < v[0]; s++)
    for (long long y = 0; y < O_HEIGHT; y++)
    for (long long x = 0; x < O_WIDTH; x++)"""

# Each pixel under a window at place (y, x).
_PIXELS = """
        for (long long r = 0; r < HIGH; r++)
        for (long long q = 0; q < WIDE; q++) {
            const long long py = y * STEP_R + r * GAP_R - TOP, px = x * STEP_C + q * GAP_C - LEFT;
            if (!inside(py, px)) continue;"""


# Zeroes all images, which are at p[…].
_ZERO = """
    for (long long s = 0; s < v[0]; s++)
    for (long long y = 0; y < I_HEIGHT; y++)
    for (long long x = 0; x < I_WIDTH; x++) {{
        T* pixel = (T*)p[{}] + s * I_IMAGE + y * I_ROW + x * I_PIXEL;
#pragma omp simd
        for (long long c = 0; c < I_CHANNELS; c++) pixel[c] = 0;
    }}"""


def _kernel(kind: str, window: Window, image: Placement, place: Placement, body: str) -> str:
    return f"""{cpp_source.head(kind)}
{_constants(window, image, place)}
extern "C" void NAME(void** p, const long long* v) {{{body}
}}
"""


@lru_cache(maxsize=256)
def unfold(kind: str, window: Window, image: Placement, place: Placement, by_rows: bool) -> str:
    """Return the kernel; at ``p``: images, columns.

    Rows are contiguous if ``by_rows``, otherwise columns, which start ``v[1]`` apart.
    """
    if by_rows:
        body = f"""{_PLACES} {{
        const T* images = (const T*)p[0] + s * I_IMAGE;
        T* columns = (T*)p[1] + s * O_IMAGE + y * O_ROW + x * O_PIXEL;
        for (long long r = 0; r < HIGH; r++) {{
            const long long py = y * STEP_R + r * GAP_R - TOP, px = x * STEP_C - LEFT;
            T* to = columns + r * WIDE * I_CHANNELS;
            const T* from = images + py * I_ROW + px * I_PIXEL;
            if (TIGHT && inside(py, px) && inside(py, px + WIDE - 1))
#pragma omp simd
                for (long long k = 0; k < WIDE * I_CHANNELS; k++) to[k] = from[k];
            else
                for (long long q = 0; q < WIDE; q++) {{
                    const bool there = inside(py, px + q * GAP_C);
#pragma omp simd
                    for (long long c = 0; c < I_CHANNELS; c++)
                        to[q * I_CHANNELS + c] = there ? from[q * GAP_C * I_PIXEL + c] : T(0);
                }}
        }}
    }}"""
    else:
        body = """
    for (long long s = 0; s < v[0]; s++)
    for (long long r = 0; r < HIGH; r++)
    for (long long q = 0; q < WIDE; q++)
    for (long long c = 0; c < I_CHANNELS; c++) {
        T* to = (T*)p[1] + ((r * WIDE + q) * I_CHANNELS + c) * v[1] + s * O_HEIGHT * O_WIDTH;
        for (long long y = 0; y < O_HEIGHT; y++) {
            const long long py = y * STEP_R + r * GAP_R - TOP, px = q * GAP_C - LEFT;
            const T* from = (const T*)p[0] + s * I_IMAGE + py * I_ROW + px * I_PIXEL + c;
            for (long long x = 0; x < O_WIDTH; x++)
                to[y * O_WIDTH + x] =
                    inside(py, px + x * STEP_C) ? from[x * STEP_C * I_PIXEL] : T(0);
        }
    }"""
    return _kernel(kind, window, image, place, body)


@lru_cache(maxsize=256)
def fold(kind: str, window: Window, image: Placement, place: Placement) -> str:
    """Return the kernel; at ``p``: columns, whose rows are contiguous, and images."""
    body = f"""{_ZERO.format(1)}{_PLACES} {{
        T* images = (T*)p[1] + s * I_IMAGE;
        const T* columns = (const T*)p[0] + s * O_IMAGE + y * O_ROW + x * O_PIXEL;
        for (long long r = 0; r < HIGH; r++) {{
            const long long py = y * STEP_R + r * GAP_R - TOP, px = x * STEP_C - LEFT;
            T* to = images + py * I_ROW + px * I_PIXEL;
            const T* from = columns + r * WIDE * I_CHANNELS;
            if (TIGHT && inside(py, px) && inside(py, px + WIDE - 1)) {{
#pragma omp simd
                for (long long k = 0; k < WIDE * I_CHANNELS; k++) to[k] += from[k];
            }} else
                for (long long q = 0; q < WIDE; q++) {{
                    if (!inside(py, px + q * GAP_C)) continue;
#pragma omp simd
                    for (long long c = 0; c < I_CHANNELS; c++)
                        to[q * GAP_C * I_PIXEL + c] += from[q * I_CHANNELS + c];
                }}
        }}
    }}"""
    return _kernel(kind, window, image, place, body)


@lru_cache(maxsize=256)
def max_pool(kind: str, index: str, window: Window, image: Placement, place: Placement) -> str:
    """Return the kernel; at ``p``: images, ``out``, and ``index``, which is contiguous."""
    body = f"""
    {index}* which = ({index}*)p[2];{_PLACES} {{
        T best[O_CHANNELS], *out = (T*)p[1] + s * O_IMAGE + y * O_ROW + x * O_PIXEL;
        int from[O_CHANNELS];
#pragma omp simd
        for (int c = 0; c < O_CHANNELS; c++) best[c] = -T(__builtin_inff()), from[c] = 0;
        {_PIXELS}
            const T* pixel = (const T*)p[0] + s * I_IMAGE + py * I_ROW + px * I_PIXEL;
            const int number = r * WIDE + q;
#pragma omp simd
            for (int c = 0; c < O_CHANNELS; c++) {{
                const T a = pixel[c], b = best[c];
                from[c] = a > b ? number : from[c];
                best[c] = (a != a) | (a > b) ? a : b;
            }}
        }}
#pragma omp simd
        for (int c = 0; c < O_CHANNELS; c++) out[c] = best[c];
#pragma omp simd
        for (int c = 0; c < O_CHANNELS; c++) which[c] = from[c];
        which += O_CHANNELS;
    }}"""
    return _kernel(kind, window, image, place, body)


@lru_cache(maxsize=256)
def max_pool_backward(
    kind: str, index: str, window: Window, image: Placement, place: Placement
) -> str:
    """Return the kernel; at ``p``: ``delta``, ``index``, which is contiguous, and images."""
    # If each pixel is met once, there is nothing to add to.
    tiles = window == Window(window.size, window.size)
    once = tiles and all(image[i] == place[i] * window.size[i] for i in (0, 1))
    body = f"""{"" if once else _ZERO.format(2)}
    const {index}* which = (const {index}*)p[1];{_PLACES} {{
        const T* delta = (const T*)p[0] + s * O_IMAGE + y * O_ROW + x * O_PIXEL;
        int from[O_CHANNELS];
#pragma omp simd
        for (int c = 0; c < O_CHANNELS; c++) from[c] = which[c];
        {_PIXELS}
            T* pixel = (T*)p[2] + s * I_IMAGE + py * I_ROW + px * I_PIXEL;
            const int number = r * WIDE + q;
#pragma omp simd
            for (int c = 0; c < O_CHANNELS; c++)
                pixel[c] {"" if once else "+"}= from[c] == number ? delta[c] : T(0);
        }}
        which += O_CHANNELS;
    }}"""
    return _kernel(kind, window, image, place, body)


@lru_cache(maxsize=256)
def sum_pool(kind: str, window: Window, image: Placement, place: Placement) -> str:
    """Return the kernel; at ``p``: images, ``out``."""
    body = f"""{_PLACES} {{
        T* out = (T*)p[1] + s * O_IMAGE + y * O_ROW + x * O_PIXEL;
#pragma omp simd
        for (long long c = 0; c < O_CHANNELS; c++) out[c] = 0;
        {_PIXELS}
            const T* pixel = (const T*)p[0] + s * I_IMAGE + py * I_ROW + px * I_PIXEL;
#pragma omp simd
            for (long long c = 0; c < O_CHANNELS; c++) out[c] += pixel[c];
        }}
    }}"""
    return _kernel(kind, window, image, place, body)


@lru_cache(maxsize=256)
def sum_pool_backward(kind: str, window: Window, image: Placement, place: Placement) -> str:
    """Return the kernel; at ``p``: ``delta``, images."""
    body = f"""{_ZERO.format(1)}{_PLACES} {{
        const T* delta = (const T*)p[0] + s * O_IMAGE + y * O_ROW + x * O_PIXEL;
        {_PIXELS}
            T* pixel = (T*)p[1] + s * I_IMAGE + py * I_ROW + px * I_PIXEL;
#pragma omp simd
            for (long long c = 0; c < O_CHANNELS; c++) pixel[c] += delta[c];
        }}
    }}"""
    return _kernel(kind, window, image, place, body)


@lru_cache(maxsize=256)
def resample(kind: str, image: Placement, out: Placement) -> str:
    """Return the kernel; at ``p``: images, rows and columns, and ``out``.

    Rows and columns are contiguous.
    """
    body = f"""
    const T *down = (const T*)p[1], *across = (const T*)p[2];{_PLACES} {{
        const T* images = (const T*)p[0] + s * I_IMAGE;
        T* out = (T*)p[3] + s * O_IMAGE + y * O_ROW + x * O_PIXEL;
        // Positions outside by more than a pixel are clamped to one, where the result is 0 too.
        const T row = minimum(maximum(*down++, T(-1)), T(I_HEIGHT));
        const T column = minimum(maximum(*across++, T(-1)), T(I_WIDTH));
        const long long top = (long long)(row + 1) - 1, left = (long long)(column + 1) - 1;
        const T low = row - top, right = column - left;
#pragma omp simd
        for (long long c = 0; c < I_CHANNELS; c++) out[c] = 0;
        for (int r = 0; r < 2; r++)
        for (int q = 0; q < 2; q++) {{
            if (top + r < 0 || top + r >= I_HEIGHT || left + q < 0 || left + q >= I_WIDTH) continue;
            const T weight = (r ? low : T(1) - low) * (q ? right : T(1) - right);
            const T* pixel = images + (top + r) * I_ROW + (left + q) * I_PIXEL;
#pragma omp simd
            for (long long c = 0; c < I_CHANNELS; c++) out[c] += weight * pixel[c];
        }}
    }}"""
    return _kernel(kind, Window((1, 1)), image, out, body)
