"""Mistakes of newcomers: each invalid call, its error, and the words that it must contain."""

import functools
import os
import random

import numpy as np
import pytest
import scipy.sparse

import xnn
from xnn import (
    SGD,
    Adam,
    AdamW,
    Averaged,
    Dense,
    EarlyStopping,
    Network,
    ReduceOnPlateau,
    RMSprop,
)
from xnn.book import expand_mnist, network, network2
from xnn.schedules import Cosine, OneCycle, Step, WarmUp

from .helpers import host, parameters

X, Y = np.zeros((6, 4)), np.array([0, 1, 2, 0, 1, 2])
HOLE = np.where(np.arange(24).reshape(6, 4) == 9, np.nan, 0.0)


def net(**options):
    return Network([4, 5, 3], seed=0, **options)


def images(shape, inputs=(8, 8, 3), ask="predict"):
    """Give a network of images something of another shape."""
    network = Network([inputs, xnn.Conv2D(2, 3), xnn.Flatten(), 3])
    network.predict(np.zeros((1, *inputs)))
    network.predict(np.zeros((1, np.prod(inputs))))  # after which there is a fast path
    x = np.zeros(shape)
    return network.predict(x) if ask == "predict" else getattr(network, ask)(x, Y)


def fit(x=X, y=Y, **options):
    return net().fit(x, y, **{"epochs": 1, **options})


def save_nan():
    network = net()
    network.weights[0][0, 0] = np.nan
    network.save("nan.safetensors")


def one_output(y, cost="quadratic", activation="sigmoid"):
    return Network([4, Dense(1, activation)], cost).fit(X, y, epochs=1)


def normalised(**options):
    Network([4, 5, xnn.BatchNorm(), 3], device="cpu").fit(X, Y, epochs=1, **options)


def assign(name, value):
    setattr(net(), name, value)


def nan_weights():
    network = net()
    network.weights[0][0, 0] = np.nan
    network.fit(X, Y)


COLUMNS = [np.full((4, 1), float(i)) for i in range(6)]
PAIRS = list(zip(COLUMNS, np.eye(3)[Y][:, :, None], strict=True))
LABELLED = list(zip(COLUMNS, Y, strict=True))


def spent(values):
    """Return an exhausted generator."""
    generator = (value for value in values)
    assert len(list(generator)) == len(values)
    return generator


def book(data=PAIRS, test=None, epochs=1, batch=2, eta=3.0):
    network.Network([4, 5, 3]).SGD(data, epochs, batch, eta, test)


def book2(data=PAIRS, evaluation=LABELLED, lmbda=0.0, **options):
    network2.Network([4, 5, 3]).SGD(data, 1, 2, 0.5, lmbda, evaluation, **options)


def book_assign(name, value):
    setattr(network.Network([4, 5, 3]), name, value)


