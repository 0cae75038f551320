"""How much each pixel moves the output: gradients, averaged over inputs and weights."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from convcore import nn
from convcore.analysis.paths import checked_shape
from convcore.arguments import Seed, boolean, generator, integer, real
from convcore.runtime.arrays import Array

__all__ = ["EffectiveField", "effective_receptive_field", "influence_map"]

# Two standard deviations of a Gaussian hold 95.45 %: Luo et al., section 3.
OUTSIDE = 0.0455


def influence_map(
    model: nn.Layer,
    input_shape: Sequence[int],
    rng: Seed,
    *,
    draws: int = 16,
    batch: int = 64,
    reset: bool = True,
) -> Array:
    """Measure how far a small change of each pixel moves the output: mean |dy / dx|.

    Parameters
    ----------
    model : nn.Layer
        Any layer, of one's own, too; it is copied, so that neither its parameters nor
        their gradients nor running statistics change.
    input_shape : (C, *spatial)
        Of one sample.
    rng : numpy.random.Generator or int
        Source of the weights, of the inputs, which are standard normal, and of the order
        of the outputs.
    draws : int
        Times that weights are drawn (by `reset_parameters`), with a batch of inputs each.
    batch : int
        Inputs of a draw. Each gives the gradient of one output; outputs take turns, so
        that draws * batch should be a multiple of their number, or large beside it.
    reset : bool
        Whether to draw weights; if not, the model keeps its own, as after training.

    Returns
    -------
    spatial float64 ndarray
        The mean of |d output / d pixel|, over draws, inputs, outputs and the channels of
        the input.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type, or the input does not fit the model.

    Notes
    -----
    Layers work as in training: dropout drops, and batch norms normalise by the batch,
    whose samples they connect. A linear network with independent weights of mean zero, in
    which no two paths of a pixel have the same weights, has E (dy / dx)**2 in proportion
    to the number of paths: this map goes about with the square root of `path_count`. Where
    a border shows pixels again, two paths may have the same weights, and add up.

    One pass forward and one backward for each draw.

    Examples
    --------
    >>> from convcore import nn
    >>> model = nn.Sequential(nn.Conv1d(1, 1, 3), nn.Flatten(), nn.Linear(5, 1))
    >>> influence = influence_map(model, (1, 7), rng=0, draws=50)
    >>> influence.shape, bool(influence[0] < influence[3])
    ((7,), True)
    """
    function = "influence_map"
    shape = checked_shape(function, model, input_shape)
    source = generator(function, rng)
    draws = integer(function, "draws", draws, 1)
    batch = integer(function, "batch", batch, 1)
    boolean(function, "reset", reset)
    outputs: Iterator[int] | None = None
    sums = np.zeros(shape)
    for _ in range(draws):
        y, backward = _run(model, (batch, *shape), source, reset)
        if outputs is None:
            outputs = _turns(math.prod(y.shape[1:]), source)
        grad = np.zeros((batch, math.prod(y.shape[1:])), y.dtype)
        grad[np.arange(batch), [next(outputs) for _ in range(batch)]] = 1
        sums += np.abs(backward(grad.reshape(y.shape))).sum(axis=0, dtype=np.float64)
    mean: Array = sums.mean(axis=0) / (draws * batch)
    return mean


@dataclass(frozen=True)
class EffectiveField:
    """What an output listens to.

    Attributes
    ----------
    map : spatial ndarray
        Mean |gradient| of the central output, beside its maximum: from 0 to 1.
    size : float
        Of a square (or line, or cube) with as many pixels as count: those above the
        given share of the maximum.
    sigma : tuple of float
        Standard deviation of the map along each axis, in pixels, if the map is read as a
        distribution.
    """

    map: Array
    size: float
    sigma: tuple[float, ...]


def effective_receptive_field(
    model: nn.Layer,
    input_shape: Sequence[int],
    rng: Seed,
    *,
    draws: int = 20,
    batch: int = 16,
    reset: bool = True,
    share: float = OUTSIDE,
) -> EffectiveField:
    """Measure what the central output of a network listens to.

    Parameters
    ----------
    model : nn.Layer
        Its output has channels and as many spatial axes as the input. It is copied.
    input_shape : (C, *spatial)
        Of one sample. Where it is smaller than the theoretical receptive field, borders
        cut the map.
    rng, draws, batch, reset
        As for `influence_map`.
    share : float
        A pixel counts if its gradient is above this share of the largest.

    Returns
    -------
    EffectiveField

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type, or the model has no spatial output.

    Notes
    -----
    The gradient is that of one channel at the centre of the output (behind the middle,
    where the extent is even); channels take turns. For a chain of n equal layers the size
    grows with sqrt(n), the theoretical one with n. Mean |gradient| goes with the square
    root of the number of paths, if weights have mean zero, so its sigma is about sqrt(2)
    times that of a row of `path_triangle`.

    References
    ----------
    Luo, Li, Urtasun, Zemel: Understanding the effective receptive field in deep
    convolutional neural networks, NIPS 2016, section 3: a pixel is in the field if its
    gradient is above 1 - 95.45 % of that of the centre, and the size is the square root
    of their number.

    Examples
    --------
    >>> from convcore import nn
    >>> model = nn.Sequential(*[nn.Conv1d(1, 1, 3, padding=1) for _ in range(8)])
    >>> field = effective_receptive_field(model, (1, 41), rng=0, draws=50)
    >>> 9 <= field.size <= 17, 2 < field.sigma[0] < 4
    (True, True)
    """
    function = "effective_receptive_field"
    shape = checked_shape(function, model, input_shape)
    source = generator(function, rng)
    draws = integer(function, "draws", draws, 1)
    batch = integer(function, "batch", batch, 1)
    boolean(function, "reset", reset)
    share = real(function, "share", share, 0, 1)
    sums = np.zeros(shape)
    for draw in range(draws):
        y, backward = _run(model, (batch, *shape), source, reset)
        if y.ndim != len(shape) + 1:
            raise ValueError(
                f"{function}: the output must have {len(shape) - 1} spatial axes, as "
                f"the input has, got shape {y.shape}"
            )
        grad = np.zeros_like(y)
        centre = tuple(extent // 2 for extent in y.shape[2:])
        channels = (draw * batch + np.arange(batch)) % y.shape[1]
        grad[(np.arange(batch), channels, *centre)] = 1
        sums += np.abs(backward(grad)).sum(axis=0, dtype=np.float64)
    field: Array = sums.mean(axis=0)
    if not field.any():
        raise ValueError(f"{function}: the central output must depend on the input")
    field /= field.max()
    size = float(np.count_nonzero(field > share) ** (1 / field.ndim))
    return EffectiveField(field, size, _sigma(field))


def _run(
    model: nn.Layer, shape: tuple[int, ...], rng: np.random.Generator, reset: bool
) -> tuple[Array, nn.Backward]:
    """Run a copy of the model in training mode, with weights and inputs that are drawn."""
    model = copy.deepcopy(model)
    if reset:
        model.reset_parameters(rng)
    parameters = model.parameters()
    dtype = parameters[0].value.dtype if parameters else np.dtype(np.float64)
    return model.forward(rng.standard_normal(shape).astype(dtype))


def _turns(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Give the numbers below `count` for ever, each once before any comes again."""
    while True:
        yield from rng.permutation(count).tolist()


def _sigma(field: Array) -> tuple[float, ...]:
    """Give the standard deviation along each axis of a map read as a distribution."""
    sigmas = []
    for axis in range(field.ndim):
        others = tuple(other for other in range(field.ndim) if other != axis)
        weights = field.sum(axis=others) / field.sum()
        places = np.arange(len(weights))
        mean = (weights * places).sum()
        sigmas.append(math.sqrt((weights * (places - mean) ** 2).sum()))
    return tuple(sigmas)
