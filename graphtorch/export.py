"""`torch.export`: a module captured once, as a program that runs without its code.

`export(module, args, dynamic_shapes=...)` gives an ExportedProgram under PyTorch's names: `.module()` runs its
operators on parameters of its own, with gradients; `save` and `load` keep it in a file. The module itself can be called
as a function, `torch.export(f, args, path)`, which writes the plainer programs of docs/export.md.
See https://docs.pytorch.org/docs/stable/export.html."""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, NoReturn

import graphtorch as torch
from graphtorch import Tensor
from graphtorch._dynamo.exc import UserError
from graphtorch.ir.graph import Value
from graphtorch.nn import Module, Parameter
from graphtorch.ops.dispatch import call
from graphtorch.ops.record import Operator
from graphtorch.serialization.export import export as export_program
from graphtorch.serialization.program import FILES, RELATIONS, ExportError, _parse_size, from_files
from graphtorch.serialization.program import ExportedProgram as Program
from graphtorch.serialization.safetensors import SafetensorError, from_bytes, to_bytes
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.symint import SymInt, evaluate

__all__ = ["Dim", "ExportGraphSignature", "ExportedProgram", "dims", "export", "load", "save"]

File = str | os.PathLike[str] | IO[bytes]


class _Hint:
    """A dimension of which the capture finds out what it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"DimHint({self.name})"


class Dim:
    """The name of a size that may differ between calls, with bounds. Dimensions of one name have one size.

    `Dim.AUTO` and `Dim.DYNAMIC` name no size: the former may turn out to be fixed. Raises AssertionError for a name
    that is none, or bounds that contradict each other."""

    AUTO = _Hint("AUTO")
    DYNAMIC = _Hint("DYNAMIC")
    STATIC = _Hint("STATIC")

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None) -> None:
        self.min = 0 if min is None else min
        self.max: Any = float("inf") if max is None else max
        if self.max <= self.min:
            raise AssertionError(f"Cannot create Dim with inconsistent min={min}, max={max}")
        if not name.isidentifier():
            raise AssertionError(f"Dim name must be a valid identifier, got {name}")
        self.__name__ = name

    def __repr__(self) -> str:
        bounds = [f"min={self.min}"] * bool(self.min) + [f"max={self.max}"] * (self.max != float("inf"))
        return f"Dim('{self.__name__}', {', '.join(bounds) or 'min=0'})"

    def __mul__(self, factor: int) -> _Derived:
        return _Derived(self, factor, 0)

    __rmul__ = __mul__

    def __add__(self, term: int) -> _Derived:
        return _Derived(self, 1, term)

    __radd__ = __add__

    def __sub__(self, term: int) -> _Derived:
        return _Derived(self, 1, -term)


class _Derived:
    """`factor * dim + term`."""

    def __init__(self, root: Dim, factor: int, term: int) -> None:
        self.root, self.factor, self.term = root, factor, term
        sign = "" if not term else f" + {term}" if term > 0 else f" - {-term}"
        self.__name__ = (f"{factor}*" if factor != 1 else "") + root.__name__ + sign

    def __repr__(self) -> str:
        return self.__name__

    def __add__(self, term: int) -> _Derived:
        return _Derived(self.root, self.factor, self.term + term)

    def __sub__(self, term: int) -> _Derived:
        return self + -term


def dims(*names: str, min: int | None = None, max: int | None = None) -> tuple[Dim, ...]:
    """Several `Dim`s with the same bounds."""
    return tuple(Dim(name, min=min, max=max) for name in names)


# -- what is asked of sizes -------------------------------------------------------------------------------------------

Place = tuple[str, Tensor, int]  # an argument's name, the tensor and one of its dimensions


def _named(specs: Any, names: list[str], args: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of each argument."""
    if isinstance(specs, dict):
        if set(specs) != set(names):
            raise UserError(
                "When `dynamic_shapes` is specified as a dict, its top-level keys must be the arg names "
                f"{names} of `inputs`, but here they are {list(specs)}. Alternatively, you could also ignore arg names "
                "entirely and specify `dynamic_shapes` as a list/tuple matching `inputs`."
            )
        return specs
    if not isinstance(specs, list | tuple):
        raise UserError(f"`dynamic_shapes` must be a dict, list or tuple, not {type(specs).__name__}")
    if len(specs) != len(args):
        raise UserError(
            "Detected mismatch between the structure of `inputs` and `dynamic_shapes`: `inputs` has "
            f"{len(args)} elements, but `dynamic_shapes` has {len(specs)} elements"
        )
    return dict(zip(names, specs, strict=True))


