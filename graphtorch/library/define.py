"""Libraries of operators: `Library`, `define` and `impl`, and the registrations by an operator's name.

An operator is defined by its schema, and gets its kernels afterwards. See
https://docs.pytorch.org/docs/stable/library.html#low-level-apis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from graphtorch.library.custom import _NAME, OPERATORS, CustomOpDef, definition_of
from graphtorch.library.schema import read_schema
from graphtorch.ops import modes

_RESERVED = ("prim", "aten")
_DEFINED: set[str] = set()  # namespaces that a Library defines

# What PyTorch calls the kernels -> the kind of device here.
_DEVICES = {"CPU": "cpu", "cpu": "cpu", "CUDA": "cuda", "cuda": "cuda"}
_EVERYWHERE = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "default")


def _qualified(name: str) -> str:
    if _NAME.match(name) is None:
        raise ValueError(
            f'Expected `qualname` to be of the form "namespace::name", but got {name}. The qualname passed to the '
            "torch.library APIs must consist of a namespace and a name, e.g. aten::sin"
        )
    return name


def _define(name: str, schema: str) -> CustomOpDef:
    if name in OPERATORS:
        raise RuntimeError(
            f"Tried to register an operator ({name}{schema}) with the same name and overload name multiple times. Each "
            "overload's schema should only be registered with a single call to def()."
        )
    made = CustomOpDef(name, None, read_schema(schema))
    made._traced = True
    OPERATORS[name] = made
    return made


def _implement(definition: CustomOpDef, key: str, function: Callable[..., Any]) -> None:
    if key in _DEVICES:
        definition.register_kernel(_DEVICES[key], function)
    elif key in _EVERYWHERE:
        definition.register_kernel(["cpu", "cuda"], function)
    elif key == "Meta":
        definition.register_fake(function)
    elif key in ("", "CompositeImplicitAutograd"):
        definition.composite = function
    elif key.startswith("Autograd"):
        raise NotImplementedError(f"{definition.name}: a gradient is registered by torch.library.register_autograd")
    else:
        raise NotImplementedError(f"{definition.name}: there are no kernels for {key} here")


class Library:
    """The operators of a namespace. See torch.library.Library.

    `kind`: "DEF" to define the namespace, once; "FRAGMENT" to define more of it; "IMPL" to implement its operators.
    `dispatch_key`: of implementations that name none. Raises ValueError for another kind or a reserved namespace,
    RuntimeError for a namespace that is defined."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = "") -> None:
        if kind not in ("IMPL", "DEF", "FRAGMENT"):
            raise ValueError(f"Unsupported kind: {kind}")
        if ns in _RESERVED and kind in ("DEF", "FRAGMENT"):
            raise ValueError(f"{ns} is a reserved namespace. Please try creating a library with another name.")
        if kind == "DEF":
            if ns in _DEFINED:
                raise RuntimeError(
                    f"Only a single TORCH_LIBRARY can be used to register the namespace {ns}; please put all of your "
                    "definitions in a single TORCH_LIBRARY block."
                )
            _DEFINED.add(ns)
        self.ns = ns
        self.kind = kind
        self.dispatch_key = dispatch_key
        self._made: list[str] = []

    def __repr__(self) -> str:
        return f"Library(kind={self.kind}, ns={self.ns}, dispatch_key={self.dispatch_key})>"

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """Define an operator by its name and schema, "f(Tensor x) -> Tensor"; returns the name. Raises RuntimeError for
        one that is defined, or a schema that can't be read."""
        if alias_analysis not in ("", "FROM_SCHEMA", "CONSERVATIVE"):
            raise RuntimeError(f"Invalid alias_analysis type {alias_analysis}")
        if self.kind not in ("DEF", "FRAGMENT"):
            raise RuntimeError(f"def(): an operator can't be defined in a Library of kind {self.kind}")
        name, bracket, rest = schema.partition("(")
        if not bracket:
            raise RuntimeError("Tried to parse a function schema but only the operator name was given")
        made = _define(f"{self.ns}::{name.strip()}", f"({rest}")
        self._made.append(made.name)
        return name.strip()

    def impl(
        self, op_name: Any, fn: Callable[..., Any], dispatch_key: str = "", *, with_keyset: bool = False,
        allow_override: bool = False,
    ) -> None:  # fmt: skip
        """Implement an operator of the namespace: for "CPU" or "CUDA"; for both ("CompositeExplicitAutograd"); without
        data ("Meta"); or, without a key, by a function of other operators."""
        if not callable(fn):
            raise TypeError(f"Input function is required to be a callable but found type {type(fn)}")
        name = op_name._overloadpacket.__name__ if isinstance(op_name, modes.OpOverload) else str(op_name)
        name = name.partition("::")[2] or name
        _implement(definition_of(f"{self.ns}::{name}"), dispatch_key or self.dispatch_key, fn)

    def fallback(self, fn: Callable[..., Any], dispatch_key: str = "", *, with_keyset: bool = False) -> NoReturn:
        """Refused. Raises NotImplementedError: what has no kernel raises where it is called."""
        raise NotImplementedError("Library.fallback: an operator without a kernel raises where it is called")

    def _destroy(self) -> None:
        """Take the definitions back."""
        for name in self._made:
            OPERATORS.pop(name, None)
            modes.LIBRARIES.get(self.ns, {}).pop(name.partition("::")[2], None)
        if self.kind == "DEF":
            _DEFINED.discard(self.ns)
        self._made.clear()


