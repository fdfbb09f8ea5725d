"""Train the network of Nielsen's *Neural Networks and Deep Learning*, chapter 1, on MNIST.

python examples/mnist.py                          # the book's 784-30-10
python examples/mnist.py --hidden 100 --epochs 10
python examples/mnist.py --device gpu
python examples/mnist.py --checkpoint runs/1 --resume   # continues where it stopped
"""

import argparse
import sys
import time
from pathlib import Path

import xnn

EXPECTED = (
    xnn.DeviceError,
    FloatingPointError,
    ImportError,
    MemoryError,
    OSError,
    ValueError,
)


def main() -> int:
    args = parse_arguments()
    try:
        # Report errors before downloading and training.
        xnn.backends.select(args.device)
        if args.save and not Path(args.save).absolute().parent.is_dir():
            raise FileNotFoundError(f"{args.save}: no such folder to save to")
        name, (train, validation, test) = load_data(args.dataset, args.data)
        net = xnn.Network(
            [train[0].shape[1], args.hidden, 10],
            cost=args.cost,
            seed=args.seed,
            device=args.device,
            dtype=args.dtype,
        )
        if not args.quiet:
            print(f"{name}: {len(train[0]):,} images to train on, {len(test[0]):,} to test")
            print(net)
        callbacks = (
            [] if args.quiet else [lambda training: print_epoch(training, len(validation[0]))]
        )
        resume = None
        if args.checkpoint:
            callbacks.append(checkpoints := xnn.Checkpoints(args.checkpoint, every=args.every))
            resume = checkpoints.newest() if args.resume else None
        began = time.perf_counter()
        history = net.fit(
            *train,
            epochs=args.epochs,
            batch_size=args.batch_size,
            optimizer=xnn.SGD(args.lr),
            validation_data=validation,
            callbacks=callbacks,
            progress=False if args.quiet else None,
            resume=resume,
        )
        seconds = time.perf_counter() - began
        accuracy = net.evaluate(*test).accuracy
        if args.save:
            net.save(args.save)
    except EXPECTED as error:
        print(f"mnist.py: {error}", file=sys.stderr)
        return 2
    speed = len(history) * len(train[0]) / seconds
    print(f"Test accuracy {accuracy:.2%} after {seconds:.1f} s, {speed:,.0f} samples a second")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", help="cpu, gpu, gpu:N or auto (default: XNN_DEVICE, else cpu)")
    add("--dataset", default="auto", choices=["auto", "mnist", "digits"])
    add("--data", metavar="PATH", help="a folder with MNIST's files, mnist.npz or mnist.pkl.gz")
    add("--hidden", type=int, default=30, metavar="N", help="hidden neurons (default 30)")
    add("--epochs", type=int, default=30, metavar="N", help="(default 30)")
    add("--batch-size", type=int, default=10, metavar="N", help="samples per step (default 10)")
    add("--lr", type=float, default=3.0, metavar="RATE", help="learning rate (default 3.0)")
    add("--cost", help="quadratic (default), cross_entropy, mean_squared_error …")
    add("--seed", type=int, default=0, metavar="N", help="(default 0)")
    add("--dtype", default="float32", choices=["float32", "float64"])
    add("--save", metavar="FILE", help="save the trained network to FILE.safetensors")
    add("--checkpoint", metavar="DIR", help="write checkpoints to a folder")
    add("--every", default="1 epoch", metavar="TIME", help="'2 epochs', '500 steps', '10 minutes'")
    add("--resume", action="store_true", help="continue from the newest checkpoint, if any")
    add("--quiet", action="store_true", help="print only the last line")
    args = parser.parse_args()
    if args.data and args.dataset == "digits":
        parser.error("--data is for MNIST; the digits come with scikit-learn")
    if args.resume and not args.checkpoint:
        parser.error("--resume needs the folder of the checkpoints: --checkpoint DIR")
    return args


def load_data(dataset: str, path: str | None):
    if dataset == "digits":
        return "digits", xnn.datasets.digits()
    try:
        return "MNIST", xnn.datasets.mnist(path)
    except OSError as error:
        named = path is not None or isinstance(error, FileNotFoundError)  # or by XNN_DATA
        if named or dataset == "mnist":
            raise
        digits = xnn.datasets.digits()
        print(f"No MNIST ({error}): training on scikit-learn's digits", file=sys.stderr)
        return "digits", digits


def print_epoch(training, samples: int) -> None:
    correct = round(training.history.validation_accuracy[-1] * samples)
    print(f"Epoch {training.epoch}: {correct} / {samples}")


if __name__ == "__main__":
    sys.exit(main())
