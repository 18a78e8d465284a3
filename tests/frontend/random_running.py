"""Random programs: what one is, how it runs eagerly and compiled, what a user sees of it, and how a failure shrinks.

A program is text, so that a failure prints as a script. `random_program` and `random_training` write programs."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import textwrap
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import graphtorch as torch

HEADER = """
import copy, dataclasses
import numpy as np
import graphtorch as torch
from graphtorch import func, nn, optim
from graphtorch.nn import functional as F

def data(seed, shape, dtype="float32"):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return torch.tensor(rng.random(shape) < 0.5)
    if dtype == "int64":
        return torch.tensor(rng.integers(-3, 4, shape))
    return torch.tensor(rng.uniform(-2, 2, shape)).to(getattr(torch, dtype))

class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x * x * factor

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * x * g * ctx.factor, None

@dataclasses.dataclass
class Pair:
    first: torch.Tensor
    second: object = None
"""


@dataclass(frozen=True)
class Program:
    """The text of one test. `backward` says after which calls the results are differentiated outside of the function,
    `watched` are expressions for what else of the state is compared.

    setup        statements that make the state; run before `def f`
    parameters   the function's parameters
    body         its statements, each of one or more lines
    results      the expressions that it returns
    calls        the arguments of each call, as text; earlier results are `out`
    between      statements before the call of that number
    """

    setup: tuple[str, ...]
    parameters: tuple[str, ...]
    body: tuple[str, ...]
    results: tuple[str, ...]
    calls: tuple[str, ...]
    between: tuple[tuple[int, str], ...] = ()
    backward: tuple[int, ...] = ()
    loose: bool = False
    watched: tuple[str, ...] = ()

    def function(self) -> str:
        body = "\n".join([*self.body, f"return [{', '.join(self.results)}]"])
        return f"def f({', '.join(self.parameters)}):\n{textwrap.indent(body, '    ')}\n"

    def script(self) -> str:
        """The whole program as a script for one mode."""
        lines = [HEADER, *self.setup, self.function(), "f = torch.compile(f)  # or not", "out = []"]
        for i, call in enumerate(self.calls):
            lines += [s for n, s in self.between if n == i]
            lines += [f"out.append(f({call}))", "print(out[-1])"]
            if i in self.backward:
                lines.append("sum(t.double().sum() for t in out[-1] if t.requires_grad).backward()")
        return "\n".join(lines)

    def smaller(self) -> list[Program]:
        """Programs with one thing less, for shrinking."""
        found: list[Program] = []
        for name in ("calls", "between", "backward", "results", "body", "setup"):
            held = getattr(self, name)
            for i in reversed(range(len(held))):
                if name in ("calls", "results") and len(held) == 1:
                    continue
                if name == "calls" and i == 0:
                    continue
                rest = held[:i] + held[i + 1 :]
                if name == "body" and "\n" in held[i]:
                    inner = held[i].split("\n", 1)[1]
                    found.append(replace(self, body=(*held[:i], textwrap.dedent(inner), *held[i + 1 :])))
                found.append(replace(self, **{name: rest}))
        return found


# -- running ----------------------------------------------------------------------------------------------------------


DEVICES = {"triton": "cuda", "eager": "cuda"}  # where the tensors of programs lie, if not in the host's memory


def execute(program: Program, backend: str | None, check: bool = False, device: str = "cpu") -> list[Any]:
    """What each call of a run shows: ("raised", class) or an observation of results and state."""
    with torch.device(device):
        return _execute(program, backend, check, device)


def _execute(program: Program, backend: str | None, check: bool, device: str) -> list[Any]:
    torch.manual_seed(11)
    scope: dict[str, Any] = {"__name__": "program"}
    sys.modules["program"] = types.ModuleType("program")  # where dataclasses look for the module of a class
    exec(HEADER, scope)
    for line in program.setup:
        exec(line, scope)
    exec(program.function(), scope)
    if backend is not None:
        scope["f"] = torch.compile(scope["f"], backend=backend, check=check)
    scope["out"] = out = []
    seen: list[Any] = []
    for i, call in enumerate(program.calls):
        try:
            for number, statement in program.between:
                if number == i:
                    exec(statement, scope)
        except Exception as error:
            seen.append(("raised between", type(error).__name__, str(error)))
            break
        try:
            out.append(eval(f"f({call})", scope))
        except Exception as error:
            seen.append(("raised", type(error).__name__, str(error)))
            break
        try:
            if i in program.backward:
                roots = [t for t in out[-1] if isinstance(t, torch.Tensor) and t.requires_grad]
                if roots:
                    sum(t.double().sum() for t in roots).backward()
        except Exception as error:
            seen.append(("raised in backward", type(error).__name__, str(error)))
            break
        seen.append(observe(scope, program, out, device))
    return seen


def observe(scope: dict[str, Any], program: Program, out: list[Any], device: str) -> dict[str, Any]:
    """Every tensor that the user can see, with values, flags and how they share memory."""
    tensors: dict[str, Any] = {}
    for i, results in enumerate(out):
        tensors.update(_parts(f"out[{i}]", results))
    for expression in program.watched:
        with contextlib.suppress(NameError):  # a shrinking step took it away
            tensors.update(_parts(expression, eval(expression, scope)))
    for name, value in list(tensors.items()):
        if isinstance(value, torch.Tensor) and _is_leaf(value) is True and not value.is_complex():
            tensors[f"{name}.grad"] = value.grad
    shown: dict[str, Any] = {"generator": torch.get_rng_state().numpy().copy()}
    if device != "cpu":
        shown["the device's generator"] = torch.cuda.get_rng_state().numpy().copy()
    places: dict[str, _Place] = {}
    for name, value in tensors.items():
        if isinstance(value, torch.Tensor):
            held = value.detach()
            places[name] = _Place(held)
            held = held.cpu()
            shown[name] = (
                f"{value.dtype}{'' if value.device.type == 'cpu' else ' ' + str(value.device)}", tuple(value.shape),
                _strides(value), value.requires_grad, _is_leaf(value),
                held.double().numpy().copy() if value.is_floating_point() else held.numpy().copy(),
            )  # fmt: skip
        else:
            shown[name] = (type(value).__name__, value)
    names = list(places)
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            a, b = places[first], places[second]
            if tensors[first] is tensors[second]:
                shown[f"{first}, {second}"] = "is"
            elif a.start < b.end and b.start < a.end:
                spread = a.spread or b.spread  # eager gradients of sums, for instance
                shown[f"{first}, {second}"] = ("shares", None if spread else a.start - b.start)
    return shown


class _Place:
    """The bytes of memory between a tensor's first and its last element. Empty ones begin behind their end.

    spread  whether elements lie at the same place"""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.start = tensor.data_ptr()
        steps = [(n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
        self.end = self.start + (sum(steps) + 1) * tensor.element_size() if tensor.numel() else self.start - 1
        self.spread = 0 in tensor.stride()


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Steps in memory; what has at most one element along a dimension has none there."""
    return tuple(s if n > 1 else 0 for s, n in zip(tensor.stride(), tensor.shape, strict=True) if tensor.numel())


