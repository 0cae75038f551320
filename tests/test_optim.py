"""Optimisers: the formulas, and the arguments that they refuse."""

import math

import numpy as np
import pytest

from convcore import optim
from tests.optim_helpers import (
    FLOATS,
    OPTIMISERS,
    parameter,
    take,
)


# Every number below is exact in binary, so results are compared exactly.
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("settings", "start", "steps"),
    [
        # p - 0.5 g
        ({}, 1.0, [(0.5, 0.75), (-4.0, 2.75)]),
        # v = 2, 3, -2.5; p - 0.5 v
        ({"momentum": 0.5}, 1.0, [(2.0, 0.0), (2.0, -1.5), (-4.0, -0.25)]),
        # v = 2, 3; g + v / 2 = 3, 3.5
        ({"momentum": 0.5, "nesterov": True}, 1.0, [(2.0, -0.5), (2.0, -2.25)]),
        # g = 1 + 4/4 = 2, then 1 + 3/4 = 1.75
        ({"weight_decay": 0.25}, 4.0, [(1.0, 3.0), (1.0, 2.125)]),
        # the same g, v = 2, then 1 + 1.75
        ({"weight_decay": 0.25, "momentum": 0.5}, 4.0, [(1.0, 3.0), (1.0, 1.625)]),
    ],
)
def test_sgd_by_hand(settings, start, steps, dtype):
    target = parameter([start], dtype)
    optimiser = optim.SGD([target], lr=0.5, **settings)
    for gradient, expected in steps:
        take(optimiser, [gradient])
        assert target.value.tolist() == [expected]
        assert target.value.dtype == dtype


@pytest.mark.parametrize("dtype", FLOATS)
def test_adam_by_hand(dtype):
    target = parameter([1.0], dtype)
    optimiser = optim.Adam([target], lr=1, betas=(0.5, 0.75), eps=2)
    # m = 1, v = 1; 1 / (1 - 1/2) * 1 / (sqrt(1) / sqrt(1/4) + 2) = 1/2
    take(optimiser, [2.0])
    assert target.value.tolist() == [0.5]
    # m = -1/2, v = 7/4; 1 / (3/4) * -1/2 / (sqrt(7/4) / sqrt(7/16) + 2) = -1/6
    take(optimiser, [-2.0])
    assert target.value[0] == pytest.approx(2 / 3, rel=4 * float(np.finfo(dtype).eps))


def test_adam_decay_by_hand():
    target = parameter([4.0])
    # g = 1 + 4/4 = 2, and the rest as above
    take(optim.Adam([target], 1, (0.5, 0.75), 2, weight_decay=0.25), [1.0])
    assert target.value.tolist() == [3.5]


@pytest.mark.parametrize("gradient", [1e-3, -5.0, 1e6])
def test_first_step_of_adam_is_lr_whatever_the_gradient(gradient):
    target = parameter([1.0])
    take(optim.Adam([target], lr=0.25, eps=0), [gradient])
    step = -math.copysign(0.25, gradient)
    assert target.value[0] == pytest.approx(1 + step, rel=1e-15)


