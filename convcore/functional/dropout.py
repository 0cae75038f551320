"""Dropout: zeros at random, the rest scaled up.

What is dropped is a function of a key and of an element's place, so a key of 64 bits is
all that a backward pass has to keep: `keyed_dropout`. `dropout` draws a key, and gives the
mask as an array. Both drop the same elements for the same key, whatever the dtype, the
number of threads and the instruction set.
"""

from array import array
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed, generator, integer, shown
from convcore.functional._checks import share
from convcore.functional._elementwise import bits, check_place
from convcore.functional._outs import Pair, check
from convcore.functional.call import apply, single
from convcore.problem.rules import check_addressable
from convcore.runtime import buffers, cpu
from convcore.runtime.arrays import (
    Array,
    check_out,
    checked,
    contiguous,
    like,
    ready,
    room,
)
from convcore.runtime.threads import team

__all__ = [
    "dropout",
    "dropout_backward",
    "dropout_key",
    "dropout_mask",
    "keyed_dropout",
    "keyed_dropout_backward",
]

Mask = npt.NDArray[np.bool_]

_WORDS = 1 << 32  # the kernel draws whole numbers below this
_KEYS = 1 << 64
_BOOL = np.dtype(np.bool_)


def dropout(
    x: Array, p: float = 0.5, *, rng: Seed, out: Pair | None = None
) -> tuple[Array, Mask]:
    """Set each element to 0 with probability p, and divide the others by 1 - p.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    p : float
        Probability of a zero, 0 <= p <= 1.
    rng : numpy.random.Generator or int
        Generator to draw the key from (`dropout_key`), or a seed for a new one.
    out : array of shape and dtype of x, or tuple of (array or None), optional
        Where to write y, or y and the mask; for y, x itself works in place.

    Returns
    -------
    y : (...), dtype of x
        Has the mean of x. Dropped elements are exactly 0, even where x is not finite.
    mask : (...) bool
        True where x was kept; `dropout_backward` reads it.

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, p is no probability, rng is neither a
        generator nor a seed, or `out` does not fit.

    Notes
    -----
    Element i is dropped where word i of Philox4x32-10 is below p * 2**32 (rounded), so
    the probability is p within 2**-33.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov: Dropout, JMLR 15 (2014),
    sections 4 and 10 (scaled at training, so that inference needs no change). Salmon,
    Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011.

    Examples
    --------
    >>> y, mask = dropout(np.ones(4, np.float32), 0.5, rng=1)
    >>> bool((y == 2 * mask).all())
    True
    """
    probability = share("dropout", "p", p)
    source = generator("dropout", rng)
    dtype = checked("dropout", "x", x)
    mask = None
    if type(out) is tuple:
        check("dropout", out, (x.shape,) * 2, (dtype, _BOOL), ())
        out, mask = out
        if mask is not None:
            check_out("dropout", mask, x.shape, _BOOL, (x,), "out[1]")
    if mask is None:
        mask = buffers.empty(x.shape, _BOOL)
    y = _dropped("dropout", x, _drawn("dropout", source), probability, mask, out)
    return y, mask


