"""Operators and training steps on one GPU: graphtorch beside PyTorch, and beside what the device can do.

    python benchmarks/gpu.py                      # on a machine with a GPU; about half an hour
    python benchmarks/gpu.py --only matmul,gpt    # some of it
    python benchmarks/gpu.py --simulate           # no GPU: the code of this file at toy sizes; figures mean nothing
    python benchmarks/gpu.py --host-cost          # no GPU: what a replayed step costs the host

Each library runs in a process of its own: graphtorch (eager, compiled, compiled for most speed) and PyTorch, if it is
installed (eager, `torch.compile`, and its mode "max-autotune"). A time is the median over runs between two events, with
the second-level cache overwritten before each. First the device's own rates are measured: a copy in device memory, and
cuBLAS. What a call computes is compared with the same computation in float64 on the CPU, at toy sizes. Results go to
benchmarks/results/gpu.json and gpu.md."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_workloads import BUILDERS, SIZES, TOY, Work

HERE = Path(__file__).resolve().parent
VARIANTS = {"graphtorch": ("eager", "default", "max-autotune"), "torch": ("eager", "default", "max-autotune")}
FLUSH = 256 << 20  # bytes, more than any second-level cache


def label(name: str, sizes: Any) -> str:
    return f"{name}({', '.join(map(str, sizes))})"


# -- one process a library --------------------------------------------------------------------------------------------


class Runner:
    """Times workloads in one library. With `toy`, PyTorch runs on the CPU, and graphtorch on a simulated device."""

    def __init__(self, library: str, toy: bool) -> None:
        self.library, self.toy = library, toy
        self.torch = importlib.import_module(library)
        self.device = "cpu" if toy and library == "torch" else "cuda"
        self.events = self.device == "cuda"
        if self.events:
            self.flush = self.torch.empty(FLUSH // 4 if not toy else 256, device="cuda")

    def compiled(self, function: Callable[..., Any], variant: str) -> Callable[..., Any]:
        if variant == "eager":
            return function
        options: dict[str, Any] = {} if variant == "default" else {"mode": variant}
        if self.toy and self.library == "torch":
            options = {"backend": "eager"}
        made: Callable[..., Any] = self.torch.compile(function, **options)
        return made

    def step(self, work: Work, variant: str) -> Callable[[], Any]:
        """What is timed: forward, and where wanted backward and the optimizer's step.

        graphtorch compiles all of it as one graph. PyTorch compiles the forward pass, whose backward pass comes with
        it, and the optimizer's step.
        """
        forward, inputs, optimizer = work.forward, work.inputs, work.optimizer
        if not work.backward and optimizer is None:
            run = self.compiled(forward, variant)
            return lambda: run(*inputs)
        leaves = [x for x in inputs if x.requires_grad]

        def clear() -> None:
            for leaf in leaves:
                leaf.grad = None

        if self.library == "graphtorch" or variant == "eager":

            def whole(*given: Any) -> Any:
                if not work.backward:
                    optimizer.step()
                    return None
                clear()
                if optimizer is not None:
                    optimizer.zero_grad()
                loss = forward(*given)
                loss.backward()
                if optimizer is not None:
                    optimizer.step()
                return loss

            run = self.compiled(whole, variant)
            return lambda: run(*inputs)
        ahead = self.compiled(forward, variant)
        update = None if optimizer is None else self.compiled(optimizer.step, "default")

        def parts() -> Any:
            loss = None
            if work.backward:
                clear()
                if optimizer is not None:
                    optimizer.zero_grad()
                loss = ahead(*inputs)
                loss.backward()
            if update is not None:
                update()
            return loss

        return parts

    def wait(self) -> None:
        if self.events:
            self.torch.cuda.synchronize()

    def time(self, run: Callable[[], Any]) -> dict[str, float]:
        """The first call's seconds (compilation), and the median of later ones in milliseconds."""
        start = time.perf_counter()
        run()
        self.wait()
        first = time.perf_counter() - start
        for _ in range(2 if self.toy else 5):  # shapes settle, graphs are recorded
            run()
        self.wait()
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < (2 if self.toy else 10) or (time.perf_counter() - begin < 0.5 and len(times) < 100):
            if self.toy and len(times) >= 2:
                break
            times.append(self._once(run))
        return {"milliseconds": statistics.median(times), "first_call_seconds": first, "runs": len(times)}

    def _once(self, run: Callable[[], Any]) -> float:
        if not self.events:
            start = time.perf_counter()
            run()
            return (time.perf_counter() - start) * 1e3
        event = self.torch.cuda.Event
        begin, end = event(enable_timing=True), event(enable_timing=True)
        self.flush.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    def limits(self) -> dict[str, float]:
        """The device's rates: bytes a second of a copy (read and written), and products in bfloat16 a second."""
        torch = self.torch
        n = 1 << (10 if self.toy else 28)
        x, y = torch.ones(n, device=self.device), torch.empty(n, device=self.device)
        copied = min(self._once(lambda: y.copy_(x)) for _ in range(2 if self.toy else 20))
        found = {"copy_bytes_per_second": 2 * 4 * n / copied * 1e3}
        if self.library == "torch":
            size = 32 if self.toy else 8192
            a, b = (torch.randn(size, size, device=self.device).to(torch.bfloat16) for _ in range(2))
            product = min(self._once(lambda: a @ b) for _ in range(2 if self.toy else 20))
            found["cublas_bf16_flops_per_second"] = 2.0 * size**3 / product * 1e3
        return found

    def error(self, name: str, sizes: Any, variant: str) -> float | None:
        """How far a toy-sized result is from float64 on the CPU, relative to the largest element. Inputs are the same
        in every library."""
        import graphtorch as exact

        exact.manual_seed(0)
        work = BUILDERS[name](exact, "cpu", *sizes)
        if work.optimizer is not None:
            return None
        tensors = [t.detach() for t in work.inputs]
        wide = [t.double() if t.is_floating_point() else t for t in tensors]
        with exact.no_grad():
            wanted = work.forward(*wide).double()
        torch = self.torch
        mine = BUILDERS[name](torch, self.device, *sizes)
        given = [
            torch.tensor(t.float().tolist()).to(self.device, m.dtype)
            if m.is_floating_point()
            else torch.tensor(t.tolist()).to(self.device)
            for t, m in zip(tensors, mine.inputs, strict=True)
        ]
        with torch.no_grad():
            found = self.compiled(mine.forward, variant)(*given).float().cpu()
        difference = exact.tensor(found.tolist()).double() - wanted
        return float(difference.abs().max() / wanted.abs().max())

    def measure(self, name: str, sizes: Any, variant: str) -> dict[str, Any]:
        torch = self.torch
        torch.manual_seed(0)
        if self.events:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        work = BUILDERS[name](torch, self.device, *sizes)
        result: dict[str, Any] = self.time(self.step(work, variant))
        result |= {"bytes": work.bytes, "flops": work.flops}
        if self.events:
            result["peak_bytes"] = torch.cuda.max_memory_allocated()
        return result


