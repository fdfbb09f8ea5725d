"""The examples, run as a user runs them."""

import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import xnn

ROOT = Path(__file__).parent.parent


def run(*arguments, example="mnist.py", **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_it_learns_to_read_mnist(mnist, tmp_path, device):
    """The book's own code reaches 93.64 % in its fourth epoch; any seed here is near that."""
    path = tmp_path / "digits.safetensors"
    device = "cpu" if device == "standin" else device
    done = run("--epochs", 4, "--seed", 1, "--save", path, "--device", device, "--dataset", "mnist")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "MNIST: 50,000 images to train on, 10,000 to test"
    epochs = [re.fullmatch(r"Epoch (\d): (\d+) / 10000", line) for line in lines[-5:-1]]
    assert [int(m[1]) for m in epochs] == [0, 1, 2, 3]
    assert int(epochs[3][2]) > 9200
    last = re.fullmatch(
        r"Test accuracy (\d\d\.\d\d)% after \d+\.\d s, [\d,]+ samples a second", lines[-1]
    )
    net = xnn.load(path)
    assert float(last[1]) == round(100 * net.evaluate(*mnist[2]).accuracy, 2)
    assert float(last[1]) > 92


def test_digits_and_options():
    done = run(
        *("--dataset", "digits", "--epochs", 30, "--hidden", 20, "--batch-size", 5, "--lr", 0.5),
        *("--cost", "cross_entropy", "--dtype", "float64", "--quiet", "--device", "cpu"),
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert float(done.stdout.split()[2].rstrip("%")) > 93


def test_it_goes_on_from_checkpoints(tmp_path):
    options = ("--dataset", "digits", "--epochs", 3, "--lr", 0.5, "--device", "cpu")
    checkpoints = ("--checkpoint", tmp_path / "runs", "--every", "500 steps")
    saved = tmp_path / "a", tmp_path / "b"
    assert run(*options, "--save", saved[0]).returncode == 0
    first = run(*options[:3], 1, *options[4:], *checkpoints, "--resume")
    assert [line for line in first.stdout.splitlines() if line.startswith("Epoch 0")]
    done = run(*options, *checkpoints, "--resume", "--save", saved[1])
    assert done.returncode == 0, done.stderr
    assert "Epoch 0" not in done.stdout
    assert "Epoch 2" in done.stdout
    assert saved[0].read_bytes() == saved[1].read_bytes()


@pytest.fixture
def no_network(tmp_path):
    """No MNIST, an empty cache, and a proxy where nothing listens."""
    dead = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), dead)
    homes = dict.fromkeys(("XDG_CACHE_HOME", "HOME"), str(tmp_path))
    return {"XNN_DATA": "", "no_proxy": "", **proxies, **homes}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="caches lie elsewhere")
def test_without_mnist_and_network_auto_takes_the_digits(no_network):
    done = run("--epochs", 1, **no_network)
    assert done.returncode == 0
    assert done.stdout.startswith("digits: 1,197 images to train on, 300 to test\n")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("No MNIST (")
    assert done.stderr.endswith("training on scikit-learn's digits\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="caches lie elsewhere")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "gpu"], "no GPU can be used"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--dataset", "mnist"], "MNIST could not be downloaded"),
        (["--data", "nowhere"], "nowhere: no MNIST there"),
        (["XNN_DATA=nowhere"], "nowhere: no such folder, but XNN_DATA names it"),
        (["--dataset", "digits", "--hidden", "0"], "layers[1] is 0"),
        (["--dataset", "digits", "--epochs", "0"], "epochs is 0"),
        (["--dataset", "digits", "--lr", "-1"], "learning_rate is -1.0"),
        (["--dataset", "digits", "--cost", "mse"], "cost is 'mse'"),
        (["--dataset", "digits", "--save", "no/where"], "no/where: no such folder to save to"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, list) else "",
)
def test_what_cannot_be_done_is_one_line_and_status_2(arguments, words, no_network):
    if "gpu" in arguments and shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU")
    settings = dict(word.split("=") for word in arguments if "=" in word)
    arguments = [word for word in arguments if "=" not in word]
    done = run("--quiet", *arguments, **{**no_network, **settings})
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("mnist.py: ")
    assert words in done.stderr


