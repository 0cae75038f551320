"""Named problems: the layers that are measured, spelt as `ConvProblem` spells them.

The rows of data/layers.json come from public benchmarks (sources and licences in its
`meta`); a few are written here. A pooling is spelt like a depthwise convolution,
`n8c64ih112kh3sh2ph1`, with `ceil` at the end for `ceil_mode`; a transposed
convolution like the convolution that it transposes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.case import DIRECTIONS, Case
from convcore.problem import ConvProblem, PoolProblem

_DATA = Path(__file__).parent / "data" / "layers.json"

# Call overhead shows here: the first is the smallest convolution that anyone calls.
_SMALL = (
    ("small/one_channel", "conv", "n1g1ic1ih8oc1kh3"),
    ("small/one_channel_same", "conv", "n1g1ic1ih8oc1kh3ph1"),
    ("small/lenet_conv1", "conv", "n1g1ic1ih28oc6kh5"),
    ("small/lenet_conv2", "conv", "n1g1ic6ih12oc16kh5"),
    ("small/rgb", "conv", "n1g1ic3ih32oc16kh3ph1"),
    ("small/depthwise", "conv", "n1g16ic16ih16oc16kh3ph1"),
    ("small/signal", "conv", "n1g1ic1iw256oc4kw9pw4"),
    ("small/max_pool", "max_pool", "n1c6ih24kh2sh2"),
    ("small/avg_pool", "avg_pool", "n1c6ih24kh2sh2"),
)

# Over in a moment, and no two alike: for tests, and to try the tool.
_TINY = (
    ("tiny/plain", "conv", "n2g1ic3ih8iw9oc4kh3ph1"),
    ("tiny/strided_groups", "conv", "n2g2ic4ih9oc6kh3kw2sh2ph1"),
    ("tiny/dilated", "conv", "n1g1ic2ih11oc3kh3ph2dh2"),
    ("tiny/lopsided", "conv", "n2g1ic2ih7oc3kh4sh2ph1_2pw0_1"),
    ("tiny/depthwise", "conv", "n2g5ic5ih10oc10kh3sh2ph1"),
    ("tiny/pointwise", "conv", "n2g1ic5ih6oc7kh1sh2"),
    ("tiny/signal", "conv", "n2g1ic3iw20oc4kw5pw4dw2"),
    ("tiny/volume", "conv", "n1g1ic2id5ih6iw7oc3kd2kh3pd1"),
    ("tiny/transposed", "conv_transpose", "n2g2ic4ih9oc6kh3sh2ph1"),
    ("tiny/transposed_rest", "conv_transpose", "n1g1ic3ih8oc2kh3sh2ph1"),
    ("tiny/transposed_signal", "conv_transpose", "n2g1ic3iw16oc2kw4sw3pw1"),
    ("tiny/max_pool", "max_pool", "n2c3ih9kh3sh2ph1"),
    ("tiny/max_pool_dilated", "max_pool", "n1c2iw12kw3sw2pw1dw2"),
    ("tiny/max_pool_volume", "max_pool", "n1c2id6kd2sd2"),
    ("tiny/avg_pool", "avg_pool", "n2c3ih9kh3sh2ph1ceil"),
    ("tiny/avg_pool_signal", "avg_pool", "n2c3iw10kw4sw3pw1"),
)

# Pooling layers that the source of the others does not have.
_POOL = (("resnet_50/pool1", "max_pool", "n8c64ih112kh3sh2ph1"),)

# Twenty rows of the suites around `core`, to be measured with it.
_EXTRA = (
    "dilated/18",
    "dilated/20",
    "dilated/42/dw",
    "tails/21",
    "tails/23",
    "tails/5~3",
    "small_spatial/1",
    "small_spatial/2",
    "small_spatial/3",
    "1d/8",
    "1d/21",
    "1d/3~2",
    "3d_i3d/row05",
    "3d_i3d/row20",
    "3d_resnext101/conv_3d:2",
    "movinet_dw/conv_3",
    "deconv_1d/alexnet:deconv2",
    "deconv_2d/googlenet_v1:conv1/7x7_s2",
    "deconv_2d/resnet_50:res3a_branch1",
    "deconv_3d/unet_3d:deconv8",
)


@dataclass(frozen=True)
class Row:
    """One named layer.

    Parameters
    ----------
    name : str
        Source and layer, `resnet_50/conv1`.
    op : str
        As in `Case`.
    problem : ConvProblem or PoolProblem
        With the batch that is to be measured.
    """

    name: str
    op: str
    problem: ConvProblem | PoolProblem

    @property
    def spelling(self) -> str:
        """The problem as text; `parse` reads it."""
        return spell(self.problem)

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions that the operation has."""
        if self.op == "max_pool_indices":
            return DIRECTIONS[:1]
        return DIRECTIONS if isinstance(self.problem, ConvProblem) else DIRECTIONS[:2]

    @property
    def family(self) -> str:
        """The group whose geometric mean the row belongs to."""
        p = self.problem
        if isinstance(p, PoolProblem):
            return self.op
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

    def with_batch(self, n: int) -> "Row":
        """Give the same layer for `n` samples."""
        return replace(self, problem=replace(self.problem, n=n))

    def case(self, direction: str, dtype: str) -> Case:
        """Give what a worker has to know."""
        p, axes = self.problem, slice(3 - self.problem.ndim, None)
        common: dict[str, Any] = {
            "op": self.op,
            "direction": direction,
            "dtype": dtype,
            "kernel": p.kernel[axes],
            "stride": p.stride[axes],
            "padding": p.padding[axes],
            "dilation": p.dilation[axes],
        }
        if isinstance(p, PoolProblem):
            common |= {"x_shape": p.x_shape, "y_shape": p.y_shape}
            return Case(**common, ceil_mode=p.ceil_mode)
        common |= {"groups": p.g, "weight_shape": p.weight_shape}
        if self.op == "conv":
            return Case(**common, x_shape=p.x_shape, y_shape=p.y_shape)
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
        return Case(
            **common,
            x_shape=p.y_shape,
            y_shape=p.x_shape,
            output_padding=rest[axes],
        )


