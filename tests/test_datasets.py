"""Files of digits: their formats, and the errors of invalid ones."""

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import threading
import time
import tracemalloc
import zipfile
from typing import ClassVar

import numpy as np
import pytest

import xnn
from xnn.datasets import _mnist as module

NAMES = list(module._FILES)
RNG = np.random.default_rng(0)
SETS = [
    (RNG.integers(0, 256, (n, 28, 28)).astype(np.uint8), RNG.integers(0, 10, n).astype(np.uint8))
    for n in (30, 10)
]


def idx(array):
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def files(sets=SETS):
    (x, y), (x_test, y_test) = sets
    return dict(zip(NAMES, map(idx, (x, y, x_test, y_test)), strict=True))


def write_idx(folder, contents=None, zipped=True):
    for name, data in (contents or files()).items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)


def book_sets():
    return tuple(
        ((RNG.integers(0, 256, (n, 784)) / 256).astype(np.float32), RNG.integers(0, 10, n))
        for n in (20, 10, 10)
    )


def python2_pickle(sets):
    """Protocol 2 as Python 2 wrote it: str for bytes, so SHORT_BINSTRING and BINSTRING."""

    def string(data):
        if len(data) < 256:
            return b"U" + bytes([len(data)]) + data
        return b"T" + struct.pack("<I", len(data)) + data

    def integer(n):
        return b"K" + bytes([n]) if n < 256 else b"M" + struct.pack("<H", n)

    def array(a):
        kind = f"{a.dtype.kind}{a.dtype.itemsize}".encode()
        shape = b"(" + b"".join(integer(n) for n in a.shape) + b"t"
        reconstruct = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        dtype = b"cnumpy\ndtype\n" + string(kind) + b"K\x00K\x01\x87R"
        dtype += b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return reconstruct + b"(K\x01" + shape + dtype + b"\x89" + string(a.tobytes()) + b"tb"

    pairs = b"".join(array(x) + array(y) + b"\x86" for x, y in sets)
    return b"\x80\x02" + pairs + b"\x87."


def assert_book(loaded, sets):
    for (x, y), (wanted_x, wanted_y) in zip(loaded, sets, strict=True):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, wanted_x)
        np.testing.assert_array_equal(y, wanted_y)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files(tmp_path, zipped):
    write_idx(tmp_path, zipped=zipped)
    train, validation, test = xnn.datasets.mnist(tmp_path, validation=8)
    (x, y), (x_test, y_test) = SETS
    np.testing.assert_array_equal(np.concatenate([train[0], validation[0]]), x.reshape(30, 784))
    np.testing.assert_array_equal(np.concatenate([train[1], validation[1]]), y)
    np.testing.assert_array_equal(test[0], x_test.reshape(10, 784))
    np.testing.assert_array_equal(test[1], y_test)
    assert [len(x) for x, _ in (train, validation, test)] == [22, 8, 10]
    assert train[0].dtype == np.uint8
    assert all(array.flags.writeable for pair in (train, validation, test) for array in pair)
    assert len(xnn.datasets.mnist(tmp_path, validation=0)) == 2


def test_keras_npz(tmp_path):
    (x, y), (x_test, y_test) = SETS
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
        for path in (tmp_path, tmp_path / "mnist.npz"):
            train, test = xnn.datasets.mnist(path, validation=0)
            np.testing.assert_array_equal(train[0], x.reshape(30, 784))
            np.testing.assert_array_equal(test[1], y_test)


def test_book_pickle_as_python_2_wrote_it(tmp_path):
    sets = book_sets()
    data = python2_pickle(sets)
    # Python's unpickler confirms that this is such a pickle.
    for (x, y), (wanted_x, wanted_y) in zip(
        pickle.loads(data, encoding="latin1"), sets, strict=True
    ):
        np.testing.assert_array_equal(x, wanted_x)
        np.testing.assert_array_equal(y, wanted_y)
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(gzip.compress(data))
    assert_book(xnn.datasets.mnist(tmp_path), sets)
    assert_book(xnn.datasets.mnist(path, validation=10), sets)
    assert [len(x) for x, _ in xnn.datasets.mnist(path, validation=0)] == [30, 10]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_book_pickle_as_numpy_writes_it_today(tmp_path, protocol):
    sets = book_sets()
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(sets, protocol)))
    assert_book(xnn.datasets.mnist(path, validation=10), sets)


