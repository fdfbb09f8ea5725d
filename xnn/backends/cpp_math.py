"""Functions of a number in C++ that compilers can vectorise: no branches, calls or tables.

Arguments are reduced to a small interval, where the Taylor series is short. Results are accurate to
three units in the last place, except below the smallest normal number. (Cody and Waite,
"Software manual for the elementary functions", 1980; Muller, "Elementary functions", third edition,
2016, chapters 11 and 13.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class _Kind:
    """A floating-point type, and how many terms series need for its full precision."""

    integer: str  # of the same size
    suffix: str  # of compiler builtins
    fraction: int  # bits
    exponent: int  # bits
    ends: tuple[int, int]  # where exp is 0 or infinity
    exp: int  # terms
    log: int


_KINDS = {
    "float": _Kind("int", "f", 23, 8, (-104, 89), exp=7, log=5),
    "double": _Kind("long long", "", 52, 11, (-746, 710), exp=13, log=11),
}


def functions(kind: str, formula: str) -> str:
    """Return the functions of a formula, for a C++ type ``T`` of numbers."""
    if kind not in _KINDS:
        return ""
    known = "".join(
        f"static inline T {name}(T a) {{ return __builtin_{name}{_KINDS[kind].suffix}(a); }}\n"
        for name in ("fabs", "sqrt", "sin", "cos")
    )
    ours = any(f"{name}(" in formula for name in ("exp", "sigmoid", "tanh", "log", "log1p"))
    return known + (_ours(kind) if ours else "")


@lru_cache(maxsize=2)
def _ours(kind: str) -> str:
    of = _KINDS[kind]
    bias = (1 << (of.exponent - 1)) - 1
    # (eʳ - 1 - r) / r² and (atanh s - s) / s³, from the last term to the first
    exp = " ".join(f"p = p * r + T({1 / math.factorial(i)!r});" for i in range(of.exp - 1, 1, -1))
    log = " ".join(f"p = p * q + T({1 / (2 * i + 1)!r});" for i in range(of.log - 1, 0, -1))
    return f"""
typedef {of.integer} Bits;
static inline Bits bits(T x) {{ Bits b; __builtin_memcpy(&b, &x, sizeof b); return b; }}
static inline T number(Bits b) {{ T x; __builtin_memcpy(&x, &b, sizeof x); return x; }}
static inline T power(Bits n) {{ return number((n + {bias}) << {of.fraction}); }}  // 2ⁿ

// ln 2 = {_LN2[0]} + {_LN2[1]!r}, the first in so few bits that n times it is exact.
struct Reduced {{ Bits n; T rest; }};  // eˣ = 2ⁿ (1 + rest)
static inline Reduced reduced(T x) {{
    const T far = {3 << (of.fraction - 1)};  // numbers so large have no fraction
    const T n = (x * T({1 / math.log(2)!r}) + far) - far;
    const T r = (x - n * T({_LN2[0]})) - n * T({_LN2[1]!r});
    T p = T({1 / math.factorial(of.exp)!r});
    {exp}
    return {{(Bits)(int)n, p * r * r + r}};
}}
static inline T exp(T x) {{
    x = x > T({of.ends[1]}) ? T({of.ends[1]}) : x < T({of.ends[0]}) ? T({of.ends[0]}) : x;
    const Reduced e = reduced(x);
    const Bits half = e.n >> 1;  // 2ⁿ may be out of range where eˣ is not
    return (T(1) + e.rest) * power(half) * power(e.n - half);
}}
static inline T sigmoid(T z) {{ return T(1) / (T(1) + exp(-z)); }}
static inline T tanh(T x) {{  // e / (e + 2) for e = exp 2x - 1
    const T most = {of.fraction + 1} * T({math.log(2) / 2!r}) + 1;
    x = x > most ? most : x < -most ? -most : x;
    const Reduced e = reduced(2 * x);
    const T less = e.rest * power(e.n) + (power(e.n) - T(1));
    return less / (less + T(2));
}}
// ln x = n ln 2 + 2 atanh s, where x = 2ⁿ m, √½ ≤ m < √2, s = (m - 1) / (m + 1)
static inline T log(T x) {{
    const Bits n = (bits(x) - bits(T({math.sqrt(0.5)!r}))) >> {of.fraction};
    const T m = number(bits(x) - (n << {of.fraction})), e = (T)(int)n, s = (m - T(1)) / (m + T(1));
    const T q = s * s;
    T p = T({1 / (2 * of.log + 1)!r});
    {log}
    const T found = e * T({_LN2[0]}) + (2 * s + (2 * s * q * p + e * T({_LN2[1]!r})));
    const T infinity = __builtin_inf();
    return x > 0 ? (x < infinity ? found : x) : x == 0 ? -infinity : T(__builtin_nan(""));
}}
static inline T log1p(T x) {{  // corrects for what 1 + x lost in rounding
    const T y = T(1) + x, lost = (y - T(1)) - x;
    return log(y) - (x < T(1e18) ? y > 0 ? lost / y : T(0) : T(0));
}}
"""


_LN2 = (0.693359375, -2.1219444005469058e-4)
