"""Every operation of the library from its definition, in plain NumPy.

This package is the judge of the compiled kernels and the text to read first. It knows
no kernel, no threads and no blocking. Results have the dtype of the inputs (float32,
float64, or wider; integers too, where there is no division), so that the same lines
give the answer to be judged and, on wider inputs, the answer to judge it by.

What "convolution" means here
-----------------------------
As in all of deep learning: cross-correlation. The kernel is laid on the input as it
is, multiplied element by element, and summed::

    x        0  1  2  3  4        y[o] = sum over k of  w[k] * x[s*o + d*k - p]
    w           a  b  c
    y[1]     =  a*1 + b*2 + c*3   (s = 1, d = 1, p = 0)

The convolution of mathematics turns the kernel around first: that is the same sum with
`flip_kernel(w)`. With channels, groups, a batch and three axes it becomes, for
each group of `ic/g` input and `oc/g` output channels,

    y[n, o, z, y, x] = b[o] + sum over (c, kz, ky, kx) of
        w[o, c, kz, ky, kx] * x[n, c, s*z + d*kz - p, s*y + d*ky - p, s*x + d*kx - p]

where each axis has its own stride s, dilation d and padding p, and x is zero outside.

Layout
------
========== ============================ ==========================================
array      shape                        remark
========== ============================ ==========================================
x          (n, ic, [D,] [H,] W)         one to three spatial axes
w          (oc, ic/g, [KD,] [KH,] KW)   output channels are ordered group by group
b          (oc,)
y          (n, oc, [OD,] [OH,] OW)      OW = (W + lo + hi - d*(KW - 1) - 1) // s + 1
transposed x is y and y is x            the very same w, read as (in, out/g, ...)
index      like y, int64                max pooling: (z*H + y)*W + x in one channel
========== ============================ ==========================================

The three directions, and what is a sum over what
-------------------------------------------------
All three walk over the taps of the kernel (`taps`), and for one tap all pairs of an
input element and an output element that it joins lie on two strided slices::

    conv              y[out]  += w[tap] * x[inp]
    conv_grad_x       gx[inp] += w[tap] * gy[out]      (also: transposed convolution)
    conv_grad_weight  gw[tap] += x[inp] * gy[out]

This is one trilinear form in (x, w, y); so `<conv(x, w), gy> = <x, conv_grad_x(gy, w)>
= <w, conv_grad_weight(x, gy)>`, which the tests demand exactly, on integers.

Padding is a row of real zeros: it takes part in `conv` and `conv_grad_weight`, so an
infinite weight over padding gives NaN there. The gradient of x sums over the windows
that exist, and has no padding.
"""

from convcore.reference.activation import (
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    hardsigmoid,
    hardsigmoid_backward,
    hardswish,
    hardswish_backward,
    hardtanh,
    hardtanh_backward,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    prelu,
    prelu_backward,
    relu,
    relu6,
    relu6_backward,
    relu_backward,
    selu,
    selu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softmax,
    softmax_backward,
    softplus,
    softplus_backward,
    tanh,
    tanh_backward,
)
from convcore.reference.border_passthrough import (
    border_passthrough,
    border_passthrough_backward,
)
from convcore.reference.choices import (
    adaptive_max_pool,
    choice_backward,
    fractional_max_pool,
    max_unpool,
    max_unpool_backward,
    stochastic_pool,
    stochastic_pool_mean,
)
from convcore.reference.conv import (
    conv,
    conv_grad_bias,
    conv_grad_weight,
    conv_grad_x,
    conv_loops,
    conv_transpose,
    conv_transpose_grad_weight,
    conv_transpose_grad_x,
    flip_kernel,
)
from convcore.reference.dropout import dropout, dropout_backward, dropout_mask, philox
from convcore.reference.linear import linear, linear_backward
from convcore.reference.local import (
    local,
    local_backward,
    sparse_linear,
    sparse_linear_backward,
)
from convcore.reference.loss import (
    cross_entropy,
    cross_entropy_backward,
    mse_loss,
    mse_loss_backward,
)
from convcore.reference.norm import (
    batch_norm,
    batch_norm_backward,
    group_norm,
    group_norm_backward,
    layer_norm,
    layer_norm_backward,
    local_response_norm,
    local_response_norm_backward,
)
from convcore.reference.partial import partial_conv, partial_conv_backward
from convcore.reference.pool import (
    adaptive_avg_pool,
    adaptive_avg_pool_backward,
    avg_pool,
    avg_pool_backward,
    blur_matrix,
    blur_pool,
    blur_pool_backward,
    global_avg_pool,
    global_avg_pool_backward,
    lp_pool,
    lp_pool_backward,
    max_pool,
    max_pool_backward,
)
from convcore.reference.taps import Tap, taps

__all__ = [
    "Tap",
    "adaptive_avg_pool",
    "adaptive_avg_pool_backward",
    "adaptive_max_pool",
    "avg_pool",
    "avg_pool_backward",
    "batch_norm",
    "batch_norm_backward",
    "blur_matrix",
    "blur_pool",
    "blur_pool_backward",
    "border_passthrough",
    "border_passthrough_backward",
    "choice_backward",
    "conv",
    "conv_grad_bias",
    "conv_grad_weight",
    "conv_grad_x",
    "conv_loops",
    "conv_transpose",
    "conv_transpose_grad_weight",
    "conv_transpose_grad_x",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "dropout_mask",
    "elu",
    "elu_backward",
    "flip_kernel",
    "fractional_max_pool",
    "gelu",
    "gelu_backward",
    "global_avg_pool",
    "global_avg_pool_backward",
    "group_norm",
    "group_norm_backward",
    "hardsigmoid",
    "hardsigmoid_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "layer_norm",
    "layer_norm_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "local",
    "local_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "log_softmax",
    "log_softmax_backward",
    "lp_pool",
    "lp_pool_backward",
    "max_pool",
    "max_pool_backward",
    "max_unpool",
    "max_unpool_backward",
    "mse_loss",
    "mse_loss_backward",
    "partial_conv",
    "partial_conv_backward",
    "philox",
    "prelu",
    "prelu_backward",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softplus",
    "softplus_backward",
    "sparse_linear",
    "sparse_linear_backward",
    "stochastic_pool",
    "stochastic_pool_mean",
    "tanh",
    "tanh_backward",
    "taps",
]