BOOK = {
    # training data
    "labels to train on": (
        lambda: book(LABELLED),
        "training_data has y of the single number 0 in pair 0",
        "the book's form is a list of pairs (x, y): x a column (4, 1), y a one-hot column (3, 1)",
    ),
    "labels among columns": (
        lambda: book([*PAIRS[:4], LABELLED[4]]),
        "training_data has y of the single number 1 in pair 4",
    ),
    "labels in an array": (
        lambda: book((X, Y)),
        "training_data has y of shape (6,), but must have one-hot rows (n, 3); np.eye makes such",
    ),
    "rows as x": (
        lambda: book([(x.T, y) for x, y in PAIRS]),
        "training_data has x of shape (1, 4) in pair 0; np.reshape(x, (4, 1)) makes one; the",
    ),
    "flat x": (
        lambda: book([(x[:, 0], y) for x, y in PAIRS]),
        "training_data has x of shape (4,) in pair 0; np.reshape(x, (4, 1)) makes one; the",
    ),
    "rows as y": (
        lambda: book([(x, y.T) for x, y in PAIRS]),
        "training_data has y of shape (1, 3) in pair 0; the book's form is",
    ),
    "other digits": (
        lambda: book([(x, np.zeros((10, 1))) for x, _ in PAIRS]),
        "training_data has y of shape (10, 1) in pair 0; the book's form is",
        "y a one-hot column (3, 1)",
    ),
    "other images": (
        lambda: book([(np.zeros((784, 1)), y) for _, y in PAIRS]),
        "training_data has x of shape (784, 1) in pair 0",
    ),
    "exhausted zip": (
        lambda: book(spent(PAIRS)),
        "training_data is empty, or an exhausted zip or generator; the book's form",
        "list(zip(xs, ys))",
    ),
    "no pairs": (lambda: book([]), "training_data is empty, or an exhausted zip"),
    "images alone": (
        lambda: book(COLUMNS),
        "training_data has entries of length 4; the book's form is a list of pairs",
    ),
    "one array": (lambda: book(X), "training_data has entries of length 4; the book's form"),
    "no data": (lambda: book(None), "training_data has no pairs (x, y); the book's form is"),
    "numbers": (lambda: book([1, 2, 3]), "training_data has no pairs (x, y); the book's form is"),
    "NaN in a column": (
        lambda: book([*PAIRS, (np.full((4, 1), np.nan), PAIRS[0][1])]),
        "training_data's x has NaN or infinity in row 6, but must be finite numbers",
    ),
    "words in columns": (
        lambda: book([(np.full((4, 1), "a"), y) for _, y in PAIRS]),
        "training_data's x has dtype <U1, but must hold real numbers",
    ),
    "arrays of different length": (
        lambda: book((X, np.eye(3)[Y][:5])),
        "training_data's y has 5 rows, but training_data's x has 6",
    ),
    "arrays of another width": (
        lambda: book((X[:, :3], np.eye(3)[Y])),
        "training_data's x has shape (6, 3), 3 numbers per sample, but the network has 4 inputs",
    ),
    "wrong mini-batch": (
        lambda: network.Network([4, 5, 3]).update_mini_batch(LABELLED, 1.0),
        "mini_batch has y of the single number 0 in pair 0; the book's form is",
    ),
    # test data
    "columns to test with": (
        lambda: book(test=PAIRS),
        "test_data has y of shape (3, 1) in pair 0; the book's form is a list of pairs (x, y): "
        "x a column (4, 1), y the label itself, such as 7",
    ),
    "exhausted test data": (
        lambda: book(test=spent(LABELLED)),
        "test_data is empty, or an exhausted zip",
    ),
    "label too large to test with": (
        lambda: book(test=[(COLUMNS[0], 3)]),
        "test_data's y has labels up to 3, but the network has 3 outputs",
    ),
    "one-hot rows to test with": (
        lambda: book(test=(X, np.eye(3)[Y])),
        "test_data has y of shape (6, 3), but must have labels (n,)",
    ),
    "labels for one output": (
        lambda: network.Network([4, 1]).evaluate(LABELLED),
        "test_data has labels, which need several outputs, but the network has one",
    ),
    "flat test images": (
        lambda: network.Network([4, 5, 3]).evaluate([(np.zeros(4), 1)]),
        "test_data has x of shape (4,) in pair 0",
    ),
    "convert forgotten": (
        lambda: network2.Network([4, 5, 3]).accuracy(PAIRS),
        "data has y of shape (3, 1) in pair 0; the book's form",
    ),
    "convert too much": (
        lambda: network2.Network([4, 5, 3]).accuracy(LABELLED, convert=True),
        "data has y of the single number 0 in pair 0; the book's form",
    ),
    "labels without convert": (
        lambda: network2.Network([4, 5, 3]).total_cost(LABELLED, 0.0),
        "data has y of the single number 0 in pair 0; the book's form",
    ),
    # one column
    "row to feed forward": (
        lambda: network.Network([4, 5, 3]).feedforward(np.zeros((1, 4))),
        "a has shape (1, 4), but the book's form is a column (4, 1)",
    ),
    "flat to feed forward": (
        lambda: network.Network([4, 5, 3]).feedforward(np.zeros(4)),
        "a has shape (4,), but the book's form is a column (4, 1)",
    ),
    "label to backprop": (
        lambda: network.Network([4, 5, 3]).backprop(COLUMNS[0], 2),
        "y has shape (), but the book's form is a column (3, 1)",
    ),
    "row to backprop": (
        lambda: network.Network([4, 5, 3]).backprop(np.zeros((1, 4)), np.zeros((3, 1))),
        "x has shape (1, 4), but the book's form is a column (4, 1)",
    ),
    "images to expand": (
        lambda: expand_mnist.expand(np.zeros((2, 64)), np.zeros(2)),
        "x has shape (2, 64), but must be images (2, 784), one for each y",
    ),
    # arguments
    "book's sizes": (lambda: network.Network(784), "sizes is 784, but must be a list such as"),
    "book's neurons": (lambda: network.Network([4, 0]), "sizes[1] is 0, but must be a whole"),
    "book's device": (lambda: network.Network([4, 3], device="tpu"), "device is 'tpu', but must"),
    "book's dtype": (lambda: network2.Network([4, 3], dtype="half"), "dtype is 'half', but must"),
    "book's epochs": (lambda: book(epochs=-1), "epochs is -1, but must be a whole number of at"),
    "book's batch": (lambda: book(batch=0), "mini_batch_size is 0, but must be a whole number"),
    "book's rate": (lambda: book(eta=-3.0), "eta is -3.0, but must be a positive number"),
    "book's lambda": (lambda: book2(lmbda=-1), "lmbda is -1, but must be a number of at least 0"),
    "book's cost": (
        lambda: network2.Network([4, 3], cost="quadratic"),
        "cost is 'quadratic', but must be CrossEntropyCost or QuadraticCost",
    ),
    "nothing to evaluate": (
        lambda: book2(evaluation=None, monitor_evaluation_cost=True),
        "evaluation_data is None, but monitoring needs it",
    ),
    "no accuracy to stop by": (
        lambda: book2(early_stopping_n=3),
        "early_stopping_n is 3, but no accuracy is monitored; set monitor_evaluation_accuracy",
    ),
    "stopping in words": (
        lambda: book2(early_stopping_n="3"),
        "early_stopping_n is '3', but must be a whole number of at least 0",
    ),
    "flat biases": (
        lambda: book_assign("biases", [np.zeros(5), np.zeros(3)]),
        "biases[0] have shape (5,), but must have shape (5, 1)",
    ),
    "book's weights the other way round": (
        lambda: book_assign("weights", [np.zeros((4, 5)), np.zeros((5, 3))]),
        "weights[0] have shape (4, 5), but must have shape (5, 4)",
    ),
}

