"""Expressions whose text is PyTorch's to the character, `torch` being the library: printing, random numbers, gradients,
errors. `tools/make_torch_goldens.py` records what PyTorch says."""

from __future__ import annotations

import warnings
from typing import Any

PRINTING = """
torch.tensor([1.0, 2.5, -3.0])
torch.tensor([1e-5, 1.0])
torch.tensor([1e10, 1.0])
torch.tensor([float('nan'), float('inf'), 1.0])
torch.tensor(3)
torch.tensor(2.5, dtype=torch.float64)
torch.tensor([True, False])
torch.tensor([[1 + 2j, 3j]])
torch.tensor([1.5, 2.5], dtype=torch.bfloat16)
torch.zeros(0, 3)
torch.arange(2000)
torch.arange(40.0).reshape(2, 4, 5)
torch.ones(3, requires_grad=True)
torch.ones(3, requires_grad=True) * 2
torch.ones(2, 3, requires_grad=True).sum(1)
torch.ones(2, 2, requires_grad=True)[0]
torch.ones(2, 2, requires_grad=True).t()
torch.nn.functional.relu(torch.ones(2, requires_grad=True))
torch.empty(2, 3, device='meta')
torch.tensor([0.1234567, 123456.7])
torch.nn.Linear(2, 3)
torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Dropout(0.2))
torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
torch.nn.LSTM(4, 5, num_layers=2, batch_first=True)
torch.nn.MultiheadAttention(8, 2)
torch.optim.SGD([torch.ones(2, requires_grad=True)], lr=0.1, momentum=0.9)
torch.Size([2, 3])
torch.float32
torch.device('cuda', 1)
torch.finfo(torch.float32)
torch.iinfo(torch.int8)
torch.sort(torch.tensor([3, 1, 2]))
torch.max(torch.tensor([[1.0, 5.0], [7.0, 2.0]]), 1)
"""

RANDOM = """
torch.rand(3, 4)
torch.randn(5)
torch.randn(20)
torch.randn(4, dtype=torch.float64)
torch.rand(3, dtype=torch.float64)
torch.randint(0, 100, (8,))
torch.randint(-5, 5, (3, 3))
torch.randperm(10)
torch.empty(6).uniform_(-1, 1)
torch.empty(18).normal_(2, 3)
torch.empty(5).exponential_(2.0)
torch.bernoulli(torch.full((10,), 0.3))
torch.multinomial(torch.tensor([0.1, 0.2, 0.7]), 5, replacement=True)
torch.multinomial(torch.tensor([0.1, 0.2, 0.7]), 2)
torch.nn.functional.dropout(torch.ones(10), 0.4)
torch.normal(torch.zeros(3), torch.ones(3))
torch.rand_like(torch.ones(2, 3).t())
torch.randn_like(torch.ones(5, 4).t())
torch.nn.Linear(3, 2).weight
torch.nn.Conv2d(1, 1, 2).bias
torch.nn.Embedding(3, 2).weight
torch.nn.init.xavier_uniform_(torch.empty(2, 3))
torch.nn.init.kaiming_normal_(torch.empty(2, 3))
torch.nn.init.orthogonal_(torch.empty(3, 3))
torch.nn.init.trunc_normal_(torch.empty(4))
list(torch.utils.data.RandomSampler(range(6)))
[list(s.indices) for s in torch.utils.data.random_split(range(6), [4, 2])]
torch.initial_seed()
"""

ERRORS = """
torch.ones(2, 3) @ torch.ones(2, 3)
torch.ones(2) + torch.ones(3)
torch.ones(2, 3).view(4)
torch.ones(2, 3).t().view(6)
torch.ones(3).reshape(2, 2)
torch.ones(2).expand(3, 3)
torch.cat([torch.ones(2, 3), torch.ones(3, 2)])
torch.stack([torch.ones(2), torch.ones(3)])
torch.cat([])
torch.ones(2)[5]
torch.ones(2, 2)[0, 0, 0]
torch.ones(3).index_select(0, torch.tensor([7]))
torch.ones(2).sum(3)
torch.ones(2).item()
bool(torch.ones(2))
int(torch.ones(2))
len(torch.tensor(1))
torch.ones(2).backward()
torch.ones(2, requires_grad=True).backward()
torch.ones(2, requires_grad=True).numpy()
torch.ones(2, requires_grad=True).add_(1)
torch.tensor([1, 2], requires_grad=True)
torch.tensor([[1], [1, 2]])
torch.zeros(-1)
torch.arange(0, 1, -1)
torch.linspace(0, 1, -1)
torch.nn.Linear(2, 3)(torch.ones(4, 5))
torch.nn.Linear(2, 3)(torch.ones(2, dtype=torch.float64))
torch.nn.Conv2d(3, 4, 3)(torch.ones(1, 2, 8, 8))
torch.nn.Embedding(3, 2)(torch.tensor([5]))
torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.tensor([0, 5]))
torch.nn.functional.nll_loss(torch.ones(2, 3), torch.tensor([0]))
torch.nn.BatchNorm1d(3)(torch.ones(1, 3))
torch.nn.Dropout(2.0)
torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=-1)
torch.optim.Adam([])
torch.linalg.inv(torch.zeros(2, 2))
torch.linalg.cholesky(-torch.eye(2))
torch.linalg.solve(torch.ones(2, 3), torch.ones(2))
torch.ones(2).to('nowhere')
torch.device('nothing')
torch.tensor([1, 2]).mean()
torch.ones(2, dtype=torch.int32).pow(-1)
torch.tensor([1, 2]) // 0
torch.ones(2).permute(0, 1)
torch.ones(2, 3).transpose(0, 2)
torch.ones(2, 3).squeeze(5)
torch.ones(4).chunk(0)
torch.ones(4).split(-1)
torch.ones(2, 3).gather(0, torch.zeros(1, 1, 1, dtype=torch.int64))
torch.ones(2).masked_fill(torch.ones(2), 0)
torch.ones(2).scatter(0, torch.tensor([5]), 1.0)
torch.einsum('ij,jk', torch.ones(2, 3), torch.ones(2, 3))
torch.ones(2).topk(3)
torch.multinomial(torch.tensor([-1.0, 1.0]), 1)
torch.bernoulli(torch.tensor([2.0]))
torch.ones(2).uniform_(1, 0)
torch.ones(2).bitwise_and(1)
torch.tensor([True]) - torch.tensor([True])
-torch.tensor([True])
"""

GROUPS = {"printing": PRINTING, "random": RANDOM, "errors": ERRORS}


def expressions(group: str) -> list[str]:
    return GROUPS[group].strip().splitlines()


def shown(torch: Any, text: str) -> str:
    """The text of a value, or the class and first line of an error, after `manual_seed(0)`."""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return repr(eval(text, {"torch": torch}))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
