"""Random calls as source text: the same text runs on this library and on PyTorch, and is the report of a difference.

A call starts from one of an operator record's samples; operands get other layouts, dtypes and shapes, and arguments
other values, some of them wrong on purpose."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphtorch.ops.record import Operator
from graphtorch.ops.testing import Sampler
from graphtorch.tensor import Tensor, dtypes
from graphtorch.tensor.dtypes import dtype

DTYPES = {
    "b": (dtypes.bool_,),
    "i": (dtypes.int64, dtypes.int64, dtypes.int32, dtypes.uint8),
    "f": (dtypes.float32, dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16),
    "c": (dtypes.complex64,),
}
NAMES = {"inf": math.inf, "nan": math.nan}


@dataclass
class Call:
    """Operands (name -> text of an expression) and the text of a call on them, `torch` being the library."""

    operands: dict[str, str]
    text: str

    def script(self) -> str:
        """A program that shows the call."""
        lines = ["from math import inf, nan", *(f"{name} = {text}" for name, text in self.operands.items())]
        return "\n".join((*lines, f"print({self.text})"))


class Outcome:
    """What a call did in one library."""

    def __init__(self, torch: Any, call: Call) -> None:
        scope = {**NAMES, "torch": torch}
        self.error: Exception | None = None
        self.results: list[Any] = []
        self.operands: list[Any] = []
        for name, text in call.operands.items():
            scope[name] = eval(text, scope)
            self.operands.append(scope[name])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = eval(call.text, scope)
        except Exception as error:
            self.error = error
            return
        self.results = list(result) if isinstance(result, tuple | list) and not _is_size(result) else [result]

    def aliases(self, result: Any) -> list[bool]:
        """Which operands a result shares its storage with."""
        place = result.untyped_storage().data_ptr()
        return [o.untyped_storage().data_ptr() == place for o in self.operands]


# In PyTorch's messages: a kernel or overload that is not there, so that the error says nothing about the arguments.
LACKS = (
    "not implemented for",
    "not supported",
    "does not support",
    "must be int, not tuple",
    "received an invalid combination of arguments",
    "as element",
    "expected scalar type",
    "mixed dtype",
    "descriptor",
    # Errors from deep inside, of another class than the same mistake raises elsewhere.
    "out of DATA bounds",
    "setStorage",
    "self indexing axis dim",
    "Bad in-place call",
)


def _is_size(value: Any) -> bool:
    return type(value).__name__ == "Size"


def difference(ours: Outcome, theirs: Outcome, tolerance: float) -> str | None:
    """What a caller would notice; None: nothing."""
    if any("complex32" in str(getattr(b, "dtype", "")) for b in theirs.results):
        return None  # a dtype that is not here
    if theirs.error is not None or ours.error is not None:
        return _difference_of_errors(ours, theirs)
    if len(ours.results) != len(theirs.results):
        return f"{len(ours.results)} results instead of {len(theirs.results)}"
    for a, b in zip(ours.results, theirs.results, strict=True):
        found = _difference_of_values(a, b, tolerance)
        if found is None and hasattr(b, "untyped_storage") and b.numel() and ours.aliases(a) != theirs.aliases(b):
            found = f"shares storage with operands {ours.aliases(a)} instead of {theirs.aliases(b)}"
        if found is not None:
            return found
    for a, b in zip(ours.operands, theirs.operands, strict=True):
        found = _difference_of_values(a, b, tolerance)
        if found is not None:
            return f"operand afterwards: {found}"
    return None


def _difference_of_errors(ours: Outcome, theirs: Outcome) -> str | None:
    a, b = ours.error, theirs.error
    if b is None:
        return f"raised {type(a).__name__}: {a}".split("\n")[0]
    text = str(b)
    # PyTorch lacks a kernel or an overload; computing the value is no mistake.
    lacks = isinstance(b, NotImplementedError) or any(words in text for words in LACKS)
    if a is None:
        return None if lacks or isinstance(b, TypeError) else f"accepted what raises {type(b).__name__}: {text}"
    if lacks or isinstance(a, type(b)) or isinstance(b, type(a)):
        return None
    return f"raised {type(a).__name__} instead of {type(b).__name__}: {str(a).splitlines()[0]} / {text.splitlines()[0]}"


def _difference_of_values(a: Any, b: Any, tolerance: float) -> str | None:
    if not hasattr(b, "untyped_storage"):
        same = a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-5))
        return None if same or str(a) == str(b) else f"{a!r} instead of {b!r}"
    if not hasattr(a, "untyped_storage"):
        return f"{type(a).__name__} instead of a tensor"
    # Dimensions where strides say something.
    moved = [d for d in range(b.dim()) if b.shape[d] > 1] if b.numel() else []
    for what, mine, other in (
        ("shape", tuple(a.shape), tuple(b.shape)),
        ("dtype", str(a.dtype), str(b.dtype)),
        ("stride", [a.stride(d) for d in moved if d < a.dim()], [b.stride(d) for d in moved]),
    ):
        if mine != other:
            return f"{what} {mine} instead of {other}"
    mine, other = array_of(a), array_of(b)
    if mine.dtype.kind in "fc":
        finite = np.abs(other[np.isfinite(other)])
        scale = max(float(finite.max()) if finite.size else 1.0, 1.0)
        same = np.allclose(mine, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    else:
        same = bool(np.array_equal(mine, other))
    return None if same else f"value {mine.tolist()} instead of {other.tolist()}"[:300]


def array_of(tensor: Any) -> np.ndarray[Any, Any]:
    tensor = tensor.detach()
    if "bfloat16" in str(tensor.dtype):
        tensor = tensor.float()
    found: np.ndarray[Any, Any] = tensor.resolve_conj().resolve_neg().numpy()
    wide = {"f": np.float64, "c": np.complex128}.get(found.dtype.kind)
    return found if wide is None else found.astype(wide)


def resolve(module: Any, path: str) -> Any:
    """What `torch.a.b` names in a module that stands for torch; None for nothing."""
    for part in path.split(".")[1:]:
        module = getattr(module, part, None)
    return module


def path_in(name: str, torch: Any, graphtorch: Any) -> str | None:
    """The dotted name under which both libraries have an operator."""
    names = [f"torch.linalg.{name[7:]}"] if name.startswith("linalg_") else []
    for path in (*names, *(f"torch.{home}{name}" for home in ("", "Tensor.", "nn.functional.", "special."))):
        if callable(resolve(torch, path)) and callable(resolve(graphtorch, path)):
            return path
    return None


# Where the same values may come otherwise: positions among ties.
TIES = {"kthvalue", "topk", "median", "nanmedian", "mode"}
# What PyTorch takes and this library refuses, with a clear error.
REFUSED = {
    "linear": "must have the same dtype",  # a bias of another dtype, for vectors and integers only
    "matrix_exp": "Low precision",  # PyTorch gives NaN
    "tril": "single memory location",  # PyTorch writes one place several times, whatever is last stays
    "triu": "single memory location",
}


def excused(name: str, what: str) -> bool:
    """Whether a difference is one of the known ones of that operator."""
    return name in REFUSED and REFUSED[name] in what


# -- making calls -----------------------------------------------------------------------------------------------------


class Maker:
    """Makes random calls of one operator; the same for the same seed."""

    def __init__(self, op: Operator, path: str, seed: int) -> None:
        self.op = op
        self.path = path
        self.random = np.random.default_rng(seed)

    def call(self) -> Call | None:
        """A call; None where the record has no sample of the chosen dtype."""
        random = self.random
        d = self._choice(DTYPES[self._choice(list(self.op.categories))])
        assert self.op.samples is not None
        try:
            samples = list(self.op.samples(Sampler(d, seed=int(random.integers(100)))))
        except NotImplementedError:
            return None
        if not samples:
            return None
        chosen = self._choice(samples)
        operands: dict[str, str] = {}
        # Most calls change one thing, so that most errors have one cause; many change layouts only.
        spoiled = int(random.integers(len(chosen.args) + len(chosen.kwargs))) if random.random() < 0.6 else -1
        arguments: list[str] = []
        for i, argument in enumerate(chosen.args):
            text = self._argument(argument, operands, i == spoiled)
            name = self.op.parameters[i].name if i < len(self.op.parameters) else ""
            # Functions of nn.functional have deprecated parameters in between: from the third on they go by name.
            arguments.append(f"{name}={text}" if ".functional." in self.path and i >= 2 and name else text)
        for i, (name, argument) in enumerate(chosen.kwargs.items(), len(chosen.args)):
            arguments.append(f"{name}={self._argument(argument, operands, i == spoiled)}")
        return Call(operands, f"{self.path}({', '.join(arguments)})")

    def _choice(self, items: Any) -> Any:
        return items[int(self.random.integers(len(items)))]

    def _argument(self, value: Any, operands: dict[str, str], spoil: bool) -> str:
        random = self.random
        if isinstance(value, Tensor):
            name = f"x{len(operands)}"
            operands[name] = self._tensor(value, spoil)
            return name
        if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            spoiled = int(random.integers(len(value))) if spoil else -1
            return "[" + ", ".join(self._argument(v, operands, i == spoiled) for i, v in enumerate(value)) + "]"
        if isinstance(value, dtype):
            return repr(self._choice(dtypes.ALL_DTYPES) if spoil else value)
        if not spoil:
            return repr(tuple(value)) if isinstance(value, list | tuple) else repr(value)
        if isinstance(value, bool):
            return repr(not value)
        if isinstance(value, int):
            return repr(int(random.integers(-4, 5)))
        if isinstance(value, float):
            return repr(self._choice([0.0, 1.0, -1.0, 0.5, 2, -3, True, math.inf, math.nan]))
        if isinstance(value, list | tuple) and value and all(isinstance(v, int) for v in value):
            items = list(value)
            at = int(random.integers(len(items)))
            kind = random.random()
            if kind < 0.5:
                items[at] = int(random.integers(-4, 5))
            elif kind < 0.75:
                items.pop(at)
            else:
                items.insert(at, int(random.integers(-1, 3)))
            return repr(tuple(items))
        return repr(value)

    def _tensor(self, value: Tensor, spoil: bool) -> str:
        """An expression for a tensor like `value`, in some layout; spoiled: of another shape or dtype."""
        random = self.random
        array = value._data if value.dtype is not dtypes.bfloat16 else value._data.astype(np.float32)
        if array.dtype.kind in "fc":
            array = np.round(array, 2)  # short in the report; dtypes then round it alike
        d = value.dtype
        if spoil:
            kind = random.random()
            if kind < 0.4:
                d = self._choice(dtypes.ALL_DTYPES)
                if array.dtype.kind == "c" and not d.is_complex:
                    array = array.real
                if d.category <= dtypes.INTEGRAL:
                    array = np.clip(array.astype(np.int64), -100 if d.is_signed else 0, 100)
            elif array.ndim and array.size:
                axis = int(random.integers(array.ndim))
                if kind < 0.55:
                    array = array[(slice(None),) * axis + (slice(0, 1),)]
                elif kind < 0.65:
                    array = array[(slice(None),) * axis + (slice(0, 0),)]
                elif kind < 0.75:
                    array = array[(slice(None),) * axis + (slice(0, max(array.shape[axis] - 1, 1)),)]
                elif kind < 0.87:
                    array = array[(slice(None),) * axis + (0,)]
                else:
                    array = array[None]
        return self._laid_out(np.asarray(array), d)

    def _laid_out(self, array: np.ndarray[Any, Any], d: dtype) -> str:
        random = self.random
        kind = random.random() if array.size else 0.0
        if kind < 0.5 or array.ndim == 0:
            return _literal(array, d)
        axis = int(random.integers(array.ndim))
        if kind < 0.7 and array.ndim > 1:
            other = int(random.integers(array.ndim))
            return f"{_literal(array.swapaxes(axis, other), d)}.transpose({axis}, {other})"
        if kind < 0.8:
            first = array[(slice(None),) * axis + (slice(0, 1),)]
            if np.array_equal(np.broadcast_to(first, array.shape), array):
                return f"{_literal(first, d)}.expand({tuple(array.shape)})"
        index = ":, " * axis
        if kind < 0.9:
            return f"{_literal(np.repeat(array, 2, axis), d)}[{index}::2]"
        padded = np.concatenate([array[(slice(None),) * axis + (slice(0, 1),)], array], axis)
        return f"{_literal(padded, d)}[{index}1:]"


def _literal(array: np.ndarray[Any, Any], d: dtype) -> str:
    """`torch.tensor(...)` of a contiguous tensor."""
    values = f"torch.tensor({array.ravel().tolist()!r}, dtype={d!r})"
    return values if array.ndim == 1 else f"{values}.reshape({tuple(array.shape)})"
