"""Calling an operator: eager execution, the tape, meta tensors, in-place and `out=` forms, and the recorder.

Every public function ends in `call`. With no recorder active it runs the record's NumPy function and, where a gradient
may be wanted, puts a node on the tape."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import Any, NoReturn

import numpy as np

from graphtorch.autograd.graph import record_call, record_inplace
from graphtorch.autograd.state import modes_entered, state
from graphtorch.autograd.views import of_no_grad
from graphtorch.diagnostics import advice
from graphtorch.ops import native
from graphtorch.ops.record import Operator, lookup
from graphtorch.ops.strides import (
    contiguous_strides,
    laid_out,
    layout_of,
    like_pointwise,
    ordered_strides,
    row_major,
    under,
)
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU, META, canonical, device
from graphtorch.tensor.remote import as_device, plain
from graphtorch.tensor.tensor import Tensor, meta_array
from graphtorch.tensor.type import TensorType, type_of

_ndarray = np.ndarray
_NUMBERS = bool | int | float | complex


class _Quiet(threading.local):
    """Runs NumPy code without floating-point warnings: infinities and NaNs are ordinary results of tensor code.

    NumPy keeps its error mode in a context variable, so entering a context that was prepared once a thread switches it
    for the call alone, in a tenth of the time of `np.errstate`."""

    def __init__(self) -> None:
        context = Context()
        context.run(np.seterr, all="ignore")
        self.run: Callable[..., Any] = context.run

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Inside, operators may be called from an operator's own function: a context can't be entered twice."""
        outer = self.run
        self.__init__()  # type: ignore[misc]
        try:
            yield
        finally:
            self.run = outer


quiet = _Quiet()


def call(op: Operator, args: tuple[Any, ...]) -> Any:
    """Run `op` on arguments in signature order (already converted by the generated function)."""
    if op.autocast and state.autocast is not None:
        args = state.autocast.lower(args) if op.autocast == "lower" else state.autocast.widen(args)
    if op.normalize is not None:
        try:
            args = op.normalize(*args)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            _fail(op, args, error)
    recorder = state.recorder
    if recorder is not None:
        try:
            return recorder.call(op, args)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            _fail(op, args, error)
    if op.device_at is not None and (where := canonical(args[op.device_at])) is not CPU:
        return _make_on(op, args, where)
    needs_grad = False
    elsewhere = False
    is_large = False
    least = op.least
    arrays: list[Any] = []
    for arg in args:
        if isinstance(arg, Tensor):
            if arg._requires_grad or (arg._base is not None and arg.requires_grad):
                needs_grad = True
            if arg._device is not CPU:
                elsewhere = True
            data = arg._data
            if data.size >= least:
                is_large = True
            arrays.append(data)
        elif type(arg) is tuple and arg and op.has_list_operands:
            items = []
            for a in arg:
                if isinstance(a, Tensor):
                    needs_grad = needs_grad or a._requires_grad or (a._base is not None and a.requires_grad)
                    elsewhere = elsewhere or a._device is not CPU
                    items.append(a._data)
                else:
                    items.append(a)
            arrays.append(tuple(items))
        else:
            arrays.append(arg)
    try:
        if modes_entered and state.modes:
            results: Any = _through_modes(op, args)
            elsewhere = True  # it is laid out
        elif elsewhere:
            results = _elsewhere(op, args, arrays, _check_devices(args))
        else:
            if not op.lazy_check:
                _check(op, args)
            output = native.run(op, arrays) if is_large and op.native else None
            results = _wrap_results(op, quiet.run(op.numpy, *arrays) if output is None else output)
    except (RuntimeError, ValueError, TypeError, IndexError, FloatingPointError) as error:
        _explain(op, args, error)
    if op.kind == "view":
        _link_view(op, args, results)
        results._inference = args[0]._inference
    elif elsewhere:  # laid out already
        pass
    elif op.kind == "pointwise":
        _lay_out(op, arrays, results)
    else:
        _put_in_order(op, arrays, results)
    if state.inference and op.kind != "view":
        mark_inference(results)
    if needs_grad and state.grad_enabled and op.derivative:
        record_call(op, args, results, is_large)
    if type(results) is tuple and op.result_class is not None:
        return op.result_class(*results)
    return results


