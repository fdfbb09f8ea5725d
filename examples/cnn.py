"""A small convolutional network on MNIST: 99 % in three epochs.

python examples/cnn.py
python examples/cnn.py --target 99.2 --epochs 10
python examples/cnn.py --device gpu

Two convolutions with pooling, a hidden layer, Adam with one cycle of the learning rate. Training
ends when the accuracy on validation data reaches the target; the test images are used only once, at
the end.
"""

import argparse
import sys
import time

import mnist

import xnn


def main() -> int:
    args = parse_arguments()
    try:
        xnn.backends.select(args.device)
        (x, y), validation, test = xnn.datasets.mnist(args.data)
        net = network(args.device, args.seed)
        print(net)
        seconds = train(net, (x, y), validation, args)
    except mnist.EXPECTED as error:
        print(f"cnn.py: {error}", file=sys.stderr)
        return 2
    accuracy = net.evaluate(*test).accuracy
    told = f"{args.target} % on validation data" if seconds else "the target was not reached"
    print(f"{told}{f' after {seconds:.1f} s' if seconds else ''}; test accuracy {accuracy:.2%}")
    return 0 if seconds else 1


def network(device: str | None, seed: int) -> xnn.Network:
    layers = [
        (28, 28, 1),
        xnn.Conv2D(20, 5, "relu"),
        xnn.MaxPool2D(2),
        xnn.Conv2D(40, 5, "relu"),
        xnn.MaxPool2D(2),
        xnn.Flatten(),
        xnn.Dense(100, "relu"),
        xnn.Dense(10, "softmax"),
    ]
    return xnn.Network(layers, seed=seed, device=device)


def train(net: xnn.Network, data, validation, args: argparse.Namespace) -> float | None:
    """Train until the target is reached; return how many seconds that took, or None."""
    reached: list[float] = []
    began = time.perf_counter()

    def watch(training) -> None:
        accuracy = training.history.validation_accuracy[-1]
        print(f"Epoch {training.epoch + 1}: {accuracy:.2%} on validation data")
        if 100 * accuracy >= args.target:
            reached.append(time.perf_counter() - began)
            training.stop("the target is reached")

    net.fit(
        *data,
        epochs=args.epochs,
        batch_size=64,
        optimizer=xnn.Adam(xnn.schedules.OneCycle(args.lr, args.epochs)),
        validation_data=validation,
        callbacks=[watch],
    )
    return reached[0] if reached else None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--target", type=float, default=99.0, metavar="PERCENT", help="(default 99.0)")
    add("--epochs", type=int, default=3, metavar="N", help="maximum number of epochs (default 3)")
    add("--lr", type=float, default=0.003, metavar="RATE", help="highest rate (default 0.003)")
    add("--device", help="cpu, gpu, gpu:N or auto (default: XNN_DEVICE, else cpu)")
    add("--data", metavar="PATH", help="a folder with MNIST's files, mnist.npz or mnist.pkl.gz")
    add("--seed", type=int, default=0, metavar="N", help="(default 0)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
