"""The problem of a pooling."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from convcore.problem.rules import (
    MAX_BYTES,
    Padding,
    Pair,
    Size,
    Triple,
    check_addressable,
    check_extents,
    check_shape,
    fold,
    named_padding,
    paddings,
    rank,
    shown,
    sizes,
)

_BY_INDEX = ("max_check", "max_dgrad", "max_checked_dgrad")
_SCATTERED = 4  # elements that are cleared or read while one window adds to its own


@dataclass(frozen=True, slots=True)
class PoolProblem:
    """One pooling: each output is the maximum or the mean of one window of x.

    Parameters
    ----------
    ndim : int
        Spatial axes that the caller has, 1 to 3.
    n, c : int
        Samples and channels; every channel is pooled by itself.
    in_extent, kernel, stride, dilation, out_extent : (int, int, int)
        Along (D, H, W); a dilation of 1 is dense, a kernel of 0 adaptive.
    padding : three (lo, hi) pairs
        Elements before and after each axis; they never win a maximum.
    ceil_mode : bool
        Whether a last window that hangs over the padded end counts, too. One that
        would start behind the input and its padding at the low side is dropped.
    """

    ndim: int
    n: int
    c: int
    in_extent: Triple
    kernel: Triple
    stride: Triple
    padding: tuple[Pair, Pair, Pair]
    dilation: Triple
    ceil_mode: bool
    out_extent: Triple

    @staticmethod
    def pool(
        function: str,
        x_shape: tuple[int, ...],
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> "PoolProblem":
        """Check the arguments of `function`, named in errors, and build its problem.

        Parameters
        ----------
        x_shape : (N, C, *spatial)
        kernel_size, stride, dilation : int or ints; the stride defaults to the kernel
        padding : int, ints, (lo, hi) pairs, "valid", "same" or "full"
            Each less than the window's reach.

        Raises
        ------
        ValueError, TypeError
            When a value, or the type of one, is not legal.
        """
        window = _window(function, x_shape, kernel_size, stride, padding, dilation)
        _check_ceil_mode(function, ceil_mode)
        return _pool(function, x_shape, *window, ceil_mode)

    @staticmethod
    def framed(
        function: str,
        x_shape: tuple[int, ...],
        kernel_size: Size,
        stride: Size | None,
        padding: Padding,
        dilation: Size,
        ceil_mode: bool,
    ) -> "PoolProblem":
        """Check a pooling that sees elements beyond the border, too.

        Its padding is as much as its windows see, of any width; windows may lie beyond
        the border as a whole. Arguments as for `pool`. Kernels do not take it: see
        `functional._boxes`.
        """
        window = _window(function, x_shape, kernel_size, stride, padding, dilation)
        _check_ceil_mode(function, ceil_mode)
        kernel, strides, pads, dilations = window
        check_extents(function, "x", x_shape)
        reach = _reach(kernel, dilations)
        pairs = named_padding(pads, x_shape[2:], reach, strides)
        out = _windows(function, x_shape, kernel, strides, pairs, dilations, ceil_mode)
        seen = tuple(
            (lo, max(0, (o - 1) * s + r - lo - i))
            for o, s, r, (lo, _), i in zip(
                out, strides, reach, pairs, x_shape[2:], strict=True
            )
        )
        return _checked(function, x_shape, kernel, strides, seen, dilations, False, out)

    @staticmethod
    def adaptive(
        function: str,
        x_shape: tuple[int, ...],
        output_size: int | Sequence[int | None],
    ) -> "PoolProblem":
        """Check the arguments of `function`, and build a pooling into so many windows.

        Window o of an axis of i elements covers `floor(o * i / size)` up to, but not
        with, `ceil((o + 1) * i / size)`. Windows may differ in length: the kernel is 0.

        Parameters
        ----------
        x_shape : (N, C, *spatial)
        output_size : int or ints; None in place of one keeps the extent of x
        """
        check_shape(function, "x", x_shape)
        ndim = rank(function, "x", x_shape)
        check_extents(function, "x", x_shape)
        extents = x_shape[2:]
        asked: Any = output_size
        if isinstance(asked, (tuple, list)) and len(asked) == ndim:
            asked = [
                i if size is None else size
                for i, size in zip(extents, asked, strict=True)
            ]
        out = sizes(function, "output_size", asked, ndim)
        for i, size in zip(extents, out, strict=True):
            if i * size > MAX_BYTES:
                raise ValueError(
                    f"{function}: output_size times the extent of x must be < 2**63, "
                    f"got {shown(output_size)}, x {x_shape}"
                )
        check_addressable(function, "x", x_shape)
        check_addressable(function, "the output", (*x_shape[:2], *out))
        return PoolProblem(
            ndim,
            x_shape[0],
            x_shape[1],
            fold(extents, 1),
            kernel=(0, 0, 0),
            stride=(1, 1, 1),
            padding=((0, 0), (0, 0), (0, 0)),
            dilation=(1, 1, 1),
            ceil_mode=False,
            out_extent=fold(out, 1),
        )

    @property
    def wide(self) -> bool:
        """Whether a side of x has more padding than half a window."""
        axes = zip(self.kernel, self.dilation, self.padding, strict=True)
        return any(2 * max(pair) > (k - 1) * d + 1 for k, d, pair in axes if k)

    @property
    def steps_over(self) -> bool:
        """Whether a dilated window may step over all elements of an axis."""
        _, _, dilations = self.clipped
        before = self.geometry[5::7]
        axes = zip(self.in_extent, before, dilations, strict=True)
        return any(lo and d > i for i, lo, d in axes)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x: (n, c, *spatial), in the caller's rank."""
        return (self.n, self.c, *self.in_extent[-self.ndim :])

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of y: (n, c, *spatial), in the caller's rank."""
        return (self.n, self.c, *self.out_extent[-self.ndim :])

    @property
    def geometry(self) -> tuple[int, ...]:
        """The integers that a kernel reads, in the order of `Pool` in windows.pxd."""
        axes = zip(
            self.in_extent,
            self.out_extent,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            strict=True,
        )
        return (self.n * self.c, *(number for axis in axes for number in _clip(*axis)))

    @property
    def clipped(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Kernel, stride and dilation as kernels get them: none beyond the padded input."""
        numbers = self.geometry[1:]  # seven for each axis
        return numbers[2::7], numbers[3::7], numbers[6::7]

    def work(self, direction: str) -> int:
        """Elements that are looked at; where indices tell them, what costs as much."""
        if direction in _BY_INDEX:
            return prod(self.x_shape) + _SCATTERED * prod(self.y_shape)
        taps = prod(map(min, self.kernel, self.in_extent))
        return prod(self.x_shape) + prod(self.y_shape) * taps


@lru_cache(maxsize=4096)
def _pool(
    function: str,
    x_shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[Pair, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> PoolProblem:
    check_extents(function, "x", x_shape)
    reach = _reach(kernel, dilation)
    padding = named_padding(padding, x_shape[2:], reach, stride)
    if any(max(pair) >= r for pair, r in zip(padding, reach, strict=True)):
        raise ValueError(
            f"{function}: padding must be less than the window's reach {reach}, as with "
            f'"full", so that every window meets x, got {padding}'
        )
    out = _windows(function, x_shape, kernel, stride, padding, dilation, ceil_mode)
    return _checked(
        function, x_shape, kernel, stride, padding, dilation, ceil_mode, out
    )


def _window(
    function: str,
    x_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
) -> tuple[tuple[int, ...], tuple[int, ...], str | tuple[Pair, ...], tuple[int, ...]]:
    """Give kernel, stride, padding and dilation along each axis."""
    check_shape(function, "x", x_shape)
    ndim = rank(function, "x", x_shape)
    kernel = sizes(function, "kernel_size", kernel_size, ndim)
    strides = kernel if stride is None else sizes(function, "stride", stride, ndim)
    dilations = sizes(function, "dilation", dilation, ndim)
    return kernel, strides, paddings(function, padding, ndim), dilations


def _check_ceil_mode(function: str, ceil_mode: bool) -> None:
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"{function}: ceil_mode must be a bool, got {shown(ceil_mode)}")


def _checked(
    function: str,
    x_shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[Pair, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
    out: tuple[int, ...],
) -> PoolProblem:
    """Build the problem, if it can be addressed."""
    problem = PoolProblem(
        len(x_shape) - 2,
        x_shape[0],
        x_shape[1],
        fold(x_shape[2:], 1),
        fold(kernel, 1),
        fold(stride, 1),
        fold(padding, (0, 0)),
        fold(dilation, 1),
        ceil_mode,
        fold(out, 1),
    )
    for i, (lo, hi) in zip(x_shape[2:], padding, strict=True):
        check_addressable(function, "the padded extent of x", (lo + i + hi,))
    check_addressable(function, "x", problem.x_shape)
    check_addressable(function, "the output", problem.y_shape)
    return problem


def _reach(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Give the elements from the first to the last one of a window along each axis."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def _windows(
    function: str,
    x_shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[Pair, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> tuple[int, ...]:
    """Count the windows along each axis: at least one."""
    reach = _reach(kernel, dilation)
    out = tuple(
        _pool_extent(i, lo, hi, r, s, ceil_mode)
        for i, (lo, hi), r, s in zip(x_shape[2:], padding, reach, stride, strict=True)
    )
    if min(out) < 1:
        raise ValueError(
            f"{function}: the window must fit into the padded input, got kernel_size "
            f"{kernel} with dilation {dilation} over x {x_shape} with padding {padding}"
        )
    return out


def _pool_extent(i: int, lo: int, hi: int, reach: int, s: int, ceil_mode: bool) -> int:
    """Count the windows of one axis."""
    room = lo + i + hi - reach
    if not ceil_mode:
        return room // s + 1
    windows = -(-room // s) + 1
    # A window has to start inside the input or the padding before it.
    return windows - 1 if (windows - 1) * s >= i + lo else windows


def _clip(
    i: int, out: int, kernel: int, stride: int, padding: Pair, dilation: int
) -> tuple[int, ...]:
    """Give the integers of one axis to a kernel, none larger than the padded extent.

    What is cut off changes no window: taps behind the padded extent meet nothing, and
    a longer stride leads to no second window.
    """
    padded = sum(padding) + i
    kernel = min(kernel, (padded - 1) // dilation + 1)
    dilation = dilation if kernel > 1 else 1
    return (i, out, kernel, min(stride, padded), *padding, dilation)
