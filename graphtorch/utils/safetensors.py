"""Tensors in safetensors files, which hold data and nothing that could be executed. Like `safetensors.torch`.

The format itself is read and written by `graphtorch.serialization.safetensors`; no package is needed.
See https://huggingface.co/docs/safetensors/api/torch."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphtorch.serialization.safetensors import SafetensorError, from_bytes, to_bytes
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.nn import Module

__all__ = ["SafetensorError", "load", "load_file", "load_model", "save", "save_file", "save_model"]


def _check(tensors: Mapping[str, Tensor]) -> None:
    """Raises as `safetensors.torch` does for what a file can't hold faithfully."""
    if not isinstance(tensors, Mapping):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    shared: defaultdict[int, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"Key `{name}` is invalid, expected torch.Tensor but received {type(tensor)}")
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
    return to_bytes(tensors, metadata)


def save_file(
    tensors: Mapping[str, Tensor], filename: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to a file. Raises as `save` does, before the file is touched."""
    Path(filename).write_bytes(save(tensors, metadata))


def load(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file's bytes. Raises SafetensorError for bytes that are no such file."""
    return {name: Tensor._wrap(array) for name, array in from_bytes(data).items()}


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
