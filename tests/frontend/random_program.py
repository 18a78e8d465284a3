"""Random programs for `test_random_programs`: source text of a function, of the state that it reads and of its calls.

A program is text, so that a failure prints as a script. Statements are chosen one by one; each is executed at once, so
that the next can be chosen for the shapes and dtypes there are. The same namespace recipe then serves the eager and the
compiled run."""

from __future__ import annotations

import contextlib
import random
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import graphtorch as torch
from graphtorch.nn import functional

HEADER = """
import numpy as np
import graphtorch as torch
from graphtorch.nn import functional as F

def data(seed, shape, dtype="float32"):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return torch.tensor(rng.random(shape) < 0.5)
    if dtype == "int64":
        return torch.tensor(rng.integers(-3, 4, shape))
    return torch.tensor(rng.uniform(-2, 2, shape)).to(getattr(torch, dtype))
"""

UNARY = (
    "abs", "neg", "sin", "cos", "tanh", "sigmoid", "exp", "relu", "square", "sign", "floor", "ceil", "round",
    "trunc", "rsqrt", "sqrt", "log1p", "reciprocal", "erf", "expm1", "isnan", "isfinite", "logical_not", "frac",
)  # fmt: skip
FUNCTIONAL = (
    "gelu", "silu", "softplus", "leaky_relu", "elu", "hardtanh", "logsigmoid", "mish", "relu6", "selu",
)  # fmt: skip
BINARY = (
    "add", "sub", "mul", "div", "maximum", "minimum", "fmod", "remainder", "atan2", "eq", "ne", "lt", "le", "gt",
    "ge", "logical_and", "logical_xor", "pow",
)  # fmt: skip
REDUCTIONS = (
    "sum", "mean", "amax", "amin", "prod", "std", "var", "logsumexp", "norm", "any", "all", "argmax", "argmin",
    "count_nonzero",
)  # fmt: skip
INPLACE_UNARY = (
    "neg_", "abs_", "zero_", "tanh_", "sigmoid_", "relu_", "exp_", "square_", "floor_", "clamp_(-1,1)",
    "fill_(0.5)", "mul_(2)", "sub_(1)",
)  # fmt: skip
INPLACE_BINARY = ["add_", "sub_", "mul_", "maximum_", "copy_", "div_"]
VIEWS = (
    "t()", "T", "mT", "reshape(-1)", "view(-1)", "flatten()", "unsqueeze(0)", "unsqueeze(-1)", "squeeze()",
    "transpose(0,-1)", "detach()", "view(-1,2)", "reshape(2,-1)", "reshape(-1,1)", "movedim(0,-1)", "diagonal()",
    "unfold(0,2,1)", "contiguous()", "expand(3,*{x}.shape)", "chunk(2)[0]", "split(2)[-1]", "unbind(0)[0]",
    "view({x}.shape)", "reshape({x}.shape[::-1])", "data", "flip(0)", "unbind(-1)[-1]",
)  # fmt: skip
SLICES = (
    "0", "-1", "1:", ":-1", "::2", "1::2", ":,0", ":,1:", "...,0", "...,::2", "None", ":,None", "1:3", "0,0",
    ":2,1:", "-2:", "[1,0]", "[0,0],[1,1]", ":,[0,1,0]",
)  # fmt: skip
DTYPES = ["float32", "float32", "float32", "float64", "int64", "bool"]
HALVES = ["float16", "bfloat16"]


