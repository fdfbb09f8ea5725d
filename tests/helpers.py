"""What tests of all devices need."""

import numpy as np


def host(array):
    """Return an array of whichever device as NumPy's own."""
    return array.get() if hasattr(array, "get") else np.array(array)


def copies(net):
    """Return the network's weights and biases on the host; None where a layer has no biases."""
    weights = [host(w) for w in net.weights]
    return weights, [None if b is None else host(b) for b in net.biases]


def parameters(net):
    """Return all the network's parameters on the host, as one array."""
    weights, biases = copies(net)
    return np.concatenate([a.ravel() for a in [*weights, *biases] if a is not None])
