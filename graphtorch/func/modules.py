"""Modules as functions of their parameters. See https://docs.pytorch.org/docs/stable/func.api.html."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphtorch.autograd.state import state
from graphtorch.nn import Module
from graphtorch.ops.build import FUNCTIONS
from graphtorch.tensor.tensor import Tensor


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with other parameters and buffers in place of its own, by name. See torch.func.functional_call.

    tie_weights  a value for one of several names of one parameter stands for all of them.
    strict       every parameter and buffer must be given, and nothing else.

    Raises ValueError for two values of one name or of tied names, and RuntimeError, if `strict`, for names that are
    missing or unknown. Buffers that the module replaces by assignment are put back at the end.
    """
    given: dict[str, Tensor] = {}
    for mapping in (
        (parameter_and_buffer_dicts,) if isinstance(parameter_and_buffer_dicts, Mapping) else parameter_and_buffer_dicts
    ):
        if not isinstance(mapping, Mapping):
            raise ValueError(
                "Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
                f"{type(parameter_and_buffer_dicts)}"
            )
        for name, value in mapping.items():
            if name in given:
                raise ValueError(f"{name} appears in multiple dictionaries; behavior of functional call is ambiguous")
            given[name] = value
    positional = () if args is None else args if isinstance(args, tuple) else (args,)
    with replaced_state(module, given, tie_weights, strict):
        return module(*positional, **(kwargs or {}))


def _places(module: Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Each dotted name of a parameter or buffer: the table that holds it, and the key there."""
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for path, inner in module.named_modules(remove_duplicate=False):
        for table in (inner._parameters, inner._buffers):
            for key, value in table.items():
                if value is not None:
                    found[f"{path}.{key}" if path else key] = (table, key)
    return found


@contextmanager
def replaced_state(module: Module, given: Mapping[str, Tensor], tie_weights: bool, strict: bool) -> Iterator[None]:
    """A block in which a module has other parameters and buffers."""
    places = _places(module)
    if strict:
        missing, unknown = [n for n in places if n not in given], [n for n in given if n not in places]
        if missing or unknown:
            said = [f"Unexpected key(s): {', '.join(unknown)}."] if unknown else []
            said += [f"Missing key(s): {', '.join(missing)}."] if missing else []
            raise RuntimeError(f"Error(s) in reparametrizing for {type(module).__name__}:\n\t" + "\n\t".join(said))
    for name in given:
        if name not in places:
            raise KeyError(name)
    wanted = dict(given)
    if tie_weights:
        groups: dict[int, list[str]] = {}
        for name, (table, key) in places.items():
            groups.setdefault(id(table[key]), []).append(name)
        for names in groups.values():
            values = [given[n] for n in names if n in given]
            if len({id(v) for v in values}) > 1:
                raise ValueError(
                    "functional_call got multiple values for keys "
                    f"{[n for n in names if n in given]}, which are tied. Consider using tie_weights=False"
                )
            if values:
                wanted.update(dict.fromkeys(names, values[0]))
    if state.recorder is not None:
        for inner in module.modules():  # what a capture assumes of the modules is what they hold now
            state.recorder.enter_module(inner)
            state.recorder.exit_module(inner)
    held = [(table, dict(table)) for table, _ in {id(t): (t, k) for t, k in places.values()}.values()]
    try:
        for name, value in wanted.items():
            table, key = places[name]
            table[key] = value
        yield
    finally:
        for table, before in held:
            table.clear()
            table.update(before)


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters and the buffers of models of one kind, stacked in a new first dimension for `vmap`. See
    torch.func.stack_module_state.

    Stacked parameters are leaves that require grad where the models' do. Raises RuntimeError for no models, models of
    several classes, in different modes, or a parameter that requires grad in some of them.
    """
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    if len({type(m) for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    stack = FUNCTIONS["stack"]

    def stacked(tensors: list[Tensor], parameter: bool) -> Tensor:
        flags = {t.requires_grad for t in tensors}
        if len(flags) > 1:
            raise RuntimeError(
                f"Expected {'parameters' if parameter else 'buffers'} from each model to have the same .requires_grad"
            )
        made: Tensor = stack([t.detach() for t in tensors])
        return made.requires_grad_() if flags == {True} else made

    parameters = [dict(m.named_parameters()) for m in models]
    buffers = [dict(m.named_buffers()) for m in models]
    return (
        {name: stacked([p[name] for p in parameters], True) for name in parameters[0]},
        {name: stacked([b[name] for b in buffers], False) for name in buffers[0]},
    )


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Make every batch norm in a module use the statistics of its batch alone: running ones can't be updated inside
    `vmap` and `grad`. See torch.func.replace_all_batch_norm_modules_.
    """
    for module in root.modules():
        if type(module).__name__.startswith("BatchNorm") and hasattr(module, "track_running_stats"):
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root
