"""Code that was written for one step and is used for another is the code that would have been written for it."""

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.cpu.emissions import Emissions
from graphtorch.lowering.cpu.emitter import emit_kernel
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.launch import as_product
from graphtorch.lowering.kernel import ExternCall, Kernel

pytestmark = pytest.mark.skipif(bool(get_backend("cpu").unavailable()), reason="no native code here")


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def trained(layers, dynamic=False):
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(16) for _ in range(layers)), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()

    @torch.compile(backend="cpu")
    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(0)
    for batch in (8, 12) if dynamic else (8,):  # the second size makes it a symbol
        x = torch.from_numpy(rng.standard_normal((batch, 16)).astype(np.float32))
        step(x, torch.from_numpy(rng.integers(0, 4, batch)))
    return step.specializations[-1].compiled.executable


@pytest.mark.parametrize("dynamic", [False, True])
def test_text_and_buffers_are_those_of_a_fresh_emission(dynamic):
    executable = trained(5, dynamic)
    emissions = executable.translation.emissions
    shared = 0
    for step in executable.schedule.steps:
        function = executable.functions.get(step.name)
        if function is None:
            continue
        if isinstance(step, Kernel):
            fresh = emit_kernel(step, emissions.register_bits, emissions.fma)
        else:
            assert isinstance(step, ExternCall)
            product = as_product(step)
            if product is None:
                continue
            fresh = Emissions(emissions.register_bits, emissions.fma).product(product)
            if isinstance(fresh, list):
                # Several launches, each step with scratch memory of its own.
                for n, each in enumerate(fresh):
                    mine = executable.functions[f"{step.name}_{n}" if n else step.name]
                    assert mine.text == each.text
                    assert [b.name for b in mine.buffers] == [b.name for b in each.buffers]
                    assert [b for b in mine.buffers if b.kind != SCRATCH] == [
                        b for b in each.buffers if b.kind != SCRATCH
                    ]
                continue
        assert function.text == fresh.text
        assert function.buffers == fresh.buffers
        assert [str(s) for s in function.sizes] == [str(s) for s in fresh.sizes]
        assert [(dict(level.reads), dict(level.writes)) for level in function.levels] == [
            (dict(level.reads), dict(level.writes)) for level in fresh.levels
        ]
        shared += 1
    assert shared > 20


def test_equal_layers_have_one_code():
    few, many = trained(2), trained(8)
    names = [{f.name for f in e.functions.values()} for e in (few, many)]
    assert len(many.schedule.steps) > 2 * len(few.schedule.steps)
    assert len(names[1]) < len(names[0]) + 12
