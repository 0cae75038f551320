"""The table of borders beside zeros."""

import re

import pytest

from benchmarks import bench_border


def test_a_line_for_each_direction(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_threads: None,
) -> None:
    monkeypatch.setattr(bench_border, "LEAST", 0.0)
    words = "bench_border --suite tiny --modes reflect circular --pairs 1 --threads 1"
    monkeypatch.setattr("sys.argv", words.split())
    bench_border.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if " ms  " in line]
    assert len(rows) % 3 == 0
    for line in rows:
        assert re.search(r"(fprop|dgrad|wgrad) +[\d.]+ ms  reflect [\d.]+  circ", line)
    assert sum("geometric mean" in line for line in lines) == 6
