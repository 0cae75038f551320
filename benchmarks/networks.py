"""Networks that are trained, each written once for every library.

The layers of convcore have torch's names and arguments, so a network is a function of
the module `nn` and of the little that differs. First values and data are drawn here, the
same in every process.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np

from benchmarks.case import Array, Case, Ints

# In place of a direction: a step of a loop of one's own, one of `train.fit`, a call.
TRAIN, FIT, INFER = "train", "fit", "infer"
LOSS_TOLERANCE = 2e-3  # of the first losses, relative: rounding grows from step to step
FIRST_STEPS = 4
# So slow that a batch seen a thousand times still has gradients of the usual size.
LEARNING_RATE, MOMENTUM = 1e-5, 0.9


class Library(NamedTuple):
    """What differs between libraries.

    Parameters
    ----------
    nn : module
    relu : callable
        Makes a layer; in place where the library can do that.
    residual : callable
        Makes the layer body(x) + shortcut(x) of one layer or two.
    """

    nn: Any
    relu: Callable[[], Any]
    residual: Callable[..., Any]


class Network(NamedTuple):
    """A network and the input of its training step."""

    build: Callable[[Library], Any]
    x_shape: Ints
    classes: int


@dataclass(frozen=True)
class NetworkCase(Case):
    """A training step, by hand or of `train.fit`, or the inference of a network.

    Parameters
    ----------
    op : str
        A name in NETWORKS.
    direction : str
        TRAIN, FIT or INFER.
    """

    @property
    def network(self) -> Network:
        """The entry of the table."""
        return NETWORKS[self.op]

    @property
    def spread(self) -> float:
        """Data of variance 1."""
        return sqrt(12)

    @property
    def tolerance(self) -> float:
        """Of the first losses, or of the scores."""
        return LOSS_TOLERANCE

    def targets(self) -> Array:
        """Give the true classes: (n,) int64."""
        return np.arange(self.x_shape[0]) * 7 % self.network.classes


def first_value(name: str, shape: Ints, index: int) -> Array:
    """Draw a parameter: He et al.'s uniform weights, gains of 1, no shifts.

    Parameters
    ----------
    name : str
        Ends with "weight" or "bias".
    shape : tuple of int
    index : int
        Of the parameter in its network.
    """
    if len(shape) == 1:
        return np.full(shape, name.endswith("weight"), np.float32)
    limit = sqrt(6 / prod(shape[1:]))
    drawn = np.random.default_rng([1, index]).random(shape, np.float32)
    return (2 * drawn - 1) * np.float32(limit)


def lenet5(library: Library) -> Any:
    """Build LeCun et al. 1998, with ReLU and max pooling, as it is written today."""
    nn, relu, _ = library
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        relu(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        relu(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        relu(),
        nn.Linear(120, 84),
        relu(),
        nn.Linear(84, 10),
    )


def vgg(library: Library) -> Any:
    """Build Simonyan and Zisserman 2015 with six convolutions, for 32 x 32."""
    nn, relu, _ = library
    layers = []
    channels = 3
    for width in (64, 128, 256):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), relu()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    dense = [nn.Linear(256 * 4 * 4, 256), relu(), nn.Linear(256, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def resnet18(library: Library) -> Any:
    """Build He et al. 2016, figure 3 and table 1."""
    nn, relu, _ = library
    stages = []
    channels = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        stages += [*_block(library, channels, width, stride)]
        stages += [*_block(library, width, width, 1)]
        channels = width
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        relu(),
        nn.MaxPool2d(3, 2, 1),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 1000),
    )


def tiny(library: Library) -> Any:
    """Build some of everything, for tests."""
    nn, relu, _ = library
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        relu(),
        *_block(library, 4, 6, 2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )


def _block(library: Library, ic: int, oc: int, stride: int) -> tuple[Any, Any]:
    """Give two convolutions with what goes around them, and the ReLU after."""
    nn, relu, residual = library
    body = nn.Sequential(
        nn.Conv2d(ic, oc, 3, stride, 1, bias=False),
        nn.BatchNorm2d(oc),
        relu(),
        nn.Conv2d(oc, oc, 3, 1, 1, bias=False),
        nn.BatchNorm2d(oc),
    )
    if stride == 1 and ic == oc:
        return residual(body), relu()
    shortcut = nn.Sequential(
        nn.Conv2d(ic, oc, 1, stride, bias=False), nn.BatchNorm2d(oc)
    )
    return residual(body, shortcut), relu()


NETWORKS: Mapping[str, Network] = {
    "lenet5": Network(lenet5, (64, 1, 28, 28), 10),
    "vgg": Network(vgg, (32, 3, 32, 32), 10),
    "resnet18_64": Network(resnet18, (8, 3, 64, 64), 1000),
    "resnet18_224": Network(resnet18, (8, 3, 224, 224), 1000),
    "tiny": Network(tiny, (3, 2, 8, 8), 5),
}