@dataclass(frozen=True)
class Program:
    """The text of one test. `backward` says after which calls the results are differentiated outside of the function.

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


@dataclass
class Writer:
    """Makes one program. `choose(n)` gives a number below n."""

    choose: Callable[[int], int]
    names: list[str] = field(default_factory=list)
    scope: dict[str, Any] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    seeds: int = 0
    count: int = 0

    # -- choices -----------------------------------------------------------------------------------------------------

    def pick(self, items: Any) -> Any:
        return items[self.choose(len(items))]

    def some(self, percent: int) -> bool:
        return self.choose(100) >= 100 - percent

    def tensors(self, condition: Callable[[Any], bool] = lambda t: True) -> list[str]:
        return [n for n in self.names if isinstance(self.scope.get(n), torch.Tensor) and condition(self.scope[n])]

    def tensor(self, condition: Callable[[Any], bool] = lambda t: True) -> str:
        """A name, later ones more often. Raises IndexError if there is none."""
        found = self.tensors(condition)
        if len(found) > 3 and self.some(50):
            found = found[-3:]
        return str(self.pick(found)) if found else self.pick(())

    def number(self) -> str:
        return str(self.pick(["2", "0.5", "-1", "3", "scale", "1.5", "1", "0", "True", "options['k']", "items[0]"]))

    # -- text --------------------------------------------------------------------------------------------------------

    def data(self, shape: tuple[int, ...], dtype: str) -> str:
        self.seeds += 1
        return f"data({self.seeds}, {shape}, {dtype!r})"

    def made(self, shape: tuple[int, ...], dtype: str, plain: bool = False) -> str:
        """An expression for a tensor of that shape in some layout."""
        kind = 0 if plain else self.choose(12)
        if kind == 1 and len(shape) == 2:
            return f"{self.data(shape[::-1], dtype)}.t()"
        if kind == 2 and shape:
            return f"{self.data((shape[0] * 2, *shape[1:]), dtype)}[::2]"
        if kind == 3 and len(shape) > 1:
            return f"{self.data((1, *shape[1:]), dtype)}.expand{shape}"
        if kind == 4 and shape:
            return f"{self.data((shape[0] + 1, *shape[1:]), dtype)}[1:]"
        if kind in (5, 6, 7) and "float" in dtype:
            return f"{self.data(shape, dtype)}.requires_grad_()"
        if kind == 8 and "float" in dtype:
            return f"({self.data(shape, dtype)}.requires_grad_() * 1)"
        return self.data(shape, dtype)

    def new(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def try_statement(self, text: str, keep_errors: bool = False) -> bool:
        """Run a statement; keep it if it runs."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(text, self.scope)
        except Exception:
            if keep_errors:
                self.body.append(text)
            return False
        self.body.append(text)
        return True

    def bind(self, expression: str) -> None:
        name = self.new()
        if self.try_statement(f"{name} = {expression}"):
            value = self.scope[name]
            if isinstance(value, torch.Tensor) and value.numel() <= 400:
                self.names.append(name)

    # -- statements --------------------------------------------------------------------------------------------------

    def statement(self) -> None:
        table = (
            (self.pointwise, 5), (self.view, 5), (self.inplace, 5), (self.reduction, 2), (self.product, 1),
            (self.index, 3), (self.assign, 3), (self.joined, 1), (self.gradient, 3), (self.no_grad, 1),
            (self.drawn, 1), (self.out, 1), (self.cast, 1), (self.created, 1), (self.mask, 2), (self.leaf, 1),
            (self.decision, 2),
        )  # fmt: skip
        choices = [m for m, weight in table for _ in range(weight)]
        with contextlib.suppress(IndexError, ValueError, ZeroDivisionError):  # nothing there to apply it to
            self.pick(choices)()

    def pointwise(self) -> None:
        x, kind = self.tensor(), self.choose(6)
        if kind == 0:
            self.bind(f"{x}.{self.pick(UNARY)}()")
        elif kind == 1:
            self.bind(f"F.{self.pick(FUNCTIONAL)}({x})")
        elif kind == 2:
            self.bind(f"{x} {self.pick(['+', '-', '*', '/', '<', '==', '**', '//', '%'])} {self.number()}")
        elif kind == 3:
            self.bind(f"{self.number()} {self.pick(['+', '-', '*', '>='])} {x}")
        elif kind == 4:
            self.bind(f"torch.where({x} > 0, {self.tensor()}, {self.number()})")
        else:
            self.bind(f"torch.{self.pick(BINARY)}({x}, {self.tensor()})")

    def reduction(self) -> None:
        x, dims = self.tensor(), self.pick(["", "0", "-1", "-1, keepdim=True", "0, keepdim=True"])
        kind = self.choose(8)
        if kind < 5:
            self.bind(f"{x}.{self.pick(REDUCTIONS)}({dims})")
        elif kind == 5:
            self.bind(f"F.{self.pick(['softmax', 'log_softmax'])}({x}, {self.pick(['0', '-1'])})")
        elif kind == 6:
            self.bind(f"{x}.{self.pick(['max', 'min', 'sort', 'cummax'])}(0)[{self.choose(2)}]")
        else:
            self.bind(f"{x}.{self.pick(['cumsum(0)', 'cumprod(-1)', 'argsort(-1)', 'tril()', 'roll(1)'])}")

    def product(self) -> None:
        x = self.tensor(lambda t: t.ndim >= 1 and t.is_floating_point())
        y = self.pick([x, f"{x}.mT", self.tensor(), f"{self.tensor()}.mT"])
        self.bind(self.pick([f"{x} @ {y}", f"torch.matmul({y}, {x})", f"F.linear({x}, {y})", f"{x} @ {y}"]))

    def view(self) -> None:
        x = self.tensor()
        text = self.pick(VIEWS).replace("{x}", x)
        self.bind(f"{x}.{text}")

    def index(self) -> None:
        x, kind = self.tensor(lambda t: t.ndim > 0), self.choose(6)
        if kind < 4:
            self.bind(f"{x}[{self.pick(SLICES)}]")
        elif kind == 4:
            i = self.tensor(lambda t: t.dtype is torch.int64)
            self.bind(f"{x}[{i} % {x}.shape[0]]")
        else:
            i = self.tensor(lambda t: t.dtype is torch.int64)
            function = self.pick(["index_select({x}, 0, {i})", "gather({x}, -1, {i})", "take_along_dim({x}, {i}, 0)"])
            self.bind("torch." + function.format(x=x, i=f"{i}.abs().clamp(0, 1)"))

    def joined(self) -> None:
        x = self.tensor()
        shape = self.scope[x].shape
        y = self.tensor(lambda t: t.shape == shape)
        self.bind(f"torch.{self.pick(['cat', 'stack'])}([{x}, {y}], {self.pick(['0', '-1'])})")

    def inplace(self) -> None:
        x, kind = self.tensor(), self.choose(6)
        if kind < 2:
            text = self.pick(INPLACE_UNARY)
            self.try_statement(f"{x}.{text}" if text.endswith(")") else f"{x}.{text}()")
        elif kind < 5:
            self.try_statement(f"{x}.{self.pick(INPLACE_BINARY)}({self.tensor()})")
        else:
            self.try_statement(f"{x} {self.pick(['+=', '-=', '*='])} {self.pick([self.number(), self.tensor()])}")

    def assign(self) -> None:
        x = self.tensor(lambda t: t.ndim > 0)
        place = self.pick([*SLICES, "torch.tensor(1)", "torch.tensor(0),1:"])
        sign = self.pick(["=", "=", "+=", "*="])
        self.try_statement(f"{x}[{place}] {sign} {self.pick([self.number(), self.tensor(), f'{x}[{place}]'])}")

    def mask(self) -> None:
        x, kind = self.tensor(), self.choose(5)
        if kind == 0:
            self.try_statement(f"{x}[{x} > 0] = {self.number()}")
        elif kind == 1:
            self.bind(f"{x}.masked_fill({self.tensor()} > 0.3, {self.number()})")
        elif kind == 2:
            self.try_statement(f"{x}.masked_fill_({x} < 0, {self.number()})")
        elif kind == 3:
            self.bind(f"torch.where({self.tensor()} > 0, {x}, {self.tensor()})")
        else:
            self.try_statement(f"{x}.index_add_(0, torch.tensor([0, 1]), {self.tensor()}[:2])")

    def cast(self) -> None:
        how = self.pick(["float()", "double()", "long()", "bool()", "to(torch.float64)", "type_as({y})", "int()"])
        self.bind(f"{self.tensor()}.{how.format(y=self.tensor())}")

    def created(self) -> None:
        x = self.tensor()
        text = self.pick([
            "torch.zeros(2, 3)", "torch.ones_like({x})", "torch.arange({x}.shape[0])", "{x}.new_zeros({x}.shape)",
            "torch.full_like({x}, 2)", "torch.tensor([1.5, -2.0])", "{x}.clone()", "torch.tensor(3.0)",
            "torch.arange({x}.numel()).reshape({x}.shape)", "torch.empty_like({x}).fill_(1)", "torch.eye(3)",
        ])  # fmt: skip
        self.bind(text.format(x=x))

    def drawn(self) -> None:
        x = self.tensor(lambda t: t.is_floating_point())
        text = self.pick([
            "torch.rand(3)", "torch.rand_like({x})", "F.dropout({x}, 0.5)", "torch.randn_like({x})",
            "torch.randperm(4)", "torch.bernoulli({x}.sigmoid())", "torch.randint(0, 3, (2,))",
            "{x}.detach().clone().uniform_()", "F.dropout({x} * 2, 0.25)", "{x}.detach().clone().normal_(1.0, 2.0)",
        ])  # fmt: skip
        self.bind(text.format(x=x))

    def out(self) -> None:
        x, y = self.tensor(), self.tensor(lambda t: not t.requires_grad)
        text = self.pick(["add({x}, 1, out={y})", "mul({x}, {x}, out={y})", "exp({x}, out={y})"])
        if self.scope[y].shape == self.scope[x].shape and not self.scope[x].requires_grad:
            self.try_statement("torch." + text.format(x=x, y=y))

    def loss(self) -> str:
        x = self.tensor(lambda t: t.requires_grad and t.is_floating_point())
        return str(self.pick([f"{x}.sum()", f"({x} * {x}).mean()", f"{x}.float().square().sum()", f"{x}.tanh().sum()"]))

    def gradient(self) -> None:
        kind = self.choose(9)
        leaf = self.tensor(lambda t: t.is_leaf and t.requires_grad)
        if kind < 3:
            keep = self.pick(["", "", "retain_graph=True", "create_graph=True"])
            self.try_statement(f"({self.loss()}).backward({keep})")
        elif kind < 5:
            x = self.tensor(lambda t: t.requires_grad)
            keep = self.pick(["", ", create_graph=True", ", create_graph=True", ", retain_graph=True"])
            self.bind(f"torch.autograd.grad({self.loss()}, [{x}]{keep})[0]")
        elif kind == 5:
            self.bind(f"{leaf}.grad")
        elif kind == 6:
            self.try_statement(f"{leaf}.grad{self.pick([' = None', '.zero_()', '.mul_(0.5)', '[0] = 1'])}")
        elif kind == 7:
            self.try_statement(f"with torch.no_grad():\n    {leaf} -= 0.1 * {leaf}.grad")
        else:
            x = self.tensor(lambda t: t.requires_grad and not t.is_leaf)
            self.try_statement(f"{x}.{self.pick(['register_hook(lambda g: g * 2)', 'retain_grad()'])}")

    def no_grad(self) -> None:
        start, names = len(self.body), len(self.names)
        self.scope["torch"].set_grad_enabled(False)
        try:
            self.pick([self.inplace, self.assign, self.pointwise, self.view, self.mask])()
        finally:
            self.scope["torch"].set_grad_enabled(True)
        added = self.body[start:]
        del self.body[start:]
        if added:
            self.body.append("with torch.no_grad():\n" + textwrap.indent("\n".join(added), "    "))
        assert len(self.names) - names <= 1

    def condition(self) -> str:
        """A question about data that rounding does not decide."""
        x = self.tensor()
        return str(self.pick([
            f"{x}.double().sum() > 0.1234", f"{x}.double().abs().max() < 1.0417", f"({x} > 0.2718).any()",
            f"bool(({x} < 0.5772).all())", f"{x}.double().mean().item() > 0.0619",
        ]))  # fmt: skip

    def decision(self) -> None:
        """Python control flow on data."""
        kind, fresh = self.choose(8), ".clone(memory_format=torch.contiguous_format)"
        if kind == 6:
            x, y = self.tensor(), self.tensor()
            # Results are new tensors, which require grad if those of either branch do.
            branches = self.pick([
                f"lambda: {x} * {y}, lambda: {x} + {y}", f"lambda: ({x} + {y}).tanh(), lambda: {x} / {y}",
                f"lambda: ({x} * {y}).sum(), lambda: ({x} - {y}).exp().sum()",
            ])  # fmt: skip
            self.bind(f"torch.cond(torch.as_tensor({self.condition()}), {branches}){fresh}")
        elif kind == 7:
            x, y = self.tensor(lambda t: t.ndim > 0), self.tensor()
            step = self.pick([f"(c * 0.5 + t, c * {y})", "(c + t, c.sin())", f"(torch.tanh(c + t * {y}), t)"])
            self.bind(f"torch.scan(lambda c, t: {step}, {x}[0], {x})[{self.choose(2)}]{fresh}")
        elif kind < 2:
            self.bind(f"{self.tensor()} * 2 if {self.condition()} else {self.tensor()} + 1")
        elif kind == 2:
            x = self.tensor()
            self.bind(self.pick([f"{x}[{x} > 0.2]", f"torch.nonzero({x} > 0.2)", f"{x}.masked_select({x} < 0.3)"]))
        elif kind == 3:
            count = f"int({self.tensor()}.double().tanh().sum() * 1.9)"
            self.bind(f"{self.tensor()} * {count}" if self.some(50) else f"{self.tensor()}[:{count}]")
        else:
            question, start = self.condition(), len(self.body)
            self.pick([self.inplace, self.assign, self.mask, self.gradient, self.out])()
            added = self.body[start:]
            if len(added) == 1 and " = " not in added[0].split("\n")[0].split("(")[0]:
                word = self.pick(["if {}:", "for _ in range(3):\n    if not ({}): break"])
                self.body[start:] = [word.format(question) + "\n" + textwrap.indent(added[0], "    ")]

    def leaf(self) -> None:
        self.bind(f"{self.tensor(lambda t: t.is_floating_point())}.detach().clone().requires_grad_()")

    # -- the whole ---------------------------------------------------------------------------------------------------

    def program(self) -> Program:
        exec(HEADER, self.scope)
        half = self.some(10)
        rows = self.pick([3, 4, 2, 1, 5])
        columns = self.pick([4, 3, 2, 1])
        shapes = [(rows, columns), (rows, columns), (columns,), (rows,), (), (rows, columns, 2), (columns, rows)]
        dtypes = [*DTYPES, *HALVES, *HALVES] if half else DTYPES
        self.setup = ["scale = 1.25", "options = {'k': 2}", "items = [3, 0.5]"]
        self.setup.append(f"p = {self.data(shapes[self.choose(7)], 'float32')}.requires_grad_()")
        self.setup.append(f"q = {self.data(shapes[self.choose(7)], self.pick(dtypes))}")
        self.setup.append(f"s = {self.made(shapes[self.choose(7)], self.pick(dtypes))}")
        if self.some(20):
            self.setup.append(f"q = {self.pick(['p.view(-1)', 'p.detach()', 's[0]', 's.reshape(-1)', 'p'])}")
        parameters = ["a", "b"]
        kinds = [(self.choose(7), self.pick(dtypes)) for _ in parameters]
        self.setup += [f"{n} = {self.made(shapes[k], d)}" for n, (k, d) in zip(parameters, kinds, strict=True)]
        if self.some(15):
            self.setup.append(f"b = {self.pick(['a', 'a.t()', 'a[1:]', 'a.detach()', 'a.view(-1)', 'p', 's', 'a[0]'])}")
        self.setup = self.runnable(self.setup)
        self.names = ["p", "q", "s", *parameters]
        for _ in range(2 + self.choose(9)):
            self.statement()
        if self.some(4):
            self.try_statement(self.pick(["a + torch.ones(7, 9)", "a[11]", "p.view(17)", "a.sum(5)"]), True)
        results = [self.tensor() for _ in range(1 + self.choose(3))]
        if self.some(15):
            results.append(self.pick(["p.grad", "scale", "p", "a", "s", "a.shape[0]", "q.view(-1)"]))
        calls, between = self.calls(kinds, shapes, rows)
        backward = tuple(i for i in range(len(calls)) if self.some(30))
        return Program(
            tuple(self.setup), tuple(parameters), tuple(self.body), tuple(results), calls, between, backward, half,
            ("p", "q", "s", *parameters),
        )  # fmt: skip

    def runnable(self, lines: list[str]) -> list[str]:
        kept: list[str] = []
        for line in lines:
            try:
                exec(line, self.scope)
            except (RuntimeError, IndexError):
                continue
            kept.append(line)
        return kept

    def calls(
        self, kinds: list[tuple[int, str]], shapes: list[Any], rows: int
    ) -> tuple[tuple[str, ...], tuple[tuple[int, str], ...]]:
        """Arguments of two to four calls: the same, of other sizes, aliasing, or earlier results."""
        found, between = ["a, b"], []
        for n in range(1, 2 + self.choose(3)):
            way = self.choose(10)
            if way < 4:
                found.append("a, b")
            elif way < 7:
                other = self.pick([rows + 1, rows + 2, 1, 2, 0, rows])
                sized = [tuple(other if n == rows and i != 1 else n for i, n in enumerate(s)) for s in shapes]
                found.append(", ".join(self.made(sized[k], d) for k, d in kinds))
            elif way == 7:
                ways = ["a, a", "b, a", "a, p", "s, b", "p, p", "a, a.detach()", "a.clone(), b", "a, q"]
                found.append(self.pick(ways))
            elif way == 8 and not any("hook" in text or "requires_grad_" in text for text in self.body):
                found.append(self.pick(["out[0][0], b", "a, out[0][-1]", "out[-1][0], out[-1][0]"]))
            else:
                found.append(", ".join(self.made(shapes[k], d) for k, d in kinds))
            if self.some(35):
                change = self.pick([
                    "p.grad = None", "scale = 2.5", "options['k'] = 5", "items[0] = 7", "p.requires_grad_(False)",
                    "with torch.no_grad(): p.mul_(2)", "s = s.clone()", "q = q.detach() * 2", "items.append(1)",
                    "p = p.detach().clone().requires_grad_()", "torch.manual_seed(5)", "p.data = p.data * 3",
                    "scale = True", "scale = 1", "out[0][0] if not out[0][0].requires_grad else 0", "scale = 1.0",
                    "s = s.detach().t() if s.ndim == 2 else s", "p.grad = torch.ones_like(p)", "q.requires_grad_()",
                ])  # fmt: skip
                between.append((n, change))
        return tuple(found), tuple(between)


