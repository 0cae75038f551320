"""Rows: named layers. Each kind knows its spelling, its directions and its case.

A convolution is spelt as `ConvProblem` spells it, a pooling like the depthwise
convolution of its shape, `n8c64ih112kh3sh2ph1`, with `ceil` at the end for `ceil_mode`,
or by its output alone where the windows follow from it, `n8c64ih7oh1`; a transposed
convolution like the convolution that it transposes.
"""

import re
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

from benchmarks.case import DIRECTIONS, Case
from benchmarks.elementwise import OPERATIONS, Elementwise, ElementwiseCase
from benchmarks.pool_extra import OPERATIONS as POOLINGS
from benchmarks.pool_extra import PoolExtraCase
from benchmarks.windows import WindowCase
from convcore.problem import ConvProblem, PoolProblem

SMALL_ELEMENTS = 20_000  # below, a call is mostly what surrounds the loop

Problem = ConvProblem | PoolProblem | Elementwise


@dataclass(frozen=True)
class Row:
    """One named layer.

    Parameters
    ----------
    name : str
        Source and layer, `resnet_50/conv1`.
    op : str
        As in its case.
    problem
        With the batch that is to be measured.
    """

    name: str
    op: str
    problem: Any

    @property
    def kind(self) -> str:
        """What it is one of: "conv", "pool", "pool_extra" or "elementwise"."""
        raise NotImplementedError

    @property
    def spelling(self) -> str:
        """The problem as text; `parse` reads it."""
        return spell(self.problem)

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions that the operation has."""
        return DIRECTIONS[:2]

    @property
    def family(self) -> str:
        """The group whose geometric mean the row belongs to."""
        return self.op

    def with_batch(self, n: int) -> Self:
        """Give the same layer for `n` samples."""
        return replace(self, problem=replace(self.problem, n=n))

    def case(self, direction: str, dtype: str) -> Case:
        """Give what a worker has to know."""
        raise NotImplementedError


@dataclass(frozen=True)
class ConvRow(Row):
    """A convolution, or a transposed one."""

    problem: ConvProblem
    kind = "conv"

    @property
    def directions(self) -> tuple[str, ...]:
        """All of them."""
        return DIRECTIONS

    @property
    def family(self) -> str:
        """What its kernel, groups and strides are like."""
        p = self.problem
        if self.op == "conv_transpose":
            return "transposed"
        if p.g > 1:
            return "depthwise" if p.g == p.ic else "grouped"
        if p.ndim != 2:
            return f"conv{p.ndim}d"
        if max(p.dilation) > 1:
            return "dilated"
        if p.ic <= 4:
            return "first layer"
        kernel = "x".join(str(k) for k in p.kernel[1:])
        if max(p.stride) > 1:
            return f"{kernel} strided" if kernel in ("1x1", "3x3") else "other strided"
        return kernel if kernel in ("1x1", "3x3", "5x5") else "other"

    def case(self, direction: str, dtype: str) -> WindowCase:
        """Give what a worker has to know."""
        p, axes = self.problem, slice(3 - self.problem.ndim, None)
        case = WindowCase(
            self.op,
            direction,
            dtype,
            x_shape=p.x_shape,
            weight_shape=p.weight_shape,
            y_shape=p.y_shape,
            **_window(p),
            groups=p.g,
        )
        if self.op == "conv":
            return case
        rest = tuple(  # elements of the result behind the last window
            lo + i + hi - ((o - 1) * s + (k - 1) * d + 1)
            for i, o, k, s, (lo, hi), d in zip(
                p.in_extent,
                p.out_extent,
                p.kernel,
                p.stride,
                p.padding,
                p.dilation,
                strict=True,
            )
        )
        return replace(
            case, x_shape=p.y_shape, y_shape=p.x_shape, output_padding=rest[axes]
        )


@dataclass(frozen=True)
class PoolRow(Row):
    """A pooling."""

    problem: PoolProblem
    kind = "pool"

    @property
    def directions(self) -> tuple[str, ...]:
        """The indices of maxima come with the forward pass."""
        return DIRECTIONS[:1] if self.op == "max_pool_indices" else DIRECTIONS[:2]

    def case(self, direction: str, dtype: str) -> WindowCase:
        """Give what a worker has to know."""
        p = self.problem
        return WindowCase(
            self.op,
            direction,
            dtype,
            x_shape=p.x_shape,
            y_shape=p.y_shape,
            **_window(p),
            ceil_mode=p.ceil_mode,
        )


@dataclass(frozen=True)
class PoolExtraRow(Row):
    """A pooling of `pool_extra.OPERATIONS`; over channels, its groups are the windows."""

    problem: PoolProblem | Elementwise
    kind = "pool_extra"

    @property
    def family(self) -> str:
        """The operation; small tensors apart, which stay in the caches."""
        small = prod(self.problem.x_shape) <= SMALL_ELEMENTS
        return "small poolings" if small else self.op

    def case(self, direction: str, dtype: str) -> PoolExtraCase:
        """Give what a worker has to know."""
        p = self.problem
        if isinstance(p, Elementwise):
            shapes = p.x_shape, (p.n, p.c // p.groups, *p.extents)
            kernel = stride = (p.groups,)
        else:
            shapes, window = (p.x_shape, p.y_shape), _window(p)
            kernel, stride = window["kernel"], window["stride"]
        if self.op == "blur_pool":
            n, c, *extents = shapes[0]
            steps = zip(extents, stride, strict=True)
            shapes = shapes[0], (n, c, *(-(-i // step) for i, step in steps))
        if self.op == "max_unpool":
            shapes = shapes[::-1]
        x_shape, y_shape = shapes
        return PoolExtraCase(
            self.op, direction, dtype, x_shape, y_shape, kernel, stride
        )


@dataclass(frozen=True)
class ElementwiseRow(Row):
    """An operation of `elementwise.OPERATIONS`."""

    problem: Elementwise
    kind = "elementwise"

    @property
    def family(self) -> str:
        """The kind of operation; small tensors apart, which stay in the caches."""
        small = prod(self.problem.x_shape) <= SMALL_ELEMENTS
        return "small " * small + OPERATIONS[self.op].kind

    def case(self, direction: str, dtype: str) -> ElementwiseCase:
        """Give what a worker has to know."""
        p = self.problem
        return ElementwiseCase(self.op, direction, dtype, p.x_shape, p.groups)


def named(name: str, op: str, spelling: str) -> Row:
    """Make the row of an operation and a spelling.

    Raises
    ------
    ValueError
        When the text is not a spelling, or the problem not a legal one.
    """
    problem = parse(op, spelling)
    if isinstance(problem, ConvProblem):
        return ConvRow(name, op, problem)
    if op in POOLINGS:
        return PoolExtraRow(name, op, problem)
    if isinstance(problem, PoolProblem):
        return PoolRow(name, op, problem)
    return ElementwiseRow(name, op, problem)


def spell(problem: Problem) -> str:
    """Spell a problem; a pooling like the depthwise convolution of its shape.

    Examples
    --------
    >>> spell(PoolProblem.pool("", (8, 64, 112, 112), 3, 2, 1))
    'n8c64ih112kh3sh2ph1'
    """
    if not isinstance(problem, PoolProblem):
        return str(problem)
    if not problem.kernel[-1]:
        out = Elementwise(0, 0, problem.out_extent[3 - problem.ndim :])
        into = Elementwise(problem.n, problem.c, problem.x_shape[2:])
        return f"{into}{str(out).removeprefix('n0c0').replace('i', 'o')}"
    c = problem.c
    depthwise = ConvProblem(
        problem.ndim,
        problem.n,
        c,
        c,
        c,
        problem.in_extent,
        problem.kernel,
        problem.stride,
        problem.padding,
        problem.dilation,
        problem.out_extent,
    )
    text = re.sub(f"g{c}ic{c}(i.+)oc{c}k", rf"c{c}\1k", str(depthwise))
    return text + "ceil" * problem.ceil_mode


def parse(op: str, spelling: str) -> Problem:
    """Read the spelling of a problem of an operation; `spell` gives it.

    Raises
    ------
    ValueError
        When the text is not a spelling, or the problem not a legal one.
    """
    if op in OPERATIONS or op.startswith("channel"):
        return Elementwise.parse(spelling)
    if "pool" not in op:
        return ConvProblem.parse(spelling)
    whole = re.fullmatch(r"(n\d+c\d+(?:i[dhw]\d+)+)((?:o[dhw]\d+)+)", spelling)
    if whole is not None:
        into, out = whole.groups()
        x_shape = Elementwise.parse(into).x_shape
        output_size = Elementwise.parse("n1c1" + out.replace("o", "i")).extents
        return PoolProblem.adaptive("parse", x_shape, output_size)
    match = re.fullmatch(r"n(\d+)c(\d+)(i[dhw]\d.*?)(k.*?)(ceil)?", spelling)
    if match is None:
        raise ValueError(
            f"parse: a pooling must be spelt n..c..i..k.., got {spelling!r}"
        )
    n, c, extents, geometry, ceil = match.groups()
    like = ConvProblem.parse(f"n{n}g{c}ic{c}{extents}oc{c}{geometry}")
    axes = slice(3 - like.ndim, None)
    return PoolProblem.pool(
        "parse",
        like.x_shape,
        like.kernel[axes],
        like.stride[axes],
        like.padding[axes],
        like.dilation[axes],
        ceil is not None,
    )


def _window(problem: ConvProblem | PoolProblem) -> dict[str, Any]:
    """Give the geometry of the windows, in the caller's rank."""
    axes = slice(3 - problem.ndim, None)
    return {
        "kernel": problem.kernel[axes],
        "stride": problem.stride[axes],
        "padding": problem.padding[axes],
        "dilation": problem.dilation[axes],
    }
