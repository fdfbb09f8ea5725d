"""Training that is interrupted and resumed, with the results of an uninterrupted run."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import xnn
from xnn import saving
from xnn.backends import Backend

from .helpers import host

ROOT = Path(__file__).parent.parent
BATCH, N, EPOCHS = 4, 43, 4  # eleven steps an epoch, of which the last has three samples


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    """Chunks of 3, 3, 3, 1 and the last, smaller step."""
    monkeypatch.setattr(Backend, "chunk_steps", 3)
    monkeypatch.setattr(xnn.backends.KINDS["standin"], "chunk_steps", 3)


def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 6, 6, 1)), np.arange(N) % 3


def plain(device):
    return xnn.Network([(6, 6, 1), xnn.Flatten(), 8, 3], seed=1, device=device)


def everything(device):
    layers = [
        *(xnn.RandomErasing(), xnn.Conv2D(3, 3, "relu"), xnn.BatchNorm(), xnn.Flatten()),
        *(xnn.Dropout(0.3), xnn.Dense(3, "softmax")),
    ]
    return xnn.Network([(6, 6, 1), *layers], seed=1, device=device)


def none():
    return []


def watching():
    return [
        xnn.EarlyStopping("validation_cost", patience=2),
        xnn.ReduceOnPlateau("cost", factor=0.5, patience=1, min_delta=0.05),
    ]


RUNS = {
    "plain": (plain, xnn.SGD(0.5), none, True),
    "in order": (plain, xnn.SGD(0.5, momentum=0.9), none, False),
    "everything": (everything, xnn.SGD(0.1, momentum=0.5, lmbda=0.1), none, True),
    "Adam": (everything, xnn.AdamW(xnn.schedules.Cosine(0.01, 4)), watching, True),
    "RMSprop": (plain, xnn.RMSprop(momentum=0.5, centered=True, clip_norm=1.0), none, True),
    "averages": (everything, xnn.Averaged(xnn.Adam(0.01), 0.9), watching, True),
}


class KilledError(Exception):
    pass


class KilledAt(xnn.Callback):
    """Ends training after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def steps_end(self, training):
        if training.epoch * training.steps + training.step >= self.steps:
            raise KilledError


def fit(net, run, callbacks=(), **options):
    _, optimizer, watch, shuffle = run
    x, y = data()
    return net.fit(
        *(x, y),
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=optimizer,
        shuffle=shuffle,
        validation_data=(x[:20], y[:20]),
        callbacks=[*watch(), *callbacks],
        **options,
    )


def flat(net):
    return host(net.core.engine.flat)


def figures(history):
    return {**vars(history), "seconds": len(history.seconds)}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("steps", [10, 11, 25])
def test_a_resumed_run_ends_as_one_that_was_not_ended(run, steps, tmp_path, device):
    """Weights, averages and figures, bit for bit, from within an epoch and between two."""
    whole, ended, resumed = (run[0](device) for _ in range(3))
    wanted = fit(whole, run)
    keeps = xnn.Checkpoints(tmp_path, every="1 step", keep=100)
    with pytest.raises(KilledError):
        fit(ended, run, [keeps, KilledAt(steps)])
    resumed.weights = [None if w is None else host(w) * 0 for w in resumed.weights]
    history = fit(resumed, run, resume=keeps.newest())
    assert figures(history) == figures(wanted)
    assert (flat(resumed) == flat(whole)).all()
    assert not (flat(ended) == flat(whole)).all()
    # What is random goes on, too.
    assert resumed.core.rng.bit_generator.state == whole.core.rng.bit_generator.state


def test_checkpoints_of_the_first_format(device, monkeypatch):
    """Written in the middle of the second epoch of such a run, when averages had no warm-up."""
    kind, _, *rest = RUNS["averages"]
    run_then = kind, xnn.Averaged(xnn.Adam(0.01), 0.9, warm_up=False), *rest
    room = xnn.RandomErasing.room

    def corners(self, run, site):
        """Make room as in that version, which tested the corners of pixels, not their centres."""
        made = room(self, run, site)
        for grid in [] if made is None else made[1:3]:
            run.elementwise("g - 0.5", grid, g=grid)
        return made

    monkeypatch.setattr(xnn.RandomErasing, "room", corners)
    whole, resumed = everything(device), everything(device)
    wanted = fit(whole, run_then)
    path = ROOT / "tests" / "files" / "checkpoint-1.safetensors"
    history = fit(resumed, run_then, resume=path)
    assert history.validation_cost == pytest.approx(wanted.validation_cost, rel=1e-4)
    np.testing.assert_allclose(flat(resumed), flat(whole), rtol=1e-3, atol=1e-5)


