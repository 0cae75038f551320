"""Convolution layers in which chosen maps are connected, and others are not."""

import numpy as np
import numpy.typing as npt

from convcore import functional as F
from convcore import init
from convcore.arguments import Seed
from convcore.functional.call import PackedWeight
from convcore.nn.conv import _Conv
from convcore.nn.layer import Backward
from convcore.nn.weights import Grads, WeightBackward
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array

__all__ = ["MaskedConv1d", "MaskedConv2d", "MaskedConv3d", "lenet5_connections"]

_LENET5 = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def lenet5_connections() -> npt.NDArray[np.bool_]:
    """Give the table of LeNet-5's layer C3: which of 6 maps each of its 16 maps sees.

    Returns
    -------
    table : (16, 6) of bool

    References
    ----------
    LeCun, Bottou, Bengio and Haffner: Gradient-based learning applied to document
    recognition, 1998, Table I.

    Examples
    --------
    >>> int(lenet5_connections().sum())
    60
    """
    rows = [[letter == "X" for letter in row] for row in _LENET5.split()]
    return np.array(rows).T.copy()


class _MaskedConv(_Conv):
    """Convolve chosen maps; arguments as for the usual convolution, and a table."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        connections: Array,
        padding_mode: str = "zeros",
        padding_value: float = 0,
        border: str | None = None,
        flip: bool = False,
        dtype: npt.DTypeLike = np.float32,
        rng: Seed | None = None,
        weight_init: init.Initializer = init.he_uniform,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode=padding_mode,
            padding_value=padding_value,
            border=border,
            flip=flip,
            dtype=dtype,
            rng=rng,
            weight_init=weight_init,
        )
        name, shape = type(self).__name__, self.weight.read().shape[:2]
        if not isinstance(connections, np.ndarray) or connections.dtype != np.bool_:
            kind = getattr(connections, "dtype", type(connections).__name__)
            raise TypeError(f"{name}: connections must be an array of bool, got {kind}")
        if connections.shape != shape:
            raise ValueError(
                f"{name}: connections must have shape {shape}, (out_channels, in_channels "
                f"/ groups), got {connections.shape}"
            )
        self.connections = connections.astype(np.int64)
        self.weight.value = self._masked(self.weight.read())

    def _masked(self, array: Array) -> Array:
        """Give an array like the weight, with 0 where maps are not connected."""
        table = self.connections.reshape(*self.connections.shape, *(1,) * self.ndim)
        masked: Array = np.where(table != 0, array, array.dtype.type(0))
        return masked

    def _kept(self) -> PackedWeight | None:
        state = self.weight.state()
        if state is None:
            return None
        self._packed.renew(
            (state, self.connections.tobytes())
        )  # which may be written to
        return self._packed

    def _seen(self, kept: PackedWeight | None) -> Array:
        if kept is None:
            return self._masked(self.weight.read())
        return kept.made("masked", lambda: self._masked(self.weight.read()))

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """Compute y for training, and the function that takes its gradient."""
        _, conv_backward = self._functions
        weight = self._masked(self.weight.read())

        def gradients(grad_y: Array, needs: tuple[str, ...]) -> Grads:
            grads = conv_backward(grad_y, x, weight, **self._geometry, needs=needs)
            learned = None if grads[1] is None else self._masked(grads[1])
            return grads[0], learned, grads[2]

        return self(x), WeightBackward(self, gradients)

    def _reset(self, rng: np.random.Generator) -> None:
        super()._reset(rng)
        self.weight.value = self._masked(self.weight.read())

    def _fixed_count(self) -> int:
        apart = int((self.connections == 0).sum())
        return apart * int(np.prod(self.kernel_size))


class MaskedConv1d(_MaskedConv):
    """Connect chosen maps: `MaskedConv2d` for (N, C, W) and (C, W)."""

    ndim = 1
    _functions = F.conv1d, F.conv1d_backward


class MaskedConv2d(_MaskedConv):
    """Slide kernels over two axes, of chosen pairs of maps only.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As for `Conv2d`.
    connections : (out_channels, in_channels / groups), bool
        Which maps of x each map of y sees.
    padding_mode, padding_value, border, flip, dtype, rng, weight_init
        As for `Conv2d`. Weights are drawn as if all maps were connected.

    Attributes
    ----------
    weight : Parameter, (out_channels, in_channels / groups, *kernel_size)
        0 where maps are not connected, and its gradient, too: whatever an optimiser makes
        of gradients of 0 and values of 0 stays 0.
    bias : Parameter, (out_channels,), or None
    connections : (out_channels, in_channels / groups), int64
        The table as 0 and 1, saved with the weights.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Notes
    -----
    Weights that something else writes where maps are not connected have no effect. The
    convolution is a dense one, with zeros.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner: Gradient-based learning applied to document
    recognition, 1998, section II.B and Table I.

    Examples
    --------
    >>> layer = MaskedConv2d(6, 16, 5, connections=lenet5_connections())
    >>> layer(np.ones((1, 6, 14, 14), np.float32)).shape
    (1, 16, 10, 10)
    >>> layer.parameter_count()
    1516
    """

    ndim = 2
    _functions = F.conv2d, F.conv2d_backward


class MaskedConv3d(_MaskedConv):
    """Connect chosen maps: `MaskedConv2d` for (N, C, D, H, W) and (C, D, H, W)."""

    ndim = 3
    _functions = F.conv3d, F.conv3d_backward
