"""`save`: an object of tensors and plain containers as PyTorch's zip checkpoint.

The pickle of tensors and plain containers is written opcode by opcode, since it names PyTorch's functions and classes,
which need not be importable here. PyTorch reads these files, and `load` without executing anything. Other objects are
pickled as Python does it (objects.py), and are only loaded on request."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from graphtorch.serialization.names import BUILTINS, STORAGE_CLASS_OF
from graphtorch.serialization.objects import encode
from graphtorch.tensor.devices import device
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.formats import layout
from graphtorch.tensor.size import Size
from graphtorch.tensor.storage import TypedStorage, UntypedStorage
from graphtorch.tensor.tensor import Tensor

ALIGNMENT = 64  # of every record's data in the file, so that a loader may map it
PROTOCOL = 2

File = str | os.PathLike[str] | IO[bytes]


def save(
    obj: Any,
    f: File,
    pickle_module: Any = None,
    pickle_protocol: int = PROTOCOL,
    _use_new_zipfile_serialization: bool = True,
) -> None:
    """Write an object to a path or a binary file. See torch.save.

    Tensors that share a storage share it in the file, and a view brings its whole storage along. Tensors, parameters,
    state dicts and plain containers are written so that `load` and PyTorch's torch.load read them without executing
    anything. An object of any other kind (a whole module) is pickled by reference to its class: it needs
    ``load(f, weights_only=False)`` and the code that defines it. `pickle_module` is accepted for PyTorch's sake.

    Raises, before the file is touched, pickle.PicklingError, AttributeError or TypeError for what can't be pickled (a
    local function), RuntimeError for PyTorch's older format.
    """
    if not _use_new_zipfile_serialization:
        raise RuntimeError("save() writes PyTorch's zip format only: _use_new_zipfile_serialization must be True")
    encoder = _Encoder()
    try:
        pickled = encoder.encode(obj)
    except OtherObjectError:
        encoder = _Encoder()
        pickled = encode(obj, pickle_protocol, encoder.key_of)
    if isinstance(f, str | os.PathLike):
        with open(f, "wb") as file:
            _write_archive(file, Path(f).stem or "archive", pickled, encoder.storages)
    elif hasattr(f, "write"):
        _write_archive(f, "archive", pickled, encoder.storages)
    else:
        raise AttributeError(
            f"expected 'f' to be string, path, or a file-like object with a 'write' attribute, not {type(f).__name__}"
        )


# -- archive ----------------------------------------------------------------------------------------------------------


def _write_archive(file: IO[bytes], root: str, pickled: bytes, storages: list[UntypedStorage]) -> None:
    digest = sha256(pickled)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def record(name: str, data: Any) -> None:
            size = memoryview(data).nbytes
            info = zipfile.ZipInfo(f"{root}/{name}")  # with the format's earliest date: equal objects, equal bytes
            info.file_size = size
            wide = size * 1.05 > zipfile.ZIP64_LIMIT  # zipfile's own condition
            # The data begins after a 30-byte header, the name and the extra fields: pad those to the alignment.
            start = archive.start_dir + 30 + len(info.filename.encode()) + 4 + (20 if wide else 0)
            padding = -start % ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
            with archive.open(info, "w", force_zip64=wide) as target:
                target.write(data)

        record("data.pkl", pickled)
        record(".format_version", b"1")
        record(".storage_alignment", str(ALIGNMENT).encode())
        record("byteorder", b"little")
        for key, storage in enumerate(storages):
            data = storage.bytes()
            digest.update(data.data)
            record(f"data/{key}", data.data)
        record("version", b"3\n")
        record(".data/serialization_id", str(int(digest.hexdigest()[:32], 16)).zfill(40).encode())


class OtherObjectError(pickle.PicklingError):
    """An object that is no tensor, number, string or plain container."""


# -- pickle -----------------------------------------------------------------------------------------------------------


class _Encoder:
    """Writes one pickle. `storages` collects the storages met, in the order of their keys."""

    def __init__(self) -> None:
        self.storages: list[UntypedStorage] = []
        self._keys: dict[Any, str] = {}
        self._element_types: dict[str, dtype] = {}
        self._out = bytearray()
        self._memo: dict[int, int] = {}  # id of an object -> its slot in the reader's memo
        self._globals: dict[tuple[str, str], int] = {}
        self._slots = 0
        self._alive: list[Any] = []  # memoised objects: their ids must stay theirs

    def encode(self, obj: Any) -> bytes:
        """The pickle of `obj`. Raises pickle.PicklingError for what a checkpoint can't hold."""
        self._out += pickle.PROTO + bytes((PROTOCOL,))
        try:
            self._save(obj)
        except RecursionError:
            raise pickle.PicklingError("save(): containers are nested too deeply, or a tuple contains itself") from None
        self._out += pickle.STOP
        return bytes(self._out)

    def _save(self, obj: Any) -> None:
        slot = self._memo.get(id(obj))
        if slot is not None:
            self._get(slot)
            return
        kind = type(obj)
        write = _WRITERS.get(kind)
        if write is None:
            if isinstance(obj, Tensor):
                write = _Encoder._tensor
            elif isinstance(obj, UntypedStorage):
                write = _Encoder._untyped_storage
            else:
                raise OtherObjectError
        write(self, obj)

    # -- memo

    def _put(self, obj: Any) -> None:
        self._memo[id(obj)] = self._slots
        self._alive.append(obj)
        self._put_slot()

    def _put_slot(self) -> int:
        slot = self._slots
        self._slots += 1
        self._out += pickle.BINPUT + bytes((slot,)) if slot < 256 else pickle.LONG_BINPUT + struct.pack("<I", slot)
        return slot

    def _get(self, slot: int) -> None:
        self._out += pickle.BINGET + bytes((slot,)) if slot < 256 else pickle.LONG_BINGET + struct.pack("<I", slot)

    # -- opcodes

    def _global(self, module: str, name: str) -> None:
        slot = self._globals.get((module, name))
        if slot is not None:
            self._get(slot)
            return
        self._out += pickle.GLOBAL + f"{module}\n{name}\n".encode()
        self._globals[module, name] = self._put_slot()

    def _call(self, module: str, name: str, *args: Any) -> None:
        self._global(module, name)
        self._save_tuple(args)
        self._out += pickle.REDUCE

    def _save_tuple(self, items: Iterable[Any]) -> None:
        """A tuple outside the memo. An item that is a function writes itself."""
        self._out += pickle.MARK
        for item in items:
            if isinstance(item, _Written):
                item.write()
            else:
                self._save(item)
        self._out += pickle.TUPLE

    def _none(self, obj: None) -> None:
        self._out += pickle.NONE

    def _bool(self, obj: bool) -> None:
        self._out += pickle.NEWTRUE if obj else pickle.NEWFALSE

    def _int(self, obj: int) -> None:
        if 0 <= obj < 256:
            self._out += pickle.BININT1 + bytes((obj,))
        elif -(2**31) <= obj < 2**31:
            self._out += pickle.BININT + struct.pack("<i", obj)
        else:
            data = pickle.encode_long(obj)
            if len(data) > 255:
                raise pickle.PicklingError(f"save(): an integer of {len(data)} bytes is too long for a checkpoint")
            self._out += pickle.LONG1 + bytes((len(data),)) + data

    def _float(self, obj: float) -> None:
        self._out += pickle.BINFLOAT + struct.pack(">d", obj)

    def _complex(self, obj: complex) -> None:
        self._call(BUILTINS, "complex", obj.real, obj.imag)

    def _str(self, obj: str) -> None:
        data = obj.encode("utf-8", "surrogatepass")
        if len(data) >= 2**32:
            raise pickle.PicklingError("save(): a string of 4 GiB or more")
        self._out += pickle.BINUNICODE + struct.pack("<I", len(data)) + data
        self._put(obj)

    def _bytes(self, obj: bytes) -> None:
        self._call("_codecs", "encode", obj.decode("latin1"), "latin1")  # protocol 2 has no bytes of its own
        self._put(obj)

    def _bytearray(self, obj: bytearray) -> None:
        self._call(BUILTINS, "bytearray", bytes(obj))
        self._put(obj)

    def _list(self, obj: list[Any]) -> None:
        self._out += pickle.EMPTY_LIST
        self._put(obj)
        self._out += pickle.MARK
        for item in obj:
            self._save(item)
        self._out += pickle.APPENDS

    def _tuple(self, obj: tuple[Any, ...]) -> None:
        self._save_tuple(obj)
        self._put(obj)

    def _dict(self, obj: dict[Any, Any]) -> None:
        self._out += pickle.EMPTY_DICT
        self._put(obj)
        self._items(obj)

    def _items(self, obj: dict[Any, Any]) -> None:
        if obj:
            self._out += pickle.MARK
            for key, value in obj.items():
                self._save(key)
                self._save(value)
            self._out += pickle.SETITEMS

    def _ordered_dict(self, obj: OrderedDict[Any, Any]) -> None:
        self._call("collections", "OrderedDict")
        self._put(obj)
        self._items(obj)
        if vars(obj):  # a state dict's `_metadata`
            self._dict(dict(vars(obj)))
            self._out += pickle.BUILD

    def _counter(self, obj: Counter[Any]) -> None:
        self._call("collections", "Counter", dict(obj))
        self._put(obj)

    def _default_dict(self, obj: defaultdict[Any, Any]) -> None:
        factory = obj.default_factory
        if factory not in (None, dict, list, set, int, float, str):
            raise OtherObjectError
        made = None if factory is None else _Written(lambda: self._global(BUILTINS, factory.__name__))
        self._call("collections", "defaultdict", made)
        self._put(obj)
        self._items(obj)

    def _set(self, obj: set[Any]) -> None:
        self._call(BUILTINS, "set", list(obj))
        self._put(obj)

    # -- PyTorch's objects

    def _size(self, obj: Size) -> None:
        self._call("torch", "Size", tuple(obj))
        self._put(obj)

    def _device(self, obj: device) -> None:
        self._call("torch", "device", *((obj.type,) if obj.index is None else (obj.type, obj.index)))
        self._put(obj)

    def _dtype(self, obj: dtype) -> None:
        self._global("torch", obj.name)

    def _layout(self, obj: layout) -> None:
        self._call("torch.serialization", "_get_layout", repr(obj))
        self._put(obj)

    def _tensor(self, obj: Tensor) -> None:
        from graphtorch.nn.parameter import Parameter

        parameter = type(obj) is Parameter
        if type(obj) is not Tensor and not parameter:
            raise OtherObjectError
        # As copies do: what the user hung onto the tensor, without the class's own state.
        attributes = {k: v for k, v in vars(obj).items() if not k.startswith("_") and not hasattr(Tensor, k)}
        hooks = _Written(lambda: self._call("collections", "OrderedDict"))
        if parameter:
            data = _Written(lambda: self._rebuilt(obj, False))
            name = "_rebuild_parameter_with_state" if attributes else "_rebuild_parameter"
            self._call("torch._utils", name, data, obj.requires_grad, hooks, *([attributes] if attributes else []))
        elif attributes:
            function, arguments = self._rebuilding(obj, obj.requires_grad)
            self._call(
                "torch._tensor",
                "_rebuild_from_type_v2",
                _Written(lambda: self._global("torch._utils", function)),
                _Written(lambda: self._global("torch", "Tensor")),
                _Written(lambda: self._save_tuple(arguments)),
                attributes,
            )
        else:
            self._rebuilt(obj, obj.requires_grad)
        self._put(obj)

    def _rebuilt(self, obj: Tensor, requires_grad: bool) -> None:
        function, arguments = self._rebuilding(obj, requires_grad)
        self._call("torch._utils", function, *arguments)

    def _rebuilding(self, obj: Tensor, requires_grad: bool) -> tuple[str, tuple[Any, ...]]:
        """PyTorch's function that makes this tensor, and its arguments."""
        size, stride = tuple(obj.shape), tuple(obj.stride())
        if obj.is_meta:
            return "_rebuild_meta_tensor_no_storage", (obj.dtype, size, stride, requires_grad)
        obj._host("save()")  # refuses recorded tensors
        storage = TypedStorage(wrap_storage=obj.untyped_storage(), dtype=obj.dtype)
        self._alive.append(storage)
        hooks = _Written(lambda: self._call("collections", "OrderedDict"))
        # A tensor without elements may lie anywhere; the start is always inside.
        offset = obj.storage_offset() if obj.numel() else 0
        return "_rebuild_tensor_v2", (storage, offset, size, stride, requires_grad, hooks)

    def _typed_storage(self, obj: TypedStorage) -> None:
        self._persistent(obj.untyped(), "torch", STORAGE_CLASS_OF[obj.dtype], obj.size(), obj.dtype)

    def _untyped_storage(self, obj: UntypedStorage) -> None:
        self._persistent(obj, "torch.storage", "UntypedStorage", obj.nbytes(), None)

    def _persistent(self, storage: UntypedStorage, module: str, name: str, count: int, of: dtype | None) -> None:
        """A storage: ("storage", class, key of its record, location, number of elements), and the opcode to load it.

        Raises RuntimeError where one memory is saved in two dtypes, which the format can't express.
        """
        key = self.key_of(storage, of)
        self._save_tuple(("storage", _Written(lambda: self._global(module, name)), key, str(storage.device), count))
        self._out += pickle.BINPERSID

    def key_of(self, storage: UntypedStorage, of: dtype | None) -> str:
        """The key of a storage's record, of elements of that dtype. Raises as `_persistent`."""
        if storage.device.type == "meta":
            raise NotImplementedError(f"save(): a storage on the {storage.device.type} device has no data")
        place = (storage.data_ptr(), storage.nbytes()) if storage.nbytes() else id(storage)
        key = self._keys.get(place)
        if key is None:
            key = self._keys[place] = str(len(self.storages))
            self.storages.append(storage)
        if of is not None and self._element_types.setdefault(key, of) is not of:
            raise RuntimeError("Cannot save multiple tensors or storages that view the same data as different types")
        return key


class _Written:
    """An argument that writes itself, where the pickle holds what has no object here."""

    def __init__(self, write: Callable[[], None]) -> None:
        self.write = write


_WRITERS: dict[type, Callable[[_Encoder, Any], None]] = {
    type(None): _Encoder._none,
    bool: _Encoder._bool,
    int: _Encoder._int,
    float: _Encoder._float,
    complex: _Encoder._complex,
    str: _Encoder._str,
    bytes: _Encoder._bytes,
    bytearray: _Encoder._bytearray,
    list: _Encoder._list,
    tuple: _Encoder._tuple,
    dict: _Encoder._dict,
    OrderedDict: _Encoder._ordered_dict,
    Counter: _Encoder._counter,
    defaultdict: _Encoder._default_dict,
    set: _Encoder._set,
    Size: _Encoder._size,
    device: _Encoder._device,
    dtype: _Encoder._dtype,
    layout: _Encoder._layout,
    TypedStorage: _Encoder._typed_storage,
}
