"""LeNet training steps, the contenders in turn in one process: the cpu and numpy backends, ours eager, PyTorch eager.

    OMP_NUM_THREADS=1 GRAPHTORCH_NUM_THREADS=1 python benchmarks/convolution_step.py [--seconds 25] [--threads 1]

With one thread each, and by the tenth percentile, the figures stand even while other work runs on the machine: threads
that wait for one another do not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cpu
import torch

import graphtorch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=25, help="for each workload")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in ("lenet4", "lenet128"):
        contenders: dict[str, Any] = {}
        for backend in ("cpu", "numpy"):
            step, given = cpu.WORKLOADS[name](graphtorch)
            contenders[backend] = graphtorch.compile(step, backend=backend), given
        contenders["eager"] = cpu.WORKLOADS[name](graphtorch)
        contenders["PyTorch eager"] = cpu.WORKLOADS[name](torch)
        times: dict[str, list[float]] = {n: [] for n in contenders}
        end, rounds = time.perf_counter() + options.seconds, 0
        while time.perf_counter() < end or rounds < 8:
            for contender, (step, given) in contenders.items():
                for again in range(3):  # the first of each turn finds the caches full of the others' data
                    start = time.perf_counter()
                    step(*given)
                    if again and rounds > 2:
                        times[contender].append(time.perf_counter() - start)
            rounds += 1
        print(f"{name}: {rounds} rounds")
        tenth = {n: sorted(t)[len(t) // 10] for n, t in times.items()}
        for contender, found in times.items():
            median = statistics.median(found)
            print(
                f"  {contender:14} median {median * 1e3:8.3f} ms, tenth percentile {tenth[contender] * 1e3:8.3f} ms; "
                f"cpu / this {statistics.median(times['cpu']) / median:.2f} and {tenth['cpu'] / tenth[contender]:.2f}"
            )


if __name__ == "__main__":
    main()