def test_where_mnist_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setenv("XNN_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match="data: no such folder, but XNN_DATA names it"):
        xnn.datasets.mnist()
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="cache"):
        xnn.datasets.mnist(download=False)
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        xnn.datasets.mnist(tmp_path)
    for folder in ("cache", "data/mnist", "data"):  # each goes before the last
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        sets = [(np.full_like(x, len(folder)), y) for x, y in SETS]
        write_idx(tmp_path / folder, files(sets))
        assert xnn.datasets.mnist(download=False, validation=1)[0][0][0, 0] == len(folder)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    pairs = xnn.datasets.digits()
    assert [len(x) for x, _ in pairs] == [1197, 300, 300]
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    known = {row.tobytes(): label for row, label in zip(*load_digits(return_X_y=True), strict=True)}
    assert x.min() == 0
    assert x.max() == 1
    assert all(
        known[(row * 16).astype(float).tobytes()] == label for row, label in zip(x, y, strict=True)
    )


# Errors of invalid files.


def npz(**entries):
    """An npz of MNIST with some entries replaced by raw bytes."""
    (x, y), (x_test, y_test) = SETS
    arrays = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array, version=(1, 0))
            archive.writestr(f"{name}.npy", entries.get(name, data.getvalue()))
    return out.getvalue()


def npy_header(text):
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write_then_fail():
    """A pickle that writes a file when it is run."""
    return b"cbuiltins\nopen\n(U\x05ownedU\x01wtR."


GOOD = files()
IMAGES, LABELS = GOOD[NAMES[0]], GOOD[NAMES[1]]
HUGE = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 28, 28)
BOOK = python2_pickle(book_sets())

