"""Image layers and others, compared with their definitions, central differences and PyTorch."""

import contextlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import xnn
from xnn import (
    Activation,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    ElasticTransform,
    Flatten,
    GlobalAveragePool2D,
    MaxPool2D,
    RandomAffine,
    RandomErasing,
    Reshape,
)
from xnn.backends import Window, select
from xnn.engine import meet
from xnn.parameters import Rows
from xnn.samples import check_samples
from xnn.workspace import Interior, Score, Workspace

from . import reference
from .helpers import copies, host, matrix, parameters

# Windows, as operations.


@st.composite
def geometries(draw, dilations=3):
    """A window, images' shapes, and arrays of both."""
    pairs = lambda low, high: st.tuples(*[st.integers(low, high)] * 2)  # noqa: E731
    window = Window(
        size=draw(pairs(1, 4)),
        stride=draw(pairs(1, 3)),
        dilation=draw(pairs(1, dilations)),
        padding=(draw(pairs(0, 2)), draw(pairs(0, 2))),
    )
    shape = (draw(st.integers(1, 3)), *draw(pairs(1, 9)), draw(st.integers(1, 3)))
    assume(min(window.counts(*shape[1:3])) >= 1)
    return window, shape


def images(shape, seed=0):
    """Numbers that differ, so that a largest one is certain."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.prod(shape)).reshape(shape).astype(np.float64) / np.prod(shape)


@given(geometry=geometries())
@settings(max_examples=100, deadline=None)
def test_unfold_by_its_definition_and_fold_as_its_adjoint(geometry, device):
    window, shape = geometry
    backend, x = select(device), images(shape)
    down, across = window.counts(*shape[1:3])
    pixels = int(np.prod(window.size)) * shape[3]
    columns = matrix(backend, shape[0] * down * across, pixels, "d")
    backend.unfold(backend.upload(x), columns, window)
    wanted = np.zeros((shape[0], down, across, pixels))
    for (i, j), seen in reference.windows(x, window):
        wanted[:, i, j] = seen.reshape(shape[0], -1)
    np.testing.assert_array_equal(backend.download(columns), wanted.reshape(-1, pixels))
    other = np.random.default_rng(1).standard_normal(columns.shape)
    backend.copy(backend.upload(other), columns)
    folded = backend.zeros(shape, "d")
    backend.fold(columns, folded, window)
    inner = (backend.download(folded) * x).sum(), (other * wanted.reshape(-1, pixels)).sum()
    assert inner[0] == pytest.approx(inner[1], rel=1e-12, abs=1e-12)


@given(geometry=geometries())
@settings(max_examples=100, deadline=None)
def test_pools_by_their_definition_and_the_ways_back_as_adjoints(geometry, device):
    window, shape = geometry
    backend, x = select(device), images(shape)
    down, across = window.counts(*shape[1:3])
    sums, largest = (backend.zeros((shape[0], down, across, shape[3]), "d") for _ in range(2))
    index = backend.zeros(largest.shape, np.uint8)
    backend.sum_pool(backend.upload(x), sums, window)
    backend.max_pool(backend.upload(x), largest, index, window)
    delta = np.random.default_rng(1).standard_normal(sums.shape)
    by_sum, by_largest = np.zeros(shape), np.zeros(shape)
    for (i, j), seen in reference.windows(x, window):
        np.testing.assert_allclose(backend.download(sums)[:, i, j], seen.sum((1, 2)), rtol=1e-12)
    for (i, j), seen in reference.windows(x, window, -np.inf):
        most = seen.max((1, 2))
        np.testing.assert_array_equal(backend.download(largest)[:, i, j], most)
        for s, c in np.ndindex(shape[0], shape[3]):
            by_largest[s, ..., c][x[s, ..., c] == most[s, c]] += delta[s, i, j, c]
    for (i, j), seen in reference.windows(np.arange(x.size).reshape(shape), window, -1):
        for s in range(shape[0]):
            for at in seen[s][seen[s] >= 0]:
                by_sum.reshape(-1)[int(at)] += delta[s, i, j, int(at) % shape[3]]
    back = backend.zeros(shape, "d")
    backend.sum_pool_backward(backend.upload(delta), back, window)
    np.testing.assert_allclose(backend.download(back), by_sum, rtol=1e-12, atol=1e-12)
    backend.max_pool_backward(backend.upload(delta), index, back, window)
    np.testing.assert_allclose(backend.download(back), by_largest, rtol=1e-12, atol=1e-12)


def test_of_equals_the_first_is_the_largest(device):
    backend = select(device)
    out, index = backend.zeros((1, 1, 1, 1), "f"), backend.zeros((1, 1, 1, 1), np.uint8)
    backend.max_pool(
        backend.upload(np.zeros((1, 2, 2, 1), "f")), out, index, Window((2, 2), (2, 2))
    )
    assert backend.download(index).item() == 0


def test_nan_is_the_largest(device):
    backend = select(device)
    x = np.array([1, np.nan, 3, 2], "f").reshape(1, 2, 2, 1)
    out, index = backend.zeros((1, 1, 1, 1), "f"), backend.zeros((1, 1, 1, 1), np.uint8)
    backend.max_pool(backend.upload(x), out, index, Window((2, 2), (2, 2)))
    assert np.isnan(backend.download(out)).all()


# Random numbers.


def test_random_numbers_are_uniform_and_of_each_step_and_layer(device):
    backend = select(device)
    rng_state = backend.upload(np.array([7, 0], np.uint32))
    drawn = []
    for number in (0, 1):
        out = backend.zeros((50, 400), "f")
        backend.uniform(rng_state, number, out)
        drawn.append(backend.download(out).ravel())
    backend.advance(rng_state)
    backend.uniform(rng_state, 0, out)
    drawn.append(backend.download(out).ravel())
    assert backend.download(rng_state).tolist() == [7, 1]
    for numbers in drawn:
        assert 0 < numbers.min() <= 0.001
        assert 0.999 <= numbers.max() <= 1
        # Within four standard deviations of a uniform distribution's.
        counts = np.histogram(numbers, 20, (0, 1))[0]
        assert abs(counts - 1000).max() < 4 * np.sqrt(950)
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / np.sqrt(20_000)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(drawn[a], drawn[b])[0, 1]) < 4 / np.sqrt(20_000)


def test_random_numbers_are_those_of_the_hash(device):
    """By its description, with Python's integers."""
    backend = select(device)
    out = backend.zeros((5,), "d")
    backend.uniform(backend.upload(np.array([123, 45], np.uint32)), 6, out)

    def mix(v):
        v = (v ^ v >> 16) * 0x7FEB352D % 2**32
        v = (v ^ v >> 15) * 0x846CA68B % 2**32
        return v ^ v >> 16

    base = mix((mix((123 + 6 * 0x9E3779B1) % 2**32) + 45) % 2**32)
    wanted = [((mix((i * 0x9E3779B1 + base) % 2**32) >> 8) + 1) / 2**24 for i in range(5)]
    assert backend.download(out).tolist() == wanted


