"""What an output sums, what an input feeds, and what an activation leaves of it."""

import math
from collections.abc import Sequence

from convcore.arguments import boolean, integer, one_of, real, shown
from convcore.init.drawing import weight_extents

__all__ = ["fan", "gain"]

RELU = math.sqrt(2.0)


def fan(
    shape: Sequence[int], groups: int = 1, transposed: bool = False
) -> tuple[int, int]:
    """Count the inputs that one output sums, and the outputs that one input feeds.

    Parameters
    ----------
    shape : (out, in / groups, *kernel), or (in, out / groups, *kernel) if transposed
        Shape of the weight; two axes or more.
    groups : int
        Groups of the convolution; divides the first extent.
    transposed : bool
        Whether the weight belongs to a transposed convolution.

    Returns
    -------
    fan_in, fan_out : int
        in / groups * taps and out / groups * taps, where taps is the number of
        elements of one kernel plane.

    Raises
    ------
    ValueError, TypeError
        When the shape has fewer than two axes or an extent below 1, or `groups` does
        not divide its first extent.

    Notes
    -----
    Counted for stride 1; a stride of s divides fan_out of a convolution, and fan_in of
    a transposed one, by about s along each axis. `torch.nn.init` reads the fans from
    the shape alone: it leaves groups out of fan_out, and swaps the fans of transposed
    layers.

    Examples
    --------
    >>> fan((8, 4, 3, 3))
    (36, 72)
    >>> fan((8, 1, 3, 3), groups=8)
    (9, 9)
    >>> fan((8, 4, 3, 3), transposed=True)
    (72, 36)
    """
    return fans_of("fan", weight_extents("fan", shape), groups, transposed)


def gain(activation: str, param: float | None = None) -> float:
    """Give the factor that keeps the variance through an activation.

    Parameters
    ----------
    activation : str
        "linear", "sigmoid", "tanh", "relu" or "leaky_relu".
    param : float, optional
        Negative slope of "leaky_relu", 0.01 by default; the others take none.

    Returns
    -------
    float
        sqrt(2) for ReLU, which drops half of the variance; sqrt(2 / (1 + slope**2)) for
        leaky ReLU; 5/3 for tanh, which is torch's value; 1 for the others.

    Raises
    ------
    ValueError, TypeError
        When the activation is unknown, or `param` is not for it.

    References
    ----------
    He, Zhang, Ren, Sun: Delving Deep into Rectifiers, ICCV 2015, equations 10 and 15.

    Examples
    --------
    >>> gain("leaky_relu", 1.0)
    1.0
    """
    one_of("gain", "activation", activation, (*_GAINS, "leaky_relu"))
    if activation == "leaky_relu":
        slope = 0.01 if param is None else real("gain", "param", param)
        return math.sqrt(2 / (1 + slope * slope))
    if param is not None:
        raise ValueError(f"gain: {activation} takes no param, got {shown(param)}")
    return _GAINS[activation]


_GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": RELU,
}


def fans_of(
    function: str, extents: tuple[int, ...], groups: int, transposed: bool
) -> tuple[int, int]:
    """Count the fans for `function`, which errors name."""
    count = integer(function, "groups", groups, 1)
    if extents[0] % count:
        raise ValueError(
            f"{function}: groups must divide the first extent of shape {extents}, "
            f"got {shown(groups)}"
        )
    taps = math.prod(extents[2:])
    first, second = extents[0] // count * taps, extents[1] * taps
    turned = boolean(function, "transposed", transposed)
    return (first, second) if turned else (second, first)
