"""What convolution promises beside right sums: bits, values, memory, interruption."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from convcore import functional as F
from convcore import reference
from convcore.problem import ConvProblem
from tests import oracle, strategies
from tests.cases import CASES
from tests.conv_helpers import (
    CONV,
    CONV_BACKWARD,
    DIRECTIONS,
    accepting,
    arguments,
    check_exactly,
    compute,
)

# Bits ------------------------------------------------------------------------------

BIG = [
    "n3g1ic20ih23oc37kh3ph1",
    "n2g1ic3ih50oc70kh5sh3ph2",
    "n2g2ic40ih17oc30kh3sh2ph1",
    "n2g3ic3ih40oc3kh5ph2",
    "n1g1ic2iw20000oc3kw5",
    "n2g1ic300ih5oc40kh2",
    "n3g5ic5ih50oc10kh3ph1",
    "n3g5ic20ih31oc15kh5sh2ph2",
    "n1g1ic1ih300oc1kh3ph1",
    "n2g1ic70ih30oc80kh3ph1",
    "n5g1ic40ih12oc60kh5",
    "n1g1ic40iw3000oc50kw3pw4dw4",
    "n1g1ic3ih90iw80oc40kh7sh2ph3",
    "n1g1ic3id12ih40oc20kd3pd1",
    "n1g1ic1ih98iw28oc30kh19kw28",
    "n1g1ic18id6ih12oc50kd3",
    "n1g1ic16ih60oc50kh5ph2",
    "n2g1ic40id5ih20oc50kd1",
    "n2g1ic30ih40oc150kh1",
    "n2g20ic20ih40iw60oc20kh3sh2ph1",
]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("text", BIG)
def test_bits_do_not_depend_on_threads(
    text: str,
    direction: oracle.Direction,
    isa: str,
    team: Callable[[int], None],
) -> None:
    problem = ConvProblem.parse(text)
    for dtype in oracle.DTYPES:
        a = oracle.operands(problem, np.random.default_rng(2), dtype, kind="normal")
        arrays = arguments(direction, a)
        for algorithm, own in accepting(problem):
            if own != direction:
                continue
            team(1)
            alone = compute(problem, algorithm, direction, *arrays)
            for n in (2, 3, 8, 8):
                team(n)
                oracle.assert_bits_equal(
                    compute(problem, algorithm, direction, *arrays),
                    alone,
                    f"{algorithm}, {n} threads",
                )


@pytest.mark.parametrize("algorithm", ["direct", "winograd", "fft"])
def test_long_gradients_are_summed_in_steps(
    algorithm: str, team: Callable[[int], None]
) -> None:
    """Tasks of many boxes stop for Ctrl-C in between, and go on where they were."""
    problem = ConvProblem.parse("n96g1ic64ih56oc64kh3ph1")
    rng = np.random.default_rng(0)
    x = rng.standard_normal(problem.x_shape, np.float32)
    dy = rng.standard_normal(problem.y_shape, np.float32)
    team(1)
    whole = compute(problem, algorithm, "wgrad", x, dy)
    for n in (2, 3):
        team(n)
        oracle.assert_bits_equal(compute(problem, algorithm, "wgrad", x, dy), whole)
    part = replace(problem, n=8)
    parts = [
        compute(part, algorithm, "wgrad", x[i : i + 8], dy[i : i + 8])
        for i in range(0, 96, 8)
    ]
    # A step left out, or done twice, would be a change of some hundreds.
    np.testing.assert_allclose(whole, sum(parts), rtol=0, atol=1)


@given(strategies.conv_calls(channels=(1, 3, 17), max_batch=5, room=9))
def test_bits_do_not_depend_on_the_batch(call: strategies.Call) -> None:
    rng = np.random.default_rng(0)
    x, w = oracle.normal(rng, call.x_shape), oracle.normal(rng, call.weight_shape)
    b = oracle.normal(rng, call.weight_shape[:1])
    y = CONV[call.ndim](x, w, b, **call.keywords)
    grad_x, _, _ = CONV_BACKWARD[call.ndim](y, x, w, **call.keywords, needs=["x"])
    assert grad_x is not None
    for i in range(len(x)):
        one = CONV[call.ndim](x[i : i + 1], w, b, **call.keywords)
        oracle.assert_bits_equal(one, y[i : i + 1])
        grad, _, _ = CONV_BACKWARD[call.ndim](
            y[i : i + 1], x[i : i + 1], w, **call.keywords, needs=["x"]
        )
        assert grad is not None
        oracle.assert_bits_equal(grad, grad_x[i : i + 1])


@pytest.mark.parametrize("text", [*BIG, *CASES.values()])
def test_every_algorithm_gives_a_sample_the_same_bits(
    text: str, isa: str, team: Callable[[int], None]
) -> None:
    """Alone, in a batch, and in one of another size; by one thread or by two."""
    five = replace(ConvProblem.parse(text), n=5)
    a = oracle.operands(five, np.random.default_rng(3), kind="normal")
    for algorithm, direction in accepting(five):
        if direction not in ("fprop", "dgrad"):
            continue
        source, *others = arguments(direction, a)
        team(2)
        batch = compute(five, algorithm, direction, source, *others)
        team(1)
        for first, last in ((0, 1), (4, 5), (1, 4)):
            few = replace(five, n=last - first)
            oracle.assert_bits_equal(
                compute(few, algorithm, direction, source[first:last], *others),
                batch[first:last],
                f"{algorithm}, samples {first} .. {last}",
            )


def layouts(x: Any) -> Iterator[tuple[str, Any]]:
    """The values of x in other layouts."""
    yield "Fortran", np.asfortranarray(x)
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    yield "negative strides", x[..., ::-1].copy()[..., ::-1]
    wide = np.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    yield "every second", wide[..., ::2]
    raw = np.empty(x.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x
    yield "misaligned", misaligned
    fixed = x.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    yield "transposed", np.ascontiguousarray(np.swapaxes(x, 0, -1)).swapaxes(0, -1)


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_any_layout_gives_the_same_bits(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, b = (oracle.normal(rng, s, dtype) for s in ((2, 4, 6, 5), (6, 2, 3, 3), (6,)))
    y = F.conv2d(x, w, b, 1, 1, groups=2)
    grads = F.conv2d_backward(y, x, w, 1, 1, groups=2)
    for name, other in layouts(x):
        oracle.assert_bits_equal(F.conv2d(other, w, b, 1, 1, groups=2), y, name)
        again = F.conv2d_backward(y, other, w, 1, 1, groups=2)
        for grad, right in zip(again, grads, strict=True):
            oracle.assert_bits_equal(grad, right, name)
    for name, other in layouts(w):
        oracle.assert_bits_equal(F.conv2d(x, other, b, 1, 1, groups=2), y, name)
    for name, other in layouts(y):
        again = F.conv2d_backward(other, x, w, 1, 1, groups=2)
        for grad, right in zip(again, grads, strict=True):
            oracle.assert_bits_equal(grad, right, name)


def test_zero_strides() -> None:
    """The gradient of a sum is one number, broadcast."""
    x, w = np.ones((2, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    g = np.broadcast_to(np.float32(1), (2, 1, 2, 2))
    for grad, right in zip(
        F.conv2d_backward(g, x, w), F.conv2d_backward(g.copy(), x, w), strict=True
    ):
        oracle.assert_bits_equal(grad, right)


def test_inputs_are_never_written() -> None:
    rng = np.random.default_rng(0)
    arrays = [oracle.normal(rng, s) for s in ((2, 3, 6, 6), (4, 3, 3, 3), (4,))]
    before = [a.copy() for a in arrays]
    y = F.conv2d(*arrays, padding=1)
    F.conv2d_backward(y, *arrays[:2], padding=1)
    for array, right in zip(arrays, before, strict=True):
        oracle.assert_bits_equal(array, right)


# Values that are not ordinary ------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_field(value: float, isa: str) -> None:
    problem = ConvProblem.parse("n2g2ic4ih9iw40oc6kh3ph1")
    a = oracle.operands(problem, np.random.default_rng(0), np.float32, kind="normal")
    a.x[1, 2, 4, 7] = value
    y = F.conv2d(a.x, a.w, padding=1, groups=2)
    touched = np.zeros(y.shape, bool)
    touched[1, 3:, 3:6, 6:9] = True
    np.testing.assert_array_equal(~np.isfinite(y), touched)
    a.grad_y[0, 1, 8, 39] = value
    grad_x, grad_w, grad_b = F.conv2d_backward(a.grad_y, a.x, a.w, 1, 1, groups=2)
    touched = np.zeros(a.x.shape, bool)
    touched[0, :2, 7:, 38:] = True
    np.testing.assert_array_equal(~np.isfinite(grad_x), touched)
    assert not np.isfinite(grad_w[1]).any()
    assert np.isfinite(grad_w[[0, 2]]).all()
    assert not np.isfinite(grad_b[1])


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_finite_stays_everywhere(name: str, isa: str) -> None:
    """One NaN in x, or in grad_output: it reaches what its windows connect, no more."""
    problem = ConvProblem.parse(CASES[name])
    if problem.n == 0:
        return
    rng = np.random.default_rng(0)
    x, w, dy = (
        np.ones(shape, np.float32)
        for shape in (problem.x_shape, problem.weight_shape, problem.y_shape)
    )
    at_x, at_y = (tuple(int(rng.integers(n)) for n in a.shape) for a in (x, dy))
    x[at_x] = dy[at_y] = np.nan
    one_x, one_y = np.isnan(x).astype(float), np.isnan(dy).astype(float)
    ones = w.astype(float)
    fields = {
        "fprop": reference.conv(problem, one_x, ones),
        "dgrad": reference.conv_grad_x(problem, one_y, ones),
        "wgrad": reference.conv_grad_weight(problem, one_x, np.ones(dy.shape)),
    }
    clean = np.ones(dy.shape, np.float32)
    arrays = {"fprop": (x, w), "dgrad": (dy, w), "wgrad": (x, clean)}
    for algorithm, direction in accepting(problem):
        if direction in fields:
            result = compute(problem, algorithm, direction, *arrays[direction])
            np.testing.assert_array_equal(
                np.isnan(result), fields[direction] > 0, f"{algorithm} {direction}"
            )


def test_padding_is_a_real_zero(isa: str) -> None:
    """0 * inf is NaN on the border, whatever the algorithm."""
    y = F.conv2d(
        np.ones((1, 1, 3, 3), np.float32),
        np.full((1, 1, 3, 3), np.inf, np.float32),
        padding=1,
    )[0, 0]
    assert y[1, 1] == np.inf
    assert np.isnan(np.delete(y.ravel(), 4)).all()


def test_subnormals_are_kept(isa: str) -> None:
    x = np.full((1, 1, 3, 3), 1e-40, np.float32)
    oracle.assert_bits_equal(F.conv2d(x, np.ones((1, 1, 1, 1), np.float32)), x)


def test_import_leaves_the_floating_point_mode_alone() -> None:
    code = (
        "import convcore, sys, numpy as np; "
        "assert sys.float_info.min / 2 != 0; "
        "assert np.float32(1e-45) * np.float32(1) != 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_absurd_but_legal_geometry(isa: str) -> None:
    ones = np.ones((1, 1, 9), np.float32)
    kernel = np.ones((1, 1, 9), np.float32)
    y = F.conv1d(ones, 4 * kernel, padding="same", dilation=2**31)
    oracle.assert_exact(y, 4 * ones)
    y = F.conv1d(ones, kernel, stride=2**62)
    oracle.assert_exact(y, np.full((1, 1, 1), 9, np.float32))
    grads = F.conv1d_backward(y, ones, kernel, stride=2**62)
    oracle.assert_exact(grads[0], 9 * ones)
    oracle.assert_exact(grads[1], 9 * ones)
    t = F.conv_transpose1d(ones[:, :, :1], kernel, stride=2**62)
    oracle.assert_exact(t, ones)


def test_an_empty_batch_of_huge_images() -> None:
    x = np.empty((0, 1, 2**30, 2**30), np.float32)
    w = np.ones((1, 1, 3, 3), np.float32)
    y = F.conv2d(x, w)
    assert y.shape == (0, 1, 2**30 - 2, 2**30 - 2)
    grads = F.conv2d_backward(y, x, w)
    assert [g.shape for g in grads if g is not None] == [x.shape, w.shape, (1,)]
    assert grads[1] is not None
    assert not grads[1].any()


# out= and needs= -------------------------------------------------------------------


def test_out_is_written_and_returned() -> None:
    rng = np.random.default_rng(0)
    x, w = oracle.normal(rng, (2, 3, 6, 6)), oracle.normal(rng, (4, 3, 3, 3))
    out = np.full((2, 4, 4, 4), np.nan, np.float32)
    assert F.conv2d(x, w, out=out) is out
    oracle.assert_bits_equal(out, F.conv2d(x, w))
    out = np.full((2, 3, 6, 6), np.nan, np.float32)
    y = F.conv2d(x, w)
    assert F.conv_transpose2d(y, w, out=out) is out
    oracle.assert_bits_equal(out, F.conv_transpose2d(y, w))


def bad_outs() -> Iterator[tuple[Any, type[Exception], str]]:
    """What must not be taken for out, and why."""
    yield np.empty((1, 1, 2, 3), np.float32), ValueError, "shape"
    yield np.empty((1, 1, 2, 2)), TypeError, "float32"
    yield np.empty((1, 1, 2, 2), ">f4"), TypeError, "native"
    yield np.empty((1, 1, 2, 2), np.float32, order="F")[..., ::-1], ValueError, "C-cont"
    fixed = np.empty((1, 1, 2, 2), np.float32)
    fixed.flags.writeable = False
    yield fixed, ValueError, "writeable"
    yield [[1.0]], TypeError, "list"


@pytest.mark.parametrize(("out", "error", "words"), [*bad_outs()])
def test_out_is_refused_never_copied(
    out: Any, error: type[Exception], words: str
) -> None:
    x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    with pytest.raises(error, match=f"conv2d: out must .*{words}"):
        F.conv2d(x, w, out=out)


def test_out_must_not_overlap_an_input() -> None:
    buffer = np.ones(24, np.float32)
    x, out = buffer[:16].reshape(1, 1, 4, 4), buffer[8:].reshape(1, 1, 4, 4)
    with pytest.raises(ValueError, match="conv2d: out must not overlap"):
        F.conv2d(x, np.ones((1, 1, 3, 3), np.float32), padding=1, out=out)


def test_only_what_is_needed_is_computed() -> None:
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    g = np.ones((1, 1, 2, 2))
    assert [r is None for r in F.conv2d_backward(g, x, w, needs=["weight"])] == [
        True,
        False,
        True,
    ]
    with pytest.raises(ValueError, match="conv2d_backward: needs must be"):
        F.conv2d_backward(g, x, w, needs=["w"])
    with pytest.raises(TypeError, match="conv2d_backward: needs must be"):
        F.conv2d_backward(g, x, w, needs="weight")
    with pytest.raises(TypeError, match="conv2d_backward: needs must be"):
        F.conv2d_backward(g, x, w, needs=5)  # type: ignore[arg-type]
    names = (name for name in ["x", "bias"])  # an iterator is used up only once
    grads = F.conv2d_backward(g, x, w, needs=names)  # type: ignore[arg-type]
    assert [r is None for r in grads] == [False, True, False]


# Interruption ----------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
@pytest.mark.parametrize("direction", ["fprop", "wgrad"])
def test_a_signal_is_answered_in_the_middle(direction: str) -> None:
    """A handler that raises ends the call; the next call is right."""

    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    problem = ConvProblem.parse("n200g1ic64ih56oc64kh3ph1")
    x, w = np.ones(problem.x_shape, "f4"), np.ones(problem.weight_shape, "f4")

    def work() -> None:
        for _ in range(1000):  # whatever the machine's speed, it ends in a call
            if direction == "fprop":
                F.conv2d(x, w, padding=1)
            else:
                F.conv2d_backward(x, x, w, padding=1, needs=["weight"])

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Stop):
            work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    small = ConvProblem.parse("n1g1ic2ih5oc3kh3")
    check_exactly(small, np.float32)