_passed: set[tuple[Any, ...]] = set()  # what type rules have accepted
_MOST_PASSED = 1 << 13


def _check(op: Operator, args: tuple[Any, ...]) -> None:
    """Let the type rule refuse bad arguments. A rule knows types and attributes only, so that it need not be asked
    about the same ones twice."""
    key: list[Any] = [op]
    for arg in args:
        if isinstance(arg, Tensor):
            key += (arg._dtype, arg._data.shape)
        elif type(arg) is tuple:
            for item in arg:
                key += (item._dtype, item._data.shape) if isinstance(item, Tensor) else (type(item), item)
            key.append(tuple)
        else:
            key += (type(arg), arg)
    known = tuple(key)
    try:
        if known in _passed:
            return
    except TypeError:  # an attribute that is no key
        known = ()
    op.type_rule(*args)
    if not known or op.random:
        return
    if len(_passed) >= _MOST_PASSED:
        _passed.clear()
    _passed.add(known)


def call_view(op: Operator, args: tuple[Any, ...]) -> Any:
    """`call` for a view operator, whose NumPy function computes nothing that could warn or need another layout."""
    source: Tensor = args[0]
    if state.recorder is not None or source._device is not CPU or modes_entered:
        return call(op, args)
    if op.normalize is not None:
        try:
            args = op.normalize(*args)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            _fail(op, args, error)
    try:
        if not op.lazy_check:
            op.type_rule(*args)
        data = op.numpy(source._data, *args[1:])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        _explain(op, args, error)
    return make_view(op, args, data)


def make_view(op: Operator, args: tuple[Any, ...], data: Any) -> Tensor:
    """The result of a view operator over its array: it shares the operand's storage and remembers the way from the
    base, which in-place changes of a view need."""
    source: Tensor = args[0]
    result = Tensor._wrap(data)
    storage = source._storage
    result._storage = storage = source._shared_storage() if storage is None else storage
    base = source._base
    if base is None:
        result._base = source
        result._steps = ((op, args[1:]),)
    else:
        result._base = base
        result._steps = (*source._steps, (op, args[1:]))
    if source._inference:
        result._inference = True
    if not state.grad_enabled or (base is not None and source._node_version < 0):
        result._node_version = -1 - storage.version
        if not state.grad_enabled:
            return result
    elif storage.version:
        result._node_version = storage.version
    if (source._requires_grad or (base is not None and source.requires_grad)) and op.derivative:
        record_call(op, args, result)
    return result


def mark_inference(results: Any) -> None:
    """Note that tensors were made in inference mode."""
    for result in results if isinstance(results, tuple) else (results,):
        result._inference = True


def _wrap_results(op: Operator, output: Any) -> Any:
    if type(output) is tuple:
        return tuple(Tensor._wrap(o if type(o) is _ndarray else np.asarray(o)) for o in output)
    return Tensor._wrap(output if type(output) is _ndarray else np.asarray(output))


def _lay_out(op: Operator, arrays: list[Any], results: Any) -> None:
    """Give the results of a pointwise operator PyTorch's strides, which differ from NumPy's for some operands that are
    not contiguous.
    """
    if type(results) is tuple:
        for result in results:
            _lay_out(op, arrays, result)
        return
    data = results._data
    if data.ndim < 2 or not data.size or all(a.flags.c_contiguous for a in arrays if type(a) is _ndarray):
        return
    if op.scalar == "copy" and arrays[1] is not None:
        return  # clone into a given memory format
    if lies_in_rows(op, arrays[0]):
        results._data = row_major(data)
        return
    results._data = like_pointwise(data, _operands(op, arrays))


def lay_out(op: Operator, arrays: list[Any], results: Any) -> None:
    """Give the results of an operator that is no view the memory order that PyTorch's have."""
    if op.kind == "pointwise":
        _lay_out(op, arrays, results)
    else:
        _put_in_order(op, arrays, results)


def lies_in_rows(op: Operator, first: Any) -> bool:
    """Whether PyTorch lays out a pointwise operator's result row by row, whatever its operands."""
    order = op.order.get("result")
    if order == "rows of complex":
        return first.dtype.kind == "c" if isinstance(first, _ndarray) else bool(first.dtype.is_complex)
    return order == "rows" or (op.name == "pow" and not hasattr(first, "shape"))


