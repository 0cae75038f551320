"""Answers are those of the same question, and never many."""

import numpy as np
import pytest

from tests import answers


@pytest.fixture(autouse=True)
def _nothing_is_held(monkeypatch):
    monkeypatch.setattr(answers, "_answers", {})
    monkeypatch.setattr(answers, "_held", 0)


def asked(*question, size=1):
    """Tell whether an answer had to be made."""
    made = []

    def make():
        made.append(1)
        return np.zeros(size)

    answers.remembered(make, *question)
    return bool(made)


def test_the_same_question_is_asked_once():
    x = np.arange(6.0)
    assert asked("a", 1, x, None)
    assert not asked("a", 1, x.copy(), None)
    assert not asked("a", 1, x[::-1][::-1], None)


@pytest.mark.parametrize(
    "other",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0).astype(np.float32),
        np.arange(6.0).astype(np.longdouble),
        np.arange(6.0)[::-1],
        np.arange(6.0) + np.eye(6)[5] * 1e-15 * 8,
        -np.arange(6.0),
    ],
)
def test_arrays_are_told_apart_by_what_is_in_them(other):
    assert asked("a", np.arange(6.0))
    assert asked("a", other)
    assert asked("b", other)
    assert not asked("a", np.arange(6.0))


def test_numbers_that_no_smaller_type_holds_are_asked_for_again():
    third = np.ones(1, np.longdouble) / 3
    if third[0] == np.float64(third[0]):
        pytest.skip("no wider type here")
    assert asked(third)
    assert asked(third)


def test_the_oldest_answers_leave_first(monkeypatch):
    monkeypatch.setattr(answers, "MOST_BYTES", 8000)
    assert asked("one", size=800)
    assert asked("two", size=800)
    assert asked("three", size=800)
    assert not asked("two")
    assert not asked("three")
    assert asked("one")
    assert sum(a.nbytes for a in answers._answers.values()) == answers._held


def test_an_answer_cannot_be_written():
    answer = answers.remembered(lambda: np.zeros(3), "zeros")
    with pytest.raises(ValueError, match="read-only"):
        answer[0] = 1
