"""Cross-entropy: how surprised a network is by the true classes."""

from array import array
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convcore.arguments import integer
from convcore.functional._checks import like as same
from convcore.functional._checks import reduction as check_reduction
from convcore.functional._checks import share, vector
from convcore.functional._elementwise import bits, check_place
from convcore.functional.call import apply
from convcore.functional.loss import Loss, Reduction, gradient_of_loss, no_place
from convcore.runtime.arrays import Array, check_out, contiguous, like, ready, room

__all__ = ["cross_entropy", "cross_entropy_backward"]

Classes = npt.NDArray[np.int64]
Target = npt.NDArray[np.integer[Any]] | Array

_INT64 = np.dtype(np.int64)


def cross_entropy(
    x: Array,
    target: Target,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    *,
    out: Array | None = None,
) -> Loss:
    """Measure how surprised the softmax of x is by the true classes.

    With L = log_softmax(x), s = `label_smoothing`, C classes, t the target and w the
    weight, one position costs::

        -(1 - s) * w[t] * L[t] - s / C * sum over c of w[c] * L[c]

    Parameters
    ----------
    x : (N, C), (N, C, ...) or (C,) float32 or float64
        Scores (logits) of the C classes.
    target : (N,), (N, ...) or () of any integer dtype; or shape and dtype of x
        True classes, from 0 to C - 1, or `ignore_index`; or the probability t of every
        class, which takes the place of the 1 of the true one.
    weight : (C,), dtype of x, optional
        Weight of each class; 1 by default.
    ignore_index : int
        A target that costs nothing, whatever the scores there.
    reduction : "mean", "sum" or "none"
        "mean" divides the sum by the sum of w[t] over all positions not ignored; with
        probabilities, by the number of positions.
    label_smoothing : float
        Share of the target spread evenly over all classes, 0 <= s <= 1.
    out : (N, ...), dtype of x, optional
        Where to write the losses, for "none"; C-contiguous, and overlapping no input.

    Returns
    -------
    loss : scalar, or (N, ...) for "none"; dtype of x
        The mean over no position at all is NaN.

    Raises
    ------
    ValueError, TypeError
        When shapes do not fit, a target is no class, or an argument has a wrong value
        or type.

    Notes
    -----
    One read of x. Positions are computed in the dtype of x, and summed in float64.

    References
    ----------
    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for
    Computer Vision, 2015, section 7 (label smoothing).

    Examples
    --------
    >>> float(cross_entropy(np.array([[0.0, 0.0], [50.0, 0.0]]), np.array([1, 0])))
    0.34657359027997264
    """
    name = "cross_entropy"
    x = ready(name, "x", scores := x)
    job = _job(name, x.shape, ignore_index, reduction, label_smoothing)
    truth = _truth(name, x, target, weight, job)
    if reduction != "none":
        no_place(name, out)
    losses = room(name, out, job.positions, x.dtype, scores, *truth)
    if reduction == "none":
        _run("forward", job, (x, *truth), (losses, None))
        return losses
    loss = np.empty(1, x.dtype)
    if x.size:
        _run("forward", job, (x, *truth), (losses, loss))
    else:
        loss[0] = np.nan if reduction == "mean" else 0
    total: np.floating[Any] = loss[0]
    return total


def cross_entropy_backward(
    x: Array,
    target: Target,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    grad_output: float | Array = 1.0,
    *,
    out: Array | None = None,
) -> Array:
    """Take the gradient of `cross_entropy` with respect to the scores.

    Parameters
    ----------
    x, target, weight, ignore_index, reduction, label_smoothing
        As in the forward call.
    grad_output : float, or an array of the shape of the loss for "none"
        Gradient of the loss.
    out : shape and dtype of x, optional
        Where to write the gradient; x itself works in place.

    Returns
    -------
    grad_x : shape and dtype of x
        Exactly 0 at ignored positions.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`, or when `grad_output` has another shape than the loss, or
        `out` does not fit.

    Notes
    -----
    softmax(x) times the weights of a position's target, minus these weights: one read of
    x and one write.

    Examples
    --------
    >>> cross_entropy_backward(np.array([[0.0, 0.0]]), np.array([1]))
    array([[ 0.5, -0.5]])
    """
    name = "cross_entropy_backward"
    x = ready(name, "x", scores := x)
    job = _job(name, x.shape, ignore_index, reduction, label_smoothing)
    truth = _truth(name, x, target, weight, job)
    shape = job.positions if reduction == "none" else None
    gradient = gradient_of_loss(name, grad_output, shape, x)
    if out is None:
        out = like(x)
    else:
        check_place(name, out, x.shape, x.dtype, (scores,))
        check_out(name, out, x.shape, x.dtype, (*truth, gradient))
    _run("backward", job, (x, *truth, gradient), (out,))
    return out