def _operands(op: Operator, arrays: list[Any]) -> list[Any]:
    """The arrays, and numbers in their places, among converted arguments."""
    pairs = zip(op.parameters, arrays, strict=True)
    found = [a for p, a in pairs if p.is_operand and isinstance(a, _ndarray | _NUMBERS)]
    return found[::-1] if op.order.get("result") == "reversed" else found


def _put_in_order(op: Operator, arrays: list[Any], results: Any) -> None:
    """Give the results of any other operator the memory order that its record states: row by row, mostly."""
    if type(results) is not tuple:
        data = results._data
        if not op.order and data.flags.c_contiguous:
            if 1 in data.shape and type(arrays[0]) is _ndarray and not arrays[0].flags.c_contiguous:
                results._data = under(data, contiguous_strides(data.shape))  # NumPy keeps strides of what it folds
            return
        results = (results,)
    rows = op.keeps_rows and all([r._data.flags.c_contiguous for r in results])
    if rows and all([_lies_plainly(a) for a in arrays if type(a) is _ndarray]):
        return
    for name, result in zip(op.results, results, strict=False):
        data = result._data
        order = op.order.get(name) if op.order else None
        if data.ndim < 2 or not data.size or callable(order) or (order is None and data.flags.c_contiguous):
            continue
        layouts = [layout_of(a) for a in _operands(op, arrays)] if order in ("channels", "input", "operands") else []
        result._data = laid_out(data, ordered_strides(order, data.shape, layouts))


def _lies_plainly(array: Any) -> bool:
    """Whether an array lies row by row and in no other order too, as it may with dimensions of size 1."""
    return array.flags.c_contiguous and 1 not in array.shape


def _elsewhere(op: Operator, args: tuple[Any, ...], arrays: list[Any], where: device) -> Any:
    """The results on another device than the CPU."""
    if where is META:
        return _meta(op, args, arrays)
    if op.kind == "view":
        source = arrays[0]
        return on_device(as_device(op.numpy(*map(plain, arrays)), source))
    own = op.kernels.get("eager")  # of a custom operator
    if own is not None and (results := own(args)) is not None:
        return results
    made = executor(where).run(op, args, where)
    return on_device(made[0]) if len(op.results) == 1 else tuple(map(on_device, made))


def _through_modes(op: Operator, args: tuple[Any, ...], inplace: bool = False) -> Any:
    """The results that the innermost dispatch mode gives."""
    from graphtorch.ops.modes import through

    return through(op, args, inplace)


on_device = Tensor._over


def executor(where: device) -> Any:
    """The module that runs operators on a device: `run(op, args, where)` and `update(op, args, where)`.

    Raises AssertionError where there is no such device, RuntimeError for a kind of device that nothing runs on.
    """
    if where.type != "cuda":
        raise RuntimeError(f"device {where} has no eager executor here")
    import importlib

    importlib.import_module("graphtorch.runtime.cuda.devices").device(where.index)
    return importlib.import_module("graphtorch.lowering.triton.eager")  # the compiler, below which operators stand


def transfer(where: device) -> Any:
    """The module that moves bytes to a device and back: `graphtorch.runtime.cuda.transfer`.

    Raises as `executor`.
    """
    executor(where)
    import importlib

    return importlib.import_module("graphtorch.runtime.cuda.transfer")


def _make_on(op: Operator, args: tuple[Any, ...], where: device) -> Tensor:
    """The result of an operator without tensor operands, on another device than the CPU."""
    assert op.device_at is not None
    args = (*args[: op.device_at], where, *args[op.device_at + 1 :])
    made: Tensor = _elsewhere(op, args, list(args), where)
    if state.inference:
        mark_inference(made)
    return made


def _meta(op: Operator, args: tuple[Any, ...], arrays: list[Any]) -> Any:
    """Results without data: the type rule's shapes, and for views NumPy's strides."""
    types = op.infer(args)
    if op.kind == "view":
        result = Tensor._wrap(op.numpy(*arrays))
        result._device = META
        return result
    results = []
    for t in types:
        tensor = Tensor._wrap(meta_array(t.shape, t.dtype), t.dtype)
        tensor._device = META
        results.append(tensor)
    return results[0] if len(op.results) == 1 else tuple(results)