def test_checkpoints_change_nothing(tmp_path, device):
    nets = [everything(device) for _ in range(2)]
    fit(nets[0], RUNS["averages"])
    fit(nets[1], RUNS["averages"], [xnn.Checkpoints(tmp_path, every="1 step")])
    assert (flat(nets[0]) == flat(nets[1])).all()


def test_a_run_is_killed_again_and_again(tmp_path, device):
    run = RUNS["averages"]
    whole = everything(device)
    wanted = fit(whole, run)
    net, resume = everything(device), None
    for steps in range(3, EPOCHS * 11 - 11, 4):
        with pytest.raises(KilledError):
            fit(net, run, [xnn.Checkpoints(tmp_path, "3 steps"), KilledAt(steps)], resume=resume)
        net, resume = everything(device), tmp_path
    history = fit(net, run, [xnn.Checkpoints(tmp_path)], resume=tmp_path)
    assert figures(history) == figures(wanted)
    assert (flat(net) == flat(whole)).all()


def test_going_on_when_all_is_done_or_for_longer(tmp_path, device):
    run = RUNS["plain"]
    net, longer, wanted = (plain(device) for _ in range(3))
    fit(net, run, [xnn.Checkpoints(tmp_path, every=100)])
    again = plain(device)
    assert len(fit(again, run, resume=tmp_path)) == EPOCHS
    assert (flat(again) == flat(net)).all()
    x, y = data()
    rest = {"batch_size": BATCH, "optimizer": run[1], "validation_data": (x[:20], y[:20])}
    longer.fit(x, y, epochs=EPOCHS + 2, resume=tmp_path, **rest)
    wanted.fit(x, y, epochs=EPOCHS + 2, **rest)
    assert (flat(longer) == flat(wanted)).all()


def test_early_stopping_that_has_stopped_stays_so(tmp_path, device):
    x, y = data()
    options = {
        "epochs": 50,
        "batch_size": BATCH,
        # From epoch 2 on everything gets worse.
        "optimizer": xnn.SGD(lambda epoch: 0.5 if epoch < 2 else 50.0),
    }
    stopping = [xnn.EarlyStopping("cost", patience=2) for _ in range(2)]
    net, again = plain(device), plain(device)
    wanted = net.fit(x, y, callbacks=[stopping[0], xnn.Checkpoints(tmp_path)], **options)
    history = again.fit(x, y, callbacks=[stopping[1]], resume=tmp_path, **options)
    assert history.stopped == wanted.stopped is not None
    assert (stopping[1].best, stopping[1].best_epoch) == (stopping[0].best, stopping[0].best_epoch)
    assert (flat(again) == flat(net)).all()


def test_early_stopping_that_has_stopped_goes_on_with_more_patience(tmp_path, device):
    """As if there had been as much from the beginning."""
    x, y = data()
    optimizer = xnn.SGD(lambda epoch: 0.5 if epoch < 2 or epoch > 4 else 50.0)
    options = {"batch_size": BATCH, "optimizer": optimizer}
    ended, again, whole = (plain(device) for _ in range(3))

    def stopping(patience):
        return [xnn.EarlyStopping("cost", patience=patience)]

    keep = xnn.Checkpoints(tmp_path)
    history = ended.fit(x, y, epochs=50, callbacks=[*stopping(2), keep], **options)
    assert len(history) == 4
    wanted = whole.fit(x, y, epochs=20, callbacks=stopping(6), **options)
    history = again.fit(x, y, epochs=20, callbacks=stopping(6), resume=tmp_path, **options)
    assert len(history) == len(wanted) > 4
    assert history.stopped == wanted.stopped
    assert (flat(again) == flat(whole)).all()


@pytest.mark.parametrize("first", [True, False])
def test_more_patience_does_not_undo_what_others_stop(tmp_path, device, first):
    """Another early stopping with the same patience."""
    x, y = data()
    optimizer = xnn.SGD(lambda epoch: 0.5 if epoch < 2 else 50.0)
    options = {"epochs": 50, "batch_size": BATCH, "optimizer": optimizer}

    def both(patience):
        pair = [xnn.EarlyStopping("cost", patience=2), xnn.EarlyStopping("accuracy", patience)]
        return pair if first else pair[::-1]

    net, again = plain(device), plain(device)
    ended = net.fit(x, y, callbacks=[*both(3), xnn.Checkpoints(tmp_path)], **options)
    assert ended.stopped.startswith("accuracy" if first else "cost")
    history = again.fit(x, y, callbacks=both(30), resume=tmp_path, **options)
    assert len(history) == len(ended)
    assert history.stopped.startswith("cost was best")


