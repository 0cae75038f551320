"""Layers: thin objects that hold parameters, around the functions of `functional`.

    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(6 * 14 * 14, 10), rng=0)
    criterion = nn.CrossEntropyLoss()

    scores = model(x)                                 inference: keeps nothing
    scores, backward = model.forward(x)               training
    loss, loss_backward = criterion.forward(scores, target)
    backward(loss_backward())                         adds to the parameters' .grad
    accumulate(backward, loss_backward())             the same without grad_x: faster

First weights
-------------
Weights are drawn by `init.he_uniform` (zero mean, variance 2 / fan_in: right before a
ReLU), biases are 0. Each layer takes `rng`, a generator or a seed. Without one, the
seed is made of the layer's class and the shape of its weight: every run draws the same,
no state is shared, and the order of construction does not matter. But layers of one
class and shape then start equal. So give the network an rng: `Sequential(..., rng=0)`,
and `Residual` and `Concat` likewise, draw all layers inside anew from one source, and
`reset_parameters` does so at any time. In depth, equal starts do little harm, as the
layers see other inputs; side by side they would stay equal: `Concat` refuses them.
"""

from convcore.nn.activation import (
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from convcore.nn.adaptive_max_pool import (
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    ChannelMaxPool,
    GlobalMaxPool1d,
    GlobalMaxPool2d,
    GlobalMaxPool3d,
)
from convcore.nn.adaptive_pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    GlobalAvgPool1d,
    GlobalAvgPool2d,
    GlobalAvgPool3d,
)
from convcore.nn.avg_pool import AvgPool1d, AvgPool2d, AvgPool3d
from convcore.nn.border_passthrough import (
    BorderPassthrough1d,
    BorderPassthrough2d,
    BorderPassthrough3d,
)
from convcore.nn.container import Concat, Residual, Sequential
from convcore.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from convcore.nn.dropout import Dropout
from convcore.nn.folding import fold_batch_norm
from convcore.nn.global_connections import GloballyConnected2d
from convcore.nn.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from convcore.nn.layer import Backward, Layer, accumulate
from convcore.nn.linear import Linear
from convcore.nn.local import LocallyConnected1d, LocallyConnected2d
from convcore.nn.local_response_norm import LocalResponseNorm
from convcore.nn.loss import CrossEntropyLoss, LossBackward, MSELoss
from convcore.nn.masked_conv import (
    MaskedConv1d,
    MaskedConv2d,
    MaskedConv3d,
    lenet5_connections,
)
from convcore.nn.max_pool import MaxPool1d, MaxPool2d, MaxPool3d
from convcore.nn.max_unpool import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d
from convcore.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from convcore.nn.parameter import Parameter
from convcore.nn.partial_conv import PartialConv1d, PartialConv2d, PartialConv3d
from convcore.nn.pool import (
    BlurPool1d,
    BlurPool2d,
    BlurPool3d,
    ChannelAvgPool,
    GlobalLPPool1d,
    GlobalLPPool2d,
    GlobalLPPool3d,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    SumPool1d,
    SumPool2d,
    SumPool3d,
)
from convcore.nn.prelu import PReLU
from convcore.nn.random_pool import (
    FractionalMaxPool1d,
    FractionalMaxPool2d,
    FractionalMaxPool3d,
    StochasticPool1d,
    StochasticPool2d,
    StochasticPool3d,
)
from convcore.nn.row_norm import GroupNorm, LayerNorm, RMSNorm
from convcore.nn.serialize import load_npz, save_npz
from convcore.nn.shape import Flatten
from convcore.nn.shared_conv import (
    SeparableConv1d,
    SeparableConv2d,
    SeparableConv3d,
    SharedDepthwiseConv1d,
    SharedDepthwiseConv2d,
    SharedDepthwiseConv3d,
    SharedKernelConv1d,
    SharedKernelConv2d,
    SharedKernelConv3d,
)
from convcore.nn.softmax import LogSoftmax, Softmax

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "Backward",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BlurPool1d",
    "BlurPool2d",
    "BlurPool3d",
    "BorderPassthrough1d",
    "BorderPassthrough2d",
    "BorderPassthrough3d",
    "ChannelAvgPool",
    "ChannelMaxPool",
    "Concat",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "Dropout",
    "ELU",
    "Flatten",
    "FractionalMaxPool1d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "GELU",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GlobalAvgPool3d",
    "GlobalLPPool1d",
    "GlobalLPPool2d",
    "GlobalLPPool3d",
    "GlobalMaxPool1d",
    "GlobalMaxPool2d",
    "GlobalMaxPool3d",
    "GloballyConnected2d",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "LogSoftmax",
    "LossBackward",
    "MSELoss",
    "MaskedConv1d",
    "MaskedConv2d",
    "MaskedConv3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "PReLU",
    "Parameter",
    "PartialConv1d",
    "PartialConv2d",
    "PartialConv3d",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "Residual",
    "SELU",
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
    "Sequential",
    "SharedDepthwiseConv1d",
    "SharedDepthwiseConv2d",
    "SharedDepthwiseConv3d",
    "SharedKernelConv1d",
    "SharedKernelConv2d",
    "SharedKernelConv3d",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "StochasticPool1d",
    "StochasticPool2d",
    "StochasticPool3d",
    "SumPool1d",
    "SumPool2d",
    "SumPool3d",
    "Tanh",
    "accumulate",
    "fold_batch_norm",
    "lenet5_connections",
    "load_npz",
    "save_npz",
]
