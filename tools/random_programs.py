"""Runs random programs eagerly and compiled, and reports those that differ.

    python tools/random_programs.py [--kind program] [--first 0] [--count 20000] [--backends cpu,numpy] [--check]
    GRAPHTORCH_CUDA=simulated python tools/random_programs.py --backends triton,eager

Kinds: `program` are a few statements, several calls, changes of state between them (tests/frontend/random_program.py);
`training` are training steps of a model with an optimizer (random_training.py). A program is made from its seed, so the
same numbers give the same programs; backends take turns, and for `triton` tensors lie on the CUDA device, in eager
execution too; `eager` compares eager execution there and on the CPU. `--check` compiles with `check=True`. Prints
each failure as a script that has nothing to leave out, then how many agreed; the exit status is 1 if one did not.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

MEMORY = 6 << 30  # bytes; a program that has not enough eagerly is none (a Hessian of a Hessian, differentiated again)
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "frontend")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("program", "training", "counting"), default="program")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--backends", default="cpu,numpy")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    from random_running import NO_PROGRAMS, ROUNDING, failure, shrink

    made = importlib.import_module(f"random_{options.kind}").from_seed
    backends = options.backends.split(",")
    if sys.platform != "win32" and not {"triton", "eager"} & {*backends}:  # a simulated device reserves more addresses
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    start, bad, none = time.perf_counter(), 0, 0
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GRAPHTORCH_CACHE"] = cache
        for n in range(options.count):
            seed, backend = options.first + n, backends[n % len(backends)]
            program = made(seed)
            NO_PROGRAMS.clear()
            found = failure(program, backend, options.check)
            none += len(NO_PROGRAMS)
            if found is not None:
                bad += 1
                small = shrink(program, backend, check=options.check)
                print(f"seed {seed}, {backend}: {found}\n{small.script()}\n", flush=True)
            if n % 1000 == 999:
                print(
                    f"{n + 1} programs, {bad} differ, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True
                )
    print(
        f"{options.count - bad} of {options.count} agree; {len(ROUNDING)} of them only in double precision, "
        f"{none} are refused by eager execution"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
