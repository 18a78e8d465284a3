"""Random training programs: a model, an optimizer and a step, and what changes between its calls.

Most combinations are valid. Where one is not, the eager run raises, and the compiled one has to raise the same."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from random_running import Program

CLASSES = '''
class Block(nn.Module):
    """Has state of every kind: a buffer that each call changes, a Python number, tied weights, ways through it."""

    def __init__(self, size):
        super().__init__()
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        self.second.weight = self.first.weight
        self.scale, self.depth, self.gates = 0.5, 2, nn.ParameterDict({"a": nn.Parameter(torch.ones(size))})
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(size))

    def forward(self, x):
        if self.training:
            self.calls += 1
            with torch.no_grad():
                self.mean.mul_(0.9).add_(x.detach().reshape(-1, x.shape[-1]).mean(0), alpha=0.1)
        for _ in range(self.depth):
            x = torch.tanh(self.first(x)) * self.gates["a"] + self.second(x) * self.scale
        return x - self.mean


class Branch(nn.Module):
    """Goes one of two ways."""

    def __init__(self, size):
        super().__init__()
        self.ways = nn.ModuleList([nn.Linear(size, size), nn.Linear(size, size)])

    def forward(self, x):
        return self.ways[0](x) if x.sum() > 0.0123 else self.ways[1](x).relu()


class Recurrent(nn.Module):
    def __init__(self, size, kind):
        super().__init__()
        self.cell = kind(size, size, batch_first=True)

    def forward(self, x):
        return self.cell(x[:, None, :].expand(-1, 3, -1))[0][:, -1]


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2 + 0 * ctx.saved_tensors[0]


class Own(nn.Module):
    def forward(self, x):
        return Double.apply(x)


@dataclasses.dataclass
class Settings:
    clip: float = 1.0
    penalty: bool = False
    weights: tuple = (1.0, 0.5)


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    y: torch.Tensor
    weight: float = 1.0
'''

LAYERS = (
    "nn.Linear(4, 4)", "nn.Linear(4, 4, bias=False)", "nn.Tanh()", "nn.ReLU()", "nn.ReLU(inplace=True)", "nn.GELU()",
    "nn.LayerNorm(4)", "nn.BatchNorm1d(4)", "nn.BatchNorm1d(4, momentum=None)", "nn.Dropout(0.3)",
    "nn.GroupNorm(2, 4)", "Block(4)", "Branch(4)", "Recurrent(4, nn.LSTM)", "Recurrent(4, nn.GRU)", "Own()",
    "nn.PReLU()", "nn.Sequential(nn.Linear(4, 3), nn.SiLU(), nn.Linear(3, 4))", "nn.Identity()", "nn.RMSNorm(4)",
    "nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(8, 4))",
    "nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))", "nn.Softmax(-1)",
    "nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))", "nn.TransformerEncoderLayer(4, 2, 8, 0.2)",
)  # fmt: skip
# eps: gradients that are nothing but rounding errors must not become steps of the size of `lr`.
OPTIMIZERS = (
    "SGD(PARAMS, lr=0.1)", "SGD(PARAMS, lr=0.1, momentum=0.9, nesterov=True)", "SGD(PARAMS, lr=0.1, weight_decay=0.1)",
    "Adam(PARAMS, lr=0.05, eps=0.01)", "AdamW(PARAMS, lr=0.05, amsgrad=True, eps=0.01)",
    "Adam(PARAMS, lr=0.05, maximize=True, eps=0.01)", "SGD(PARAMS, lr=0.1, momentum=0.9, dampening=0.3)",
    "RMSprop(PARAMS, lr=0.02, centered=True, momentum=0.5, eps=0.01)", "Adagrad(PARAMS, lr=0.1, eps=0.01)",
    "Adadelta(PARAMS, eps=0.01)", "NAdam(PARAMS, lr=0.02, eps=0.01)", "RAdam(PARAMS, lr=0.02, eps=0.01)",
    "Adamax(PARAMS, lr=0.02, eps=0.01)", "ASGD(PARAMS, lr=0.02)", "SGD(PARAMS, lr=torch.tensor(0.1))",
)  # fmt: skip
GROUPS = (
    "model.parameters()",
    "[p for p in model.parameters() if p.requires_grad]",
    "[{'params': list(model.parameters())[:1], 'lr': 0.01}, {'params': list(model.parameters())[1:]}]",
)
SCHEDULERS = (
    "StepLR(optimizer, 1, 0.5)", "CosineAnnealingLR(optimizer, 5)", "ExponentialLR(optimizer, 0.9)",
    "LambdaLR(optimizer, lambda n: 1 / (n + 1))", "OneCycleLR(optimizer, 0.1, total_steps=20)",
    "LinearLR(optimizer, 0.5, total_iters=3)",
)  # fmt: skip
LOSSES = (
    "F.mse_loss(z, y)", "(z - y).square().mean()", "F.cross_entropy(z, y.argmax(-1))", "F.smooth_l1_loss(z, y)",
    "F.binary_cross_entropy_with_logits(z, y.sigmoid())", "F.kl_div(z.log_softmax(-1), y.softmax(-1))",
    "(z * y).sum()", "F.l1_loss(z, y, reduction='sum')", "F.huber_loss(z, y)", "z.logsumexp(-1).sum()",
    "F.cosine_embedding_loss(z, y, torch.ones(z.shape[0]))", "F.nll_loss(z.log_softmax(-1), y.argmax(-1))",
)  # fmt: skip
EXTRAS = (
    "loss = loss + 0.01 * sum(w.square().sum() for w in model.parameters())", "loss = loss * settings.weights[0]",
    "loss = loss + sum(state['terms'])", "if settings.penalty:\n    loss = loss + z.abs().mean()",
    "(gx,) = torch.autograd.grad(model(x.detach().requires_grad_()).sum(), [next(model.parameters())], "
    "create_graph=True, allow_unused=True)\nif gx is not None: loss = loss + gx.square().mean()",
    "loss = torch.cond(loss.detach() > 0.5123, lambda: loss * 0.5, lambda: loss * 2)",
    "if loss.item() > 1.2345: loss = loss / 2", "loss = loss + func.vmap(lambda r: (r * r).sum())(z).mean()",
    "loss = loss + func.grad(lambda t: (t ** 3).sum())(z).mean()",
    "loss = loss + func.jvp(torch.sin, (z,), (y,))[1].mean()",
    "per = func.vmap(func.grad(lambda r: r.tanh().square().sum()))(z)\nloss = loss + per.mean()",
    "loss = loss + F.dropout(z, 0.25).mean()", "loss = loss + torch.rand(()) * z.mean()",
    "z.register_hook(lambda g: g * 0.5)", "z.retain_grad()", "kept = z[z > 0.1]\nloss = loss + kept.square().sum()",
    "with torch.autocast('cpu', dtype=torch.bfloat16):\n    loss = loss + (z @ y.mT).float().mean()",
    "for row in z.unbind(0): loss = loss + row.amax() * 0.1",
    "n = 0\nwhile n < 3 and loss.item() > 0.4321:\n    loss, n = loss * 0.5, n + 1",
    "loss = loss + torch.utils.checkpoint.checkpoint(lambda t: torch.sin(t) * t, z, use_reentrant=False).mean()",
    "loss = loss + F.one_hot(y.argmax(-1), z.shape[-1]).to(z.dtype).mul(z).sum()",
    "h = z.clone()\nh[:, 0] = 0\nh[h > 1] *= 0.5\nloss = loss + h.mean()",
    "loss = loss + func.functional_call(model, {n: w.detach() for n, w in model.named_parameters()}, (x,)).mean()",
    "carry, ys = torch.scan(lambda c, t: (c * 0.5 + t, c), z[0], z)\nloss = loss + carry.sum() + ys.mean()",
    "loss = loss + state['total'] * 0.1", "assert z.shape[0] % 1 == 0\nif z.shape[0] > 2: loss = loss * 1.5",
    "loss = loss + torch.arange(z.shape[0]).to(z.dtype).mean()", "loss = loss + z.detach().unique().sum()",
    "values, places = z.topk(2, -1)\nloss = loss + values.sum() + places.sum()",
    "loss = loss.to(torch.float64).to(x.dtype)",
)  # fmt: skip
AFTER = (
    "nn.utils.clip_grad_norm_(model.parameters(), settings.clip)",
    "nn.utils.clip_grad_value_(model.parameters(), 0.1)",
    "with torch.no_grad():\n    for e, w in zip(ema, model.parameters()): e.lerp_(w, 0.1)",
    "state['total'].add_(loss.detach())",
    "for w in model.parameters():\n    if w.grad is not None: w.grad.mul_(0.5)",
    "with torch.no_grad():\n    for w in model.parameters(): w.clamp_(-1, 1)",
    "next(model.parameters()).data.mul_(0.99)",
    "state['total'] = state['total'] * 0.5",
    "for w in model.parameters():\n    if w.grad is not None: torch.nn.init.zeros_(w.grad) if w.ndim > 2 else None",
)  # fmt: skip
BETWEEN = (
    "optimizer.param_groups[0]['lr'] *= 0.5", "scheduler.step()", "scheduler.step()", "model.eval()", "model.train()",
    "next(model.parameters()).requires_grad_(False)", "[w.requires_grad_() for w in model.parameters()]",
    "model[0].requires_grad_(False)", "model[-1] = nn.Linear(4, 4, dtype=next(model.parameters()).dtype)",
    "model[0], model[-1] = model[-1], model[0]",
    "model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()})", "model.double()", "model.float()",
    "optimizer.zero_grad()", "optimizer.zero_grad(set_to_none=False)",
    "optimizer = optim.SGD(model.parameters(), lr=0.01)", "settings.penalty = not settings.penalty",
    "settings.clip = 0.1", "settings = Settings(weights=(0.5, 2.0))", "state['terms'].append(0.25)",
    "state['terms'] = [2]", "torch.manual_seed(3)", "model[0].register_forward_hook(lambda m, i, o: o * 2)",
    "model[0].register_forward_pre_hook(lambda m, i: (i[0] + 1,))", "model = copy.deepcopy(model)",
    "next(model.parameters()).register_hook(lambda g: g * 2)", "state['total'] = torch.tensor(1.0)",
    "next(model.parameters()).register_post_accumulate_grad_hook(lambda w: w.grad.mul_(0.5))",
    "optimizer.add_param_group({'params': [torch.ones(2, requires_grad=True)], 'lr': 0.5})", "model.append(nn.Tanh())",
    "model.insert(0, nn.Identity())", "del model[-1]", "model[0].extra = 3",
    "optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))", "[w.grad for w in model.parameters()]",
    "with torch.no_grad(): next(model.parameters()).add_(0.1)", "next(model.parameters()).grad = None",
    "for m in model.modules():\n    if isinstance(m, Block): m.scale, m.depth = 0.25, 1",
    "for m in model.modules():\n    if isinstance(m, nn.Dropout): m.p = 0.6", "ema[0].zero_()",
    "next(model.parameters()).data = next(model.parameters()).data * 0.5", "torch.set_grad_enabled(True)",
    "model[0].register_full_backward_hook(lambda m, gi, go: None)", "optimizer.param_groups[0]['weight_decay'] = 0.2",
    "[(loss, z), *_] = [out[-1][:2]]", "state['fresh'] = 1", "nn.utils.prune.l1_unstructured(model[0], 'weight', 0.3)",
)  # fmt: skip
STEP = ("optimizer.zero_grad()", "optimizer.zero_grad(set_to_none=False)", "model.zero_grad()")


class Trainer:
    """Writes one program. `choose(n)` gives a number below n."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose
        self.seeds = 0

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.choose(len(items))]

    def some(self, percent: int) -> bool:
        return self.choose(100) >= 100 - percent

    def several(self, items: Sequence[str], least: int, most: int) -> list[str]:
        return [self.pick(items) for _ in range(least + self.choose(most - least + 1))]

    def program(self) -> Program:
        layers = [self.pick(["nn.Linear(4, 4)", *LAYERS]), *self.several(LAYERS, 0, 3)]
        setup = [
            CLASSES,
            f"model = nn.Sequential({', '.join(layers)}).to(getattr(torch, 'float32'))",
            f"optimizer = optim.{self.pick(OPTIMIZERS).replace('PARAMS', self.pick(GROUPS))}",
            f"scheduler = optim.lr_scheduler.{self.pick(SCHEDULERS)}",
            "settings = Settings()",
            "state = {'terms': [1.0, 0.5], 'total': torch.zeros(()).to(getattr(torch, 'float32'))}",
            "ema = [w.detach().clone() for w in model.parameters()]",
        ]
        way, held = self.choose(10), self.choose(5)
        parameters, unpack = ("x", "y"), []
        if held == 0:
            parameters, unpack = ("batch",), ["x, y = batch.x, batch.y * batch.weight"]
        elif held == 1:
            parameters, unpack = ("batch",), ["x, y = batch['x'], batch['y'][0]"]
        body = [*unpack]
        forward = "z = model(x)"
        if self.some(10):
            forward = "with torch.autocast('cpu', dtype=torch.bfloat16):\n    z = model(x)\nz = z.float()"
        body += [forward, f"loss = {self.pick(LOSSES)}", *self.several(EXTRAS, 0, 2)]
        results = self.several(
            ["loss", "z", "z.detach()", "loss.detach()", "x", "state['total']", "z[0]", "{'z': z}"], 1, 3
        )
        backward: tuple[int, ...] = ()
        calls, between = self.calls(held)
        if way < 6:
            body.append("loss.backward()")
            body += self.several(AFTER, 0, 2)
            body.insert(self.pick([0, len(body)]), self.pick(STEP)) if self.some(80) else None
            body.append("optimizer.step()")
            if self.some(30):
                body.append(self.pick(STEP))
            if self.some(10):
                body.append("scheduler.step()")
            results.append(self.pick(["loss.detach()", "optimizer.param_groups[0]['lr']", "len(ema)"]))
        elif way < 9:  # the backward pass and the step are outside
            results = ["loss", *results]
            between = tuple(
                sorted(between + tuple((n, "optimizer.step()") for n in range(1, len(calls)) if self.some(70)))
            )
            backward = tuple(i for i in range(len(calls)) if self.some(85))
        else:
            body = ["with torch.no_grad():\n" + textwrap.indent("\n".join(body), "    ")]
        watched = (
            "list(model.parameters())", "list(model.buffers())", "optimizer.state_dict()", "state", "ema",
            "[w.grad for w in model.parameters()]",
        )  # fmt: skip
        return Program(tuple(setup), parameters, tuple(body), tuple(results), calls, between, backward, False, watched)

    def batch(self, held: int, rows: int, dtype: str = "float32") -> str:
        self.seeds += 2
        x, y = (f"data({self.seeds + i}, {(rows, 4)}, {dtype!r})" for i in range(2))
        if held == 0:
            return f"Batch({x}, {y}" + (", 0.5)" if self.some(20) else ")")
        if held == 1:
            return f"{{'x': {x}, 'y': [{y}]}}"
        return f"{x}, {y}" if self.some(80) else f"{x}, y={y}"

    def calls(self, held: int) -> tuple[tuple[str, ...], tuple[tuple[int, str], ...]]:
        rows, dtype = self.pick([3, 4, 2, 5]), "float32"
        found, between = [self.batch(held, rows)], []
        for n in range(1, 2 + self.choose(4)):
            for change in self.several(BETWEEN, 0, 2):
                between.append((n, change))
                dtype = "float64" if change == "model.double()" else "float32" if change == "model.float()" else dtype
            other = rows if self.some(60) else self.pick([rows + 1, rows + 3, 1, 2, 0])
            found.append(self.batch(held, other, dtype))
        return tuple(found), tuple(between)


def random_training(choose: Callable[[int], int]) -> Program:
    """A program from a source of choices."""
    return Trainer(choose).program()


def from_seed(seed: int) -> Program:
    """A program from a seed, for runs by hand."""
    return random_training(random.Random(seed).randrange)
