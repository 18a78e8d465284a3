"""The Python array API standard: names, signatures, promotion and the rules where it differs from PyTorch.

NumPy 2 implements the standard and is the measuring stick: the same text runs in both namespaces."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch import array_api as xp

# Parameters by the standard (2024.12): "/" ends the positional-only ones, "*" begins the keyword-only ones.
SIGNATURES = """
arange start / stop step * dtype device
asarray obj / * dtype device copy
astype x dtype / * copy device
argmax x / * axis keepdims
argsort x / * axis descending stable
broadcast_to x / shape
can_cast from_ to /
clip x / min max
concat arrays / * axis
count_nonzero x / * axis keepdims
cumulative_prod x / * axis dtype include_initial
cumulative_sum x / * axis dtype include_initial
diff x / * axis n prepend append
empty shape * dtype device
expand_dims x / axis
eye n_rows n_cols / * k dtype device
flip x / * axis
from_dlpack x / * device copy
full shape fill_value * dtype device
full_like x / fill_value * dtype device
isdtype dtype kind
linspace start stop / num * dtype device endpoint
matmul x1 x2 /
max x / * axis keepdims
moveaxis x source destination /
permute_dims x / axes
prod x / * axis dtype keepdims
repeat x repeats / * axis
reshape x / shape * copy
roll x / shift * axis
searchsorted x1 x2 / * side sorter
sort x / * axis descending stable
squeeze x / axis
stack arrays / * axis
std x / * axis correction keepdims
sum x / * axis dtype keepdims
take x indices / * axis
take_along_axis x indices / * axis
tensordot x1 x2 / * axes
tile x repetitions /
tril x / * k
unstack x / * axis
var x / * axis correction keepdims
vecdot x1 x2 / * axis
where condition x1 x2 /
zeros_like x / * dtype device
linalg.cholesky x / * upper
linalg.diagonal x / * offset
linalg.matrix_norm x / * keepdims ord
linalg.pinv x / * rtol
linalg.qr x / * mode
linalg.svd x / * full_matrices
linalg.trace x / * offset dtype
linalg.vector_norm x / * axis keepdims ord
fft.fft x / * n axis norm
fft.fftn x / * s axes norm
fft.fftfreq n / * d dtype device
fft.fftshift x / * axes
"""


def resolve(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module


@pytest.mark.parametrize("line", SIGNATURES.strip().splitlines(), ids=lambda line: line.split()[0])
def test_signatures(line: str) -> None:
    path, *words = line.split()
    expected: list[tuple[str, Any]] = []
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for word in words:
        if word == "/":
            expected = [(name, inspect.Parameter.POSITIONAL_ONLY) for name, _ in expected]
        elif word == "*":
            kind = inspect.Parameter.KEYWORD_ONLY
        else:
            expected.append((word, kind))
    parameters = inspect.signature(resolve(xp, path)).parameters.values()
    assert [(p.name, p.kind) for p in parameters] == expected


def test_every_name_is_there() -> None:
    for name in xp.__all__:
        assert hasattr(xp, name)
    for module in (xp.linalg, xp.fft):
        assert all(callable(getattr(module, name)) for name in module.__all__)
    # NumPy's own namespace has what the standard has; dtypes that tensors lack are the only exception.
    missing = {n for n in np.__array_namespace_info__().dtypes() if not hasattr(xp, n)}
    assert missing == {"uint16", "uint32", "uint64"}


def test_tensors_name_their_namespace() -> None:
    x = graphtorch.ones(2)
    assert x.__array_namespace__() is xp
    assert x.__array_namespace__(api_version="2022.12") is xp
    with pytest.raises(ValueError, match="2031"):
        x.__array_namespace__(api_version="2031.12")
    assert x.to_device("cpu") is x
    with pytest.raises(ValueError, match="stream"):
        x.to_device("cpu", stream=1)


EXPRESSIONS = """
xp.add(i, 2)
xp.add(i, f)
xp.add(xp.asarray(1, dtype=xp.int64), xp.asarray([1], dtype=xp.int32))
xp.result_type(xp.int32, xp.asarray(1, dtype=xp.int64))
xp.result_type(f32, 1)
xp.result_type(xp.uint8, xp.int8)
xp.subtract(1, f)
xp.divide(i, 4)
xp.floor_divide(i, 2)
xp.remainder(f, xp.asarray(-2.0))
xp.remainder(xp.asarray(-0.0), xp.asarray(1.0))
xp.sign(xp.asarray([-2.0, 0.0, xp.nan]))
xp.floor(i)
xp.round(xp.asarray([0.5, 1.5, -2.5]))
xp.clip(f, -0.5, 1)
xp.clip(f, min=xp.asarray([0.0, 0.5, 1.0, 1.5]))
xp.where(f > 0, f, 0.0)
xp.imag(f)
xp.conj(c)
xp.bitwise_invert(i)
xp.hypot(f, 2.0)
xp.sum(i, axis=())
xp.sum(m, axis=(0, 1))
xp.sum(m, axis=1, keepdims=True)
xp.sum(f32, dtype=xp.float64)
xp.prod(m, axis=(0, 1))
xp.prod(i)
xp.mean(f32, axis=0)
xp.var(f.reshape(2, 2), axis=1)
xp.std(f, correction=1)
xp.max(m, axis=(0, 1))
xp.min(m)
xp.all(m, axis=1)
xp.any(m, axis=(0, 1), keepdims=True)
xp.count_nonzero(m - 2, axis=0)
xp.cumulative_sum(i)
xp.cumulative_sum(m, axis=1, include_initial=True)
xp.cumulative_prod(m, axis=0)
xp.diff(i, n=2)
xp.diff(i, prepend=xp.asarray([0]))
xp.argmax(m, axis=1, keepdims=True)
xp.searchsorted(i, xp.asarray([2, 9]), side="right")
xp.sort(f)
xp.argsort(f)
xp.unique_all(xp.asarray([[3, 1], [1, 2]]))
xp.unique_counts(xp.asarray([3, 1, 1]))
xp.unique_inverse(xp.asarray([[3, 1], [1, 2]]))
xp.unique_values(xp.asarray([3, 1, 1]))
xp.nonzero(m - 2)
xp.concat([m, m], axis=None)
xp.concat([i, f32])
xp.stack([i, i], axis=-1)
xp.unstack(m, axis=1)
xp.expand_dims(m, 1)
xp.squeeze(m[None], 0)
xp.squeeze(m, 0)
xp.flip(m)
xp.flip(m, axis=0)
xp.permute_dims(m, (1, 0))
xp.matrix_transpose(m)
xp.moveaxis(m[None], 0, 2)
xp.repeat(i, 2)
xp.tile(i, (2, 2))
xp.roll(m, 1)
xp.roll(m, 1, axis=(0, 1))
xp.take(m, xp.asarray([1, 0]), axis=0)
xp.take(i, xp.asarray([-1, 0]))
xp.take_along_axis(m, xp.asarray([[1], [0]]), axis=1)
xp.reshape(m, (3, 2))
xp.broadcast_to(i, (2, 4))
xp.broadcast_arrays(i, xp.asarray([[1], [2]]))
xp.meshgrid(i, i[:2])
xp.eye(2, 3, k=1)
xp.eye(3, k=-1, dtype=xp.int32)
xp.arange(5)
xp.arange(1, 2, 0.25)
xp.arange(5, 0)
xp.linspace(0, 1, 4, endpoint=False)
xp.full(2, True)
xp.tril(m, k=-1)
xp.matmul(m, m.T)
xp.tensordot(m, m, axes=2)
xp.vecdot(m, m)
xp.linalg.trace(m[:, :2])
xp.linalg.diagonal(m, offset=1)
xp.linalg.outer(i, i)
xp.linalg.cross(m, xp.asarray([1, 2, 3]))
xp.linalg.matrix_norm(f.reshape(2, 2))
xp.linalg.vector_norm(f, ord=1)
xp.linalg.slogdet(f.reshape(2, 2))
xp.linalg.solve(xp.asarray([[2.0, 0.0], [0.0, 4.0]]), xp.asarray([1.0, 2.0]))
xp.fft.fft(f)
xp.fft.fftfreq(4, d=0.5)
xp.fft.rfftn(m.astype("float64") if hasattr(m, "astype") else m.double(), axes=(0, 1))
xp.isdtype(xp.float32, "real floating")
xp.isdtype(xp.int8, ("bool", "unsigned integer"))
xp.isdtype(xp.bool, "numeric")
xp.can_cast(xp.int64, xp.int32)
xp.finfo(xp.float32).bits
xp.iinfo(xp.int8).max
xp.astype(f, xp.int32)
"""


def outcome(module: Any, text: str) -> Any:
    asarray = module.asarray
    scope = {
        "xp": module,
        "i": asarray([1, 2, 3, 4]),
        "f": asarray([-1.0, 0.5, 2.0, 3.5], dtype=module.float64),
        "f32": asarray([-1.0, 0.5], dtype=module.float32),
        "c": asarray([1 + 2j, 3j], dtype=module.complex128),
        "m": asarray([[1, 2, 3], [4, 5, 6]]),
    }
    try:
        return eval(text, scope)
    except Exception as error:
        return error


@pytest.mark.parametrize("text", EXPRESSIONS.strip().splitlines())
def test_like_numpy(text: str) -> None:
    mine, other = outcome(xp, text), outcome(np, text)
    if isinstance(other, Exception):
        assert type(mine) is type(other)
        return
    compare(mine, other)


def compare(mine: Any, other: Any) -> None:
    assert not isinstance(mine, Exception), mine
    if isinstance(other, tuple | list):
        assert len(mine) == len(other)
        if hasattr(other, "_fields"):
            assert mine._fields == other._fields
        for a, b in zip(mine, other, strict=True):
            compare(a, b)
    elif isinstance(other, np.ndarray | np.generic):
        array = mine.numpy()
        assert array.shape == other.shape
        # Where no dtype is given, the default floating type is float32 here and float64 in NumPy.
        widened = {"f": "f", "c": "c"}.get(array.dtype.kind, array.dtype.str)
        assert widened == {"f": "f", "c": "c"}.get(other.dtype.kind, other.dtype.str)
        assert np.allclose(array, other, rtol=1e-6, equal_nan=True)
        if array.dtype.kind == "f":
            assert np.array_equal(np.signbit(array), np.signbit(other)) or np.isnan(other).any()
    elif isinstance(mine, graphtorch.dtype):
        assert mine.numpy == other
    else:
        assert mine == other


def test_reshape_without_copy() -> None:
    m = xp.asarray([[1, 2, 3], [4, 5, 6]])
    xp.reshape(m, (6,), copy=False)[0] = 9
    assert m[0, 0] == 9
    with pytest.raises(ValueError, match="only a copy"):
        xp.reshape(m.T, (6,), copy=False)
    xp.reshape(m, (6,), copy=True)[0] = 1
    assert m[0, 0] == 9


def test_inspection() -> None:
    info = xp.__array_namespace_info__()
    assert info.capabilities() == {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}
    assert info.default_device() == graphtorch.device("cpu") and info.default_device() in info.devices()
    assert info.default_dtypes() == {
        "real floating": xp.float32,
        "complex floating": xp.complex64,
        "integral": xp.int64,
        "indexing": xp.int64,
    }
    assert info.dtypes(kind="unsigned integer") == {"uint8": xp.uint8}
    assert list(info.dtypes(kind=("bool", "complex floating"))) == ["bool", "complex64", "complex128"]
    with pytest.raises(ValueError, match="unknown kind"):
        info.dtypes(kind="whole")


def test_gradients_flow_and_compile() -> None:
    def loss(x: Any) -> Any:
        namespace = x.__array_namespace__()
        return namespace.sum(namespace.square(namespace.expand_dims(x, 0)) * 2, axis=(0, 1))

    x = graphtorch.tensor([1.0, 2.0], requires_grad=True)
    loss(x).backward()
    assert x.grad.tolist() == [4.0, 8.0]
    assert graphtorch.compile(loss)(x.detach()).item() == 10.0