def test_a_checkpoint_of_other_chunks(tmp_path, device, monkeypatch):
    """As from another device, whose steps are compiled some more or some fewer together."""
    run, (whole, ended, resumed) = RUNS["everything"], [everything(device) for _ in range(3)]
    with pytest.raises(KilledError):
        fit(ended, run, [xnn.Checkpoints(tmp_path, "1 step"), KilledAt(17)])
    for steps, net in ((11, whole), (2, resumed)):
        monkeypatch.setattr(type(net.core.engine.backend), "chunk_steps", steps)
        fit(net, run, resume=tmp_path if net is resumed else None)
    np.testing.assert_allclose(flat(resumed), flat(whole), rtol=1e-4, atol=1e-6)


def test_a_checkpoint_is_a_network(tmp_path, device):
    net = everything(device)
    fit(net, RUNS["everything"], [keeps := xnn.Checkpoints(tmp_path)])
    loaded = xnn.load(keeps.newest(), device=device)
    assert (flat(loaded) == flat(net)).all()
    # … from which training can be resumed as well.
    fit(loaded, RUNS["everything"], resume=tmp_path)
    assert (flat(loaded) == flat(net)).all()


class Counts(xnn.Callback):
    """Has a state of its own: a number and an array."""

    def begin(self, training):
        self.epochs, self.last = 0, np.zeros(2)

    def epoch_end(self, training):
        self.epochs += 1
        self.last = np.array([training.epoch, training.step], float)

    def state(self):
        return {"epochs": self.epochs, "last": self.last}

    def resume(self, training, state):
        self.epochs, self.last = state["epochs"], state["last"].copy()


def test_callbacks_go_on_from_their_state(tmp_path, device):
    """Those that have one, in their order; there may be more of others."""
    x, y = data()
    options = {"batch_size": BATCH, "optimizer": 0.5}
    ended, second, resumed = Counts(), Counts(), Counts()
    callbacks = [ended, xnn.Checkpoints(tmp_path, "1 step"), KilledAt(25)]
    with pytest.raises(KilledError):
        plain(device).fit(x, y, epochs=4, callbacks=callbacks, **options)
    assert ended.epochs == 2
    seen = []
    callbacks = [lambda training: seen.append(training.epoch), resumed, second]
    plain(device).fit(x, y, epochs=4, resume=tmp_path, callbacks=callbacks, **options)
    assert (resumed.epochs, second.epochs, seen) == (4, 2, [2, 3])
    assert resumed.last.tolist() == [3, 11]


class Keeps(xnn.Callback):
    """Has whatever state it is given, and stores what is restored."""

    def __init__(self, *values):
        self.values, self.back = values, None

    def state(self):
        return {f"value {i}": value for i, value in enumerate(self.values)}

    def resume(self, training, state):
        self.back = [state[f"value {i}"] for i in range(len(state))]


def test_states_of_all_kinds(tmp_path):
    kinds = "?bBhHiIlLqQefd"
    arrays = [np.array([[0, 1], [1, 3]]).astype(kind) for kind in [*kinds, ">f4", ">i8"]]
    plain_ones = [None, True, "text", 1.5, [1, {"a": [2]}], np.float32(0.5), np.int8(3), np.bool(1)]
    x, y = data()
    keeps = Keeps(*arrays, *plain_ones)
    plain("cpu").fit(x, y, epochs=1, callbacks=[keeps, xnn.Checkpoints(tmp_path)])
    plain("cpu").fit(x, y, epochs=2, callbacks=[keeps], resume=tmp_path)
    for found, wanted in zip(keeps.back, keeps.values, strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert np.asarray(found).dtype.kind == np.asarray(wanted).dtype.kind
    assert xnn.load(tmp_path / "checkpoint-000001.safetensors").sizes == [36, 36, 8, 3]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.array(["a"], object), "an array of object"),
        (np.array(["a"]), "an array of <U1"),
        (np.zeros(2, complex), "an array of complex128"),
        (np.datetime64("2026-01-01"), "datetime.date"),
        ({1, 2}, "{1, 2}"),
    ],
)
def test_states_that_no_file_can_hold(value, told, tmp_path):
    x, y = data()
    with pytest.raises(ValueError, match=r"Keeps\.state\(\)\['value 0'\] is " + told):
        plain("cpu").fit(x, y, epochs=1, callbacks=[Keeps(value), xnn.Checkpoints(tmp_path)])
    assert names(tmp_path) == []


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def step_of(path):
    told = saving.read(path)[1]["training"]
    return 11 * told["epoch"] + told["step"]


