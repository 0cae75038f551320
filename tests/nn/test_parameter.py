"""Parameters: values, gradients, versions."""

from typing import Any

import numpy as np
import pytest

from convcore import nn
from convcore.nn.parameter import commit
from tests.interrupts import interrupt_everywhere


def parameter() -> nn.Parameter:
    return nn.Parameter(np.array([1.0, 2.0], np.float32), "weight")


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6.0, dtype=">f4"),
        np.broadcast_to(np.float32(3), (2, 2)),
        np.array(1.5),
    ],
)
def test_value_is_a_copy_that_can_be_written(value: Any) -> None:
    own = nn.Parameter(value).value
    np.testing.assert_array_equal(own, value)
    assert own.shape == value.shape
    assert own.flags.c_contiguous
    assert own.flags.writeable
    assert own.dtype.isnative
    assert not np.shares_memory(own, value)


@pytest.mark.parametrize(
    "value", [np.ones(2, int), [1.0], 1.0, None, np.ma.ones(2), np.ones(2, np.float16)]
)
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"Parameter: value must be (float32|a NumPy)"):
        nn.Parameter(value)


def test_setting_the_value_keeps_the_array_and_counts() -> None:
    p = parameter()
    array = p.value
    p.value = np.array([3, 4], np.float32)
    assert p.value is array
    np.testing.assert_array_equal(array, [3, 4])
    p.value += 1
    assert p.value is array
    np.testing.assert_array_equal(array, [4, 5])
    assert p.version == 2
    p.touch()
    assert p.version == 3


def test_gradients_add_up_without_writing_into_what_was_given() -> None:
    p, first = parameter(), np.ones(2, np.float32)
    p.add_grad(first)
    p.add_grad(np.array([1, 2], np.float32))
    np.testing.assert_array_equal(p.grad, [2, 3])
    np.testing.assert_array_equal(first, 1)
    p.zero_grad()
    assert p.grad is None


def test_gradients_that_are_not_finite_warn_no_one() -> None:
    p = parameter()
    p.add_grad(np.array([np.inf, 3e38], np.float32))
    p.add_grad(np.array([-np.inf, 3e38], np.float32))
    np.testing.assert_array_equal(p.grad, [np.nan, np.inf])


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.ones(2), TypeError, "must be an array of float32, got float64"),
        ([1.0, 2.0], TypeError, "must be an array of float32, got list"),
        (np.ones(1, np.float32), ValueError, r"must have shape \(2,\), got \(1,\)"),
    ],
)
def test_errors(array: Any, error: type[Exception], message: str) -> None:
    p = parameter()
    with pytest.raises(error, match=f"Parameter weight: grad {message}"):
        p.add_grad(array)
    with pytest.raises(error, match=f"Parameter weight: value {message}"):
        p.value = array
    assert p.grad is None
    assert p.version == 0


def test_repr() -> None:
    assert repr(parameter()) == "Parameter('weight', (2,), float32)"


def test_commit_is_all_or_nothing() -> None:
    """Ctrl-C before each byte code, one after the other."""
    targets: list[Any] = []

    def prepare() -> Any:
        targets[:] = [np.zeros(3), np.zeros(())]
        return lambda: commit([(targets[0], np.ones(3)), (targets[1], np.ones(()))])

    def check() -> None:
        assert len({float(target.sum()) > 0 for target in targets}) == 1

    assert interrupt_everywhere(prepare, check, ("nn/parameter.py",)) > 10
    assert all((target == 1).all() for target in targets)
