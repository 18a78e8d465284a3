"""What operators of one's own take and give: read from a function's annotations, or from PyTorch's schemas."""

from __future__ import annotations

import ast
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor

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
    """What an operator takes and gives.

    parameters   a text of `ops.record`'s language
    results      how many tensors it returns
    mutated      the parameters that it changes in place
    signature    the parameters as Python has them
    text         all of it in PyTorch's language, without a name
    """

    parameters: str
    results: int
    mutated: tuple[str, ...]
    signature: inspect.Signature
    text: str


def infer_schema(
    prototype_function: Callable[..., Any], /, *, mutates_args: Any, op_name: str | None = None, tags: Any = None
) -> str:
    """The schema that a function's annotations say, "(Tensor x) -> Tensor". See torch.library.infer_schema.

    Raises ValueError for a parameter without an annotation or with one that no operator takes."""
    mutated = [mutates_args] if isinstance(mutates_args, str) else list(mutates_args)
    return f"{op_name or ''}{read_annotations(prototype_function, mutated).text}"


def read_annotations(function: Callable[..., Any], mutates_args: Iterable[str] = ()) -> Schema:
    """Read a function's annotations. Raises ValueError for a parameter without one or with one that no operator
    takes."""
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function)
    parts: list[str] = []
    shown: list[str] = []
    star = False
    mutated = tuple(mutates_args)
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
            shown.append("*")
            star = True
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(f"{kind} {name}{default}")
        if isinstance(parameter.default, str):
            default = f'="{parameter.default}"'
        written = _THEIRS.get(kind.rstrip("?"), kind.rstrip("?")) + "?" * kind.endswith("?")
        if name in mutated:
            written = written.replace("Tensor", f"Tensor(a{len(parts) - 1 - star}!)", 1)
        shown.append(f"{written} {name}{default}")
    unknown = set(mutated) - signature.parameters.keys()
    if unknown:
        raise ValueError(f"mutates_args should contain names of parameters; {sorted(unknown)} are none of {signature}")
    results = _result_count(hints.get("return", inspect.Signature.empty), signature)
    arrow = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
    return Schema(", ".join(parts), results, mutated, signature, f"({', '.join(shown)}) -> {arrow}")


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


_THEIRS = {"int": "SymInt", "int[]": "SymInt[]", "Number": "Scalar", "dtype": "ScalarType"}
_OURS = {"SymInt": "int", "SymInt[]": "int[]", "Scalar": "Number", "ScalarType": "dtype"}
_DEFAULTS: dict[str, Any] = {"None": None, "True": True, "False": False, "[]": []}
_PARAMETER = re.compile(
    r"^(?P<kind>[A-Za-z]+)(?P<alias>\(\w+!?\))?(?P<rest>(\[\d*\])?\??) (?P<name>\w+)(=(?P<default>.*))?$"
)
_SIGNATURE = re.compile(r"^\((?P<parameters>.*)\) -> (?P<results>.*)$", re.DOTALL)


def read_schema(text: str) -> Schema:
    """Read PyTorch's language of schemas, "(Tensor(a!) x, int n=2, *, float? s=None) -> Tensor".

    Raises RuntimeError for what is none, and for a kind of parameter or result that operators here do not take."""
    found = _SIGNATURE.match(text.strip())
    if found is None:
        raise RuntimeError(f"Tried to parse a function schema but got {text!r}")
    parts: list[str] = []
    parameters: list[inspect.Parameter] = []
    mutated: list[str] = []
    how: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for part in _split(found["parameters"]):
        if part == "*":
            parts.append("*")
            how = inspect.Parameter.KEYWORD_ONLY
            continue
        one = _PARAMETER.match(part)
        if one is None:
            raise RuntimeError(f"the parameter {part!r} of the schema {text!r} can't be read")
        rest = re.sub(r"\[\d*\]", "[]", one["rest"])
        plain = one["kind"] + rest.rstrip("?")
        kind = _OURS.get(plain, plain)
        if kind not in {*_KINDS.values(), *_LISTS.values()} or (rest.endswith("?") and kind not in _OPTIONAL):
            raise RuntimeError(f"operators here take no {one['kind']}{one['rest']}, as the schema {text!r} asks for")
        default: Any = inspect.Parameter.empty
        if one["default"] is not None:
            default = _DEFAULTS[one["default"]] if one["default"] in _DEFAULTS else ast.literal_eval(one["default"])
        if one["alias"] and "!" in one["alias"]:
            mutated.append(one["name"])
        shown = "" if default is inspect.Parameter.empty else f"={default!r}"
        parts.append(f"{kind}{'?' * rest.endswith('?')} {one['name']}{shown}")
        parameters.append(inspect.Parameter(one["name"], how, default=default))
    outcome = found["results"].strip()
    results = _split(outcome[1:-1]) if outcome.startswith("(") else [outcome]
    if any(re.fullmatch(r"Tensor(\(\w+\))?( \w+)?", r) is None for r in results):
        raise RuntimeError(f"operators here return tensors of their own, not {outcome}, as the schema {text!r} says")
    signature = inspect.Signature(parameters)
    return Schema(", ".join(parts), len(results), tuple(mutated), signature, text.strip())


def _split(text: str) -> list[str]:
    """What is between commas, outside of brackets."""
    found: list[str] = []
    depth, start, quote = 0, 0, ""
    for at, sign in enumerate(text + ","):
        if sign in "\"'" and quote in ("", sign):
            quote = "" if quote else sign
        if quote:
            continue
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and not depth:
            found.append(text[start:at].strip())
            start = at + 1
    return [part for part in found if part]