def _places(name: str, value: Any, spec: Any) -> Iterator[tuple[Place, Any]]:
    """The dimensions of an argument of which something is said."""
    if spec is None:
        return
    if isinstance(value, Tensor):
        if isinstance(spec, dict):
            said = spec.items()
        elif isinstance(spec, list | tuple):
            if len(spec) != value.ndim:
                raise UserError(
                    f"Expected dynamic shape spec {spec} specified at `dynamic_shapes['{name}']` to have the same "
                    f"length as the actual tensor shape {value.shape}"
                )
            said = dict(enumerate(spec)).items()
        else:
            raise UserError(f"Unexpected input tensor shape {spec} specified at `dynamic_shapes['{name}']`")
        for dim, what in said:
            if isinstance(what, int) and what != value.shape[dim]:
                raise UserError(
                    f"Static shape constraint of {what} does not match input size of {value.shape[dim]}, for {name}"
                )
            if what is not None and what is not Dim.STATIC and not isinstance(what, int):
                yield (name, value, dim % value.ndim), what
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _places(f"{name}['{key}']", item, spec.get(key) if isinstance(spec, dict) else None)
    elif isinstance(value, list | tuple):
        if len(spec) != len(value):
            raise UserError(
                f"Detected mismatch between the structure of `inputs` and `dynamic_shapes`: `inputs['{name}']` has "
                f"{len(value)} elements, but `dynamic_shapes['{name}']` has {len(spec)} elements"
            )
        for i, (item, part) in enumerate(zip(value, spec, strict=True)):
            yield from _places(f"{name}[{i}]", item, part)


def _check_example(said: list[tuple[Place, Any]]) -> None:
    """That the example's sizes are what is said of them."""
    found: dict[str, tuple[int, str]] = {}
    for (name, tensor, dim), what in said:
        if isinstance(what, _Hint):
            continue
        here = f"L['{name}'].size()[{dim}]"
        root, size = what, tensor.shape[dim]
        if isinstance(what, _Derived):
            root, size = what.root, (size - what.term) // what.factor
        if not root.min <= size <= root.max:
            raise UserError(f"Constraints violated ({root.__name__})! {here} = {size} is not in the range of {root!r}")
        before = found.setdefault(root.__name__, (size, here))
        if before[0] != size or (isinstance(what, _Derived) and size * what.factor + what.term != tensor.shape[dim]):
            raise UserError(f"{here} = {tensor.shape[dim]} is not equal to {before[1]} = {before[0]}")


def _check_captured(program: Program, said: list[tuple[Place, Any]], numbers: Mapping[int, int]) -> None:
    """That what was to be dynamic is. Raises UserError naming the sizes that the code fixed."""
    fixed: dict[str, int] = {}
    pairs = zip(program.graph.inputs, program.manifest["inputs"], strict=True)
    values = {entry["argument"]: value for value, entry in pairs if "argument" in entry}
    equal = [text for text, relation in program.manifest["guards"] if relation == "=="]
    for (name, tensor, dim), what in said:
        size = values[numbers[id(tensor)]].type.shape[dim] if numbers.get(id(tensor)) in values else None
        symbol = str(size)
        constant = type(size) is int or any(
            text.startswith(symbol + " - ") and "s" not in text[len(symbol) :] for text in equal
        )
        if size is not None and constant and what is not Dim.AUTO:
            fixed[getattr(what, "__name__", f"{name}.size()[{dim}]")] = tensor.shape[dim]
    if fixed:
        lines = [
            f"  - You marked {name} as dynamic but your code specialized it to be a constant ({size}). If you're using "
            "mark_dynamic, either remove it or use maybe_mark_dynamic. If you're using Dim.DYNAMIC, replace it with "
            "either Dim.STATIC or Dim.AUTO."
            for name, size in fixed.items()
        ]
        fixes = "\n".join(f"  {name} = {size}" for name, size in fixed.items())
        shown = "\n".join(lines)
        raise UserError(f"Constraints violated ({', '.join(fixed)})!\n{shown}\nSuggested fixes:\n{fixes}")


