"""Operators and training steps on one GPU: graphtorch beside PyTorch, and beside what the device can do.

    python benchmarks/gpu.py                      # on a machine with a GPU; 25 minutes, the most important cases first
    python benchmarks/gpu.py --minutes 9          # as far as it comes; again: goes on where it ended
    python benchmarks/gpu.py --only matmul,gpt    # some of it
    python benchmarks/gpu.py --simulate           # no GPU: the code of this file at toy sizes; figures mean nothing
    python benchmarks/gpu.py --dry-run            # no GPU: kernels of real sizes are compiled for sm_90 and not run
    python benchmarks/gpu.py --host-cost          # no GPU: what a replayed step costs the host

Each library runs in a process of its own (gpu_worker.py): graphtorch (eager, compiled, compiled for most speed) and
PyTorch, if it is installed (eager, `torch.compile`, and its mode "max-autotune"). They take turns, case by case. A time
is the median over runs between two events, with the second-level cache overwritten before each. First the device's own
rates are measured: a copy in device memory, and cuBLAS. What a call computes is compared with the same computation in
float64, and PyTorch's own with that: at toy sizes on the CPU, and, where there is PyTorch, at real sizes on the device.

Every result is written at once, to benchmarks/results/gpu.json and gpu.md: whoever interrupts the run keeps what there
is, and the next run measures what is missing (`--fresh`: everything; `--retry`: what failed, too). A case that fails or
takes longer than its limit costs its process, and the others go on."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_workloads import BUILDERS, CORE, MORE, TOY

HERE = Path(__file__).resolve().parent
VARIANTS = {"graphtorch": ("eager", "default", "max-autotune"), "torch": ("eager", "default", "max-autotune")}
STEPS = ("gpt", "resnet18", "mlp")  # training steps
SECONDS = {"about": 90, "limits": 60, "error": 60, "agreement": 90}  # what a request may take
FURTHER = [
    ("convolution", (128, 64, 56, 3, True)),
    ("matmul", (4096, 4096, 4096, "fp32")),
]  # compared with float64, too
# What failures say where autotuning lost its process to a candidate: the next process leaves that one out.
AGAIN = ("is left out from now on", "the process ended")
ATTEMPTS = 4


def label(name: str, sizes: Any) -> str:
    return f"{name}({', '.join(map(str, sizes))})"


# -- what is measured, in order ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One request to one library's process."""

    kind: str
    library: str
    variant: str = ""
    name: str = ""
    sizes: tuple[Any, ...] = ()
    seconds: float = 60.0

    def key(self) -> tuple[Any, ...]:
        return self.kind, self.library, self.variant, self.name, json.dumps(self.sizes)

    def entry(self) -> dict[str, Any]:
        """What identifies the task in the results."""
        found: dict[str, Any] = {"kind": self.kind, "library": self.library}
        if self.name:
            found |= {"variant": self.variant, "name": self.name, "sizes": [*self.sizes]}
        return found


def times(cases: list[tuple[str, tuple[Any, ...]]], variants: list[tuple[str, str]]) -> Iterator[Task]:
    for name, sizes in cases:
        for library, variant in variants:
            tuned = variant == "max-autotune"
            seconds = (400.0 if tuned else 150.0) if name in STEPS else (75.0 if tuned else 45.0)
            yield Task("time", library, variant, name, sizes, seconds)


