"""One layer: a neuron without bias learns which of its three inputs matters."""

import numpy as np

import xnn

x = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
y = np.array([0, 0, 1, 1])

np.random.seed(1)
weights = 2 * np.random.random((3, 1)) - 1  # (inputs, neurons): xnn's are (neurons, inputs)
net = xnn.Network([3, xnn.Dense(1, initializer=weights.T, bias=False)], dtype="float64")

# Each step is on all four examples. xnn takes the mean of their gradients, and the text that this
# network comes from their sum: 4 times as much. It looks at the output before the 10,000th update.
net.fit(x, y, epochs=9_999, batch_size=4, optimizer=xnn.SGD(1.0 * 4), shuffle=False)
print("Output after training:", net.predict(x)[:, 0])
