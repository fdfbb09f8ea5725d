"""Files that are damaged, or meant to do damage: each one loads or raises a ValueError.

python -m tests.fuzz 100000 --seed 1

Valid files of each kind are mutated at random, in their bytes, in their compressed contents, and in
the values of their headers; reading them is limited in time and memory, and may start nothing,
write nothing and call nothing that a pickle names.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import multiprocessing
import os
import pickle
import random
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

import xnn
from xnn.datasets import _mnist

SECONDS = 2
MEMORY = 256 << 20  # beyond what the process has
BATCH = 500  # files read by one process

_SENTINEL = "executed"


class _Writes:
    """An object that writes a file when unpickled."""

    def __reduce__(self):
        return open, (_SENTINEL, "w")


def _sets(rows):
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 256, (n, 28, 28)).astype(np.uint8), rng.integers(0, 10, n).astype("u1"))
        for n in rows
    ]


def _idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _npz(save):
    out = io.BytesIO()
    (x, y), (x_test, y_test) = _sets((4, 2))
    save(out, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return out.getvalue()


def _pickles():
    floats = [
        ((x.reshape(len(x), 784) / 256).astype("f"), y.astype(int)) for x, y in _sets((2,) * 3)
    ]
    made = [pickle.dumps(tuple(floats), protocol) for protocol in (2, 3, 4, 5)]
    made += [pickle.dumps((*floats[:2], _Writes()), protocol) for protocol in (2, 4)]
    return [*made, b"cos\nsystem\n(U\x0etouch executedtR."]


def network():
    """Return a small network with most kinds of layers."""
    layers = [
        *(xnn.RandomAffine(1, 5), xnn.Conv2D(2, 3, "relu"), xnn.BatchNorm(), xnn.MaxPool2D(2)),
        *(xnn.Flatten(), xnn.Dropout(0.1), xnn.Dense(3, "softmax")),
    ]
    return xnn.Network([(6, 6, 1), *layers], seed=0, device="cpu")


def _train(net, **options):
    x, y = np.linspace(0, 1, 8 * 36).reshape(8, 6, 6, 1), np.arange(8) % 3
    watching = [xnn.EarlyStopping("cost"), xnn.ReduceOnPlateau("cost")]
    callbacks = [*watching, *options.pop("callbacks", ())]
    optimizer = xnn.SGD(0.1, momentum=0.9)
    net.fit(x, y, epochs=1, batch_size=2, optimizer=optimizer, callbacks=callbacks, **options)


class _Between(xnn.Callback):
    """Saves in the middle of an epoch."""

    def __init__(self, path):
        self.path = path

    def steps_end(self, training):
        if training.step < training.steps:
            training.save(self.path)


def seeds(folder):
    """Return valid files, some of each kind, and how each kind is read."""
    net = network()
    net.save(folder / "net")
    plain = xnn.Network([4, 3, 2], seed=0, device="cpu", dtype="float64")
    plain.save(folder / "plain")
    _train(net, callbacks=[xnn.Checkpoints(folder)])
    xnn.backends.Backend.chunk_steps, kept = 2, xnn.backends.Backend.chunk_steps
    _train(net, callbacks=[_Between(folder / "between")])
    xnn.backends.Backend.chunk_steps = kept
    images, labels = _sets((4,))[0]
    return {
        "network": [(folder / name).read_bytes() for name in ("net", "plain")],
        "checkpoint": [
            (folder / name).read_bytes() for name in ("checkpoint-000001.safetensors", "between")
        ],
        "idx": [_idx(images), _idx(labels)],
        "npz": [_npz(np.savez), _npz(np.savez_compressed)],
        "book": _pickles(),
    }


_NAMES = {"idx": "train-images-idx3-ubyte", "npz": "mnist.npz", "book": "mnist.pkl.gz"}


class Reader:
    """Reads files of each kind as a user would."""

    def __init__(self, folder):
        self.folder = folder
        self.net = network()
        sets = _sets((4, 2))
        arrays = [array for pair in sets for array in pair]
        for name, array in zip(_mnist._FILES, arrays, strict=True):
            (folder / name).write_bytes(_idx(array))

    def read(self, kind, data):
        """Return the path that the data were written to, and the error, or None where they load."""
        path = self.folder / _NAMES.get(kind, kind)
        if kind == "idx" and data[3:4] == b"\1":
            path = self.folder / "train-labels-idx1-ubyte"
        kept = path.read_bytes() if kind == "idx" else None
        path.write_bytes(data)
        try:
            if kind == "network":
                xnn.load(path, device="cpu")
            elif kind == "checkpoint":
                xnn.load(path, device="cpu")
                _train(self.net, resume=path, progress=False)
            else:
                xnn.datasets.mnist(self.folder if kind == "idx" else path, validation=1)
        except FloatingPointError:  # the numbers in it are numbers; training diverges from them
            return path, None
        except Exception as error:
            return path, error
        finally:
            if kept is not None:
                path.write_bytes(kept)
        return path, None


# Changes.

_WORDS = [
    b"\0" * 4,
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\1\0",
    b"\1",
]
_VALUES = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**12, 10**40, 0.5, -1e308, float("nan"), float("inf")),
    *("", "x" * 500, "linear", "relu", [], [[]], {}, [10**9] * 3, [0], [1, 2], {"kind": "dense"}),
]


def _bytes(rng, data, others):
    """Change some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.5:  # where headers are
            at = min(at, rng.randrange(200))
        match rng.randrange(7):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                word = rng.choice(_WORDS)
                data[at : at + len(word)] = word
            case 2:
                del data[at : at + rng.choice((1, 8, 100))]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 8, 100)))
            case 4:
                del data[at:]
            case 5:
                begin = rng.randrange(len(data) + 1)
                data[at:at] = data[begin : begin + rng.choice((4, 50, 1000))]
            case 6:
                other = rng.choice(others)
                data[at:] = other[rng.randrange(len(other)) :]
    return bytes(data)


