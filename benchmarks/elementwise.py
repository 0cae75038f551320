"""Cases of what is bound by memory: activations, normalisations, softmax, loss, dropout.

Their shapes are spelt `n32c64ih56`, those with groups of channels `n32c64ih56g32`. What
they have to move at least is said in one table, OPERATIONS: `of copy` judges by it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from benchmarks.case import Array, Case, Ints

TARGET_BYTES = 8  # classes are int64
_AXES = "dhw"
_SPELLING = re.compile(r"n(\d+)c(\d+)((?:i[dhw]\d+)*)(?:g(\d+))?")


@dataclass(frozen=True)
class Operation:
    """One function of `torch.nn.functional`, and what it moves.

    Parameters
    ----------
    function : str
    kind : str
        Of which the report takes means.
    forward, backward : int
        Arrays of the size of x that are read or written, at least; those that are read
        twice count twice, unless what is between fits into a cache.
    options : mapping
        Arguments beside arrays, by name.
    mask_bytes : int
        Of each element, in both directions.
    weighted : bool
        Whether there is a gain and a shift for each channel, or feature.
    last_axis : bool
        Whether the last axis is the one that counts, so that layouts of images mean
        nothing.
    """

    function: str
    kind: str
    forward: int
    backward: int
    options: Mapping[str, Any] = field(default_factory=dict)
    mask_bytes: int = 0
    weighted: bool = False
    last_axis: bool = False


def _norm(function: str, forward: int, backward: int, **more: Any) -> Operation:
    return Operation(function, "normalisation", forward, backward, **more)


def _softmax(function: str, dim: int) -> Operation:
    options = {"dim": dim}
    return Operation(function, "softmax", 2, 3, options, last_axis=dim == -1)


# An activation reads x and writes y; its gradient reads grad_y and x or y, and writes
# grad_x. So do the softmaxes, and the normalisations of a sample's own rows or groups,
# which stay in the cache between the passes. A batch's statistics do not: batch
# normalisation reads x twice, and its gradient grad_y and x.
OPERATIONS: Mapping[str, Operation] = {
    **{
        name: Operation(name, "activation", 2, 3)
        for name in (
            "relu",
            "leaky_relu",
            "relu6",
            "hardtanh",
            "elu",
            "selu",
            "gelu",
            "silu",
            "sigmoid",
            "tanh",
            "softplus",
            "hardsigmoid",
            "hardswish",
        )
    },
    "prelu": Operation("prelu", "activation", 2, 3, weighted=True),
    "gelu_tanh": Operation("gelu", "activation", 2, 3, {"approximate": "tanh"}),
    "dropout": Operation("dropout", "dropout", 2, 2, {"p": 0.5}, mask_bytes=1),
    "softmax": _softmax("softmax", 1),
    "softmax_last": _softmax("softmax", -1),
    "log_softmax": _softmax("log_softmax", 1),
    "log_softmax_last": _softmax("log_softmax", -1),
    "cross_entropy": Operation("cross_entropy", "loss", 1, 2),
    "batch_norm": _norm("batch_norm", 3, 5, options={"training": True}, weighted=True),
    "batch_norm_inference": _norm(
        "batch_norm", 2, 3, options={"training": False}, weighted=True
    ),
    "layer_norm": _norm("layer_norm", 2, 3, weighted=True, last_axis=True),
    "rms_norm": _norm("rms_norm", 2, 3, weighted=True, last_axis=True),
    "group_norm": _norm("group_norm", 2, 3, weighted=True),
    "instance_norm": _norm("instance_norm", 2, 3, weighted=True),
    "local_response_norm": _norm("local_response_norm", 2, 3, options={"size": 5}),
}


@dataclass(frozen=True)
class Elementwise:
    """The shape of an operation whose result has the shape of its input.

    Parameters
    ----------
    n, c : int
    extents : tuple of int
        Of up to three spatial axes.
    groups : int
        Of channels.
    """

    n: int
    c: int
    extents: Ints = ()
    groups: int = 1

    @property
    def x_shape(self) -> Ints:
        """(n, c, *extents)."""
        return (self.n, self.c, *self.extents)

    def __str__(self) -> str:
        axes = _AXES[len(_AXES) - len(self.extents) :]
        if len(set(self.extents)) == 1:
            axes = axes[:1]
        spelt = zip(axes, self.extents, strict=False)
        text = "".join(f"i{axis}{extent}" for axis, extent in spelt)
        groups = f"g{self.groups}" if self.groups > 1 else ""
        return f"n{self.n}c{self.c}{text}{groups}"

    @staticmethod
    def parse(text: str) -> "Elementwise":
        """Read the spelling that `str` gives; equal extents are spelt once.

        Raises
        ------
        ValueError

        Examples
        --------
        >>> Elementwise.parse("n8c64ih112").x_shape
        (8, 64, 112, 112)
        """
        match = _SPELLING.fullmatch(text)
        spelt = dict(re.findall(r"i([dhw])(\d+)", text))
        axes = _AXES[_AXES.index(min(spelt)) :] if spelt else ""
        if match is None or len(spelt) not in {0, 1, len(axes)}:
            raise ValueError(f"parse: a shape must be spelt n..c..i..g.., got {text!r}")
        n, c, _, groups = match.groups()
        extents = tuple(int(spelt.get(axis) or spelt[axes[0]]) for axis in axes)
        return Elementwise(int(n), int(c), extents, int(groups or 1))


@dataclass(frozen=True)
class ElementwiseCase(Case):
    """One operation of the table.

    Parameters
    ----------
    op : str
        A name in OPERATIONS.
    groups : int
        Of channels, for those that have them.
    """

    groups: int = 1

    @property
    def operation(self) -> Operation:
        """What the table says."""
        return OPERATIONS[self.op]

    @property
    def backward(self) -> bool:
        """Whether it is the gradient: of x, and of the weights where there are any."""
        return self.direction == "dgrad"

    @property
    def y_shape(self) -> Ints:
        """Of the result; a loss is one number."""
        return () if self.op == "cross_entropy" else self.x_shape

    @property
    def weight_shape(self) -> Ints:
        """Of gain and shift together; () without them."""
        features = self.x_shape[-1 if self.operation.last_axis else 1]
        return (2, features) if self.operation.weighted else ()

    @property
    def bytes(self) -> int:
        """Bytes by the table; weights and statistics are not counted."""
        operation = self.operation
        arrays = operation.backward if self.backward else operation.forward
        element = arrays * self.itemsize + operation.mask_bytes
        targets = 0 if self.y_shape else TARGET_BYTES * self.targets().size
        return element * prod(self.x_shape) + targets

    @property
    def shapes(self) -> dict[str, Ints]:
        """Shapes of x, of the weights, and of grad_y for the gradient."""
        found = {"x": self.x_shape, "weight": self.weight_shape}
        if self.backward:
            found["grad_y"] = self.y_shape
        return {role: shape for role, shape in found.items() if shape}

    @property
    def spread(self) -> float:
        """Enough for all branches of the activations."""
        return 16.0

    @property
    def tolerance(self) -> float:
        """Torch takes 1/6 as a float32 in its gradient, in float64, too."""
        return 1e-7 if self.op == "hardsigmoid" else super().tolerance

    @property
    def repeatable(self) -> bool:
        """All but the mask that dropout draws."""
        return self.op != "dropout" or self.backward

    def targets(self) -> Array:
        """Give the true classes of a loss: (n, *extents) int64, the same everywhere."""
        shape = (self.x_shape[0], *self.x_shape[2:])
        return (np.arange(prod(shape)) * 7919 % self.x_shape[1]).reshape(shape)

    def mask(self) -> Array:
        """Give what the gradient of dropout keeps: bools of the shape of x."""
        return np.random.default_rng(0).random(self.x_shape, np.float32) >= 0.5
