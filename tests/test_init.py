"""Initialisers: fans, variances, orthogonality, seeds, errors."""

import math

import numpy as np
import pytest

from convcore import init

FLOATS = (np.float32, np.float64)
# name, default gain**2, and what the variance divides it by, from (fan_in, fan_out)
SCALED = {
    init.glorot_uniform: (1.0, lambda fan_in, fan_out: (fan_in + fan_out) / 2),
    init.glorot_normal: (1.0, lambda fan_in, fan_out: (fan_in + fan_out) / 2),
    init.he_uniform: (2.0, lambda fan_in, fan_out: fan_in),
    init.he_normal: (2.0, lambda fan_in, fan_out: fan_in),
    init.lecun_uniform: (1.0, lambda fan_in, fan_out: fan_in),
    init.lecun_normal: (1.0, lambda fan_in, fan_out: fan_in),
}
UNIFORM = {init.glorot_uniform, init.he_uniform, init.lecun_uniform}
DRAWN = [*SCALED, init.orthogonal, init.normal]
EVERY = [pytest.param(f, id=f.__name__) for f in DRAWN]


@pytest.mark.parametrize(
    ("shape", "groups", "transposed", "fans"),
    [
        ((7, 5), 1, False, (5, 7)),  # linear
        ((8, 4, 3), 1, False, (12, 24)),
        ((8, 4, 3, 5), 1, False, (60, 120)),
        ((8, 4, 2, 3, 5), 1, False, (120, 240)),
        ((8, 2, 3, 3), 4, False, (18, 18)),  # 8 -> 8 channels, 2 -> 2 in each group
        ((8, 1, 3, 3), 8, False, (9, 9)),  # depthwise
        ((8, 4, 3, 3), 1, True, (72, 36)),  # 8 channels in, 4 out
        ((8, 3, 3, 3), 4, True, (18, 27)),  # 2 -> 3 in each group
    ],
)
def test_fan_by_hand(shape, groups, transposed, fans):
    assert init.fan(shape, groups, transposed) == fans


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_fan_counts_the_edges_of_the_layer(groups, transposed):
    """Count what meets in a row or column of the layer's block-diagonal matrix."""
    inputs, outputs, taps = 8, 12, 6
    linked = np.kron(np.eye(groups), np.ones((outputs // groups, inputs // groups)))
    fan_in = int(linked.sum(axis=1)[0]) * taps
    fan_out = int(linked.sum(axis=0)[0]) * taps
    first, second = (inputs, outputs) if transposed else (outputs, inputs)
    shape = (first, second // groups, 2, 3)
    assert init.fan(shape, groups, transposed) == (fan_in, fan_out)


@pytest.mark.parametrize(
    ("activation", "param", "expected"),
    [
        ("linear", None, 1.0),
        ("sigmoid", None, 1.0),
        ("tanh", None, 5 / 3),
        ("relu", None, math.sqrt(2)),
        ("leaky_relu", None, math.sqrt(2 / 1.0001)),
        ("leaky_relu", 2.0, math.sqrt(0.4)),
    ],
)
def test_gain(activation, param, expected):
    assert init.gain(activation, param) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_gain_keeps_the_variance_through_the_activation(slope):
    """E[f(z)**2] * gain**2 = E[z**2] for normal z: equations 10 and 15 of He et al."""
    z = np.random.default_rng(0).standard_normal(200_000)
    after = np.square(np.where(z > 0, z, slope * z)).mean()
    gain = init.gain("leaky_relu", slope)
    # f(z)**2 has a standard deviation below sqrt(E[z**4]) = sqrt(3)
    assert after * gain**2 == pytest.approx(1, abs=6 * gain**2 * math.sqrt(3 / z.size))


@pytest.mark.parametrize(
    ("shape", "groups", "transposed"),
    [
        ((64, 96), 1, False),
        ((64, 32, 3, 3), 1, False),
        ((64, 16, 3, 3), 4, False),
        ((32, 96, 3), 2, True),
    ],
)
@pytest.mark.parametrize("function", [pytest.param(f, id=f.__name__) for f in SCALED])
def test_variance(function, shape, groups, transposed):
    """Mean and variance lie within 6 standard errors of what the paper asks for.

    With n samples of variance s2, the mean has the variance s2 / n, the sample variance
    (kurtosis - 1) * s2**2 / n; kurtosis is 3 for a normal and 9/5 for a uniform law.
    """
    gain2, scale = SCALED[function]
    expected = gain2 / scale(*init.fan(shape, groups, transposed))
    sample = function(shape, 0, groups=groups, transposed=transposed).astype(float)
    kurtosis = 9 / 5 if function in UNIFORM else 3
    assert abs(sample.mean()) < 6 * math.sqrt(expected / sample.size)
    error = 6 * expected * math.sqrt((kurtosis - 1) / sample.size)
    assert np.square(sample).mean() == pytest.approx(expected, abs=error)
    bound = math.sqrt(3 * expected)
    if function in UNIFORM:
        # All of n samples miss the last 1 % of a side with probability 0.995**n.
        assert bound * 0.99 < abs(sample).max() <= bound * (1 + 2**-23)
    else:
        beyond = (abs(sample) > bound).mean()  # P(|z| > sqrt 3) = 0.0833
        assert beyond == pytest.approx(0.0833, abs=6 * math.sqrt(0.0833 / sample.size))


def test_normal_has_the_given_deviation():
    sample = init.normal((200, 100), 0, std=0.02).astype(float)
    error = 6 * 0.02**2 * math.sqrt(2 / sample.size)
    assert np.square(sample).mean() == pytest.approx(0.02**2, abs=error)
    assert not init.normal((3, 2), 0, std=0).any()


@pytest.mark.parametrize("gain", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("function", [pytest.param(f, id=f.__name__) for f in SCALED])
def test_gain_multiplies(function, gain):
    one = function((4, 3, 2), 0, gain=1.0, dtype=np.float64)
    other = function((4, 3, 2), 0, gain=gain, dtype=np.float64)
    np.testing.assert_allclose(other, gain * one, rtol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gain", [1.0, 2.5])
@pytest.mark.parametrize(
    ("shape", "groups", "transposed"),
    [
        ((1, 1), 1, False),
        ((16, 16), 1, False),
        ((16, 3, 3, 3), 1, False),  # rows < columns
        ((40, 2, 3), 1, False),  # rows > columns
        ((12, 2, 3), 4, False),
        ((8, 5, 3, 3), 2, True),
    ],
)
def test_orthogonal(shape, groups, transposed, gain, dtype):
    weight = init.orthogonal(
        shape, 1, groups=groups, transposed=transposed, gain=gain, dtype=dtype
    )
    assert weight.shape == shape
    assert weight.dtype == dtype
    matrices = weight.astype(float).reshape(groups, shape[0] // groups, -1)
    for matrix in matrices:
        rows, columns = matrix.shape
        product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
        # one rounding to dtype per element, and the reflections in float64
        unit = np.finfo(dtype).eps / 2 + 8 * np.finfo(float).eps
        atol = gain**2 * 4 * max(shape[0], columns) * unit
        np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), atol=atol)


def test_orthogonal_is_even_over_rotations_and_mirrors():
    """Half of the 2 x 2 matrices only turn, and each entry has variance 1/2."""
    draw = np.random.default_rng(0)
    matrices = np.array([init.orthogonal((2, 2), draw) for _ in range(2000)])
    turns = np.linalg.det(matrices) > 0
    assert turns.mean() == pytest.approx(0.5, abs=6 * math.sqrt(0.25 / 2000))
    assert np.abs(matrices.mean(axis=0)).max() < 6 * math.sqrt(0.5 / 2000)
    # cos**2 of an even angle has variance 1/8
    squares = np.square(matrices).mean(axis=0)
    assert np.abs(squares - 0.5).max() < 6 * math.sqrt(1 / 8 / 2000)


def test_orthogonal_groups_differ():
    weight = init.orthogonal((4, 2, 1), 0, groups=2)
    assert not np.allclose(weight[:2], weight[2:])


@pytest.mark.parametrize("dtype", FLOATS)
def test_constant(dtype):
    array = init.constant((2, 3), -0.5, dtype=dtype)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, np.full((2, 3), -0.5))


@pytest.mark.parametrize("function", EVERY)
def test_seed_gives_the_weights(function):
    first = function((6, 4, 3, 3), 7)
    np.testing.assert_array_equal(first, function((6, 4, 3, 3), 7))
    np.testing.assert_array_equal(
        first, function((6, 4, 3, 3), np.random.default_rng(7))
    )
    assert not np.array_equal(first, function((6, 4, 3, 3), 8))


@pytest.mark.parametrize("function", EVERY)
def test_generator_goes_on(function):
    draw = np.random.default_rng(7)
    assert not np.array_equal(function((4, 4), draw), function((4, 4), draw))


@pytest.mark.parametrize("function", EVERY)
def test_float32_is_float64_rounded(function):
    narrow, wide = (function((6, 4, 3), 3, dtype=d) for d in FLOATS)
    assert narrow.dtype == np.float32
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(narrow, wide.astype(np.float32))
    assert narrow.flags.c_contiguous
    assert narrow.flags.writeable


@pytest.mark.parametrize("function", EVERY)
def test_breaks_symmetry(function):
    """No two filters are alike, else they would stay alike."""
    weight = function((8, 2, 3, 3), 0)
    assert len(np.unique(weight.reshape(8, -1), axis=0)) == 8


@pytest.mark.parametrize("function", EVERY)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shape": (4, -1, 3, 3)}, ValueError, "every extent of shape must be >= 1"),
        ({"shape": (4, 0)}, ValueError, "every extent of shape must be >= 1, got 0"),
        ({"shape": ()}, ValueError, "shape must have an axis"),
        ({"shape": (4, 2.5)}, TypeError, "shape must be an integer, got 2.5"),
        ({"shape": (4, True)}, TypeError, "shape must be an integer, got True"),
        ({"shape": 4}, TypeError, "shape must be a tuple of integers, got 4"),
        ({"shape": "42"}, TypeError, "shape must be a tuple of integers, got '42'"),
        ({"rng": None}, TypeError, "rng must be a numpy.random.Generator or an int"),
        ({"rng": True}, TypeError, "rng must be a numpy.random.Generator or an int"),
        ({"rng": 0.5}, TypeError, "rng must be a numpy.random.Generator or an int"),
        ({"rng": -1}, ValueError, "rng must be >= 0, got -1"),
        ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64"),
        ({"dtype": ">f4"}, TypeError, "dtype must be float32 or float64, got '>f4'"),
        ({"dtype": int}, TypeError, "dtype must be float32 or float64"),
        ({"dtype": None}, TypeError, "dtype must be float32 or float64, got None"),
        ({"dtype": "nonsense"}, TypeError, "dtype must be float32 or float64"),
    ],
)
def test_bad_arguments(function, change, error, message):
    arguments = {"shape": (4, 2), "rng": 0, **change}
    with pytest.raises(error) as caught:
        function(**arguments)
    assert str(caught.value).startswith(f"{function.__name__}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "function", [pytest.param(f, id=f.__name__) for f in [*SCALED, init.orthogonal]]
)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shape": (4,)}, ValueError, "shape must have 2 axes or more, got (4,)"),
        ({"groups": 3}, ValueError, "groups must divide the first extent of shape"),
        ({"groups": 0}, ValueError, "groups must be >= 1, got 0"),
        ({"groups": 1.0}, TypeError, "groups must be an integer, got 1.0"),
        ({"gain": -1}, ValueError, "gain must be >= 0, got -1"),
        ({"gain": math.nan}, ValueError, "gain must be finite, got nan"),
        ({"gain": "relu"}, TypeError, "gain must be a real number, got 'relu'"),
    ],
)
def test_bad_arguments_of_scaled_ones(function, change, error, message):
    arguments = {"shape": (4, 2), "rng": 0, **change}
    with pytest.raises(error) as caught:
        function(**arguments)
    assert str(caught.value).startswith(f"{function.__name__}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.fan((4,)), ValueError, "fan: shape must have 2 axes"),
        (lambda: init.fan((4, 2), 3), ValueError, "fan: groups must divide"),
        (lambda: init.normal((2,), 0, -1), ValueError, "normal: std must be >= 0"),
        (lambda: init.normal((2,), 0, math.inf), ValueError, "normal: std must be fin"),
        (
            lambda: init.constant((2,), math.nan),
            ValueError,
            "constant: value must be f",
        ),
        (lambda: init.constant((2,), "1"), TypeError, "constant: value must be a real"),
        (lambda: init.constant((2,), 1, dtype=int), TypeError, "constant: dtype must"),
        (lambda: init.gain("relu6"), ValueError, "gain: activation must be one of"),
        (lambda: init.gain(None), ValueError, "gain: activation must be one of"),
        (lambda: init.gain("tanh", 1.0), ValueError, "gain: tanh takes no param"),
        (lambda: init.gain("leaky_relu", math.nan), ValueError, "gain: param must be"),
    ],
)
def test_bad_arguments_of_the_others(call, error, message):
    with pytest.raises(error, match=message):
        call()
