"""Max unpooling, which takes two inputs: values, and where they belong.

y = unpool(x, indices)                          inference
y, backward = unpool.forward(x, indices)        training
grad_x = backward(grad_y)

A layer takes one input, so these are no layers, as losses are none: a chain cannot hold
them, for it would not know whose indices are meant. A network with a symmetric decoder
is a layer of its own, whose `forward` hands the indices over (see `MaxUnpool2d`).
"""

from collections.abc import Callable
from typing import ClassVar

from convcore import functional as F
from convcore.nn.layer import Backward, changed, check_gradient, frozen
from convcore.problem import PoolProblem, Size
from convcore.problem.rules import ANY_EXTENT
from convcore.runtime.arrays import Array

__all__ = ["MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"]


class _MaxUnpool:
    ndim: ClassVar[int]
    _functions: ClassVar[tuple[Callable[..., Array], Callable[..., Array]]]

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0
    ) -> None:
        shape = (0, 1, *(ANY_EXTENT,) * self.ndim)
        PoolProblem.pool(type(self).__name__, shape, kernel_size, stride, padding)
        self.kernel_size, self.stride = frozen(kernel_size), frozen(stride)
        self.padding = frozen(padding)

    def __call__(
        self, x: Array, indices: Array, output_size: tuple[int, ...] | None = None
    ) -> Array:
        """Compute the output for inference."""
        unpool, _ = self._functions
        window = (self.kernel_size, self.stride, self.padding)
        return unpool(x, indices, *window, output_size)

    def forward(
        self, x: Array, indices: Array, output_size: tuple[int, ...] | None = None
    ) -> tuple[Array, Backward]:
        """Compute the output for training, and the function that takes its gradient."""
        y = self(x, indices, output_size)
        _, unpool_backward = self._functions
        name, shape = type(self).__name__, y.shape

        def backward(grad_y: Array) -> Array:
            check_gradient(name, grad_y, shape)
            return unpool_backward(grad_y, indices)

        return y, backward

    def __repr__(self) -> str:
        options = changed(self, stride=None, padding=0)
        arguments = ", ".join([f"kernel_size={self.kernel_size}", *options])
        return f"{type(self).__name__}({arguments})"


class MaxUnpool1d(_MaxUnpool):
    """Put values back to where maxima were: `MaxUnpool2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.max_unpool1d, F.max_unpool1d_backward


class MaxUnpool2d(_MaxUnpool):
    """Put values back to where the maxima of a pooling were, zeros elsewhere.

    Parameters
    ----------
    kernel_size, stride, padding : int or one int per axis
        What was pooled with.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Notes
    -----
    It takes two inputs, `unpool(x, indices)`, and so is no `Layer`: where a chain would
    hold it, write a layer that hands the indices over. They come from
    `functional.max_pool2d`; `MaxPool2d` keeps bytes instead.

    See Also
    --------
    convcore.functional.max_unpool2d

    Examples
    --------
    Pool, do something with what is left, and put that back:

    >>> from convcore import functional as F, nn
    >>> class Unpooled(nn.Layer):
    ...     def __init__(self, body):
    ...         self.body, self.unpool = body, MaxUnpool2d(2)
    ...     def __call__(self, x):
    ...         y, indices = F.max_pool2d(x, 2, return_indices=True)
    ...         return self.unpool(self.body(y), indices, x.shape)
    ...     def forward(self, x):
    ...         y, indices = F.max_pool2d(x, 2, return_indices=True)
    ...         y, body = self.body.forward(y)
    ...         y, unpool = self.unpool.forward(y, indices, x.shape)
    ...         def backward(grad):
    ...             grad = body(unpool(grad))
    ...             return F.max_pool2d_backward(grad, indices, x.shape, 2)
    ...         return y, backward
    >>> model = nn.Sequential(Unpooled(nn.ReLU()))
    >>> y, backward = model.forward(np.array([[[[1.0, -2.0], [3.0, 0.0]]]]))
    >>> y
    array([[[[0., 0.],
             [3., 0.]]]])
    >>> backward(np.full_like(y, 5))
    array([[[[0., 0.],
             [5., 0.]]]])
    """

    ndim = 2
    _functions = F.max_unpool2d, F.max_unpool2d_backward


class MaxUnpool3d(_MaxUnpool):
    """Put values back to where maxima were: `MaxUnpool2d` for (N, C, D, H, W)."""

    ndim = 3
    _functions = F.max_unpool3d, F.max_unpool3d_backward