def plan(toy: str, wanted: list[str], libraries: list[str]) -> list[Task]:
    """All tasks, the most important first."""
    tasks = [Task(kind, lib, seconds=SECONDS[kind]) for kind in ("about", "limits") for lib in libraries]
    errors = [
        Task("error", library, variant, name, sizes, SECONDS["error"])
        for name, sizes in (TOY if toy != "dry" else [])
        for library, variant in (("graphtorch", "eager"), ("graphtorch", "default"), ("torch", "eager"))
    ]
    core, more = (TOY, []) if toy == "simulated" else (CORE, MORE)
    mine = [("graphtorch", "default"), ("graphtorch", "max-autotune")]
    others = [("torch", "eager"), ("torch", "default")]
    best = [("torch", "max-autotune")]
    steps = [c for c in core if c[0] in STEPS]
    compared = [
        Task("agreement", "both", variant, name, sizes, SECONDS["agreement"])
        for name, sizes in ([*core, *(c for c in more if c in FURTHER)] if toy != "dry" and len(libraries) == 2 else [])
        for variant in ("default", "max-autotune")
        if name not in (*STEPS, "adamw")
    ]
    tasks += times(core, [mine[0], *others])
    tasks += [t for t in compared if t.variant == "default"]
    tasks += times(core, mine[1:])
    tasks += times(steps, best)
    tasks += [t for t in compared if t.variant != "default"]
    tasks += errors
    tasks += times(more, [mine[0], others[0]])
    tasks += times([c for c in core if c not in steps], best)
    tasks += times(more, mine[1:])
    tasks += times([c for c in more if c[0] != "matmul"], others[1:])
    tasks += times([*core, *more], [("graphtorch", "eager")])
    tasks += times(more, best)
    libraries = [*libraries, "both"]
    return [t for t in tasks if t.library in libraries and (not t.name or t.name in wanted)]


# -- the processes ----------------------------------------------------------------------------------------------------


