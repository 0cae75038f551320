"""Local response normalisation: each channel by its neighbours."""

# ruff: noqa: D102 (__call__ and forward have the docstrings of Layer)

from convcore import functional as F
from convcore.arguments import integer, real
from convcore.nn.layer import Backward, Layer, changed
from convcore.runtime.arrays import Array

__all__ = ["LocalResponseNorm"]


class LocalResponseNorm(Layer):
    """Divide each channel by a power of the sum of squares of its neighbours.

    Parameters
    ----------
    size : int
        Channels of a window.
    alpha, beta, k : float
        As in `convcore.functional.local_response_norm`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    See Also
    --------
    convcore.functional.local_response_norm

    Examples
    --------
    >>> layer = LocalResponseNorm(5, k=2.0)
    >>> layer(np.ones((5, 3, 8, 8), np.float32)).shape
    (5, 3, 8, 8)
    """

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
    ) -> None:
        name = type(self).__name__
        self.size = integer(name, "size", size, 1)
        self.alpha = real(name, "alpha", alpha)
        self.beta = real(name, "beta", beta)
        self.k = real(name, "k", k)

    def __call__(self, x: Array) -> Array:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        how = self.size, self.alpha, self.beta, self.k

        def backward(grad_y: Array) -> Array:
            return F.local_response_norm_backward(grad_y, x, *how)

        return F.local_response_norm(x, *how), backward

    def _arguments(self) -> str:
        options = changed(self, alpha=1e-4, beta=0.75, k=1.0)
        return ", ".join([str(self.size), *options])