def _value(rng, value):
    """Return a JSON value with one of its parts changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if rng.random() < 0.05:
            return {**value, rng.choice(["x", "units", "0.weights"]): rng.choice(_VALUES)}
        return {**value, key: _value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        rest = value[at + (rng.random() < 0.9) :]
        return [*value[:at], _value(rng, value[at]), *rest]
    if isinstance(value, int) and rng.random() < 0.4:
        return value + rng.choice((-1, 1, 8, 1000))
    return rng.choice(_VALUES)


def _header(rng, data):
    """Change values in the header of a safetensors file, or in the description in it."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.7:
            described = json.loads(header["__metadata__"]["xnn"])
            header["__metadata__"]["xnn"] = json.dumps(_value(rng, described))
        else:
            changed = _value(rng, {k: v for k, v in header.items() if k != "__metadata__"})
            if isinstance(changed, dict):
                header = {"__metadata__": header["__metadata__"], **changed}
        if rng.random() < 0.05:
            header["__metadata__"]["xnn"] = rng.choice("[{") * 50_000
            break
    told = json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + data[8 + size :]


def _members(rng, data, others):
    """Change what is zipped in an npz file, and zip it again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        changed = rng.choice(old.namelist())
        for name in old.namelist():
            member = old.read(name)
            if name == changed:
                member = _bytes(rng, member, others)
            kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
            new.writestr(name, member, kind)
    return out.getvalue()


def mutate(rng, kind, good):
    """Return a changed file of a kind."""
    data = rng.choice(good[kind])
    everything = [seed for seeds in good.values() for seed in seeds]
    within = rng.random() < 0.6
    if kind in ("network", "checkpoint") and within:
        return _header(rng, data)
    if kind == "npz" and within:
        return _members(rng, data, everything)
    if kind in ("idx", "book"):
        zipped = rng.random() < 0.4
        if within or not zipped:
            data = _bytes(rng, data, everything)
            return gzip.compress(data, 1) if zipped else data
        data = gzip.compress(data, 1)
    return _bytes(rng, data, everything)


def wrong(path, error, seconds):
    """Return what went wrong in reading a file, or None."""
    if seconds > SECONDS:
        return f"took {seconds:.1f} s"
    if error is None:
        return None
    if type(error) is not ValueError:
        return f"{type(error).__name__}: {error}"[:300]
    if str(path.parent) not in str(error):
        return f"does not name the file: {error}"[:300]
    return None


# Many files, by processes that may be lost.


def _forbid(event, arguments):
    """Refuse, as an audit hook, everything that no file may cause."""
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    started = event.startswith(("os.system", "os.exec", "os.posix_spawn", "subprocess", "socket"))
    named = event == "pickle.find_class"
    if _forbid.on and (started or named or writes):
        os.write(2, f"fuzz: {event} {arguments}\n".encode())
        os._exit(3)


_forbid.on = False


def _alarm(*_):
    raise TimeoutError(f"took more than {SECONDS} s")


def _read_many(seed, first, count, results):
    """Read files ``first`` and so on; put into ``results`` what came of each."""
    import resource

    warnings.simplefilter("error")
    folder = Path(tempfile.mkdtemp(dir=os.environ["XNN_FUZZ_FOLDER"]))
    os.chdir(folder)
    good, reader = seeds(folder), Reader(folder)
    for kind, files in good.items():  # so that late imports and compilation happen now
        reader.read(kind, files[0])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, _alarm)
    sys.addaudithook(_forbid)
    for number in range(first, first + count):
        rng = random.Random(f"{seed}-{number}")
        kind = list(good)[number % len(good)]
        data = mutate(rng, kind, good)
        results.put((number, kind, "lost", 0.0))
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        path, error = _guarded(reader, kind, data)
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.perf_counter() - began
        bad = wrong(path, error, seconds)
        if Path(_SENTINEL).exists():
            bad = "was executed"
        results.put((number, kind, bad or ("refused" if error else "loaded"), seconds))


def _guarded(reader, kind, data):
    """Read, with writing forbidden except to the file itself."""
    read = reader.read
    real = Path.write_bytes

    def write(path, content):
        _forbid.on = False
        try:
            return real(path, content)
        finally:
            _forbid.on = True

    Path.write_bytes = write
    try:
        return read(kind, data)
    finally:
        Path.write_bytes = real
        _forbid.on = False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    came, slowest, began = Counter(), 0.0, time.time()
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XNN_FUZZ_FOLDER"] = folder
        first = 0
        while first < args.count:
            count = min(BATCH, args.count - first)
            results = context.SimpleQueue()
            arguments = (args.seed, first, count, results)
            process = context.Process(target=_read_many, args=arguments)
            process.start()
            last = {}
            while process.is_alive() or not results.empty():
                if results.empty():
                    time.sleep(0.01)
                    continue
                number, kind, what, seconds = results.get()
                last[number] = kind, what
                slowest = max(slowest, seconds)
            process.join()
            for number, (kind, what) in last.items():
                good = what in ("loaded", "refused")
                came[f"{kind} {what if good else 'WRONG'}"] += 1
                if not good:
                    print(f"file {number}, {kind}: {what}", flush=True)
            first = max(last, default=first) + 1  # after the one that was lost, if any
    told = {"count": args.count, "seed": args.seed, "seconds": round(time.time() - began)}
    print(json.dumps({**told, "slowest": round(slowest, 2), **dict(sorted(came.items()))}))
    return any("WRONG" in what for what in came)


if __name__ == "__main__":
    sys.exit(main())
