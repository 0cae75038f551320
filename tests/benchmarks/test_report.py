"""The command line of the report."""

import json
from itertools import pairwise

import pytest

from benchmarks import case as cases
from benchmarks import measure, render, report, results
from benchmarks.problems import suite


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
