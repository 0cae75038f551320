"""Cross-entropy: how surprised a network is by the true classes."""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convcore.arguments import integer
from convcore.functional._checks import like, share, vector
from convcore.functional._checks import reduction as check_reduction
from convcore.functional._elementwise import bits, check_place
from convcore.functional.call import apply
from convcore.functional.loss import Loss, Reduction, gradient_of_loss, rounded
from convcore.runtime.arrays import Array, empty, ready

__all__ = ["cross_entropy", "cross_entropy_backward"]

Classes = npt.NDArray[np.int64]
Target = npt.NDArray[np.integer[Any]] | Array


def cross_entropy(
    x: Array,
    target: Target,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
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
    check_reduction("cross_entropy", reduction)
    case = _Case("cross_entropy", x, target, weight, ignore_index, label_smoothing)
    losses = empty(case.positions, case.x.dtype)
    if case.x.size:
        apply(
            "cross_entropy",
            "forward",
            case.sizes(1),
            *case.buffers,
            losses,
            work=case.work,
        )
    if reduction == "none":
        return losses
    total = losses.sum(dtype=np.float64)
    with np.errstate(all="ignore"):
        return rounded(total / case.total if reduction == "mean" else total, losses)


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
    check_reduction(name, reduction)
    case = _Case(name, x, target, weight, ignore_index, label_smoothing)
    shape = case.positions if reduction == "none" else None
    scale = gradient_of_loss(name, grad_output, shape, case.x)
    with np.errstate(all="ignore"):
        if reduction == "mean":
            scale = scale / case.total
        scale = np.asarray(scale, case.x.dtype)
    if out is None:
        out = empty(case.x.shape, case.x.dtype)
    else:
        check_place(name, out, case.x.shape, case.x.dtype, (x,))
    if case.x.size:
        buffers = (*case.buffers, scale, out)
        apply(
            "cross_entropy",
            "backward",
            case.sizes(scale.size),
            *buffers,
            work=case.work,
        )
    return out


class _Case:
    """Checked arguments of cross-entropy: what the kernel has to know."""

    def __init__(
        self,
        function: str,
        x: Array,
        target: Target,
        weight: Array | None,
        ignore_index: int,
        label_smoothing: float,
    ) -> None:
        self.x = x = ready(function, "x", x)
        batch = x.shape[:1] if x.ndim > 1 else ()
        count, *rest = x.shape[len(batch) :] or (0,)
        self._classes: int = count
        if self._classes == 0:
            raise ValueError(
                f"{function}: x must have shape (N, C), (N, C, ...) or (C,) with "
                f"C >= 1, got {x.shape}"
            )
        self.positions = (*batch, *rest)
        self._extents = (prod(batch), self._classes, prod(rest))
        self._ignored = integer(function, "ignore_index", ignore_index, -(2**63))
        self._smoothing = share(function, "label_smoothing", label_smoothing)
        self._soft = self._is_soft(function, target)
        if weight is not None:
            weight = vector(function, "weight", weight, self._classes, x)
        classes = probabilities = None
        if self._soft:
            probabilities = like(function, "target", target, "x", x)
            self.total = float(prod(self.positions))
        else:
            classes = self._indices(function, np.asarray(target))
            self.total = self._weight_of(classes, weight)
        self.buffers = (x, classes, probabilities, weight)
        self.work = 4 * x.size

    def sizes(self, scales: int) -> tuple[int, ...]:
        """Give the numbers for the kernel."""
        smoothing = bits(self._smoothing)[0]
        return (*self._extents, self._ignored, smoothing, self._soft, scales)

    def _is_soft(self, function: str, target: Any) -> bool:
        """Tell whether the target holds probabilities; refuse what is neither."""
        if isinstance(target, np.ma.MaskedArray):
            raise TypeError(f"{function}: target must not be a masked array")
        target = np.asarray(target)
        soft = bool(target.dtype.kind == "f" and target.shape == self.x.shape)
        if not soft and target.dtype.kind not in "iu":
            raise TypeError(
                f"{function}: target must hold integers, the true classes, or be of the "
                f"shape of x {self.x.shape}, with probabilities; got {target.dtype} of "
                f"shape {target.shape}"
            )
        if not soft and target.shape != self.positions:
            raise ValueError(
                f"{function}: target must have shape {self.positions} for these "
                f"scores, got {target.shape}"
            )
        return soft

    def _indices(self, function: str, target: npt.NDArray[np.integer[Any]]) -> Classes:
        """Give the classes as the kernel reads them, all of them legal or ignored."""
        ignored = self._ignored
        if (target.dtype.kind == "u" and target.itemsize == 8) or ignored >= 2**63:
            self._refuse_wrong(function, target)
            target = np.where(target == ignored, -1, target.astype(np.int64))
            self._ignored = -1
        classes = np.require(target, np.int64, ("C", "A"))
        if classes.size and not 0 <= classes.min() <= classes.max() < self._classes:
            self._refuse_wrong(function, classes)
        return classes

    def _refuse_wrong(
        self, function: str, target: npt.NDArray[np.integer[Any]]
    ) -> None:
        """Refuse what is neither a class nor ignored."""
        wrong = (target != self._ignored) & ((target < 0) | (target >= self._classes))
        if wrong.any():
            raise ValueError(
                f"{function}: target must lie in 0..{self._classes - 1} or be "
                f"ignore_index ({self._ignored}), got {target[wrong].flat[0]}"
            )

    def _weight_of(self, classes: Classes, weight: Array | None) -> float:
        """Sum the weights of all positions that are not ignored."""
        if weight is None:
            return float(np.count_nonzero(classes != self._ignored))
        kept = classes[classes != self._ignored]
        return float(weight[kept].sum(dtype=np.float64))
