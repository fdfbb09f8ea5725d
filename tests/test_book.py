"""The book's modules: its lines, its random numbers, its shapes, its data."""

import copy
import gzip
import json
import os
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xnn
from xnn.book import expand_mnist, mnist_loader, network, network2

from .book_reference import PerSample
from .helpers import host
from .reference import relative_error

SIZES = [12, 9, 8, 5]


def pairs(n=40, inputs=12, outputs=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, outputs, n)
    x = [rng.random((inputs, 1)) for _ in range(n)]
    return [(a, np.eye(outputs)[:, [label]]) for a, label in zip(x, labels, strict=True)], [
        (a, label) for a, label in zip(x, labels, strict=True)
    ]


def seeded(make, seed=1):
    random.seed(seed)
    np.random.seed(seed)
    return make()


def parameters(net):
    return [host(a) for a in [*net.weights, *net.biases]]


def assert_alike(net, reference, rtol=1e-10):
    for found, wanted in zip(parameters(net), [*reference.weights, *reference.biases], strict=True):
        assert relative_error(found, wanted) < rtol


# Chapter 1.


def test_first_weights_are_the_books():
    net = seeded(lambda: network.Network([784, 30, 10]))
    np.random.seed(1)
    wanted = [np.random.randn(30, 1), np.random.randn(10, 1)]
    wanted += [np.random.randn(30, 784), np.random.randn(10, 30)]
    assert net.num_layers == 3
    assert net.sizes == [784, 30, 10]
    for found, array in zip([*net.biases, *net.weights], wanted, strict=True):
        assert found.dtype == np.float64
        assert (host(found) == array).all()


def test_it_prints_the_books_lines(mnist, capsys):
    """The book's own code prints these with these seeds: 8275, 9180, 9308.

    From the second epoch on that is a matter of the last bit: the book's code prints 9190 and 9310
    if its first bias is one bit larger, and 9185 and 9278 with OpenBLAS's kernels for older
    processors. So the first is held exactly, and the others within half a point.
    """
    training_data, _, test_data = mnist_loader.load_data_wrapper()
    net = seeded(lambda: network.Network([784, 30, 10]))
    assert net.SGD(training_data, 3, 10, 3.0, test_data=test_data) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 0: 8275 / 10000"
    found = [re.fullmatch(r"Epoch (\d): (\d+) / 10000", line).groups() for line in lines]
    assert [epoch for epoch, _ in found] == ["0", "1", "2"]
    for (_, right), wanted in zip(found, (8275, 9180, 9308), strict=True):
        assert abs(int(right) - wanted) <= 50


@pytest.mark.parametrize("batch_size", [1, 7, 10, 100])
def test_training_is_the_books_sample_by_sample(batch_size, capsys, device):
    data, labelled = pairs()
    net = seeded(lambda: network.Network(SIZES, device=device))
    net.SGD(data, 3, batch_size, 2.0, test_data=labelled)
    net.SGD(data, 1, batch_size, 2.0)  # continues with the list in its current order
    printed = capsys.readouterr().out
    reference, given = seeded(lambda: PerSample(SIZES)), pairs()[0]
    lines = []
    for epoch in range(3):
        reference.epoch(given, batch_size, 2.0)
        lines.append(f"Epoch {epoch}: {reference.right(labelled)} / 40")
    reference.epoch(given, batch_size, 2.0)
    assert printed == "\n".join([*lines, "Epoch 0 complete", ""])
    assert_alike(net, reference)
    for (x, y), (a, b) in zip(data, given, strict=True):
        assert (x == a).all()
        assert (y == b).all()
    state = random.getstate()  # after as many random numbers as …
    seeded(lambda: None)
    for _ in range(4):
        random.shuffle(list(range(40)))
    assert random.getstate() == state


def test_float32(device):
    data, _ = pairs()
    net = seeded(lambda: network.Network(SIZES, device=device, dtype="float32"))
    assert all(w.dtype == np.float32 for w in [*net.weights, *net.biases])
    net.SGD(data, 2, 10, 2.0)
    reference, given = seeded(lambda: PerSample(SIZES)), pairs()[0]
    reference.epoch(given, 10, 2.0)
    reference.epoch(given, 10, 2.0)
    assert_alike(net, reference, 1e-5)


