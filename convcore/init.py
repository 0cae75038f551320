"""Initialisers: the first values of a layer's weights.

Each one takes the shape of the weight and a random generator, and returns a new array.
Weights are (out, in / groups, *kernel), those of transposed layers
(in, out / groups, *kernel), those of linear layers (out, in).

The variance-preserving ones draw with a standard deviation of::

    lecun    gain / sqrt(fan_in)                    gain 1
    he       gain / sqrt(fan_in)                    gain sqrt(2), for ReLU
    glorot   gain * sqrt(2 / (fan_in + fan_out))    gain 1

normal, or uniform on [-sqrt(3) * std, sqrt(3) * std). All have zero mean and give every
channel other values, so that channels can learn different things.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed, generator, integer, real
from convcore.runtime.arrays import Array

__all__ = [
    "Initializer",
    "constant",
    "fan",
    "gain",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
]


class Initializer(Protocol):
    """What a layer calls for its weight: any function here but `constant`."""

    def __call__(
        self,
        shape: Sequence[int],
        rng: Seed,
        *,
        groups: int = 1,
        transposed: bool = False,
        dtype: npt.DTypeLike = np.float32,
    ) -> Array:
        """Give a new array of `shape` and `dtype`."""
        ...


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
    return _fan("fan", _weight_shape("fan", shape), groups, transposed)


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
    if activation == "leaky_relu":
        slope = 0.01 if param is None else real("gain", "param", param)
        return math.sqrt(2 / (1 + slope * slope))
    if not isinstance(activation, str) or activation not in _GAINS:
        names = ", ".join([*_GAINS, "leaky_relu"])
        raise ValueError(f"gain: activation must be one of {names}, got {activation!r}")
    if param is not None:
        raise ValueError(f"gain: {activation} takes no param, got {param!r}")
    return _GAINS[activation]


_GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2.0),
}


def glorot_uniform(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw uniformly with variance gain**2 * 2 / (fan_in + fan_out).

    Parameters
    ----------
    shape : ints
        Shape of the weight; see `fan`.
    rng : numpy.random.Generator or int
        Generator to draw from, or a seed for a new one.
    groups, transposed
        As for `fan`.
    gain : float
        Factor of the standard deviation; see `gain`. At least 0.
    dtype : float32 or float64
        Type of the result. Values are drawn in float64, so that a seed gives the same
        weights, rounded, in float32.

    Returns
    -------
    ndarray
        New array of `shape` and `dtype`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    References
    ----------
    Glorot, Bengio: Understanding the difficulty of training deep feedforward neural
    networks, AISTATS 2010, equation 16.

    Examples
    --------
    >>> weight = glorot_uniform((16, 8, 3, 3), rng=0)
    >>> bool(abs(weight).max() <= (6 / (8 * 9 + 16 * 9)) ** 0.5)
    True
    """
    name = "glorot_uniform"
    fan_in, fan_out = _fan(name, _weight_shape(name, shape), groups, transposed)
    std = _std(name, gain, (fan_in + fan_out) / 2)
    return _uniform(name, shape, rng, std, dtype)


