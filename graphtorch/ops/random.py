"""Random numbers: factories, in-place samplers and the default generator's state.

Every record here is `random`: passes neither merge nor reorder nor remove it, so that a compiled function draws from
the same generator in the same order as the eager one and gets the same numbers. The streams are PyTorch's (see
`tensor/generator.py`). See https://docs.pytorch.org/docs/stable/random.html."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.ops import native
from graphtorch.ops.arguments import also_by_name
from graphtorch.ops.build import FUNCTIONS, function, method, operator
from graphtorch.ops.dispatch import call, call_inplace, write_out
from graphtorch.ops.pointwise import not_implemented
from graphtorch.ops.record import Sample, lookup, sample
from graphtorch.ops.strides import layout_of, pointwise_strides
from graphtorch.tensor import dtypes
from graphtorch.tensor.cuda_generator import States, seed_all
from graphtorch.tensor.devices import canonical
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.formats import ORDERS, format_name
from graphtorch.tensor.generator import Generator, default_generator
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

# -- the generator ----------------------------------------------------------------------------------------------------


def _generator(given: Generator | None) -> Generator:
    return default_generator if given is None else given


@function()
def manual_seed(seed: int) -> Generator:
    """Seed the default generator, and those of all devices; returns it. See torch.manual_seed."""
    seed_all(int(seed))
    return default_generator.manual_seed(int(seed))


def _note_effect(does: str) -> None:
    note = getattr(state.recorder, "note_effect", None)
    if note is not None:
        note(does)


@function()
def seed() -> int:
    """Seed the default generator with a number that nobody chose; returns the number."""
    return default_generator.seed()


@function()
def initial_seed() -> int:
    """What the default generator was seeded with."""
    return default_generator.initial_seed()


@function()
def get_rng_state() -> Tensor:
    """The default generator's state as a uint8 tensor."""
    found: Tensor = default_generator.get_state()
    return found


@function()
def set_rng_state(new_state: Tensor) -> None:
    """Put the default generator into a state that `get_rng_state` gave."""
    _note_effect("sets a random generator's state")
    default_generator.set_state(new_state)


@contextmanager
def _fork_rng(devices: Any = None, enabled: bool = True, **unused: Any) -> Iterator[None]:
    _note_effect("sets a random generator's state")
    if not enabled:
        yield
        return
    indices = None if devices is None else [canonical(_device_of(d)).index or 0 for d in devices]
    held = States()
    try:
        yield
    finally:
        held.restore(indices)


def _device_of(given: Any) -> device_class:
    return device_class("cuda", given) if isinstance(given, int) else device_class(given)


@function()
def fork_rng(devices: Any = None, enabled: bool = True, **unused: Any) -> Any:
    """A block whose draws leave the default generators as they were, that of the CPU and those of CUDA devices (all, or
    the ones given). See torch.random.fork_rng."""
    return _fork_rng(devices, enabled, **unused)


# -- factories --------------------------------------------------------------------------------------------------------


def _sized(size: Any, dtype: Any, device: Any) -> TensorType:
    if any(s < 0 for s in size):
        raise RuntimeError(f"Trying to create tensor with negative dimension {min(size)}: {list(size)}")
    return TensorType(dtype, tuple(size), canonical(device))


def _refuse(name: str, d: dtype_class, accept: Callable[[dtype_class], bool]) -> None:
    if not accept(d):
        raise not_implemented(name if name != "rand" else "check_uniform_bounds", d)


def _rand_type(size: Any, dtype: Any, device: Any, generator: Any) -> TensorType:
    _refuse("rand", dtype, lambda d: d.is_differentiable)
    return _sized(size, dtype, device)


def _randn_type(size: Any, dtype: Any, device: Any, generator: Any) -> TensorType:
    _refuse("normal_kernel_cpu", dtype, lambda d: d.is_differentiable)
    return _sized(size, dtype, device)


