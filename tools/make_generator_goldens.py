"""Writes tests/goldens/generator.json: sequences of random draws and the numbers PyTorch gives for them.

    python tools/make_generator_goldens.py

Needs PyTorch (the goldens are made with 2.13) on a CPU with AVX2 that is not Intel's: there PyTorch's MKL builds draw
Bernoulli and exponential numbers from another engine. The tests that read the file need no PyTorch. A result is stored
as base64 of its little-endian bytes, the generator's state after a sequence as its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TARGET = Path(__file__).parent.parent / "tests" / "goldens" / "generator.json"
FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")


def empty(call: dict[str, Any]) -> torch.Tensor:
    return torch.empty(call["shape"], dtype=getattr(torch, call["dtype"]))


def array(call: dict[str, Any]) -> torch.Tensor:
    return torch.tensor(call["probs"], dtype=getattr(torch, call["probs_dtype"]))


SAMPLERS: dict[str, Callable[[dict[str, Any], torch.Generator], torch.Tensor]] = {
    "uniform": lambda c, g: empty(c).uniform_(c["low"], c["high"], generator=g),
    "normal": lambda c, g: empty(c).normal_(c["mean"], c["std"], generator=g),
    "log_normal": lambda c, g: empty(c).log_normal_(c["mean"], c["std"], generator=g),
    "cauchy": lambda c, g: empty(c).cauchy_(c["median"], c["sigma"], generator=g),
    "exponential": lambda c, g: empty(c).exponential_(c["lambd"], generator=g),
    "geometric": lambda c, g: empty(c).geometric_(c["p"], generator=g),
    "randint": lambda c, g: empty(c).random_(c["low"], c["high"], generator=g),
    "random": lambda c, g: empty(c).random_(generator=g),
    "bernoulli": lambda c, g: empty(c).bernoulli_(c["p"], generator=g),
    "bernoulli_array": lambda c, g: empty(c).bernoulli_(array(c), generator=g),
    "randperm": lambda c, g: torch.randperm(c["n"], dtype=getattr(torch, c["dtype"]), generator=g),
    "multinomial": lambda c, g: torch.multinomial(array(c), c["num_samples"], c["replacement"], generator=g),
}


def call(sampler: str, **arguments: Any) -> dict[str, Any]:
    return {"sampler": sampler, **arguments}


def sequences() -> list[tuple[int, list[dict[str, Any]]]]:
    """Pairs of a seed and the calls made after it."""
    result: list[tuple[int, list[dict[str, Any]]]] = []
    for dtype in FLOATS:
        bounds = [(0, 1), (-1, 1), (0.3, 5.7)]
        result.append((8, [call("uniform", shape=[3, 4], dtype=dtype, low=a, high=b) for a, b in bounds]))
        # Below 16 elements a normal is kept for later, through calls that do not use it; from 16 on, whole blocks and
        # a remainder.
        result.append(
            (1, [call("normal", shape=[n], dtype=dtype, mean=0, std=1) for n in (1, 3, 20, 2, 16, 15, 33, 0, 1, 48)])
        )
        result.append((2, [call("normal", shape=[n], dtype=dtype, mean=-0.7, std=2.5) for n in (5, 32, 4, 37)]))
        result.append(
            (
                3,
                [
                    call("exponential", shape=[9], dtype=dtype, lambd=1.5),
                    call("cauchy", shape=[9], dtype=dtype, median=0.5, sigma=2),
                    call("log_normal", shape=[9], dtype=dtype, mean=0.1, std=0.4),
                    call("geometric", shape=[9], dtype=dtype, p=0.3),
                ],
            )
        )
        for kind in (dtype, "float32"):
            result.append(
                (
                    4,
                    [
                        call("bernoulli", shape=[20], dtype=dtype, p=0.3),
                        call(
                            "bernoulli_array",
                            shape=[3, 4],
                            dtype=dtype,
                            probs=[0.0, 0.25, 0.75, 1.0],
                            probs_dtype=kind,
                        ),
                    ],
                )
            )
        weights = {"probs": [[0.1, 2, 0.5, 0, 3], [1, 1, 1, 1, 1]], "probs_dtype": dtype}
        result.append(
            (
                5,
                [
                    call("multinomial", num_samples=k, replacement=r, **weights)
                    for k, r in ((1, False), (4, False), (1, True), (12, True))
                ],
            )
        )
    for dtype in (*INTEGERS, *FLOATS, "bool"):
        high = 2 if dtype == "bool" else 100
        result.append(
            (
                2**40 + 6,
                [call("randint", shape=[12], dtype=dtype, low=0, high=high), call("random", shape=[7], dtype=dtype)],
            )
        )
    ranges = [(-5, 5), (0, 2**28 - 1), (0, 2**28), (-(2**62), 2**62), (7, None), (-(2**63), None), (0, 2**63 - 1)]
    result.append((-1, [call("randint", shape=[5], dtype="int64", low=a, high=b) for a, b in ranges]))
    result.append((0, [call("randperm", n=n, dtype="int64") for n in (0, 1, 2, 10, 50)]))
    result.append((9, [call("randperm", n=12, dtype=dtype) for dtype in (*INTEGERS, *FLOATS)]))
    return result


def run(seed: int, calls: list[dict[str, Any]]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    for entry in calls:
        result = SAMPLERS[entry["sampler"]](entry, generator)
        entry["result_dtype"] = str(result.dtype).removeprefix("torch.")
        entry["result_shape"] = list(result.shape)
        entry["result"] = base64.b64encode(result.reshape(-1).view(torch.uint8).numpy().tobytes()).decode()
    state = hashlib.sha256(generator.get_state().numpy().tobytes()).hexdigest()
    return {"seed": seed, "calls": calls, "state": state}


if __name__ == "__main__":
    entries = [run(seed, calls) for seed, calls in sequences()]
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    TARGET.write_text(f'{{"torch": "{torch.__version__}", "sequences": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(entries)} sequences -> {TARGET}")