# Augmentation.


def in_training(layer, x):
    """Return images as transformed in training, with the random numbers of `InTraining`."""
    net = xnn.Network([x.shape[1:], layer, Flatten(), Dense(2)], dtype="float64")
    training = InTraining(net, x, np.zeros((len(x), 2)))
    training.cost()
    assert (host(net.predict(x)) == host(net.predict(x))).all()
    hidden = training.memories[0].outputs.values
    return host(hidden).reshape(x.shape)


def uniform(n, numbers, layer=0):
    """Return the random numbers of `InTraining`, as numbers above 0 and at most 1."""
    backend = select("cpu")
    out = backend.zeros((n, numbers), "d")
    backend.uniform(np.array(RNG_STATE, np.uint32), layer, out)
    return out


@given(shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)))
@settings(max_examples=30, deadline=None)
def test_resample_is_that_of_scipy(shape, device):
    ndimage = pytest.importorskip("scipy.ndimage")
    backend, x = select(device), images((2, *shape))
    rng = np.random.default_rng(0)
    rows, columns = (rng.uniform(-3, n + 2, (2, shape[0] * shape[1])) for n in shape[:2])
    out = backend.zeros(x.shape, "d")
    backend.resample(backend.upload(x), backend.upload(rows), backend.upload(columns), out)
    for s, c in np.ndindex(2, shape[2]):
        wanted = ndimage.map_coordinates(
            x[s, ..., c], [rows[s], columns[s]], order=1, mode="grid-constant"
        )
        found = backend.download(out)[s, ..., c].ravel()
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_random_affine_is_the_inverse_of_its_matrix(device):
    from scipy import ndimage

    x = images((5, 9, 8, 2))
    found = in_training(RandomAffine(shift=2, rotation=30, scale=0.2, shear=10), x)
    middle = (np.array(x.shape[1:3]) - 1) / 2
    for s, (angle, size, slant, *shift) in enumerate(2 * uniform(5, 5) - 1):
        turn, lean = np.deg2rad(30 * angle), np.tan(np.deg2rad(10 * slant))
        # Of (row, column): first sheared, then turned, made larger, and shifted.
        rotation = [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
        back = np.linalg.inv((1 + 0.2 * size) * np.array(rotation) @ [[1, 0], [lean, 1]])
        offset = middle - back @ middle + 2 * np.array(shift)
        for c in range(2):
            image = x[s, ..., c]
            wanted = ndimage.affine_transform(image, back, offset, order=1, mode="grid-constant")
            np.testing.assert_allclose(found[s, ..., c], wanted, rtol=1e-9, atol=1e-12)


def test_no_change_is_no_change(device):
    x = images((3, 5, 6, 2))
    for layer in (RandomAffine(), ElasticTransform(amount=0)):
        np.testing.assert_allclose(in_training(layer, x), x, rtol=1e-12, atol=1e-12)


def test_elastic_transform_moves_pixels_as_far_as_it_is_told(device):
    """Images of each pixel's row or column show where it came from."""
    n, size = 60, 40
    grid = np.stack(np.indices((size, size)), axis=-1).astype(float)
    found = in_training(ElasticTransform(amount=1.5, smoothness=5), np.tile(grid, (n, 1, 1, 1)))
    moved = (found - grid)[:, 8:-8, 8:-8]
    assert moved.std() == pytest.approx(1.5, rel=0.05)
    assert abs(moved.mean()) < 0.1
    assert abs(np.corrcoef(moved[..., 0].ravel(), moved[..., 1].ravel())[0, 1]) < 0.1
    # Sums of bells of one width fall off with the distance d as exp(-d² / 4 width²).
    for apart in (1, 5):
        near = np.corrcoef(moved[:, apart:].ravel(), moved[:, :-apart].ravel())[0, 1]
        assert near == pytest.approx(np.exp(-(apart**2) / 100), abs=0.06)


def test_random_erasing_takes_rectangles(device):
    x = np.ones((2000, 20, 30, 2))
    kept = in_training(RandomErasing(size=0.5, probability=0.3), x)
    assert set(np.unique(kept)) == {0, 1}
    erased = kept[..., 0] == 0
    assert (erased == (kept[..., 1] == 0)).all()
    rows, columns = erased.any(2), erased.any(1)
    assert (erased == (rows[:, :, None] & columns[:, None, :])).all()
    assert rows.sum(1).max() == 10
    assert columns.sum(1).max() == 15
    happens = uniform(2000, 5)[:, 0] < 0.3
    assert not erased[~happens].any()
    # A rectangle may be too thin to have a pixel.
    assert erased[happens].any((1, 2)).mean() > 0.85


def test_random_erasing_takes_all_sides_alike(device):
    """Each pixel as often as it lies within a rectangle centred anywhere in the image."""
    n, size, lengths = 40_000, 0.5, (8, 6)
    erased = in_training(RandomErasing(size, probability=1), np.ones((n, *lengths, 1)))[..., 0] == 0
    middles = (np.arange(10_000) + 0.5) / 10_000
    along = []
    for length in lengths:
        apart = np.abs((np.arange(length)[:, None] + 0.5) / length - middles)
        along.append(np.maximum(0, 1 - 2 * apart / size).mean(1))  # of sides from 0 to size
    np.testing.assert_allclose(erased.mean(0), np.outer(*along), atol=0.006)


@pytest.mark.parametrize("layer", [RandomAffine(2, 9), ElasticTransform(), RandomErasing()])
def test_augmentation_is_for_training_alone(layer, device):
    x = images((4, 6, 6, 1))
    net = xnn.Network([(6, 6, 1), layer, Flatten()], device=device, dtype="float64")
    np.testing.assert_array_equal(host(net.predict(x)), x.reshape(4, -1))
    assert (in_training(layer, x) != x).any()
    net = xnn.Network([36, Reshape((6, 6, 1)), layer, Conv2D(2, 2), Flatten(), Dense(2)])
    net.fit(x, [0, 1, 0, 1], epochs=1)
    with pytest.raises(ValueError, match="must come before all layers that learn"):
        xnn.Network([(6, 6, 1), Conv2D(2, 2), layer])


# Gradients.

LAYERS = {
    "conv": [Conv2D(3, 2, "tanh")],
    "conv of everything": [
        Conv2D(4, (3, 2), "sigmoid", stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
    ],
    "conv without bias": [Conv2D(2, 3, padding="same", bias=False)],
    "conv on conv": [Conv2D(4, 3, "tanh", padding="same"), Conv2D(2, 2, stride=2, groups=2)],
    "max pool": [Conv2D(2, 1), MaxPool2D(2)],
    "max pool that overlaps": [Conv2D(2, 1), MaxPool2D(3, stride=2, padding=1)],
    "average pool": [Conv2D(2, 1), AveragePool2D((2, 3), padding="same", stride=1)],
    "global average pool": [Conv2D(2, 2, "tanh"), GlobalAveragePool2D(), Dense(3, "tanh")],
    "batch norm of images": [Conv2D(3, 2), BatchNorm(), Activation("tanh")],
    "batch norm of vectors": [Flatten(), Dense(5, "linear"), BatchNorm(), Dense(4, "tanh")],
    "batch norm first": [BatchNorm(), Flatten(), Dense(2)],
    "activation": [Flatten(), Dense(4, "linear"), Activation("softmax"), Dense(2)],
    "activation last": [Flatten(), Dense(3, "linear"), Activation("softmax")],
    "reshape": [Flatten(), Dense(12, "tanh"), Reshape((2, 3, 2)), Conv2D(2, 2)],
    "dropout of the book": [Flatten(), Dropout(0.3, scale_training=False), Dense(3), Dense(2)],
    "dropout": [Conv2D(2, 2, "tanh"), Dropout(0.3), Flatten(), Dense(3), Dropout(0.5), Dense(2)],
}
SHAPE = (5, 6, 2)
RNG_STATE = (5, 6)


def network(layers, device, cost="quadratic", **options):
    return xnn.Network(
        [SHAPE, *layers], cost, seed=3, device=device, **{"dtype": "float64", **options}
    )


def samples(net, n=6):
    rng = np.random.default_rng(4)
    return rng.standard_normal((n, *SHAPE)), rng.standard_normal((n, net.sizes[-1]))


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_gradients_are_those_of_central_differences(layers, device):
    """Those of the network as it predicts: nothing is dropped, running averages stay."""
    net = network(layers, device)
    if any(isinstance(layer, BatchNorm) for layer in layers):
        net.fit(*samples(net), epochs=3, optimizer=1e-2, batch_size=6)  # averages worth the name
    x, y = samples(net)
    found = net.backprop(x, y)
    assert_gradients(net, found, lambda: net.evaluate(x, y).cost)


FIRST = {
    "augmentation": [RandomAffine(2, 9), RandomErasing(), Conv2D(2, 2, "tanh")],
    "max pool": [MaxPool2D(2), Flatten(), Dense(2)],
    "average pool": [AveragePool2D(2), Flatten(), Dense(2)],
    "global average pool": [GlobalAveragePool2D(), Dense(2)],
    "activation": [Activation("tanh"), Flatten(), Dense(2)],
    "dropout of the book": [Dropout(0.3, scale_training=False), Flatten(), Dense(2)],
    "reshape": [Reshape((3, 10, 2)), Conv2D(2, 2, "tanh")],
    "reshape and augmentation": [Reshape((3, 10, 2)), RandomAffine(1), Conv2D(2, 2, "tanh")],
}


@pytest.mark.parametrize(
    "layers",
    [*LAYERS.values(), *FIRST.values()],
    ids=[*LAYERS, *(f"{name} first" for name in FIRST)],
)
def test_input_gradients_are_those_of_central_differences(layers, device):
    net = network(layers, device)
    if any(isinstance(layer, BatchNorm) for layer in layers):
        net.fit(*samples(net), epochs=3, optimizer=1e-2, batch_size=6)
    x, y = samples(net, 2)
    found = net.input_gradient(x, y)
    wanted = reference.numeric_gradient(lambda: 2 * net.evaluate(x, y).cost, x, step=1e-4)
    assert found.shape == x.shape
    assert reference.relative_error(host(found), wanted) < 1e-7


def assert_gradients(net, found, value):
    """Compare found gradients with central differences of ``value``, a function of the network."""
    got, wanted = [], []
    for kind in ("weights", "biases"):
        for i, gradient in enumerate(getattr(found, kind)):
            if gradient is None:
                assert getattr(net, kind)[i] is None
                continue
            array = host(getattr(net, kind)[i]).copy()

            def at(array=array, kind=kind, i=i):
                getattr(net, kind)[i] = array
                return value()

            got.append(host(gradient).ravel())
            wanted.append(reference.numeric_gradient(at, array, step=1e-4).ravel())
            at()
    error = reference.relative_error(np.concatenate(got), np.concatenate(wanted))
    assert error < 1e-7


class InTraining:
    """A mini-batch as training runs it, with the same random numbers at each evaluation."""

    def __init__(self, net, x, y):
        engine = net.core.engine
        function = engine.layers[-1].function
        shapes = engine.shapes[0], engine.shapes[-1]
        checked = check_samples(engine.backend, x, y, shapes, function, engine.cost, engine.dtype)
        rng_state = engine.backend.upload(np.array(RNG_STATE, np.uint32))
        self.engine, self.n = engine, len(x)
        self.work = Workspace(engine, len(x), 1.0)
        interior = Interior(engine, len(x), 1.0, backward=True, rng_state=rng_state)
        self.memories = interior.memories(self.work)
        self.work.place(checked)
        self.score = Score(engine, self.work, 1, len(x))

    def cost(self):
        meet(self.engine.backend, [self.engine.forward([self.memories])])
        self.score.record(None)
        return float(self.engine.backend.download(self.score.costs)[0]) / self.n

    def gradients(self):
        engine = self.engine
        flat = engine.backend.zeros(engine.flat.shape, engine.dtype)

        def add(parameter, left, right, factor, again=False):
            into = parameter.matrix(flat)
            engine.backend.gemm(left, right, into, alpha=factor / self.n, beta=float(again))

        meet(engine.backend, [engine.forward([self.memories])])
        targets = Rows.plain(self.work.targets)
        meet(engine.backend, [engine.backward([self.memories], targets, add)])
        arrays = [engine.views(i, flat) for i in range(len(engine.layers))]
        return xnn.Gradients([a.get("biases") for a in arrays], [a.get("weights") for a in arrays])


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_gradients_in_training_are_those_of_central_differences(layers, device):
    """The mask stays, and mean and variance are the mini-batch's, which take part."""
    net = network(layers, device)
    training = InTraining(net, *samples(net))
    assert_gradients(net, training.gradients(), training.cost)


def test_pieces_of_a_mini_batch_add_up(device, monkeypatch):
    """A column buffer too small for two samples at once changes nothing but the last digits."""
    layers = [Conv2D(4, 3, "tanh", groups=2), Conv2D(3, 2, "tanh"), Flatten(), Dense(2)]
    optimizers = [xnn.SGD(0.1, lmbda=1.0), xnn.SGD(0.1, momentum=0.5, nesterov=True)]
    for optimizer in [*optimizers, xnn.SGD(0.1, momentum=0.5)]:
        trained = []
        for size in (1 << 20, 1):
            net = network(layers, device)
            monkeypatch.setattr(type(net.core.engine.backend), "columns_bytes", size)
            net.fit(*samples(net, 20), epochs=2, batch_size=7, optimizer=optimizer)
            trained.append(np.concatenate([host(w).ravel() for w in net.weights if w is not None]))
        np.testing.assert_allclose(trained[0], trained[1], rtol=1e-12)


# What each layer does.


def test_convolution_by_its_definition(device):
    x = images((2, 9, 8, 4))
    layer = Conv2D(
        6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, initializer="normal"
    )
    net = xnn.Network([(9, 8, 4), layer], seed=0, device=device, dtype="float64")
    (weights,), (biases,) = copies(net)
    assert weights.shape == (6, 3, 2, 2)
    window = Window((3, 2), (2, 1), (1, 2), ((1, 1), (0, 0)))
    wanted = reference.convolution(x, weights, biases, window, groups=2)
    assert net.shapes[-1] == wanted.shape[1:]
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-12)


def test_same_keeps_height_and_width():
    for kernel, dilation in ((1, 1), (2, 1), (3, 1), (4, 2), ((5, 2), 3)):
        layer = Conv2D(1, kernel, padding="same", dilation=dilation)
        assert layer.outputs((9, 7, 2)) == (9, 7, 1)
    assert MaxPool2D(3, stride=2, padding="same").outputs((9, 8, 2)) == (5, 4, 2)


def test_pixels_of_images_are_scaled(device):
    """``uint8`` means numbers from 0 to 1, whichever layer comes first."""
    x = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.uint8)
    for first in (Conv2D(2, 2), MaxPool2D(2), BatchNorm(), Flatten(), Dropout(0.5)):
        net = network([first], device)
        np.testing.assert_allclose(net.predict(x), net.predict(x / 255), rtol=1e-12)


