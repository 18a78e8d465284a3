"""What the first training step on a GPU costs the host: capture, code generation, Triton's compiler, loading.

    python benchmarks/gpu_first_step.py                    # the 124M GPT of benchmarks/gpu.py, for sm_90; needs no GPU
    python benchmarks/gpu_first_step.py --target sm_100 --layers 2 --profile

Kernels are compiled for a GPU of that kind and launched on a device that only counts, in processes of their own: with
an empty cache, and with the one that this left. Seconds of the clock; `triton` says whether Triton was imported."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]


def device_of(target: str) -> Any:
    """A device that compiles kernels for a target, with the figures of an H200, and runs none."""
    from graphtorch.runtime.cuda.driver import Properties
    from graphtorch.runtime.cuda.simulated import SimulatedDriver

    number = int(target.removeprefix("sm_"))

    class Compiling(SimulatedDriver):
        interprets = False

        def properties(self, index: int) -> Properties:
            return Properties(
                f"compiled for {target}",
                number // 10,
                number % 10,
                total_memory=self.memory,
                multi_processor_count=132,
                L2_cache_size=50 << 20,
                shared_memory_per_block_optin=227 << 10,
                shared_memory_per_multiprocessor=228 << 10,
            )

    return Compiling(1, memory=139 << 30, executes=False)


def first_step(target: str, mode: str, batch: int, layers: int, profile: bool) -> dict[str, Any]:
    start = time.perf_counter()
    from gpu_workloads import gpt

    import graphtorch as torch
    from graphtorch.runtime.cuda.driver import use_driver

    use_driver(device_of(target))
    imported = time.perf_counter()
    work = gpt(torch, "cpu", batch, 1024, layers, 12, 768, 50304)
    model, optimizer = work.keep[0].to("cuda"), work.optimizer
    x, y = (t.to("cuda") for t in work.inputs)

    @torch.compile(mode=mode)  # type: ignore[untyped-decorator, unused-ignore]
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(x).float(), y)
        loss.backward()
        optimizer.step()
        return loss

    built = time.perf_counter()
    had = "triton" in sys.modules
    if profile:
        import cProfile
        import pstats

        with cProfile.Profile() as profiler:
            step(x, y)
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
    first = time.perf_counter()
    step(x, y)
    done = time.perf_counter()
    step(x, y)
    second = time.perf_counter()
    (made,) = step.specializations
    sources = made.compiled.executable.sources()
    return {
        "import": imported - start,
        "build": built - imported,
        "first": done - (built if profile else first),
        "second": second - done,
        "launches": len(made.compiled.executable.program({}).plan.launches),
        "sources": len(set(sources.values())),
        "triton": had or "triton" in sys.modules,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--target", default="sm_90")
    parser.add_argument("--mode", default="reduce-overhead")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--profile", action="store_true", help="where the time goes, in both processes")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        made = first_step(options.target, options.mode, options.batch, options.layers, options.profile)
        print("RESULT " + json.dumps(made))
        return
    print("| cache | import | model | first step | second step | launches | sources | triton |\n" + "|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("empty", "filled"):
            environment = {**os.environ, "GRAPHTORCH_CACHE": folder, "GRAPHTORCH_VERIFY": "0"}
            command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            if options.profile:
                print(done.stdout)
            line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT "))
            r = json.loads(line.removeprefix("RESULT "))
            cells = [f"{r[k]:.2f}" for k in ("import", "build", "first", "second")]
            print(f"| {name} | {' | '.join(cells)} | {r['launches']} | {r['sources']} | {r['triton']} |", flush=True)


if __name__ == "__main__":
    main()
