"""Making a record public: `operator(...)` parses the signature, registers the record and generates its Python
functions.

The generated function has the operator's exact signature, so Python itself binds and checks arguments; it converts only
what a caller may spell in several ways (a list for a tuple of ints, a NumPy scalar for a number) and ends in
`dispatch.call`."""

from __future__ import annotations

import functools
import inspect
import keyword
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any, TypeVar

import numpy as np

from graphtorch.ops import record
from graphtorch.ops.arguments import NOT_GIVEN, by_own_names, with_argument_errors
from graphtorch.ops.dispatch import call, call_inplace, call_out, call_view
from graphtorch.ops.record import MISSING, OPAQUE, REGISTRY, Operator, Sample, make_formulas, parse_signature
from graphtorch.tensor.devices import canonical
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.tracked import TrackedNumber, operand_of

F = TypeVar("F", bound=Callable[..., Any])

# Every public function of the operator API by name: generated ones and compositions.
FUNCTIONS: dict[str, Callable[..., Any]] = {}


def operator(
    signature: str,
    *,
    type: Callable[..., Any],
    numpy: Callable[..., Any],
    kind: str = OPAQUE,
    derivative: Mapping[str, Callable[..., Any]] | None = None,
    decompose: Callable[..., Any] | None = None,
    scalar: str | None = None,
    compute: Callable[..., Any] | None = None,
    normalize: Callable[..., tuple[Any, ...]] | None = None,
    samples: Callable[[Any], Iterable[Sample]] | None = None,
    categories: str = "f",
    random: bool = False,
    scatter: Callable[..., Any] | None = None,
    grad_name: str | None = None,
    overload: Callable[..., int | str] | None = None,
    return_name: str | None = None,
    doc: str = "",
    lazy_check: bool = False,
    update: Callable[..., bool] | None = None,
    order: Mapping[str, str | Callable[..., tuple[int, ...]]] | None = None,
    edge_order: tuple[str, ...] = (),
    public: bool = True,
    method: bool = True,
    inplace: bool = False,
    out: bool = False,
) -> Callable[..., Any]:
    """Define an operator; returns its public function, whose `.operator` is the record.

    The fields are those of `record.Operator`. `public`: export the function under the operator's name; `method`:
    install it on Tensor (if the first parameter is a tensor); `inplace`: also `name_`; `out`: accept `out=`.
    `return_name`: the name of the tuple of several results, if not the operator's own. `lazy_check`: NumPy itself
    rejects all that the type rule rejects, so eager execution consults the rule only to explain an error.
    """
    name, parameters, results = parse_signature(signature)
    if name in REGISTRY:
        raise ValueError(f"operator {name!r} is defined twice")
    op = Operator(
        name=name,
        parameters=parameters,
        results=results,
        type_rule=_where_it_draws(type, [p.name for p in parameters]) if random else type,
        numpy=numpy,
        kind=kind,
        derivative=make_formulas(derivative or {}, parameters, results),
        decompose=decompose,
        scalar=scalar,
        compute=compute,
        normalize=normalize,
        samples=samples,
        categories=categories,
        random=random,
        scatter=scatter,
        grad_name=grad_name or record.default_grad_name(name),
        overload=overload,
        doc=inspect.cleandoc(doc),
        lazy_check=lazy_check,
        order=order or {},
        edge_order=edge_order,
        update=update,
    )
    if len(results) > 1:
        op.result_class = return_type(return_name or name, results)
    REGISTRY[name] = op
    viewing = kind == record.VIEW and not op.has_list_operands and not out
    function = _generate(op, name, "call_view" if viewing else "call", out)
    op.function = function
    if public:
        FUNCTIONS[name] = function
    if method and parameters and parameters[0].is_operand and not parameters[0].kind.endswith("[]"):
        setattr(Tensor, name, function)
        if inplace:
            changing = _generate(op, name + "_", "call_inplace", False)
            setattr(Tensor, name + "_", changing)
            if public:
                FUNCTIONS[name + "_"] = changing
    return function


RETURN_TYPES: dict[str, Any] = {}  # by name, for `torch.return_types`


def return_type(name: str, fields: Sequence[str]) -> Any:
    """A named tuple of results that prints as PyTorch's `torch.return_types` do."""
    base = namedtuple(name, fields)  # type: ignore[misc]

    def show(self: Any) -> str:
        shown = ",\n".join(f"{field}={value!r}" for field, value in zip(fields, self, strict=True))
        return f"torch.return_types.{name}(\n{shown})"

    made: Any = type(name, (base,), {"__slots__": (), "__repr__": show, "__module__": "torch.return_types"})
    return RETURN_TYPES.setdefault(name, made)


# Small functions that programs call all the time: a further call around them would show.
HOT = frozenset({"detach", "expand", "reshape", "squeeze", "view"})


