"""Compiles whatever autotuning may choose in the cases of benchmarks/gpu.py, for every target, without a GPU.

    python tools/compile_candidates.py [--targets sm_80,sm_90,sm_100,gfx942] [--kinds] [--share 1/1] [--at FOLDER]
        [CASE ...]

Each case (all, or those whose name begins so: "matmul", "gpt") is captured at its real sizes on a device that runs
nothing, and each different function of each candidate of its steps is kept in the folder; then all are compiled. What a
target refuses, what needs more than it has and what spills registers is printed: for a default that is a mistake, other
candidates are left out where they run. Options are those of compile_test_kernels.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "benchmarks")]

from compile_test_kernels import Recorder, compile_recorded, options  # noqa: E402


def collect(file: Path, names: Sequence[str]) -> None:
    """Write down what the steps of the cases may become."""
    from gpu_worker import Runner
    from gpu_workloads import BUILDERS, CORE, MORE

    from graphtorch.lowering.triton import autotune, compiler
    from graphtorch.lowering.triton.compiler import Compiled
    from graphtorch.lowering.triton.errors import UnsupportedError

    os.environ["GRAPHTORCH_CACHE"] = ""
    recorder = Recorder(file)
    case = ""

    def nothing(function: Any, to: Any) -> Compiled:
        return Compiled(function.name, to.name, b"", "", 0, function.num_warps, 1, 0)

    def choose(tuner: autotune.Tuner, steps: Sequence[Any], bindings: Mapping[str, int]) -> Any:
        made: list[Any] = []
        for step in steps:
            try:
                found = autotune.candidates(step, bindings)
            except UnsupportedError as error:
                made.append(error)
                continue
            for i, candidate in enumerate(found):
                recorder.test = f"{case}: {step.name}, {candidate.label}{'' if i else ' (default)'}"
                for function in candidate.functions:
                    recorder.note(function)
            made.append(list(found[0].functions))
        return made

    compiler.compile_here = nothing
    autotune.Tuner.choose = choose  # type: ignore[method-assign]
    runner = Runner("graphtorch", "dry")
    for name, sizes in (*CORE, *MORE):
        case = f"{name} {' '.join(map(str, sizes))}"
        if not names or any(case.startswith(n) for n in names):
            print(case, flush=True)
            runner.step(BUILDERS[name](runner.torch, runner.device, *sizes), "max-autotune")()


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--at", type=Path, default=Path("build/candidates"))
    parser.add_argument("cases", nargs="*", metavar="CASE")
    args = parser.parse_args()
    args.at.mkdir(parents=True, exist_ok=True)
    kernels = args.at / "kernels.jsonl"
    if not kernels.exists():
        unfinished = args.at / "kernels.unfinished"
        unfinished.unlink(missing_ok=True)
        collect(unfinished, args.cases)
        unfinished.rename(kernels)
    return compile_recorded(kernels, args)


if __name__ == "__main__":
    sys.exit(main())
