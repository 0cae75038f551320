"""Local response normalisation: each channel by its neighbours."""

from array import array
from functools import lru_cache
from math import prod
from typing import NamedTuple

from convcore.arguments import integer, real
from convcore.functional._checks import like
from convcore.functional._norms import bits, result
from convcore.functional.call import apply
from convcore.plan import operation
from convcore.runtime.arrays import Array, ready

__all__ = ["local_response_norm", "local_response_norm_backward"]

_LARGEST = 2**62  # the kernels count in int64


def local_response_norm(
    x: Array,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    out: Array | None = None,
) -> Array:
    """Divide by the neighbours: x / (k + alpha / size * sum(x**2))**beta.

    Parameters
    ----------
    x : (N, C) or (N, C, ...) float32 or float64
        Input.
    size : int
        Channels of a window: from c - size // 2 to c + (size - 1) // 2. What is outside
        counts as 0, and in the division by `size`.
    alpha, beta, k : float
        As in the formula; any finite numbers.
    out : (like x), optional
        Where to write y; contiguous, and no part of x.

    Returns
    -------
    y : shape and dtype of x

    Raises
    ------
    ValueError, TypeError
        When x has no axis of channels, or an argument has a wrong value or type.

    Notes
    -----
    One read and one write, the sums in the type of x: with alpha >= 0 and k > 0, y is right
    to (size + 8) (beta + 1) + 8 units of rounding. A beta of 1/2, 3/4 or 1 is taken by
    products and a quotient, any other by a power in lanes: 1.5 to 2.5 times the time.

    References
    ----------
    Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural
    Networks, NeurIPS 2012, section 3.3. There alpha is not divided by the size.

    Examples
    --------
    >>> local_response_norm(np.array([[3.0, 4.0]]), 2, alpha=2.0, beta=0.5, k=0.0)
    array([[1. , 0.8]])
    """
    name = "local_response_norm"
    x = ready(name, "x", x)
    job = _job(name, x.shape, (size, alpha, beta, k))
    y = result(name, out, x)
    apply("norm_local", "forward", job.sizes, x, y, work=job.work)
    return y


def local_response_norm_backward(
    grad_output: Array,
    x: Array,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    out: Array | None = None,
) -> Array:
    """Take the gradient of `local_response_norm`.

    With t = k + alpha / size * sum(x**2) over the window of each channel::

        grad_x[c] = g[c] * t[c]**-beta - 2 * alpha * beta / size * x[c] * sum of
                    g[i] * x[i] * t[i]**(-beta - 1) over the i whose windows hold c

    Parameters
    ----------
    grad_output : shape and dtype of x
        Gradient of the output, g.
    x, size, alpha, beta, k
        As in the forward call.
    out : (like x), optional
        Where to write grad_x; contiguous, and no part of the others.

    Returns
    -------
    grad_x : shape and dtype of x

    Raises
    ------
    ValueError, TypeError
        As `local_response_norm`.

    Examples
    --------
    >>> x = np.array([[2.0]])
    >>> local_response_norm_backward(x, x, 1, alpha=1.0, beta=1.0, k=4.0)
    array([[0.]])
    """
    name = "local_response_norm_backward"
    x = ready(name, "x", x)
    job = _job(name, x.shape, (size, alpha, beta, k))
    grads = like(name, "grad_output", grad_output, "x", x)
    grad_x = result(name, out, x, grads)
    apply(
        *("norm_local", "backward", job.sizes, grads, x, grad_x),
        work=2 * job.work,
        of_each=job.ring,
    )
    return grad_x


class _Job(NamedTuple):
    """What shape and numbers decide."""

    sizes: "array[int]"
    work: int
    ring: int


def _job(
    function: str, shape: tuple[int, ...], numbers: tuple[int, float, float, float]
) -> _Job:
    """Check shape and numbers: once for all equal calls."""
    size, alpha, beta, k = numbers
    fit = type(size) is int and type(alpha) is type(beta) is type(k) is float
    return (_cached_job if fit else _new_job)(function, shape, numbers)


def _new_job(
    function: str, shape: tuple[int, ...], numbers: tuple[int, float, float, float]
) -> _Job:
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(
            f"{function}: x must have shape (N, C) or (N, C, ...) with every extent "
            f"but the batch >= 1, got {shape}"
        )
    size = integer(function, "size", numbers[0], 1)
    if size > _LARGEST:
        raise ValueError(f"{function}: size must be <= 2**62, got {size}")
    named = zip(("alpha", "beta", "k"), numbers[1:], strict=True)
    reals = [bits(real(function, argument, value)) for argument, value in named]
    folded = *shape[:2], prod(shape[2:]), size
    ring: int = operation("norm_local", "scratch_size")(*folded)
    work = prod(shape) * (8 + min(size, shape[1]))
    return _Job(array("q", (*folded, *reals)), work, ring)


_cached_job = lru_cache(maxsize=4096)(_new_job)
