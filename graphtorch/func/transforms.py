"""The functional transforms: derivatives of functions as functions, and `vmap`. See
https://docs.pytorch.org/docs/stable/func.api.html.

Reverse mode is the tape of a `GradLevel`. Forward mode follows from it: a vjp is linear in its cotangent u, so the vjp
of the vjp with respect to u is the jvp (Townsend, "A new trick for calculating Jacobian vector products", 2017), and
needs no formulas beside those of the operator records."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.autograd.engine import _run
from graphtorch.frontend.tree import LEAF, flatten, unflatten
from graphtorch.func import batch_rules
from graphtorch.func.batch_dims import read_in_dims, read_out_dims
from graphtorch.func.batching import BatchLevel
from graphtorch.func.levels import GradLevel
from graphtorch.ops.build import FUNCTIONS
from graphtorch.tensor.tensor import Tensor

assert batch_rules  # imported for the rules that it registers


def _name(func: Any) -> str:
    return getattr(func, "__name__", repr(func))


def _lower_tree(level: Any, value: Any) -> Any:
    leaves: list[Any] = []
    tree = flatten(value, leaves)
    return unflatten(tree, iter([level.lower(v) for v in leaves]))


# -- reverse mode -----------------------------------------------------------------------------------------------------


class _Pullback:
    """A function run once on a tape of its own: its outputs, and cotangents back to its variables."""

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...], chosen: Sequence[int], has_aux: bool) -> None:
        self.level = GradLevel()
        self.variables: list[Tensor] = []
        self.trees: list[Any] = []
        given = list(args)
        with self.level:
            for place in chosen:
                leaves: list[Any] = []
                tree = flatten(args[place], leaves)
                lifted = [self.level.leaf(v) if isinstance(v, Tensor) else v for v in leaves]
                for value in lifted:
                    if not isinstance(value, Tensor):
                        raise ValueError(f"Expected all tensors to differentiate, got {type(value)}")
                self.variables.extend(lifted)
                self.trees.append(tree)
                given[place] = unflatten(tree, iter(lifted))
            result = func(*given)
        self.aux: Any = None
        if has_aux:
            if not (isinstance(result, tuple) and len(result) == 2):
                raise RuntimeError(
                    f"{_name(func)}: output of function should be a tuple: (output, aux) if has_aux is True"
                )
            result, self.aux = result
            self.aux = _lower_tree(self.level, self.aux)
        self.outputs: list[Any] = []
        self.output_tree = flatten(result, self.outputs)
        for output in self.outputs:
            if not isinstance(output, Tensor):
                raise RuntimeError(
                    f"{_name(func)}: expected the function to return only tensors, got {type(output).__name__}"
                )

    @property
    def result(self) -> Any:
        """What the function returned, outside of the level."""
        return _lower_tree(self.level, unflatten(self.output_tree, iter(self.outputs)))

    def cotangents(self, seeds: Sequence[Tensor], keep: bool, differentiable: bool = False) -> list[Tensor]:
        """The variables' cotangents, tensors of the level; to be called inside of it. Where no output depends on a
        variable: zeros."""
        pairs = [(o, s) for o, s in zip(self.outputs, seeds, strict=True) if o._requires_grad]
        found: list[Tensor | None] = [None] * len(self.variables)
        wanted = [i for i, v in enumerate(self.variables) if v._requires_grad]
        if pairs and wanted:
            roots, given = tuple(o for o, _ in pairs), [s for _, s in pairs]
            targets = tuple(self.variables[i] for i in wanted)
            for i, g in zip(wanted, _run(roots, given, keep, differentiable, targets), strict=True):
                found[i] = g
        return [FUNCTIONS["zeros_like"](v) if g is None else g for g, v in zip(found, self.variables, strict=True)]

    def pull(self, cotangent: Any) -> list[Tensor]:
        """The variables' cotangents for a cotangent of the result, outside of the level."""
        seeds: list[Any] = []
        tree = flatten(cotangent, seeds)
        if tree != self.output_tree:
            raise RuntimeError(
                f"Expected pytree structure of cotangents to be the same as pytree structure of outputs to the "
                f"function. cotangents: {tree}, primal output: {self.output_tree}"
            )
        with self.level:
            return [self.level.lower(g) for g in self.cotangents(seeds, keep=True)]

    def arranged(self, values: Sequence[Any]) -> list[Any]:
        """One value a variable, in the structure of the arguments."""
        stream = iter(values)
        return [unflatten(tree, stream) for tree in self.trees]