# -- programs ---------------------------------------------------------------------------------------------------------


class ExportGraphSignature:
    """Which inputs of a program's graph are parameters, buffers or arguments, and which results change buffers."""

    def __init__(self, program: Program, parameters: Mapping[str, bool], buffers: Mapping[str, bool]) -> None:
        entries = program.manifest["inputs"]
        self.parameters = tuple(parameters)
        self.buffers = tuple(buffers)
        self.user_inputs = tuple(e["name"] for e in entries if "argument" in e)
        names = program.graph.output_names
        written = {output for _, output in program.manifest["written"]}
        self.user_outputs = tuple(name for i, name in enumerate(names) if i not in written)
        weights = [e["weight"] for e in entries if "weight" in e]
        self.inputs_to_parameters = {name: name for name in weights if name in parameters}
        self.inputs_to_buffers = {name: name for name in weights if name in buffers}
        self.buffers_to_mutate = {
            names[output]: entries[position]["weight"]
            for position, output in program.manifest["written"]
            if entries[position].get("weight") in buffers
        }


class ExportedProgram:
    """What `export` made or `load` read. `module()` is what runs."""

    def __init__(
        self, program: Program, unused: dict[str, Any], parameters: dict[str, bool], buffers: dict[str, bool],
        sizes: list[Any], example_inputs: Any = None,
    ) -> None:  # fmt: skip
        self._program = program
        self._unused = unused  # parameters and buffers that the graph does not read
        self._arrays = {**program.weights, **unused}
        entries = zip(program.graph.inputs, program.manifest["inputs"], strict=True)
        self._places = {entry["weight"]: value.type.device for value, entry in entries if "weight" in entry}
        self._place = next(iter(self._places.values()), CPU)  # of what the graph does not read
        self._parameters = parameters  # name -> whether it requires grad
        self._buffers = buffers  # name -> whether state dicts have it
        self._sizes = sizes  # [argument, dimension, name, factor, term, min, max]
        self.example_inputs = example_inputs

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            "Unable to call ExportedProgram directly. You should use `exported_program.module()` instead."
        )

    def _value(self, name: str) -> Any:
        value = Tensor._wrap(self._arrays[name]).to(self._places.get(name, self._place))
        return Parameter(value, self._parameters[name]) if name in self._parameters else value

    @property
    def state_dict(self) -> dict[str, Any]:
        """Parameters and persistent buffers by name."""
        kept = [*self._parameters, *(name for name, persistent in self._buffers.items() if persistent)]
        return {name: self._value(name) for name in kept}

    @property
    def constants(self) -> dict[str, Tensor]:
        """The other tensors that the program has."""
        others = self._program.weights.keys() - self._parameters.keys() - self._buffers.keys()
        return {name: self._value(name) for name in sorted(others)}

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """The parameters with their names."""
        return ((name, self._value(name)) for name in self._parameters)

    def parameters(self) -> Iterator[Any]:
        """The parameters."""
        return (value for _, value in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their names."""
        return ((name, self._value(name)) for name in self._buffers)

    def buffers(self) -> Iterator[Tensor]:
        """The buffers."""
        return (value for _, value in self.named_buffers())

    @property
    def graph(self) -> Any:
        """The graph, which prints as docs/ir.md says."""
        return self._program.graph

    @property
    def graph_signature(self) -> ExportGraphSignature:
        """What the graph's inputs and outputs are."""
        return ExportGraphSignature(self._program, self._parameters, self._buffers)

    @property
    def range_constraints(self) -> dict[str, tuple[Any, Any]]:
        """The bounds of the sizes that have names."""
        return {name: (low, high) for _, _, name, factor, term, low, high in self._sizes if (factor, term) == (1, 0)}

    def run_decompositions(self, decomp_table: Any = None, **options: Any) -> ExportedProgram:
        """The program itself: its operators are this package's, which every backend has."""
        return self

    def module(self, check_guards: bool = True) -> Module:
        """A module with the program's parameters and buffers under their names, that runs its operators."""
        return _ProgramModule(self)

    def __str__(self) -> str:
        return f"ExportedProgram:\n{self._program.graph}"


class _ProgramModule(Module):
    """An exported program as a module: differentiable, and a part of whatever graph it is compiled in."""

    def __init__(self, exported: ExportedProgram) -> None:
        super().__init__()
        program = exported._program
        self.__dict__.update(_program=program, _sizes=exported._sizes)
        for name in exported._arrays:
            owner: Any = self
            *path, last = name.split(".")
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, Module())
                owner = owner._modules[part]
            if name in exported._parameters:
                owner.register_parameter(last, exported._value(name))
            else:
                owner.register_buffer(last, exported._value(name), persistent=exported._buffers.get(name, False))

    def train(self, mode: bool = True) -> NoReturn:
        raise NotImplementedError("Calling train() is not supported yet.")

    def eval(self) -> NoReturn:
        raise NotImplementedError("Calling eval() is not supported yet.")

    def _weight(self, name: str) -> Any:
        owner: Any = self
        for part in name.split("."):
            owner = getattr(owner, part)
        return owner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        program = self._program
        try:
            given = dict(program._match(program.manifest["arguments"], [list(args), kwargs], "arguments"))
        except ExportError as error:
            raise ValueError(
                f"Trying to flatten user inputs with exported input tree spec, but {_first_line(error)}. "
                "Please check that the inputs have the same number and type of args and kwargs as the ones you used "
                "when tracing."
            ) from None
        bound: list[Any] = []
        for entry in program.manifest["inputs"]:
            if "number" in entry:
                bound.append(entry["number"])
            else:
                bound.append(self._weight(entry["weight"]) if "weight" in entry else given[entry["argument"]])
        sizes = self._bind(bound, given)
        values: dict[Value, Any] = dict(zip(program.graph.inputs, bound, strict=True))

        def at(arg: Any) -> Any:
            if type(arg) is Value:
                return values[arg]
            if type(arg) is tuple:
                return tuple(map(at, arg))
            return evaluate(arg, sizes) if type(arg) is SymInt else arg

        for node in program.graph.nodes:
            made = _run(node.op, tuple(map(at, node.args)))
            results = made if len(node.results) > 1 else (made,)
            values.update(zip(node.results, results, strict=True))
        outputs = [values[v] for v in program.graph.outputs]
        with torch.no_grad():
            for position, output in program.manifest["written"]:
                bound[position].copy_(outputs[output])
        return _built(program.manifest["result"], outputs)

    def _bind(self, bound: list[Any], given: Mapping[int, Any]) -> dict[str, int]:
        """The sizes that the arguments show. Raises AssertionError for those that the program does not take."""
        program = self._program
        sizes: dict[str, int] = {}
        for value, entry, tensor in zip(program.graph.inputs, program.manifest["inputs"], bound, strict=True):
            if "argument" not in entry:
                continue
            name = entry["name"]
            if tensor.ndim != len(value.type.shape):
                raise AssertionError(f"Guard failed: {name}.dim() == {len(value.type.shape)}")
            for dim, (size, actual) in enumerate(zip(value.type.shape, tensor.shape, strict=True)):
                if type(size) is not SymInt:
                    if size != actual:
                        raise AssertionError(f"Guard failed: {name}.size()[{dim}] == {size}")
                elif str(size).isidentifier() and sizes.setdefault(str(size), actual) != actual:
                    raise AssertionError(f"Guard failed: {name}.size()[{dim}] == {sizes[str(size)]}")
        for name, symbol in program.graph.symbols.items():
            if sizes[name] < symbol.lower:
                raise AssertionError(f"Guard failed: {name} >= {symbol.lower}, which is {sizes[name]} here")
        roots: dict[str, int] = {}
        names = {e["argument"]: e["name"] for e in program.manifest["inputs"] if "argument" in e}
        for number, dim, name, factor, term, low, high in self._sizes:
            here, actual = f"{names.get(number, number)}.size()[{dim}]", given[number].shape[dim]
            root = (actual - term) // factor
            if root < low or (high is not None and root > high):
                relation = f">= {low}" if root < low else f"<= {high}"
                raise AssertionError(f"Guard failed: {here} {relation}")
            if roots.setdefault(name, root) * factor + term != actual:
                raise AssertionError(f"Guard failed: {here} == {roots[name] * factor + term}")
        if program._guards is None:
            program._guards = [(text, r, _parse_size(text, program.graph)) for text, r in program.manifest["guards"]]
        for text, relation, size in program._guards:
            if not RELATIONS[relation](evaluate(size, sizes)):
                raise AssertionError(f"Guard failed: {text} {relation} 0")
        return sizes