class Worker:
    """The process of one library, started when it is first asked and again after it was lost."""

    def __init__(self, library: str, toy: str, log: Path) -> None:
        self.library, self.toy, self.log = library, toy, log
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str | None] = queue.Queue()

    def start(self) -> None:
        environment = dict(os.environ)
        if self.toy == "simulated":
            environment["GRAPHTORCH_CUDA"] = "simulated"
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE), environment.get("PYTHONPATH", "")])
        code = f"import gpu_worker; gpu_worker.serve({self.library!r}, {self.toy!r})"
        with self.log.open("a", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # PyTorch's compiler has processes of its own
            )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            _, found, answer = line.partition("RESULT {")  # libraries may leave a line without its end before it
            if found:
                lines.put("{" + answer)
        lines.put(None)

    def ask(self, task: Task, seconds: float) -> dict[str, Any]:
        """The answer. The process is ended if the task failed: its device may be in any state."""
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin is not None
        request = {"kind": task.kind, "name": task.name, "sizes": task.sizes, "variant": task.variant}
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            self.end()
            return {"failed": f"took longer than {seconds:.0f} s"}
        except OSError:
            line = None
        if line is None:
            code = self.process.wait()
            self.end()
            return {"failed": f"the process ended with {code}; see {self.log.name}"}
        found: dict[str, Any] = json.loads(line)
        if "failed" in found:
            self.end()
        return found

    def end(self) -> None:
        """End the process and those that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # the driver may hold a process whose kernel hangs
                self.process.wait(timeout=20)
            self.process = None


def collect(tasks: list[Task], results: Results, toy: str, minutes: float) -> bool:
    """Do the tasks that have no result, until the time is over; whether all are done."""
    end = time.monotonic() + 60 * minutes
    workers = {t.library: Worker(t.library, toy, results.log(t.library)) for t in tasks}
    try:
        for task in tasks:
            if results.has(task):
                continue
            left = end - time.monotonic()
            if left < task.seconds / 3:
                continue
            found = workers[task.library].ask(task, min(task.seconds, left))
            for _ in range(1, ATTEMPTS if task.library != "torch" and task.variant == "max-autotune" else 1):
                if not any(text in found.get("failed", "") for text in AGAIN):
                    break
                if (left := end - time.monotonic()) < task.seconds / 3:
                    break
                print(f"{label(task.name, task.sizes)}: {found['failed']}", flush=True)
                found = workers[task.library].ask(task, min(task.seconds, left))
            if "failed" in found and left < task.seconds and found["failed"].startswith("took longer"):
                continue  # it may fit the next time
            results.add(task, found)
            if task.kind == "time":
                shown = found.get("failed") or f"{found['milliseconds']:.4g} ms"
                print(f"{task.library} {task.variant}: {label(task.name, task.sizes)}: {shown}"[:300], flush=True)
    finally:
        for worker in workers.values():
            worker.end()
    return all(results.has(t) for t in tasks)


# -- the results ------------------------------------------------------------------------------------------------------


class Results:
    """What was measured so far, as JSON and as text, written anew with each result."""

    def __init__(self, folder: Path, toy: str, command: str, fresh: bool, retry: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.toy, self.command = folder, toy, command
        self.name = f"gpu-{toy}" if toy else "gpu"
        self.entries: list[dict[str, Any]] = []
        file = folder / f"{self.name}.json"
        if file.exists() and not fresh:
            self.entries = json.loads(file.read_text(encoding="utf-8"))
            if retry:
                self.entries = [e for e in self.entries if "failed" not in e]
        self.known = {self._key(e) for e in self.entries}

    def log(self, library: str) -> Path:
        return self.folder / f"{self.name}-{library}.log"

    @staticmethod
    def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
        sizes = json.dumps(entry.get("sizes", []))
        return entry["kind"], entry["library"], entry.get("variant", ""), entry.get("name", ""), sizes

    def has(self, task: Task) -> bool:
        return self._key(task.entry()) in self.known

    def add(self, task: Task, found: dict[str, Any]) -> None:
        self.entries.append({**task.entry(), **found})
        self.known.add(self._key(self.entries[-1]))
        self.write()

    def write(self) -> str:
        """Both files, each whole at any time; returns the text."""
        text = report(self.entries, self.toy, self.command)
        for ending, content in (("json", json.dumps(self.entries, indent=1) + "\n"), ("md", text)):
            file = self.folder / f"{self.name}.{ending}"
            new = file.with_suffix(f".{ending}.new")
            new.write_text(content, encoding="utf-8")
            os.replace(new, file)
        return text


def report(entries: list[dict[str, Any]], toy: str, command: str) -> str:
    """The entries as Markdown."""
    lines = ["# Measurements on a GPU", ""]
    if toy:
        what = "toy sizes on a simulated device" if toy == "simulated" else "kernels were compiled and not run"
        lines += [f"**No GPU: {what}. The figures mean nothing.**", ""]
    limits: dict[str, float] = {}
    for entry in entries:
        if "failed" in entry and entry["kind"] in ("about", "limits"):
            lines.append(f"- {entry['library']}: {entry['failed']}")
        elif entry["kind"] == "about":
            rest = "".join(f", {k} {entry[k]}" for k in ("triton", "cuda", "cudnn") if k in entry)
            lines.append(f"- {entry['library']} {entry['version']}, Python {entry['python']}, {entry['device']}{rest}")
        elif entry["kind"] == "limits":
            figures = {k: v for k, v in entry.items() if k not in ("kind", "library")}
            rates = ", ".join(f"{k.replace('_', ' ')}: {v:.4g}" for k, v in figures.items())
            lines.append(f"- {entry['library']}: {rates}")
            for key, value in figures.items():
                limits[key] = max(limits.get(key, 0.0), value)
    lines += ["", f"    {command}", ""]
    columns = [(lib, v) for lib in ("graphtorch", "torch") for v in VARIANTS[lib]]
    present = {(e["library"], e["variant"]) for e in entries if e["kind"] == "time"}
    columns = [c for c in columns if c in present]
    lines += [
        "Milliseconds a call; `of limit`: the share of the copy bandwidth or of cuBLAS's rate that graphtorch's best "
        "time is; `ratio`: PyTorch's best time divided by graphtorch's, above 1 is faster.",
        "",
        "| workload | " + " | ".join(f"{lib} {v}" for lib, v in columns) + " | of limit | ratio |",
        "|---" * (len(columns) + 3) + "|",
    ]
    rows: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for entry in entries:
        if entry["kind"] == "time":
            rows.setdefault(label(entry["name"], entry["sizes"]), {})[entry["library"], entry["variant"]] = entry
    for name, row in rows.items():
        cells = [_cell(row.get(c)) for c in columns]
        best: dict[str, float | None] = {}
        for library in VARIANTS:
            found = [e["milliseconds"] for (of, _), e in row.items() if of == library and "milliseconds" in e]
            best[library] = min(found, default=None)
        mine = best["graphtorch"]
        some = next((e for e in row.values() if "milliseconds" in e), None)
        share = "" if some is None or mine is None else _share(some, mine, limits)
        ratio = f"{best['torch'] / mine:.2f}" if mine and best["torch"] else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {share} | {ratio} |")
    lines += ["", "First calls, with compilation, in seconds, and the most memory allocated (training steps):", ""]
    for name, row in rows.items():
        if name.startswith(STEPS):
            made = [
                f"{lib} {v}: {e['first_call_seconds']:.2f} s, {e.get('peak_bytes', 0) / 2**30:.1f} GiB"
                for (lib, v), e in row.items()
                if "milliseconds" in e
            ]
            lines.append(f"- {name}: {'; '.join(made)}")
    lines += ["", "Losses of the first steps:", ""]
    for name, row in rows.items():
        if found_losses := [f"{lib} {v} {e['first_loss']:.6g}" for (lib, v), e in row.items() if "first_loss" in e]:
            lines.append(f"- {name}: {'; '.join(found_losses)}")
    lines += ["", "Difference from float64 in the norm, results and gradients, and PyTorch's own:", ""]
    for entry in entries:
        if entry["kind"] == "agreement":
            value = entry.get("failed") or f"{entry['value']:.2g}, PyTorch {entry['peer']:.2g}"
            lines.append(f"- {label(entry['name'], entry['sizes'])} {entry['variant']}: {value}")
    lines += ["", "Largest relative difference from float64, at toy sizes:", ""]
    errors: dict[str, list[str]] = {}
    for entry in entries:
        if entry["kind"] == "error" and entry.get("value", 0) is not None:
            value = entry.get("failed") or f"{entry['value']:.2g}"
            errors.setdefault(entry["name"], []).append(f"{entry['library']} {entry['variant']} {value}")
    lines += [f"- {name}: {'; '.join(values)}" for name, values in errors.items()]
    failed = [e for e in entries if e["kind"] == "time" and "failed" in e]
    if failed:
        lines += ["", "What failed:", ""]
        of = [f"- {label(e['name'], e['sizes'])}, {e['library']} {e['variant']}: {e['failed']}" for e in failed]
        lines += [line.replace("\n", " ") for line in of]
    return "\n".join(lines) + "\n"


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    return "failed" if "failed" in entry else f"{entry['milliseconds']:.4g}"


def _share(entry: dict[str, Any], milliseconds: float, limits: dict[str, float]) -> str:
    seconds, found = milliseconds / 1e3, []
    copy, products = limits.get("copy_bytes_per_second"), limits.get("cublas_bf16_flops_per_second")
    if entry["bytes"] and copy:
        found.append(entry["bytes"] / seconds / copy)
    if entry["flops"] and products:
        found.append(entry["flops"] / seconds / products)
    return f"{max(found):.0%}" if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", default=",".join(BUILDERS), help="workloads, by name")
    parser.add_argument("--with", dest="libraries", default="graphtorch,torch")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="the folder of the results")
    parser.add_argument("--minutes", type=float, default=25.0, help="how long it may take")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    parser.add_argument("--simulate", action="store_true", help="toy sizes on a simulated device")
    parser.add_argument("--dry-run", action="store_true", help="compile for sm_90, run nothing")
    parser.add_argument("--host-cost", action="store_true", help="what a replayed step costs the host")
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = set(wanted) - set(BUILDERS)
    if unknown:
        parser.error(f"no workload is called {', '.join(sorted(unknown))}; there are {', '.join(BUILDERS)}")
    if options.host_cost:
        from gpu_host_cost import host_cost

        return host_cost()
    toy = "simulated" if options.simulate else "dry" if options.dry_run else ""
    if not toy:
        sys.path.insert(0, str(HERE.parent))
        import graphtorch

        if not graphtorch.cuda.is_available():
            parser.error(f"there is no GPU ({graphtorch.cuda.why_unavailable()}); --simulate runs without one")
    libraries = [lib for lib in options.libraries.split(",") if importlib.util.find_spec(lib) or lib == "graphtorch"]
    if toy == "dry":
        libraries = ["graphtorch"]
    command = "python benchmarks/gpu.py " + " ".join(sys.argv[1:])
    results = Results(options.out, toy, command.strip(), options.fresh, options.retry)
    tasks = plan(toy, wanted, libraries)
    done = collect(tasks, results, toy, options.minutes)
    print(results.write())
    if not done:
        missing = sum(not results.has(t) for t in tasks)
        print(f"{missing} of {len(tasks)} tasks are left: the same command goes on with them")


if __name__ == "__main__":
    main()
