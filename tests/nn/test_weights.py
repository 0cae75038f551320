"""First values and constructor errors of convolutions, linear layers and the rest."""

from typing import Any

import numpy as np
import pytest

from convcore import init, nn
from tests import oracle

MAKERS: dict[str, Any] = {
    "Conv1d": lambda **o: nn.Conv1d(6, 4, 5, groups=2, **o),
    "Conv2d": lambda **o: nn.Conv2d(6, 4, (3, 5), **o),
    "Conv3d": lambda **o: nn.Conv3d(2, 4, 3, **o),
    "ConvTranspose2d": lambda **o: nn.ConvTranspose2d(6, 4, 3, groups=2, **o),
    "Linear": lambda **o: nn.Linear(50, 20, **o),
}


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_default_values_are_the_same_in_every_process(name: str) -> None:
    one, two = MAKERS[name](), MAKERS[name]()
    oracle.assert_bits_equal(one.weight.value, two.weight.value)
    double = MAKERS[name](dtype=np.float64)
    np.testing.assert_allclose(one.weight.value, double.weight.value, rtol=1e-7)
    np.testing.assert_array_equal(one.bias.value, 0)


def test_default_values_differ_by_class_and_shape() -> None:
    square = nn.Conv2d(4, 4, 3).weight.value
    assert (nn.ConvTranspose2d(4, 4, 3).weight.value != square).all()
    assert (nn.Conv2d(4, 5, 3).weight.value[:4] != square).all()


def test_default_value_of_a_known_layer() -> None:
    """A change of the default would silently change every trained result."""
    value = nn.Linear(2, 2, dtype=np.float64).weight.value
    draw = np.random.default_rng(list(b"Linear(2, 2)"))
    bound = np.sqrt(6 / 2)
    np.testing.assert_array_equal(value, draw.uniform(-bound, bound, (2, 2)))


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_values_follow_the_fans(name: str) -> None:
    """Groups and transposition are passed on to the initialiser."""
    seen: list[dict[str, Any]] = []

    def spy(shape: Any, rng: Any, **options: Any) -> Any:
        seen.append(options)
        return init.he_uniform(shape, rng, **options)

    layer = MAKERS[name](weight_init=spy)
    groups = 2 if name in ("Conv1d", "ConvTranspose2d") else 1
    transposed = name == "ConvTranspose2d"
    expected = {"groups": groups, "transposed": transposed, "dtype": np.float32}
    assert seen == [expected]
    layer.reset_parameters(3)
    assert seen[1] == expected
    fan_in, _ = init.fan(layer.weight.value.shape, groups, transposed)
    assert np.abs(layer.weight.value).max() <= np.sqrt(6 / fan_in)
    assert np.abs(layer.weight.value).max() >= 0.8 * np.sqrt(6 / fan_in)


@pytest.mark.parametrize(
    "initialiser",
    [init.glorot_uniform, init.he_normal, init.lecun_normal, init.orthogonal],
)
def test_any_initialiser_may_draw(initialiser: Any) -> None:
    layer = nn.Conv2d(2, 4, 3, rng=1, weight_init=initialiser)
    right = initialiser((4, 2, 3, 3), 1, groups=1, transposed=False)
    oracle.assert_bits_equal(layer.weight.value, right)


def test_one_generator_for_several_layers() -> None:
    rng = np.random.default_rng(0)
    one, two = nn.Linear(3, 3, rng=rng), nn.Linear(3, 3, rng=rng)
    assert (one.weight.value != two.weight.value).all()