def test_scikit_learns_script_with_one_import_changed():
    """Both train the same network, and say so."""
    done = run("--epochs", 5, example="sklearn_swap.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    before, said, after, again, times = done.stdout.splitlines()
    assert before == "from sklearn.neural_network import MLPClassifier"
    assert after == "from xnn.estimators import MLPClassifier"
    figures = re.compile(r"  \d+\.\d\d s, (loss \d\.\d{6}, \d\d\.\d\d% right)")
    assert figures.fullmatch(said)[1] == figures.fullmatch(again)[1]
    assert re.fullmatch(r"\d+\.\d times as fast", times)
    done = run("--device", "tpu", example="sklearn_swap.py")
    assert done.returncode == 2
    assert done.stderr.startswith("sklearn_swap.py: device is 'tpu'")


def test_the_record_tells_times_and_accuracies(scribbles):
    options = ("--device", "cpu", "--data", scribbles, "--epochs", 1, "--seed", 3)
    done = run(*options, "--ensemble", 2, "--target", 1, example="record.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    text = done.stdout
    named = re.findall(r"^(\dx\d), seed (\d), epochs: 1$", text, re.MULTILINE)
    assert named == [("3x3", "3"), ("5x5", "4")]
    assert len(re.findall(r"^Epoch 1: \d+\.\d\d% on validation data$", text, re.MULTILINE)) == 2
    told = r"^1\.0 % after (\d+\.\d) s; (\d+\.\d) s in all; cost least in epoch 1$"
    times = re.findall(told, text, re.MULTILINE)
    assert len(times) == 2
    assert all(float(reached) <= float(whole) for reached, whole in times)
    accuracies = re.findall(r"^Test accuracy (\d+\.\d\d)%$", text, re.MULTILINE)
    assert len(accuracies) == 2
    vote, wrong, images = re.search(
        r"\n2 networks by majority: test accuracy (\d+\.\d\d)%\n"
        r"All of them misclassify the same (\d+) of (\d+) images\n$",
        text,
    ).groups()
    most = 100 * (1 - int(wrong) / int(images))
    assert all(float(percent) <= most + 0.01 for percent in (vote, *accuracies))


def test_the_record_goes_on_from_checkpoints(scribbles, tmp_path):
    options = ("--device", "cpu", "--data", scribbles, "--epochs", 1, "--target", 1)
    options += ("--checkpoint", tmp_path / "runs")
    first = run(*options, example="record.py")
    assert first.returncode == 0, first.stderr
    both = run(*options, "--ensemble", 2, "--resume", example="record.py")
    assert both.returncode == 0, both.stderr
    of_first, of_second = both.stdout.split("5x5, seed 1")
    # Trained networks are not trained again, but keep their times and accuracy.
    epochs = re.compile(r"^Epoch 1: .*\n", re.MULTILINE)
    assert of_first == epochs.sub("", first.stdout)
    assert len(epochs.findall(first.stdout)) == len(epochs.findall(of_second)) == 1

    again = run(*options, example="record.py")
    assert again.returncode == 2
    assert "already has checkpoints; continue from them" in again.stderr
    alone = run("--resume", example="record.py")
    assert alone.returncode == 2
    assert "--resume needs the folder of the checkpoints" in alone.stderr


def test_what_the_record_cannot_do_is_told(scribbles):
    options = ("--device", "cpu", "--data", scribbles, "--epochs", 1)
    done = run(*options, "--target", 100, example="record.py")
    assert done.returncode == 1, done.stderr
    told = r"\n100\.0 % was not reached; \d+\.\d s in all; cost least in epoch 1\n"
    assert re.search(told, done.stdout)
    for wrong, words in (
        (("--ensemble", 0), "networks must be at least one"),
        (("--epochs", 0), "epochs is 0"),
        (("--device", "tpu"), "device is 'tpu'"),
        (("--data", "nowhere"), "nowhere: no MNIST there"),
    ):
        done = run(*options, *wrong, example="record.py")
        assert done.returncode == 2
        assert done.stderr.startswith("record.py: ")
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr


@pytest.mark.parametrize("name", ["3x3", "5x5", "7x7"])
def test_networks_of_the_record_are_like_those_of_the_paper(name, monkeypatch):
    """Only convolutions learn, and the last layer; before each function is batch normalisation."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    import record

    layers = record.layers(name)
    net = xnn.Network([(28, 28, 1), *layers], seed=0)
    assert net.cost == "log_likelihood"
    learn = [layer for layer in layers if isinstance(layer, xnn.Conv2D | xnn.Dense)]
    assert [type(layer) for layer in learn] == [xnn.Conv2D] * (len(learn) - 1) + [xnn.Dense]
    for layer, after in pairwise(layers):
        if layer in learn:
            assert not layer.bias
            assert layer.activation == "linear"
            assert isinstance(after, xnn.BatchNorm)
        if isinstance(after, xnn.Activation):
            assert isinstance(layer, xnn.BatchNorm)
    rng = np.random.default_rng(0)
    x, y = rng.integers(256, size=(8, 784), dtype=np.uint8), np.arange(8)
    net.fit(x, y, epochs=1, batch_size=8)
    np.testing.assert_allclose(net.predict(x).sum(axis=1), 1, rtol=1e-5)


def test_many_networks_in_threads_are_those_of_one_after_another(mnist):
    options = ("--epochs", 1, "--networks", 4, "--seed", 1, "--hidden", 5)
    done = run(*options, "--threads", 3, example="many.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (x, y), _, test = mnist
    right = []
    for seed in range(1, 5):
        net = xnn.Network([784, 5, 10], seed=seed, device="cpu")
        net.fit(x, y, epochs=1, batch_size=10, optimizer=3.0, progress=False)
        right.append(100 * net.evaluate(*test).accuracy)
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"\d+\.\d s, [\d,]+ samples a second; threads: 3", lines[0])
    told = f"{min(right):.2f}% to {max(right):.2f}%, {np.mean(right):.2f}% in the mean"
    assert lines[1] == f"Test accuracy {told}"
    assert lines[2] == f"Standard deviation {np.std(right):.2f} points"
    assert re.fullmatch(r"4 networks by majority: test accuracy \d+\.\d\d%", lines[3])
    for wrong, words in ((("--hidden", 0), "layers[1]"), (("--data", "nowhere"), "no MNIST there")):
        done = run(*options, *wrong, example="many.py")
        assert done.returncode == 2
        assert done.stderr.startswith("many.py: ")
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr
