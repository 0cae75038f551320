"""Activations that leave what is positive as it is: ReLU and its relatives.

All activations compute element by element, in one pass, so the bits of a sample depend on
nothing but that sample. Inf and NaN are values like any other, and give no warning. Where
the output is enough for the gradient, backward takes that: the next layer keeps it anyway.
"""

from convcore.arguments import real
from convcore.functional._elementwise import ELU, LEAKY, RELU, backward, bits, forward
from convcore.runtime.arrays import Array

__all__ = [
    "elu",
    "elu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "relu",
    "relu_backward",
    "selu",
    "selu_backward",
]

_ALPHA, _SCALE = 1.6732632423543772, 1.0507009873554805  # the paper's, section 2
_SELU = bits(_SCALE * _ALPHA, _SCALE)


def relu(x: Array, *, out: Array | None = None) -> Array:
    """Replace what is negative by 0.

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
    NaN stays NaN; -0 becomes 0.

    Examples
    --------
    >>> relu(np.array([-1.0, 0.5]))
    array([0. , 0.5])
    """
    return forward("relu", RELU, x, out)


def relu_backward(grad_output: Array, y: Array, *, out: Array | None = None) -> Array:
    """Pass the gradient on where the output is positive.

    Parameters
    ----------
    grad_output : (...), dtype of y
        Gradient of the output.
    y : (...) float32 or float64
        Output of `relu`; x is not needed.
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
    Exactly 0 where y is 0 (the gradient at the kink is taken as 0), `grad_output`
    elsewhere, also where y is NaN. The input does as well as y.

    Examples
    --------
    >>> relu_backward(np.array([3.0, 4.0]), np.array([0.0, 0.5]))
    array([0., 4.])
    """
    kept = ("y", y)
    return backward("relu_backward", RELU, grad_output, kept, out)


def leaky_relu(
    x: Array, negative_slope: float = 0.01, *, out: Array | None = None
) -> Array:
    """Multiply what is negative by a small slope.

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    negative_slope : float
        Factor below 0; finite.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, the slope is not finite, or `out`
        does not fit.

    References
    ----------
    Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models,
    ICML 2013 workshop, section 2.

    Examples
    --------
    >>> leaky_relu(np.array([-2.0, 0.5]), 0.25)
    array([-0.5,  0.5])
    """
    slope = real("leaky_relu", "negative_slope", negative_slope)
    return forward("leaky_relu", LEAKY, x, out, bits(slope))


def leaky_relu_backward(
    grad_output: Array,
    x: Array,
    negative_slope: float = 0.01,
    *,
    out: Array | None = None,
) -> Array:
    """Pass the gradient on, times the slope where the input is not positive.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `leaky_relu`.
    negative_slope : float
        As in the forward call.
    out : (...), dtype of x, optional
        Where to write the gradient; `grad_output` or x works in place.

    Returns
    -------
    grad_x : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, the slope is not finite, or
        `out` does not fit.

    Examples
    --------
    >>> leaky_relu_backward(np.array([4.0, 4.0]), np.array([-2.0, 0.5]), 0.25)
    array([1., 4.])
    """
    slope = real("leaky_relu_backward", "negative_slope", negative_slope)
    kept = ("x", x)
    return backward("leaky_relu_backward", LEAKY, grad_output, kept, out, bits(slope))


def elu(x: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """Bend what is negative towards -alpha: alpha * (exp(x) - 1).

    Parameters
    ----------
    x : (...) float32 or float64
        Input; any shape.
    alpha : float
        Factor of the exponential; finite.
    out : (...), dtype of x, optional
        Where to write y; x itself works in place.

    Returns
    -------
    y : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When x is no array of float32 or float64, alpha is not finite, or `out` does
        not fit.

    Notes
    -----
    Small x keep their digits: exp(x) - 1 is computed as one function.

    References
    ----------
    Clevert, Unterthiner, Hochreiter: Fast and Accurate Deep Network Learning by
    Exponential Linear Units (ELUs), ICLR 2016, equation 4.

    Examples
    --------
    >>> elu(np.array([-np.inf, 0.0, 2.0]))
    array([-1.,  0.,  2.])
    """
    factor = real("elu", "alpha", alpha)
    return forward("elu", ELU, x, out, bits(factor, 1.0))


def elu_backward(
    grad_output: Array, x: Array, alpha: float = 1.0, *, out: Array | None = None
) -> Array:
    """Multiply the gradient by 1 above 0, and by alpha * exp(x) below.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `elu`.
    alpha : float
        As in the forward call.
    out : (...), dtype of x, optional
        Where to write the gradient; `grad_output` or x works in place.

    Returns
    -------
    grad_x : (...), dtype of x

    Raises
    ------
    TypeError, ValueError
        When shapes or dtypes differ, or are not legal, alpha is not finite, or `out`
        does not fit.

    Examples
    --------
    >>> elu_backward(np.array([3.0, 3.0]), np.array([0.0, 2.0]), 0.5)
    array([1.5, 3. ])
    """
    factor = real("elu_backward", "alpha", alpha)
    kept = ("x", x)
    return backward("elu_backward", ELU, grad_output, kept, out, bits(factor, 1.0))


def selu(x: Array, *, out: Array | None = None) -> Array:
    """Scale an ELU so that mean and variance go towards 0 and 1, layer by layer.

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
    scale * x above 0, scale * alpha * (exp(x) - 1) below, with scale = 1.0507... and
    alpha = 1.6732... from the paper.

    References
    ----------
    Klambauer, Unterthiner, Mayr, Hochreiter: Self-Normalizing Neural Networks, NIPS
    2017, equation 2.

    Examples
    --------
    >>> selu(np.array([0.0, 1.0])).round(4)
    array([0.    , 1.0507])
    """
    return forward("selu", ELU, x, out, _SELU)


def selu_backward(grad_output: Array, x: Array, *, out: Array | None = None) -> Array:
    """Multiply the gradient by the slope of `selu`.

    Parameters
    ----------
    grad_output : (...), dtype of x
        Gradient of the output.
    x : (...) float32 or float64
        Input of `selu`.
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
    >>> selu_backward(np.array([1.0]), np.array([2.0])).round(4)
    array([1.0507])
    """
    kept = ("x", x)
    return backward("selu_backward", ELU, grad_output, kept, out, _SELU)
