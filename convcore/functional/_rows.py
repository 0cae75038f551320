"""What layer, group, instance and RMS normalisation do alike: rows of a kernel."""

from array import array
from typing import Any, NamedTuple

import numpy as np

from convcore.functional._checks import GRADIENTS, like, needed
from convcore.functional._norms import Wide, bits, result, statistics_of
from convcore.functional._outs import places
from convcore.functional.call import apply
from convcore.plan import operation
from convcore.runtime.arrays import Array, empty, ready

Shape = tuple[int, ...]

_FLOAT64 = np.dtype(np.float64)

# Elements of a channel below which a row's weights are spread over its elements: runs
# that are shorter leave lanes empty.
_NARROW = 32


class Rows(NamedTuple):
    """How a tensor consists of rows, each normalised by itself."""

    rows: int
    weights: Shape  # of weight and bias
    spread: int  # elements that get one weight, if it is repeated for them
    centred: bool
    sizes: "array[int]"
    scratch: int


def rows_of(
    extents: tuple[int, int, int, int],
    weights: Shape,
    eps: float,
    centred: bool = True,
) -> Rows:
    """Prepare the rows of a shape.

    Parameters
    ----------
    extents : four ints
        Samples, groups, elements of a row, and elements of it with one weight: there are
        samples * groups rows, and those of one sample have weights of their own.
    weights : tuple
        Shape of weight and bias.
    eps : float
        Added to the variance.
    centred : bool
        Whether the mean is taken off.
    """
    samples, groups, length, run = extents
    spread = run if run < _NARROW else 1
    sizes = samples, groups, length, run // spread
    scratch: int = operation("norm_rows", "scratch_size")(*sizes)
    numbers = array("q", (*sizes, int(centred), bits(eps)))
    return Rows(samples * groups, weights, spread, centred, numbers, scratch)


def weights_of(
    function: str, argument: str, given: Any, job: Rows, x: Array
) -> Array | None:
    """Check weight or bias, or None; give it as the kernel reads it."""
    if given is None:
        return None
    found: Array = given
    if not (
        type(given) is np.ndarray
        and given.dtype is x.dtype
        and given.shape == job.weights
        and given.flags.carray
    ):
        found = ready(function, argument, given, x.dtype)
        if found.shape != job.weights:
            raise ValueError(
                f"{function}: {argument} must have shape {job.weights}, got "
                f"{found.shape}"
            )
    return found if job.spread == 1 else np.repeat(found, job.spread)


def normalised(
    function: str,
    x: Array,
    job: Rows,
    affine: tuple[Any, Any],
    out: Any,
    keep: bool,
) -> tuple[Array, Wide | None]:
    """Write y, and give mean and 1 / deviation of each row, too, if they are to be kept."""
    weight = weights_of(function, "weight", affine[0], job, x)
    bias = weights_of(function, "bias", affine[1], job, x)
    y = result(function, out, x, *affine)
    statistics = empty((2, job.rows), _FLOAT64) if keep else None
    apply(
        *("norm_rows", "forward", job.sizes, x, weight, bias, y, statistics),
        work=x.size,
    )
    return y, statistics


def gradients(
    function: str,
    grad_output: Array,
    x: Array,
    job: Rows,
    weight: Any,
    needs: Any,
    statistics: tuple[Wide, Wide] | None,
    out: Any = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Give the gradients of x, weight and bias; None where not needed.

    The last of them is always None without a centre, and `out` has no place for it.
    """
    asked = needed(function, needs, GRADIENTS if job.centred else GRADIENTS[:2])
    grads = like(function, "grad_output", grad_output, "x", x)
    given, weight = weight, weights_of(function, "weight", weight, job, x)
    shapes = (x.shape, job.weights, job.weights)
    made = places(function, out, (asked, shapes), x.dtype, (grad_output, x, given))
    grad_x, *found = made if job.centred else (*made, None)
    if statistics is None:
        taken = empty((2, job.rows), _FLOAT64)
        nothing = (None,) * 3
        apply("norm_rows", "forward", job.sizes, x, *nothing, taken, work=x.size)
        statistics = taken[0], taken[1]
    sums = [_spread(grad, job) for grad in found] if job.spread > 1 else found
    apply(
        "norm_rows",
        "backward",
        job.sizes,
        *(grads, x, weight, *statistics, grad_x, *sums),
        work=2 * x.size,
        scratch=job.scratch,
    )
    if job.spread > 1:
        _gather(sums, found, job)
    return grad_x, found[0], found[1]


def kept(function: str, known: Any, job: Rows) -> tuple[Wide, Wide] | None:
    """Check the statistics of the rows that a caller has kept; a layer's are joined."""
    if type(known) is not tuple:
        return None if known is None else (known[0], known[1])
    mean, rstd = known
    return statistics_of(function, mean, rstd, job.rows)


def _spread(grad: Array | None, job: Rows) -> Array | None:
    """Give room for the gradients of all elements, where several have one weight."""
    if grad is None:
        return None
    return empty((grad.size * job.spread,), grad.dtype)


def _gather(sums: list[Array | None], grads: list[Array | None], job: Rows) -> None:
    """Add the gradients of elements that have one weight."""
    for all_, grad in zip(sums, grads, strict=True):
        if all_ is not None and grad is not None:
            grad[...] = all_.reshape(-1, job.spread).sum(axis=1, dtype=np.float64)
