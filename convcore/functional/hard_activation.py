"""Activations made of straight lines with ends: ReLU6 and the hard variants."""

from convcore.arguments import real, shown
from convcore.functional._elementwise import (
    CLAMP,
    HARDSIGMOID,
    HARDSWISH,
    Bits,
    backward,
    bits,
    forward,
)
from convcore.runtime.arrays import Array

__all__ = [
    "hardsigmoid",
    "hardsigmoid_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "relu6",
    "relu6_backward",
]

_SIX = bits(0.0, 6.0)


def relu6(x: Array, *, out: Array | None = None) -> Array:
    """Cut off below 0 and above 6.

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

    References
    ----------
    Howard et al.: MobileNets, 2017; Krizhevsky: Convolutional Deep Belief Networks on
    CIFAR-10, 2010.

    Examples
    --------
    >>> relu6(np.array([-1.0, 0.5, 7.0]))
    array([0. , 0.5, 6. ])
    """
    return forward("relu6", CLAMP, x, out, _SIX)


def relu6_backward(grad_output: Array, y: Array, *, out: Array | None = None) -> Array:
    """Pass the gradient on where the output lies between 0 and 6.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output.
    y : (...) float32 or float64
        Output of `relu6`; x is not needed.
    out : (...), dtype of y, optional
        Where to write the gradient; `grad_output` or y works in place.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, or `out` does not fit.

    Notes
    -----
    Exactly 0 where y is 0 or 6, `grad_output` elsewhere, also where y is NaN. The input
    does as well as y.

    Examples
    --------
    >>> relu6_backward(np.array([3.0, 4.0, 5.0]), np.array([0.0, 0.5, 6.0]))
    array([0., 4., 0.])
    """
    kept = ("y", y)
    return backward("relu6_backward", CLAMP, grad_output, kept, out, _SIX)


def hardtanh(
    x: Array, min_val: float = -1.0, max_val: float = 1.0, *, out: Array | None = None
) -> Array:
    """Cut off below `min_val` and above `max_val`.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    min_val : float
        Least value; finite.
    max_val : float
        Largest value, above `min_val`.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, the limits are no range, or `out`
        does not fit.

    Notes
    -----
    NaN stays NaN.

    Examples
    --------
    >>> hardtanh(np.array([-2.0, 0.5, 2.0]))
    array([-1. ,  0.5,  1. ])
    """
    numbers = _limits("hardtanh", min_val, max_val)
    return forward("hardtanh", CLAMP, x, out, numbers)


def hardtanh_backward(
    grad_output: Array,
    y: Array,
    min_val: float = -1.0,
    max_val: float = 1.0,
    *,
    out: Array | None = None,
) -> Array:
    """Pass the gradient on where the output lies between the limits.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output.
    y : (...) float32 or float64
        Output of `hardtanh`; x is not needed.
    min_val : float
        As in the forward call.
    max_val : float
        As in the forward call.
    out : (...), dtype of y, optional
        Where to write the gradient; `grad_output` or y works in place.

    Returns
    -------
    grad_x : (...), dtype of y

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, the limits are no range, or
        `out` does not fit.

    Notes
    -----
    Exactly 0 where y is at a limit, `grad_output` elsewhere, also where y is NaN. The
    input does as well as y.

    Examples
    --------
    >>> hardtanh_backward(np.array([3.0, 4.0]), np.array([-1.0, 0.5]))
    array([0., 4.])
    """
    numbers = _limits("hardtanh_backward", min_val, max_val)
    kept = ("y", y)
    return backward("hardtanh_backward", CLAMP, grad_output, kept, out, numbers)


def hardsigmoid(x: Array, *, out: Array | None = None) -> Array:
    """Climb from 0 to 1 between -3 and 3: min(max(x + 3, 0), 6) / 6.

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

    References
    ----------
    Howard et al.: Searching for MobileNetV3, ICCV 2019, section 5.2.

    Examples
    --------
    >>> hardsigmoid(np.array([-4.0, 0.0, 4.0]))
    array([0. , 0.5, 1. ])
    """
    return forward("hardsigmoid", HARDSIGMOID, x, out)


def hardsigmoid_backward(
    grad_output: Array, x: Array, *, out: Array | None = None
) -> Array:
    """Divide the gradient by 6 where -3 < x < 3.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `hardsigmoid`.
    out : (...), dtype of x, optional
        Where to write the gradient; `grad_output` or x works in place.

    Returns
    -------
    grad_x : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, or `out` does not fit.

    Notes
    -----
    Exactly 0 outside; NaN counts as inside.

    Examples
    --------
    >>> hardsigmoid_backward(np.array([6.0, 6.0]), np.array([0.0, 4.0]))
    array([1., 0.])
    """
    kept = ("x", x)
    return backward("hardsigmoid_backward", HARDSIGMOID, grad_output, kept, out)


def hardswish(x: Array, *, out: Array | None = None) -> Array:
    """Multiply x by its `hardsigmoid`: 0 up to -3, x from 3 on.

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

    References
    ----------
    Howard et al.: Searching for MobileNetV3, ICCV 2019, section 5.2.

    Examples
    --------
    >>> hardswish(np.array([-4.0, 1.5, 4.0])).round(6)
    array([-0.   ,  1.125,  4.   ])
    """
    return forward("hardswish", HARDSWISH, x, out)


def hardswish_backward(
    grad_output: Array, x: Array, *, out: Array | None = None
) -> Array:
    """Multiply the gradient by the slope of `hardswish`.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `hardswish`.
    out : (...), dtype of x, optional
        Where to write the gradient; `grad_output` or x works in place.

    Returns
    -------
    grad_x : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, or `out` does not fit.

    Notes
    -----
    The slope is 0 up to -3, x / 3 + 1/2 below 3, and 1 from there on.

    Examples
    --------
    >>> hardswish_backward(np.array([2.0, 2.0]), np.array([-4.0, 4.0]))
    array([0., 2.])
    """
    kept = ("x", x)
    return backward("hardswish_backward", HARDSWISH, grad_output, kept, out)


def _limits(function: str, min_val: float, max_val: float) -> Bits:
    """Check the limits, and give them to the kernel."""
    least = real(function, "min_val", min_val)
    most = real(function, "max_val", max_val)
    if not least < most:
        raise ValueError(
            f"{function}: max_val must be above min_val {shown(min_val)}, got "
            f"{shown(max_val)}"
        )
    return bits(least, most)
