"""What a call of a compiled function costs outside of its kernels.

    python benchmarks/call_overhead.py [--rounds 15] [--peers]

Three functions on the cpu backend: one operator on ten elements, a training step of ten linear layers with SGD, and the
training step of examples/train_digits.py. Each figure is the least of several rounds, in microseconds, on one thread:

    call        the whole call
    kernels     the native code alone, called again and again on the memory of one call
    launch      the executable's `run` beyond that: taking addresses, making results, entering native code
    guards      checking what the compiled step assumed; the checks run, and the call ends before the execution
    results     the rest: gathering inputs, raising versions, wrapping results in tensors
    overhead    launch + guards + results

`--peers` adds the calls of PyTorch, eager and under torch.compile, where they can be had, each in a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def one_operator(torch: Any) -> Any:
    """x + 1 on ten elements."""
    return (lambda x: x + 1), (torch.ones(10),)


def _training_step(torch: Any, model: Any, features: int, classes: int, batch: int) -> Any:
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((batch, features)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, classes, batch))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, y)


def ten_layers(torch: Any) -> Any:
    """Training step of ten Linear(16, 16) with SGD, batch 4."""
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10)))
    return _training_step(torch, model, 16, 16, 4)


def digits(torch: Any) -> Any:
    """Training step of the digits example: MLP 64-256-10, batch 32, SGD."""
    nn = torch.nn
    return _training_step(torch, nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)), 64, 10, 32)


CASES = {f.__name__: f for f in (one_operator, ten_layers, digits)}


def best(function: Callable[[], Any], rounds: int, calls: int = 300) -> float:
    """Microseconds a call, of the best round."""
    for _ in range(calls):
        function()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        found.append((time.perf_counter() - start) / calls)
    return min(found) * 1e6


def ours(case: str, rounds: int) -> dict[str, float]:
    """The parts of a call of ours."""
    import graphtorch
    from graphtorch.lowering.backend import InputMismatchError

    step, given = CASES[case](graphtorch)
    compiled = graphtorch.compile(step, backend="cpu")
    for _ in range(3):
        compiled(*given)
    (specialization,) = compiled.specializations
    executable = specialization.compiled.executable
    assert not executable.fallbacks and len(executable.segments) == 1, "not one native call"
    found = [source.fetch(given) for source in specialization.captured.sources]
    inputs = [getattr(t, "_data", t) for t in found]
    arrays: list[Any] = []

    def refuse(inputs: Any) -> Any:
        raise InputMismatchError

    def resting(inputs: Any) -> Any:
        return arrays

    # The replay's code with another `run`.
    scope = specialization.guards.scope
    name = next(n for n, v in scope.items() if getattr(v, "__self__", None) is executable)
    replay = specialization.replay
    result = {"call": best(lambda: compiled(*given), rounds)}
    result["run"] = best(lambda: executable.run(inputs), rounds)
    arrays = executable.run(inputs)  # their addresses are the ones that the frame holds now
    frame = executable.workspaces[0].frame(executable._static)
    address = frame.address
    native = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(executable.library.addresses["segment0"])
    empty = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_no_operation())
    result["kernels"] = best(lambda: native(address), rounds) - best(lambda: empty(address), rounds)
    scope[name] = refuse
    raising = best(lambda: _caught(refuse, InputMismatchError), rounds)
    result["guards"] = best(lambda: replay(given, {}), rounds) - raising
    scope[name] = resting
    result["results"] = best(lambda: compiled(*given), rounds) - result["guards"]
    result["launch"] = result["run"] - result["kernels"]
    result["overhead"] = result["launch"] + result["guards"] + result["results"]
    return result


def _no_operation() -> int:
    """The address of a C function that does next to nothing."""
    return ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value or 0


def _caught(function: Any, error: type[Exception]) -> Any:
    try:
        function(None)
    except error:
        return None


def peer(case: str, name: str, rounds: int) -> float:
    """Microseconds of PyTorch's whole call."""
    import torch

    torch.set_num_threads(1)
    step, given = CASES[case](torch)
    if name == "compile":
        step = torch.compile(step)
    return best(lambda: step(*given), rounds, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", action="store_true", help="PyTorch too")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        case = options.cases[0]
        if options.contender == "cpu":
            print(json.dumps(ours(case, options.rounds)))
        else:
            print(json.dumps({"call": peer(case, options.contender, options.rounds)}))
        return
    columns = ("call", "kernels", "launch", "guards", "results", "overhead")
    print(f"{'':32}" + "".join(f"{c:>10}" for c in columns))
    for case in options.cases or CASES:
        for name in ("cpu", "eager", "compile") if options.peers else ("cpu",):
            command = [sys.executable, __file__, case, "--contender", name, "--rounds", str(options.rounds)]
            # One thread: a pool that waits for a core that others use would be measured as overhead.
            environment = {"GRAPHTORCH_NUM_THREADS": "1", **os.environ}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                print(f"{case + ', ' + name:32}  {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
                continue
            figures = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"{case + ', ' + name:32}" + "".join(f"{figures[c]:10.2f}" if c in figures else "" for c in columns))


if __name__ == "__main__":
    main()
