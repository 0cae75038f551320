"""Operations that only change the shape."""

from collections.abc import Sequence
from math import prod

from convcore.arguments import integer, shown
from convcore.functional._checks import axis
from convcore.runtime.arrays import Array, ready

__all__ = ["flatten", "flatten_backward"]


def flatten(x: Array, start_dim: int = 1, end_dim: int = -1) -> Array:
    """Join neighbouring axes into one.

    Parameters
    ----------
    x : (...) float32 or float64
        Input with at least one axis.
    start_dim, end_dim : int
        First and last axis to join; by default all but the batch.

    Returns
    -------
    y : same elements, dtype of x
        A view of x where x is C-contiguous, native and aligned; else of a copy.

    Raises
    ------
    ValueError, TypeError
        When x is no array of float32 or float64, an axis does not exist, or the last
        one comes before the first.

    Examples
    --------
    >>> import numpy as np
    >>> flatten(np.zeros((2, 3, 4, 5))).shape
    (2, 60)
    """
    x = ready("flatten", "x", x)
    first = axis("flatten", "start_dim", start_dim, x.ndim)
    last = axis("flatten", "end_dim", end_dim, x.ndim)
    if last < first:
        raise ValueError(
            f"flatten: start_dim must not come after end_dim, got {start_dim} and "
            f"{end_dim} for x {x.shape}"
        )
    joined = prod(x.shape[first : last + 1])
    return x.reshape(*x.shape[:first], joined, *x.shape[last + 1 :])


def flatten_backward(grad_output: Array, input_shape: Sequence[int]) -> Array:
    """Give the gradient the shape that the input had.

    Parameters
    ----------
    grad_output : (...) float32 or float64
        Gradient of the output.
    input_shape : ints
        Shape of x in the forward call.

    Returns
    -------
    grad_x : `input_shape`, dtype of grad_output
        A view of grad_output where that is C-contiguous, native and aligned.

    Raises
    ------
    ValueError, TypeError
        When the shape is not legal, or has another number of elements.

    Examples
    --------
    >>> import numpy as np
    >>> flatten_backward(np.zeros((2, 60)), (2, 3, 4, 5)).shape
    (2, 3, 4, 5)
    """
    name = "flatten_backward"
    grad_output = ready(name, "grad_output", grad_output)
    if not isinstance(input_shape, (tuple, list)):
        raise TypeError(
            f"{name}: input_shape must be a sequence of integers, got {shown(input_shape)}"
        )
    shape = tuple(integer(name, "input_shape", extent, 0) for extent in input_shape)
    if prod(shape) != grad_output.size:
        raise ValueError(
            f"{name}: input_shape must have {grad_output.size} elements as grad_output "
            f"{grad_output.shape} has, got {shape}"
        )
    return grad_output.reshape(shape)