def spell(problem: ConvProblem | PoolProblem) -> str:
    """Spell a problem; a pooling like the depthwise convolution of its shape.

    Examples
    --------
    >>> spell(PoolProblem.pool("", (8, 64, 112, 112), 3, 2, 1))
    'n8c64ih112kh3sh2ph1'
    """
    if isinstance(problem, ConvProblem):
        return str(problem)
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


def parse(op: str, spelling: str) -> ConvProblem | PoolProblem:
    """Read the spelling of a problem of an operation; `spell` gives it.

    Raises
    ------
    ValueError
        When the text is not a spelling, or the problem not a legal one.
    """
    if "pool" not in op:
        return ConvProblem.parse(spelling)
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


def suites() -> tuple[str, ...]:
    """Names that `suite` knows."""
    return (*_layers()["suites"], "extra", "small", "tiny")


def suite(name: str) -> tuple[Row, ...]:
    """Give the rows of a suite, in their order, with the batch to be measured.

    Raises
    ------
    ValueError
        When there is no suite of that name.

    Examples
    --------
    >>> suite("core")[0].spelling
    'n13g1ic3ih224oc64kh7sh2ph3'
    """
    if name == "extra":
        named = {row.name: row for other in _layers()["suites"] for row in suite(other)}
        return tuple(named[row] for row in _EXTRA)
    written = {"small": _SMALL, "tiny": _TINY, "pool": _POOL}.get(name, ())
    read = _layers()["suites"].get(name)
    if read is None and not written:
        raise ValueError(
            f"suite: name must be one of {', '.join(suites())}, got {name!r}"
        )
    rows = [row for name, op, text in written for row in _rows(name, op, text)]
    for entry in read or ():
        for op in entry["op"] if isinstance(entry["op"], list) else [entry["op"]]:
            found = _rows(entry["name"], op, entry["problem"])
            batch = entry.get("bench_n")
            rows += [row.with_batch(batch) for row in found] if batch else found
    return tuple(rows)


def _rows(name: str, op: str, spelling: str) -> Iterator[Row]:
    """Give the row; a max pooling is measured without and with its indices."""
    problem = parse(op, spelling)
    yield Row(name, op, problem)
    if op == "max_pool":
        yield Row(name, "max_pool_indices", problem)


@cache
def _layers() -> dict[str, Any]:
    layers: dict[str, Any] = json.loads(_DATA.read_text("utf-8"))
    return layers
