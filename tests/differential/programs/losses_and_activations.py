"""Every loss and activation module on small inputs, with reductions and gradients."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(3, 4)
for module in (
    nn.ReLU(),
    nn.LeakyReLU(0.1),
    nn.ELU(),
    nn.SELU(),
    nn.CELU(0.5),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Hardtanh(-0.5, 0.5),
    nn.ReLU6(),
    nn.Sigmoid(),
    nn.LogSigmoid(),
    nn.Tanh(),
    nn.Tanhshrink(),
    nn.Softshrink(0.2),
    nn.Hardshrink(),
    nn.Softplus(2),
    nn.Softsign(),
    nn.Softmax(dim=1),
    nn.LogSoftmax(dim=-1),
    nn.Softmin(dim=0),
    nn.Threshold(0.1, 20),
    nn.PReLU(),
    nn.GLU(),
    nn.Identity(),
):
    print(module, module(x)[0], sep=" ")
y = torch.randn(3, 4, requires_grad=True)
labels = torch.tensor([1, 0, 3])
signs = torch.tensor([1.0, -1.0, 1.0])
cases = [
    (nn.L1Loss(), (y, x)),
    (nn.MSELoss(reduction="sum"), (y, x)),
    (nn.SmoothL1Loss(beta=0.5), (y, x)),
    (nn.HuberLoss(delta=0.3), (y, x)),
    (nn.CrossEntropyLoss(), (y, labels)),
    (nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.arange(1.0, 5.0)), (y, labels)),
    (nn.CrossEntropyLoss(ignore_index=0, reduction="none"), (y, labels)),
    (nn.CrossEntropyLoss(), (y, x.softmax(1))),
    (nn.NLLLoss(), (y.log_softmax(1), labels)),
    (nn.BCELoss(), (y.sigmoid(), x.sigmoid())),
    (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0, 4.0])), (y, x.sigmoid())),
    (nn.KLDivLoss(reduction="batchmean"), (y.log_softmax(1), x.softmax(1))),
    (nn.PoissonNLLLoss(), (y, x.abs())),
    (nn.GaussianNLLLoss(), (y, x, x.abs() + 0.1)),
    (nn.HingeEmbeddingLoss(), (y[:, 0], signs)),
    (nn.SoftMarginLoss(), (y[:, 0], signs)),
    (nn.MarginRankingLoss(0.1), (y[:, 0], x[:, 0], signs)),
    (nn.CosineEmbeddingLoss(), (y, x, signs)),
    (nn.TripletMarginLoss(), (y, x, x.flip(0))),
    (nn.MultiMarginLoss(), (y, labels)),
    (nn.MultiLabelSoftMarginLoss(), (y, (x > 0).float())),
    (nn.MultiLabelMarginLoss(), (y, torch.tensor([[1, 2, -1, 0]] * 3))),
    (nn.CTCLoss(), (y.reshape(3, 1, 4).log_softmax(2), torch.tensor([[1, 2]]), torch.tensor([3]), torch.tensor([2]))),
]
for loss, args in cases:
    value = loss(*args)
    (g,) = torch.autograd.grad(value.sum(), y)
    print(loss, value, f"{g.abs().sum():.4f}")
print(nn.functional.cosine_similarity(x, y), nn.PairwiseDistance()(x, y), nn.functional.normalize(x)[0])
