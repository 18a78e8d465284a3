"""One library's side of benchmarks/gpu.py: a process that is told what to measure, line by line, and answers each.

A request is a line of JSON with `kind`: "about", "limits" (what the device can do), "error" (how far a toy-sized result
is from float64) or "time". The answer is a line that begins with RESULT; a failure is an answer too."""

from __future__ import annotations

import gc
import importlib
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from gpu_workloads import BUILDERS, Work

FLUSH = 1 << 30  # bytes: more than any second-level cache, and long enough for the host to get ahead of the device


class Runner:
    """Times workloads in one library. `toy`: "" on a GPU; "simulated", where PyTorch runs on the CPU, and graphtorch on
    a simulated device; "dry", where kernels are compiled and not run."""

    def __init__(self, library: str, toy: str) -> None:
        self.library, self.toy = library, toy
        self.torch = importlib.import_module(library)
        if toy == "dry":
            from gpu_first_step import device_of

            from graphtorch.runtime.cuda.driver import use_driver

            use_driver(device_of("sm_90"))
        self.device = "cpu" if toy and library == "torch" else "cuda"
        self.events = self.device == "cuda"
        if self.events:
            self.flush = self.torch.empty(256 if toy else FLUSH // 4, device="cuda")

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
            times.append(self.once(run))
        return {"milliseconds": statistics.median(times), "first_call_seconds": first, "runs": len(times)}

    def once(self, run: Callable[[], Any]) -> float:
        """Milliseconds of one run: between two events, after the second-level cache was overwritten. The host is ahead
        of the device by then, so that what launches cost it is seen only where it is more than that takes."""
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

    def about(self) -> dict[str, Any]:
        torch = self.torch
        name = torch.cuda.get_device_name() if self.events else "cpu"
        found = {"version": getattr(torch, "__version__", ""), "device": name, "python": platform.python_version()}
        if not self.toy:
            try:
                found["triton"] = importlib.import_module("importlib.metadata").version("triton")
            except Exception as error:
                found["triton"] = str(error)
        return found

    def limits(self) -> dict[str, float]:
        """The device's rates: bytes a second of a copy (read and written), and products a second (cuBLAS)."""
        torch = self.torch
        n = 1 << (10 if self.toy else 28)
        x, y = torch.ones(n, device=self.device), torch.empty(n, device=self.device)
        copied = min(self.once(lambda: y.copy_(x)) for _ in range(2 if self.toy else 20))
        found = {"copy_bytes_per_second": 2 * 4 * n / copied * 1e3}
        if self.library == "torch":
            size = 32 if self.toy else 8192
            a, b = (torch.randn(size, size, device=self.device).to(torch.bfloat16) for _ in range(2))
            product = min(self.once(lambda: a @ b) for _ in range(2 if self.toy else 20))
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

    def answer(self, kind: str, name: str = "", sizes: Any = (), variant: str = "") -> dict[str, Any]:
        if kind == "about":
            return self.about()
        if kind == "limits":
            return self.limits()
        if kind == "error":
            return {"value": self.error(name, sizes, variant)}
        return self.measure(name, sizes, variant)

    def forget(self) -> None:
        """Free what the last workload held."""
        dynamo = getattr(self.torch, "_dynamo", None)
        if dynamo is not None and self.library == "torch":
            dynamo.reset()
        gc.collect()
        if self.events:
            self.torch.cuda.empty_cache()


def serve(library: str, toy: str) -> None:
    """Answer requests until there are no more."""
    runner: Runner | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if runner is None:
                runner = Runner(library, toy)
            found = runner.answer(**request)
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"[:300]}
        print("RESULT " + json.dumps(found), flush=True)
        if runner is not None and "failed" not in found:
            runner.forget()
