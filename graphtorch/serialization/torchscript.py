"""Archives that PyTorch's `torch.jit.save` wrote: the modules with their parameters, buffers and attributes.

Nothing of a file is executed: its pickle may build objects of the classes that its code declares, tensors and plain
containers. The code itself is TorchScript, which only PyTorch runs; of it, the lists of parameters and buffers are
read."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from graphtorch.nn import Module, Parameter
from graphtorch.serialization.archive import Archive
from graphtorch.serialization.reader import _GLOBALS, MapLocation, _find_global, _Reader
from graphtorch.serialization.unpickler import _OPERATIONS, Allowed, Unpickler, refuse
from graphtorch.tensor.tensor import Tensor

_CLASS = re.compile(r"^class (\w+)\(\w*\):\n((?:  .*\n|\n)*)", re.MULTILINE)
_LIST = re.compile(r"^  __(parameters|buffers)__ = (\[.*\])$", re.MULTILINE)


class LoadedModule(Module):
    """A module of a TorchScript archive. It has the state, under the names that the module had, and no forward."""

    original_name: str = ""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"{self.original_name} was read from a TorchScript archive: its parameters and buffers are here, but its "
            "code is TorchScript, which graphtorch does not run. Load its state_dict() into a module written in Python"
        )

    def _get_name(self) -> str:
        return self.original_name

    def extra_repr(self) -> str:
        return f"original_name={self.original_name}"


class _Declared:
    """A class that the archive's code declares."""

    def __init__(self, name: str, parameters: list[str], buffers: list[str]) -> None:
        self.name = name
        self.parameters = parameters
        self.buffers = buffers


class _Built:
    """An object of such a class, until its state is set."""

    def __init__(self, of: _Declared) -> None:
        self.of = of
        self.state: dict[str, Any] = {}


class _ScriptUnpickler(Unpickler):
    """Reads the pickle of such an archive."""

    def make(self) -> None:
        args, of = self._pop(), self._pop()
        if not isinstance(of, _Declared) or args != ():
            raise refuse(f"Trying to make an object of {of!r:.100}")
        self._push(_Built(of))

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, _Built):
            if type(state) is not dict or not all(type(key) is str for key in state):
                raise refuse("The state of an object must be a dictionary of attributes")
            target.state = state
            return
        self._push(state)
        super()._build()

    def _run(self) -> Any:
        while True:
            opcode = self._read(1)
            if opcode == b".":
                if len(self._stack) != 1:
                    raise refuse("The pickle ends in the middle of an object")
                return self._value(self._stack[0])
            operation: Callable[[Any], None] | None
            operation = _ScriptUnpickler.make if opcode == b"\x81" else _OPERATIONS.get(opcode)
            if operation is None:
                raise refuse(f"Unsupported operand {opcode[0]} at byte {self._at - 1}")
            operation(self)


def _same(value: Any = None, *types: Any) -> Any:
    """A list or another value of which the pickle notes the type."""
    return value


_NOTED = {
    f"torch.jit._pickle.{name}": Allowed(name, _same)
    for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
}


def _declarations(archive: Archive) -> dict[str, _Declared]:
    """The classes of the archive's code by their full names."""
    found: dict[str, _Declared] = {}
    for record in archive.names():
        if not (record.startswith("code/") and record.endswith(".py")):
            continue
        place = record[len("code/") : -len(".py")].replace("/", ".")
        for name, body in _CLASS.findall(archive.read_text(record)):
            lists = dict(_LIST.findall(body))
            try:
                named = [ast.literal_eval(lists.get(kind, "[]")) for kind in ("parameters", "buffers")]
            except (ValueError, SyntaxError) as error:
                raise RuntimeError(f"the archive declares {place}.{name} in no way that can be read: {error}") from None
            found[f"{place}.{name}"] = _Declared(name, *named)
    return found


def read_torchscript(archive: Archive, map_location: MapLocation) -> Any:
    """The module (or function's state) that the archive holds. Raises pickle.UnpicklingError for a malformed one."""
    declared = _declarations(archive)
    reader = _Reader(archive, map_location)

    def find_global(module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module.startswith("__torch__"):
            if full not in declared:
                raise refuse(f"The code does not declare {full}")
            return declared[full]
        return _NOTED[full] if full in _NOTED else _GLOBALS.get(full) or _find_global(module, name)

    made: dict[int, Any] = {}
    return _module(_ScriptUnpickler(archive.read("data.pkl"), find_global, reader._load_storage).load(), made)


def _module(value: Any, made: dict[int, Any]) -> Any:
    """Modules in the place of what was built for them; an object that is there twice stays one."""
    if not isinstance(value, _Built):
        return value
    if id(value) in made:
        return made[id(value)]
    module = made[id(value)] = LoadedModule()
    module.original_name = value.of.name
    for name, held in value.state.items():
        child = _module(held, made)
        if name in ("training", "_is_full_backward_hook"):
            module.__dict__[name] = child
        elif name in value.of.parameters:
            parameter = made.get(id(held))
            if parameter is None and isinstance(held, Tensor):
                parameter = made[id(held)] = Parameter(held.detach(), held.requires_grad)
            module._parameters[name] = parameter
        elif name in value.of.buffers:
            module.register_buffer(name, child)
        elif isinstance(child, Module):
            module._modules[name] = child
        else:
            module.__dict__[name] = child
    return module
