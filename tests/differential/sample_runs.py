"""Runs PyTorch's own sample inputs of operators (`torch.testing._internal`: `op_db`) in both libraries.

Results, gradients, in-place forms, methods, `out=`, errors; and the same calls under `@compile`. Needs PyTorch and the
package `expecttest`, which PyTorch's tables import."""

from __future__ import annotations

import functools
import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import translation
from translation import Untranslatable, flat

import graphtorch

# Relative and absolute tolerance; the latter is a part of the largest expected element or of 1.
TOLERANCES = {
    "float16": (2e-3, 2e-3), "bfloat16": (1.6e-2, 1.6e-2), "float32": (2e-5, 2e-5), "complex64": (3e-5, 3e-5),
    "float64": (1e-7, 1e-7), "complex128": (1e-7, 1e-7),
}  # fmt: skip


@dataclass
class Difference:
    """A sample on which the libraries do not agree."""

    name: str
    mode: str
    sample: str
    text: str

    def __str__(self) -> str:
        return f"{self.name} [{self.mode}] {self.sample}: {self.text}"


@dataclass
class Count:
    """What was run of an operator, a module or an optimizer, and what differed."""

    name: str
    runs: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    missing: str = ""
    skipped: list[str] = field(default_factory=list)

    def add(self, mode: str, sample: str, difference: str | None) -> None:
        self.runs[mode] = self.runs.get(mode, 0) + 1
        if difference is not None:
            self.differences.append(Difference(self.name, mode, sample, difference))


def wide(values: np.ndarray) -> np.ndarray:
    """In a type that NumPy can subtract."""
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def differing_values(found: np.ndarray, expected: np.ndarray, dtype: str, factor: float = 1.0) -> str | None:
    """How far the values lie apart, if too far."""
    a, b = wide(found), wide(expected)
    relative, absolute = (factor * t for t in TOLERANCES.get(dtype, (0.0, 0.0)))
    with np.errstate(all="ignore"):
        finite = np.abs(b[np.isfinite(b)])
        scale = max(1.0, float(finite.max())) if finite.size and relative else 1.0
        near = np.isclose(a, b, rtol=relative, atol=absolute * scale, equal_nan=True)
    if near.all():
        return None
    where = tuple(int(i) for i in np.argwhere(~near)[0])
    return f"{int((~near).sum())} of {near.size} values, at {where} {a[where]} instead of {b[where]}"


def differing(found: Any, expected: Any, factor: float = 1.0) -> str | None:
    """What is different of two results, or None."""
    if not isinstance(expected, torch.Tensor):
        if isinstance(expected, torch.dtype):
            expected = translation.value(expected)
        same = found == expected or (found != found and expected != expected)
        return None if same else f"{found!r} instead of {expected!r}"
    if not isinstance(found, graphtorch.Tensor):
        return f"{type(found).__name__} instead of a tensor"
    if expected.layout is not torch.strided or expected.dtype not in translation.dtypes():
        return None
    for what in ("dtype", "shape", "requires_grad"):
        ours, theirs = getattr(found, what), getattr(expected, what)
        if what == "shape":
            ours, theirs = tuple(ours), tuple(theirs)
        if str(ours) != str(theirs):
            return f"{what} {ours} instead of {theirs}"
    dtype = str(expected.dtype).removeprefix("torch.")
    return differing_values(found.detach()._data, translation.array(expected), dtype, factor)


def leaves(result: Any) -> list[Any]:
    """Tensors and numbers of a result."""
    return [v for v in flat(result) if v is not None]


def described(value: Any) -> str:
    """An argument in a few words."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(described(v) for v in value) + ")"
    return repr(value)[:60]


def text_of(sample: Any) -> str:
    """A sample's arguments in a few words."""
    named = (f"{k}={described(v)}" for k, v in sample.kwargs.items())
    return ", ".join((described(sample.input), *map(described, sample.args), *named))[:240]