def _chosen(argnums: int | tuple[int, ...], args: tuple[Any, ...]) -> list[int]:
    given = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if isinstance(argnums, tuple) and not argnums:
        raise RuntimeError("Expected a non-empty tuple of argnums")
    found: list[int] = []
    for place in given:
        if not isinstance(place, int):
            raise RuntimeError(f"argnums must be int or tuple of ints, got {type(place)}")
        if not -len(args) <= place < len(args):
            raise RuntimeError(f"Got argnum={place}, but only {len(args)} positional inputs")
        found.append(place % len(args))
    if len(set(found)) != len(found):
        raise RuntimeError(f"argnums must be unique, got argnums={argnums}")
    return found


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the gradient of `func` (of one number as result) and its value. See
    torch.func.grad_and_value.

    Raises RuntimeError when called, if the result is no tensor of one element and no dimension.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        chosen = _chosen(argnums, args)
        run = _Pullback(lambda *given: func(*given, **kwargs), args, chosen, has_aux)
        if run.output_tree is not LEAF and len(run.outputs) != 1:
            raise RuntimeError(
                "Expected the function given to grad() to return a Tensor, got "
                f"{'a tuple' if run.outputs else 'nothing'}"
            )
        (output,) = run.outputs
        if output.shape:
            raise RuntimeError(
                "Expected the function given to grad() to return a scalar Tensor, got tensor with "
                f"{len(output.shape)} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
            )
        with run.level:
            found = run.cotangents([FUNCTIONS["ones_like"](output)], keep=False)
            values = [run.level.lower(g) for g in found]
        gradients = run.arranged(values)
        gradient: Any = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        return (gradient, (run.result, run.aux)) if has_aux else (gradient, run.result)

    return wrapper


value_and_grad = grad_and_value


