"""The training loop: history, callbacks, early stopping, interruption, divergence, seeds."""

import copy
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

import xnn
from xnn import estimators
from xnn.engine import Engine
from xnn.steps import Trainer

from . import standin
from .helpers import copies, parameters

ROOT = Path(__file__).parent.parent


def problem(n=200, seed=0):
    """Three well-separated clouds."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return rng.standard_normal((n, 4)) + 3 * np.eye(4)[y], y


def network(device="cpu", **options):
    return xnn.Network([4, 8, 3], device=device, **{"seed": 0, **options})


def test_history_holds_what_evaluate_says(device):
    x, y = problem()
    net = network(device, dtype="float64")
    seen = []
    history = net.fit(
        x,
        y,
        epochs=3,
        optimizer=1.0,
        validation_data=(x[:50], y[:50]),
        callbacks=[lambda training: seen.append(tuple(net.evaluate(x[:50], y[:50])))],
    )
    assert len(history) == len(history.seconds) == 3
    recorded = zip(history.validation_cost, history.validation_accuracy, strict=True)
    assert list(recorded) == seen
    assert history.stopped is None


@pytest.mark.parametrize("batch_size", [7, 50, 1000])
def test_training_figures_are_those_met_in_the_epoch(batch_size, device):
    """With a learning rate so small that nothing changes they are those of the whole set."""
    x, y = problem()
    net = network(device, dtype="float64")
    cost, accuracy = net.evaluate(x, y)
    history = net.fit(x, y, epochs=1, batch_size=batch_size, optimizer=1e-12)
    assert history.cost == pytest.approx([cost], rel=1e-9)
    assert history.accuracy == pytest.approx([accuracy])


@pytest.mark.parametrize("n", [1, 2, 511, 512, 513, 1300])
def test_evaluate_is_the_mean_over_all_samples(n, device):
    x, y = problem(n)
    net = network(device, dtype="float64")
    outputs = net.predict(x)
    wanted = ((outputs - np.eye(3)[y]) ** 2).sum(axis=1).mean() / 2
    assert net.evaluate(x, y) == pytest.approx((wanted, (outputs.argmax(axis=1) == y).mean()))
    assert (net.classify(x) == outputs.argmax(axis=1)).all()


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 3, 1), (1, 1, 1)])
def test_outputs_that_are_images_have_one_class_a_sample(shape, device):
    n, size = 40, np.prod(shape)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, size)), rng.integers(0, max(2, size), n)
    net = xnn.Network([shape, xnn.layers.Activation("sigmoid")], device=device)
    found = net.classify(x)
    assert (found == (x.argmax(axis=1) if size > 1 else x[:, 0] > 0)).all()
    assert net.evaluate(x, y).accuracy == pytest.approx((found == y).mean())


@pytest.mark.parametrize("channels", [1, 2])
def test_targets_may_have_the_shape_of_outputs(channels, device):
    """An image for an image: what autoencoders learn. They are the same as rows."""
    shape = (4, 3, channels)
    images = np.random.default_rng(0).random((20, *shape))
    forms = [images.reshape(20, -1), images, *([images[..., 0]] if channels == 1 else [])]

    def learnt(y):
        net = xnn.Network([shape, xnn.Conv2D(channels, 3, padding="same")], seed=0, device=device)
        net.fit(images, y, epochs=2, optimizer=0.1)
        return parameters(net), net.evaluate(images, y)

    (wanted, told), *others = map(learnt, forms)
    for found, said in others:
        np.testing.assert_array_equal(found, wanted)
        assert said == told
    net = xnn.Network([shape, xnn.Flatten(), 5, 12 * channels], seed=0, device=device)
    assert net.evaluate(images, images) == net.evaluate(images, forms[0])
    turned = np.moveaxis(images, 1, 2)
    net = xnn.Network([shape, xnn.Conv2D(channels, 3, padding="same")], seed=0, device=device)
    with pytest.raises(ValueError, match=r"or images \(n, 4, 3, \d\)"):
        net.fit(images, turned)


def test_it_learns(device):
    x, y = problem()
    net = network(device)
    history = net.fit(x, y, epochs=20, optimizer=3.0, validation_data=problem(100, seed=1))
    assert history.validation_accuracy[-1] > 0.95
    assert history.cost[-1] < history.cost[0] / 2


def test_labels_and_one_hot_rows_train_alike(device):
    x, y = problem()
    by_label, by_row = network(device), network(device)
    one = by_label.fit(x, y, epochs=2)
    other = by_row.fit(x, np.eye(3)[y], epochs=2)
    assert (parameters(by_label) == parameters(by_row)).all()
    assert one.accuracy == other.accuracy


def test_pixels_are_scaled(device):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 4)).astype(np.uint8), rng.integers(0, 3, 60)
    pixels, numbers = (network(device, dtype="float64") for _ in range(2))
    pixels.fit(x, y, epochs=3, optimizer=xnn.SGD(1.0, momentum=0.5))
    numbers.fit(x / 255, y, epochs=3, optimizer=xnn.SGD(1.0, momentum=0.5))
    np.testing.assert_allclose(parameters(pixels), parameters(numbers), rtol=1e-10)
    np.testing.assert_allclose(pixels.predict(x), pixels.predict(x / 255), rtol=1e-10)
    np.testing.assert_allclose(pixels.predict(x[:1]), pixels.predict(x[:1] / 255), rtol=1e-10)
    assert pixels.evaluate(x, y) == pytest.approx(pixels.evaluate(x / 255, y))


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", "int64", "float16", "float32", "float64"]
)
def test_inputs_of_any_real_dtype(dtype, device):
    x, y = problem()
    x = (x > 1).astype(dtype)
    net, wanted = network(device), network(device)
    net.fit(x, y, epochs=1)
    wanted.fit(x.astype("float32"), y, epochs=1)
    assert (parameters(net) == parameters(wanted)).all()
    assert (net.predict(x) == net.predict(x.astype("float32"))).all()


def test_images_and_views_are_taken_as_rows(device):
    x, y = problem()
    nets = [network(device) for _ in range(3)]
    nets[0].fit(x, y, epochs=1)
    nets[1].fit(x.reshape(-1, 2, 2), y, epochs=1)
    nets[2].fit(np.asfortranarray(x), y.astype(np.uint8), epochs=1)
    assert (parameters(nets[0]) == parameters(nets[1])).all()
    assert (parameters(nets[0]) == parameters(nets[2])).all()


def test_regression(device):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 2))
    y = x[:, 0] - 2 * x[:, 1] + 0.5
    net = xnn.Network([2, xnn.Dense(1, "linear")], "mean_squared_error", seed=0, device=device)
    history = net.fit(x, y, epochs=30, optimizer=0.1, validation_data=(x, y))
    assert history.accuracy == history.validation_accuracy == []
    assert net.evaluate(x, y).accuracy is None
    np.testing.assert_allclose(copies(net)[0][0], [[1, -2]], atol=1e-3)
    np.testing.assert_allclose(copies(net)[1][0], [0.5], atol=1e-3)


def test_one_sigmoid_output_says_yes_or_no(device):
    x, y = problem()
    net = xnn.Network([4, 6, 1], "cross_entropy", seed=0, device=device)
    net.fit(x, y == 1, epochs=30, optimizer=1.0)
    found = net.classify(x)
    assert net.evaluate(x, y == 1).accuracy == pytest.approx((found == (y == 1)).mean())
    assert net.evaluate(x, y == 1).accuracy > 0.95


def test_one_seed_is_one_training_run(device):
    x, y = problem()
    runs = []
    for seed in (5, 5, 6):
        net = network(device, seed=seed)
        history = net.fit(x, y, epochs=3, optimizer=xnn.SGD(1.0, momentum=0.9))
        runs.append((parameters(net).tobytes(), history.cost))
    assert runs[0] == runs[1] != runs[2]


def test_a_second_fit_goes_on(device):
    x, y = problem()
    once, twice = network(device), network(device)
    once.fit(x, y, epochs=4)
    twice.fit(x, y, epochs=1)
    twice.fit(x, y, epochs=3)
    assert (parameters(once) == parameters(twice)).all()


def test_early_stopping_goes_back_to_the_best(device):
    x, y = problem()
    weights = []
    # From epoch 3 on the rate is so high that the figure gets worse.
    optimizer = xnn.SGD(lambda epoch: 0.5 if epoch < 3 else 500.0)
    stopping = xnn.EarlyStopping("validation_cost", patience=2)
    net = network(device)
    history = net.fit(
        x,
        y,
        epochs=50,
        optimizer=optimizer,
        validation_data=(x, y),
        callbacks=[lambda training: weights.append(parameters(net)), stopping],
    )
    best = int(np.argmin(history.validation_cost))
    assert stopping.best_epoch == best
    assert len(history) == best + 3
    assert history.stopped == f"validation_cost was best in epoch {best + 1}/50"
    assert (parameters(net) == weights[best]).all()
    assert not (parameters(net) == weights[-1]).all()


def test_early_stopping_can_leave_the_last_weights_and_want_more_than_a_little(device):
    x, y = problem()
    net, last = network(device), []
    stopping = xnn.EarlyStopping("cost", patience=1, min_delta=10.0, restore=False)
    callbacks = [lambda training: last.append(parameters(net)), stopping]
    history = net.fit(x, y, epochs=9, callbacks=callbacks)
    assert len(history) == 2
    assert (parameters(net) == last[-1]).all()


def test_callbacks_are_called_around_epochs(device):
    calls = []

    class Log(xnn.Callback):
        def begin(self, training):
            calls.append("begin")

        def epoch_end(self, training):
            calls.append((training.epoch, training.epochs, len(training.history)))
            if training.epoch == 1:
                training.stop("enough")

        def end(self, training):
            calls.append("end")

    history = network(device).fit(*problem(), epochs=5, callbacks=[Log()])
    assert calls == ["begin", (0, 5, 1), (1, 5, 2), "end"]
    assert history.stopped == "enough"


@pytest.mark.parametrize(
    "optimizer",
    [
        1e30,
        xnn.SGD(1e30, momentum=0.9),
        xnn.SGD(1e30, clip_norm=1e30),
        xnn.Adam(1e30),
        xnn.Averaged(xnn.SGD(1e30)),
    ],
)
def test_divergence_stops_and_says_where(optimizer, device):
    x, y = problem()
    net = xnn.Network([4, xnn.Dense(8, "relu"), xnn.Dense(3, "linear")], seed=0, device=device)
    with pytest.raises(FloatingPointError, match=r"epoch 1/5, step [0-9]+/20.*lower learning rate"):
        net.fit(x, y, epochs=5, optimizer=optimizer)
    assert np.isfinite(parameters(net)).all()


@pytest.mark.parametrize("epochs", [60, 31, 7])  # of which 20 at a time are run as one, or each
@pytest.mark.parametrize(
    "optimizer", [xnn.SGD(0.5, momentum=0.5), xnn.Adam(0.01)], ids=["sgd", "adam"]
)
def test_short_epochs_are_run_as_one_with_the_same_outcome(epochs, optimizer, device):
    x, y = problem(12)
    ends = []
    for callbacks in [], [lambda training: None]:  # which wants to be called after each
        layers = [4, xnn.Dense(8), xnn.Dropout(0.5), xnn.Dense(3, "softmax")]
        net = xnn.Network(layers, seed=0, device=device)
        history = net.fit(
            x, y, epochs=epochs, batch_size=12, optimizer=optimizer, callbacks=callbacks
        )
        assert len(history) == len(history.seconds) == len(history.accuracy) == epochs
        ends.append((parameters(net), history.cost, history.accuracy))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]


def test_a_schedule_goes_on_through_epochs_that_are_run_as_one(device):
    x, y = problem(12)
    asked = []
    rates = xnn.SGD(lambda epoch: asked.append(epoch) or 0.5 / (1 + epoch))
    net = network(device)
    net.fit(x, y, epochs=24, batch_size=12, optimizer=rates)
    assert asked == list(range(24))


@pytest.mark.parametrize("epochs", [1, 3, 20, 400])
def test_short_trainings_are_compiled_by_few_steps(epochs, device, compile_cost, monkeypatch):
    """Compiling more steps costs once, and saves the overhead of chunks in each epoch."""
    x, y = problem(180)
    net, other = network(device), network(device)
    options = {"epochs": epochs, "batch_size": 6, "callbacks": [lambda training: None]}
    net.fit(x, y, **options)  # as tests do, all 30 steps at a time
    monkeypatch.setattr(xnn.backends.Backend, "compile_cost", compile_cost)
    compiled = []
    chunk = Trainer._chunk
    monkeypatch.setattr(Trainer, "_chunk", lambda *a: compiled.append(a[-1]) or chunk(*a))
    other.fit(x, y, **options)
    costs = {c: compile_cost * (c + 30 % c) + epochs * -(-30 // c) for c in range(1, 31)}
    assert costs[compiled[0]] == min(costs.values())
    assert sum(compiled) == compiled[0] + 30 % compiled[0]
    np.testing.assert_array_equal(parameters(net), parameters(other))


@pytest.mark.parametrize(
    ("n", "batch", "epochs"), [(4, 4, 12), (12, 4, 30), (12, 4, 12), (40, 4, 6), (8, 1, 4)]
)
def test_figures_may_be_looked_at_at_any_time(n, batch, epochs, device, compile_cost, monkeypatch):
    """Where epochs are run as one, which is one chunk, nothing can be observed within it."""
    monkeypatch.setattr("xnn.training._GLANCE", 0.0)
    x, y = problem(n)
    ends = []
    for cost in (1e-9, compile_cost):
        monkeypatch.setattr(xnn.backends.Backend, "compile_cost", cost)
        net = network(device)
        history = net.fit(x, y, epochs=epochs, batch_size=batch)
        ends.append([*history.cost, *parameters(net)])
    assert len(history) == epochs
    assert ends[0] == ends[1]


_BLAS_FIRST_IN_THREADS = """
import threading
import numpy as np
import xnn

