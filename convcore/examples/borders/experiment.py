"""The experiment: digits in the middle and at the border, read with each remedy.

Every 8x8 digit is put on an empty canvas of 12x12. A place is the row and column of its
upper left corner: (2, 2) is the centre, and 16 of the 25 places touch the border. Networks
learn either from digits anywhere or from centred ones alone; all are tested with digits
that they have not seen, in the centre, at an edge (but no corner), and in a corner.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from convcore import nn, optim, train
from convcore.demo import data
from convcore.examples.borders.remedies import CANVAS, REMEDIES
from convcore.runtime.arrays import Array

DIGIT = 8
LAST = CANVAS - DIGIT
EPOCHS = 8
SEEDS = 5
BATCH = 64
LR = 1e-2

Place = tuple[int, int]
CENTRE: Place = (LAST // 2, LAST // 2)
CORNERS: list[Place] = [(0, 0), (0, LAST), (LAST, 0), (LAST, LAST)]
EDGES: list[Place] = [
    (row, column)
    for row in range(LAST + 1)
    for column in range(LAST + 1)
    if (row in (0, LAST)) != (column in (0, LAST))
]
TESTED: dict[str, list[Place]] = {"centre": [CENTRE], "edge": EDGES, "corner": CORNERS}
LEARNED = ("anywhere", "centre")


@dataclass(frozen=True)
class Result:
    """Shares of digits that are read well.

    Attributes
    ----------
    remedy : str
        What was done about the border.
    learned : str
        Where the digits were that it learned from.
    shares : dict of str to list of float
        For each of `TESTED`, one share for each seed.
    """

    remedy: str
    learned: str
    shares: dict[str, list[float]]


def run(
    digits: data.Digits,
    *,
    remedies: Iterable[str] = REMEDIES,
    learned: Iterable[str] = LEARNED,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
) -> Iterator[Result]:
    """Train and test, one remedy after the other.

    Parameters
    ----------
    digits : data.Digits
        What to learn and what to test.
    remedies, learned : iterables of str
        Names in `REMEDIES` and in `LEARNED`.
    seeds : sequence of int
        Each gives first weights, places and an order of the digits, which are the same
        for all remedies.
    epochs : int
        Times that every digit is seen.

    Yields
    ------
    Result
        As soon as all seeds of one are done.
    """
    for place in learned:
        for remedy in remedies:
            shares: dict[str, list[float]] = {name: [] for name in TESTED}
            for seed in seeds:
                model = trained(digits, remedy, place, seed, epochs)
                for name, places in TESTED.items():
                    shares[name].append(share_read(model, digits, places))
            yield Result(remedy, place, shares)


def trained(
    digits: data.Digits, remedy: str, learned: str, seed: int, epochs: int
) -> nn.Sequential:
    """Train one network."""
    rng = np.random.default_rng(seed)
    count = len(digits.x_train)
    places = np.tile(CENTRE, (count, 1))
    if learned == "anywhere":
        places = rng.integers(0, LAST + 1, (count, 2))
    model = REMEDIES[remedy](np.random.default_rng(seed))
    optimizer = optim.Adam(model.parameters(), lr=LR)
    train.fit(
        model,
        put(digits.x_train, places),
        digits.y_train,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        schedule=optim.CosineLR(optimizer, t_max=epochs),
        progress=False,
    )
    return model


def share_read(
    model: nn.Sequential, digits: data.Digits, places: Iterable[Place]
) -> float:
    """Test a network with every held-out digit at each of the places."""
    count = len(digits.x_test)
    shares = []
    for place in places:
        x = put(digits.x_test, np.tile(place, (count, 1)))
        shares.append(train.accuracy(train.predict(model, x), digits.y_test))
    return fmean(shares)


def put(images: Array, places: Array) -> Array:
    """Put each image on an empty canvas.

    Parameters
    ----------
    images : (N, C, 8, 8) ndarray
    places : (N, 2) int ndarray
        Row and column of the upper left corner of each.

    Returns
    -------
    (N, C, 12, 12) ndarray, dtype of images

    Examples
    --------
    >>> canvas = put(np.ones((1, 1, 8, 8)), np.array([[4, 0]]))
    >>> canvas.shape, canvas[0, 0, 3, 0].item(), canvas[0, 0, 11, 7].item()
    ((1, 1, 12, 12), 0.0, 1.0)
    """
    canvas = np.zeros((*images.shape[:2], CANVAS, CANVAS), images.dtype)
    for page, image, (row, column) in zip(canvas, images, places.tolist(), strict=True):
        page[:, row : row + DIGIT, column : column + DIGIT] = image
    return canvas


HEAD = [
    "| learned | border | centre | edge | corner |",
    "| --- | --- | ---: | ---: | ---: |",
]


def row(result: Result) -> str:
    """Give a line of the table: mean and standard deviation over seeds, in percent.

    Examples
    --------
    >>> row(Result("zeros", "centre", {"centre": [0.97, 0.99], "edge": [0.5, 0.5]}))
    '| centre | zeros | 98.0 ± 1.4 | 50.0 ± 0.0 |'
    """
    cells = [
        f"{100 * fmean(shares):.1f} ± {100 * _spread(shares):.1f}"
        for shares in result.shares.values()
    ]
    return f"| {result.learned} | {result.remedy} | {' | '.join(cells)} |"


def _spread(shares: list[float]) -> float:
    return stdev(shares) if len(shares) > 1 else 0.0