def _randint_type(low: Any, high: Any, size: Any, dtype: Any, device: Any, generator: Any) -> TensorType:
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    return _sized(size, dtype, device)


def _randperm_type(n: Any, dtype: Any, device: Any, generator: Any) -> TensorType:
    if n < 0:
        raise RuntimeError(f"n must be non-negative, got {n}")
    return TensorType(dtype, (n,), canonical(device))


def _factory_samples(make: Any) -> Iterable[Sample]:
    yield sample((2, 3), make.dtype)
    yield sample((0,), make.dtype)


def _drawn(name: str, at: int, sample: Callable[..., Any], exact: Callable[..., bool] | bool = True) -> Any:
    """The NumPy function of a record: native code where that is worth while, else `sample`, called with the generator
    and the other arguments. At position `at` is the size. `exact`: whether both give the same numbers, or a function of
    the other arguments that says so."""

    def numpy(*arguments: Any) -> Any:
        *given, generator = arguments
        generator = default_generator if generator is None else generator
        if exact(*given) if callable(exact) else exact:
            made = native.draw(lookup(name), arguments, at, generator)
            if made is not None:
                return made
        return sample(generator, *given)

    return numpy


_rand = operator(
    "rand(int[] size, dtype dtype, device? device=None, any generator=None)",
    type=_rand_type,
    numpy=_drawn("rand", 0, lambda g, size, dtype, device: g.uniform(size, dtype.numpy)),
    random=True,
    samples=_factory_samples,
    public=False,
    method=False,
)
_randn = operator(
    "randn(int[] size, dtype dtype, device? device=None, any generator=None)",
    type=_randn_type,
    numpy=_drawn(
        "randn",
        0,
        lambda g, size, dtype, device: g.normal(size, dtype.numpy),
        lambda size, dtype, device: dtype is not dtypes.float64,
    ),
    random=True,
    samples=_factory_samples,
    public=False,
    method=False,
)
_randint = operator(
    "randint(int low, int high, int[] size, dtype dtype, device? device=None, any generator=None)",
    type=_randint_type,
    numpy=_drawn("randint", 2, lambda g, low, high, size, dtype, device: g.randint(low, high, size, dtype.numpy)),
    random=True,
    samples=lambda make: [sample(0, 5, (3, 2), dtypes.int64)],
    public=False,
    method=False,
)
_randperm = operator(
    "randperm(int n, dtype dtype, device? device=None, any generator=None)",
    type=_randperm_type,
    numpy=_drawn("randperm", 0, lambda g, n, dtype, device: g.randperm(n, dtype.numpy)),
    random=True,
    samples=lambda make: [sample(7, dtypes.int64)],
    public=False,
    method=False,
)


def _size(size: tuple[Any, ...]) -> tuple[Any, ...]:
    """`rand(2, 3)` or `rand((2, 3))`."""
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], list | tuple) else size


def _finish(tensor: Tensor, requires_grad: bool, out: Tensor | None) -> Tensor:
    if out is not None:
        write_out((out,), tensor)
        return out
    return tensor.requires_grad_() if requires_grad else tensor


@function()
def rand(
    *size: Any,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: dtype_class | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1). See torch.rand."""
    made = _rand(_size(size), dtype or dtypes.get_default_dtype(), canonical(device), generator)
    return _finish(made, requires_grad, out)


@function()
def randn(
    *size: Any,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: dtype_class | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Standard normal numbers. See torch.randn."""
    made = _randn(_size(size), dtype or dtypes.get_default_dtype(), canonical(device), generator)
    return _finish(made, requires_grad, out)


