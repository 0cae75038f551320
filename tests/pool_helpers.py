"""What the tests of pooling share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convcore import functional as F
from convcore import plan
from convcore.functional import _kept_calls
from convcore.problem import PoolProblem
from convcore.runtime import cpu, threads
from tests.oracle import DTYPES, Array
from tests.strategies import generators, pool_calls

NAN, INF = np.nan, np.inf

# Every count of elements in a window of the strategies divides it, so that means of its
# multiples are integers and every comparison can be exact.
WHOLE = (3 * 4) ** 3

dtypes = pytest.mark.parametrize("dtype", DTYPES)
ranks = pytest.mark.parametrize("ndim", [1, 2, 3])
isas = st.sampled_from(cpu.available())
teams = st.sampled_from([1, 2, 3])


def any_call(**limits: Any) -> Callable[[Callable[..., None]], Any]:
    """Run a test on drawn calls, each with a source, an instruction set and a team."""
    drawn = given(call=pool_calls(**limits), rng=generators(), isa=isas, team=teams)
    return lambda test: dtypes(drawn(test))


def problems(table: dict[str, Any], **more: Any) -> pytest.MarkDecorator:
    """Run a test on each pooling of a table: name, and shape, kernel, stride, padding."""
    made = [PoolProblem.pool("pool", *row, **more) for row in table.values()]
    return pytest.mark.parametrize("problem", made, ids=list(table))


def f(operation: str, ndim: int) -> Callable[..., Any]:
    """Give the function of an operation for a rank: `f("max_pool", 2)`."""
    name, backward, _ = operation.partition("_backward")
    function: Callable[..., Any] = getattr(F, f"{name}{ndim}d{backward}")
    return function


@contextmanager
def team_of(n: int) -> Iterator[None]:
    """Use n threads, however small the work is; equal calls keep nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "team", lambda work: n)
        patch.setattr(_kept_calls, "_kept", {})
        patch.setattr(_kept_calls, "SILENT", False)
        yield


def special(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    """Draw few small integers, so that there are ties, with NaN and -inf among them."""
    x: Array = rng.integers(-2, 3, shape).astype(dtype)
    x[rng.random(shape) < 0.3] = -INF
    x[rng.random(shape) < 0.05] = NAN
    return x


def whole(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    """Draw small multiples of WHOLE."""
    return np.asarray(rng.integers(-4, 5, shape) * WHOLE, dtype)


def inner(a: Array, b: Array) -> int:
    """Give the inner product of integers, exactly."""
    return sum(int(x) * int(y) for x, y in zip(a.ravel(), b.ravel(), strict=True))


def room(chosen: plan.Plan, threads: int = 1) -> Any:
    """Give a kernel's scratch, or None."""
    size = chosen.scratch_bytes(threads)
    return np.empty(size + 64, np.uint8) if size else None
