"""The benchmark tool: its problems, its libraries, its processes, its table.

Nothing here looks at a time. The libraries that are compared have to compute the right
thing first, in every direction, or a ratio means nothing.
"""

import contextlib
import dataclasses
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from math import prod

import numpy as np
import pytest

from benchmarks import case as cases
from benchmarks import (
    errors,
    machine,
    measure,
    peers,
    problems,
    render,
    report,
    results,
    timing,
    worker,
)
from benchmarks.case import Case, as_convolution, data
from benchmarks.peers import Unsupported
from benchmarks.peers.with_reference import Reference
from benchmarks.problems import Row, parse, spell, suite, suites
from convcore.problem import ConvProblem, PoolProblem

TINY = [
    pytest.param(row, direction, id=f"{row.name}-{row.op}-{direction}")
    for row in suite("tiny")
    for direction in row.directions
]
IN_PROCESS = ("convcore", "window", "scipy")
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}  # of sums of some hundred terms


@pytest.fixture(scope="module")
def libraries() -> Iterator[dict[str, peers.Peer]]:
    started = {name: peers.load(name) for name in IN_PROCESS}
    for library in started.values():
        library.start(2)
    yield started
    import convcore

    convcore.set_num_threads(None)


def expected(case: Case) -> np.ndarray:
    """The result of the definitions, in float64."""
    wide = dataclasses.replace(case, dtype="float64")
    arrays = data(case)
    converted = cases.Data(
        **{
            f.name: getattr(arrays, f.name).astype(np.float64)
            for f in dataclasses.fields(arrays)
        }
    )
    judge = Reference()
    return judge.output(judge.prepare(wide, converted)())


# Problems


@pytest.mark.parametrize("name", suites())
def test_every_row_of_a_suite_is_a_legal_problem_whose_spelling_reads_back(name):
    rows = suite(name)
    assert rows
    for row in rows:
        assert parse(row.op, row.spelling) == row.problem
        for direction in row.directions:
            case = row.case(direction, "float32")
            assert Case.from_json(json.loads(json.dumps(case.as_json()))) == case
            assert row.family


def test_names_within_a_suite_are_unique():
    for name in suites():
        keys = [(row.name, row.op) for row in suite(name)]
        assert len(set(keys)) == len(keys)


def test_core_has_forty_layers_of_about_three_gigaflop():
    rows = suite("core")
    assert len(rows) == 40
    assert rows[0].name == "resnet_50/conv1"
    assert rows[0].spelling == "n13g1ic3ih224oc64kh7sh2ph3"
    assert all(2 * row.problem.macs < 11e9 for row in rows)


def test_every_source_of_the_layers_names_its_licence():
    sources = problems._layers()["meta"]["sources"]
    assert len(sources) == 4
    assert all(re.search("Apache-2.0|MIT|BSD", source) for source in sources)


def test_extra_has_twenty_rows_of_other_suites():
    assert len(suite("extra")) == 20
    assert not {r.name for r in suite("extra")} & {r.name for r in suite("core")}


def test_an_unknown_suite_is_named():
    with pytest.raises(
        ValueError, match=r"suite: name must be one of core, .*got 'cor'"
    ):
        suite("cor")


@pytest.mark.parametrize("text", ["n8c64", "n1c2ih8", "n1g1ic2ih8oc3kh3", "c2ih8kh2"])
def test_what_is_no_pooling_is_refused(text):
    with pytest.raises(ValueError, match="parse: a pooling must be spelt"):
        parse("max_pool", text)


def test_a_pooling_is_spelt_like_a_depthwise_convolution():
    problem = PoolProblem.pool("", (2, 8, 9, 7), (3, 2), 2, 1, ceil_mode=True)
    assert spell(problem) == "n2c8ih9iw7kh3kw2sh2ph1ceil"
    assert parse("avg_pool", spell(problem)) == problem


@pytest.mark.parametrize("row", [r for r in suite("deconv") if r.name.endswith("_s2")])
def test_a_transposed_case_has_the_output_padding_that_gives_its_shape(row):
    case = row.case("fprop", "float32")
    rebuilt = ConvProblem.transposed(
        "",
        case.x_shape,
        case.weight_shape,
        case.stride,
        case.padding,
        case.output_padding,
        case.groups,
        case.dilation,
    )
    assert rebuilt.x_shape == case.y_shape
    assert max(case.output_padding) == 1


