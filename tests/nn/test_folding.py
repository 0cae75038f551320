"""Batch norms folded into the layers before them."""

from typing import Any

import numpy as np
import pytest

from convcore import nn
from tests import oracle


def trained(norm: Any, rng: np.random.Generator) -> Any:
    """Give a batch norm values as after training."""
    norm.running_mean[...] = rng.standard_normal(norm.num_features)
    norm.running_var[...] = rng.uniform(0.5, 2, norm.num_features)
    if norm.weight is not None:
        norm.weight.value = rng.standard_normal(norm.num_features).astype(
            norm.weight.value.dtype
        )
        norm.bias.value = rng.standard_normal(norm.num_features).astype(
            norm.bias.value.dtype
        )
    return norm


def spread(values: Any, ndim: int) -> Any:
    return values.reshape(-1, *(1,) * (ndim - 2))


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("make", "norm", "shape"),
    [
        (lambda **o: nn.Conv1d(4, 6, 3, groups=2, **o), nn.BatchNorm1d, (3, 4, 20)),
        (lambda **o: nn.Conv2d(4, 6, 3, padding=1, **o), nn.BatchNorm2d, (3, 4, 9, 8)),
        (lambda **o: nn.Conv3d(4, 6, 2, **o), nn.BatchNorm3d, (2, 4, 5, 4, 6)),
        (
            lambda **o: nn.ConvTranspose2d(4, 6, 3, 2, groups=2, **o),
            nn.BatchNorm2d,
            (2, 4, 5, 6),
        ),
        (lambda **o: nn.Linear(4, 6, **o), nn.BatchNorm1d, (7, 4)),
    ],
)
def test_folded_is_equal_within_rounding(
    make: Any, norm: Any, shape: tuple[int, ...], affine: bool, bias: bool, dtype: Any
) -> None:
    """K terms in a sum: each side is off by (2 sqrt(K) + 6) u times their sizes."""
    rng = np.random.default_rng(0)
    layer = make(bias=bias, dtype=dtype, rng=1)
    if bias:
        layer.bias.value = rng.standard_normal(6).astype(dtype)
    batch_norm = trained(norm(6, affine=affine, dtype=dtype), rng)
    model = nn.Sequential(layer, batch_norm, nn.ReLU())
    before = {name: value.copy() for name, value in model.state_dict().items()}
    folded = nn.fold_batch_norm(model)
    assert [name for name, _ in folded.named_children()] == ["0", "2"]
    x = oracle.normal(rng, shape, dtype)
    terms = make(bias=bias, dtype=dtype, rng=1)
    terms.weight.value = np.abs(layer.weight.value)
    if bias:
        terms.bias.value = np.abs(layer.bias.value)
    size = terms(np.abs(x)).astype(np.float64)
    scale = 1 / np.sqrt(batch_norm.running_var + batch_norm.eps)
    shift: Any = 0
    if affine:
        scale = scale * np.abs(batch_norm.weight.value)
        shift = spread(np.abs(batch_norm.bias.value), x.ndim)
    mean = spread(np.abs(batch_norm.running_mean), x.ndim)
    size = (size + mean) * spread(scale, x.ndim) + shift
    terms_of_a_sum = layer.weight.value[:1].size * 2
    u = float(np.finfo(dtype).eps) / 2
    allowed = 2 * (2 * np.sqrt(terms_of_a_sum) + 6) * u * size
    assert (np.abs(folded(x) - model(x).astype(np.float64)) <= allowed).all()
    for name, value in model.state_dict().items():
        oracle.assert_bits_equal(value, before[name])


def test_names_stay_and_depth_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    body = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1),
        trained(nn.BatchNorm2d(3), rng),
        nn.ReLU(),
        nn.Conv2d(3, 3, 3, padding=1, bias=False),
        trained(nn.BatchNorm2d(3), rng),
    )
    model = nn.Sequential({"stem": nn.Residual(body), "last": nn.BatchNorm2d(3)})
    folded = nn.fold_batch_norm(model)
    assert list(folded.state_dict()) == [
        *("stem.0.weight", "stem.0.bias", "stem.3.weight", "stem.3.bias"),
        *("last.weight", "last.bias", "last.running_mean", "last.running_var"),
        "last.num_batches_tracked",
    ]
    x = oracle.normal(rng, (2, 3, 8, 8))
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_folded_stays() -> None:
    shared = nn.Conv2d(3, 3, 1)
    chains = [
        nn.Sequential(shared, nn.BatchNorm2d(3), shared, nn.BatchNorm2d(3)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm2d(3)),
    ]
    for chain in chains:
        assert repr(nn.fold_batch_norm(chain)) == repr(chain)
    with pytest.raises(TypeError, match="fold_batch_norm: model must be a layer"):
        nn.fold_batch_norm(None)  # type: ignore[arg-type]