def torch_sgd(p, gradients, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """The scalar loop of torch's documentation."""
    buffer = None
    for g in gradients:
        g = g + weight_decay * p
        if momentum:
            buffer = g if buffer is None else momentum * buffer + g
            g = g + momentum * buffer if nesterov else buffer
        p = p - lr * g
    return p


def torch_adam(p, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """The scalar loop of torch's documentation."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - lr * m_hat / (math.sqrt(v_hat) + eps)
    return p


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
def test_equals_the_scalar_loops(kind, settings, dtype):
    draw = np.random.default_rng(0)
    start, gradients = draw.standard_normal(6), draw.standard_normal((40, 6))
    target = parameter(start.reshape(2, 3), dtype)
    optimiser = kind([target], **settings)
    for gradient in gradients:
        take(optimiser, gradient.reshape(2, 3))
    loop = torch_sgd if kind is optim.SGD else torch_adam
    expected = [loop(p, g, **settings) for p, g in zip(start, gradients.T, strict=True)]
    # Each of 40 steps rounds about ten times, relative to values below 10.
    np.testing.assert_allclose(
        target.value.ravel(), expected, rtol=0, atol=40 * 10 * 10 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
def test_updates_in_place_and_tells_the_parameter(kind, settings):
    target, still = parameter([1.0, 2.0]), parameter([3.0])
    array, version, other = target.value, target.version, still.version
    optimiser = kind([target, still], **settings)
    take(optimiser, [1.0, 1.0], None)
    assert target.value is array
    assert array[0] < 1
    assert target.version > version
    assert still.value.tolist() == [3.0]
    assert still.version == other
    optimiser.zero_grad()
    assert target.grad is None or not target.grad.any()


@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
def test_parameters_count_their_own_steps(kind, settings):
    """A parameter that had no gradient at first is not behind in its averages."""
    both, late, alone = parameter([1.0]), parameter([1.0]), parameter([1.0])
    optimiser, single = kind([both, late], **settings), kind([alone], **settings)
    take(optimiser, [1.0], None)
    take(optimiser, [1.0], [0.5])
    take(single, [0.5])
    assert late.value.tolist() == alone.value.tolist()
    assert optimiser.updates == 3


@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_bits_do_not_depend_on_threads_or_the_parts_of_a_vector(
    kind, settings, dtype, isa, team
):
    """Element by element: alone, in a tail, in another thread's share."""
    draw = np.random.default_rng(2)
    start, *gradients = draw.standard_normal((4, 2**11 + 5)).astype(dtype)
    found = []
    for count, size in ((1, start.size), (2, start.size), (3, start.size), (2, 7)):
        team(count)
        target = parameter(start[:size], dtype)
        optimiser = kind([target], **settings)
        for gradient in gradients:
            take(optimiser, gradient[:size])
        found.append(target.value)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    assert found[0][:7].tobytes() == found[3].tobytes()


@pytest.mark.parametrize(("kind", "settings"), OPTIMISERS)
def test_a_gradient_may_be_a_part_of_a_value(kind, settings):
    """All gradients are those of before the step, whatever is updated first."""
    one, other = parameter([1.0, 2.0, 4.0]), parameter([8.0, 16.0])
    first = kind([one, other], **settings)
    one.add_grad(np.array([0.5, 0.25, 2.0]))
    other.add_grad(one.value[1:])
    first.step()
    alone = parameter([8.0, 16.0])
    second = kind([alone], **settings)
    take(second, [2.0, 4.0])
    assert other.value.tolist() == alone.value.tolist()


def test_a_gradient_may_have_any_strides():
    target = parameter(np.zeros((2, 3)))
    target.add_grad(np.arange(6.0).reshape(3, 2).T)
    optim.SGD([target], lr=1).step()
    assert target.value.tolist() == [[0, -2, -4], [-1, -3, -5]]


def test_parameters_do_not_mix():
    """Many parameters in one optimiser move as each would alone."""
    draw = np.random.default_rng(1)
    starts = [draw.standard_normal(shape) for shape in [(3,), (2, 2), (4, 1, 2)]]
    together, alone = ([parameter(start) for start in starts] for _ in range(2))
    optimiser = optim.Adam(together)
    singles = [optim.Adam([p]) for p in alone]
    for _ in range(3):
        gradients = [draw.standard_normal(start.shape) for start in starts]
        take(optimiser, *gradients)
        for single, gradient in zip(singles, gradients, strict=True):
            take(single, gradient)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.value, other.value)


def test_a_parameter_given_twice_moves_once():
    target = parameter([1.0])
    take(optim.SGD([target, target], lr=0.5), [1.0])
    assert target.value.tolist() == [0.5]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, "lr must be >= 0, got -0.1"),
        ({"lr": math.nan}, ValueError, "lr must be finite, got nan"),
        ({"lr": math.inf}, ValueError, "lr must be finite, got inf"),
        ({"lr": "0.1"}, TypeError, "lr must be a real number, got '0.1'"),
        ({"lr": True}, TypeError, "lr must be a real number, got True"),
        ({"momentum": -0.5}, ValueError, "momentum must be >= 0, got -0.5"),
        ({"momentum": 1}, ValueError, "momentum must be < 1, got 1"),
        ({"momentum": math.nan}, ValueError, "momentum must be finite, got nan"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be >= 0, got -1"),
        ({"weight_decay": None}, TypeError, "weight_decay must be a real number"),
        ({"nesterov": True}, ValueError, "nesterov needs a momentum > 0, got 0"),
    ],
)
def test_bad_settings_of_sgd(settings, error, message):
    with pytest.raises(error, match=f"^SGD: {message}"):
        optim.SGD([parameter([1.0])], **{"lr": 0.1, **settings})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": math.nan}, ValueError, "lr must be finite, got nan"),
        ({"betas": (1.0, 0.9)}, ValueError, "beta1 must be < 1.0, got 1.0"),
        ({"betas": (0.9, -0.1)}, ValueError, "beta2 must be >= 0, got -0.1"),
        ({"betas": (0.9, math.nan)}, ValueError, "beta2 must be finite, got nan"),
        ({"betas": (0.9,)}, ValueError, "betas must be two numbers, got "),
        ({"betas": 0.9}, ValueError, "betas must be two numbers, got 0.9"),
        ({"eps": -1e-8}, ValueError, "eps must be >= 0, got -1e-08"),
        ({"weight_decay": math.inf}, ValueError, "weight_decay must be finite"),
    ],
)
def test_bad_settings_of_adam(settings, error, message):
    with pytest.raises(error, match=f"^Adam: {message}"):
        optim.Adam([parameter([1.0])], **settings)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_bad_parameters(kind):
    with pytest.raises(
        TypeError,
        match=rf"^{kind.__name__}: parameters must be an iterable of nn\.Parameter, "
        "got NoneType$",
    ):
        kind(None, lr=0.1)
    with pytest.raises(ValueError, match="parameters must hold at least one, got none"):
        kind([], lr=0.1)
    with pytest.raises(TypeError, match=r"parameters must be nn\.Parameter, got nda"):
        kind([np.ones(3)], lr=0.1)
    fixed = parameter([1.0])
    fixed.value.setflags(write=False)
    with pytest.raises(ValueError, match="must be writeable, got a read-only array"):
        kind([fixed], lr=0.1)


def test_bad_lr_later():
    optimiser = optim.SGD([parameter([1.0])], lr=0.1)
    with pytest.raises(ValueError, match=r"^SGD: lr must be finite, got nan"):
        optimiser.lr = math.nan
    assert optimiser.lr == 0.1
    optimiser.lr = np.float32(0.5)
    assert optimiser.lr == 0.5
