"""The benchmarks run, peers do the same work, and results become tables and pictures."""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xnn
from benchmarks import (
    book,
    estimators,
    gpu,
    gpu_workers,
    harness,
    ladder,
    many,
    mlp,
    networks,
    plot,
    quiet,
    record,
    report,
    wide,
)

from . import book_reference

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _once(device):
    if device == "standin":
        pytest.skip("is not a device of the benchmarks")


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_the_whole_command_runs(device, tmp_path):
    options = ("--device", device, "--quick", "--alone", "--output", tmp_path)
    done = run("gpu", *options)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    written = json.loads(path.read_text())
    assert {"date", "commit", "versions", "data", "gpu"} <= set(written)
    small, large, *_ = written["results"]
    assert small == "784-30-10, batch 10"
    assert set(written["results"][large]) == {"xnn", gpu.BARE}
    bare = written["results"][large][gpu.BARE]
    # Of 100 samples forward, to the gradient, and back but for the first layer.
    operations = 2 * 100 * (2 * 784 * 64 + 3 * 64 * 64 + 3 * 64 * 10)
    assert bare["operations_per_second"] * bare["runs"][0] == pytest.approx(operations)
    assert [batch for batch, _ in written["sweep"]["xnn"]["points"]] == [1, 16, 64]
    assert re.search(r"from the start to the end of an epoch: \d+\.\d s", done.stdout)


def test_calls_of_a_step():
    """784-30-10 takes five products a step: two forward, one back, two gradients."""
    small, _, lenet = gpu.tasks("cpu", quick=True)
    measured = gpu_workers.calls(small, "xnn")
    products = [call for call in measured["calls"] if call["call"].startswith("gemm")]
    assert sum(call["per_step"] for call in products) == 5
    assert "gemm (30, 10) @ (10, 785)" in [call["call"] for call in products]
    assert all(0 < call["seconds"] < 0.01 for call in measured["calls"])
    gathered = [call["per_step"] for call in measured["calls"] if "gather" in call["call"]]
    assert gathered == [1 / measured["steps"]] * 3
    calls = gpu_workers.calls(lenet, "xnn")["calls"]
    found = [(re.fullmatch(r"unfold \((\d+), 25\)", c["call"]), c["per_step"]) for c in calls]
    rows = sum(int(match[1]) * count for match, count in found if match)
    assert rows == lenet.batch * 24**2  # in as many lanes as there are
    assert {call["call"].partition(" ")[0] for call in calls} >= {
        "fold",
        "max_pool",
        "max_pool_backward",
    }


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU")
def test_without_a_gpu_it_is_one_line_and_status_2():
    for command in (["gpu"], ["ladder", "--device", "gpu"], ["record", "--device", "gpu"]):
        done = run(*command, "--no-write")
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("no GPU can be used: ")
    done = run("gpu", "--no-write", "--device", "tpu")
    assert done.returncode == 2
    assert done.stderr.startswith("device is 'tpu', but must be ")