WRONG = {
    "cut off": ({NAMES[0]: IMAGES[:-1]}, "train-images"),
    "empty": ({NAMES[0]: b""}, "train-images"),
    "header cut off": ({NAMES[0]: IMAGES[:7]}, "train-images"),
    "wrong magic number": ({NAMES[0]: b"\x00\x00\x0d\x03" + IMAGES[4:]}, "begins with 00000d03"),
    "labels for images": ({NAMES[0]: LABELS}, "begins with 00000801"),
    "2**31 images": ({NAMES[0]: HUGE + IMAGES[16:]}, "promises 2147483648 entries"),
    "images of 2**31 rows": (
        {NAMES[0]: IMAGES[:8] + struct.pack(">2I", 2**31, 2**31) + IMAGES[16:]},
        "promises 138350580552821637120 bytes of data",
    ),
    "goes on": ({NAMES[0]: IMAGES + b"\0"}, "has further data after its end"),
    "fewer labels": (
        {NAMES[1]: idx(SETS[0][1][:29])},
        r"has 30 images, but labels of shape \(29,\)",
    ),
    "label of 10": (
        {NAMES[3]: idx(np.full(10, 10, np.uint8))},
        "labels that are not whole numbers",
    ),
    "other images": (
        {NAMES[2]: idx(np.zeros((10, 8, 8), np.uint8))},
        r"images of shape \(8, 8\), but MNIST's are 28 x 28",
    ),
    "no npz": ({"mnist.npz": b"PK\x03\x04 no"}, "mnist.npz: not a complete npz file"),
    "npz cut off": ({"mnist.npz": npz()[:-40]}, "mnist.npz"),
    "npz without an array": ({"mnist.npz": npz()[:0]}, "mnist.npz"),
    "npz of floats": (
        {
            "mnist.npz": npz(
                x_train=npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}")
            )
        },
        "x_train has dtype float64",
    ),
    "npz of objects": (
        {
            "mnist.npz": npz(
                x_train=npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}")
            )
        },
        "x_train has dtype object",
    ),
    "npz with code in its header": (
        {"mnist.npz": npz(x_train=npy_header("__import__('os').abort()"))},
        "mnist.npz: not a complete npz",
    ),
    "npz with a header that Python cannot read": (
        {"mnist.npz": npz(x_train=npy_header("{'descr': ("))},
        "mnist.npz: not a complete npz",
    ),
    "npz of 2**31 images": (
        {
            "mnist.npz": npz(
                x_train=npy_header(
                    "{'descr': '|u1', 'fortran_order': False, 'shape': (2147483648, 28, 28)}"
                )
            )
        },
        "x_train has shape .2147483648, 28, 28., but at most 70000",
    ),
    "npz that promises more": (
        {
            "mnist.npz": npz(
                x_train=npy_header(
                    "{'descr': '|u1', 'fortran_order': False, 'shape': (70000, 28, 28)}"
                )
            )
        },
        "x_train promises 54880000 bytes, more than the file can hold",
    ),
    "pickle that opens a file": (
        {"mnist.pkl.gz": gzip.compress(write_then_fail())},
        "wants builtins.open, which arrays do not need",
    ),
    "pickle that calls the system": (
        {"mnist.pkl.gz": gzip.compress(b"cos\nsystem\n(U\x0atouch ownedtR.")},
        "wants os.system",
    ),
    "pickle of protocol 0": ({"mnist.pkl.gz": gzip.compress(b"(lp0\n.")}, "instruction b'l'"),
    "pickle cut off": ({"mnist.pkl.gz": gzip.compress(BOOK[:-100])}, "is cut off"),
    "pickle of a number": ({"mnist.pkl.gz": gzip.compress(b"K\x01.")}, "does not hold three pairs"),
    "pickle of a loop": (
        {"mnist.pkl.gz": gzip.compress(b"]q\x00" + b"h\x00" * 20_000)},
        "too many",
    ),
    "pickle of objects": (
        {"mnist.pkl.gz": gzip.compress(BOOK.replace(b"U\x02f4", b"U\x02O8"))},
        "array of dtype 'O8'",
    ),
    "pickle of other lengths": (
        {"mnist.pkl.gz": gzip.compress(BOOK.replace(b"(K\x14M\x10\x03t", b"(K\x15M\x10\x03t"))},
        "an array of shape",
    ),
    "pickle with a great memo": (
        {"mnist.pkl.gz": gzip.compress(b"Nr\xff\xff\xff\x7f.")},
        "does not hold three pairs",
    ),
    "pickle of 4 GB": (
        {"mnist.pkl.gz": gzip.compress(b"T\xff\xff\xff\xff" + b"\0" * 1000)},
        "promises 4294967295 bytes",
    ),
    "pickle without a stack": ({"mnist.pkl.gz": gzip.compress(b"\x87.")}, "broken pickle"),
    "no gzip": ({"mnist.pkl.gz": b"not zipped"}, "instruction b'n'"),
}