@function()
def randint(
    *args: Any,
    low: int | None = None,
    high: int | None = None,
    size: Any = None,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: dtype_class | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Integers in [low, high): `randint(high, size)` or `randint(low, high, size)`. See torch.randint."""
    values = list(args)
    if size is None and values and isinstance(values[-1], list | tuple):
        size = values.pop()
    if len(values) == 2:
        low, high = values
    elif len(values) == 1 and high is None:
        high = values[0]
    elif len(values) == 1:
        low = values[0]
    if high is None or size is None:
        raise TypeError("randint() received an invalid combination of arguments: expected (low=0, high, size)")
    made = _randint(low or 0, high, size, dtype or dtypes.int64, canonical(device), generator)
    return _finish(made, requires_grad, out)


@function()
def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: dtype_class | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A random permutation of 0 .. n-1. See torch.randperm."""
    return _finish(_randperm(n, dtype or dtypes.int64, canonical(device), generator), requires_grad, out)


_FILLS = {"rand": "uniform_", "randn": "normal_", "randint": "random_"}


def _like(name: str) -> Callable[..., Tensor]:
    base = FUNCTIONS[name]

    def made(
        input: Tensor,
        *args: Any,
        dtype: dtype_class | None = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        memory_format: Any = None,
        generator: Generator | None = None,
    ) -> Tensor:
        order = format_name(memory_format)
        by_rows = input._layout().flags.c_contiguous if order is None else order not in ORDERS
        if not by_rows:
            # The result's memory order is also the order of the draws.
            result: Tensor = FUNCTIONS["empty_like"](input, dtype=dtype, device=device, memory_format=memory_format)
            getattr(result, _FILLS[name])(*((0, *args) if len(args) == 1 else args), generator=generator)
            return result.requires_grad_(requires_grad)
        result = base(
            *args,
            tuple(input.shape),
            dtype=dtype or input.dtype,
            device=device or input.device,
            requires_grad=requires_grad,
            generator=generator,
        )
        return result

    made.__name__ = f"{name}_like"
    made.__doc__ = f"`{name}` with the shape, dtype and device of `input`. See torch.{name}_like."
    return made


rand_like = function()(_like("rand"))
randn_like = function()(_like("randn"))
randint_like = function()(also_by_name(_like("randint"), "low", "high"))


# -- samplers over a tensor -------------------------------------------------------------------------------------------


def _same_type(input: Any, *rest: Any) -> TensorType:
    return TensorType(input.dtype, tuple(input.shape), input.device)


def _sampler(
    signature: str,
    draw: Callable[..., Any],
    example: Callable[[Any], Iterable[Sample]],
    check: Any = None,
    exact: Callable[..., bool] | bool = False,
) -> Callable[..., Any]:
    """A record `name(input, parameters..., generator)` whose in-place form `name_` fills the tensor with draws.
    `exact`: as in `_drawn`."""

    def type_rule(input: Any, *rest: Any) -> TensorType:
        if check is not None:
            check(input, *rest)
        return _same_type(input)

    return operator(
        signature,
        type=type_rule,
        numpy=_drawn(signature.partition("(")[0], 0, draw, exact),
        # What was there before does not matter to the result.
        derivative={"input": lambda g: g * 0},
        random=True,
        samples=example,
        public=False,
        method=False,
    )


def _floating_only(name: str) -> Callable[..., None]:
    def check(input: Any, *rest: Any) -> None:
        if not input.dtype.is_differentiable:
            raise not_implemented(name, input.dtype)

    return check


def _check_uniform(input: Any, low: Any, high: Any, generator: Any) -> None:
    _floating_only("check_uniform_bounds")(input)
    if low > high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low:g} > to={high:g}")


def _check_normal(input: Any, mean: Any, std: Any, generator: Any) -> None:
    _floating_only("normal_kernel_cpu")(input)
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")


def _check_probability(input: Any, p: Any, generator: Any) -> None:
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")


def _check_rate(input: Any, lambd: Any, generator: Any) -> None:
    _floating_only("exponential")(input)
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd:g}")


_uniform = _sampler(
    "uniform(Tensor input, float low=0.0, float high=1.0, any generator=None)",
    lambda g, x, low, high: g.uniform(x.shape, x.dtype, low, high),
    lambda make: [sample(make(3, 2), -1.0, 2.0)],
    _check_uniform,
    True,
)


