"""Rules for layers that treat borders, weights or connections in ways of their own."""

from math import prod

import numpy as np

from convcore import nn
from convcore.analysis.connections import Back, Pixels, connect
from convcore.analysis.rules import Extents, conv_windows, windows
from convcore.analysis.window import Window, total, with_room
from convcore.runtime.arrays import Array

# Windows of a convolution, whatever the weights are.
for _class in (
    *(nn.LocallyConnected1d, nn.LocallyConnected2d),
    *(nn.MaskedConv1d, nn.MaskedConv2d, nn.MaskedConv3d),
    *(nn.PartialConv1d, nn.PartialConv2d, nn.PartialConv3d),
    *(nn.SharedDepthwiseConv1d, nn.SharedDepthwiseConv2d, nn.SharedDepthwiseConv3d),
    *(nn.SharedKernelConv1d, nn.SharedKernelConv2d, nn.SharedKernelConv3d),
):
    windows.register(_class, conv_windows)


@windows.register(nn.SeparableConv1d)
@windows.register(nn.SeparableConv2d)
@windows.register(nn.SeparableConv3d)
def _separable(layer: nn.SeparableConv2d, extents: Extents) -> tuple[Window, ...]:
    return windows(layer.depthwise, extents)  # the other one is of 1 x 1


@connect.register(nn.MaskedConv1d)
@connect.register(nn.MaskedConv2d)
@connect.register(nn.MaskedConv3d)
def _masked(layer: nn.MaskedConv2d, pixels: Pixels) -> tuple[Pixels, Back]:
    after, back = connect.dispatch(object)(layer, pixels)
    if layer.connections.any():  # channels are counted once
        return after, back
    return after, lambda counts: np.zeros_like(back(counts))


@connect.register(nn.BorderPassthrough1d)
@connect.register(nn.BorderPassthrough2d)
@connect.register(nn.BorderPassthrough3d)
def _passed(layer: nn.BorderPassthrough2d, pixels: Pixels) -> tuple[Pixels, Back]:
    inner, inside = connect(layer.layer, pixels)
    starts = [(i - o) // 2 for i, o in zip(pixels.extents, inner.extents, strict=True)]
    ends = zip(starts, inner.extents, strict=True)
    middle = tuple(slice(start, start + extent) for start, extent in ends)

    def back(counts: Array) -> Array:
        ring = counts.copy()
        ring[middle] = 0
        return total(inside(counts[middle]), ring)

    return pixels, back


@connect.register
def _global(layer: nn.GloballyConnected2d, pixels: Pixels) -> tuple[Pixels, Back]:
    if pixels.extents != layer.input_size or pixels.flat:
        raise ValueError(
            f"analysis: GloballyConnected2d must have an input of {layer.input_size}, "
            f"got {pixels.extents}"
        )
    size, places = prod(layer.output_size), prod(layer.input_size)
    outs = np.arange(len(layer.connections))[:, None] % size
    pairs = np.unique(outs * places + layer.connections % places)  # channels: once
    after, before = pairs // places, pairs % places
    fan = int(np.bincount(before).max())

    def back(counts: Array) -> Array:
        flat = with_room(counts.reshape(-1), fan)
        result = np.zeros(places, flat.dtype)
        np.add.at(result, before, flat[after])
        return result.reshape(layer.input_size)

    return Pixels(layer.output_size), back
