"""Which results a checkpointed function keeps: selective activation checkpointing.

Eagerly, a dispatch mode keeps the results of the operators that the policy names during the first run, and another one
gives them back during the second. Under `@compile` the nodes of these operators are taken out of the marked region, so
that the backward pass reads their values. See torch.utils.checkpoint.create_selective_checkpoint_contexts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from typing import Any

from graphtorch.ir.builder import wrap
from graphtorch.ir.graph import Node, substitute
from graphtorch.ops.modes import OpOverload, OpOverloadPacket, TorchDispatchMode, aten, overload_of
from graphtorch.tensor.tensor import Tensor
from graphtorch.utils._pytree import tree_map

Policy = Callable[..., Any]


class CheckpointPolicy(Enum):
    """What becomes of an operator's result: kept, or computed again. MUST and PREFER come to the same here; results to
    be kept in the host's memory are kept where they are."""

    MUST_SAVE = 0
    PREFER_SAVE = 1
    MUST_RECOMPUTE = 2
    PREFER_RECOMPUTE = 3
    MUST_CPU_OFFLOAD = 4
    PREFER_CPU_OFFLOAD = 5


_KEEPING = frozenset(p for p in CheckpointPolicy if not p.name.endswith("RECOMPUTE"))
SAC_IGNORED_OPS = frozenset({aten.detach.default})


class SelectiveCheckpointContext:
    """What a policy is told of a call: its result. `is_recompute` is always False: policies are asked once."""

    def __init__(self, *, is_recompute: bool, op_output: Any = None) -> None:
        self.is_recompute = is_recompute
        self.op_output = op_output


class _Kept:
    """A result, with the version that it must still have."""

    def __init__(self, value: Tensor) -> None:
        self.value = value._alias()
        self.version = value._version

    def get(self, allow_mutation: bool) -> Tensor:
        if self.value._version != self.version and not allow_mutation:
            raise RuntimeError("Tensor cached during selective activation checkpoint has been mutated")
        return self.value


_RECOMPUTE, _CONSUMED = object(), object()
_WHY = (
    "This can happen if the operations in the checkpointed region are nondeterministic or depend on global state that "
    "changed between forward and backward."
)
Storage = defaultdict[Any, dict[int, Any]]


class SavingMode(TorchDispatchMode):
    """The first run: keeps what the policy says."""

    def __init__(self, policy_fn: Policy, storage: Storage) -> None:
        self.policy_fn = policy_fn
        self.storage = storage
        self.counts: dict[Any, int] = defaultdict(int)

    def _keeps(self, func: Any, made: Any, args: Any, kwargs: Any) -> bool:
        policy = self.policy_fn(SelectiveCheckpointContext(is_recompute=False, op_output=made), func, *args, **kwargs)
        return policy if isinstance(policy, bool) else policy in _KEEPING

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func in SAC_IGNORED_OPS:
            return made
        index = self.counts[func]
        self.counts[func] += 1
        kept = _RECOMPUTE
        if self._keeps(func, made, args, kwargs):
            kept = tree_map(lambda v: _Kept(v) if isinstance(v, Tensor) else v, made)
        self.storage[func][index] = kept
        return made

    def keeps_node(self, node: Node) -> bool:
        """The same of an operator in a graph."""
        wrapped: Any = wrap  # a policy sees tensors without data
        args = substitute(node.args, wrapped)
        results = tuple(map(wrap, node.results))
        made = results[0] if len(results) == 1 else results
        return self._keeps(overload_of(node.op, args), made, args, {})


class _GivingMode(TorchDispatchMode):
    """The second run: gives back what the first kept."""

    def __init__(self, storage: Storage, allow_cache_entry_mutation: bool) -> None:
        self.storage = storage
        self.allow_mutation = allow_cache_entry_mutation
        self.counts: dict[Any, int] = defaultdict(int)

    def __enter__(self) -> Any:
        self.counts.clear()
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SAC_IGNORED_OPS:
            return func(*args, **(kwargs or {}))
        index = self.counts[func]
        self.counts[func] += 1
        held = self.storage.get(func)
        if held is None:
            raise RuntimeError(f"{func} encountered during backward but not found in storage. {_WHY}")
        if index not in held:
            raise RuntimeError(
                f"{func} invocation index {index} encountered during backward but not found in storage. {_WHY}"
            )
        kept = held[index]
        if kept is _CONSUMED:
            raise RuntimeError(
                "Trying to backward an extra time. You are only allowed to backward once on any region computed under "
                "selective activation checkpoint."
            )
        if kept is _RECOMPUTE:
            return func(*args, **(kwargs or {}))
        held[index] = _CONSUMED
        return tree_map(lambda v: v.get(self.allow_mutation) if isinstance(v, _Kept) else v, kept)


def create_selective_checkpoint_contexts(
    policy_fn_or_list: Policy | list[OpOverload], allow_cache_entry_mutation: bool = False
) -> tuple[SavingMode, TorchDispatchMode]:
    """The two contexts of a `checkpoint` (its `context_fn`) that keeps some operators' results.

    `policy_fn_or_list`: the operators, such as `torch.ops.aten.mm.default`; or a function of (context, operator, *args,
    **kwargs) that returns a CheckpointPolicy, or a bool. `allow_cache_entry_mutation`: do not check that what is kept
    was not changed in place.

    Raises ValueError for what is no operator, TypeError for neither a list nor a function.
    """
    if isinstance(policy_fn_or_list, list):
        chosen: list[Any] = policy_fn_or_list
        for op in chosen:
            if not isinstance(op, OpOverload):
                hint = (
                    "Please update the OpOverloadPacket to a specific OpOverload.For example, if you have "
                    "`torch.ops.aten.mm`, change it to `torch.ops.aten.mm.default`."
                    if isinstance(op, OpOverloadPacket)
                    else ""
                )
                kind = f"{op} of type {type(op)}"
                raise ValueError(f"Expected op in `op_list` to be an OpOverload but got: {kind}. {hint}")

        def policy_fn(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
            return CheckpointPolicy.MUST_SAVE if op in chosen else CheckpointPolicy.PREFER_RECOMPUTE

    elif callable(policy_fn_or_list):
        policy_fn = policy_fn_or_list
    else:
        raise TypeError("policy_fn_or_list must be either a function or a list of ops.")
    storage: Storage = defaultdict(dict)
    return SavingMode(policy_fn, storage), _GivingMode(storage, allow_cache_entry_mutation)