@pytest.mark.parametrize("text", ["n3g2ic4ih9oc6kh3sh2ph1", "n1g1ic2id4oc3kd2"])
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
def test_the_work_of_a_case_is_that_of_its_problem(op, text):
    row = Row("", op, parse(op, text))
    case = row.case("wgrad", "float64")
    assert case.flop == 2 * row.problem.macs
    shapes = (case.x_shape, case.weight_shape, case.y_shape)
    assert case.bytes == 8 * sum(map(prod, shapes))


def test_a_pooling_moves_its_indices_where_it_has_them():
    row = Row("", "max_pool", parse("max_pool", "n1c2ih8kh2sh2"))
    plain, backward = (row.case(d, "float32") for d in ("fprop", "dgrad"))
    assert backward.bytes - plain.bytes == 8 * 2 * 4 * 4


def test_data_is_the_same_in_every_direction_that_reads_it():
    row = suite("tiny")[0]
    forward, weight = (data(row.case(d, "float32")) for d in ("fprop", "wgrad"))
    np.testing.assert_array_equal(forward.x, weight.x)
    assert forward.grad_y.size == weight.weight.size == 0
    assert forward.x.dtype == np.float32
    assert -0.5 <= forward.x.min() < 0 < forward.x.max() < 0.5


def test_other_batches_keep_the_layer():
    row = suite("core")[0].with_batch(2)
    assert row.case("fprop", "float32").x_shape == (2, 3, 224, 224)
    assert row.spelling.startswith("n2g1ic3")


# Libraries


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


# Timing, digests, statistics


def test_a_sample_is_long_enough_and_bounded(monkeypatch):
    calls = []
    repetitions = timing.calibrate(lambda: calls.append(None))
    assert 1 < repetitions <= timing.MAX_REPETITIONS
    calls.clear()
    assert timing.sample(lambda: calls.append(None), 5) >= 0
    assert len(calls) > 6  # many of them to warm up
    monkeypatch.setattr(timing, "WARM_SECONDS", 0.0)
    calls.clear()
    timing.sample(lambda: calls.append(None), 5)
    assert len(calls) <= 6


def test_a_slow_call_is_not_repeated(monkeypatch):
    monkeypatch.setattr(timing, "LONG_SECONDS", -1.0)
    calls = []
    assert timing.calibrate(lambda: calls.append(None)) == 1
    assert len(calls) == 1
    timing.sample(lambda: calls.append(None), 1)
    assert len(calls) == 2


def test_digests_tell_results_apart():
    rng = np.random.default_rng(5)
    output = rng.random((40, 50))
    digest = worker.digest_of(output)
    assert measure.agree(digest, worker.digest_of(output + 1e-12), 1e-9)
    swapped = output.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    lost = np.where(np.arange(50) == 7, np.nan, output)
    for wrong in (swapped, lost, output[:39], output * 1.001):
        assert not measure.agree(digest, worker.digest_of(wrong), 1e-4)


def test_the_geometric_mean_and_the_quartiles():
    assert results.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    spread = results.Spread.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert dataclasses.astuple(spread) == (3.0, 2.0, 4.0, 1.0, 5.0)
    assert dataclasses.astuple(results.Spread.of([7.0])) == (7.0,) * 5


def test_the_better_layout_counts_and_ratios_are_taken_by_rounds():
    row = suite("tiny")[0]
    found = measure.Measurement(
        seconds={
            "convcore": [1.0, 2.0, 4.0],
            "torch-nchw": [9.0, 9.0, 9.0],
            "torch-channels_last": [3.0, 4.0, 4.0],
        },
        skipped={"window": "too slow"},
    )
    case = row.case("fprop", "float32")
    line = results.record(row, case, 1, found, "convcore", ["torch", "window"], 1.0)
    assert line.better == {"torch": "torch-channels_last"}
    assert line.ratio["torch"].median == 2.0  # of 3, 2 and 1
    cells = render.cells(line, "convcore", 1e12, ["torch", "window"])
    assert cells[-2:] == ["2.00 (1.50-2.50) nhwc", "-"]
    section = results.Section("float32", 1, 1e12, [line])
    head, lines = render.summary(section, "torch")
    assert head == ["x torch", "rows", "fprop", "all", "least", "under 0.9"]
    assert lines[-1] == ["all", "1", "2.00", "2.00", "2.00", "0"]
    assert render.notes(section, "convcore") == ["window: too slow (1 cases)"]