def _check_devices(args: tuple[Any, ...]) -> device:
    """All operands with dimensions live on one device, which is returned; zero-dimensional CPU tensors mix with any.

    Raises RuntimeError with PyTorch's message.
    """
    first: Tensor | None = None
    for tensor in tensors_of(args):
        if tensor._device is CPU and tensor.ndim == 0:
            continue
        if first is None:
            first = tensor
        elif tensor._device != first._device:
            if META in (tensor._device, first._device):
                raise RuntimeError(f"Tensor on device {tensor._device} is not on the expected device {first._device}!")
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{first._device} and {tensor._device}!"
            )
    return CPU if first is None else first._device


def tensors_of(args: tuple[Any, ...]) -> list[Tensor]:
    """The tensors among the arguments, lists flattened, in order."""
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif type(arg) is tuple or type(arg) is list:
            found.extend(a for a in arg if isinstance(a, Tensor))
    return found


def _link_view(op: Operator, args: tuple[Any, ...], result: Tensor) -> None:
    """Share the storage and remember the way from the base, which in-place changes of a view need."""
    source: Tensor = args[0]
    result._storage = source._shared_storage()
    result._base = source if source._base is None else source._base
    result._steps = (*source._steps, (op, args[1:]))
    version = result._storage.version
    under_grad = state.grad_enabled and not (source._base is not None and source._node_version < 0)
    result._node_version = version if under_grad else -1 - version


# -- in-place and out= ------------------------------------------------------------------------------------------------


def call_inplace(op: Operator, args: tuple[Any, ...]) -> Tensor:
    """`args[0] <- op(*args)`: the trailing-underscore form. Returns `args[0]`.

    Raises RuntimeError, before anything changes, for a leaf that requires grad (outside no_grad), for a result of
    another shape, or one whose dtype the target can't hold."""
    if op.normalize is not None:
        try:
            args = op.normalize(*args)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            _fail(op, args, error)
    target: Tensor = args[0]
    recorder = state.recorder
    try:
        operands = tensors_of(args)
        tracked = state.grad_enabled and _any_requires_grad(operands)
        check_inplace(target, tracked, overlapping=_writes_the_same(op, target))
        if recorder is not None:
            recorder.call_inplace(op, args)
            return target
        if any(t._device is not CPU for t in operands):
            return _update_elsewhere(op, args, tracked)
        if not op.lazy_check:
            _check(op, args)
        differentiable = bool(op.derivative) and target._dtype.is_differentiable
        needs_grad = tracked and differentiable
        arrays = [
            a._data
            if isinstance(a, Tensor)
            else tuple([i._data if isinstance(i, Tensor) else i for i in a])
            if type(a) is tuple
            else a
            for a in args
        ]
        watched = bool(modes_entered and state.modes)
        is_large = op.native and target._data.size >= op.least and not watched
        if (
            not needs_grad
            and not watched
            and ((op.update is not None and quiet.run(op.update, *arrays)) or (is_large and native.update(op, arrays)))
        ):
            _written(target)
            return target
        output = native.run(op, arrays) if is_large else _through_modes(op, args, True)._data if watched else None
        value = quiet.run(op.numpy, *arrays) if output is None else output
        if value.shape != target._data.shape or value.dtype != target._data.dtype:
            _check_result(op, target, op.infer(args)[0])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        _explain(op, args, error)
    if needs_grad:
        record_inplace(op, args, lambda: quiet.run(np.copyto, target._data, value, casting="unsafe"))
    else:
        quiet.run(np.copyto, target._data, value, casting="unsafe")
        _written(target)
    return target


def _update_elsewhere(op: Operator, args: tuple[Any, ...], tracked: bool) -> Tensor:
    """`call_inplace` on another device than the CPU."""
    target: Tensor = args[0]
    where = _check_devices(args)
    _check_result(op, target, op.infer(args)[0])
    if target._device is not where:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{target._device} and {where}!"
        )
    if where is META:
        target._bump_version()
        return target
    run = executor(where)
    changing, operands = op, args
    if modes_entered and state.modes:
        changing, operands = lookup("copy"), (target, _through_modes(op, args, True), False)
    differentiable = bool(op.derivative) and target._dtype.is_differentiable
    if tracked and differentiable:
        record_inplace(op, args, lambda: run.update(changing, operands, where))
    else:
        run.update(changing, operands, where)
        _written(target)
    return target


