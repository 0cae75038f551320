"""What can be done about borders: one network for each remedy, all else equal.

A remedy is one line: in `STEPS`, if other layers stand in for each 3x3 convolution; in
`REMEDIES`, if the network as a whole is another one.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from convcore import nn
from convcore.demo.data import CLASSES

CANVAS = 12  # pixels along both axes of an image
DEPTH = 4
CHANNELS = 16

# From (input channels, output channels, extent of the input, generator) to the layers of
# one convolution.
Step = Callable[[int, int, int, np.random.Generator], Sequence[nn.Layer]]
# From a generator to a network for (N, 1, CANVAS, CANVAS) images.
Build = Callable[[np.random.Generator], nn.Sequential]


def named(padding: str) -> Step:
    """Give a convolution with a padding that it knows by name."""
    return lambda i, o, extent, rng: [nn.Conv2d(i, o, 3, padding=padding, rng=rng)]


def bordered(mode: str) -> Step:
    """Give a convolution whose border shows pixels of the map."""
    return lambda i, o, extent, rng: [
        nn.Conv2d(i, o, 3, padding="same", padding_mode=mode, rng=rng)
    ]


STEPS: dict[str, Step] = {
    "valid": named("valid"),
    "zeros": named("same"),
    "full": named("full"),
    "reflect": bordered("reflect"),
    "symmetric": bordered("symmetric"),
    "replicate": bordered("replicate"),
    "circular": bordered("circular"),
    "partial": lambda i, o, extent, rng: [
        nn.PartialConv2d(i, o, 3, padding="same", rng=rng)
    ],
    "passed on": lambda i, o, extent, rng: [
        nn.BorderPassthrough2d(nn.Conv2d(i, o, 3, rng=rng), rng=rng)
    ],
    "local weights": lambda i, o, extent, rng: [
        nn.LocallyConnected2d(i, o, extent, 3, padding="same", rng=rng)
    ],
    "global links": lambda i, o, extent, rng: [
        nn.Residual(
            nn.Conv2d(i, o, 3, padding="same", rng=rng),
            nn.GloballyConnected2d(i, o, 9, extent, rng=rng),
        )
    ],
}


def classifier(step: Step, rng: np.random.Generator) -> nn.Sequential:
    """Make the network of the experiment, for (N, 1, 12, 12) images.

    Convolutions, each with a batch norm and a ReLU, then the mean of each channel and one
    linear layer. This head treats all pixels of the last map alike: whatever favours the
    middle is in the convolutions.

    Parameters
    ----------
    step : function
        Makes the layers of a convolution, as those in `STEPS` do.
    rng : numpy.random.Generator
        Source of the weights.

    Examples
    --------
    >>> model = classifier(STEPS["zeros"], np.random.default_rng(0))
    >>> model(np.zeros((5, 1, 12, 12), np.float32)).shape
    (5, 10)
    """
    layers: list[nn.Layer] = []
    extent = CANVAS
    for index in range(DEPTH):
        layers += step(CHANNELS if index else 1, CHANNELS, extent, rng)
        layers += [nn.BatchNorm2d(CHANNELS), nn.ReLU()]
        extent = _extent(layers, CANVAS)
    return nn.Sequential(
        *layers,
        nn.GlobalAvgPool2d(),
        nn.Flatten(),
        nn.Linear(CHANNELS, CLASSES, rng=rng),
    )


REMEDIES: dict[str, Build] = {
    **{name: partial(classifier, step) for name, step in STEPS.items()},
}


def body(
    step: str, depth: int, channels: int, extent: int, rng: np.random.Generator
) -> nn.Sequential:
    """Make a chain of convolutions with a ReLU between two.

    Parameters
    ----------
    step : str
        A name in `STEPS`.
    depth, channels : int
        Convolutions, and channels of each output; the input has one.
    extent : int
        Pixels of the input along both axes.
    rng : numpy.random.Generator
        Source of the weights.

    Examples
    --------
    >>> body("valid", 2, 4, 9, np.random.default_rng(0))
    Sequential(
      (0): Conv2d(1, 4, kernel_size=(3, 3), padding='valid', weight=(4, 1, 3, 3))
      (1): ReLU()
      (2): Conv2d(4, 4, kernel_size=(3, 3), padding='valid', weight=(4, 4, 3, 3))
    )
    """
    layers: list[nn.Layer] = []
    now = extent
    for index in range(depth):
        if index:
            layers.append(nn.ReLU())
        layers += STEPS[step](channels if index else 1, channels, now, rng)
        now = _extent(layers, extent)
    return nn.Sequential(*layers)


def _extent(layers: Sequence[nn.Layer], extent: int) -> int:
    """Give the extent of what layers make of an image with one channel."""
    x = np.zeros((1, 1, extent, extent), np.float32)
    return int(nn.Sequential(*layers)(x).shape[-1])