def test_backprop_is_the_books(device):
    net = seeded(lambda: network.Network(SIZES, device=device))
    reference = seeded(lambda: PerSample(SIZES))
    for x, y in pairs(5)[0]:
        found, wanted = net.backprop(x, y), reference.gradient(x, y)
        assert isinstance(found, tuple)
        for ours, theirs in zip(found, wanted, strict=True):
            assert isinstance(ours, list)
            assert [g.shape for g in ours] == [g.shape for g in theirs]
            for g, h in zip(ours, theirs, strict=True):
                assert relative_error(g, h) < 1e-12
        a = reference.forward(x)[-1]
        delta = net.cost_derivative(a, y) * a * (1 - a)  # as a user would write it
        assert relative_error(found[0][-1], delta) < 1e-12


def test_update_mini_batch(device):
    data, _ = pairs(7)
    net = seeded(lambda: network.Network(SIZES, device=device))
    reference = seeded(lambda: PerSample(SIZES))
    for eta in (0.5, 3.0):
        assert net.update_mini_batch(data, eta) is None
        reference.step(data, eta)
    assert_alike(net, reference, 1e-12)


def test_feedforward_and_evaluate(device):
    net = seeded(lambda: network.Network(SIZES, device=device))
    reference = seeded(lambda: PerSample(SIZES))
    data, labelled = pairs()
    for x, _ in data[:3]:
        a = net.feedforward(x)
        assert a.shape == (5, 1)
        assert relative_error(a, reference.forward(x)[-1]) < 1e-13
    many = np.hstack([x for x, _ in data])
    assert relative_error(net.feedforward(many), reference.forward(many)[-1]) < 1e-13
    bytes_ = np.arange(12, dtype=np.uint8)[:, None]  # numbers here, not pixels
    assert relative_error(net.feedforward(bytes_), reference.forward(bytes_)[-1]) < 1e-13
    assert net.evaluate(labelled) == reference.right(labelled) > 0
    assert type(net.evaluate(labelled)) is int


def test_functions():
    z = np.array([[-800.0], [-1.5], [0.0], [3.0]])
    assert network.sigmoid(z) == pytest.approx(np.array([[0], [0.182425524], [0.5], [0.952574127]]))
    step = 1e-6
    slope = (network.sigmoid(z + step) - network.sigmoid(z - step)) / (2 * step)
    assert network.sigmoid_prime(z) == pytest.approx(slope, abs=1e-9)
    assert network.sigmoid(0) == 0.5


FORMS = {
    "list": lambda data: list(data),
    "tuple": lambda data: tuple(data),
    "zip": lambda data: zip(*zip(*data, strict=True), strict=True),
    "generator": lambda data: (pair for pair in data),
    "lists in pairs": lambda data: [
        [x.tolist(), y if np.ndim(y) == 0 else y.tolist()] for x, y in data
    ],
    "arrays": lambda data: tuple(_rows(data)),
    "a list of two arrays": lambda data: _rows(data),
    "arrays of columns": lambda data: [
        part if part.ndim == 1 else part[:, :, None] for part in _rows(data)
    ],
}


def _rows(data):
    x, y = zip(*data, strict=True)
    return [np.hstack(x).T, np.array(y) if np.ndim(y[0]) == 0 else np.hstack(y).T]


@pytest.mark.parametrize("form", FORMS)
def test_data_of_every_form(form, device, capsys):
    data, labelled = pairs()
    wanted = seeded(lambda: network.Network(SIZES, device=device))
    wanted.SGD(list(data), 2, 10, 2.0, test_data=labelled)
    lines = capsys.readouterr().out
    net = seeded(lambda: network.Network(SIZES, device=device))
    net.SGD(FORMS[form](data), 2, 10, 2.0, FORMS[form](labelled))
    assert capsys.readouterr().out == lines
    for found, other in zip(parameters(net), parameters(wanted), strict=True):
        assert (found == other).all()
    assert net.evaluate(FORMS[form](labelled)) == wanted.evaluate(labelled)


def test_arrays_are_left_as_they_are(device):
    x, y = _rows(pairs()[0])
    before = x.copy(), y.copy()
    data = [x, y]
    seeded(lambda: network.Network(SIZES, device=device)).SGD(data, 2, 10, 2.0)
    assert data[0] is x
    assert (x == before[0]).all()
    assert (y == before[1]).all()


