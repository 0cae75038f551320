"""The benchmarks of convcore alone, and of its errors."""

import importlib
import re
import sys

import pytest

from benchmarks import case as cases
from benchmarks import errors, timing
from convcore.problem import ConvProblem


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    """Figures are looked at for their form alone."""
    monkeypatch.setattr(timing, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.001)


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
        ("bench_elementwise", ["--layer", "tiny/signal relu$"], ["fprop", "dgrad"]),
        ("bench_elementwise", ["--layer", "n2c3ih4"], ["n2c3ih4", "relu"]),
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


@pytest.mark.parametrize(
    "name", ["bench_conv", "bench_pool", "bench_elementwise", "bench_threads"]
)
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
    given = ["--suite", "channels", "--channels", "16", "--data", "normal", "elements"]
    given += ["--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench_accuracy", *given])
    module.main()
    shown = capsys.readouterr().out
    assert {"direct", "gemm", "winograd", "fprop", "wgrad"} <= set(shown.split())
    page = out.with_suffix(".md").read_text("utf-8")
    assert "python -m benchmarks.bench_accuracy --suite channels --channels 16" in page
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
            assert error.of_bound <= 1


def test_a_crossing_is_told_in_a_sentence():
    module = importlib.import_module("benchmarks.bench_crossover")
    none = errors.Error(0.0, 0.0, 0.0)

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
