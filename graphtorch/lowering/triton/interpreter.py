"""Running generated kernels in Triton's interpreter: on NumPy memory, without a GPU, without torch, in a process that
also compiles.

Triton chooses between compiler and interpreter when it is imported, by an environment variable. Here the patches that
its interpreter makes are applied around each launch and taken back, so that both work side by side. While they are in
place no kernel can be compiled: `LOCK` keeps the two apart.

What is replaced in it while a kernel runs: conversions of bfloat16 (its own lose a carry) and products of such
matrices; the type of comparisons (numbers, once such a scalar is broadcast); library functions (it has none); and
folds and scans with a function of one's own (its own call it once an element; here it takes halves).
"""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphtorch.lowering.triton.loading import load_source

LOCK = threading.RLock()

Array = np.ndarray[Any, Any]


def interpret(
    source: str,
    name: str,
    signature: Mapping[str, str],
    arguments: Sequence[int],
    constants: Mapping[str, int],
    grid: tuple[int, int, int],
) -> None:
    """Run one kernel over its grid.

    arguments   addresses of host memory and integers, in the order of the signature without its constants
    """
    with LOCK:
        function = _interpreted(source, name)
        with _interpreting() as module, np.errstate(all="ignore"):
            run = function.rewrite()
            given = dict(constants)
            types_of = [(a, t) for a, t in signature.items() if t != "constexpr"]
            for (argument, type_name), value in zip(types_of, arguments, strict=True):
                given[argument] = _tensor(value, type_name)
            builder = module.interpreter_builder
            builder.set_grid_dim(*grid)
            for x in range(grid[0]):
                for y in range(grid[1]):
                    for z in range(grid[2]):
                        builder.set_grid_idx(x, y, z)
                        run(**given)


def _tensor(value: int, type_name: str) -> Any:
    """An argument as the interpreter's tensor of exactly that type."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    of = tl.str_to_ty(type_name, None)
    memory = np.uint64 if type_name.startswith("*") else {"i32": np.int32, "i64": np.int64}[type_name]
    return tl.tensor(TensorHandle(np.array([value], memory), of), of)


@cache
def _function_class() -> Any:
    """A device function that is called as it is: Triton's own patches its modules at every call and leaves them so."""
    from triton.runtime.interpreter import InterpretedFunction

    class DeviceFunction(InterpretedFunction):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.rewrite()(*args, **kwargs)

    return DeviceFunction


_functions: dict[tuple[str, str], Any] = {}


def _interpreted(source: str, name: str) -> Any:
    found = _functions.get((source, name))
    if found is None:
        import triton

        shim = types.ModuleType("triton")
        shim.__dict__.update({k: v for k, v in vars(triton).items() if not k.startswith("__")})
        shim.jit = _function_class()  # type: ignore[attr-defined]
        namespace = load_source(source, {"triton": shim, "libdevice": _Library()})
        if len(_functions) >= 1024:
            _functions.clear()
        found = _functions[source, name] = namespace[name]
    return found


_depth = 0


@contextlib.contextmanager
def _interpreting() -> Iterator[Any]:
    """The interpreter's patches in place; its module."""
    global _depth
    import triton
    import triton.language as tl
    import triton.language.core
    import triton.language.math
    import triton.language.random
    import triton.language.standard
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    # This imports what must see the modules as they are.
    triton.runtime.jit.mangle_type(1)
    _depth += 1
    if _depth > 1:
        try:
            yield interpreter
        finally:
            _depth -= 1
        return
    undo: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, attribute: str, value: Any) -> None:
        undo.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    scope = None
    try:
        for module in (tl, tl.core, tl.standard, tl.random, tl.math, tl.core.tensor):
            for attribute, value in list(vars(module).items()):
                if isinstance(value, JITFunction):
                    replace(module, attribute, _device_function(value))
        anchor = types.FunctionType((lambda: None).__code__, {"tl": tl, "core": tl.core})
        scope = interpreter._patch_lang(anchor)
        # Triton 3.6 converts an array of one element, which newer NumPy refuses.
        scope.set_attr(tl.core.tensor, "__index__", lambda self: int(self.handle.data.reshape(-1)[0]))
        replace(interpreter, "_convert_float", _convert_float(interpreter._convert_float))
        replace(interpreter.ReduceOps, "generic_reduce", _fold_halves)
        replace(interpreter.ScanOps, "generic_scan", _scan_doubling)
        builder = interpreter.InterpreterBuilder
        replace(builder, "create_dot", _dot(builder.create_dot))
        replace(builder, "binary_op", _binary(builder.binary_op))
        if not hasattr(builder, "get_bf16"):  # Triton 3.6 has no scalars of this dtype
            made = lambda self, value: self.create_fp_trunc(self.get_fp32(value), tl.bfloat16)  # noqa: E731
            scope.set_attr(builder, "get_bf16", made)
        yield interpreter
    finally:
        if scope is not None:
            scope.restore()
        for owner, attribute, value in reversed(undo):
            setattr(owner, attribute, value)
        _depth -= 1


