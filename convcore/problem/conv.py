"""The problem of a convolution, in all its directions."""

import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Literal, TypeVar

from convcore.problem.border import BORDERS, Border, border, bordered, check_reflect
from convcore.problem.rules import (
    Padding,
    Pair,
    Size,
    Triple,
    check_addressable,
    check_extents,
    check_shape,
    fold,
    integer,
    named_padding,
    paddings,
    rank,
    shown,
    sizes,
)
from convcore.problem.spelling import read, spell, spell_pair

Direction = Literal["fprop", "dgrad", "wgrad", "bgrad"]

_FAR = 2**62  # beyond every addressable extent
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One convolution: `y[n, o] = sum over (c, k) of w[o, c, k] * x[n, c, s*t + d*k - p]`.

    It serves all three directions: y from (x, w), the gradient of x from (y, w), and
    the gradient of w from (x, y). A transposed convolution is the gradient of x of
    the problem that `transposed` builds.

    Parameters
    ----------
    ndim : int
        Spatial axes that the caller has, 1 to 3.
    n, g, ic, oc : int
        Samples; groups; channels of x; channels of y (both in total, not per group).
    in_extent, kernel, stride, dilation, out_extent : (int, int, int)
        Along (D, H, W); a dilation of 1 is dense.
    padding : three (lo, hi) pairs
        What lies before and after each axis, in elements of x.
    border : str
        What is there: zeros, `value`, or elements of x (see `problem.border`). A problem
        without padding has "zeros".
    value : float
        Of a border that is "constant".
    relu : bool
        Whether y has 0 where it would be negative. Only fprop has such a problem: other
        directions are linear.
    """

    ndim: int
    n: int
    g: int
    ic: int
    oc: int
    in_extent: Triple
    kernel: Triple
    stride: Triple
    padding: tuple[Pair, Pair, Pair]
    dilation: Triple
    out_extent: Triple
    border: Border = "zeros"
    value: float = 0.0
    relu: bool = False

    @staticmethod
    def conv(
        function: str,
        x_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        padding_value: float = 0,
    ) -> "ConvProblem":
        """Check the arguments of `function`, named in errors, and build its problem.

        Parameters
        ----------
        x_shape : (N, C_in, *spatial)
        weight_shape : (C_out, C_in / groups, *kernel)
        stride, dilation, groups : as in the public functions
        padding : int, ints, (lo, hi) pairs, "valid", "same", "full" or "causal"
        padding_mode, padding_value : as in the public functions

        Raises
        ------
        ValueError, TypeError
            When a value, or the type of one, is not legal.
        """
        check_shape(function, "x", x_shape)
        check_shape(function, "weight", weight_shape)
        ndim = rank(function, "x", x_shape)
        strides = sizes(function, "stride", stride, ndim)
        dilations = sizes(function, "dilation", dilation, ndim)
        pads = paddings(function, padding, ndim)
        group_count = integer(function, "groups", groups)
        problem = _conv(
            function, x_shape, weight_shape, strides, pads, dilations, group_count
        )
        plain = type(padding_mode) is str and padding_mode == "zeros"
        if plain and type(padding_value) is int and not padding_value:
            return problem  # the usual case, at once
        return _bordered(function, problem, padding_mode, padding_value)

    @staticmethod
    def transposed(
        function: str,
        x_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
        groups: int = 1,
        dilation: Size = 1,
        padding_mode: str = "zeros",
    ) -> "ConvProblem":
        """Build the problem whose gradient of x is this transposed convolution.

        The x of the transposed convolution is the y of the problem, and the other way
        round: (`x_shape`, result) = (`y_shape`, `x_shape`) of what is returned.

        Parameters
        ----------
        x_shape : (N, C_in, *spatial)
        weight_shape : (C_in, C_out / groups, *kernel)
        output_padding : int or ints
            Elements that the last window does not reach, added at the end of each
            axis; below the stride or the dilation.
        padding_mode : str
            Of the convolution that is transposed; a constant has no transpose.
        """
        check_shape(function, "x", x_shape)
        check_shape(function, "weight", weight_shape)
        ndim = rank(function, "x", x_shape)
        strides = sizes(function, "stride", stride, ndim)
        dilations = sizes(function, "dilation", dilation, ndim)
        extra = sizes(function, "output_padding", output_padding, ndim, least=0)
        pads = paddings(function, padding, ndim)
        group_count = integer(function, "groups", groups)
        problem = _transposed(
            function,
            x_shape,
            weight_shape,
            strides,
            pads,
            extra,
            dilations,
            group_count,
        )
        if type(padding_mode) is str and padding_mode == "zeros":
            return problem
        border(function, padding_mode, tuple(b for b in BORDERS if b != "constant"))
        return _bordered(function, problem, padding_mode, 0, "the result")

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x: (n, ic, *spatial), in the caller's rank."""
        return (self.n, self.ic, *self.in_extent[-self.ndim :])

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of w: (oc, ic / g, *kernel), in the caller's rank."""
        return (self.oc, self.ic // self.g, *self.kernel[-self.ndim :])

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of y: (n, oc, *spatial), in the caller's rank."""
        return (self.n, self.oc, *self.out_extent[-self.ndim :])

    @property
    def folded(self) -> "ConvProblem":
        """The same sums with the axes of one element first: kernels like long rows.

        Arrays stay as they are in memory.

        Examples
        --------
        >>> ConvProblem.parse("n1g1ic2ih80iw1oc3kh5kw1").folded.in_extent
        (1, 1, 80)
        """
        axes = zip(self.in_extent, self.kernel, self.padding, strict=True)
        single = [axis == (1, 1, (0, 0)) for axis in axes]
        order = sorted(range(3), key=lambda axis: not single[axis])
        if order == [0, 1, 2]:
            return self
        z, y, x = order

        def moved(values: tuple[_T, _T, _T]) -> tuple[_T, _T, _T]:
            return values[z], values[y], values[x]

        return replace(
            self,
            ndim=3,
            in_extent=moved(self.in_extent),
            kernel=moved(self.kernel),
            stride=moved(self.stride),
            padding=moved(self.padding),
            dilation=moved(self.dilation),
            out_extent=moved(self.out_extent),
        )

    @property
    def core(self) -> "ConvProblem":
        """The problem without what lies beyond the border of x."""
        if self.border == "zeros":
            return self
        return replace(self, border="zeros", value=0.0)

    @property
    def geometry(self) -> tuple[int, ...]:
        """The integers that a kernel reads, in the order of `Conv` in geometry.pxd.

        All fit into 64 bits: a stride or dilation beyond every extent acts as any other.
        """
        return (
            *(self.n, self.g, self.ic // self.g, self.oc // self.g),
            *self.in_extent,
            *self.out_extent,
            *self.kernel,
            *(min(s, _FAR) for s in self.stride),
            *(lo for lo, _ in self.padding),
            *(min(d, _FAR) for d in self.dilation),
            int(self.relu),
            BORDERS.index(self.border),
            struct.unpack("q", struct.pack("d", self.value))[0],
        )

    @property
    def taps(self) -> int:
        """Elements of one kernel plane: kd * kh * kw."""
        return prod(self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-adds of each direction, padding included."""
        return (
            self.n * self.oc * prod(self.out_extent) * self.taps * (self.ic // self.g)
        )

    def work(self, direction: str) -> int:
        """Multiply-adds of a direction, or what costs as much."""
        return prod(self.y_shape) if direction == "bgrad" else self.macs

    def terms(self, direction: Direction) -> int:
        """Most terms that are summed into one element of the direction's result."""
        if direction == "fprop":
            return self.ic // self.g * self.taps
        if direction == "dgrad":
            return self.oc // self.g * self.taps
        return self.n * prod(self.out_extent)

    def __str__(self) -> str:
        """Spell the problem as oneDNN does: `n1g1ic3ih224oc64kh7sh2ph3`."""
        first = 3 - self.ndim
        return (
            f"n{self.n}g{self.g}ic{self.ic}"
            + spell("i{}", self.in_extent, first)
            + f"oc{self.oc}"
            + spell("k{}", self.kernel, first)
            + spell("s{}", self.stride, first, default=1)
            + spell("p{}", [spell_pair(p) for p in self.padding], first, default="0")
            + spell("d{}", self.dilation, first, default=1)
            + ("" if self.border == "zeros" else self.border)
            + (repr(self.value) if self.border == "constant" else "")
            + ("relu" if self.relu else "")
        )

    @staticmethod
    def parse(text: str) -> "ConvProblem":
        """Read the spelling that `str` gives.

        Only the first axis of a quantity has to be spelt when the others are equal;
        strides and dilations default to 1 and paddings to 0; `ph1_2` is one zero
        before and two after; the mode of the border, with the value of a constant one,
        follows the numbers, and a last `relu` is the activation.

        Examples
        --------
        >>> ConvProblem.parse("n1g1ic3ih224oc64kh7sh2ph3").out_extent
        (1, 112, 112)
        """
        arguments, relu = read(text)
        problem = ConvProblem.conv("ConvProblem.parse", *arguments)
        return replace(problem, relu=relu)


@lru_cache(maxsize=4096)
def _conv(
    function: str,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[Pair, ...],
    dilation: tuple[int, ...],
    g: int,
) -> ConvProblem:
    ndim = len(x_shape) - 2
    _check_weight(function, x_shape, weight_shape, g)
    n, ic = x_shape[:2]
    oc, ic_g = weight_shape[:2]
    if ic_g * g != ic:
        raise ValueError(
            f"{function}: weight expects {ic_g} x groups ({g}) = {ic_g * g} input "
            f"channels, x has {ic}; x {x_shape}, weight {weight_shape}"
        )
    if oc % g:
        raise ValueError(
            f"{function}: groups must divide the output channels, got groups {g}, "
            f"weight {weight_shape}"
        )
    kernel = weight_shape[2:]
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    pads = named_padding(padding, x_shape[2:], reach, stride)
    out = tuple(
        (lo + i + hi - r) // s + 1
        for i, (lo, hi), r, s in zip(x_shape[2:], pads, reach, stride, strict=True)
    )
    if min(out) < 1:
        raise ValueError(
            f"{function}: the kernel must fit into the padded input, got kernel "
            f"{kernel} with dilation {dilation} over x {x_shape} with padding "
            f"{shown(padding)}"
        )
    for i, (lo, hi) in zip(x_shape[2:], pads, strict=True):
        check_addressable(function, "the padded extent of x", (lo + i + hi,))
    problem = ConvProblem(
        ndim,
        n,
        g,
        ic,
        oc,
        fold(x_shape[2:], 1),
        fold(kernel, 1),
        fold(stride, 1),
        fold(pads, (0, 0)),
        fold(dilation, 1),
        fold(out, 1),
    )
    for role, shape in (
        ("x", problem.x_shape),
        ("weight", problem.weight_shape),
        ("the output", problem.y_shape),
    ):
        check_addressable(function, role, shape)
    return problem


@lru_cache(maxsize=4096)
def _transposed(
    function: str,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[Pair, ...],
    output_padding: tuple[int, ...],
    dilation: tuple[int, ...],
    g: int,
) -> ConvProblem:
    _check_weight(function, x_shape, weight_shape, g)
    n, channels = x_shape[:2]
    if weight_shape[0] != channels:
        raise ValueError(
            f"{function}: weight expects {weight_shape[0]} input channels, x has "
            f"{channels}; x {x_shape}, weight {weight_shape}"
        )
    if channels % g:
        raise ValueError(
            f"{function}: groups must divide the input channels, got groups {g}, "
            f"x {x_shape}"
        )
    for extra, s, d in zip(output_padding, stride, dilation, strict=True):
        if extra >= max(s, d):
            raise ValueError(
                f"{function}: output_padding must be below the stride or the dilation, "
                f"got {output_padding} with stride {stride} and dilation {dilation}"
            )
    kernel = weight_shape[2:]
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    pads = _transposed_padding(padding, reach, stride, output_padding)
    out = tuple(
        (i - 1) * s - lo - hi + r + extra
        for i, s, (lo, hi), r, extra in zip(
            x_shape[2:], stride, pads, reach, output_padding, strict=True
        )
    )
    if min(out) < 1:
        raise ValueError(
            f"{function}: the output must not be empty, got extent {out} from x "
            f"{x_shape}, kernel {kernel}, padding {shown(padding)}"
        )
    # Elements that output_padding adds are reached by no window, so they come off the
    # high padding of the problem (where that is too small, the floor drops them).
    high = tuple(
        max(hi - extra, 0) for (_, hi), extra in zip(pads, output_padding, strict=True)
    )
    check_addressable(function, "the output", (n, weight_shape[1] * g, *out))
    spread = tuple(o + lo + hi for o, (lo, hi) in zip(out, pads, strict=True))
    for extent in spread:
        check_addressable(function, "the input with its zeros", (extent,))
    for role, shape in (("x", x_shape), ("weight", weight_shape)):
        check_addressable(function, role, shape)
    return ConvProblem(
        len(x_shape) - 2,
        n,
        g,
        weight_shape[1] * g,
        channels,
        fold(out, 1),
        fold(kernel, 1),
        fold(stride, 1),
        fold([(lo, hi) for (lo, _), hi in zip(pads, high, strict=True)], (0, 0)),
        fold(dilation, 1),
        fold(x_shape[2:], 1),
    )


def _bordered(
    function: str, problem: ConvProblem, mode: str, value: float, of: str = "x"
) -> ConvProblem:
    """Give the problem with another border, if that makes any difference."""
    mode, value = bordered(function, mode, value)
    if mode == "reflect":
        first = 3 - problem.ndim
        check_reflect(function, problem.in_extent[first:], problem.padding[first:], of)
    nothing = not any(map(any, problem.padding))
    if nothing or mode == "zeros" or (mode == "constant" and value == 0):
        return problem
    return replace(problem, border=mode, value=value)


def _transposed_padding(
    padding: str | tuple[Pair, ...],
    reach: tuple[int, ...],
    stride: tuple[int, ...],
    output_padding: tuple[int, ...],
) -> tuple[Pair, ...]:
    """Turn the names into pairs: the padding of the convolution that is transposed.

    "same" gives extent * stride outputs (plus output_padding), the adjoint of a
    convolution with "same" over an extent that the stride divides.
    """
    if padding == "same":
        totals = [max(r - s, 0) for r, s in zip(reach, stride, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    if isinstance(padding, str):
        return named_padding(padding, (0,) * len(reach), reach, stride)
    return padding


def _check_weight(
    function: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], g: int
) -> None:
    """Check what convolution and transposed convolution have in common."""
    if len(weight_shape) != len(x_shape):
        raise ValueError(
            f"{function}: weight must have {len(x_shape)} axes as x with its batch "
            f"has, got weight {weight_shape}, x {x_shape}"
        )
    check_extents(function, "x", x_shape)
    if min(weight_shape) < 1:
        raise ValueError(
            f"{function}: every extent of weight must be >= 1, got shape {weight_shape}"
        )
    if g < 1:
        raise ValueError(f"{function}: groups must be >= 1, got {g}")
