"""Dropout: zeros at random while training."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

import numpy as np

from convcore import functional as F
from convcore.arguments import Seed, generator
from convcore.functional._checks import share
from convcore.nn.layer import Backward, Layer
from convcore.runtime.arrays import Array

__all__ = ["Dropout"]


class Dropout(Layer):
    """Set elements to 0 at random in `forward`; pass everything on in `layer(x)`.

    Parameters
    ----------
    p : float
        Probability of a zero, 0 <= p <= 1; what stays is divided by 1 - p.
    rng : numpy.random.Generator or int
        Source of the keys of the masks, drawn from at each `forward`; nothing but the
        key is kept for backward. There is no default: two
        layers with one seed would drop the same elements. `reset_parameters` of the
        whole network gives each layer its own.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.keyed_dropout

    Examples
    --------
    >>> layer = Dropout(0.5, rng=0)
    >>> y, backward = layer.forward(np.ones((2, 4), np.float32))
    >>> bool((backward(np.ones((2, 4), np.float32)) == y).all())
    True
    """

    def __init__(self, p: float = 0.5, *, rng: Seed) -> None:
        self.p = share("Dropout", "p", p)
        self.rng = generator("Dropout", rng)

    def __call__(self, x: Array) -> Array:
        return x

    def forward(self, x: Array) -> tuple[Array, Backward]:
        key = F.dropout_key(self.rng)
        y = F.keyed_dropout(x, key, self.p)
        return y, lambda grad_y: F.keyed_dropout_backward(grad_y, key, self.p)

    def _reset(self, rng: np.random.Generator) -> None:
        self.rng = np.random.default_rng(rng.integers(2**63, size=2).tolist())

    def _arguments(self) -> str:
        return f"p={self.p}"
