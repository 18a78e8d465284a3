"""Measuring the time of statements: `torch.utils.benchmark`'s `Timer`, `Measurement` and `Compare`.

A `Timer` runs a statement in a loop, with as many threads as it says, waits for CUDA devices where there are some, and
repeats until the numbers say something. See https://docs.pytorch.org/docs/stable/benchmark_utils.html."""

from __future__ import annotations

import math
import textwrap
import time
import timeit
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

__all__ = [
    "Compare", "Measurement", "TaskSpec", "Timer", "select_unit", "set_torch_threads", "timer", "trim_sigfig",
    "unit_to_english",
]  # fmt: skip

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ENGLISH = {"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second"}
_MOST_FIGURES = 4
_LEAST_INTERVAL = 25e-9  # seconds: what a clock can't tell apart
_WARN, _WARN_LOUDLY = 0.1, 0.25  # of the interquartile range, as a part of the median


def timer() -> float:
    """Seconds, after everything that was launched on a CUDA device is done."""
    from graphtorch import cuda

    if cuda.is_available():
        cuda.synchronize()
    return time.perf_counter()


def select_unit(t: float) -> tuple[str, float]:
    """The unit in which a number of seconds is readable, and its length in seconds."""
    unit = {-3: "ns", -2: "us", -1: "ms"}.get(int(math.log10(t) // 3), "s") if t > 0 else "s"
    return unit, _UNITS[unit]


def unit_to_english(u: str) -> str:
    """A unit's name."""
    return _ENGLISH[u]


def trim_sigfig(x: float, n: int) -> float:
    """A number rounded to `n` figures."""
    if x == 0:
        return 0.0
    scale = 10.0 ** (math.ceil(math.log10(abs(x))) - n)
    return round(x / scale) * scale


@contextmanager
def set_torch_threads(n: int) -> Iterator[None]:
    """A block that runs with so many threads."""
    from graphtorch.settings import get_num_threads, set_num_threads

    before = get_num_threads()
    try:
        set_num_threads(n)
        yield
    finally:
        set_num_threads(before)


@dataclass(frozen=True)
class TaskSpec:
    """What is measured, and what tables call it."""

    stmt: str
    setup: str
    global_setup: str = ""
    label: str | None = None
    sub_label: str | None = None
    description: str | None = None
    env: str | None = None
    num_threads: int = 1

    @property
    def title(self) -> str:
        """The label and the sublabel, or the statement."""
        if self.label is not None:
            return self.label + (f": {self.sub_label}" if self.sub_label else "")
        if "\n" not in self.stmt:
            return self.stmt + (f": {self.sub_label}" if self.sub_label else "")
        end = f" ({self.sub_label})" if self.sub_label else ""
        return f"stmt:{end}\n{textwrap.indent(self.stmt, '  ')}"

    def setup_str(self) -> str:
        """The setup, as reports show it."""
        if not self.setup or self.setup == "pass":
            return ""
        return f"setup:\n{textwrap.indent(self.setup, '  ')}" if "\n" in self.setup else f"setup: {self.setup}"

    def summarize(self) -> str:
        """The lines of a report."""
        lines = [self.title, self.description or "", self.setup_str()]
        return "\n".join(f"{line}\n" if "\n" in line else line for line in lines if line)


@dataclass(init=False, repr=False, eq=False)
class Measurement:
    """The times of a task: `raw_times` in seconds, each of `number_per_run` runs."""

    number_per_run: int
    raw_times: list[float]
    task_spec: TaskSpec
    metadata: dict[Any, Any] | None

    def __init__(
        self, number_per_run: int, raw_times: list[float], task_spec: TaskSpec, metadata: dict[Any, Any] | None = None
    ) -> None:
        self.number_per_run, self.raw_times, self.task_spec, self.metadata = (
            number_per_run, list(raw_times), task_spec, metadata,
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "task_spec" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.task_spec, name)  # the label and its like

    @property
    def times(self) -> list[float]:
        """Seconds a run."""
        return [t / self.number_per_run for t in self.raw_times]

    @property
    def median(self) -> float:
        """The median time. Raises ValueError for a measurement without times, as the others do."""
        return self._quantile(0.5)

    @property
    def mean(self) -> float:
        """The mean time."""
        self._quantile(0.5)
        return float(np.mean(self.times))

    @property
    def iqr(self) -> float:
        """From a quarter of the times to three."""
        return self._quantile(0.75) - self._quantile(0.25)

    def _quantile(self, at: float) -> float:
        if not self.raw_times:
            raise ValueError("No samples to summarize.")
        return float(np.quantile(np.array(self.times), at))

    @property
    def significant_figures(self) -> int:
        """How many figures of the median mean something: a 90 % interval of the middle half of the times."""
        held = sorted(self.times)
        middle = held[len(held) // 4 : math.ceil(3 * len(held) / 4)]
        interval = max(1.645 * float(np.std(middle)) / math.sqrt(len(middle)), _LEAST_INTERVAL)
        return min(max(math.floor(math.log10(self.median / interval)), 1), _MOST_FIGURES)

    @property
    def has_warnings(self) -> bool:
        """Whether the times differ by much."""
        return not self.meets_confidence()

    def meets_confidence(self, threshold: float = _WARN) -> bool:
        """Whether the interquartile range is at most such a part of the median."""
        return self.iqr / self.median <= threshold

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.task_spec.title

    @property
    def env(self) -> str | None:
        """Where it was measured."""
        return self.task_spec.env

    @property
    def as_row_name(self) -> str:
        """What a table's row is called."""
        return self.task_spec.sub_label or self.task_spec.stmt or "[Unknown]"

    def __repr__(self) -> str:
        count, median = len(self.raw_times), self.median
        unit, scale = select_unit(median)
        lines = [object.__repr__(self), self.task_spec.summarize()]
        lines.append(f"  {'Median: ' if count > 1 else ''}{median / scale:.2f} {unit}")
        if count >= 4:
            low, high = self._quantile(0.25) / scale, self._quantile(0.75) / scale
            lines.append(f"  IQR:    {self.iqr / scale:.2f} {unit} ({low:.2f} to {high:.2f})")
        threads = f"{self.task_spec.num_threads} thread{'s' if self.task_spec.num_threads > 1 else ''}"
        many = "s" if count > 1 else ""
        each = "per measurement," if count > 1 else ","
        lines.append(f"  {count} measurement{many}, {self.number_per_run} runs {each} {threads}")
        if count >= 2 and self.has_warnings:
            part = self.iqr / median
            lines.append(f"  WARNING: Interquartile range is {part * 100:.1f}% of the median measurement.")
            what = (
                "suggests significant environmental influence"
                if part > _WARN_LOUDLY
                else "could indicate system fluctuation"
            )
            lines.append(f"           This {what}.")
        return "\n".join(lines)

    @staticmethod
    def merge(measurements: Iterable[Measurement]) -> list[Measurement]:
        """Measurements of one task as one, in the order in which the tasks come."""
        groups: dict[TaskSpec, list[Measurement]] = {}
        for each in measurements:
            groups.setdefault(each.task_spec, []).append(each)
        return [Measurement(1, [t for m in group for t in m.times], spec) for spec, group in groups.items()]


class Timer:
    """Measures a statement. See torch.utils.benchmark.Timer.

    `globals`: the names that it sees, beside `torch`; `label`, `sub_label` and `description` name it in tables."""

    def __init__(
        self, stmt: str = "pass", setup: str = "pass", global_setup: str = "",
        timer: Callable[[], float] = timer, globals: dict[str, Any] | None = None, label: str | None = None,
        sub_label: str | None = None, description: str | None = None, env: str | None = None, num_threads: int = 1,
        language: str = "python",
    ) -> None:  # fmt: skip
        if str(language).lower() not in ("python", "py", "language.python"):
            raise ValueError("Timer measures Python statements only: there is no C++ interface")
        if global_setup:
            raise ValueError("`global_setup` is only supported for C++")
        if not isinstance(stmt, str):
            raise ValueError("Currently only a `str` stmt is supported.")
        stmt, setup = textwrap.dedent(stmt).strip() or "pass", textwrap.dedent(setup).strip() or "pass"
        import graphtorch

        space = dict(globals or {})
        space.setdefault("torch", graphtorch)
        self._timer = timeit.Timer(stmt, setup, timer, space)
        self._task_spec = TaskSpec(stmt, setup, "", label, sub_label, description, env, num_threads)

    def _run(self, number: int) -> float:
        return max(self._timer.timeit(number), 1e-9)

    def timeit(self, number: int = 1000000) -> Measurement:
        """So many runs in one piece, after some that do not count."""
        with set_torch_threads(self._task_spec.num_threads):
            self._run(max(number // 100, 2))
            return Measurement(number, [self._run(number)], self._task_spec)

    def repeat(self, repeat: int = -1, number: int = -1) -> NoReturn:
        """Refused. Raises NotImplementedError: see `Timer.blocked_autorange`."""
        raise NotImplementedError("See `Timer.blocked_autorange.`")

    def autorange(self, callback: Callable[[int, float], NoReturn] | None = None) -> NoReturn:
        """Refused. Raises NotImplementedError: see `Timer.blocked_autorange`."""
        raise NotImplementedError("See `Timer.blocked_autorange.`")

    def _block(self, min_run_time: float) -> int:
        """How many runs make a piece that the clock's own cost does not disturb."""
        overhead = float(np.median([self._run(0) for _ in range(5)]))
        number = 1
        while True:
            spent = self._run(number)
            if (overhead / spent <= 1e-4 and spent >= min_run_time / 1000) or spent > min_run_time:
                return number
            number *= 10

    def blocked_autorange(
        self, callback: Callable[[int, float], NoReturn] | None = None, min_run_time: float = 0.2
    ) -> Measurement:
        """Pieces of as many runs as are needed, until they took `min_run_time` seconds."""
        with set_torch_threads(self._task_spec.num_threads):
            number = self._block(min_run_time)
            times: list[float] = []
            while sum(times) < min_run_time:
                times.append(self._run(number))
                if callback is not None:
                    callback(number, times[-1])
        return Measurement(number, times, self._task_spec)

    def adaptive_autorange(
        self, threshold: float = 0.1, *, min_run_time: float = 0.01, max_run_time: float = 10.0,
        callback: Callable[[int, float], NoReturn] | None = None,
    ) -> Measurement:  # fmt: skip
        """Pieces until their interquartile range is below `threshold` of the median, or `max_run_time` is over."""
        with set_torch_threads(self._task_spec.num_threads):
            number = self._block(min_run_time)
            times: list[float] = []
            while True:
                times.append(self._run(number))
                if callback is not None:
                    callback(number, times[-1])
                found = Measurement(number, times, self._task_spec)
                enough = len(times) > 3 and found.meets_confidence(threshold) and sum(times) >= min_run_time
                if enough or sum(times) >= max_run_time:
                    return found

    def collect_callgrind(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused. Raises NotImplementedError: instructions are not counted here."""
        raise NotImplementedError("collect_callgrind: instructions are not counted here; run valgrind on a script")


class Compare:
    """Measurements as tables: a table a label, a row a sublabel, a column a description. See
    torch.utils.benchmark.Compare."""

    def __init__(self, results: Iterable[Measurement]) -> None:
        self._results: list[Measurement] = []
        self.extend_results(results)
        self._trim = False
        self._color = ""
        self._highlight = False

    def extend_results(self, results: Iterable[Measurement]) -> None:
        """Add measurements. Raises ValueError for anything else."""
        for each in results:
            if not isinstance(each, Measurement):
                raise ValueError(f"Expected an instance of `Measurement`, got {type(each)} instead.")
            self._results.append(each)

    def trim_significant_figures(self) -> None:
        """Show only figures that mean something."""
        self._trim = True

    def colorize(self, rowwise: bool = False) -> None:
        """Color the times by how far they are from the best of their column, or of their row."""
        self._color = "rowwise" if rowwise else "columnwise"

    def highlight_warnings(self) -> None:
        """Mark times that vary much."""
        self._highlight = True

    def print(self) -> None:
        """Print the tables."""
        print(str(self))

    def __str__(self) -> str:
        merged = Measurement.merge(self._results)
        labels = dict.fromkeys(m.task_spec.label or m.task_spec.stmt for m in merged)
        return "\n".join(
            self._table(label, [m for m in merged if (m.task_spec.label or m.task_spec.stmt) == label])
            for label in labels
        )

    def _table(self, label: str, results: Sequence[Measurement]) -> str:
        unit, scale = select_unit(min(m.median for m in results))
        columns = list(dict.fromkeys(m.task_spec.description for m in results))
        rows = list(dict.fromkeys((m.task_spec.num_threads, m.env, m.as_row_name) for m in results))
        rows.sort(key=lambda row: row[0])
        several_envs = len({row[1] for row in rows}) > 1
        cells = {(m.task_spec.num_threads, m.env, m.as_row_name, m.task_spec.description): m for m in results}
        rendered: list[list[str]] = []
        for column in columns:
            held = [cells.get((*row, column)) for row in rows]
            rendered.append(self._column("" if column is None else column, held, scale))
        best = [[cells.get((*row, column)) for column in columns] for row in rows]
        width_of_names = max(len(row[2]) for row in rows) + 6
        lines: list[str] = []
        heads = [part[0] for part in rendered]
        head = "  |  ".join([" " * width_of_names, *heads])
        width = len(head)
        threads: Any = None
        for i, row in enumerate(rows):
            env = f" ({row[1]})" if several_envs else ""
            if (row[0], env) != threads:
                threads = row[0], env
                lines.append(f"{row[0]} threads{env}: ".ljust(width, "-"))
            texts = [self._colored(part[i + 1], best, i, j) for j, part in enumerate(rendered)]
            lines.append("  |  ".join([(" " * 6 + row[2]).ljust(width_of_names), *texts]))
        title = f"[{f' {label} '.center(width - 2, '-')}]"
        ending = f"\n\nTimes are in {unit_to_english(unit)}s ({unit}).\n"
        if self._highlight:
            ending += "(! XX%) Measurement has high variance, where XX is the IQR / median * 100.\n"
        return "\n".join([title, head, *lines]) + ending

    def _column(self, name: str, held: Sequence[Measurement | None], scale: float) -> list[str]:
        """The head of a column and its times, all of one width."""
        there = [(m, math.ceil(math.log10(m.median / scale))) for m in held if m is not None]
        digits = min(max(m.significant_figures - lead, 0) for m, lead in there) if self._trim else 1
        length = max(lead for _, lead in there) + digits + (1 if digits else 0)
        texts = []
        for m in held:
            if m is None:
                texts.append("")
                continue
            value = m.median / scale
            value = trim_sigfig(value, m.significant_figures) if self._trim else value
            text = f"{value:>{length}.{digits}f}"
            if self._highlight:
                part = m.iqr / m.median
                text += f" (! {part * 100:.0f}%)".rjust(7) if part > _WARN else " " * 7
            texts.append(text)
        width = max(len(name), *(len(text) for text in texts))
        return [name.center(width), *(text.center(width) for text in texts)]

    def _colored(self, text: str, best: Sequence[Sequence[Measurement | None]], row: int, column: int) -> str:
        here = best[row][column]
        if not self._color or here is None:
            return text
        others = best[row] if self._color == "rowwise" else [line[column] for line in best]
        least, value = min(m.median for m in others if m is not None), here.median
        if value <= least * 1.01 or value <= least + 100e-9:
            return f"\033[92m\033[1m{text}\033[0m\033[0m"
        if value <= least * 1.1:
            return f"\033[34m\033[1m{text}\033[0m\033[0m"
        if value >= least * 5:
            return f"\033[31m\033[1m{text}\033[0m\033[0m"
        return f"\033[2m\033[91m{text}\033[0m\033[0m" if value >= least * 2 else text
