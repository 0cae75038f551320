"""Networks that are trained beside torch: their calls, their memory, their table."""

import dataclasses
import importlib.util
import json
import mmap

import numpy as np
import pytest

from benchmarks import bench_train, measure, memory, peers
from benchmarks.case import data
from benchmarks.networks import FIT, INFER, NETWORKS, TRAIN, NetworkCase, first_value
from benchmarks.peers import Unsupported
from benchmarks.problems import suite
from convcore.runtime import buffers
from tests.benchmarks.helpers import prepare

TINY = NetworkCase("tiny", TRAIN, "float32", NETWORKS["tiny"].x_shape)


@pytest.fixture
def trainer():
    made = peers.load("convcore-network")
    made.start(1)
    yield made
    made._keeping.__exit__(None, None, None)
    assert not buffers._keepers
    import convcore

    convcore.set_num_threads(None)


def test_a_network_learns_its_batch(trainer):
    step = trainer.prepare(TINY, data(TINY))
    losses = trainer.output(step())
    assert losses.shape == (4,)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    # The same start gives the same losses.
    again = trainer.output(trainer.prepare(TINY, data(TINY))())
    np.testing.assert_array_equal(losses, again)


def test_a_step_of_fit_is_the_step_of_a_loop(trainer):
    """But for the order of the samples, which rounds in other places."""
    steps = [
        trainer.output(trainer.prepare(case, data(case))())
        for case in (TINY, dataclasses.replace(TINY, direction=FIT))
    ]
    np.testing.assert_allclose(*steps, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_fits_its_input(trainer, name):
    case = NetworkCase(name, INFER, "float32", (1, *NETWORKS[name].x_shape[1:]))
    scores = trainer.output(trainer.prepare(case, data(case))())
    assert scores.shape == (1, NETWORKS[name].classes)
    assert case.targets().max() < NETWORKS[name].classes


def test_first_values_are_gains_shifts_and_weights_of_the_right_size():
    assert (first_value("3.weight", (5,), 0) == 1).all()
    assert (first_value("3.bias", (5,), 0) == 0).all()
    weight = first_value("0.weight", (64, 32, 3, 3), 4)
    assert weight.dtype == np.float32
    assert weight.var() == pytest.approx(2 / (32 * 9), rel=0.05)


def test_a_network_is_no_case_for_the_others():
    for name in ("window", "scipy", "reference"):
        with pytest.raises(Unsupported, match="no tiny"):
            peers.load(name).prepare(TINY, data(TINY))
    layer = suite("tiny")[0].case("fprop", "float32")
    with pytest.raises(Unsupported, match="no conv"):
        peers.load("convcore-network").prepare(layer, data(layer))


def test_memory_is_counted():
    before = memory.peak_bytes()
    assert before >= memory.resident_bytes() * 0.9 > 2**20
    held = np.ones(2**23)  # 64 MB
    assert memory.peak_bytes() >= before
    assert memory.faults(lambda: None, 3) < 10
    del held

    def fresh():
        with mmap.mmap(-1, 2**22) as pages:  # never seen before by this process
            pages.write(b"1" * 2**22)

    assert memory.faults(fresh, 2) >= 1


def test_a_worker_tells_its_memory():
    with measure.workers(["convcore-network"], 1) as started:
        worker = started["convcore-network"]
        assert worker.imported_bytes > 2**20
        worker.ask(prepare(TINY), 60)
        found = worker.ask({"do": "memory"}, 60)
        assert found["peak"] >= worker.imported_bytes
        assert 0 <= found["faults"] < 100


def test_the_report_alone(tmp_path, capsys):
    given = ["--filter", "tiny", "--pairs", "1", "--threads", "1"]
    assert bench_train.main([*given, "--out", str(tmp_path / "t")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in shown[1:5]] == [
        ["tiny", "train", "3"],
        ["tiny", "fit", "3"],
        ["tiny", "infer", "1"],
        ["tiny", "infer", "8"],
    ]
    written = json.loads((tmp_path / "t.json").read_text("utf-8"))
    train = written["records"][0]
    assert len(train["losses"]["convcore-network"]) == 4
    assert train["peak"]["convcore-network"] > train["imported"]["convcore-network"]
    page = (tmp_path / "t.md").read_text("utf-8")
    assert "| tiny | infer | 8 | 1 |" in page
    assert "python -m benchmarks.bench_train --filter tiny" in page


def test_the_better_layout_counts():
    record = bench_train.Record("lenet5", TRAIN, (64, 1, 28, 28), 2)
    nchw, last = bench_train.TORCH
    record.samples = {bench_train.BASE: [1.0, 2.0], nchw: [3.0, 4.0], last: [2.0, 3.0]}
    record.peak = {bench_train.BASE: 2**20, nchw: 2**22, last: 2**21}
    record.faults = dict.fromkeys(record.peak, 5.0)
    assert record.better == last
    assert record.ratio.median == pytest.approx(1.75)
    cells = bench_train._cells(record)
    assert cells[:6] == ["lenet5", "train", "64", "2", "1500", "2500"]
    assert cells[7:] == ["1", "2", "0.50", "5", "5"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--filter", "alexnet"], "no network is named 'alexnet'"),
        (["--out", "no/such/folder/x"], "--out: no folder"),
        (["--threads", "0"], "must be an integer >= 1, got '0'"),
        (["--python", "no-such-python", "--filter", "tiny"], "does not run"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(given, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench_train.main(given)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
def test_torch_has_the_same_losses():
    with measure.workers(list(peers.NETWORK_LIBRARIES), 1) as started:
        found = measure.measure(started, TINY, 1, 60)
    assert len(found.seconds) == 3
    assert not found.disagree
