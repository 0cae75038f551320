"""Layers: parameters, and the closure that the backward pass needs.

    y = layer(x)                        inference: keeps nothing
    y, backward = layer.forward(x)      training
    grad_x = backward(grad_y)           adds to the .grad of the layer's parameters

    accumulate(backward, grad_y)        the same for the input of a network, whose
                                        gradient nobody wants

`backward` holds what it needs, the layer holds nothing. So one layer may stand twice in
a network, and several threads may use it at once: each pass has its own closure. The
gradients add up in the parameters (see `Parameter.add_grad` for threads). Between
`forward` and `backward`, neither x nor the parameters may change.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed, boolean, generator, shown, state_of_names
from convcore.nn.parameter import Parameter, commit
from convcore.nn.serialize import MAX_BYTES, load_npz, save_npz
from convcore.runtime.arrays import Array, checked

__all__ = ["Backward", "Layer", "accumulate"]

Backward = Callable[[Array], Array]


class Layer(ABC):
    """Compute an output from an input, and the input's gradient from the output's.

    A new layer writes `__call__` and `forward`, and sets attributes in its `__init__`:
    a `Parameter` is learned; an ndarray is a buffer, saved but not learned; a `Layer`
    is a child. Parameters, states and children are found by these attributes, and have
    their names, so names and order are those that the same class has in torch. A layer
    with random values also writes `_reset`.

    Examples
    --------
    >>> class Scale(Layer):
    ...     def __init__(self) -> None:
    ...         self.weight = Parameter(np.ones(1), "weight")
    ...     def __call__(self, x):
    ...         return x * self.weight.value
    ...     def forward(self, x):
    ...         def backward(grad):
    ...             self.weight.add_grad((grad * x).sum(keepdims=True).reshape(1))
    ...             return grad * self.weight.value
    ...         return self(x), backward
    >>> layer = Scale()
    >>> y, backward = layer.forward(np.array([3.0, 4.0]))
    >>> backward(np.ones(2)), layer.weight.grad
    (array([1., 1.]), array([7.]))
    """

    @abstractmethod
    def __call__(self, x: Array) -> Array:
        """Compute the output for inference."""

    @abstractmethod
    def forward(self, x: Array) -> tuple[Array, Backward]:
        """Compute the output for training, and the function that takes its gradient."""

    def named_children(self) -> list[tuple[str, "Layer"]]:
        """Give the layers that this one is made of, in order.

        A child with the name "" has no prefix: its parameters are named as if they were
        this layer's own.
        """
        return [(k, v) for k, v in vars(self).items() if isinstance(v, Layer)]

    def children(self) -> list["Layer"]:
        """Give the layers that this one is made of, in order."""
        return [child for _, child in self.named_children()]

    def layers(self) -> list["Layer"]:
        """Give this layer and all below it, depth first, each once."""
        found: dict[int, Layer] = {}
        stack: list[Layer] = [self]
        while stack:
            layer = stack.pop()
            if id(layer) not in found:
                found[id(layer)] = layer
                stack += reversed(layer.children())
        return list(found.values())

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """Give what is learned, in order: each parameter once, by its first name."""
        found: dict[int, tuple[str, Parameter]] = {}
        for name, item in self._state().items():
            if isinstance(item, Parameter):
                found.setdefault(id(item), (name, item))
        return list(found.values())

    def parameters(self) -> list[Parameter]:
        """Give what is learned, in order, each once."""
        return [parameter for _, parameter in self.named_parameters()]

    def parameter_count(self) -> int:
        """Count the scalars that are learned, each once.

        Those that a connection table holds at 0 are not learned.

        Examples
        --------
        >>> from convcore import nn
        >>> nn.Conv2d(6, 16, 5).parameter_count() == 16 * (6 * 5 * 5 + 1)
        True
        """
        stored = sum(parameter.read().size for parameter in self.parameters())
        return stored - sum(layer._fixed_count() for layer in self.layers())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for layer in self.layers():
            for item in vars(layer).values():
                if isinstance(item, Parameter):
                    item.zero_grad()

    def reset_parameters(self, rng: Seed) -> None:
        """Draw all random values anew from one source, here and in all layers below.

        Weights are drawn in order, biases become 0, batch norms forget what they have
        seen, and dropouts get generators of their own.

        Parameters
        ----------
        rng : numpy.random.Generator or int
            Generator to draw from, or a seed for a new one.
        """
        draw = generator(f"{type(self).__name__}.reset_parameters", rng)
        for layer in self.layers():
            layer._reset(draw)

    def state_dict(self) -> dict[str, Array]:
        """Copy all parameters and buffers, by torch's names.

        Returns
        -------
        dict of str to ndarray
            In order. A parameter that has two names, from a shared layer, comes twice.
        """
        return {name: _array(item).copy() for name, item in self._state().items()}

    def load_state_dict(
        self, state: Mapping[str, npt.ArrayLike], strict: bool = True
    ) -> tuple[list[str], list[str]]:
        """Take over all values of a state, or none.

        Parameters
        ----------
        state : mapping of str to ndarray
            What `state_dict` gave, here or in torch (each tensor as an array). Shapes
            and dtypes must be this layer's; the byte order and strides need not.
        strict : bool
            Whether names must be the same. If not, those that are missing keep their
            values, and unexpected ones are left out; shapes and dtypes are checked.

        Returns
        -------
        missing, unexpected : list of str
            Names that only the layer, or only the state has.

        Raises
        ------
        ValueError, TypeError
            When a name, shape or dtype does not fit. Then nothing has changed.
        """
        return self._load(f"{type(self).__name__}.load_state_dict", state, strict)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a file, as `numpy.savez` would.

        Parameters
        ----------
        path : str or PathLike
            Name of the file, kept exactly as given (`numpy.savez` would add ".npz").

        Raises
        ------
        OSError
            When the file cannot be written. Then an older one is still as it was.

        Notes
        -----
        The same state gives the same bytes. The new file is complete and on the disk
        before it takes the name.
        """
        save_npz(path, self.state_dict())

    def load(
        self,
        path: str | PathLike[str],
        strict: bool = True,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> tuple[list[str], list[str]]:
        """Take over the state in a file, or nothing.

        Parameters
        ----------
        path : str or PathLike
            Name of the file, exactly.
        strict : bool
            As for `load_state_dict`, which gives the result, too.
        max_bytes : int
            Refuse files with more data than that.

        Raises
        ------
        ValueError, TypeError
            When the file is not one that `save` could have written for this layer. Then
            nothing has changed.
        OSError
            When there is no such file.

        Notes
        -----
        Safe on files from strangers: nothing is unpickled, and no array is allocated
        that the file does not hold.
        """
        state = load_npz(path, max_bytes=max_bytes)
        return self._load(f"{type(self).__name__}.load: {path}", state, strict)

    def _reset(self, rng: np.random.Generator) -> None:  # noqa: B027 (optional)
        """Draw this layer's own random values anew; children are reset after it."""

    def _fixed_count(self) -> int:
        """Count the scalars of this layer's own parameters that never change."""
        return 0

    def _state(self) -> dict[str, Parameter | Array]:
        """Name all parameters and buffers, in torch's order: own ones first."""
        state: dict[str, Parameter | Array] = {
            name: item
            for kind in (Parameter, np.ndarray)
            for name, item in vars(self).items()
            if isinstance(item, kind)
        }
        for prefix, child in self.named_children():
            for name, item in child._state().items():
                full = f"{prefix}.{name}" if prefix else name
                if state.setdefault(full, item) is not item:
                    raise ValueError(
                        f"{type(self).__name__}: names must be unique, got two tensors "
                        f"with the name {shown(full)}"
                    )
        return state

    def _load(
        self, function: str, state: Mapping[str, Any], strict: bool
    ) -> tuple[list[str], list[str]]:
        """Check everything, then change everything; `function` starts the errors."""
        state_of_names(function, state)
        own = self._state()
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        if boolean(function, "strict", strict) and (missing or unexpected):
            raise ValueError(
                f"{function}: state must have the layer's names; missing "
                f"{_listed(missing)}; unexpected {_listed(unexpected)}"
            )
        new = {
            name: _like(function, name, state[name], _array(item))
            for name, item in own.items()
            if name in state
        }
        first: dict[int, str] = {}
        for name in new:
            other = first.setdefault(id(own[name]), name)
            if other != name and new[other].tobytes() != new[name].tobytes():
                raise ValueError(
                    f"{function}: {other} and {name} are one tensor in this layer, but "
                    "have different values in the state"
                )
        for name in new:
            item = own[name]
            if isinstance(item, Parameter):
                # Before the values: a version that is too new costs one look, one that
                # is too old would serve a stale copy.
                item.touch()
        commit([(_array(own[name]), value) for name, value in new.items()])
        return missing, unexpected

    def _arguments(self) -> str:
        """Spell the arguments for repr."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._arguments()})"


def accumulate(backward: Backward, grad_y: Array) -> None:
    """Add to the gradients of the parameters, without a gradient of x.

    Parameters
    ----------
    backward : callable
        What `forward` gave with y.
    grad_y : shape and dtype of y
        Gradient of y.

    Notes
    -----
    Convolutions and linear layers compute one product less, and chains have their first
    layer do that; other layers compute the gradient of x, which is dropped. The
    parameters' gradients have the same bits.

    Examples
    --------
    >>> from convcore import nn
    >>> layer = nn.Linear(3, 2)
    >>> y, backward = layer.forward(np.ones((5, 3), np.float32))
    >>> accumulate(backward, np.ones_like(y))
    >>> layer.bias.grad
    array([5., 5.], dtype=float32)
    """
    run: Callable[[Array], object] = getattr(backward, "accumulate", backward)
    if not callable(run):
        raise TypeError(
            f"accumulate: backward must be what `forward` gave, got {shown(backward)}"
        )
    run(grad_y)


def given(grad: Array | None) -> Array:
    """Take a gradient that was asked for."""
    assert grad is not None
    return grad


def check_gradient(layer: str, grad_y: Any, shape: tuple[int, ...]) -> None:
    """Raise unless this is an array of the shape of y; for what is reshaped then."""
    checked(layer, "grad_y", grad_y)
    if grad_y.shape != shape:
        raise ValueError(f"{layer}: grad_y must have shape {shape}, got {grad_y.shape}")


def frozen(value: Any) -> Any:
    """Turn lists into tuples, so that an argument that is kept cannot change."""
    if isinstance(value, (tuple, list)):
        return tuple(frozen(item) for item in value)
    return value


def changed(layer: object, **defaults: object) -> list[str]:
    """Spell those of the layer's arguments that are not at their defaults."""
    return [
        f"{name}={value!r}"
        for name, default in defaults.items()
        if (value := getattr(layer, name)) != default
    ]


def _array(item: Parameter | Array) -> Array:
    return item.value if isinstance(item, Parameter) else item


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _like(function: str, name: str, value: Any, own: Array) -> Array:
    """Copy `value` to an array with the shape and dtype of `own`.

    A copy, because a state may hold views of the layer's own values.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{function}: {name} must not be a masked array")
    array = np.asarray(value)
    if array.dtype.newbyteorder("=") != own.dtype:
        raise TypeError(
            f"{function}: {name} must be {own.dtype}, got {array.dtype}; convert it "
            f"with .astype(np.{own.dtype})"
        )
    if array.shape != own.shape:
        raise ValueError(
            f"{function}: {name} must have shape {own.shape}, got {array.shape}"
        )
    if not own.flags.writeable:
        raise ValueError(f"{function}: {name} of the layer is read-only")
    return np.array(array, own.dtype, order="C", subok=False)
