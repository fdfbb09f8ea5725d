"""CUDA C++ for windows over images and for random numbers. Text in, text out.

A kernel is specialised for one window and one size of images; their number is a parameter. No two
threads write to the same place: instead of scattering to pixels, each pixel gathers.

Indices are 32-bit where they fit, which `far` tells: dividing by a constant then takes a GPU three
instructions, and some twenty otherwise, and a kernel does little else.
"""

from __future__ import annotations

from functools import lru_cache

from . import cpu_random, strides
from .cpu_random import SPREAD
from .strides import Placement
from .windows import Window

# From this many numbers on, indices need 64 bits; a grid may reach beyond the last by a block.
_FAR = 2**31 - 1024


def far(images: int, *placements: Placement) -> bool:
    """Return whether indices into this many images, laid out like this, need 64 bits."""
    return any(images * placement[3] >= _FAR for placement in placements)


def _head(kind: str, window: Window, image: Placement, place: Placement, wide: bool) -> str:
    """Return the declarations of all kernels.

    The types T of numbers and I and U, signed and unsigned, of indices; the window; the layouts of
    images (I), and of what is at its places (O).
    """
    whole = "long long" if wide else "int"
    numbers = ", ".join(f"{name} = {value}" for name, value in strides.named(window, image, place))
    return f"""using T = {kind};
using I = {whole};
using U = unsigned {whole};
enum : I {{ {numbers} }};
"""


# Thread i takes one number of the places (O) or of the images (I): its image, row, pixel, channel.
_EACH = """
    U i = blockIdx.x * U(blockDim.x) + threadIdx.x;
    if (i >= U(n) * U({0}_HEIGHT * {0}_WIDTH * {0}_CHANNELS)) return;
    I c = i % U({0}_CHANNELS), x = i / U({0}_CHANNELS) % U({0}_WIDTH);
    I y = i / U({0}_CHANNELS * {0}_WIDTH) % U({0}_HEIGHT);
    I s = i / U({0}_CHANNELS * {0}_WIDTH * {0}_HEIGHT);
"""

# The pixels under the window at place (y, x).
_PIXELS = """
    for (int r = 0; r < HIGH; r++) for (int q = 0; q < WIDE; q++) {
        I py = y * STEP_R + r * GAP_R - TOP, px = x * STEP_C + q * GAP_C - LEFT;
        if (py < 0 || py >= I_HEIGHT || px < 0 || px >= I_WIDTH) continue;
        I pixel = s * I_IMAGE + py * I_ROW + px * I_PIXEL + c;
"""

# The places whose window covers pixel (y, x).
_PLACES = """
    for (int r = 0; r < HIGH; r++) for (int q = 0; q < WIDE; q++) {
        I oy = y + TOP - r * GAP_R, ox = x + LEFT - q * GAP_C;
        if (oy < 0 || ox < 0 || oy % STEP_R || ox % STEP_C) continue;
        oy /= STEP_R; ox /= STEP_C;
        if (oy >= O_HEIGHT || ox >= O_WIDTH) continue;
        I place = s * O_IMAGE + oy * O_ROW + ox * O_PIXEL;
"""


@lru_cache(maxsize=256)
def unfold(kind: str, window: Window, image: Placement, place: Placement, wide: bool) -> str:
    """Return the kernel ``run(n, images, columns)``."""
    return f"""{_head(kind, window, image, place, wide)}
extern "C" __global__ void run(long long n, const T* images, T* columns) {{
    constexpr U COLUMNS = HIGH * WIDE * I_CHANNELS;
    U i = blockIdx.x * U(blockDim.x) + threadIdx.x;
    if (i >= U(n) * (O_HEIGHT * O_WIDTH * COLUMNS)) return;
    U k = i % COLUMNS, at = i / COLUMNS;
    I c = k % U(I_CHANNELS), q = k / U(I_CHANNELS) % U(WIDE), r = k / U(I_CHANNELS * WIDE);
    I x = at % U(O_WIDTH), y = at / U(O_WIDTH) % U(O_HEIGHT), s = at / U(O_WIDTH * O_HEIGHT);
    I py = y * STEP_R + r * GAP_R - TOP, px = x * STEP_C + q * GAP_C - LEFT;
    bool inside = py >= 0 && py < I_HEIGHT && px >= 0 && px < I_WIDTH;
    columns[s * O_IMAGE + y * O_ROW + x * O_PIXEL + k] =
        inside ? images[s * I_IMAGE + py * I_ROW + px * I_PIXEL + c] : T(0);
}}
"""


@lru_cache(maxsize=256)
def fold(kind: str, window: Window, image: Placement, place: Placement, wide: bool) -> str:
    """Return the kernel ``run(n, columns, images)``."""
    return f"""{_head(kind, window, image, place, wide)}
extern "C" __global__ void run(long long n, const T* columns, T* images) {{{_EACH.format("I")}
    T sum = 0;{_PLACES}
        sum += columns[place + (r * WIDE + q) * I_CHANNELS + c];
    }}
    images[s * I_IMAGE + y * I_ROW + x * I_PIXEL + c] = sum;
}}
"""


