"""What the examples share: train eagerly and compiled from one seed, compare, print and plot the runs.

rich draws the bar and the table, matplotlib the plot; without them the same things are printed as plain text and the
plot is left out.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """One training run: a loss and a duration for every step, and what the compiler says where there was one.

    Whatever else is to be compared stands in ``scores``, by its name in the table.
    """

    name: str
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scores: dict[str, str] = field(default_factory=dict)
    specializations: list[Any] = field(default_factory=list)
    program: Any = None


@dataclass
class Program:
    """What an example trains: a step, which takes a batch and returns the loss, and what it belongs to.

    ``parts`` are kept for the caller: the model, to sample from.
    """

    step: Callable[..., torch.Tensor]
    parts: dict[str, Any] = field(default_factory=dict)


Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]


def run_both(
    make: Callable[[Compiler], Program],
    batches: Iterable[Sequence[torch.Tensor]],
    steps: int,
    args: argparse.Namespace,
    print_every: int = 0,
    **options: Any,
) -> list[Run]:
    """Trains two programs made from the same seed: an eager run and a compiled one, in order.

    ``make(compiler)`` builds a program; it hands the functions that are to be compiled to ``compiler``, which leaves
    them alone in the eager run. Both runs take each batch before the next one is drawn: a machine that is busy for a
    while then slows both, and the times of a step can be compared. Each has random numbers of its own, from the seed.
    Every ``print_every`` steps the mean losses since the last such line are printed (never for 0). ``options`` go to
    `torch.compile`.
    """
    runs, states, compiled = [], [], []
    for name in ("eager", "compiled"):

        def compiler(function: Callable[..., Any], name: str = name) -> Callable[..., Any]:
            if name == "eager":
                return function
            compiled.append(torch.compile(function, backend=args.backend, **options))
            return compiled[-1]

        torch.manual_seed(args.seed)
        runs.append(Run(name, program=make(compiler)))
        states.append(torch.get_rng_state())
    torch.manual_seed(args.seed)  # from here on the batches draw
    with _progress("training", steps) as advance:
        for done, batch in enumerate(itertools.islice(batches, steps), start=1):
            outside = torch.get_rng_state()
            for i, run in enumerate(runs):
                torch.set_rng_state(states[i])
                start = time.perf_counter()
                loss = run.program.step(*batch).item()
                run.seconds.append(time.perf_counter() - start)
                run.losses.append(loss)
                states[i] = torch.get_rng_state()
            torch.set_rng_state(outside)
            if print_every and done % print_every == 0:
                means = (f"{run.name} {statistics.fmean(run.losses[-print_every:]):.3f}" for run in runs)
                print(f"step {done:5d}  running loss: {', '.join(means)}")
            advance(loss)
    runs[1].specializations = [s for function in compiled for s in function.explain().specializations]
    return runs


def classifier(make_model: Callable[[], nn.Module], lr: float, compiler: Compiler) -> Program:
    """A classifier of images trained by SGD with momentum 0.9."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    loss_fn = nn.CrossEntropyLoss()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return Program(compiler(step), {"model": model})


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
        **run.scores,
        "time a step (median)": f"{statistics.median(run.seconds) * 1e3:.3f} ms",
        "compile time": of_compiled(lambda: f"{sum(s.compile_seconds for s in compiled):.3f} s"),
        "specializations": of_compiled(lambda: str(len(compiled))),
        "kernels before fusion": of_compiled(lambda: str(max(s.kernels_before_fusion for s in compiled))),
        "kernels after fusion": of_compiled(lambda: str(max(s.kernels for s in compiled))),
        "planned intermediates (peak)": of_compiled(lambda: f"{max(s.planned_bytes for s in compiled) / 1024:.1f} KiB"),
    }


def check_losses(reference: Run, run: Run, rtol: float, steps: int | None = None) -> None:
    """Prints the largest relative difference of the two runs' losses; exits with an error if it exceeds ``rtol``.

    With ``steps``, only so many of the first are compared.
    """
    compared = list(zip(reference.losses, run.losses, strict=True))[:steps]
    # `not <=` rather than `>`: a NaN on either side is a difference too.
    wrong = [i for i, (a, b) in enumerate(compared) if not abs(a - b) <= rtol * abs(a)]
    if wrong:
        i = wrong[0]
        sys.exit(
            f"{run.name} and {reference.name} disagree at {len(wrong)} of {len(compared)} steps, first at step {i}: "
            f"loss {run.losses[i]!r} against {reference.losses[i]!r}, allowed relative difference {rtol:g}"
        )
    worst = max((abs(a - b) / abs(a) for a, b in compared if a != b), default=0.0)
    which = "all" if len(compared) == len(run.losses) else "the first"
    print(f"{which} {len(compared)} losses agree; largest relative difference {worst:.1e} (allowed {rtol:g})")


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


def save_images(path: Path, images: torch.Tensor, nrow: int) -> None:
    """A grid of images (N, 1 or 3, H, W) with values in 0..1; says so and returns where Pillow is missing."""
    from graphtorch.vision.utils import save_image

    try:
        save_image(images, path, nrow=nrow)
    except ImportError:
        print("no images: pillow is not installed")
        return
    print(f"images saved to {path}")


def argument_parser(description: str, plot: str, steps: int = 0, quick: int = 0) -> argparse.ArgumentParser:
    """A parser of the options that the examples have in common; ``plot`` is the default of --plot.

    With ``steps``, also --steps of that default, and --quick, which stands for ``quick`` steps.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default=None, help="what the compiled run runs on (default: the library's choice)")
    parser.add_argument("--plot", type=Path, default=Path(plot), help="where to save the losses (default: %(default)s)")
    if steps:
        parser.add_argument("--steps", type=positive_int, default=steps, help="(default: %(default)s)")
        parser.add_argument(
            "--quick", dest="steps", action="store_const", const=quick, help=f"{quick} steps, to see that it runs"
        )
    return parser


def fashion_mnist(args: argparse.Namespace) -> torch.Tensor:
    """The training images, (N, 1, 28, 28) float32 in 0..1; exits with a message where they can't be had."""
    from graphtorch.vision.datasets import FashionMNIST

    try:
        data = FashionMNIST(args.data, download=args.download).data
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(
            f"{args.data}: {error}\n--data wants a folder with the files of Fashion-MNIST; --download fetches them "
            "into it. Debian's package dataset-fashion-mnist installs them where --data looks by default."
        )
    return data.unsqueeze(1).float() / 255


def add_fashion_mnist(parser: argparse.ArgumentParser) -> None:
    """The options that `fashion_mnist` reads."""
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("/usr/share/datasets/fashion-mnist"),
        help="folder with the files of Fashion-MNIST (default: %(default)s)",
    )
    parser.add_argument("--download", action="store_true", help="fetch the files into the folder")


def random_batches(images: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor]]:
    """Batches of images drawn with replacement, without end."""
    while True:
        yield (images[torch.randint(len(images), (size,))],)


def positive_int(text: str) -> int:
    """An argparse type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return value
