"""What can be counted where outputs are classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from convcore.arguments import integer
from convcore.runtime.arrays import Array
from convcore.train.samples import check_samples

MOST_CLASSES = 2**28  # so many squared, in int64, still have an address


def accuracy(outputs: Array, targets: Array) -> float:
    """Measure the share of targets that the outputs hit.

    Parameters
    ----------
    outputs : (N, C, ...) float ndarray, or (N, ...) int ndarray
        Scores of C classes, of which the largest counts (the first of equal ones); or
        classes.
    targets : (N, ...) int ndarray
        Classes.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError, TypeError
        When a shape or dtype does not fit, or there is no target.

    Examples
    --------
    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """
    classes = _classes("accuracy", outputs, targets)
    return int((classes == targets).sum()) / targets.size


def confusion_matrix(
    outputs: Array, targets: Array, classes: int | None = None
) -> npt.NDArray[np.int64]:
    """Count how often each class was taken for each.

    Parameters
    ----------
    outputs, targets
        As for `accuracy`.
    classes : int, optional
        Number of classes; one more than the largest that occurs when not given.

    Returns
    -------
    (classes, classes) ndarray of int64
        Row: the target; column: what it was taken for.

    Raises
    ------
    ValueError, TypeError
        When a shape or dtype does not fit, there is no target, or a class is not in
        0 ... classes - 1.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    array([[1, 1],
           [0, 2]])
    """
    found = _classes("confusion_matrix", outputs, targets)
    largest = int(max(found.max(), targets.max()))
    if classes is None:
        classes = largest + 1
    classes = integer("confusion_matrix", "classes", classes, 1)
    least = int(min(found.min(), targets.min()))
    if least < 0 or largest >= classes:
        raise ValueError(
            f"confusion_matrix: classes must be in 0 ... {classes - 1}, "
            f"got {least if least < 0 else largest}"
        )
    if classes > MOST_CLASSES:
        raise ValueError(
            f"confusion_matrix: classes must be <= {MOST_CLASSES}, got {classes}"
        )
    cells = targets.astype(np.int64).ravel() * classes + found.ravel()
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _classes(function: str, outputs: Any, targets: Any) -> npt.NDArray[Any]:
    """Give the class of each output, in the shape of the targets."""
    check_samples(function, "outputs", outputs)
    check_samples(function, "targets", targets)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"{function}: targets must be integers, got {targets.dtype}")
    if not targets.size:
        raise ValueError(f"{function}: targets must hold at least one, got none")
    classes: npt.NDArray[Any] = outputs
    if outputs.dtype.kind == "f" and outputs.ndim == targets.ndim + 1:
        if not outputs.shape[1]:
            raise ValueError(
                f"{function}: outputs must have a class, got shape {outputs.shape}"
            )
        classes = outputs.argmax(axis=1)
    elif outputs.dtype.kind not in "iu":
        raise TypeError(
            f"{function}: outputs must be float scores with an axis of classes, or "
            f"integer classes, got {outputs.dtype} of shape {outputs.shape}"
        )
    if classes.shape != targets.shape:
        raise ValueError(
            f"{function}: outputs and targets must be as many, got shapes "
            f"{outputs.shape} and {targets.shape}"
        )
    return classes
