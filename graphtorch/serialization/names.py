"""The names that PyTorch's checkpoints give to dtypes, storages, layouts and the functions that rebuild tensors."""

from __future__ import annotations

from graphtorch.tensor.dtypes import BY_NAME, dtype

# The class name of a legacy typed storage: what a tensor's persistent id carries.
STORAGE_CLASSES: dict[str, dtype] = {
    "BoolStorage": BY_NAME["bool"],
    "ByteStorage": BY_NAME["uint8"],
    "CharStorage": BY_NAME["int8"],
    "ShortStorage": BY_NAME["int16"],
    "IntStorage": BY_NAME["int32"],
    "LongStorage": BY_NAME["int64"],
    "HalfStorage": BY_NAME["float16"],
    "BFloat16Storage": BY_NAME["bfloat16"],
    "FloatStorage": BY_NAME["float32"],
    "DoubleStorage": BY_NAME["float64"],
    "ComplexFloatStorage": BY_NAME["complex64"],
    "ComplexDoubleStorage": BY_NAME["complex128"],
}
STORAGE_CLASS_OF: dict[dtype, str] = {d: name for name, d in STORAGE_CLASSES.items()}

# Python 2's name of `builtins`, which protocol 2 uses.
BUILTINS = "__builtin__"