def _draw_normal(g: Generator, x: Any, mean: float, std: float) -> Any:
    """Normal draws in the memory order of `x`; where that is not contiguous, PyTorch draws one number at a time."""
    if x.flags.c_contiguous:
        return g.normal(x.shape, x.dtype, mean, std)
    strides = pointwise_strides(x.shape, [layout_of(x)])
    order = sorted(range(x.ndim), key=lambda d: -strides[d])
    drawn = g.normal(tuple(x.shape[d] for d in order), x.dtype, mean, std, single=True)
    return drawn.transpose(sorted(range(x.ndim), key=order.__getitem__))


_normal = _sampler(
    "normal(Tensor input, float mean=0.0, float std=1.0, any generator=None)",
    _draw_normal,
    lambda make: [sample(make(3, 2), 1.0, 2.0)],
    _check_normal,
    lambda x, mean, std: x.dtype != np.float64,
)
_bernoulli_fill = _sampler(
    "bernoulli_fill(Tensor input, float p=0.5, any generator=None)",
    lambda g, x, p: g.bernoulli(p, x.shape, x.dtype),
    lambda make: [sample(make(3, 2), 0.3)],
    _check_probability,
    True,
)
_exponential = _sampler(
    "exponential(Tensor input, float lambd=1.0, any generator=None)",
    lambda g, x, lambd: g.exponential(x.shape, x.dtype, lambd),
    lambda make: [sample(make(3, 2), 1.5)],
    _check_rate,
)


def _check_spread(input: Any, first: Any, spread: Any, generator: Any) -> None:
    _floating_only("cauchy_")(input)
    if not spread > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={spread:g}")


def _check_chance(input: Any, p: Any, generator: Any) -> None:
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")


def _check_log_normal(input: Any, mean: Any, std: Any, generator: Any) -> None:
    _floating_only("log_normal_")(input)
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std:g}")


_cauchy = _sampler(
    "cauchy(Tensor input, float median=0.0, float sigma=1.0, any generator=None)",
    lambda g, x, median, sigma: g.cauchy(x.shape, x.dtype, median, sigma),
    lambda make: [sample(make(3, 2), 1.0, 2.0)],
    _check_spread,
)
_log_normal = _sampler(
    "log_normal(Tensor input, float mean=1.0, float std=2.0, any generator=None)",
    lambda g, x, mean, std: g.log_normal(x.shape, x.dtype, mean, std),
    lambda make: [sample(make(3, 2), 1.0, 2.0)],
    _check_log_normal,
)
_geometric = _sampler(
    "geometric(Tensor input, float p, any generator=None)",
    lambda g, x, p: g.geometric(x.shape, x.dtype, p),
    lambda make: [sample(make(3, 2), 0.3)],
    _check_chance,
)
_random_range = _sampler(
    "random_range(Tensor input, int low, int high, any generator=None)",
    lambda g, x, low, high: g.randint(low, high, x.shape, x.dtype),
    lambda make: [sample(make(3, 2), 0, 5)],
    exact=True,
)
_random_full = _sampler(
    "random_full(Tensor input, any generator=None)",
    lambda g, x: g.random(x.shape, x.dtype),
    lambda make: [sample(make(3, 2))],
    exact=True,
)


def _draw_slopes(g: Generator, x: Any, lower: float, upper: float) -> Any:
    """Draws for the elements that are not positive, in float64 and then rounded; ones for the others."""
    slopes = np.ones(x.shape, x.dtype)
    below = x <= 0
    slopes[below] = g.uniform((int(below.sum()),), np.float64, lower, upper)
    return slopes


_rrelu_slopes = _sampler(
    "rrelu_slopes(Tensor input, float lower, float upper, any generator=None)",
    _draw_slopes,
    lambda make: [sample(make(3, 2), 0.1, 0.3)],
    _check_uniform,
)


def _check_probabilities(p: Any) -> None:
    if not p.dtype.is_floating_point:
        raise not_implemented("bernoulli_tensor_cpu_p_", p.dtype)


