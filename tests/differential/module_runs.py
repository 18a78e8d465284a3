"""Runs PyTorch's own sample inputs of modules and optimizers (`module_db`, `optim_db`) in both libraries.

Weights are PyTorch's, handed over as a state dict; compared are results, gradients, buffers and errors, and of
optimizers parameters and state over several steps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sample_runs
import torch
import translation
from sample_runs import Count, described, differing, differing_gradients, gradients, leaves, outcome, short
from torch.testing._internal.common_modules import ModuleErrorEnum
from torch.testing._internal.common_optimizers import OptimizerErrorEnum
from translation import Untranslatable

import graphtorch

STEPS = 4
# Muon's products are bfloat16, whatever the parameters are.
LOOSE = {"Muon": 1e5}


def _value(theirs: Any, seen: dict[int, Any]) -> Any:
    """An argument of a module: modules are built anew, with the weights."""
    if isinstance(theirs, list | tuple) and not hasattr(theirs, "_fields"):
        return type(theirs)(_value(v, seen) for v in theirs)
    if isinstance(theirs, torch.nn.Module):
        raise Untranslatable("a module as an argument")
    return translation.value(theirs, seen)


def _of_class(theirs: type) -> Any:
    """The class of the same name here.

    Raises:
        Untranslatable: there is none.
    """
    place: Any = graphtorch
    for part in [*theirs.__module__.split(".")[1:2], theirs.__name__]:
        place = getattr(place, part, None)
    if place is None:
        raise Untranslatable(theirs.__qualname__)
    return place


def _called(library: Any, module: Any, args: Any, kwargs: Any) -> tuple[list[Any], Any, list[Any]]:
    """Results, gradients of operands and parameters, buffers."""
    library.manual_seed(1)
    results = [r for r in leaves(module(*args, **kwargs)) if isinstance(r, library.Tensor)]
    operands = [args, kwargs, list(module.parameters())]
    return results, gradients(library, results, operands), list(module.buffers())


def run_module(info: Any, dtypes: tuple[Any, ...], backend: str | None = None, most: int | None = None) -> Count:
    """Every sample of a module class in training and in evaluation; compiled, if `backend` is given."""
    count = Count(info.name)
    try:
        ours_class = _of_class(info.module_cls)
    except Untranslatable as error:
        count.missing = str(error)
        return count
    for dtype in dtypes:
        if dtype not in info.supported_dtypes("cpu"):
            continue
        for training in (True, False):
            torch.manual_seed(0)
            samples, error = outcome(
                lambda d=dtype, t=training: list(info.module_inputs_func(info, "cpu", d, True, training=t))
            )
            for sample in (samples or [])[:most] if error is None else []:
                _module_sample(count, info.module_cls, ours_class, sample, dtype, training, backend)
    return count


def _module_sample(
    count: Count, theirs: Any, ours: Any, sample: Any, dtype: Any, training: bool, backend: str | None
) -> None:
    make, call = sample.constructor_input, sample.forward_input
    if call is None:
        return
    text = f"{str(dtype).removeprefix('torch.')} ({described(make.args)}, {make.kwargs}) {described(call.args)}"
    text = f"{text[:200]}{'' if training else ' eval'}"
    try:
        seen: dict[int, Any] = {}
        built = _value(make.args, seen), {k: _value(v, seen) for k, v in make.kwargs.items()}
        operands = _value(call.args, seen), {k: _value(v, seen) for k, v in call.kwargs.items()}
    except Untranslatable as error:
        count.skipped.append(str(error))
        return
    torch.manual_seed(0)
    expected, error = outcome(lambda: theirs(*make.args, **make.kwargs).to(dtype).train(training))
    if error is not None:
        return
    graphtorch.manual_seed(0)
    found, our_error = outcome(lambda: ours(*built[0], **built[1]).to(translation.dtypes()[dtype]).train(training))
    mode = backend or "eager"
    if our_error is not None:
        count.add(mode, text, f"construction: {short(our_error)}")
        return
    lazy = any(isinstance(p, torch.nn.parameter.UninitializedParameter) for p in expected.parameters())
    if not lazy:
        state = {k: v.detach().clone() for k, v in expected.state_dict().items()}
        _, our_error = outcome(lambda: found.load_state_dict(translation.value(state)))
        if our_error is not None:
            count.add(mode, text, f"state dict: {short(our_error)}")
            return
        if repr(found) != repr(expected):
            count.add(mode, text, f"repr {found!r} instead of {expected!r}"[:300])
            return
    theirs_result, error = outcome(lambda: _called(torch, expected, call.args, call.kwargs))

    def mine(args: Any, kwargs: Any) -> Any:
        return _called(graphtorch, found, args, kwargs)

    run = mine if backend is None else _compiled_call(found, backend)
    our_result, our_error = outcome(lambda: run(*operands))
    if error is not None or our_error is not None:
        same = error is not None and our_error is not None and type(error).__name__ == type(our_error).__name__
        if error is None or our_error is None or not same:
            what = "no error" if our_error is None else short(our_error)
            count.add(mode, text, f"{what} instead of {'none' if error is None else short(error)}")
        else:
            count.add(mode, text, None)
        return
    count.add(mode, text, _differing_calls(our_result, theirs_result))


def _compiled_call(module: Any, backend: str) -> Any:
    def call(args: Any, kwargs: Any) -> Any:
        results = [r for r in leaves(module(*args, **kwargs)) if isinstance(r, graphtorch.Tensor)]
        return results, gradients(graphtorch, results, [args, kwargs, list(module.parameters())])

    def run(args: Any, kwargs: Any) -> Any:
        graphtorch.manual_seed(1)
        results, grads = graphtorch.compile(call, backend=backend)(args, kwargs)
        return results, grads, list(module.buffers())

    return run


def _differing_calls(ours: Any, theirs: Any) -> str | None:
    if len(ours[0]) != len(theirs[0]):
        return f"{len(ours[0])} results instead of {len(theirs[0])}"
    for what, found, expected in (("result", ours[0], theirs[0]), ("buffer", ours[2], theirs[2])):
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            text = differing(one.detach(), other.detach(), 4.0)
            if text is not None:
                return f"{what} {i}: {text}"
    return differing_gradients(ours[1], theirs[1], 10.0)


def run_module_errors(info: Any) -> Count:
    """PyTorch's wrong constructions and calls of a module."""
    count = Count(info.name)
    if info.module_error_inputs_func is None:
        return count
    try:
        ours_class = _of_class(info.module_cls)
    except Untranslatable as error:
        count.missing = str(error)
        return count
    for wrong in info.module_error_inputs_func(info, "cpu", torch.float32, False, training=True):
        make, call = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input
        try:
            seen: dict[int, Any] = {}
            built = _value(make.args, seen), {k: _value(v, seen) for k, v in make.kwargs.items()}
            operands = ((), {}) if call is None else (_value(call.args, seen), translation.value(call.kwargs, seen))
        except Untranslatable as error:
            count.skipped.append(str(error))
            continue
        module, ours = outcome(lambda b=built: ours_class(*b[0], **b[1]))
        if wrong.error_on is ModuleErrorEnum.FORWARD_ERROR and ours is None:
            _, ours = outcome(lambda m=module, o=operands: m(*o[0], **o[1]))
        name = wrong.error_type.__name__
        text = None if ours is not None and type(ours).__name__ == name else f"{ours and short(ours)} instead of {name}"
        count.add("error", f"({described(make.args)}, {make.kwargs}): {wrong.error_regex}"[:200], text)
    return count


