"""Train the demo's network twice, once with correlation and once with convolution.

    python -m convcore.demo.flip_twice

A convolution layer of a network correlates; with `flip=True` it convolves, that is, it
turns each kernel around first. Four runs with the same digits in the same order:

    correlation      as the demo trains
    kernels turned   flip=True, the first kernels turned by 180 degrees
    images turned    flip=True, the same first kernels, the images turned
    same kernels     flip=True, the same first kernels, the same images

The second is the first run in another notation, so every bit agrees. The third is the
first seen upside down: equal, but summed in another order. The fourth is another run.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from convcore import nn, optim, train
from convcore.demo import data
from convcore.demo.model import build
from convcore.runtime.arrays import Array
from convcore.runtime.precision import precision

EPOCHS = 8
BATCH = 64
LR = 2e-3


@dataclass(frozen=True)
class Run:
    """A training that has ended.

    Parameters
    ----------
    name : str
    losses : list of float
        Mean training loss of each epoch.
    kernels : list of ndarray
        Of each convolution, as a correlation of upright images would have them.
    scores : (N, 10) ndarray
        Of the held-out digits.
    accuracy : float
    """

    name: str
    losses: list[float]
    kernels: list[Array]
    scores: Array
    accuracy: float


def turned(array: Array) -> Array:
    """Turn planes by 180 degrees.

    Examples
    --------
    >>> turned(np.array([[1, 2], [3, 4]]))
    array([[4, 3],
           [2, 1]])
    """
    return np.ascontiguousarray(array[..., ::-1, ::-1])


def runs(digits: data.Digits, seed: int = 0, epochs: int = EPOCHS) -> list[Run]:
    """Train all four, the correlation first."""
    upside_down = data.Digits(
        turned(digits.x_train), digits.y_train, turned(digits.x_test), digits.y_test
    )
    correlation = build(seed)
    kernels_turned = build(seed, flip=True)
    for layer in convolutions(kernels_turned):
        layer.weight.value = turned(layer.weight.value)
    images_turned = build(seed, flip=True)
    turn_inputs(images_turned)
    same = build(seed, flip=True)
    # Direct sums alone: which algorithm is chosen shall not depend on the batch.
    with precision("strict"):
        return [
            _train("correlation", correlation, digits, seed, epochs, turn=False),
            _train("kernels turned", kernels_turned, digits, seed, epochs, turn=True),
            _train(
                "images turned", images_turned, upside_down, seed, epochs, turn=False
            ),
            _train("same kernels", same, digits, seed, epochs, turn=True),
        ]


def convolutions(model: nn.Sequential) -> list[nn.Conv2d]:
    """List the convolutions of a network, in order."""
    return [layer for layer in model.layers() if isinstance(layer, nn.Conv2d)]


def turn_inputs(model: nn.Sequential) -> None:
    """Have the first linear layer read its maps of pixels turned by 180 degrees."""
    linear = next(layer for layer in model.layers() if isinstance(layer, nn.Linear))
    channels = convolutions(model)[-1].out_channels
    weight = linear.weight.value
    maps = weight.reshape(len(weight), channels, -1)  # pixels of a map in one row
    linear.weight.value = np.ascontiguousarray(maps[..., ::-1]).reshape(weight.shape)


def difference(first: Array, second: Array) -> float:
    """Give the largest difference, beside the largest magnitude of the first."""
    return float(np.abs(first - second).max() / np.abs(first).max())


def table(found: list[Run]) -> str:
    """Compare every run with the first."""
    first = found[0]
    lines = [
        "run             last loss    accuracy  losses      kernels     scores",
        "--------------  -----------  --------  ----------  ----------  ----------",
    ]
    for run in found:
        pairs = zip(first.kernels, run.kernels, strict=True)
        away = [
            difference(np.array(first.losses), np.array(run.losses)),
            max(difference(a, b) for a, b in pairs),
            difference(first.scores, run.scores),
        ]
        texts = ["-" if run is first else f"{d:.1e}" if d else "equal" for d in away]
        cells = "  ".join(f"{text:10}" for text in texts)
        lines.append(
            f"{run.name:14}  {run.losses[-1]:.9f}  {run.accuracy:8.2%}  {cells}".rstrip()
        )
    return "\n".join(lines)


def _train(
    name: str,
    model: nn.Sequential,
    digits: data.Digits,
    seed: int,
    epochs: int,
    *,
    turn: bool,
) -> Run:
    """Train one network; `turn` its kernels at the end to compare them."""
    optimizer = optim.Adam(model.parameters(), lr=LR)
    history = train.fit(
        model,
        digits.x_train,
        digits.y_train,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        schedule=optim.CosineLR(optimizer, t_max=epochs),
        progress=False,
    )
    scores = train.predict(model, digits.x_test)
    kernels = [layer.weight.value.copy() for layer in convolutions(model)]
    return Run(
        name,
        history.loss,
        [turned(k) for k in kernels] if turn else kernels,
        scores,
        train.accuracy(scores, digits.y_test),
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    given = parser.parse_args()
    found = runs(data.load(), given.seed, given.epochs)
    print(table(found))
    print(
        "\nThe last three columns: the largest difference from the first run, beside "
        "the\nlargest magnitude there; kernels are compared as those of a correlation."
    )


if __name__ == "__main__":
    main()
