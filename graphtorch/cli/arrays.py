"""Named arrays in .npz files. bfloat16, which the format has no name for, is stored as float32, which holds it all."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphtorch.cli.errors import USAGE, CommandError


def save_arrays(file: str, values: Mapping[str, Any]) -> None:
    """Write arrays and numbers under their names. Raises CommandError if the file can't be written."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    plain = {n: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for n, a in arrays.items()}
    try:
        # As np.savez does; that takes names as keyword arguments and so has no place for an array named "file".
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in plain.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from error


def load_arrays(file: str) -> dict[str, np.ndarray[Any, Any]]:
    """Read a .npz file; nothing in it is executed. Raises CommandError if it can't be read."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive) if hasattr(archive, "files") else {"": archive}
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot read arrays from {file}: {error}", USAGE) from error
