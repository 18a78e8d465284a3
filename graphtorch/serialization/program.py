"""Exported programs: a captured function as files that run without the code that it was written in.

A folder (or a zip file of the same) holds

    program.json           arguments, results, what is written back, what is assumed, and digests of the other files
    graph.gt               the optimised graph as text (docs/ir.md)
    weights.safetensors    every tensor that the function reached by itself

Loading checks all of it and executes nothing but this package's operators: the graph may only name records, and is
verified like any other. Running needs NumPy."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphtorch.diagnostics import advice
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.region import Region
from graphtorch.ops.strides import contiguous_strides
from graphtorch.serialization.safetensors import SafetensorError, from_bytes, to_bytes
from graphtorch.tensor.remote import duplicate, overwrite
from graphtorch.tensor.size_text import parse_size
from graphtorch.tensor.symint import SymInt, evaluate
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

FORMAT = "graphtorch exported program"
VERSION = 1
FILES = ("program.json", "graph.gt", "weights.safetensors")
RELATIONS = {
    "==": lambda a: a == 0,
    "!=": lambda a: a != 0,
    "<": lambda a: a < 0,
    "<=": lambda a: a <= 0,
    ">": lambda a: a > 0,
    ">=": lambda a: a >= 0,
}


class ExportError(RuntimeError):
    """A function that can't be exported, files that are no exported program, or a call that does not fit one."""

    def __init__(self, message: str) -> None:
        text = f"export: {message}"
        super().__init__(text + advice(text))