def worker(library: str, toy: bool, wanted: list[str]) -> None:
    """Write one line of JSON for each figure. A workload that fails is a line as well, and the others go on."""
    runner = Runner(library, toy)

    def emit(**entry: Any) -> None:
        print("RESULT " + json.dumps({"library": library, **entry}), flush=True)

    torch = runner.torch
    version = getattr(torch, "__version__", "")
    name = torch.cuda.get_device_name() if runner.events else "cpu"
    emit(kind="about", version=version, device=name, python=platform.python_version())
    emit(kind="limits", **runner.limits())
    for variant in VARIANTS[library]:
        for name, sizes in TOY:
            if name in wanted and variant != "max-autotune":
                try:
                    found = runner.error(name, sizes, variant)
                except Exception as error:
                    emit(kind="error", variant=variant, name=name, failed=f"{type(error).__name__}: {error}"[:300])
                    continue
                if found is not None:
                    emit(kind="error", variant=variant, name=name, value=found)
        for name, sizes in TOY if toy else SIZES:
            if name not in wanted:
                continue
            try:
                emit(kind="time", variant=variant, name=name, sizes=sizes, **runner.measure(name, sizes, variant))
            except Exception as error:
                failed = f"{type(error).__name__}: {error}"[:300]
                emit(kind="time", variant=variant, name=name, sizes=sizes, failed=failed)
            getattr(torch, "_dynamo", None) and torch._dynamo.reset()


