"""Tensors from Python data beside PyTorch: which dtype, which sequences, which numbers fit, and the errors' texts."""

from __future__ import annotations

import array
import collections
import decimal
import fractions
from typing import Any

import numpy as np
import pytest

import graphtorch

pytestmark = pytest.mark.filterwarnings("ignore")


class Items:
    """A sequence of a class of its own, like a pandas Series."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        return self.values[index]


class Keyed(Items):
    """A sequence that can't be read from 0 on, like a DataFrame or a Series with labels of its own."""

    def __getitem__(self, index: int) -> Any:
        raise KeyError(index)


class Arrays:
    """Values behind NumPy's protocol alone."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.arange(3.0, dtype=dtype)


AROUND = {
    "np": np,
    "array": array,
    "collections": collections,
    "decimal": decimal,
    "fractions": fractions,
    "Items": Items,
    "Keyed": Keyed,
    "Arrays": Arrays,
    "nan": float("nan"),
    "inf": float("inf"),
}


def shown(t: Any, text: str) -> str:
    try:
        return repr(eval(text, {**AROUND, "t": t}))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


DATA = """
[np.float64(1), np.float64(2)]
[np.float64(1), 2.0]
[np.float32(1), 2.0]
[np.int32(1)]
[np.int32(1), 2]
[True, np.uint8(3)]
[True, 2]
[True, 2.0]
[1, 2.5, True]
[1j, 2]
[[], []]
[[[]]]
[[1, 2], [3]]
[[1, 2], 3]
[1, [2]]
[None]
None
'a'
b'abc'
{1: 2}
{1, 2}
2**63
2**63 - 1
-2**63 - 1
[1, 2**63]
[2**70]
range(3)
collections.deque([1, 2])
array.array('d', [1, 2])
memoryview(b'abc')
bytearray(b'ab')
(i for i in range(2))
fractions.Fraction(1, 2)
Items([1.0, 2.0])
Items([np.float64(1.0), np.float64(2.0)])
Items([Items([1, 2]), Items([3, 4])])
[Items([1.0, 2.0]), Items([3.0, 4.0])]
Keyed([1, 2])
Arrays()
[np.arange(2.0), np.arange(2.0)]
[t.tensor(1.0), 2]
[t.ones(1), t.ones(1)]
[t.ones(2), t.ones(2)]
""".strip().splitlines()


@pytest.mark.parametrize("maker", ["tensor({})", "as_tensor({})", "Tensor({})", "tensor({}, dtype=t.float32)"])
@pytest.mark.parametrize("data", DATA)
def test_python_data(maker: str, data: str) -> None:
    torch = pytest.importorskip("torch")
    text = "t." + maker.format(data)
    if maker.startswith("T") and ("{" in data or data.startswith(("2**", "-2**"))):
        pytest.skip("a constructor of other overloads: a number is a size")
    assert shown(graphtorch, text) == shown(torch, text)


NUMBERS = [
    "300", "-300", "-1", "-255", "-128", "70000", "2**31", "2**40", "-2**40", "1e10", "1e39", "1e40", "inf", "nan",
    "0.5", "255.5", "-0.5", "65504", "65520.0", "3.4028236e38", "1j", "True",
]  # fmt: skip
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64"]
FILLS = [
    "t.tensor({v}, dtype=t.{d})",
    "t.full((1,), {v}, dtype=t.{d})",
    "t.full_like(t.zeros(1, dtype=t.{d}), {v})",
    "t.zeros(1, dtype=t.{d}).new_full((1,), {v})",
    "t.zeros(1, dtype=t.{d}).fill_({v})",
    "t.zeros(1, dtype=t.{d}).masked_fill(t.tensor([True]), {v})",
    "t.zeros(1, dtype=t.{d}).masked_fill_(t.tensor([True]), {v})",
    "t.zeros(1, dtype=t.{d}).index_fill(0, t.tensor([0]), {v})",
    "t.zeros(1, dtype=t.{d}).scatter(0, t.tensor([0]), {v})",
    "t.zeros(1, dtype=t.{d}).__setitem__(0, {v})",
    "t.zeros(1, dtype=t.{d}).clamp(min={v})",
    "t.zeros(1, dtype=t.{d}).mul_({v})",
    "t.where(t.tensor([True]), {v}, t.zeros(1, dtype=t.{d}))",
]


@pytest.mark.parametrize("d", DTYPES)
@pytest.mark.parametrize("fill", FILLS)
def test_numbers_that_fit(fill: str, d: str) -> None:
    torch = pytest.importorskip("torch")
    for v in NUMBERS:
        if v == "1j" and (d in ("float16", "bool") or "index_fill" in fill or "clamp" in fill):
            continue  # other words, or complex32, which is not here
        text = fill.format(v=v, d=d)
        assert shown(graphtorch, text) == shown(torch, text), text


LEGACY = """
t.FloatTensor([1, 2])
t.LongTensor([1.5, 2])
t.FloatTensor(2, 0)
t.LongTensor()
t.FloatTensor(t.ones(2))
t.BoolTensor([0, 2])
t.ByteTensor([300])
t.FloatTensor('a')
t.FloatTensor
t.FloatTensor.dtype
isinstance(t.ones(2), t.FloatTensor)
isinstance(t.ones(2), t.LongTensor)
isinstance([1.0], t.FloatTensor)
t.ones(2).type()
t.ones(2).type(t.LongTensor)
t.ones(2).type('torch.LongTensor')
t.ones(2).type('int')
t.ones(2, dtype=t.bfloat16).type()
(t.set_default_tensor_type('torch.DoubleTensor'), t.ones(1).dtype, t.set_default_tensor_type(t.FloatTensor))
t.set_default_tensor_type(t.LongTensor)
""".strip().splitlines()


@pytest.mark.parametrize("text", LEGACY)
def test_legacy_types(text: str) -> None:
    torch = pytest.importorskip("torch")
    assert shown(graphtorch, text) == shown(torch, text)


def test_a_number_keeps_its_digits_beside_16_bit_floats() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=500).astype(np.float32) * 3
    for d in ("float16", "bfloat16"):
        for text in ("x * 0.1", "x / 0.3", "0.1 / x", "x.mul_(0.1)", "x // 0.3", "x.pow(3)", "x * 70000", "x + 0.1"):
            mine = eval(text, {"x": graphtorch.tensor(values).to(getattr(graphtorch, d))})
            other = eval(text, {"x": torch.tensor(values).to(getattr(torch, d))})
            assert mine.tolist() == other.tolist(), (d, text)


def test_pandas_values() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": [3.0, 4.0]})
    assert graphtorch.from_numpy(frame.to_numpy(copy=True)).tolist() == [[1, 3], [2, 4]]
    assert graphtorch.tensor(frame["b"]).dtype is graphtorch.float64
    assert graphtorch.tensor(frame["a"].values).tolist() == [1, 2]
    with pytest.raises(ValueError, match="could not determine the shape of object type 'DataFrame'"):
        graphtorch.tensor(frame)
