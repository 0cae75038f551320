"""The suite of what is bound by memory: its shapes, its bytes, its calls."""

import importlib.util

import numpy as np
import pytest

from benchmarks import measure, peers
from benchmarks.case import Data, data
from benchmarks.elementwise import OPERATIONS, Elementwise, ElementwiseCase
from benchmarks.peers import Unsupported
from benchmarks.problems import suite
from benchmarks.rows import named
from tests.benchmarks.helpers import prepare

TINY = [
    pytest.param(row, id=f"{row.name}-{row.op}") for row in suite("tiny_elementwise")
]
HALF_STEP = 1e-6  # of differences


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("n32c64ih56", (32, 64, 56, 56)),
        ("n2c3ih4iw5g3", (2, 3, 4, 5)),
        ("n64c10", (64, 10)),
        ("n1c2iw7", (1, 2, 7)),
        ("n1c2id3ih4iw4", (1, 2, 3, 4, 4)),
        ("n1c2id3", (1, 2, 3, 3, 3)),
    ],
)
def test_a_shape_reads_back(text, shape):
    problem = Elementwise.parse(text)
    assert problem.x_shape == shape
    assert str(problem) == text


@pytest.mark.parametrize("text", ["n8", "n8c2kh3", "c2ih8", "n1c2id3ih4", "n1c2ih"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(ValueError, match=r"must be spelt n\.\.c\.\.i\.\.g"):
        Elementwise.parse(text)


@pytest.mark.parametrize(
    ("op", "forward", "backward"),
    [
        ("relu", 2 * 4, 3 * 4),
        ("batch_norm", 3 * 4, 5 * 4),
        ("dropout", 2 * 4 + 1, 2 * 4 + 1),
        ("cross_entropy", 4 + 8 / 8, 2 * 4 + 8 / 8),  # 8 channels share a target
    ],
)
def test_the_bytes_of_an_element(op, forward, backward):
    row = named("", op, "n2c8ih4")
    found = [row.case(d, "float32").bytes / (2 * 8 * 16) for d in row.directions]
    assert found == [forward, backward]


def test_every_operation_is_measured_beyond_the_caches_and_on_a_small_tensor():
    rows = suite("elementwise")
    for kind in ("", "small "):
        found = {r.op for r in rows if r.family.startswith("small ") == bool(kind)}
        assert found == set(OPERATIONS)
    large = [r for r in rows if not r.family.startswith("small ")]
    assert min(r.case("fprop", "float32").bytes for r in large) > 2**24


@pytest.mark.parametrize("row", TINY)
def test_the_gradient_of_convcore_is_that_of_its_function(libraries, row):
    """Differences along a line, whatever the function: both are the same operation."""
    case = row.case("dgrad", "float64")
    arrays = data(case)
    try:
        grad = _computed(libraries["convcore"], case, arrays)
    except Unsupported as reason:
        pytest.skip(str(reason))
    assert grad.shape == case.x_shape
    along = np.random.default_rng(1).standard_normal(case.x_shape)
    if not row.case("fprop", "float64").repeatable:
        return
    steps = [
        _computed(
            libraries["convcore"],
            row.case("fprop", "float64"),
            Data(arrays.x + sign * HALF_STEP * along, arrays.weight, arrays.grad_y),
        )
        for sign in (1, -1)
    ]
    weight = arrays.grad_y if case.y_shape else 1.0
    slope = ((steps[0] - steps[1]) / (2 * HALF_STEP) * weight).sum()
    assert slope == pytest.approx((grad * along).sum(), rel=1e-5, abs=1e-5)


def _computed(library: peers.Peer, case: ElementwiseCase, arrays: Data) -> np.ndarray:
    return library.output(library.prepare(case, arrays)())


@pytest.mark.parametrize("name", ["window", "scipy", "reference"])
def test_others_say_that_they_do_without(name):
    case = named("", "gelu", "n1c2").case("fprop", "float32")
    with pytest.raises(Unsupported, match="no gelu"):
        peers.load(name).prepare(case, data(case))


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
def test_torch_and_convcore_have_the_same_results():
    names = ["convcore", "torch-nchw", "torch-channels_last"]
    with measure.workers(names, 1) as started:
        for row in suite("tiny_elementwise"):
            for direction in row.directions:
                case = row.case(direction, "float64")
                replies = [started[name].ask(prepare(case), 60) for name in names]
                first, *others = [r["digest"] for r in replies if "digest" in r]
                for digest in others:
                    assert measure.agree(first, digest, case.tolerance), (
                        row,
                        direction,
                    )