def test_pixels_in_arrays_and_in_columns(device):
    """Bytes over 255 train as the numbers that they are; an array of bytes is pixels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 12)).astype(np.uint8)
    y = np.eye(5)[rng.integers(0, 5, 40)]
    columns = [(x[:, None] / 255, t[:, None]) for x, t in zip(pixels, y, strict=True)]
    nets = [seeded(lambda: network.Network(SIZES, device=device)) for _ in range(3)]
    seeded(lambda: nets[0].SGD(columns, 3, 10, 2.0))
    seeded(lambda: nets[1].SGD((pixels, y), 3, 10, 2.0))
    columns = [(x[:, None] / 255 + 1e-14, t[:, None]) for x, t in zip(pixels, y, strict=True)]
    seeded(lambda: nets[2].SGD(columns, 3, 10, 2.0))
    for first, second, third in zip(*map(parameters, nets), strict=True):
        assert (first == second).all()
        assert not (first == third).all()
        assert relative_error(first, third) < 1e-10


def test_columns_of_bytes_and_whole_numbers_are_numbers(device):
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.int64, bool):
        x = rng.integers(0, 2, (30, 12)).astype(dtype)
        data = [(a[:, None], np.eye(5)[:, [i % 5]]) for i, a in enumerate(x)]
        net = seeded(lambda: network.Network(SIZES, device=device))
        net.SGD(list(data), 2, 10, 2.0)
        reference = seeded(lambda: PerSample(SIZES))
        for _ in range(2):
            reference.epoch(data, 10, 2.0)
        assert_alike(net, reference)


def test_arrays_on_the_device(device):
    if device == "cpu":
        pytest.skip("there is no other device")
    x, y = _rows(pairs()[0])
    labels = _rows(pairs()[1])[1]
    nets = [seeded(lambda: network.Network(SIZES, device=device)) for _ in range(2)]
    upload = nets[0]._net.core.engine.backend.upload
    seeded(lambda: nets[0].SGD((x, y), 2, 10, 2.0))
    seeded(lambda: nets[1].SGD((upload(x), upload(y)), 2, 10, 2.0))
    assert nets[0].evaluate((x, labels)) == nets[1].evaluate((upload(x), upload(labels)))
    column = upload(np.ascontiguousarray(x[:1].T))
    assert (host(nets[0].feedforward(column)) == nets[0].feedforward(x[:1].T)).all()
    target = upload(np.ascontiguousarray(y[:1].T))
    for ours, theirs in zip(
        nets[0].backprop(column, target), nets[0].backprop(x[:1].T, y[:1].T), strict=True
    ):
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            assert (host(a) == b).all()


def test_weights_are_live(device):
    net = seeded(lambda: network.Network(SIZES, device=device))
    reference = seeded(lambda: PerSample(SIZES))
    assert isinstance(net.weights, list)
    assert [w.shape for w in net.weights] == [(9, 12), (8, 9), (5, 8)]
    assert [b.shape for b in net.biases] == [(9, 1), (8, 1), (5, 1)]
    weights, biases = net.weights, net.biases
    weights[0][1, 2] = reference.weights[0][1, 2] = 3
    net.weights[1][...] = 0.25
    reference.weights[1][...] = 0.25
    biases[2][3, 0] = reference.biases[2][3, 0] = -1.5
    net.weights[2] = reference.weights[2] = np.linspace(-1, 1, 40).reshape(5, 8)
    net.biases[0] = reference.biases[0] = np.full((9, 1), 0.5)
    data, _ = pairs()
    net.update_mini_batch(data, 1.0)
    reference.step(data, 1.0)
    assert_alike(net, reference)
    seeded(lambda: net.SGD(data, 1, 10, 1.0))
    seeded(lambda: reference.epoch(pairs()[0], 10, 1.0))
    assert_alike(net, reference)
    assert (host(weights[0]) == host(net.weights[0])).all()  # the same memory
    reference.weights = [np.full(w.shape, 0.1) for w in reference.weights]
    reference.biases = [np.full(b.shape, -0.1) for b in reference.biases]
    net.weights, net.biases = reference.weights, tuple(reference.biases)
    assert_alike(net, reference, 1e-15)
    net.weights[:2] = [2 * w for w in reference.weights[:2]]
    reference.weights = [2 * w for w in reference.weights[:2]] + reference.weights[2:]
    assert_alike(net, reference, 1e-15)


def test_a_copy_of_the_weights_is_a_list(device):
    net = seeded(lambda: network.Network(SIZES))
    kept, before = copy.deepcopy(net.weights), parameters(net)
    assert type(kept) is list
    net.SGD(pairs()[0], 1, 10, 3.0)
    assert all((host(w) == b).all() for w, b in zip(kept, before, strict=False))
    assert not (host(net.weights[0]) == before[0]).all()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_network_can_be_copied_and_pickled(duplicate):
    data, _ = pairs()
    net = seeded(lambda: network2.Network(SIZES))
    other = duplicate(net)
    for each in (net, other):
        random.seed(1)
        each.SGD(list(data), 2, 10, 0.5)
    assert all((a == b).all() for a, b in zip(parameters(net), parameters(other), strict=True))


def test_no_epochs_print_nothing(capsys):
    data, labelled = pairs()
    net = seeded(lambda: network2.Network(SIZES))
    before = parameters(net)
    state = random.getstate()
    assert net.SGD(data, 0, 10, 0.5, 0.0, labelled, True, True, True, True) == ([], [], [], [])
    assert capsys.readouterr().out == ""
    assert random.getstate() == state
    assert all((a == b).all() for a, b in zip(parameters(net), before, strict=True))


def test_ctrl_c_leaves_the_list_as_far_as_it_was_shuffled(device, monkeypatch):
    data, _ = pairs()
    said = []

    def press(*words, **_):
        said.append(words)
        if len(said) == 2:
            raise KeyboardInterrupt

    net = seeded(lambda: network.Network(SIZES))
    monkeypatch.setattr("builtins.print", press)
    net.SGD(data, 9, 10, 0.5)
    monkeypatch.undo()
    assert [words[0] for words in said[:2]] == ["Epoch 0 complete", "Epoch 1 complete"]
    wanted = pairs()[0]
    seeded(lambda: None)
    random.shuffle(wanted)
    random.shuffle(wanted)
    assert all((x == a).all() for (x, _), (a, _) in zip(data, wanted, strict=True))


# Chapter 3.

MONITORS = {
    "monitor_evaluation_cost": True,
    "monitor_evaluation_accuracy": True,
    "monitor_training_cost": True,
    "monitor_training_accuracy": True,
}


def book_lines(epoch, figures, n_evaluation, n):
    evaluation_cost, evaluation_accuracy, training_cost, training_accuracy = figures
    return (
        f"Epoch {epoch} training complete\n"
        f"Cost on training data: {training_cost}\n"
        f"Accuracy on training data: {training_accuracy} / {n}\n"
        f"Cost on evaluation data: {evaluation_cost}\n"
        f"Accuracy on evaluation data: {evaluation_accuracy} / {n_evaluation}\n"
        "\n"
    )


@pytest.mark.parametrize(
    ("cost", "lmbda", "large"),
    [
        ("CrossEntropyCost", 5.0, False),
        ("QuadraticCost", 0.1, False),
        ("CrossEntropyCost", 0, True),
    ],
)
def test_ten_epochs_on_1000_images(cost, lmbda, large, mnist, device, capsys):
    """As the book's chapter 3 does it, against a loop over single samples."""
    training_data, validation_data, _ = mnist_loader.load_data_wrapper()
    training_data, validation_data = training_data[:1000], validation_data[:500]
    kind, eta = getattr(network2, cost), 0.5 if cost == "CrossEntropyCost" else 3.0

    def make():
        net = network2.Network([784, 30, 10], cost=kind, device=device)
        if large:
            net.large_weight_initializer()
        return net

    def make_reference():
        name = "quadratic" if cost == "QuadraticCost" else "cross_entropy"
        reference = PerSample([784, 30, 10], name, scaled=True)
        return PerSample([784, 30, 10], name) if large else reference

    net, given = seeded(make), list(training_data)
    figures = net.SGD(given, 10, 10, eta, lmbda, validation_data, **MONITORS)
    printed = capsys.readouterr().out
    reference, wanted = seeded(make_reference), []
    for _ in range(10):
        reference.epoch(training_data, 10, eta, lmbda)
        wanted.append(
            (
                reference.total_cost(validation_data, lmbda),
                reference.right(validation_data),
                reference.total_cost(training_data, lmbda),
                reference.right(training_data),
            )
        )
    for found, expected in zip(figures, zip(*wanted, strict=True), strict=True):
        assert found == pytest.approx(expected, rel=1e-8)
    assert list(zip(*wanted, strict=True))[1::2] == [tuple(figures[1]), tuple(figures[3])]
    lines = [
        book_lines(epoch, numbers, 500, 1000)
        for epoch, numbers in enumerate(zip(*figures, strict=True))
    ]
    assert printed == "".join(lines)
    assert all(type(n) is float for n in figures[0] + figures[2])
    assert all(type(n) is int for n in figures[1] + figures[3])
    assert all((x == a).all() for (x, _), (a, _) in zip(given, training_data, strict=True))
    assert net.accuracy(training_data, convert=True) == figures[3][-1]
    assert net.accuracy(validation_data) == figures[1][-1]
    costs = net.total_cost(training_data, lmbda), net.total_cost(validation_data, lmbda, True)
    assert costs == pytest.approx((figures[2][-1], figures[0][-1]), rel=1e-12)


