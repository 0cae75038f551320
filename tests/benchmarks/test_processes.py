"""Libraries in processes of their own."""

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks import measure, worker
from benchmarks.problems import suite
from tests.benchmarks.helpers import expected, prepare


@pytest.fixture(scope="module")
def window() -> Iterator[measure.Worker]:
    with measure.workers(["window"], 1) as started:
        yield started["window"]


def test_a_worker_answers_line_by_line(window):
    assert "NumPy" in window.versions
    case = suite("tiny")[0].case("dgrad", "float64")
    reply = window.ask(prepare(case), 60)
    assert reply["repetitions"] >= 1
    assert measure.agree(worker.digest_of(expected(case)), reply["digest"], 1e-9)
    assert window.ask({"do": "run"}, 60)["seconds"] > 0
    output = window.ask({"do": "output"}, 60)
    found = np.reshape(output["values"], output["shape"])
    np.testing.assert_allclose(found, expected(case), atol=1e-12)
    window.settle()


def test_a_worker_says_what_it_cannot_do(window):
    row = next(r for r in suite("tiny") if r.op == "max_pool_indices")
    reply = window.ask(prepare(row.case("fprop", "float32")), 60)
    assert reply == {"unsupported": "no max_pool_indices fprop"}
    assert "nothing is prepared" in window.ask({"do": "run"}, 60)["error"]


def test_a_worker_stops_at_the_limit(window):
    reply = window.ask(prepare(suite("tiny")[0].case("fprop", "float32"), 0.0), 60)
    assert "s a call" in reply["unsupported"]


def test_a_worker_that_dies_is_replaced(window):
    window._process.kill()
    with pytest.raises(measure.WorkerError, match=r"died with code -9|Broken"):
        window.ask({"do": "run"}, 60)
    case = suite("tiny")[0].case("fprop", "float32")
    assert window.ask(prepare(case), 60)["repetitions"] >= 1


def test_what_a_dead_worker_never_read_is_dropped(window):
    """Closing a pipe sends what is left in it: that raised, now and then."""
    window._process.kill()
    window._process.wait()
    window._process.stdin.write("{}\n")
    with pytest.raises(measure.WorkerError, match="Broken"):
        window.ask({"do": "run"}, 60)
    assert "nothing is prepared" in window.ask({"do": "run"}, 60)["error"]


def test_a_worker_that_hangs_is_replaced(window):
    with pytest.raises(measure.WorkerError, match="over 0 s"):
        window.ask(prepare(suite("tiny")[0].case("fprop", "float32")), 0)
    assert "nothing is prepared" in window.ask({"do": "run"}, 60)["error"]


def test_a_library_or_an_interpreter_that_is_not_there_is_named(tmp_path):
    with pytest.raises(measure.WorkerError, match="does not run"):
        measure.Worker("window", 1, str(tmp_path / "python"))
    if importlib.util.find_spec("torch") is None:
        with pytest.raises(
            measure.WorkerError, match=r"torch-nchw: ModuleNotFound.*torch"
        ):
            measure.Worker("torch-nchw", 1)