OVERLAP = (
    "unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory "
    "location. Please clone() the tensor before performing the operation."
)


def _any_requires_grad(tensors: list[Tensor]) -> bool:
    """Whether some tensor requires grad; asks the property, which may work, only where the field does not tell."""
    recorded = state.recorder is not None
    return any([(t._requires_grad or recorded or t._base is not None) and t.requires_grad for t in tensors])


def _writes_the_same(op: Operator, target: Tensor) -> bool:
    """Whether an in-place operator may write a place in memory several times: one value everywhere, or nothing new."""
    return op.name == "fill" or (op.name == "nan_to_num" and not target._dtype.is_differentiable)


def _written(target: Tensor) -> None:
    """Note an in-place change that is not on the tape."""
    target._bump_version()
    if state.grad_enabled and target._node is not None and target._base is None and not target._requires_grad:
        target._node = None


def check_inplace(target: Tensor, tracked: bool, overlapping: bool = False) -> None:
    """Refuse in-place changes of overlapping memory (unless `overlapping`) and those that the tape can't represent, in
    PyTorch's words."""
    if target._inference and not state.inference:
        raise RuntimeError(
            "Inplace update to inference tensor outside InferenceMode is not allowed.You can make a clone to get a "
            "normal tensor before doing inplace update.See https://github.com/pytorch/rfcs/pull/17 for more details."
        )
    if not overlapping:
        check_single_places(target)
    if not state.grad_enabled or not (tracked or target._base is not None):
        return
    base = target._base
    if tracked and base is not None and target._node_version < 0:
        raise RuntimeError(of_no_grad(target, "is being"))
    if target._requires_grad and target.is_leaf:
        if base is not None:
            raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
    if base is not None and base._requires_grad and base.is_leaf:
        raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")


def check_single_places(target: Tensor) -> None:
    """Refuse to write several values to one place in memory. Raises RuntimeError."""
    layout = target._layout()
    if (
        not layout.flags.c_contiguous
        and 0 in layout.strides
        and layout.size
        and any(s == 0 and n > 1 for s, n in zip(layout.strides, layout.shape, strict=True))
    ):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )


def _check_result(op: Operator, target: Tensor, result: TensorType) -> None:
    if tuple(result.shape) != tuple(target.shape):
        raise RuntimeError(
            f"output with shape {list(target.shape)} doesn't match the broadcast shape {list(result.shape)}"
        )
    if not dtypes.can_cast(result.dtype, target._dtype):
        raise RuntimeError(
            f"result type {_scalar_name(result.dtype)} can't be cast to the desired output type "
            f"{_scalar_name(target._dtype)}"
        )


def call_out(op: Operator, args: tuple[Any, ...], out: Any) -> Any:
    """The `out=` form: compute, then write into the given tensor (resized if its shape differs and it is empty).

    Raises RuntimeError, before anything is drawn or written, when gradients would be lost or the results don't fit.
    """
    outs = out if isinstance(out, tuple | list) else (out,)
    if state.grad_enabled and any(t.requires_grad for t in (*tensors_of(args), *outs)):
        raise RuntimeError(
            f"{op.name}(): functions with out=... arguments don't support automatic differentiation, but one of the "
            "arguments requires grad."
        )
    for tensor in outs:
        given = tensors_of(args)
        if given and tensor._device is not CPU and state.recorder is None and all(t._device is CPU for t in given):
            raise RuntimeError(f"Expected out tensor to have device cpu, but got {tensor._device} instead")
    check_apart(op.name, tensors_of(args), outs)
    exact = op.name in EXACT
    if op.random and state.recorder is None:
        _check_outs(outs, op.infer(op.normalize(*args) if op.normalize is not None else args), exact)
    write_out(outs, call(op, args), exact)
    return out


# Their results may not lie in the memory of an operand, not even in all of it.
APART = frozenset({"cat", "gather", "kthvalue", "masked_select", "take"})
# Their results are not cast.
EXACT = frozenset({"aminmax", "complex", "gather", "multinomial"})


def check_apart(name: str, operands: Sequence[Tensor], outs: Sequence[Tensor]) -> None:
    """Raise RuntimeError for an `out=` tensor in an operand's memory, of the operators that do not allow it."""
    if name not in APART:
        return
    for tensor in outs:
        for operand in operands:
            if operand is tensor or (operand.numel() and tensor.numel() and _same_memory(operand, tensor)):
                raise RuntimeError(OVERLAP)


