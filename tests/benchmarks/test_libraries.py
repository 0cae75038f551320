"""Every library computes the right thing, or a ratio means nothing."""

import contextlib
import dataclasses
import importlib.util

import numpy as np
import pytest

from benchmarks import case as cases
from benchmarks import measure, peers, worker
from benchmarks.case import data
from benchmarks.peers import Unsupported
from benchmarks.problems import suite
from benchmarks.windows import as_convolution
from tests.benchmarks.helpers import expected, prepare

TINY = [
    pytest.param(row, direction, id=f"{row.name}-{row.op}-{direction}")
    for row in suite("tiny")
    for direction in row.directions
]
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}  # of sums of some hundred terms


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize(("row", "direction"), TINY)
def test_every_library_computes_what_the_reference_does(
    libraries, row, direction, dtype
):
    case = row.case(direction, dtype)
    want = expected(case)
    computed = set()
    for name, library in libraries.items():
        with contextlib.suppress(Unsupported):
            found = library.output(library.prepare(case, data(case))())
            assert found.dtype == dtype
            assert found.shape == want.shape
            np.testing.assert_allclose(found, want, rtol=0, atol=TOLERANCE[dtype])
            computed.add(name)
    everyone = {"convcore", "window", "scipy"}
    assert computed == everyone or ("pool" in case.op and "convcore" in computed)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
@pytest.mark.parametrize("name", ["torch-nchw", "torch-channels_last"])
def test_torch_computes_what_the_reference_does(name):
    rows = [row.values[:2] for row in TINY]
    with measure.workers([name], 1) as started:
        for row, direction in rows:
            case = row.case(direction, "float64")
            reply = started[name].ask(prepare(case), 60)
            if name.endswith("last") and case.ndim == 1:
                assert "no such layout" in reply["unsupported"]
                continue
            assert "repetitions" in reply, (row, direction, reply)
            assert measure.agree(
                worker.digest_of(expected(case)), reply["digest"], 1e-9
            )


def test_window_keeps_channels_of_groups_apart():
    case = suite("tiny")[1].case("fprop", "float64")
    assert case.groups == 2
    arrays = data(case)
    arrays.x[:, :2] = np.nan  # the first group alone
    found = peers.load("window").prepare(case, arrays)()
    assert np.isnan(found[:, :3]).all()
    assert np.isfinite(found[:, 3:]).all()


def test_scipy_refuses_what_would_time_the_interpreter():
    row = next(r for r in suite("core") if r.name == "vgg_19/conv3_2")
    library = peers.load("scipy")
    library.start(1)
    small = dataclasses.replace(row.case("fprop", "float32"))
    empty = cases.Data(*(np.zeros(0, np.float32),) * 3)
    with pytest.raises(Unsupported, match="too large"):
        library.prepare(small, empty)


def test_a_transposed_convolution_becomes_the_gradient_of_one():
    row = next(r for r in suite("tiny") if r.name == "tiny/transposed")
    case = row.case("dgrad", "float32")
    turned, arrays = as_convolution(case, data(case))
    assert (turned.op, turned.direction) == ("conv", "fprop")
    assert arrays.x.shape == turned.x_shape == case.y_shape
