"""Whole training runs: the same seed gives PyTorch's losses, eager and compiled."""

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")


def recurrent(library, mode):
    class Net(library.nn.Module):
        """A sequence classifier with dropout between its layers."""

        def __init__(self):
            super().__init__()
            self.embed = library.nn.Embedding(11, 6)
            self.core = getattr(library.nn, mode)(6, 8, num_layers=2, dropout=0.2, batch_first=True)
            self.head = library.nn.Linear(8, 3)

        def forward(self, tokens):
            output, _ = self.core(self.embed(tokens))
            return self.head(output[:, -1])

    return Net()


def losses(library, mode, optimizer, options, steps, compiled=False):
    library.manual_seed(0)
    net = recurrent(library, mode)
    optimizer = getattr(library.optim, optimizer)(net.parameters(), **options)
    rng = np.random.default_rng(0)
    batches = [(rng.integers(0, 11, (6, 4)), rng.integers(0, 3, 6)) for _ in range(10)]

    def step(tokens, target):
        optimizer.zero_grad()
        loss = library.nn.functional.cross_entropy(net(tokens), target)
        loss.backward()
        library.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss

    run = gt.compile(step, fullgraph=True) if compiled else step
    return [run(*(library.tensor(a) for a in batches[i % 10])).item() for i in range(steps)]


@pytest.fixture
def one_thread():
    """PyTorch's threads cost more than they bring for sizes like these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("mode", "optimizer", "options"),
    [("LSTM", "RMSprop", {"lr": 3e-3, "momentum": 0.5}), ("GRU", "NAdam", {"lr": 5e-3})],
)
def test_two_hundred_steps_are_pytorchs(mode, optimizer, options, one_thread):
    expected = losses(torch, mode, optimizer, options, 200)
    np.testing.assert_allclose(losses(gt, mode, optimizer, options, 200, compiled=True), expected, rtol=5e-4)
    np.testing.assert_allclose(losses(gt, mode, optimizer, options, 20), expected[:20], rtol=5e-4)