WRONG = BOOK | {
    # making a network
    "no list": (lambda: Network(784), "layers is 784, but must be a list such as [784, 30, 10]"),
    "no layers": (lambda: Network([784]), "layers has length 1, but must be a list such as"),
    "zero units": (lambda: Network([784, 0, 10]), "layers[1] is 0, but must be a whole number"),
    "negative inputs": (lambda: Network([-4, 3]), "layers[0] is -4, but must be a whole number"),
    "float units": (lambda: Network([4, 3.0]), "layers[1] is 3.0, but must be a whole number"),
    "true units": (lambda: Network([4, True]), "layers[1] is True, but must be a whole number"),
    "layer as input": (
        lambda: Network([Dense(4), 3]),
        "layers[0] is Dense(units=4",
        "but must be a whole number of at least 1, the inputs",
    ),
    "name as layer": (lambda: Network([4, "relu", 3]), "layers[1] is 'relu', but must be a whole"),
    "unknown cost": (lambda: net(cost="mse"), "cost is 'mse', but must be one of quadratic, cross"),
    "logarithm of no probability": (
        lambda: Network([4, Dense(3, "tanh")], "cross_entropy"),
        "cost is 'cross_entropy', which needs a last layer with activation sigmoid or softmax",
        "but it has tanh",
    ),
    "log-likelihood of sigmoid": (
        lambda: net(cost="log_likelihood"),
        "cost is 'log_likelihood', which needs a last layer with activation softmax",
    ),
    "unknown dtype": (lambda: net(dtype="float16"), "dtype is 'float16', but must be 'float32'"),
    "no dtype": (lambda: net(dtype="single precision"), "dtype is 'single precision', but must be"),
    "unknown device": (lambda: net(device="tpu"), "device is 'tpu', but must be 'auto', 'cpu'"),
    "no device": (lambda: net(device=0), "device is 0, but must be 'auto'"),
    "negative seed": (
        lambda: Network([4, 3], seed=-1),
        "seed is -1, but must be a whole number of at least 0",
    ),
    "seed in words": (lambda: Network([4, 3], seed="x"), "seed is 'x', but must be a whole number"),
    # layers
    "negative units": (lambda: Dense(-1), "units is -1, but must be a whole number of at least 1"),
    "units in words": (lambda: Dense("30"), "units is '30', but must be a whole number"),
    "unknown activation": (
        lambda: Dense(3, "swish"),
        "activation is 'swish', but must be one of sigmoid, tanh, relu",
    ),
    "activation as function": (lambda: Dense(3, np.tanh), "activation is <ufunc 'tanh'>, but must"),
    "unknown initializer": (
        lambda: Dense(3, initializer="xavier"),
        "initializer is 'xavier', but must be auto, normal, scaled_normal, glorot, he, zeros, or",
    ),
    "weights of another shape": (
        lambda: Network([4, Dense(3, initializer=np.zeros((4, 3)))]),
        "layers[1]: Dense: initializer's weights have shape (4, 3), but must have shape (3, 4)",
    ),
    "weights with NaN": (
        lambda: Network([4, Dense(3, initializer=np.full((3, 4), np.nan))]),
        "initializer's weights hold NaN or infinity",
    ),
    "bias in words": (lambda: Dense(3, bias="yes"), "bias is 'yes', but must be True or False"),
    # x
    "other width": (
        lambda: fit(np.zeros((6, 5))),
        "x has shape (6, 5), 5 numbers per sample, but the network has 4 inputs",
    ),
    "one sample without a batch": (
        lambda: net().predict(np.zeros(4)),
        "x has shape (4,), but must have shape (samples, 4); a batch comes first: x[None]",
    ),
    "a number": (lambda: net().predict(3.0), "x has shape (), but the network has 4 inputs"),
    "NaN in x": (lambda: fit(HOLE), "x has NaN or infinity in row 2, but must be finite numbers"),
    "NaN to predict": (lambda: net().predict(HOLE), "x has NaN or infinity in row 2"),
    "NaN in one sample": (lambda: predict_twice(HOLE[2:3]), "x has NaN or infinity in row 0"),
    "infinity in x": (lambda: fit(np.full((6, 4), np.inf)), "x has NaN or infinity in row 0"),
    "words in x": (
        lambda: fit(np.full((6, 4), "a")),
        "x has dtype <U1, but must hold real numbers",
    ),
    "complex x": (lambda: fit(X + 1j), "x has dtype complex128, but must hold real numbers"),
    "ragged x": (
        lambda: fit([[1, 2, 3, 4], [1, 2]]),
        "x is not an array of numbers and cannot be converted to one",
    ),
    "masked x": (
        lambda: fit(np.ma.masked_array(X, mask=X == 0)),
        "x has masked elements, but must have none",
    ),
    "None as x": (lambda: fit(None), "x is None, but must be an array of numbers"),
    "no y": (lambda: fit(X, None), "y is None, but must be an array of numbers"),
    "generator as x": (lambda: fit(row for row in X), "x is a generator, but must be an array"),
    "sparse x": (
        lambda: fit(scipy.sparse.csr_array(X)),
        "x is a csr_array, but must be an array of numbers: x.toarray()",
    ),
    "empty x": (lambda: fit(X[:0], Y[:0]), "x is empty, but must hold at least one sample"),
    "infinity in one sample": (lambda: predict_twice(HOLE[:1] + np.inf), "x has NaN or infinity"),
    "too large for float32": (
        lambda: fit(np.full((6, 4), 1e300)),
        "x has 1e+300, too large for float32, in row 0",
    ),
    "one sample too large": (
        lambda: predict_twice(np.full((1, 4), -1e300)),
        "x has -1e+300, too large for float32, in row 0",
    ),
    "channels first": (
        lambda: images((6, 3, 8, 8), ask="fit"),
        "x has shape (6, 3, 8, 8), but must have shape (n, 192) or (n, 8, 8, 3); "
        "channels come last: np.moveaxis(x, 1, 3)",
    ),
    "one image, channels first": (
        lambda: images((1, 3, 8, 8)),
        "x has shape (1, 3, 8, 8), but must have shape",
        "; channels come last: np.moveaxis(x, 1, 3)",
    ),
    "one channel first": (
        lambda: images((6, 1, 8, 8), (8, 8, 1), "evaluate"),
        "x has shape (6, 1, 8, 8), but must have shape (n, 64) or (n, 8, 8) or (n, 8, 8, 1); "
        "channels come last: np.moveaxis(x, 1, 3)",
    ),
    "images divided otherwise": (
        lambda: images((6, 2, 96), ask="backprop"),
        "x has shape (6, 2, 96), but must have shape (n, 192) or (n, 8, 8, 3)",
    ),
    "images of another size": (lambda: images((6, 6, 6, 3)), "x has shape (6, 6, 6, 3), but must"),
    "no channels of three": (lambda: images((6, 8, 8)), "x has shape (6, 8, 8), but must have"),
    "height and width changed": (
        lambda: images((6, 4, 8), (8, 4, 1)),
        "x has shape (6, 4, 8), but must have shape (n, 32) or (n, 8, 4) or (n, 8, 4, 1)",
    ),
    "one image without a batch": (
        lambda: images((8, 8, 3)),
        "x has shape (8, 8, 3), but must have shape",
        "; a batch comes first: x[None]",
    ),
    "a number as images": (lambda: images(()), "x has shape (), but must have shape (n, 192) or"),
    "channels first to an ensemble": (
        lambda: xnn.Ensemble([Network([(2, 2, 3), xnn.Flatten(), 3])]).accuracy(
            np.zeros((6, 3, 2, 2)), Y
        ),
        "x has shape (6, 3, 2, 2), but must have shape (n, 12) or (n, 2, 2, 3); channels come last",
    ),
    # y
    "fewer targets": (
        lambda: fit(y=Y[:5]),
        "y has 5 rows, but x has 6: give one target per sample",
    ),
    "a number as y": (lambda: fit(y=1), "y has a single number, but x has 6"),
    "label too large": (
        lambda: fit(y=Y + 10),
        "y has labels up to 12, but the network has 3 outputs",
    ),
    "label below zero": (lambda: fit(y=Y - 1), "y has labels down to -1, but they count from 0"),
    "labels as floats": (
        lambda: fit(y=Y * 1.0),
        "y has shape (6,) and dtype float64, but the network has 3 outputs: give labels as int",
    ),
    "labels as words": (
        lambda: fit(y=np.array(list("abcabc"))),
        "y has dtype <U1, but must hold real numbers; labels are the whole numbers 0, 1, 2",
    ),
    "rows too wide": (
        lambda: fit(y=np.eye(4)[Y]),
        "y has shape (6, 4), but the network has 3 outputs: give labels (n,) or rows (n, 3)",
    ),
    "two columns for one output": (
        lambda: one_output(np.zeros((6, 2))),
        "y has shape (6, 2), but the network has 1 output: give numbers (n,) or rows (n, 1)",
    ),
    "NaN in y": (lambda: one_output(np.full(6, np.nan)), "y has NaN or infinity in row 0"),
    "no distribution": (
        lambda: Network([4, Dense(3, "softmax")]).fit(X, np.tile([0.0, 1, 1], (6, 1))),
        "y has numbers that add up to 2 in row 0, but cost log_likelihood needs rows that add up",
    ),
    "no probability": (
        lambda: one_output(np.full(6, 2.0), "cross_entropy"),
        "y has values from 2 to 2, but cost cross_entropy needs 0 to 1",
    ),
    "negative count": (
        lambda: one_output(np.arange(6.0) - 1, "poisson", "exp"),
        "y has values from -1 to 4, but cost poisson needs at least 0",
    ),
    "negative count in validation": (
        lambda: Network([4, Dense(1, "exp")], "poisson").fit(
            X, np.arange(6), validation_data=(X, -np.ones(6))
        ),
        "validation y has values from -1 to -1, but cost poisson needs at least 0",
    ),
    "empty evaluation": (lambda: net().evaluate(X[:0], Y[:0]), "x is empty, but must hold"),
    "label too large for backprop": (lambda: net().backprop(X, Y + 1), "y has labels up to 3, but"),
    "label too large for input_gradient": (
        lambda: net().input_gradient(X, Y + 1),
        "y has labels up to 3, but",
    ),
    "one sample a mini-batch and BatchNorm": (
        lambda: normalised(batch_size=1),
        "layers[2]: BatchNorm needs more than 1 value per channel in training, "
        "so at least 2 samples at a time, but mini-batches have 1",
    ),
    "one sample left for BatchNorm": (
        lambda: normalised(batch_size=5),
        "at least 2 samples at a time, but batch_size 5 leaves 1 of 6 samples",
    ),
    "one sample of a part for BatchNorm": (
        lambda: normalised(batch_size=3, micro_batch_size=2),
        "at least 2 samples at a time, but micro_batch_size 2 leaves 1 of a mini-batch of 3",
    ),
    # fit
    "no epochs": (lambda: fit(epochs=0), "epochs is 0, but must be a whole number of at least 1"),
    "half an epoch": (lambda: fit(epochs=0.5), "epochs is 0.5, but must be a whole number"),
    "no batch": (lambda: fit(batch_size=0), "batch_size is 0, but must be a whole number of at"),
    "batch in words": (lambda: fit(batch_size="all"), "batch_size is 'all', but must be a whole"),
    "optimizer in words": (
        lambda: fit(optimizer="sgd"),
        "optimizer is 'sgd', but must be one such",
    ),
    "optimizer as a class": (
        lambda: fit(optimizer=SGD),
        "optimizer is <class 'xnn.optimizers.sgd.SGD'>",
    ),
    "validation without targets": (
        lambda: fit(validation_data=X),
        "validation_data must be a pair (x, y)",
    ),
    "validation of another width": (
        lambda: fit(validation_data=(X[:, :3], Y)),
        "validation x has shape (6, 3), 3 numbers per sample, but the network has 4 inputs",
    ),
    "validation with other labels": (
        lambda: fit(validation_data=(X, Y + 1)),
        "validation y has labels up to 3, but the network has 3 outputs",
    ),
    "callback that is none": (
        lambda: fit(callbacks=["log"]),
        "callbacks has 'log', neither a callback",
    ),
    "one callback without a list": (
        lambda: fit(callbacks=EarlyStopping()),
        "callbacks is <xnn.callbacks.EarlyStopping",
        "but must be a list",
    ),
    # optimizers and schedules
    "negative rate": (lambda: SGD(-1), "learning_rate is -1, but must be a positive number"),
    "rate of zero": (lambda: fit(optimizer=0), "learning_rate is 0, but must be a positive number"),
    "rate of NaN": (lambda: SGD(float("nan")), "learning_rate is nan, but must be a positive"),
    "rate in words": (
        lambda: SGD("fast"),
        "learning_rate is 'fast', but must be a positive number",
    ),
    "rate function gives nothing": (
        lambda: fit(optimizer=SGD(lambda epoch: None)),
        "learning_rate(0) is None, but must be a number of at least 0",
    ),
    "rate function gives a negative": (
        lambda: fit(optimizer=SGD(lambda epoch: -0.5)),
        "learning_rate(0) is -0.5, but must be a number of at least 0",
    ),
    "momentum of one": (
        lambda: SGD(1, momentum=1),
        "momentum is 1, but must be a number of at least 0 and less than 1",
    ),
    "Nesterov without momentum": (
        lambda: SGD(1, nesterov=True),
        "nesterov is True, but momentum is 0; give a momentum such as 0.9",
    ),
    "Nesterov in numbers": (lambda: SGD(1, 0.9, nesterov=1e-4), "nesterov is 0.0001, but must be"),
    "two decays": (
        lambda: SGD(1, lmbda=5, weight_decay=1e-4),
        "lmbda and weight_decay are both given, but are the same",
    ),
    "centered in words": (lambda: RMSprop(centered="no"), "centered is 'no', but must be True or"),
    "restore in words": (lambda: EarlyStopping(restore="no"), "restore is 'no', but must be True"),
    "shuffle in words": (lambda: fit(shuffle="no"), "shuffle is 'no', but must be True or False"),
    "progress in words": (lambda: fit(progress="no"), "progress is 'no', but must be True or"),
    "negative decay": (lambda: SGD(1, lmbda=-5), "lmbda is -5, but must be a number"),
    "clip at zero": (lambda: SGD(1, clip_norm=0), "clip_norm is 0, but must be a positive number"),
    "clip in words": (lambda: SGD(1, clip_value="1"), "clip_value is '1', but must be a positive"),
    "alpha of one": (
        lambda: RMSprop(alpha=1.0),
        "alpha is 1.0, but must be a number of at least 0 and less than 1",
    ),
    "eps of zero": (lambda: RMSprop(eps=0), "eps is 0, but must be a positive number"),
    "RMSprop with momentum of one": (lambda: RMSprop(momentum=1), "momentum is 1, but must be"),
    "RMSprop clipped at zero": (lambda: RMSprop(clip_value=0), "clip_value is 0, but must be a"),
    "Adam in reverse": (lambda: Adam(-0.1), "learning_rate is -0.1, but must be a positive"),
    "one beta": (
        lambda: Adam(betas=0.9),
        "betas is 0.9, but must be a pair such as (0.9, 0.999)",
    ),
    "three betas": (lambda: Adam(betas=(0.9, 0.9, 0.9)), "betas is (0.9, 0.9, 0.9), but must be"),
    "beta of one": (
        lambda: Adam(betas=(0.9, 1)),
        "betas[1] is 1, but must be a number of at least 0 and less than 1",
    ),
    "eps below zero": (lambda: AdamW(eps=-1e-8), "eps is -1e-08, but must be a positive number"),
    "decay below zero": (lambda: AdamW(weight_decay=-1), "weight_decay is -1, but must be a"),
    "step of nothing": (lambda: Step(1.0, every=0), "every is 0, but must be a positive number"),
    "cosine below zero": (lambda: Cosine(1.0, 10, final=-1), "final is -1, but must be a number"),
    "warm-up in no time": (lambda: WarmUp(1.0, 0), "epochs is 0, but must be a positive number"),
    "peak at the end": (
        lambda: OneCycle(1.0, 10, peak=1.0),
        "peak is 1.0, but must be a number above 0 and below 1",
    ),
    "cycle from nothing": (
        lambda: OneCycle(1.0, 10, initial=0),
        "initial is 0, but must be a positive number",
    ),
    "cycle of no epochs": (lambda: OneCycle(1.0, 0), "epochs is 0, but must be a positive number"),
    "average of a word": (
        lambda: Averaged("adam"),
        "optimizer is 'adam', but must be one such as xnn.SGD(3.0) or xnn.Adam(), or a rate",
    ),
    "warm-up to a word": (
        lambda: WarmUp("0.1", 2),
        "then is '0.1', but must be a positive number, a schedule or a function of the epoch",
    ),
    "warm-up to less than nothing": (
        lambda: fit(optimizer=SGD(WarmUp(lambda epoch: -1.0, 2))),
        "learning_rate(0) is -1.0, but must be a number of at least 0",
    ),
    "average of averages": (
        lambda: Averaged(Averaged(SGD(1.0))),
        "optimizer is Averaged(optimizer=SGD(",
        "but must be one without averages",
    ),
    "average that never moves": (
        lambda: Averaged(SGD(1.0), decay=1.0),
        "decay is 1.0, but must be a number of at least 0 and less than 1",
    ),
    # callbacks
    "factor of one": (
        lambda: ReduceOnPlateau(factor=1.0),
        "factor is 1.0, but must be a number above 0 and below 1",
    ),
    "plateau of an unknown figure": (
        lambda: ReduceOnPlateau("loss"),
        "monitor is 'loss', but must be one of cost, accuracy",
    ),
    "a number for all weights": (
        lambda: assign("weights", 5),
        "weights is 5, but must be arrays, one per layer",
    ),
    "four things to validate with": (
        lambda: fit(validation_data=(X, Y, np.ones(6), 1)),
        "validation_data must be a pair (x, y), or (x, y, sample_weight), but is a tuple of 4",
    ),
    "weights that vanish": (
        lambda: net().evaluate(X, Y, sample_weight=np.full(6, 1e-60)),
        "sample_weight is 0 for all samples",
    ),
    "a data set that makes its items": (
        lambda: fit(type("Made", (), {"__len__": lambda _: 6, "__getitem__": lambda *_: X[0]})()),
        "x is a Made, but must be an array of numbers",
    ),
    "NaN to be saved": (save_nan, "0.weights hold NaN or infinity; set finite values first"),
    "nothing to watch": (
        lambda: fit(callbacks=[EarlyStopping()]),
        "there is nothing to watch: give validation_data, or name a monitor",
    ),
    "weights of samples there are not": (
        lambda: net().evaluate(X, Y, sample_weight=np.ones(5)),
        "sample_weight has shape (5,), but must have shape (6,)",
    ),
    "negative weights to validate with": (
        lambda: fit(validation_data=(X, Y, -np.ones(6))),
        "validation sample_weight has -1, but must not be negative",
    ),
    "plateau that is not recorded": (
        lambda: fit(callbacks=[ReduceOnPlateau()]),
        "monitor is 'validation_cost', but this training records no such figure",
    ),
    "unknown figure": (
        lambda: EarlyStopping("loss"),
        "monitor is 'loss', but must be one of cost, accuracy, validation_cost, validation_",
    ),
    "no patience": (lambda: EarlyStopping(patience=0), "patience is 0, but must be a whole number"),
    "negative delta": (
        lambda: EarlyStopping(min_delta=-1),
        "min_delta is -1, but must be a number",
    ),
    "figure that is not recorded": (
        lambda: fit(callbacks=[EarlyStopping("validation_cost")]),
        "monitor is 'validation_cost', but this training records no such figure; "
        "give validation_data",
    ),
    "checkpoints at no time": (
        lambda: xnn.Checkpoints("runs", every="now and then"),
        "every is 'now and then', but must be '2 epochs', '500 steps', '10 minutes' or the like",
    ),
    "checkpoints at half a step": (
        lambda: xnn.Checkpoints("runs", "0.5 steps"),
        "every is '0.5 st",
    ),
    "checkpoints at zero epochs": (lambda: xnn.Checkpoints("runs", 0), "every is 0, but must be"),
    "no checkpoint kept": (lambda: xnn.Checkpoints("runs", keep=0), "keep is 0, but must be a"),
    "best of an unknown figure": (
        lambda: xnn.Checkpoints("runs", monitor="loss"),
        "monitor is 'loss', but must be one of cost, accuracy",
    ),
    "best of a figure that is not recorded": (
        lambda: fit(callbacks=[xnn.Checkpoints("runs", monitor="validation_cost")]),
        "monitor is 'validation_cost', but this training records no such figure",
    ),
    "callback as a class": (lambda: fit(callbacks=[EarlyStopping]), "callbacks has <class"),
    "half a callback": (
        lambda: fit(callbacks=[type("Duck", (), {"epoch_end": None})()]),
        "neither a callback nor a function",
    ),
    "rate too large for float32": (lambda: fit(optimizer=1e39), "learning_rate is too large for"),
    "rate beyond all numbers": (lambda: fit(optimizer=10**400), "learning_rate is 1000"),
    "rate as a complex number": (lambda: SGD(np.complex64(0.5)), "learning_rate is np.complex64("),
    "schedule as a class": (lambda: SGD(Cosine), "learning_rate is <class"),
    "one softmax unit": (lambda: Dense(1, "softmax"), "softmax of one unit is always 1"),
    "biases for a layer without": (
        lambda: Dense(1, initializer=(np.ones((1, 2)), [1.0]), bias=False),
        "initializer has biases, but bias is False",
    ),
    # parameters
    "weights too large": (
        lambda: assign("weights", [np.full((5, 4), 1e300), np.zeros((3, 5))]),
        "weights[0] hold NaN or infinity, but must be finite as float32",
    ),
    "complex weights": (
        lambda: assign("weights", [np.zeros((5, 4)) + 1j, np.zeros((3, 5))]),
        "weights[0] have dtype complex128, but must be real numbers",
    ),
    "initial weights too large": (
        lambda: Network([4, Dense(3, initializer=np.full((3, 4), 1e300))]),
        "initializer's weights hold NaN or infinity, but must be finite as float32",
    ),
    "samples that count for nothing": (
        lambda: fit(sample_weight=np.zeros(6)),
        "sample_weight is 0 for all samples",
    ),
    "a share to validate with": (
        lambda: fit(validation_data=0.1),
        "validation_data must be a pair (x, y), or (x, y, sample_weight), but is a float",
    ),
    "one network to cross-validate": (
        lambda: xnn.cross_validate(net(), X, Y, k=2),
        "make must be a function that returns a new network",
    ),
    "the same network to cross-validate": (
        lambda: xnn.cross_validate(functools.cache(net), X, Y, k=2, epochs=1),
        "make returned the same network again, which is already trained",
    ),
    "no network to cross-validate": (
        lambda: xnn.cross_validate(lambda: 3, X, Y, k=2),
        "make must be a function that returns a new network",
    ),
    "ensemble of a network": (
        lambda: xnn.Ensemble(net()),
        "networks must be at least one network, in a list",
    ),
    "ensemble of none": (lambda: xnn.Ensemble([]), "networks must be at least one network"),
    "network of a device": (
        lambda: xnn.load(os.devnull),
        "not a safetensors file, but empty",
    ),
    "NaN among the weights": (nan_weights, "the network's weights or biases hold NaN or infinity"),
    "weights for one layer": (
        lambda: assign("weights", [np.zeros((5, 4))]),
        "weights has length 1, but must have length 2: one array per layer",
    ),
    "weights the other way round": (
        lambda: assign("weights", [np.zeros((4, 5)), np.zeros((5, 3))]),
        "weights[0] have shape (4, 5), but must have shape (5, 4)",
    ),
    "biases as columns": (
        lambda: assign("biases", [np.zeros((5, 1)), np.zeros((3, 1))]),
        "biases[0] have shape (5, 1), but must have shape (5,)",
    ),
    "biases with infinity": (
        lambda: assign("biases", [np.zeros(5), np.full(3, np.inf)]),
        "biases[1] hold NaN or infinity",
    ),
    # data
    "validation larger than the data": (
        lambda: xnn.datasets.mnist(validation=10**6),
        "validation is 1000000, but there are only 60000 samples to train on",
    ),
}
NEEDS_MNIST = {"validation larger than the data"}


