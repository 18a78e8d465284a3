"""The safetensors format: named arrays behind a JSON header, nothing else. See
https://github.com/huggingface/safetensors#format.

Reading checks every offset, size and dtype before an array is made; nothing in a file is executed."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from graphtorch.tensor.tensor import Tensor

_DTYPES: dict[str, Any] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "C64": np.dtype(np.complex64),
}
_NAMES = {d: name for name, d in _DTYPES.items()}
_ORDER = ("I64", "F64", "C64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
HEADER_LIMIT = 100_000_000


class SafetensorError(ValueError):
    """Bytes that are no safetensors file, or arrays that the format can't hold."""


def to_bytes(arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """Arrays (or tensors) as the bytes of a file, in the order of other writers: by type, the strictest alignment
    first, and then by name.

    Raises SafetensorError for a dtype without a name in the format.
    """
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(metadata)
    parts: list[bytes] = []
    start = 0
    named: list[tuple[int, str, str, np.ndarray[Any, Any]]] = []
    for name, value in arrays.items():
        array = np.asarray(value.detach()._host("safetensors") if isinstance(value, Tensor) else value)
        kind = _NAMES.get(array.dtype)
        if kind is None:
            raise SafetensorError(f"safetensors has no dtype {array.dtype} (of {name})")
        named.append((_ORDER.index(kind), name, kind, array))
    for _, name, kind, array in sorted(named, key=lambda entry: entry[:2]):
        data = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, start + len(data)]}
        start += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def from_bytes(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a file, each in memory of its own.

    Raises SafetensorError for anything that is not exactly such a file: a header that is too long or no JSON, unknown
    dtypes, shapes that do not fit their bytes, offsets with gaps or overlaps, bytes left over.
    """
    if len(data) < 8:
        raise SafetensorError("no safetensors file: shorter than its header's size")
    (length,) = struct.unpack_from("<Q", data)
    if length > min(HEADER_LIMIT, len(data) - 8):
        raise SafetensorError(f"no safetensors file: its header has {length} bytes, the file {len(data)}")
    try:
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise SafetensorError(f"the safetensors header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise SafetensorError("the safetensors header is no object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise SafetensorError("safetensors metadata must be text by name")
    body = memoryview(data)[8 + length :]
    spans: list[tuple[int, int]] = []
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, entry in header.items():
        kind, shape, start, end = _entry(name, entry)
        if not 0 <= start <= end <= len(body) or end - start != kind.itemsize * math.prod(shape):
            raise SafetensorError(f"{name}: the bytes {start} to {end} do not hold {entry['dtype']}{shape}")
        spans.append((start, end))
        found[name] = np.frombuffer(bytes(body[start:end]), kind).reshape(shape).copy()
    place = 0
    for start, end in sorted(spans):
        if start != place:
            raise SafetensorError("the arrays of a safetensors file must follow one another without gaps or overlaps")
        place = end
    if place != len(body):
        raise SafetensorError(f"{len(body) - place} bytes after the last array")
    return found


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(name: str, entry: Any) -> tuple[Any, list[int], int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise SafetensorError(f"{name}: an array has dtype, shape and data_offsets")
    kind, shape, offsets = _DTYPES.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if kind is None:
        raise SafetensorError(f"{name}: unknown dtype {entry['dtype']!r}")
    if not (isinstance(shape, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in shape) and len(shape) <= 64):
        raise SafetensorError(f"{name}: not a shape: {shape!r}")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)):
        raise SafetensorError(f"{name}: not a pair of offsets: {offsets!r}")
    return kind, shape, offsets[0], offsets[1]


def save_file(tensors: Mapping[str, Any], filename: str | os.PathLike[str], metadata: Any = None) -> None:
    """Write tensors or arrays by name, as `safetensors.torch.save_file` does."""
    with open(filename, "wb") as file:
        file.write(to_bytes(tensors, metadata))


def load_file(filename: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a file, as `safetensors.torch.load_file` does. Raises SafetensorError for other files."""
    with open(filename, "rb") as file:
        return {name: Tensor._wrap(array) for name, array in from_bytes(file.read()).items()}