def _bernoulli_type(input: Any, generator: Any) -> TensorType:
    _check_probabilities(input)
    return _same_type(input)


def _numpy_bernoulli(input: Any, generator: Any) -> Any:
    if input.size and not bool(((input >= 0) & (input <= 1)).all()):
        raise RuntimeError(
            "Expected p_in >= 0 && p_in <= 1 to be true, but got false.  (Could this error message be improved?  If "
            "so, please report an enhancement request to PyTorch.)"
        )
    return _draw_bernoulli(input, generator)


_draw_bernoulli = _drawn("bernoulli", 0, lambda g, p: g.bernoulli(p, p.shape, p.dtype))


_bernoulli = operator(
    "bernoulli(Tensor input, any generator=None)",
    type=_bernoulli_type,
    numpy=_numpy_bernoulli,
    derivative={"input": lambda g: g * 0},
    random=True,
    samples=lambda make: [sample(make(3, 2, low=0.0, high=1.0))],
    public=False,
    method=False,
)


def _multinomial_type(input: Any, num_samples: Any, replacement: Any, generator: Any) -> TensorType:
    if input.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if not input.dtype.is_floating_point:
        raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: {input.dtype!r}")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > input.shape[-1]:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    return TensorType(dtypes.int64, (*input.shape[:-1], num_samples), input.device)


_multinomial = operator(
    "multinomial(Tensor input, int num_samples, bool replacement=False, *, any generator=None)",
    type=_multinomial_type,
    numpy=lambda input, num_samples, replacement, generator: _generator(generator).multinomial(
        np.ascontiguousarray(input), num_samples, replacement
    ),
    random=True,
    samples=lambda make: [sample(make(2, 5, low=0.1, high=1.0), 3), sample(make(4, low=0.1, high=1.0), 6, True)],
    out=True,
)


@function(method=True)
def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None, out: Tensor | None = None
) -> Tensor:
    """Zeros and ones: with probability `input` each, or `p` for all. See torch.bernoulli."""
    if p is None:
        return _finish(_bernoulli(input, generator), False, out)
    with_p: Tensor = call(lookup("bernoulli_fill"), (input, float(p), generator))
    return _finish(with_p, False, out)


