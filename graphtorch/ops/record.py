"""The operator record: everything the project knows about one operator, in one place.

A record is made by `operator(...)` (or a family's helper on top of it) and registers itself by name. From it come the
public function, the Tensor method, the in-place and `out=` forms, eager execution, meta evaluation, both
differentiators, IR printing and verification, lowering, and the generated tests.

Signature language (PyTorch's argument names and defaults):

    "add(Tensor input, Tensor|Number other, *, Number alpha=1)"
    "topk(Tensor input, int k, int dim=-1, bool largest=True, bool sorted=True) -> (values, indices)"

Parameter kinds: `Tensor`, `Tensor?` (may be None), `Tensor[]`, `Tensor?[]`, `Tensor|Number`, `Tensor|Number?`,
`Number`, `Number?`, `int`, `int?`, `int[]`, `int[]?`, `float`, `float?`, `bool`, `bool?`, `str`, `str?`, `dtype`,
`dtype?`, `device?`, `generator?`, `any`. A `Number` may hold a run-time number (a learning rate that became an input of
the graph)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, NamedTuple

from graphtorch.ops.native import is_native, least
from graphtorch.tensor.type import TensorType

MISSING = inspect.Parameter.empty

POINTWISE = "pointwise"  # one output element from the matching (broadcast) input elements
REDUCTION = "reduction"  # folds some dimensions of one operand
VIEW = "view"  # the same elements under another index; shares storage
SOURCE = "source"  # makes a value from attributes alone
OPAQUE = "opaque"  # anything else: runs as a call of its own


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operator's signature."""

    name: str
    kind: str
    default: Any
    keyword_only: bool

    @property
    def is_operand(self) -> bool:
        """Whether the parameter holds tensors (and so can have a cotangent)."""
        return self.kind.startswith("Tensor")


@dataclass(frozen=True, slots=True)
class Formula:
    """One operand's derivative: the function and the names of what it needs.

    A formula's own parameter names say what it needs, and so what the tape saves: `g` (the cotangent of the result;
    `g_<result>` or `gs` for an operator of several results), an operand or attribute by name, `<operand>_type` for an
    operand's shape, dtype and device without its data, `result` or a result's name."""

    function: Callable[..., Any]
    needs: tuple[str, ...]


