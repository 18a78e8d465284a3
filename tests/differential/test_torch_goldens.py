"""What PyTorch did, from golden files: values, dtypes, strides, printing, random numbers, errors. Needs no PyTorch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import TIES, Call, Outcome, array_of
from golden_texts import GROUPS, expressions, shown

import graphtorch

GOLDENS = Path(__file__).resolve().parent.parent / "goldens" / "torch"
CALLS: dict[str, list[dict[str, Any]]] = json.loads((GOLDENS / "calls.json").read_text(encoding="utf-8"))
TEXTS = {group: json.loads((GOLDENS / f"{group}.json").read_text(encoding="utf-8")) for group in GROUPS}


@pytest.mark.parametrize("group", GROUPS)
def test_the_files_are_complete(group: str) -> None:
    assert list(TEXTS[group]) == expressions(group), "run tools/make_torch_goldens.py"


@pytest.mark.parametrize(("group", "text"), [(group, text) for group in GROUPS for text in expressions(group)])
def test_texts(group: str, text: str) -> None:
    assert shown(graphtorch, text) == TEXTS[group][text]


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    for entry in CALLS[name]:
        call = Call(entry["operands"], entry["call"])
        outcome = Outcome(graphtorch, call)
        if "error" in entry:
            assert outcome.error is not None, f"accepted what raises {entry['error'][0]}:\n{call.script()}"
            mine = {kind.__name__ for kind in type(outcome.error).__mro__}
            assert entry["error"][0] in mine or type(outcome.error).__name__ in entry["error"], call.script()
            continue
        assert outcome.error is None, f"{outcome.error}\n{call.script()}"
        expected = entry["results"][:1] if name in TIES else entry["results"]
        for result, want in zip(outcome.results, expected, strict=name not in TIES):
            check(result, want, call)


def check(result: Any, want: dict[str, Any], call: Call) -> None:
    if "value" in want:
        assert repr(result) == want["value"], call.script()
        return
    assert (str(result.dtype), list(result.shape)) == (want["dtype"], want["shape"]), call.script()
    if result.numel():
        moved = [d for d, n in enumerate(want["shape"]) if n > 1]
        assert [result.stride(d) for d in moved] == [want["stride"][d] for d in moved], call.script()
    array = array_of(result).ravel()
    values = np.array([complex(v) for v in want["values"]] if array.dtype.kind == "c" else want["values"], array.dtype)
    if array.dtype.kind in "fc":
        finite = np.abs(values[np.isfinite(values)])
        tolerance = 3e-2 if "float16" in "".join(call.operands.values()) + call.text else 3e-5
        scale = max(float(finite.max()) if finite.size else 1.0, 1.0)
        same = np.allclose(array, values, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    else:
        same = bool(np.array_equal(array, values))
    assert same, f"{array.tolist()} instead of {values.tolist()}\n{call.script()}"
    assert math.prod(want["shape"]) == len(want["values"])