@pytest.mark.parametrize(
    ("every", "wanted"),
    [
        (1, [11, 22, 33, 44]),
        ("2 epochs", [22, 44]),
        ("3 epochs", [33, 44]),
        ("1 step", [3, 6, 9, 10, 11, 14, 17, 20, 21, 22]),
        ("5 steps", [6, 10, 17, 20, 25, 31, 36, 42, 44]),
        ("0.5 minutes", [3, 6, 9, 10, 11, 14, 17, 20, 21, 22]),
        ("10 minutes", [44]),
    ],
)
def test_when_checkpoints_are_written(every, wanted, tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 31))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    fit(plain("cpu"), RUNS["plain"], [xnn.Checkpoints(tmp_path, every, keep=100)])
    (tmp_path / "best.safetensors").unlink()
    found = [step_of(tmp_path / name) for name in names(tmp_path)]
    assert found[: len(wanted)] == wanted
    assert found[-1] == 44


def test_the_last_and_the_best_are_kept(tmp_path):
    net = plain("cpu")
    history = fit(net, RUNS["plain"], [xnn.Checkpoints(tmp_path, keep=2, monitor="cost")])
    assert names(tmp_path) == [
        *("best.safetensors", "checkpoint-000003.safetensors", "checkpoint-000004.safetensors")
    ]
    best = int(np.argmin(history.cost))
    assert step_of(tmp_path / "best.safetensors") == 11 * (best + 1)
    x, y = data()
    fit(plain("cpu"), RUNS["plain"], [xnn.Checkpoints(tmp_path / "accuracy")])
    loaded = xnn.load(tmp_path / "accuracy" / "best.safetensors", device="cpu")
    accuracy = loaded.evaluate(x[:20], y[:20]).accuracy
    assert accuracy == max(history.validation_accuracy)


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5, 6, 10])
def test_as_many_are_kept_as_asked_for(keep, tmp_path):
    x, y = data()
    keeps = [xnn.Checkpoints(tmp_path, keep=keep) for _ in range(2)]
    plain("cpu").fit(x, y, epochs=7, callbacks=[keeps[0]])
    assert names(tmp_path) == checkpoints(range(max(0, 7 - keep), 7))
    plain("cpu").fit(x, y, epochs=12, callbacks=[keeps[1]], resume=tmp_path)
    assert names(tmp_path) == checkpoints(range(12 - keep, 12))


def checkpoints(epochs):
    return [f"checkpoint-{epoch + 1:06d}.safetensors" for epoch in epochs]


