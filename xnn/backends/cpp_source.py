"""C++ for operations on the CPU. Text in, text out; see `xnn.backends.compiler` for what a text is.

Sizes and strides are counted in elements. A stride that is always 1 or 0 is in the text, so that
the compiler can vectorise.
"""

from __future__ import annotations

from functools import lru_cache

from . import cplusplus, cpp_math, cpu_random, denormals, formulas
from .cpu_random import SPREAD

# Functions that NumPy vectorises and a compiler does not, …
_SLOW = {"sin", "cos"}
# … which matters beyond this many numbers.
_FEW = 512

#: Calls the ``gemm`` of a BLAS with 13 pointers; its address comes last.
GEMM = f"""
extern "C" void NAME(void** p, const long long* v) {{
    ((void (*)({", ".join(["void*"] * 13)}))p[13])({", ".join(f"p[{i}]" for i in range(13))});
}}
"""


def suits(text: str, size: int) -> bool:
    """Return whether a formula or program is faster in C++ than in NumPy calls."""
    return size <= _FEW or not any(f"{name}(" in text for name in _SLOW)


def head(kind: str, formula: str = "") -> str:
    """Return the preamble of a kernel that computes a formula on numbers of one kind."""
    functions = cplusplus.functions("static inline") + cpp_math.functions(kind, formula)
    return f"typedef {kind} T;{functions}"


@lru_cache(maxsize=1024)
def elementwise(
    formula: str, out: str, step: int, operands: tuple[tuple[str, str | None, int], ...]
) -> str:
    """Return the kernel that evaluates a formula.

    ``operands`` are names, C++ types (None for a number) and strides within a row; ``step`` is that
    stride of ``out``. A stride of 2 stands for any other than 0 or 1. At ``p``: ``out``, then the
    operands in order. In ``v``: rows and columns; for ``out`` and each operand, the stride from row
    to row and that within a row.
    """
    before: list[str] = []
    within: list[str] = []
    for at, (name, kind, stride) in enumerate(operands, start=1):
        if kind is None:
            before.append(f"const T v_{name} = *(const T*)p[{at}];")
            continue
        before.append(f"const {kind}* p_{name} = (const {kind}*)p[{at}] + row * v[{2 + 2 * at}];")
        load = f"const T v_{name} = T(p_{name}[{_times('j', stride, 3 + 2 * at)}]);"
        (within if stride else before).append(load)
    tree = formulas.parse(formula)
    return f"""{head(out, formula)}
extern "C" void NAME(void** p, const long long* v) {{
    const long long rows = v[0], columns = v[1];
    for (long long row = 0; row < rows; row++) {{
        T* out = (T*)p[0] + row * v[2];
        {" ".join(before)}
#pragma omp simd
        for (long long j = 0; j < columns; j++) {{
            {" ".join(within)}
            out[{_times("j", step, 3)}] = {cplusplus.expression(tree)};
        }}
    }}
}}
"""


def _times(index: str, stride: int, at: int) -> str:
    return {0: "0", 1: index}.get(stride, f"{index} * v[{at}]")


@lru_cache(maxsize=256)
def update(
    program: str, kind: str, operands: tuple[tuple[str, str | None], ...], swept: frozenset[str]
) -> str:
    """Return the kernel of a program. At ``p``: the operands in order; in ``v``: the size.

    The type of a number is None. Those ``swept`` are arrays, other arrays hold one number.
    """
    lines, written = cplusplus.statements(program, frozenset(name for name, _ in operands))
    before, within = [], []
    for at, (name, other) in enumerate(operands):
        if name in swept:
            before.append(f"T* p_{name} = (T*)p[{at}];")
            within.append(f"T v_{name} = p_{name}[i];")
        else:
            before.append(f"const T v_{name} = T(*(const {other or 'T'}*)p[{at}]);")
    stores = [f"p_{name}[i] = v_{name};" for name, _ in operands if name in written]
    return f"""{head(kind, program)}
extern "C" void NAME(void** p, const long long* v) {{
    const long long size = v[0];
    {" ".join(before)}
#pragma omp simd
    for (long long i = 0; i < size; i++) {{
        {" ".join(within)}
        {" ".join(lines)}
        {" ".join(stores)}
    }}
}}
"""


_AHEAD = 8  # rows


@lru_cache(maxsize=256)
def gather(source: str, index: str, out: str) -> str:
    """Return the kernel that copies the rows that an index names.

    At ``p``: the rows, the index, ``out``. In ``v``: how many, their length, the row strides of
    the source and of ``out``, and how many rows the source has.
    """
    return f"""
extern "C" void NAME(void** p, const long long* v) {{
    const {index}* index = (const {index}*)p[1];
    auto row = [&](long long i) {{
        const long long at = index[i];
        return (const {source}*)p[0] + (at < 0 ? 0 : at < v[4] ? at : v[4] - 1) * v[2];
    }};
    for (long long i = 0; i < v[0]; i++) {{
        if (i + {_AHEAD} < v[0]) {{  // rows are scattered: prefetched while others are copied
            const char* next = (const char*)row(i + {_AHEAD});
            for (long long k = 0; k < v[1] * (long long)sizeof({source}); k += 64)
                __builtin_prefetch(next + k);
        }}
        const {source}* from = row(i);
        {out}* to = ({out}*)p[2] + i * v[3];
#pragma omp simd
        for (long long j = 0; j < v[1]; j++) to[j] = ({out})from[j];
    }}
}}
"""


_CALL = """
static inline void call(void** p) {
    ((void (*)(void**, const long long*))p[0])((void**)p[1], (const long long*)p[2]);
}
"""

# As `denormals.switches`, in a hundredth of the time.
_FLUSH = f"""
#if defined(__x86_64__)
static inline unsigned flush() {{
    const unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | {denormals.BITS["x86_64"]});
    return before;
}}
static inline void leave(unsigned before) {{ __builtin_ia32_ldmxcsr(before); }}
#elif defined(__aarch64__)
static inline unsigned long long flush() {{
    unsigned long long before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | {denormals.BITS["aarch64"]}));
    return before;
}}
static inline void leave(unsigned long long before) {{
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
}}
#else
static inline int flush() {{ return 0; }}
static inline void leave(int) {{}}
#endif
"""

#: Plays kernels, with denormals treated as zero. At ``p``: three pointers for each, its function
#: and its two arguments. In ``v``: how many there are.
PLAY = f"""{_CALL}{_FLUSH}
extern "C" void NAME(void** p, const long long* v) {{
    const auto before = flush();
    for (long long i = 0; i < v[0]; i++) call(p + 3 * i);
    leave(before);
}}
"""

#: Plays kernels several times. At ``p``: three pointers for each; then the addresses of the numbers
#: that grow from one time to the next, and are afterwards as before. In ``v``: how many times, how
#: many kernels, how many such numbers, and by how much each grows.
EACH = f"""{_CALL}
extern "C" void NAME(void** p, const long long* v) {{
    const long long n = v[2], *growth = v + 3;
    long long** numbers = (long long**)(p + 3 * v[1]);
    for (long long time = 0; time < v[0]; time++) {{
        for (long long i = 0; i < v[1]; i++) call(p + 3 * i);
        for (long long i = 0; i < n; i++) *numbers[i] += growth[i];
    }}
    for (long long i = 0; i < n; i++) *numbers[i] -= v[0] * growth[i];
}}
"""

# A box holds a kernel to be called by a thread that serves it. Whichever thread calls the kernel
# takes it out first: the serving one, or the one that put it there, once its own kernel is done.
_BOX = f"""{_CALL}
enum : long long {{ EMPTY, FULL, TAKEN, DONE }};
struct Box {{ long long state; void** kernel; }};
static inline bool take(Box* box) {{
    long long full = FULL;
    return __atomic_compare_exchange_n(&box->state, &full, TAKEN, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}}
extern "C" int sched_yield(void);
static inline void wait(long long turn) {{
    if (turn % 4096 == 4095) sched_yield();
    for (int i = 0; i < 16; i++) __asm__ volatile("" ::: "memory");
}}
"""

#: Plays kernels concurrently. At ``p``: a box for each but the first, then three pointers for each
#: as for `PLAY`. In ``v``: how many there are.
LANES = f"""{_BOX}
extern "C" void NAME(void** p, const long long* v) {{
    void** kernels = p + v[0] - 1;
    for (long long i = 1; i < v[0]; i++) {{
        Box* box = (Box*)p[i - 1];
        box->kernel = kernels + 3 * i;
        __atomic_store_n(&box->state, FULL, __ATOMIC_RELEASE);
    }}
    call(kernels);
    for (long long i = 1; i < v[0]; i++) {{
        Box* box = (Box*)p[i - 1];
        if (take(box))
            call(box->kernel);
        else
            for (long long turn = 0; __atomic_load_n(&box->state, __ATOMIC_ACQUIRE) != DONE; turn++)
                wait(turn);
        box->state = EMPTY;
    }}
}}
"""

#: Serves a box until told to stop. At ``p``: the box, and a number that is then not 0.
SERVE = f"""{_BOX}
extern "C" void NAME(void** p, const long long* v) {{
    Box* box = (Box*)p[0];
    for (long long turn = 0; !__atomic_load_n((long long*)p[1], __ATOMIC_ACQUIRE); turn++) {{
        if (__atomic_load_n(&box->state, __ATOMIC_RELAXED) != FULL || !take(box)) {{
            wait(turn);
            continue;
        }}
        call(box->kernel);
        __atomic_store_n(&box->state, DONE, __ATOMIC_RELEASE);
    }}
}}
"""


