"""Adam."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from convcore.arguments import real, shown
from convcore.nn import Parameter
from convcore.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Update by the gradient's running mean over the root of its running square.

    With gradient g, value p, averages m and v, which are 0 at first, and step t::

        g = g + weight_decay * p
        m = m + (1 - beta1) * (g - m)
        v = beta2 * v + (1 - beta2) * g**2
        p = p - lr / (1 - beta1**t) * m / (sqrt(v) / sqrt(1 - beta2**t) + eps)

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        What to update.
    lr : float
        Learning rate; at least 0.
    betas : (float, float)
        Shares of m and of v that are kept; each 0 <= beta < 1.
    eps : float
        Added to the root, so that it is never 0; at least 0.
    weight_decay : float
        Factor of the squared norm's gradient; at least 0.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type, no parameter is given, or the value
        of one is read-only.

    References
    ----------
    Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from convcore import nn
    >>> parameter = nn.Parameter(np.ones(2, np.float32))
    >>> optimizer = Adam([parameter], lr=0.5)
    >>> parameter.add_grad(np.array([8.0, -0.1], np.float32))
    >>> optimizer.step()
    >>> parameter.value.round(3)
    array([0.5, 1.5], dtype=float32)
    """

    _kernel = "adam"
    _slots = ("mean", "square")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"Adam: betas must be two numbers, got {shown(betas)}")
        settings = {
            "lr": lr,
            "beta1": betas[0],
            "beta2": betas[1],
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(parameters, settings, ("mean", "square"))

    @staticmethod
    def _check(function: str, settings: Mapping[str, Any]) -> dict[str, float]:
        limits = {"beta1": 1.0, "beta2": 1.0}
        return {
            name: real(function, name, value, 0, limits.get(name, math.inf))
            for name, value in settings.items()
        }

    def _numbers(self, step: int) -> tuple[float, ...]:
        beta1, beta2 = self._setting("beta1"), self._setting("beta2")
        rate = self.lr / (1 - beta1**step)
        root = math.sqrt(1 - beta2**step)
        eps, decay = self._setting("eps"), self._setting("weight_decay")
        return rate, 1 - beta1, beta2, 1 - beta2, root, eps, decay
