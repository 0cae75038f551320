"""Losses: what training makes small.

loss = criterion(x, target)                     a number, for measuring
loss, backward = criterion.forward(x, target)
grad_x = backward()                             gradient of the loss, for training
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore.arguments import integer
from convcore.functional._checks import reduction as check_reduction
from convcore.functional._checks import share
from convcore.nn.layer import changed
from convcore.nn.parameter import float_array
from convcore.runtime.arrays import Array

__all__ = ["CrossEntropyLoss", "LossBackward", "MSELoss"]

Loss = Array | np.floating[Any]


class LossBackward(Protocol):
    """The backward pass of a loss."""

    def __call__(self, grad_output: float | Array = 1.0) -> Array:
        """Give the gradient of x, from that of the loss."""
        ...


class CrossEntropyLoss:
    """Measure how surprised the softmax of the scores is by the true classes.

    Parameters
    ----------
    weight : (C,) ndarray, optional
        Weight of each class; 1 by default.
    ignore_index : int
        A target that costs nothing.
    reduction : "mean", "sum" or "none"
        Over all targets.
    label_smoothing : float
        Share of each target spread evenly over all classes, from 0 to 1.

    See Also
    --------
    convcore.functional.cross_entropy

    Examples
    --------
    >>> criterion = CrossEntropyLoss()
    >>> loss, backward = criterion.forward(np.zeros((1, 2)), np.array([1]))
    >>> round(float(loss), 6), backward()
    (0.693147, array([[ 0.5, -0.5]]))
    """

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: F.Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        name = "CrossEntropyLoss"
        self.weight = None if weight is None else float_array(name, "weight", weight)
        self.ignore_index = integer(name, "ignore_index", ignore_index, -(2**63))
        check_reduction(name, reduction)
        self.reduction: F.Reduction = reduction
        self.label_smoothing = share(name, "label_smoothing", label_smoothing)

    def __call__(self, x: Array, target: npt.NDArray[np.integer[Any]]) -> Loss:
        """Measure the loss."""
        return F.cross_entropy(x, target, *self._arguments)

    def forward(
        self, x: Array, target: npt.NDArray[np.integer[Any]]
    ) -> tuple[Loss, LossBackward]:
        """Measure the loss, and give the function that takes its gradient."""

        def backward(grad_output: float | Array = 1.0) -> Array:
            return F.cross_entropy_backward(x, target, *self._arguments, grad_output)

        return self(x, target), backward

    @property
    def _arguments(self) -> tuple[Array | None, int, F.Reduction, float]:
        return self.weight, self.ignore_index, self.reduction, self.label_smoothing

    def __repr__(self) -> str:
        weight = [] if self.weight is None else [f"weight={self.weight.shape}"]
        options = changed(
            self, ignore_index=-100, reduction="mean", label_smoothing=0.0
        )
        return f"CrossEntropyLoss({', '.join(weight + options)})"


class MSELoss:
    """Measure the squared difference.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
        Over all elements.

    See Also
    --------
    convcore.functional.mse_loss
    """

    def __init__(self, reduction: F.Reduction = "mean") -> None:
        check_reduction("MSELoss", reduction)
        self.reduction: F.Reduction = reduction

    def __call__(self, x: Array, target: Array) -> Loss:
        """Measure the loss."""
        return F.mse_loss(x, target, self.reduction)

    def forward(self, x: Array, target: Array) -> tuple[Loss, LossBackward]:
        """Measure the loss, and give the function that takes its gradient."""

        def backward(grad_output: float | Array = 1.0) -> Array:
            return F.mse_loss_backward(x, target, self.reduction, grad_output)

        return self(x, target), backward

    def __repr__(self) -> str:
        return f"MSELoss({', '.join(changed(self, reduction='mean'))})"
