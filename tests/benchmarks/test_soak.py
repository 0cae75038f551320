"""The soak finds nothing wrong in seconds, and finds what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.flat import Sample, growth
from benchmarks.soak import MOST_BYTES, judged

ROOT = Path(__file__).parent.parent.parent
SHORT = "soak.main(['--minutes', '0.04', '--threads', '2'])"


def soak(before: str) -> "subprocess.CompletedProcess[str]":
    code = f"{before}\nimport sys\nfrom benchmarks import soak\nsys.exit({SHORT})"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )


def test_a_short_soak_finds_nothing() -> None:
    done = soak("")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing wrong" in done.stdout
    for kind in ("legal", "illegal", "training", "forks", "interrupts"):
        assert f" {kind}" in done.stdout


def test_other_bits_are_found() -> None:
    done = soak(
        "from benchmarks import soak_work as w, calls\n"
        "from convcore import functional as F\n"
        "right, seen = F.gelu, []\n"
        "def gelu(x, *args, **kwargs):\n"
        "    seen.append(1)\n"
        "    return right(x, *args, **kwargs) + (len(seen) > 50)\n"
        "gelu.__doc__ = right.__doc__; gelu.__module__ = right.__module__\n"
        "F.gelu = gelu\n"
        "w.KINDS = {k: 1000 * (k == 'large') + 1 for k in w.KINDS}\n"
        "large = w.large_calls\n"
        "w.large_calls = lambda: [c for c in large() if c.target is gelu]"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "other bits than at first: gelu" in done.stdout


def samples(grows: float) -> list[Sample]:
    return [Sample(float(i), 10**8 + int(i * grows), 5, 4) for i in range(100)]


def test_growth_is_found() -> None:
    assert growth([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == pytest.approx(4)
    start = Sample(0.0, 10**8, 5, 4)
    assert judged(samples(0), start, start, 100)[1] == []
    [text] = judged(samples(MOST_BYTES / 40), start, start, 100)[1]
    assert "memory grows" in text
    more = start._replace(files=6, threads=5)
    assert len(judged(samples(0), start, more, 1)[1]) == 2