def test_the_command_names_the_variables_that_change_it(monkeypatch):
    monkeypatch.setenv("CONVCORE_ISA", "x86_64_v3")
    line = machine.command("benchmarks.report", ["--filter", "3x3 a"])
    assert "CONVCORE_ISA=x86_64_v3" in line
    assert line.endswith("python -m benchmarks.report --filter '3x3 a'")


def test_what_holds_a_library_back_is_said(monkeypatch):
    for name in machine._RESTRICTIONS:
        monkeypatch.delenv(name, raising=False)
    assert machine.restrictions() == ""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert machine.restrictions() == "OPENBLAS_CORETYPE=Haswell"


# Processes


def prepare(case: Case, limit: float = 60.0) -> dict:
    return {"do": "prepare", "case": case.as_json(), "limit": limit}


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


# The command line


def test_a_report_ends_with_a_well_formed_table(tmp_path, capsys):
    given = [
        "--suite",
        "tiny",
        "--filter",
        "plain|transposed_rest|tiny/avg_pool avg",
        "--pairs",
        "2",
    ]
    given += ["--peers", "window,scipy", "--threads", "1", "--out", f"{tmp_path}/t.md"]
    assert report.main(given) == 0
    shown = capsys.readouterr().out
    assert "geometric means, float32, 1 thread, peak" in shown
    written = json.loads((tmp_path / "t.json").read_text("utf-8"))
    (section,) = written["sections"]
    records = section["records"]
    assert [r["direction"] for r in records] == [
        *cases.DIRECTIONS * 2,
        "fprop",
        "dgrad",
    ]
    assert section["peak"] > 1e8
    for line in records:
        assert len(line["samples"]["convcore"]) == 2
        assert min(line["samples"]["convcore"]) > 0
        assert not line["disagree"]
        assert line["copy_seconds"] > 0
        if "pool" not in line["op"]:
            assert set(line["ratio"]) == {"window", "scipy"}
    assert written["command"].endswith(
        "python -m benchmarks.report "
        + " ".join(f"'{g}'" if "|" in g else g for g in given)
    )
    for key in ("cpu", "cores", "system", "python"):
        assert written["machine"][key]
    assert {"convcore", "instruction set"} <= written["versions"]["convcore"].keys()

    page = (tmp_path / "t.md").read_text("utf-8").splitlines()
    tables = [line for line in page if line.startswith("|")]
    assert len(tables) > len(records)
    assert sum("n2g1ic3ih8iw9oc4kh3ph1" in line for line in tables) == 3
    for before, line in pairwise(page):
        if before.startswith("|") and line.startswith("|"):
            assert before.count("|") == line.count("|")


