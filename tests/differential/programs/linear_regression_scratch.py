"""Linear and logistic regression from scratch, then with nn; learning curves as text; k-fold validation."""

import torch
from torch import nn

torch.manual_seed(42)
X = torch.randn(100, 2)
true_w, true_b = torch.tensor([2.0, -3.4]), 4.2
y = X @ true_w + true_b + 0.01 * torch.randn(100)
w = torch.normal(0, 0.01, size=(2, 1), requires_grad=True)
b = torch.zeros(1, requires_grad=True)
lr, batch_size = 0.03, 10


def data_iter(batch_size, features, labels):
    indices = torch.randperm(len(features))
    for i in range(0, len(features), batch_size):
        batch = indices[i : min(i + batch_size, len(features))]
        yield features[batch], labels[batch]


for epoch in range(3):
    for xb, yb in data_iter(batch_size, X, y):
        loss = ((xb @ w + b - yb.reshape(-1, 1)) ** 2 / 2).mean()
        loss.backward()
        with torch.no_grad():
            for p in (w, b):
                p -= lr * p.grad
                p.grad.zero_()
    with torch.no_grad():
        print(f"epoch {epoch + 1}, loss {((X @ w + b - y.reshape(-1, 1)) ** 2 / 2).mean():.3f}")
print(f"error in estimating w: {true_w - w.reshape(true_w.shape)}")
print(f"error in estimating b: {true_b - b}")
labels = (X.sum(1) > 0).float()
model = nn.Sequential(nn.Linear(2, 1))
model[0].weight.data.normal_(0, 0.01)
model[0].bias.data.fill_(0)
opt = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=1e-3)
for step in range(30):
    logits = model(X).squeeze(1)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
    opt.zero_grad()
    loss.backward()
    opt.step()
acc = ((logits > 0).float() == labels).float().mean()
print(f"loss {loss:.4f} accuracy {acc:.2%}", model.state_dict())
k = 5
folds = torch.arange(100).chunk(k)
for i in range(k):
    valid = folds[i]
    train = torch.cat([f for j, f in enumerate(folds) if j != i])
    solution = torch.linalg.lstsq(torch.cat([X[train], torch.ones(len(train), 1)], 1), y[train].unsqueeze(1)).solution
    pred = torch.cat([X[valid], torch.ones(len(valid), 1)], 1) @ solution
    print(i, f"{(pred.squeeze() - y[valid]).pow(2).mean().sqrt():.4f}", solution.flatten().round(decimals=2))
cov = torch.cov(X.T)
print(cov, torch.corrcoef(X.T), X.mean(0), X.std(0), X.var(0, unbiased=False))
standardized = (X - X.mean(0)) / X.std(0)
print(standardized.mean(0).abs() < 1e-6, standardized.std(0).round(decimals=3))
print(
    torch.histc(X, bins=5, min=-2, max=2),
    torch.bucketize(X[:3], torch.tensor([-1.0, 0.0, 1.0])),
    torch.bincount((X[:, 0] > 0).long()),
)
