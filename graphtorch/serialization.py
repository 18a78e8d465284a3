"""Saving and loading objects that hold tensors.

Files are pickles; a tensor's data travels as a NumPy array. As with every pickle, load only files that you trust.
"""

from __future__ import annotations

import os
import pickle
from typing import IO, Any


def save(obj: Any, f: str | os.PathLike[str] | IO[bytes]) -> None:
    """Write an object (a state dict, say) to a path or a binary file. See torch.save."""
    if isinstance(f, str | os.PathLike):
        with open(f, "wb") as file:
            pickle.dump(obj, file, protocol=pickle.HIGHEST_PROTOCOL)
    else:
        pickle.dump(obj, f, protocol=pickle.HIGHEST_PROTOCOL)


def load(f: str | os.PathLike[str] | IO[bytes], map_location: Any = None, *, weights_only: bool = True) -> Any:
    """Read what `save` wrote. See torch.load.

    `weights_only` refuses pickles that name anything but tensors, this package's own types and plain containers.
    `map_location` is accepted for PyTorch's sake: data always loads into host memory.
    """
    if isinstance(f, str | os.PathLike):
        with open(f, "rb") as file:
            return _read(file, weights_only)
    return _read(f, weights_only)


# What the tensors, arrays and containers of a state dict are rebuilt with. Names are exact: a dotted one could reach
# anything.
_ALLOWED = {
    ("graphtorch.tensor.tensor", "Tensor"),
    ("graphtorch.tensor.tensor", "_rebuild"),
    ("graphtorch.tensor.dtypes", "_by_name"),
    ("graphtorch.tensor.size", "Size"),
    ("graphtorch.tensor.devices", "device"),
    ("graphtorch.nn.parameter", "Parameter"),
    ("graphtorch.nn.parameter", "Buffer"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("ml_dtypes", "bfloat16"),
}


class _WeightsUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"Weights only load failed: the file refers to {module}.{name}, which is no tensor or plain container. "
            "Load it with weights_only=False only if you trust its source."
        )


def _read(file: IO[bytes], weights_only: bool) -> Any:
    return _WeightsUnpickler(file).load() if weights_only else pickle.load(file)
