"""What the environment asks of a build."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("Cython", reason="only who builds has it")
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("CONVCORE_BUILD", "must be of release, checked, ubsan, asan, got 'fast'"),
        ("CONVCORE_ISAS", "got 'fast'"),
    ],
)
def test_names_that_mean_nothing_are_refused(variable: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        env={**os.environ, variable: "fast"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert f"convcore: {variable} must be of" in done.stderr
    assert message in done.stderr