def random_program(choose: Callable[[int], int]) -> Program:
    """A program from a source of choices."""
    torch.manual_seed(0)
    try:
        return Writer(choose).program()
    finally:
        torch.set_grad_enabled(True)


# -- running ----------------------------------------------------------------------------------------------------------


def execute(program: Program, backend: str | None) -> list[Any]:
    """What each call of a run shows: ("raised", class) or an observation of results and state."""
    torch.manual_seed(11)
    scope: dict[str, Any] = {"__name__": "program"}
    exec(HEADER, scope)
    for line in program.setup:
        exec(line, scope)
    exec(program.function(), scope)
    if backend is not None:
        scope["f"] = torch.compile(scope["f"], backend=backend)
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
        seen.append(observe(scope, program, out))
    return seen


def observe(scope: dict[str, Any], program: Program, out: list[Any]) -> dict[str, Any]:
    """Every tensor that the user can see, with values, flags and how they share memory."""
    tensors: dict[str, Any] = {}
    for i, results in enumerate(out):
        for j, result in enumerate(results):
            tensors[f"out[{i}][{j}]"] = result
    for name in program.watched:
        tensors[name] = scope.get(name)
    for name, value in list(tensors.items()):
        if isinstance(value, torch.Tensor) and value.is_leaf:
            tensors[f"{name}.grad"] = value.grad
    shown: dict[str, Any] = {"generator": torch.get_rng_state().numpy().copy()}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in tensors.items():
        if isinstance(value, torch.Tensor):
            held = value.detach()
            arrays[name] = held.view(torch.int16).numpy() if value.dtype is torch.bfloat16 else held.numpy()
            shown[name] = (
                str(value.dtype), tuple(value.shape), value.requires_grad, value.is_leaf,
                held.double().numpy().copy() if value.is_floating_point() else held.numpy().copy(),
            )  # fmt: skip
        else:
            shown[name] = (type(value).__name__, value)
    names = list(arrays)
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            if tensors[first] is tensors[second]:
                shown[f"{first}, {second}"] = "is"
            elif arrays[first].size and np.may_share_memory(arrays[first], arrays[second]):
                a, b = (arrays[k].__array_interface__["data"][0] for k in (first, second))
                spread = 0 in arrays[first].strides + arrays[second].strides  # eager gradients of sums, for instance
                shown[f"{first}, {second}"] = ("shares", None if spread else a - b)
    return shown


