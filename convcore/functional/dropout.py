"""Dropout: zeros at random, the rest scaled up."""

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed, generator
from convcore.functional._checks import share
from convcore.functional._select import zeroed
from convcore.runtime.arrays import Array, ready

__all__ = ["dropout", "dropout_backward"]

Mask = npt.NDArray[np.bool_]


def dropout(x: Array, p: float = 0.5, *, rng: Seed) -> tuple[Array, Mask]:
    """Set each element to 0 with probability p, and divide the others by 1 - p.

    Parameters
    ----------
    x : (...) float32 or float64
        Input.
    p : float
        Probability of a zero, 0 <= p <= 1.
    rng : numpy.random.Generator or int
        Generator to draw from, or a seed for a new one.

    Returns
    -------
    y : (...), dtype of x
        Has the mean of x. Dropped elements are exactly 0, even where x is not finite.
    mask : (...) bool
        True where x was kept; `dropout_backward` reads it.

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, p is no probability, or rng is neither
        a generator nor a seed.

    Notes
    -----
    One uniform float32 is drawn per element, whatever the dtype of x, in C order.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov: Dropout, JMLR 15 (2014),
    sections 4 and 10 (scaled at training, so that inference needs no change).

    Examples
    --------
    >>> y, mask = dropout(np.ones(4, np.float32), 0.5, rng=1)
    >>> bool((y == 2 * mask).all())
    True
    """
    scale = _scale("dropout", p)
    draw = generator("dropout", rng)
    x = ready("dropout", "x", x)
    mask = draw.random(x.shape, np.float32) >= np.float32(p)
    return _masked(x, mask, scale), mask


def dropout_backward(grad_output: Array, mask: Mask, p: float = 0.5) -> Array:
    """Pass the gradient on where x was kept, divided by 1 - p.

    Parameters
    ----------
    grad_output : (...) float32 or float64
        Gradient of the output.
    mask : (...) bool
        What `dropout` gave.
    p : float
        As in the forward call.

    Returns
    -------
    grad_x : (...), dtype of grad_output

    Raises
    ------
    ValueError, TypeError
        When the shapes differ, the mask is not bool, or p is no probability.

    Examples
    --------
    >>> dropout_backward(np.array([3.0, 4.0]), np.array([False, True]), 0.5)
    array([0., 8.])
    """
    name = "dropout_backward"
    scale = _scale(name, p)
    grad_output = ready(name, "grad_output", grad_output)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"{name}: mask must be an array of bool, got {kind}")
    if mask.shape != grad_output.shape:
        raise ValueError(
            f"{name}: grad_output must have the shape of mask {mask.shape}, "
            f"got {grad_output.shape}"
        )
    return _masked(grad_output, mask, scale)


def _scale(function: str, p: float) -> float:
    """Give the factor of what is kept; with p = 1 nothing is."""
    probability = share(function, "p", p)
    return 1 / (1 - probability) if probability < 1 else 0.0


@np.errstate(all="ignore")
def _masked(x: Array, mask: Mask, scale: float) -> Array:
    y = zeroed(x, ~mask)
    np.multiply(y, scale, out=y)
    return y
