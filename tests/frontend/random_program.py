"""Random programs for `test_random_programs`: operators, views, in-place changes, control flow and gradients.

Statements are chosen one by one; each is executed at once, so that the next can be chosen for the shapes and dtypes
there are. The same namespace recipe then serves the eager and the compiled run."""

from __future__ import annotations

import contextlib
import random
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from random_running import HEADER, Program

import graphtorch as torch

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
MORE = (
    "{x}.gather(0, torch.zeros_like({x}, dtype=torch.int64))", "{x}.gather(-1, {x}.argsort(-1))",
    "{x}.index_add(0, torch.tensor([0]), {x}[:1])", "{x}.scatter(-1, {x}.argsort(-1), {x})", "{x}.topk(1, -1)[0]",
    "{x}.scatter_add(0, torch.zeros_like({x}, dtype=torch.int64), {x})", "{x}.topk(1, 0, largest=False)[1]",
    "{x}.kthvalue(1, 0)[0]", "{x}.median(-1)[0]", "{x}.median()", "{x}.sort(-1, descending=True)[0]",
    "{x}.masked_scatter({x} > 0, {x})", "F.pad({x}, (1, 2))", "F.pad({x}, (-1, 1))", "torch.flip({x}, (0,))",
    "{x}.repeat_interleave(2, 0)", "{x}.cummin(0)[0]", "{x}.logcumsumexp(-1)", "torch.diff({x})", "{x}.tan()",
    "{x}.scatter_reduce(0, torch.zeros_like({x}, dtype=torch.int64), {x}, 'amax')", "{x}.unfold(0, 2, 1) * 2",
    "{x}.long() // ({x}.long().abs() + 1)", "{x}.long() % 3", "{x}.long() ** 2", "torch.stack({x}.unbind(0)[::-1])",
    "sum(t for t in {x}.unbind(0))", "{x}.asinh()", "{x}.sinh()", "torch.quantile({x}.float(), 0.5)", "{x}.repeat(2)",
    "F.one_hot({x}.long().abs() % 3, 3)", "{x}.std(0)", "F.embedding({x}.long().abs() % 3, {y})", "{x}.unique()",
    "F.layer_norm({x}, {x}.shape[-1:])", "F.normalize({x}, dim=-1)", "torch.einsum('...i,...i->...', {x}, {y})",
    "F.scaled_dot_product_attention({x}[None], {x}[None], {x}[None])", "torch.cdist({x}, {x})",
    "torch.outer({x}, {y})", "F.conv1d({x}[None], {x}[None])", "F.max_pool1d({x}[None], 2)[0]",
    "F.avg_pool1d({x}[None], 2)[0]", "{x}.clamp(min={y})", "{x}.lerp({y}, 0.25)",
    "torch.addcmul({x}, {x}, {y}, value=0.5)", "{x}.var_mean(-1)[1]", "torch.linalg.norm({x}, dim=-1)",
    "torch.tensordot({x}, {y}, 1)", "torch.broadcast_to({x}, (2, *{x}.shape))", "torch.block_diag({x}, {x})",
    "torch.triu({x}, 1)", "torch.cartesian_prod({x}, {x})", "{x}.nansum(0)", "{x}.half()", "{x}.bfloat16() * 2",
    "torch.complex({x}.float(), {x}.float()).abs()", "{x}.float().cov()", "{x}.unique(return_counts=True)[1]",
    "torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), {x}.float())", "torch.meshgrid({x}, {x}, indexing='ij')[0]",
    "{x}.isclose({y})", "{x}.heaviside({y})", "torch.logaddexp({x}, {y})", "{x}.bincount()", "{x}.nonzero()[:, 0]",
    "{x}.diag()", "{x}.trace()", "torch.where({x} > 0)[0]", "{x}.float().log_softmax(0).exp()", "{x} << 1", "~{x}",
    "{x} & {y}", "{x}.multiply({y}).hypot({x})", "torch.lerp({x}, {y}, {x})", "{x}.select_scatter({x}[0], 0, 1)",
    "{x}.allclose({x}) * {x}", "{x}.slice_scatter({x}[:1], 0, 1, 2)", "{x}.index_put((torch.tensor([0]),), {y})",
    "{x}.unflatten(0, (1, -1))", "Cube.apply({x}, 2.0)", "Cube.apply({x}, scale) + {y}", "{x} * {y}.sum().item()",
    "{x}.new_tensor([1, 2])", "torch.utils.checkpoint.checkpoint(lambda t: t.sin() * t, {x}, use_reentrant=False)",
    "torch.vander({x})", "(lambda t: t * scale + q)({x})", "Pair({x}, [{y}]).first + 1",
    "{{'k': {x}, 'l': [{y}]}}['l'][0] * 2", "max([{x}, {y}], key=lambda t: t.numel())", "torch.tensor({x}.shape)",
    "torch.tensor([1.0, 2.0])[{x}.ndim > 1 and 1 or 0]",
)  # fmt: skip
TRANSFORMS = (
    "func.grad(lambda t: (t * t).sum())({x})", "func.vmap(lambda t: t * 2 + {y})({x})",
    "func.vmap(lambda t: t.sum())({x})", "func.vmap(func.grad(lambda t: t.tanh().square().sum()))({x})",
    "func.jvp(torch.sin, ({x},), ({x},))[1]", "func.grad(lambda t: (t * {y}).sum().square())({x})",
    "func.vjp(lambda t: t.exp() * {y}, {x})[0]", "func.hessian(lambda t: (t ** 3).sum())({x})",
    "func.jacrev(lambda t: t.square() * 2)({x})", "func.jacfwd(lambda t: t.cumsum(0))({x})",
    "func.vmap(lambda t, u: t @ u, in_dims=(0, None))({x}, {y})",
    "func.grad(lambda t: func.grad(lambda u: (u * u * t).sum())({x}).sum())({y})",
    "func.vmap(lambda t: t.clone().mul_(2))({x})", "func.grad_and_value(lambda t: t.sigmoid().mean())({x})[1]",
    "func.vmap(lambda t: F.dropout(t, 0.5), randomness='different')({x})",
    "func.linearize(lambda t: t.sin(), {x})[1]({x})", "func.vmap(lambda t: torch.where(t > 0, t, {y}))({x})",
)  # fmt: skip
DTYPES = ["float32", "float32", "float32", "float64", "int64", "bool"]
HALVES = ["float16", "bfloat16"]


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
    pure: bool = True  # leaves Python objects as they are

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
            (self.decision, 2), (self.more, 4), (self.transform, 1), (self.context, 1),
            (self.effect, 0 if self.pure else 1),
        )  # fmt: skip
        choices = [m for m, weight in table for _ in range(weight)]
        with contextlib.suppress(
            IndexError, ValueError, ZeroDivisionError, RuntimeError
        ):  # nothing there to apply it to
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

    def more(self) -> None:
        x = self.tensor()
        self.bind(self.pick(MORE).format(x=x, y=self.pick([x, self.tensor()])))

    def transform(self) -> None:
        x = self.tensor(lambda t: t.is_floating_point())
        self.bind(self.pick(TRANSFORMS).format(x=x, y=self.pick([x, self.tensor()])))

    def context(self) -> None:
        """A block in some mode."""
        x, name = self.tensor(lambda t: t.is_floating_point()), self.new()
        text = self.pick([
            "with torch.autocast('cpu', dtype=torch.bfloat16):\n    {v} = {x} @ {y}",
            "with torch.autocast('cpu', dtype=torch.bfloat16):\n    {v} = F.linear({x}, {y}).relu() + {x}",
            "with torch.enable_grad():\n    {v} = {x} * {y}",
            "with torch.set_grad_enabled(False):\n    {v} = {x}.t() * 2",
            "with torch.no_grad(), torch.enable_grad():\n    {v} = {x}.exp()",
            "with torch.inference_mode():\n    {v} = {x} * 2\n{v} = {v}.clone()",
            "with torch.no_grad():\n    {v} = {x}[0:1]\n{v} = {v} * {y}",
            "{v} = {x}\nn = 0\nwhile n < 3 and ({v}.double().abs().sum() < 20.123):\n    {v}, n = {v} * 2, n + 1",
            "{v} = {x}.detach()\n{v} = torch.while_loop(lambda n, t: n < 3, lambda n, t: (n + 1, t * 0.5 + 1), "
            "(torch.tensor(0), {v}))[1]",
            "{v} = torch.associative_scan(lambda s, t: s + t, {x}, 0)",
            "for n, row in enumerate({x}):\n    {v} = row * n",
            "{v}, _ = torch.scan(lambda c, t: (c + t, c.sum()), {x}[0], {x}, reverse=True)\n{v} = {v}.clone()",
            "try:\n    {v} = {x}.view(3, 17)\nexcept RuntimeError:\n    {v} = {x} * 3",
            "def inner(t, u=2):\n    t = t * u\n    t[..., :1] = 0\n    return t\n{v} = inner({x}, u=3)",
            "{v} = {x}.clone()\nfor n in range({x}.shape[0]):\n    {v}[n] += n",
            "{v} = {x} + 0\n{v}, w = {v}.chunk(2) if {v}.shape[0] > 1 else ({v}, {v})\n{v} = {v} * w.sum()",
            "if {x}.shape[0] % 2 == 0:\n    {v} = {x}.reshape(2, -1)\nelse:\n    {v} = {x} - 1",
            "parts = [{x} * n for n in range(3)]\nparts[1].add_(1)\n{v} = torch.stack(parts).sum(0)",
            "if isinstance({x}, torch.Tensor) and {x}.requires_grad:\n    {v} = {x}.detach()\nelse:\n    {v} = {x} + 1",
        ])  # fmt: skip
        if self.try_statement(text.format(x=x, y=self.tensor(), v=name)):
            value = self.scope.get(name)
            if isinstance(value, torch.Tensor) and value.numel() <= 400:
                self.names.append(name)

    def effect(self) -> None:
        """Changes a Python object, or the geometry of a tensor: what calls do eagerly."""
        x = self.tensor()
        self.try_statement(self.pick([
            "items[0] += 1", "options['k'] = options['k'] + 1", "items.append(2)", f"options['t'] = {x}",
            f"{x}.unsqueeze_(0)", f"{x}.squeeze_()", f"{x}.t_()", "options.setdefault('u', 3)", "items.sort()",
        ]))  # fmt: skip

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
        half, self.pure = self.some(10), not self.some(15)
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
            results.append(
                self.pick(["p.grad", "scale", "p", "a", "s", "a.shape[0]", "q.view(-1)", "p[...]", "b.grad"])
            )
        if self.some(10):
            x = results[0]
            results.append(
                self.pick(["{'k': [X], 'l': (X, a)}", "Pair(X, [b])", "[X, [X]]", "(None, X[:1])"]).replace("X", x)
            )
        calls, between = self.calls(kinds, shapes, rows)
        backward = tuple(i for i in range(len(calls)) if self.some(30))
        return Program(
            tuple(self.setup), tuple(parameters), tuple(self.body), tuple(results), calls, between, backward, half,
            ("p", "q", "s", *parameters, "items", "options"),
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
                ways = [
                    "b=b, a=a",
                    "a.double(), b",
                    "a.t() if a.ndim == 2 else a, b",
                    "a, b.requires_grad_(b.is_floating_point())",
                    "a, a",
                    "b, a",
                    "a, p",
                    "s, b",
                    "p, p",
                    "a, a.detach()",
                    "a.clone(), b",
                    "a, q",
                ]
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
                    "p.register_hook(lambda g: g * 2)", "q = q.double()", "p = torch.nn.Parameter(p.detach())",
                    "del items[1:]",
                    "torch.set_grad_enabled(False)", "torch.set_grad_enabled(True)", "q = q.clone()[:]", "s = s.half()",
                    "s = s.detach().t() if s.ndim == 2 else s", "items[:] = [2.5, 1]",
                    "options = {'k': 3.5}", "s = s[:1]",
                    "p.register_post_accumulate_grad_hook(lambda t: t.grad.mul_(0.5))", "q = p.view(-1)", "q, s = s, q",
                    "with torch.no_grad(): s = s.view(-1)", "s = (p * 2).detach()",
                    "torch.set_default_dtype(torch.float64)",
                    "p.grad = torch.ones_like(p)", "q.requires_grad_()",
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


def from_seed(seed: int) -> Program:
    """A program from a seed, for runs by hand."""
    return random_program(random.Random(seed).randrange)