def grad(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of `func`, which returns one number. See torch.func.grad.

    `argnums`: the arguments to differentiate; a tuple gives a tuple of gradients. `has_aux`: `func` returns
    (value, aux), and the gradient comes with aux. Raises RuntimeError when called, if the result is no single number.
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        found, value = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return wrapper


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """`func(*primals)`, and a function from cotangents of the result to cotangents of the primals. See torch.func.vjp.

    The second may be called any number of times.
    """
    run = _Pullback(func, primals, range(len(primals)), has_aux)

    def pullback(cotangents: Any, *more: Any) -> tuple[Any, ...]:
        return tuple(run.arranged(run.pull((cotangents, *more) if more else cotangents)))

    return (run.result, pullback, run.aux) if has_aux else (run.result, pullback)


# -- forward mode -----------------------------------------------------------------------------------------------------


class _Pushforward:
    """A function run once, and tangents forward through it: the vjp of its vjp in the cotangent."""

    def __init__(
        self, func: Callable[..., Any], primals: tuple[Any, ...], chosen: Sequence[int], has_aux: bool
    ) -> None:
        self.run = _Pullback(func, primals, chosen, has_aux)
        level = self.run.level
        with level:
            # Linear is linear: any cotangent will do, and at ones no formula has a logarithm of zero.
            ones = [FUNCTIONS["ones_like"](level.lower(o)) for o in self.run.outputs]
            self.seeds = [level.leaf(level.lower(z)) for z in ones]
            self.cotangents = self.run.cotangents(self.seeds, keep=True, differentiable=True)

    def push(self, tangents: Sequence[Tensor]) -> list[Tensor]:
        """The outputs' tangents for those of the variables."""
        with self.run.level as level:
            pairs = [(c, t) for c, t in zip(self.cotangents, tangents, strict=True) if c._requires_grad]
            found: Sequence[Tensor | None] = [None] * len(self.seeds)
            live = [i for i, s in enumerate(self.seeds) if s._requires_grad]
            if pairs and live:
                roots = tuple(c for c, _ in pairs)
                got = _run(roots, [t for _, t in pairs], True, False, tuple(self.seeds[i] for i in live))
                placed = dict(zip(live, got, strict=True))
                found = [placed.get(i) for i in range(len(self.seeds))]
            zeros = FUNCTIONS["zeros_like"]
            return [level.lower(zeros(s) if t is None else t) for t, s in zip(found, self.seeds, strict=True)]

    def pack(self, values: Sequence[Any]) -> Any:
        """One value an output, in the structure of the result."""
        return unflatten(self.run.output_tree, iter(values))


def _check_tangents(primals: Any, tangents: Any, name: str) -> list[Tensor]:
    values: list[Any] = []
    given: list[Any] = []
    tree, own = flatten(primals, values), flatten(tangents, given)
    if tree != own:
        raise RuntimeError(
            f"{name}: Expected primals and tangents to have the same python structure. For example, if primals is a "
            f"tuple of 3 tensors, tangents also must be. Got primals with structure {tree} and tangents with "
            f"structure {own}"
        )
    for value, tangent in zip(values, given, strict=True):
        if isinstance(value, Tensor) and tuple(value.shape) != tuple(tangent.shape):
            raise RuntimeError(
                f"{name}: tangent of shape {list(tangent.shape)} for a primal of shape {list(value.shape)}"
            )
    return given


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """`func(*primals)`, and the derivative of the result along `tangents`. See torch.func.jvp.

    Raises RuntimeError for primals that are no tuple, and tangents of another structure or shape.
    """
    if not isinstance(primals, tuple):
        raise RuntimeError(
            f"jvp(f, primals, tangents): Expected primals to be a tuple. E.g. it should be valid to call f(*primals)."
            f" Got {type(primals)}"
        )
    given = _check_tangents(primals, tangents, "jvp(f, primals, tangents)")
    run = _Pushforward(func, primals, range(len(primals)), has_aux)
    pushed = run.pack(run.push(given))
    return (run.run.result, pushed, run.run.aux) if has_aux else (run.run.result, pushed)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`func(*primals)`, and the derivative there as a function of tangents. See torch.func.linearize."""
    run = _Pushforward(func, primals, range(len(primals)), False)

    def derivative(*tangents: Any) -> Any:
        return run.pack(run.push(_check_tangents(primals, tangents, "linearize(f, *primals)")))

    return run.run.result, derivative


# -- Jacobians --------------------------------------------------------------------------------------------------------


def _basis(tensors: Sequence[Tensor]) -> list[Tensor]:
    """For each tensor the unit vectors of all of them together: [total elements, *its shape]."""
    counts = [t.numel() for t in tensors]
    total = sum(counts)
    found: list[Tensor] = []
    start = 0
    for tensor, count in zip(tensors, counts, strict=True):
        unit = FUNCTIONS["eye"](count, dtype=tensor.dtype, device=tensor.device)
        if len(tensors) > 1:
            unit = FUNCTIONS["cat"](
                [unit.new_zeros((start, count)), unit, unit.new_zeros((total - start - count, count))], 0
            )
        found.append(unit.reshape((total, *tensor.shape)))
        start += count
    return found


def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """A function that gives the Jacobian of `func` by reverse mode, one backward pass over a batch of cotangents.

    For each output and argument a tensor of the output's shape followed by the argument's. See torch.func.jacrev.
    `chunk_size`: how many cotangents at a time.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        run = _Pullback(lambda *given: func(*given, **kwargs), args, _chosen(argnums, args), has_aux)
        outputs = [run.level.lower(o) for o in run.outputs]

        def pull(seeds: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            with run.level:
                return tuple(run.level.lower(g) for g in run.cotangents(seeds, keep=True))

        rows = vmap(pull, chunk_size=chunk_size)(tuple(_basis(outputs)))
        blocks: list[Any] = []
        start = 0
        for output in outputs:
            end = start + output.numel()
            own = [row[start:end].reshape((*output.shape, *row.shape[1:])) for row in rows]
            arranged = run.arranged(own)
            blocks.append(arranged[0] if isinstance(argnums, int) else tuple(arranged))
            start = end
        jacobian = unflatten(run.output_tree, iter(blocks))
        return (jacobian, run.aux) if has_aux else jacobian

    return wrapper


def jacfwd(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
) -> Callable[..., Any]:
    """A function that gives the Jacobian of `func` by forward mode, one pass over a batch of tangents.

    Results as `jacrev`'s. See torch.func.jacfwd.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        run = _Pushforward(lambda *given: func(*given, **kwargs), args, _chosen(argnums, args), has_aux)
        lower = run.run.level.lower
        variables, outputs = [lower(v) for v in run.run.variables], [lower(o) for o in run.run.outputs]

        def push(tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(run.push(tangents))

        columns = vmap(push, randomness=randomness)(tuple(_basis(variables)))
        blocks: list[Any] = []
        for output, column in zip(outputs, columns, strict=True):
            own: list[Tensor] = []
            start = 0
            for variable in variables:
                end = start + variable.numel()
                piece = column[start:end].movedim(0, -1)
                own.append(piece.reshape((*output.shape, *variable.shape)))
                start = end
            arranged = run.run.arranged(own)
            blocks.append(arranged[0] if isinstance(argnums, int) else tuple(arranged))
        jacobian = run.pack(blocks)
        return (jacobian, run.run.aux) if has_aux else jacobian

    return wrapper


def hessian(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function that gives the Hessian of `func`: the forward Jacobian of the reverse Jacobian. See
    torch.func.hessian."""
    return jacfwd(jacrev(func, argnums), argnums)


def functionalize(func: Callable[..., Any], *, remove: str = "mutations") -> Callable[..., Any]:
    """`func` without in-place operators: it is captured as a graph of values, which runs operator by operator, and
    arguments that it changed get their new elements at the end. See torch.func.functionalize.

    Raises RuntimeError for another `remove` than "mutations" and "mutations_and_views".
    """
    if remove not in ("mutations", "mutations_and_views"):
        raise RuntimeError(
            f"functionalize(f, remove='mutations_and_views'): received invalid argument for remove={remove}. Valid "
            "options are:\n     remove='mutations': all inplace and out= operators will be removed from the program, "
            "and replaced with their out-of-place equivalents.\n     remove='mutations_and_views': In addition to the "
            "above, all aliasing operators {view} will be replaced with their non-aliasing counterparts, {view}_copy.\n"
        )
    from graphtorch.frontend import compile

    made: Callable[..., Any] = compile(func, fullgraph=True, backend="interpreter")
    return made


# -- vmap -------------------------------------------------------------------------------------------------------------


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """`func` for each element of a batch, as one run over whole batches. See torch.vmap.

    in_dims     the dimension of each argument that holds the batch; None for arguments that are the same for all. An
                int for all arguments, or a nesting of ints that matches them.
    out_dims    where the batch stands in each result.
    randomness  "error": random operators raise; "different": each element has its own numbers; "same": all have the
                same.
    chunk_size  at most so many elements at a time.

    Raises ValueError for dims that do not fit, and RuntimeError where the function asks for data of the batch.
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves, tree, dims, size = read_in_dims(in_dims, args, _name(func))
        moved = [v if d is None else v.movedim(d, 0) for v, d in zip(leaves, dims, strict=True)]

        def run(start: Any, count: Any, whole: bool) -> tuple[list[Tensor], Any, list[int | None]]:
            level = BatchLevel(count, randomness)
            given = [
                v if d is None else level.lift(v if whole else v.narrow(0, start, count), True)
                for v, d in zip(moved, dims, strict=True)
            ]
            with level:
                outputs = func(*unflatten(tree, iter(given)), **kwargs)
            found, output_tree, places = read_out_dims(out_dims, outputs, _name(func))
            results: list[Tensor] = []
            for value, place in zip(found, places, strict=True):
                if place is None:
                    if level.is_batched(value):
                        raise ValueError(
                            f"vmap({_name(func)}, ...): `{_name(func)}` can not return a BatchedTensor when out_dim is "
                            "None"
                        )
                    results.append(level.lower(value))
                else:
                    results.append(level.physical(value))
            return results, output_tree, places

        if chunk_size is None or size <= chunk_size:
            results, output_tree, places = run(0, size, True)
        else:
            pieces: list[list[Tensor]] = []
            for start in range(0, size, chunk_size):
                piece, output_tree, places = run(start, min(chunk_size, size - start), False)
                pieces.append(piece)
            results = [
                column[0] if place is None else FUNCTIONS["cat"](list(column), 0)
                for place, column in zip(places, zip(*pieces, strict=True), strict=True)
            ]
        placed = [v if d is None else v.movedim(0, d) for v, d in zip(results, places, strict=True)]
        return unflatten(output_tree, iter(placed))

    return wrapper