def test_what_is_not_monitored_is_empty(device, capsys):
    data, labelled = pairs()
    net = seeded(lambda: network2.Network(SIZES, device=device))
    figures = net.SGD(data, 2, 10, 0.5, evaluation_data=labelled, monitor_training_accuracy=True)
    assert figures[:3] == ([], [], [])
    assert capsys.readouterr().out == "".join(
        f"Epoch {i} training complete\nAccuracy on training data: {right} / 40\n\n"
        for i, right in enumerate(figures[3])
    )
    assert net.SGD(data, 1, 10, 0.5) == ([], [], [], [])
    assert capsys.readouterr().out == "Epoch 0 training complete\n\n"


def test_initializers(device):
    net = seeded(lambda: network2.Network(SIZES, device=device))
    scaled = seeded(lambda: PerSample(SIZES, scaled=True))
    assert_alike(net, scaled, 1e-300)
    net.large_weight_initializer()  # the next numbers of the same sequence
    seeded(lambda: PerSample(SIZES))
    large = PerSample(SIZES)
    assert_alike(net, large, 1e-300)


def test_update_mini_batch_decays_by_lambda_over_n(device):
    data, _ = pairs(7)
    net = seeded(lambda: network2.Network(SIZES, device=device))
    reference = seeded(lambda: PerSample(SIZES, "cross_entropy", scaled=True))
    net.update_mini_batch(data, 0.5, 5.0, 100)
    reference.step(data, 0.5, 5.0, 100)
    assert_alike(net, reference, 1e-12)
    found, wanted = net.backprop(*data[0]), reference.gradient(*data[0])
    for g, h in zip(found[0] + found[1], wanted[0] + wanted[1], strict=True):
        assert relative_error(g, h) < 1e-12


