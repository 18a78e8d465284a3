"""A long launch plan is several functions: they run in order, and a failure in one ends the step."""

import os
import subprocess
import sys

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.cpu import launch

pytestmark = pytest.mark.skipif(bool(get_backend("cpu").unavailable()), reason="no native code here")


def training(backend, batches):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    @torch.compile(backend=backend)
    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses = [float(step(x, y).detach()) for x, y in batches]
    return step, model, losses


def batches(count):
    rng = np.random.default_rng(0)
    return [(torch.from_numpy(rng.integers(0, 7, 5)), torch.from_numpy(rng.integers(0, 3, 5))) for _ in range(count)]


@pytest.mark.parametrize("length", [1, 3, 48])
def test_steps_run_in_order(monkeypatch, length):
    monkeypatch.setattr(launch, "PIECE", length)
    step, model, losses = training("cpu", batches(5))
    _, other, expected = training("numpy", batches(5))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-6)
    executable = step.specializations[0].compiled.executable
    steps = sum(len(s.steps) for s in executable.program.segments)
    assert executable.llvm.count("define internal void @segment") >= -(-steps // length)


@pytest.mark.parametrize("length", [1, 3])
def test_a_failure_ends_the_step(monkeypatch, length):
    monkeypatch.setattr(launch, "PIECE", length)
    step, model, _ = training("cpu", batches(2))
    before = [p.detach().numpy().copy() for p in model.parameters()]
    x, y = batches(1)[0]
    x = x.clone()
    x[2] = 9
    with pytest.raises(IndexError):
        step(x, y)
    for parameter, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.detach().numpy(), old)
    assert np.isfinite(float(step(*batches(1)[0]).detach()))


ALONE = """
import threading
import numpy as np
import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
x = torch.randn(32, 64)
expected = model(x).detach().numpy()
step = torch.compile(lambda x: model(x).detach(), backend="cpu")

def work():
    for _ in range(200):
        np.testing.assert_allclose(step(x).numpy(), expected, rtol=1e-4, atol=1e-5)

step(x)
threads = [threading.Thread(target=work) for _ in range(3)]
for t in threads:
    t.start()
work()
for t in threads:
    t.join()
print("fine")
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_chunks_with_memory_of_their_own_on_one_thread(threads):
    """Where nobody helps, a region still runs chunk by chunk: its stack memory is for one."""
    environment = {**os.environ, "GRAPHTORCH_NUM_THREADS": threads}
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "fine"
