"""The network: LeNet's order of layers, with ReLU and small kernels."""

import numpy as np

from convcore import nn
from convcore.demo.data import CLASSES
from convcore.runtime.arrays import Array


def build(seed: int, *, flip: bool = False) -> nn.Sequential:
    """Make the network for (N, 1, 8, 8) images: convolve, pool, decide.

    Parameters
    ----------
    seed : int
        Of the first weights.
    flip : bool
        Of every convolution.

    Returns
    -------
    nn.Sequential
        Gives (N, 10) scores.
    """
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, flip=flip, rng=rng),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, flip=flip, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),  # 32 x 4 x 4
        nn.Conv2d(32, 64, 3, padding=1, flip=flip, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),  # 64 x 2 x 2
        nn.Flatten(),
        nn.Linear(256, 128, rng=rng),
        nn.ReLU(),
        nn.Linear(128, CLASSES, rng=rng),
    )


def trace(model: nn.Sequential, x: Array) -> list[tuple[nn.Layer, Array, Array]]:
    """Run the network layer by layer.

    Parameters
    ----------
    model : nn.Sequential
    x : (N, ...) ndarray
        Its input.

    Returns
    -------
    list of (layer, input, output)
    """
    steps = []
    for layer in model.children():
        y = layer(x)
        steps.append((layer, x, y))
        x = y
    return steps