def test_what_killed_writers_left_is_swept(tmp_path):
    (tmp_path / ".checkpoint-000001.safetensors.123-0123abcd").touch()
    (tmp_path / ".mine").touch()
    fit(plain("cpu"), RUNS["plain"], [xnn.Checkpoints(tmp_path, every=9)])
    assert names(tmp_path) == [".mine", "best.safetensors", "checkpoint-000001.safetensors"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_training_goes_on_where_a_write_fails(code, tmp_path, monkeypatch):
    """Reported once, with the path; existing files stay, and the next write may succeed."""
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if 5 <= len(calls) < 15:
            raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    whole, net = plain("cpu"), plain("cpu")
    fit(whole, RUNS["plain"])
    with pytest.warns(RuntimeWarning) as told:
        fit(net, RUNS["plain"], [xnn.Checkpoints(tmp_path, "1 step", keep=100, monitor="cost")])
    assert len(told) == 1
    path = str(tmp_path / "checkpoint-000003.safetensors")
    assert path in str(told[0].message)
    assert os.strerror(code) in str(told[0].message)
    assert (flat(net) == flat(whole)).all()
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    assert step_of(xnn.checkpoints.newest(tmp_path)) == 44


def test_a_folder_that_cannot_be_read_does_not_end_training(tmp_path, monkeypatch):
    """As on a network file system that is unavailable for a while."""
    real, calls = Path.iterdir, []

    def iterdir(folder):
        calls.append(folder)
        if len(calls) in (4, 5):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.warns(
        RuntimeWarning, match="could not be written.*Permission.*training continues"
    ) as told:
        history = fit(plain("cpu"), RUNS["plain"], [xnn.Checkpoints(tmp_path)])
    assert len(told) == 1
    assert len(history) == EPOCHS
    wanted = ["best.safetensors", "checkpoint-000001.safetensors", "checkpoint-000002.safetensors"]
    assert names(tmp_path) == wanted


def test_a_diverged_run_leaves_only_finite_checkpoints(tmp_path):
    net = xnn.Network([(6, 6, 1), xnn.Flatten(), xnn.Dense(3, "linear")], seed=0, device="cpu")
    x, y = data()
    optimizer = xnn.SGD(lambda epoch: 0.01 if epoch < 1 else 1e19)
    with pytest.raises(FloatingPointError):
        net.fit(
            x, y, batch_size=2, optimizer=optimizer, callbacks=[xnn.Checkpoints(tmp_path, "1 step")]
        )
    paths = list(tmp_path.iterdir())
    assert len(paths) == 3
    for path in paths:
        xnn.load(path)


def wrong(tmp_path, change=None, **options):
    """Resume from a modified checkpoint in the middle of an epoch."""
    with pytest.raises(KilledError):
        fit(plain("cpu"), RUNS["plain"], [xnn.Checkpoints(tmp_path, "1 step"), KilledAt(14)])
    path = xnn.checkpoints.newest(tmp_path)
    if change is not None:
        arrays, description = saving.read(path)
        arrays = dict(arrays)
        change(arrays, description["training"])
        saving.write(path, arrays, description)
    x, y = data()
    net = plain("cpu")
    before, state = flat(net), net.core.rng.bit_generator.state
    rest = {"optimizer": 0.5, "batch_size": BATCH, "validation_data": (x[:20], y[:20]), **options}
    with pytest.raises(ValueError) as caught:
        net.fit(x, y, epochs=EPOCHS, resume=path, **rest)
    assert (flat(net) == before).all()
    assert net.core.rng.bit_generator.state == state
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 5}, "batch_size was 4, but is 5"),
        ({"shuffle": False}, "shuffle was True, but is False"),
        ({"optimizer": xnn.Adam()}, "optimizer was 'SGD', but is 'Adam'"),
        ({"optimizer": xnn.SGD(0.5, momentum=0.5)}, "the optimizer's state is {}"),
        ({"validation_data": None}, "figures was ['accuracy', 'cost', 'validation_accuracy'"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(options, words, tmp_path):
    assert words in wrong(tmp_path, **options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays, told: told.pop("epoch"), "'epoch' is missing"),
        (lambda arrays, told: told.update(epoch=-1), "epoch is -1"),
        (lambda arrays, told: told.update(epoch=3), "history of cost is not of length 3"),
        (lambda arrays, told: told.update(step=11), "step is 11, but an epoch has 11"),
        (lambda arrays, told: told.update(step=4), "costs has shape (3,)"),
        (
            lambda arrays, told: told["history"]["cost"].append(1.0),
            "history of cost is not of length 1",
        ),
        (lambda arrays, told: told["history"].update(loss=[]), "loss"),
        (
            lambda arrays, told: told["history"].update(stopped=3),
            "stopped in its history is 3, but",
        ),
        (lambda arrays, told: told.update(rate_factor=-1), "rate_factor is -1"),
        (lambda arrays, told: told.update(rate_factor=1e40), "rate_factor is 1e+40, too large"),
        (lambda arrays, told: told["random"].update(bit_generator="MT19937"), "PCG64"),
        (lambda arrays, told: told["random"].update(state=3), "not this training's"),
        (lambda arrays, told: told["random"]["state"].update(state=-1), "not this training's"),
        (lambda arrays, told: told.update(callbacks=3), "not this training's"),
        (
            lambda arrays, told: told["callbacks"].append({"kind": "EarlyStopping", "values": {}}),
            "there are fewer callbacks of kind EarlyStopping than in the checkpoint",
        ),
        (lambda arrays, told: arrays.pop("training.dice"), "'dice' is missing"),
        (
            lambda arrays, told: arrays.update({"training.order": np.zeros(N, np.int64)}),
            "order does not have each sample exactly once",
        ),
        (
            lambda arrays, told: arrays.update({"training.order": np.arange(N) + 10**9}),
            "order does not have each sample exactly once",
        ),
        (
            lambda arrays, told: arrays.update({"training.more": np.zeros(1, np.float32)}),
            "the optimizer's state is {'more'",
        ),
        (lambda arrays, told: arrays.pop("1.weights"), "1.weights"),
        (
            lambda arrays, told: arrays.update({"1.biases": np.full(8, np.nan, np.float32)}),
            "1.biases hold NaN",
        ),
    ],
)
def test_a_checkpoint_that_is_wrong_is_refused(change, words, tmp_path):
    assert words in wrong(tmp_path, change)


