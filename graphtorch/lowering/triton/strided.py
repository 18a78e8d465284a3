"""Copies between arrays of any strides on a device: one small kernel for each rank and element size, whose sizes and
strides are arguments, so that no shape has to be compiled for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import Buffer
from graphtorch.lowering.triton.codegen import IMPORTS, Generated
from graphtorch.ops.record import Operator
from graphtorch.tensor import dtypes
from graphtorch.tensor.cuda_generator import cuda_generator
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.remote import DeviceArray, as_device, plain
from graphtorch.tensor.type import TensorType

_BLOCK = 1024
_CARRIERS = {1: dtypes.uint8, 2: dtypes.int16, 4: dtypes.int32, 8: dtypes.int64}  # elements move as bits
_MAX_RANK = 12


class _Unaligned(Generated):
    """A function whose pointers may be any element's address."""

    def hints(self) -> list[str]:
        return []


_functions: dict[tuple[int, int], Generated] = {}


def strided_copy(target: DeviceArray, source: DeviceArray) -> None:
    """target[...] = source, of one shape and dtype, on one device, and not overlapping."""
    from graphtorch.lowering.triton.kernels import launch_now

    if not target.size:
        return
    size = target.itemsize
    sizes, steps = collapse(target.shape, target.strides, source.strides)
    to, of = ([s // size for s in steps[0]], [s // size for s in steps[1]])
    if size == 16:  # complex numbers in double precision: pairs of eight bytes
        sizes, to, of, size = [*sizes, 2], [*(2 * s for s in to), 1], [*(2 * s for s in of), 1], 8
    if len(sizes) > _MAX_RANK:
        raise RuntimeError(f"copies of more than {_MAX_RANK} dimensions that can't be merged are not supported")
    function = _function(len(sizes), size)
    count = int(np.prod(sizes, dtype=np.int64))
    grid = (-(-count // _BLOCK), 1, 1)
    launch_now(function, grid, [target.address, source.address, count, *sizes, *to, *of], target.place.index)


def collapse(shape: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """The same elements in as few dimensions as can be: sizes of 1 left out, neighbours merged where all strides allow.

    The last dimension is made the one with the smallest stride of the first array.
    """
    dims = [d for d, n in enumerate(shape) if n != 1]
    dims.sort(key=lambda d: -abs(strides[0][d]))
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for d in dims:
        if sizes and all(s[-1] == of[d] * shape[d] for s, of in zip(steps, strides, strict=True)):
            sizes[-1] *= shape[d]
            for s, of in zip(steps, strides, strict=True):
                s[-1] = of[d]
            continue
        sizes.append(shape[d])
        for s, of in zip(steps, strides, strict=True):
            s.append(of[d])
    if not sizes:
        return [1], [[1] for _ in strides]
    return sizes, steps


def _function(rank: int, size: int) -> Generated:
    found = _functions.get((rank, size))
    if found is None:
        found = _functions[rank, size] = _write(rank, _CARRIERS[size])
    return found


def _write(rank: int, of: Any) -> Generated:
    integers = ["count", *(f"{kind}{d}" for kind in ("n", "to", "of") for d in range(rank))]
    lines = [
        f"def strided_copy_{rank}(target, source, {', '.join(integers)}, BLOCK: tl.constexpr):",
        "    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
        "    mask = i < count",
    ]
    rest = "i"
    for d in reversed(range(rank)):
        last = d == 0
        lines.append(f"    i{d} = {rest}" if last else f"    i{d} = {rest} % n{d}")
        if not last:
            lines.append(f"    r{d} = {rest} // n{d}")
            rest = f"r{d}"
    for kind in ("of", "to"):
        lines.append(f"    at_{kind} = " + " + ".join(f"i{d} * {kind}{d}" for d in range(rank)))
    lines += [
        "    value = tl.load(source + at_of, mask=mask)",
        "    tl.store(target + at_to, value, mask=mask)",
    ]
    value = Value(TensorType(of, (1,)), "x")
    target, source = (Buffer(name, of, (1,), kind, value) for name, kind in (("target", "output"), ("source", "input")))
    return _Unaligned(
        f"strided_copy_{rank}",
        IMPORTS + "\n\n@triton.jit\n" + "\n".join(lines) + "\n",
        (target, source),
        ("target", "source"),
        tuple((name, 0) for name in integers),
        {"BLOCK": _BLOCK},
        (),
        wide=True,
    )


def write_into(target: DeviceArray, value: Any) -> None:
    """target[...] = value: an array on the same device, or one of the host's, of the same shape and dtype."""
    from graphtorch.runtime.cuda import transfer

    if type(value) is not DeviceArray:
        value = transfer.to_device(np.asarray(value), target.place)
    if target.shape == value.shape and target.strides == value.strides and transfer.dense(target):
        transfer.copy_bytes(target, value)
    else:
        strided_copy(target, value)


def strided_view(base: Any, shape: Sequence[int], strides: Sequence[int], offset: int) -> Any:
    """A view of a row-major array; strides and offset in elements. Of another order there would be a copy by the host,
    which reads no device's memory."""
    assert base.flags.c_contiguous, "a view of what does not lie row by row"
    if 0 in shape:
        made = np.empty(shape, base.dtype)
        return as_device(made, base) if type(base) is DeviceArray else made
    flat = plain(base).reshape(-1)[offset:]
    view = np.lib.stride_tricks.as_strided(flat, shape, [s * base.itemsize for s in strides])
    return as_device(view, base) if type(base) is DeviceArray else view


def with_generator(op: Operator, args: Sequence[Any], place: device_class) -> tuple[Any, ...]:
    """The arguments of an operator that draws on the host, from the generator of the device."""
    at = op.positions.get("generator")
    if at is None or args[at] is not None:
        return tuple(args)
    return (*args[:at], cuda_generator(place.index), *args[at + 1 :])


_told: set[str] = set()


def tell_about_host(name: str) -> None:
    """Warn, once an operator, that it leaves the device."""
    if name not in _told:
        _told.add(name)
        warnings.warn(
            f"{name} has no CUDA kernel here: it runs on the host, with copies there and back",
            UserWarning,
            stacklevel=3,
        )