def bomb(size):
    """A gzip file of zeros, by the same block again and again."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as file:
        for _ in range(size // (1 << 20)):
            file.write(bytes(1 << 20))
    return out.getvalue()


@pytest.fixture(scope="module")
def zeros():
    return bomb(1 << 28)


def refuse(folder, match):
    """Reading must fail with ValueError in under a second and 100 MB."""
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(ValueError, match=match) as caught:
        xnn.datasets.mnist(folder)
    seconds = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(caught.value) is ValueError
    assert str(folder) in str(caught.value)
    assert seconds < 1
    assert peak < 100e6


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", WRONG)
def test_wrong_file(what, zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents, match = WRONG[what]
    if not set(contents) <= set(NAMES):
        for name, data in contents.items():
            (tmp_path / name).write_bytes(data)
    else:
        write_idx(tmp_path, {**GOOD, **contents}, zipped)
    refuse(tmp_path, match)
    assert not (tmp_path / "owned").exists()


def test_gzip_cut_off_or_damaged(tmp_path):
    write_idx(tmp_path)
    path = tmp_path / f"{NAMES[0]}.gz"
    good = path.read_bytes()
    path.write_bytes(good[:-20])
    refuse(tmp_path, "train-images.*(damaged|cut off)")
    path.write_bytes(good[:100] + bytes([good[100] ^ 255]) + good[101:])
    refuse(tmp_path, "train-images")


def test_gzip_bombs(tmp_path, zeros):
    write_idx(tmp_path)
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(zeros)
    refuse(tmp_path, "begins with 00000000")
    # A header that fits, followed by endless zeros: gzip files may be joined.
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(gzip.compress(IMAGES[:16]) + zeros)
    refuse(tmp_path, "has further data after its end")
    most = bytes((0, 0, 8, 3)) + struct.pack(">3I", 70_000, 28, 28)
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(gzip.compress(most) + zeros[: len(zeros) // 4])
    refuse(tmp_path, "promises 54880000 bytes of data, more than a file of its size can hold")
    for name in NAMES:
        (tmp_path / f"{name}.gz").unlink()
    book = gzip.compress(b"T" + struct.pack("<I", 1 << 28)) + zeros
    (tmp_path / "mnist.pkl.gz").write_bytes(book)
    refuse(tmp_path, "promises 268435456 bytes of data, more than a file of its size can hold")


def test_zip_bomb(tmp_path):
    header = npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (70000, 28, 28)}")
    (tmp_path / "mnist.npz").write_bytes(npz(x_train=header + bytes(1 << 28)))
    refuse(tmp_path, "mnist.npz: x_train")


# Download.


class Mirror(http.server.BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        data = self.files.get(self.path)
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def mirrors(tmp_path, monkeypatch):
    """Two mirrors on this machine; the SHA-256 wanted is that of the files of the second."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    root = f"http://127.0.0.1:{server.server_port}"
    zipped = {name: gzip.compress(data) for name, data in files().items()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in zipped.items()}
    monkeypatch.setattr(module, "_MIRRORS", (f"{root}/one/", f"{root}/two/"))
    monkeypatch.setattr(module, "_FILES", sums)
    monkeypatch.setattr(module, "_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("XNN_DATA", raising=False)
    Mirror.files = {f"/two/{name}.gz": data for name, data in zipped.items()}
    Mirror.asked = []
    yield Mirror
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_from_the_second_mirror_and_only_once(mirrors, capfd):
    for _ in range(2):
        train, _ = xnn.datasets.mnist(validation=0)
        np.testing.assert_array_equal(train[1], SETS[0][1])
    assert len(mirrors.asked) == 8
    assert capfd.readouterr() == ("", "")


def test_download_judges_content(mirrors, tmp_path):
    good = dict(mirrors.files)
    # A first mirror whose files are complete and well-formed, but the wrong ones.
    wrong = {k.replace("two", "one"): gzip.compress(GOOD[NAMES[2]]) for k in good}
    mirrors.files = {**good, **wrong}
    train, _ = xnn.datasets.mnist(validation=0)
    np.testing.assert_array_equal(train[1], SETS[0][1])
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    mirrors.files = wrong
    with pytest.raises(OSError, match=r"could not be downloaded .*ValueError.*HTTPError.*XNN_DATA"):
        xnn.datasets.mnist()
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_mirror_answers(mirrors, monkeypatch):
    monkeypatch.setattr(module, "_MIRRORS", ("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/"))
    began = time.monotonic()
    with pytest.raises(OSError, match=r"could not be downloaded .*XNN_DATA") as caught:
        xnn.datasets.mnist()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10


def test_a_cache_that_cannot_be_written_to(mirrors, monkeypatch, tmp_path):
    (tmp_path / "home").touch()
    monkeypatch.setattr(module, "_cache", lambda: tmp_path / "home" / "xnn")
    with pytest.raises(OSError, match=r"xnn: MNIST cannot be stored there \(.*XNN_DATA"):
        xnn.datasets.mnist()
    assert mirrors.asked == []


def test_real_mnist_is_the_published_one(mnist):
    assert [x.shape for x, _ in mnist] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    contents = {
        # SHA-256 of the IDX files' contents, decompressed
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db": np.concatenate(
            [mnist[0][0], mnist[1][0]]
        ).reshape(-1, 28, 28),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5": np.concatenate(
            [mnist[0][1], mnist[1][1]]
        ).astype(np.uint8),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7": mnist[2][0].reshape(
            -1, 28, 28
        ),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2": mnist[2][1].astype(
            np.uint8
        ),
    }
    for wanted, array in contents.items():
        assert hashlib.sha256(idx(array)).hexdigest() == wanted
