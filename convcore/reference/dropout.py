"""Dropout: a mask, and which mask a key makes."""

from math import prod

import numpy as np
import numpy.typing as npt

from convcore.reference.taps import Array, ieee

_FACTORS = 0xD2511F53, 0xCD9E8D57
_STEPS = 0x9E3779B9, 0xBB67AE85
_WORD = 2**32


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Encrypt four words with two, in ten rounds: Philox4x32-10.

    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011.

    Examples
    --------
    >>> [hex(word) for word in philox((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        one, two = _FACTORS[0] * a, _FACTORS[1] * c
        a, b = two // _WORD ^ b ^ low, two % _WORD
        c, d = one // _WORD ^ d ^ high, one % _WORD
        low, high = (low + _STEPS[0]) % _WORD, (high + _STEPS[1]) % _WORD
    return a, b, c, d


def dropout_mask(shape: tuple[int, ...], key: int, p: float) -> npt.NDArray[np.bool_]:
    """Keep element i where its word is not below `p * 2**32`.

    Word 64 g + 16 w + c is word w for the counter 16 g + c.
    """
    groups = -(-prod(shape) // 64)
    words = np.zeros((groups, 4, 16), np.uint64)
    for counter in range(16 * groups):
        four = philox(
            (counter % _WORD, counter // _WORD, 0, 0), (key % _WORD, key // _WORD)
        )
        words[counter // 16, :, counter % 16] = four
    kept: npt.NDArray[np.bool_] = words.reshape(-1)[: prod(shape)] >= round(p * _WORD)
    return kept.reshape(shape)


def dropout(x: Array, mask: Array, p: float) -> Array:
    """Keep the elements that the mask keeps, and scale them so that the mean stays.

    Parameters
    ----------
    x : any shape
    mask : bool, shape of x
        True, with probability 1 - p, where an element stays.
    p : float in [0, 1]
        Probability of dropping an element.

    Returns
    -------
    y : shape and dtype of x
        `x / (1 - p)` where kept, 0 elsewhere.
    """
    keep = np.asarray(1 - p, dtype=x.dtype)
    with ieee():
        return np.where(mask, x / keep, np.zeros_like(x))


def dropout_backward(grad_y: Array, mask: Array, p: float) -> Array:
    """Treat the gradient as `dropout` treated x."""
    return dropout(grad_y, mask, p)
