"""Accumulated gradients, clipping, checkpointing, mixed precision on the CPU, EMA, early stopping, learning-rate finder."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(0)
x, y = torch.randn(64, 8), torch.randn(64, 1)


def make():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))


whole, parts = make(), make()
nn.functional.mse_loss(whole(x), y).backward()
for xb, yb in zip(x.split(16), y.split(16)):
    (nn.functional.mse_loss(parts(xb), yb) / 4).backward()
print(all(torch.allclose(p.grad, q.grad, atol=1e-6) for p, q in zip(whole.parameters(), parts.parameters())))
norm = nn.utils.clip_grad_norm_(whole.parameters(), 0.1)
print(f"{norm:.4f}", f"{torch.sqrt(sum(p.grad.pow(2).sum() for p in whole.parameters())):.4f}")
nn.utils.clip_grad_value_(parts.parameters(), 0.01)
print(max(p.grad.abs().max().item() for p in parts.parameters()) <= 0.01)
a, b = make(), make()
a(x).sum().backward()
h = checkpoint(b[:2], x, use_reentrant=False)
b[2](h).sum().backward()
print(torch.equal(a[0].weight.grad, b[0].weight.grad))
model = make()
with torch.autocast("cpu", dtype=torch.bfloat16):
    out = model(x)
    print(out.dtype, torch.is_autocast_enabled("cpu"), (x @ x.T).dtype, x.sum().dtype)
nn.functional.mse_loss(out.float(), y).backward()
print(model[0].weight.grad.dtype)
scaler = torch.amp.GradScaler("cpu", enabled=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler.scale(nn.functional.mse_loss(model(x), y)).backward()
scaler.step(optimizer)
scaler.update()
ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
swa = AveragedModel(model)
schedule = SWALR(optimizer, swa_lr=0.05)
best, patience, best_state = float("inf"), 0, None
for epoch in range(8):
    optimizer.zero_grad(set_to_none=True)
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    ema.update_parameters(model)
    swa.update_parameters(model)
    schedule.step()
    if loss.item() < best - 1e-3:
        best, patience, best_state = loss.item(), 0, copy.deepcopy(model.state_dict())
    else:
        patience += 1
        if patience == 2:
            print("stop at", epoch)
            break
print(f"{best:.4f}", ema.n_averaged, swa.n_averaged, round(optimizer.param_groups[0]["lr"], 4))
print(nn.functional.mse_loss(ema(x), y), nn.functional.mse_loss(swa.module(x), y))
for p in model.parameters():
    print(p.grad is None, end=" ")
optimizer.zero_grad()
print([p.grad for p in model.parameters()])
finder, rates = make(), []
opt = torch.optim.SGD(finder.parameters(), lr=1e-4)
grow = torch.optim.lr_scheduler.MultiplicativeLR(opt, lambda e: 3.0)
for _ in range(6):
    loss = nn.functional.mse_loss(finder(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    rates.append((round(opt.param_groups[0]["lr"], 6), round(loss.item(), 3)))
    grow.step()
print(rates)
w = nn.Parameter(torch.zeros(3))
w.register_post_accumulate_grad_hook(lambda p: print("accumulated", p.grad))
(w * torch.arange(3.0)).sum().backward()