def test_costs_of_one_sample():
    a, y = np.array([[0.8], [0.1], [1.0]]), np.array([[1.0], [0.0], [1.0]])
    assert network2.QuadraticCost.fn(a, y) == pytest.approx((0.04 + 0.01) / 2)
    assert network2.CrossEntropyCost.fn(a, y) == pytest.approx(-np.log(0.8) - np.log(0.9))
    z = np.log(a[:2] / (1 - a[:2]))
    slope = (a * (1 - a))[:2]
    delta = network2.QuadraticCost.delta(z, a[:2], y[:2])
    assert delta == pytest.approx((a - y)[:2] * slope)
    assert (network2.CrossEntropyCost.delta(z, a[:2], y[:2]) == (a - y)[:2]).all()


@pytest.mark.parametrize("figure", ["evaluation", "training"])
def test_early_stopping(figure, device, capsys):
    """Ends after the first three epochs in a row that bring no better accuracy."""
    data, labelled = pairs(60)
    flags = {f"monitor_{figure}_accuracy": True}
    options = {"lmbda": 0.1, "evaluation_data": labelled[:9] + pairs(20, seed=1)[1], **flags}
    which = 1 if figure == "evaluation" else 3
    net = seeded(lambda: network2.Network(SIZES, device=device))
    every = net.SGD(list(data), 60, 10, 1.0, **options)[which]
    end, best, since = None, 0, 0
    for epoch, right in enumerate(every):
        best, since = (right, 0) if right > best else (best, since + 1)
        if since == 3:
            end = epoch
            break
    assert end is not None
    assert end < 59
    net = seeded(lambda: network2.Network(SIZES, device=device))
    found = net.SGD(list(data), 60, 10, 1.0, early_stopping_n=3, **options)[which]
    assert found == every[: end + 1]


