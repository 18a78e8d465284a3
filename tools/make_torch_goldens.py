"""Writes tests/goldens/torch/: what PyTorch does with some hundred calls and expressions.

    python tools/make_torch_goldens.py

Needs PyTorch (the goldens are made with 2.13), which the tests that read the files do not. `calls.json` has random
calls of every operator record with their results' values, dtypes and strides, or the error's class; the other files
have expressions and their texts."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "differential")]

from calls import LACKS, Maker, Outcome, array_of, difference, excused, path_in  # noqa: E402
from golden_texts import GROUPS, expressions, shown  # noqa: E402

import graphtorch  # noqa: E402
from graphtorch.ops.build import FUNCTIONS  # noqa: E402
from graphtorch.ops.record import REGISTRY  # noqa: E402

TARGET = ROOT / "tests" / "goldens" / "torch"
CALLS = 3  # of each operator
LARGEST = 60  # elements of all results of a call


def described(result: Any) -> Any:
    """A result as JSON: a tensor's dtype, shape, stride and values, any other value's text."""
    if not isinstance(result, torch.Tensor):
        return {"value": repr(result)}
    array = array_of(result)
    values = [str(v) for v in array.ravel()] if array.dtype.kind == "c" else array.ravel().tolist()
    return {
        "dtype": str(result.dtype),
        "shape": list(result.shape),
        "stride": list(result.stride()),
        "values": [round(v, 6) if isinstance(v, float) else v for v in values],
    }


def recorded(name: str) -> list[dict[str, Any]]:
    """Calls of one operator with what they gave."""
    path = path_in(name, torch, graphtorch)
    if path is None:
        return []
    maker = Maker(REGISTRY[name], path, zlib.crc32(name.encode()) + 77)
    found: list[dict[str, Any]] = []
    for _ in range(40):
        call = maker.call()
        if call is None or len(found) == CALLS:
            continue
        outcome = Outcome(torch, call)
        what = difference(Outcome(graphtorch, call), outcome, 3e-2)
        if what is not None and excused(name, what):
            continue
        entry: dict[str, Any] = {"operands": call.operands, "call": call.text}
        if outcome.error is not None:
            if isinstance(outcome.error, NotImplementedError | TypeError) or any(
                w in str(outcome.error) for w in LACKS
            ):
                continue  # a kernel that is not there says nothing about the arguments
            entry["error"] = [kind.__name__ for kind in type(outcome.error).__mro__[:-2]]
        else:
            tensors = [r for r in outcome.results if isinstance(r, torch.Tensor)]
            if sum(t.numel() for t in tensors) > LARGEST or any("complex32" in str(t.dtype) for t in tensors):
                continue
            entry["results"] = [described(r) for r in outcome.results]
        found.append(entry)
    return found


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    for group in GROUPS:
        texts = {text: shown(torch, text) for text in expressions(group)}
        (TARGET / f"{group}.json").write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8")
    names = sorted(n for n, op in REGISTRY.items() if op.samples and not op.random and n in FUNCTIONS)
    calls = {name: made for name in names if (made := recorded(name))}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(made)}" for name, made in calls.items())
    (TARGET / "calls.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{sum(map(len, calls.values()))} calls of {len(calls)} operators")


if __name__ == "__main__":
    main()