@cache
def _device_function(function: Any) -> Any:
    return _function_class()(function.fn)


# -- repairs ----------------------------------------------------------------------------------------------------------


def _to_bfloat16(x: Array) -> Array:
    """The bits of float32 numbers rounded to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded).reshape(np.shape(x))


def _from_bfloat16(bits: Array) -> Array:
    wide = np.ascontiguousarray(bits).view(np.uint16).astype(np.uint32) << 16
    return wide.view(np.float32).reshape(np.shape(bits))


def _convert_float(original: Callable[..., Any]) -> Callable[..., Any]:
    import triton.language as tl

    def convert(data: Array, source: Any, target: Any, rounding: Any) -> Any:
        if source == tl.float32 and target == tl.bfloat16:
            return _to_bfloat16(data)
        if source == tl.bfloat16 and target == tl.float32:
            return _from_bfloat16(data).view(np.uint32)
        return original(data, source, target, rounding)

    return convert


def _dot(original: Callable[..., Any]) -> Callable[..., Any]:
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def widened(handle: Any) -> Any:
        return TensorHandle(_from_bfloat16(handle.data), tl.float32) if handle.dtype == tl.bfloat16 else handle

    return lambda self, a, b, d, *rest: original(self, widened(a), widened(b), d, *rest)


def _binary(original: Callable[..., Any]) -> Callable[..., Any]:
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def run(self: Any, a: Any, b: Any, function: Any) -> Any:
        made = original(self, a, b, function)
        return TensorHandle(made.data, tl.int1) if made.data.dtype == np.bool_ else made

    return run


def _fold_halves(self: Any, input: Any) -> Any:
    """A fold by an associative function: the two halves of the extent combined, until one element is left."""
    parts = [np.moveaxis(x.handle.data, self.axis, 0) for x in input]
    of = [x.dtype for x in input]
    while parts[0].shape[0] > 1:
        half = parts[0].shape[0] // 2
        low = [self.to_tensor(p[:half], d) for p, d in zip(parts, of, strict=True)]
        high = [self.to_tensor(p[half:], d) for p, d in zip(parts, of, strict=True)]
        made = self.combine_fn.fn(*low, *high)
        parts = [m.handle.data for m in (made if isinstance(made, tuple) else (made,))]
    results = [p[0] for p in parts]
    if self.keep_dims:
        results = [np.expand_dims(r, self.axis) for r in results]
    return [self.to_tensor(r, d) for r, d in zip(results, of, strict=True)]


def _scan_doubling(self: Any, input: Any) -> Any:
    """A running fold: each element combined with what lies 1, 2, 4, ... before it."""
    parts = [np.moveaxis(x.handle.data, self.axis, 0).copy() for x in input]
    of = [x.dtype for x in input]
    step = 1
    while step < parts[0].shape[0]:
        before = [self.to_tensor(np.roll(p, step, 0), d) for p, d in zip(parts, of, strict=True)]
        here = [self.to_tensor(p.copy(), d) for p, d in zip(parts, of, strict=True)]
        made = self.combine_fn.fn(*before, *here)
        for part, m in zip(parts, made if isinstance(made, tuple) else (made,), strict=True):
            part[step:] = m.handle.data[step:]
        step *= 2
    return [self.to_tensor(np.moveaxis(p, 0, self.axis), d) for p, d in zip(parts, of, strict=True)]


# -- library functions ------------------------------------------------------------------------------------------------

_NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "pow": "power"}


class _Library:
    """What stands for `libdevice`: its functions on the interpreter's tensors."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Any = _OWN[name]() if name in _OWN else getattr(np, _NAMES.get(name, name))

        def run(*operands: Any) -> Any:
            import triton.language as tl
            from triton.runtime.interpreter import TensorHandle

            made = np.asarray(function(*(o.handle.data for o in operands)))
            of = operands[0].type.scalar
            block = any(o.type.is_block() for o in operands)  # the data of a scalar has a dimension as well
            return tl.tensor(TensorHandle(made, of), tl.block_type(of, list(made.shape)) if block else of)

        return run


def _erf(x: Array) -> Array:
    made: Array = np.vectorize(math.erf, otypes=[x.dtype])(x)
    return made


def _reference(module: str, name: str, *first: Any) -> Callable[[], Callable[..., Array]]:
    """The reference's function of that name, imported when it is first called."""

    def load() -> Callable[..., Array]:
        function = getattr(importlib.import_module(f"graphtorch.ops.{module}"), name)
        return lambda *arrays: function(*first, *arrays)

    return load


# What NumPy has no function for.
_OWN: dict[str, Callable[[], Callable[..., Array]]] = {
    "erf": lambda: _erf,
    "lgamma": _reference("gamma_function", "lgamma"),
    "erfinv": _reference("error_function", "erfinv"),
    "erfcx": _reference("special_functions", "_numpy_erfcx"),
    "j0": _reference("bessel_functions", "_j", 0),
    "j1": _reference("bessel_functions", "_j", 1),
    "y0": _reference("bessel_functions", "_y", 0),
    "y1": _reference("bessel_functions", "_y", 1),
}
