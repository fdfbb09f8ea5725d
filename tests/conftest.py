import os
import signal
from importlib.util import find_spec

import numpy as np
import pytest

import xnn

from . import emulated, standin

xnn.backends.KINDS["standin"] = standin.StandInBackend
xnn.backends.KINDS["emulated"] = emulated.EmulatedBackend


# Where the command line's library is not installed, as on a bare machine with a GPU.
collect_ignore = [] if find_spec("click") else ["test_cli.py", "test_reference.py"]


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        default="cpu",
        help="where to run the tests: cpu (default), gpu, standin (as strict as a GPU), "
        "or emulated (a GPU in software)",
    )


def pytest_configure(config):
    """Put networks that a test makes without naming a device on the one under test."""
    os.environ["XNN_DEVICE"] = config.getoption("--device")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as with `nohup … &`
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests of files, pages, processes and allocations on the host, which are the same on every device.
_HOST = {"cuda", "datasets", "docs", "emulated", "fuzz", "kernels", "lanes", "loops", "reference"}
# Those that know only the CPU and a GPU: of commands, and of memory.
_REAL = {"benchmarks", "cli", "examples", "info", "lean", "tiny"}


def pytest_collection_modifyitems(config, items):
    """Deselect tests that would repeat on this device what the CPU has shown."""
    device = config.getoption("--device")
    if device == "cpu":
        return
    same = _HOST if device.startswith("gpu") else _HOST | _REAL
    again = [item for item in items if item.module.__name__.rpartition("test_")[2] in same]
    config.hook.pytest_deselected(items=again)
    items[:] = [item for item in items if item not in set(again)]


def pytest_report_header(config):
    return f"device: {config.getoption('--device')}"


@pytest.fixture(autouse=True)
def compile_cost(monkeypatch):
    """Compile steps as for long trainings, though those of tests are short; return the true cost.

    Otherwise each chunk would be one step.
    """
    cost = xnn.backends.Backend.compile_cost
    monkeypatch.setattr(xnn.backends.Backend, "compile_cost", 1e-9)
    return cost


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Give calls alike a function of their own from the second on; return the true number."""
    calls = xnn.inference._OFTEN
    monkeypatch.setattr(xnn.inference, "_OFTEN", 1)
    return calls


@pytest.fixture(scope="session")
def device(request):
    return request.config.getoption("--device")


@pytest.fixture
def scribbles(tmp_path):
    """A folder with a file in Keras's format: random images, 64 to train on, 5,000 to validate."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 5064), ("test", 50)):
        arrays[f"x_{name}"] = rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
        arrays[f"y_{name}"] = rng.integers(10, size=n, dtype=np.uint8)
    np.savez(tmp_path / "mnist.npz", **arrays)
    return tmp_path


@pytest.fixture(scope="session")
def mnist():
    """MNIST as three pairs; if it is unavailable the test is skipped, except in CI."""
    in_ci = bool(os.environ.get("CI"))
    try:
        return xnn.datasets.mnist(download=in_ci)
    except (ImportError, OSError) as error:
        if in_ci:
            raise
        pytest.skip(f"needs MNIST: {error}")
