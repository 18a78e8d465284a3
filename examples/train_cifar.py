"""Trains the LeNet-style network of PyTorch's CIFAR-10 tutorial twice from one seed, eagerly and compiled.

    python examples/train_cifar.py --data FOLDER [--steps 500] [--seed 0] [--plot cifar.png]

FOLDER holds CIFAR-10 in its "python version" form: data_batch_1 ... data_batch_5 and test_batch (Krizhevsky, *Learning
Multiple Layers of Features from Tiny Images*, 2009; https://www.cs.toronto.edu/~kriz/cifar.html). Network and
hyper-parameters: https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html. Every step's loss must be the
same in both runs (to 1e-4, relative); otherwise the exit status is not 0.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from _side_by_side import argument_parser, check_losses, positive_int, print_table, save_plot, train_both

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import nn

BATCH_SIZE = 4
TEST_BATCH_SIZE = 250  # bounds the memory that evaluation takes
LOSS_RTOL = 1e-4

Split = tuple[np.ndarray, np.ndarray]


def _encode(text: str, encoding: str) -> bytes:
    """How a protocol 2 pickle written by Python 3 spells bytes; only the encoding that it uses for that."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode("latin1")


# The function that rebuilds an array has moved between NumPy versions; this version's arrays say which it is.
RECONSTRUCT = np.empty(0, np.uint8).__reduce__()[0]
PICKLE_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads containers, numbers, strings and NumPy arrays; refuses any other name, so that nothing can be executed."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return PICKLE_NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name} from a data file") from None


def load_batch(file: BinaryIO) -> Split:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of one CIFAR-10 file.

    Raises pickle.UnpicklingError for a file that holds anything but data, ValueError for data of another form.
    """
    batch = ArrayUnpickler(file, encoding="latin1").load()
    if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
        raise ValueError("not a CIFAR-10 batch: expected a dict with 'data' and 'labels'")
    data, labels = batch["data"], np.asarray(batch["labels"], dtype=np.int64)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels), 3 * 32 * 32):
        raise ValueError("not a CIFAR-10 batch: expected uint8 data of shape (number of labels, 3072)")
    return data.reshape(-1, 3, 32, 32), labels


def load_cifar(folder: Path) -> tuple[Split, Split]:
    """Training set (all data_batch files there) and test set; exits with a message where they cannot be read."""
    paths = sorted(folder.glob("data_batch_*"))
    if not paths:
        sys.exit(f"{folder}: no data_batch_* files; --data wants the folder of CIFAR-10's python version")
    batches = []
    for path in [*paths, folder / "test_batch"]:
        try:
            with path.open("rb") as file:
                batches.append(load_batch(file))
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            sys.exit(f"{path}: {error}")
    *training, test = batches
    images, labels = zip(*training, strict=True)
    return (np.concatenate(images), np.concatenate(labels)), test


def to_tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Images scaled from 0..255 to -1..1 as float32, labels as int64."""
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1), torch.from_numpy(labels)


def minibatches(data: Split, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``steps`` full batches, in an order drawn anew whenever the data is used up."""
    images, labels = data
    done = 0
    while True:
        order = torch.randperm(len(labels)).numpy()
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            if done == steps:
                return
            chosen = order[start : start + BATCH_SIZE]
            yield to_tensors(images[chosen], labels[chosen])
            done += 1


class Net(nn.Module):
    """(N, 3, 32, 32) images to (N, 10) scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def accuracy(model: nn.Module, data: Split) -> float:
    """The share of ``data`` that the model classifies correctly."""
    images, labels = data
    correct = 0
    with torch.no_grad():
        for start in range(0, len(labels), TEST_BATCH_SIZE):
            stop = start + TEST_BATCH_SIZE
            x, y = to_tensors(images[start:stop], labels[start:stop])
            correct += int((model(x).argmax(1) == y).sum().item())
    return correct / len(labels)


def main() -> None:
    parser = argument_parser("Train a LeNet-style network on CIFAR-10, eager and compiled.", plot="cifar.png")
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10's data_batch_* and test_batch")
    parser.add_argument("--steps", type=positive_int, default=500)
    args = parser.parse_args()

    training, test = load_cifar(args.data)
    if len(training[1]) < BATCH_SIZE or not len(test[1]):
        sys.exit(f"{args.data}: {len(training[1])} training and {len(test[1])} test images are too few")
    runs = train_both(
        args.seed,
        Net,
        lr=0.001,
        make_batches=lambda: minibatches(training, args.steps),
        steps=args.steps,
        accuracy=lambda model: accuracy(model, test),
        print_every=max(1, args.steps // 5),
    )
    print_table(f"CIFAR-10, {args.steps} steps of {BATCH_SIZE} images, seed {args.seed}", runs)
    save_plot(args.plot, "CIFAR-10: loss of each training step", runs)
    check_losses(*runs, rtol=LOSS_RTOL)


if __name__ == "__main__":
    main()