class ExportedProgram:
    """A program that `export` made or `load_exported` read. Call it as the function was called.

    graph     the graph that runs
    manifest  what program.json says
    weights   the tensors that it holds, by name; a call that changes state changes these arrays
    """

    def __init__(self, graph: Graph, manifest: dict[str, Any], weights: dict[str, np.ndarray[Any, Any]]) -> None:
        self.graph = graph
        self.manifest = manifest
        self.weights = weights
        self._executable: Any = None
        self._guards: list[tuple[str, str, Any]] | None = None
        self.backend = "interpreter"

    @property
    def name(self) -> str:
        """The function's name."""
        return str(self.manifest["name"])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on tensors (or arrays); results are tensors.

        Raises ExportError for arguments of another structure, shape or dtype, and for sizes that break an assumption.
        """
        arguments = list(self._match(self.manifest["arguments"], [list(args), kwargs], "arguments"))
        tensors = dict(arguments)
        inputs = self._inputs({k: v._data if isinstance(v, Tensor) else np.asarray(v) for k, v in tensors.items()})
        try:
            outputs = self._run(inputs)
        except MemoryError as error:
            raise ExportError(f"{self.name}: not enough memory: {error}") from None
        for position, output in self.manifest["written"]:
            overwrite(inputs[position], outputs[output])
            owner = tensors.get(self.manifest["inputs"][position].get("argument"))
            if isinstance(owner, Tensor):
                owner._bump_version()
        return _build(self.manifest["result"], [duplicate(o) for o in outputs])

    def _run(self, inputs: list[Any]) -> list[Any]:
        if self._executable is None:
            from graphtorch.frontend.pipeline import compile_joint

            # A program of a device runs there, whatever runs the others.
            away = any(v.type.device.type == "cuda" for v in (*self.graph.inputs, *self.graph.outputs))
            self._executable = compile_joint(self.graph, self.graph, "triton" if away else self.backend, {})
        return self._executable.run(inputs, {})  # type: ignore[no-any-return]

    def _match(self, tree: Any, given: Any, place: str) -> Iterator[tuple[int, Any]]:
        """The arguments by number; ExportError where their structure is another."""
        kind, inner = next(iter(tree.items()))
        if kind == "argument":
            if not isinstance(given, Tensor | np.ndarray | np.generic):
                raise ExportError(f"{self.name}: {place} must be a tensor, not {type(given).__name__}")
            yield inner, given
        elif kind == "value":
            if type(given) is not type(inner) or given != inner:
                raise ExportError(f"{self.name}: {place} was {inner!r} when it was exported, now {given!r}")
        elif kind == "dict":
            if not isinstance(given, dict) or given.keys() != inner.keys():
                keys = list(given) if isinstance(given, dict) else type(given).__name__
                raise ExportError(f"{self.name}: {place} must have the entries {list(inner)}, not {keys}")
            for key, child in inner.items():
                yield from self._match(child, given[key], f"{place}[{key!r}]")
        else:
            if not isinstance(given, list | tuple) or len(given) != len(inner):
                count = len(given) if isinstance(given, list | tuple) else type(given).__name__
                raise ExportError(f"{self.name}: {place} must have {len(inner)} entries, not {count}")
            for i, child in enumerate(inner):
                yield from self._match(child, given[i], f"{place}[{i}]")

    def _inputs(self, arguments: Mapping[int, np.ndarray[Any, Any]]) -> list[Any]:
        found: list[Any] = []
        sizes: dict[str, int] = {}
        for value, entry in zip(self.graph.inputs, self.manifest["inputs"], strict=True):
            if "number" in entry:
                found.append(entry["number"])
                continue
            array = self.weights[entry["weight"]] if "weight" in entry else arguments[entry["argument"]]
            _check_shape(self.name, entry.get("name", value.name), value.type, array, sizes)
            found.append(array)
        for value, array in zip(self.graph.inputs, found, strict=True):
            for size, actual in zip(value.type.shape, getattr(array, "shape", ()), strict=True):
                if type(size) is SymInt and evaluate(size, sizes) != actual:
                    raise ExportError(f"{self.name}: {value.name}: a size must be {size}, not {actual}")
        _check_memory(self.graph, sizes)
        symbols = self.graph.symbols
        for name, number in sizes.items():
            if number < symbols[name].lower:
                raise ExportError(f"{self.name} assumes {name} >= {symbols[name].lower}, here {number}")
        if self._guards is None:
            self._guards = [(text, r, _parse_size(text, self.graph)) for text, r in self.manifest["guards"]]
        for text, relation, size in self._guards:
            if not RELATIONS[relation](evaluate(size, sizes)):
                shown = ", ".join(f"{n} = {s}" for n, s in sizes.items())
                raise ExportError(f"{self.name} assumes {text} {relation} 0, and here {shown}")
        return found

    def files(self) -> dict[str, bytes]:
        """The contents of the files that hold it."""
        from graphtorch.ir.printer import print_graph

        graph = print_graph(self.graph, provenance=False).encode()
        weights = to_bytes(self.weights)
        manifest = {**self.manifest, "sha256": {"graph.gt": _digest(graph), "weights.safetensors": _digest(weights)}}
        return {
            "program.json": json.dumps(manifest, indent=1, allow_nan=False).encode(),
            "graph.gt": graph,
            "weights.safetensors": weights,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder, or a zip file for a path that ends with .zip."""
        files = self.files()
        target = Path(path)
        if target.suffix == ".zip":
            with zipfile.ZipFile(target, "w") as archive:
                for name, data in files.items():
                    archive.writestr(zipfile.ZipInfo(name), data)
            return
        target.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (target / name).write_bytes(data)


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether a path looks like an exported program: a folder with program.json, or a zip file."""
    target = Path(path)
    return (target / "program.json").is_file() or (target.is_file() and zipfile.is_zipfile(target))


def load_exported(path: str | os.PathLike[str], backend: str = "interpreter") -> ExportedProgram:
    """Read a program that `export` wrote, a folder or zip file, for a backend.

    Everything is checked: digests, the graph (parsed and verified), each array's dtype and shape, that the parts fit
    together. Nothing but operators of this package can be in it. Raises ExportError for anything else.
    """
    return from_files(_read(Path(path)), str(path), backend)


def from_files(files: Mapping[str, bytes], path: str, backend: str = "interpreter") -> ExportedProgram:
    """The program of some files' contents, by name; `path` is what messages call them. Raises as `load_exported`."""
    try:
        manifest = json.loads(files["program.json"].decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"program.json of {path} is no JSON: {error}") from None
    _check_manifest(manifest)
    for name, digest in manifest["sha256"].items():
        if _digest(files[name]) != digest:
            raise ExportError(f"{name} of {path} is not the file that was exported (its digest differs)")
    graph = _parse(files["graph.gt"])
    try:
        weights = from_bytes(files["weights.safetensors"])
    except SafetensorError as error:
        raise ExportError(f"weights.safetensors of {path}: {error}") from None
    program = ExportedProgram(graph, manifest, weights)
    program.backend = backend
    _check_program(program)
    return program


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _read(path: Path) -> dict[str, bytes]:
    try:
        places = [path / name for name in FILES] if path.is_dir() else [path]
        for place in places:
            if not stat.S_ISREG(place.stat().st_mode):  # a pipe or a device may never end
                raise ExportError(f"{place} is no ordinary file")
        if path.is_dir():
            return {name: (path / name).read_bytes() for name in FILES}
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            if sorted(archive.namelist()) != sorted(FILES):
                raise ExportError(f"{path} has the entries {archive.namelist()}, not those of an exported program")
            if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
                raise ExportError(f"{path} is compressed, which export never does")
            return {name: archive.read(name) for name in FILES}
    except ExportError:
        raise
    except (OSError, ValueError, RuntimeError, EOFError, struct.error, zipfile.BadZipFile) as error:
        raise ExportError(f"{path} is no exported program: {error}") from None


