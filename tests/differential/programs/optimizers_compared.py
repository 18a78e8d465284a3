"""Each optimizer on one problem, param groups, schedules and their prints."""

import torch
from torch import nn, optim

torch.manual_seed(0)
x = torch.randn(20, 3)
y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3
makers = {
    "SGD": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "Adam": lambda p: optim.Adam(p, lr=0.1),
    "AdamW": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "NAdam": lambda p: optim.NAdam(p, lr=0.1),
    "RAdam": lambda p: optim.RAdam(p, lr=0.1),
    "Adamax": lambda p: optim.Adamax(p, lr=0.1),
    "Adadelta": lambda p: optim.Adadelta(p, lr=1.0),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.2),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.02, centered=True, momentum=0.5),
    "Rprop": lambda p: optim.Rprop(p, lr=0.02),
    "ASGD": lambda p: optim.ASGD(p, lr=0.05),
}
for name, make in makers.items():
    torch.manual_seed(1)
    model = nn.Linear(3, 1)
    optimizer = make(model.parameters())
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    print(f"{name:10s} {loss.item():.5f}", [round(v, 3) for v in model.weight.flatten().tolist()])
torch.manual_seed(1)
model = nn.Linear(3, 1)
lbfgs = optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)


def closure():
    lbfgs.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss


for _ in range(3):
    print(f"LBFGS {lbfgs.step(closure).item():.5f}")
net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
groups = optim.SGD(
    [{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 1e-3}], lr=1e-2, momentum=0.9
)
print(groups)
groups.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "weight_decay": 0.5})
print(len(groups.param_groups), groups.param_groups[2]["weight_decay"])
for make in (
    lambda o: optim.lr_scheduler.StepLR(o, 2, 0.5),
    lambda o: optim.lr_scheduler.MultiStepLR(o, [1, 3], 0.1),
    lambda o: optim.lr_scheduler.ExponentialLR(o, 0.8),
    lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 4, 1e-4),
    lambda o: optim.lr_scheduler.LambdaLR(o, lambda e: 0.95**e),
    lambda o: optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=6),
    lambda o: optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    lambda o: optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    lambda o: optim.lr_scheduler.SequentialLR(
        o, [optim.lr_scheduler.ConstantLR(o, 0.1, 2), optim.lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    lambda o: optim.lr_scheduler.PolynomialLR(o, 4, 2.0),
    lambda o: optim.lr_scheduler.LinearLR(o, 0.5, total_iters=3),
):
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    for _ in range(5):
        rates.append(round(scheduler.get_last_lr()[0], 6))
        optimizer.step()
        scheduler.step()
    print(type(scheduler).__name__, rates)
plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", patience=1)
for value in (1.0, 1.0, 1.0, 1.0, 0.5):
    plateau.step(value)
print(optimizer.param_groups[0]["lr"], plateau.num_bad_epochs)