def test_dropout(device):
    layer = Dropout(0.25)
    net = network([layer], device, dtype="float32")
    x = np.ones((500, *SHAPE))
    assert (net.predict(x) == 1).all()
    training = InTraining(net, x, np.zeros((500, 60)))
    training.cost()
    out = host(training.work.outputs)
    assert set(np.unique(out)) == {0, np.float32(1 / 0.75)}
    assert (out == 0).mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / out.size))


def test_dropout_of_the_book_scales_what_is_not_trained(device):
    """Both ways, the expected output in training equals the output otherwise."""
    x = np.ones((500, *SHAPE))
    net = network([Dropout(0.25, scale_training=False)], device)
    np.testing.assert_allclose(host(net.predict(x)), 0.75, rtol=1e-12)
    training = InTraining(net, x, np.zeros((500, 60)))
    training.cost()
    assert set(np.unique(host(training.work.outputs))) == {0, 1}


def test_dropout_is_another_one_at_each_step_and_the_same_from_one_seed(device):
    def masks_of_a_run():
        net = xnn.Network([30, Dropout(0.5), Dense(1, "linear", "zeros")], seed=0, device=device)
        # Of inputs of ones, a step from zero shows in its gradient which were dropped.
        kept = []
        keep = lambda training: kept.append(host(net.weights[1]).copy())  # noqa: E731
        net.fit(np.ones((1, 30)), [1.0], epochs=4, optimizer=1e-3, callbacks=[keep])
        return np.diff(np.concatenate([np.zeros((1, 30)), *kept]), axis=0) != 0

    masks = masks_of_a_run()
    assert len(np.unique(masks, axis=0)) == 4
    assert 0.3 < masks.mean() < 0.7
    assert (masks_of_a_run() == masks).all()


