import os

import pytest

import xnn

from . import standin

xnn.backends.KINDS["standin"] = standin.StandInBackend


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        default="cpu",
        help="where to run the tests: cpu (default), gpu, or standin, which is as strict as a GPU",
    )


def pytest_report_header(config):
    return f"device: {config.getoption('--device')}"


@pytest.fixture(scope="session")
def device(request):
    return request.config.getoption("--device")


@pytest.fixture(autouse=True, scope="session")
def _default_device(request):
    """Networks that a test makes without naming a device are on the one under test."""
    patch = pytest.MonkeyPatch()
    patch.setitem(
        xnn.Network.__init__.__kwdefaults__, "device", request.config.getoption("--device")
    )
    yield
    patch.undo()


@pytest.fixture(scope="session")
def mnist():
    """MNIST as three pairs; where it cannot be had the test is skipped, but not in CI."""
    in_ci = bool(os.environ.get("CI"))
    try:
        return xnn.datasets.mnist(download=in_ci)
    except OSError as error:
        if in_ci:
            raise
        pytest.skip(f"needs MNIST: {error}")
