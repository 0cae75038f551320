"""Batch norms that a convolution does on the way: for inference, after training."""

import copy

import numpy as np

from convcore.nn.container import Sequential
from convcore.nn.conv import _Conv, _ConvTranspose
from convcore.nn.layer import Layer
from convcore.nn.linear import Linear
from convcore.nn.norm import _BatchNorm
from convcore.nn.parameter import Parameter
from convcore.nn.weights import WeightLayer
from convcore.runtime.arrays import Array

__all__ = ["fold_batch_norm"]


def fold_batch_norm(model: Layer) -> Layer:
    """Copy a model, with its batch norms multiplied into the layers before them.

    In inference a batch norm is y * scale + shift for each channel; a convolution or
    linear layer before it can do that with another weight and bias::

        weight = weight * scale,  bias = (bias - running_mean) * scale + bn.bias,
        scale = bn.weight / sqrt(running_var + eps)

    Parameters
    ----------
    model : Layer
        Stays as it is. A batch norm that stands right behind a convolution (transposed
        or not) or a `Linear` in a `Sequential`, at any depth, is folded; others stay.

    Returns
    -------
    folded : Layer
        A copy for inference. Its layers keep their names; those of folded batch norms
        are gone.

    Raises
    ------
    TypeError
        When `model` is no layer.

    Notes
    -----
    The new weights are computed in float64 and rounded once. Results differ from those of
    the model by rounding: with K terms in a sum and u for the unit of rounding, by about
    (2 sqrt(K) + 6) u scale (sum(abs(weight * x)) + abs(bias) + abs(running_mean)), which
    is more than the batch norm's own error only where its output is small beside the
    terms of the sum. A layer that stands in several places is not folded, nor is a batch
    norm without running statistics. Behind a `Linear`, inputs are taken to be (N, C).

    References
    ----------
    Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-
    Arithmetic-Only Inference, CVPR 2018, section 3.2, equation 14.

    Examples
    --------
    >>> from convcore import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    >>> fold_batch_norm(model)
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), weight=(8, 3, 3, 3))
      (2): ReLU()
    )
    """
    if not isinstance(model, Layer):
        raise TypeError(
            f"fold_batch_norm: model must be a layer, got {type(model).__name__}"
        )
    folded = copy.deepcopy(model)
    uses: dict[int, int] = {}
    for layer in folded.layers():
        for child in layer.children():
            uses[id(child)] = uses.get(id(child), 0) + 1
    for layer in folded.layers():
        if isinstance(layer, Sequential):
            _fold_chain(layer, uses)
    return folded


def _fold_chain(chain: Sequential, uses: dict[int, int]) -> None:
    """Fold what can be folded in a chain, in place."""
    before: Layer | None = None
    for name, layer in chain.named_children():
        if (
            isinstance(layer, _BatchNorm)
            and isinstance(before, WeightLayer)
            and uses[id(before)] == 1
            and _fits(before, layer)
        ):
            _fold(before, layer)
            del chain._children[name]
        else:
            before = layer


def _fits(layer: WeightLayer, norm: _BatchNorm) -> bool:
    """Tell whether a batch norm can be folded into a layer."""
    if type(norm).__call__ is not _BatchNorm.__call__ or norm.running_mean is None:
        return False
    if isinstance(layer, Linear):
        plain = type(layer).__call__ is Linear.__call__ and 2 in norm._ranks
        return plain and layer.weight.value.shape[0] == norm.num_features
    if isinstance(layer, _Conv):
        plain = type(layer).__call__ is _Conv.__call__ and layer.border is None
        plain = plain and layer.ndim + 2 in norm._ranks
        return plain and layer.out_channels == norm.num_features
    return False


@np.errstate(all="ignore")
def _fold(layer: WeightLayer, norm: _BatchNorm) -> None:
    """Multiply a batch norm into a layer."""
    weight = layer.weight.value
    mean, var = (_wide(v) for v in (norm.running_mean, norm.running_var))
    scale = 1 / np.sqrt(var + norm.eps)
    if norm.weight is not None:
        scale = scale * _wide(norm.weight.value)
    bias = -mean if layer.bias is None else _wide(layer.bias.value) - mean
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + _wide(norm.bias.value)
    if isinstance(layer, _ConvTranspose):  # (in, out / groups, ...), group by group
        spread = scale.reshape(layer.groups, 1, -1, *(1,) * (weight.ndim - 2))
        rows = weight.reshape(layer.groups, -1, *weight.shape[1:])
        product = (rows * spread).reshape(weight.shape)
    else:
        product = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    layer.weight.value = product.astype(weight.dtype)
    layer.bias = Parameter(bias.astype(weight.dtype), "bias")


def _wide(values: Array | None) -> Array:
    assert values is not None
    return values.astype(np.float64)
