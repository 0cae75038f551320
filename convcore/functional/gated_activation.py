"""Activations that multiply x by a gate: GELU and SiLU."""

from typing import Literal

from convcore.arguments import one_of
from convcore.functional._elementwise import GELU, GELU_TANH, SILU, backward, forward
from convcore.runtime.arrays import Array

__all__ = [
    "Approximate",
    "gelu",
    "gelu_backward",
    "silu",
    "silu_backward",
]

Approximate = Literal["none", "tanh"]


def gelu(
    x: Array, approximate: Approximate = "none", *, out: Array | None = None
) -> Array:
    """Multiply x by the share of a normal distribution below it: x * Phi(x).

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    approximate : "none" or "tanh"
        How Phi is computed: exactly, or by a tanh.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, `approximate` is neither, or `out`
        does not fit.

    Notes
    -----
    "none" takes Phi(x) = erfc(-x / sqrt(2)) / 2 from a polynomial for its tail, so results
    of negative x keep their digits (4.5 units in the last place) where 1 + erf(...) would
    have none left. "tanh" is x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))).
    The result of -inf is 0, the limit.

    References
    ----------
    Hendrycks, Gimpel: Gaussian Error Linear Units (GELUs), 2016, section 2.

    Examples
    --------
    >>> gelu(np.array([-np.inf, 0.0, 1.0])).round(4)
    array([-0.    ,  0.    ,  0.8413])
    """
    return forward("gelu", _kind("gelu", approximate), x, out)


def gelu_backward(
    grad_output: Array,
    x: Array,
    approximate: Approximate = "none",
    *,
    out: Array | None = None,
) -> Array:
    """Multiply the gradient by the slope Phi(x) + x * phi(x), or that of the tanh form.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `gelu`.
    approximate : "none" or "tanh"
        As in the forward call.
    out : (...), dtype of x, optional
        Where to write the gradient; `grad_output` or x works in place.

    Returns
    -------
    grad_x : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, `approximate` is neither, or
        `out` does not fit.

    Examples
    --------
    >>> gelu_backward(np.array([2.0]), np.array([0.0]))
    array([1.])
    """
    kept = ("x", x)
    return backward(
        "gelu_backward", _kind("gelu_backward", approximate), grad_output, kept, out
    )


def silu(x: Array, *, out: Array | None = None) -> Array:
    """Multiply x by its sigmoid.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, or `out` does not fit.

    Notes
    -----
    Results down to the smallest subnormal number keep their digits; that of -inf is 0, the
    limit.

    References
    ----------
    Elfwing, Uchibe, Doya: Sigmoid-Weighted Linear Units for Neural Network Function
    Approximation in Reinforcement Learning, Neural Networks 107 (2018), section 2.

    Examples
    --------
    >>> silu(np.array([-np.inf, 0.0, 1.0])).round(4)
    array([-0.    ,  0.    ,  0.7311])
    """
    return forward("silu", SILU, x, out)


def silu_backward(grad_output: Array, x: Array, *, out: Array | None = None) -> Array:
    """Multiply the gradient by the slope s * (1 + x * (1 - s)), s the sigmoid of x.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `silu`.
    out : (...), dtype of x, optional
        Where to write the gradient; `grad_output` or x works in place.

    Returns
    -------
    grad_x : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, or `out` does not fit.

    Examples
    --------
    >>> silu_backward(np.array([2.0]), np.array([0.0]))
    array([1.])
    """
    kept = ("x", x)
    return backward("silu_backward", SILU, grad_output, kept, out)


def _kind(function: str, approximate: str) -> int:
    """Check which form is asked for."""
    return _KINDS[one_of(function, "approximate", approximate, _FORMS)]


_KINDS = {"none": GELU, "tanh": GELU_TANH}
_FORMS = tuple(_KINDS)
