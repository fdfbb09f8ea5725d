"""Digits from zero to three, drawn in 4 × 5 pixels, told by one number: a third of the digit."""

import numpy as np

import xnn

DIGITS = """
0110 1001 1001 1001 0110
0010 0010 0010 0010 0010
0110 1001 0010 0100 1111
1111 0001 0111 0001 1111
"""
x = np.array([[int(c) for c in line if c != " "] for line in DIGITS.split("\n")[1:-1]])
y = np.arange(4) / 3

np.random.seed(1)
hidden = xnn.Dense(20, "sigmoid", initializer=np.random.randn(20, 20), bias=False)
output = xnn.Dense(1, "sigmoid", initializer=np.random.randn(1, 20), bias=False)
net = xnn.Network([20, hidden, output], dtype="float64")

# Each step is on all four digits, by the sum of their gradients: 4 times the mean.
net.fit(x, y, epochs=10_000, batch_size=4, optimizer=xnn.SGD(1.0 * 4), shuffle=False)
for digit, found in enumerate(3 * net.predict(x)[:, 0]):
    print(f"{digit}: {found:.4f}, that is {found:.0f}")
