"""Python in a process of its own: what it does there, no other test feels."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 300  # a process that takes so long hangs: none takes five on a quiet machine


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a fresh process, which may import the tests."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def answer(code: str, **environment: str) -> str:
    """Run code that has to end well, and give what it prints."""
    done = python(code, **environment)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    return done.stdout.strip()
