"""Pooling, normalization, padding, resampling, recurrent and other layers: reprs and results."""

import torch
from torch import nn

torch.manual_seed(0)
image = torch.randn(2, 4, 6, 6)
seq = torch.randn(2, 4, 8)
for module in (
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    nn.AvgPool2d(2, count_include_pad=False),
    nn.AdaptiveAvgPool2d((2, 3)),
    nn.AdaptiveMaxPool2d(2),
    nn.LPPool2d(2, 2),
    nn.FractionalMaxPool2d(2, output_size=3),
    nn.BatchNorm2d(4),
    nn.InstanceNorm2d(4, affine=True),
    nn.GroupNorm(2, 4),
    nn.LayerNorm([4, 6, 6]),
    nn.RMSNorm([6]),
    nn.LocalResponseNorm(2),
    nn.ReflectionPad2d(1),
    nn.ReplicationPad2d((1, 0, 2, 1)),
    nn.ZeroPad2d(1),
    nn.ConstantPad2d(1, 3.5),
    nn.CircularPad2d(1),
    nn.Upsample(scale_factor=2),
    nn.Upsample(size=(3, 3), mode="bilinear", align_corners=True),
    nn.UpsamplingNearest2d(scale_factor=0.5),
    nn.PixelShuffle(2),
    nn.PixelUnshuffle(2),
    nn.ChannelShuffle(2),
    nn.Unfold(3),
    nn.Conv2d(4, 2, 3, stride=2, padding=1, dilation=2, groups=2),
    nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"),
    nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1),
    nn.Flatten(),
    nn.Unflatten(1, (2, 2)),
    nn.Dropout2d(0.5),
    nn.Softmax2d(),
):
    out = module(image)
    print(module, tuple(out.shape), f"{out.abs().mean().item():.4f}")
for module in (
    nn.Conv1d(4, 3, 3),
    nn.MaxPool1d(2),
    nn.AvgPool1d(3),
    nn.AdaptiveAvgPool1d(3),
    nn.BatchNorm1d(4),
    nn.ReflectionPad1d(2),
    nn.ConvTranspose1d(4, 2, 2),
):
    print(module, tuple(module(seq).shape), f"{module(seq).abs().mean().item():.4f}")
volume = torch.randn(1, 2, 4, 4, 4)
for module in (nn.Conv3d(2, 1, 2), nn.MaxPool3d(2), nn.AvgPool3d(2), nn.BatchNorm3d(2), nn.ConvTranspose3d(2, 1, 2)):
    print(module, tuple(module(volume).shape), f"{module(volume).abs().mean().item():.4f}")
x = torch.randn(5, 3, 4)
for module in (
    nn.RNN(4, 3),
    nn.LSTM(4, 3, num_layers=2, dropout=0.1),
    nn.GRU(4, 3, bidirectional=True),
    nn.LSTM(4, 3, proj_size=2),
):
    module.eval()
    out, state = module(x)
    state = state[0] if isinstance(state, tuple) else state
    print(module, tuple(out.shape), tuple(state.shape), f"{out.mean().item():.4f}")
print(nn.LSTMCell(4, 3), [t.shape for t in nn.LSTMCell(4, 3)(x[0])], nn.GRUCell(4, 3)(x[0]).shape)
embedding = nn.Embedding(5, 3, padding_idx=0, max_norm=1.0)
print(
    embedding,
    embedding(torch.tensor([0, 2])),
    nn.EmbeddingBag(5, 3, mode="sum"),
    nn.EmbeddingBag(5, 2)(torch.tensor([1, 2, 3]), torch.tensor([0, 2])).shape,
)
pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
p, i = pool(image)
print(unpool(p, i).shape, i[0, 0])
print(
    nn.Bilinear(2, 3, 1)(torch.ones(1, 2), torch.ones(1, 3)),
    nn.CosineSimilarity()(x[0], x[1]),
    nn.Linear(2, 3, bias=False),
)
encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True, activation="gelu")
print(encoder, encoder.eval()(x).shape)
print(nn.TransformerDecoderLayer(4, 2, 8).eval()(x, x).shape, nn.Transformer(4, 2, 1, 1, 8).eval()(x, x).shape)
bn = nn.BatchNorm1d(3, momentum=0.5)
bn(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
print(bn.running_mean, bn.running_var, bn.num_batches_tracked, bn.eval()(torch.ones(1, 3)))
print(nn.utils.fuse_conv_bn_eval(nn.Conv2d(1, 1, 1).eval(), nn.BatchNorm2d(1).eval()))
print(
    nn.utils.parameters_to_vector(nn.Linear(1, 2).parameters()).shape,
    nn.ModuleList([nn.ReLU(), nn.Tanh()]),
    nn.ParameterList([torch.ones(2)]),
    nn.Sequential(),
)
