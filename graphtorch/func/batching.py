"""The level of `vmap`: tensors that hold a batch in their first dimension and are seen without it.

The rule of an operator follows from its record. Pointwise operators align dimensions, reductions and views shift
their `dim`s by one, and whoever has a decomposition runs it on batched tensors. `batch_rules` has the rest: products,
convolutions, indexing. What has no rule runs once an element of the batch, and the results are stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.autograd import engine
from graphtorch.autograd.engine import _run, _start
from graphtorch.autograd.function import Function, FunctionContext
from graphtorch.func.levels import Level, Lifted
from graphtorch.ops import dispatch
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import POINTWISE, REDUCTION, Operator
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import type_of

Rule = Callable[["BatchLevel", Operator, tuple[Any, ...]], Any]
# Operator name -> its rule. A rule runs one level further out; its results have the batch in front.
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of some operators."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


class BatchLevel(Level):
    """A level with a batch of `size` elements (known once the first argument is)."""

    title = "BatchedTensor"

    def __init__(self, size: Any, randomness: str = "error") -> None:
        super().__init__()
        self.size = size
        self.randomness = randomness

    # -- arguments of rules ------------------------------------------------------------------------------------------

    def is_batched(self, value: Any) -> bool:
        """Whether a tensor differs from one element of the batch to the next."""
        return self.holds(value) and value._data.batched

    def physical(self, tensor: Tensor) -> Tensor:
        """The tensor further out with the batch in front; one that is the same for all is expanded."""
        inner: Tensor = self.lower(tensor)
        if self.is_batched(tensor):
            return inner
        expanded: Tensor = inner.unsqueeze(0).expand((self.size, *inner.shape))
        return expanded

    def aligned(self, tensor: Tensor, rank: int) -> Tensor:
        """The tensor further out, so that a logical rank of `rank` broadcasts behind the batch."""
        inner: Tensor = self.lower(tensor)
        missing = rank - (len(inner.shape) - 1)
        if not self.is_batched(tensor) or missing <= 0:
            return inner
        shape = tuple(inner.shape)
        aligned: Tensor = inner.reshape((shape[0], *(1 for _ in range(missing)), *shape[1:]))
        return aligned

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(self, op: Operator, args: tuple[Any, ...]) -> Any:
        batched = any(self.is_batched(t) for t in dispatch.tensors_of(args))
        if op.random:
            return self._random(op, args, batched)
        if not batched:
            with self.below():
                return dispatch.call(op, self.lower(args))
        own = RULES.get(op.name)
        if own is not None:
            return self._run_rule(own, op, args)
        if op.name not in _DIRECT and op.kind not in (POINTWISE, REDUCTION) and op.decompose is not None:
            decomposed = op.decompose(*args)
            if decomposed is not None:
                return self._named(op, decomposed)
        return self._run_rule(_by_kind(op), op, args)

    def _run_rule(self, chosen: Rule, op: Operator, args: tuple[Any, ...]) -> Any:
        with self.below():
            found = chosen(self, op, args)
            if found is NotImplemented:
                found = loop(self, op, args)
        return self._named(op, self._lifted(found))

    def _lifted(self, found: Any) -> Any:
        return tuple(self.lift(f, True) for f in found) if isinstance(found, tuple) else self.lift(found, True)

    @staticmethod
    def _named(op: Operator, results: Any) -> Any:
        if isinstance(results, tuple) and op.result_class is not None:
            return op.result_class(*results)
        return results

    def call_inplace(self, op: Operator, args: tuple[Any, ...]) -> Any:
        target: Tensor = args[0]
        if self.is_batched(target):
            if op.random and self.randomness == "different":
                with self.below():
                    dispatch.call_inplace(op, (target._data.tensor, *self.lower(args[1:])))
                return target
            result = self.call(op, args)
            dispatch._check_result(op, target, type_of(result))
            with self.below():
                target._data.tensor.copy_(self.physical(result))
            target._bump_version()
            return target
        if op.random:
            self._check_random()
            if self.randomness == "different":
                raise RuntimeError(
                    f"vmap: {op.name}_ of a tensor that is the same for the whole batch can't draw different numbers; "
                    "make the tensor inside the function"
                )
        if any(self.is_batched(t) for t in dispatch.tensors_of(args)):
            raise RuntimeError(
                "vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor `other` in "
                "extra_args that has more elements than `self`. This happened due to `other` being vmapped over but "
                "`self` not being vmapped over in a vmap. Please try to use out-of-place operators instead of inplace "
                "arithmetic. If said operator is being called inside the PyTorch framework, please file a bug report "
                "instead."
            )
        with self.below():
            dispatch.call_inplace(op, self.lower(args))
        return target

    # -- randomness --------------------------------------------------------------------------------------------------

    def _check_random(self) -> None:
        if self.randomness == "error":
            raise RuntimeError(
                "vmap: called random operation while in randomness error mode. Please either use the 'same' or "
                "'different' randomness flags on vmap or perform the randomness operation out of vmap"
            )

    def _random(self, op: Operator, args: tuple[Any, ...], batched: bool) -> Any:
        self._check_random()
        with self.below():
            if self.randomness == "same":
                if not batched:
                    return dispatch.call(op, self.lower(args))
                if op.name not in _FILLS:
                    raise RuntimeError("Vmap does not currently support same randomness with a batched tensor input")
                return dispatch.call(op, (args[0]._data.tensor.select(0, 0), *args[1:]))
            if op.parameters[0].name == "size" or op.name == "randint":
                at = op.index_of("size")
                sized = (*args[:at], (self.size, *args[at]), *args[at + 1 :])
                return self.lift(dispatch.call(op, sized), True)
            if op.name in _FILLS or op.name == "bernoulli":
                return self.lift(dispatch.call(op, (self.physical(args[0]), *args[1:])), True)
            return self._named(op, self._lifted(loop(self, op, args)))

    # -- reading -----------------------------------------------------------------------------------------------------

    def check_read(self, tensor: Tensor, operation: str) -> None:
        if not self.is_batched(tensor):
            return
        if operation == "bool()":
            raise RuntimeError(
                "vmap: It looks like you're attempting to use a Tensor in some data-dependent control flow. We don't "
                "support that yet, please shout over at https://github.com/pytorch/functorch/issues/257 ."
            )
        raise RuntimeError(
            f"vmap: It looks like you're calling .{operation} on a Tensor. We don't support vmap over calling "
            f".{operation} on a Tensor, please try to rewrite what you're doing with other operations. If error is "
            "occurring somewhere inside PyTorch internals, please file a bug report."
        )

    # -- autograd ----------------------------------------------------------------------------------------------------

    def stand_in(self, tensor: Tensor) -> Tensor:
        return super().stand_in(self.lower(tensor))

    def recorded(self, tensor: Tensor) -> Tensor:
        return super().recorded(self.lower(tensor))

    def grad(
        self,
        roots: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        keep: bool,
        create_graph: bool,
    ) -> Sequence[Tensor | None]:
        """Batched cotangents through a graph from further out; or, element by element, through one of this level."""
        if not any(self.holds(r) for r in roots):
            if self.captures and any(type(r._data) is not Lifted for r in roots):
                raise RuntimeError(
                    "batched cotangents through the backward pass of a compiled function: use graphtorch.func.jacrev "
                    "or vjp, which record a tape of their own"
                )
            return _run(roots, _start(roots, gradients), keep, create_graph, inputs)
        if not all(self.is_batched(i) for i in inputs):
            raise RuntimeError("vmap: autograd.grad of something batched needs inputs that are batched too")
        seeds = _start(roots, gradients)
        with self.below():
            found = engine.grad(
                [self.physical(r) for r in roots],
                [self.lower(i) for i in inputs],
                [self.physical(s) for s in seeds],
                keep,
                create_graph,
                allow_unused=True,
            )
        return [None if f is None else self.lift(f, True) for f in found]

    def apply_function(self, function: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """By the function's own `vmap`, or by batching its forward and backward (`generate_vmap_rule`).

        Raises RuntimeError for a function with neither.
        """
        if not any(self.is_batched(a) for a in args):
            with self.below():
                return function.apply(*(self.lower(a) for a in args), **kwargs)
        own = getattr(function, "vmap", None)
        if own is not None:
            in_dims = tuple(0 if self.is_batched(a) else None for a in args)
            with self.below():
                outputs, out_dims = own(BatchInfo(self.size, self.randomness), in_dims, *(self.lower(a) for a in args))
                return self._placed(outputs, out_dims)
        if not getattr(function, "generate_vmap_rule", False):
            raise RuntimeError(
                f"You tried to vmap over {function.__name__}, but it does not have vmap support. Please override and "
                "implement the vmap staticmethod or set generate_vmap_rule=True. For more details, please see "
                "https://pytorch.org/docs/main/notes/extending.func.html"
            )
        generated = _batched_function(self, function, tuple(self.is_batched(a) for a in args))
        with self.below():
            return self._lifted(generated.apply(*(self.lower(a) for a in args), **kwargs))

    def _placed(self, outputs: Any, out_dims: Any) -> Any:
        """Results of a function's own `vmap`, with the batch brought to the front."""
        if not isinstance(outputs, tuple):
            return self.lift(outputs) if out_dims is None else self.lift(outputs.movedim(out_dims, 0), True)
        dims = out_dims if isinstance(out_dims, tuple) else (out_dims,) * len(outputs)
        return tuple(self._placed(o, d) for o, d in zip(outputs, dims, strict=True))


