"""Every way a tensor prints: precision, scientific mode, summaries, empty, integers, booleans, complex, options."""

import torch

torch.manual_seed(0)
tensors = [
    torch.tensor([1.0, 2.0, 3.0]),
    torch.tensor([0.1, 22.22, 333.333]),
    torch.tensor([1e-4, 1.0]),
    torch.tensor([1e-5, 1.0]),
    torch.tensor([1e8, 1.0]),
    torch.tensor([1e9, 2e9]),
    torch.tensor([123456789.0]),
    torch.tensor([0.00001]),
    torch.tensor([float("inf"), 1.0, float("nan"), -float("inf")]),
    torch.tensor([float("nan")]),
    torch.tensor([-1.5, 0.0, -0.0]),
    torch.tensor(3.14159265),
    torch.tensor(7),
    torch.tensor(True),
    torch.tensor([]),
    torch.empty(0, 3),
    torch.empty(2, 0, dtype=torch.int64),
    torch.tensor([1, -20, 300]),
    torch.tensor([[True, False]]),
    torch.tensor([1 + 2j, -0.5j]),
    torch.tensor(1 + 1j),
    torch.tensor([1e-6 + 1j, 1e6 + 2j]),
    torch.zeros(2, 3, 4),
    torch.arange(1200),
    torch.rand(1001),
    torch.arange(10000).reshape(100, 100),
    torch.arange(2.0, dtype=torch.float16),
    torch.arange(2.0, dtype=torch.bfloat16),
    torch.tensor([1.0, 2.0], dtype=torch.float64),
    torch.tensor([255], dtype=torch.uint8),
    torch.tensor([-1], dtype=torch.int8),
    torch.rand(2, 2, requires_grad=True),
    torch.rand(2, requires_grad=True) * 2,
    torch.ones(1, 1, 1),
    torch.full((3, 3), 1e10),
    torch.tensor([[1.123456789, 1000.5], [0.001, 10.0]]),
    torch.tensor([1.0, 10000.0, 0.5]),
    torch.tensor([999999.0]),
    torch.tensor([1000000.0, 0.5]),
    torch.eye(3) * 1e-7,
    torch.randn(30),
    torch.randn(2, 1, 12),
    torch.empty(2, 3, device="meta"),
]
for t in tensors:
    print(t)
    print(f"{t.shape} {str(t)[:30]!r}")
print([torch.tensor(1), torch.tensor([2.5])], (torch.tensor(1),), {"a": torch.tensor(0.5)})
print(f"{torch.tensor(3.14159):.3f} {torch.tensor(12):5d} {torch.tensor([1.0, 2.0])}", "%s" % torch.tensor(2))
x = torch.tensor([[1.23456789, 1e-8], [3e5, -4.5]])
for options in (
    {"precision": 2},
    {"precision": 8},
    {"sci_mode": True},
    {"sci_mode": False},
    {"linewidth": 20},
    {"threshold": 3, "edgeitems": 1},
    {"profile": "short"},
    {"profile": "full"},
    {"profile": "default"},
):
    torch.set_printoptions(**options)
    print(options, x, torch.arange(8.0), sep="\n")
torch.set_printoptions(profile="default")
print(
    torch.float32, torch.int64, torch.bool, torch.complex64, torch.device("cpu"), torch.device("cuda:1"), torch.strided
)
print(repr(torch.device("cpu")), torch.Size([2, 3]), torch.Size([]), torch.contiguous_format, torch.channels_last)
print(
    torch.finfo(torch.float16), torch.iinfo(torch.int32), torch.finfo(torch.bfloat16).eps, torch.iinfo(torch.uint8).max
)
print(torch.max(torch.tensor([[1, 5], [7, 2]]), dim=1))
print(torch.sort(torch.tensor([3, 1, 2])), torch.topk(torch.arange(4.0), 2), torch.tensor([1, 2]).mode(), sep="\n")
print(torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.zeros(0)), torch.nn.Parameter(torch.tensor([[1e-8]])))
print(torch.Generator().initial_seed(), torch.typename(torch.ones(1)), torch.ones(1).type(), type(torch.ones(1)))
