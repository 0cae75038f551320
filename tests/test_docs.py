"""The examples in docstrings and in the README run, and give what they say."""

import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import convcore

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(convcore.__path__, "convcore.")
    if ".kernels." not in module.name and not module.name.endswith("__main__")
)

ROOT = Path(__file__).parent.parent
# Pages that are written; those that a command writes have no program.
GUIDES = [
    page
    for page in sorted((ROOT / "docs" / "guides").glob("*.md"))
    if "```python" in page.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.failed == 0


def test_public_functions_have_examples() -> None:
    for name in convcore.functional.__all__:
        operation = getattr(convcore.functional, name)
        if inspect.isfunction(operation):
            assert ">>>" in str(operation.__doc__), f"functional.{name} has no example"


def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0.9


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_program_of_a_guide(page: Path) -> None:
    """Its blocks run in order; a block of text after one is what that one prints."""
    names: dict[str, object] = {}
    blocks = re.findall(
        r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?",
        page.read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert blocks
    for code, text in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page.name, "exec"), names)
        assert printed.getvalue() == text, code


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_measured_numbers_of_a_guide_are_in_a_page_of_results(page: Path) -> None:
    """Rows of tables with a number, and quoted lines, stand in a page that it links."""
    text = page.read_text("utf-8")
    linked = [page.parent / name for name in re.findall(r"\]\(([^)]+\.md)\)", text)]
    assert linked
    results = "\n".join(other.read_text("utf-8") for other in linked).splitlines()
    quoted = re.findall(r"^> (.+)", text, re.MULTILINE)
    quoted += re.findall(r"^\|.*\d.*\|$", text, re.MULTILINE)
    assert quoted
    for line in quoted:
        assert line in results, f"not measured, or not any more: {line}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_links_of_a_guide_exist(page: Path) -> None:
    for name in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / name).is_file(), name


def rows(page: Path, head: str) -> list[list[str]]:
    """The cells of a table whose head begins so."""
    table = page.read_text("utf-8").partition(head)[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]


def test_the_table_of_the_readme_is_what_was_measured() -> None:
    """All of its rows, whichever library is faster."""
    told = rows(ROOT / "README.md", "| layers | rows |")
    measured = rows(ROOT / "benchmarks/results/core.md", "| x torch | rows |")
    assert [row[1:] for row in told] == [row[1:5] for row in measured]
    assert len(told) > 10


def test_the_readme_has_two_commands_of_one_line() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^python3 -m venv .*$", readme, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("convcore demo")
    assert commands[1].endswith("python -m pytest")
