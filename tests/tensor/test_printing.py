"""The text of tensors equals PyTorch's: stored examples, and random tensors compared directly where torch is there."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphtorch.tensor import printing
from graphtorch.tensor.printing import get_printoptions, printoptions, set_printoptions, tensor_str

GOLDENS = json.loads((Path(__file__).parent.parent / "goldens" / "printing.json").read_text(encoding="utf-8"))
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


@pytest.fixture(autouse=True)
def restored_options() -> Any:
    with printoptions():
        set_printoptions(profile="default")
        yield


def show(values: Any, **kwargs: Any) -> str:
    array = np.asarray(values)
    return tensor_str(array, **{"dtype_name": array.dtype.name, "default_dtype_name": "float32", **kwargs})


@pytest.mark.parametrize("case", GOLDENS["cases"], ids=lambda case: f"{case['name']}-{case['dtype']}")
def test_golden(case: dict[str, Any]) -> None:
    dtype = DTYPES.get(case["dtype"]) or np.dtype(case["dtype"])
    if "data" in case:
        array = np.frombuffer(base64.b64decode(case["data"]), dtype).reshape(case["shape"])
    else:
        array = np.empty(case["shape"], dtype)
    with printoptions(**case["options"]):
        text = tensor_str(
            array,
            dtype_name=case["dtype"],
            default_dtype_name=case["default_dtype"],
            device=case["device"],
            requires_grad=case["requires_grad"],
            grad_fn_name=case["grad_fn"],
            prefix="Parameter containing:\ntensor(" if case["parameter"] else "tensor(",
        )
    assert text == case["text"]


def test_a_few_by_hand() -> None:
    assert show(np.float32([1, 2.5])) == "tensor([1.0000, 2.5000])"
    assert show(np.float32(3)) == "tensor(3.)"
    assert show([1, 2]) == "tensor([1, 2])"
    assert show(np.float64([1])) == "tensor([1.], dtype=torch.float64)"
    assert show(np.zeros((0, 3), np.float32)) == "tensor([], size=(0, 3))"
    assert show(np.zeros(2, np.float32), device="meta") == "tensor(..., device='meta', size=(2,))"
    assert show(np.float32([1]), grad_fn_name="AddBackward0", requires_grad=True) == (
        "tensor([1.], grad_fn=<AddBackward0>)"
    )


def test_summary_decides_on_the_format_by_what_it_shows() -> None:
    values = np.ones(2000, np.float32)
    values[1000] = 0.5
    assert show(values) == "tensor([1., 1., 1.,  ..., 1., 1., 1.])"


def test_indent_moves_all_lines_but_the_first() -> None:
    plain = show(np.zeros((2, 2), np.float32))
    assert show(np.zeros((2, 2), np.float32), indent=3) == plain.replace("\n", "\n   ")


def test_subclass_prefix_sets_the_indentation() -> None:
    assert show(np.zeros((2, 1), np.float32), prefix="Weights(") == "Weights([[0.],\n         [0.]])"


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.bfloat16])
def test_ml_dtypes_print_as_numbers(dtype: Any) -> None:
    assert show(np.array([0.5, -2], dtype)) == f"tensor([ 0.5000, -2.0000], dtype=torch.{np.dtype(dtype).name})"


def test_options_are_merged_and_restored() -> None:
    set_printoptions(precision=6, sci_mode=True)
    with printoptions(profile="short", linewidth=100):
        assert get_printoptions() == {
            "precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 100, "sci_mode": None,
        }  # fmt: skip
    assert get_printoptions()["precision"] == 6
    assert get_printoptions()["sci_mode"] is True
    set_printoptions(precision=5)
    assert get_printoptions()["sci_mode"] is None, "sci_mode is reset by every call, as in PyTorch"


def test_options_are_restored_after_an_error() -> None:
    before = get_printoptions()
    with pytest.raises(ZeroDivisionError), printoptions(precision=1):
        raise ZeroDivisionError
    assert get_printoptions() == before


# ------------------------------------------------------------------------------------- random tensors beside PyTorch

SCALES = [1.0, 1.0, 1e2, 1e3, 1e4, 1e8, 1e20, 1e-3, 1e-4, 1e-5, 1e-20]
OPTIONS = {
    "precision": [0, 1, 2, 6, 10],
    "threshold": [0, 1, 5, 50, 1e9, float("inf")],
    "edgeitems": [0, 1, 2, 4],
    "linewidth": [1, 20, 40, 120, 200],
    "profile": ["short", "full", "default", "unknown"],
    "sci_mode": [True, False, None],
}


def random_tensor(torch: Any, choose: random.Random) -> Any:
    """A tensor of random rank, dtype and scale, with NaN, infinities, zeros and whole numbers now and then."""
    rank = choose.choice([0, 1, 1, 2, 2, 3, 4, 5])
    sizes = [0, 1, 2, 3, 5, 7, 8] if rank > 2 else [0, 1, 2, 3, 6, 7, 11, 30, 100, 501]
    shape = [choose.choice(sizes) for _ in range(rank)]
    while np.prod(shape, dtype=int) > 3000:
        shape[choose.randrange(rank)] = 1
    kind = choose.random()
    if kind < 0.15:
        name = choose.choice(["int8", "uint8", "int16", "int32", "int64", "bool", "uint16", "uint32", "uint64"])
        limit = choose.choice([2, 100, 10**6, 2**62])
        return torch.randint(-limit, limit, shape).to(getattr(torch, name))
    if kind < 0.2:
        name = choose.choice(["float32", "float16", "int64", "bool"])
        return torch.empty(shape, dtype=getattr(torch, name), device="meta")

    def part() -> Any:
        values = torch.randn(shape, dtype=torch.float64) * choose.choice(SCALES)
        change = choose.randrange(8)
        if change == 0:
            values = values * 10.0 ** torch.randint(-6, 7, shape)
        elif change in (1, 2):
            values = (values * 10).round()
        elif change == 3:
            values = values * (torch.rand(shape) < 0.3)
        elif change == 4:
            special = torch.tensor(choose.choice([float("nan"), float("inf"), -float("inf"), 0.0, -0.0])).double()
            values = torch.where(torch.rand(shape) < 0.3, special, values)
        return values

    if kind < 0.35:
        return torch.complex(part(), part()).to(choose.choice([torch.complex64, torch.complex128]))
    dtype = choose.choice([torch.float32, torch.float64, torch.float16, torch.bfloat16])
    tensor = part().to(dtype)
    if choose.random() < 0.3:
        tensor.requires_grad_()
        if choose.random() < 0.5:
            tensor = choose.choice([lambda: tensor * 2, lambda: tensor.exp(), lambda: tensor.sum()])()
    return tensor


def to_numpy(torch: Any, tensor: Any) -> np.ndarray[Any, Any]:
    if tensor.device.type == "meta":
        return np.empty(tuple(tensor.shape))
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


@pytest.mark.parametrize("seed", range(12))
def test_random_tensors_print_as_in_torch(seed: int) -> None:
    torch = pytest.importorskip("torch")
    choose = random.Random(seed)
    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    try:
        for _ in range(100):
            torch.set_default_dtype(torch.float32)
            tensor = random_tensor(torch, choose)
            options = {name: choose.choice(OPTIONS[name]) for name in OPTIONS if seed % 2 and choose.random() < 0.3}
            torch.set_default_dtype(choose.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16]))
            plain = tensor.grad_fn is None and tensor.is_floating_point() and tensor.device.type == "cpu"
            parameter = plain and choose.random() < 0.2
            if parameter:
                tensor = torch.nn.Parameter(tensor.detach())
            with torch._tensor_str.printoptions(**options), printoptions(**options):
                assert get_printoptions() == torch._tensor_str.get_printoptions()
                expected = repr(tensor)
                text = tensor_str(
                    to_numpy(torch, tensor),
                    dtype_name=str(tensor.dtype).removeprefix("torch."),
                    default_dtype_name=str(torch.get_default_dtype()).removeprefix("torch."),
                    device=str(tensor.device),
                    requires_grad=tensor.requires_grad,
                    grad_fn_name=None if tensor.grad_fn is None else type(tensor.grad_fn).__name__,
                    prefix="Parameter containing:\ntensor(" if parameter else "tensor(",
                )
            assert text == expected, options
    finally:
        torch.set_default_dtype(default)


def test_module_options_are_a_dataclass() -> None:
    assert printing.PrinterOptions() == printing.PrinterOptions(4, 1000, 3, 80, None)
