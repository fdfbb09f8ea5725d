"""The best on MNIST: one network, or several that vote.

python examples/record.py
python examples/record.py --device gpu
python examples/record.py --ensemble 3 --checkpoint runs --resume
python examples/record.py --ensemble 3 --networks 3x3  # three seeds of one kind

Networks in the style of An et al. 2020 (arXiv 2008.10400): convolutions with batch normalisation,
whose first kernels are 3×3, 5×5 or 7×7, and one more batch normalisation before softmax. Unlike
theirs they halve the images after the first convolutions, which saves most of the time, change
images less in training, and train for 24 epochs, over which the learning rate rises and falls once,
where the paper has 150. Each takes about a quarter of an hour on two CPU cores.

Images are changed at random in training, and weights averaged. A network ends with the weights of
the epoch with the lowest cost on validation data, 5,000 images held out; training stops after 50
epochs without improvement. The test images decide nothing.

With --checkpoint runs, a network is saved as runs/3x3-0/best.safetensors, which xnn.load reads, and
the newest epoch beside it. With --resume too, interrupted trainings continue from there, and
finished ones are not repeated.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import mnist
import numpy as np

import xnn

VALIDATION = 5_000
EPOCHS = 24
#: Convolutions before and after the images are halved: (filters, kernel).
KINDS = {
    "3x3": ([(48, 3), (48, 3)], [(96, 3), (96, 3), (192, 3)]),
    "5x5": ([(64, 5)], [(128, 5), (256, 5)]),
    "7x7": ([(64, 7)], [(128, 5), (256, 5)]),
}


def main() -> int:
    args = parse_arguments()
    try:
        xnn.backends.select(args.device)  # before data are loaded
        *data, test = xnn.datasets.mnist(args.data, validation=VALIDATION)
        nets, histories = [], []
        for i in range(args.ensemble):
            net, history = trained(args.networks[i % len(args.networks)], args.seed + i, data, args)
            nets.append(net)
            histories.append(history)
            print(f"Test accuracy {net.evaluate(*test).accuracy:.2%}", flush=True)
            if history.interrupted:
                return 130
        ensemble = xnn.Ensemble(nets, "majority")
        if len(nets) > 1:
            print(f"{len(nets)} networks by majority: test accuracy {ensemble.accuracy(*test):.2%}")
            x, y = test
            wrong = np.all([net.classify(x) != y for net in nets], axis=0)  # as is then any vote
            print(f"All of them misclassify the same {wrong.sum()} of {len(y)} images")
    except mnist.EXPECTED as error:
        print(f"record.py: {error}", file=sys.stderr)
        return 2
    return 0 if all(epochs_to(args.target, history) for history in histories) else 1


def trained(name: str, seed: int, data, args: argparse.Namespace):
    """Return a network that has been trained, and the history of its training."""
    # On a GPU, TF32 is accurate enough here, and several times as fast; a CPU does not have it.
    shape, precision = (28, 28, 1), "tf32"
    net = xnn.Network([shape, *layers(name)], seed=seed, device=args.device, precision=precision)
    print(f"{name}, seed {seed}, epochs: {args.epochs}\n{net}", flush=True)
    # Of 5,000 images some are right by chance; their cost says more.
    stopping = xnn.EarlyStopping("validation_cost", patience=50)
    callbacks, resume = [print_epoch, stopping], None
    if args.checkpoint:
        of_epochs = "" if args.epochs == EPOCHS else f"-{args.epochs}"
        folder = Path(args.checkpoint, f"{name}-{seed}{of_epochs}")
        checkpoints = xnn.Checkpoints(folder, keep=1, monitor="validation_cost")
        callbacks.append(checkpoints)
        resume = checkpoints.newest() if args.resume else None
    train, validation = data
    history = net.fit(
        *train,
        epochs=args.epochs,
        batch_size=120,
        optimizer=xnn.Averaged(xnn.Adam(xnn.schedules.OneCycle(0.003, args.epochs))),
        validation_data=validation,
        callbacks=callbacks,
        resume=resume,
    )
    epochs = epochs_to(args.target, history)
    told = f"after {sum(history.seconds[:epochs]):.1f} s" if epochs else "was not reached"
    told += f"; {sum(history.seconds):.1f} s in all"
    if stopping.best_epoch is not None:  # None after Ctrl-C in the first epoch
        told += f"; cost least in epoch {stopping.best_epoch + 1}"
    print(f"{args.target} % {told}")
    return net, history


def print_epoch(training) -> None:
    accuracy = training.history.validation_accuracy[-1]
    print(f"Epoch {training.epoch + 1}: {accuracy:.2%} on validation data", flush=True)


def epochs_to(target: float, history: xnn.History) -> int | None:
    """Return the epochs to a target accuracy in percent on validation data; None if not reached."""
    accuracies = enumerate(history.validation_accuracy, start=1)
    return next((epoch for epoch, value in accuracies if 100 * value >= target), None)


def layers(name: str) -> list[xnn.Layer]:
    """Return the layers of a network of this kind."""
    first, second = KINDS[name]
    return [
        xnn.RandomAffine(shift=2, rotation=10, scale=0.1, shear=5),
        *convolutions(first),
        xnn.MaxPool2D(2),
        *convolutions(second),
        xnn.Flatten(),
        xnn.Dense(10, "linear", bias=False),
        xnn.BatchNorm(),
        xnn.Activation("softmax"),
    ]


def convolutions(described: Sequence[tuple[int, int]]) -> list[xnn.Layer]:
    """Return convolutions without padding, of (filters, kernel) each, with batch normalisation."""
    layers: list[xnn.Layer] = []
    for filters, kernel in described:
        layers += [xnn.Conv2D(filters, kernel, bias=False), xnn.BatchNorm(), xnn.Activation("relu")]
    return layers


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--target", type=float, default=99.5, metavar="PERCENT", help="(default 99.5)")
    add("--ensemble", type=int, default=1, metavar="N", help="number of networks (default 1)")
    taken = f"kinds, taken in turn (default {' '.join(KINDS)})"
    add("--networks", nargs="+", choices=KINDS, default=list(KINDS), help=taken)
    epochs = f"maximum epochs (default {EPOCHS})"
    add("--epochs", type=int, default=EPOCHS, metavar="N", help=epochs)
    add("--device", help="cpu, gpu, gpu:N or auto (default: XNN_DEVICE, else cpu)")
    add("--data", metavar="PATH", help="a folder with MNIST's files, mnist.npz or mnist.pkl.gz")
    add("--seed", type=int, default=0, metavar="N", help="seed of the first (default 0)")
    add("--checkpoint", metavar="DIR", help="write checkpoints to subfolders of this one")
    add("--resume", action="store_true", help="continue from the newest checkpoints, if any")
    args = parser.parse_args()
    if args.resume and not args.checkpoint:
        parser.error("--resume needs the folder of the checkpoints: --checkpoint DIR")
    return args


if __name__ == "__main__":
    sys.exit(main())
