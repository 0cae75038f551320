"""What all layers of pooling do alike."""

from collections.abc import Callable
from typing import Any, ClassVar

from convcore.nn.layer import Backward, Layer, changed, frozen
from convcore.problem import Padding, PoolProblem, Size
from convcore.runtime.arrays import Array

# No window is too large for it: see `convcore.nn.conv`.
ANY_EXTENT = 2**40


class Pool(Layer):
    """Pool over `ndim` axes."""

    ndim: ClassVar[int]
    _functions: ClassVar[tuple[Callable[..., Any], Callable[..., Array]]]

    @property
    def _window(self) -> tuple[Any, ...]:
        """Arguments of the functional form, behind x."""
        return ()

    @property
    def _again(self) -> tuple[Any, ...]:
        """Arguments of its gradient, behind the shape of x."""
        return ()

    def __call__(self, x: Array) -> Array:
        pool, _ = self._functions
        y: Array = pool(x, *self._window)
        return y

    def forward(self, x: Array) -> tuple[Array, Backward]:
        _, pool_backward = self._functions
        input_shape = x.shape
        return self(x), lambda grad_y: pool_backward(grad_y, input_shape, *self._again)


class WindowPool(Pool):
    """Slide a window; `_defaults` are its arguments behind `kernel_size`, in order."""

    _defaults: ClassVar[dict[str, Any]]

    def _set_window(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Padding,
        dilation: Size,
        ceil_mode: bool,
    ) -> None:
        """Keep the arguments once they are found to fit some input."""
        PoolProblem.pool(
            type(self).__name__,
            (0, 1, *(ANY_EXTENT,) * self.ndim),
            kernel_size,
            stride,
            padding,
            dilation,
            ceil_mode,
        )
        self.kernel_size, self.stride = frozen(kernel_size), frozen(stride)
        self.padding, self.dilation = frozen(padding), frozen(dilation)
        self.ceil_mode = ceil_mode

    @property
    def _window(self) -> tuple[Any, ...]:
        return (self.kernel_size, *(getattr(self, name) for name in self._defaults))

    @property
    def _again(self) -> tuple[Any, ...]:
        return self._window

    def _arguments(self) -> str:
        options = changed(self, **self._defaults)
        return ", ".join([f"kernel_size={self.kernel_size}", *options])