def test_batch_norm_keeps_running_averages(device):
    x = np.random.default_rng(0).normal(3, 2, (50, 4))
    layer = BatchNorm(momentum=0.6)
    net = xnn.Network([4, layer, Dense(1)], seed=0, device=device, dtype="float64")
    net.fit(x, np.zeros(50), epochs=2, batch_size=50, optimizer=1e-9)
    arrays = net.core.engine.views(0, net.core.engine.flat)
    mean, variance = np.zeros(4), np.ones(4)
    for _ in range(2):
        mean = 0.6 * mean + 0.4 * x.mean(0)
        variance = 0.6 * variance + 0.4 * x.var(0, ddof=1)
    np.testing.assert_allclose(host(arrays["mean"]), mean, rtol=1e-9)
    np.testing.assert_allclose(host(arrays["variance"]), variance, rtol=1e-9)


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_saved_networks_of_all_layers_load(layers, device, tmp_path):
    net = network(layers, device)
    x, y = samples(net)
    net.fit(x, y, epochs=2, optimizer=1e-2)
    net.save(tmp_path / "net")
    loaded = xnn.load(tmp_path / "net", device="cpu")
    np.testing.assert_allclose(loaded.predict(x), host(net.predict(x)), rtol=1e-12)
    assert repr(loaded).replace("on cpu", "") == repr(net).replace(f"on {device}", "")