def _first_line(error: Exception) -> str:
    """What an error of this package says, without its beginning and its advice."""
    return str(error).partition("\n")[0].partition(": ")[2]


def _run(op: Operator, args: tuple[Any, ...]) -> Any:
    return call(op, args)


def _built(tree: dict[str, Any], outputs: list[Any]) -> Any:
    kind, inner = next(iter(tree.items()))
    if kind == "output":
        return outputs[inner]
    if kind == "number":
        return outputs[inner].item()
    if kind == "value":
        return inner
    if kind == "dict":
        return {key: _built(child, outputs) for key, child in inner.items()}
    children = [_built(child, outputs) for child in inner]
    return children if kind == "list" else tuple(children)


def export(
    mod: Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    strict: bool = False,
    preserve_module_call_signature: tuple[str, ...] = (),
    prefer_deferred_runtime_asserts_over_guards: bool = False,
) -> ExportedProgram:
    """Capture a module's call on example arguments.

    `dynamic_shapes`: of each argument, in its place or by its name, a dictionary of dimensions and `Dim`s (or a list of
    them); other sizes are fixed. Sizes 0 and 1 are not taken for dynamic ones. `strict` makes no difference here.

    Raises ValueError for what is no module, UserError for sizes that contradict `dynamic_shapes` or that the code
    fixes, and what `torch.compile(fullgraph=True)` raises for what one graph can't express."""
    if not isinstance(mod, Module):
        raise ValueError(f"Expected `mod` to be an instance of `torch.nn.Module`, got {type(mod)}.")
    if not isinstance(args, tuple):
        raise UserError(f"Expecting `args` to be a tuple of example positional inputs, got {type(args)}")
    named = dict(kwargs or {})
    bound = inspect.signature(mod.forward).bind(*args, **named).arguments
    given: dict[str, Any] = {}
    for name, value in bound.items():
        given.update(value if name in named and isinstance(value, dict) and name not in bound else {name: value})
    said: list[tuple[Place, Any]] = []
    if dynamic_shapes is not None:
        specs = _named(dynamic_shapes, list(given), given)
        for name, value in given.items():
            said += _places(name, value, specs[name])
    _check_example(said)
    tensors = {id(tensor): tensor for (_, tensor, _), _ in said}
    before = {key: tensor._dynamic_dims for key, tensor in tensors.items()}
    try:
        for (_, tensor, dim), _ in said:
            torch.compiler.mark_dynamic(tensor, dim)
        program = export_program(mod, args, None, named, detached=False)
    finally:
        for key, tensor in tensors.items():
            tensor._dynamic_dims = before[key]
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves((args, named))]
    numbers = {id(leaf): i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    _check_captured(program, said, numbers)
    sizes: list[Any] = []
    for (_, tensor, dim), what in said:
        if isinstance(what, _Hint):
            continue
        root, factor, term = (what.root, what.factor, what.term) if isinstance(what, _Derived) else (what, 1, 0)
        high = None if root.max == float("inf") else root.max
        sizes.append([numbers[id(tensor)], dim, root.__name__, factor, term, root.min, high])
    parameters = {name: p.requires_grad for name, p in mod.named_parameters()}
    persistent = mod.state_dict().keys()
    buffers = {name: name in persistent for name, _ in mod.named_buffers()}
    held = {**dict(mod.named_parameters()), **dict(mod.named_buffers())}
    unused = {name: t.detach().cpu().numpy().copy() for name, t in held.items() if name not in program.weights}
    return ExportedProgram(program, unused, parameters, buffers, sizes, (args, named))


_FORMAT = "graphtorch exported module"


def save(
    ep: Any, f: File, *, extra_files: dict[str, Any] | None = None, opset_version: Any = None,
    pickle_protocol: int = 2,
) -> None:  # fmt: skip
    """Write a program to a path or binary file, for `load`. `extra_files`: further contents by name.

    Raises TypeError for what is no ExportedProgram."""
    if not isinstance(ep, ExportedProgram):
        kind = type(ep).__name__
        raise TypeError(f"The 'ep' parameter must be an instance of 'ExportedProgram', got '{kind}' instead.")
    about = {"format": _FORMAT, "parameters": ep._parameters, "buffers": ep._buffers, "sizes": ep._sizes}
    with zipfile.ZipFile(f, "w") as archive:
        for name, data in ep._program.files().items():
            archive.writestr(f"program/{name}", data)
        archive.writestr("unused.safetensors", to_bytes(ep._unused))
        archive.writestr("module.json", json.dumps(about))
        for name, content in (extra_files or {}).items():
            archive.writestr(f"extra/{name}", content)


def load(f: File, *, extra_files: dict[str, Any] | None = None, expected_opset_version: Any = None) -> ExportedProgram:
    """Read what `save` wrote; nothing foreign is executed. `extra_files`: its values are replaced by the contents of
    these files. Raises ExportError for anything else."""
    if isinstance(f, str | os.PathLike):
        with open(f, "rb") as file:
            data = file.read()
    else:
        data = f.read()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
                raise ExportError("the file is compressed, which save never does")
            about = json.loads(archive.read("module.json"))
            unused = from_bytes(archive.read("unused.safetensors"))
            files = {name: archive.read(f"program/{name}") for name in FILES}
            for name in extra_files or ():
                if extra_files is not None and f"extra/{name}" in archive.namelist():
                    extra_files[name] = archive.read(f"extra/{name}").decode()
    except (zipfile.BadZipFile, SafetensorError, KeyError, ValueError, RuntimeError, EOFError, OSError) as error:
        raise ExportError(f"the file is no exported module: {error}") from None
    program = from_files(files, "the file")
    _check_about(about, program, {*program.weights, *unused})
    return ExportedProgram(program, unused, about["parameters"], about["buffers"], about["sizes"])


def _check_about(about: Any, program: Program, held: set[str]) -> None:
    """The shape of module.json."""
    keys = {"format", "parameters", "buffers", "sizes"}
    good = isinstance(about, dict) and about.keys() == keys and about["format"] == _FORMAT
    for kind in ("parameters", "buffers"):
        table = about[kind] if good else {}
        good = good and isinstance(table, dict) and all(k in held and type(v) is bool for k, v in table.items())
    numbers = {e["argument"] for e in program.manifest["inputs"] if "argument" in e}
    for row in about["sizes"] if good and isinstance(about["sizes"], list) else ():
        good = good and isinstance(row, list) and len(row) == 7 and row[0] in numbers and type(row[2]) is str
        good = good and all(type(n) is int for n in (row[1], *row[3:6])) and row[3] != 0
        good = good and (row[6] is None or type(row[6]) is int)
    if not good or not isinstance(about["sizes"], list):
        raise ExportError("module.json does not say what save writes")
    for name in held:
        if not all(part and not part.startswith("_") and part not in dir(Module) for part in name.split(".")):
            raise ExportError(f"{name!r} is no name of a parameter or buffer")


class _Callable(types.ModuleType):
    """The class of this Python module, which is also the function that was here first."""

    def __call__(self, *args: Any, **kwargs: Any) -> Program:
        return export_program(*args, **kwargs)


_Callable.__call__.__doc__ = export_program.__doc__
sys.modules[__name__].__class__ = _Callable
