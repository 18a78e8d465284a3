"""Dispatch modes, which see every eager operator call and may answer it; and operators under PyTorch's C++ names.

`torch.ops.aten.mm.default` stands for an operator: a mode gets it with the operands (outside of their history, as
PyTorch's modes do) and returns the result, usually by calling it. Compiled functions run eagerly inside a mode. See
https://docs.pytorch.org/docs/stable/notes/extending.html#extending-all-torch-api-with-modes."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from graphtorch.autograd.state import modes_entered, state
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import Operator
from graphtorch.tensor.devices import META
from graphtorch.tensor.tensor import Tensor, meta_array


class OpOverloadPacket:
    """An operator by name, `torch.ops.aten.mm`. Its attributes are its overloads; calling it calls the function."""

    def __init__(self, namespace: str, name: str) -> None:
        self._namespace = namespace
        self.__name__ = name
        self._overloads: dict[str, OpOverload] = {}

    def overloads(self) -> list[str]:
        """The names of the overloads that were mentioned; "default" is always there."""
        return list(dict.fromkeys(["default", *self._overloads]))

    def __getattr__(self, name: str) -> OpOverload:
        if name.startswith("__"):
            raise AttributeError(f"'OpOverloadPacket' object has no attribute '{name}'")
        found = self._overloads.get(name)
        if found is None:
            found = self._overloads[name] = OpOverload(self, name)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self._namespace, self.__name__)(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<OpOverloadPacket(op='{self._namespace}.{self.__name__}')>"

    def __str__(self) -> str:
        return f"{self._namespace}.{self.__name__}"


class OpOverload:
    """An operator for certain types of arguments, `torch.ops.aten.mm.default`."""

    def __init__(self, packet: OpOverloadPacket, overload: str) -> None:
        self._overloadpacket = packet
        self._overloadname = overload
        self.namespace = packet._namespace
        self.__name__ = f"{packet.__name__}.{overload}"

    @property
    def overloadpacket(self) -> OpOverloadPacket:
        """The operator with all its overloads."""
        return self._overloadpacket

    def name(self) -> str:
        """The C++ name."""
        end = "" if self._overloadname == "default" else f".{self._overloadname}"
        return f"{self.namespace}::{self._overloadpacket.__name__}{end}"

    @property
    def _schema(self) -> str:
        """What a library's definition says that the operator takes and gives."""
        own: Any = LIBRARIES.get(self.namespace, {}).get(self._overloadpacket.__name__)
        if own is None:
            raise AttributeError(f"{self} is an operator of this package, which has no schema in PyTorch's language")
        return f"{self.name()}{own.schema.text}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for seen in reversed(_seen):
            if seen.func is self:
                return seen.run(*args, **kwargs)
        return self._overloadpacket(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<OpOverload(op='{self._overloadpacket}', overload='{self._overloadname}')>"

    def __str__(self) -> str:
        return f"{self._overloadpacket}.{self._overloadname}"


class Namespace:
    """The operators of a library, `torch.ops.aten`. Any name may be mentioned; to call one, it must be here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._packets: dict[str, OpOverloadPacket] = {}

    def __getattr__(self, name: str) -> OpOverloadPacket:
        if name.startswith("__"):
            raise AttributeError(f"'_OpNamespace' '{self.name}' object has no attribute '{name}'")
        found = self._packets.get(name)
        if found is None:
            if self.name not in _ANY and name not in LIBRARIES.get(self.name, {}):
                raise AttributeError(f"'_OpNamespace' '{self.name}' object has no attribute '{name}'")
            found = self._packets[name] = OpOverloadPacket(self.name, name)
        return found

    def __repr__(self) -> str:
        return f"<_OpNamespace '{self.name}'>"


_ANY = ("aten", "prim", "prims")
LIBRARIES: dict[str, dict[str, Callable[..., Any]]] = {}  # what graphtorch.library defines: namespace -> name -> it
QUALIFIED: dict[str, tuple[str, str]] = {}  # the namespaces and names of their records
_NAMESPACES = {name: Namespace(name) for name in _ANY}
aten = _NAMESPACES["aten"]


def namespace(name: str) -> Namespace | None:
    """The operators of a library by its name; None if nothing defines any."""
    if name in LIBRARIES and name not in _NAMESPACES:
        _NAMESPACES[name] = Namespace(name)
    return _NAMESPACES.get(name)


def _function(space: str, name: str) -> Callable[..., Any]:
    """What calling an operator calls. Raises NotImplementedError for a name that is only a name here."""
    found: Any = LIBRARIES.get(space, {}).get(name)
    if found is None and space == "aten":
        import graphtorch

        home: Any = graphtorch
        for place in (home, home.nn.functional, home._C._nn, home.Tensor, home.linalg, home.special):
            found = getattr(place, name, None)
            if callable(found):
                break
    if not callable(found):
        raise NotImplementedError(f"{space}.{name} is an operator of PyTorch's that can't be called by this name here")
    return found  # type: ignore[no-any-return]


class Seen(NamedTuple):
    """A call as a mode sees it: what it is called, how to run it, its operands, and what becomes of the results."""

    func: OpOverload
    run: Callable[..., Any]
    args: tuple[Any, ...]
    finish: Callable[[Any], Any]
    kwargs: dict[str, Any]


_seen: list[Seen] = []  # the calls that modes look at now

# Records whose C++ names are others, where it matters to whom asks for products and convolutions by name.
_NAMES = {
    "cast": "_to_copy",
    "copy": "copy",
    "log_softmax": "_log_softmax",
    "softmax": "_softmax",
    "layer_norm": "native_layer_norm",
    "max_dim": "max",
    "min_dim": "min",
    "median_dim": "median",
    "reshape": "view",
}
_OVERLOADED = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "pow",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "fmod",
        "remainder",
        "bitwise_and",
        "bitwise_or",
    ]
)
_ALWAYS_TENSOR = frozenset(("add", "sub", "mul", "div"))  # numbers come as tensors


def overload_of(op: Operator, args: tuple[Any, ...], inplace: bool = False) -> OpOverload:
    """The name under which PyTorch knows a call of a record."""
    own = QUALIFIED.get(op.name)
    if own is not None:
        space = namespace(own[0])
        assert space is not None
        return getattr(space, own[1]).default  # type: ignore[no-any-return]
    if op.name == "linear":
        name = "mm" if args[2] is None else "addmm"
    elif op.name in ("conv2d", "conv3d"):
        name = "convolution"
    elif op.name in ("conv2d_input_grad", "conv2d_weight_grad"):
        name = "convolution_backward"
    else:
        name = _NAMES.get(op.name, op.name)
    overload = "default"
    if name in _OVERLOADED:
        overload = "Tensor" if name in _ALWAYS_TENSOR or hasattr(args[1], "dtype") else "Scalar"
        if name == "pow":
            overload = "Tensor_Tensor" if overload == "Tensor" else "Tensor_Scalar"
    return getattr(getattr(aten, name + "_" * inplace), overload)  # type: ignore[no-any-return]


def _without_data(like: Tensor, shape: Any) -> Tensor:
    tensor = Tensor._wrap(meta_array(tuple(shape), like._dtype), like._dtype)
    tensor._device = META
    return tensor


def _same(result: Any) -> Any:
    return result


def as_seen(op: Operator, args: tuple[Any, ...], inplace: bool = False) -> Seen:
    """A call in PyTorch's terms: products of a layer are `addmm`, convolutions have their nine arguments."""
    func = overload_of(op, args, inplace)
    if op.name == "linear" and args[1].ndim == 2:
        input, weight, bias = args
        rows = input if input.ndim == 2 else input.reshape(-1, input.shape[-1])
        shape = (*input.shape[:-1], weight.shape[0])

        def finish(made: Any) -> Any:
            return made if input.ndim == 2 else made.reshape(shape)

        if bias is None:
            return Seen(func, FUNCTIONS["mm"], (rows, weight.t()), finish, {})
        return Seen(func, FUNCTIONS["addmm"], (bias, rows, weight.t()), finish, {})
    if op.name == "conv2d":
        input, weight, bias, stride, padding, dilation, groups = args

        def convolve(i: Any, w: Any, b: Any, s: Any, p: Any, d: Any, transposed: Any, rest: Any, g: Any) -> Any:
            return _call(op, (i, w, b, s, p, d, g))

        return Seen(func, convolve, (input, weight, bias, stride, padding, dilation, False, (0, 0), groups), _same, {})
    if op.name in ("conv2d_input_grad", "conv2d_weight_grad"):
        first, second, sizes, stride, padding, dilation, groups = args
        to_input = op.name == "conv2d_input_grad"
        absent = _without_data(first, sizes)
        grad, input, weight = (first, absent, second) if to_input else (second, first, absent)
        given = (grad, input, weight, None, stride, padding, dilation, False, (0, 0), groups)

        def back(g: Any, i: Any, w: Any, b: Any, s: Any, p: Any, d: Any, t: Any, o: Any, k: Any, mask: Any) -> Any:
            made = _call(op, (g, w, sizes, s, p, d, k) if to_input else (i, g, sizes, s, p, d, k))
            return (made, None, None) if to_input else (None, made, None)

        mask = (to_input, not to_input, False)
        return Seen(func, back, (*given, mask), lambda made: made[0 if to_input else 1], {})

    named = {p.name: a for p, a in zip(op.parameters, args, strict=True) if p.keyword_only}

    def run(*given: Any, **changed: Any) -> Any:
        return _call(op, (*given, *{**named, **changed}.values()))

    return Seen(func, run, args[: len(args) - len(named)], _same, named)


def _call(op: Operator, args: tuple[Any, ...]) -> Any:
    from graphtorch.ops.dispatch import call

    return call(op, args)


def _outside(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value._alias()
    return tuple(map(_outside, value)) if type(value) is tuple else value


def through(op: Operator, args: tuple[Any, ...], inplace: bool = False) -> Any:
    """Ask the innermost mode of this thread for the results of a call. Called by dispatch, which then does what else a
    call does: history, views, writing in place.

    Raises TypeError if the mode returns NotImplemented."""
    modes, grad = state.modes, state.grad_enabled
    state.modes, state.grad_enabled = modes[:-1], False
    try:
        seen = as_seen(op, tuple(map(_outside, args)), inplace)
        _seen.append(seen)
        try:
            made = modes[-1].__torch_dispatch__(seen.func, (Tensor,), seen.args, seen.kwargs)
        finally:
            _seen.pop()
        if made is NotImplemented:
            raise TypeError(
                f"Multiple dispatch failed for '{seen.func}'; all __torch_dispatch__ handlers returned NotImplemented:"
                f"\n\n  - mode object {modes[-1]!r}"
            )
        made = seen.finish(made)
        if isinstance(made, tuple | list):
            return tuple(_result(each) for each in made)
        return _result(made)
    finally:
        state.modes, state.grad_enabled = modes, grad


def _result(value: Any) -> Tensor:
    """A tensor of its own for what a mode returned, which may be there elsewhere, too."""
    if isinstance(value, Tensor):
        return value._alias() if value._base is not None or value._node is not None else _apart(value)
    return Tensor._wrap(np.asarray(value))


def _apart(value: Tensor) -> Tensor:
    made = Tensor._wrap(value._data, value._dtype)
    made._device = value._device
    made._storage = value._storage
    return made


class TorchDispatchMode:
    """A block whose operator calls come to `__torch_dispatch__(func, types, args, kwargs)`, which returns the result,
    usually `func(*args, **kwargs)`. See torch.utils._python_dispatch.TorchDispatchMode."""

    def __init__(self, _dispatch_key: Any = None) -> None:
        """Nothing is needed; subclasses that do not call this work too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Any:
        note = getattr(state.recorder, "note_effect", None)
        if note is not None:
            note(f"enters a {type(self).__name__}")
        modes_entered.append(self)
        state.modes = (*state.modes, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state.modes = state.modes[:-1]
        modes_entered.remove(self)
