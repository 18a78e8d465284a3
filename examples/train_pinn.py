"""Solves a differential equation with a network twice from one seed, eagerly and compiled.

    python examples/train_pinn.py [--steps 1000] [--quick] [--backend numpy]

A physics-informed network (Raissi et al., 2019, https://doi.org/10.1016/j.jcp.2018.10.045): u(x) is a network, and the
loss is by how much u'' = -pi^2 sin(pi x) on [-1, 1] with u(-1) = u(1) = 0 is missed at random points. Two derivatives
by x and one by the parameters are taken inside the compiled step. The solution is sin(pi x).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from _side_by_side import Compiler, Program, argument_parser, check_losses, print_table, run_both, save_plot

import graphtorch as torch
from graphtorch import nn

POINTS = 128
LOSS_RTOL = 1e-2  # third derivatives of tanh, over hundreds of steps


def make_program(compiler: Compiler) -> Program:
    network = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    ends = torch.tensor([[-1.0], [1.0]])

    def step(points: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        x = points.requires_grad_()
        u = network(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        missed = curvature + math.pi**2 * torch.sin(math.pi * x)
        loss = missed.square().mean() + 10 * network(ends).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(compiler(step), {"network": network})


def points() -> Iterator[tuple[torch.Tensor]]:
    """Random places on the interval, without end."""
    while True:
        yield (torch.empty(POINTS, 1).uniform_(-1, 1),)


def main() -> None:
    args = argument_parser("Solve u'' = f with a network, eager and compiled.", "pinn.png", 1000, 10).parse_args()
    runs = run_both(make_program, points(), args.steps, args)
    x = torch.linspace(-1, 1, 201).unsqueeze(1)
    for run in runs:
        with torch.no_grad():
            error = (run.program.parts["network"](x) - torch.sin(math.pi * x)).abs().max().item()
        run.scores["largest error of the solution"] = f"{error:.4f}"
    print_table(f"u'' = -pi^2 sin(pi x), {args.steps} steps of {POINTS} points, seed {args.seed}", runs)
    save_plot(args.plot, "physics-informed network: loss of each training step", runs)
    check_losses(*runs, rtol=LOSS_RTOL)


if __name__ == "__main__":
    main()
