"""The fully connected layer: a convolution with a kernel of 1 over one position.

Each row is a sample, and the algorithm "dot" reads rows and weights where they are. The
bits depend on no BLAS, no number of threads, and, but for sums over all rows, no other
row.
"""

from collections.abc import Collection
from functools import partial
from math import prod

from convcore.functional._checks import needed
from convcore.functional._convolution import finder
from convcore.functional._outs import Outs, places
from convcore.functional.call import run
from convcore.runtime.arrays import Array, check_out, empty, ready

# stride, padding, dilation, groups, activation, algorithm
_DENSE = (1, 0, 1, 1, None, "auto")

__all__ = ["linear", "linear_backward"]


def linear(
    x: Array, weight: Array, bias: Array | None = None, *, out: Array | None = None
) -> Array:
    """Multiply each row of x by a matrix: y[o] = sum over i of weight[o, i] * x[i].

    Parameters
    ----------
    x : (..., in) float32 or float64
        Rows; any number of leading axes.
    weight : (out, in), dtype of x
        The matrix.
    bias : (out,), dtype of x, optional
        Added to each row of the result.
    out : (..., out), dtype of x, optional
        Where to write y; contiguous, and no part of the others.

    Returns
    -------
    y : (..., out), dtype of x

    Raises
    ------
    ValueError, TypeError
        When shapes do not fit, or dtypes differ or are not legal.

    Notes
    -----
    Sums and bits as in `conv1d` with a kernel of 1; 2 * rows * in * out operations.

    Examples
    --------
    >>> import numpy as np
    >>> linear(np.array([1.0, 2.0]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([11.5])
    """
    inputs = x, weight, bias
    x, weight = _checked("linear", x, weight)
    features, outputs = weight.shape[1], weight.shape[0]
    if bias is not None:
        bias = ready("linear", "bias", bias, x.dtype)
        if bias.shape != (outputs,):
            raise ValueError(
                f"linear: bias must have shape ({outputs},) as weight "
                f"{weight.shape} has outputs, got {bias.shape}"
            )
    leading = x.shape[:-1]
    shapes = ((prod(leading), features, 1), (outputs, features, 1))
    make, state = finder(_DENSE)
    job = make("linear", 1, shapes, x.dtype, _DENSE, False, state, "fprop")
    shape = (*leading, outputs)
    if out is None:
        out = empty(shape, x.dtype)
    else:
        check_out("linear", out, shape, x.dtype, inputs)
    run(job.plan, x, weight, bias, out)
    return out


def linear_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    needs: Collection[str] = ("x", "weight", "bias"),
    *,
    out: Outs | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Take the gradients of `linear`.

    Parameters
    ----------
    grad_output : (..., out), dtype of x
        Gradient of the output.
    x : (..., in) float32 or float64
        Input of the forward call.
    weight : (out, in), dtype of x
        The matrix.
    needs : names among "x", "weight", "bias"
        Gradients to compute.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight, grad_bias : (..., in), (out, in), (out,), dtype of x
        None where not needed; the last two are sums over all rows.

    Raises
    ------
    ValueError, TypeError
        When shapes do not fit, dtypes differ or are not legal, or `needs` has another
        name.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([1.0, 2.0]), np.array([[3.0, 4.0]])
    >>> [grad.tolist() for grad in linear_backward(np.array([10.0]), x, weight)]
    [[30.0, 40.0], [[10.0, 20.0]], [10.0]]
    """
    name = "linear_backward"
    asked = needed(name, needs)
    inputs = grad_output, x, weight
    x, weight = _checked(name, x, weight)
    grad_output = ready(name, "grad_output", grad_output, x.dtype)
    if grad_output.shape != (*x.shape[:-1], weight.shape[0]):
        raise ValueError(
            f"{name}: grad_output must have shape "
            f"{(*x.shape[:-1], weight.shape[0])}, got {grad_output.shape}"
        )
    rows, (outputs, features) = prod(x.shape[:-1]), weight.shape
    wanted = asked, (x.shape, weight.shape, (outputs,))
    grad_x, grad_weight, grad_bias = places(name, out, wanted, x.dtype, inputs)
    shapes = ((rows, features, 1), (outputs, features, 1))
    make, state = finder(_DENSE)
    job = partial(make, name, 1, shapes, x.dtype, _DENSE, False, state)
    if grad_x is not None:
        run(job("dgrad").plan, grad_output, weight, None, grad_x)
    if grad_weight is not None:
        run(job("wgrad").plan, x, grad_output, grad_weight)
    if grad_bias is not None:
        run(job("bgrad").plan, grad_output, grad_bias)
    return grad_x, grad_weight, grad_bias


def _checked(function: str, x: Array, weight: Array) -> tuple[Array, Array]:
    x = ready(function, "x", x)
    weight = ready(function, "weight", weight, x.dtype)
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(
            f"{function}: weight must have shape (out, in), both >= 1, "
            f"got {weight.shape}"
        )
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{function}: weight expects rows of {weight.shape[1]}, got x {x.shape}; "
            f"weight {weight.shape}"
        )
    return x, weight