@dataclass(slots=True)
class Sample:
    """One example call of an operator, for the generated tests."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def sample(*args: Any, **kwargs: Any) -> Sample:
    """Shorthand for writing samples: `sample(make(3, 4), 2, keepdim=True)`."""
    return Sample(args, kwargs)


@dataclass(eq=False, slots=True)
class Operator:
    """An operator record.

    Functions take their arguments positionally in signature order, after `normalize`.

    type_rule   operands as anything with dtype, shape, device; returns a TensorType, or a tuple of them for several
                results. Validates: raises PyTorch's exception class with PyTorch's message. Works on symbolic
                dimensions.
    numpy       operands as ndarrays (Python numbers for run-time numbers); returns an ndarray or a tuple. Correct for
                every dtype that the type rule lets pass. A view operator returns a NumPy view.
    derivative  operand name -> Formula; operands without one are not differentiable.
    decompose   the same operator in terms of simpler ones, called with the arguments; None for primitives.
    scalar      a pointwise primitive's name in the scalar instruction set of the emitters, or a reduction's combining
                name.
    compute     of a pointwise operator: the dtype in which the scalar instruction is evaluated, given the arguments;
                operands are cast to it first (a tuple gives each operand its own).
    normalize   canonical arguments (non-negative dims, resolved defaults); returns the argument tuple.
    samples     called with a `Sampler`; yields Samples.
    categories  the dtype categories the generated tests use: letters of "bifc" (bool, int, float, complex).
    overload    called with the arguments: the number that ends PyTorch's grad_fn name for this call, or the whole name.
    edge_order  the operands in the order in which PyTorch's node lists them, if that is another than the signature's.
    order       result name -> how its memory is ordered where that is not row by row: "columns" (each matrix column by
                column, as LAPACK leaves them), "channels" (channels last if an operand of that rank is), "input" (as a
                copy of the first operand) or "operands" (as a pointwise operator would on these operands); a function
                of the shape and of the arguments, tensors as arrays, that gives the strides, in elements, which the
                evaluation leaves, gaps included; of a pointwise operator, "rows": row by row, which all others
                are by default, "rows of complex": so for complex operands, "reversed": as one on its operands in
                reverse order.
    update      the in-place form on arrays: writes the result into the first one's memory and returns True, or returns
                False before it writes anything; the general way is then to evaluate and to copy.
    random      draws from a generator: never merged, reordered or removed.
    scatter     of a view operator: `scatter(base, new_view, *attributes)` is the base with the viewed elements
                replaced; how an in-place change of a view becomes a value (functionalization).
    kernels     kernels of a custom operator by backend, for backends that can't call `numpy` (see graphtorch.library);
                "cuda": for arrays on a device; "eager": for tensors there, None if it leaves the call to the executor
    """

    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[str, ...]
    type_rule: Callable[..., Any]
    numpy: Callable[..., Any]
    kind: str = OPAQUE
    derivative: dict[str, Formula] = field(default_factory=dict)
    decompose: Callable[..., Any] | None = None
    scalar: str | None = None
    compute: Callable[..., Any] | None = None
    normalize: Callable[..., tuple[Any, ...]] | None = None
    samples: Callable[[Any], Iterable[Sample]] | None = None
    categories: str = "f"
    random: bool = False
    scatter: Callable[..., Any] | None = None
    grad_name: str = ""
    overload: Callable[..., int | str] | None = None
    kernels: dict[str, Any] = field(default_factory=dict)
    doc: str = ""
    function: Callable[..., Any] | None = None
    result_class: Any = None
    lazy_check: bool = False
    update: Callable[..., bool] | None = None
    order: Mapping[str, str | Callable[..., tuple[int, ...]]] = field(default_factory=dict)
    saved: tuple[str, ...] = ()
    edge_order: tuple[str, ...] = ()
    autocast: str = ""  # "lower" or "widen", for what `autocast` casts; see ops/autocast.py

    # Read at every call, so worked out once.
    is_view: bool = field(init=False)
    has_list_operands: bool = field(init=False)
    native: bool = field(init=False)  # whether it may run as native code; see ops/native.py
    least: int = field(init=False)  # from this number of elements on
    keeps_rows: bool = field(init=False)  # whether results lie row by row where all operands do; of no pointwise one
    positions: dict[str, int] = field(init=False)
    device_at: int | None = field(init=False)  # the parameter that says where the result is made of no operand

    def __post_init__(self) -> None:
        self.is_view = self.kind == VIEW
        self.has_list_operands = any(p.kind.endswith("[]") and p.is_operand for p in self.parameters)
        self.native = is_native(self.name, self.kind, self.random)
        self.least = least(self.name)
        self.keeps_rows = all(v in ("channels", "input", "operands") for v in self.order.values())
        self.positions = {p.name: i for i, p in enumerate(self.parameters)}
        self.device_at = None if any(p.is_operand for p in self.parameters) else self.positions.get("device")

    def index_of(self, name: str) -> int:
        """The position of a parameter."""
        if name not in self.positions:
            raise KeyError(f"{self.name} has no parameter {name!r}")
        return self.positions[name]

    def infer(self, args: tuple[Any, ...]) -> tuple[TensorType, ...]:
        """The result types for normalised arguments, always as a tuple."""
        types = self.type_rule(*args)
        return types if isinstance(types, tuple) else (types,)

    def signature(self) -> str:
        """The signature as text, in the language of this module."""
        parts: list[str] = []
        star = False
        for p in self.parameters:
            if p.keyword_only and not star:
                parts.append("*")
                star = True
            parts.append(f"{p.kind} {p.name}" + ("" if p.default is MISSING else f"={p.default!r}"))
        arrow = "" if self.results == ("result",) else f" -> ({', '.join(self.results)})"
        return f"{self.name}({', '.join(parts)}){arrow}"

    def __repr__(self) -> str:
        return f"<operator {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (lookup, (self.name,))


REGISTRY: dict[str, Operator] = {}


def lookup(name: str) -> Operator:
    """The record of that name; KeyError with near misses for an unknown one."""
    try:
        return REGISTRY[name]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(name, REGISTRY, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise KeyError(f"unknown operator '{name}'{hint}") from None


_SIGNATURE = re.compile(r"^(\w+)\((.*?)\)(?:\s*->\s*\(([^()]*)\))?$", re.DOTALL)
_PARAMETER = re.compile(r"^([\w|?\[\]]+)\s+(\w+)(?:\s*=\s*(.+))?$")


class ParsedSignature(NamedTuple):
    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[str, ...]


def parse_signature(text: str) -> ParsedSignature:
    """Parse the signature language; ValueError for text outside it."""
    match = _SIGNATURE.match(text.strip())
    if match is None:
        raise ValueError(f"not an operator signature: {text!r}")
    name, inside, outputs = match.groups()
    parameters: list[Parameter] = []
    keyword_only = False
    for part in re.split(r",\s*(?![^()]*\))", inside):
        part = part.strip()
        if not part:
            continue
        if part == "*":
            keyword_only = True
            continue
        found = _PARAMETER.match(part)
        if found is None:
            raise ValueError(f"not a parameter: {part!r} in {text!r}")
        kind, parameter, default = found.groups()
        value = MISSING if default is None else _literal(default)
        parameters.append(Parameter(parameter, kind, value, keyword_only))
    results = tuple(r.strip() for r in outputs.split(",")) if outputs else ("result",)
    return ParsedSignature(name, tuple(parameters), results)


def _literal(text: str) -> Any:
    import ast

    return ast.literal_eval(text)


def _parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    if isinstance(function, FunctionType) and not vars(function):
        code = function.__code__  # what inspect.signature would say, at a fraction of the cost
        return code.co_varnames[: code.co_argcount]
    return tuple(inspect.signature(function).parameters)


def make_formulas(
    derivative: Mapping[str, Callable[..., Any]], parameters: tuple[Parameter, ...], results: tuple[str, ...]
) -> dict[str, Formula]:
    """Read what each formula needs from its parameter names, and check that those names exist."""
    operands = [p.name for p in parameters if p.is_operand]
    known = {p.name for p in parameters} | {f"{o}_type" for o in operands} | set(results) | {"g", "gs"}
    known |= {f"g_{r}" for r in results}
    formulas: dict[str, Formula] = {}
    for operand, function in derivative.items():
        if operand not in operands:
            raise ValueError(f"derivative for {operand!r}, which is no operand")
        needs = _parameter_names(function)
        unknown = [n for n in needs if n not in known]
        if unknown:
            raise ValueError(f"the derivative of {operand!r} needs unknown names {unknown}")
        formulas[operand] = Formula(function, needs)
    return formulas


def default_grad_name(name: str) -> str:
    """PyTorch's grad_fn name for most operators: `log_softmax` -> `LogSoftmaxBackward0`."""
    return "".join(part.capitalize() for part in name.split("_") if part) + "Backward0"
