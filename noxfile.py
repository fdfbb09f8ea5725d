"""All checks: `nox` runs what must pass on each system, `nox --list` shows all."""

import os
import shutil

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests"]

BACKENDS = ["cpu", "standin", "gpu"]
# As many at a time as there are cores; for tests on a GPU, one at a time.
PARALLEL = ("pytest", "-n", "auto")
# Extras that tests use, but can do without.
OPTIONAL = ["sklearn", "plot", "onnx", "images"]
# What `cuda` runs on a GPU in software; `emulated` runs all.
EMULATED = ["backends", "devices", "gradients", "optimizers", "round_trips"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the levels of docs/architecture.md."""
    _install(session, "ruff==0.17.5", "import-linter", "-e", ".")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    _install(session, "mypy", "scipy-stubs", "-e", ".")
    session.run("mypy")


@nox.session
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
def tests(session: nox.Session, backend: str) -> None:
    """The tests on the CPU, on a stand-in as strict as a GPU, and on a GPU if there is one."""
    if backend == "gpu" and shutil.which("nvidia-smi") is None:
        session.skip("no NVIDIA driver here: the tests have not been run on a GPU")
    _install(session, "-e", ".[test]")
    if backend == "gpu":
        _install(session, "-e", f".[{os.environ.get('XNN_CUDA', 'cuda12')}]")
        code = "import xnn; xnn.backends.select('gpu')"
        said = session.run("python", "-c", code, success_codes=[0, 1], silent=True)
        if said:
            session.skip(f"not run on a GPU: {said.strip().splitlines()[-1]}")
    command = ["pytest"] if backend == "gpu" else PARALLEL
    session.run(*command, "--device", backend, *session.posargs)


@nox.session
def cuda(session: nox.Session) -> None:
    """What needs no GPU: CUDA compiles, and runs on one in software; CuPy without a driver."""
    compilers = ("nvidia-cuda-nvrtc-cu12>=12.8", "nvidia-cuda-nvrtc>=13")
    _install(session, "-e", ".[test]", "cupy-cuda12x>=14", *compilers)
    names = ("cuda", "emulated", "backends", "examples")
    tests = [f"tests/test_{name}.py" for name in names]
    # Of the last two, only what CuPy changes.
    some = ("-k", "test_cuda or test_emulated or gpu or auto")
    session.run(*PARALLEL, *some, *tests, *session.posargs)
    tests = [f"tests/test_{name}.py" for name in EMULATED]
    session.run(*PARALLEL, "--device", "emulated", *tests, *session.posargs)


@nox.session
def emulated(session: nox.Session) -> None:
    """All tests that a device can change, on a GPU in software."""
    _install(session, "-e", ".[test]")
    session.run(*PARALLEL, "--device", "emulated", *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """The tests that compare with PyTorch."""
    _install(session, "torch==2.13.0", *_torch_index())
    _install(session, "-e", ".[test]")
    session.run(*PARALLEL, "-k", "pytorch", *session.posargs)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The CPU's tests with the oldest Python and packages that pyproject.toml allows."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [one for name in OPTIONAL for one in extras[name]]
    _install(session, *(one.replace(">=", "==") for one in wanted), "-e", ".[test]")
    session.run(*PARALLEL, *session.posargs)


@nox.session
def kill(session: nox.Session) -> None:
    """Trainings killed at 200 random moments: checkpoints load, and runs resume bit-identically."""
    _install(session, "-e", ".[test]")
    session.run("pytest", "-m", "long", "-s", "tests/test_checkpoints.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Corrupted files, 100,000 or as many as given, each of which loads or is refused."""
    _install(session, "-e", ".[test]")
    session.run("python", "-m", "tests.fuzz", *(session.posargs or ["100000"]))


@nox.session
def onnx(session: nox.Session) -> None:
    """A hundred random networks as ONNX files, run by ONNX Runtime."""
    _install(session, "onnxruntime", "-e", ".[test]")
    session.run("pytest", "tests/test_onnx.py", *session.posargs)


@nox.session
def sklearn(session: nox.Session) -> None:
    """scikit-learn's own tests of its perceptrons, run on xnn's instead."""
    _install(session, "-e", ".[test]", "pandas", "polars", "distributed")
    session.run("pytest", "tests/test_estimators.py", *session.posargs)
    theirs = ["-p", "tests.swapped", "--pyargs", "sklearn.neural_network.tests.test_mlp"]
    session.run("python", "-m", "pytest", "-c", os.devnull, *theirs)


@nox.session
def docs(session: nox.Session) -> None:
    """The API reference as HTML, starting at docs/_build/index.html."""
    _install(session, "pdoc==16.0.0", "-e", ".[test]")
    session.run("pytest", "tests/test_reference.py")  # no reference is broken
    session.run("python", "docs/pdoc/build.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Speed against the peers; writes mlp, cnn, wide and many.json in benchmarks/results/."""
    _install(session, "torch==2.13.0", *_torch_index())
    _install(session, "jax", "-e", ".[sklearn]")
    for network in ("mlp", "cnn", "wide", "many"):
        session.run("python", "-m", "benchmarks", network, *session.posargs)


@nox.session(name="bench-gpu")
def bench_gpu(session: nox.Session) -> None:
    """Speed on an NVIDIA GPU; writes benchmarks/results/gpu-<its name>.json, and plots it."""
    cuda = os.environ.get("XNN_CUDA", "cuda12")
    _install(session, "torch", f"jax[{cuda}]", "-e", f".[{cuda},plot]")
    session.run("python", "-m", "benchmarks", "gpu", *session.posargs)
    session.run("python", "-m", "benchmarks", "plot")


@nox.session
def accuracy(session: nox.Session) -> None:
    """The accuracy of the book's networks on MNIST; writes benchmarks/results/accuracy.json."""
    _install(session, "-e", ".")
    session.run("python", "-m", "benchmarks", "accuracy", *session.posargs)


@nox.session
def record(session: nox.Session) -> None:
    """The best on MNIST, on a CPU or, with `-- --device gpu`, a GPU; writes results/record.json."""
    cuda = [f".[{os.environ.get('XNN_CUDA', 'cuda12')}]"] if shutil.which("nvidia-smi") else ["."]
    _install(session, "-e", *cuda)
    session.run("python", "-m", "benchmarks", "record", *session.posargs)


@nox.session(name="bench-sklearn")
def bench_sklearn(session: nox.Session) -> None:
    """The estimators compared with scikit-learn's; writes benchmarks/results/estimators.json."""
    _install(session, "-e", ".[sklearn]")
    session.run("python", "-m", "benchmarks", "estimators", *session.posargs)


@nox.session
def book(session: nox.Session) -> None:
    """The book's first run, by its modules and by its own loop; writes results/book.json."""
    _install(session, "-e", ".")
    session.run("python", "-m", "benchmarks", "book", *session.posargs)


@nox.session
def ladder(session: nox.Session) -> None:
    """Chapter 6's networks, the largest compared with PyTorch's; writes results/ladder.json."""
    _install(session, "torch==2.13.0", *_torch_index())
    _install(session, "-e", ".")
    session.run("python", "-m", "benchmarks", "ladder", *session.posargs)


def _install(session: nox.Session, *packages: str) -> None:
    """Install packages uncompiled: Python compiles what is imported, a small part of them."""
    session.install("--no-compile", *packages)


def _torch_index() -> list[str]:
    """Use XNN_TORCH_INDEX, if set: an index with builds of PyTorch without CUDA."""
    index = os.environ.get("XNN_TORCH_INDEX")
    return ["--extra-index-url", index] if index else []
