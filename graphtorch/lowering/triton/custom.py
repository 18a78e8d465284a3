"""Triton kernels that users register for their own operators (graphtorch.library)."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import IMPORTS, Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.schedule.indexing import row_major
from graphtorch.tensor.type import TensorType

_DEFINITION = re.compile(r"^def\s+(\w+)\s*\(", re.MULTILINE)


@dataclass(frozen=True)
class CustomKernel:
    """A kernel and how it is launched.

    source      the text of one function, without decorator or imports. Its parameters are, in any order, names of
                tensor operands and of results (pointers to row-major memory), of sizes, of constants (`tl.constexpr`)
                and of the operator's other parameters (`tl.constexpr` as well)
    name        the function's name
    parameters  its parameters
    sizes       called with the operator's arguments, tensors as `TensorType`s (dtype, shape): the integer arguments
    grid        (size, constant) pairs: a program for each block of that many points, multiplied over the pairs
    constants   values of `tl.constexpr` parameters, such as block sizes
    results     the names of the operator's results
    """

    source: str
    name: str
    parameters: tuple[str, ...]
    sizes: Callable[..., Mapping[str, Any]]
    grid: tuple[tuple[str, str], ...]
    results: tuple[str, ...]
    constants: Mapping[str, int] = field(default_factory=dict)
    num_warps: int = 4


def custom_kernel(
    kernel: Any,
    sizes: Callable[..., Mapping[str, Any]],
    grid: tuple[tuple[str, str], ...],
    results: tuple[str, ...],
    constants: Mapping[str, int],
    num_warps: int,
) -> CustomKernel:
    """Read a kernel from its text, or from a function (that of `@triton.jit` too). Raises ValueError for a text that is
    no function."""
    text = kernel if isinstance(kernel, str) else inspect.getsource(getattr(kernel, "fn", kernel))
    text = textwrap.dedent(text).strip()
    found = _DEFINITION.search(text)
    if found is None:
        raise ValueError("a Triton kernel is the text of a function: `def name(parameters): ...`")
    import ast

    definition = ast.parse(text[found.start() :]).body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise ValueError("a Triton kernel is the text of a function: `def name(parameters): ...`")
    parameters = tuple(argument.arg for argument in definition.args.args)
    source = text[found.start() :]
    return CustomKernel(source, found.group(1), parameters, sizes, tuple(grid), results, dict(constants), num_warps)


def generate_custom(call: ExternCall, kernel: CustomKernel, bindings: Mapping[str, int]) -> Generated:
    """The launch of a custom operator's kernel. Raises UnsupportedError for an operand that is not row-major."""
    given = dict(zip((p.name for p in call.op.parameters), call.args, strict=True))
    integers = dict(kernel.sizes(**{name: _described(value) for name, value in given.items()}))
    buffers: dict[str, Buffer] = {}
    for name, value in given.items():
        if isinstance(value, View):
            buffers[name] = _whole(value, f"{call.op.name}: operand '{name}'")
    for name, buffer in zip(kernel.results, call.outputs, strict=True):
        if buffer is None:
            raise UnsupportedError(f"{call.op.name}: the result '{name}' is not used, but its kernel writes it")
        buffers[name] = buffer
    constants: dict[str, Any] = dict(kernel.constants)
    pointers, sizes = [], []
    for name in kernel.parameters:
        if name in buffers:
            pointers.append(name)
        elif name in integers:
            sizes.append(name)
        elif name in given:
            constants[name] = given[name]
        elif name not in constants:
            raise UnsupportedError(f"{call.op.name}: nothing is known of its kernel's parameter '{name}'")
    values = {name: concrete(integers[name], bindings) for name in sizes}
    constants = {name: value for name, value in constants.items() if name in kernel.parameters}
    # Launches pass pointers, then integers, then constants: a function of that order calls the kernel.
    ordered = [*pointers, *sizes, *(f"{name}: tl.constexpr" for name in constants)]
    entry = f"launch_{kernel.name}"
    imports = "".join(IMPORTS.splitlines(True)[:2])
    source = (
        f"{imports}\n\n@triton.jit\n{kernel.source}\n\n\n"
        f"@triton.jit\ndef {entry}({', '.join(ordered)}):\n    {kernel.name}({', '.join(kernel.parameters)})\n"
    )
    wide = max([*values.values(), 0]) >= 2**31
    return Generated(
        entry,
        source,
        tuple(buffers[name] for name in pointers),
        tuple(pointers),
        tuple((name, integers[name]) for name in sizes),
        constants,
        tuple((integers[size], constants[block]) for size, block in kernel.grid),
        wide,
        frozenset(name for name, value in values.items() if value % 16 == 0),
        kernel.num_warps,
    )


def _described(value: Any) -> Any:
    """An argument as `sizes` sees it."""
    if isinstance(value, View):
        return TensorType(value.buffer.dtype, tuple(value.shape))
    return tuple(map(_described, value)) if type(value) is tuple else value


def _whole(view: View, what: str) -> Buffer:
    if view.offset != 0 or tuple(view.strides) != tuple(row_major(view.shape)):
        raise UnsupportedError(f"{what} does not lie row-major at the start of its memory; pass a clone of it")
    return view.buffer
