"""Put the faults in one by one, into a copy, and see which test finds each.

    python -m tests.faults                  all of them: 40 minutes on a busy machine
    python -m tests.faults max pad          those with one of these in their names

The copy has the kernels as they are built here, and has to pass the tests that are named
for these faults before the first is put in. Of the kernels that a fault changes, only the
copies for the best instruction set of this machine are built anew, with -O1 in place of
-O3. The exit code is 1 when a fault survives, or when a test fails without any.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from convcore.runtime import cpu
from tests.faults.table import FAULTS, Fault

ROOT = Path(__file__).parent.parent.parent
COPIED = ("benchmarks", "convcore", "docs", "tests", "setup.py", "pyproject.toml")
SETUP = (ROOT / "setup.py").read_text("utf-8")
ONCE = ast.literal_eval(re.findall(r"^ONCE = (.+)$", SETUP, re.MULTILINE)[0])
SECONDS = 900  # of the tests: a fault may make one wait for ever

# The project's own build, of a few modules, in a third of its time.
BUILD = """
import runpy, setuptools, sys
wanted, setup = set(sys.argv[1:]), setuptools.setup
def few(**how):
    how["ext_modules"] = [e for e in how["ext_modules"] if e.name in wanted]
    assert len(how["ext_modules"]) == len(wanted)
    for e in how["ext_modules"]:
        e.extra_compile_args = ["-O1" if a == "-O3" else a for a in e.extra_compile_args]
    return setup(**how)
setuptools.setup = few
sys.argv = ["setup.py", "build_ext", "--inplace", "--force"]
runpy.run_path("setup.py", run_name="__main__")
"""


def modules(fault: Fault) -> list[str]:
    """Name the compiled modules that a fault changes."""
    paths = [Path(edit.file) for edit in fault.edits]
    stems = fault.modules or [path.stem for path in paths if path.suffix == ".pyx"]
    return sorted(
        {
            "convcore.kernels." + (stem if stem in ONCE else f"{cpu.isa()}.{stem}")
            for stem in stems
        }
    )


def built(names: list[str], copy: Path) -> None:
    """Build modules in the copy."""
    if names:
        done = subprocess.run(
            [sys.executable, "-c", BUILD, *names],
            cwd=copy,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


def failure(copy: Path, tests: Iterable[str] = ()) -> str | None:
    """Run files of tests in the copy, all if none is named; give what fails first."""
    files = [f"tests/{name}" for name in tests]
    others = [isa for isa in cpu.available() if isa != cpu.isa()]  # without the fault
    command = [
        *(sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"),
        *("-p", "tests.faults.quick", "-k", " and ".join(f"not {o}" for o in others)),
        "--ignore=tests/test_faults.py",
    ]
    try:
        done = subprocess.run(
            [*command, *files],
            cwd=copy,
            env={
                **os.environ,
                "PYTHONPATH": str(copy),
                "HYPOTHESIS_PROFILE": "first",
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"a test that takes {SECONDS} s"
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    if found:
        return found[1]
    return None if done.returncode == 0 else f"the process ends with {done.returncode}"


def tried(fault: Fault, copy: Path) -> str | None:
    """Put a fault in, give the test that finds it, and take it out."""
    before = {edit.file: (ROOT / edit.file).read_text("utf-8") for edit in fault.edits}
    for edit in fault.edits:
        file = copy / edit.file
        text = file.read_text("utf-8")
        if text.count(edit.old) != 1:
            raise SystemExit(f"{fault.name}: not once in {edit.file}: {edit.old!r}")
        file.write_text(text.replace(edit.old, edit.new), "utf-8")
    names = modules(fault)
    kept = [*(copy / "convcore/kernels").rglob("*.so")] if names else []
    stems = [name.removeprefix("convcore.kernels.").replace(".", "/") for name in names]
    saved = {f: f.read_bytes() for f in kept if any(f"{s}." in str(f) for s in stems)}
    try:
        built(names, copy)
        return failure(copy, fault.tests.split()) or failure(copy)
    finally:
        for name, text in before.items():
            (copy / name).write_text(text, "utf-8")
        for file, content in saved.items():
            file.unlink()
            file.write_bytes(content)


def main() -> int:
    parser = argparse.ArgumentParser(description="Put faults in, and look for them.")
    parser.add_argument("parts", nargs="*", help="of the names of faults")
    options = parser.parse_args()
    parts = options.parts or [""]
    chosen = [fault for fault in FAULTS if any(part in fault.name for part in parts)]
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name)
            else:
                shutil.copy2(source, copy / name)
        for name in ("README.md", "CHANGELOG.md", "MANIFEST.in", "LICENSE"):
            shutil.copy2(ROOT / name, copy / name)
        for test in sorted({test for fault in chosen for test in fault.tests.split()}):
            if found := failure(copy, [test]):
                raise SystemExit(f"without a fault: {found}")
        print("| fault | is | found by | s |\n|---|---|---|---|", flush=True)
        for fault in chosen:
            begin = time.monotonic()
            found = tried(fault, copy)
            seconds = time.monotonic() - begin
            survived += found is None
            told = f"`{found}`" if found else "**nothing**"
            print(
                f"| {fault.name} | {fault.kind} | {told} | {seconds:.0f} |", flush=True
            )
    print(f"\n{len(chosen) - survived} of {len(chosen)} found")
    return survived > 0


if __name__ == "__main__":
    sys.exit(main())
