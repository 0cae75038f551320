"""What all layers of pooling do alike."""

from collections.abc import Callable
from typing import Any, ClassVar

from convcore.functional._framed import framed, is_plain
from convcore.nn.layer import Backward, Layer, changed, frozen
from convcore.problem import PoolProblem, Size
from convcore.problem.rules import ANY_EXTENT
from convcore.runtime.arrays import Array


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


class AdaptivePool(Pool):
    """Pool into as many windows as wanted."""

    def __init__(self, output_size: Size) -> None:
        x_shape = (0, 1, *(ANY_EXTENT,) * self.ndim)
        PoolProblem.adaptive(type(self).__name__, x_shape, output_size)
        self.output_size = frozen(output_size)

    @property
    def _window(self) -> tuple[Any, ...]:
        return (self.output_size,)

    def _arguments(self) -> str:
        return f"output_size={self.output_size}"


class WindowPool(Pool):
    """Slide a window; `_defaults` are its arguments behind `kernel_size`, in order."""

    _defaults: ClassVar[dict[str, Any]]
    _plain: ClassVar[str] = "zeros"  # the padding mode that poolings know by themselves

    def _set_window(self, mode: str, value: float, *window: Any) -> None:
        """Keep the arguments once they are found to fit some input.

        `window` are kernel_size, stride, padding, dilation and ceil_mode; the others tell
        what lies around x.
        """
        name = type(self).__name__
        shape = (0, 1, *(ANY_EXTENT,) * self.ndim)
        if is_plain((mode, value), self._plain):
            PoolProblem.pool(name, shape, *window)
        else:
            framed(name, self.ndim, shape, window, mode, value, self._plain)
        *sizes, self.ceil_mode = window
        self.kernel_size, self.stride, self.padding, self.dilation = map(frozen, sizes)
        self.padding_mode, self.padding_value = mode, value

    @property
    def _window(self) -> tuple[Any, ...]:
        return (self.kernel_size, *(getattr(self, name) for name in self._defaults))

    @property
    def _again(self) -> tuple[Any, ...]:
        return self._window

    @property
    def _around(self) -> dict[str, Any]:
        if self.padding_mode == self._plain:
            return {}
        return {"padding_mode": self.padding_mode, "padding_value": self.padding_value}

    def _arguments(self) -> str:
        options = changed(self, **self._defaults)
        options += changed(self, padding_mode=self._plain, padding_value=0)
        return ", ".join([f"kernel_size={self.kernel_size}", *options])
