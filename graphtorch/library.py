"""Operators of one's own: `custom_op` makes a function one node of every graph, with its own kernels and gradient.

Unlike a function of operators, which a capture looks through, a custom operator's body is not traced: it may call NumPy
or another library. What the compiler needs is registered: how results look (`register_fake`), how to differentiate
(`register_autograd`) and kernels for backends that can't call Python (`register_triton`).
See https://docs.pytorch.org/docs/stable/library.html and docs/custom-operators.md."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphtorch.autograd.function import Function
from graphtorch.autograd.state import recorder_paused
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.ops.build import operator
from graphtorch.ops.dispatch import quiet
from graphtorch.ops.record import REGISTRY
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

__all__ = ["CustomOpDef", "custom_op", "opcheck", "register_autograd", "register_fake", "register_kernel"]

_NAME = re.compile(r"^(\w+)::(\w+)$")
_OPERATORS: dict[str, CustomOpDef] = {}
_KINDS: dict[Any, str] = {
    Tensor: "Tensor",
    int: "int",
    float: "float",
    bool: "bool",
    str: "str",
    dtype: "dtype",
    int | float: "Number",
    float | int: "Number",
}
_LISTS = {Tensor: "Tensor[]", int: "int[]"}
_OPTIONAL = {"Tensor", "int", "int[]", "float", "bool", "str", "dtype", "Number"}


class Schema(NamedTuple):
    """What a function's annotations say: a parameter text of `ops.record`'s language, and the number of results."""

    parameters: str
    results: int


def infer_schema(function: Callable[..., Any], mutates_args: Iterable[str] = ()) -> Schema:
    """Read a function's annotations. Raises ValueError for a parameter without one or with one that no operator
    takes."""
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function)
    parts: list[str] = []
    star = False
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(
                f"infer_schema(func): *args and **kwargs are not supported. Got func with signature {signature})"
            )
        if name not in hints:
            raise ValueError(
                f"infer_schema(func): Parameter {name} must have a type annotation. "
                f"Got func with signature {signature})"
            )
        kind = _kind(hints[name])
        if kind is None:
            raise ValueError(
                f"infer_schema(func): Parameter {name} has unsupported type {hints[name]}. Got func with signature "
                f"{signature}). The valid types are: Tensor, Sequence[Tensor], int, Sequence[int], float, bool, str, "
                "dtype, int | float, and each of them or None."
            )
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(f"{kind} {name}{default}")
    unknown = set(mutates_args) - signature.parameters.keys()
    if unknown:
        raise ValueError(f"mutates_args should contain names of parameters; {sorted(unknown)} are none of {signature}")
    return Schema(", ".join(parts), _result_count(hints.get("return", inspect.Signature.empty), signature))


def _kind(annotation: Any) -> str | None:
    """The kind of parameter that an annotation names; None for one that no operator takes."""
    if annotation in _KINDS:
        return _KINDS[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType) and type(None) in inner:
        rest = [a for a in inner if a is not type(None)]
        kind = _kind(rest[0]) if len(rest) == 1 else _kind(typing.Union[tuple(rest)])  # noqa: UP007 - made at run time
        return f"{kind}?" if kind in _OPTIONAL else None
    if origin in (list, Sequence):
        return _LISTS.get(inner[0])
    return None


def _result_count(annotation: Any, signature: inspect.Signature) -> int:
    if annotation is Tensor:
        return 1
    if annotation is None or annotation is type(None):
        return 0
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple and inner and all(a is Tensor for a in inner):
        return len(inner)
    raise ValueError(
        f"infer_schema(func): Return has unsupported type {annotation}. Got func with signature {signature}). "
        "The valid types are: Tensor, tuple[Tensor, ...] of a fixed length, None."
    )


class CustomOpDef:
    """A custom operator: call it like the function it was made of. Made by `custom_op`."""

    def __init__(self, name: str, function: Callable[..., Any], mutates_args: Sequence[str]) -> None:
        found = _NAME.match(name)
        if found is None:
            raise ValueError(f"custom_op(name): expected a name of the form 'namespace::operator', got {name!r}")
        self.name = name
        self.mutated = tuple(mutates_args)
        self.signature = inspect.signature(function)
        schema = infer_schema(function, self.mutated)
        if not schema.results and not self.mutated:
            raise ValueError(
                f"{name}: an operator that returns nothing must change one of its arguments (mutates_args)"
            )
        self.results = schema.results
        names = [f"result{i}" for i in range(self.results)] if self.results > 1 else ["result"] * self.results
        # An argument that is changed in place is a result of the record; calls copy it back.
        outputs = [*names, *(f"new_{argument}" for argument in self.mutated)]
        self.output_names = tuple(outputs)
        self._kernels: dict[str, Callable[..., Any]] = {}
        self._fake: Callable[..., Any] | None = None
        self._backward: Callable[..., Any] | None = None
        self._setup_context: Callable[..., Any] | None = None
        record_name = "_".join(found.groups())
        REGISTRY.pop(
            record_name, None
        )  # a definition that is run again (in a notebook, say) takes the place of the first

        def types_of(*args: Any) -> Any:
            return self._types(args)

        types_of.__module__ = function.__module__  # whose record this is
        arrow = f" -> ({', '.join(outputs)})" if outputs != ["result"] else ""
        self._call = operator(
            f"{record_name}({schema.parameters}){arrow}",
            type=types_of,
            numpy=self._numpy,
            lazy_check=True,
            public=False,
            method=False,
            doc=inspect.getdoc(function) or "",
        )
        self.record = REGISTRY[record_name]
        self._function = self._make_function(record_name)
        self.__name__ = found.group(2)
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<CustomOpDef({self.name})>"

    # -- registration

    def register_kernel(
        self, device_types: str | Sequence[str], function: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """The operator on tensors of a kind of device ("cpu"), in place of the function it was made of. A decorator."""

        def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
            for device in [device_types] if isinstance(device_types, str) else device_types:
                self._kernels[device] = kernel
            return kernel

        return register if function is None else register(function)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What results look like. The function gets tensors without data and returns such tensors, by
        `torch.empty_like(x)`, say. Needed under `@compile` and on the meta device. A decorator."""
        self._fake = function
        return function

    def register_autograd(
        self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None
    ) -> None:
        """The derivative: `backward(ctx, *grads)` returns a gradient or None for each argument (a list of them for a
        list of tensors), made of operators. `setup_context(ctx, inputs, output)` saves what it needs.

        Raises RuntimeError for an operator that changes its arguments.
        """
        if self.mutated:
            raise RuntimeError(
                f"Cannot register autograd formula for non-functional operator {self.name}. Please create a functional "
                "operator and register an autograd formula for that."
            )
        self._backward = backward
        self._setup_context = setup_context

    def register_triton(
        self,
        kernel: Any = None,
        *,
        sizes: Callable[..., Mapping[str, Any]],
        grid: Sequence[tuple[str, str]],
        constants: Mapping[str, int] | None = None,
        num_warps: int = 4,
    ) -> Any:
        """A kernel for the `triton` backend: a function in Triton's language, or its text. A decorator.

        The kernel's parameters are named after the operator's tensors and results (`result`, or `result0`, `result1`;
        pointers to row-major memory), its other parameters, `constants` (both `tl.constexpr`) and `sizes`: whole
        numbers that the function `sizes` gives for the operator's arguments, by keyword. For each pair (size, constant)
        of `grid` there is a program a block; the numbers of programs are multiplied.
        """
        from graphtorch.lowering.triton.custom import custom_kernel

        def register(given: Any) -> Any:
            self.record.kernels["triton"] = custom_kernel(
                given, sizes, tuple(grid), self.output_names, constants or {}, num_warps
            )
            return given

        return register if kernel is None else register(kernel)

    # -- calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        flat: list[Any] = []
        layout: list[int] = []  # of each argument, its number of tensors if it is a list of them, else -1
        for value in bound.arguments.values():
            listed = isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value)
            layout.append(len(value) if listed else -1)
            flat.extend(value if listed else (value,))
        made = self._function.apply(tuple(layout), *flat)
        results = made if isinstance(made, tuple) else (made,)
        for name, new in zip(self.mutated, results[self.results :], strict=True):
            bound.arguments[name].copy_(new)
        kept = results[: self.results]
        return None if not kept else kept[0] if len(kept) == 1 else tuple(kept)

    def _make_function(self, record_name: str) -> type[Function]:
        """The autograd.Function around the record's call."""
        definition = self

        def forward(layout: tuple[int, ...], *flat: Any) -> Any:
            args = _regrouped(layout, flat)
            positional, named = definition._split(args)
            made = definition._call(*positional, **named)
            return tuple(made) if isinstance(made, tuple) else made

        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.layout = inputs[0]
            if definition._setup_context is None:
                return
            positional, named = definition._split(_regrouped(inputs[0], inputs[1:]))
            options = {"keyword_only_inputs": named} if named else {}
            definition._setup_context(ctx, inputs=tuple(positional), output=output, **options)

        def backward(ctx: Any, *grads: Any) -> Any:
            if definition._backward is None:
                raise RuntimeError(
                    f"Trying to backward through {definition.name} but no autograd formula was registered. "
                    "Please use register_autograd to add one."
                )
            returned = definition._backward(ctx, *grads)
            values = list(returned) if isinstance(returned, tuple) else [returned]
            layout = ctx.layout
            values += [None] * (len(layout) - len(values) if definition._keyword_only() else 0)
            if len(values) != len(layout):
                raise RuntimeError(
                    f"{definition.name}: the backward returned {len(values)} gradients for {len(layout)} arguments"
                )
            flat: list[Any] = [None]
            for value, count in zip(values, layout, strict=True):
                flat.extend([value] if count < 0 else [None] * count if value is None else value)
            return tuple(flat)

        namespace = {
            "forward": staticmethod(forward),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(backward),
        }
        return type(f"GeneratedBackwardFor_{record_name}_default", (Function,), namespace)

    def _keyword_only(self) -> list[str]:
        return [n for n, p in self.signature.parameters.items() if p.kind is p.KEYWORD_ONLY]

    def _split(self, args: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """All arguments in order, as positional ones and those that go by name."""
        named = self._keyword_only()
        count = len(args) - len(named)
        return list(args[:count]), dict(zip(named, args[count:], strict=True))

    # -- what the record calls

    def _numpy(self, *args: Any) -> Any:
        """Run the kernel for the host's memory on arrays."""
        tensors = [_tensors(arg) for arg in args]
        for name in self.mutated:
            position = list(self.signature.parameters).index(name)
            tensors[position] = _tensors(args[position].copy())
        kernel = self._kernels.get("cpu")
        if kernel is None:
            raise NotImplementedError(f"Could not run '{self.name}' on the CPU: no kernel is registered for it")
        positional, named = self._split(tensors)
        with recorder_paused(), quiet.nested():
            made = kernel(*positional, **named)
        results = () if made is None else tuple(made) if isinstance(made, list | tuple) else (made,)
        if len(results) != self.results:
            raise RuntimeError(f"{self.name} returned {len(results)} results, its annotations say {self.results}")
        arrays = []
        for result in results:
            if not isinstance(result, Tensor):
                raise TypeError(f"{self.name} returned {type(result).__name__}, its annotations say Tensor")
            arrays.append(result._host(self.name))
        given = [a for arg in args for a in (arg if type(arg) is tuple else (arg,)) if isinstance(a, np.ndarray)]
        if any(np.may_share_memory(result, a) for result in arrays for a in given):
            raise RuntimeError(
                f"{self.name} (with implementation in {getattr(kernel, '__module__', '???')}): The output of this "
                "custom operator (1) must not also be an input to this custom operator and (2) may not alias any "
                "inputs to this custom operator or other returns. The most common way to trigger this error is if we "
                "have y = custom_op(x) and y and x are the same Tensor. Please instead return a clone of the offending "
                "output tensor(s) (e.g. return x.clone()) or refactor the custom operator to not return y."
            )
        arrays += [tensors[list(self.signature.parameters).index(name)]._host(self.name) for name in self.mutated]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def _require_fake(self) -> None:
        if self._fake is None and self.results:
            raise RuntimeError(
                f"There was no fake impl registered for {self.name}. This is necessary for @compile and meta tensors. "
                f"Please use `{self.__name__}.register_fake` to add a fake impl."
            )

    def _types(self, args: tuple[Any, ...]) -> Any:
        """The type rule: the fake function run on values of a graph that is thrown away."""
        changed = [type_of(args[list(self.signature.parameters).index(name)]) for name in self.mutated]
        fake = self._fake
        if fake is None and any(isinstance(arg, Tensor) and arg.device.type == "cpu" for arg in args):
            return ()  # eager execution asks only to explain an error, and this is not it
        self._require_fake()
        made: Any = ()
        if fake is not None:
            graph = Graph("fake")

            def without_data(arg: Any) -> Any:
                if type(arg) is tuple:
                    return tuple(map(without_data, arg))
                if not hasattr(arg, "dtype") or not hasattr(arg, "shape"):
                    return arg
                return wrap(graph.add_input(type_of(arg)))

            with GraphBuilder(graph):
                positional, named = self._split([without_data(arg) for arg in args])
                made = fake(*positional, **named)
        results = () if made is None else tuple(made) if isinstance(made, list | tuple) else (made,)
        found = [type_of(result) for result in results]
        if len(found) != self.results:
            raise RuntimeError(f"{self.name}: the fake function gave {len(found)} results, expected {self.results}")
        all_types: list[TensorType] = [*found, *changed]
        return all_types[0] if len(all_types) == 1 else tuple(all_types)


def _regrouped(layout: tuple[int, ...], flat: Sequence[Any]) -> list[Any]:
    """Arguments as they were before their lists of tensors were spread out."""
    args: list[Any] = []
    at = 0
    for count in layout:
        args.append(flat[at] if count < 0 else tuple(flat[at : at + count]))
        at += max(count, 1) if count < 0 else count
    return args


def _tensors(arg: Any) -> Any:
    """Arrays as tensors over the same memory."""
    if isinstance(arg, np.ndarray):
        return Tensor._wrap(arg)
    return tuple(map(_tensors, arg)) if type(arg) is tuple else arg


def custom_op(
    name: str,
    fn: Callable[..., Any] | None = None,
    /,
    *,
    mutates_args: str | Iterable[str],
    device_types: str | Sequence[str] | None = None,
) -> Any:
    """Make a function an operator named "namespace::operator". A decorator.

    Parameters and results are annotated: Tensor, Sequence[Tensor], int, Sequence[int], float, bool, str, dtype,
    int | float, or one of them or None; a Tensor, a tuple of them, or None. `mutates_args` names the tensors that the
    function changes in place; there are no others. Without `device_types` the function serves every device.

    Raises ValueError for other annotations or a name of another form.
    See https://docs.pytorch.org/docs/stable/library.html#torch.library.custom_op.
    """

    def make(function: Callable[..., Any]) -> CustomOpDef:
        mutated = [mutates_args] if isinstance(mutates_args, str) else list(mutates_args)
        made = CustomOpDef(name, function, mutated)
        made.register_kernel("cpu" if device_types is None else device_types, function)
        _OPERATORS[name] = made
        return made

    return make if fn is None else make(fn)


def _definition(op: str | CustomOpDef) -> CustomOpDef:
    if isinstance(op, CustomOpDef):
        return op
    if op not in _OPERATORS:
        raise RuntimeError(f"operator {op} does not exist")
    return _OPERATORS[op]


def register_fake(op: str | CustomOpDef, func: Callable[..., Any] | None = None, /) -> Any:
    """`CustomOpDef.register_fake`, by the operator's name too."""
    definition = _definition(op)
    return definition.register_fake if func is None else definition.register_fake(func)


def register_kernel(
    op: str | CustomOpDef, device_types: str | Sequence[str], func: Callable[..., Any] | None = None, /
) -> Any:
    """`CustomOpDef.register_kernel`, by the operator's name too."""
    return _definition(op).register_kernel(device_types, func)


def register_autograd(
    op: str | CustomOpDef, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None
) -> None:
    """`CustomOpDef.register_autograd`, by the operator's name too."""
    _definition(op).register_autograd(backward, setup_context=setup_context)


# -- checking ---------------------------------------------------------------------------------------------------------

_CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def opcheck(
    op: CustomOpDef,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    test_utils: str | Sequence[str] = _CHECKS,
    raise_exception: bool = True,
    atol: float | None = None,
    rtol: float | None = None,
) -> dict[str, Any]:
    """Check an operator on a call: that it changes only what it says, has a gradient where one is wanted, that its fake
    function is right, and that it does the same compiled, with sizes symbolic, as eagerly.

    Returns "SUCCESS" or the error for each check; by default the first error is raised.
    See https://docs.pytorch.org/docs/stable/library.html#torch.library.opcheck.
    """
    found: dict[str, Any] = {}
    for name in [test_utils] if isinstance(test_utils, str) else test_utils:
        if name not in _CHECKS:
            raise ValueError(f"unknown check {name!r}; known are {', '.join(_CHECKS)}")
        try:
            globals()[f"_{name}"](op, args, kwargs or {}, {"atol": atol, "rtol": rtol})
        except Exception as error:
            if raise_exception:
                raise
            found[name] = error
        else:
            found[name] = "SUCCESS"
    return found


def _copied(args: Any) -> Any:
    """Arguments that share nothing with the given ones."""
    if isinstance(args, Tensor):
        return args.detach().clone().requires_grad_(args.requires_grad)
    if isinstance(args, dict):
        return {key: _copied(value) for key, value in args.items()}
    return type(args)(map(_copied, args)) if isinstance(args, list | tuple) else args


def _leaves(args: Any) -> list[Tensor]:
    if isinstance(args, Tensor):
        return [args]
    if isinstance(args, dict):
        args = list(args.values())
    return [leaf for arg in args for leaf in _leaves(arg)] if isinstance(args, list | tuple) else []


def _test_schema(op: CustomOpDef, args: Any, kwargs: Any, tolerance: Any) -> None:
    args, kwargs = _copied(args), _copied(kwargs)
    bound = op.signature.bind(*args, **kwargs).arguments
    before = {name: [leaf.detach().clone() for leaf in _leaves(value)] for name, value in bound.items()}
    op(*args, **kwargs)
    for name, value in bound.items():
        for old, new in zip(before[name], _leaves(value), strict=True):
            if name not in op.mutated and not np.array_equal(old.numpy(), new.detach().numpy(), equal_nan=True):
                raise RuntimeError(f"{op.name}: argument {name} was changed, but is not in mutates_args")


def _test_autograd_registration(op: CustomOpDef, args: Any, kwargs: Any, tolerance: Any) -> None:
    if any(leaf.requires_grad for leaf in _leaves((args, kwargs))) and op._backward is None:
        raise RuntimeError(f"{op.name}: an argument requires a gradient, but no autograd formula was registered")


def _test_faketensor(op: CustomOpDef, args: Any, kwargs: Any, tolerance: Any) -> None:
    op._require_fake()
    args, kwargs = _copied(args), _copied(kwargs)
    bound = op.signature.bind(*args, **kwargs)
    bound.apply_defaults()
    values = [tuple(v) if isinstance(v, list) else v for v in bound.arguments.values()]
    expected = op.record.infer(tuple(values))
    for said, made in zip(expected, _leaves(op(*args, **kwargs)), strict=False):
        if said.dtype != made.dtype or tuple(said.shape) != tuple(made.shape):
            raise RuntimeError(
                f"{op.name}: the fake function says {said.dtype}{list(said.shape)}, the operator returned "
                f"{made.dtype}{list(made.shape)}"
            )


def _test_aot_dispatch_dynamic(op: CustomOpDef, args: Any, kwargs: Any, tolerance: Any) -> None:
    from graphtorch.frontend import compile

    rtol = 1e-5 if tolerance["rtol"] is None else tolerance["rtol"]
    atol = 1e-6 if tolerance["atol"] is None else tolerance["atol"]

    def run(function: Callable[..., Any]) -> list[np.ndarray]:
        given, named = _copied(args), _copied(kwargs)
        results = _leaves(function(*given, **named))
        sources = [leaf for leaf in _leaves((given, named)) if leaf.requires_grad]
        if sources and op._backward is not None:
            total: Any = sum(r.sum() for r in results if r.requires_grad)
            total.backward()
        gradients = [leaf.grad for leaf in sources if leaf.grad is not None]
        return [t.detach().numpy() for t in (*results, *_leaves((given, named)), *gradients)]

    eager = run(lambda *a, **k: op(*a, **k))
    compiled = run(compile(lambda *a, **k: op(*a, **k), fullgraph=True, dynamic=True))
    for expected, got in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)
