"""Learning rates that change from epoch to epoch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from convcore.arguments import integer, real, state_of_names
from convcore.optim.optimizer import Optimizer
from convcore.runtime.arrays import Array


class Schedule(ABC):
    """Sets an optimiser's learning rate once per epoch; a new one writes `lr_at`.

    Parameters
    ----------
    optimizer : Optimizer
        Its learning rate at this moment is that of epoch 0.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: optimizer must be an Optimizer, "
                f"got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.epoch = 0

    @abstractmethod
    def lr_at(self, epoch: int) -> float:
        """Give the learning rate of an epoch, counted from 0."""

    def step(self) -> None:
        """Go on to the next epoch and set its learning rate."""
        self.optimizer.lr = self.lr_at(self.epoch + 1)
        self.epoch += 1

    def state_dict(self) -> dict[str, Array]:
        """Copy the epoch and the learning rate of epoch 0, as 0-d arrays."""
        return {"epoch": np.array(self.epoch), "base_lr": np.array(self.base_lr)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, and set the learning rate of its epoch.

        Raises
        ------
        ValueError, TypeError
            When a name or value does not fit. Then nothing has changed.
        """
        function = f"{type(self).__name__}.load_state_dict"
        state_of_names(function, state)
        if set(state) != {"epoch", "base_lr"}:
            raise ValueError(
                f"{function}: state must have the names base_lr and epoch, "
                f"got {sorted(state)}"
            )
        epoch = integer(function, "epoch", _scalar(state["epoch"]), 0)
        base_lr = real(function, "base_lr", _scalar(state["base_lr"]), 0)
        self.epoch, self.base_lr = epoch, base_lr
        self.optimizer.lr = self.lr_at(epoch)


def _scalar(value: Any) -> Any:
    """Give what a 0-d array holds; anything else as it is, for the checks to refuse."""
    if isinstance(value, np.ndarray):
        return value.item() if not value.ndim else value.tolist()
    return value


class StepLR(Schedule):
    """Multiply the learning rate by `gamma` after every `step_size` epochs.

    Parameters
    ----------
    optimizer : Optimizer
        Its learning rate at this moment is that of epoch 0.
    step_size : int
        Epochs between two changes; at least 1.
    gamma : float
        Factor of each change; at least 0.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> from convcore import nn
    >>> from convcore.optim import SGD
    >>> optimizer = SGD(nn.Linear(1, 1).parameters(), lr=8)
    >>> schedule = StepLR(optimizer, step_size=2, gamma=0.5)
    >>> [schedule.lr_at(epoch) for epoch in range(5)]
    [8.0, 8.0, 4.0, 4.0, 2.0]
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1
    ) -> None:
        self.step_size = integer("StepLR", "step_size", step_size, 1)
        self.gamma = real("StepLR", "gamma", gamma, least=0)
        super().__init__(optimizer)

    def lr_at(self, epoch: int) -> float:
        """Give base_lr * gamma ** (epoch // step_size)."""
        epoch = integer("StepLR.lr_at", "epoch", epoch, 0)
        try:
            lr = self.base_lr * self.gamma ** (epoch // self.step_size)
        except OverflowError:
            lr = math.inf
        if lr == math.inf:
            raise ValueError(
                f"StepLR.lr_at: epoch must leave the learning rate finite, got {epoch}"
            )
        return lr


class CosineLR(Schedule):
    """Lower the learning rate along half a cosine, and keep its last value.

    Parameters
    ----------
    optimizer : Optimizer
        Its learning rate at this moment is that of epoch 0.
    t_max : int
        Epoch at which `eta_min` is reached, and kept from then on, where torch's
        `CosineAnnealingLR` would rise again; at least 1.
    eta_min : float
        Lowest learning rate; at least 0.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    References
    ----------
    Loshchilov, Hutter: SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017,
    equation 5, without restarts.

    Examples
    --------
    >>> from convcore import nn
    >>> from convcore.optim import SGD
    >>> optimizer = SGD(nn.Linear(1, 1).parameters(), lr=8)
    >>> schedule = CosineLR(optimizer, t_max=2)
    >>> [round(schedule.lr_at(epoch), 6) for epoch in range(4)]
    [8.0, 4.0, 0.0, 0.0]
    """

    def __init__(self, optimizer: Optimizer, t_max: int, eta_min: float = 0) -> None:
        self.t_max = integer("CosineLR", "t_max", t_max, 1)
        self.eta_min = real("CosineLR", "eta_min", eta_min, least=0)
        super().__init__(optimizer)

    def lr_at(self, epoch: int) -> float:
        """Give eta_min + (base_lr - eta_min) * (1 + cos(pi * epoch / t_max)) / 2."""
        epoch = integer("CosineLR.lr_at", "epoch", epoch, 0)
        angle = math.pi * min(epoch, self.t_max) / self.t_max
        return self.eta_min + (self.base_lr - self.eta_min) * (1 + math.cos(angle)) / 2
