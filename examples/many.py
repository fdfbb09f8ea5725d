"""How much is chance? Train many small networks that differ only in their seed.

python examples/many.py                        # 20 of the book's networks, 5 epochs each
python examples/many.py --networks 100 --hidden 100
python examples/many.py --threads 1            # one after another

They are trained in threads of one process and share its images. Most of the time is spent in
kernels and BLAS, which do not hold Python's lock.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import mnist
import numpy as np

import xnn


def main() -> int:
    args = parse_arguments()
    try:
        train, _, test = xnn.datasets.mnist(args.data)
        began = time.perf_counter()
        with ThreadPoolExecutor(args.threads) as pool:
            seeds = range(args.seed, args.seed + args.networks)
            nets = list(pool.map(lambda seed: trained(seed, train, args), seeds))
        seconds = time.perf_counter() - began
        right = 100 * np.array([net.evaluate(*test).accuracy for net in nets])
        vote = 100 * xnn.Ensemble(nets, "majority").accuracy(*test)
    except mnist.EXPECTED as error:
        print(f"many.py: {error}", file=sys.stderr)
        return 2
    speed = args.networks * args.epochs * len(train[0]) / seconds
    print(f"{seconds:.1f} s, {speed:,.0f} samples a second; threads: {args.threads}")
    low, mean, high = right.min(), right.mean(), right.max()
    print(f"Test accuracy {low:.2f}% to {high:.2f}%, {mean:.2f}% in the mean")
    print(f"Standard deviation {right.std():.2f} points")
    print(f"{len(nets)} networks by majority: test accuracy {vote:.2f}%")
    return 0


def trained(seed: int, train, args: argparse.Namespace) -> xnn.Network:
    net = xnn.Network([784, args.hidden, 10], seed=seed, device="cpu")
    net.fit(*train, epochs=args.epochs, batch_size=10, optimizer=3.0, progress=False)
    return net


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = os.cpu_count() or 1
    add = parser.add_argument
    add("--networks", type=positive, default=20, metavar="N", help="how many (default 20)")
    add("--threads", type=positive, default=cores, metavar="N", help=f"(default {cores})")
    add("--hidden", type=int, default=30, metavar="N", help="hidden neurons (default 30)")
    add("--epochs", type=int, default=5, metavar="N", help="epochs of each (default 5)")
    add("--data", metavar="PATH", help="a folder with MNIST's files, mnist.npz or mnist.pkl.gz")
    add("--seed", type=int, default=0, metavar="N", help="seed of the first (default 0)")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
