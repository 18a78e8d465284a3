"""One library's side of benchmarks/gpu.py: a process that is told what to measure, line by line, and answers each.

A request is a line of JSON with `kind`: "about", "limits" (what the device can do), "error" (how far a toy-sized result
is from float64 on the CPU), "agreement" (the same at real sizes, beside PyTorch, in a process that has both) or "time".
The answer is a line that begins with RESULT; a failure is an answer too.

PyTorch is set up as its guides for performance say: cuDNN chooses by measurement, images have their channels side by
side, eager optimizers are the fused ones, compiled ones are compiled. Precision is each library's default, which is the
same: no tf32 in float32 products."""

from __future__ import annotations

import gc
import importlib
import json
import platform
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from gpu_workloads import BUILDERS, Work

FLUSH = 1 << 30  # bytes: more than any second-level cache, and long enough for the host to get ahead of the device


class Runner:
    """Times workloads in one library, or with "both" compares them. `toy`: "" on a GPU; "simulated", where PyTorch runs
    on the CPU, and graphtorch on a simulated device; "dry", where kernels are compiled and not run."""

    def __init__(self, library: str, toy: str) -> None:
        self.library, self.toy = library.replace("both", "graphtorch"), toy
        self.torch = importlib.import_module(self.library)
        self.peer = importlib.import_module("torch") if library == "both" else None
        if toy == "dry":
            from gpu_first_step import device_of

            from graphtorch.runtime.cuda.driver import use_driver

            use_driver(device_of("sm_90"))
        self.device = "cpu" if toy and library == "torch" else "cuda"
        self.events = self.device == "cuda"
        if self.library == "torch":
            self.torch.backends.cudnn.benchmark = True
        if self.events and self.peer is None:
            self.flush = self.torch.empty(256 if toy else FLUSH // 4, device="cuda")

    def compiled(self, function: Callable[..., Any], variant: str, whole_step: bool = True) -> Callable[..., Any]:
        if variant == "eager":
            return function
        options: dict[str, Any] = {} if variant == "default" else {"mode": variant}
        if self.library == "torch" and variant == "max-autotune" and not whole_step:
            # A graph of a single operator would copy what it is given, each time, to places of its own.
            options = {"mode": "max-autotune-no-cudagraphs"}
        if self.toy and self.library == "torch" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            options = {"backend": "eager"}
        made: Callable[..., Any] = self.torch.compile(function, **options)
        return made

    def step(self, work: Work, variant: str) -> Callable[[], Any]:
        """What is timed: forward, and where wanted backward and the optimizer's step.

        graphtorch compiles all of it as one graph. PyTorch compiles the forward pass, whose backward pass comes with
        it, and the optimizer's step.
        """
        forward, inputs, optimizer = work.forward, work.inputs, work.optimizer
        is_step = work.backward and optimizer is not None
        if not work.backward and optimizer is None:
            run = self.compiled(forward, variant, False)
            return lambda: run(*inputs)
        leaves = [x for x in inputs if x.requires_grad]
        gradient = work.gradient

        def clear() -> None:
            for leaf in leaves:
                leaf.grad = None

        if self.library == "graphtorch" or variant == "eager":
            if self.library == "torch" and optimizer is not None:
                for group in optimizer.param_groups:
                    group["fused"] = True

            def whole(*given: Any) -> Any:
                if not work.backward:
                    optimizer.step()
                    return None
                clear()
                if optimizer is not None:
                    optimizer.zero_grad()
                result = forward(*given)
                result.backward(gradient)
                if optimizer is not None:
                    optimizer.step()
                return result

            run = self.compiled(whole, variant, is_step)
            return lambda: run(*inputs)
        ahead = self.compiled(forward, variant, is_step)
        begin = self.torch.compiler.cudagraph_mark_step_begin
        update = None if optimizer is None else self.compiled(lambda: optimizer.step(), "default")

        def parts() -> Any:
            result = None
            if work.backward:
                clear()
                if optimizer is not None:
                    optimizer.zero_grad()
                begin()  # what graphs of the last step wrote may be overwritten
                result = ahead(*inputs)
                result.backward(gradient)
            if update is not None:
                update()
            return result

        return parts

    def wait(self) -> None:
        if self.events:
            self.torch.cuda.synchronize()

    def time(self, run: Callable[[], Any]) -> dict[str, Any]:
        """The first call's seconds (compilation), and the median of later ones in milliseconds. Of a training step the
        first loss, too."""
        start = time.perf_counter()
        result = run()
        self.wait()
        found: dict[str, Any] = {"first_call_seconds": time.perf_counter() - start}
        if result is not None and result.numel() == 1:
            found["first_loss"] = float(result.detach())
        del result
        begin, count = time.perf_counter(), 0
        # Shapes settle, graphs are recorded, the device's clock rises.
        while count < 2 or (not self.toy and (count < 5 or (time.perf_counter() - begin < 0.1 and count < 100))):
            run()
            self.wait()
            count += 1
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < (2 if self.toy else 10) or (time.perf_counter() - begin < 0.5 and len(times) < 100):
            if self.toy and len(times) >= 2:
                break
            times.append(self.once(run))
        return {"milliseconds": statistics.median(times), "least": min(times), "runs": len(times), **found}

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
            if self.library == "torch":
                found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
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

    def agreement(self, name: str, sizes: Any, variant: str) -> dict[str, Any]:
        """How far the result and gradients are from PyTorch's in float64 on the same device, in the norm; `peer`: how
        far PyTorch's own are in the workload's dtype."""
        peer = self.peer
        place = "cuda" if peer.cuda.is_available() and not self.toy else "cpu"
        peer.manual_seed(0)
        work, mine = BUILDERS[name](peer, place, *sizes), BUILDERS[name](self.torch, self.device, *sizes)
        leaves = [i for i, x in enumerate(work.inputs) if x.requires_grad]

        def results(torch: Any, forward: Any, given: list[Any], slope: Any, variant: str) -> list[Any]:
            def run(*inputs: Any) -> tuple[Any, ...]:
                made = forward(*inputs)
                return made, *(torch.autograd.grad(made, [inputs[i] for i in leaves], slope) if leaves else ())

            inputs = [x.detach().requires_grad_(i in leaves) for i, x in enumerate(given)]
            return [x.detach() for x in self.compiled(run, variant)(*inputs)]

        def wide(x: Any) -> Any:
            return x.double() if x is not None and x.is_floating_point() else x

        def moved(x: Any) -> Any:
            """A tensor of PyTorch's as one of this library's, through the host; float32 holds all that is rounded."""
            if x is None:
                return None
            if not x.is_floating_point():
                return self.torch.from_numpy(x.cpu().numpy()).to(self.device)
            made = self.torch.from_numpy(x.detach().float().contiguous().cpu().numpy()).to(self.device)
            return made.to(getattr(self.torch, str(x.dtype).removeprefix("torch.")))

        made = results(self.torch, mine.forward, [moved(x) for x in work.inputs], moved(work.gradient), variant)
        found = [peer.from_numpy(x.float().cpu().numpy()).to(place) for x in made]
        del made, mine
        self.forget()
        theirs = results(peer, work.forward, work.inputs, work.gradient, "eager")
        wanted = results(peer, work.forward, [wide(x) for x in work.inputs], wide(work.gradient), "eager")

        def off(made: list[Any]) -> float:
            pairs = zip(made, wanted, strict=True)
            return max(float((a.double() - b).norm() / b.norm().clamp_min(1e-30)) for a, b in pairs)

        return {"value": off(found), "peer": off(theirs)}

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
        if kind == "agreement":
            return self.agreement(name, sizes, variant)
        return self.measure(name, sizes, variant)

    def forget(self) -> None:
        """Free what the last workload held."""
        dynamo = getattr(self.torch, "_dynamo", None)
        if dynamo is not None and self.library == "torch":
            dynamo.reset()
        gc.collect()
        for torch in (self.torch, self.peer) if self.events else ():
            if torch is not None:
                torch.cuda.empty_cache()


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
            try:
                runner.forget()
            except Exception:
                traceback.print_exc()