def _same_memory(one: Tensor, other: Tensor) -> bool:
    first, second = one._shared_storage(), other._shared_storage()
    return first is second or (first.data_ptr() != 0 and first.data_ptr() == second.data_ptr())


def write_out(outs: Sequence[Tensor], results: Any, exact: bool = False) -> None:
    """Write results into the tensors given as `out=`, which must have their very dtypes if `exact`.

    Raises RuntimeError, before anything is written, for a tensor that can't hold its result.
    """
    given = results if isinstance(results, tuple | list) else (results,)
    _check_outs(outs, given, exact)
    for tensor, result in zip(outs, given, strict=True):
        if tuple(tensor.shape) != tuple(result.shape):
            if tensor.numel() != 0:
                import warnings

                warnings.warn(
                    f"An output with one or more elements was resized since it had shape {list(tensor.shape)}, which "
                    f"does not match the required output shape {list(result.shape)}. This behavior is deprecated.",
                    stacklevel=3,
                )
            tensor.data = result.to(tensor.dtype)
        else:
            tensor.copy_(result)


def _check_outs(outs: Sequence[Tensor], results: Sequence[Any], exact: bool) -> None:
    """Raise RuntimeError for an `out=` tensor that can't hold its result, ValueError for a wrong number of them."""
    for tensor, result in zip(outs, results, strict=True):
        if exact and tensor.dtype is not result.dtype:
            raise RuntimeError(
                f"Expected out tensor to have dtype {_scalar_name(result.dtype)}, but got "
                f"{_scalar_name(tensor.dtype)} instead"
            )
        if not dtypes.can_cast(result.dtype, tensor.dtype):
            raise RuntimeError(
                f"result type {_scalar_name(result.dtype)} can't be cast to the desired output type "
                f"{_scalar_name(tensor.dtype)}"
            )
        if tuple(tensor.shape) == tuple(result.shape):
            check_inplace(tensor, False)


_SCALAR_NAMES = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "uint8": "Byte",
    "int8": "Char",
    "int16": "Short",
    "int32": "Int",
    "int64": "Long",
    "bool": "Bool",
    "complex64": "ComplexFloat",
    "complex128": "ComplexDouble",
}


def _scalar_name(d: dtypes.dtype) -> str:
    """PyTorch's C++ name of a dtype, as its messages use it."""
    return _SCALAR_NAMES[d.name]


# -- errors -----------------------------------------------------------------------------------------------------------


def _explain(op: Operator, args: tuple[Any, ...], error: Exception) -> NoReturn:
    """Prefer the type rule's message (PyTorch's) to what NumPy said of the same mistake."""
    try:
        _check_devices(args)
        op.infer(args)
    except (RuntimeError, ValueError, TypeError, IndexError) as better:
        _fail(op, args, better)
    _fail(op, args, error)


def _fail(op: Operator, args: tuple[Any, ...], error: Exception) -> NoReturn:
    """Re-raise with the call's operands and the user's line below PyTorch's message."""
    if getattr(error, "_graphtorch_located", False):
        raise error
    described = ", ".join(f"{p.name}={_describe(a)}" for p, a in zip(op.parameters, args, strict=False))
    message = str(error.args[0]) if error.args else str(error)
    located = type(error)(f"{message}\n  in {op.name}({described})\n  at {user_location()}{advice(message)}")
    located._graphtorch_located = True  # type: ignore[attr-defined]
    raise located from None


def _describe(arg: Any) -> str:
    if isinstance(arg, Tensor):
        return str(type_of(arg))
    if isinstance(arg, tuple) and any(isinstance(a, Tensor) for a in arg):
        return "[" + ", ".join(_describe(a) for a in arg) + "]"
    return repr(arg)


_PACKAGE = __name__.partition(".")[0]


def user_frame() -> Any:
    """The innermost stack frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if name != _PACKAGE and not name.startswith(_PACKAGE + "."):
            return frame
        frame = frame.f_back
    return frame


def user_location() -> str:
    """`file:line: text` of the user's innermost line."""
    import linecache

    frame = user_frame()
    file, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, line).strip()
    return f"{file}:{line}" + (f": {text}" if text else "")
