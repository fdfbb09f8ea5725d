"""What is reported about this machine, and about a GPU that is unavailable."""

import importlib.metadata
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import xnn
from xnn import info
from xnn.backends import DeviceError, discover, select

click_testing = pytest.importorskip("click.testing")


class FakeCupy(ModuleType):
    """CuPy as it is found on users' machines."""

    def __init__(self, made_for=12090, count=1, error=None):
        super().__init__("cupy")
        self.__version__ = "14.2.0"

        def number_of_gpus():
            if error:
                raise RuntimeError(error)
            return count

        runtime = SimpleNamespace(runtimeGetVersion=lambda: made_for, getDeviceCount=number_of_gpus)
        self.cuda = SimpleNamespace(runtime=runtime)


INSUFFICIENT = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime"
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"


@pytest.fixture
def machine(monkeypatch):
    """Make this machine one with a certain driver and CuPy."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(driver, cupy):
        monkeypatch.setattr(discover, "driver", lambda: driver)
        monkeypatch.setitem(sys.modules, "cupy", cupy)

    return make


@pytest.mark.parametrize(
    ("driver", "cupy", "words"),
    [
        (0, None, ["CuPy is not installed", "no NVIDIA driver", 'pip install "cupy-cuda12x[ctk]"']),
        (12040, None, ["CuPy is not installed", 'pip install "cupy-cuda12x[ctk]"']),
        (13000, None, ["CuPy is not installed", 'pip install "cupy-cuda13x[ctk]"']),
        (11080, None, ["driver supports CUDA 11.8 at most", "update it"]),
        (0, FakeCupy(error=INSUFFICIENT), ["there is no NVIDIA driver", "device='cpu'"]),
        (11040, FakeCupy(error=INSUFFICIENT), ["driver supports CUDA 11.4 at most", "update it"]),
        (
            12080,
            FakeCupy(made_for=13000, error=INSUFFICIENT),
            [
                "driver supports CUDA 12.8 at most, but CuPy is built for CUDA 13.0",
                "pip uninstall cupy-cuda13x",
                'pip install "cupy-cuda12x[ctk]"',
            ],
        ),
        (13000, FakeCupy(error=NO_DEVICE), [NO_DEVICE, "nvidia-smi"]),
    ],
    ids=[
        "nothing", "driver 12", "driver 13", "old driver", "no driver", "old driver and CuPy",
        "CuPy for another CUDA", "no GPU",
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_used(machine, driver, cupy, words):
    machine(driver, cupy)
    with pytest.raises(DeviceError) as caught:
        select("gpu")
    message = str(caught.value)
    assert message.startswith("no GPU can be used: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    assert select("auto").device == "cpu"
    assert info.facts()["missing"] == message


@pytest.mark.parametrize(("count", "has"), [(1, "1 GPU,"), (2, "2 GPUs,")])
def test_a_number_of_a_gpu_that_is_not_there(machine, monkeypatch, count, has):
    machine(12080, FakeCupy(count=count))
    with pytest.raises(DeviceError, match=f"no GPU 7: this machine has {has} counted from 'gpu:0'"):
        select("gpu:7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(DeviceError, match=r", with CUDA_VISIBLE_DEVICES=3$"):
        select("gpu:7")


def test_cupy_that_cannot_be_loaded(machine, monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.12: cannot open\\nsecond')")
    machine(12080, None)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DeviceError, match=r"cannot be loaded \(libcudart.so.12: cannot open\); pip"
    ):
        select("gpu")
    assert info.facts()["CuPy"] == "cannot be loaded: libcudart.so.12: cannot open"


def invoke(*arguments):
    from xnn.cli import main

    return click_testing.CliRunner().invoke(main, arguments)


def test_info(machine):
    machine(13010, None)
    done = invoke("info")
    assert done.exit_code == 0
    told = dict(line.split(maxsplit=1) for line in done.output.splitlines())
    assert told["xnn"] == xnn.__version__
    assert told["NumPy"] == np.__version__ == importlib.metadata.version("numpy")
    assert told["SciPy"] == importlib.metadata.version("scipy")
    assert told["Python"].startswith(sys.version.split()[0])
    assert "thread" in told["BLAS"]
    assert told["CuPy"] == "not installed"
    assert 'pip install "cupy-cuda13x[ctk]"' in told["missing"]
    assert "driver" in done.output
    assert "for CUDA 13.1" in done.output


def test_info_as_json(machine):
    machine(0, None)
    done = invoke("info", "--json")
    assert done.exit_code == 0
    assert json.loads(done.output) == info.facts()


def test_a_wrong_command_is_status_2():
    done = invoke("inform")
    assert done.exit_code == 2
    assert "No such command" in done.output


def test_the_commands_name_their_version():
    assert invoke("--version").output == f"xnn {xnn.__version__}\n"