def fit(i):
    rng = np.random.default_rng(i)
    net = xnn.Network([30, xnn.Dense(40, "tanh"), xnn.Dense(3, "softmax")], seed=i)
    x, y = rng.random((60, 30)), rng.integers(0, 3, 60)
    return net.fit(x, y, epochs=40, batch_size=20, progress=False).cost

def go(i):
    together.wait()
    costs[i] = fit(i)

costs, together = {}, threading.Barrier(4)
threads = [threading.Thread(target=go, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert all(costs[i] == fit(i) for i in range(4))
"""


def test_networks_train_in_threads_from_the_first_call_of_blas_on():
    """Memory that replays point to lives as long as they do, whichever thread made it first."""
    done = subprocess.run(
        [sys.executable, "-c", _BLAS_FIRST_IN_THREADS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XNN_DEVICE": "cpu"},
    )
    assert done.returncode == 0, done.stderr


def test_divergence_in_epochs_that_are_run_as_one_is_told_with_its_own(device):
    x, y = problem(12)
    net = xnn.Network([4, xnn.Dense(3, "linear")], seed=0, device=device)
    before = parameters(net)
    rates = [0.01] * 5 + [1e38] * 15
    with pytest.raises(
        FloatingPointError,
        match=r"epoch [67]/20, step 1/1.*weights are those from before epoch 1/20",
    ):
        net.fit(x, y, epochs=20, batch_size=12, optimizer=xnn.SGD(rates.__getitem__))
    np.testing.assert_array_equal(parameters(net), before)


def test_divergence_leaves_the_weights_from_before_the_epoch(device):
    x, y = problem()
    net = xnn.Network([4, xnn.Dense(3, "linear")], seed=0, device=device)
    good = []
    said = r"epoch 3/5.*those from before the epoch"
    with pytest.raises(FloatingPointError, match=said) as caught:
        net.fit(
            x,
            y,
            epochs=5,
            optimizer=xnn.SGD(lambda epoch: 0.01 if epoch < 2 else 1e20),
            callbacks=[lambda training: good.append(parameters(net))],
        )
    assert (parameters(net) == good[1]).all()
    assert len(caught.value.history.cost) == 2


def test_divergence_leaves_the_averages_from_before_the_epoch(device):
    x, y = problem()
    net = xnn.Network([4, xnn.Dense(3, "linear")], seed=0, device=device)
    good = []
    with pytest.raises(FloatingPointError, match=r"epoch 3/5.*those from before the epoch"):
        net.fit(
            x,
            y,
            epochs=5,
            optimizer=xnn.Averaged(xnn.SGD(lambda epoch: 0.01 if epoch < 2 else 1e20), 0.9),
            callbacks=[lambda training: good.append(parameters(net))],
        )
    assert (parameters(net) == good[1]).all()


def test_ctrl_c_in_an_epoch_leaves_averages(device, monkeypatch):
    """The averages of some steps, and not the weights as they are after them."""
    figures = xnn.steps.Trainer.figures

    def press(self, steps):
        if steps < self.steps:
            raise KeyboardInterrupt
        return figures(self, steps)

    monkeypatch.setattr(xnn.steps.Trainer, "figures", press)
    monkeypatch.setattr(xnn.training, "_GLANCE", 0)
    x, y = problem()
    ends = []
    # With a decay of almost 1 the average stays at what there is after the first step.
    for optimizer in (xnn.SGD(1.0), xnn.Averaged(xnn.SGD(1.0), 1 - 1e-9, False)):
        net = network(device)
        before = parameters(net)
        history = net.fit(x, y, epochs=3, batch_size=2, optimizer=optimizer, progress=False)
        assert history.stopped == "interrupted in epoch 1/3"
        assert history.interrupted
        ends.append(np.linalg.norm(parameters(net) - before))
    assert 0 < ends[1] < ends[0] / 5


def test_divergence_brings_back_the_best_where_early_stopping_has_it(device):
    x, y = problem()
    net = xnn.Network([4, xnn.Dense(3, "linear")], seed=0, device=device)
    stopping, weights = xnn.EarlyStopping("cost", patience=50), []
    rates = [0.01, 0.01, 1.0, 1e20]  # the third gets worse, the fourth diverges
    with pytest.raises(FloatingPointError, match=r"epoch 4/4.*those that callbacks left"):
        net.fit(
            x,
            y,
            epochs=4,
            optimizer=xnn.SGD(rates.__getitem__),
            callbacks=[stopping, lambda training: weights.append(parameters(net))],
        )
    assert stopping.best_epoch == 1
    assert (parameters(net) == weights[1]).all()


def test_end_is_called_whatever_happens(device):
    ended = []

    class Log(xnn.Callback):
        def end(self, training):
            ended.append(len(training.history))

    def fail(run):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        network(device).fit(*problem(), epochs=3, callbacks=[Log(), fail])
    assert ended == [1]


def test_early_stopping_tells_its_best(device):
    x, y = problem()
    stopping = xnn.EarlyStopping("accuracy", patience=np.int64(3))
    assert stopping.best is stopping.best_epoch is None
    history = network(device).fit(x, y, epochs=20, optimizer=1.0, callbacks=[stopping])
    assert stopping.best == max(history.accuracy)
    assert stopping.best_epoch == history.accuracy.index(stopping.best)


NAN = float("nan")


@pytest.mark.parametrize(
    ("costs", "best"),
    [([NAN, 0.5, 0.4], 2), ([NAN, 0.4, 0.5], 1), ([0.5, NAN, 0.4], 2), ([NAN, NAN, NAN], 0)],
)
def test_any_number_is_better_than_none(costs, best, device, monkeypatch, tmp_path):
    """As in `numpy.nanargmin`. NaN is not an improvement either: patience runs out."""
    figures = iter([*costs, NAN, NAN, NAN])
    monkeypatch.setattr(xnn.inference.Inference, "evaluate", lambda *_: (next(figures), 1.0))
    x, y = problem()
    net, weights = network(device), []
    stopping = xnn.EarlyStopping("validation_cost", patience=3)
    keeps = xnn.Checkpoints(tmp_path, monitor="validation_cost")
    history = net.fit(
        x,
        y,
        epochs=6,
        validation_data=(x, y),
        callbacks=[stopping, keeps, lambda training: weights.append(parameters(net))],
    )
    assert stopping.best_epoch == best
    assert len(history) == best + 4
    assert (parameters(net) == weights[best]).all()
    kept = xnn.load(tmp_path / "best.safetensors", device=device)
    assert (parameters(kept) == weights[best]).all()


def test_early_stopping_refuses_what_is_not_recorded_before_training(device):
    net = network(device)
    before = parameters(net)
    for monitor in ("validation_cost", "validation_accuracy"):
        with pytest.raises(ValueError, match=f"monitor is '{monitor}'"):
            net.fit(*problem(), callbacks=[xnn.EarlyStopping(monitor)])
    assert (parameters(net) == before).all()


def test_ctrl_c_after_divergence_does_not_leave_nan(device):
    """A user who sees a run diverge presses Ctrl-C before this is detected."""
    net = xnn.Network([4, xnn.Dense(3, "linear")], seed=0, device=device)

    def press(run):
        net.weights[0][0, 0] = np.nan
        raise KeyboardInterrupt

    net.fit(*problem(), epochs=2, optimizer=0.01, callbacks=[press])
    assert np.isfinite(parameters(net)).all()


def test_ctrl_c_between_epochs_keeps_what_there_is(device, capsys):
    x, y = problem()
    net = network(device)

    def press(run):
        if run.epoch == 2:
            raise KeyboardInterrupt

    history = net.fit(x, y, epochs=9, callbacks=[press])
    assert len(history) == len(history.accuracy) == len(history.seconds) == 3
    assert history.stopped == "interrupted in epoch 3/9"
    said = "xnn: interrupted in epoch 3/9; the network keeps its weights"
    assert capsys.readouterr().err.strip() == said
    assert np.isfinite(net.predict(x)).all()

    def spoil(run):
        net.biases[0] = np.zeros(8)
        press(run)

    # … unless a callback brings others back.
    net.fit(x, y, epochs=9, callbacks=[xnn.EarlyStopping("cost"), spoil])
    assert "has the weights that callbacks left" in capsys.readouterr().err


class Notes(xnn.Callback):
    """Notes that it began and ended, and raises a given error."""

    def __init__(self, name, seen, raises=""):
        self.name, self.seen, self.raises = name, seen, raises

    def _note(self, what):
        self.seen.append(f"{self.name} {what}")
        if what == self.raises:
            raise RuntimeError(f"{self.name} cannot {what}")

    def begin(self, training):
        self._note("begin")

    def end(self, training):
        self._note("end")


def test_callbacks_that_began_end_whatever_happens(device):
    x, y = problem()
    for raises, wanted in (
        ({"b": "begin"}, ["a begin", "b begin", "a end"]),
        ({"a": "end"}, ["a begin", "b begin", "c begin", "a end", "b end", "c end"]),
        ({"b": "end"}, ["a begin", "b begin", "c begin", "a end", "b end", "c end"]),
    ):
        seen = []
        callbacks = [Notes(name, seen, raises.get(name, "")) for name in "abc"]
        with pytest.raises(RuntimeError, match="cannot"):
            network(device).fit(x, y, epochs=1, callbacks=callbacks)
        assert seen == wanted
    seen = []
    with pytest.raises(ValueError, match="there is nothing to watch"):
        network(device).fit(x, y, epochs=1, callbacks=[Notes("a", seen), xnn.EarlyStopping()])
    assert seen == ["a begin", "a end"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are delivered otherwise")
def test_ctrl_c_in_the_midst_of_an_epoch(device):
    x, y = problem(20_000)
    net = network(device)
    net.fit(x, y, epochs=1, batch_size=2)  # whatever is loaded or compiled on first use is there
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    history = net.fit(x, y, epochs=10_000, batch_size=2, validation_data=(x, y))
    timer.join()
    assert time.monotonic() - began < 30
    assert history.stopped.startswith("interrupted in epoch")
    figures = (history.cost, history.accuracy, history.validation_cost, history.seconds)
    assert len({len(f) for f in figures}) == 1
    assert np.isfinite(parameters(net)).all()
    assert len(net.fit(x[:100], y[:100], epochs=1)) == 1


def test_progress_bar_is_for_terminals(capsys):
    x, y = problem()
    network().fit(x, y, epochs=2)
    assert capsys.readouterr() == ("", "")
    network().fit(x, y, epochs=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "400" in err
    assert "epoch 1/2" in err


class Terminal(io.StringIO):
    """The destination of both standard output and standard error."""

    def isatty(self):
        return True

    def lines(self):
        """Return what a reader sees on it."""
        shown = []
        for line in self.getvalue().split("\n"):
            cells = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            shown.append("".join(cells).rstrip())
        return shown


def test_callbacks_may_print_beside_the_bar(monkeypatch):
    x, y = problem()
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")  # by which some versions of tqdm cut the line off
    monkeypatch.setenv("LINES", "24")
    tell = [lambda training: (time.sleep(0.03), print("epoch", training.epoch))]
    network().fit(x, y, epochs=12, validation_data=(x, y), callbacks=tell)
    assert terminal.lines() == [f"epoch {epoch}" for epoch in range(12)] + [""]
    assert re.search(r"epoch (\d+)/12: .*cost 0\.\d+, validation accuracy", terminal.getvalue())


def test_notebooks_have_the_bar(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", sys)
    network().fit(*problem(), epochs=2)
    assert "epoch 1/2" in capsys.readouterr().err


def test_a_history_is_a_table():
    x, y = problem()
    rest = {"epochs": 3, "validation_data": (x, y)}
    history = network().fit(x, y, **rest)
    table = history.table()
    assert list(table) == [*history.FIGURES, "seconds"]
    assert table["cost"] == history.cost
    assert {len(values) for values in table.values()} == {3}
    assert list(network().fit(x, y, epochs=1).table()) == ["cost", "accuracy", "seconds"]


def test_a_history_says_its_last_figures():
    x, y = problem()
    history = network().fit(x, y, epochs=3, validation_data=(x, y))
    wanted = (
        rf"<History: 3 epochs in [\d.e-]+ s, cost {history.cost[-1]:.4g}, "
        rf"accuracy {history.accuracy[-1]:.4g}, "
        rf"validation_cost {history.validation_cost[-1]:.4g}, "
        rf"validation_accuracy {history.validation_accuracy[-1]:.4g}>"
    )
    assert re.fullmatch(wanted, repr(history))
    assert re.fullmatch(
        r"<History: 1 epoch in .*, stopped: why>",
        repr(network().fit(x, y, epochs=2, callbacks=[lambda training: training.stop("why")])),
    )


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_pixels_that_are_not_uint8_are_warned_of(kind, device):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (300, 4)), rng.integers(0, 3, 300)
    x[0, :2] = 0, 255
    with pytest.warns(UserWarning, match=rf"pixels from 0 to 255 as {np.dtype(kind)}") as caught:
        network(device).fit(x.astype(kind), y, epochs=1)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(device).fit(x.astype(np.uint8), y, epochs=1)
        network(device).fit(x / 255, y, epochs=1)
        network(device).fit(x + 0.5, y, epochs=1)


def test_targets_that_an_activation_cannot_give_are_warned_of(device):
    x = problem()[0]
    for activation, low, high in [("sigmoid", -1, 1), ("tanh", -1, 2), ("relu", -1, 0)]:
        net = xnn.Network([4, xnn.Dense(1, activation)], device=device)
        y = np.linspace(low, high, len(x))
        told = f"y has values from {low} to {high}, which the last layer's {activation} cannot"
        with pytest.warns(UserWarning, match=told):
            net.fit(x, y, epochs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            net.fit(x, abs(y) / high if high else abs(y), epochs=1)


def test_bytes_that_are_no_pixels_are_warned_of(device):
    x, y = problem()
    bits = (x > 0.5).astype(np.uint8)
    with pytest.warns(UserWarning, match="x is uint8 and has only 0 and 1"):
        network(device).fit(bits, y, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(device).fit(bits.astype(bool), y, epochs=1)
        network(device).fit(255 * bits, y, epochs=1)


def test_one_early_stopping_is_for_one_training_at_a_time(device):
    """Otherwise the network of one thread would end with the weights of another's."""
    x, y = problem()
    stopping, refused = xnn.EarlyStopping("cost"), []

    def another(training):
        with pytest.raises(ValueError, match="this EarlyStopping is in use by another training"):
            network(device).fit(x, y, epochs=1, callbacks=[stopping])
        refused.append(training.epoch)

    history = network(device).fit(x, y, epochs=2, callbacks=[stopping, another])
    assert refused == [0, 1]
    assert stopping.best == min(history.cost)
    network(device).fit(x, y, epochs=1, callbacks=[stopping])  # and then for the next


def test_bytes_as_targets_of_bytes_are_warned_of(device):
    """Those of x are scaled, those of y are not."""
    x = np.random.default_rng(0).integers(0, 256, (30, 6), np.uint8)
    net = xnn.Network([6, xnn.Dense(6, "linear")], seed=0, device=device)
    with pytest.warns(UserWarning, match="y has bytes up to 255, which are not scaled"):
        net.fit(x, np.maximum(x, [255, 0, 0, 0, 0, 0]).astype(np.uint8), epochs=1, optimizer=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.fit(x, x / 255, epochs=1, optimizer=1e-5)
        net.fit(x, np.eye(6, dtype=np.uint8)[x[:, 0] % 6], epochs=1, optimizer=1e-5)


def test_threads_may_share_a_network(device):
    """Each gets the answer to its own question."""
    net = network(device)
    x, _ = problem(64)
    wanted = net.predict(x)
    wrong = []

    def ask(row):
        for _ in range(300):
            if not np.allclose(net.predict(x[row : row + 1]), wanted[row], atol=1e-6):
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_threads_use_the_network_while_it_trains(device):
    x, y = problem(2000)
    net, answers = network(device), []

    def ask(run):
        for use in (lambda: net.evaluate(x, y), lambda: net.predict(x[:1])):
            thread = threading.Thread(target=lambda use=use: answers.append(use()))
            thread.start()
            thread.join(10)

    net.fit(x, y, epochs=2, callbacks=[ask])
    assert len(answers) == 4
    # … and in the middle of an epoch.
    training = threading.Thread(target=lambda: net.fit(x, y, epochs=100, batch_size=1))
    training.start()
    answered = 0
    while training.is_alive() and answered < 20:
        assert np.isfinite(net.predict(x[:1])).all()
        answered += 1
    assert training.is_alive()
    training.join()


@pytest.fixture
def unlocked(monkeypatch, device):
    """Return the operations that run while the network's lock is not held."""
    found = []
    begin = Engine.__init__

    def watched(engine, *arguments):
        begin(engine, *arguments)
        backend = engine.backend
        do, compiled = backend._do, backend.compile

        def held(name):
            if not engine.lock._is_owned():
                found.append(name)

        def watched_do(function, *arguments, **options):
            held(getattr(function, "__name__", str(function)))
            do(function, *arguments, **options)

        def watched_compile(*arguments, **options):
            held("compile")
            return compiled(*arguments, **options)

        backend._do, backend.compile = watched_do, watched_compile

    monkeypatch.setattr(Engine, "__init__", watched)
    return found


def test_whatever_computes_holds_the_lock(unlocked, device, tmp_path, monkeypatch):
    """Otherwise a thread's work while another compiles a step would become part of that step."""
    x, y = problem(64)
    for optimizer in (xnn.SGD(0.1, momentum=0.9), xnn.Averaged(xnn.Adam(0.01))):
        net = network(device)
        folder = tmp_path / type(optimizer).__name__
        around = [xnn.Checkpoints(folder, every="1 step", keep=99), xnn.EarlyStopping()]
        options = {"validation_data": (x, y), "batch_size": 3, "optimizer": optimizer}
        monkeypatch.setattr(type(net.core.engine.backend), "chunk_steps", 5)
        net.fit(x, y, epochs=2, callbacks=around, **options)
        early = folder / "checkpoint-000001.safetensors"  # amid an epoch, and amid a chunk
        monkeypatch.setattr(type(net.core.engine.backend), "chunk_steps", 7)
        net.fit(x, y, epochs=5, callbacks=around, resume=early, **options)
        net.fit(x, y, epochs=30, batch_size=64)
        net.evaluate(x, y)
        net.backprop(x, y)
        for count in (1, 1, 64):
            net.predict(x[:count])
        net.weights = net.weights
        copy.deepcopy(net)
    for solver in ("adam", "sgd", "lbfgs"):
        mlp = estimators.MLPClassifier((4,), solver=solver, max_iter=3, device=device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlp.fit(x, y)
        mlp.predict_log_proba(x)
        if solver != "lbfgs":
            mlp.partial_fit(x, y)
    assert unlocked == []


def test_seed_gives_the_same_weights_in_another_process(device):
    code = (
        "import xnn, numpy as np, hashlib\n"
        "from tests import conftest, helpers\n"
        "rng = np.random.default_rng(0)\n"
        "x, y = rng.random((300, 20)), rng.integers(0, 3, 300)\n"
        f"net = xnn.Network([20, 30, 3], seed=1, device={device!r})\n"
        "net.fit(x, y, epochs=3)\n"
        "print(hashlib.sha256(helpers.parameters(net).tobytes()).hexdigest())\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
    assert len(runs.pop().strip()) == 64


# What counts how much.


def weighted_data(n=60):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n), rng.integers(0, 4, n)


def softmax_network(device, **options):
    layers = [4, xnn.Dense(5, "tanh"), xnn.Dense(3, "softmax")]
    return xnn.Network(layers, seed=1, device=device, dtype="float64", **options)


def test_a_sample_of_weight_two_is_there_twice(device):
    """In one mini-batch of all, whose gradient is a sum over samples."""
    x, y, weights = weighted_data()
    net, wanted = softmax_network(device), softmax_network(device)
    options = {"epochs": 5, "batch_size": 1000, "shuffle": False}
    history = net.fit(x, y, sample_weight=weights, optimizer=0.5, **options)
    rows = np.repeat(np.arange(len(x)), weights)
    # Divided by the mini-batch's size, which is another with copies.
    rate = 0.5 * len(rows) / len(x)
    other = wanted.fit(x[rows], y[rows], optimizer=rate, **options)
    np.testing.assert_allclose(parameters(net), parameters(wanted), rtol=1e-10)
    scaled = np.array(other.cost) * len(rows) / len(x)
    np.testing.assert_allclose(history.cost, scaled, rtol=1e-10)


def test_evaluation_weighs_samples(device):
    """As NumPy's average of the cost of single samples, and as scikit-learn's score."""
    x, y = problem()
    net, weights = network(device), np.random.default_rng(1).random(len(x))
    weights[:7] = 0
    told = net.evaluate(x, y, sample_weight=weights)
    each = [net.evaluate(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    for found, values in zip(told, zip(*each, strict=True), strict=True):
        assert found == pytest.approx(np.average(values, weights=weights), rel=1e-5)
    history = net.fit(x, y, epochs=1, optimizer=1e-9, validation_data=(x, y, weights))
    assert history.validation_cost[0] == pytest.approx(told.cost, rel=1e-5)
    assert history.validation_accuracy[0] == pytest.approx(told.accuracy)


def test_early_stopping_watches_what_there_is(device):
    """The validation accuracy; in a regression, which has none, the validation cost."""
    x, y = problem()
    for net, targets, figure in (
        (network(device), y, "validation_accuracy"),
        (xnn.Network([4, xnn.Dense(1, "linear")], device=device), x[:, 0], "validation_cost"),
    ):
        stopping = xnn.EarlyStopping(patience=1)
        rest = {"validation_data": (x, targets), "callbacks": [stopping]}
        history = net.fit(x, targets, epochs=40, optimizer=0.1, **rest)
        best = {"validation_accuracy": max, "validation_cost": min}[figure]
        assert stopping.best == best(getattr(history, figure))


@pytest.mark.parametrize("targets", ["labels", "rows", "two classes"])
def test_class_weights_are_sample_weights(device, targets):
    x, y, _ = weighted_data()
    net = wanted = None
    if targets == "two classes":
        y = np.minimum(y, 1)
        net, wanted = (
            xnn.Network([4, xnn.Dense(1)], "cross_entropy", seed=1, device=device) for _ in range(2)
        )
        given = {0: 2.0, 1: 0.5}
    else:
        net, wanted = softmax_network(device), softmax_network(device)
        given = {0: 2.0, 2: 0.5}
    each = np.array([given.get(label, 1.0) for label in y])
    goal = np.eye(3)[y] if targets == "rows" else y
    net.fit(x, goal, epochs=2, class_weight=given, sample_weight=np.full(60, 3))
    wanted.fit(x, goal, epochs=2, sample_weight=3 * each)
    assert (parameters(net) == parameters(wanted)).all()


def test_balanced_classes_are_those_of_scikit_learn(device):
    from sklearn.utils.class_weight import compute_sample_weight

    x, y, _ = weighted_data()
    y[:30] = 0
    net, wanted = softmax_network(device), softmax_network(device)
    net.fit(x, y, epochs=2, class_weight="balanced")
    wanted.fit(x, y, epochs=2, sample_weight=compute_sample_weight("balanced", y))
    np.testing.assert_allclose(parameters(net), parameters(wanted), rtol=1e-12)


def test_label_smoothing_is_training_on_smooth_rows(device):
    x, y, _ = weighted_data()
    smooth = 0.9 * np.eye(3)[y] + 0.1 / 3
    trained = []
    for goal, options in ((y, {"label_smoothing": 0.1}), (np.eye(3)[y], {"label_smoothing": 0.1}),
                          (smooth, {})):  # fmt: skip
        net = softmax_network(device)
        history = net.fit(x, goal, epochs=3, **options)
        trained.append((parameters(net), history))
    for found, history in trained[:2]:
        np.testing.assert_allclose(found, trained[2][0], rtol=1e-12)
        np.testing.assert_allclose(history.cost, trained[2][1].cost, rtol=1e-12)
        assert history.accuracy[-1] > 0  # of the classes that they name


def test_label_smoothing_and_weights_are_those_of_pytorch(device):
    torch = pytest.importorskip("torch")
    x, y, _ = weighted_data()
    net = softmax_network(device)
    weights, biases = copies(net)
    modules = [torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)]
    theirs = torch.nn.Sequential(*modules).double()
    with torch.no_grad():
        for module, w, b in zip(modules[::2], weights, biases, strict=True):
            module.weight.copy_(torch.from_numpy(w))
            module.bias.copy_(torch.from_numpy(b))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.3)
    each = np.random.default_rng(3).random(60)
    for _ in range(4):
        out = theirs(torch.from_numpy(x))
        costs = torch.nn.functional.cross_entropy(
            out, torch.from_numpy(y), label_smoothing=0.2, reduction="none"
        )
        optimizer.zero_grad()
        (costs * torch.from_numpy(each)).mean().backward()
        optimizer.step()
    options = {"label_smoothing": 0.2, "sample_weight": each, "batch_size": 60}
    net.fit(x, y, epochs=4, optimizer=0.3, **options)
    ends = np.concatenate([p.detach().numpy().ravel() for p in theirs.parameters()])
    found = [a.ravel() for pair in zip(*copies(net), strict=True) for a in pair]
    np.testing.assert_allclose(np.concatenate(found), ends, rtol=1e-9)


# Mini-batches that are run in parts.


@pytest.mark.parametrize("part", [1, 5, 7, 12])
@pytest.mark.parametrize(
    "optimizer",
    [
        xnn.SGD(0.5, lmbda=1.0),
        xnn.SGD(0.2, momentum=0.9),
        xnn.Adam(),
        xnn.Averaged(xnn.SGD(0.5), decay=0.5),
    ],
    ids=["plain", "momentum", "Adam", "averaged"],
)
def test_parts_of_a_mini_batch_make_the_same_step(device, part, optimizer):
    """12 samples a step and 5 in the last: whole parts, and one that is smaller."""
    x, y, weights = (array[:53] for array in weighted_data())
    trained = []
    for micro in (None, part):
        net = softmax_network(device)
        options = {"batch_size": 12, "micro_batch_size": micro, "sample_weight": weights}
        history = net.fit(x, y, epochs=3, optimizer=optimizer, **options)
        trained.append((parameters(net), history))
    np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-8)
    np.testing.assert_allclose(trained[0][1].cost, trained[1][1].cost, rtol=1e-10)
    assert trained[0][1].accuracy == trained[1][1].accuracy


def test_parts_take_less_memory():
    layers = [(28, 28, 1), xnn.Conv2D(8, 5, "relu"), xnn.MaxPool2D(4), xnn.Flatten(), 10]
    x, y = np.zeros((256, 784), np.uint8), np.zeros(256, int)
    peaks = []
    for micro in (None, 32):
        net = xnn.Network(list(layers), device="cpu")
        tracemalloc.start()
        net.fit(x, y, epochs=1, batch_size=256, micro_batch_size=micro)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] / 2


def test_streamed_data_are_trained_on_in_parts(monkeypatch):
    monkeypatch.setattr(standin.StandInBackend, "fits", lambda self, size: size == 0)
    x, y, weights = (array[:53] for array in weighted_data())
    trained = []
    for device in ("cpu", "standin"):
        net = softmax_network(device)
        options = {"batch_size": 12, "micro_batch_size": 5, "sample_weight": weights}
        net.fit(x, y, epochs=2, **options)
        trained.append(parameters(net))
    assert (trained[0] == trained[1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(3)}, "sample_weight has shape (3,), but must have shape (60,)"),
        ({"sample_weight": -np.ones(60)}, "sample_weight has -1, but must not be negative"),
        ({"sample_weight": np.full(60, np.nan)}, "sample_weight has NaN or infinity in row 0"),
        ({"sample_weight": "even"}, "sample_weight is a str, but must be an array of numbers"),
        ({"class_weight": "even"}, "class_weight is 'even', but must be 'balanced' or a mapping"),
        ({"class_weight": {3: 1.0}}, "class_weight has class 3, but there are 3 classes"),
        ({"class_weight": {"a": 1.0}}, "class_weight's classes is 'a'"),
        ({"class_weight": {1: -1.0}}, "class_weight[1] is -1.0"),
        ({"label_smoothing": 1}, "label_smoothing is 1, but must be a number of at least 0"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0, but must be a whole number"),
    ],
)
def test_weights_that_are_none(options, message):
    x, y, _ = weighted_data()
    with pytest.raises(ValueError) as caught:
        softmax_network("cpu").fit(x, y, **options)
    assert message in str(caught.value)


def test_classes_are_wanted_where_classes_are_weighed():
    net = xnn.Network([4, xnn.Dense(1, "linear")], device="cpu")
    for options in ({"class_weight": "balanced"}, {"label_smoothing": 0.1}):
        with pytest.raises(ValueError, match="but the targets are not classes"):
            net.fit(np.ones((3, 4)), [0.5, 1.5, 2.0], **options)