def _parse(text: bytes) -> Graph:
    import graphtorch.frontend.number  # noqa: F401  # records that only graphs have
    from graphtorch.ir.parser import parse_graph
    from graphtorch.ir.verifier import verify

    try:
        graph = parse_graph(text.decode())
        verify(graph)
    except (ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
        raise ExportError(f"graph.gt is no valid graph: {error}") from None
    with contextlib.ExitStack() as stack:
        # What a check finds out about sizes must not become an assumption of the program.
        for scope in {id(s.scope): s.scope for s in graph.symbols.values() if s.scope is not None}.values():
            stack.enter_context(scope.discarding())
        for node in _all_nodes(graph):
            if node.op.name in ("gradient", "custom_function"):
                raise ExportError(f"graph.gt has a {node.op.name} node, which does not run")
            _check_arguments(node)
    values = (*graph.inputs, *(r for node in _all_nodes(graph) for r in node.results))
    if len({v.type.device for v in values if v.type.shape}) > 1:
        raise ExportError("graph.gt has values that are not on one device")
    return graph


def _all_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of the graphs among their arguments."""
    for node in graph.nodes:
        yield node
        for arg in node.args:
            if isinstance(arg, Region):
                yield from _all_nodes(arg.graph)


def _check_arguments(node: Node) -> None:
    """That a node's arguments are what its operator would make of them: indices and dimensions that exist. Compiled
    code relies on it, and does not look again."""
    op = node.op
    if op.name == "as_strided":
        _check_strides(*node.args)
    if op.normalize is None:
        return
    try:
        args = tuple(op.normalize(*node.args))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ExportError(f"graph.gt: {op.name}: {error}") from None
    if not all(_same_argument(a, b) for a, b in zip(args, node.args, strict=True)):
        raise ExportError(f"graph.gt: {op.name}: its arguments are not in their normal form")


def _check_strides(input: Value, size: Any, stride: Any, offset: Any, input_stride: Any) -> None:
    """That as_strided stays within the memory of an operand in row-major order."""
    known = all(type(n) is int for n in (*input.type.shape, *size, *stride, offset))
    if not known or (input_stride is not None and tuple(input_stride) != contiguous_strides(input.type.shape)):
        raise ExportError("graph.gt: as_strided of an operand whose memory is not known")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return
    if min((offset, *stride), default=0) < 0 or last >= math.prod(input.type.shape):
        raise ExportError(f"graph.gt: as_strided reaches element {last} of {input.type}")


def _same_argument(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(map(_same_argument, a, b))
    return type(a) is type(b) and bool(a == b or (a != a and b != b))


def _check_manifest(manifest: Any) -> None:
    """The shape of program.json itself."""
    wanted = {
        "format": str, "version": int, "name": str, "graphtorch": str, "arguments": dict, "inputs": list,
        "result": dict, "written": list, "guards": list, "sha256": dict,
    }  # fmt: skip
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ExportError("program.json does not say that this is an exported program")
    if manifest.get("version") != VERSION:
        raise ExportError(f"version {manifest.get('version')!r} of the format; this is version {VERSION}")
    for key, kind in wanted.items():
        if type(manifest.get(key)) is not kind:
            raise ExportError(f"program.json: {key} must be a {kind.__name__}")
    if manifest.keys() != wanted.keys():
        raise ExportError(f"program.json: unknown entries {sorted(manifest.keys() - wanted.keys())}")
    if manifest["sha256"].keys() != set(FILES[1:]):
        raise ExportError("program.json: sha256 must name the other files")
    for tree, leaves in ((manifest["arguments"], ("argument", "value")), (manifest["result"], ("output", "value"))):
        _check_tree(tree, leaves, 0)
    for entry in manifest["inputs"]:
        keys = set(entry) - {"name"} if isinstance(entry, dict) else set()
        number = keys == {"number"} and _is_number(entry["number"])
        argument = keys == {"argument"} and type(entry["argument"]) is int and type(entry.get("name")) is str
        weight = keys == {"weight"} and type(entry["weight"]) is str
        if not (number or argument or weight) or type(entry.get("name", "")) is not str:
            raise ExportError(f"program.json: not an input: {entry!r}")
    for pair in manifest["written"]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)):
            raise ExportError(f"program.json: not a pair of positions: {pair!r}")
    for guard in manifest["guards"]:
        if not (isinstance(guard, list) and len(guard) == 2 and all(isinstance(g, str) for g in guard)):
            raise ExportError(f"program.json: not an assumption: {guard!r}")
        if guard[1] not in RELATIONS:
            raise ExportError(f"program.json: not an assumption: {guard!r}")


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a scalar of the graph holds."""
    return (type(value) is int and abs(value) < 1 << 63) or (type(value) is float and math.isfinite(value))


def _check_tree(tree: Any, leaves: tuple[str, ...], depth: int) -> None:
    if depth > 50 or not isinstance(tree, dict) or len(tree) != 1:
        raise ExportError(f"program.json: not a structure: {str(tree)[:80]}")
    kind, inner = next(iter(tree.items()))
    if kind in leaves:
        if kind != "value" and (type(inner) is not int or inner < 0):
            raise ExportError(f"program.json: not a number of an {kind}: {inner!r}")
        if kind == "value" and not (type(inner) in (bool, str, type(None)) or _is_number(inner)):
            raise ExportError(f"program.json: not a value: {inner!r}")
        return
    if kind in ("list", "tuple") and isinstance(inner, list):
        for child in inner:
            _check_tree(child, leaves, depth + 1)
    elif kind == "dict" and isinstance(inner, dict):
        for child in inner.values():
            _check_tree(child, leaves, depth + 1)
    elif not (kind == "number" and "output" in leaves and type(inner) is int):
        raise ExportError(f"program.json: unknown structure {kind!r}")


def _check_program(program: ExportedProgram) -> None:
    """That manifest, graph and weights fit together."""
    graph, manifest = program.graph, program.manifest
    if len(manifest["inputs"]) != len(graph.inputs):
        raise ExportError(f"the graph has {len(graph.inputs)} inputs, program.json {len(manifest['inputs'])}")
    arguments = set(_leaf_numbers(manifest["arguments"], "argument"))
    used: set[str] = set()
    for value, entry in zip(graph.inputs, manifest["inputs"], strict=True):
        if "weight" in entry:
            array = program.weights.get(str(entry["weight"]))
            if array is None:
                raise ExportError(f"there is no weight {entry['weight']!r}")
            used.add(entry["weight"])
            if any(type(n) is not int for n in value.type.shape):
                raise ExportError(f"the weight {entry['weight']!r} has a symbolic size")
            _check_shape(program.name, entry["weight"], value.type, array, {})
        elif "argument" in entry and entry["argument"] not in arguments:
            raise ExportError(f"there is no argument {entry['argument']}")
        elif ("number" in entry) is not value.type.is_number:
            raise ExportError(f"the input {value.name} is {value.type}")
    if program.weights.keys() - used:
        raise ExportError(f"weights that nothing uses: {sorted(program.weights.keys() - used)}")
    if not graph.symbols:
        _check_memory(graph, {})
    count = len(graph.outputs)
    for number in (*_leaf_numbers(manifest["result"], "output"), *_leaf_numbers(manifest["result"], "number")):
        if not 0 <= number < count:
            raise ExportError(f"there is no output {number}")
    for number in _leaf_numbers(manifest["result"], "number"):
        if graph.outputs[number].type.shape != ():
            raise ExportError(f"the output {number} is {graph.outputs[number].type}, not a number")
    for position, output in manifest["written"]:
        if not (0 <= position < len(graph.inputs) and 0 <= output < count):
            raise ExportError(f"there is no input {position} or output {output}")
        a, b = graph.inputs[position].type, graph.outputs[output].type
        if a.dtype is not b.dtype or tuple(map(str, a.shape)) != tuple(map(str, b.shape)):
            raise ExportError(f"the output {output} ({b}) can't be written to the input {position} ({a})")
    for text, _ in manifest["guards"]:
        _parse_size(text, graph)


def _check_memory(graph: Graph, sizes: Mapping[str, int]) -> None:
    """That no step makes an array larger than this machine's memory: the files may say any size."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 40
    for node in _all_nodes(graph):
        if node.op.is_view:
            continue
        for value in node.results:
            shape = [evaluate(n, sizes) if type(n) is SymInt else n for n in value.type.shape]
            if math.prod(shape) * value.type.dtype.itemsize > available or any(n >= 1 << 48 for n in shape):
                raise ExportError(f"{node.op.name} makes {value.type.dtype.abbreviation}{shape}, more than the memory")


def _leaf_numbers(tree: dict[str, Any], kind: str) -> Iterator[int]:
    own, inner = next(iter(tree.items()))
    if own == kind:
        yield inner
    elif own in ("list", "tuple"):
        for child in inner:
            yield from _leaf_numbers(child, kind)
    elif own == "dict":
        for child in inner.values():
            yield from _leaf_numbers(child, kind)


def _parse_size(text: str, graph: Graph) -> Any:
    symbols = {str(s): s for v in graph.inputs for s in v.type.shape if type(s) is SymInt and str(s) in graph.symbols}
    try:
        return parse_size(text, symbols)
    except (ValueError, SyntaxError) as error:
        raise ExportError(f"program.json: not a size: {text!r}: {error}") from None


def _check_shape(program: str, name: str, of: TensorType, array: Any, sizes: dict[str, int]) -> None:
    """That an array has an input's dtype and shape; binds symbolic sizes that it is the first to show."""
    fits = array.dtype == of.dtype.numpy and len(array.shape) == len(of.shape)
    if fits:
        for size, actual in zip(of.shape, array.shape, strict=True):
            if type(size) is not SymInt:
                fits = fits and size == actual
            elif str(size).isidentifier():
                fits = fits and sizes.setdefault(str(size), actual) == actual
    if not fits:
        raise ExportError(f"{program}: {name} must be {of}, not {array.dtype}{list(array.shape)}")


def _build(tree: dict[str, Any], outputs: list[np.ndarray[Any, Any]]) -> Any:
    kind, inner = next(iter(tree.items()))
    if kind == "output":
        return Tensor._over(outputs[inner])
    if kind == "number":
        return outputs[inner].item()
    if kind == "value":
        return inner
    if kind == "dict":
        return {key: _build(child, outputs) for key, child in inner.items()}
    children = [_build(child, outputs) for child in inner]
    return children if kind == "list" else tuple(children)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
