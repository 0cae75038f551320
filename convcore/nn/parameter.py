"""Parameters: what is learned, and its gradient."""

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np

from convcore.runtime.arrays import Array, checked, empty

__all__ = ["Parameter"]

# To an array that only its parameter holds: by it, and by the question.
_OWN_REFERENCES = 2


class Parameter:
    """Keep one array that is learned, and its gradient.

    The array stays the same object for life, whoever holds it; its elements change in
    place, by `parameter.value = ...` or by `parameter.value[...] = ...` and `touch`.

    Parameters
    ----------
    value : (...) float32 or float64
        First values; copied.
    name : str
        Name within the layer, such as "weight".

    Attributes
    ----------
    grad : ndarray or None
        Sum of the gradients since `zero_grad`, of the shape and dtype of the value;
        None before the first.
    version : int
        Number of updates so far. Whoever keeps something derived from the value, such
        as a packed copy, compares versions to see whether it is stale.

    Raises
    ------
    TypeError
        When the value is no array of float32 or float64.

    Examples
    --------
    >>> parameter = Parameter(np.zeros(2, np.float32), "bias")
    >>> parameter.add_grad(np.ones(2, np.float32))
    >>> parameter.add_grad(np.ones(2, np.float32))
    >>> parameter.grad
    array([2., 2.], dtype=float32)
    """

    grad: Array | None
    version: int

    def __init__(self, value: Array, name: str = "") -> None:
        self._value = float_array("Parameter", "value", value)
        self.name = name
        self.grad = None
        self.version = 0
        self._shown = object()

    @property
    def value(self) -> Array:
        """The values. Setting them copies into the array, and counts as an update."""
        self._shown = object()  # whoever has the array may write to it
        return self._value

    @value.setter
    def value(self, value: Array) -> None:
        if value is not self._value:  # it is after `parameter.value += ...`
            self._check("value", value)
            np.copyto(self._value, value)
        self.touch()

    def read(self) -> Array:
        """Give the array to whoever only reads it, and not for longer than a call."""
        return self._value

    def state(self) -> tuple[int, object] | None:
        """Tell whether the elements may have changed: they have not if this is the same.

        None while somebody holds the array, or a view of it, and may write at any time.
        """
        state = self.version, self._shown  # first: a thread may ask for the array now
        return None if sys.getrefcount(self._value) > _OWN_REFERENCES else state

    def touch(self) -> None:
        """Count an update that was made to the elements of the value in place."""
        self.version += 1

    def add_grad(self, grad: Array) -> None:
        """Add to the gradient.

        Parameters
        ----------
        grad : shape and dtype of the value
            Kept as it is when it is the first, so do not write into it afterwards.

        Raises
        ------
        ValueError, TypeError
            When its shape or dtype differs from the value's.

        Notes
        -----
        Not atomic, and the order of additions shows in the last bits: threads that
        share a parameter have to run their backward passes one after the other.
        """
        self._check("grad", grad)
        self.grad = grad if self.grad is None else add(self.grad, grad)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def _check(self, argument: str, array: Array) -> None:
        """Check that an array can stand for the value or its gradient."""
        title = f"Parameter {self.name}".rstrip()
        if not isinstance(array, np.ndarray) or array.dtype != self._value.dtype:
            kind = getattr(array, "dtype", type(array).__name__)
            raise TypeError(
                f"{title}: {argument} must be an array of {self._value.dtype}, "
                f"got {kind}"
            )
        if array.shape != self._value.shape:
            raise ValueError(
                f"{title}: {argument} must have shape {self._value.shape}, "
                f"got {array.shape}"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shown": None}

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self._value.shape}, {self._value.dtype})"


def float_array(function: str, argument: str, value: Any) -> Array:
    """Copy an array of float32 or float64, in C order and native."""
    native = checked(function, argument, value)
    return np.array(value, native, order="C", subok=False)


@np.errstate(all="ignore")
def add(one: Array, other: Array) -> Array:
    """Add two arrays of one shape as IEEE says, without warnings about Inf and NaN.

    The sum lies in memory that results share, which has its pages already.
    """
    if one.shape != other.shape or one.dtype != other.dtype or not one.dtype.isnative:
        total: Array = one + other
        return total
    return np.add(one, other, out=empty(one.shape, one.dtype))


def commit(news: Sequence[tuple[Array, Array]], before: Iterable[object] = ()) -> None:
    """Copy each second array into its first: all or, when Ctrl-C comes, none.

    Signal handlers run only between byte codes of Python, and here are none: not even
    those of `numpy.copyto`, whose dispatcher is Python code. `before` is an iterator in C
    whose steps belong to it.
    """
    targets = [target for target, _ in news]
    values = [value for _, value in news]
    copies = map(np.ndarray.__setitem__, targets, repeat(...), values)
    deque(chain(before, copies), maxlen=0)
