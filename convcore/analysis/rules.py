"""What each layer looks at along each axis: one rule for each kind of window."""

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from typing import Any

from convcore import nn
from convcore.analysis.window import Window
from convcore.problem import ConvProblem, PoolProblem
from convcore.problem.rules import sizes

Extents = tuple[int, ...]


@singledispatch
def windows(layer: Any, extents: Extents) -> tuple[Window, ...]:
    """Tell what a layer looks at, along each spatial axis.

    Parameters
    ----------
    layer : nn.Layer
        A convolution or a pooling.
    extents : tuple of int
        Of its input.

    Returns
    -------
    tuple of Window
        One for each axis.

    Raises
    ------
    ValueError
        When there is no rule for the layer, or its input does not fit.

    Examples
    --------
    >>> from convcore import nn
    >>> [window] = windows(nn.MaxPool1d(3, 2, 1), (8,))
    >>> window.out, window.kernel, window.stride, window.padding
    (4, 3, 2, (1, 1))
    """
    raise ValueError(
        f"analysis: every layer must have a rule for what it connects, got "
        f"{type(layer).__name__}, which has none; see analysis.connect"
    )


def _ranked(layer: Any, extents: Extents) -> str:
    """Give the layer's name once its rank is that of the extents."""
    name = type(layer).__name__
    if layer.ndim != len(extents):
        raise ValueError(
            f"analysis: {name} must have an input with {layer.ndim} spatial axes, got "
            f"extents {extents}"
        )
    return name


def _problem_windows(problem: ConvProblem | PoolProblem, mode: str) -> list[Window]:
    """Read the axes of a problem, the caller's alone."""
    axes = zip(
        *(problem.in_extent, problem.out_extent, problem.kernel),
        *(problem.stride, problem.dilation, problem.padding),
        strict=True,
    )
    found = [Window(i, o, k, s, d, pads, mode) for i, o, k, s, d, pads in axes]
    for window in found:
        if mode == "reflect" and window.extent == 1 and any(window.padding):
            raise ValueError(
                'analysis: padding_mode "reflect" needs an extent of 2 at least, got 1'
            )
    return found[-problem.ndim :]


def _mode(layer: Any) -> str:
    mode = getattr(layer, "padding_mode", "zeros")
    return (
        "zeros" if mode == "ignore" else mode
    )  # what never wins a maximum adds no path


def conv_windows(layer: Any, extents: Extents) -> tuple[Window, ...]:
    """Give the windows of a convolution."""
    problem = ConvProblem.conv(
        _ranked(layer, extents),
        (1, 1, *extents),  # channels do not matter
        (1, 1, *layer.kernel_size),
        layer.stride,
        layer.padding,
        layer.dilation,
    )
    return tuple(_problem_windows(problem, _mode(layer)))


def _conv_transpose(layer: Any, extents: Extents) -> tuple[Window, ...]:
    problem = ConvProblem.transposed(
        _ranked(layer, extents),
        (1, 1, *extents),
        (1, 1, *layer.kernel_size),
        layer.stride,
        layer.padding,
        layer.output_padding,
        dilation=layer.dilation,
    )
    return tuple(
        Window(w.out, w.extent, w.kernel, w.stride, w.dilation, w.padding, w.mode, True)
        for w in _problem_windows(problem, _mode(layer))
    )


def _pool(layer: Any, extents: Extents) -> tuple[Window, ...]:
    name, mode = _ranked(layer, extents), _mode(layer)
    stride = layer.kernel_size if layer.stride is None else layer.stride
    dilation = getattr(layer, "dilation", 1)
    own = getattr(layer, "_plain", "zeros")  # the mode that the pooling knows by itself
    if mode == "zeros" and getattr(layer, "padding_mode", own) == own:
        size, pads, ceil = layer.kernel_size, layer.padding, layer.ceil_mode
        shape = (1, 1, *extents)
        problem = PoolProblem.pool(name, shape, size, stride, pads, dilation, ceil)
        return tuple(_problem_windows(problem, mode))
    # Windows see pixels beyond the border, also where ceil_mode lets them hang over it.
    kernel = sizes(name, "kernel_size", layer.kernel_size, len(extents))
    like = ConvProblem.conv(
        name, (1, 1, *extents), (1, 1, *kernel), stride, layer.padding, dilation
    )
    found = _problem_windows(like, mode)
    return tuple(map(_over, found)) if layer.ceil_mode else tuple(found)


def _over(window: Window) -> Window:
    """Add a last window that hangs over the padded axis, if it starts inside."""
    low, high = window.padding
    reach = (window.kernel - 1) * window.dilation + 1
    out = -(-(low + window.extent + high - reach) // window.stride) + 1
    out -= (out - 1) * window.stride >= low + window.extent
    high = max(high, (out - 1) * window.stride + reach - low - window.extent)
    return replace(window, out=out, padding=(low, high))


def _adaptive(layer: Any, extents: Extents) -> tuple[Window, ...]:
    shape = (1, 1, *extents)
    problem = PoolProblem.adaptive(_ranked(layer, extents), shape, layer.output_size)
    return tuple(_problem_windows(problem, "zeros"))


def _whole(layer: Any, extents: Extents) -> tuple[Window, ...]:
    _ranked(layer, extents)
    return tuple(Window(extent, 1, extent, extent) for extent in extents)


def _blur(layer: Any, extents: Extents) -> tuple[Window, ...]:
    _ranked(layer, extents)
    kernels, strides = (
        value if isinstance(value, tuple) else (value,) * len(extents)
        for value in (layer.kernel_size, layer.stride)
    )
    return tuple(
        Window(i, -(-i // s), k, s, 1, ((k - 1) // 2, k // 2), layer.padding_mode)
        for i, k, s in zip(extents, kernels, strides, strict=True)
    )


_RULES: dict[Callable[[Any, Extents], tuple[Window, ...]], tuple[type, ...]] = {
    conv_windows: (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    _conv_transpose: (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    _pool: (
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        *(nn.SumPool1d, nn.SumPool2d, nn.SumPool3d),
        *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
        *(nn.StochasticPool1d, nn.StochasticPool2d, nn.StochasticPool3d),
    ),
    _adaptive: (
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    ),
    _whole: (
        *(nn.GlobalAvgPool1d, nn.GlobalAvgPool2d, nn.GlobalAvgPool3d),
        *(nn.GlobalMaxPool1d, nn.GlobalMaxPool2d, nn.GlobalMaxPool3d),
        *(nn.GlobalLPPool1d, nn.GlobalLPPool2d, nn.GlobalLPPool3d),
    ),
    _blur: (nn.BlurPool1d, nn.BlurPool2d, nn.BlurPool3d),
}
for _rule, _classes in _RULES.items():
    for _class in _classes:
        windows.register(_class, _rule)
