"""What can be done about borders: one network for each remedy, all else equal.

A remedy is one line of `REMEDIES`: a name, and a function that makes the layers that
stand for one 3x3 convolution.
"""

from collections.abc import Callable, Sequence

import numpy as np

from convcore import nn
from convcore.demo.data import CLASSES
from convcore.examples.borders.border import Border

DEPTH = 4
CHANNELS = 16

# From (input channels, output channels, generator) to the layers of one convolution.
Step = Callable[[int, int, np.random.Generator], Sequence[nn.Layer]]


def named(padding: str) -> Step:
    """Give a convolution with a padding that it knows by name."""
    return lambda i, o, rng: [nn.Conv2d(i, o, 3, padding=padding, rng=rng)]


def bordered(mode: str) -> Step:
    """Give a convolution whose border shows pixels of the map."""
    return lambda i, o, rng: [Border(1, mode), nn.Conv2d(i, o, 3, rng=rng)]


REMEDIES: dict[str, Step] = {
    "valid": named("valid"),
    "zeros": named("same"),
    "full": named("full"),
    "reflect": bordered("reflect"),
    "symmetric": bordered("symmetric"),
    "replicate": bordered("replicate"),
    "circular": bordered("circular"),
}


def body(
    remedy: str, depth: int, channels: int, rng: np.random.Generator
) -> nn.Sequential:
    """Make a chain of convolutions, with a ReLU between two.

    Parameters
    ----------
    remedy : str
        A name in `REMEDIES`.
    depth, channels : int
        Convolutions, and channels of each output; the input has one.
    rng : numpy.random.Generator
        Source of the weights.

    Examples
    --------
    >>> body("symmetric", 2, 4, np.random.default_rng(0))
    Sequential(
      (0): Border(1, 'symmetric')
      (1): Conv2d(1, 4, kernel_size=(3, 3), weight=(4, 1, 3, 3))
      (2): ReLU()
      (3): Border(1, 'symmetric')
      (4): Conv2d(4, 4, kernel_size=(3, 3), weight=(4, 4, 3, 3))
    )
    """
    layers: list[nn.Layer] = []
    for index in range(depth):
        if index:
            layers.append(nn.ReLU())
        layers += REMEDIES[remedy](channels if index else 1, channels, rng)
    return nn.Sequential(*layers)


def classifier(remedy: str, seed: int) -> nn.Sequential:
    """Make the network of the experiment, for (N, 1, H, W) images.

    Convolutions, each with a batch norm and a ReLU, then the mean of each channel and one
    linear layer. This head treats all pixels of the last map alike: whatever favours the
    middle is in the convolutions.

    Parameters
    ----------
    remedy : str
        A name in `REMEDIES`.
    seed : int
        Of the first weights.

    Examples
    --------
    >>> classifier("zeros", 0)(np.zeros((5, 1, 12, 12), np.float32)).shape
    (5, 10)
    """
    rng = np.random.default_rng(seed)
    layers: list[nn.Layer] = []
    for index in range(DEPTH):
        layers += REMEDIES[remedy](CHANNELS if index else 1, CHANNELS, rng)
        layers += [nn.BatchNorm2d(CHANNELS), nn.ReLU()]
    return nn.Sequential(
        *layers,
        nn.GlobalAvgPool2d(),
        nn.Flatten(),
        nn.Linear(CHANNELS, CLASSES, rng=rng),
    )