@lru_cache(maxsize=256)
def max_pool(
    kind: str, index: str, window: Window, image: Placement, place: Placement, wide: bool
) -> str:
    """Return the kernel ``run(n, images, out, index)``; ``index`` is contiguous."""
    return f"""{_head(kind, window, image, place, wide)}
extern "C" __global__ void run(long long n, const T* images, T* out, {index}* index) {{
{_EACH.format("O")}
    T best = -T(__int_as_float(0x7f800000));
    int which = 0;{_PIXELS}
        T v = images[pixel];
        if (v > best) which = r * WIDE + q;
        best = v != v || v > best ? v : best;
    }}
    out[s * O_IMAGE + y * O_ROW + x * O_PIXEL + c] = best;
    index[i] = which;
}}
"""


@lru_cache(maxsize=256)
def max_pool_backward(
    kind: str, index: str, window: Window, image: Placement, place: Placement, wide: bool
) -> str:
    """Return the kernel ``run(n, delta, index, images)``; ``index`` is contiguous."""
    return f"""{_head(kind, window, image, place, wide)}
extern "C" __global__ void run(long long n, const T* delta, const {index}* index, T* images) {{
{_EACH.format("I")}
    T sum = 0;{_PLACES}
        I at = ((s * O_HEIGHT + oy) * O_WIDTH + ox) * O_CHANNELS + c;
        if (index[at] == r * WIDE + q) sum += delta[place + c];
    }}
    images[s * I_IMAGE + y * I_ROW + x * I_PIXEL + c] = sum;
}}
"""


@lru_cache(maxsize=256)
def sum_pool(kind: str, window: Window, image: Placement, place: Placement, wide: bool) -> str:
    """Return the kernel ``run(n, images, out)``."""
    return f"""{_head(kind, window, image, place, wide)}
extern "C" __global__ void run(long long n, const T* images, T* out) {{{_EACH.format("O")}
    T sum = 0;{_PIXELS}
        sum += images[pixel];
    }}
    out[s * O_IMAGE + y * O_ROW + x * O_PIXEL + c] = sum;
}}
"""


@lru_cache(maxsize=256)
def sum_pool_backward(
    kind: str, window: Window, image: Placement, place: Placement, wide: bool
) -> str:
    """Return the kernel ``run(n, delta, images)``."""
    return f"""{_head(kind, window, image, place, wide)}
extern "C" __global__ void run(long long n, const T* delta, T* images) {{{_EACH.format("I")}
    T sum = 0;{_PLACES}
        sum += delta[place + c];
    }}
    images[s * I_IMAGE + y * I_ROW + x * I_PIXEL + c] = sum;
}}
"""


@lru_cache(maxsize=256)
def resample(kind: str, image: Placement, place: Placement, wide: bool) -> str:
    """Return the kernel ``run(n, images, rows, columns, out)``."""
    return f"""{_head(kind, Window((1, 1)), image, place, wide)}
__device__ T pixel(const T* image, I y, I x, I c) {{
    bool inside = y >= 0 && y < I_HEIGHT && x >= 0 && x < I_WIDTH;
    return inside ? image[y * I_ROW + x * I_PIXEL + c] : T(0);
}}
extern "C" __global__ void run(long long n, const T* images, const T* rows, const T* columns,
                               T* out) {{{_EACH.format("O")}
    I at = (s * O_HEIGHT + y) * O_WIDTH + x;
    T row = fmin(fmax(rows[at], T(-1)), T(I_HEIGHT));
    T column = fmin(fmax(columns[at], T(-1)), T(I_WIDTH));
    T top = floor(row), left = floor(column), down = row - top, across = column - left;
    const T* image = images + s * I_IMAGE;
    I py = (I)top, px = (I)left;
    out[s * O_IMAGE + y * O_ROW + x * O_PIXEL + c] =
        (T(1) - down) * ((T(1) - across) * pixel(image, py, px, c) +
                         across * pixel(image, py, px + 1, c)) +
        down * ((T(1) - across) * pixel(image, py + 1, px, c) +
                across * pixel(image, py + 1, px + 1, c));
}}
"""


@lru_cache(maxsize=8)
def uniform(kind: str) -> str:
    """Return the kernel ``run(n, state, number, out, first)``; see `xnn.backends.cpu_random`."""
    return f"""
{cpu_random.cplusplus("__device__")}
extern "C" __global__ void run(long long n, const unsigned* state, long long number, {kind}* out,
                               long long first) {{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned base = mix(mix(state[0] + unsigned(number) * {SPREAD}u) + state[1]);
    unsigned bits = mix(unsigned(first + i) * {SPREAD}u + base);
    out[i] = {kind}((bits >> 8) + 1) * {kind}(1.0 / 16777216);
}}
"""


ADVANCE = """
extern "C" __global__ void run(unsigned* state) { state[1] += 1; }
"""