@function()
def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: dtype_class | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Normal numbers with given means and standard deviations (tensors or numbers). See torch.normal."""
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        if size is None:
            raise TypeError("normal() with two numbers needs a size")
        empty = FUNCTIONS["empty"](size, dtype=dtype or dtypes.get_default_dtype(), device=device)
        drawn: Tensor = call(lookup("normal"), (empty, float(mean), float(std), generator))
        return _finish(drawn, requires_grad, out)
    with_shape = (
        mean + std
        if isinstance(mean, Tensor) and isinstance(std, Tensor)
        else mean
        if isinstance(mean, Tensor)
        else std
    )
    noise = _randn(tuple(with_shape.shape), with_shape.dtype, with_shape.device, generator)
    fixed_mean, fixed_std = (p.detach() if isinstance(p, Tensor) else p for p in (mean, std))
    drawn = noise * fixed_std + fixed_mean
    if with_shape.requires_grad and state.grad_enabled:
        # A draw does not say how it moves with its parameters: their gradients are zeros.
        drawn = FUNCTIONS["where"](FUNCTIONS["zeros_like"](drawn, dtype=dtypes.bool_), with_shape, drawn)
    return _finish(drawn, requires_grad, out)


def _in_memory_order(tensor: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """`draw(tensor)` with the elements drawn in the order in which a dense tensor of these strides lies in memory.

    PyTorch fills memory from its start to its end; a transposed tensor therefore gets other draws than its copy.
    """
    if tensor.is_contiguous():
        return draw(tensor)
    strides = pointwise_strides(tuple(tensor.shape), [(tuple(tensor.shape), tensor.stride())])
    order = sorted(range(tensor.ndim), key=lambda d: -strides[d])
    inverse = sorted(range(tensor.ndim), key=order.__getitem__)
    drawn: Tensor = draw(tensor.permute(order)).permute(inverse)
    return drawn


def _inplace_sampler(name: str, record: str, defaults: dict[str, Any]) -> None:
    """Install `name` on Tensor: fills the tensor in place with draws of a record."""
    op = lookup(record)
    names = tuple(defaults)

    def fill(self: Tensor, *args: Any, generator: Generator | None = None, **given: Any) -> Tensor:
        if len(args) > len(names) or set(given) - set(names):
            raise TypeError(f"{name}() takes {', '.join(names)} and generator")
        values = {**defaults, **dict(zip(names, args, strict=False)), **given}
        numbers = tuple(float(v) if isinstance(v, int | float) else v for v in values.values())
        if record == "normal":
            call_inplace(op, (self, *numbers, generator))
        else:
            _in_memory_order(self, lambda x: call_inplace(op, (x, *numbers, generator)))
        return self

    fill.__name__ = name
    fill.__doc__ = f"Fill this tensor with draws, in place. See torch.Tensor.{name}."
    method(name)(fill)


_inplace_sampler("uniform_", "uniform", {"from": 0.0, "to": 1.0})
_inplace_sampler("normal_", "normal", {"mean": 0.0, "std": 1.0})
_inplace_sampler("exponential_", "exponential", {"lambd": 1.0})
_inplace_sampler("cauchy_", "cauchy", {"median": 0.0, "sigma": 1.0})
_inplace_sampler("log_normal_", "log_normal", {"mean": 1.0, "std": 2.0})


@method("geometric_")
def _geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill this tensor with how many trials a success of probability `p` took. See torch.Tensor.geometric_."""
    _in_memory_order(self, lambda x: call_inplace(lookup("geometric"), (x, float(p), generator)))
    return self


def _bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill this tensor with zeros and ones, in place. See torch.Tensor.bernoulli_."""
    if isinstance(p, Tensor):
        drawn = _bernoulli(p.expand(self.shape), generator)
        result: Tensor = self.copy_(drawn)
        return result
    _in_memory_order(self, lambda x: call_inplace(lookup("bernoulli_fill"), (x, float(p), generator)))
    return self


def _random_(self: Tensor, *bounds: Any, generator: Generator | None = None) -> Tensor:
    """Fill this tensor with integers: `random_()`, `random_(to)` or `random_(from, to)`. See torch.Tensor.random_."""
    if not bounds:
        _in_memory_order(self, lambda x: call_inplace(lookup("random_full"), (x, generator)))
        return self
    low, high = (0, bounds[0]) if len(bounds) == 1 else bounds
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    _in_memory_order(self, lambda x: call_inplace(lookup("random_range"), (x, low, high, generator)))
    return self


method("bernoulli_")(_bernoulli_)
method("random_")(also_by_name(_random_, "from", "to"))


@function()
def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """`input` where positive, else times a slope: in training one drawn for each element from [lower, upper), otherwise
    their mean. See torch.nn.functional.rrelu."""
    if lower > upper:
        raise RuntimeError("Lower bound should be less than or equal to the upper bound")
    if not training:
        sloped: Tensor = FUNCTIONS["leaky_relu"](input, (lower + upper) / 2)
        return sloped
    slopes: Tensor = call(lookup("rrelu_slopes"), (input.detach(), float(lower), float(upper), generator))
    result: Tensor = input * slopes
    return result


@function()
def dropout(input: Tensor, p: float = 0.5, train: bool = True) -> Tensor:
    """Zero elements with probability `p` and scale the others by 1 / (1 - p). See torch.nn.functional.dropout.

    Raises ValueError for a probability outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not train or p == 0:
        return input
    if p == 1:
        return input * 0
    mask = _in_memory_order(input.detach(), lambda x: call(lookup("bernoulli_fill"), (x, 1 - p, None)))
    dropped: Tensor = input * mask.div(1 - p)
    return dropped