def test_without_bias() -> None:
    layer = nn.Conv2d(2, 4, 3, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    assert "bias=False" in repr(layer)


def test_arguments_that_are_lists_are_frozen() -> None:
    stride = [2, 1]
    layer = nn.Conv2d(1, 1, [3, 1], stride, padding=[[1, 0], [0, 2]])  # type: ignore[list-item]
    stride[0] = 1
    assert layer.stride == (2, 1)
    assert layer.padding == ((1, 0), (0, 2))
    assert layer(np.ones((1, 8, 8), np.float32)).shape == (1, 4, 10)


ERRORS = [
    (lambda: nn.Conv2d(0, 4, 3), ValueError, "Conv2d: in_channels must be >= 1, got 0"),
    (lambda: nn.Conv2d(4, -1, 3), ValueError, "Conv2d: out_channels must be >= 1"),
    (lambda: nn.Conv2d(3.0, 4, 3), TypeError, "Conv2d: in_channels must be an int"),
    (lambda: nn.Conv2d(1, 1, 3, groups=0), ValueError, "groups must be >= 1, got 0"),
    (
        lambda: nn.Conv2d(4, 6, 3, groups=4),
        ValueError,
        "groups must divide in_channels and out_channels, got groups 4",
    ),
    (lambda: nn.Conv2d(1, 1, 0), ValueError, "kernel_size must be >= 1, got 0"),
    (lambda: nn.Conv2d(1, 1, 2.5), TypeError, "kernel_size must be an integer"),
    (
        lambda: nn.Conv2d(1, 1, (3, 3, 3)),
        ValueError,
        r"kernel_size must be one integer or 2, got \(3, 3, 3\)",
    ),
    (lambda: nn.Conv1d(1, 1, 3, 0), ValueError, "Conv1d: stride must be >= 1, got 0"),
    (lambda: nn.Conv3d(1, 1, 3, 1, -1), ValueError, "Conv3d: padding must be >= 0"),
    (lambda: nn.Conv2d(1, 1, 3, 1, "sam"), ValueError, "Conv2d: padding must be"),
    (lambda: nn.Conv2d(1, 1, 3, dilation=0), ValueError, "dilation must be >= 1"),
    (lambda: nn.Conv2d(1, 1, 3, rng="a"), TypeError, "Conv2d: rng must be"),
    (lambda: nn.Conv2d(1, 1, 3, dtype=np.float16), TypeError, "dtype must be float32"),
    (lambda: nn.Conv2d(2**31, 2**31, 3), ValueError, "Conv2d: weight must be address"),
    (
        lambda: nn.ConvTranspose2d(1, 1, 3, output_padding=1),
        ValueError,
        "ConvTranspose2d: output_padding must be below the stride",
    ),
    (
        lambda: nn.Conv2d(1, 1, 3, weight_init="he"),
        TypeError,
        "Conv2d: weight_init must be a function like those of convcore.init, got 'he'",
    ),
    (lambda: nn.Linear(0, 3), ValueError, "Linear: in_features must be >= 1, got 0"),
    (lambda: nn.Linear(3, True), TypeError, "Linear: out_features must be an integer"),
    (lambda: nn.Linear(2**40, 2**40), ValueError, "Linear: weight must be address"),
    (lambda: nn.MaxPool2d(2, 0), ValueError, "MaxPool2d: stride must be >= 1, got 0"),
    (lambda: nn.MaxPool1d(2, padding=2), ValueError, "padding must be less than"),
    (lambda: nn.MaxPool3d(()), ValueError, "MaxPool3d: kernel_size must be one"),
    (lambda: nn.MaxPool2d(2, ceil_mode=1), TypeError, "ceil_mode must be a bool"),
    (lambda: nn.AvgPool2d(0), ValueError, "AvgPool2d: kernel_size must be >= 1"),
    (
        lambda: nn.AvgPool2d(2, divisor_override=0),
        ValueError,
        "AvgPool2d: divisor_override must be >= 1, got 0",
    ),
    (lambda: nn.AdaptiveAvgPool2d(0), ValueError, "AdaptiveAvgPool2d: output_size"),
    (lambda: nn.BatchNorm2d(0), ValueError, "BatchNorm2d: num_features must be >= 1"),
    (lambda: nn.BatchNorm2d(3, eps=-1), ValueError, "BatchNorm2d: eps must be >= 0"),
    (
        lambda: nn.BatchNorm2d(3, momentum=2),
        ValueError,
        "BatchNorm2d: momentum must be <= 1, got 2",
    ),
    (lambda: nn.BatchNorm2d(3, dtype=int), TypeError, "dtype must be float32"),
    (lambda: nn.Dropout(1.5, rng=0), ValueError, "Dropout: p must be <= 1, got 1.5"),
    (lambda: nn.Dropout(0.5, rng=1.5), TypeError, "Dropout: rng must be"),
    (lambda: nn.LeakyReLU(np.inf), ValueError, "negative_slope must be finite"),
    (lambda: nn.Softmax(None), TypeError, "Softmax: dim must be an integer"),
    (lambda: nn.LogSoftmax(1.0), TypeError, "LogSoftmax: dim must be an integer"),
    (lambda: nn.Flatten("a"), TypeError, "Flatten: start_dim must be an integer"),
    (lambda: nn.ReLU().reset_parameters(None), TypeError, "ReLU.reset_parameters: rng"),
]


@pytest.mark.parametrize(("make", "error", "message"), ERRORS)
def test_wrong_arguments_are_found_by_the_constructor(
    make: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()