class BatchInfo:
    """What a custom function's `vmap` is told."""

    def __init__(self, batch_size: Any, randomness: str) -> None:
        self.batch_size = batch_size
        self.randomness = randomness


def _batched_function(level: BatchLevel, function: type[Function], batched: tuple[bool, ...]) -> type[Function]:
    """A custom function whose forward and backward are those of `function` for each element of the batch."""

    def enter(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
        return [level.lift(v, f) if isinstance(v, Tensor) else v for v, f in zip(values, flags, strict=True)]

    def leave(values: Any) -> list[Any]:
        with level.below():
            return [level.physical(v) if isinstance(v, Tensor) else v for v in values]

    def forward(*args: Any) -> Any:
        with level:
            found = function.forward(*enter(args, batched))
            outputs = leave(found if isinstance(found, tuple) else (found,))
        return tuple(outputs) if isinstance(found, tuple) else outputs[0]

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        inner = FunctionContext()
        outputs = output if isinstance(output, tuple) else (output,)
        with level:
            lifted = enter(outputs, [True] * len(outputs))
            given = tuple(lifted) if isinstance(output, tuple) else lifted[0]
            function.__dict__["setup_context"].__func__(inner, tuple(enter(inputs, batched)), given)
            ctx.flags = [level.is_batched(t) for t in inner.to_save]
            ctx.inner = inner
            ctx.save_for_backward(*(level.lower(t) for t in inner.to_save))

    def backward(ctx: Any, *cotangents: Any) -> Any:
        with level:
            # What was saved comes back through the outer context, which knows its history and its version.
            ctx.inner.to_save = tuple(enter(ctx.saved_tensors, ctx.flags))
            found = function.backward(ctx.inner, *enter(cotangents, [True] * len(cotangents)))
            gradients = leave(found if isinstance(found, tuple) else (found,))
        return tuple(g if g is None or flag else g.sum(0) for g, flag in zip(gradients, [*batched], strict=False))

    body = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(backward),
    }
    made: type[Function] = type(f"Vmapped{function.__name__}", (Function,), body)
    return made


