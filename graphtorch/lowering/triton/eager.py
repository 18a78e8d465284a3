"""Eager operators on CUDA devices: each is a graph of one node, compiled like any other graph and kept.

What is kept is found by the operator, its attributes, and its operands' dtypes, ranks and pattern of sizes (which are
1, which are equal). The first shape that is met is compiled as it is; another one of the same pattern makes the sizes
symbolic, so that further shapes cost nothing. Pointwise operators on operands of one layout run over their memory in a
row, whatever the shape; operands in another order of dimensions are permuted, other strided ones packed first. Numbers
that programs change from call to call are arguments of the kernels.

Operators without a kernel, and those whose results' shapes depend on data, run on the host, with one warning each."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.kernel import Kernel
from graphtorch.lowering.triton.errors import ResourceError, UnsupportedError
from graphtorch.lowering.triton.execution import DeviceExecutable, Program
from graphtorch.lowering.triton.splitting import LONG
from graphtorch.lowering.triton.strided import tell_about_host, with_generator, write_into
from graphtorch.ops.dispatch import lies_in_rows, quiet
from graphtorch.ops.record import Operator
from graphtorch.ops.strides import contiguous_strides, layout_of, ordered_strides, pointwise_strides
from graphtorch.runtime.cuda import devices, transfer
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.precision import settings as precision
from graphtorch.tensor.remote import DeviceArray, as_device, device_array, plain
from graphtorch.tensor.symint import SymbolScope, SymInt
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

Array = np.ndarray[Any, Any]

_STATIC = 2  # shapes of one pattern that are compiled as they are
_REMEMBERED = 4096  # calls that look different
_KEPT = 64  # shapes of one pattern that are remembered where sizes can't be symbolic


@dataclass
class _Operand:
    """A tensor operand as an input of the graph.

    shape       of the input; sizes of expanded dimensions are 1
    permuted    the dimensions in the order in which the input has them; None: as they are
    expanded    the operand's own shape where the input is expanded to it
    """

    array: Any
    of: dtype
    shape: tuple[int, ...]
    permuted: tuple[int, ...] | None = None
    expanded: tuple[int, ...] | None = None


@dataclass
class _Variants:
    """What was compiled for one operator and pattern."""

    shapes: dict[tuple[int, ...], DeviceExecutable] = field(default_factory=dict)
    # With what must hold of the sizes, and whether they are many elements (None: that makes no difference).
    symbolic: list[tuple[SymbolScope, bool | None, DeviceExecutable]] = field(default_factory=list)
    fixed: bool = False  # sizes can't be symbolic


_variants: dict[tuple[Any, ...], _Variants] = {}
_on_host: set[Operator] = set()
_DECIDING = frozenset(("constant_pad_nd", "pow"))  # operators whose numbers decide what is computed
_constants: set[Operator] = set()  # and those that were found to be such
_lock = threading.RLock()


def _decide(op: Operator, args: tuple[Any, ...]) -> bool:
    """Whether numbers of a call are constants of what is compiled for it: integers truncate theirs."""
    whole = isinstance(args[0], Tensor) and args[0]._dtype.category < dtypes.FLOATING
    return whole or op.name in _DECIDING or op in _constants


def run(op: Operator, args: tuple[Any, ...], place: device_class) -> tuple[Any, ...]:
    """The results of an operator as arrays on the device, laid out as PyTorch would.

    Raises what the operator's type rule raises. Views are not for here.
    """
    if op.name == "clone":
        return (_clone(args[0]._data, args[1]),)
    key = _signature(op, args, place, False)
    recipe = None if key is None else _recipes.get(key)
    if recipe is not None:
        made = recipe.run(args)
        if made is not None:
            return tuple(made)
    types = op.infer(args)
    if op.random and not _tensors(args) and len(types[0].shape) != 1 and type(args[0]) is tuple:
        # What is drawn for an element depends on its number only: one kernel serves all shapes.
        (flat,) = run(op, ((int(np.prod(args[0], dtype=np.int64)),), *args[1:]), place)
        return (as_device(plain(flat).reshape(args[0]), flat),)
    if op in _on_host or not all(type(n) is int for t in types for n in t.shape):
        return _run_on_host(op, args, place)
    if any(t.dtype.is_complex for t in types) or any(d.is_complex for d in _dtypes_of(args)):
        return _run_on_host(op, args, place)
    try:
        found, recipe = _run(op, args, types, place)
    except _NoKernel:
        with _lock:
            _on_host.add(op)
        return _run_on_host(op, args, place)
    results = tuple(_lay_out(op, args, name, array) for name, array in zip(op.results, found, strict=True))
    if recipe is not None and all(a is b for a, b in zip(results, found, strict=True)):
        _remember(key, recipe)
    return results


def update(op: Operator, args: tuple[Any, ...], place: device_class) -> None:
    """`args[0] <- op(*args)` in the memory of the target."""
    target = args[0]._data
    if op.name == "copy" and _is_plain_copy(args) and not _overlaps(target, args[1:]):
        write_into(target, args[1]._data)
        return
    key = _signature(op, args, place, True)
    recipe = None if key is None else _recipes.get(key)
    if recipe is not None and recipe.run(args) is not None:
        return
    if (
        op not in _on_host
        and not any(d.is_complex for d in _dtypes_of(args))
        and transfer.dense(target)
        and target.address % 16 == 0
        and not _overlaps(target, args[1:])
    ):
        try:
            if _update(op, args, place, key):
                return
        except _NoKernel:
            with _lock:
                _on_host.add(op)
    (value,) = run(op, args, place)
    if value.dtype != target.dtype:
        value = cast(value, args[0]._dtype)
    write_into(target, _expanded(value, target.shape))


def constant(
    size: Sequence[int], value: Any, of: dtype, place: device_class, strides: Sequence[int] | None = None
) -> DeviceArray:
    """A new array of one value, or of none in particular for None; `strides` in elements."""
    where = devices.device(place.index)
    steps = contiguous_strides(size) if strides is None else strides
    count = 1 + sum((n - 1) * s for n, s in zip(size, steps, strict=True)) if 0 not in size else 0
    memory = transfer.allocate(where, count * of.itemsize)
    made = device_array(memory, size, of.numpy, 0, [s * of.itemsize for s in steps])
    if value is None or not count:
        return made
    pattern = np.asarray(value).astype(of.numpy).tobytes()
    if len(set(pattern)) == 1:
        where.driver.fill(memory.address, pattern[0], memory.nbytes, devices.stream_of(where))
        return made
    from graphtorch.ops.record import lookup

    flat = Tensor._wrap(device_array(memory, (count,), of.numpy), of)
    flat._device = place
    update(lookup("fill"), (flat, float(value) if of.is_floating_point else value), place)
    return made


def _is_plain_copy(args: tuple[Any, ...]) -> bool:
    """Whether `copy_` changes neither shape nor dtype."""
    target, source = args[:2]
    return tuple(source._data.shape) == tuple(target._data.shape) and source._dtype is target._dtype


class _NoKernel(Exception):
    """The operator has no form on the device."""


def cast(array: DeviceArray, to: dtype) -> DeviceArray:
    """An array in another dtype."""
    from graphtorch.ops.record import lookup

    tensor = Tensor._wrap(array, dtypes.from_numpy_dtype(array.dtype))
    tensor._device = array.place
    (made,) = run(lookup("cast"), (tensor, to), array.place)
    return made  # type: ignore[no-any-return]


# -- operands ---------------------------------------------------------------------------------------------------------


def _dtypes_of(args: Sequence[Any]) -> list[dtype]:
    found: list[dtype] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg._dtype)
        elif type(arg) is tuple:
            found += [a._dtype for a in arg if isinstance(a, Tensor)]
    return found


def _operand(tensor: Tensor) -> _Operand:
    array = tensor._data
    if type(array) is not DeviceArray or array.flags.c_contiguous:
        return _Operand(array, tensor._dtype, array.shape)
    shape: tuple[int, ...] = array.shape
    expanded = None
    if 0 in array.strides and array.size:
        expanded = shape
        kept = tuple(slice(0, 1) if s == 0 else slice(None) for s in array.strides)
        array = as_device(plain(array)[kept], array)
        shape = array.shape
        if array.flags.c_contiguous:
            return _Operand(array, tensor._dtype, shape, None, expanded)
    order = tuple(sorted(range(array.ndim), key=lambda d: -array.strides[d]))
    turned = as_device(plain(array).transpose(order), array)
    if turned.flags.c_contiguous:
        return _Operand(turned, tensor._dtype, turned.shape, order, expanded)
    return _Operand(array.copy(), tensor._dtype, shape, None, expanded)


def _overlaps(target: Any, args: Sequence[Any]) -> bool:
    """Whether an operand shares memory with the target without being the very same elements."""
    for arg in args:
        for tensor in arg if type(arg) is tuple else (arg,):
            if isinstance(tensor, Tensor) and type(tensor._data) is DeviceArray:
                other = tensor._data
                same = other.address == target.address and other.strides == target.strides
                if not same and np.may_share_memory(plain(other), plain(target)):
                    return True
    return False


class _Call:
    """A call with its tensors as inputs of a graph and its changing numbers as numbers of it."""

    def __init__(self, op: Operator, args: tuple[Any, ...], flat: bool) -> None:
        self.op = op
        self.operands: list[_Operand] = []
        self.numbers: list[float] = []
        self.sizes: dict[int, int] = {}  # a size, and which symbol it is in the pattern
        self.program: Program | None = None  # what ran it
        self.copied = False  # whether an operand or a result was copied, permuted or expanded
        template: list[tuple[Any, ...]] = []
        is_source = not _tensors(args)
        for parameter, arg in zip(op.parameters, args, strict=True):
            if is_source and parameter.name == "size":
                template.append(("sizes", *map(self._symbol, arg)))
            elif is_source and parameter.name == "end" and type(arg) is int and args[0] == 0 and args[2] == 1:
                template.append(("size", self._symbol(arg)))  # a range that counts its elements
            elif isinstance(arg, Tensor):
                template.append(self._tensor(arg, flat))
            elif type(arg) is tuple and any(isinstance(a, Tensor) for a in arg):
                template.append(
                    ("list", *(self._tensor(a, flat) if isinstance(a, Tensor) else ("constant", a) for a in arg))
                )
            elif type(arg) is float and "Number" in parameter.kind and not _decide(op, args):
                self.numbers.append(arg)
                template.append(("number", len(self.numbers) - 1))
            else:
                template.append(("constant", type(arg), arg))
        self.template = tuple(template)

    def _tensor(self, tensor: Tensor, flat: bool) -> tuple[Any, ...]:
        if flat and tensor._data.ndim:
            array = tensor._data
            made = _Operand(_in_a_row(array), tensor._dtype, (array.size,))
        else:
            made = _operand(tensor)
            if made.array is not tensor._data or made.expanded is not None:
                self.copied = True
        self.operands.append(made)
        pattern = tuple(self._symbol(n) for n in made.shape)
        expanded = None if made.expanded is None else tuple(self._symbol(n) for n in made.expanded)
        return ("tensor", len(self.operands) - 1, made.of, pattern, made.permuted, expanded)

    def _symbol(self, size: int) -> int:
        """0 and 1 as they are, -1, -2, ... for other sizes in the order in which they come."""
        return size if size < 2 else self.sizes.setdefault(size, -1 - len(self.sizes))

    def inputs(self) -> list[Any]:
        return [*(o.array for o in self.operands), *self.numbers]

    def graph(self, symbols: Mapping[int, SymInt] | None, place: device_class, onto: dtype | None) -> Graph:
        """The graph; with symbols, for any sizes. `onto`: the dtype that the only result is cast to."""
        graph = Graph(self.op.name)
        numbers_of = {place: n for n, place in self.sizes.items()}

        def size(n: int) -> Any:
            return symbols[n] if symbols is not None and n in symbols else n

        def named(place: int) -> Any:
            return size(numbers_of.get(place, place))

        values = [
            graph.add_input(TensorType(o.of, tuple(map(size, o.shape)), place), f"x{i}")
            for i, o in enumerate(self.operands)
        ]
        numbers = [
            graph.add_input(TensorType(dtypes.float64, (), place, True), f"number{i}", "number")
            for i in range(len(self.numbers))
        ]
        builder = GraphBuilder(graph)
        with builder:

            def fill(entry: tuple[Any, ...]) -> Any:
                kind = entry[0]
                if kind == "constant":
                    return entry[-1]
                if kind == "number":
                    return wrap(numbers[entry[1]])
                if kind == "sizes":
                    return tuple(map(named, entry[1:]))
                if kind == "size":
                    return named(entry[1])
                if kind == "list":
                    return tuple(map(fill, entry[1:]))
                operand = self.operands[entry[1]]
                made = wrap(values[entry[1]])
                if operand.permuted is not None:
                    inverse = np.argsort(operand.permuted)
                    made = made.permute(*(int(d) for d in inverse))
                if operand.expanded is not None:
                    made = made.expand(tuple(map(size, operand.expanded)))
                return made

            results = builder.call(self.op, tuple(map(fill, self.template)))
            if onto is not None and results.dtype is not onto:
                results = results.to(onto)
            for result in results if isinstance(results, tuple) else (results,):
                graph.add_output(builder.value_of(result))
        return graph


def _in_a_row(array: Any) -> Any:
    """A dense array's memory as one dimension."""
    flat = np.lib.stride_tricks.as_strided(plain(array), (array.size,), (array.itemsize,))
    return as_device(flat, array)


