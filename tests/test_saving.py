"""Networks as files: complete or not at all, from every version, and never more than is there."""

import errno
import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xnn
from xnn import saving

from .helpers import copies

FILES = Path(__file__).parent / "files"


def test_files_of_the_first_format_load(device):
    """Written before files recorded xnn's version; its predictions are unchanged."""
    net = xnn.load(FILES / "network-1.safetensors", device=device)
    wanted = [[0.37405586, 0.21952745, 0.18402086, 0.22239582]]
    np.testing.assert_allclose(net.predict(np.arange(72).reshape(1, 72) / 72), wanted, rtol=1e-5)
    assert [type(layer).__name__ for layer in net.layers] == [
        *("RandomErasing", "Conv2D", "BatchNorm", "MaxPool2D", "Flatten", "Dropout", "Dense")
    ]


def test_files_tell_their_version(tmp_path):
    net = xnn.Network([4, 3], seed=0)
    net.save(tmp_path / "net")
    _, description = saving.read(tmp_path / "net")
    assert description["version"] == xnn.__version__
    saving.write(tmp_path / "net", {}, {**description, "format": 9, "version": "7.0"})
    with pytest.raises(ValueError, match=r"format 9, but .* reads 1; it was written by xnn 7\.0"):
        xnn.load(tmp_path / "net")


def test_the_formats_own_library_reads_what_is_written(tmp_path):
    from safetensors.numpy import load_file

    net = xnn.Network([(4, 4, 1), xnn.Conv2D(2, 3), xnn.Flatten(), 3], seed=0, dtype="float64")
    net.save(tmp_path / "net")
    theirs, (ours, _) = load_file(tmp_path / "net"), saving.read(tmp_path / "net")
    assert theirs.keys() == ours.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])
    np.testing.assert_array_equal(ours["2.weights"], copies(net)[0][2])


def test_weights_are_a_memory_map(tmp_path):
    saving.write(tmp_path / "net", {"a": np.ones((1000, 3), np.float32)}, {})
    array = saving.read(tmp_path / "net")[0]["a"]
    assert not array.flags.owndata
    assert not array.flags.writeable


class Failing:
    """Each call of the system that a write makes, failing with an error of its own."""

    def __init__(self, monkeypatch, name, code):
        self.real, self.name, self.code = getattr(os, name), name, code
        monkeypatch.setattr(os, name, self)

    def __call__(self, *arguments, **options):
        if self.name != "open" or arguments[1] & os.O_WRONLY:
            raise OSError(self.code, os.strerror(self.code), "some other name")
        return self.real(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("open", errno.EACCES),
        ("open", errno.EMFILE),
        ("fdopen", errno.ENOSPC),
        ("fsync", errno.EDQUOT),
        ("replace", errno.EPERM),
    ],
)
def test_whatever_fails_the_old_file_stays_and_nothing_else(name, code, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    net = xnn.Network([4, 3], seed=0)
    net.save(path)
    old = path.read_bytes()
    net.weights[0] = np.zeros((3, 4))
    Failing(monkeypatch, name, code)
    with pytest.raises(OSError, match=r"net\.safetensors'$") as caught:
        net.save(path)
    assert caught.value.errno == code
    assert path.read_bytes() == old
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a process, as on Linux")
def test_a_quota_met_in_the_midst_of_writing(tmp_path):
    """A real one: the kernel refuses the file's second half."""
    import resource
    import signal

    path = tmp_path / "net.safetensors"
    xnn.Network([4, 3], seed=0).save(path)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(OSError, match=r"net\.safetensors'$"):
            xnn.Network([784, 30, 10], seed=0).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, kept)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not synced there")
def test_file_and_folder_are_on_disk_before_a_save_returns(tmp_path, monkeypatch):
    synced, real = [], os.fsync
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder"}

    def fsync(handle):
        synced.append((kinds[stat.S_IFMT(os.fstat(handle).st_mode)], (tmp_path / "net").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    xnn.Network([4, 3], seed=0).save(tmp_path / "net")
    assert synced == [("file", False), ("folder", True)]


def header(**tensor):
    told = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48], **tensor}
    return {"0.weights": told, "__metadata__": {"xnn": "{}"}}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (header(shape=[2**40, 2**40]), "has shape .* but 48 bytes"),
        (header(shape=[2**40, 3], data_offsets=[0, 3 * 2**42]), "lies outside the file"),
        (header(shape=[-3, -4]), "has dtype F32 and shape"),
        (header(shape=[0, 10**40], data_offsets=[0, 0]), "not a safetensors file that xnn can"),
        (header(shape=[1] * 100, data_offsets=[0, 4]), "not a safetensors file that xnn can"),
        (header(shape=[3.0, 4]), "has dtype F32 and shape"),
        (header(dtype="F8_E4M3"), "has dtype F8_E4M3"),
        (header(data_offsets=[48, 0]), "lies outside the file"),
        (header(data_offsets=[0]), "is not an array"),
        ({"0.weights": 7}, "is not an array"),
        ({"__metadata__": []}, "metadata are not an object"),
        ([], "header is not an object"),
    ],
)
def test_headers_that_promise_what_is_not_there(told, message, tmp_path):
    data = json.dumps(told).encode()
    (tmp_path / "net").write_bytes(struct.pack("<Q", len(data)) + data + bytes(48))
    with pytest.raises(ValueError, match=message) as caught:
        xnn.load(tmp_path / "net")
    assert str(tmp_path / "net") in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\1", bytes(8), b"\xff" * 8, b"\xff" * 80, bytes(80)])
def test_files_of_some_bytes(data, tmp_path):
    (tmp_path / "net").write_bytes(data)
    with pytest.raises(ValueError, match="net: not a safetensors file"):
        xnn.load(tmp_path / "net")


WRITER = """
import sys, time
import numpy as np
import xnn
path, number, until = sys.argv[1], float(sys.argv[2]), time.time() + 1.2
net = xnn.Network([300, 100, 3], device="cpu")
for layer, weights in enumerate(net.weights):
    net.weights[layer] = np.full(weights.shape, number)
    net.biases[layer] = np.full(len(weights), number)
saved = 0
while time.time() < until:
    net.save(path)
    saved += 1
print(saved)
"""


def test_two_processes_that_save_to_one_path_and_a_reader(tmp_path):
    """Each file that is read is one of the two, whole."""
    path = tmp_path / "net.safetensors"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), number],
            env={**os.environ, "PYTHONPATH": str(FILES.parent.parent)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in ("1", "2")
    ]
    read = []
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            try:
                weights, biases = copies(xnn.load(path, device="cpu"))
            except PermissionError:  # Windows, where a file that is being replaced cannot be opened
                assert sys.platform == "win32"
                continue
            found = {number for array in (*weights, *biases) for number in np.unique(array)}
            assert len(found) == 1
            read += found
    for writer in writers:
        assert writer.returncode == 0
        assert int(writer.communicate()[0]) > 3
    assert set(read) == {1, 2}
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