def predict_twice(x):
    """The second call takes the fast path."""
    network = net()
    network.predict(np.zeros_like(x))
    return network.predict(x)


def test_there_are_at_least_forty():
    assert len(WRONG) >= 40


@pytest.mark.parametrize("what", WRONG)
def test_wrong_call(what, request):
    if what in NEEDS_MNIST:
        request.getfixturevalue("mnist")
    call, *words = WRONG[what]
    with pytest.raises(ValueError) as caught:
        call()
    assert type(caught.value) is ValueError
    for part in words:
        assert part in str(caught.value)


def test_bad_input_is_refused_before_any_work():
    network = net()
    before = parameters(network)
    state = network.core.rng.bit_generator.state
    with pytest.raises(ValueError, match="validation y"):
        network.fit(X, Y, validation_data=(X, Y + 9))
    assert (before == parameters(network)).all()
    assert network.core.rng.bit_generator.state == state


BROKEN = {
    "no JSON": ("[1, 2", "Expecting ',' delimiter"),
    "no network": ("[]", "list indices must be integers"),
    "no sizes": ('{"cost": "QuadraticCost"}', "'sizes'"),
    "unknown cost": ('{"sizes": [2, 1], "cost": "Network"}', "'Network'"),
    "more sizes than weights": (
        '{"sizes": [100000, 100000], "cost": "QuadraticCost", "weights": [], "biases": []}',
        "weights or biases do not have the shapes of sizes [100000, 100000]",
    ),
    "flat biases": (
        '{"sizes": [2, 1], "cost": "QuadraticCost", "weights": [[[1, 2]]], "biases": [[1]]}',
        "weights or biases do not have the shapes of sizes [2, 1]",
    ),
    "NaN": (
        '{"sizes": [2, 1], "cost": "QuadraticCost", "weights": [[[NaN, 2]]], "biases": [[[1]]]}',
        "weights[0] hold NaN or infinity",
    ),
    "words": (
        '{"sizes": [1, 1], "cost": "QuadraticCost", "weights": [[["a"]]], "biases": [[[1]]]}',
        "weights[0] have dtype <U1, but must be real numbers",
    ),
    "too deep": ("[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_network_in_the_books_form(what, tmp_path):
    text, words = BROKEN[what]
    path = tmp_path / "net.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        network2.load(path)
    assert str(caught.value).startswith(f"{path}: not a network in the book's form: ")
    assert words in str(caught.value)


def test_bad_data_of_the_book_is_refused_before_any_work():
    net = network.Network([4, 5, 3])
    before = [np.linalg.norm(host(w)) for w in net.weights]
    state, given = random.getstate(), list(PAIRS)
    with pytest.raises(ValueError, match="test_data"):
        net.SGD(given, 1, 2, 3.0, test_data=PAIRS)
    assert [np.linalg.norm(host(w)) for w in net.weights] == before
    assert random.getstate() == state
    assert all(a is b for a, b in zip(given, PAIRS, strict=True))


def test_half_of_new_weights_changes_nothing():
    network = net()
    before = parameters(network)
    with pytest.raises(ValueError, match=r"weights\[1\]"):
        network.weights = [np.ones((5, 4)), np.ones((9, 9))]
    assert (before == parameters(network)).all()
