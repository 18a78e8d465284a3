"""`load`: a checkpoint of PyTorch's zip format as tensors and plain containers, executing nothing.

The functions that the pickle may call are listed in `_globals`; every size and offset that it gives is checked against
the archive before memory is made or viewed."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from graphtorch.serialization import allowed
from graphtorch.serialization.archive import Archive
from graphtorch.serialization.names import STORAGE_CLASSES
from graphtorch.serialization.objects import ObjectUnpickler
from graphtorch.serialization.unpickler import Allowed, Unpickler, check_key, refuse
from graphtorch.tensor.devices import CPU, META, canonical, device
from graphtorch.tensor.dtypes import BY_NAME, dtype
from graphtorch.tensor.formats import strided
from graphtorch.tensor.size import Size
from graphtorch.tensor.storage import TypedStorage, UntypedStorage
from graphtorch.tensor.tensor import Tensor

MapLocation = Callable[[Any, str], Any] | device | str | Mapping[str, Any] | None

_MOST_DIMENSIONS = 64  # NumPy's limit


def load(
    f: str | os.PathLike[str] | IO[bytes],
    map_location: MapLocation = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = True,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Read a checkpoint that `save` or PyTorch's torch.save wrote. See torch.load.

    Args:
        f: a path or a binary file that can seek.
        weights_only: rebuild tensors, numbers, strings and plain containers, and refuse a file that names anything
            else. False: import and call whatever the file names (whole modules, say). **Do this only with files that
            you trust: they may execute anything.** A whole object of PyTorch's is looked up under its name here.
        map_location: where storages go: a device, a mapping from saved to new locations, or a function of (storage,
            location) that returns a storage or None. Default: where they were saved.
        mmap: accepted for PyTorch's sake; data is read into memory.

    Raises pickle.UnpicklingError for a malformed pickle or, with `weights_only`, one that names a class or function
    outside the allow-list, RuntimeError for a corrupted archive, another format or a device that is not here.
    """
    weights_only = weights_only is None or weights_only
    if pickle_module is not None and weights_only:
        raise RuntimeError("Can not safely load weights when explicit pickle_module is specified")
    if isinstance(f, str | os.PathLike):
        with open(f, "rb") as file:
            return _Reader(Archive(file), map_location).read(weights_only)
    if mmap:
        raise ValueError("f must be a file path in order to use the mmap argument")
    return _Reader(Archive(f), map_location).read(weights_only)


