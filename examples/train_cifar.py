"""Trains a convolutional network on CIFAR-10 twice from one seed, eagerly and compiled.

    python examples/train_cifar.py --data FOLDER [--model lenet] [--steps 500] [--quick] [--backend numpy]

FOLDER holds CIFAR-10 in its "python version" form: data_batch_1 ... data_batch_5 and test_batch (Krizhevsky, *Learning
Multiple Layers of Features from Tiny Images*, 2009; https://www.cs.toronto.edu/~kriz/cifar.html). `lenet` is the
network of PyTorch's tutorial with its hyper-parameters
(https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html), `resnet18` torchvision's, with BatchNorm,
random crops and flips. The losses must be the same in both runs; otherwise the exit status is not 0.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _side_by_side import argument_parser, check_losses, classifier, print_table, run_both, save_plot

import graphtorch as torch
from graphtorch import nn
from graphtorch.vision import models, transforms
from graphtorch.vision.datasets.cifar import read_batch

TEST_BATCH_SIZE = 250  # bounds the memory that evaluation takes

Split = tuple[np.ndarray, np.ndarray]


@dataclass
class Recipe:
    """How one of the models is trained; `rtol` is what its losses may differ by, eager against compiled, in the first
    `compared` steps (None: in all)."""

    model: Callable[[], nn.Module]
    batch_size: int
    lr: float
    rtol: float
    compared: int | None = None
    augment: Callable[[torch.Tensor], torch.Tensor] | None = None


AUGMENT = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
RECIPES = {
    "lenet": Recipe(lambda: models.lenet(in_channels=3, image_size=32), 4, 0.001, 1e-4),
    # Among half a million ReLUs some have an input so near 0 that rounding decides; what one of them changes grows from
    # step to step, in any library (docs/training.md).
    "resnet18": Recipe(lambda: models.resnet18(num_classes=10), 32, 0.001, 1e-2, 3, AUGMENT),
}


def load_cifar(folder: Path) -> tuple[Split, Split]:
    """Training set (all data_batch files there) and test set; exits with a message where they cannot be read."""
    paths = sorted(folder.glob("data_batch_*"))
    if not paths:
        sys.exit(f"{folder}: no data_batch_* files; --data wants the folder of CIFAR-10's python version")
    batches = []
    for path in [*paths, folder / "test_batch"]:
        try:
            batches.append(read_batch(path))
        except (OSError, ValueError, pickle.UnpicklingError) as error:
            sys.exit(f"{path}: {error}")
    *training, test = batches
    images, labels = zip(*training, strict=True)
    return (np.concatenate(images), np.concatenate(labels)), test


def to_tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Images scaled from 0..255 to -1..1 as float32, labels as int64."""
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1), torch.from_numpy(labels)


def minibatches(data: Split, recipe: Recipe) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Full batches without end, in an order drawn anew whenever the data is used up."""
    images, labels = data
    size = recipe.batch_size
    while True:
        order = torch.randperm(len(labels)).numpy()
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            batch, targets = to_tensors(images[chosen], labels[chosen])
            if recipe.augment is not None:
                batch = torch.stack([recipe.augment(image) for image in batch])
            yield batch, targets


def accuracy(model: nn.Module, data: Split) -> float:
    """The share of ``data`` that the model classifies correctly."""
    images, labels = data
    model.eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(labels), TEST_BATCH_SIZE):
            stop = start + TEST_BATCH_SIZE
            x, y = to_tensors(images[start:stop], labels[start:stop])
            correct += int((model(x).argmax(1) == y).sum().item())
    return correct / len(labels)


def main() -> None:
    parser = argument_parser("Train a network on CIFAR-10, eager and compiled.", "cifar.png", steps=500, quick=6)
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10's data_batch_* and test_batch")
    parser.add_argument("--model", choices=sorted(RECIPES), default="lenet", help="(default: %(default)s)")
    args = parser.parse_args()

    recipe = RECIPES[args.model]
    training, test = load_cifar(args.data)
    if len(training[1]) < recipe.batch_size or not len(test[1]):
        sys.exit(f"{args.data}: too few images: {len(training[1])} for training, {len(test[1])} for testing")
    runs = run_both(
        lambda compiler: classifier(recipe.model, recipe.lr, compiler),
        minibatches(training, recipe),
        args.steps,
        args,
        print_every=max(1, args.steps // 10),
    )
    for run in runs:
        run.scores["test accuracy"] = f"{accuracy(run.program.parts['model'], test):.2%}"
    print_table(f"CIFAR-10, {args.model}, {args.steps} steps of {recipe.batch_size}, seed {args.seed}", runs)
    save_plot(args.plot, f"CIFAR-10, {args.model}: loss of each training step", runs)
    check_losses(*runs, rtol=recipe.rtol, steps=recipe.compared)


if __name__ == "__main__":
    main()