def test_a_report_lists_its_rows(capsys):
    assert (
        report.main(["--list", "--suite", "core", "--filter", "alexnet", "--n", "2"])
        == 0
    )
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "alexnet/conv1  conv  n2g1ic3ih227oc96kh11sh4"
    assert len(shown) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--suite", "cor"], "suite: name must be one of core"),
        (["--filter", "no such"], "no row has --filter 'no such'"),
        (["--filter", "pool", "--directions", "wgrad"], "one of the directions wgrad"),
        (["--filter", "("], "--filter: "),
        (
            ["--peers", "tensorflow"],
            "'tensorflow' is none of convcore, reference, window",
        ),
        (["--dtype", "float16"], "'float16' is none of float32, float64"),
        (["--threads", "0"], "must be an integer >= 1, got '0'"),
        (["--base", "torch"], "invalid choice: 'torch'"),
        (["--pairs", "two"], "must be an integer >= 1, got 'two'"),
        (["--problem", "n1"], "ConvProblem.parse"),
        (["--peers", "window", "--out", "no/such/folder/x"], "--out: no folder"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(given, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        report.main(["--suite", "tiny", *given])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_library_that_does_not_start_ends_the_report(capsys):
    given = ["--suite", "tiny", "--peers", "window", "--python", "no-such-python"]
    assert report.main(given) == 1
    assert "interrupted: no-such-python does not run" in capsys.readouterr().err


def test_a_library_with_another_result_fails_the_report():
    row = suite("tiny")[0]
    case = row.case("fprop", "float32")
    found = measure.Measurement({"convcore": [1.0], "window": [1.0]}, {}, ["window"])
    line = results.record(row, case, 1, found, "convcore", ["window"], 1.0)
    section = results.Section("float32", 1, 1.0, [line])
    made = results.Report("", "", {}, "", "convcore", ["window"], 1, sections=[section])
    assert report._exit_code(made) == 1
    (note,) = render.notes(section, "convcore")
    assert note == "tiny/plain fprop: window and convcore have different results"


@pytest.mark.parametrize(
    ("name", "given", "shown"),
    [
        ("bench_conv", ["--layer", "tiny/plain"], [*cases.DIRECTIONS]),
        (
            "bench_conv",
            ["--layer", "n1g1ic2ih6oc3kh3", "--algorithm", "auto"],
            ["auto"],
        ),
        ("bench_pool", ["--layer", "tiny/avg_pool$"], ["avg_pool", "fprop", "dgrad"]),
    ],
)
def test_a_direct_benchmark_prints_its_rows(
    libraries, name, given, shown, monkeypatch, capsys
):
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--samples", "1", "--threads", "1", *given])
    module.main()
    table = capsys.readouterr().out
    assert "peak" in table
    assert all(word in table for word in shown)


@pytest.mark.parametrize("name", ["bench_conv", "bench_pool", "bench_threads"])
def test_the_direct_benchmarks_have_a_command_line(name, monkeypatch, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 0
    assert "--threads" in capsys.readouterr().out


def test_the_overhead_is_measured_without_torch(monkeypatch, capsys):
    module = importlib.import_module("benchmarks.bench_overhead")
    monkeypatch.setattr(sys, "argv", ["bench_overhead", "--rounds", "1"])
    module.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert {row.split("  ")[0] for row in rows} >= {"conv2d, bias", "linear", "ReLU"}
    assert all(float(row.split()[-3]) < 1000 for row in rows)  # microseconds


def test_the_accuracy_of_every_algorithm(libraries, tmp_path, monkeypatch, capsys):
    module = importlib.import_module("benchmarks.bench_accuracy")
    out = tmp_path / "a"
    given = ["--channels", "16", "--data", "normal", "elements", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench_accuracy", *given])
    module.main()
    shown = capsys.readouterr().out
    assert {"direct", "gemm", "winograd", "fprop", "wgrad"} <= set(shown.split())
    page = out.with_suffix(".md").read_text("utf-8")
    assert "python -m benchmarks.bench_accuracy --channels 16" in page
    assert re.search(r"^\| normal \| dgrad \| direct \| 1 \|", page, re.MULTILINE)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("kind", errors.DATA)
def test_direct_sums_err_by_some_units_on_any_data(libraries, kind, dtype):
    problem = ConvProblem.parse("n1g1ic16ih8oc17kh3ph1")
    terms = {"fprop": 9 * 16, "dgrad": 9 * 17, "wgrad": 8 * 8}
    for direction in cases.DIRECTIONS:
        judged = errors.judge(problem, direction, dtype, kind)
        names = errors.accepting(problem, direction)
        assert names[0] == "direct"
        for name in set(names) - set(errors.transforming(problem, direction)):
            error = judged.error(name)
            assert 0 < error.mean < error.worst
            assert error.worst <= 2 * terms[direction] ** 0.5 + 4  # as promised


def test_a_crossing_is_told_in_a_sentence():
    module = importlib.import_module("benchmarks.bench_crossover")
    none = errors.Error(0.0, 0.0)

    def at(**milliseconds):
        return {n: module.Point(n, m, none) for n, m in milliseconds.items()}

    found = {
        1: at(direct=1.0),
        3: at(direct=2.0, winograd=1.0),
        5: at(direct=2.0, fft=3.0),
        7: at(direct=4.0, fft=3.0),
        9: at(direct=5.0, fft=3.0),
    }
    sweep = module.Sweep("", "kernel size", {})
    assert module.crossings(sweep, found) == (
        "Fastest by kernel size: direct at 1, winograd at 3, direct at 5, "
        "fft from 7 to 9."
    )


def test_the_crossover_is_drawn(libraries, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    module = importlib.import_module("benchmarks.bench_crossover")
    monkeypatch.setattr(module, "_SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(module, "_WARM_SECONDS", 0.0)
    out = tmp_path / "c"
    given = ["--kernels", "1", "3", "--channels", "16", "32", "--extent", "8"]
    given += ["--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench_crossover", *given])
    module.main()
    assert capsys.readouterr().out.count("Fastest by") == 2
    page = out.with_suffix(".md").read_text("utf-8")
    assert page.count("Fastest by") == 2
    assert "](c.png)" in page
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
