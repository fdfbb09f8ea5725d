"""The commands, as a user runs them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click.testing
import numpy as np
import pytest

import xnn
from xnn import cli, images

ROOT = Path(__file__).parent.parent
Image = pytest.importorskip("PIL.Image")
TRAIN = ["train", "--dataset", "digits", "--epochs", "2", "--lr", "0.5"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def invoke(*arguments):
    return click.testing.CliRunner().invoke(cli.main, [str(a) for a in arguments])


def done(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_train_evaluate_and_info():
    said = done(*TRAIN, "net", "--device", "cpu").splitlines()
    net = xnn.load("net", device="cpu")
    cost, accuracy = net.evaluate(*xnn.datasets.digits()[-1])
    assert said[:4] == str(net).splitlines()
    assert [line.split(":")[0] for line in said[4:6]] == ["epoch 1/2", "epoch 2/2"]
    assert said[6:] == [f"net: test accuracy {accuracy:.2%}"]
    told = json.loads(done("evaluate", "net", "--dataset", "digits", "--json", "--device", "cpu"))
    assert told == {"model": "net", "samples": 300, "cost": cost, "accuracy": accuracy}
    words = done("evaluate", "net", "--dataset", "digits")
    assert words == f"net: cost {cost:.4g}, accuracy {accuracy:.2%} on 300 images\n"
    assert done("info", "net") == f"{net}\n"
    assert json.loads(done("info", "net", "--json"))["shapes"] == [[64], [30], [10]]


def test_train_is_that_of_the_library():
    told = json.loads(done(*TRAIN, "net", "--json", "--device", "cpu", "--hidden", "9"))
    train, validation, test = xnn.datasets.digits()
    net = xnn.Network([64, xnn.Dense(9), xnn.Dense(10)], "cross_entropy", seed=0, device="cpu")
    history = net.fit(*train, epochs=2, optimizer=0.5, validation_data=validation)
    assert told["history"]["validation_cost"] == history.validation_cost
    assert told["accuracy"] == net.evaluate(*test).accuracy
    net.save("wanted")
    assert Path("net").read_bytes() == Path("wanted").read_bytes()


@pytest.mark.parametrize(
    ("name", "cost", "wanted"),
    [
        ("sgd", "quadratic", xnn.SGD(0.5)),
        ("sgd", "cross_entropy", xnn.SGD(0.1)),
        ("adam", "quadratic", xnn.Adam()),
        ("rmsprop", "quadratic", xnn.RMSprop()),
    ],
)
def test_learning_rates_are_those_of_the_optimizers(name, cost, wanted):
    options = ["--dataset", "digits", "--epochs", "1", "--optimizer", name, "--device", "cpu"]
    told = json.loads(done("train", "net", *options, "--cost", cost, "--json"))
    train, validation, _ = xnn.datasets.digits()
    net = xnn.Network([64, xnn.Dense(30), xnn.Dense(10)], cost, seed=0, device="cpu")
    history = net.fit(*train, epochs=1, optimizer=wanted, validation_data=validation)
    assert told["history"]["cost"] == history.cost
    assert f"{wanted.learning_rate}" in done("train", "--help")


@pytest.mark.parametrize(
    ("cost", "outputs"),
    [("quadratic", "sigmoid"), ("cross_entropy", "sigmoid"), ("log_likelihood", "softmax")],
)
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky_relu"])
def test_activation_is_of_hidden_layers_and_outputs_follow_from_the_cost(activation, cost, outputs):
    options = ["--activation", activation, "--cost", cost, "--hidden", "40", "--hidden", "20"]
    learning = ["--dataset", "digits", "--optimizer", "adam", "--lr", "0.01", "--epochs", "8"]
    told = json.loads(done("train", "net", *options, *learning, "--device", "cpu", "--json"))
    net = xnn.load("net", device="cpu")
    assert [layer.activation for layer in net.layers] == [activation, activation, outputs]
    assert net.cost == cost
    assert told["accuracy"] > 0.85


def test_sgd_learns_well_by_default():
    for options in [], ["--cost", "quadratic"], ["--activation", "relu"]:
        options = ["--dataset", "digits", "--hidden", "500", "--epochs", "15", *options]
        assert json.loads(done("train", "net", *options, "--json"))["accuracy"] > 0.9


def test_train_goes_on():
    options = [*TRAIN[:3], "--lr", "0.5", "--device", "cpu"]
    done(*options, "whole", "--epochs", "3")
    done(*options, "net", "--epochs", "1", "--checkpoint", "runs")
    assert "already has checkpoints" in invoke(*options, "--checkpoint", "runs").stderr
    said = done(*options, "net", "--epochs", "3", "--checkpoint", "runs", "--resume")
    assert "epoch 1/" not in said
    assert "epoch 3/" in said
    assert Path("net").read_bytes() == Path("whole").read_bytes()
    for epochs in 2, 3:
        result = invoke(*options, "net", "--epochs", epochs, "--checkpoint", "runs", "--resume")
        assert result.exit_code == 0
        (line,) = result.stderr.splitlines()
        assert line.startswith("xnn: nothing to train: ")
        assert "checkpoint-000003.safetensors has already reached epoch 3" in line
        assert Path("net").read_bytes() == Path("whole").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_ctrl_c_saves_the_network_and_is_status_130():
    code = (
        "import signal; from xnn.cli import main;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # may be off
        "main(['train', 'net', '--dataset', 'digits', '--epochs', '1000000'], prog_name='xnn')"
    )
    training = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        epochs = (line for line in training.stdout if line.startswith("epoch "))  # as they come
        assert next(epochs).startswith("epoch 1/1000000: ")
        training.send_signal(signal.SIGINT)
        said, told = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 130
    assert "the network keeps its weights" in told
    accuracy = xnn.load("net").evaluate(*xnn.datasets.digits()[-1]).accuracy
    assert said.endswith(f"net: test accuracy {accuracy:.2%}\n")


def test_ctrl_c_elsewhere_is_status_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "facts", interrupted)
    result = invoke("info")
    assert (result.exit_code, result.stderr) == (130, "\nxnn: interrupted\n")


def test_export():
    onnx = pytest.importorskip("onnx")
    xnn.Network([4, 3], seed=0).save("net")
    assert done("export", "net", "net.onnx").startswith("net.onnx: ")
    onnx.checker.check_model(onnx.load("net.onnx"))
    xnn.Network([5, 3], seed=0).save("digits.safetensors")
    assert done("export", "digits.onnx").startswith("digits.onnx: ")
    onnx.checker.check_model(onnx.load("digits.onnx"))
    assert Path("digits.onnx").read_bytes() != Path("net.onnx").read_bytes()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "Missing argument '[MODEL] OUT'"),
        (["net"], "net: OUT, the file to write, must be named .onnx"),
        (["net.onnx", "net"], "net: OUT, the file to write, must be named .onnx"),
        (["net", "a.onnx", "b.onnx"], "at most one MODEL and one OUT"),
    ],
)
def test_export_writes_over_no_network(files, words):
    xnn.Network([4, 3], seed=0).save("net")
    xnn.Network([5, 3], seed=0).save("digits.safetensors")
    before = Path("net").read_bytes()
    result = invoke("export", *files)
    assert result.exit_code == 2
    assert words in result.stderr
    assert Path("net").read_bytes() == before


def draw(pixels, path, *, scale=1, white=True, size=(300, 200), at=(90, 30), mode="L"):
    """Draw an image of MNIST on a large page."""
    digit = Image.fromarray(pixels).resize((28 * scale, 28 * scale), Image.Resampling.BICUBIC)
    page = Image.new("L", size, 0)
    page.paste(digit, at)
    if white:
        page = page.point(lambda value: 255 - value)
    page.convert(mode).save(path)


@pytest.fixture(scope="module")
def reader(mnist, tmp_path_factory):
    """A network that has learnt to read, and where it is saved."""
    net = xnn.Network([784, 30, 10], seed=0, device="cpu")
    net.fit(*mnist[0], epochs=3, optimizer=3.0)
    path = tmp_path_factory.mktemp("net") / "digits.safetensors"
    net.save(path)
    return net, path


@pytest.mark.parametrize(("white", "scale"), [(True, 1), (True, 4), (False, 4)])
def test_digits_are_found_wherever_they_are(white, scale, reader, mnist):
    """As in MNIST: nearly its own pixels again, and recognised nearly as well."""
    net, path = reader
    x, y = mnist[2]
    x, y = x[:60].reshape(-1, 28, 28), y[:60]
    rng = np.random.default_rng(0)
    for i, pixels in enumerate(x):
        at = rng.integers(0, 300 - 28 * scale), rng.integers(0, 200 - 28 * scale)
        draw(pixels, f"{i}.png", scale=scale, white=white, at=tuple(map(int, at)))
    found = np.stack([images.digit(f"{i}.png") for i in range(60)])
    # A pixel to one side, where a centre lies between two, makes most of the difference.
    close = np.abs(found.astype(float) - x).mean((1, 2))
    assert np.median(close) < 8
    told = json.loads(done("predict", *(f"{i}.png" for i in range(60)), "-m", path, "--json"))
    right = np.mean([one["digit"] == label for one, label in zip(told, y, strict=True)])
    assert right >= (net.classify(x) == y).mean() - 0.06


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_pictures_of_all_modes(mode, mnist):
    draw(mnist[2][0][0].reshape(28, 28), "7.png", scale=3)
    draw(mnist[2][0][0].reshape(28, 28), "other.png", scale=3, mode=mode)
    wanted, found = (images.digit(path).astype(float) for path in ("7.png", "other.png"))
    assert np.abs(wanted - found).mean() < 12  # in black and white its edges are rough


def test_ink_on_nothing_is_ink_on_paper(mnist):
    pixels = mnist[2][0][0].reshape(28, 28)
    black = Image.fromarray(np.zeros((28, 28, 3), np.uint8))
    black.putalpha(Image.fromarray(pixels))
    black.save("7.png")
    assert np.abs(images.digit("7.png").astype(float) - pixels).mean() < 8
    lying, exif = Image.fromarray(255 - pixels).rotate(90), Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn it clockwise
    lying.save("lying.jpg", exif=exif, quality=95)
    Image.fromarray(255 - pixels).save("upright.jpg", quality=95)
    lies, stands = (images.digit(f"{name}.jpg").astype(float) for name in ("lying", "upright"))
    assert np.abs(lies - stands).mean() < 2


def test_predict_tells_one_line_a_file(reader, mnist):
    _, path = reader
    for i in range(2):
        draw(mnist[2][0][i].reshape(28, 28), f"{i}.png")
    said = done("predict", "0.png", "1.png", "-m", path).splitlines()
    assert [line.split(" (")[0] for line in said] == ["0.png: 7", "1.png: 2"]


def test_predict_reads_the_good_pictures_beside_bad_ones(reader, mnist):
    _, path = reader
    for i in range(2):
        draw(mnist[2][0][i].reshape(28, 28), f"{i}.png")
    Path("bad.png").write_text("no picture")
    files = ["0.png", "bad.png", "none.png", "1.png"]
    result = invoke("predict", *files, "-m", path)
    assert result.exit_code == 2
    assert [line.split(" (")[0] for line in result.stdout.splitlines()] == ["0.png: 7", "1.png: 2"]
    bad, none = result.stderr.splitlines()
    assert bad.startswith("xnn: bad.png: not a picture that can be read")
    assert none == "xnn: none.png: No such file or directory"
    result = invoke("predict", *files, "-m", path, "--json")
    assert result.exit_code == 2
    told = json.loads(result.stdout)
    assert [one["file"] for one in told] == files
    assert [one.get("digit") for one in told] == [7, None, None, 2]
    assert [f"xnn: {one['error']}" for one in told[1:3]] == [bad, none]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "a.png"], "digits.safetensors"),
        (["predict", "none.png", "-m", "net"], "none.png"),
        (["predict", "text.png", "-m", "net"], "text.png: not a picture that can be read"),
        (["predict", "white.png", "-m", "net"], "white.png: no digit found in this picture"),
        (["predict", "huge.png", "-m", "net"], "huge.png: not a picture that can be read"),
        (["predict", "white.png", "-m", "small"], "small: takes 4 numbers, but digits are 28"),
        (["evaluate", "text.png", "--dataset", "digits"], "text.png: not a safetensors file"),
        (
            ["evaluate", "net", "--dataset", "digits"],
            "net: takes 784 numbers, but images of digits have 64 pixels; try --dataset mnist",
        ),
        (["evaluate", "tiny"], "images of mnist have 784 pixels; try --dataset digits"),
        (["evaluate", "small"], "small: takes 4 numbers, but images of mnist have 784 pixels"),
        (["train", "no/where", "--dataset", "digits"], "no/where: no such folder to save to"),
        (["train", ".", "--dataset", "digits"], ".: is a folder, not a file to save to"),
        (["evaluate", "gone"], "gone: no such model; train one with xnn train gone"),
        (["info", "gone"], "gone: no such model; train one with xnn train gone"),
        (["train", "--dataset", "digits", "--data", "x"], "--data is for MNIST"),
        (["train", "--dataset", "digits", "--hidden", "0"], "units is 0"),
        (["train", "--dataset", "digits", "--device", "tpu"], "device is 'tpu'"),
        (["train", "--data", "nowhere"], "nowhere: no MNIST there"),
        (["train", "--dataset", "digits", "--every", "x", "--checkpoint", "d"], "every is 'x'"),
        (["export", "net", "no/where.onnx"], "no/where.onnx"),
        (["info", "text.png"], "text.png: not a safetensors file"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line_and_status_2(arguments, words):
    xnn.Network([784, 3], seed=0, device="cpu").save("net")
    xnn.Network([4, 3], seed=0, device="cpu").save("small")
    xnn.Network([64, 3], seed=0, device="cpu").save("tiny")
    Path("text.png").write_text("no picture")
    Image.new("L", (50, 50), 255).save("white.png")
    if "huge.png" in arguments:
        Image.new("1", (8000, 8000)).save("huge.png")
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("xnn: ")
    assert words in result.stderr


def test_what_fails_is_one_line_and_status_1():
    learning = ["--dataset", "digits", "--optimizer", "adam", "--lr", "1e30", "--json"]
    options = ["--activation", "linear", "--cost", "log_likelihood"]
    result = invoke("train", "net", *options, *learning)
    assert result.exit_code == 1
    assert result.stderr.startswith("xnn: training diverged in epoch 1/30, step")
    assert not Path("net").exists()


def test_every_command_shows_an_example_that_is_one():
    for name, command in cli.main.commands.items():
        said = done(name, "--help")
        (example,) = (line for line in said.splitlines() if "Example: xnn" in line)
        words = example.split()[2:]
        assert words[0] == name
        command.make_context(name, words[1:])  # refuses what it does not know


def test_the_list_of_commands_has_whole_sentences():
    said = done("--help")
    for command in cli.main.commands.values():
        assert f"  {command.help.splitlines()[0]}\n" in said


@pytest.mark.parametrize("option", [["--resume"], ["--every", "500 steps"]])
def test_options_of_checkpoints_want_a_folder_for_them(option):
    result = invoke("train", "--dataset", "digits", *option)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{option[0]} " in result.stderr
    assert "folder" in result.stderr


@pytest.mark.parametrize("option", ["--epochs", "--batch-size"])
def test_numbers_are_refused_before_anything_is_printed(option):
    result = invoke("train", "--dataset", "digits", option, "0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '{option}'" in result.stderr


def test_completion_knows_the_commands():
    environment = {"_XNN_COMPLETE": "bash_complete", "COMP_WORDS": "xnn ", "COMP_CWORD": "1"}
    code = "from xnn.cli import main; main(prog_name='xnn')"
    paths = {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, **paths},
        capture_output=True,
        text=True,
    ).stdout
    assert {line.split(",")[1] for line in said.splitlines()} == set(cli.main.commands)
