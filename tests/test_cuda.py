"""The CUDA source of every kernel, compiled for every architecture; that needs no GPU.

Which kernels there are is found by running networks on a stand-in device that writes down the
source of each operation that it is asked for, by the very functions that the GPU's backend calls.
"""

import ctypes
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

import xnn
from xnn.backends import cplusplus, formulas, gpu, strides
from xnn.backends import cuda_source as cuda
from xnn.backends import cuda_windows as windows

from . import reference, standin

ARCHITECTURES = [70, 80, 90, 100, 120]


class Writer(standin.StandInBackend):
    """A stand-in that notes the CUDA source of all it does."""

    by_rows = gpu.GpuBackend.by_rows
    sources: set[str] = set()  # noqa: RUF012 - shared on purpose

    def elementwise(self, formula, out, **operands):
        used = {name: operands[name] for name in sorted(cplusplus.names(formula))}
        text = cuda.elementwise(formula, cuda.ctype(out.dtype), cuda.operand_types(used))
        self.sources.add(text)
        super().elementwise(formula, out, **operands)

    def update(self, program, **operands):
        swept = frozenset(n for n, v in operands.items() if isinstance(v, standin.Array) and v.ndim)
        self.sources.add(cuda.update(program, cuda.operand_types(operands), swept))
        super().update(program, **operands)

    def copy(self, source, out):
        if isinstance(source, standin.Array):
            kinds = (("a", cuda.ctype(source.dtype)),)
            self.sources.add(cuda.elementwise("a", cuda.ctype(out.dtype), kinds))
        super().copy(source, out)

    def softmax(self, z, out):
        self.sources.add(cuda.softmax(cuda.ctype(out.dtype)))
        super().softmax(z, out)

    def row_sums(self, values, out):
        self.sources.add(cuda.row_sums(cuda.ctype(out.dtype)))
        super().row_sums(values, out)

    def argmax(self, values, out):
        self.sources.add(cuda.argmax(cuda.ctype(values.dtype)))
        super().argmax(values, out)

    def unfold(self, x, out, window):
        image, place = strides.lie(x), strides.places(out, x, window)
        self.sources.add(windows.unfold(cuda.ctype(x.dtype), window, image, place))
        super().unfold(x, out, window)

    def fold(self, columns, out, window):
        image, place = strides.lie(out), strides.places(columns, out, window)
        self.sources.add(windows.fold(cuda.ctype(out.dtype), window, image, place))
        super().fold(columns, out, window)

    def max_pool(self, x, out, index, window):
        kinds = cuda.ctype(x.dtype), cuda.ctype(index.dtype)
        self.sources.add(windows.max_pool(*kinds, window, strides.lie(x), strides.lie(out)))
        super().max_pool(x, out, index, window)

    def max_unpool(self, delta, index, out, window):
        kinds = cuda.ctype(out.dtype), cuda.ctype(index.dtype)
        self.sources.add(windows.max_unpool(*kinds, window, strides.lie(out), strides.lie(delta)))
        super().max_unpool(delta, index, out, window)

    def pool_sums(self, x, out, window):
        kind = cuda.ctype(x.dtype)
        self.sources.add(windows.pool_sums(kind, window, strides.lie(x), strides.lie(out)))
        super().pool_sums(x, out, window)

    def pool_spread(self, delta, out, window):
        kind = cuda.ctype(out.dtype)
        self.sources.add(windows.pool_spread(kind, window, strides.lie(out), strides.lie(delta)))
        super().pool_spread(delta, out, window)

    def resample(self, x, rows, columns, out):
        self.sources.add(windows.resample(cuda.ctype(x.dtype), strides.lie(x), strides.lie(out)))
        super().resample(x, rows, columns, out)

    def uniform(self, dice, number, out, first=0):
        self.sources.add(windows.uniform(cuda.ctype(out.dtype)))
        super().uniform(dice, number, out, first)

    def advance(self, dice):
        self.sources.add(windows.ADVANCE)
        super().advance(dice)

    def gather(self, source, index, out):
        kinds = (cuda.ctype(array.dtype) for array in (source, index, out))
        self.sources.add(cuda.gather(*kinds))
        super().gather(source, index, out)