def _is_leaf(tensor: torch.Tensor) -> bool | str:
    try:
        return tensor.is_leaf
    except RuntimeError:
        return "a view made under no_grad, changed since"


def _parts(name: str, value: Any) -> dict[str, Any]:
    """The tensors and scalars of nested containers, by where they are."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in _parts(f"{name}[{key!r}]", value[key]).items()}
    if isinstance(value, list | tuple):
        return {k: v for i, item in enumerate(value) for k, v in _parts(f"{name}[{i}]", item).items()}
    if dataclasses.is_dataclass(value):
        return _parts(name, vars(value))
    return {name: value}


DATA = ("is out of bounds for dimension", "ZeroDivisionError")  # errors that elements make


def difference(actual: list[Any], expected: list[Any], bound: float, on_device: bool = False) -> str | None:
    """What differs between two runs, in words; None for nothing."""
    for i, (a, e) in enumerate(zip(actual, expected, strict=False)):
        if isinstance(a, tuple) or isinstance(e, tuple):
            both = isinstance(e, tuple) and isinstance(a, tuple) and a[0] == e[0]
            if both and (e[1] == "IndexError" or any(text in e[2] for text in DATA)):
                return None  # a bad element, and later in the program what a capture sees at once
            if on_device and not isinstance(a, tuple) and e[1] == "IndexError":
                return None  # a GPU's kernels read nothing out of range, and do not raise
            if isinstance(a, tuple) and a[1] == "CheckError":
                return ValueDifference(f"call {i}: {_outcome(a)}")
            if not (isinstance(a, tuple) and isinstance(e, tuple)) or (a[0], _class(a)) != (e[0], _class(e)):
                return f"call {i}: {_outcome(a)}, eager: {_outcome(e)}"
            continue
        for key in (*e, *(k for k in a if k not in e)):
            if key not in a or key not in e:
                return f"call {i}: {key}: {a.get(key, 'nothing')}, eager: {e.get(key, 'nothing')}"
            if not _same(a[key], e[key], bound):
                kind = ValueDifference if _same_but_for_values(a[key], e[key]) else str
                return kind(f"call {i}: {key}: {a[key]}\neager: {e[key]}")
    return None if len(actual) == len(expected) else f"{len(actual)} calls, eager: {len(expected)}"


class ValueDifference(str):
    """The same kind of tensor with other numbers in it, or another float."""


def _same_but_for_values(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple) and a[:1] == b[:1] == ("float",):
        return True
    if not (isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) == 6 and a[:5] == b[:5]):
        return False
    return isinstance(a[5], np.ndarray) and a[5].dtype.kind in "fi" and a[5].shape == b[5].shape


def _class(seen: tuple[Any, ...]) -> Any:
    return "RuntimeError" if seen[1] == "CaptureError" else seen[1]


def _outcome(seen: Any) -> str:
    return " ".join(map(str, seen)) if isinstance(seen, tuple) else "returned"


def _same(a: Any, b: Any, bound: float) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.dtype.kind != "f":
            return bool(np.array_equal(a, b))
        finite = np.abs(b[np.isfinite(b)])
        size = finite.max() if finite.size else 0.0
        with np.errstate(all="ignore"):
            return bool(np.allclose(a, b, rtol=bound, atol=bound * max(size, 1e-3), equal_nan=True))
    if isinstance(a, tuple) and isinstance(b, tuple):
        if a[:1] == b[:1] == ("shares",):
            return None in (a[1], b[1]) or bool(a[1] == b[1])
        return len(a) == len(b) and all(_same(x, y, bound) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= 1e-4 * max(abs(a), abs(b)) or (a != a and b != b)
    return bool(type(a) is type(b) and a == b)


def failure(program: Program, backend: str, check: bool = False) -> str | None:
    """How a compiled run differs from the eager one; for the backend "eager" how eager execution on a CUDA device
    differs from that on the CPU, for programs that draw no numbers. `check` compiles with `check=True`.

    Rounding errors can grow to any size (1 - tanh(x)**2, exp(exp(x)) in bfloat16), and `.long()` makes ones of them. So
    where nothing but numbers differ, the same program in double precision decides, with bounds as much tighter as that
    is more exact."""
    found = _failure(program, backend, check)
    if isinstance(found, ValueDifference):
        doubled = in_double(program)
        if doubled != program and _failure(doubled, backend, check, 1e-9) is None:
            ROUNDING.append(program)
            return None
        if swaps_saved_data(program, DEVICES.get(backend, "cpu")):
            return None
    return found


def swaps_saved_data(program: Program, device: str = "cpu") -> bool:
    """Whether `p.data = ...` gives a tensor other elements that a later backward pass reads as those of the forward.
    Autograd does not notice, and what comes out is no gradient of anything. In place, where it does notice, the same
    change is an error."""
    noticed = tuple(
        (n, re.sub(r"^(\w+)\.data = (.*)$", r"with torch.no_grad(): \1.copy_(\2)", text)) for n, text in program.between
    )
    if noticed == program.between:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            seen = execute(replace(program, between=noticed), None, device=device)
        except Exception:
            return False
        finally:
            _reset_modes()
    return any(isinstance(each, tuple) and "modified by an inplace" in each[2] for each in seen)


ROUNDING: list[Program] = []  # programs that differ by grown rounding errors
NO_PROGRAMS: list[Program] = []  # what eager execution can't run


def in_double(program: Program) -> Program:
    """The program with float64 wherever it says another floating-point dtype."""

    def of(text: str) -> str:
        for name in ("float32", "float16", "bfloat16"):
            text = text.replace(f"'{name}'", "'float64'")
        for name in (".float()", ".half()", ".bfloat16()"):
            text = text.replace(name, ".double()")
        text = text.replace("dtype=torch.bfloat16", "dtype=torch.bfloat16, enabled=False")
        return text.replace("torch.tensor(3.0)", "torch.tensor(3.0).double()")

    return replace(
        program,
        **{name: tuple(map(of, getattr(program, name))) for name in ("setup", "body", "calls")},
        between=tuple((n, of(text)) for n, text in program.between),
        loose=False,
    )


def _failure(program: Program, backend: str, check: bool, bound: float | None = None) -> str | None:
    device = DEVICES.get(backend, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = execute(program, None, device="cpu" if backend == "eager" else device)
        except Exception:
            NO_PROGRAMS.append(program)  # a shrinking step took away something needed
            return None
        finally:
            _reset_modes()
        if any(isinstance(e, tuple) and ("NameError" in e[1] or "MemoryError" in e[1]) for e in expected):
            NO_PROGRAMS.append(program)
            return None
        try:
            actual = execute(program, None if backend == "eager" else backend, check, device)
        finally:
            _reset_modes()
    if backend == "eager":
        fresh = torch.manual_seed(11).get_state().numpy()
        if any(isinstance(e, dict) and (e["generator"] != fresh).any() for e in expected):
            return None  # the two have generators of their own
        actual = [_elsewhere(a) for a in actual]
    return difference(actual, expected, bound or (0.05 if program.loose else 2e-4), device != "cpu")


def _elsewhere(seen: Any) -> Any:
    """What a run on a device shows, as if it had been on the CPU."""
    if isinstance(seen, tuple):
        return seen
    place = re.compile(r" cuda:\d+$")
    return {
        k: (place.sub("", v[0]), *v[1:]) if isinstance(v, tuple) and isinstance(v[0], str) else v
        for k, v in seen.items() if k != "the device's generator"
    }  # fmt: skip


def _reset_modes() -> None:
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)


def shrink(
    program: Program, backend: str, same: Callable[[str], bool] = lambda text: True, check: bool = False
) -> Program:
    """A program that fails likewise and has nothing to leave out."""
    while True:
        for candidate in program.smaller():
            found = failure(candidate, backend, check)
            if found is not None and same(found):
                program = candidate
                break
        else:
            return program
