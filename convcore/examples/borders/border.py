"""A layer that widens a map by a border, for convolutions without padding behind it."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

import numpy as np

from convcore import analysis, nn
from convcore.analysis import Window
from convcore.arguments import integer
from convcore.runtime.arrays import Array

# The names of `numpy.pad`, by those of padding modes.
MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
    "circular": "wrap",
}


class Border(nn.Layer):
    """Widen both spatial axes of (N, C, H, W) by `width` pixels on each side.

    Parameters
    ----------
    width : int
        At least 0; less than the extents of the input.
    mode : "zeros", "reflect", "symmetric", "replicate" or "circular"
        What the new pixels hold.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> x = np.arange(4.0).reshape(1, 1, 2, 2)
    >>> Border(1, "symmetric")(x)[0, 0]
    array([[0., 0., 1., 1.],
           [0., 0., 1., 1.],
           [2., 2., 3., 3.],
           [2., 2., 3., 3.]])
    """

    def __init__(self, width: int, mode: str = "zeros") -> None:
        self.width = integer("Border", "width", width, 0)
        if mode not in MODES:
            raise ValueError(
                f"Border: mode must be one of {', '.join(MODES)}, got {mode!r}"
            )
        self.mode = mode

    def __call__(self, x: Array) -> Array:
        sides = (self.width, self.width)
        how = MODES[self.mode]
        return np.pad(x, ((0, 0), (0, 0), sides, sides), how)  # type: ignore[call-overload,no-any-return]

    def forward(self, x: Array) -> tuple[Array, nn.Backward]:
        def backward(grad: Array) -> Array:
            for axis in (2, 3):
                grad = self._back(grad, axis)
            return grad

        return self(x), backward

    def _back(self, grad: Array, axis: int) -> Array:
        """Add the gradients of the border to those of the pixels that it shows."""
        along = np.moveaxis(grad, axis, 0)
        inner = along[self.width : len(along) - self.width].copy()
        window = _window(len(inner), self.width, self.mode)
        for place, source in zip(*window.links(), strict=True):
            if not self.width <= place < self.width + len(inner):
                inner[source] += along[place]
        return np.moveaxis(inner, 0, axis)

    def _arguments(self) -> str:
        return f"{self.width}, {self.mode!r}"


def _window(extent: int, width: int, mode: str) -> Window:
    return Window(extent, extent + 2 * width, 1, padding=(width, width), mode=mode)


@analysis.windows.register
def _windows(layer: Border, extents: tuple[int, ...]) -> tuple[Window, ...]:
    return tuple(_window(extent, layer.width, layer.mode) for extent in extents)
