"""The network once more, in the plainest float64 NumPy: what the tests compare with.

Nothing here is shared with xnn: activations by their formulas in z, costs by theirs in a and y, and
the book's loop over single samples.
"""

from collections import defaultdict

import numpy as np

ACTIVATIONS = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.where(z > 0, z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "linear": lambda z: z,
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
}

# For output layers; exp of exp grows too fast for tests of hidden ones.
OUTPUT_ACTIVATIONS = {**ACTIVATIONS, "exp": np.exp}


def cross_entropy(a, y, output):
    if output == "softmax":
        return -(y * np.log(a)).sum(axis=1)
    return -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum(axis=1)


COSTS = {
    "quadratic": lambda a, y, _: ((a - y) ** 2).sum(axis=1) / 2,
    "mean_squared_error": lambda a, y, _: ((a - y) ** 2).mean(axis=1),
    "mean_absolute_error": lambda a, y, _: abs(a - y).mean(axis=1),
    "cross_entropy": cross_entropy,
    "log_likelihood": cross_entropy,
    "log_loss": cross_entropy,
    "poisson": lambda a, y, _: (y * np.log(y / a) - y + a).sum(axis=1),
}

# Every cost with every output activation that it is defined for.
OUTPUTS = [
    (cost, activation)
    for cost in COSTS
    for activation in OUTPUT_ACTIVATIONS
    if cost in ("quadratic", "mean_squared_error", "mean_absolute_error")
    or (cost in ("cross_entropy", "log_loss") and activation in ("sigmoid", "softmax"))
    or (cost, activation) in (("log_likelihood", "softmax"), ("poisson", "exp"))
]


def forward(weights, biases, activations, x):
    a = np.asarray(x, np.float64)
    for w, b, name in zip(weights, biases, activations, strict=True):
        a = OUTPUT_ACTIVATIONS[name](a @ w.T + (0 if b is None else b))
    return a


def cost(weights, biases, activations, x, y, name):
    a = forward(weights, biases, activations, x)
    return COSTS[name](a, np.asarray(y, np.float64), activations[-1]).mean()


def numeric_gradient(function, array, step=1e-5):
    """Central differences of fourth order: (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h."""
    result = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        was = array[i]
        for factor, times in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            array[i] = was + factor * step
            result[i] += times * function()
        array[i] = was
    return result / (12 * step)


def book_epoch(weights, biases, x, y, order, batch_size, eta, decay=0.0):
    """One epoch of the book's SGD, sample by sample: sigmoid layers, quadratic cost.

    Changes weights and biases in place; ``decay`` is the book's λ.
    """
    n = len(order)
    for start in range(0, n, batch_size):
        batch = order[start : start + batch_size]
        sum_w = [np.zeros_like(w) for w in weights]
        sum_b = [np.zeros_like(b) for b in biases]
        for i in batch:
            activations = [x[i]]
            for w, b in zip(weights, biases, strict=True):
                activations.append(1 / (1 + np.exp(-(w @ activations[-1] + b))))
            delta = activations[-1] - y[i]
            for layer in reversed(range(len(weights))):
                a = activations[layer + 1]
                delta = delta * a * (1 - a)
                sum_b[layer] += delta
                sum_w[layer] += np.outer(delta, activations[layer])
                delta = weights[layer].T @ delta
        for w, b, dw, db in zip(weights, biases, sum_w, sum_b, strict=True):
            w *= 1 - eta * decay / n
            w -= eta / len(batch) * dw
            b -= eta / len(batch) * db


def sgd(p, g, s, t, *, lr, momentum=0.0, nesterov=False, **_):
    s["v"] = momentum * s["v"] - lr * g
    return p + (momentum * s["v"] - lr * g if nesterov else s["v"])


def rmsprop(p, g, s, t, *, lr, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, **_):
    s["v"] = alpha * s["v"] + (1 - alpha) * g**2
    s["c"] = alpha * s["c"] + (1 - alpha) * g
    variance = s["v"] - s["c"] ** 2 if centered else s["v"]
    s["b"] = momentum * s["b"] + g / (np.sqrt(variance) + eps)
    return p - lr * s["b"]


def adam(p, g, s, t, *, lr, betas=(0.9, 0.999), eps=1e-8, **_):
    s["m"] = betas[0] * s["m"] + (1 - betas[0]) * g
    s["v"] = betas[1] * s["v"] + (1 - betas[1]) * g**2
    m, v = s["m"] / (1 - betas[0] ** t), s["v"] / (1 - betas[1] ** t)
    return p - lr * m / (np.sqrt(v) + eps)


def optimize(rule, parameters, gradients, steps, *, decay, decoupled=False, **options):
    """Take steps by the formulas of the papers.

    ``gradients`` is a function of a step's number and the parameters; those with two axes are
    weights, which decay. Clipping comes first, by value and then by global norm.
    """
    clip_value, clip_norm = options.pop("clip_value", None), options.pop("clip_norm", None)
    states = [defaultdict(lambda p=p: np.zeros_like(p)) for p in parameters]
    for step in range(steps):
        g = gradients(step, parameters)
        if clip_value is not None:
            g = [np.clip(a, -clip_value, clip_value) for a in g]
        if clip_norm is not None:
            norm = np.sqrt(sum((a**2).sum() for a in g))
            g = [a * min(1, clip_norm / norm) for a in g]
        for i, (p, a, state) in enumerate(zip(parameters, g, states, strict=True)):
            rate = decay if p.ndim == 2 else 0.0
            kept = p * (1 - options["lr"] * rate) if decoupled else p
            a = a if decoupled else a + rate * p
            parameters[i] = rule(kept, a, state, step + 1, **options)
    return parameters


def relative_error(found, wanted):
    return np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-300)


def windows(x, window, fill=0.0):
    """Yield each place of a window, ``(row, column)``, and its pixels ``(n, high, wide, c)``."""
    (top, bottom), (left, right) = window.padding
    wide = np.pad(
        np.asarray(x, np.float64),
        ((0, 0), (top, bottom), (left, right), (0, 0)),
        constant_values=fill,
    )
    (high, across), (down, right), (gap_r, gap_c) = window.size, window.stride, window.dilation
    for i, y in enumerate(range(0, wide.shape[1] - (high - 1) * gap_r, down)):
        for j, z in enumerate(range(0, wide.shape[2] - (across - 1) * gap_c, right)):
            rows, columns = y + gap_r * np.arange(high), z + gap_c * np.arange(across)
            yield (i, j), wide[:, rows][:, :, columns]


def convolution(x, weights, biases, window, groups):
    """Each output by its definition: the sum over window and channels, group by group."""
    filters, _, _, channels = weights.shape
    share = filters // groups
    places = list(windows(x, window))
    down, across = np.array(places[-1][0]) + 1
    out = np.zeros((len(x), down, across, filters))
    for (i, j), pixels in places:
        for f in range(filters):
            group = f // share
            seen = pixels[..., group * channels : (group + 1) * channels]
            out[:, i, j, f] = (seen * weights[f]).sum(axis=(1, 2, 3))
    return out + (0 if biases is None else biases)