class _Reader:
    """Reads one archive; holds the storages that its tensors share."""

    def __init__(self, archive: Archive, map_location: MapLocation) -> None:
        self._archive = archive
        self._map_location = map_location
        self._storages: dict[str, UntypedStorage] = {}

    def read(self, weights_only: bool) -> Any:
        pickled = self._archive.read("data.pkl")
        if not weights_only:
            return ObjectUnpickler(pickled, _safe_global, self._load_storage).load()
        return _without_handles(Unpickler(pickled, _find_global, self._load_storage).load())

    def _load_storage(self, identity: Any) -> TypedStorage | UntypedStorage:
        """The storage of a persistent id ("storage", class, key, location, number of elements)."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] not in ("storage", b"storage"):
            raise refuse(f"Only persistent_load of storage is allowed, but got {identity!r:.100}")
        _, kind, key, location, count = identity
        if type(kind) is str:  # as objects.py writes it
            kind = _GLOBALS.get(f"torch.{kind}" if kind != "UntypedStorage" else "torch.storage.UntypedStorage")
        of: dtype | None = kind.of if isinstance(kind, _StorageClass) else None
        if not isinstance(kind, _StorageClass) or type(key) is not str or type(location) is not str:
            raise refuse("The persistent id of a storage is malformed")
        _check_int("number of elements", count)
        if key not in self._storages:
            name = f"data/{key}"
            size = self._archive.size_of(name)
            itemsize = 1 if of is None else of.itemsize
            if not 0 <= size - count * itemsize < itemsize:
                raise refuse(f"Storage {key} should have {count} elements of {itemsize} bytes; its record has {size}")
            target = self._location(location)
            if target is META:
                storage = UntypedStorage(np.empty(0, np.uint8), META)
            else:
                data = self._archive.read_array(name)
                storage = UntypedStorage(_swapped(data, of) if self._archive.big_endian else data)
                if target is not CPU:
                    storage = storage.cuda(target)
            if callable(self._map_location):
                placed = self._map_location(storage, location)
                storage = storage if placed is None else placed.untyped()
            self._storages[key] = storage
        storage = self._storages[key]
        return storage if of is None else TypedStorage(wrap_storage=storage, dtype=of)

    def _location(self, saved: str) -> device:
        """The device for a storage that was saved on `saved`."""
        chosen = self._map_location
        if callable(chosen):
            return CPU
        if isinstance(chosen, Mapping):
            chosen = chosen.get(saved, saved)
        target = device(saved if chosen is None else chosen)
        if target.type == "cuda" and not _cuda_devices():
            raise RuntimeError(
                "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False. If you are "
                "running on a CPU-only machine, please use torch.load with map_location=torch.device('cpu') to map "
                "your storages to the CPU."
            )
        if target.type == "cuda":
            if target.index is not None and target.index >= _cuda_devices():
                raise RuntimeError(
                    f"Attempting to deserialize object on CUDA device {target.index} but torch.cuda.device_count() is "
                    f"{_cuda_devices()}. Please use torch.load with map_location to map your storages to an existing "
                    "device."
                )
            return canonical(target)
        return META if target.type == "meta" else CPU


def _cuda_devices() -> int:
    from graphtorch.runtime.cuda import devices  # loaded where a CUDA device is asked for

    return devices.count()


class _StorageClass:
    """What a storage's class name stands for inside a persistent id; None: bytes."""

    __slots__ = ("of",)

    def __init__(self, of: dtype | None) -> None:
        self.of = of


def _swapped(data: np.ndarray[Any, Any], of: dtype | None) -> np.ndarray[Any, Any]:
    """Big-endian elements in this machine's order."""
    width = 1 if of is None else of.itemsize // (2 if of.is_complex else 1)
    whole = data[: data.size - data.size % width]
    whole.view(f"u{width}").byteswap(inplace=True)
    return data


# -- what the pickle may name -----------------------------------------------------------------------------------------


def _check_int(what: str, value: Any) -> int:
    if type(value) is not int or value < 0 or value >= 2**63:
        raise refuse(f"The {what} of a tensor must be a non-negative 64-bit integer, but got {value!r:.100}")
    return value