def dropout_backward(
    grad_output: Array, mask: Mask, p: float = 0.5, *, out: Array | None = None
) -> Array:
    """Pass the gradient on where x was kept, divided by 1 - p.

    Parameters
    ----------
    grad_output : (...) float32 or float64
        Gradient of the output.
    mask : (...) bool
        What `dropout` gave.
    p : float
        As in the forward call.
    out : (...), dtype of grad_output, optional
        Where to write the gradient; `grad_output` works in place.

    Returns
    -------
    grad_x : (...), dtype of grad_output

    Raises
    ------
    ValueError, TypeError
        When the shapes differ, the mask is not bool, p is no probability, or `out` does
        not fit.

    Examples
    --------
    >>> dropout_backward(np.array([3.0, 4.0]), np.array([False, True]), 0.5)
    array([0., 8.])
    """
    name = "dropout_backward"
    probability = share(name, "p", p)
    source = ready(name, "grad_output", grad_output)
    usual = type(mask) is np.ndarray and mask.dtype is _BOOL
    if not usual and (not isinstance(mask, np.ndarray) or mask.dtype != np.bool_):
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"{name}: mask must be an array of bool, got {kind}")
    if mask.shape != grad_output.shape:
        raise ValueError(
            f"{name}: grad_output must have the shape of mask {mask.shape}, "
            f"got {grad_output.shape}"
        )
    if out is None:
        out = like(source)
    else:
        check_place(name, out, source.shape, source.dtype, (grad_output,))
    if not (usual and mask.flags.c_contiguous):
        mask = contiguous(mask, _BOOL)
    # Not `apply`, as for activations.
    kernel, sizes = _masked(source.size, probability, cpu.isa())
    kernel(sizes, source, mask, out, team(source.size // 4))
    return out


def dropout_key(rng: Seed) -> int:
    """Draw a key for `keyed_dropout`.

    Parameters
    ----------
    rng : numpy.random.Generator or int
        Generator to draw 8 bytes from, or a seed for a new one.

    Returns
    -------
    key : int
        From 0 to 2**64 - 1.

    Raises
    ------
    ValueError, TypeError
        When rng is neither a generator nor a seed.

    Examples
    --------
    >>> dropout_key(7) == dropout_key(np.random.default_rng(7))
    True
    """
    return _drawn("dropout_key", generator("dropout_key", rng))


def _drawn(function: str, rng: np.random.Generator) -> int:
    """Draw a key; a subclass may draw anything."""
    drawn = rng.bytes(8)
    if type(drawn) is not bytes or len(drawn) != 8:
        raise ValueError(f"{function}: rng must draw 8 bytes, got {shown(drawn):.60}")
    return int.from_bytes(drawn, "little")


def dropout_mask(
    shape: tuple[int, ...], key: int, p: float = 0.5, *, out: Mask | None = None
) -> Mask:
    """Tell what `keyed_dropout` keeps.

    Parameters
    ----------
    shape : tuple of ints
        Shape of x.
    key : int
        From 0 to 2**64 - 1.
    p : float
        Probability of a zero, 0 <= p <= 1.
    out : shape, bool, optional
        Where to write the mask.

    Returns
    -------
    mask : shape, bool
        True where x is kept.

    Raises
    ------
    ValueError, TypeError
        When the shape, the key or p are not legal, or `out` does not fit.

    Examples
    --------
    >>> x, key = np.ones((2, 3)), 12
    >>> bool((dropout_mask((2, 3), key) == (keyed_dropout(x, key) > 0)).all())
    True
    """
    name = "dropout_mask"
    if not isinstance(shape, tuple):
        raise TypeError(f"{name}: shape must be a tuple, got {shown(shape)}")
    extents = tuple(integer(name, "shape", extent, 0) for extent in shape)
    check_addressable(name, "the mask", extents)
    probability, number = share(name, "p", p), _key(name, key)
    mask = room(name, out, extents, _BOOL)
    sizes = _sizes(prod(extents), number, probability)
    if sizes is None:
        mask.fill(False)
        return mask
    apply("dropout", "forward", sizes, None, None, mask, work=mask.size)
    return mask


def keyed_dropout(
    x: Array, key: int, p: float = 0.5, *, out: Array | None = None
) -> Array:
    """Do what `dropout` does, for a key, without a mask.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    key : int
        From 0 to 2**64 - 1; a key of its own for each call (`dropout_key`).
    p : float
        Probability of a zero, 0 <= p <= 1.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, the key or p are not legal, or `out`
        does not fit.

    Notes
    -----
    One read and one write; nothing is kept for backward but the key.

    Examples
    --------
    >>> keyed_dropout(np.ones(6), 3, 0.5)
    array([2., 0., 2., 0., 2., 2.])
    """
    name = "keyed_dropout"
    probability, number = share(name, "p", p), _key(name, key)
    return _dropped(name, x, number, probability, None, out)


def keyed_dropout_backward(
    grad_output: Array, key: int, p: float = 0.5, *, out: Array | None = None
) -> Array:
    """Pass the gradient on where `keyed_dropout` kept x: the same function once more.

    Parameters
    ----------
    grad_output : (...) float32 or float64
        Gradient of the output.
    key, p
        As in the forward call.
    out : (...), dtype of grad_output, optional
        Where to write the gradient; `grad_output` works in place.

    Returns
    -------
    grad_x : (...), dtype of grad_output

    Raises
    ------
    ValueError, TypeError
        As `keyed_dropout`.

    Examples
    --------
    >>> x = np.ones(6)
    >>> bool((keyed_dropout_backward(x, 3) == keyed_dropout(x, 3)).all())
    True
    """
    name = "keyed_dropout_backward"
    probability, number = share(name, "p", p), _key(name, key)
    return _dropped(name, grad_output, number, probability, None, out, "grad_output")


def _dropped(
    function: str,
    x: Any,
    key: int,
    p: float,
    mask: Mask | None,
    out: Any,
    argument: str = "x",
) -> Array:
    """Check x and `out`, and write y, and the mask where there is one."""
    source = ready(function, argument, x)
    if out is None:
        out = like(source)
    else:
        check_place(function, out, source.shape, source.dtype, (x,))
    result: Array = out
    sizes = _sizes(x.size, key, p)
    if sizes is None:
        result.fill(0)
        if mask is not None:
            mask.fill(False)
        return result
    work = 2 * x.size
    apply("dropout", "forward", sizes, source, result, mask, work=work)
    return result


def _sizes(size: int, key: int, p: float) -> tuple[int, int, int, int] | None:
    """Give the numbers for the kernel; None where all is dropped."""
    threshold = round(p * _WORDS)
    if threshold == _WORDS:
        return None
    signed = key - _KEYS if key >= _KEYS // 2 else key
    return size, signed, threshold, bits(_scale(p))[0]


@lru_cache(maxsize=1024)
def _masked(size: int, p: float, isa: str) -> "tuple[Callable[..., Any], array[int]]":
    """Give the kernel of a mask that is given, and its numbers."""
    return single("dropout", "masked"), array("q", (size, bits(_scale(p))[0]))


def _scale(p: float) -> float:
    """Give the factor of what is kept; with p = 1 nothing is."""
    return 1 / (1 - p) if p < 1 else 0.0


def _key(function: str, key: Any) -> int:
    """Check a key."""
    number = integer(function, "key", key, 0)
    if number >= _KEYS:
        raise ValueError(f"{function}: key must be < 2**64, got {shown(key)}")
    return number