# -- the whole --------------------------------------------------------------------------------------------------------


def collect(libraries: list[str], toy: bool, wanted: list[str]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for library in libraries:
        environment = dict(os.environ)
        if toy:
            environment["GRAPHTORCH_CUDA"] = "simulated"
        root = str(HERE.parent)
        environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
        command = [sys.executable, str(Path(__file__)), "--worker", library, "--only", ",".join(wanted)]
        process = subprocess.Popen(
            command + (["--simulate"] if toy else []), env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("RESULT "):
                entries.append(json.loads(line[len("RESULT ") :]))
                entry = entries[-1]
                if entry["kind"] == "time":
                    shown = entry.get("failed") or f"{entry['milliseconds']:.4g} ms"
                    print(f"{library} {entry['variant']}: {label(entry['name'], entry['sizes'])}: {shown}", flush=True)
        if process.wait():
            entries.append({"kind": "failed", "library": library, "code": process.returncode})
            print(f"the process of {library} ended with {process.returncode}", file=sys.stderr)
    return entries


def report(entries: list[dict[str, Any]], toy: bool, command: str) -> str:
    """The entries as Markdown."""
    lines = ["# Measurements on a GPU", ""]
    if toy:
        lines += ["**Simulated: toy sizes, no GPU. The figures mean nothing.**", ""]
    for entry in entries:
        if entry["kind"] == "about":
            lines.append(f"- {entry['library']} {entry['version']}, Python {entry['python']}, {entry['device']}")
        if entry["kind"] == "limits":
            figures = {k: v for k, v in entry.items() if k not in ("kind", "library")}
            rates = ", ".join(f"{k.replace('_', ' ')}: {v:.4g}" for k, v in figures.items())
            lines.append(f"- {entry['library']}: {rates}")
    lines += ["", f"    {command}", ""]
    limits: dict[str, float] = {}
    for entry in entries:
        if entry["kind"] == "limits":
            for key, value in entry.items():
                if isinstance(value, float):
                    limits[key] = max(limits.get(key, 0.0), value)
    columns = [(lib, v) for lib in ("graphtorch", "torch") for v in VARIANTS[lib]]
    present = {e["library"] for e in entries if e["kind"] == "time"}
    columns = [c for c in columns if c[0] in present]
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
            times = [e["milliseconds"] for (of, _), e in row.items() if of == library and "milliseconds" in e]
            best[library] = min(times, default=None)
        mine = best["graphtorch"]
        some = next((e for e in row.values() if "milliseconds" in e), None)
        share = "" if some is None or mine is None else _share(some, mine, limits)
        ratio = f"{best['torch'] / mine:.2f}" if mine and best["torch"] else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {share} | {ratio} |")
    lines += ["", "First calls, with compilation, in seconds (training steps):", ""]
    for name, row in rows.items():
        if name.startswith(("mlp", "resnet18", "gpt")):
            made = {f"{lib} {v}": e["first_call_seconds"] for (lib, v), e in row.items() if "milliseconds" in e}
            seconds = [f"{variant}: {value:.2f}" for variant, value in made.items()]
            lines.append(f"- {name}: {', '.join(seconds)}")
    lines += ["", "Largest relative difference from float64, at toy sizes:", ""]
    for entry in entries:
        if entry["kind"] == "error":
            value = entry.get("failed") or f"{entry['value']:.2g}"
            lines.append(f"- {entry['name']}, {entry['library']} {entry['variant']}: {value}")
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


# -- the host ---------------------------------------------------------------------------------------------------------


def least(call: Callable[[], Any]) -> float:
    """The shortest of twenty rounds of calls, in microseconds a call."""
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(300):
            call()
        best = min(best, (time.perf_counter() - start) / 300)
    return best * 1e6


def host_cost() -> None:
    """What a replayed training step costs the host, on a device that records instead of running."""
    import graphtorch as torch
    from graphtorch.runtime.cuda.driver import use_driver
    from graphtorch.runtime.cuda.simulated import SimulatedDriver

    use_driver(SimulatedDriver(1, executes=False))
    a, b = torch.ones(10, 10, device="cuda"), torch.ones(10, 10, device="cuda")
    calls: dict[str, Callable[[], Any]] = {
        "a + b": lambda: a + b,
        "a.mul_(0.5)": lambda: a.mul_(0.5),
        "a.sum(1)": lambda: a.sum(1),
        "a @ b": lambda: a @ b,
    }
    print("| eager | microseconds |\n|---|---|")
    for name, call in calls.items():
        print(f"| {name} | {least(call):.1f} |")
    print("\n| step | mode | launches | inputs | microseconds |\n|---|---|---|---|---|")
    def linear(layers: int) -> Work:
        model = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(layers)]).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return Work(lambda x: model(x).square().mean(), [torch.ones(8, 16, device="cuda")], optimizer=optimizer)

    cases: list[tuple[str, Callable[[], Work]]] = [
        *((f"{layers} linear layers, AdamW", lambda layers=layers: linear(layers)) for layers in (1, 4, 12)),
        ("GPT of 12 layers, AdamW", lambda: BUILDERS["gpt"](torch, "cuda", 2, 16, 12, 2, 32, 64)),
    ]
    for name, build in cases:
        for mode in ("default", "reduce-overhead"):
            work = build()
            forward, optimizer = work.forward, work.optimizer

            @torch.compile(mode=mode)  # type: ignore[untyped-decorator, unused-ignore]
            def step(*given: Any, forward: Any = forward, optimizer: Any = optimizer) -> Any:
                optimizer.zero_grad()
                loss = forward(*given)
                loss.backward()
                optimizer.step()
                return loss

            for _ in range(5):
                step(*work.inputs)
            best = least(lambda: step(*work.inputs))  # noqa: B023
            (made,) = step.specializations
            launches = len(made.compiled.executable.sources())
            print(f"| {name} | {mode} | {launches} | {len(made.captured.sources)} | {best:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", default=",".join(BUILDERS), help="workloads, by name")
    parser.add_argument("--with", dest="libraries", default="graphtorch,torch")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--simulate", action="store_true", help="toy sizes on a simulated device")
    parser.add_argument("--host-cost", action="store_true", help="what a replayed step costs the host")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = set(wanted) - set(BUILDERS)
    if unknown:
        parser.error(f"no workload is called {', '.join(sorted(unknown))}; there are {', '.join(BUILDERS)}")
    if options.host_cost:
        return host_cost()
    if options.worker:
        return worker(options.worker, options.simulate, wanted)
    if not options.simulate:
        import graphtorch

        if not graphtorch.cuda.is_available():
            parser.error(f"there is no GPU ({graphtorch.cuda.why_unavailable()}); --simulate runs without one")
    libraries = [lib for lib in options.libraries.split(",") if importlib.util.find_spec(lib) or lib == "graphtorch"]
    entries = collect(libraries, options.simulate, wanted)
    name = "gpu-simulated" if options.simulate else "gpu"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    command = "python benchmarks/gpu.py " + " ".join(sys.argv[1:])
    text = report(entries, options.simulate, command.strip())
    (options.out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
    if any(e["kind"] == "failed" for e in entries):
        sys.exit(1)


if __name__ == "__main__":
    main()
