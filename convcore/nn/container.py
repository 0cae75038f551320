"""Layers made of layers: a chain, a shortcut around one, and several side by side."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

import itertools
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import combinations, pairwise
from typing import cast, overload

import numpy as np

from convcore.arguments import Seed, integer, shown
from convcore.nn.activation import ReLU
from convcore.nn.conv import rectified
from convcore.nn.layer import Backward, Layer, accumulate, check_gradient
from convcore.nn.parameter import Parameter, add
from convcore.runtime.arrays import Array, empty

__all__ = ["Concat", "Residual", "Sequential"]


class _Container(Layer):
    """Show its children, one a line, and check them."""

    def _finish(self, rng: Seed | None) -> None:
        """Check the children, and draw their values anew if there is an rng."""
        title = type(self).__name__
        for name, child in self.named_children():
            if not isinstance(child, Layer):
                raise TypeError(
                    f"{title}: every child must be a layer, got {type(child).__name__}"
                )
            if not isinstance(name, str):
                raise TypeError(f"{title}: names must be strings, got {shown(name)}")
        self._state()  # raises when two tensors would have one name
        if rng is not None:
            self.reset_parameters(rng)

    def __repr__(self) -> str:
        lines = [
            f"({name}): {child!r}".replace("\n", "\n  ")
            for name, child in self.named_children()
        ]
        if not lines:
            return f"{type(self).__name__}({self._arguments()})"
        body = "\n  ".join([*filter(None, [self._arguments()]), *lines])
        return f"{type(self).__name__}(\n  {body}\n)"


class Sequential(_Container):
    """Feed each layer with the output of the one before.

    Parameters
    ----------
    *layers : Layer
        Named "0", "1", ... in `state_dict`. Or one mapping of names to layers, in
        order; the layer named "" has its parameters named as if they were the chain's
        own. Without layers, the chain is the identity.
    rng : numpy.random.Generator or int, optional
        Draw the first values of all layers anew, from this one source.

    Raises
    ------
    TypeError, ValueError
        When something is no layer, or two tensors would have one name.

    Notes
    -----
    A slice is a chain of the same layers, which keep their names. A layer may stand in
    several places: its gradients add up. In inference a `ReLU` behind a convolution is
    done by the convolution, with the same bits.

    Examples
    --------
    >>> from convcore import nn
    >>> model = Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), rng=0)
    >>> list(model.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> y, backward = model.forward(np.ones((5, 3), np.float32))
    >>> backward(np.ones_like(y)).shape, model[0].weight.grad.shape
    ((5, 3), (4, 3))
    """

    def __init__(
        self, *layers: Layer | Mapping[str, Layer], rng: Seed | None = None
    ) -> None:
        self._children: dict[str, Layer] = {}
        for index, layer in enumerate(layers):
            if isinstance(layer, Mapping) and len(layers) == 1:
                self._children.update(layer)
            else:
                self._children[str(index)] = cast(Layer, layer)  # _finish checks it
        self._finish(rng)

    def named_children(self) -> list[tuple[str, Layer]]:
        return list(self._children.items())

    def __call__(self, x: Array) -> Array:
        layers = iter(pairwise([*self, None]))
        for layer, after in layers:
            assert layer is not None
            fused = rectified(layer) if type(after) is ReLU else None
            if fused:
                next(layers)
            x = (fused or layer)(x)
        return x

    def forward(self, x: Array) -> tuple[Array, Backward]:
        steps: list[Backward] = []
        for layer in self:
            x, step = layer.forward(x)
            steps.append(step)
        return x, _ChainBackward(steps)

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._children.values())

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    def __getitem__(self, index: int | slice) -> "Layer | Sequential":
        if isinstance(index, slice):
            return Sequential(dict(self.named_children()[index]))
        return self.children()[index]


class _ChainBackward:
    """The backward passes of the layers of a chain, the last one first."""

    __slots__ = ("_steps",)

    def __init__(self, steps: list[Backward]) -> None:
        self._steps = steps

    def __call__(self, grad: Array) -> Array:
        for step in reversed(self._steps):
            grad = step(grad)
        return grad

    def accumulate(self, grad: Array) -> None:
        """Leave out the gradient of the input of the first layer."""
        for step in reversed(self._steps[1:]):
            grad = step(grad)
        for step in self._steps[:1]:
            accumulate(step, grad)


class Residual(_Container):
    """Add to the output of a body what goes around it: body(x) + shortcut(x).

    Parameters
    ----------
    body : Layer
        Its parameters are named as if they were this layer's own, as in torchvision.
    shortcut : Layer, optional
        Named "downsample", as in torchvision; the identity by default.
    rng : numpy.random.Generator or int, optional
        Draw the first values of all layers anew, from this one source.

    Raises
    ------
    ValueError
        When body and shortcut give different shapes, at the call.

    References
    ----------
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016,
    section 3.2, equations 1 and 2.

    Examples
    --------
    >>> from convcore import nn
    >>> Residual(nn.ReLU())(np.array([-1.0, 2.0]))
    array([-1.,  4.])
    """

    def __init__(
        self, body: Layer, shortcut: Layer | None = None, *, rng: Seed | None = None
    ) -> None:
        self.body = body
        self.shortcut = Sequential() if shortcut is None else shortcut
        self._finish(rng)

    def named_children(self) -> list[tuple[str, Layer]]:
        return [("", self.body), ("downsample", self.shortcut)]

    def __call__(self, x: Array) -> Array:
        return self._sum(self.body(x), self.shortcut(x))

    def forward(self, x: Array) -> tuple[Array, Backward]:
        inside, body_backward = self.body.forward(x)
        around, shortcut_backward = self.shortcut.forward(x)

        def backward(grad: Array) -> Array:
            return add(body_backward(grad), shortcut_backward(grad))

        return self._sum(inside, around), backward

    def _sum(self, inside: Array, around: Array) -> Array:
        if inside.shape != around.shape:
            raise ValueError(
                f"Residual: body and shortcut must give the same shape, got "
                f"{inside.shape} and {around.shape}"
            )
        _check_dtypes("Residual", [inside, around])
        return add(inside, around)


class Concat(_Container):
    """Feed several branches with the same input, and join their outputs along one axis.

    Parameters
    ----------
    *branches : Layer
        Named "0", "1", ...; `Sequential()` is a branch that passes x on.
    dim : int
        Axis to join along; by default that of the channels. Along all others the
        outputs must have the same extents.
    rng : numpy.random.Generator or int, optional
        Draw the first values of all layers anew, from this one source.

    Raises
    ------
    ValueError, TypeError
        When there is no branch, or two branches are equal, parameters and all: they
        would learn the same for ever. At the call, when the outputs do not fit.

    References
    ----------
    Szegedy et al.: Going Deeper with Convolutions, CVPR 2015, section 4.

    Examples
    --------
    >>> from convcore import nn
    >>> layer = Concat(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 3, padding=1))
    >>> layer(np.ones((5, 3, 6, 6), np.float32)).shape
    (5, 12, 6, 6)
    """

    def __init__(self, *branches: Layer, dim: int = 1, rng: Seed | None = None) -> None:
        self.dim = integer("Concat", "dim", dim, -(2**63))
        if not branches:
            raise ValueError("Concat: branches must be at least one, got none")
        self.branches = branches
        self._finish(rng)
        self._check_twins()

    def named_children(self) -> list[tuple[str, Layer]]:
        return [(str(index), branch) for index, branch in enumerate(self.branches)]

    def __call__(self, x: Array) -> Array:
        return self._joined([branch(x) for branch in self.branches])

    def forward(self, x: Array) -> tuple[Array, Backward]:
        passes = [branch.forward(x) for branch in self.branches]
        outputs = [output for output, _ in passes]
        y = self._joined(outputs)
        ends = itertools.accumulate(output.shape[self.dim] for output in outputs)
        edges = list(pairwise([0, *ends]))

        def backward(grad: Array) -> Array:
            check_gradient("Concat", grad, y.shape)
            along = np.moveaxis(grad, self.dim, 0)
            parts = [np.moveaxis(along[lo:hi], 0, self.dim) for lo, hi in edges]
            return reduce(
                add,
                [step(part) for (_, step), part in zip(passes, parts, strict=True)],
            )

        return y, backward

    def _joined(self, outputs: list[Array]) -> Array:
        shapes = [output.shape for output in outputs]
        rank = len(shapes[0])
        if not -rank <= self.dim < rank:
            raise ValueError(
                f"Concat: dim must be an axis of {shapes[0]}, got {self.dim}"
            )
        axis = self.dim % rank
        if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1:
            raise ValueError(
                f"Concat: branches must give the same shape but for axis {axis}, got "
                f"{', '.join(map(str, shapes))}"
            )
        _check_dtypes("Concat", outputs)
        extents = list(shapes[0])
        extents[axis] = sum(shape[axis] for shape in shapes)
        y = empty(tuple(extents), outputs[0].dtype)
        return np.concatenate(outputs, axis=axis, out=y)

    def _check_twins(self) -> None:
        """Refuse two branches of the same layers with the same values."""
        named = [(repr(b), b.parameters(), i) for i, b in enumerate(self.branches)]
        for (text, values, one), (other_text, others, two) in combinations(named, 2):
            if (
                values
                and text == other_text
                and self.branches[one] is not self.branches[two]
                and all(map(_same, values, others))
            ):
                raise ValueError(
                    f"Concat: branches {one} and {two} must not start equal, they "
                    "would learn the same for ever; give Concat an rng, or their "
                    "layers different ones"
                )

    def _arguments(self) -> str:
        return "" if self.dim == 1 else f"dim={self.dim}"


def _check_dtypes(function: str, outputs: list[Array]) -> None:
    dtypes = [str(output.dtype) for output in outputs]
    if len(set(dtypes)) > 1:
        raise TypeError(
            f"{function}: all outputs must have one dtype, got {', '.join(dtypes)}"
        )


def _same(one: Parameter, other: Parameter) -> bool:
    return np.array_equal(one.value, other.value)
