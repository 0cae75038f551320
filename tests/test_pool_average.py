"""The family of average pooling: sums, blurs, feature maps."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import reference
from convcore.problem import PoolProblem
from convcore.runtime import cpu
from tests.fresh import answer
from tests.oracle import (
    Array,
    assert_bits_equal,
    assert_exact,
    assert_within,
    normal,
    wider,
)
from tests.pool_helpers import (
    INF,
    NAN,
    dtypes,
    f,
    inner,
    isas,
    ranks,
    team_of,
    teams,
    whole,
)
from tests.strategies import generators

# Rows around the vectors and strips of the kernels: 2, 4 or 8 doubles.
WIDTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 48, 65)
WINDOWS = [  # kernel, stride, padding
    (1, 1, 0),
    (1, 2, 0),
    (2, 1, 1),
    (2, 2, 0),
    (3, 1, 1),
    (3, 2, 1),
    (2, 3, 0),
    (5, 3, 2),
    (4, 4, 1),
    (3, 8, 1),
    (9, 8, 4),
    (3, 9, 0),
    (16, 2, 8),
    (17, 5, 3),
]


def inside(values: Array, around: float) -> tuple[Array, Array]:
    """Give a copy of values in the middle of other memory, and all of that."""
    memory = np.full(values.size + 128, around, values.dtype)
    part = memory[64:-64].reshape(values.shape)
    part[...] = values
    return part, memory


@dtypes
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_every_width_of_rows(window: Any, dtype: Any, isa: str) -> None:
    """Exact on integers; nothing outside of the arrays counts or is written."""
    kernel, _, padding = window
    rng = np.random.default_rng(1)
    for width in WIDTHS:
        if width + 2 * padding < kernel:
            continue
        shape = (2, 3, 5 if kernel < 5 else kernel + 2, width)
        for count_pad in (True, False):
            rule: dict[str, Any] = {"count_include_pad": count_pad}
            problem = PoolProblem.pool("pool", shape, *window)
            x, _ = inside(whole(rng, shape, dtype), NAN)
            grad_y, _ = inside(whole(rng, problem.y_shape, dtype), NAN)
            y, around_y = inside(np.zeros_like(grad_y), 7.0)
            grad_x, around_x = inside(np.zeros_like(x), 7.0)
            F.avg_pool2d(x, *window, **rule, divisor_override=1, out=y)
            F.avg_pool2d_backward(
                grad_y, shape, *window, **rule, divisor_override=1, out=grad_x
            )
            assert_exact(y, reference.avg_pool(problem, x, count_pad, 1))
            assert_exact(
                grad_x, reference.avg_pool_backward(problem, grad_y, count_pad, 1)
            )
            for around in (around_x, around_y):
                assert (around[:64] == 7).all()
                assert (around[-64:] == 7).all()
            wide = x.astype(wider(dtype))
            expected = reference.avg_pool(problem, wide, count_pad)
            terms = reference.avg_pool(problem, np.abs(wide), count_pad)
            actual = F.avg_pool2d(x, *window, **rule)
            assert_within(actual, expected, rounding(dtype, kernel) * terms, dtype)


# Kernel, stride, padding; with `ceil_mode`, windows hang over the end: along rows and
# columns, in some of several bands, at both ends, and of several blocks in a row.
CUT_OFF = [
    ((1, 5, 8, 8), (3, 2, 1)),
    ((2, 3, 31, 33), (3, 2, 0)),
    ((1, 2, 130, 40), (3, 2, 1)),
    ((3, 9, 7, 5), ((4, 3), (2, 1), ((2, 1), (2, 2)))),
    ((2, 2, 16, 8), ((7, 2), (2, 1), ((3, 3), (0, 0)))),
    ((2, 35, 13, 7), (3, 3, 1)),
    ((2, 4, 20, 43), ((4, 3), (3, 3), (1, 0))),
    ((2, 3, 6, 64), ((2, 5), (3, 2), (1, 2))),
    ((2, 9, 3, 100), (3, (1, 2), (0, 1))),
]


@dtypes
@pytest.mark.parametrize("count_pad", [True, False])
@pytest.mark.parametrize(("shape", "window"), CUT_OFF, ids=str)
def test_windows_that_are_cut_off(
    shape: Any, window: Any, count_pad: bool, dtype: Any, isa: str
) -> None:
    """They divide by what they have, and what they give counts so much more.

    Alone, a channel has the bits that it has beside others, as have any threads.
    """
    rng = np.random.default_rng(2)
    problem = PoolProblem.pool("pool", shape, *window, 1, True)
    rule: dict[str, Any] = {"ceil_mode": True, "count_include_pad": count_pad}
    x, _ = inside(normal(rng, shape, dtype), NAN)
    grad_y, _ = inside(normal(rng, problem.y_shape, dtype), NAN)
    y = F.avg_pool2d(x, *window, **rule)
    grad_x = F.avg_pool2d_backward(grad_y, shape, *window, **rule)
    allowed = rounding(dtype, max(problem.kernel))
    for actual, of, values in (
        (y, reference.avg_pool, x),
        (grad_x, reference.avg_pool_backward, grad_y),
    ):
        wide = values.astype(wider(dtype))
        expected, terms = (of(problem, v, count_pad) for v in (wide, np.abs(wide)))
        assert_within(actual, expected, allowed * terms, dtype)
    for channel in (0, shape[1] - 1):
        part = np.s_[-1:, channel : channel + 1]
        one = F.avg_pool2d(x[part], *window, **rule)
        assert_bits_equal(one, y[part])
        few = (1, 1, *shape[2:])
        one = F.avg_pool2d_backward(grad_y[part], few, *window, **rule)
        assert_bits_equal(one, grad_x[part])


def rounding(dtype: Any, kernel: int) -> float:
    """Bound the relative error: sums of doubles, a division, one rounding."""
    exact = (kernel**2 + 4) * 2.0**-53
    return 2.0**-24 + exact if dtype == np.float32 else exact


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((40, 3, 8, 8), (3, 1, 1)),  # some planes in a band
        ((1, 1, 700, 9), (3, 1, 1)),  # some bands in a plane
        ((1, 2, 300, 40), (3, 2, 1)),
        ((1, 2, 301, 40), (2, 2, 0)),
        ((3, 2, 90, 90), (5, 3, 2)),
        ((1, 2, 9, 14, 14), (3, 1, 1)),
        ((1, 2, 9, 14, 14), (3, 2, 1)),
        ((3, 5, 41, 43), (1, 1, 0)),  # more than one task of elements alone
    ],
)
def test_bands_of_strips(shape: Any, window: Any, isa: str) -> None:
    ndim, rng = len(shape) - 2, np.random.default_rng(2)
    problem = PoolProblem.pool("pool", shape, *window)
    x = rng.integers(-9, 10, shape).astype(np.float32)
    grad_y = rng.integers(-9, 10, problem.y_shape).astype(np.float32)
    for n in (1, 2, 3, 8):
        with team_of(n):
            y = f("sum_pool", ndim)(x, *window)
            grad_x = f("sum_pool_backward", ndim)(grad_y, shape, *window)
        assert_exact(y, reference.avg_pool(problem, x, True, 1))
        assert_exact(grad_x, reference.avg_pool_backward(problem, grad_y, True, 1))


def test_a_large_plane_has_one_gradient(isa: str) -> None:
    """Filled in several goes."""
    grad_y = np.arange(1.0, 7.0).reshape(2, 3, 1, 1) * (150 * 130)
    grad_x = F.global_avg_pool2d_backward(grad_y, (2, 3, 150, 130))
    assert_exact(grad_x, np.broadcast_to(grad_y / (150 * 130), grad_x.shape).copy())


@dtypes
@ranks
def test_sums_are_means_divided_by_one(ndim: int, dtype: Any) -> None:
    x = normal(np.random.default_rng(3), (2, 3, *(11, 9, 6)[:ndim]), dtype)
    window = (3, 2, 1, True)
    y = f("sum_pool", ndim)(x, *window)
    mean = f("avg_pool", ndim)(x, *window, divisor_override=1)
    assert_bits_equal(y, mean)
    back = f("sum_pool_backward", ndim)(y, x.shape, *window)
    same = f("avg_pool_backward", ndim)(y, x.shape, *window, divisor_override=1)
    assert_bits_equal(back, same)


# (depth, height) of a plane and of a window whose columns are pairs.
PAIRS = [((1, 4), (1, 2)), ((1, 1), (1, 1)), ((1, 9), (1, 3)), ((4, 6), (2, 3))]


@dtypes
@pytest.mark.parametrize(("extent", "kernel"), PAIRS, ids=str)
def test_windows_of_two_columns_fill_planes(
    extent: Any, kernel: Any, dtype: Any, isa: str
) -> None:
    """Exact, by any threads; nothing outside of the arrays counts or is written."""
    rng = np.random.default_rng(8)
    for width in (6, 10, 14, 16, 30, 34, 66, 1024):
        shape, window = (7, 5, *extent, width), (*kernel, 2)
        problem = PoolProblem.pool("pool", shape, window)
        x, _ = inside(rng.integers(-9, 10, shape).astype(dtype), NAN)
        grad_y, _ = inside(rng.integers(-9, 10, problem.y_shape).astype(dtype), NAN)
        for n in (1, 2, 3):
            y, around_y = inside(np.zeros_like(grad_y), 7.0)
            grad_x, around_x = inside(np.zeros_like(x), 7.0)
            with team_of(n):
                F.sum_pool3d(x, window, out=y)
                F.sum_pool3d_backward(grad_y, shape, window, out=grad_x)
            assert_exact(y, reference.avg_pool(problem, x, True, 1))
            assert_exact(grad_x, reference.avg_pool_backward(problem, grad_y, True, 1))
            for around in (around_x, around_y):
                assert (around[:64] == 7).all()
                assert (around[-64:] == 7).all()
        x[3, 2, 0, 0, 3] = NAN
        expected = np.isnan(reference.avg_pool(problem, x))
        assert np.array_equal(np.isnan(F.avg_pool3d(x, window)), expected)


@dtypes
def test_nan_stays_in_its_windows_in_every_layout(dtype: Any, isa: str) -> None:
    for width in WIDTHS[2:]:
        for place in (0, width // 2, width - 1):
            x = np.zeros((3, 2, 6, width), dtype)
            x[1, 1, 2, place] = NAN
            for kernel, stride, padding in ((3, 1, 1), (3, 2, 1), (2, 3, 0)):
                problem = PoolProblem.pool("p", x.shape, kernel, stride, padding)
                y = F.avg_pool2d(x, kernel, stride, padding)
                expected = reference.avg_pool(problem, x)
                assert np.array_equal(np.isnan(y), np.isnan(expected))
            back = F.avg_pool2d_backward(x, x.shape, 3, 1, 1)
            problem = PoolProblem.pool("p", x.shape, 3, 1, 1)
            expected = reference.avg_pool_backward(problem, x)
            assert np.array_equal(np.isnan(back), np.isnan(expected))


# Blurs -----------------------------------------------------------------------------

MODES = ("zeros", "reflect", "symmetric", "replicate", "circular")


@st.composite
def blur_calls(draw: st.DrawFn) -> tuple[tuple[int, ...], Any, Any, str]:
    """Draw a shape of x, kernel, stride, and a mode."""
    ndim = draw(st.integers(1, 3))
    mode = draw(st.sampled_from(MODES))
    kernel = tuple(draw(st.integers(1, 15 if ndim == 1 else 6)) for _ in range(ndim))
    stride = tuple(draw(st.sampled_from([1, 2, 3, 4, 7, 9])) for _ in range(ndim))
    least = [2 if mode == "reflect" and k > 1 else 1 for k in kernel]
    room = (40, 14, 5)[ndim - 1]
    spatial = tuple(i + draw(st.integers(0, room)) for i in least)
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *spatial)
    return shape, kernel, stride, mode


@dtypes
@given(call=blur_calls(), rng=generators(), isa=isas, team=teams)
def test_blur_pool_is_the_reference_and_its_own_adjoint(
    dtype: Any, call: Any, rng: np.random.Generator, isa: str, team: int
) -> None:
    shape, kernel, stride, mode = call
    ndim = len(kernel)
    scale = 2.0 ** sum(k - 1 for k in kernel)  # then the weights are integers
    x = (rng.integers(-4, 5, shape) * scale).astype(dtype)
    with cpu.use(isa), team_of(team):
        y = f("blur_pool", ndim)(x, kernel, stride, padding_mode=mode)
        grad_y = (rng.integers(-4, 5, y.shape) * scale).astype(dtype)
        grad_x = f("blur_pool_backward", ndim)(
            grad_y, shape, kernel, stride, padding_mode=mode
        )
    assert_exact(y, reference.blur_pool(x, kernel, stride, mode))
    assert_exact(
        grad_x, reference.blur_pool_backward(grad_y, shape, kernel, stride, mode)
    )
    assert inner(y, grad_y) == inner(x, grad_x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [1, 2, 3, 7, 9])
def test_blur_pool_of_long_rows(mode: str, stride: int, isa: str) -> None:
    """Rows of several blocks, at whose ends other rules hold."""
    rng = np.random.default_rng(5)
    for width in (500, 520, 1300):
        x = (rng.integers(-4, 5, (1, 2, 3, width)) * 256.0).astype(np.float32)
        y = F.blur_pool2d(x, (3, 5), (1, stride), padding_mode=mode)
        assert_exact(y, reference.blur_pool(x, (3, 5), (1, stride), mode))
        grad_y = (rng.integers(-4, 5, y.shape) * 256.0).astype(np.float32)
        back = (x.shape, (3, 5), (1, stride))
        grad_x = F.blur_pool2d_backward(grad_y, *back, padding_mode=mode)
        assert_exact(grad_x, reference.blur_pool_backward(grad_y, *back, mode))


@dtypes
@ranks
def test_bits_of_the_family_depend_on_nothing_but_a_sample(
    ndim: int, dtype: Any, isa: str
) -> None:
    rng = np.random.default_rng(6)
    x = normal(rng, (3, 5, *((1501,), (60, 71), (12, 20, 22))[ndim - 1]), dtype)
    grad = normal(rng, f("blur_pool", ndim)(x).shape, dtype)

    def results(x: Array, grad: Array) -> list[Array]:
        norms = f("lp_pool", ndim)(x, 3, 3, 2)
        return [
            f("blur_pool", ndim)(x),
            f("blur_pool", ndim)(x, 4, 3, padding_mode="circular"),
            f("blur_pool_backward", ndim)(grad, x.shape),
            norms,
            f("lp_pool_backward", ndim)(norms, x, norms, 3, 3, 2),
            f("avg_pool", ndim)(x, 3, 1, 1),
            f("avg_pool", ndim)(x, 5, 3, 2),
            f("avg_pool_backward", ndim)(x, x.shape, 3, 1, 1),
            F.channel_avg_pool(x, 3, 2, 1),
        ]

    with team_of(1):
        expected = results(x, grad)
    for n in (2, 3):
        with team_of(n):
            for actual, same in zip(results(x, grad), expected, strict=True):
                assert_bits_equal(actual, same, f"{n} threads")
    alone = results(x[1:2], grad[1:2])
    for actual, same in zip(alone, expected, strict=True):
        assert_bits_equal(actual, same[1:2], "one sample")


def test_blur_errors() -> None:
    x = np.ones((1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"blur_pool2d: padding_mode must be one of"):
        F.blur_pool2d(x, padding_mode="wrap")
    with pytest.raises(ValueError, match=r"blur_pool2d: kernel_size must be <= 15"):
        F.blur_pool2d(x, 16)
    with pytest.raises(ValueError, match=r'blur_pool2d: "reflect" needs at least 2'):
        F.blur_pool2d(x[..., :1], 3)
    with pytest.raises(ValueError, match=r"blur_pool2d: stride must be >= 1"):
        F.blur_pool2d(x, 3, 0)
    with pytest.raises(ValueError, match=r"grad_output must have the result's shape"):
        F.blur_pool2d_backward(x, x.shape)


# Feature maps ----------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("spatial", [(), (7,), (5, 9), (2, 3, 4)])
def test_channel_avg_pool_is_avg_pool_along_the_channels(
    spatial: tuple[int, ...], dtype: Any
) -> None:
    rng = np.random.default_rng(7)
    x = whole(rng, (2, 11, *spatial), dtype)
    for window in ((2,), (3, 2, 1), (4, 3, ((1, 2),), True, False), (3, 1, 1, False)):
        y = F.channel_avg_pool(x, *window)
        last = np.ascontiguousarray(np.moveaxis(x.reshape(2, 11, -1), 1, 2))
        expected = np.moveaxis(F.avg_pool1d(last, *window), 2, 1)
        assert_exact(y, np.ascontiguousarray(expected).reshape(2, -1, *spatial))
        grad_y = whole(rng, y.shape, dtype)
        grad_x = F.channel_avg_pool_backward(grad_y, x.shape, *window)
        assert inner(y, grad_y) == inner(x, grad_x)


def test_channel_errors() -> None:
    x = np.ones((1, 4, 4))
    with pytest.raises(ValueError, match=r"channel_avg_pool: x must have at least 2"):
        F.channel_avg_pool(np.ones(3), 2)
    with pytest.raises(ValueError, match=r"channel_avg_pool: kernel_size must be >= 1"):
        F.channel_avg_pool(x, 0)
    with pytest.raises(TypeError, match=r"channel_avg_pool: padding must be integers"):
        F.channel_avg_pool(x, 2, 1, "same")
    with pytest.raises(ValueError, match=r"grad_output must have the result's shape"):
        F.channel_avg_pool_backward(x, x.shape, 2)
    with pytest.raises(TypeError, match=r"input_shape must be a tuple, got 4"):
        F.channel_avg_pool_backward(x, 4, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x must have at least 2 axes"):
        F.channel_avg_pool_backward(x, (4,), 2)


# Results in a given place ----------------------------------------------------------


@dtypes
def test_out_is_written_or_refused(dtype: Any) -> None:
    x = normal(np.random.default_rng(8), (2, 4, 6, 6), dtype)
    norms = F.lp_pool2d(x, 2, 2)
    whole_norms = F.global_lp_pool2d(x, 2)
    blurred = F.blur_pool2d(x)
    mean = F.global_avg_pool2d(x)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (F.avg_pool2d, (x, 2)),
        (F.avg_pool2d_backward, (norms, x.shape, 2)),
        (F.sum_pool2d, (x, 2)),
        (F.sum_pool2d_backward, (norms, x.shape, 2)),
        (F.adaptive_avg_pool2d, (x, 4)),
        (F.adaptive_avg_pool2d_backward, (norms, x.shape)),
        (F.global_avg_pool2d, (x,)),
        (F.global_avg_pool2d_backward, (mean, x.shape)),
        (F.lp_pool2d, (x, 2, 2)),
        (F.lp_pool2d, (x, INF, 2)),
        (F.lp_pool2d_backward, (norms, x, norms, 2, 2)),
        (F.global_lp_pool2d, (x, 2)),
        (F.global_lp_pool2d_backward, (whole_norms, x, whole_norms, 2)),
        (F.blur_pool2d, (x,)),
        (F.blur_pool2d_backward, (blurred, x.shape)),
        (F.channel_avg_pool, (x, 2)),
        (F.channel_avg_pool_backward, (F.channel_avg_pool(x, 2), x.shape, 2)),
    ]
    for function, arguments in calls:
        expected = function(*arguments)
        out = np.full_like(expected, NAN)
        assert function(*arguments, out=out) is out
        assert_bits_equal(out, expected)
        with pytest.raises(ValueError, match=r"out must have shape"):
            function(*arguments, out=out[:1])
        with pytest.raises(TypeError, match=r"out must be"):
            function(*arguments, out=out.astype(np.float16))
    with pytest.raises(ValueError, match=r"out must not overlap"):
        F.avg_pool2d(x, 3, 1, 1, out=x)


def test_bands_of_small_vectors_have_a_whole_line_more() -> None:
    """Half of all processes, by where their stack began, wrote beyond the band."""
    code = """
