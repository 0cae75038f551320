"""The digits: scikit-learn's, split and shifted by this library's own seeded code."""

from dataclasses import dataclass

import numpy as np

from convcore.runtime.arrays import Array

CLASSES = 10
HELD_OUT = 0.25
SPLIT_SEED = 0  # the held-out digits are the same in every run, whatever --seed is
INK = 16  # largest value of a pixel
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))  # pixels down and to the right


@dataclass(frozen=True)
class Digits:
    """Images, (N, 1, 8, 8) float32 from 0 to 1, and what they show, (N,) int64."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def load() -> Digits:
    """Load scikit-learn's 1,797 digits and hold a quarter of each class out."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images[:, None] / INK).astype(np.float32)
    y = bunch.target.astype(np.int64)
    held_out = stratified(y, HELD_OUT, np.random.default_rng(SPLIT_SEED))
    return Digits(x[~held_out], y[~held_out], x[held_out], y[held_out])


def stratified(y: Array, share: float, rng: np.random.Generator) -> Array:
    """Choose the same share of every class at random.

    Parameters
    ----------
    y : (N,) int ndarray
        Classes.
    share : float
        From 0 to 1; the count per class is rounded.
    rng : numpy.random.Generator

    Returns
    -------
    (N,) bool ndarray
        True where chosen.

    Examples
    --------
    >>> y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> chosen = stratified(y, 0.25, np.random.default_rng(0))
    >>> np.bincount(y[chosen]).tolist()
    [1, 1]
    """
    chosen = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        chosen[members[: round(share * len(members))]] = True
    return chosen


def shifted(x: Array, y: Array) -> tuple[Array, Array]:
    """Add each image four times more: moved by a pixel up, down, left and right.

    Parameters
    ----------
    x : (N, C, H, W) ndarray
    y : (N,) ndarray

    Returns
    -------
    (5 * N, C, H, W) ndarray, (5 * N,) ndarray
        The images as they are first; zeros come in where one moves away.
    """
    height, width = x.shape[2:]
    framed = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moved = [
        framed[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
        for down, right in SHIFTS
    ]
    return np.concatenate(moved), np.tile(y, len(SHIFTS))
