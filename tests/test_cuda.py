"""The CUDA source of every kernel, compiled for every architecture; this needs no GPU.

The kernels are collected by running networks on an emulated GPU (`tests.emulated`).
"""

import ctypes
import functools
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

import xnn
from xnn.backends import cplusplus, formulas, gpu
from xnn.backends import cuda_source as cuda

from . import emulated, reference

#: Of CUDA's compiler: a release, and architectures that it knows.
COMPILERS = [(12, 70), (12, 80), (12, 90), (12, 100), (12, 120), (13, 75), (13, 90), (13, 120)]


@pytest.fixture(scope="module")
def sources():
    """Run every activation, cost, optimizer and kind of data once."""
    if emulated.COMPILER is None:
        pytest.skip("needs a C++ compiler")
    written = set()
    patch = pytest.MonkeyPatch()
    patch.setattr(emulated.RawKernel, "compile", lambda kernel: written.add(kernel.code))
    gpu._kernel.cache_clear()
    rng = np.random.default_rng(0)

    def run(layers, cost, x, y, dtype="float32", optimizer=1e-3):
        net = xnn.Network([4, *layers], cost, seed=0, device="emulated", dtype=dtype)
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
        {"momentum": 0.5, "lmbda": 1.0},
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
        net = xnn.Network(layers, seed=0, device="emulated", dtype=dtype)
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
    # As with networks that are too large to run here.
    for name, value in (("long_formula", 1), ("small_product", 0), ("long_product", 16)):
        patch.setattr(emulated.EmulatedBackend, name, value)
    patch.setattr(gpu, "_LEAST", 16)
    patch.setattr(gpu, "_FEW", 0)
    for hidden, dtype in itertools.product(reference.ACTIVATIONS, ("float32", "float64")):
        many = np.tile(x, (3, 1)), np.tile(rows, (3, 1))
        run([xnn.Dense(5, hidden), xnn.Dense(3)], "quadratic", *many, dtype)
    patch.undo()
    gpu._kernel.cache_clear()
    return sorted(written)


@functools.cache
def nvrtc(release):
    """Return CUDA's compiler of a release, from NVIDIA's package for Python."""
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations if package else ():
        for path in Path(folder).glob(f"*/lib/libnvrtc.so.{release}"):
            # Some releases look for the second library on the system's path alone.
            for other in path.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(other))
            return ctypes.CDLL(str(path))
    pytest.skip(f"needs {'nvidia-cuda-nvrtc-cu12' if release == 12 else 'nvidia-cuda-nvrtc'}")


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
    # As CuPy does, which flushes denormals to zero.
    flags = [b"-std=c++17", b"-ftz=true", f"--gpu-architecture=sm_{architecture}".encode()]
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
        "const Some some_z",
        "some[k * rows * columns + row]",
        "*found = 1",
    ):
        assert any(words in text for text in sources), words
    assert len(sources) > 60


@pytest.mark.parametrize(("release", "architecture"), COMPILERS)
def test_every_kernel_compiles(sources, release, architecture):
    good, log = compile_with(nvrtc(release), together(sources), architecture)
    assert good, log


@pytest.mark.parametrize("release", [12, 13])
def test_what_is_wrong_does_not_compile(release):
    wrong = cuda.softmax("float").replace("= warp_sum(", "= warp_son(")
    good, log = compile_with(nvrtc(release), wrong, 80)
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
