"""What the examples share: train a classifier eagerly and compiled from one seed, compare, print and plot the runs.

rich draws the bar and the table, matplotlib the plot; without them the same things are printed as plain text and the
plot is left out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graphtorch as torch
from graphtorch import nn

try:
    import rich.console
    import rich.progress
    import rich.table
except ImportError:
    HAVE_RICH = False
else:
    HAVE_RICH = True


@dataclass
class Run:
    """One training run: a loss and a duration for every step, and what the compiler says where there was one."""

    name: str
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accuracy: float = math.nan
    specializations: list[Any] = field(default_factory=list)


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer, compiled: bool) -> Callable[..., torch.Tensor]:
    """The whole training step of a classifier as one function of (images, labels), eager or compiled as one graph."""
    loss_fn = nn.CrossEntropyLoss()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return torch.compile(step) if compiled else step  # the call that the decorator @torch.compile makes


def train_both(
    seed: int,
    make_model: Callable[[], nn.Module],
    lr: float,
    make_batches: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]],
    steps: int,
    accuracy: Callable[[nn.Module], float],
    print_every: int = 0,
) -> list[Run]:
    """Trains two models made from the same seed with SGD (momentum 0.9): an eager run and a compiled one, in order.

    Both take each of the ``steps`` batches of ``make_batches`` before the next one is drawn. A machine that is busy for
    a while then slows both, and the times of a step can be compared; one run after the other, they could not. Every
    ``print_every`` steps the mean losses since the last such line are printed (never for 0).
    """
    runs, train_steps, models = [], [], []
    for name in ("eager", "compiled"):
        torch.manual_seed(seed)
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        runs.append(Run(name))
        models.append(model)
        train_steps.append(make_step(model, optimizer, compiled=name == "compiled"))
    with _progress("training", steps) as advance:
        for done, (images, labels) in enumerate(make_batches(), start=1):
            for run, train_step in zip(runs, train_steps, strict=True):
                start = time.perf_counter()
                loss = train_step(images, labels).item()
                run.seconds.append(time.perf_counter() - start)
                run.losses.append(loss)
            if print_every and done % print_every == 0:
                means = (f"{run.name} {statistics.fmean(run.losses[-print_every:]):.3f}" for run in runs)
                print(f"step {done:5d}  running loss: {', '.join(means)}")
            advance(loss)
    runs[1].specializations = list(train_steps[1].explain().specializations)
    for run, model in zip(runs, models, strict=True):
        run.accuracy = accuracy(model)
    return runs


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[float], None]]:
    """Yields a function to call with the loss after each step."""
    if not HAVE_RICH:
        done = 0

        def plain(loss: float) -> None:
            nonlocal done
            done += 1
            if done == total or done % max(1, total // 5) == 0:
                print(f"{name}: {done}/{total} steps, loss {loss:.4f}")

        yield plain
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("loss {task.fields[loss]:.4f}"),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns) as bar:
        task = bar.add_task(f"{name:8}", total=total, loss=math.nan)
        yield lambda loss: bar.update(task, advance=1, loss=loss)


def print_table(title: str, runs: list[Run]) -> None:
    """A row a figure, a column a run."""
    figures = [_figures(run) for run in runs]
    rows = [[label, *(figure[label] for figure in figures)] for label in figures[0]]
    if HAVE_RICH:
        table = rich.table.Table(title=title)
        table.add_column("")
        for run in runs:
            table.add_column(run.name, justify="right")
        for row in rows:
            table.add_row(*row)
        rich.console.Console().print(table)
        return
    print(f"\n{title}")
    for row in [["", *(run.name for run in runs)], *rows]:
        print(f"{row[0]:32}" + "".join(f"{cell:>16}" for cell in row[1:]))


def _figures(run: Run) -> dict[str, str]:
    compiled = run.specializations

    def of_compiled(text: Callable[[], str]) -> str:
        return text() if compiled else "-"

    # A ragged last batch makes a second specialization of the same step: time adds up, the rest is that of the largest.
    return {
        "first loss": f"{run.losses[0]:.6f}",
        "last loss": f"{run.losses[-1]:.6f}",
        "test accuracy": f"{run.accuracy:.2%}",
        "time a step (median)": f"{statistics.median(run.seconds) * 1e3:.3f} ms",
        "compile time": of_compiled(lambda: f"{sum(s.compile_seconds for s in compiled):.3f} s"),
        "specializations": of_compiled(lambda: str(len(compiled))),
        "kernels before fusion": of_compiled(lambda: str(max(s.kernels_before_fusion for s in compiled))),
        "kernels after fusion": of_compiled(lambda: str(max(s.kernels for s in compiled))),
        "planned intermediates (peak)": of_compiled(lambda: f"{max(s.planned_bytes for s in compiled) / 1024:.1f} KiB"),
    }


def check_losses(reference: Run, run: Run, rtol: float) -> None:
    """Prints the largest relative difference of the two runs' losses; exits with an error if it exceeds ``rtol``."""
    pairs = zip(reference.losses, run.losses, strict=True)
    # `not <=` rather than `>`: a NaN on either side is a difference too.
    wrong = [i for i, (a, b) in enumerate(pairs) if not abs(a - b) <= rtol * abs(a)]
    if wrong:
        i = wrong[0]
        sys.exit(
            f"{run.name} and {reference.name} disagree at {len(wrong)} of {len(run.losses)} steps, first at step {i}: "
            f"loss {run.losses[i]!r} against {reference.losses[i]!r}, allowed relative difference {rtol:g}"
        )
    worst = max(
        (abs(a - b) / abs(a) for a, b in zip(reference.losses, run.losses, strict=True) if a != b),
        default=0.0,
    )
    print(f"all {len(run.losses)} losses agree; largest relative difference {worst:.1e} (allowed {rtol:g})")


def save_plot(path: Path, title: str, runs: list[Run]) -> None:
    """The loss of every step of each run, over one another; says so and returns where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for i, run in enumerate(runs):
        # The first line is wide and pale, so that the one drawn over it can be seen to cover it.
        axes.plot(run.losses, label=run.name, linewidth=5 if i == 0 else 1, alpha=0.4 if i == 0 else 1.0)
    axes.set(title=title, xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    print(f"loss plot saved to {path}")


def argument_parser(description: str, plot: str) -> argparse.ArgumentParser:
    """A parser of the options that the examples have in common; ``plot`` is the default of --plot."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, default=Path(plot), help="where to save the losses (default: %(default)s)")
    return parser


def positive_int(text: str) -> int:
    """An argparse type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return value