def _flat_strides(op: Operator, args: Sequence[Any], types: Sequence[TensorType]) -> tuple[int, ...] | None:
    """The strides in bytes per element that all operands have, where the operator can run over memory in a row."""
    if op.kind != "pointwise" or op.random or len(types) != 1:
        return None
    first: Any = None
    for tensor in _tensors(args):
        array = tensor._data
        if array.ndim == 0:
            continue
        if type(array) is not DeviceArray:
            return None
        steps = tuple(s // array.itemsize for s in array.strides)
        if first is None:
            if not array.size or min(steps) < 0 or not transfer.dense(array) or 0 in steps:
                return None
            first = (array.shape, steps)
        elif (array.shape, steps) != first:
            return None
    if first is None or tuple(types[0].shape) != first[0]:
        return None
    if lies_in_rows(op, args[0]) and first[1] != contiguous_strides(first[0]):
        return None
    return first[1]  # type: ignore[no-any-return]


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif type(arg) is tuple:
            found += [a for a in arg if isinstance(a, Tensor)]
    return found


# -- running ----------------------------------------------------------------------------------------------------------


def _run(
    op: Operator, args: tuple[Any, ...], types: Sequence[TensorType], place: device_class
) -> tuple[list[Any], _Recipe | None]:
    """The results, and what calls that look the same do."""
    rows = _flat_strides(op, args, types)
    results, call = _attempt(op, args, rows is not None, place, None, None)
    recipe = _recipe(call, args)
    if rows is not None:
        (flat,) = results
        shape = tuple(types[0].shape)
        steps = tuple(s * flat.itemsize for s in rows)
        if recipe is not None:
            recipe.layout = (shape, steps)
        return [device_array(flat.memory, shape, flat.dtype, flat.address - flat.memory.address, steps)], recipe
    return results, recipe


# -- calls that look the same -----------------------------------------------------------------------------------------


@dataclass
class _Recipe:
    """What a call does whose operands lie as those of an earlier one did: their places, and the program.

    layout      shape and strides of the result, where the program runs over memory in a row
    update      whether the result is written where the first operand is
    """

    program: Program
    tensors: tuple[int, ...]
    numbers: tuple[int, ...]
    layout: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    update: bool = False

    def run(self, args: tuple[Any, ...]) -> list[Any] | None:
        """The results; None for a call that is different after all: memory on odd addresses or shared."""
        addresses = []
        for i in self.tensors:
            address = args[i]._data.address
            if address & 15:
                return None
            addresses.append(address)
        if self.update:
            target = args[self.tensors[0]]._data
            for i, address in zip(self.tensors, addresses, strict=True):
                other = args[i]._data
                same = address == addresses[0] and other.strides == target.strides
                if other.memory is target.memory and not same:
                    return None
        made = self.program.run_at(addresses, [args[i] for i in self.numbers])
        if self.layout is not None and not self.update:
            (flat,) = made
            return [device_array(flat.memory, self.layout[0], flat.dtype, 0, self.layout[1])]
        return made


_recipes: dict[tuple[Any, ...], _Recipe] = {}


def _settings() -> tuple[Any, ...]:
    """What an operator computes depends on, beside its arguments."""
    return *precision.key(), dtypes.get_default_dtype()


def _remember(key: tuple[Any, ...] | None, recipe: _Recipe) -> None:
    if key is not None:
        if len(_recipes) >= _REMEMBERED:
            _recipes.clear()
        _recipes[key] = recipe


def _signature(op: Operator, args: tuple[Any, ...], place: device_class, update: bool) -> tuple[Any, ...] | None:
    """All that a call's recipe depends on: operands' dtypes, shapes and strides, and attributes but for changing
    numbers. None for calls that have no recipe."""
    if op.random or op.has_list_operands or op in _on_host:
        return None
    parts: list[Any] = [op, devices.device(place.index), update, *_settings()]
    for parameter, arg in zip(op.parameters, args, strict=True):
        if isinstance(arg, Tensor):
            data = arg._data
            if type(data) is not DeviceArray:
                return None
            parts.append((arg._dtype, data.shape, data.strides))
        elif type(arg) is float and "Number" in parameter.kind and not _decide(op, args):
            parts.append(float)
        else:
            parts.append((type(arg), arg))
    made = tuple(parts)
    try:
        hash(made)
    except TypeError:
        return None
    return made


def _recipe(call: _Call, args: tuple[Any, ...]) -> _Recipe | None:
    """The recipe of a call; None where operands were moved or results are not the program's own outputs."""
    program = call.program
    if program is None or program.plan.unsupported or call.copied:
        return None
    if any(r.view is not None or r.output < 0 for _, r in program.fresh):
        return None
    tensors = tuple(i for i, a in enumerate(args) if isinstance(a, Tensor))
    numbers = tuple(i for i, entry in enumerate(call.template) if entry[0] == "number")
    outputs = [r.output for _, r in program.fresh]
    if outputs != list(range(len(program.outputs))) and not program.donated:
        return None
    return _Recipe(program, tensors, numbers)


def _owned(results: list[Any], call: _Call) -> list[Any]:
    """Results in memory of their own: a graph may return a view of an input, or one value twice."""
    taken = {id(o.array.memory) for o in call.operands if type(o.array) is DeviceArray}
    for i, result in enumerate(results):
        if id(result.memory) in taken or not result.flags.c_contiguous:
            results[i] = result.copy()
            call.copied = True
        taken.add(id(results[i].memory))
    return results


def _update(op: Operator, args: tuple[Any, ...], place: device_class, key: tuple[Any, ...] | None) -> bool:
    """The in-place form with the result written where the first operand is; False if that can't be done."""
    target: Tensor = args[0]
    (of,) = op.infer(args)
    if tuple(of.shape) != tuple(target.shape):
        return False
    rows = _flat_strides(op, args, (of,))
    if rows is None and not target._data.flags.c_contiguous:
        return False
    _, call = _attempt(op, args, rows is not None, place, target._dtype, {0: 0})
    recipe = _recipe(call, args)
    if recipe is not None:
        recipe.update = True
        _remember(key, recipe)
    return True


def _attempt(
    op: Operator,
    args: tuple[Any, ...],
    flat: bool,
    place: device_class,
    onto: dtype | None,
    donations: Mapping[int, int] | None,
) -> tuple[list[Any], _Call]:
    call = _Call(op, args, flat)
    try:
        results = _execute(call, place, onto, donations)
    except _NoKernel:
        if not call.numbers:
            raise
        with _lock:
            _constants.add(op)
        call = _Call(op, args, flat)
        results = _execute(call, place, onto, donations)
    return results if donations is not None else _owned(results, call), call


def _execute(call: _Call, place: device_class, onto: dtype | None, donations: Mapping[int, int] | None) -> list[Any]:
    key = (call.op, call.template, devices.device(place.index), onto, donations is not None, _settings())
    try:
        variants = _variants.get(key)
    except TypeError:  # an attribute that is no key
        raise _NoKernel from None
    if variants is None:
        variants = _variants.setdefault(key, _Variants())
    sizes = tuple(call.sizes)
    executable = variants.shapes.get(sizes)
    bindings = {f"s{i}": n for i, n in enumerate(sizes)}
    if executable is None:
        fitting = (
            e
            for scope, large, e in variants.symbolic
            if large in (None, _is_large(sizes)) and all(g.holds(bindings) for g in scope.guards)
        )
        executable = next(fitting, None)
    if executable is None:
        with _lock:
            executable = _compile(call, variants, place, onto, donations)
    call.program = executable.program(bindings if executable.symbols else {})
    return call.program.run(call.inputs())


def _is_large(sizes: Sequence[int]) -> bool:
    """Whether these sizes may make folds, or sums of products, that are split."""
    return math.prod(sizes) >= LONG


def _folds(executable: DeviceExecutable) -> bool:
    """Whether something else than pointwise kernels runs."""
    return any(
        not isinstance(step, Kernel) or any(axis.reduction for axis in step.axes) for step in executable.schedule.steps
    )


def _compile(
    call: _Call, variants: _Variants, place: device_class, onto: dtype | None, donations: Mapping[int, int] | None
) -> DeviceExecutable:
    """A further variant; symbolic ones from the third shape on."""
    device = devices.device(place.index)
    sizes = tuple(call.sizes)
    if len(variants.shapes) >= _STATIC and not variants.fixed and len(variants.symbolic) < 4:
        scope = SymbolScope()
        symbols = {n: scope.symbol(hint=n, name=f"s{i}") for i, n in enumerate(sizes)}
        try:
            graph = call.graph(symbols, place, onto)
            general = DeviceExecutable(build_schedule(graph, donations), device, expects=False, symbols=True)
            general.run_with({f"s{i}": n for i, n in enumerate(sizes)}, None)
        except Exception:  # it has no symbolic form, whatever the reason: each shape is compiled as it is
            variants.fixed = True
        else:
            if not general.fallbacks:
                variants.symbolic.append((scope, _is_large(sizes) if _folds(general) else None, general))
                return general
            variants.fixed = True
    try:
        schedule = build_schedule(call.graph(None, place, onto), donations)
    except Exception as error:  # what has no graph has no kernel
        raise _NoKernel(str(error)) from error
    try:
        made = DeviceExecutable(schedule, device, expects=False)
    except Exception as error:
        if isinstance(error, UnsupportedError | ResourceError) or type(error).__module__.startswith("triton"):
            raise _NoKernel(str(error)) from error
        raise  # the device's own errors are nothing that the host could do better
    if len(variants.shapes) >= _KEPT:
        variants.shapes.pop(next(iter(variants.shapes)))
    variants.shapes[sizes] = made
    return made


# -- layout -----------------------------------------------------------------------------------------------------------


def _lay_out(op: Operator, args: Sequence[Any], name: str, array: Any) -> Any:
    """A result with PyTorch's strides."""
    if array.ndim < 2 or not array.size:
        return array
    layouts = [
        layout_of(a._data if isinstance(a, Tensor) else a)
        for p, a in zip(op.parameters, args, strict=True)
        if p.is_operand and (isinstance(a, Tensor) or type(a) in (bool, int, float, complex))
    ]
    if op.order.get("result") == "reversed":
        layouts.reverse()
    if op.kind == "pointwise":
        if all(tuple(s) == contiguous_strides(n) for n, s in layouts) or lies_in_rows(op, args[0]):
            wanted = contiguous_strides(array.shape)
        else:
            wanted = pointwise_strides(array.shape, layouts)
    else:
        order = op.order.get(name) if op.order else None
        wanted = (
            order(array.shape, *map(_arrays, args)) if callable(order) else ordered_strides(order, array.shape, layouts)
        )
    steps = tuple(s * array.itemsize for s in wanted)
    if array.strides == steps or array.nbytes == array.itemsize:
        return array
    return transfer.with_strides(array, steps)


def _arrays(arg: Any) -> Any:
    if type(arg) is tuple:
        return tuple(map(_arrays, arg))
    return plain(arg._data) if isinstance(arg, Tensor) else arg


def _clone(array: DeviceArray, memory_format: str | None) -> DeviceArray:
    from graphtorch.tensor.formats import ORDERS

    order = ORDERS.get(memory_format or "")
    if order is None:
        if memory_format == "contiguous_format" or array.flags.c_contiguous:
            return array.copy()
        shape, strides = layout_of(array)
        steps = [s * array.itemsize for s in pointwise_strides(shape, [(shape, strides)])]
        return transfer.with_strides(array, steps)
    turned = as_device(plain(array).transpose(order), array).copy()
    return as_device(plain(turned).transpose(np.argsort(order)), turned)


def _expanded(array: DeviceArray, shape: Sequence[int]) -> DeviceArray:
    return array if array.shape == tuple(shape) else as_device(np.broadcast_to(plain(array), shape), array)


# -- the host ---------------------------------------------------------------------------------------------------------


def _run_on_host(op: Operator, args: Sequence[Any], place: device_class) -> tuple[Any, ...]:
    tell_about_host(op.name)

    def value(arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return arg._data.host() if type(arg._data) is DeviceArray else arg._data
        return tuple(map(value, arg)) if type(arg) is tuple else arg

    made = quiet.run(op.numpy, *map(value, with_generator(op, args, place)))
    results = made if type(made) is tuple else (made,)
    found = tuple(transfer.to_device(np.asarray(r), place) for r in results)
    return tuple(_lay_out(op, args, name, array) for name, array in zip(op.results, found, strict=True))