def test_a_network_as_a_person_would_draw_it(device):
    net = xnn.Network(
        [
            (28, 28, 1),
            Conv2D(20, 5, "relu"),
            MaxPool2D(2),
            Flatten(),
            BatchNorm(),
            Dense(10, "softmax"),
        ],
        device=device,
    )
    assert repr(net).splitlines() == [
        f"Network: 35,090 parameters, log_likelihood cost, float32 on {net.device}",
        "  input       28×28×1",
        "  conv2d      28×28×1 → 24×24×20  relu        520",
        "  maxpool2d  24×24×20 → 12×12×20",
        "  flatten    12×12×20 → 2880",
        "  batchnorm      2880 → 2880                5,760",
        "  dense          2880 → 10        softmax  28,810",
    ]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([28, Conv2D(2, 3)], "layers[1]: Conv2D takes images (height, width, channels), "
         "but gets 28; put Reshape"),
        ([(5, 5, 1), Dense(2)], "layers[1]: Dense takes vectors, but gets 5×5×1; put Flatten()"),
        ([(5, 5, 1), Conv2D(2, 3), Conv2D(2, 4)],
         "layers[2]: Conv2D's window spans 4×4 pixels, but the images are 3×3×2"),
        ([(5, 5, 3), Conv2D(2, 3, groups=2)],
         "layers[1]: groups is 2, but the images have 3 channels"),
        ([(5, 5, 1), MaxPool2D(6)], "MaxPool2D's window spans 6×6 pixels"),
        ([(4, 4, 1), Reshape((5,))], "layers[1]: Reshape to 5 needs 5 numbers, "
         "but the samples are 4×4×1, 16 numbers"),
        ([(4, 4), Flatten()], "layers[0] is (4, 4), but must be a number of inputs, or (height,"),
        ([(4, 0, 1), Flatten()], "layers[0] is 0, but must be a whole number"),
        ([(4, 4, 1), Activation("softmax")], "softmax takes vectors, but gets 4×4×1"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit(layers, message):
    with pytest.raises(ValueError) as caught:
        xnn.Network(layers)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D(0, 3), "filters is 0"),
        (lambda: Conv2D(2, 0), "kernel_size is 0"),
        (lambda: Conv2D(2, (3, 3, 3)), "kernel_size is (3, 3, 3), but must be a number or"),
        (lambda: Conv2D(3, 3, groups=2), "filters is 3, but must be a multiple of groups"),
        (lambda: Conv2D(2, 3, "sine"), "activation is 'sine'"),
        (lambda: Conv2D(2, 3, "softmax"), "activation is 'softmax', but that is only for Dense"),
        (lambda: Conv2D(2, 3, padding="full"), "padding is 'full', but must be 'valid', 'same'"),
        (lambda: Conv2D(2, 3, padding=-1), "padding is -1"),
        (lambda: Conv2D(2, 3, stride=0), "stride is 0"),
        (lambda: Conv2D(2, 3, bias=2), "bias is 2, but must be True or False"),
        (lambda: MaxPool2D(2, padding=2), "padding is 2, but must be at most half of size, 2"),
        (lambda: AveragePool2D(1.5), "size is 1.5"),
        (lambda: Dropout(1), "rate is 1, but must be a number of at least 0 and less than 1"),
        (lambda: BatchNorm(momentum=1), "momentum is 1"),
        (lambda: BatchNorm(eps=0), "eps is 0"),
        (lambda: RandomAffine(shift=-1), "shift is -1"),
        (lambda: RandomAffine(shear=90), "shear is 90"),
        (lambda: ElasticTransform(smoothness=0), "smoothness is 0"),
        (lambda: RandomErasing(size=1.1), "size is 1.1, but must be a number of more than 0"),
        (lambda: Reshape((2, 2)), "shape is (2, 2), but must be (features,) or"),
        (lambda: Activation("swish"), "activation is 'swish'"),
    ],
)
def test_arguments_that_make_no_layer(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


# PyTorch.


def channels_first(torch, x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 6])
@pytest.mark.parametrize("shape", [(4,), (1, 1, 4), (2, 1, 4)])
def test_batch_norm_wants_as_many_samples_as_that_of_pytorch(shape, batch_size, device):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).random((11, *shape), np.float32)
    theirs = (torch.nn.BatchNorm1d if len(shape) == 1 else torch.nn.BatchNorm2d)(4)
    taken = False
    with contextlib.suppress(ValueError):  # more than 1 value per channel when training
        for start in range(0, len(x), batch_size):
            part = x[start : start + batch_size]
            theirs(torch.from_numpy(part) if len(shape) == 1 else channels_first(torch, part))
        taken = True
    net = xnn.Network([shape, BatchNorm(), Flatten(), 2], seed=0, device=device)
    assert taken == (batch_size == 6 or shape == (2, 1, 4))
    if taken:
        net.fit(x, np.arange(11) % 2, epochs=1, batch_size=batch_size)
        return
    before = parameters(net)
    with pytest.raises(ValueError, match=r"layers\[1\]: BatchNorm needs more than 1 value"):
        net.fit(x, np.arange(11) % 2, epochs=1, batch_size=batch_size)
    np.testing.assert_array_equal(parameters(net), before)


