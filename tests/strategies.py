"""Problems and calls for hypothesis to draw: legal by construction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from convcore.problem import ConvProblem, PoolProblem


@dataclass(frozen=True)
class Call:
    """The arguments of one public call, and the problem that they make.

    Attributes
    ----------
    x_shape : (N, C, *spatial)
    weight_shape : (out, in/groups, *kernel); () for pooling
    keywords : dict
        As `conv*d`, `conv_transpose*d` or `*_pool*d` take them.
    problem : ConvProblem or PoolProblem
    """

    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    keywords: dict[str, Any] = field(hash=False)
    problem: Any

    @property
    def ndim(self) -> int:
        """Spatial axes."""
        return len(self.x_shape) - 2


@st.composite
def conv_calls(
    draw: st.DrawFn,
    ndims: Sequence[int] = (1, 2, 3),
    channels: Sequence[int] = (1, 2, 3, 5),
    groups: Sequence[int] = (1, 1, 2, 3),
    max_batch: int = 3,
    max_kernel: int = 4,
    room: int = 6,
) -> Call:
    """Draw the arguments of a legal convolution.

    Parameters
    ----------
    ndims : ints
        Ranks to draw from.
    channels : ints
        Channels per group to draw from, for input and output: sizes around a tile. A
        grouped problem with 1 is depthwise, with a multiplier if there are more
        output channels.
    groups : ints
    max_batch, max_kernel, room : int
        The batch is 0 to max_batch; each input axis is at most `room` longer than
        the shortest legal one. With three axes, half of that and kernels up to 3.
    """
    ndim, g, ic, oc = (
        draw(st.sampled_from(s)) for s in (ndims, groups, channels, channels)
    )
    kernel, stride, dilation = _windows(draw, ndim, max_kernel)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding: Any = draw(st.sampled_from(["valid", "same", "full", None, None, None]))
    if padding is None:
        # Wider than the kernel, too: then some windows see nothing but padding.
        padding = tuple(
            draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in kernel
        )
        shortest = [max(1, r - sum(p)) for r, p in zip(reach, padding, strict=True)]
    else:
        shortest = reach if padding == "valid" else [1] * ndim
    x_shape = (
        draw(st.integers(0, max_batch)),
        g * ic,
        *(s + draw(st.integers(0, room if ndim < 3 else room // 2)) for s in shortest),
    )
    weight_shape = (g * oc, ic, *kernel)
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "groups": g}
    problem = ConvProblem.conv("conv", x_shape, weight_shape, **keywords)
    return Call(x_shape, weight_shape, keywords, problem)


def conv_problems(
    ndims: Sequence[int] = (1, 2, 3),
    channels: Sequence[int] = (1, 2, 3, 5),
    groups: Sequence[int] = (1, 1, 2, 3),
    **sizes: int,
) -> st.SearchStrategy[ConvProblem]:
    """Draw legal convolution problems; arguments as in `conv_calls`."""
    calls = conv_calls(ndims, channels, groups, **sizes)
    return calls.map(lambda call: call.problem)


@st.composite
def conv_transpose_calls(
    draw: st.DrawFn,
    ndims: Sequence[int] = (1, 2, 3),
    channels: Sequence[int] = (1, 2, 3, 5),
    groups: Sequence[int] = (1, 1, 2, 3),
    max_batch: int = 3,
    max_kernel: int = 4,
    room: int = 4,
) -> Call:
    """Draw the arguments of a legal transposed convolution, as `conv_calls` does."""
    ndim, g, ic, oc = (
        draw(st.sampled_from(s)) for s in (ndims, groups, channels, channels)
    )
    kernel, stride, dilation = _windows(draw, ndim, max_kernel)
    extra = tuple(
        draw(st.integers(0, max(s, d) - 1))
        for s, d in zip(stride, dilation, strict=True)
    )
    padding, spatial = [], []
    for k, s, d, more in zip(kernel, stride, dilation, extra, strict=True):
        lo, hi = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
        # (i - 1) * s - lo - hi + reach + more >= 1
        shortest = max(1, 1 - ((k - 1) * d + more - lo - hi) // s)
        padding.append((lo, hi))
        spatial.append(shortest + draw(st.integers(0, room if ndim < 3 else room // 2)))
    x_shape = (draw(st.integers(0, max_batch)), g * ic, *spatial)
    weight_shape = (g * ic, oc, *kernel)
    keywords: dict[str, Any] = {
        "stride": stride,
        "padding": tuple(padding),
        "output_padding": extra,
        "groups": g,
        "dilation": dilation,
    }
    problem = ConvProblem.transposed(
        "conv_transpose", x_shape, weight_shape, **keywords
    )
    return Call(x_shape, weight_shape, keywords, problem)


@st.composite
def pool_calls(
    draw: st.DrawFn,
    ndims: Sequence[int] = (1, 2, 3),
    max_channels: int = 3,
    max_batch: int = 3,
    max_kernel: int = 4,
    max_dilation: int = 3,
    room: int = 6,
) -> Call:
    """Draw the arguments of a legal pooling.

    Parameters
    ----------
    ndims : ints
        Ranks to draw from.
    max_dilation : int
        1 for average pooling, which has no dilation: then it is left out of the
        keywords, too.
    """
    ndim = draw(st.sampled_from(ndims))
    kernel, stride, dilation = _windows(draw, ndim, max_kernel, max_dilation)
    padding, spatial = [], []
    for k, d in zip(kernel, dilation, strict=True):
        reach = (k - 1) * d + 1
        # Up to half a window; wider, some windows have but one element of x.
        most = draw(st.sampled_from([reach // 2, reach // 2, reach - 1]))
        lo, hi = (draw(st.integers(0, most)) for _ in range(2))
        padding.append((lo, hi))
        shortest = max(1, reach - lo - hi)
        spatial.append(shortest + draw(st.integers(0, room if ndim < 3 else room // 2)))
    x_shape = (
        draw(st.integers(0, max_batch)),
        draw(st.integers(1, max_channels)),
        *spatial,
    )
    keywords: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": draw(st.sampled_from([stride, None])),
        "padding": tuple(padding),
        "ceil_mode": draw(st.booleans()),
    }
    if max_dilation > 1:
        keywords["dilation"] = dilation
    return Call(x_shape, (), keywords, PoolProblem.pool("pool", x_shape, **keywords))


def pool_problems(
    ndims: Sequence[int] = (1, 2, 3), **sizes: int
) -> st.SearchStrategy[PoolProblem]:
    """Draw legal pooling problems; arguments as in `pool_calls`."""
    return pool_calls(ndims, **sizes).map(lambda call: call.problem)


def generators() -> st.SearchStrategy[np.random.Generator]:
    """Draw sources of data; what fails prints as its seed."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def _windows(
    draw: st.DrawFn, ndim: int, max_kernel: int, max_dilation: int = 3
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Draw kernel, stride and dilation, each axis on its own; less of them in 3-D."""
    if ndim == 3:
        max_kernel, max_dilation = min(max_kernel, 3), min(max_dilation, 2)
    kernel, stride, dilation = (
        tuple(draw(st.integers(1, most)) for _ in range(ndim))
        for most in (max_kernel, 3, max_dilation)
    )
    return kernel, stride, dilation