class _Job(NamedTuple):
    """What shape and numbers decide."""

    positions: tuple[int, ...]
    classes: int
    ignored: int
    hard: "array[int]"
    soft: "array[int]"


def _job(
    function: str,
    shape: tuple[int, ...],
    ignore_index: int,
    reduction: str,
    smoothing: float,
) -> _Job:
    """Check shape and numbers: once for all equal calls."""
    usual = type(ignore_index) is int and type(smoothing) is float
    make = _cached_job if usual and type(reduction) is str else _new_job
    return make(function, shape, ignore_index, reduction, smoothing)


def _new_job(
    function: str,
    shape: tuple[int, ...],
    ignore_index: int,
    reduction: str,
    smoothing: float,
) -> _Job:
    check_reduction(function, reduction)
    batch = shape[:1] if len(shape) > 1 else ()
    count, *rest = shape[len(batch) :] or (0,)
    if count == 0:
        raise ValueError(
            f"{function}: x must have shape (N, C), (N, C, ...) or (C,) with "
            f"C >= 1, got {shape}"
        )
    ignored = integer(function, "ignore_index", ignore_index, -(2**63))
    numbers = bits(share(function, "label_smoothing", smoothing))[0]
    head = prod(batch), count, prod(rest), _in_kernel(ignored), numbers
    reduced = ("none", "sum", "mean").index(reduction)
    hard, soft = (array("q", (*head, kind, reduced)) for kind in (0, 1))
    return _Job((*batch, *rest), count, ignored, hard, soft)


_cached_job = lru_cache(maxsize=1024)(_new_job)


def _in_kernel(ignored: int) -> int:
    """Give the number of an ignored class as the kernel sees it: an int64."""
    return ignored if ignored < 2**63 else -1


def _run(
    direction: str,
    job: _Job,
    given: tuple[Array | None, ...],
    outs: tuple[Array | None, ...],
) -> None:
    """Run the kernel, which looks at the classes first."""
    x, classes = given[:2]
    assert x is not None
    if not x.size:
        return
    sizes = job.soft if classes is None else job.hard
    try:
        apply("cross_entropy", direction, sizes, *given, *outs, work=4 * x.size)
    except IndexError:
        assert classes is not None
        name = "cross_entropy" if direction == "forward" else "cross_entropy_backward"
        _refuse_wrong(name, classes, job)
        raise


def _truth(
    function: str, x: Array, target: Any, weight: Any, job: _Job
) -> tuple[Array | None, Array | None, Array | None]:
    """Check target and weight; give classes, probabilities and weight for the kernel."""
    if weight is not None:
        weight = vector(function, "weight", weight, job.classes, x)
    if (  # the usual case
        type(target) is np.ndarray
        and target.dtype is _INT64
        and target.shape == job.positions
        and job.ignored < 2**63
        and target.flags.carray
    ):
        return target, None, weight
    if isinstance(target, np.ma.MaskedArray):
        raise TypeError(f"{function}: target must not be a masked array")
    target = np.asarray(target)
    if target.dtype.kind == "f" and target.shape == x.shape:
        return None, same(function, "target", target, "x", x), weight
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"{function}: target must hold integers, the true classes, or be of the "
            f"shape of x {x.shape}, with probabilities; got {target.dtype} of "
            f"shape {target.shape}"
        )
    if target.shape != job.positions:
        raise ValueError(
            f"{function}: target must have shape {job.positions} for these "
            f"scores, got {target.shape}"
        )
    return _indices(function, target, job), None, weight


def _indices(function: str, target: npt.NDArray[np.integer[Any]], job: _Job) -> Classes:
    """Give the classes as the kernel reads them."""
    ignored = job.ignored
    if (target.dtype.kind == "u" and target.itemsize == 8) or ignored >= 2**63:
        _refuse_wrong(function, target, job)
        inside = target.astype(np.int64)
        target = np.where(target == ignored, _in_kernel(ignored), inside)
    return contiguous(target, _INT64)


def _refuse_wrong(
    function: str, target: npt.NDArray[np.integer[Any]], job: _Job
) -> None:
    """Refuse what is neither a class nor ignored."""
    wrong = (target != job.ignored) & ((target < 0) | (target >= job.classes))
    if wrong.any():
        raise ValueError(
            f"{function}: target must lie in 0..{job.classes - 1} or be "
            f"ignore_index ({job.ignored}), got {target[wrong].flat[0]}"
        )
