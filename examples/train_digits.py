"""Trains an MLP on handwritten digits twice from one seed, eagerly and with the whole training step compiled.

    python examples/train_digits.py [--epochs 5] [--seed 0] [--backend numpy] [--plot digits.png]

The data is in examples/data. Every step's loss must be the same in both runs (to 1e-5, relative), and after five epochs
at least 96 % of the test images must be classified correctly; otherwise the exit status is not 0.
"""

from __future__ import annotations

import gzip
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _side_by_side import argument_parser, check_losses, classifier, positive_int, print_table, run_both, save_plot

import graphtorch as torch
from graphtorch import nn

DATA = Path(__file__).resolve().parent / "data" / "digits.csv.gz"
BATCH_SIZE = 32
LOSS_RTOL = 1e-5
ACCURACY = 0.96  # expected from FULL_EPOCHS on
FULL_EPOCHS = 5

Split = tuple[torch.Tensor, torch.Tensor]


def load_digits() -> tuple[Split, Split]:
    """Training and test set (a fifth): images (N, 64) float32 in 0..1, labels (N,) int64.

    The split is drawn at random but is always the same. In file order digits of one writer stand together and labels
    repeat with period ten, so that neither the last fifth nor every fifth image would be a fair sample.
    """
    with gzip.open(DATA, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    table = np.random.default_rng(0).permutation(table)
    images = torch.from_numpy((table[:, :64] / 16).astype(np.float32))
    labels = torch.from_numpy(np.ascontiguousarray(table[:, 64]))
    test = len(labels) // 5
    return (images[test:], labels[test:]), (images[:test], labels[:test])


def minibatches(data: Split, epochs: int) -> Iterator[Split]:
    """Shuffled anew each epoch; the last batch of an epoch is smaller where the sizes do not divide."""
    images, labels = data
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(BATCH_SIZE):
            yield images[chosen], labels[chosen]


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def accuracy(model: nn.Module, data: Split) -> float:
    """The share of ``data`` that the model classifies correctly."""
    images, labels = data
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    parser = argument_parser("Train an MLP on handwritten digits, eager and compiled side by side.", plot="digits.png")
    parser.add_argument("--epochs", type=positive_int, default=FULL_EPOCHS)
    args = parser.parse_args()

    training, test = load_digits()
    runs = run_both(
        lambda compiler: classifier(make_model, 0.1, compiler),
        minibatches(training, args.epochs),
        args.epochs * math.ceil(len(training[1]) / BATCH_SIZE),
        args,
    )
    shares = [accuracy(run.program.parts["model"], test) for run in runs]
    for run, share in zip(runs, shares, strict=True):
        run.scores["test accuracy"] = f"{share:.2%}"
    print_table(f"digits, {args.epochs} epochs of {len(training[1])} images, seed {args.seed}", runs)
    save_plot(args.plot, "digits: loss of each training step", runs)
    check_losses(*runs, rtol=LOSS_RTOL)
    for run, share in zip(runs, shares, strict=True):
        if args.epochs >= FULL_EPOCHS and not share >= ACCURACY:
            sys.exit(f"{run.name}: test accuracy {share:.2%}, expected at least {ACCURACY:.0%}")


if __name__ == "__main__":
    main()
