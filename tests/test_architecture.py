"""The rules of the rooms: who may import whom, and what stays out of the kernels."""

import ast
import re
from pathlib import Path

import pytest

import convcore
from convcore.algorithms import CONV
from convcore.kernels import load
from convcore.runtime import cpu

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "convcore"
KERNELS = PACKAGE / "kernels"

# Room: the parts of convcore it may import, besides itself. The standard library is free
# to all, NumPy to all but those in WITHOUT_NUMPY.
ALLOWED: dict[str, set[str]] = {
    "problem": set(),
    "arguments": {"problem.rules"},
    "runtime": {"kernels.memory", "kernels.probe", "kernels.teams", "problem.rules"},
    "kernels": set(),
    "algorithms": {"problem"},
    "plan": {"algorithms", "kernels", "problem", "runtime"},
    "reference": {"problem"},
    "functional": {"arguments", "plan", "problem", "runtime"},
    "tuning": {"arguments", "functional", "plan", "problem", "runtime"},
    "init": {"arguments", "runtime.arrays"},
    "nn": {"arguments", "functional", "init", "problem", "runtime.arrays"},
    "optim": {"arguments", "functional", "nn", "runtime.arrays"},
    "train": {
        "arguments",
        "functional",
        "nn",
        "optim",
        "runtime.arrays",
        "runtime.buffers",
    },
    "analysis": {"arguments", "nn", "problem", "runtime.arrays"},
    "viz": {"arguments", "runtime.arrays"},
}
WITHOUT_NUMPY = {"problem", "algorithms", "plan", "kernels"}
OPEN = {
    "__init__",
    "__main__",
    "cli",
    "demo",
    "examples",
    "fingerprint",
}  # the front doors may use everything


def room_of(file: Path) -> str:
    """The first part of a module's name below convcore."""
    part = file.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imports(file: Path) -> set[str]:
    """All modules that a Python file imports, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            found |= {_target(module, alias.name) for alias in node.names}
    return found


def _target(module: str, name: str) -> str:
    """What `from module import name` imports: a module of its own, if there is one."""
    place = ROOT.joinpath(*module.split("."))
    own = (place / name).is_dir() or list(place.glob(f"{name}.py*"))
    return f"{module}.{name}" if own and module else module


FILES = sorted(f for f in PACKAGE.rglob("*.py") if room_of(f) not in OPEN)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(file: Path) -> None:
    room = room_of(file)
    assert room in ALLOWED, f"{room} is not a room of the architecture"
    for module in imports(file):
        if module == "numpy" or module.startswith("numpy."):
            assert room not in WITHOUT_NUMPY, f"{room} must not know NumPy"
        if not module.startswith("convcore."):
            continue
        target = module.removeprefix("convcore.")
        own = target == room or target.startswith(room + ".")
        fine = any(target == a or target.startswith(a + ".") for a in ALLOWED[room])
        assert own or fine, f"{room} must not import {target}"


def test_every_room_exists() -> None:
    for room in ALLOWED:
        assert (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()


SOURCES = sorted([*KERNELS.glob("*.pyx"), *KERNELS.glob("*.pxd")])
CIMPORTS = ("convcore.kernels.", "libc.", "cpython.exc", "cython.parallel")
BUFFERS = "cpython.buffer"  # of buffers.pyx alone
ONCE = ("probe.pyx", "memory.pyx", "teams.pyx", "buffers.pyx")  # compiled once


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.name)
def test_kernels_know_nothing_of_python(file: Path) -> None:
    text = file.read_text()
    for module in re.findall(r"^(?:from\s+(\S+)\s+)?c?import\s", text, re.MULTILINE):
        fine = module.startswith(CIMPORTS)
        if file.name in ("buffers.pyx", "memory.pyx"):
            fine = fine or module == BUFFERS
        assert fine, f"{file.name} imports {module}"
    code = "\n".join(line.split("#")[0] for line in text.splitlines())
    if file.name != "memory.pyx":
        assert not re.search(r"\b(malloc|calloc|realloc|numpy)\b", code)
    free = ("vector.pxd", "omp.pxd", "checked.pxd", *ONCE)
    if file.name not in free:
        assert "#if" not in text, "only vector.pxd knows instruction sets"
    for line in code.splitlines():
        if "nogil:" in line and line.startswith(("cdef", ")")):
            assert "noexcept nogil" in line, f"{file.name}: {line}"


@pytest.mark.parametrize(
    "file", [f for f in SOURCES if f.suffix == ".pyx"], ids=lambda f: f.name
)
def test_kernels_start_with_their_theory(file: Path) -> None:
    head = file.read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in head)
    assert len(head) <= 35
    assert any(line.startswith("# What") for line in head)


@pytest.mark.parametrize(
    "file", [f for f in SOURCES if f.suffix == ".pyx"], ids=lambda f: f.name
)
def test_stubs_name_what_is_compiled(file: Path) -> None:
    stub = ast.parse(file.with_suffix(".pyi").read_text())
    named = {n.name for n in stub.body if isinstance(n, ast.FunctionDef)}
    public = set(re.findall(r"^def (\w+)", file.read_text(), re.MULTILINE))
    assert named == public


@pytest.mark.parametrize("isa", cpu.available())
def test_every_kernel_is_there_for_every_instruction_set(isa: str) -> None:
    asked = {"pool_max_rows": "x86_64_v4"}  # by one alone
    for file in KERNELS.glob("*.pyx"):
        if file.name not in ONCE and asked.get(file.stem, isa) == isa:
            assert (
                load(file.stem, isa).__name__ == f"convcore.kernels.{isa}.{file.stem}"
            )


def test_the_build_keeps_the_floating_point_mode() -> None:
    text = (ROOT / "setup.py").read_text()
    code = "\n".join(line.split("#")[0] for line in text.splitlines())
    assert not re.search(r"-ffast-math|-Ofast|-funsafe-math|-march=native", code)


def test_the_architecture_page_names_what_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    for name in re.findall(r"`((?:convcore|tests|benchmarks|docs)/[\w/.*]+)`", page):
        assert list(ROOT.glob(name.rstrip("/"))), f"{name} does not exist"
    for pattern in ("kernels/*.pyx", "kernels/[a-z]*.pxd", "functional/_[a-z]*.py"):
        for file in PACKAGE.glob(pattern):
            assert f"`{file.relative_to(ROOT)}`" in page, f"{file.name} is not there"


def table(page: str, first: str) -> dict[str, list[str]]:
    """The cells of a table whose head begins so, by its first column."""
    begin = page.index(f"| {first} |")
    rows = page[begin : page.index("\n\n", begin)].splitlines()[2:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    return {key.strip("`"): rest for key, *rest in cells}


def test_the_architecture_page_tells_the_rules() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rooms = {
        room: set(re.findall(r"`([\w.]+)`", allowed))
        for room, (_, allowed, _) in table(page, "room").items()
    }
    assert rooms == ALLOWED
    assert list(table(page, "name")) == [card.name for card in CONV]


def test_public_names_exist() -> None:
    for name in convcore.__all__:
        assert hasattr(convcore, name)
