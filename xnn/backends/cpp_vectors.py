"""The preamble of matrix product kernels: vectors as long as the processor's."""

from __future__ import annotations

#: The end of these kernels.
END = "#pragma GCC pop_options"


def begin(kind: str) -> str:
    """Return the preamble of a kernel for numbers of a C type: T, vectors V of L of them, etc."""
    integer, size = {"float": ("int", 4), "double": ("long long", 8)}[kind]
    return f"""
#pragma GCC push_options
#pragma GCC optimize("O2")
#if defined(__AVX512F__) || defined(__ARM_NEON)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#if defined(__clang__)
#define APART static __attribute__((noinline, min_vector_width(8 * BYTES)))
#else
#define APART static __attribute__((noinline))
#endif
typedef long long I;
typedef {kind} T;
typedef T V __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
typedef {integer} M __attribute__((vector_size(BYTES)));
enum : I {{ L = BYTES / sizeof(T) }};
{_mixes(size)}
{_FEW}
"""


def _mixes(size: int) -> str:
    """Return LOW and HIGH, which interleave the first or the last halves of two vectors."""
    text = """
#if defined(__clang__)
#define MIX(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define MIX(x, y, ...) __builtin_shuffle(x, y, M{__VA_ARGS__})
#endif
"""
    for length in (2, 4, 8, 16):
        for name, first in (("LOW", 0), ("HIGH", length // 2)):
            turns = ", ".join(f"{first + i}, {first + i + length}" for i in range(length // 2))
            text += f"""
#if BYTES == {length * size}
#define {name}(x, y) MIX(x, y, {turns})
#endif"""
    return text


_FEW = """
template <int SIZE> static inline void some(T*& to, const T*& from) {
    __builtin_memcpy(to, from, SIZE * sizeof(T));
    to += SIZE, from += SIZE;
}
// Fewer numbers than a vector has.
static inline void few(T* to, const T* from, I count) {
    if (L > 8 && count & 8) some<8>(to, from);
    if (L > 4 && count & 4) some<4>(to, from);
    if (L > 2 && count & 2) some<2>(to, from);
    if (count & 1) some<1>(to, from);
}
"""
