"""What all layers of pooling do alike."""

from collections.abc import Callable
from typing import Any, ClassVar

from convcore.functional._framed import framed
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

    @property
    def _around(self) -> dict[str, Any]:
        """Keywords of both: what lies around x."""
        return {}

    def __call__(self, x: Array) -> Array:
        pool, _ = self._functions
        y: Array = pool(x, *self._window, **self._around)
        return y

    def forward(self, x: Array) -> tuple[Array, Backward]:
        _, pool_backward = self._functions
        y, input_shape = self(x), x.shape
        return y, lambda grad_y: pool_backward(
            grad_y, input_shape, *self._again, **self._around
        )


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


class BorderPool(WindowPool):
    """Slide a window that may see more than x."""

    _plain: ClassVar[str] = "zeros"  # the mode that poolings know by themselves

    def _set_border(self, mode: str, value: float, *window: Any) -> None:
        """Keep what lies around x, and `window`, the arguments of `_set_window`."""
        kernel_size, stride, padding, dilation, ceil_mode = window
        name = type(self).__name__
        shape = (0, 1, *(ANY_EXTENT,) * self.ndim)
        if mode != self._plain or value:
            framed(name, self.ndim, shape, window, mode, value, self._plain)
            padding = 0
        self._set_window(kernel_size, stride, padding, dilation, ceil_mode)
        self.padding = frozen(window[2])
        self.padding_mode, self.padding_value = mode, value

    @property
    def _around(self) -> dict[str, Any]:
        if self.padding_mode == self._plain:
            return {}
        return {"padding_mode": self.padding_mode, "padding_value": self.padding_value}

    def _arguments(self) -> str:
        border = changed(self, padding_mode=self._plain, padding_value=0)
        return ", ".join([super()._arguments(), *border])