@lru_cache(maxsize=8)
def softmax(kind: str) -> str:
    """Return the kernel; at ``p``: ``z``, ``out``; in ``v``: rows, columns, their row strides."""
    return f"""{head(kind, "exp(")}
extern "C" void NAME(void** p, const long long* v) {{
    const long long rows = v[0], columns = v[1];
    auto to = [&](long long row) {{ return (T*)p[1] + row * v[3]; }};
    for (long long row = 0; row < rows; row++) {{
        const T* z = (const T*)p[0] + row * v[2];
        T *out = to(row), most = z[0];
        for (long long j = 1; j < columns; j++) most = maximum(most, z[j]);
        for (long long j = 0; j < columns; j++) out[j] = z[j] - most;
    }}
    const long long joined = v[3] == columns ? rows : 1;  // so that vectors may span rows
    for (long long row = 0; row < rows; row += joined) {{
        T* out = to(row);
#pragma omp simd
        for (long long j = 0; j < joined * columns; j++) out[j] = exp(out[j]);
    }}
    for (long long row = 0; row < rows; row++) {{
        T *out = to(row), sum = 0;
        for (long long j = 0; j < columns; j++) sum += out[j];
        for (long long j = 0; j < columns; j++) out[j] /= sum;
    }}
}}
"""


@lru_cache(maxsize=8)
def row_sums(kind: str) -> str:
    """Return the kernel; at ``p``: values and ``out``; in ``v``: rows, columns, the stride."""
    return f"""
extern "C" void NAME(void** p, const long long* v) {{
    for (long long row = 0; row < v[0]; row++) {{
        const {kind}* values = (const {kind}*)p[0] + row * v[2];
        double total = 0;  // of sums so short that little is lost in them
        for (long long first = 0; first < v[1]; first += 1024) {{
            const long long stop = first + 1024 < v[1] ? first + 1024 : v[1];
            {kind} sum = 0;
#pragma omp simd reduction(+ : sum)
            for (long long j = first; j < stop; j++) sum += values[j];
            total += sum;
        }}
        (({kind}*)p[1])[row] = ({kind})total;
    }}
}}
"""


@lru_cache(maxsize=8)
def finite(kind: str) -> str:
    """Return the kernel that adds 1 to a counter if not all numbers are finite.

    At ``p``: values, and the counter. In ``v``: rows, columns, the stride.
    """
    return f"""
extern "C" void NAME(void** p, const long long* v) {{
    {kind} sums[64] = {{}}, sum = 0;  // of 0 times a number, which is 0 where that is finite
    for (long long first = 0; first < v[1]; first += 64) {{
        const long long columns = v[1] - first < 64 ? v[1] - first : 64;
        for (long long row = 0; row < v[0]; row++) {{
            const {kind}* values = (const {kind}*)p[0] + row * v[2] + first;
#pragma omp simd
            for (long long j = 0; j < columns; j++) sums[j] += 0 * values[j];
        }}
    }}
    for (long long j = 0; j < 64; j++) sum += sums[j];
    *(long long*)p[1] += !(sum == 0);
}}
"""


@lru_cache(maxsize=8)
def argmax(kind: str, index: str) -> str:
    """Return the kernel; at ``p``: values and ``out``; in ``v``: rows, columns, the stride."""
    return f"""
extern "C" void NAME(void** p, const long long* v) {{
    for (long long row = 0; row < v[0]; row++) {{
        const {kind}* values = (const {kind}*)p[0] + row * v[2];
        long long best = 0;
        for (long long j = 1; j < v[1]; j++)  // NaN is the largest, as in NumPy
            if (!(values[j] <= values[best]) && values[best] == values[best]) best = j;
        (({index}*)p[1])[row] = best;
    }}
}}
"""


#: Adds 1 to the counter of the random numbers, whose state is at ``p``.
ADVANCE = """
extern "C" void NAME(void** p, const long long* v) { ((unsigned*)p[0])[1] += 1; }
"""


@lru_cache(maxsize=8)
def uniform(kind: str) -> str:
    """Return the kernel of `xnn.backends.cpu_random`.

    At ``p``: the state and ``out``. In ``v``: the size, the layer's number, and the first position.
    """
    return f"""
{cpu_random.cplusplus("static inline")}
extern "C" void NAME(void** p, const long long* v) {{
    const unsigned* state = (const unsigned*)p[0];
    {kind}* out = ({kind}*)p[1];
    const unsigned base = mix(mix(state[0] + unsigned(v[1]) * {SPREAD}u) + state[1]);
#pragma omp simd
    for (long long i = 0; i < v[0]; i++) {{
        unsigned bits = mix(unsigned(v[2] + i) * {SPREAD}u + base);
        out[i] = {kind}(int(bits >> 8) + 1) * {kind}(1.0 / 16777216);
    }}
}}
"""
