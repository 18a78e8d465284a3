"""A network with weights of one bit: a custom autograd.Function, trained eagerly and compiled from one seed.

    python examples/custom_function.py [--steps 300] [--quick] [--backend numpy]

The sign function has no useful derivative. The function's backward passes the gradient straight through where the
weight is within [-1, 1] (Courbariaux et al., BinaryConnect, 2015, https://arxiv.org/abs/1511.00363). Inside a compiled
step its Python backward runs once, when the step is captured; what it does becomes part of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _side_by_side import Compiler, argument_parser, check_losses, classifier, print_table, run_both, save_plot
from train_digits import Split, accuracy, load_digits

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import nn

BATCH_SIZE = 64
LOSS_RTOL = 1e-3
COMPARED = 100  # steps; later on, a weight that rounding has moved across 0 changes what the network computes


class Sign(torch.autograd.Function):
    """-1 or 1; the gradient is that of clamp(-1, 1)."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return torch.where(weight < 0, -1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (weight,) = ctx.saved_tensors
        return gradient * (weight.abs() <= 1)


class BinaryLinear(nn.Linear):
    """A linear layer that computes with its weights' signs, scaled by their mean size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, Sign.apply(self.weight) * self.weight.detach().abs().mean(), self.bias)


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), BinaryLinear(128, 128), nn.ReLU(), BinaryLinear(128, 10)
    )


def batches(data: Split) -> Iterator[Split]:
    """Images drawn with replacement, without end."""
    images, labels = data
    while True:
        chosen = torch.randint(len(labels), (BATCH_SIZE,))
        yield images[chosen], labels[chosen]


def main() -> None:
    args = argument_parser("Train weights of one bit, eager and compiled.", "binary.png", 300, 5).parse_args()
    training, test = load_digits()

    def make(compiler: Compiler) -> Any:
        return classifier(make_model, 0.05, compiler)

    runs = run_both(make, batches(training), args.steps, args)
    for run in runs:
        run.scores["test accuracy"] = f"{accuracy(run.program.parts['model'].eval(), test):.2%}"
    print_table(f"digits with weights of one bit, {args.steps} steps of {BATCH_SIZE}, seed {args.seed}", runs)
    save_plot(args.plot, "weights of one bit: loss of each training step", runs)
    check_losses(*runs, rtol=LOSS_RTOL, steps=COMPARED)


if __name__ == "__main__":
    main()
