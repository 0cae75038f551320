"""One digest for all instruction sets, threads, dtypes and algorithms."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convcore import cli, fingerprint, functional
from convcore.algorithms import CONV
from convcore.problem import ConvProblem
from tests import oracle
from tests.determinism import Functions

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"

# Roots, exponentials, divisions that do not come out even, or numbers that are drawn.
NOT_EXACT = re.compile(
    "batch_norm|group_norm|instance_norm|layer_norm|rms_norm|local_response_norm|"
    "softmax|cross_entropy|sigmoid|tanh|elu|gelu|silu|softplus|hardsigmoid|hardswish|"
    "selu|stochastic|fractional|dropout$|dropout_key"
)


def published() -> str:
    """The digest that the page states."""
    (digest,) = re.findall(
        r"^    ([0-9a-f]{64})$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    return str(digest)


def test_it_is_the_published_one(isa: str, team: Callable[[int], None]) -> None:
    for n in (1, 3):
        team(n)
        assert fingerprint.fingerprint() == published()


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--fingerprint"]) == 0
    assert capsys.readouterr().out == published() + "\n"


def test_dtypes_and_algorithms_agree_and_are_not_all_zero() -> None:
    for name, (first, *others) in fingerprint.versions():
        assert (first != 0).mean() > 0.005, name
        for other in others:
            oracle.assert_exact(
                other.astype(np.float64), first.astype(np.float64), name
            )


def test_every_exact_algorithm_is_in_it() -> None:
    found = {
        (algorithm, direction)
        for text in fingerprint.CONVOLUTIONS
        for direction, names in fingerprint.exact_algorithms(
            ConvProblem.parse(text)
        ).items()
        for algorithm in names
    }
    assert found == {
        (card.name, direction)
        for card in CONV
        for direction in card.kernels
        if not card.transforms
    }


def test_every_exact_operation_is_in_it() -> None:
    functions = Functions()
    for axes, operation in fingerprint.OPERATIONS.values():
        x = fingerprint.integers((2, 4, *fingerprint.EXTENTS[axes]), np.float64)
        operation(functions, x, lambda *shape: fingerprint.integers(shape, np.float64))
    public = {
        name
        for name in functional.__all__
        if inspect.isfunction(getattr(functional, name))
    }
    assert {n for n in public - functions.called if not NOT_EXACT.search(n)} == set()


def test_one_wrong_number_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    relu = functional.relu

    def wrong(x: oracle.Array) -> oracle.Array:
        y = relu(x)
        y.flat[-1] += 1
        return y

    monkeypatch.setattr(functional, "relu", wrong)
    assert fingerprint.fingerprint() != published()


def test_integers_come_from_a_formula() -> None:
    """Written out: what the digest stands on may never change."""
    found = fingerprint.integers((2, 4), np.float32)
    assert found.tolist() == [[-1, -4, -3, 1], [2, -4, -3, -4]]