def outcome(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """The result or the exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(), None
    except Exception as error:
        return None, error


def short(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0][:160] if first else ''}"


# -- eager ------------------------------------------------------------------------------------------------------------


@dataclass
class Pair:
    """A sample in both libraries, as fresh copies of its operands each time."""

    sample: Any

    def theirs(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        copies: dict[int, Any] = {}

        def copied(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                if id(value) not in copies:
                    copies[id(value)] = value.detach().clone().requires_grad_(value.requires_grad)
                return copies[id(value)]
            if isinstance(value, list | tuple) and not hasattr(value, "_fields") and not isinstance(value, torch.Size):
                return type(value)(copied(v) for v in value)
            return {k: copied(v) for k, v in value.items()} if isinstance(value, dict) else value

        return copied(self.sample.input), copied(self.sample.args), copied(self.sample.kwargs)

    def ours(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        seen: dict[int, Any] = {}
        s = self.sample
        return (
            translation.value(s.input, seen),
            translation.value(s.args, seen),
            translation.value(s.kwargs, seen),
        )


def gradients(library: Any, results: list[Any], operands: Any) -> list[Any] | None:
    """Of the sum of all results that carry one, weighted unevenly, with respect to the operands."""
    wanted = [t for t in flat(operands) if isinstance(t, library.Tensor) and t.requires_grad]
    wanted = list({id(t): t for t in wanted}.values())
    outputs = [r for r in results if isinstance(r, library.Tensor) and r.requires_grad]
    if not wanted or not outputs:
        return None
    weights = []
    for output in outputs:
        count = np.arange(output.numel(), dtype=np.float64).reshape(tuple(output.shape))
        weights.append(library.from_numpy(0.5 + np.cos(count)).to(output.dtype))
    return list(library.autograd.grad(outputs, wanted, weights, allow_unused=True))


def differing_gradients(found: Any, expected: Any, factor: float) -> str | None:
    """None stands for zeros on either side."""
    if found is None or expected is None:
        return None if found is expected else "one library has gradients and the other has none"
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours is None and theirs is None:
            continue
        if ours is None or theirs is None:
            other = theirs if ours is None else ours
            if bool((other != 0).any()):
                return f"gradient {i} is {'absent' if ours is None else 'there'}"
            continue
        text = differing(ours.detach(), theirs.detach(), factor)
        if text is not None:
            return f"gradient {i}: {text}"
    return None


# Which of several equal elements comes first is not said (but for `stable=True`), so that positions may differ.
ORDERED = frozenset({"argsort", "kthvalue", "mode", "msort", "sort", "topk"})
# Their memory is not initialised.
UNINITIALISED = frozenset({"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"})


def _has_equals(sample: Any) -> bool:
    """Whether elements of the operand are equal, so that their order is open."""
    return isinstance(sample.input, torch.Tensor) and sample.input.unique().numel() < sample.input.numel()


def exact(theirs: Callable[..., Any], sample: Any, process: bool) -> tuple[list[Any], list[Any] | None]:
    """PyTorch's results and gradients in double precision, from the same numbers."""
    doubled: dict[int, Any] = {}

    def double(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex()):
            if id(value) not in doubled:
                wider = torch.complex128 if value.is_complex() else torch.float64
                doubled[id(value)] = value.detach().to(wider).requires_grad_(value.requires_grad)
            return doubled[id(value)]
        if isinstance(value, list | tuple) and not hasattr(value, "_fields") and not isinstance(value, torch.Size):
            return type(value)(double(v) for v in value)
        if isinstance(value, torch.dtype):
            return {torch.complex64: torch.complex128}.get(value, torch.float64 if value.is_floating_point else value)
        return {k: double(v) for k, v in value.items()} if isinstance(value, dict) else value

    operands = double(sample.input), double(sample.args), double(sample.kwargs)
    torch.manual_seed(0)
    result = theirs(operands[0], *operands[1], **operands[2])
    results = leaves(sample.output_process_fn_grad(result) if process else result)
    return results, gradients(torch, results, operands)


def is_rounding(found: list[Any], expected: list[Any], truth: list[Any] | None) -> bool:
    """Whether each result here lies about as near to the exact ones as PyTorch's does."""
    if truth is None or len(truth) != len(found):
        return False
    for ours, theirs, real in zip(found, expected, truth, strict=True):
        if not isinstance(theirs, torch.Tensor) or not (theirs.is_floating_point() or theirs.is_complex()):
            continue
        if ours is None or theirs is None or real is None:
            continue
        a, b = wide(ours.detach()._data), wide(translation.array(theirs.detach()))
        c = wide(translation.array(real.detach()))
        with np.errstate(all="ignore"):
            error, allowed = np.abs(a - c), np.abs(b - c)
        relative, absolute = TOLERANCES.get(str(theirs.dtype).removeprefix("torch."), (0.0, 0.0))
        limit = 2 * np.max(allowed, initial=0.0, where=np.isfinite(allowed)) + absolute + relative * np.abs(c)
        if not np.all((error <= limit) | ~np.isfinite(b) | ~np.isfinite(c)):
            return False
    return True


def compare(ours: Callable[..., Any], theirs: Callable[..., Any], pair: Pair, process: bool, name: str) -> Any:
    """The difference of a call and of its gradient (None if there is none), or Untranslatable's text as a list."""
    factor = 1.0
    expected_operands = pair.theirs()
    torch.manual_seed(0)
    a, k = expected_operands[1], expected_operands[2]
    expected, error = outcome(lambda: theirs(expected_operands[0], *a, **k))
    operands = pair.ours()
    graphtorch.manual_seed(0)
    found, our_error = outcome(lambda: ours(operands[0], *operands[1], **operands[2]))
    if error is not None:
        if our_error is None:
            return [f"PyTorch raises {short(error)}"]
        same = type(error).__name__ == type(our_error).__name__
        return None if same else f"{short(our_error)} instead of {short(error)}"
    if our_error is not None:
        return short(our_error)
    if process:
        # Of what is unique only up to a sign or a basis, PyTorch's tests look at what is unique.
        handle = pair.sample.output_process_fn_grad
        expected, found = handle(expected), translation.function(handle)(found)
    results, theirs_results = leaves(found), leaves(expected)
    if len(results) != len(theirs_results):
        return f"{len(results)} results instead of {len(theirs_results)}"
    open_order = name in ORDERED and _has_equals(pair.sample)

    def rounded(position: int, found: list[Any], expected: list[Any]) -> bool:
        truth, error = outcome(lambda: exact(theirs, pair.sample, process)[position])
        return error is None and is_rounding(found, expected, truth)

    for i, (one, other) in enumerate(zip(results, theirs_results, strict=True)):
        text = differing(one, other, factor)
        if text is not None and name in UNINITIALISED and "values" in text:
            return None
        if text is not None and open_order and other.dtype is torch.int64 and "values" in text:
            return None  # whose gradients go to other places, too
        if text is not None and not ("values" in text and rounded(0, results, theirs_results)):
            return text if len(results) == 1 else f"result {i}: {text}"
    if open_order:
        return None
    grads, error = outcome(lambda: gradients(torch, theirs_results, expected_operands))
    if error is not None:
        return None
    our_grads, our_error = outcome(lambda: gradients(graphtorch, results, operands))
    if our_error is not None:
        return "gradient: " + short(our_error)
    text = differing_gradients(our_grads, grads, factor)
    if text is not None and "values" in text and rounded(1, our_grads, grads):
        return None
    return text


def counterpart(info: Any) -> Callable[..., Any]:
    """The operator here.

    Raises:
        Untranslatable: there is none.
    """
    try:
        return translation.function(info.op)
    except Untranslatable:
        place: Any = graphtorch
        for part in info.name.removeprefix("ops.").split("."):
            place = getattr(place, part, None)
        if place is None:
            place = getattr(graphtorch.Tensor, info.name, None)
        if place is None:
            raise
        return place


def title(info: Any) -> str:
    return info.name + (f" ({info.variant_test_name})" if info.variant_test_name else "")


def in_place_form(library: Any, method: str) -> Callable[..., Any]:
    """Calls a method of a computed copy: leaves may not be changed."""

    def call(input: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(input * 1 if input.dtype is not library.bool else input.clone(), method)(*args, **kwargs)

    return call


def with_out(op: Callable[..., Any], library: Any) -> Callable[..., Any]:
    """Calls with an empty `out=` for each result, and returns these."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = op(*args, **kwargs)
        single = isinstance(result, library.Tensor)
        outs = tuple(library.empty(0, dtype=r.dtype) for r in ((result,) if single else result))
        op(*args, **kwargs, out=outs[0] if single else outs)
        return outs

    return call


def forms(info: Any) -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    """The forms of an operator beside the function: name, ours, PyTorch's."""
    name = getattr(info.method_variant, "__name__", None)
    if name and not name.startswith("<") and hasattr(graphtorch.Tensor, name):
        yield "method", getattr(graphtorch.Tensor, name), info.method_variant
    name = getattr(info.inplace_variant, "__name__", None)
    if name and not name.startswith("<"):
        yield "in place", in_place_form(graphtorch, name), in_place_form(torch, name)


def samples_of(info: Any, dtype: Any, requires_grad: bool, most: int | None) -> list[Any]:
    """PyTorch's samples; a table that does not work for a dtype has none."""
    torch.manual_seed(0)
    listed, error = outcome(lambda: list(itertools.islice(info.sample_inputs("cpu", dtype, requires_grad), most)))
    return [] if error is not None else listed


def run_eager(info: Any, wanted: tuple[Any, ...], most: int | None) -> Count:
    """All samples of an operator in the dtypes wanted, as far as PyTorch and this library have them."""
    count = Count(title(info))
    try:
        op = counterpart(info)
    except Untranslatable as error:
        count.missing = str(error)
        return count
    for dtype in wanted:
        if dtype not in info.supported_dtypes("cpu"):
            continue
        differentiable = info.supports_autograd and dtype in info.supported_backward_dtypes("cpu")
        for index, sample in enumerate(samples_of(info, dtype, differentiable, most)):
            pair, text = Pair(sample), text_of(sample)
            todo = [("eager", op, info.op)]
            if index < 3:
                todo += forms(info)
            if index < 2 and info.supports_out and not differentiable:
                todo.append(("out=", with_out(op, graphtorch), with_out(info.op, torch)))
            for mode, ours, theirs in todo:
                if mode == "in place" and sample.broadcasts_input:
                    continue
                try:
                    found = compare(ours, theirs, pair, mode == "eager", info.name)
                except Untranslatable as error:
                    count.skipped.append(str(error))
                    continue
                if isinstance(found, list):
                    count.skipped.extend(found)
                else:
                    count.add(mode, text, found)
    return count


def run_errors(info: Any) -> Count:
    """PyTorch's wrong calls of an operator: the class of the exception must be the same."""
    count = Count(title(info))
    if info.error_inputs_func is None:
        return count
    try:
        op = counterpart(info)
    except Untranslatable as error:
        count.missing = str(error)
        return count
    listed, error = outcome(lambda: list(info.error_inputs("cpu")))
    for wrong in listed if error is None else []:
        sample = wrong.sample_input
        operands = Pair(sample).theirs()
        _, theirs = outcome(functools.partial(info.op, operands[0], *operands[1], **operands[2]))
        if theirs is None:
            continue
        try:
            operands = Pair(sample).ours()
        except Untranslatable as reason:
            count.skipped.append(str(reason))
            continue
        _, ours = outcome(functools.partial(op, operands[0], *operands[1], **operands[2]))
        if ours is None:
            text = f"no error instead of {short(theirs)}"
        elif type(ours).__name__ != type(theirs).__name__:
            text = f"{short(ours)} instead of {short(theirs)}"
        else:
            text = None
        count.add("error", text_of(sample), text)
    return count


# -- compiled ---------------------------------------------------------------------------------------------------------


def tensors_in(value: Any) -> list[Any]:
    return [t for t in flat(value) if isinstance(t, graphtorch.Tensor)]


def differing_runs(found: list[Any], expected: list[Any], factor: float) -> str | None:
    """Compiled against eager: both are this library's."""
    if len(found) != len(expected):
        return f"{len(found)} results instead of {len(expected)}"
    for i, (ours, eager) in enumerate(zip(found, expected, strict=True)):
        if ours is None or eager is None:  # no gradient is one of zeros
            other = eager if ours is None else ours
            if other is not None and bool((other != 0).any()):
                return f"result {i}: {ours} instead of {eager}"
            continue
        if not isinstance(eager, graphtorch.Tensor):
            if type(ours) is not type(eager) or not (ours == eager or ours != ours):
                return f"result {i}: {ours!r} instead of {eager!r}"
            continue
        for what in ("dtype", "shape"):
            if getattr(ours, what) != getattr(eager, what):
                return f"result {i}: {what} {getattr(ours, what)} instead of {getattr(eager, what)}"
        dtype = str(eager.dtype).removeprefix("torch.")
        text = differing_values(ours.detach()._data, eager.detach()._data, dtype, factor)
        if text is not None:
            return f"result {i}: {text}"
    return None


def run_compiled(info: Any, backend: str, wanted: tuple[Any, ...], most: int, factor: float = 1.0) -> Count:
    """A few samples an operator, forward and gradient in one compiled function, against eager execution."""
    count = Count(title(info))
    try:
        op = counterpart(info)
    except Untranslatable as error:
        count.missing = str(error)
        return count
    if info.name in UNINITIALISED:
        return count
    supported = [d for d in wanted if d in info.supported_dtypes("cpu")]
    for dtype in supported:
        differentiable = info.supports_autograd and dtype in info.supported_backward_dtypes("cpu")
        listed = samples_of(info, dtype, differentiable, 40)
        with translation.without_seeding():
            for sample in listed[:: max(1, len(listed) // most)][:most]:
                _compiled_sample(count, op, sample, backend, factor)
    return count


def _compiled_sample(count: Count, op: Callable[..., Any], sample: Any, backend: str, factor: float) -> None:
    handle = translation.function(sample.output_process_fn_grad)

    def whole(input: Any, args: Any, kwargs: Any) -> list[Any]:
        results = leaves(handle(op(input, *args, **kwargs)))
        return results + (gradients(graphtorch, results, (input, args, kwargs)) or [])

    pair, text = Pair(sample), text_of(sample)
    try:
        operands, again = pair.ours(), pair.ours()
    except Untranslatable as error:
        count.skipped.append(str(error))
        return
    graphtorch.manual_seed(0)
    expected, error = outcome(lambda: whole(*operands))
    if error is not None:
        return
    graphtorch.manual_seed(0)
    found, failure = outcome(lambda: graphtorch.compile(whole, backend=backend, fullgraph=True)(*again))
    if failure is not None:
        count.skipped.append(f"not one graph: {short(failure)}")
        graphtorch.manual_seed(0)
        again = pair.ours()
        found, failure = outcome(lambda: graphtorch.compile(whole, backend=backend)(*again))
    if failure is not None:
        count.add(backend, text, short(failure))
        return
    difference = differing_runs(found, expected, factor)
    changed = differing_runs(tensors_in(again), tensors_in(operands), factor)
    count.add(backend, text, difference or (changed and f"operands: {changed}"))


def total(counts: list[Count]) -> Count:
    """All in one."""
    whole = Count("all")
    for count in counts:
        for mode, runs in count.runs.items():
            whole.runs[mode] = whole.runs.get(mode, 0) + runs
        whole.differences += count.differences
        whole.skipped += count.skipped
    return whole


def without_sample(difference: Difference) -> str:
    """What many differences of an operator have in common: the form, and the text without its numbers."""
    return difference.mode + re.sub(r"[-+]?[0-9][0-9.e+-]*j?", "", difference.text)[:60]