import numpy as np
from convcore import functional as F
for shape, rest in (((2, 17, 10, 3), ((5, 3), (2, 1))), ((2, 33, 6, 6), ((5, 6), (3, 1)))):
    y = F.avg_pool2d(np.ones(shape, "f4"), *rest)
    F.avg_pool2d_backward(np.ones(y.shape, "f4"), shape, *rest)
"""
    for _ in range(5):
        answer(code, CONVCORE_ISA="baseline")


@pytest.mark.parametrize("seed", range(40))
def test_signs_of_zeros_do_not_depend_on_who_follows(seed: int, isa: str) -> None:
    """The last vectors of x were added to 0, others to the first of them, or divided."""
    rng = np.random.default_rng(seed)
    kernel, stride = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    shape = tuple(int(n) for n in rng.integers(kernel, 90, rng.integers(1, 3)))
    window = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": int(rng.integers(0, kernel // 2 + 1)),
        "ceil_mode": bool(rng.integers(2)),
        "count_include_pad": bool(rng.integers(2)),
    }
    pool = getattr(F, f"avg_pool{len(shape)}d")
    x = np.full((3, 2, *shape), -0.0, rng.choice([np.float32, np.float64]))
    y = pool(x, **window)
    backward = getattr(F, f"avg_pool{len(shape)}d_backward")
    grad = backward(np.full_like(y, -0.0), x.shape, **window)
    for some in (y, grad):
        for sample in some:
            np.testing.assert_array_equal(np.signbit(sample), np.signbit(some[2]))
    np.testing.assert_array_equal(np.signbit(pool(x[2:], **window)), np.signbit(y[2:]))
