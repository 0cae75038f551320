"""Sequential, Residual, Concat: structure, names, shared layers, errors."""

from typing import Any

import numpy as np
import pytest

from convcore import functional as F
from convcore import nn
from tests import oracle


def chain() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4, dtype=np.float64), nn.Tanh(), nn.Linear(4, 2, dtype=np.float64)
    )


def x_of(*shape: int) -> Any:
    return oracle.normal(np.random.default_rng(0), shape, np.float64)


# Sequential ------------------------------------------------------------------------


def test_index_length_and_order() -> None:
    model = chain()
    layers = list(model)
    assert len(model) == 3
    assert [model[0], model[1], model[-1]] == layers
    with pytest.raises(IndexError):
        model[3]


def test_a_slice_is_a_chain_of_the_same_layers_with_their_names() -> None:
    model, x = chain(), x_of(5, 3)
    head, tail = model[:2], model[2:]
    assert isinstance(tail, nn.Sequential)
    assert tail[0] is model[2]
    assert list(tail.state_dict()) == ["2.weight", "2.bias"]
    oracle.assert_bits_equal(tail(head(x)), model(x))
    assert [type(layer) for layer in model[::-2]] == [nn.Linear, nn.Linear]


def test_names_from_a_mapping() -> None:
    model = nn.Sequential({"a": nn.Linear(3, 2), "b": nn.ReLU(), "": nn.BatchNorm1d(2)})
    assert list(model.state_dict())[:4] == ["a.weight", "a.bias", "weight", "bias"]
    assert [name for name, _ in model.named_children()] == ["a", "b", ""]


def test_the_empty_chain_is_the_identity() -> None:
    x = x_of(2, 3)
    y, backward = nn.Sequential().forward(x)
    assert y is x
    assert backward(x) is x
    assert nn.Sequential()(x) is x


def test_a_layer_that_stands_twice() -> None:
    """Its two gradients add up: the slope along the one weight."""
    shared = nn.Linear(3, 3, dtype=np.float64)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    x, g, rng = x_of(4, 3), x_of(4, 3), np.random.default_rng(1)
    start = shared.weight.value.copy()
    _, backward = model.forward(x)
    grad_x, grad_weight = backward(g), shared.weight.grad
    assert grad_weight is not None

    def forward(x: Any, weight: Any) -> Any:
        shared.weight.value = weight
        return model(x)

    oracle.gradients_check(forward, [x, start], [grad_x, grad_weight], g, rng)


def test_a_chain_used_twice_at_once() -> None:
    model, one, two = chain(), x_of(4, 3), -x_of(5, 3)
    y1, backward1 = model.forward(one)
    y2, backward2 = model.forward(two)
    grad1 = backward1(np.ones_like(y1))
    grad2 = backward2(np.ones_like(y2))
    for x, grad in ((one, grad1), (two, grad2)):
        y, backward = model.forward(x)
        oracle.assert_bits_equal(backward(np.ones_like(y)), grad)


def test_repr_is_a_tree() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))
    assert repr(model) == (
        "Sequential(\n  (0): ReLU()\n  (1): Sequential(\n    (0): Tanh()\n  )\n)"
    )
    assert repr(nn.Sequential()) == "Sequential()"


# Residual --------------------------------------------------------------------------


def test_residual_adds_what_goes_around() -> None:
    x = x_of(2, 3)
    body, shortcut = nn.Linear(3, 3, dtype=np.float64), nn.Tanh()
    oracle.assert_bits_equal(nn.Residual(body)(x), body(x) + x)
    oracle.assert_bits_equal(nn.Residual(body, shortcut)(x), body(x) + F.tanh(x))


def test_residual_of_relu_keeps_the_output_that_relu_needs() -> None:
    """The sum must not be written into the output of the body."""
    x = np.array([[-1.0, 2.0]])
    _, backward = nn.Residual(nn.ReLU()).forward(x)
    np.testing.assert_array_equal(backward(np.array([[3.0, 3.0]])), [[3.0, 6.0]])


def test_residual_shapes_must_agree() -> None:
    layer = nn.Residual(nn.Linear(3, 1, dtype=np.float64))
    message = r"Residual: body and shortcut .* got \(2, 1\) and \(2, 3\)"
    for call in (layer, layer.forward):
        with pytest.raises(ValueError, match=message):
            call(x_of(2, 3))  # type: ignore[operator]


def test_sums_that_are_not_finite_warn_no_one() -> None:
    layer = nn.Residual(nn.Sequential(nn.LeakyReLU(-1.0)))
    x = np.array([[-np.inf, np.inf, -1e38, np.nan]], np.float32)
    y, backward = layer.forward(x)
    np.testing.assert_array_equal(y, [[np.nan, np.inf, 0, np.nan]])
    np.testing.assert_array_equal(backward(x), [[np.nan, np.inf, 0, np.nan]])


# Concat ----------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, -1, 2])
def test_concat_along_any_axis(dim: int) -> None:
    layer = nn.Concat(nn.Tanh(), nn.Sequential(), nn.ReLU(), dim=dim)
    x, g, rng = x_of(2, 3, 4), None, np.random.default_rng(1)
    y, backward = layer.forward(x)
    oracle.assert_bits_equal(
        y, np.concatenate([nn.Tanh()(x), x, np.maximum(x, 0)], axis=dim)
    )
    g = oracle.normal(rng, y.shape, np.float64)
    oracle.gradients_check(layer, [x], [backward(g)], g, rng)