def test_what_cannot_be_gone_on_with(tmp_path):
    x, y = data()
    net = plain("cpu")
    with pytest.raises(FileNotFoundError, match=": no checkpoint in this folder"):
        net.fit(x, y, resume=tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        net.fit(x, y, resume=tmp_path / "nowhere")
    net.save(tmp_path / "net")
    with pytest.raises(
        ValueError, match="net: a network, but not a checkpoint to resume training from"
    ):
        net.fit(x, y, resume=tmp_path / "net")
    keeps = xnn.Checkpoints(tmp_path / "a")
    net.fit(x, y, epochs=1, callbacks=[keeps])
    with pytest.raises(
        ValueError, match="a: already has checkpoints; continue from them with resume"
    ):
        net.fit(x, y, epochs=1, callbacks=[keeps])
    other = xnn.Network([(6, 6, 1), xnn.Flatten(), 7, 3], device="cpu")
    with pytest.raises(ValueError, match="from another network: layers is"):
        other.fit(x, y, epochs=1, resume=keeps.newest())


PROGRAM = """
import sys
import numpy as np
import xnn
rng = np.random.default_rng(0)
x, y = rng.standard_normal((2000, 20)), rng.integers(0, 4, 2000)
layers = [20, xnn.Dense(30, "relu"), xnn.BatchNorm(), xnn.Dropout(0.2), xnn.Dense(4, "softmax")]
net = xnn.Network(layers, seed=3, device="cpu")
keeps = xnn.Checkpoints(sys.argv[1], every=sys.argv[3], keep=2)
net.fit(
    x, y, epochs=8, batch_size=5, optimizer=xnn.Averaged(xnn.Adam(), 0.99),
    validation_data=(x[:300], y[:300]), callbacks=[xnn.EarlyStopping("cost"), keeps],
    resume=keeps.newest(), progress=False,
)
net.save(sys.argv[2])
"""


def start(folder, result, every):
    environment = {**os.environ, "XNN_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(result), every]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(folder, result, every="1 epoch"):
    process = start(folder, result, every)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return Path(result).read_bytes()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
def test_a_killed_process_goes_on_to_the_same_weights(tmp_path):
    wanted = finish(tmp_path / "whole", tmp_path / "a")
    folder = tmp_path / "killed"
    process = start(folder, tmp_path / "b", "1 step")
    while process.poll() is None and len(list(folder.glob("*.safetensors"))) < 2:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert not (tmp_path / "b").exists()
    newest = xnn.checkpoints.newest(folder)
    assert saving.read(newest)[1]["training"]["epoch"] < 7
    xnn.load(newest)
    assert finish(folder, tmp_path / "b") == wanted


def kill(folder, result, seconds):
    """Kill a training after so many seconds, and return whether it was during a write."""
    process = start(folder, result, "1 step")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.communicate()
    return folder.exists() and any(path.name.startswith(".") for path in folder.iterdir())


@pytest.mark.long
def test_two_hundred_kills(tmp_path):
    """At random moments: the newest checkpoint always loads, and 20 of the runs are resumed.

    Run by `nox -s kill`.
    """
    began = time.monotonic()
    wanted = finish(tmp_path / "whole", tmp_path / "a", "1 step")
    lasts, random = time.monotonic() - began, np.random.default_rng()
    loaded = resumed = writing = 0
    for number in range(200):
        folder, result = tmp_path / str(number), tmp_path / f"{number}.safetensors"
        writing += kill(folder, result, random.uniform(0.3, 0.95) * lasts)
        newest = xnn.checkpoints.newest(folder)
        if newest is not None:
            xnn.load(newest)
            loaded += 1
            if not result.exists() and resumed < 20:
                assert finish(folder, result) == wanted
                resumed += 1
        shutil.rmtree(folder, ignore_errors=True)
    print(f"200 kills, {loaded} with a checkpoint, {writing} during a write, {resumed} resumed")
    assert loaded > 100
    assert writing > 0
    assert resumed == 20
