"""Stochastic gradient descent."""

from collections.abc import Iterable, Mapping
from typing import Any

from convcore.arguments import boolean, real
from convcore.nn import Parameter
from convcore.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Update by stochastic gradient descent, with momentum if wanted.

    With gradient g, value p and velocity v, which is 0 at first::

        g = g + weight_decay * p
        v = momentum * v + g
        p = p - lr * v                      plain
        p = p - lr * (g + momentum * v)     nesterov

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        What to update.
    lr : float
        Learning rate; at least 0.
    momentum : float
        Share of the velocity that is kept; 0 <= momentum < 1.
    nesterov : bool
        Whether to look one step ahead; needs a momentum above 0.
    weight_decay : float
        Factor of the squared norm's gradient; at least 0.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type, no parameter is given, or the value
        of one is read-only.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum
    in deep learning, ICML 2013, section 2; lr is applied outside the velocity, as in
    torch.

    Examples
    --------
    >>> import numpy as np
    >>> from convcore import nn
    >>> parameter = nn.Parameter(np.ones(2, np.float32))
    >>> optimizer = SGD([parameter], lr=0.5)
    >>> parameter.add_grad(np.array([1.0, -1.0], np.float32))
    >>> optimizer.step()
    >>> parameter.value
    array([0.5, 1.5], dtype=float32)
    """

    _kernel = "sgd"
    _slots = ("momentum",)

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float,
        momentum: float = 0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0,
    ) -> None:
        settings = {
            "lr": lr,
            "momentum": real("SGD", "momentum", momentum, least=0, below=1),
            "nesterov": boolean("SGD", "nesterov", nesterov),
            "weight_decay": weight_decay,
        }
        super().__init__(
            parameters, settings, ("momentum",) if settings["momentum"] else ()
        )

    @staticmethod
    def _check(function: str, settings: Mapping[str, Any]) -> dict[str, float]:
        checked = {
            "lr": real(function, "lr", settings["lr"], least=0),
            "momentum": real(
                function, "momentum", settings["momentum"], least=0, below=1
            ),
            "nesterov": float(bool(settings["nesterov"])),
            "weight_decay": real(
                function, "weight_decay", settings["weight_decay"], least=0
            ),
        }
        if checked["nesterov"] and not checked["momentum"]:
            raise ValueError(f"{function}: nesterov needs a momentum > 0, got 0")
        return checked

    def _numbers(self, step: int) -> tuple[float, ...]:
        names = ("lr", "momentum", "nesterov", "weight_decay")
        return tuple(self._setting(name) for name in names)