def function(method: bool = False, name: str | None = None) -> Callable[[F], F]:
    """Export a composition of operators, or a hand-written front of one, as a public function (and Tensor method)."""

    def export(composed: F) -> F:
        own = name or composed.__name__
        shown = composed if own in HOT else with_argument_errors(composed)
        FUNCTIONS[own] = shown
        if method:
            setattr(Tensor, own, shown)
        return composed

    return export


def method(name: str) -> Callable[[F], F]:
    """Install a Tensor method that is no function of the public namespace (a dunder, say)."""

    def install(composed: F) -> F:
        plain = name in HOT or name.startswith("__")
        setattr(Tensor, name, composed if plain else with_argument_errors(composed))
        return composed

    return install


def _where_it_draws(rule: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The type rule of a random operator, which also refuses a generator of another device than the result's."""
    if "generator" not in names:
        return rule
    position = names.index("generator")

    @functools.wraps(rule)
    def checked(*args: Any) -> Any:
        types = rule(*args)
        generator = args[position]
        if generator is not None:
            where = next((a for a in args if hasattr(a, "shape")), types).device.type
            own = generator.device.type
            if where != own and where in ("cpu", "cuda"):
                raise RuntimeError(f"Expected a '{where}' device type for generator but found '{own}'")
        return types

    return checked


def _generate(op: Operator, name: str, target: str, out: bool) -> Callable[..., Any]:
    """Compile a Python function with the operator's signature."""
    scope: dict[str, Any] = {
        "__name__": "graphtorch.ops.generated",
        "op": op,
        "call": call,
        "call_view": call_view,
        "call_inplace": call_inplace,
        "call_out": call_out,
        "Foreign": Foreign,
        "ask": ask,
        "by_own_names": by_own_names,
        "NOT_GIVEN": NOT_GIVEN,
    }
    head: list[str] = []
    body: list[str] = []
    star = False
    required = [p for p in op.parameters if p.default is MISSING]
    numpy_names = any(p.name == "dim" for p in op.parameters)
    optional = required[-1] if numpy_names and required[-1].name == "dim" else None  # it may be given as `axis`
    for i, p in enumerate(op.parameters):
        if p.keyword_only and not star:
            head.append("*")
            star = True
        python_name = p.name + "_" if keyword.iskeyword(p.name) else p.name
        if p is optional:
            head.append(f"{python_name}=NOT_GIVEN")
        elif p.default is MISSING:
            head.append(python_name)
        else:
            scope[f"default_{i}"] = p.default
            head.append(f"{python_name}=default_{i}")
        converter = CONVERTERS.get(p.kind)
        if converter is not None:
            condition, convert = converter
            scope[f"convert_{i}"] = convert
            scope[f"accept_{i}"] = condition
            conversion = f"{python_name} = convert_{i}(op, {i}, {python_name})"
            body.append(f" if type({python_name}) is not accept_{i}: {conversion}")
    names = "".join(f"{p.name}_, " if keyword.iskeyword(p.name) else f"{p.name}, " for p in op.parameters)
    if body:
        body = ["try:", *body, f"except Foreign: return ask(op, function, ({names}))"]
    if out:
        if not star:
            head.append("*")
        head.append("out=None")
        body.append(f"if out is not None: return call_out(op, ({names}), out)")
    body.append(f"return {target}(op, ({names}))")
    if numpy_names:
        head.append("**numpy_names")
        shown = [f"{p.name}_" if keyword.iskeyword(p.name) else p.name for p in op.parameters] + ["out"] * out
        given = ", ".join(f"{n!r}: {n}" for n in shown)
        first = [f"if numpy_names: return by_own_names(function, numpy_names, {{{given}}})"]
        if optional is not None:
            text = "() missing 1 required positional argument: 'dim'"
            first.append(f"if dim is NOT_GIVEN: raise TypeError(function.__name__ + {text!r})")
        body = first + body
    exec(_code(f"def generated({', '.join(head)}):\n " + "\n ".join(body) + "\n"), scope)
    made: Any = scope.pop("generated")
    scope["function"] = made
    made.__code__ = made.__code__.replace(co_name=name, co_qualname=name, co_filename=f"<graphtorch operator {name}>")
    made.__name__ = made.__qualname__ = name
    made.operator = op
    made.__module__ = "graphtorch"
    page = f"https://docs.pytorch.org/docs/stable/generated/torch.{op.name}.html"
    made.__doc__ = (op.doc + "\n\n" if op.doc else "") + f"{op.signature()}\n\nSee {page}"
    result: Callable[..., Any] = made
    return result


@functools.cache
def _code(source: str) -> CodeType:
    """Operators of one signature share their compiled code: compiling is most of what a definition costs at import."""
    return compile(source, "<graphtorch operator>", "exec")


# -- conversions ------------------------------------------------------------------------------------------------------


def _optional(convert: Callable[..., Any]) -> Callable[..., Any]:
    return lambda op, i, value: None if value is None else convert(op, i, value)


def _wrong(op: Operator, i: int, expected: str, value: Any) -> TypeError:
    from graphtorch.ops.dispatch import user_location

    return TypeError(
        f"{op.name}(): argument '{op.parameters[i].name}' (position {i + 1}) must be {expected}, not "
        f"{type(value).__name__}"
        f"\n  at {user_location()}"
    )


class Foreign(Exception):
    """An operand is no tensor, and its class has `__torch_function__`."""


def ask(op: Operator, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What the operands' classes make of a call: those that are no tensors. See torch.overrides."""
    from graphtorch.overrides import handle_torch_function

    operands = [v for a in args for v in (a if isinstance(a, list | tuple) else (a,)) if not isinstance(v, Tensor)]
    named = {p.name: a for p, a in zip(op.parameters, args, strict=True) if p.keyword_only}
    plain = [a for p, a in zip(op.parameters, args, strict=True) if not p.keyword_only]
    return handle_torch_function(function, operands, *plain, **named)


def _no_tensor(op: Operator, i: int, expected: str, value: Any) -> Exception:
    return Foreign() if hasattr(type(value), "__torch_function__") else _wrong(op, i, expected, value)


def _tensor(op: Operator, i: int, value: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    raise _no_tensor(op, i, "Tensor", value)


def _tensors(op: Operator, i: int, value: Any) -> Any:
    if isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, Tensor):
                raise _no_tensor(op, i, "tuple of Tensors", item)
        return tuple(value)
    raise _wrong(op, i, "tuple of Tensors", value)


def _tensors_or_none(op: Operator, i: int, value: Any) -> Any:
    if isinstance(value, list | tuple):
        for item in value:
            if item is not None and not isinstance(item, Tensor):
                raise _wrong(op, i, "tuple of Tensors", item)
        return tuple(value)
    raise _wrong(op, i, "tuple of Tensors", value)


def _is_symbolic(value: Any) -> bool:
    return getattr(value, "is_symbolic_int", False) is True


def _tensor_or_number(op: Operator, i: int, value: Any) -> Any:
    if isinstance(value, np.generic):  # before float: NumPy's float64 is one, and has a dtype as tensors have
        return value.item()
    if type(value) is TrackedNumber:
        return operand_of(value)
    if isinstance(value, Tensor | bool | int | float | complex) or _is_symbolic(value):
        return value
    raise _no_tensor(op, i, "Tensor", value)


def _number(op: Operator, i: int, value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is TrackedNumber:
        return operand_of(value)
    if isinstance(value, bool | int | float | complex) or _is_symbolic(value):
        return value
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()  # under a recorder this stays a run-time number
    raise _wrong(op, i, "Number", value)


def _int(op: Operator, i: int, value: Any) -> Any:
    if type(value) is TrackedNumber:
        value = value.__index__()
    if _is_symbolic(value) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, bool):
        return int(value)
    try:
        return value.__index__()
    except (AttributeError, TypeError):
        raise _wrong(op, i, "int", value) from None


def _ints(op: Operator, i: int, value: Any) -> Any:
    if type(value) is tuple:
        for v in value:
            if type(v) is not int:
                break
        else:
            return value
    if isinstance(value, list | tuple):
        return tuple(_int(op, i, v) for v in value)
    if isinstance(value, Tensor) and value.ndim == 1:
        return tuple(value.tolist())
    return (_int(op, i, value),)


def _bool(op: Operator, i: int, value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise _wrong(op, i, "bool", value)


def _str(op: Operator, i: int, value: Any) -> Any:
    raise _wrong(op, i, "str", value)


def _dtype(op: Operator, i: int, value: Any) -> Any:
    if value is float:
        from graphtorch.tensor.dtypes import get_default_dtype

        return get_default_dtype()
    if value is int or value is bool:
        from graphtorch.tensor import dtypes

        return dtypes.int64 if value is int else dtypes.bool_
    raise _wrong(op, i, "torch.dtype", value)


def _device(op: Operator, i: int, value: Any) -> Any:
    return canonical(value)


# Parameter kind -> the exact type that needs no conversion, and the conversion for everything else.
CONVERTERS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "Tensor": (Tensor, _tensor),
    "Tensor?": (Tensor, _optional(_tensor)),
    "Tensor[]": (None.__class__, _tensors),
    "Tensor?[]": (None.__class__, _tensors_or_none),
    "Tensor|Number": (Tensor, _tensor_or_number),
    "Tensor|Number?": (Tensor, _optional(_tensor_or_number)),
    "Number": (float, _number),
    "Number?": (float, _optional(_number)),
    "int": (int, _int),
    "int?": (int, _optional(_int)),
    "int[]": (None.__class__, _ints),
    "int[]?": (None.__class__, _optional(_ints)),
    "float": (float, _number),
    "float?": (float, _optional(_number)),
    "bool": (bool, _bool),
    "bool?": (bool, _optional(_bool)),
    "str": (str, _str),
    "dtype": (dtype_class, _dtype),
    "dtype?": (dtype_class, _optional(_dtype)),
    "device?": (None.__class__, _device),
}
