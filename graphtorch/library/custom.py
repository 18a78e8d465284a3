"""Operators of one's own: `custom_op` makes a function one node of every graph, with its own kernels and gradient.

Unlike a function of operators, which a capture looks through, a custom operator's body is not traced: it may call NumPy
or another library. What the compiler needs is registered: how results look (`register_fake`), how to differentiate
(`register_autograd`) and kernels for backends that can't call Python (`register_triton`).
See https://docs.pytorch.org/docs/stable/library.html and docs/custom-operators.md."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.function import Function
from graphtorch.autograd.state import recorder_paused, state
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.library.schema import Schema, read_annotations, read_schema
from graphtorch.ops import modes
from graphtorch.ops.build import operator
from graphtorch.ops.dispatch import quiet
from graphtorch.ops.record import REGISTRY
from graphtorch.tensor.devices import device
from graphtorch.tensor.remote import DeviceArray
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType, type_of

_NAME = re.compile(r"^(\w+)::(\w+)$")
OPERATORS: dict[str, CustomOpDef] = {}


class CustomOpDef:
    """A custom operator: call it like the function it was made of. Made by `custom_op`, or by `define` of a schema."""

    def __init__(self, name: str, function: Callable[..., Any] | None, schema: Schema) -> None:
        found = _NAME.match(name)
        if found is None:
            raise ValueError(f"custom_op(name): expected a name of the form 'namespace::operator', got {name!r}")
        self.name = name
        self.schema = schema
        self.mutated = schema.mutated
        self.signature = schema.signature
        self.composite: Callable[..., Any] | None = None  # what runs in its place, looked through by captures
        self.disabled: set[str] = set()  # kinds of devices whose kernels are turned off
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
        self._vmap: Callable[..., Any] | None = None
        self._casts: dict[str, Any] = {}
        self._traced = False  # whether a call without a gradient formula runs its kernel on tensors with a history
        record_name = "_".join(found.groups())
        REGISTRY.pop(
            record_name, None
        )  # a definition that is run again (in a notebook, say) takes the place of the first

        def types_of(*args: Any) -> Any:
            return self._types(args)

        types_of.__module__ = getattr(function, "__module__", __name__)  # whose record this is
        arrow = f" -> ({', '.join(outputs)})" if outputs != ["result"] else ""
        self._call = operator(
            f"{record_name}({schema.parameters}){arrow}",
            type=types_of,
            numpy=self._numpy,
            lazy_check=True,
            public=False,
            method=False,
            doc=inspect.getdoc(function) or "" if function is not None else "",
        )
        self.record = REGISTRY[record_name]
        self.record.kernels["eager"] = self._on_device
        self._function = self._make_function(record_name)
        self.__name__ = found.group(2)
        self.__doc__ = function.__doc__ if function is not None else None
        if function is not None:
            self.__wrapped__ = function
        space, short = found.groups()
        modes.LIBRARIES.setdefault(space, {})[short] = self
        modes.QUALIFIED[record_name] = space, short

    def __repr__(self) -> str:
        return f"<CustomOpDef({self.name})>"

    # -- registration

    def register_kernel(
        self, device_types: str | Sequence[str], function: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """The operator on tensors of a kind of device ("cpu", "cuda"), in place of the function it was made of. Without
        one for CUDA devices, that for the CPU runs, on copies. A decorator."""

        def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
            for kind in [device_types] if isinstance(device_types, str) else device_types:
                self._kernels[kind] = kernel
                if kind == "cuda":
                    self.record.kernels[kind] = self._numpy  # what is given arrays on the device, where they lie
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

    def register_vmap(self, func: Callable[..., Any] | None = None) -> Any:
        """The operator on batches: `func(info, in_dims, *args)` returns the results and their `out_dims`, as a custom
        Function's `vmap` does. A decorator."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._vmap = function
            return function

        return register if func is None else register(func)

    def register_autocast(self, device_type: str, cast_inputs: Any) -> None:
        """Inside of autocast on this kind of device, arguments of floating point are cast to `cast_inputs`, and
        autocast is off in the operator. Raises ValueError for a kind of device that has no autocast."""
        if device(device_type).type not in ("cpu", "cuda"):
            raise ValueError(f"Unknown device type: {device_type}")
        self._casts[device_type] = cast_inputs

    def set_kernel_enabled(self, device_type: str, enabled: bool = True) -> Any:
        """A block in which the kernel of a kind of device is on or off; without one, the function that the operator was
        made of runs."""
        from contextlib import contextmanager

        @contextmanager
        def for_a_while() -> Any:
            before = set(self.disabled)
            (self.disabled.discard if enabled else self.disabled.add)(device_type)
            try:
                yield
            finally:
                self.disabled = before

        return for_a_while()

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
        if self.composite is not None:
            return self.composite(*args, **kwargs)
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if state.autocast is not None and self._casts:
            return self._without_autocast(bound)
        if self._traced and self._backward is None and state.recorder is None and not state.modes:
            kernel = self._kernel()
            if kernel is not None and all(leaf.device.type == "cpu" for leaf in leaves(list(bound.arguments.values()))):
                return kernel(*bound.args, **bound.kwargs)
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

    def _without_autocast(self, bound: inspect.BoundArguments) -> Any:
        """The call with its arguments cast, outside of autocast."""
        held = state.autocast
        where = next((leaf.device.type for leaf in leaves(list(bound.arguments.values()))), "cpu")
        to = self._casts.get(where)

        def cast(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(map(cast, value))
            fits = isinstance(value, Tensor) and value.dtype.is_floating_point and str(value.dtype) != "torch.float64"
            return value.to(to) if fits else value

        args = bound.args if to is None else tuple(map(cast, bound.args))
        kwargs = bound.kwargs if to is None else {k: cast(v) for k, v in bound.kwargs.items()}
        state.autocast = None
        try:
            return self(*args, **kwargs)
        finally:
            state.autocast = held

    def _kernel(self, kind: str = "cpu") -> Callable[..., Any] | None:
        """What runs on tensors of a kind of device."""
        kernel = self._kernels.get(kind)
        if kind in self.disabled:
            kernel = getattr(self, "__wrapped__", None)
        return kernel

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

        def vmap(info: Any, in_dims: Any, layout: tuple[int, ...], *flat: Any) -> Any:
            if definition._vmap is None:
                raise RuntimeError(
                    f"You tried to vmap over {definition.name}, but it does not have vmap support. Please use "
                    "register_vmap to add it."
                )
            positional, named = definition._split(_regrouped(layout, flat))
            dims, _ = definition._split(_regrouped(layout, tuple(in_dims[1:])))
            return definition._vmap(info, tuple(dims), *positional, **named)

        namespace = {
            "vmap": staticmethod(vmap),
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

    def _on_device(self, args: Sequence[Any]) -> Any:
        """An eager call on a CUDA device: a kernel for it gets the tensors, that for the host gets copies. None where a
        one-node graph serves, for which the results must be foretold."""
        where = next((t.device for t in leaves(list(args)) if t.device.type == "cuda"), None)
        if where is None or not ("cuda" in self._kernels or (self._fake is None and self.results)):
            return None
        arrays = [_arrays(arg) for arg in args]
        if self._kernel("cuda") is None and self._kernel() is not None:
            from graphtorch.lowering.triton.strided import tell_about_host

            tell_about_host(self.record.name)
            arrays = [_copied(arg) for arg in arrays]
        made = self._numpy(*arrays)
        results = tuple(_tensors(a).to(where) for a in (made if isinstance(made, tuple) else (made,)))
        return results if len(results) != 1 else results[0]

    def _numpy(self, *args: Any) -> Any:
        """Run the kernel for the memory that arrays lie in, the host's or a CUDA device's."""
        tensors = [_tensors(arg) for arg in args]
        for name in self.mutated:
            position = list(self.signature.parameters).index(name)
            tensors[position] = _tensors(args[position].copy())
        kind = "cuda" if any(t.device.type == "cuda" for t in leaves(tensors)) else "cpu"
        kernel = self._kernel(kind)
        if kernel is None:
            where = f"from the '{kind.upper()}' backend"
            raise NotImplementedError(
                f"Could not run '{self.name}' with arguments {where}: no kernel is registered for it"
            )
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
            arrays.append(result._data if kind == "cuda" and result.device.type == kind else result._host(self.name))
        given = [a for arg in args for a in (arg if type(arg) is tuple else (arg,)) if isinstance(a, np.ndarray)]
        if any(np.may_share_memory(result, a) for result in arrays for a in given):
            raise RuntimeError(
                f"{self.name} (with implementation in {getattr(kernel, '__module__', '???')}): The output of this "
                "custom operator (1) must not also be an input to this custom operator and (2) may not alias any "
                "inputs to this custom operator or other returns. The most common way to trigger this error is if we "
                "have y = custom_op(x) and y and x are the same Tensor. Please instead return a clone of the offending "
                "output tensor(s) (e.g. return x.clone()) or refactor the custom operator to not return y."
            )
        arrays += [tensors[list(self.signature.parameters).index(name)]._data for name in self.mutated]
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
        if fake is None and any(isinstance(arg, Tensor) and arg.device.type != "meta" for arg in args):
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
        return Tensor._over(arg)
    return tuple(map(_tensors, arg)) if type(arg) is tuple else arg


def _arrays(arg: Any) -> Any:
    """Tensors as the arrays that they hold."""
    if isinstance(arg, Tensor):
        return arg._data
    return tuple(map(_arrays, arg)) if type(arg) is tuple else arg


def _copied(arg: Any) -> Any:
    """Arrays of a device as copies in the host's memory."""
    if type(arg) is DeviceArray:
        return arg.host()
    return tuple(map(_copied, arg)) if type(arg) is tuple else arg


def custom_op(
    name: str,
    fn: Callable[..., Any] | None = None,
    /,
    *,
    mutates_args: str | Iterable[str],
    device_types: str | Sequence[str] | None = None,
    schema: str | None = None,
    tags: Any = None,
) -> Any:
    """Make a function an operator named "namespace::operator". A decorator.

    Parameters and results are annotated: Tensor, Sequence[Tensor], int, Sequence[int], float, bool, str, dtype,
    int | float, or one of them or None; a Tensor, a tuple of them, or None. `mutates_args` names the tensors that the
    function changes in place; there are no others. Without `device_types` the function serves every device. A `schema`
    ("(Tensor x, int n) -> Tensor") says what annotations else say; `tags` are accepted.

    Raises ValueError for other annotations or a name of another form.
    See https://docs.pytorch.org/docs/stable/library.html#torch.library.custom_op.
    """

    def make(function: Callable[..., Any]) -> CustomOpDef:
        mutated = [mutates_args] if isinstance(mutates_args, str) else list(mutates_args)
        if schema is None:
            made = CustomOpDef(name, function, read_annotations(function, mutated))
        else:
            made = CustomOpDef(name, function, read_schema(schema.removeprefix(name.partition("::")[2])))
            if set(made.mutated) != set(mutated):
                raise ValueError(
                    f"Attempted to create a custom op with `mutates_args={mutates_args}` and `schema={schema}. The "
                    "schema suggests that the op mutates different arguments"
                )
        made.register_kernel("cpu" if device_types is None else device_types, function)
        OPERATORS[name] = made
        return made

    return make if fn is None else make(fn)


def definition_of(op: Any) -> CustomOpDef:
    """The operator of a name, `torch.ops.demo.f` or `torch.ops.demo.f.default`. Raises RuntimeError if there is
    none."""
    if isinstance(op, CustomOpDef):
        return op
    if isinstance(op, modes.OpOverload):
        op = op.overloadpacket
    name = f"{op._namespace}::{op.__name__}" if isinstance(op, modes.OpOverloadPacket) else op
    if name.partition("::")[0] == "aten":
        raise RuntimeError(f"{name}: operators of this package have their kernels and derivatives, which stay")
    if name not in OPERATORS:
        raise RuntimeError(f"operator {name} does not exist")
    return OPERATORS[name]


def leaves(args: Any) -> list[Tensor]:
    """The tensors among arguments."""
    if isinstance(args, Tensor):
        return [args]
    if isinstance(args, dict):
        args = list(args.values())
    return [leaf for arg in args for leaf in leaves(arg)] if isinstance(args, list | tuple) else []
