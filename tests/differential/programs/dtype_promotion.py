"""Type promotion, integer division, overflow, NaN and infinity, empty reductions, zero-dimensional tensors."""

import itertools

import torch

kinds = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
kinds += [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
for a, b in itertools.product(kinds, kinds):
    if a is torch.float16 and b.is_complex or b is torch.float16 and a.is_complex:
        continue  # would be complex32
    x, y = torch.ones(2, dtype=a), torch.ones(2, dtype=b)
    print(
        a,
        b,
        torch.promote_types(a, b),
        (x * y).dtype,
        (x * torch.ones((), dtype=b)).dtype,
        torch.result_type(x, 2.5),
        torch.can_cast(a, b),
    )
i = torch.tensor([7, -7, 0])
for d in (2, -2, 2.0, torch.tensor(3), torch.tensor([2, 2, 2])):
    print(
        i / d, i // d, i % d, torch.fmod(i, d), torch.remainder(i, d), torch.div(i, d, rounding_mode="trunc"), sep="\n"
    )
f = torch.tensor([1.0, -1.0, 0.0])
print(f / 0, f // 0, f % 0, 0 / f, i.float() ** -1, 2 ** i.clamp(0), (-8.0) ** torch.tensor([1 / 3]))
for bad in (lambda: i // 0, lambda: i % 0, lambda: 2 ** torch.tensor([-1, 2]), lambda: torch.tensor([1, 2]) ** -1):
    try:
        print(bad())
    except RuntimeError as error:
        print(type(error).__name__, str(error).splitlines()[0])
u = torch.tensor([250, 5], dtype=torch.uint8)
print(
    u + 10,
    u * 2,
    -torch.tensor([1], dtype=torch.uint8),
    torch.tensor([127], dtype=torch.int8) + 1,
    u + 1.5,
    u + 300 - 300,
)
print(
    torch.tensor([3.9, -3.9]).int(),
    torch.tensor([300.0]).to(torch.uint8),
    torch.tensor([True]) + 1,
    torch.tensor([True]) + torch.tensor([True]),
)
e = torch.tensor([])
print(
    e.sum(),
    e.prod(),
    e.mean(),
    e.std(),
    e.norm(),
    torch.empty(0, 3).sum(0),
    torch.empty(0, 3).mean(0),
    e.all(),
    e.any(),
    e.cumsum(0),
    torch.empty(0, dtype=torch.long).sum(),
)
for bad in (lambda: e.max(), lambda: e.argmin(), lambda: torch.empty(0, 3).max(0), lambda: e.amax()):
    try:
        print(bad())
    except (RuntimeError, IndexError) as error:
        print(type(error).__name__, str(error).splitlines()[0])
n = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
print(
    n.max(),
    n.min(),
    n.sum(),
    n.argmax(),
    n.sort(),
    torch.nanmean(n[:2]),
    n.isnan(),
    n.isinf(),
    n.isfinite(),
    torch.nan_to_num(n),
    n == n,
    n.unique(),
)
print(
    torch.maximum(n, torch.zeros(4)),
    torch.fmax(n, torch.zeros(4)),
    torch.sign(n),
    n.clamp(-2, 2),
    n.round(),
    torch.relu(n),
    n.softmax(0),
)
print(
    torch.tensor(5) + torch.tensor(2.5),
    torch.tensor([1]) + torch.tensor(2.5),
    torch.tensor([1], dtype=torch.int8) + torch.tensor(300),
    torch.tensor([1.0], dtype=torch.float16) + torch.tensor(1.0, dtype=torch.float64),
)
print(
    torch.tensor(3).item(),
    type(torch.tensor(3).item()),
    torch.tensor(2.5).item(),
    torch.tensor([True]).item(),
    float(torch.tensor(1)),
    int(torch.tensor(2.7)),
    bool(torch.tensor(0)),
    round(torch.tensor(2.5).item()),
    [1, 2, 3][torch.tensor(1)],
    list(range(torch.tensor(3))),
)
print(
    torch.arange(5) / 2,
    torch.arange(3).float().mean(),
    torch.tensor([1, 2]).sum().dtype,
    torch.tensor([1, 2], dtype=torch.int8).sum().dtype,
    torch.tensor([1, 2], dtype=torch.uint8).prod().dtype,
    torch.tensor([True, True]).sum(),
    torch.tensor([1, 2]).cumsum(0).dtype,
)
print(
    torch.where(torch.tensor([True, False]), 1, 2.5),
    torch.where(torch.tensor([True]), torch.tensor([1]), 2.0),
    torch.cat([torch.ones(1), torch.ones(1, dtype=torch.long)]).dtype,
    torch.stack([torch.ones(1), torch.ones(1, dtype=torch.double)]).dtype,
)
torch.set_default_dtype(torch.float64)
print(
    torch.tensor([1.0]).dtype,
    torch.ones(1).dtype,
    torch.arange(3.0).dtype,
    torch.tensor([1j]).dtype,
    torch.tensor([1.5]),
    torch.rand(1).dtype,
)
torch.set_default_dtype(torch.float32)
print(
    torch.tensor([1.5]).double(),
    torch.float,
    torch.long,
    torch.half,
    torch.cfloat,
    torch.tensor(1.5).type(torch.int32),
    torch.ones(2).type_as(i),
)
x = torch.zeros(3, dtype=torch.int64)
x += 2
print(x)
try:
    x += 1.5
except RuntimeError as error:
    print(error.args[0].splitlines()[0])
x[0] = 7.9
print(x, x.to(torch.float32) is x, x.to(torch.int64) is x, x.long() is x)