def difference(actual: list[Any], expected: list[Any], bound: float) -> str | None:
    """What differs between two runs, in words; None for nothing."""
    for i, (a, e) in enumerate(zip(actual, expected, strict=False)):
        if isinstance(a, tuple) or isinstance(e, tuple):
            if isinstance(e, tuple) and "ZeroDivision" in e[2]:
                return None  # found by the operator that divides, if its result is used
            if isinstance(e, tuple) and isinstance(a, tuple) and a[0] == e[0] and e[1] == "IndexError":
                return None  # a bad element, and later in the program what a capture sees at once
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
    """The same kind of tensor with other floating-point numbers in it."""


def _same_but_for_values(a: Any, b: Any) -> bool:
    if not (isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) == 5 and a[:4] == b[:4]):
        return False
    return isinstance(a[4], np.ndarray) and a[4].dtype.kind == "f" and a[4].shape == b[4].shape


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


def failure(program: Program, backend: str) -> str | None:
    """How a compiled run differs from the eager one.

    Rounding errors can grow to any size (1 - tanh(x)**2, exp(exp(x)) in bfloat16). So where nothing but numbers differ,
    the same program in double precision decides, with bounds as much tighter as that is more exact."""
    found = _failure(program, backend)
    if isinstance(found, ValueDifference):
        doubled = in_double(program)
        if doubled != program and _failure(doubled, backend, 1e-9) is None:
            ROUNDING.append(program)
            return None
    return found


