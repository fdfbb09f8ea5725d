"""One hidden layer: exclusive or, which one layer cannot learn."""

import numpy as np

import xnn

x = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
y = np.array([0, 1, 1, 0])

np.random.seed(1)
first = 2 * np.random.random((3, 4)) - 1  # (inputs, neurons): xnn's are (neurons, inputs)
second = 2 * np.random.random((4, 1)) - 1
hidden = xnn.Dense(4, "sigmoid", initializer=first.T, bias=False)
output = xnn.Dense(1, "sigmoid", initializer=second.T, bias=False)
net = xnn.Network([3, hidden, output], dtype="float64")

for step in range(0, 60_000, 10_000):
    print(f"Error at step {step}:", np.abs(y - net.predict(x)[:, 0]).mean())
    steps = min(10_000, 59_999 - step)  # the output is looked at before the last update
    # Each step is on all four examples, by the sum of their gradients: 4 times the mean.
    net.fit(x, y, epochs=steps, batch_size=4, optimizer=xnn.SGD(1.0 * 4), shuffle=False)
print("Output after training:", net.predict(x)[:, 0])
