"""Layers of ones, for the tests of analysis."""

import numpy as np

from convcore import nn

F64 = {"bias": False, "dtype": np.float64}


def conv(ndim, *arguments, **options):
    layer = getattr(nn, f"Conv{ndim}d")(*arguments, **options, **F64)
    return with_ones(layer)


def transpose(ndim, *arguments, **options):
    layer = getattr(nn, f"ConvTranspose{ndim}d")(*arguments, **options, **F64)
    return with_ones(layer)


def linear(*arguments):
    return with_ones(nn.Linear(*arguments, **F64))


def with_ones(layer):
    layer.weight.value = np.ones_like(layer.weight.value)
    return layer


class Unknown(nn.Layer):
    def __call__(self, x):
        return x

    def forward(self, x):
        return x, lambda grad: grad
