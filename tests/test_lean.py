"""What training costs besides arithmetic: allocations, memory, import time."""

import json
import os
import subprocess
import sys
import tracemalloc
from statistics import median

import numpy as np
import pytest

import xnn
from xnn.samples import check_samples
from xnn.steps import Recipe, Trainer


def warm_trainer(optimizer, layers, batch=10, n=205):
    net = xnn.Network(layers, seed=0)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, net.sizes[0])).astype(np.uint8)
    y = rng.integers(0, net.sizes[-1], n)
    engine = net.core.engine
    function = engine.layers[-1].function
    samples = check_samples(
        engine.backend, x, y, ((784,), (10,)), function, engine.cost, np.float32
    )
    trainer = Trainer(engine, samples, Recipe(optimizer, batch))
    for _ in trainer.epoch(rng.permutation(n), optimizer.rates(0, trainer.steps)):
        pass
    return trainer


@pytest.mark.parametrize(
    "optimizer",
    [
        xnn.SGD(1.0),
        xnn.SGD(1.0, lmbda=1.0),
        xnn.SGD(0.1, momentum=0.9, lmbda=1.0),
        xnn.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=1.0, clip_value=0.1),
        xnn.RMSprop(momentum=0.9, centered=True, weight_decay=0.1),
        xnn.Adam(),
        xnn.AdamW(clip_norm=1.0),
        xnn.Averaged(xnn.Adam()),
    ],
    ids=["plain", "decay", "momentum", "everything", "RMSprop", "Adam", "AdamW", "Averaged"],
)
@pytest.mark.parametrize(
    "layers",
    [
        [784, 30, 10],
        [784, xnn.Dense(40, "relu"), xnn.Dense(20, "softmax"), xnn.Dense(10, "softmax")],
        [784, xnn.Dense(40, "leaky_relu", bias=False), xnn.Dense(10, "tanh")],
        [
            (28, 28, 1),
            xnn.RandomAffine(2, 10, 0.1, 5),
            xnn.ElasticTransform(),
            xnn.RandomErasing(),
            xnn.Conv2D(4, 5, "relu", padding="same"),
            xnn.MaxPool2D(3, stride=2, padding=1),
            xnn.BatchNorm(),
            xnn.Conv2D(6, 3, stride=2, groups=2),
            xnn.Activation("relu"),
            xnn.AveragePool2D(2),
            xnn.Flatten(),
            xnn.Dropout(0.5),
            xnn.Dense(10, "softmax"),
        ],
    ],
    ids=["book", "softmax", "tanh", "images"],
)
@pytest.mark.parametrize("batch", [10, 200])
def test_a_warm_training_step_allocates_no_arrays(optimizer, layers, batch):
    """NumPy reports each array's memory to tracemalloc.

    NumPy's calls briefly make small objects of their own, iterators of some 1,700 bytes and, if
    rows are short, a buffer, here made as small as NumPy allows. An array is distinguished from
    them by its size: for a mini-batch of 200 the smallest matrix has 8,000 bytes.
    """
    trainer = warm_trainer(optimizer, layers, batch)
    assert sum(chunk.steps for chunk in trainer.plan) == trainer.steps
    size = np.setbufsize(16)
    tracemalloc.start()
    try:
        for _ in range(8):  # Python 3.14 keeps up to a hundred small integers to use again
            for chunk in trainer.plan:
                chunk.replay()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for chunk in trainer.plan:
            chunk.replay()
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        np.setbufsize(size)
    assert now - before < 300
    assert peak - before < 4000


def run_python(code, **environment):
    out = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "XNN_DEVICE": "cpu", **environment},
    ).stdout
    return json.loads(out)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_training_on_pixels_peaks_under_250_mb():
    """60,000 images of 28 × 28 bytes take 47 MB, and 188 as float32."""
    code = """
import json
import numpy as np
import xnn
rng = np.random.default_rng(0)
x = rng.integers(0, 256, (60_000, 784), dtype=np.uint8)
y = rng.integers(0, 10, 60_000)
net = xnn.Network([784, 30, 10], seed=0)
net.fit(x, y, epochs=1, optimizer=3.0, validation_data=(x[:10_000], y[:10_000]))
lines = open("/proc/self/status").read().splitlines()
print(json.dumps(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))))
"""
    assert run_python(code) < 250e6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_million_rows_in_a_memory_map(tmp_path):
    """The cost of one sample grows by at most 1.3 times from 10,000 rows in memory.

    With the pages cached. The two are measured in turn, each over a million samples, and the least
    time of each counts: other load on the machine can only add to it. The process's own memory
    grows by the shuffle, 8 bytes per row, and one figure per step, and not by the data.
    """
    code = """
import json, sys, time
import numpy as np
import xnn

def own_memory():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

path, rows, width = sys.argv[1], 1_000_000, 196
data = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, width))
rng = np.random.default_rng(0)
block = rng.integers(0, 256, (10_000, width), dtype=np.uint8)
for start in range(0, rows, len(block)):
    data[start : start + len(block)] = block
data.flush()
del data
mapped = np.load(path, mmap_mode="r")
labels = (np.arange(rows) % 10).astype(np.uint8)
net = xnn.Network([width, 30, 10], seed=0)
assert int(mapped[::16].max()) == 255  # every page once
net.fit(block, labels[:10_000], epochs=1)
before = own_memory()
small, large = [], []
for _ in range(10):
    small.append(sum(net.fit(block, labels[:10_000], epochs=100).seconds))
    large.append(sum(net.fit(mapped, labels, epochs=1).seconds))
after = own_memory()
print(json.dumps([min(small), min(large), after - before]))
""".replace("sys.argv[1]", repr(str(tmp_path / "rows.npy")))
    small, large, grown = run_python(code)
    assert large / small < 1.3
    assert grown < 40e6  # the data are 196 MB


def test_import_is_light():
    """At most 1.3 times as long as NumPy and SciPy's BLAS, and nothing heavy comes with it."""
    code = """
import json, sys, time
began = time.perf_counter()
{}
print(json.dumps([time.perf_counter() - began, sorted(sys.modules)]))
"""
    ours, theirs, modules = [], [], []
    for _ in range(7):
        theirs.append(run_python(code.format("import numpy, scipy.linalg.blas"))[0])
        seconds, modules = run_python(code.format("import xnn"))
        ours.append(seconds)
    heavy = {"sklearn", "matplotlib", "pooch", "cupy", "torch", "safetensors", "tqdm", "requests"}
    assert heavy.isdisjoint(modules)
    assert median(ours) < 1.3 * median(theirs)
