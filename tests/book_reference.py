"""A second implementation of the book's algorithm, sample by sample, as a reference for tests.

Written from the formulas of the book's chapters 2 and 3; it shares nothing with xnn.
"""

import random
from itertools import pairwise

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


class PerSample:
    """Sigmoid layers trained on one pair of columns at a time."""

    def __init__(self, sizes, cost="quadratic", scaled=False):
        self.cost = cost
        self.biases = [np.random.randn(n, 1) for n in sizes[1:]]
        self.weights = [
            np.random.randn(n, m) / (np.sqrt(m) if scaled else 1) for m, n in pairwise(sizes)
        ]

    def forward(self, a):
        activations = [a]
        for w, b in zip(self.weights, self.biases, strict=True):
            activations.append(sigmoid(w @ activations[-1] + b))
        return activations

    def gradient(self, x, y):
        activations = self.forward(x)
        delta = activations[-1] - y  # BP1; of the cross-entropy, σ' cancels
        if self.cost == "quadratic":
            delta = delta * activations[-1] * (1 - activations[-1])
        in_b, in_w = [], []
        for layer in reversed(range(len(self.weights))):
            in_b.insert(0, delta)  # BP3
            in_w.insert(0, delta @ activations[layer].T)  # BP4
            a = activations[layer]
            delta = self.weights[layer].T @ delta * a * (1 - a)  # BP2
        return in_b, in_w

    def step(self, batch, eta, lmbda=0.0, n=1):
        sum_b = [np.zeros(b.shape) for b in self.biases]
        sum_w = [np.zeros(w.shape) for w in self.weights]
        for x, y in batch:
            in_b, in_w = self.gradient(x, y)
            for total, part in zip(sum_b + sum_w, in_b + in_w, strict=True):
                total += part
        for w, g in zip(self.weights, sum_w, strict=True):
            w *= 1 - eta * lmbda / n
            w -= eta / len(batch) * g
        for b, g in zip(self.biases, sum_b, strict=True):
            b -= eta / len(batch) * g

    def epoch(self, data, batch_size, eta, lmbda=0.0):
        random.shuffle(data)
        for start in range(0, len(data), batch_size):
            self.step(data[start : start + batch_size], eta, lmbda, len(data))

    def right(self, data):
        """Count correct answers; a target is a label, or a column whose largest number marks it."""
        found = [(self.forward(x)[-1].argmax(), y) for x, y in data]
        return sum(int(a == (y if np.ndim(y) == 0 else np.argmax(y))) for a, y in found)

    def total_cost(self, data, lmbda):
        total = 0.0
        for x, y in data:
            a = self.forward(x)[-1]
            if np.ndim(y) == 0:
                y = np.eye(len(a))[:, [y]]
            if self.cost == "quadratic":
                total += ((a - y) ** 2).sum() / 2
            else:
                total -= (y * np.log(a) + (1 - y) * np.log(1 - a)).sum()
        penalty = lmbda / 2 * sum((w**2).sum() for w in self.weights)
        return (total + penalty) / len(data)
