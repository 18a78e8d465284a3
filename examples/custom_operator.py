"""A custom operator with a gradient and a Triton kernel, in a network trained eagerly and compiled from one seed.

    python examples/custom_operator.py [--steps 300] [--quick] [--backend numpy] [--show-kernel]

The operator is SwiGLU's gate, silu(gate) * x (Shazeer, 2020, https://arxiv.org/abs/2002.05202). Its body is NumPy,
which the eager run and the backends of the CPU call. For the GPU it has a kernel in Triton's language; where Triton is
installed, the kernel is run here as well, by Triton's interpreter, and compared with the body. --show-kernel prints the
code that it becomes for a GPU. docs/custom-operators.md explains the parts.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
from _side_by_side import Compiler, Program, argument_parser, check_losses, print_table, run_both, save_plot
from custom_function import batches
from train_digits import accuracy, load_digits

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import Tensor, nn

LOSS_RTOL = 1e-3


@torch.library.custom_op("examples::silu_gate", mutates_args=())
def silu_gate(x: Tensor, gate: Tensor) -> Tensor:
    g = gate.numpy()
    return torch.from_numpy(x.numpy() * g / (1 + np.exp(-g)))


@silu_gate.register_fake
def _(x: Tensor, gate: Tensor) -> Tensor:
    return torch.empty_like(x)


def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    x, gate = ctx.saved_tensors
    share = gate.sigmoid()
    return gradient * gate * share, gradient * x * share * (1 + gate * (1 - share))


silu_gate.register_autograd(backward, setup_context=setup_context)
silu_gate.register_triton(
    """
    def silu_gate(x, gate, result, n, BLOCK: tl.constexpr):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        mask = at < n
        g = tl.load(gate + at, mask=mask)
        tl.store(result + at, tl.load(x + at, mask=mask) * g / (1 + tl.exp(-g)), mask=mask)
    """,
    sizes=lambda x, gate: {"n": x.numel()},
    grid=[("n", "BLOCK")],
    constants={"BLOCK": 256},
)


class Net(nn.Module):
    """Images (N, 64) to scores (N, 10), with a gated hidden layer."""

    def __init__(self, hidden: int = 96) -> None:
        super().__init__()
        self.value = nn.Linear(64, hidden)
        self.gate = nn.Linear(64, hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(silu_gate(self.value(x), self.gate(x)))


def make_program(compiler: Compiler) -> Program:
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return Program(compiler(step), {"model": model})


def check_triton() -> None:
    """Run the kernel in Triton's interpreter on the host's memory; exits if it differs from the operator's body."""
    if importlib.util.find_spec("triton") is None:
        print("Triton is not installed: its kernel was not tried")
        return
    from graphtorch.lowering.backend import register
    from graphtorch.lowering.triton.backend import InterpretedBackend

    gated = torch.compile(lambda x, gate: silu_gate(x, gate), backend=register(InterpretedBackend()).name)
    x, gate = torch.randn(33, 17), torch.randn(33, 17)
    difference = (gated(x, gate) - silu_gate(x, gate)).abs().max().item()
    if not difference <= 1e-5:
        sys.exit(f"the Triton kernel and the operator's body differ by {difference:.1e}")
    print(f"the Triton kernel, interpreted, agrees with the operator's body (largest difference {difference:.1e})")


def show_kernel() -> None:
    """Print what the kernel becomes for an H100, compiled here; needs Triton and no GPU."""
    from graphtorch.ir.builder import GraphBuilder, wrap
    from graphtorch.ir.graph import Graph
    from graphtorch.lowering.triton import compiler
    from graphtorch.lowering.triton.launch import make_plan
    from graphtorch.schedule import build_schedule
    from graphtorch.tensor.type import TensorType

    graph = Graph("gate")
    x, gate = (wrap(graph.add_input(TensorType(torch.float32, (64, 96)), name)) for name in ("x", "gate"))
    with GraphBuilder(graph) as builder:
        graph.add_output(builder.value_of(silu_gate._call(x, gate)))
    (launch,) = make_plan(build_schedule(graph), {}).launches
    print(compiler.compile_one(launch.function, "sm_90").assembly)


def main() -> None:
    parser = argument_parser("Train with a custom operator, eager and compiled.", "custom-operator.png", 300, 5)
    parser.add_argument("--show-kernel", action="store_true", help="print the kernel's PTX for sm_90 and end")
    args = parser.parse_args()
    if args.show_kernel:
        show_kernel()
        return
    training, test = load_digits()
    runs = run_both(make_program, batches(training), args.steps, args)
    for run in runs:
        run.scores["test accuracy"] = f"{accuracy(run.program.parts['model'], test):.2%}"
    print_table(f"digits with a custom operator, {args.steps} steps, seed {args.seed}", runs)
    save_plot(args.plot, "custom operator: loss of each training step", runs)
    check_losses(*runs, rtol=LOSS_RTOL)
    check_triton()


if __name__ == "__main__":
    main()
