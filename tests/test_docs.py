"""The examples in docstrings and in the README run, and give what they say."""

import doctest
import importlib
import inspect
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
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0.9


def test_the_readme_has_two_commands_of_one_line() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    commands = re.findall(r"^python3 -m venv .*$", readme, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("convcore demo")
    assert commands[1].endswith("python -m pytest")