def random_case(seed):
    """Return a layer, its twin in PyTorch, and the shape of its images."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    some = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    height, width, groups = some(5, 13), some(5, 13), some(1, 3)
    channels = groups * some(1, 3)
    kind = ("conv", "conv", "conv", "max", "average")[seed % 5]
    size, stride = (some(1, 4), some(1, 4)), (some(1, 3), some(1, 3))
    if kind == "conv":
        padding, dilation = (some(0, 3), some(0, 3)), (some(1, 2), some(1, 2))
        if any(n + 2 * p < (k - 1) * d + 1 for n, p, k, d in
               zip((height, width), padding, size, dilation, strict=True)):  # fmt: skip
            dilation = (1, 1)
        filters = groups * some(1, 4)
        bias = bool(some(0, 1))
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        ours = Conv2D(filters, size, bias=bias, initializer="scaled_normal", **options)
        theirs = torch.nn.Conv2d(channels, filters, size, bias=bias, **options)
    else:
        padding = tuple(some(0, s // 2) for s in size)
        if kind == "max":
            ours = MaxPool2D(size, stride, padding)
            theirs = torch.nn.MaxPool2d(size, stride, padding)
        else:
            ours = AveragePool2D(size, stride, padding)
            theirs = torch.nn.AvgPool2d(size, stride, padding, count_include_pad=False)
    return torch, ours, theirs, (height, width, channels)


@pytest.mark.parametrize("seed", range(250))
def test_forward_and_backward_are_those_of_pytorch(seed, device):
    """After a 1×1 convolution, so that the error passed down by the layer shows in its gradient."""
    torch, ours, theirs, shape = random_case(seed)
    below = Conv2D(shape[2], 1, initializer="scaled_normal")
    net = xnn.Network([shape, below, ours], seed=seed, device=device)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, *shape)).astype(np.float32)
    y = rng.standard_normal((3, net.sizes[-1])).astype(np.float32)
    first = torch.nn.Conv2d(shape[2], shape[2], 1)
    weights, biases = copies(net)
    modules = [first, *([theirs] if weights[1] is not None else [])]
    with torch.no_grad():
        for module, w, b in zip(modules, weights, biases, strict=False):
            module.weight.copy_(torch.from_numpy(np.moveaxis(w, -1, 1).copy()))
            if b is not None:
                module.bias.copy_(torch.from_numpy(b))
    out = theirs(first(channels_first(torch, x)))
    loss = ((out - channels_first(torch, y.reshape(3, *net.shapes[-1]))) ** 2).sum() / 2 / 3
    loss.backward()
    wanted = np.moveaxis(out.detach().numpy(), 1, -1)
    np.testing.assert_allclose(host(net.predict(x)), wanted, rtol=1e-5, atol=1e-5)
    found = net.backprop(x, y)
    got, wanted = [], []
    for module, w, b in zip(modules, found.weights, found.biases, strict=False):
        got.append(host(w).ravel())
        wanted.append(np.moveaxis(module.weight.grad.numpy(), 1, -1).ravel())
        if b is not None:
            got.append(host(b))
            wanted.append(module.bias.grad.numpy())
    assert reference.relative_error(np.concatenate(got), np.concatenate(wanted)) < 1e-5


@pytest.mark.parametrize("shape", [(7,), (4, 5, 3)], ids=["vectors", "images"])
def test_batch_norm_is_that_of_pytorch(shape, device):
    torch = pytest.importorskip("torch")
    net = xnn.Network([shape, BatchNorm(momentum=0.9)], seed=0, device=device, dtype="float64")
    kind = torch.nn.BatchNorm1d if len(shape) == 1 else torch.nn.BatchNorm2d
    theirs = kind(shape[-1], momentum=0.1).double()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (40, *shape))
    y = rng.standard_normal((40, net.sizes[-1]))
    net.fit(x, y, epochs=2, batch_size=10, optimizer=0.1, shuffle=False)
    for start in (*range(0, 40, 10), *range(0, 40, 10)):
        out = theirs(channels_first(torch, x[start : start + 10]))
        target = channels_first(torch, y[start : start + 10].reshape(10, *shape))
        optimizer.zero_grad()
        (((out - target) ** 2).sum() / 2 / 10).backward()
        optimizer.step()
    arrays = net.core.engine.views(0, net.core.engine.flat)
    for name, wanted in (
        ("weights", theirs.weight),
        ("biases", theirs.bias),
        ("mean", theirs.running_mean),
        ("variance", theirs.running_var),
    ):
        np.testing.assert_allclose(host(arrays[name]), wanted.detach().numpy(), rtol=1e-9)
    theirs.eval()
    wanted = np.moveaxis(theirs(channels_first(torch, x)).detach().numpy(), 1, -1)
    np.testing.assert_allclose(host(net.predict(x)), wanted, rtol=1e-9, atol=1e-12)