def test_save_and_load(tmp_path, device):
    path = tmp_path / "net.json"
    net = seeded(lambda: network2.Network(SIZES, network2.QuadraticCost, device=device))
    net.save(path)
    saved = json.loads(path.read_text())
    assert list(saved) == ["sizes", "weights", "biases", "cost"]
    assert saved["sizes"] == SIZES
    assert saved["cost"] == "QuadraticCost"
    assert np.array(saved["biases"][0]).shape == (9, 1)
    other = network2.load(str(path), device=device)
    assert other.cost is network2.QuadraticCost
    assert all((a == b).all() for a, b in zip(parameters(net), parameters(other), strict=True))
    data, _ = pairs()
    assert net.total_cost(data, 1.0) == other.total_cost(data, 1.0)
    assert network2.load(path, dtype="float32").weights[0].dtype == np.float32


def test_a_file_of_the_books_code(tmp_path):
    """As its `save` writes it: `str(cost.__name__)`, lists of lists, columns of biases."""
    path = tmp_path / "book.json"
    data = {
        "sizes": [2, 1, 2],
        "weights": [[[0.5, -0.25]], [[1.0], [2.0]]],
        "biases": [[[0.125]], [[-1.0], [0]]],
        "cost": "CrossEntropyCost",
    }
    path.write_text(json.dumps(data))
    net = network2.load(path)
    assert net.cost is network2.CrossEntropyCost
    hidden = 1 / (1 + np.exp(-(0.5 * 3 - 0.25 * 2 + 0.125)))
    wanted = 1 / (1 + np.exp([[1 - hidden], [-2 * hidden]]))
    assert net.feedforward(np.array([[3], [2]])) == pytest.approx(wanted)
    net.save(path)
    assert json.loads(path.read_text()) == data


def test_an_instance_of_a_cost_will_do(tmp_path):
    """The programs behind the book's figures give one."""
    net = network2.Network(SIZES, cost=network2.CrossEntropyCost())
    net.save(tmp_path / "net.json")
    assert network2.load(tmp_path / "net.json").cost is network2.CrossEntropyCost


# Data.


def test_mnist_in_the_books_form(mnist):
    (x, y), validation, test = mnist_loader.load_data()
    assert x.shape == (50_000, 784)
    assert (x == mnist[0][0] / 255).all()
    assert (y == mnist[0][1]).all()
    assert [len(part[1]) for part in (validation, test)] == [10_000, 10_000]
    training_data, validation_data, test_data = mnist_loader.load_data_wrapper()
    assert [type(d) for d in (training_data, validation_data, test_data)] == [list] * 3
    assert len(training_data) == 50_000
    for i in (0, 49_999):
        image, target = training_data[i]
        assert image.shape == (784, 1)
        assert (image[:, 0] == x[i]).all()
        assert target.shape == (10, 1)
        assert (target == mnist_loader.vectorized_result(y[i])).all()
    for data, (images, labels) in ((validation_data, validation), (test_data, test)):
        assert len(data) == 10_000
        assert (data[7][0][:, 0] == images[7]).all()
        assert data[7][1] == labels[7]


def test_the_books_own_file(mnist, monkeypatch):
    """Its numbers are used unchanged: float32, pixels over 256."""
    path = Path(os.environ.get("XNN_DATA", ""), "book", "mnist-small.pkl.gz")
    if not path.exists():
        pytest.skip("there is no such file")
    wanted = xnn.datasets.mnist(path)
    monkeypatch.setattr(mnist_loader, "mnist", lambda **_: wanted)
    training, *_ = mnist_loader.load_data()
    assert training[0].dtype == np.float32
    assert (training[0] == wanted[0][0]).all()


def test_vectorized_result():
    for function in (mnist_loader.vectorized_result, network2.vectorized_result):
        assert function(3).tolist() == [[0.0]] * 3 + [[1.0]] + [[0.0]] * 6


# The expanded training set.


def rolled(image, step, axis, edge):
    """Return an image moved as the book does it, by rolling and clearing what came around."""
    moved = np.roll(image, step, axis)
    moved[(edge,) if axis == 0 else (slice(None), edge)] = 0
    return moved


