"""Every padding mode of convolution, forward and backward."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convcore
from convcore import algorithms, nn, plan
from convcore import functional as F
from convcore.functional import _sides
from convcore.problem import ConvProblem
from convcore.problem.border import BORDERS, source_index
from convcore.reference.conv import conv, conv_grad_weight, conv_grad_x, conv_loops
from convcore.runtime import cpu
from tests import oracle, strategies
from tests.conv_helpers import CONV, CONV_BACKWARD, TRANSPOSE, TRANSPOSE_BACKWARD

MODES = BORDERS[1:]
LINEAR = tuple(mode for mode in MODES if mode != "constant")
DTYPES = (np.float32, np.float64)
NAMED = (
    "n2g1ic2ih5iw6oc3kh3ph1",
    "n1g2ic4ih6iw40oc34kh3kw5sh2sw1ph1_4pw0_7",
    "n2g1ic17ih8iw5oc9kh2sh3ph5dh2",
    "n1g5ic5ih7iw9oc5kh3kw3ph2_1",  # depthwise
    "n3g1ic2iw23oc20kw4sw2pw9_30",  # wider than x
    "n1g1ic2id3ih4iw5oc3kd3kh2kw3pd1ph1_0pw2",
    "n2g1ic6ih4oc8kh4sh4ph2",  # windows that do not overlap
)


def geometry_of(problem: ConvProblem) -> dict[str, Any]:
    """Give the arguments of the public functions."""
    first = 3 - problem.ndim
    return {
        "stride": problem.stride[first:],
        "padding": problem.padding[first:],
        "dilation": problem.dilation[first:],
        "groups": problem.g,
        "padding_mode": problem.border,
    }


def bordered(spelling: str, mode: str) -> ConvProblem:
    """Read a problem with a border; a constant one holds 3."""
    return ConvProblem.parse(f"{spelling}{mode}{'3' if mode == 'constant' else ''}")


def results(problem: ConvProblem, a: oracle.Operands, algorithm: str) -> Iterator[Any]:
    """Give (direction, result) for all that an algorithm takes."""
    geometry = {**geometry_of(problem), "padding_value": problem.value or 0}
    cards = [card for card in algorithms.CONV if card.name == algorithm]
    for direction in ("fprop", "dgrad", "wgrad"):
        asked = problem.core if direction == "dgrad" else problem
        for card in cards:
            if direction not in card.kernels:
                continue
            if not card.accepts(asked.folded, direction).yes:  # type: ignore[arg-type]
                continue
            if direction == "fprop":
                y = CONV[problem.ndim](a.x, a.w, a.b, algorithm=algorithm, **geometry)
                yield direction, y
                continue
            needs = ("x",) if direction == "dgrad" else ("weight",)
            grads = CONV_BACKWARD[problem.ndim](
                a.grad_y, a.x, a.w, needs=needs, algorithm=algorithm, **geometry
            )
            yield direction, grads[0] if direction == "dgrad" else grads[1]


def expected(problem: ConvProblem, direction: str, a: oracle.Operands) -> Any:
    if direction == "fprop":
        return conv(problem, a.x, a.w, a.b)
    if direction == "dgrad":
        return conv_grad_x(problem, a.grad_y, a.w)
    return conv_grad_weight(problem, a.x, a.grad_y)


def direct_sums() -> list[str]:
    return [card.name for card in algorithms.CONV if not card.transforms]


def check(problem: ConvProblem, dtype: Any, seed: int = 0) -> None:
    """Compare all direct sums with the reference, bit by bit."""
    a = oracle.operands(problem, np.random.default_rng(seed), dtype)
    known: dict[str, Any] = {}
    for algorithm in direct_sums():
        for direction, result in results(problem, a, algorithm):
            if direction not in known:
                known[direction] = expected(problem, direction, a)
            what = f"{algorithm} {direction} of {problem}"
            oracle.assert_exact(result, known[direction], what)


@pytest.mark.parametrize("mode", MODES)
def test_reference_is_the_definition(mode: str) -> None:
    for spelling in NAMED[0], NAMED[5]:
        problem = bordered(spelling, mode)
        a = oracle.operands(problem, np.random.default_rng(1), np.float64)
        oracle.assert_exact(
            conv(problem, a.x, a.w, a.b), conv_loops(problem, a.x, a.w, a.b)
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spelling", NAMED)
def test_named_cases(isa: str, spelling: str, mode: str) -> None:
    for dtype in DTYPES:
        check(bordered(spelling, mode), dtype)


@given(strategies.conv_problems(), st.sampled_from(MODES), st.sampled_from(DTYPES))
def test_any_problem(problem: ConvProblem, mode: Any, dtype: Any) -> None:
    if mode == "reflect" and 1 in problem.in_extent[3 - problem.ndim :]:
        mode = "symmetric"
    value = 3.0 if mode == "constant" else 0.0
    if any(map(any, problem.padding)):
        problem = replace(problem, border=mode, value=value)
    check(problem, dtype)


@pytest.mark.parametrize("mode", BORDERS)
def test_flip_and_windows_that_do_not_overlap(mode: Any) -> None:
    rng = np.random.default_rng(0)
    shapes = (2, 3, 9, 10), (4, 3, 3, 2)
    x, w = (oracle.integers(rng, shape, terms=200) for shape in shapes)
    how = {"padding": ((1, 2), (0, 2)), "padding_mode": mode, "stride": (3, 2)}
    turned = np.ascontiguousarray(w[..., ::-1, ::-1])
    flipped = F.conv2d(x, w, flip=True, **how)
    oracle.assert_bits_equal(flipped, F.conv2d(x, turned, **how))
    grad_y = oracle.integers(rng, flipped.shape, terms=200)
    grad_x, grad_w, _ = F.conv2d_backward(grad_y, x, w, flip=True, **how)
    assert grad_x is not None
    assert grad_w is not None
    zero = F.conv2d(0 * x, w, flip=True, **how)
    oracle.exactly_equal((flipped - zero) * grad_y, grad_x * x)
    oracle.exactly_equal(flipped * grad_y, grad_w * w)


@pytest.mark.parametrize("mode", LINEAR)
@pytest.mark.parametrize("spelling", NAMED)
def test_transposed_is_the_adjoint(spelling: str, mode: str) -> None:
    problem = bordered(spelling, mode)
    a = oracle.operands(problem, np.random.default_rng(2), np.float32)
    first = 3 - problem.ndim
    kernel, dilation = problem.kernel[first:], problem.dilation[first:]
    spread = [
        (o - 1) * s - lo - hi + (k - 1) * d + 1
        for o, s, (lo, hi), k, d in zip(
            problem.out_extent[first:],
            problem.stride[first:],
            problem.padding[first:],
            kernel,
            dilation,
            strict=True,
        )
    ]
    extra = [i - o for i, o in zip(problem.in_extent[first:], spread, strict=True)]
    fits = zip(extra, problem.stride[first:], dilation, strict=True)
    if any(e < 0 or e >= max(s, d) for e, s, d in fits) or min(spread) < 1:
        pytest.skip("no output_padding gives this extent")
    how = {**geometry_of(problem), "output_padding": tuple(extra)}
    if any(extra):
        problem = ConvProblem.transposed(
            "t", a.grad_y.shape, a.w.shape, **{k: v for k, v in how.items()}
        )
    y = TRANSPOSE[problem.ndim](a.grad_y, a.w, a.transposed_b, **how)
    want = conv_grad_x(problem, a.grad_y, a.w) + a.transposed_b.reshape(
        -1, *(1,) * problem.ndim
    )
    oracle.assert_exact(y, want)
    grads = TRANSPOSE_BACKWARD[problem.ndim](a.x, a.grad_y, a.w, **how)
    oracle.assert_exact(grads[0], conv(problem, a.x, a.w))
    oracle.assert_exact(grads[1], conv_grad_weight(problem, a.x, a.grad_y))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("mode", LINEAR)
def test_both_ways_to_the_gradient(
    mode: str, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sides, "whole_is_faster", lambda *key: whole)
    monkeypatch.setattr(_sides, "WHOLE_BYTES", 4000)  # some samples at a time
    for spelling in NAMED:
        problem = bordered(spelling, mode)
        a = oracle.operands(problem, np.random.default_rng(3), np.float32)
        grad_x, _, _ = CONV_BACKWARD[problem.ndim](
            a.grad_y, a.x, a.w, needs=("x",), algorithm="direct", **geometry_of(problem)
        )
        assert grad_x is not None
        oracle.assert_exact(grad_x, conv_grad_x(problem, a.grad_y, a.w))


def test_the_estimate_takes_each_way() -> None:
    """Tiles of a transform may cover the padding for nothing; direct sums do not."""
    small = ConvProblem.parse("n8g1ic64ih14oc64kh3ph1reflect")
    large = ConvProblem.parse("n1g1ic64ih112oc64kh3ph1reflect")
    how = (True, cpu.isa())
    assert _sides.whole_is_faster(small, "float32", "winograd", *how)
    assert not _sides.whole_is_faster(large, "float32", "direct", *how)


def test_sides_are_those_of_the_instruction_set() -> None:
    problem = ConvProblem.parse(NAMED[0] + "reflect")
    for name in cpu.available():
        with cpu.use(name):
            sides = _sides.sides_of(problem, "float32", True, cpu.isa())
            assert {side.plan.isa for side in sides} == {name}


def test_an_algorithm_may_refuse_a_padded_x() -> None:
    """`scatter` takes rows of 2048 scalars; those of a padded x are longer."""
    x, w = np.ones((1, 16, 15)), np.ones((16, 16, 1))
    how = {"padding": [(3833, 5)], "padding_mode": "circular", "algorithm": "scatter"}
    grad_y = np.ones((1, 16, 3853))
    grad_x, _, _ = F.conv1d_backward(grad_y, x, w, needs=("x",), **how)
    assert grad_x is not None
    assert grad_x.sum() == 16 * 16 * 3853


def test_padding_far_beyond_the_windows_takes_no_memory() -> None:
    x, w = np.array([[[1.0, 2.0, 3.0, 4.0]]]), np.array([[[1.0, 10.0, 100.0]]])
    how = {"stride": 2**38, "padding": [(2**40, 2**40)], "padding_mode": "reflect"}
    y = F.conv1d(x, w, **how)
    grad_y = np.arange(1.0, 1 + y.size).reshape(y.shape)
    grad_x, grad_w, _ = F.conv1d_backward(grad_y, x, w, **how)
    assert grad_x is not None
    assert grad_w is not None
    oracle.exactly_equal(y * grad_y, grad_x * x, grad_w * w)


def test_what_is_measured_is_what_is_looked_up() -> None:
    problem = ConvProblem.parse("n1g1ic3ih8oc4kh3ph1reflect")
    asked = set(convcore.autotune(problem, seconds=0.001))
    assert f"{problem.core} dgrad float32" in asked
    assert f"{problem} fprop float32" in asked
    assert convcore.explain(problem, "dgrad").startswith(f"{problem.core} dgrad")
    convcore.forget_tuned()


@pytest.mark.parametrize("mode", MODES)
def test_bits_depend_on_neither_threads_nor_batch(mode: str) -> None:
    problem = bordered("n3g1ic20ih13iw30oc24kh3ph1", mode)
    rng = np.random.default_rng(4)
    x, w = oracle.normal(rng, problem.x_shape), oracle.normal(rng, problem.weight_shape)
    grad_y = oracle.normal(rng, problem.y_shape)
    how = {"padding": 1, "padding_mode": mode, "padding_value": problem.value or 0}

    def all_results(some: slice, algorithm: str) -> list[Any]:
        y = F.conv2d(x[some], w, algorithm=algorithm, **how)
        grads = F.conv2d_backward(
            grad_y[some], x[some], w, needs=("x", "weight"), algorithm=algorithm, **how
        )
        return [y, grads[0], grads[1]]

    every = slice(None)
    before = convcore.get_num_threads()
    for algorithm in ("auto", "direct", "gemm"):
        try:
            convcore.set_num_threads(1)
            alone = all_results(every, algorithm)
            convcore.set_num_threads(4)
            for result, again in zip(alone, all_results(every, algorithm), strict=True):
                oracle.assert_bits_equal(result, again)
        finally:
            convcore.set_num_threads(before)
        if algorithm != "auto":
            for i in range(3):
                some = all_results(slice(i, i + 1), algorithm)
                oracle.assert_bits_equal(some[0], alone[0][i : i + 1])
                oracle.assert_bits_equal(some[1], alone[1][i : i + 1])


@pytest.mark.parametrize("mode", LINEAR)
def test_what_is_not_finite_stays_where_it_is_seen(mode: str) -> None:
    x = np.ones((1, 12, 9, 9), np.float32)
    w = np.ones((10, 12, 3, 3), np.float32)
    x[0, 3, 1, 7] = np.nan
    seen = np.zeros((9, 9), bool)
    for oy, ox, ky, kx in product(range(9), range(9), range(3), range(3)):
        iy, ix = (source_index(o + k - 1, 9, mode) for o, k in ((oy, ky), (ox, kx)))
        seen[oy, ox] |= (iy, ix) == (1, 7)
    for algorithm in ("auto", *direct_sums()):
        problem = ConvProblem.conv("c", x.shape, w.shape, padding=1, padding_mode=mode)
        try:
            plan.select(problem, "fprop", "float32", algorithm)
        except ValueError:
            continue
        y = F.conv2d(x, w, padding=1, padding_mode=mode, algorithm=algorithm)
        assert (np.isnan(y) == seen).all(), algorithm


def test_causal_sees_no_future() -> None:
    x, w = np.zeros((1, 1, 8)), np.ones((1, 1, 3))
    x[..., 4] = 1
    y = F.conv1d(x, w, padding="causal", dilation=2)
    assert np.flatnonzero(y).tolist() == [4, 6]
    assert y.shape == x.shape


def test_a_border_of_nothing_is_the_same_problem() -> None:
    plain = ConvProblem.conv("c", (1, 1, 5), (1, 1, 3))
    for mode in MODES:
        assert ConvProblem.conv("c", (1, 1, 5), (1, 1, 3), padding_mode=mode) == plain
    zero = ConvProblem.conv("c", (1, 1, 5), (1, 1, 3), 1, 1, padding_mode="constant")
    assert zero.border == "zeros"


@pytest.mark.parametrize("mode", MODES)
def test_spelling(mode: str) -> None:
    problem = replace(bordered(NAMED[0], mode), relu=True)
    assert ConvProblem.parse(str(problem)) == problem
    assert str(problem).endswith("relu")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"padding_mode": "mirror"}, ValueError, 'padding_mode must be one of "zeros"'),
        ({"padding_mode": None}, TypeError, "padding_mode must be a string, got None"),
        ({"padding_mode": "reflect"}, ValueError, 'conv2d: "reflect" needs at least 2'),
        (
            {"padding_value": 2.0, "padding_mode": "zeros"},
            ValueError,
            'padding_value needs padding_mode "constant", got 2.0',
        ),
        ({"padding_value": "2"}, TypeError, "padding_value must be a real number"),
        (
            {"padding_value": np.inf},
            ValueError,
            "padding_value must be finite, got inf",
        ),
        ({"padding_value": True}, TypeError, "padding_value must be a real number"),
        ({"padding": -1}, ValueError, "padding must be >= 0"),
        (
            {"padding": "causal"},
            ValueError,
            'padding must be "valid", "same", "full" or',
        ),
    ],
)
def test_errors(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"padding": ((1, 0), (2, 3)), "padding_mode": "constant", **change}
    with pytest.raises(error) as caught:
        F.conv2d(np.zeros((1, 1, 1, 9)), np.zeros((1, 1, 1, 1)), **arguments)
    assert text in str(caught.value)
    assert str(caught.value).startswith("conv2d: ")


def test_a_constant_has_no_transpose() -> None:
    with pytest.raises(
        ValueError, match="conv_transpose1d: padding_mode must be one of"
    ):
        F.conv_transpose1d(
            np.zeros((1, 1, 3)), np.zeros((1, 1, 3)), padding=1, padding_mode="constant"
        )


# Operations with a padding that may be nothing but zeros, and why.
ZEROS_ALONE = {
    "channel_avg_pool": "there are no channels beside the first and the last",
    "channel_avg_pool_backward": "the same",
    "ChannelAvgPool": "the same",
    **{
        f"max_unpool{n}d": "padding tells the shape of what was pooled"
        for n in (1, 2, 3)
    },
    **{
        name: "what lies around x is not real, and not counted: that is the operation"
        for n in (1, 2, 3)
        for name in (
            f"partial_conv{n}d",
            f"partial_conv{n}d_backward",
            f"PartialConv{n}d",
        )
    },
}


def test_every_operation_with_a_padding_has_modes() -> None:
    """And a value for a constant one, but for its transpose, which is none."""
    without, valueless = set(), set()
    for room in (F, nn):
        for name in room.__all__:
            made = getattr(room, name)
            layer = inspect.isclass(made) and issubclass(made, nn.Layer)
            if not layer and not inspect.isfunction(made):
                continue
            arguments = inspect.signature(made).parameters
            if "padding" not in arguments:
                continue
            if "padding_mode" not in arguments:
                without.add(name)
            elif "padding_value" not in arguments:
                valueless.add(name)
    assert without == ZEROS_ALONE.keys()
    assert {name.lower().replace("_", "")[:13] for name in valueless} == {
        "convtranspose"
    }


def test_renormalised_borders_are_partial_convolutions() -> None:
    rng = np.random.default_rng(6)
    x, w = oracle.normal(rng, (2, 3, 7, 8)), oracle.normal(rng, (4, 3, 3, 3))
    y = F.conv2d(x, w, padding=1, border="renormalise")
    oracle.assert_bits_equal(y, F.partial_conv2d(x, w, padding=1))
    grads = F.conv2d_backward(y, x, w, padding=1, border="renormalise")
    others = F.partial_conv2d_backward(y, x, w, padding=1)
    for grad, other in zip(grads, others, strict=True):
        assert grad is not None
        oracle.assert_bits_equal(grad, other)
    flat = F.conv1d(
        np.ones((1, 1, 5)), np.ones((1, 1, 3)), padding=2, border="renormalise"
    )
    assert flat.ravel().tolist() == [3.0] * 7


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"border": "scale"}, "conv2d: border must be"),
        (
            {"padding_mode": "reflect"},
            'conv2d: border "renormalise" needs padding_mode',
        ),
        ({"activation": "relu"}, 'conv2d: border "renormalise" takes no activation'),
    ],
)
def test_errors_of_renormalised_borders(how: dict[str, Any], text: str) -> None:
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match=text):
        F.conv2d(x, w, padding=1, **{"border": "renormalise", **how})
