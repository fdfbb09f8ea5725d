"""Helpers for tests on all devices."""

import numpy as np


def host(array):
    """Return an array of any device as a NumPy array."""
    return array.get() if hasattr(array, "get") else np.array(array)


def matrix(backend, rows, columns, dtype):
    """Return zeros ``(rows, columns)`` with padding after each row, as parameters have."""
    return backend.zeros((rows, backend.padded(columns, dtype)), dtype)[:, :columns]


def copies(net):
    """Return the network's weights and biases on the host; None where a layer has none."""
    return tuple(
        [None if a is None else host(a) for a in arrays] for arrays in (net.weights, net.biases)
    )


def parameters(net):
    """Return all the network's parameters on the host, as one array."""
    weights, biases = copies(net)
    return np.concatenate([a.ravel() for a in [*weights, *biases] if a is not None])