MOVES = [(1, 0, 0), (-1, 0, 27), (1, 1, 0), (-1, 1, 27)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_expansion(dtype):
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 9, (7, 784)).astype(dtype), rng.integers(0, 10, 7)
    images, labels = expand_mnist.expand(x, y)
    assert images.shape == (35, 784)
    assert images.dtype == dtype
    assert labels.tolist() == [label for label in y for _ in range(5)]
    for i, image in enumerate(x.reshape(7, 28, 28)):
        wanted = [image, *(rolled(image, *move) for move in MOVES)]
        assert (images[5 * i : 5 * i + 5].reshape(5, 28, 28) == wanted).all()


def test_expanded_data_train_on_the_fly(device):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (8, 784)).astype(np.uint8), np.eye(10)[rng.integers(0, 10, 8)]
    pixels = x.reshape(-1, 28, 28) / 255
    moved = [
        (image.reshape(784, 1), target[:, None])
        for first, target in zip(pixels, y, strict=True)
        for image in [first, *(rolled(first, *move) for move in MOVES)]
    ]
    nets = [seeded(lambda: network.Network([784, 5, 10], device=device)) for _ in range(2)]
    seeded(lambda: nets[0].SGD(expand_mnist.expand(x, y), 2, 10, 0.5))
    seeded(lambda: nets[1].SGD(moved, 2, 10, 0.5))
    for a, b in zip(*map(parameters, nets), strict=True):
        assert (a == b).all()


def test_expanded_file(tmp_path, monkeypatch, capsys):
    """Read back without running a pickle, and by Python's own reader; written once."""
    rng = np.random.default_rng(0)
    small = [(rng.random((n, 784)), rng.integers(0, 10, n)) for n in (40, 6, 5)]
    monkeypatch.setattr(expand_mnist, "load_data", lambda: small)
    path = tmp_path / "mnist_expanded.pkl.gz"
    monkeypatch.setattr("sys.argv", ["expand_mnist", str(path)])
    random.seed(1)
    expand_mnist.main()
    assert capsys.readouterr().out == (
        "Expanding the MNIST training set\nSaving expanded data. This may take a few minutes.\n"
    )
    found = xnn.datasets.mnist(path)
    order = list(range(200))
    random.seed(1)
    random.shuffle(order)
    x, y = expand_mnist.expand(*small[0])
    wanted = [(x[order], y[order]), *small[1:]]
    with gzip.open(path) as file:
        unpickled = pickle.load(file)
    for three in (found, unpickled):
        assert len(three) == 3
        for (images, labels), (x, y) in zip(three, wanted, strict=True):
            assert images.dtype == np.float32
            assert (images == x.astype(np.float32)).all()
            assert (labels == y).all()
    before = path.read_bytes()
    expand_mnist.main()
    assert capsys.readouterr().out == (
        "Expanding the MNIST training set\nThe expanded training set already exists.  Exiting.\n"
    )
    assert path.read_bytes() == before


# examples/book.py


def test_gradients_of_chapter_5(mnist):
    """Of the biases of each hidden layer before training, with which that chapter begins."""
    example = Path(__file__).parent.parent / "examples" / "book.py"
    command = [sys.executable, str(example), "chapter5", "--device", "cpu", "--seed", "3"]
    environment = {**os.environ, "PYTHONPATH": str(example.parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    data, lines = mnist_loader.load_data_wrapper()[0][:1000], []
    np.random.seed(3)
    for hidden in (2, 3, 4):
        net = PerSample([784, *[30] * hidden, 10], "cross_entropy", scaled=True)
        total = [0.0] * (hidden + 1)
        for x, y in data:
            total = [t + g for t, g in zip(total, net.gradient(x, y)[0], strict=True)]
        norms = [f"{np.linalg.norm(t) / 1000:.3f}" for t in total[:-1]]
        lines.append(f"{hidden} hidden layers: {', '.join(norms)}")
    assert done.stdout.splitlines() == lines


def test_what_the_example_cannot_do_is_one_line_and_status_2(mnist):
    example = Path(__file__).parent.parent / "examples" / "book.py"
    environment = {**os.environ, "PYTHONPATH": str(example.parent.parent)}
    command = [sys.executable, str(example), "chapter1", "--device", "tpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "book.py: device is 'tpu', but must be 'auto', 'cpu', 'gpu', or a GPU such as 'gpu:1'\n"
    )
