"""What the tests judge by: data, bounds and comparisons.

The judge is always `convcore.reference` on wider numbers, never another kernel. Three
grades of judgement, from strict to loose:

* bits: `assert_bits_equal`, for two runs of one kernel that have to agree exactly;
* values: `assert_exact`, on `integers`, where every sum in every order is exact;
* bound: `assert_close_to_reference`, the library's promise about rounding, on `normal`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from convcore import reference
from convcore.problem import ConvProblem
from tests.answers import remembered

Array = npt.NDArray[Any]
Direction = Literal["fprop", "dgrad", "wgrad", "bgrad"]

DTYPES = (np.float32, np.float64)

# Data ------------------------------------------------------------------------------


def integers(
    rng: np.random.Generator,
    shape: Sequence[int],
    dtype: npt.DTypeLike = np.float32,
    *,
    terms: int,
) -> Array:
    """Draw small integers such that any sum of `terms` products of two is exact.

    Parameters
    ----------
    shape : ints
    dtype : float32 or float64
    terms : int
        Products that are summed into one result; one more is added for a bias.

    Returns
    -------
    values : shape, dtype
        Within [-32, 32], closer to 0 if the sum needs it; never 0, so that a tap that
        was left out is always seen.
    """
    exact = 2 ** (np.finfo(dtype).nmant + 1)  # up to here every integer is a float
    limit = min(32, math.isqrt(exact // (terms + 1)))
    if limit < 1:
        raise ValueError(f"integers: {terms} terms are too many for {np.dtype(dtype)}")
    magnitude = rng.integers(1, limit, size=tuple(shape), endpoint=True)
    return np.asarray(magnitude * rng.choice([-1, 1], size=tuple(shape)), dtype=dtype)


def normal(
    rng: np.random.Generator, shape: Sequence[int], dtype: npt.DTypeLike = np.float32
) -> Array:
    """Draw from the standard normal distribution."""
    return np.asarray(rng.standard_normal(tuple(shape)), dtype=dtype)


def distinct(
    rng: np.random.Generator, shape: Sequence[int], dtype: npt.DTypeLike = np.float32
) -> Array:
    """Draw integers that are all different: a shuffled range around 0, without ties."""
    size = math.prod(shape)
    return np.asarray(rng.permutation(size) - size // 2, dtype=dtype).reshape(shape)


@dataclass(frozen=True)
class Operands:
    """The arrays of one convolution, in one dtype.

    Attributes
    ----------
    x, w, b, grad_y : ndarray
        Of problem.x_shape, problem.weight_shape, (oc,), problem.y_shape.
    transposed_b : ndarray
        The bias of the transposed convolution: (ic,).
    """

    x: Array
    w: Array
    b: Array
    grad_y: Array
    transposed_b: Array


def operands(
    problem: ConvProblem,
    rng: np.random.Generator,
    dtype: npt.DTypeLike = np.float32,
    kind: Literal["integers", "normal"] = "integers",
) -> Operands:
    """Draw all arrays of `problem`; integers are exact in every direction."""
    directions: tuple[Direction, ...] = ("fprop", "dgrad", "wgrad")
    most = max(int(terms(problem, d).max(initial=1)) for d in directions)

    def draw(*shape: int) -> Array:
        if kind == "normal":
            return normal(rng, shape, dtype)
        return integers(rng, shape, dtype, terms=most)

    return Operands(
        draw(*problem.x_shape),
        draw(*problem.weight_shape),
        draw(problem.oc),
        draw(*problem.y_shape),
        draw(problem.ic),
    )


# The promise about rounding --------------------------------------------------------


def wider(dtype: npt.DTypeLike) -> type[np.floating[Any]]:
    """Give the type to judge `dtype` by: more bits, where the machine has more."""
    return np.float64 if np.dtype(dtype) == np.float32 else np.longdouble


def run(problem: ConvProblem, direction: Direction, *arrays: Array | None) -> Array:
    """Run the reference in one direction.

    Every algorithm and instruction set asks the same; the reference is asked once.

    Parameters
    ----------
    direction : "fprop", "dgrad", "wgrad" or "bgrad"
    *arrays : ndarray
        fprop: x, w and optionally b. dgrad: grad_y, w and optionally the bias of the
        transposed convolution. wgrad: x, grad_y. bgrad: grad_y.

    Returns
    -------
    result : ndarray that cannot be written
    """
    return remembered(
        lambda: _asked(problem, direction, *arrays), problem, direction, *arrays
    )


def run_wider(
    problem: ConvProblem, direction: Direction, *arrays: Array | None
) -> Array:
    """Run the reference on the same numbers of the wider type; as `run`."""
    assert not problem.relu
    *pair, bias = (*arrays, None) if len(arrays) < 3 else arrays

    def make() -> Array:
        return _asked(problem, direction, *_widened(_type(arrays), pair))

    sums = remembered(make, "wider", problem, direction, *pair)
    if bias is None:
        return sums
    # As the reference does it, which need not sum anew for each bias.
    return sums + bias.astype(sums.dtype).reshape(-1, *(1,) * problem.ndim)


def _asked(problem: ConvProblem, direction: Direction, *arrays: Array | None) -> Array:
    functions: dict[Direction, Callable[..., Array]] = {
        "fprop": reference.conv,
        "dgrad": reference.conv_transpose,
        "wgrad": reference.conv_grad_weight,
        "bgrad": reference.conv_grad_bias,
    }
    return functions[direction](problem, *arrays)


@lru_cache(maxsize=4096)
def terms(problem: ConvProblem, direction: Direction) -> Array:
    """Count the products summed into each result, without the zeros of the padding.

    Returns
    -------
    count : float64
        Broadcasts against the direction's result.
    """
    if direction == "bgrad":
        return np.full(problem.oc, float(problem.n * math.prod(problem.out_extent)))
    # Every sample, channel and filter counts alike: one of each is enough.
    one = replace(problem, n=1, g=1, ic=1, oc=1)
    x, w, y = (np.ones(s) for s in (one.x_shape, one.weight_shape, one.y_shape))
    if direction == "fprop":
        return reference.conv(one, x, w) * (problem.ic // problem.g)
    if direction == "dgrad":
        return reference.conv_grad_x(one, y, w) * (problem.oc // problem.g)
    return reference.conv_grad_weight(one, x, y) * problem.n


def bound(
    problem: ConvProblem,
    direction: Direction,
    *arrays: Array | None,
    dtype: npt.DTypeLike,
) -> Array:
    """Give the largest error that the library may make, for each element of a result.

    `(2 * sqrt(K) + 4) * u * (sum of |products| + |bias|)`, where K is the number of
    products and u the unit roundoff, half the spacing of `dtype` at 1.

    Parameters
    ----------
    direction, *arrays : as in `run`
    dtype : float32 or float64
        Of the result to be judged.
    """

    def make() -> Array:
        u = wider(dtype)(np.finfo(dtype).eps) / 2
        size = run_wider(problem, direction, *map(_magnitude, arrays))
        allowed: Array = (2 * np.sqrt(terms(problem, direction)) + 4) * u * size
        return allowed

    return remembered(make, "bound", np.dtype(dtype), problem, direction, *arrays)


def assert_close_to_reference(
    actual: Array, problem: ConvProblem, direction: Direction, *arrays: Array | None
) -> None:
    """Hold a result of a convolution against the promise, element by element.

    Parameters
    ----------
    actual : ndarray
        The result, of the dtype of `arrays`.
    direction, *arrays : as in `run`
    """
    dtype = _type(arrays)
    expected = run_wider(problem, direction, *arrays)
    allowed = bound(problem, direction, *arrays, dtype=dtype)
    if np.finfo(expected.dtype).eps == np.finfo(dtype).eps:
        allowed = 2 * allowed  # no wider type on this machine: both results err
    assert_within(actual, expected, allowed, dtype, f"{direction} of {problem}")


def assert_within(
    actual: Array | np.generic,
    expected: Array,
    allowed: Array | float,
    dtype: npt.DTypeLike,
    what: str = "result",
) -> None:
    """Compare with a wider result, where each element has its own allowance.

    Inf and NaN have to be where they are expected, with the right sign.
    """
    _assert_form(actual, np.dtype(dtype), expected.shape, what)
    good = within(actual, expected, allowed)
    if good.all():
        return
    with np.errstate(all="ignore"):
        ratio = np.where(good, 0, np.abs(actual - expected) / allowed)
    ratio = np.where(good | ~np.isnan(ratio), ratio, np.inf)
    raise AssertionError(
        f"{what}: {_listing(~good, actual, expected)}; "
        f"worst error is {ratio.max():.3g} times what is allowed"
    )


def within(
    actual: Array | np.generic, expected: Array, allowed: Array | float
) -> Array:
    """Tell which elements `assert_within` takes."""
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected)
    good: Array = np.isfinite(expected) & (error <= allowed)
    good |= (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    return good


# Exact comparisons -----------------------------------------------------------------


def assert_exact(actual: Array, expected: Array, what: str = "result") -> None:
    """Compare dtype, shape and values; 0 and -0 are one value, and so is any NaN."""
    _assert_form(actual, expected.dtype, expected.shape, what)
    same = (actual == expected) | ((actual != actual) & (expected != expected))
    if not same.all():
        raise AssertionError(f"{what}: {_listing(~same, actual, expected)}")


def assert_bits_equal(actual: Array, expected: Array, what: str = "result") -> None:
    """Compare dtype, shape and every bit: NaN equals the same NaN, 0 is not -0."""
    _assert_form(actual, expected.dtype, expected.shape, what)
    same = _bits(actual) == _bits(expected)
    if not same.all():
        raise AssertionError(f"{what}: {_listing(~same, actual, expected)}")


def _assert_form(
    actual: Any, dtype: np.dtype[Any], shape: tuple[int, ...], what: str
) -> None:
    if not isinstance(actual, (np.ndarray, np.generic)):
        raise AssertionError(f"{what}: got a {type(actual).__name__}, not an array")
    if actual.dtype != dtype:
        raise AssertionError(f"{what}: dtype is {actual.dtype}, expected {dtype}")
    if actual.shape != shape:
        raise AssertionError(f"{what}: shape is {actual.shape}, expected {shape}")


def _bits(array: Array) -> Array:
    """Give the bits of each element as one integer."""
    plain = np.array(array, order="C", ndmin=1)
    return plain.view(f"u{plain.itemsize}").reshape(array.shape)


def _listing(bad: Array, actual: Any, expected: Array) -> str:
    """Say how many elements are wrong, and show the first."""
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return (
        f"{int(bad.sum())} of {bad.size} elements differ, the first at {where}: "
        f"{actual[where]!r}, expected {expected[where]!r}"
    )


def _type(arrays: Sequence[Array | None]) -> np.dtype[Any]:
    return np.result_type(*(a for a in arrays if a is not None))


def _widened(
    dtype: npt.DTypeLike, arrays: Sequence[Array | None]
) -> list[Array | None]:
    return [None if a is None else a.astype(wider(dtype)) for a in arrays]


def _magnitude(array: Array | None) -> Array | None:
    return None if array is None else np.abs(array)


# Gradients -------------------------------------------------------------------------


def finite_difference_check(
    function: Callable[[Array], Any],
    gradient: Array,
    x: Array,
    rng: np.random.Generator,
    *,
    step: float = 1e-5,
    directions: int = 3,
) -> None:
    """Compare a gradient with how `function` changes along random directions.

    Parameters
    ----------
    function : callable
        From an array like x to a scalar. It must be smooth within `step` of x.
    gradient : shape of x, float64
        What is claimed to be its gradient at x.
    x : float64
    step : float
        Central differences err by about step**2 and by 1e-16 / step.
    """
    _assert_form(x, np.dtype(np.float64), x.shape, "x")
    _assert_form(gradient, np.dtype(np.float64), x.shape, "gradient")
    for _ in range(directions):
        v = rng.standard_normal(x.shape)
        ahead, behind = float(function(x + step * v)), float(function(x - step * v))
        numeric = (ahead - behind) / (2 * step)
        claimed = float((gradient * v).sum())
        allowed = 1e-6 * float(np.abs(gradient * v).sum()) + 1e-9 * abs(ahead) + 1e-9
        # Written so that NaN fails, too.
        if not abs(numeric - claimed) <= allowed:
            raise AssertionError(
                f"gradient: slope along a random direction is {claimed!r}, "
                f"measured {numeric!r}, allowed difference {allowed:.3g}"
            )


def gradients_check(
    function: Callable[..., Any],
    arguments: Sequence[Array],
    gradients: Sequence[Array],
    grad_output: Array,
    rng: np.random.Generator,
) -> None:
    """Check the backward pass of an operation, one argument after the other.

    Parameters
    ----------
    function : callable
        Gives the output of the operation from `arguments`.
    arguments, gradients : float64
        Each argument, and what the backward pass gave for it from `grad_output`.
    grad_output : shape of the output
    """
    for place, (argument, gradient) in enumerate(
        zip(arguments, gradients, strict=True)
    ):

        def scalar(changed: Array, place: int = place) -> Any:
            output = function(*arguments[:place], changed, *arguments[place + 1 :])
            return (output * grad_output).sum()

        finite_difference_check(scalar, gradient, argument, rng)


# By hand ---------------------------------------------------------------------------


def convolved(x: Any, w: Any, b: Any = None, **geometry: Any) -> Array:
    """Convolve arrays or nested lists of any rank."""
    x, w = np.asarray(x, float), np.asarray(w, float)
    problem = ConvProblem.conv("conv", x.shape, w.shape, **geometry)
    return reference.conv(problem, x, w, None if b is None else np.asarray(b, float))


def exactly_equal(*sums: Array) -> None:
    """Compare sums of integers, added up as Python integers."""
    first, *rest = (sum(map(int, s.ravel())) for s in sums)
    assert all(other == first for other in rest)