# -- rules by kind ----------------------------------------------------------------------------------------------------

# Random operators that take of their operand its type alone.
_FILLS = frozenset(("uniform", "normal", "bernoulli_fill", "exponential", "random_range", "random_full"))
# Operators with a decomposition that run better as they are.
_DIRECT = frozenset(("tril", "triu"))
# Elementwise operators that are no kernels' instructions.
_ELEMENTWISE = frozenset(
    ("nextafter", "frexp", "gcd", "lcm", "lgamma", "digamma", "polygamma", "igamma", "igammac", "i0", "erfinv")
) | {"complex", "view_as_real", "real", "imag", "view_as_complex"}
# Operators on the last dimensions of one operand.
_TRAILING = frozenset(("tril", "triu", "constant_pad_nd", "matrix_exp", "row_order"))


def _by_kind(op: Operator) -> Rule:
    name = op.name
    if op.kind == POINTWISE or name in _ELEMENTWISE or (name.startswith("special_") and name != "special_zeta"):
        return pointwise
    if op.kind == REDUCTION:
        return reduction
    if name in _TRAILING or (name.startswith("linalg_") and sum(p.is_operand for p in op.parameters) == 1):
        return trailing
    if name.startswith("linalg_"):
        return same_rank
    return loop


def pointwise(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    """Align the operands' dimensions behind the batch."""
    operands = [a for p, a in zip(op.parameters, args, strict=True) if p.is_operand and isinstance(a, Tensor)]
    rank = max(len(t.shape) for t in operands)
    moved = [level.aligned(a, rank) if isinstance(a, Tensor) else a for a in args]
    results = dispatch.call(op, tuple(moved))
    if any(level.is_batched(t) and not t.shape for t in operands) and len({t.dtype for t in operands}) > 1:
        # A number of the batch has a dimension further out, and would count as a tensor in promotion.
        expected = op.infer(args)[0].dtype
        if isinstance(results, Tensor) and results.dtype is not expected:
            results = results.to(expected)
    return results


def reduction(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    """Shift the reduced dimensions. A number is reduced as a vector of one element."""
    places = [i for i, p in enumerate(op.parameters) if p.name == "dim"]
    if not places:
        with level:
            assert op.decompose is not None
            found = op.decompose(*args)
        return level.lower(found)
    at = places[0]
    input = args[0]._data.tensor
    scalar = not args[0].shape
    if scalar:
        input = input.unsqueeze(1)
        dims: Any = 1 if isinstance(args[at], int) else (1,)
    elif args[at] is None:
        dims = tuple(range(1, len(input.shape)))
    else:
        dims = shift(args[at])
    found = dispatch.call(op, (input, *args[1:at], dims, *args[at + 1 :]))
    if not scalar:
        return found
    flat = [f.squeeze(1) if len(f.shape) == 2 else f for f in (found if isinstance(found, tuple) else (found,))]
    return tuple(flat) if isinstance(found, tuple) else flat[0]


def shift(dims: Any) -> Any:
    """Dimensions as they count behind the batch."""
    return tuple(d + 1 for d in dims) if isinstance(dims, tuple) else dims + 1


def trailing(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    """An operator that treats leading dimensions as a batch anyway."""
    return dispatch.call(op, (args[0]._data.tensor, *args[1:]))


def same_rank(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    """The same for several operands, where they have equally many dimensions."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    if len({len(t.shape) for t in tensors}) > 1:
        return NotImplemented
    return dispatch.call(op, tuple(level.physical(a) if isinstance(a, Tensor) else a for a in args))


def loop(level: BatchLevel, op: Operator, args: tuple[Any, ...]) -> Any:
    """One call an element of the batch, stacked. Raises RuntimeError for an empty batch or one of symbolic size."""
    if type(level.size) is not int or not level.size:
        raise RuntimeError(f"vmap: {op.name} has no batching rule and the size of the batch is {level.size}")

    def element(value: Any, index: int) -> Any:
        if isinstance(value, Tensor):
            inner = level.lower(value)
            return inner.select(0, index) if level.is_batched(value) else inner
        return tuple(element(v, index) for v in value) if type(value) is tuple else value

    found = [dispatch.call(op, tuple(element(a, i) for a in args)) for i in range(level.size)]
    stack = FUNCTIONS["stack"]
    if isinstance(found[0], tuple):
        return tuple(stack(list(column)) for column in zip(*found, strict=True))
    return stack(found)


__all__ = ["RULES", "BatchInfo", "BatchLevel", "rule", "shift"]
