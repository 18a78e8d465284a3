"""Writes tests/goldens/printing.json: tensors and the text PyTorch gives for them.

    python tools/make_printing_goldens.py

Needs PyTorch (the goldens are made with 2.13), which the tests that read the file do not. A case holds the values as
base64 of their little-endian bytes, so that NaN, infinities and the 16-bit dtypes survive.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import torch

TARGET = Path(__file__).parent.parent / "tests" / "goldens" / "printing.json"
INF, NAN = float("inf"), float("nan")

# Values by name: each is printed as every dtype in its second entry.
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
VALUES: dict[str, tuple[torch.Tensor, tuple[torch.dtype, ...]]] = {
    "scalar": (torch.tensor(3.14159), FLOATS),
    "integer scalar": (torch.tensor(-7.0), FLOATS),
    "fixed point": (torch.tensor([[0.1, -22.75, 3.0], [0.0, 5.5, -0.0]]), FLOATS),
    "whole numbers": (torch.tensor([1.0, -20.0, 300.0, 0.0]), FLOATS),
    "wide range": (torch.tensor([1e-3, 2.5, 4000.0]), FLOATS),
    "ratio at the limit": (torch.tensor([0.25, 250.0]), FLOATS),
    "small": (torch.tensor([1e-4, 1.5e-4]), FLOATS),
    "tiny": (torch.tensor([1e-7, 3e-8, 0.0]), FLOATS),
    "large whole": (torch.tensor([1.0e8, 1.0]), (torch.float32, torch.float64)),
    "larger whole": (torch.tensor([2.0e8, 1.0e8]), (torch.float32, torch.float64)),
    "nonfinite": (torch.tensor([NAN, INF, -INF]), FLOATS),
    "nonfinite with whole": (torch.tensor([NAN, INF, -INF, 12.0]), FLOATS),
    "nonfinite with fractions": (torch.tensor([[NAN, 1.5], [-INF, 1e6]], dtype=torch.float64), FLOATS[:2]),
    "zeros": (torch.zeros(2, 3), FLOATS),
    "three axes": (torch.arange(12.0).reshape(2, 3, 2) / 4, FLOATS),
    "many axes": (torch.arange(16.0).reshape(2, 1, 2, 2, 2), FLOATS[:1]),
    "long vector": (torch.arange(40.0) / 3, FLOATS),
    "summary of a vector": (torch.arange(1001.0), (torch.float32, torch.int64, torch.int32)),
    "summary of a matrix": (torch.arange(1200.0).reshape(40, 30), (torch.float32, torch.int64, torch.float16)),
    "summary in one axis": (torch.arange(1200.0).reshape(2, 300, 2) / 8, (torch.float32,)),
    "integers": (
        torch.tensor([[1, -2], [30, 44]]),
        (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    ),
    "bools": (torch.tensor([[True, False], [False, False]]), (torch.bool,)),
    "scalar bool": (torch.tensor(True), (torch.bool,)),
    "empty vector": (torch.empty(0), (*FLOATS, torch.int64, torch.bool)),
    "empty matrix": (torch.empty(0, 3), (*FLOATS, torch.int64, torch.complex64)),
    "complex": (torch.tensor([1 + 2j, -0.5 - 30j, complex(0, -0.0)]), (torch.complex64, torch.complex128)),
    "complex scalar": (torch.tensor(-1.5 + 0j), (torch.complex64, torch.complex128)),
    "complex nonfinite": (torch.tensor([complex(NAN, INF), complex(1, -INF)]), (torch.complex64,)),
    "complex whole": (torch.tensor([[1 + 2j], [3 - 400j]]), (torch.complex64, torch.complex128)),
}

OPTIONS: list[dict[str, Any]] = [
    {"precision": 2},
    {"precision": 8},
    {"threshold": 3, "edgeitems": 1},
    {"threshold": 0, "edgeitems": 0},
    {"linewidth": 30},
    {"profile": "short"},
    {"profile": "full"},
    {"sci_mode": True},
    {"sci_mode": False},
]
WITH_OPTIONS = ("fixed point", "wide range", "three axes", "long vector", "integers", "complex", "nonfinite with whole")


def case(
    name: str,
    tensor: torch.Tensor,
    options: dict[str, Any] | None = None,
    default: torch.dtype = torch.float32,
    parameter: bool = False,
) -> dict[str, Any]:
    """One entry of the file; the values are left out on the meta device."""
    shown = torch.nn.Parameter(tensor, tensor.requires_grad) if parameter else tensor
    torch.set_default_dtype(default)
    with torch._tensor_str.printoptions(**(options or {})):
        text = repr(shown)
    torch.set_default_dtype(torch.float32)
    detached = tensor.detach()
    entry = {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "default_dtype": str(default).removeprefix("torch."),
        "device": str(tensor.device),
        "requires_grad": shown.requires_grad,
        "grad_fn": None if tensor.grad_fn is None else type(tensor.grad_fn).__name__,
        "parameter": parameter,
        "options": options or {},
        "text": text,
    }
    if tensor.device.type == "cpu":
        data = detached.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        entry["data"] = base64.b64encode(data).decode()
    return entry


def all_cases() -> list[dict[str, Any]]:
    cases = [case(name, tensor.to(dtype)) for name, (tensor, dtypes) in VALUES.items() for dtype in dtypes]
    cases += [
        case(name, tensor.to(dtype), options)
        for name in WITH_OPTIONS
        for tensor, dtypes in [VALUES[name]]
        for dtype in dtypes[:2]
        for options in OPTIONS
    ]
    cases += [
        case(name, VALUES[name][0].to(dtype), default=torch.float64)
        for name in ("fixed point", "empty vector", "empty matrix")
        for dtype in (torch.float32, torch.float64, torch.int64, torch.complex64, torch.complex128)
    ]
    leaf = torch.tensor([[0.5, -1.25], [3.0, 100.0]], requires_grad=True)
    wide = torch.linspace(0, 1, 9).requires_grad_()
    half = torch.ones(3, 3, dtype=torch.float16).requires_grad_()
    for name, tensor in {
        "leaf": leaf,
        "result": leaf * 2,
        "sum": leaf.sum(),
        "long line": wide * 2,
        "half leaf": half,
        "half result": half.exp(),
    }.items():
        cases.append(case(name, tensor))
        if tensor.is_leaf:
            cases.append(case(f"{name} as parameter", tensor.detach().requires_grad_(), parameter=True))
    cases.append(case("frozen parameter", torch.zeros(2, 2), parameter=True))
    cases += [
        case("meta", torch.empty(shape, dtype=dtype, device="meta"))
        for shape in ((), (2,), (0, 3))
        for dtype in (torch.float32, torch.int64, torch.bfloat16)
    ]
    return cases


if __name__ == "__main__":
    entries = all_cases()
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    TARGET.write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(entries)} cases -> {TARGET}")
