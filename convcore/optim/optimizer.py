"""What all optimisers share: the all-or-nothing step, and the state."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from convcore.arguments import real, state_of_names
from convcore.functional._update import updates
from convcore.nn import Parameter
from convcore.nn.parameter import commit
from convcore.runtime.arrays import Array, flat


class Optimizer(ABC):
    """What every optimiser does; a new one has a kernel, `_check` and `_numbers`.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        What to update; a parameter that comes twice, from a layer used twice, is
        updated once.
    settings : mapping of str to number
        The optimiser's numbers by torch's names, "lr" and "weight_decay" among them.
    slots : tuple of str
        Names of those running averages of the kernel that are kept for each parameter,
        zero at first.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type, no parameter is given, or the value
        of one is read-only.
    """

    _kernel: ClassVar[str]  # in kernels/update.pyx
    _slots: ClassVar[tuple[str, ...]]  # all running averages that it takes

    def __init__(
        self,
        parameters: Iterable[Parameter],
        settings: Mapping[str, Any],
        slots: tuple[str, ...],
    ) -> None:
        function = type(self).__name__
        # Everything that may change is an array, so that one call can commit it all.
        checked = self._check(function, settings)
        self._settings = {name: np.array(value) for name, value in checked.items()}
        self.parameters = _distinct(function, parameters)
        self._steps = np.zeros(len(self.parameters), np.int64)
        self._state = [
            {slot: np.zeros_like(parameter.value) for slot in slots}
            for parameter in self.parameters
        ]

    @property
    def lr(self) -> float:
        """Learning rate of the next step; finite and at least 0."""
        return self._setting("lr")

    @lr.setter
    def lr(self, value: float) -> None:
        self._settings["lr"][...] = real(type(self).__name__, "lr", value, least=0)

    @property
    def updates(self) -> int:
        """Updates so far, counted over all parameters: a step with gradients adds."""
        return int(self._steps.sum())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters:
            parameter.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Raises
        ------
        ValueError, TypeError
            When a gradient's shape or dtype differs from its value's, or a value has
            become read-only. Then nothing has changed.

        Notes
        -----
        After an exception, a KeyboardInterrupt included, all values and the state of
        the optimiser are as before the step, or all are as after it. One pass over
        value, gradient and running averages, bound by memory.
        """
        function = f"{type(self).__name__}.step"
        moving = [
            (index, parameter, gradient)
            for index, parameter in enumerate(self.parameters)
            if (gradient := _gradient(function, parameter)) is not None
        ]
        values = {id(parameter.value) for _, parameter, _ in moving}
        steps = self._steps.copy()
        numbers: dict[tuple[int, str], Array] = {}
        rows: list[tuple[Array | None, ...]] = []
        for index, parameter, gradient in moving:
            steps[index] += 1
            value = parameter.value
            key = int(steps[index]), value.dtype.char
            if key not in numbers:
                numbers[key] = np.array(self._numbers(key[0]), value.dtype)
            gradient = _apart(flat(gradient, value.dtype), values)
            averages = [self._state[index].get(slot) for slot in self._slots]
            rows.append((numbers[key], gradient, value, *averages))
        pending = updates(self._kernel, rows) if rows else iter(())
        for _, parameter, _ in moving:
            # Before the values: a version that is too new costs one look, one that is
            # too old would serve a stale copy.
            parameter.touch()
        commit([(self._steps, steps)], pending)

    def state_dict(self) -> dict[str, Array]:
        """Copy the settings and running averages, for `load_state_dict`.

        Returns
        -------
        dict of str to ndarray
            The settings as 0-d float64, "steps" as int64 per parameter, and
            "<slot>.<index>" for each parameter in order. `numpy.savez` can store it.
        """
        return {name: array.copy() for name, array in self._named().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` of an equal optimiser gave, or nothing.

        Parameters
        ----------
        state : mapping of str to ndarray
            With exactly the names, shapes and dtypes of this optimiser's own.

        Raises
        ------
        ValueError, TypeError
            When a name, shape, dtype or value does not fit. Then nothing has changed.
        """
        function = f"{type(self).__name__}.load_state_dict"
        state_of_names(function, state)
        own = self._named()
        if set(state) != set(own):
            raise ValueError(
                f"{function}: state must have the names of state_dict(), got "
                f"{sorted(set(state) - set(own))} more and "
                f"{sorted(set(own) - set(state))} less"
            )
        new = {name: _like(function, name, state[name], own[name]) for name in own}
        self._check(function, {name: new[name].item() for name in self._settings})
        if new["steps"].min() < 0:
            raise ValueError(f"{function}: steps must be >= 0, got {new['steps']}")
        commit([(own[name], new[name]) for name in own])

    @staticmethod
    @abstractmethod
    def _check(function: str, settings: Mapping[str, Any]) -> dict[str, float]:
        """Give the settings as floats, or raise in the name of `function`."""

    @abstractmethod
    def _numbers(self, step: int) -> tuple[float, ...]:
        """Give the settings of the kernel, for the step of that number, from 1 on."""

    def _setting(self, name: str) -> float:
        """Give one of the settings."""
        return float(self._settings[name])

    def _named(self) -> dict[str, Array]:
        """Name everything that `state_dict` holds."""
        averages = {
            f"{slot}.{index}": average
            for index, state in enumerate(self._state)
            for slot, average in state.items()
        }
        return {**self._settings, "steps": self._steps, **averages}


def _distinct(function: str, parameters: Iterable[Parameter]) -> list[Parameter]:
    """Give the parameters in order, each once."""
    if isinstance(parameters, np.ndarray) or not isinstance(parameters, Iterable):
        raise TypeError(
            f"{function}: parameters must be an iterable of nn.Parameter, "
            f"got {type(parameters).__name__}"
        )
    found = list({id(parameter): parameter for parameter in parameters}.values())
    if not found:
        raise ValueError(f"{function}: parameters must hold at least one, got none")
    for parameter in found:
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"{function}: parameters must be nn.Parameter, "
                f"got {type(parameter).__name__}"
            )
        _check_writeable(function, parameter)
    return found


def _gradient(function: str, parameter: Parameter) -> Array | None:
    """Give the gradient, if there is one, after checking that it can be applied."""
    gradient, value = parameter.grad, parameter.value
    if gradient is None:
        return None
    if not isinstance(gradient, np.ndarray):
        raise TypeError(
            f"{function}: gradient of {parameter.name} must be an array, got "
            f"{type(gradient).__name__}"
        )
    if gradient.dtype != value.dtype:
        raise TypeError(
            f"{function}: gradient of {parameter.name} must be {value.dtype}, "
            f"got {gradient.dtype}"
        )
    if gradient.shape != value.shape:
        raise ValueError(
            f"{function}: gradient of {parameter.name} must have shape {value.shape}, "
            f"got {gradient.shape}"
        )
    _check_writeable(function, parameter)
    return gradient


def _apart(gradient: Array, values: set[int]) -> Array:
    """Give a gradient that no update changes: a copy, if it is a value or a part of one."""
    root: Any = gradient
    while isinstance(root, np.ndarray):
        if id(root) in values:
            return gradient.copy()
        root = root.base
    return gradient


def _check_writeable(function: str, parameter: Parameter) -> None:
    """Raise when the value cannot be updated in place."""
    if not parameter.value.flags.writeable:
        raise ValueError(
            f"{function}: value of {parameter.name} must be writeable, got a read-only "
            "array"
        )


def _like(function: str, name: str, array: Any, own: Array) -> Array:
    """Give a copy of `array`, which must have the shape and dtype of `own`."""
    array = np.asarray(array)
    if array.dtype != own.dtype:
        raise TypeError(f"{function}: {name} must be {own.dtype}, got {array.dtype}")
    if array.shape != own.shape:
        raise ValueError(
            f"{function}: {name} must have shape {own.shape}, got {array.shape}"
        )
    copy: Array = array.copy()
    return copy