@pytest.fixture(scope="module")
def sources():
    """Run every activation, cost, optimizer and kind of data once."""
    patch = pytest.MonkeyPatch()
    patch.setitem(xnn.backends.KINDS, "writer", Writer)
    Writer.sources = set()
    rng = np.random.default_rng(0)

    def run(layers, cost, x, y, dtype="float32", optimizer=1e-3):
        net = xnn.Network([4, *layers], cost, seed=0, device="writer", dtype=dtype)
        net.fit(x, y, epochs=1, optimizer=optimizer, validation_data=(x, y))
        net.predict(x[:1])
        net.predict(x[:1])
        net.backprop(x, y)

    x = rng.integers(0, 256, (20, 4)).astype(np.uint8)
    rows = np.eye(3)[rng.integers(0, 3, 20)]
    for (cost, output), dtype in itertools.product(reference.OUTPUTS, ("float32", "float64")):
        run([xnn.Dense(3, output)], cost, x, rows, dtype)
    for hidden in reference.ACTIVATIONS:
        run([xnn.Dense(5, hidden), xnn.Dense(3)], "quadratic", x, rows)
    for options in (
        {"momentum": 0.5, "weight_decay": 1.0},
        {"momentum": 0.5, "nesterov": True, "weight_decay": 1.0},
        {"clip_norm": 1.0, "clip_value": 1.0},
        {"clip_value": 1.0},
        {"weight_decay": 1.0},
    ):
        run([xnn.Dense(3)], "quadratic", x, rows, optimizer=xnn.SGD(1e-3, **options))
    images = rng.integers(0, 256, (20, 11, 10, 2)).astype(np.uint8)
    for dtype in ("float32", "float64"):
        layers = [
            (11, 10, 2),
            xnn.RandomAffine(1, 10, 0.1, 5),
            xnn.ElasticTransform(),
            xnn.RandomErasing(),
            xnn.Conv2D(4, (3, 2), "relu", stride=(2, 1), padding="same", groups=2),
            xnn.BatchNorm(),
            xnn.MaxPool2D(3, stride=1, padding=1),
            xnn.Conv2D(3, 2, dilation=2),
            xnn.Activation("tanh"),
            xnn.AveragePool2D(2, padding="same"),
            xnn.Dropout(0.2),
            xnn.GlobalAveragePool2D(),
        ]
        net = xnn.Network(layers, seed=0, device="writer", dtype=dtype)
        net.fit(images, rows, epochs=1, validation_data=(images, rows))
        net.backprop(images, rows)
    for optimizer in (
        xnn.RMSprop(),
        xnn.RMSprop(momentum=0.5, centered=True, weight_decay=1.0),
        xnn.Adam(weight_decay=1.0, clip_norm=1.0),
        xnn.Averaged(xnn.AdamW()),
    ):
        for dtype in ("float32", "float64"):
            run([xnn.Dense(3)], "quadratic", x, rows, dtype, optimizer)
    run([xnn.Dense(1)], "cross_entropy", x, rng.integers(0, 2, 20))
    for kind in ("bool", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)), "float64"):
        labels = rng.integers(0, 2, 20).astype(kind if "int" in kind else "int64")
        run([xnn.Dense(3)], "quadratic", x.astype(kind), labels)
    patch.undo()
    return sorted(Writer.sources)


@pytest.fixture(scope="module")
def nvrtc():
    found = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.cuda_nvrtc")
    if not found:
        pytest.skip("needs nvidia-cuda-nvrtc-cu12")
    folder = Path(next(iter(found.submodule_search_locations)), "lib")
    return ctypes.CDLL(str(next(folder.glob("libnvrtc.so.*"))))


def together(sources):
    """Return kernels as one program, each in a namespace of its own: a tenth of the time."""
    spaces = (
        f"namespace kernel{i} {{\n{text.replace(' run(', f' run{i}(')}\n}}"
        for i, text in enumerate(sources)
    )
    return "\n".join(spaces)


def compile_with(nvrtc, text, architecture):
    """Return NVRTC's log, and whether it compiled without a warning."""
    program = ctypes.c_void_p()
    made = nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"x.cu", 0, None, None)
    assert made == 0
    flags = [b"-std=c++17", f"--gpu-architecture=sm_{architecture}".encode()]
    status = nvrtc.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    lines = [line for line in log.value.decode().splitlines() if line and "deprecated" not in line]
    return status == 0 and not lines, "\n".join(lines)


def test_there_are_kernels_of_every_kind(sources):
    for words in (
        "warp_maximum(most)",
        "warp_sum(sum)",
        "before(T a",
        "index[row]",
        "columns[s *",
        "columns[place",
        "which",
        "index[at]",
        "images[pixel]",
        "unsigned mix",
        "const T* rows",
        "sigmoid(v_z)",
        "p_m[i] = v_m; p_v[i] = v_v;",
    ):
        assert any(words in text for text in sources), words
    assert len(sources) > 60


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles(sources, nvrtc, architecture):
    good, log = compile_with(nvrtc, together(sources), architecture)
    assert good, log


def test_what_is_wrong_does_not_compile(nvrtc):
    good, log = compile_with(nvrtc, cuda.softmax("float").replace("= warp_sum(", "= warp_son("), 80)
    assert not good
    assert "warp_son" in log


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("a * (1 - a) * e", "((v_a * (T(1) - v_a)) * v_e)"),
        ("-(a > 0)**2", "(-square(T(v_a > T(0))))"),
        ("maximum(abs(a), 0.01)", "maximum(fabs(v_a), T(0.01))"),
    ],
)
def test_formula_as_cplusplus(formula, text):
    assert cplusplus.expression(formulas.parse(formula)) == text


def test_dtypes_that_a_gpu_has_not():
    with pytest.raises(ValueError, match="dtype complex64 cannot be used on a GPU"):
        cuda.ctype(np.dtype("complex64"))
