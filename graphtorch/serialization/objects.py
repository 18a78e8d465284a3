"""Checkpoints of any Python objects (`save(model, f)`, `load(f, weights_only=False)`): Python's own pickle, with
tensors over storages that lie beside it in the archive.

Reading such a checkpoint imports and calls what it names: only on request, and only for files that one trusts."""

from __future__ import annotations

import importlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from graphtorch.serialization.names import STORAGE_CLASS_OF
from graphtorch.tensor.storage import TypedStorage, UntypedStorage
from graphtorch.tensor.tensor import Tensor

_TORCH = "torch"  # the package that names in PyTorch's own checkpoints begin with


class ObjectPickler(pickle.Pickler):
    """Writes one pickle. `keep(storage, dtype)` gives the key of a storage's record."""

    def __init__(self, file: Any, protocol: int, keep: Callable[[UntypedStorage, Any], str]) -> None:
        super().__init__(file, protocol)
        self._keep = keep

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, TypedStorage):
            key = self._keep(obj.untyped(), obj.dtype)
            return ("storage", STORAGE_CLASS_OF[obj.dtype], key, str(obj.device), obj.size())
        if isinstance(obj, UntypedStorage):
            return ("storage", "UntypedStorage", self._keep(obj, None), str(obj.device), obj.nbytes())
        return None

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        state = {k: v for k, v in vars(obj).items() if not k.startswith("_") and not hasattr(Tensor, k)}
        size, stride = tuple(obj.shape), tuple(obj.stride())
        if obj.is_meta:
            return rebuild_meta, (type(obj), obj.dtype, size, stride, obj.requires_grad, state)
        obj._host("save()")  # refuses recorded tensors
        storage = TypedStorage(wrap_storage=obj.untyped_storage(), dtype=obj.dtype)
        offset = obj.storage_offset() if obj.numel() else 0
        return rebuild, (type(obj), storage, offset, size, stride, obj.requires_grad, state)


def encode(obj: Any, protocol: int, keep: Callable[[UntypedStorage, Any], str]) -> bytes:
    """The pickle of any object. Raises what `pickle.dumps` raises."""
    target = io.BytesIO()
    ObjectPickler(target, protocol, keep).dump(obj)
    return target.getvalue()


class ObjectUnpickler(pickle.Unpickler):
    """Reads one pickle. `find_safe(module, name)` gives what a checkpoint of tensors may name, else None."""

    def __init__(self, data: bytes, find_safe: Callable[[str, str], Any], load_storage: Callable[[Any], Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._find_safe = find_safe
        self.persistent_load = load_storage  # type: ignore[method-assign]

    def find_class(self, module: str, name: str) -> Any:
        found = self._find_safe(module, name)
        if found is not None:
            return found
        package, _, rest = module.partition(".")
        if package == _TORCH:  # a whole object of PyTorch's: the class of that name here
            module = f"graphtorch.{rest}" if rest else "graphtorch"
            if (module, name) == ("graphtorch._tensor", "_rebuild_from_type_v2"):
                return rebuild_subclass
            try:
                importlib.import_module(module)
            except ImportError:
                said = f"load(): the checkpoint names torch.{rest}.{name}, which is not here"
                raise pickle.UnpicklingError(said) from None
        return super().find_class(module, name)


# -- what pickles call ------------------------------------------------------------------------------------------------


def rebuild(
    kind: type[Tensor], storage: TypedStorage, offset: int, size: Any, stride: Any, requires_grad: bool, state: Any
) -> Tensor:
    """A tensor over a storage."""
    from graphtorch.serialization.reader import _tensor_v2

    return _of_kind(kind, _tensor_v2(storage, offset, size, stride, False, OrderedDict()), requires_grad, state)


def rebuild_meta(kind: type[Tensor], of: Any, size: Any, stride: Any, requires_grad: bool, state: Any) -> Tensor:
    """A tensor without data."""
    from graphtorch.serialization.reader import _meta_tensor

    return _of_kind(kind, _meta_tensor(of, size, stride, False), requires_grad, state)


def _of_kind(kind: type[Tensor], tensor: Tensor, requires_grad: bool, state: dict[str, Any]) -> Tensor:
    from graphtorch.nn.parameter import Parameter

    if issubclass(kind, Parameter):
        made: Tensor = kind(tensor, requires_grad)
    else:
        made = tensor if kind is Tensor else tensor.as_subclass(kind)
        if requires_grad:
            made.requires_grad_(True)
    for name, value in state.items():
        setattr(made, name, value)
    return made


def rebuild_subclass(function: Callable[..., Any], kind: type[Tensor], args: tuple[Any, ...], state: Any) -> Tensor:
    """PyTorch's form of a tensor with attributes: the call that makes it, its class, and they."""
    made = function(*args)
    if isinstance(state, tuple):
        state = {**(state[0] or {}), **(state[1] or {})}
    return _of_kind(kind, made.detach(), made.requires_grad, state or {})
