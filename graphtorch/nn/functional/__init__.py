"""Functions of neural networks: operators under their PyTorch names, and compositions of them, a file a family.

See https://docs.pytorch.org/docs/stable/nn.functional.html
"""

from graphtorch.nn.functional.activations import (
    celu,
    elu,
    gelu,
    glu,
    gumbel_softmax,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    threshold,
)
from graphtorch.nn.functional.attention import multi_head_attention_forward, scaled_dot_product_attention
from graphtorch.nn.functional.convolutions import (
    bilinear,
    conv1d,
    conv2d,
    conv_transpose1d,
    conv_transpose2d,
    embedding,
    linear,
    one_hot,
)
from graphtorch.nn.functional.distances import cosine_similarity, normalize, pairwise_distance
from graphtorch.nn.functional.dropouts import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from graphtorch.nn.functional.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cross_entropy,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    nll_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from graphtorch.nn.functional.normalization import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from graphtorch.nn.functional.padding import interpolate, pad
from graphtorch.nn.functional.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_pool2d_with_indices

__all__ = [
    # activations
    "celu", "elu", "gelu", "glu", "gumbel_softmax", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "log_softmax", "logsigmoid", "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softmin",
    "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold",
    # affine maps, convolution, pooling, attention
    "adaptive_avg_pool2d", "avg_pool2d", "bilinear", "conv1d", "conv2d", "conv_transpose1d",
    "conv_transpose2d", "embedding", "linear", "max_pool2d",
    "max_pool2d_with_indices", "multi_head_attention_forward", "one_hot", "scaled_dot_product_attention",
    # normalisation, dropout, padding
    "alpha_dropout", "batch_norm", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout",
    "group_norm", "instance_norm", "interpolate", "layer_norm", "pad", "rms_norm",
    # distances and losses
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cosine_similarity",
    "cross_entropy", "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss",
    "margin_ranking_loss", "mse_loss", "nll_loss", "normalize", "pairwise_distance", "poisson_nll_loss",
    "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
]  # fmt: skip