def define(qualname: Any, schema: Any = None, *, lib: Library | None = None, tags: Any = ()) -> Any:
    """Define an operator "namespace::name" by its schema, "(Tensor x) -> Tensor".

    Or, in the older form, a decorator: `define(library, "f(Tensor x) -> Tensor")`. Raises ValueError for a name of
    another form, RuntimeError for what is defined or can't be read."""
    if isinstance(qualname, Library):
        name = qualname.define(schema)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            qualname.impl(name, function)
            return function

        return decorate
    if not isinstance(qualname, str):
        raise ValueError(
            f"define(qualname, schema): expected qualname to be instance of str, got {type(qualname).__name__}"
        )
    _define(_qualified(qualname), schema)
    return None


def impl(qualname: Any, types: Any, func: Any = None, *, lib: Library | None = None) -> Any:
    """Implement an operator for kinds of devices ("cpu", "cuda", "default"). A decorator.

    Or, in the older form: `impl(library, "f", "CPU")`. Raises RuntimeError for an operator that is not defined."""
    if isinstance(qualname, Library):
        key = func or ""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            qualname.impl(types, function, key)
            return function

        return decorate

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(qualname, str):
            _qualified(qualname)
        definition = definition_of(qualname)
        for kind in [types] if isinstance(types, str) else types:
            _implement(definition, kind, function)
        return function

    if func is None:
        return register
    register(func)
    return None


def register_fake(
    op: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None, allow_override: bool = False,
    _stacklevel: int = 1,
) -> Any:  # fmt: skip
    """`CustomOpDef.register_fake`, by the operator's name too."""
    definition = definition_of(op)
    return definition.register_fake if func is None else definition.register_fake(func)


impl_abstract = register_fake


def register_kernel(
    op: Any, device_types: str | Sequence[str] | None, func: Callable[..., Any] | None = None, /, *, lib: Any = None
) -> Any:
    """`CustomOpDef.register_kernel`, by the operator's name too; None: for every kind of device."""
    return definition_of(op).register_kernel(["cpu", "cuda"] if device_types is None else device_types, func)


def register_autograd(
    op: Any, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None, lib: Any = None
) -> None:
    """`CustomOpDef.register_autograd`, by the operator's name too."""
    definition_of(op).register_autograd(backward, setup_context=setup_context)


def register_vmap(op: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None) -> Any:
    """`CustomOpDef.register_vmap`, by the operator's name too."""
    return definition_of(op).register_vmap(func)


def register_autocast(op: Any, device_type: str, cast_inputs: Any, /, *, lib: Any = None) -> None:
    """`CustomOpDef.register_autocast`, by the operator's name too."""
    definition_of(op).register_autocast(device_type, cast_inputs)


def get_ctx() -> NoReturn:
    """Refused. Raises NotImplementedError: the sizes of an operator's results follow from those of its operands."""
    raise NotImplementedError(
        "get_ctx(): the sizes of a custom operator's results must follow from its operands' types; there are no sizes "
        "that depend on data in a fake function"
    )
