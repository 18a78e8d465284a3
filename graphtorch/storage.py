"""Storages. See https://docs.pytorch.org/docs/stable/storage.html."""

from graphtorch.tensor.storage import TypedStorage, UntypedStorage

__all__ = ["TypedStorage", "UntypedStorage"]