def test_concat_of_branches_with_several_widths() -> None:
    layer = nn.Concat(
        nn.Linear(3, 1, dtype=np.float64), nn.Linear(3, 4, dtype=np.float64)
    )
    y, backward = layer.forward(x_of(5, 3))
    assert y.shape == (5, 5)
    g = x_of(5, 5)
    backward(g)
    for branch, part in zip(layer.branches, (g[:, :1], g[:, 1:]), strict=True):
        _, single = branch.forward(x_of(5, 3))
        grad = branch.parameters()[0].grad
        branch.zero_grad()
        single(part)
        oracle.assert_bits_equal(branch.parameters()[0].grad, grad)


def test_concat_errors() -> None:
    with pytest.raises(
        ValueError, match="Concat: branches must be at least one, got none"
    ):
        nn.Concat()
    with pytest.raises(TypeError, match="Concat: dim must be an integer"):
        nn.Concat(nn.ReLU(), dim=1.0)  # type: ignore[arg-type]
    layer = nn.Concat(nn.ReLU(), nn.Flatten())
    with pytest.raises(ValueError, match=r"same shape but for axis 1, got \(2, 3, 4\)"):
        layer(x_of(2, 3, 4))
    with pytest.raises(ValueError, match=r"dim must be an axis of \(2, 3\), got 5"):
        nn.Concat(nn.ReLU(), dim=5)(x_of(2, 3))


class Halved(nn.Layer):
    """Gives float32, whatever it gets."""

    def __call__(self, x: Any) -> Any:
        return x.astype(np.float32)

    def forward(self, x: Any) -> Any:
        return self(x), lambda grad: grad.astype(x.dtype)


@pytest.mark.parametrize(
    "layer", [nn.Residual(Halved()), nn.Concat(Halved(), nn.ReLU())]
)
def test_dtypes_are_never_mixed(layer: nn.Layer) -> None:
    message = "all outputs must have one dtype, got float32, float64"
    with pytest.raises(TypeError, match=message):
        layer(x_of(2, 3))


# First values ----------------------------------------------------------------------


def weights(model: nn.Layer) -> list[Any]:
    return [p.value for p in model.parameters() if p.value.ndim > 1]


def test_a_chain_with_an_rng_starts_with_different_layers() -> None:
    def make(rng: int | None) -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), rng=rng)

    one, two = weights(make(0))
    assert (one != two).all()
    for again, first in zip(weights(make(0)), (one, two), strict=True):
        oracle.assert_bits_equal(again, first)
    assert all(
        (a != b).all() for a, b in zip(weights(make(1)), (one, two), strict=True)
    )
    one, two = weights(make(None))
    oracle.assert_bits_equal(one, two)  # as documented


def test_putting_a_layer_into_a_chain_leaves_its_values() -> None:
    layer = nn.Linear(4, 4)
    before = layer.weight.value.copy()
    nn.Concat(nn.Residual(nn.Sequential(layer)), nn.ReLU())
    oracle.assert_bits_equal(layer.weight.value, before)


def test_a_shared_layer_is_drawn_once() -> None:
    shared = nn.Linear(4, 4)
    nn.Sequential(shared, shared, rng=5)
    one = shared.weight.value.copy()
    nn.Sequential(shared, rng=5)
    oracle.assert_bits_equal(shared.weight.value, one)


def test_dropouts_of_a_chain_get_masks_of_their_own() -> None:
    model = nn.Sequential(nn.Dropout(rng=1), nn.Dropout(rng=1), rng=0)
    x = np.ones((4, 50), np.float32)
    masks = [layer.forward(x)[0] for layer in model]
    assert (masks[0] != masks[1]).any()


def test_concat_refuses_branches_that_would_stay_equal() -> None:
    def branch(*rest: nn.Layer) -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, 3), *rest)

    message = "Concat: branches 0 and 2 must not start equal"
    with pytest.raises(ValueError, match=message):
        nn.Concat(branch(), nn.ReLU(), branch())
    nn.Concat(branch(), branch(nn.ReLU()))  # another function
    nn.Concat(branch(), branch(), rng=0)
    nn.Concat(nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1))
    nn.Concat(nn.ReLU(), nn.ReLU())  # nothing to learn
    shared = branch()
    nn.Concat(shared, shared)  # one layer, on purpose


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Sequential(np.tanh), TypeError, "every child must be a layer"),
        (lambda: nn.Sequential({"a": 1}), TypeError, "every child must be a layer"),
        (
            lambda: nn.Sequential({1: nn.ReLU()}),
            TypeError,
            "Sequential: names must be strings, got 1",
        ),
        (
            lambda: nn.Sequential({"": nn.Linear(2, 2), "a": nn.ReLU()}, nn.ReLU()),
            TypeError,
            "every child must be a layer, got dict",
        ),
        (
            lambda: nn.Sequential(
                {"": nn.Sequential(nn.Linear(2, 2)), "0": nn.Linear(2, 2)}
            ),
            ValueError,
            "names must be unique, got two tensors with the name '0.weight'",
        ),
        (lambda: nn.Residual(None), TypeError, "Residual: every child must be a layer"),
        (lambda: nn.Sequential(rng="0"), TypeError, "rng must be a numpy.random"),
    ],
)
def test_errors(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
