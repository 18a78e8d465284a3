"""Trains an LSTM to continue waves twice from one seed, eagerly and compiled.

    python examples/train_lstm.py [--steps 300] [--quick] [--backend numpy]

Each sequence is a sum of two sines of random frequencies with a little noise; at each time the network says what comes
next. The table compares its error with that of saying "as now".
"""

from __future__ import annotations

from collections.abc import Iterator

from _side_by_side import Compiler, Program, argument_parser, check_losses, print_table, run_both, save_plot

import graphtorch as torch
from graphtorch import nn

BATCH_SIZE = 16
LENGTH = 40
LOSS_RTOL = 1e-3


def waves(count: int) -> torch.Tensor:
    """(count, LENGTH + 1, 1): random waves."""
    time = torch.arange(LENGTH + 1.0)
    frequency = torch.empty(count, 2, 1).uniform_(0.1, 0.6)
    phase = torch.empty(count, 2, 1).uniform_(0.0, 6.28)
    return (torch.sin(frequency * time + phase).mean(1) + 0.02 * torch.randn(count, LENGTH + 1)).unsqueeze(-1)


class Forecaster(nn.Module):
    """(N, T, 1) to what comes next at each time, (N, T, 1)."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0])


def make_program(compiler: Compiler) -> Program:
    model = Forecaster()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)

    def step(sequences: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(sequences[:, :-1]), sequences[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Program(compiler(step), {"model": model})


def batches() -> Iterator[tuple[torch.Tensor]]:
    """New waves, without end."""
    while True:
        yield (waves(BATCH_SIZE),)


def main() -> None:
    args = argument_parser("Train an LSTM to continue waves, eager and compiled.", "lstm.png", 300, 4).parse_args()
    runs = run_both(make_program, batches(), args.steps, args)
    test = waves(64)
    with torch.no_grad():
        as_now = (test[:, 1:] - test[:, :-1]).square().mean().item()
        for run in runs:
            error = (run.program.parts["model"].eval()(test[:, :-1]) - test[:, 1:]).square().mean().item()
            run.scores["test error / that of 'as now'"] = f"{error / as_now:.3f}"
    print_table(f"LSTM, {args.steps} steps of {BATCH_SIZE} x {LENGTH}, seed {args.seed}", runs)
    save_plot(args.plot, "LSTM: loss of each training step", runs)
    check_losses(*runs, rtol=LOSS_RTOL)


if __name__ == "__main__":
    main()
