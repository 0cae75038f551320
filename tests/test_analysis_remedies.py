"""Paths through layers that treat borders, weights or connections in ways of their own."""

import numpy as np
import pytest

from convcore import analysis, nn

F64 = {"dtype": np.float64}
MODELS = {
    "local": (
        lambda: nn.LocallyConnected2d(1, 1, (5, 6), 3, padding=1, **F64),
        (1, 5, 6),
    ),
    "passed on": (
        lambda: nn.BorderPassthrough2d(nn.Conv2d(1, 1, (3, 2), **F64)),
        (1, 6, 6),
    ),
    "passed on, twice": (
        lambda: nn.Sequential(
            nn.BorderPassthrough1d(nn.Conv1d(1, 1, 4, **F64)),
            nn.BorderPassthrough1d(nn.Conv1d(1, 1, 3, dilation=2, **F64)),
        ),
        (1, 9),
    ),
    "global": (
        lambda: nn.GloballyConnected2d(1, 1, 5, (4, 5), (3, 2), rng=0, **F64),
        (1, 4, 5),
    ),
    "near and far": (
        lambda: nn.Residual(
            nn.Conv2d(1, 1, 3, padding=1, **F64),
            nn.GloballyConnected2d(1, 1, 5, (4, 5), rng=0, **F64),
        ),
        (1, 4, 5),
    ),
    "separable": (lambda: nn.SeparableConv2d(1, 1, 3, padding=1, **F64), (1, 5, 5)),
    "shared": (lambda: nn.SharedKernelConv2d(1, 1, 3, 2, 1, **F64), (1, 6, 5)),
    "depthwise": (lambda: nn.SharedDepthwiseConv1d(1, 1, 3, **F64), (1, 6)),
    "local, mirrored": (
        lambda: nn.LocallyConnected2d(
            1, 1, (5, 6), 3, padding=2, padding_mode="reflect", **F64
        ),
        (1, 5, 6),
    ),
    "shared, around": (
        lambda: nn.SharedKernelConv2d(
            1, 1, 3, 2, "same", padding_mode="circular", **F64
        ),
        (1, 6, 5),
    ),
    "sums, full": (lambda: nn.SumPool2d(3, 2, "full", ceil_mode=True), (1, 6, 5)),
    "not connected": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 1, 3, **F64),
            nn.MaskedConv2d(1, 1, 2, connections=np.zeros((1, 1), bool), **F64),
        ),
        (1, 6, 5),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_path_count_is_the_gradient_of_a_network_of_ones(name):
    build, shape = MODELS[name]
    model = build()
    for parameter in model.parameters():
        parameter.value = np.ones_like(parameter.value)  # biases have no gradient of x
    y, backward = model.forward(np.ones((1, *shape)))
    expected = backward(np.ones_like(y))[0, 0]
    np.testing.assert_array_equal(analysis.path_count(model, shape), expected)


def test_connections_of_several_channels_are_one():
    every = nn.GloballyConnected2d(3, 2, 3 * 20, (4, 5), rng=0)
    np.testing.assert_array_equal(
        analysis.path_count(every, (3, 4, 5)), np.full((4, 5), 20)
    )


def test_partial_convolutions_have_the_windows_of_convolutions():
    partial = nn.PartialConv2d(1, 1, 3, padding=1)
    usual = nn.Conv2d(1, 1, 3, padding=1)
    np.testing.assert_array_equal(
        analysis.path_count(partial, (1, 4, 5)), analysis.path_count(usual, (1, 4, 5))
    )


def test_global_connections_fit_one_size():
    layer = nn.GloballyConnected2d(1, 1, 3, 4, rng=0)
    with pytest.raises(ValueError, match="must have an input of \\(4, 4\\)"):
        analysis.path_count(layer, (1, 5, 5))
