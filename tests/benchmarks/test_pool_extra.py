"""The suite of the other poolings: its shapes, its bytes, its calls."""

import importlib.util

import numpy as np
import pytest

from benchmarks import measure, peers
from benchmarks.case import Data, data
from benchmarks.peers import Unsupported
from benchmarks.pool_extra import OPERATIONS, PoolExtraCase
from benchmarks.problems import suite
from benchmarks.rows import named
from tests.benchmarks.helpers import prepare

TINY = [
    pytest.param(row, id=f"{row.name}-{row.op}") for row in suite("tiny_pool_extra")
]
HALF_STEP = 1e-6  # of differences: no two elements of the data are so near


@pytest.mark.parametrize(
    ("op", "text", "forward", "backward"),
    [
        ("lp_pool_2", "n1c2ih8kh2sh2", 4 * (128 + 32), 8 * (128 + 32)),
        ("blur_pool", "n1c2ih7kh3sh2", 4 * (98 + 32), 4 * (98 + 32)),
        ("max_unpool", "n1c2ih8kh2sh2", 4 * (128 + 32) + 256, 4 * (128 + 32) + 256),
        ("channel_max_pool", "n1c8ih4g2", 4 * (128 + 64), 4 * (128 + 64) + 512),
        ("adaptive_max_pool", "n1c2ih8oh4", 4 * (128 + 32), 4 * (128 + 32) + 256),
        ("stochastic_pool", "n1c2ih8kh2sh2", 4 * 160 + 256, 4 * 160 + 256),
    ],
)
def test_the_bytes_of_a_call(op, text, forward, backward):
    row = named("", op, text)
    assert row.spelling == text
    assert [row.case(d, "float32").bytes for d in row.directions] == [forward, backward]


def test_every_operation_is_measured_beyond_the_caches_and_on_a_small_tensor():
    rows = suite("pool_extra")
    for small in (False, True):
        found = {r.op for r in rows if r.family.startswith("small ") == small}
        assert found == set(OPERATIONS)
    large = [r for r in rows if not r.family.startswith("small ")]
    assert min(r.case("fprop", "float32").bytes for r in large) > 2**24


@pytest.mark.parametrize("row", TINY)
def test_the_gradient_of_convcore_is_that_of_its_function(libraries, row):
    """Differences along a line, whatever the function: both are the same operation."""
    case = row.case("dgrad", "float64")
    arrays = data(case)
    if case.operation.function == "lp_pool2d":  # the call is of magnitudes
        arrays = Data(np.abs(arrays.x), arrays.weight, arrays.grad_y)
    grad = _computed(libraries["convcore"], case, arrays)
    assert grad.shape == case.x_shape
    forward = row.case("fprop", "float64")
    if not forward.repeatable:
        return
    along = np.random.default_rng(1).standard_normal(case.x_shape)
    ends = [
        _computed(
            libraries["convcore"],
            forward,
            Data(arrays.x + sign * HALF_STEP * along, arrays.weight, arrays.grad_y),
        )
        for sign in (1, -1)
    ]
    assert ends[0].shape == case.y_shape
    slope = ((ends[0] - ends[1]) / (2 * HALF_STEP) * arrays.grad_y).sum()
    assert slope == pytest.approx((grad * along).sum(), rel=1e-5, abs=1e-5)


def _computed(library: peers.Peer, case: PoolExtraCase, arrays: Data) -> np.ndarray:
    return library.output(library.prepare(case, arrays)())


@pytest.mark.parametrize("name", ["window", "scipy", "reference"])
def test_others_say_that_they_do_without(name):
    case = named("", "sum_pool", "n1c2ih8kh2sh2").case("fprop", "float32")
    with pytest.raises(Unsupported, match="no sum_pool"):
        peers.load(name).prepare(case, data(case))


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
def test_torch_and_convcore_have_the_same_results():
    names = ["convcore", "torch-nchw", "torch-channels_last"]
    with measure.workers(names, 1) as started:
        for row in suite("tiny_pool_extra"):
            for direction in row.directions:
                case = row.case(direction, "float64")
                replies = [started[name].ask(prepare(case), 60) for name in names]
                first, *others = [r["digest"] for r in replies if "digest" in r]
                assert len(others) == 2 * (row.op != "stochastic_pool")
                for digest in others:
                    assert measure.agree(first, digest, case.tolerance), (
                        row,
                        direction,
                    )
