"""Answers that were computed before: every algorithm and instruction set asks the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MOST_BYTES = 200 << 20

_answers: dict[Any, Array] = {}  # the oldest first
_held = 0  # bytes


def remembered(make: Callable[[], Array], *question: Any) -> Array:
    """Give what `make` gave when the same question was asked before.

    Parameters
    ----------
    make : callable
        Computes the answer from the question alone.
    *question : ndarray or hashable
        Arrays are told apart by what is in them.

    Returns
    -------
    answer : ndarray that cannot be written
    """
    global _held
    key = tuple(_content(q) if isinstance(q, np.ndarray) else q for q in question)
    if key not in _answers:
        while _held > MOST_BYTES:
            _held -= _answers.pop(next(iter(_answers))).nbytes
        answer = make()
        answer.flags.writeable = False
        _answers[key] = answer
        _held += answer.nbytes
    return _answers[key]


def _content(array: Array) -> Any:
    """Give what tells arrays apart."""
    plain = array
    if array.dtype == np.longdouble:  # its padding is arbitrary
        plain = array.astype(np.float64)
        if not np.array_equal(plain, array, equal_nan=True):
            return object()
    return array.shape, array.dtype.str, hash(plain.tobytes())
