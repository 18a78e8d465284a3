"""Samplers, generators, states, fork_rng, layers' initialisation and nn.init."""

import torch
from torch import nn

torch.manual_seed(8)
print(torch.rand(3, 4))
print(torch.randn(5), torch.randn(16), torch.randn(17)[-3:], torch.randn(3, dtype=torch.float64))
print(torch.rand(2, dtype=torch.float16), torch.randn(3, dtype=torch.bfloat16), torch.randn(2, dtype=torch.cfloat))
print(torch.randint(10, (5,)), torch.randint(-3, 3, (2, 2)), torch.randint(0, 2**40, (2,)), torch.randperm(12))
x = torch.empty(4)
print(
    x.normal_(),
    x.uniform_(),
    x.uniform_(-5, 5),
    x.exponential_(2),
    x.geometric_(0.3),
    x.cauchy_(),
    x.log_normal_(),
    x.bernoulli_(0.4),
    x.random_(10),
    x.random_(3, 6),
)
print(
    torch.bernoulli(torch.full((6,), 0.5)),
    torch.normal(2.0, 3.0, size=(3,)),
    torch.normal(torch.arange(3.0), 1.0),
    torch.normal(0.0, torch.ones(2)),
)
w = torch.tensor([0.1, 10.0, 3.0, 0.0])
print(torch.multinomial(w, 2), torch.multinomial(w, 6, replacement=True), torch.multinomial(torch.ones(2, 3), 2))
state = torch.get_rng_state()
a = torch.rand(2)
torch.set_rng_state(state)
print(torch.equal(a, torch.rand(2)), state.dtype, state.shape, state[:4])
g = torch.Generator()
g.manual_seed(123)
print(
    torch.rand(2, generator=g),
    torch.randn(2, generator=g),
    torch.randperm(4, generator=g),
    torch.randint(9, (3,), generator=g),
    g.initial_seed(),
    g.device,
)
g2 = torch.Generator()
g2.set_state(g.get_state())
print(torch.rand(1, generator=g) == torch.rand(1, generator=g2))
with torch.random.fork_rng():
    torch.manual_seed(1)
    print(torch.rand(1))
print(torch.rand(1), torch.initial_seed())
print(
    nn.functional.dropout(torch.ones(8), 0.5),
    nn.Dropout2d(0.5)(torch.ones(1, 4, 1, 2)).flatten(),
    nn.AlphaDropout(0.3)(torch.ones(4)),
)
torch.manual_seed(2)
for layer in (
    nn.Linear(3, 2),
    nn.Conv1d(2, 1, 2),
    nn.Conv2d(1, 1, 2),
    nn.ConvTranspose2d(1, 1, 2),
    nn.Embedding(2, 3),
    nn.LSTM(1, 1),
    nn.GRU(1, 1),
    nn.RNNCell(2, 1),
    nn.MultiheadAttention(2, 1),
    nn.Bilinear(1, 2, 1),
    nn.BatchNorm1d(2),
    nn.PReLU(),
):
    print(type(layer).__name__, [p.detach().flatten()[:3].tolist() for p in layer.parameters()][:2])
t = torch.empty(3, 4)
for name, args in (
    ("uniform_", (-1, 1)),
    ("normal_", (0, 2)),
    ("constant_", (0.3,)),
    ("ones_", ()),
    ("zeros_", ()),
    ("eye_", ()),
    ("xavier_uniform_", ()),
    ("xavier_normal_", (2.0,)),
    ("kaiming_uniform_", ()),
    ("kaiming_normal_", ()),
    ("trunc_normal_", ()),
    ("sparse_", (0.5,)),
):
    print(name, getattr(nn.init, name)(t, *args))
print(
    nn.init.orthogonal_(t).abs().sum() > 0,
    nn.init.calculate_gain("leaky_relu", 0.2),
    nn.init.dirac_(torch.empty(2, 2, 3)),
)
print(torch.rand_like(t.t()).stride(), torch.randn_like(t, dtype=torch.float64).dtype, torch.randint_like(t, 5))
print(torch.utils.data.random_split(range(5), [3, 2])[0].indices, torch.rand(0), torch.randperm(0), torch.randperm(1))