# -- optimizers -------------------------------------------------------------------------------------------------------


def _weights(complex_numbers: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = [rng.normal(size=shape) for shape in ((3, 4), (4, 4))]
    if complex_numbers:
        return [m + 1j * rng.normal(size=m.shape) for m in made]
    return made


def _trained(library: Any, cls: Any, kwargs: dict[str, Any], weights: list[np.ndarray], backend: str | None) -> Any:
    """Parameters and state after some steps on a loss with a curved minimum."""
    parameters = [library.nn.Parameter(library.from_numpy(w.copy())) for w in weights]
    update = cls(parameters, **kwargs)

    def loss() -> Any:
        update.zero_grad()
        # Smooth and convex: steps of a line search do not depend on rounding.
        squares = [library.view_as_real(p).square() if p.is_complex() else p.square() for p in parameters]
        total = sum((s * (i + 1)).sum() + 0.1 * s.square().sum() for i, s in enumerate(squares))
        total.backward()
        return total

    def step() -> Any:
        return update.step(loss)

    run = step if backend is None else graphtorch.compile(step, backend=backend)
    losses = [float(run()) for _ in range(STEPS)]
    return losses, parameters, update.state_dict()


def run_optimizer(info: Any, backend: str | None = None) -> Count:
    """Every sample of arguments, with each implementation that PyTorch knows, real and complex parameters."""
    count = Count(info.optim_cls.__name__)
    ours_class = getattr(graphtorch.optim, count.name, None)
    if ours_class is None:
        count.missing = count.name
        return count
    if info.only_supports_sparse_grads:
        count.skipped.append("sparse gradients only: tests/optim/test_sparse_gradients.py")
        return count
    for sample in info.optim_inputs_func("cpu"):
        for kind in ("", "foreach", *(("fused",) if "cpu" in info.supports_fused_on else ()), "differentiable"):
            if kind and (kind not in (*info.supported_impls, "fused") or kind in sample.kwargs):
                continue
            for complex_numbers in (False, True) if info.supports_complex and not kind else (False,):
                kwargs = {**sample.kwargs, **({kind: True} if kind else {})}
                if kind == "differentiable":
                    continue  # its steps are meant to be differentiated: tests/optim/test_optimizers.py
                weights = _weights(complex_numbers)
                expected, error = outcome(lambda k=kwargs, w=weights: _trained(torch, info.optim_cls, k, w, None))
                if error is not None:
                    continue
                text = f"{sample.desc}{' ' + kind if kind else ''}{' complex' if complex_numbers else ''}"
                ours = translation.value(kwargs)
                found, error = outcome(lambda k=ours, w=weights: _trained(graphtorch, ours_class, k, w, backend))
                loose = LOOSE.get(count.name, 1.0)
                difference = short(error) if error is not None else _differing_training(found, expected, loose)
                count.add(backend or "eager", text, difference)
    return count


def _differing_training(found: Any, expected: Any, loose: float) -> str | None:
    if not np.allclose(found[0], expected[0], rtol=1e-7 * loose):
        return f"losses {found[0]} instead of {expected[0]}"
    for i, (one, other) in enumerate(zip(found[1], expected[1], strict=True)):
        text = differing(one, other, loose)
        if text is not None:
            return f"parameter {i}: {text}"
    ours, theirs = found[2], expected[2]
    if [sorted(g) for g in ours["param_groups"]] != [sorted(g) for g in theirs["param_groups"]]:
        return f"param_groups {ours['param_groups']} instead of {theirs['param_groups']}"[:300]
    for index, state in theirs["state"].items():
        mine = ours["state"].get(index, {})
        if sorted(mine) != sorted(state):
            return f"state {sorted(mine)} instead of {sorted(state)}"
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and isinstance(mine[key], graphtorch.Tensor):
                text = differing(mine[key], value, loose)
                if text is not None:
                    return f"state {key}: {text}"
    return None


def run_optimizer_errors(info: Any) -> Count:
    """PyTorch's wrong arguments of an optimizer."""
    count = Count(info.optim_cls.__name__)
    ours_class = getattr(graphtorch.optim, count.name, None)
    if ours_class is None or info.optim_error_inputs_func is None:
        return count
    for wrong in info.optim_error_inputs_func("cpu", torch.float32):
        given = wrong.optimizer_error_input
        params = given.params
        if params is None:
            params = [torch.nn.Parameter(torch.randn(2, 3))]
        try:
            ours = translation.value(params), translation.value(given.kwargs)
        except Untranslatable as error:
            count.skipped.append(str(error))
            continue
        if isinstance(params, list):
            for one, other in zip(ours[0], params, strict=True):
                if isinstance(other, torch.Tensor) and other.grad is not None:
                    one.grad = translation.tensor(other.grad)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # one of the wrong calls is answered by a warning
            try:
                made, error = ours_class(ours[0], **ours[1]), None
            except Exception as raised:
                made, error = None, raised
        if error is None and wrong.error_on is OptimizerErrorEnum.STEP_ERROR:
            _, error = outcome(made.step)
        name = wrong.error_type.__name__
        text = None if error is not None and type(error).__name__ == name else f"{error and short(error)}, not {name}"
        count.add("error", given.desc, text)
    return count


total = sample_runs.total