def _check_ints(what: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _MOST_DIMENSIONS:
        raise refuse(f"The {what} of a tensor must be a tuple of at most {_MOST_DIMENSIONS} integers")
    return tuple(_check_int(what, v) for v in values)


def _check_flags(requires_grad: Any, hooks: Any = None) -> None:
    if type(requires_grad) is not bool:
        raise refuse("requires_grad must be a bool")
    if hooks is not None and (not isinstance(hooks, dict) or hooks):
        raise refuse("A tensor with hooks")


def _finish(tensor: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        if not tensor.dtype.is_differentiable:
            raise refuse(f"A {tensor.dtype} tensor can't require gradients")
        tensor._requires_grad = True
    return tensor


def _tensor_of(
    storage: Any, of: dtype | None, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any
) -> Tensor:
    _check_flags(requires_grad, hooks)
    if not isinstance(storage, TypedStorage | UntypedStorage):
        raise refuse(f"A tensor over {type(storage).__name__}, which is no storage")
    if of is None:
        if not isinstance(storage, TypedStorage):
            raise refuse("A tensor without a dtype")
        of = storage.dtype
    offset = _check_int("offset", offset)
    size, stride = _check_ints("size", size), _check_ints("stride", stride)
    memory = storage.untyped()
    if memory.device is META:
        return _meta_tensor(of, size, stride, requires_grad)
    try:
        array = memory.view(of, offset, size, stride)
    except RuntimeError as error:
        raise refuse(str(error)) from None
    tensor = Tensor._over(array)
    tensor._dtype = of
    tensor._storage = memory
    return _finish(tensor, requires_grad)


def _tensor_v1(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    return _tensor_of(storage, None, offset, size, stride, False, None)


def _tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    return _with_bits(_tensor_of(storage, None, offset, size, stride, requires_grad, hooks), metadata)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, of: Any, metadata: Any = None
) -> Tensor:
    if not isinstance(of, dtype):
        raise refuse("A tensor's dtype must be a dtype")
    return _with_bits(_tensor_of(storage, of, offset, size, stride, requires_grad, hooks), metadata)


def _with_bits(tensor: Tensor, metadata: Any) -> Tensor:
    """PyTorch's lazy conjugation and negation, which are done at once here."""
    if not metadata:
        return tensor
    if not isinstance(metadata, dict) or set(metadata) - {"conj", "neg"}:
        raise refuse(f"Unknown metadata of a tensor: {metadata!r:.100}")
    value: Tensor = tensor.detach()
    if metadata.get("conj"):
        value = value.conj().clone()
    if metadata.get("neg"):
        value = -value
    return _finish(value, tensor._requires_grad)


def _meta_tensor(of: Any, size: Any, stride: Any, requires_grad: Any) -> Tensor:
    _check_flags(requires_grad)
    size, stride = _check_ints("size", size), _check_ints("stride", stride)
    if not isinstance(of, dtype) or len(size) != len(stride):
        raise refuse("A meta tensor is malformed")
    try:
        array = np.lib.stride_tricks.as_strided(np.empty(1, of.numpy), size, tuple(s * of.itemsize for s in stride))
    except (ValueError, OverflowError) as error:
        raise refuse(f"No tensor of size {list(size)} and stride {list(stride)}: {error}") from None
    tensor = Tensor._wrap(array, of)
    tensor._device = META
    return _finish(tensor, requires_grad)


def _parameter(data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Tensor:
    from graphtorch.nn.parameter import Parameter

    _check_flags(requires_grad, hooks)
    if not isinstance(data, Tensor):
        raise refuse("A parameter without a tensor")
    if requires_grad and not data.dtype.is_differentiable:
        raise refuse(f"A {data.dtype} parameter can't require gradients")
    return _with_attributes(Parameter(data, requires_grad), state)


def _with_attributes(tensor: Tensor, state: Any) -> Tensor:
    """Attributes that a user hung onto a tensor. The class's own can't be set this way."""
    if isinstance(state, tuple) and len(state) == 2 and not state[1]:
        state = state[0]  # (attributes, slots)
    if not state:
        return tensor
    if not isinstance(state, dict):
        raise refuse("The attributes of a tensor must be a dictionary")
    for name, value in state.items():
        if type(name) is not str or not name.isidentifier() or name.startswith("_") or hasattr(type(tensor), name):
            raise refuse(f"A tensor can't get the attribute {name!r:.100}")
        setattr(tensor, name, value)
    return tensor


def _subclass(function: Any, kind: Any, args: Any, state: Any) -> Tensor:
    """A tensor with attributes: the call that rebuilds it, and the attributes."""
    if not isinstance(function, Allowed) or function.call not in (_tensor_v2, _tensor_v3, _meta_tensor, _parameter):
        raise refuse("A tensor must be rebuilt by one of PyTorch's functions")
    if not isinstance(kind, Allowed) or kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
        raise refuse("Subclasses of Tensor are not loaded")
    if type(args) is not tuple:
        raise refuse("The arguments of a tensor must be a tuple")
    made: Tensor = function.call(*args)
    return _with_attributes(made, state)


def _not_called(name: str) -> Allowed:
    def call(*args: Any) -> Any:
        raise refuse(f"{name} can't be called by a pickle")

    return Allowed(name, call)


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise refuse("Bytes must be a string encoded as latin1")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(data if isinstance(data, bytes) else _encode(data, encoding))


def _complex(real: Any, imag: Any) -> complex:
    if not isinstance(real, int | float) or not isinstance(imag, int | float):
        raise refuse("The parts of a complex number must be numbers")
    return complex(real, imag)


def _set(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise refuse("The members of a set must be a list")
    for item in items:
        check_key(item)
    return set(items)


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    if not isinstance(items, list | tuple):
        raise refuse("The items of an OrderedDict must be a list")
    made: OrderedDict[Any, Any] = OrderedDict()
    for key, value in items:
        check_key(key)
        made[key] = value
    return made


def _counter(counts: Any = None) -> Counter[Any]:
    if not isinstance(counts, dict | None):
        raise refuse("The counts of a Counter must be a dictionary")
    return Counter(counts or {})


def _default_dict(factory: Any = None) -> defaultdict[Any, Any]:
    if factory is not None and not (isinstance(factory, Allowed) and factory.name in _FACTORIES):
        raise refuse("A defaultdict may only make plain containers and numbers")
    return defaultdict(None if factory is None else _FACTORIES[factory.name])


def _size(items: Any = ()) -> Size:
    return Size(_check_ints("size", items))


def _device(kind: Any, index: Any = None) -> device:
    if type(kind) is not str or not (index is None or type(index) is int):
        raise refuse("A device must be a name and an index")
    try:
        return device(kind, index)
    except RuntimeError as error:
        raise refuse(str(error)) from None


def _layout(name: Any) -> Any:
    if name != "torch.strided":
        raise refuse(f"The layout {name!r:.100} is not supported")
    return strided


_FACTORIES: dict[str, Any] = {f"builtins.{kind.__name__}": kind for kind in (dict, list, set, int, float, str)}
_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.serialization._get_layout": _layout,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "collections.defaultdict": _default_dict,
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytearray,
    "builtins.complex": _complex,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
}
_GLOBALS: dict[str, Any] = {
    **{name: _not_called(name) for name in (*_FACTORIES, "torch.Tensor", "torch.nn.parameter.Parameter")},
    **{name: Allowed(name, call) for name, call in _CALLS.items()},
    **{f"torch.{name}": d for name, d in BY_NAME.items()},
    **{f"torch.{name}": _StorageClass(d) for name, d in STORAGE_CLASSES.items()},
    "torch.storage.UntypedStorage": _StorageClass(None),
}


def _find_global(module: str, name: str) -> Any:
    full = f"{'builtins' if module == '__builtin__' else module}.{name}"
    found = _GLOBALS.get(full)
    own = allowed.found(full) if found is None else None
    if own is not None:
        return Allowed(full, own)
    if found is None:
        hint = ""
        if (full.startswith("torch.") and full.endswith(("Storage", "int16", "int32", "int64"))) or "float8" in full:
            hint = " This dtype does not exist here."
        elif full.startswith("numpy"):
            hint = " Tensors and Python numbers in the place of NumPy's need no such trust."
        raise refuse(
            f"Unsupported global: GLOBAL {full} was not an allowed global. Checkpoints hold tensors and plain "
            f"containers; torch.serialization.add_safe_globals([{name}]) allows it, if you trust it, and "
            "weights_only=False loads other objects too, by executing what the file says: use it only for files that "
            f"you trust.{hint}"
        )
    return found


def _safe_global(module: str, name: str) -> Any:
    """What PyTorch's checkpoints of tensors name of PyTorch, as Python's own reader takes it; None for all else."""
    full = f"{module}.{name}"
    found = _GLOBALS.get(full) if full.startswith("torch.") else None
    if not isinstance(found, Allowed):
        return found
    return _CALLS.get(full) if found.call is not _subclass else None


def _without_handles(value: Any) -> Any:
    """Refuse a checkpoint that is itself one of the reader's own stand-ins for a name."""
    if isinstance(value, Allowed | _StorageClass):
        raise refuse("The pickle holds a bare name instead of data")
    return value
