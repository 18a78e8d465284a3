"""Pruning by hand: masks as buffers, global thresholds, sparsity of a network."""

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 3)
        self.fc1 = nn.Linear(12, 8)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = x.view(-1, int(x.nelement() / x.shape[0]))
        return self.fc2(F.relu(self.fc1(x)))


model = LeNet()
print(list(model.conv1.named_parameters())[1])


def magnitude_mask(tensor, amount):
    count = round(amount * tensor.nelement())
    mask = torch.ones_like(tensor)
    if count:
        drop = torch.topk(torch.abs(tensor).view(-1), k=count, largest=False)
        mask.view(-1)[drop.indices] = 0
    return mask


for name, module in model.named_modules():
    if isinstance(module, nn.Linear):
        module.register_buffer("weight_mask", magnitude_mask(module.weight.detach(), 0.4))
        with torch.no_grad():
            module.weight.mul_(module.weight_mask)
print(list(model.state_dict().keys()))
for name in ("fc1", "fc2"):
    m = getattr(model, name)
    zeros = 100.0 * float(torch.sum(m.weight == 0)) / float(m.weight.nelement())
    print(f"Sparsity in {name}.weight: {zeros:.2f}%")
print(model.fc2.weight, model.fc2.weight_mask, sep="\n")
scores = torch.nn.utils.parameters_to_vector([model.fc1.weight, model.fc2.weight]).abs()
threshold = torch.kthvalue(scores, int(0.6 * scores.numel())).values
print(threshold, (scores <= threshold).sum())
for handle in [model.fc1.weight.register_hook(lambda g: g * model.fc1.weight_mask)]:
    model(torch.randn(2, 1, 6, 6)).sum().backward()
    print((model.fc1.weight.grad[model.fc1.weight_mask == 0] == 0).all())
    handle.remove()
print(torch.quantile(scores.detach(), torch.tensor([0.25, 0.5, 0.75])), scores.median())
l1 = [torch.linalg.vector_norm(row, 1) for row in model.fc1.weight]
print(torch.stack(l1).argsort(descending=True), torch.stack(l1).sort().values[:2])