TASKS = {
    "small": gpu_workers.Task([784, 12, 10], "sigmoid", 10, 1.0, 20, device="cpu"),
    "large": gpu_workers.Task([784, 20, 15, 10], "relu", 50, 0.1, 10, device="cpu"),
    "LeNet": gpu_workers.Task(networks.LENET, "relu", 20, 0.1, 10, device="cpu"),
}
PEERS = {
    "PyTorch eager": ("torch", gpu_workers.torch_peer, ()),
    "JAX jit+scan": ("jax", gpu_workers.jax_peer, ()),
    "JAX jit+scan, unrolled": ("jax", gpu_workers.jax_peer, (4,)),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_peers_do_the_same_work(peer, task):
    """After an epoch in the same order each has xnn's outputs, up to float32's rounding."""
    module, make, options = PEERS[peer]
    pytest.importorskip(module)
    assert peer in gpu_workers.PEERS
    if networks.convolutional(task.sizes) and module != "torch":
        pytest.skip("is not measured")
    x, y = task.data()
    epoch, outputs = make(task, x, y, *options)
    epoch(np.arange(task.samples).reshape(task.steps, task.batch))
    net = networks.xnn_network(task.sizes, task.activation, device="cpu")
    before = net.predict(x[:100])
    net.fit(x, y, epochs=1, batch_size=task.batch, optimizer=xnn.SGD(task.rate), shuffle=False)
    theirs = outputs(x[:100])
    if task.activation == "relu":
        theirs = np.exp(theirs) / np.exp(theirs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(theirs, net.predict(x[:100]), rtol=0, atol=1e-4)
    assert np.abs(before - net.predict(x[:100])).max() > 0.1


def test_the_books_loop_is_the_books():
    loops = []
    for kind in (book.Loop, book_reference.PerSample):
        random.seed(1)
        np.random.seed(1)
        loops.append(kind([5, 4, 3, 2]))
        pairs = [(np.random.rand(5, 1), np.random.rand(2, 1)) for _ in range(11)]
        for _ in range(2):
            loops[-1].epoch(pairs, 4, 3.0)
    for ours, theirs in zip(*([*loop.weights, *loop.biases] for loop in loops), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_the_books_loop_among_the_peers():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 300)
    x = np.eye(10, dtype=np.uint8)[y] * 200 + rng.integers(0, 56, (300, 10), np.uint8)
    epochs, accuracy = mlp.TRAINERS["book's loop"]([10, 12, 10], "sigmoid", 10, "sgd", 3.0, x, y)
    assert accuracy() < 0.5
    assert len(epochs(20)) == 20
    assert accuracy() > 0.95


@pytest.mark.parametrize("peer", many.PEERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_many_networks_learn_apart(peer, monkeypatch):
    """Each is trained from its own start, and those of one seed alike."""
    for package in ("JAX", "PyTorch", "scikit-learn"):
        if peer.startswith(package):
            pytest.importorskip({"PyTorch": "torch", "scikit-learn": "sklearn"}.get(package, "jax"))
    task = many.Task((4, 10, 3), 3, 300, 60, 0.0)
    x = np.repeat(np.eye(4)[:3], 100, axis=0) + np.random.default_rng(0).normal(0, 0.2, (300, 4))
    y = np.repeat(np.arange(3), 100)
    monkeypatch.setattr(many, "data", lambda _: (x.astype(np.float32), y))
    monkeypatch.setattr(many, "best_threads", lambda *_: None)  # would change other tests
    monkeypatch.setattr(many, "_fastest", lambda ways, _: ways[0])
    train, classes = many.PEERS[peer](task)
    first, second, third = (classes(net) for net in train(range(3)))
    assert all((found == y).mean() > 0.95 for found in (first, second, third))
    weights = [weights_of(net) for net in train([0, 1, 0])]
    assert not np.allclose(weights[0], weights[1], atol=0.1)
    if peer != "PyTorch, stacked":  # which draws all shuffles from one generator
        np.testing.assert_allclose(weights[0], weights[2], rtol=1e-5, atol=1e-5)


def weights_of(net):
    """Return the weights of the first layer of a peer's network."""
    if isinstance(net, xnn.Network):
        return net.weights[0]
    return np.asarray(net.coefs_[0] if hasattr(net, "coefs_") else net[0][0].tolist())


def test_results_of_another_machine_have_a_folder_and_a_table(tmp_path, monkeypatch):
    for name in ("mlp", "cnn", "wide"):
        shutil.copy(harness.RESULTS / f"{name}.json", tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    assert report.elsewhere() == "Not measured yet.\n"
    measured = {name: report._read(name) for name in ("mlp", "cnn", "wide")}
    measured["mlp"]["processor"] = "Z80"
    measured["mlp"]["results"]["784-30-10, batch 10"]["xnn"]["seconds"] = 1.0
    monkeypatch.setattr(harness, "INTO", "z80")
    for name, content in measured.items():
        harness.write(name, content)
    assert "| 784-30-10, batch 10 | 1,000,000.0 | 0.0 |" in report.elsewhere()
    assert "cores of Z80" in report.elsewhere()
    assert "Z80" not in report.summary()


def test_where_results_lie_is_printed(tmp_path, monkeypatch, capsys):
    harness.write("a", {}, tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "benchmarks" / "results")
    harness.write("b", {"c": 1}, harness.RESULTS)
    there = Path("benchmarks", "results", "b.json")
    assert capsys.readouterr().out == f"Written to {tmp_path / 'a.json'}\nWritten to {there}\n"
    assert json.loads((tmp_path / there).read_text()) == {"c": 1}


def test_what_pytorch_lacks_is_told():
    pytest.importorskip("torch")
    described = json.dumps(gpu.asdict(TASKS["small"]))
    absent = gpu_workers.main("training", "PyTorch CUDA graph", described)
    assert absent == {"absent": "only a GPU has CUDA graphs"}


def test_a_sweep_keeps_what_there_was_time_for(monkeypatch):
    monkeypatch.setattr(gpu_workers, "training", lambda task, peer: {"seconds": task.batch / 1e6})
    tasks = gpu.sweep_tasks(TASKS["small"], quick=False)
    assert [task.batch for task in tasks] == [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536]
    whole = gpu_workers.sweep(tasks, "xnn")["points"]
    assert whole == [[task.batch, task.batch / 1e6] for task in tasks]
    monkeypatch.setattr(gpu_workers, "SWEEP_SECONDS", -1)
    assert gpu_workers.sweep(tasks, "xnn")["points"] == whole[:1]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no groups of processes")
def test_what_a_process_has_begun_ends_with_it(tmp_path, monkeypatch):
    """Such as compilers that hold its pipes open, so that whoever reads them would wait."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "slow.py").write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "benchmarks" / "results")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="took longer than 3 s"):
        harness.worker("slow", seconds=3)
    assert time.monotonic() - began < 30
    child = int((tmp_path / "child").read_text())
    with suppress(ProcessLookupError):
        while True:  # until its new parent has noted its end
            os.kill(child, 0)
            assert time.monotonic() - began < 30


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host that steals time; returns a function that sets the ticks of stolen and own time."""
    monkeypatch.setattr(quiet, "STAT", tmp_path / "stat")

    def told(wanted, stolen):
        line = f"cpu  {wanted} 0 0 900 50 0 0 {stolen} 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
        (tmp_path / "stat").write_text(line)

    told(0, 0)
    return told


def test_jobs_wait_for_a_quiet_machine(host, monkeypatch):
    # Half is stolen, 1 %, and then nothing.
    seen = iter([(50, 50), (150, 51), (250, 51), (300, 61), (350, 66)])
    monkeypatch.setattr(quiet, "_work", lambda: host(*next(seen)))
    slept = []
    monkeypatch.setattr(quiet.time, "sleep", slept.append)
    work = iter([(250, 51), (260, 61), (345, 66)])
    tried = []

    def job(_):
        host(*next(work))
        tried.append(len(tried))
        return {"seconds": tried[-1]}

    *_, measured = harness.turns({"a": job}, 2)
    assert slept == [quiet.PAUSE]
    assert [run["seconds"] for run in measured["a"]] == [0, 2]  # in the second half was stolen
    assert [run["stolen"] for run in measured["a"]] == [0, 0.1]
    assert harness.medians(measured["a"]) == {"seconds": 1, "runs": [0, 2], "stolen": 0.1}
    made_up = {**harness.machine(), "data": "MNIST", "results": {"task": {"xnn": {"stolen": 0.5}}}}
    assert report._where(made_up).endswith(
        "At most 50% of the cores' time was given to other virtual machines."
    )


def test_patience_ends_and_what_is_not_known_is_not_waited_for(host, monkeypatch, tmp_path):
    ticks = iter(range(10, 1000, 10))
    monkeypatch.setattr(quiet, "_work", lambda: host(0, next(ticks)))
    monkeypatch.setattr(quiet, "PAUSE", 0.05)
    assert 0.1 <= quiet.wait(0.1) < 5
    monkeypatch.setattr(quiet, "_work", (tmp_path / "stat").unlink)
    assert quiet.wait(60) < 1
    with quiet.watched() as stolen:
        pass
    assert stolen.share is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_ticks_of_this_machine():
    before = quiet._ticks()
    quiet._work()
    after = quiet._ticks()
    assert 0 <= after[0] - before[0] <= after[1] - before[1]
    assert after[1] - before[1] >= 10  # of 1/100 s each


def test_turns_keep_to_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(quiet, "STAT", tmp_path / "none")
    asked = []

    def job(name, absent=False):
        def work(left):
            asked.append((name, left > 0))
            return {"absent": "not here"} if absent else {"seconds": len(asked)}

        return work

    jobs = {"a": job("a"), "b": job("b", absent=True), "c": job("c")}
    *_, measured = harness.turns(jobs, 3, once={"c"})
    assert [name for name, _ in asked] == ["a", "b", "c", "a", "a"]
    assert harness.medians(measured["a"]) == {"seconds": 4, "runs": [1, 4, 5]}
    assert harness.medians(measured["b"]) == {"absent": "not here"}
    asked.clear()
    *_, measured = harness.turns(jobs, 3, seconds=0)
    assert asked == [("a", False), ("b", False), ("c", False)]


def test_a_process_that_fails_is_absent_with_the_reason(monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("python -m …\nTraceback …\nRuntimeError: cuBLAS failed")

    monkeypatch.setattr(harness, "worker", fail)
    small, *large = gpu.tasks("gpu", quick=False)
    jobs, once = gpu.planned(small, large, list(gpu.PEERS), quick=False)
    assert once < set(jobs)
    peers = [peer for _, peer in jobs]
    ours = [peer in ("xnn", gpu.BARE, gpu.CUBLAS) for peer in peers]
    assert all(ours[: ours.index(False)])
    assert sum(ours[ours.index(False) :]) == 1  # the sweep
    slow = [peer in (*gpu.COMPILED, gpu.SLOWEST) for peer in peers]
    assert all(slow[slow.index(True) :])
    assert all((pair in once) == late for pair, late in zip(jobs, slow, strict=True) if late)
    assert (
        {
            "784-2048-2048-10, batch 4,096",
            "784-2048-2048-10, batch 4,096, TF32",
            "LeNet, batch 1,024, TF32",
        }
        <= set(gpu.WANTED)
        <= {task for task, _ in jobs}
    )
    found = [job(100.0) for job in jobs.values()]
    assert found == [{"absent": "failed: RuntimeError: cuBLAS failed"}] * len(jobs)
    assert jobs["sweep", "xnn"](0) == {"absent": "no time was left"}


@pytest.fixture
def made_up():
    """The contents of a GPU's file, with made-up figures."""

    def figures(seconds, samples):
        return {"seconds": seconds, "runs": [seconds] * 3, "samples": samples, "accuracy": 0.95}

    large = {"xnn": figures(3e-3, 4096), gpu.BARE: figures(2.7e-3, 4096)}
    small = {
        "xnn": figures(20e-6, 10),
        "PyTorch eager": figures(300e-6, 10),
        "PyTorch CUDA graph": {"absent": "torch"},
        "JAX jit+scan": figures(40e-6, 10),
    }
    call = {"call": "gemm (10, 785) @ (785, 30)", "per_step": 1.0, "seconds": 3e-6}
    return {
        **harness.machine(),
        "data": "MNIST",
        "gpu": {"name": "NVIDIA Z9", "memory": 80 * 2**30, "driver": "for CUDA 13.0"},
        "results": {"784-30-10, batch 10": small, "784-2048-2048-10, batch 4,096": large},
        "calls": {"784-30-10, batch 10": {"steps": 64, "calls": [call]}},
        "first epoch": {"seconds": 3.21, "again": 2.5, "runs": [3.21]},
        "sweep": {
            "xnn": {"points": [[1, 2e-5], [64, 3e-5]]},
            "PyTorch eager": {"points": [[1, 3e-4], [64, 3e-4], [4096, 4e-4]]},
            "JAX jit+scan, unrolled": {"absent": "jax"},
        },
    }


def test_what_is_asked_is_held_against_what_is_measured(made_up, capsys):
    small = "784-30-10, batch 10"
    assert gpu.printed(made_up, small)
    said = capsys.readouterr().out
    assert "15.00×     10×" in said
    assert re.search(r"\n +64 +33,333 +3,333\n +4,096 +2,500\n", said)
    assert "absent: torch" in said
    assert "a step of the small network: 20.0 µs (asked: under 25)" in said
    made_up["results"][small]["xnn"]["seconds"] = 26e-6
    assert not gpu.printed(made_up, small)
    assert "26.0 µs (asked: under 25, MISSED)" in capsys.readouterr().out
    made_up["results"][small]["xnn"] = {"absent": "failed: out of memory"}
    assert not gpu.printed(made_up, small)


def test_share_of_bare_products_is_judged(made_up, capsys):
    made_up["results"]["784-2048-2048-10, batch 4,096"][gpu.BARE]["seconds"] = 2.5e-3
    assert not gpu.printed(made_up, "784-30-10, batch 10")


def test_tables_of_a_gpu(made_up, tmp_path, monkeypatch):
    for name in ("mlp", "accuracy"):
        shutil.copy(harness.RESULTS / f"{name}.json", tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    page = (report.ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    begin, end = "<!-- gpu: made by python -m benchmarks report -->\n", "<!-- /gpu -->"
    assert report.gpus() == "Nothing has been run or measured on a GPU yet.\n"
    harness.write("gpu-nvidia-z9", made_up, tmp_path)
    filled = report.fill(page).partition(begin)[2].partition(end)[0]
    assert filled.startswith("**NVIDIA Z9** (80 GiB; driver for CUDA 13.0). Measured ")
    assert "| PyTorch eager | 300.0 (300.0 to 300.0) | 33,333 | 15.00 times as fast |" in filled
    assert "Absent: PyTorch CUDA graph." in filled
    assert "| `gemm (10, 785) @ (785, 30)` | 1 | 3.00 |" in filled
    assert "finishing its first epoch of 784-30-10 takes 3.2 s" in filled
    assert filled.endswith("(gpu-nvidia-z9.png)\n")


def test_plot(made_up, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("matplotlib.image")
    harness.write("gpu-nvidia-z9", made_up, tmp_path)
    where = argparse.Namespace(results=tmp_path, output=tmp_path / "docs")
    assert plot.main(where) == 0
    pixels = image.imread(tmp_path / "docs" / "gpu-nvidia-z9.png")
    assert pixels.shape[:2] == (750, 1200)
    assert (pixels[..., :3] < 0.9).any(axis=2).mean() > 0.01  # something is drawn
    capsys.readouterr()
    assert plot.main(argparse.Namespace(results=tmp_path / "docs", output=tmp_path)) == 0
    assert capsys.readouterr().out.startswith("No gpu-*.json in ")


def test_picture_of_the_peers(tmp_path):
    pytest.importorskip("matplotlib")
    measured = [
        json.loads((harness.RESULTS / f"{name}.json").read_text()) for name in ("mlp", "cnn")
    ]
    drawn = [plot.draw_peers(*measured, tmp_path / f"{i}.svg").read_text() for i in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].count("fill: #d62728") == 3  # xnn, in three networks


def test_slug():
    assert gpu.slug("NVIDIA H200") == "nvidia-h200"
    assert gpu.slug("NVIDIA GeForce RTX 4090 (Laptop)") == "nvidia-geforce-rtx-4090-laptop"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimators_get_the_same_work():
    for task in ("fit MNIST", "fit digits", "fit regression"):
        ours, theirs = (
            estimators.model(task, peer, 3, 1).get_params() for peer in estimators.PEERS
        )
        assert theirs.items() <= ours.items()
    scores = [estimators.fit("fit digits", peer, 1, 0) for peer in estimators.PEERS]
    assert scores[0]["score"] == pytest.approx(scores[1]["score"], abs=estimators.POINTS)
    assert estimators.predict("predict one row", "xnn")["samples"] == 1


# In float64, since in float32 rounding errors grow until networks differ by some hundredths.
SMALL = ladder.Task((), (20,), lmbda=1.0, epochs=2, images=300, expanded=True, dtype="float64")


@pytest.mark.parametrize(("activation", "maps"), [("sigmoid", ()), ("relu", (3, 4))])
def test_rungs_are_trained_as_by_pytorch(activation, maps, mnist):
    pytest.importorskip("torch")
    task = replace(SMALL, activation=activation, maps=maps)
    ours, theirs = (ladder.measure(peer, task) for peer in ladder.TRAINERS)
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.001)
    assert ours["validation"] == pytest.approx(theirs["validation"], abs=0.001)
    alike = [a == b for a, b in zip(ours["classes"], theirs["classes"], strict=True)]
    assert np.mean(alike) > 0.999
    assert ours["accuracy"] > 0.4


def test_rungs_with_dropout_learn_as_by_pytorch(mnist):
    pytest.importorskip("torch")
    task = ladder.Task((3,), (100, 60), "relu", dropout=0.5, epochs=3, images=500, expanded=True)
    ours, theirs = (ladder.measure(peer, task) for peer in ladder.TRAINERS)
    assert ours["classes"] != theirs["classes"]
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.1)
    assert ours["accuracy"] > 0.6


def test_networks_of_the_ladder_are_the_books():
    nets = {number: ladder.network(rung.task) for number, rung in ladder.RUNGS.items()}
    shapes = {n: [layer.w.shape for layer in net.layers] for n, net in nets.items()}
    convolutions = [(20, 1, 5, 5), (40, 20, 5, 5)]
    assert shapes[1] == [(784, 100), (100, 10)]
    assert shapes[2] == [convolutions[0], (20 * 12 * 12, 100), (100, 10)]
    assert shapes[3] == shapes[4] == shapes[5] == [*convolutions, (40 * 4 * 4, 100), (100, 10)]
    assert shapes[6] == [*convolutions, (40 * 4 * 4, 100), (100, 100), (100, 10)]
    assert shapes[7] == shapes[8] == [*convolutions, (40 * 4 * 4, 1000), (1000, 1000), (1000, 10)]
    assert [layer.p_dropout for layer in nets[7].layers[2:]] == [0.5] * 3


def test_the_record_is_run_in_pieces(scribbles, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "RUNS", {"3x3": ["3x3"], "kinds": ["3x3"]})
    assert report.record() == "Not measured yet.\n"

    def run(*runs):
        options = {"runs": runs, "device": "cpu", "data": str(scribbles), "epochs": 1}
        rest = {"checkpoint": str(tmp_path / "runs"), "no_write": False, "commit": "f00d"}
        status = record.main(argparse.Namespace(**options, **rest))
        return status, capfd.readouterr().out

    status, said = run("3x3")
    assert status == 1  # random images
    assert said.count("Epoch 1: ") == 3
    assert re.search(r"^3x3: mean \d+\.\d{3}% \(asked: at least 99.70%, MISSED\)$", said, re.M)
    status, again = run("kinds")  # the same networks
    assert status == 1
    assert "Epoch 1: " not in again
    assert "kinds: vote" in again
    results = json.loads((tmp_path / "record.json").read_text())["results"]
    figures = results["3x3"]
    assert {key: results["kinds"][key] for key in ("networks", "mean", "vote")} == {
        key: figures[key] for key in ("networks", "mean", "vote")
    }
    assert [network["name"] for network in figures["networks"]] == [
        f"3x3, seed {seed}, epochs: 1" for seed in range(3)
    ]
    told = [float(percent) for percent in re.findall(r"^Test accuracy (.*)%$", said, re.M)]
    assert [100 * network["accuracy"] for network in figures["networks"]] == pytest.approx(told)
    assert figures["mean"] == pytest.approx(sum(told) / 300)
    assert f"3 networks by majority: test accuracy {figures['vote']:.2%}" in said
    place, _, _, head, _, seeds, kinds = report.record().splitlines()
    assert place.startswith("`3x3` on the CPU. Measured ")
    assert head == "| three networks | each | mean | by vote | wrong in all | minutes each |"
    each = ", ".join(f"{accuracy:.2f}%" for accuracy in told)
    names = "; ".join(f"3x3, seed {seed}, epochs: 1" for seed in range(3))
    means = f"{figures['mean']:.2%} | {figures['vote']:.2%} | {figures['wrong']}"
    assert seeds.startswith(f"| {names} | {each} | {means} |")
    assert figures["wrong"] <= 50 * (1 - max(told) / 100) + 1e-6  # of 50 images
    assert kinds == seeds


def test_the_record_says_what_is_asked_and_what_went_wrong(tmp_path, capfd):
    assert record.printed("kinds", {"mean": 0.99, "vote": 0.9985})
    assert record.printed("3x3", {"mean": 0.9970, "vote": 0.9})
    assert not record.printed("3x3", {"mean": 0.9969, "vote": 1.0})
    assert capfd.readouterr().out.splitlines() == [
        "kinds: vote 99.850% (asked: at least 99.85%)",
        "3x3: mean 99.700% (asked: at least 99.70%)",
        "3x3: mean 99.690% (asked: at least 99.70%, MISSED)",
    ]
    with pytest.raises(RuntimeError, match=r"record\.py did not print"):
        record.read("3x3, seed 0, epochs: 24\nTest accuracy 99.00%\n")
    done = run("record", "--data", tmp_path / "nowhere", "--no-write")
    assert done.returncode == 2
    assert done.stderr.startswith("record.py: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def climb(tmp_path, monkeypatch):
    """Return the ladder's command with made-up figures, and a list of what it trains."""
    trained = []

    def worker(module, peer, described, *_, **__):
        if module == "gpu_workers":
            return {"name": "NVIDIA Z9"}
        task = ladder.Task(**json.loads(described))
        trained.append((peer, task.seed))
        # Three of five networks are right throughout, PyTorch's in all but one digit.
        classes = "7" * 10 if task.seed > 3 else "0123456789" if peer == "xnn" else "0123456780"
        return {"accuracy": 0.98, "validation": [], "classes": classes, "seconds": 90.0}

    def run(*rungs, device="cpu", epochs=None):
        trained.clear()
        ladder.trained.cache_clear()
        options = argparse.Namespace(rungs=rungs, device=device, epochs=epochs, no_write=False)
        return ladder.main(options), json.loads((tmp_path / "ladder.json").read_text())["results"]

    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "worker", worker)
    monkeypatch.setattr(xnn.datasets, "mnist", lambda: (0, 0, (0, np.arange(10))))
    return run, trained


def test_the_ladder_is_climbed_in_pieces(climb, capsys):
    run, trained = climb
    status, results = run(1)
    assert (status, trained, list(results)) == (0, [("xnn", 1)], ["1"])
    assert "+0.20 points from the book's 97.80% (asked: at most 0.25)" in capsys.readouterr().out
    status, results = run(7, 8)
    assert (status, list(results)) == (1, ["1", "7", "8"])
    assert sorted(trained) == [(peer, 1 + i) for peer in ("PyTorch", "xnn") for i in range(5)]
    assert (results["7"]["images"], results["7"]["epochs"]) == (10_000, 5)
    assert results["8"]["figures"]["xnn"] == {
        "accuracy": 1.0, "each": [0.98] * 5, "seconds": 450.0,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "+0.00 points from PyTorch's 98.00% (asked: at most 0.5)" in said
    assert "+10.00 points from PyTorch's 90.00% (asked: at most 0.5, MISSED)" in said
    assert run(5, epochs=3)[1]["5"]["epochs"] == 3


def test_on_a_gpu_rungs_are_whole(climb):
    run, trained = climb
    status, results = run(7, device="gpu", epochs=3)
    assert (status, trained) == (1, [("xnn", 1)])  # 98.00 % are not enough
    assert (results["7"]["images"], results["7"]["epochs"]) == (50_000, 40)
    assert ladder.compared(results["7"]) == ("the book", 0.9960, -1.6)


def test_a_ladder_without_pytorch(climb, monkeypatch, capsys):
    run, _ = climb
    worker = harness.worker
    absent = {"absent": "No module named 'torch'"}
    monkeypatch.setattr(harness, "worker", lambda *a: absent if a[1] == "PyTorch" else worker(*a))
    assert run(6, 8)[0] == 0
    assert "  PyTorch: absent (No module named 'torch')" in capsys.readouterr().out
    assert "| 8. five of those, by vote | 5 | 100.00% | absent |  |" in report.rungs()


def test_tables_of_the_ladder(climb):
    run, _ = climb
    assert report.rungs() == "Not measured yet.\n"
    run(1, 7)
    run(4, device="gpu")
    place, other, _, head, _, one, four, _, beside, _, seven = report.rungs().splitlines()
    assert place.startswith("Rungs 1, 7 on the CPU. Measured ")
    assert other.startswith("Rung 4 on NVIDIA Z9. Measured ")
    assert head == "| in full, at the book's settings | epochs | xnn | the book | points apart |"
    assert one == "| 1. one hidden layer of 100 | 60 | 98.00% | 97.80% | +0.20 |"
    assert four.startswith("| 4. rectified linear units, λ = 0.1 | 60 | 98.00% | 99.23% | -1.23 |")
    assert beside.startswith("| 10,000 images, expanded | epochs | xnn | PyTorch |")
    assert seven.startswith("| 7. two hidden layers of 1,000 with dropout | 5 | 98.00% | 98.00% |")


def test_networks_of_many_kinds_are_those_of_pytorch(monkeypatch):
    """Peers train the same number of parameters, and each gives an answer for every sample."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(wide, "_SECONDS", 0)
    for name, kind in wide.KINDS.items():
        net = xnn.Network([kind.inputs, *kind.layers()], seed=0, device="cpu")
        trained = sum(p.numel() for p in xnn.to_torch(net).parameters())
        assert trained == sum(p.size for p in net.core.engine.trained), name
    kind = replace(wide.KINDS["20-50-50-10, batch 32"], samples=128)
    monkeypatch.setitem(wide.KINDS, "small", kind)
    threads = torch.get_num_threads()
    try:
        for peer in wide.PEERS:
            found = wide.measure("small", peer)
            assert found["samples"] == 32
            assert 0 < found["seconds"] < 1 > found["answers"] > 0
    finally:
        torch.set_num_threads(threads)
    for answer in (wide._xnn, wide._torch):
        assert answer(kind, *wide.data(kind))[1]().shape == (128, 10)
