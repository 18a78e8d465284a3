"""Tensors in safetensors files, which hold data and nothing that could be executed. Like `safetensors.torch`.

The format: the length of a header (8 bytes, little endian), the header in JSON (a type, shape and place for each name),
and the data (https://huggingface.co/docs/safetensors). It is read and written here; no package is needed."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.nn import Module

__all__ = ["SafetensorError", "load", "load_file", "load_model", "save", "save_file", "save_model"]

# By the format's names, in the order in which writers put types: the strictest alignment last.
_DTYPES: dict[str, dtype] = {
    "BOOL": dtypes.bool_,
    "U8": dtypes.uint8,
    "I8": dtypes.int8,
    "I16": dtypes.int16,
    "F16": dtypes.float16,
    "BF16": dtypes.bfloat16,
    "I32": dtypes.int32,
    "F32": dtypes.float32,
    "C64": dtypes.complex64,
    "F64": dtypes.float64,
    "I64": dtypes.int64,
}
_NAMES = {of: name for name, of in _DTYPES.items()}
_ORDER = list(_DTYPES)
_LONGEST_HEADER = 100_000_000  # bytes: what other readers accept


class SafetensorError(Exception):
    """The file is damaged or no safetensors file."""


def _check(tensors: Mapping[str, Tensor]) -> None:
    """Raises as `safetensors.torch` does for what a file can't hold faithfully."""
    if not isinstance(tensors, Mapping):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    shared: defaultdict[int, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"Key `{name}` is invalid, expected torch.Tensor but received {type(tensor)}")
        if tensor.dtype not in _NAMES:
            raise ValueError(f"Key `{name}`: safetensors files hold no tensors of type {tensor.dtype}")
        if not tensor.is_contiguous():
            raise ValueError(
                f"You are trying to save a non contiguous tensor: `{name}` which is not allowed. It either means you "
                "are trying to save tensors which are reference of each other in which case it's recommended to save "
                "only the full tensors, and reslice at load time, or simply call `.contiguous()` on your tensor to "
                "pack it before saving."
            )
        if tensor.numel():
            shared[tensor.untyped_storage().data_ptr()].append(name)
    together = [set(names) for names in shared.values() if len(names) > 1]
    if together:
        raise RuntimeError(
            "Some tensors share memory, this will lead to duplicate memory on disk and potential differences when "
            f"loading them again: {together}. A potential way to correctly save your model is to use `save_model`."
        )


def save(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a file with these tensors; `metadata` are strings to go with them.

    Raises ValueError for a tensor that is not contiguous or of a type without a name in the format, RuntimeError for
    tensors that share memory.
    """
    _check(tensors)
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    parts = []
    at = 0
    for name in sorted(tensors, key=lambda n: (-_ORDER.index(_NAMES[tensors[n].dtype]), n)):
        data = _little(tensors[name].detach().cpu()._data).tobytes()
        place = [at, at + len(data)]
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": place,
        }
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _little(array: np.ndarray) -> np.ndarray:
    """Elements in the format's byte order."""
    return array if sys.byteorder == "little" else array.byteswap()


def save_file(
    tensors: Mapping[str, Tensor], filename: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to a file. Raises as `save` does, before the file is touched."""
    Path(filename).write_bytes(save(tensors, metadata))


def load(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file's bytes. Raises SafetensorError for bytes that are no such file."""
    if len(data) < 8:
        raise SafetensorError("header too small: a file begins with the header's length in 8 bytes")
    length = int.from_bytes(data[:8], "little")
    if length > _LONGEST_HEADER or length > len(data) - 8:
        raise SafetensorError(f"a header of {length} bytes does not fit into a file of {len(data)}")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise SafetensorError(f"the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise SafetensorError("the header is no JSON object")
    header.pop("__metadata__", None)
    body = memoryview(bytearray(data[8 + length :]))  # writable, and the tensors' own
    end = 0
    places = sorted((_place(name, entry), name) for name, entry in header.items())
    for (first, last), name in places:
        if first != end:
            raise SafetensorError(f"tensor {name!r} begins at byte {first} of the data, expected {end}")
        end = last
    if end != len(body):
        raise SafetensorError(f"the tensors have {end} bytes, the file {len(body)}")
    found = {}
    for (first, last), name in places:
        of = _DTYPES[header[name]["dtype"]]
        array = np.frombuffer(body[first:last], of.numpy).reshape(header[name]["shape"])
        found[name] = Tensor._wrap(_little(array).copy(), of)  # a copy is aligned, whatever the place in the file
    return {name: found[name] for name in header}


def _place(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor lies in the data. Raises SafetensorError for an entry that says nothing of the kind."""
    try:
        of, shape, (first, last) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise SafetensorError(f"tensor {name!r} has no known dtype, shape and data_offsets") from None
    numbers = [*shape, first, last] if isinstance(shape, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise SafetensorError(f"tensor {name!r}: sizes and offsets must be whole numbers")
    if math.prod(shape) * of.itemsize != last - first:
        raise SafetensorError(f"tensor {name!r}: {last - first} bytes are no {entry['dtype']} of shape {shape}")
    return first, last


def load_file(filename: str | os.PathLike[str], device: Any = "cpu") -> dict[str, Tensor]:
    """The tensors of a file. Raises as `load` does."""
    tensors = load(Path(filename).read_bytes())
    return tensors if str(device) == "cpu" else {name: tensor.to(device) for name, tensor in tensors.items()}


def save_model(model: Module, filename: str, metadata: dict[str, str] | None = None) -> None:
    """Write a model's state. A tensor with several names (tied weights) is written under the first of them in
    alphabetical order; the file's metadata say what the other names stand for."""
    kept: dict[str, Tensor] = {}
    by_memory: dict[tuple[int, int], str] = {}
    notes = dict(metadata or {})
    for name, tensor in sorted(model.state_dict().items()):
        key = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() and key in by_memory:
            notes[name] = by_memory[key]
        else:
            by_memory[key] = name
            kept[name] = tensor.contiguous()
    save_file(kept, filename, notes or None)


def load_model(
    model: Module, filename: str | os.PathLike[str], strict: bool = True, device: Any = "cpu"
) -> tuple[list[str], list[str]]:
    """Load a file into a model; (missing, unexpected) names. Names of tied weights need not be in the file.

    Raises RuntimeError with `strict` for missing or unexpected names, and for shapes that differ.
    """
    state = load_file(filename, device)
    result = model.load_state_dict(state, strict=False)
    loaded = {model.state_dict()[name].data_ptr() for name in state if name in model.state_dict()}
    missing = [name for name in result.missing_keys if model.state_dict()[name].data_ptr() not in loaded]
    unexpected = list(result.unexpected_keys)
    if strict and (missing or unexpected):
        lines = [
            f"    {title} key(s) in state_dict: {', '.join(f'{name!r}' for name in names)}"
            for title, names in (("Missing", missing), ("Unexpected", unexpected))
            if names
        ]
        raise RuntimeError(f"Error(s) in loading state_dict for {type(model).__name__}:\n" + "\n".join(lines))
    return missing, unexpected