def glorot_normal(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw normally with variance gain**2 * 2 / (fan_in + fan_out).

    Parameters, errors and reference as for `glorot_uniform` (there: equation 12).

    Examples
    --------
    >>> glorot_normal((4, 2, 3), rng=0).shape
    (4, 2, 3)
    """
    name = "glorot_normal"
    fan_in, fan_out = _fan(name, _weight_shape(name, shape), groups, transposed)
    std = _std(name, gain, (fan_in + fan_out) / 2)
    return _normal(name, shape, rng, std, dtype)


def he_uniform(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = _GAINS["relu"],
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw uniformly with variance gain**2 / fan_in: 2 / fan_in for ReLU.

    Parameters and errors as for `glorot_uniform`.

    References
    ----------
    He, Zhang, Ren, Sun: Delving Deep into Rectifiers, ICCV 2015, equation 10; for
    leaky ReLU equation 15, `gain=gain("leaky_relu", slope)`.

    Examples
    --------
    >>> weight = he_uniform((16, 8, 3, 3), rng=0)
    >>> bool(abs(weight).max() <= (6 / (8 * 9)) ** 0.5)
    True
    """
    name = "he_uniform"
    fan_in, _ = _fan(name, _weight_shape(name, shape), groups, transposed)
    return _uniform(name, shape, rng, _std(name, gain, fan_in), dtype)


def he_normal(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = _GAINS["relu"],
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw normally with variance gain**2 / fan_in: 2 / fan_in for ReLU.

    Parameters and errors as for `glorot_uniform`, reference as for `he_uniform`.

    Examples
    --------
    >>> he_normal((4, 2, 3), rng=0).shape
    (4, 2, 3)
    """
    name = "he_normal"
    fan_in, _ = _fan(name, _weight_shape(name, shape), groups, transposed)
    return _normal(name, shape, rng, _std(name, gain, fan_in), dtype)


def lecun_uniform(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw uniformly with variance gain**2 / fan_in.

    Parameters and errors as for `glorot_uniform`.

    References
    ----------
    LeCun, Bottou, Orr, Müller: Efficient BackProp, in Neural Networks: Tricks of the
    Trade, 1998, section 4.6, equation 16.

    Examples
    --------
    >>> weight = lecun_uniform((16, 8, 3, 3), rng=0)
    >>> bool(abs(weight).max() <= (3 / (8 * 9)) ** 0.5)
    True
    """
    name = "lecun_uniform"
    fan_in, _ = _fan(name, _weight_shape(name, shape), groups, transposed)
    return _uniform(name, shape, rng, _std(name, gain, fan_in), dtype)


def lecun_normal(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw normally with variance gain**2 / fan_in.

    Parameters and errors as for `glorot_uniform`, reference as for `lecun_uniform`.

    Examples
    --------
    >>> lecun_normal((4, 2, 3), rng=0).shape
    (4, 2, 3)
    """
    name = "lecun_normal"
    fan_in, _ = _fan(name, _weight_shape(name, shape), groups, transposed)
    return _normal(name, shape, rng, _std(name, gain, fan_in), dtype)


def orthogonal(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw a weight whose matrix is orthogonal, evenly over all such matrices.

    The weight of each group is read as a matrix, its first axis as rows and all others
    as columns. Its rows are orthonormal when it has no more rows than columns, else its
    columns are; times `gain`.

    Parameters and errors as for `glorot_uniform`.

    Notes
    -----
    Householder reflections of normal vectors, in float64 and with NumPy's own sums:
    about 4 r**2 (c - r/3) operations for r rows and c >= r columns, and no LAPACK,
    whose bits depend on its threads.

    References
    ----------
    Saxe, McClelland, Ganguli: Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks, ICLR 2014, section 3. Stewart: The efficient generation
    of random orthogonal matrices, SIAM J. Numer. Anal. 17 (1980), section 3.

    Examples
    --------
    >>> matrix = orthogonal((4, 2, 3, 3), rng=0, dtype=np.float64).reshape(4, 18)
    >>> bool(np.allclose(matrix @ matrix.T, np.eye(4)))
    True
    """
    name = "orthogonal"
    extents = _weight_shape(name, shape)
    _fan(name, extents, groups, transposed)
    factor = real(name, "gain", gain, least=0)
    kind, draw = _float(name, dtype), generator(name, rng)
    rows, columns = extents[0] // groups, math.prod(extents[1:])
    matrices = np.empty((groups, rows, columns))
    for matrix in matrices:
        matrix[...] = (
            _orthonormal_rows(rows, columns, draw)
            if rows <= columns
            else _orthonormal_rows(columns, rows, draw).T
        )
    return (factor * matrices).astype(kind, copy=False).reshape(extents)


def normal(
    shape: Sequence[int],
    rng: Seed,
    std: float = 0.01,
    *,
    groups: int = 1,
    transposed: bool = False,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw normally with mean 0 and a standard deviation of `std`.

    Parameters
    ----------
    shape : ints
        Shape of the result, one axis or more.
    rng : numpy.random.Generator or int
        Generator to draw from, or a seed for a new one.
    std : float
        Standard deviation; at least 0.
    groups, transposed
        Not looked at: they are here so that every initialiser is called alike.
    dtype : float32 or float64
        Type of the result.

    Returns
    -------
    ndarray
        New array of `shape` and `dtype`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> normal((3, 2), rng=0, std=0.02).dtype
    dtype('float32')
    """
    return _normal("normal", shape, rng, real("normal", "std", std, least=0), dtype)


def constant(
    shape: Sequence[int], value: float = 0.0, *, dtype: npt.DTypeLike = np.float32
) -> Array:
    """Fill an array with one value: for biases and scales, not for weights.

    Channels that start equal get equal gradients and stay equal for ever.

    Parameters
    ----------
    shape : ints
        Shape of the result, one axis or more.
    value : float
        The finite value.
    dtype : float32 or float64
        Type of the result.

    Returns
    -------
    ndarray
        New array of `shape` and `dtype`.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> constant((3,), 0.5)
    array([0.5, 0.5, 0.5], dtype=float32)
    """
    extents = _shape("constant", shape)
    number = real("constant", "value", value)
    return np.full(extents, number, dtype=_float("constant", dtype))


_ITEM_BYTES = 8  # drawn in float64, whatever the dtype


def _shape(function: str, shape: Any) -> tuple[int, ...]:
    """Give the shape as a tuple of ints >= 1."""
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise TypeError(f"{function}: shape must be a tuple of integers, got {shape!r}")
    if not shape:
        raise ValueError(f"{function}: shape must have an axis, got {shape!r}")
    extents = tuple(integer(function, "every extent of shape", e, 1) for e in shape)
    if math.prod(extents) * _ITEM_BYTES >= 2**63:
        raise ValueError(
            f"{function}: shape must be addressable with 63 bits, got {shape!r}"
        )
    return extents


def _weight_shape(function: str, shape: Any) -> tuple[int, ...]:
    """Give the shape of a weight, which has two axes of channels."""
    extents = _shape(function, shape)
    if len(extents) < 2:
        raise ValueError(f"{function}: shape must have 2 axes or more, got {shape!r}")
    return extents


def _fan(
    function: str, extents: tuple[int, ...], groups: int, transposed: bool
) -> tuple[int, int]:
    """Count the fans for `function`, which errors name."""
    count = integer(function, "groups", groups, 1)
    if extents[0] % count:
        raise ValueError(
            f"{function}: groups must divide the first extent of shape {extents}, "
            f"got {groups!r}"
        )
    taps = math.prod(extents[2:])
    first, second = extents[0] // count * taps, extents[1] * taps
    return (first, second) if transposed else (second, first)


def _std(function: str, gain: float, fan: float) -> float:
    """Find the deviation with which a sum of `fan` terms has a variance of gain**2."""
    return real(function, "gain", gain, least=0) / math.sqrt(fan)


def _float(function: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Give the dtype, which is float32 or float64."""
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if dtype is None or kind not in (np.float32, np.float64):
        raise TypeError(f"{function}: dtype must be float32 or float64, got {dtype!r}")
    return kind


def _uniform(
    function: str, shape: Any, rng: Seed, std: float, dtype: npt.DTypeLike
) -> Array:
    """Draw uniformly around 0 with the standard deviation `std`."""
    extents, kind = _shape(function, shape), _float(function, dtype)
    bound = math.sqrt(3.0) * std
    return (
        generator(function, rng)
        .uniform(-bound, bound, extents)
        .astype(kind, copy=False)
    )


def _normal(
    function: str, shape: Any, rng: Seed, std: float, dtype: npt.DTypeLike
) -> Array:
    """Draw normally around 0 with the standard deviation `std`."""
    extents, kind = _shape(function, shape), _float(function, dtype)
    return (std * generator(function, rng).standard_normal(extents)).astype(
        kind, copy=False
    )


def _orthonormal_rows(rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Draw a rows x columns matrix, rows <= columns, with orthonormal rows.

    The rows are the first columns of H_0 H_1 ... D, where H_k reflects a normal vector
    of columns - k elements onto its first axis, and D holds the signs that make the
    triangular factor positive: without them the matrices would not be even.
    """
    result = np.eye(rows, columns)
    signs = np.empty((rows, 1))
    for k in reversed(range(rows)):  # so that H_k meets only what is not 0 or 1 yet
        mirror = rng.standard_normal(columns - k)
        length = math.sqrt(np.square(mirror).sum())
        signs[k] = -1.0 if mirror[0] >= 0 else 1.0
        mirror[0] -= signs[k, 0] * length  # same sign as mirror[0]: nothing cancels
        block = result[k:, k:]
        along = (block * mirror).sum(axis=1, keepdims=True)
        block -= along * (mirror * (2 / np.square(mirror).sum()))
    return result * signs