ROUNDING: list[Program] = []  # programs that differ by grown rounding errors


def in_double(program: Program) -> Program:
    """The program with float64 wherever it says another floating-point dtype."""

    def of(text: str) -> str:
        for name in ("float32", "float16", "bfloat16"):
            text = text.replace(f"'{name}'", "'float64'")
        return text.replace(".float()", ".double()").replace("torch.tensor(3.0)", "torch.tensor(3.0).double()")

    return replace(
        program,
        **{name: tuple(map(of, getattr(program, name))) for name in ("setup", "body", "calls")},
        between=tuple((n, of(text)) for n, text in program.between),
        loose=False,
    )


def _failure(program: Program, backend: str, bound: float | None = None) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = execute(program, None)
        except Exception:
            return None  # no program: a shrinking step took away something needed
        finally:
            torch.set_grad_enabled(True)
        if any(isinstance(e, tuple) and e[1] == "NameError" for e in expected):
            return None
        try:
            actual = execute(program, backend)
        finally:
            torch.set_grad_enabled(True)
    return difference(actual, expected, bound or (0.05 if program.loose else 2e-4))


def shrink(program: Program, backend: str, same: Callable[[str], bool] = lambda text: True) -> Program:
    """A program that fails likewise and has nothing to leave out."""
    while True:
        for candidate in program.smaller():
            found = failure(candidate, backend)
            if found is not None and same(found):
                program = candidate
                break
        else:
            return program


def from_seed(seed: int) -> Program:
    """A program from a seed, for runs by hand."""
    return random_program(random.Random(seed).randrange)


__all__ = ["Program", "failure", "from_seed", "functional", "random_program", "shrink"]
