"""Shared by all tests: hypothesis profiles, poisoned outputs, threads, instruction sets.

`HYPOTHESIS_PROFILE=nightly python -m pytest -m "nightly or not nightly"` digs deeper.
"""

import gc
import os
import re
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

# Threads that wait for others soon sleep: on a busy machine they kept those from running.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# A shell starts what runs in the background with Ctrl-C ignored, and so would be all that
# tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import convcore
from convcore.runtime import arrays, cpu, threads, tuned

_quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default",
    max_examples=60,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=_quiet,
)
settings.register_profile(
    "nightly",
    max_examples=3000,
    deadline=None,
    print_blob=True,
    suppress_health_check=_quiet,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True, scope="session")
def _poison() -> None:
    """Make fresh outputs and scratch NaN: what a kernel does not write shows."""
    arrays.POISON = True


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's measurements out of the tests, and the tests' out of the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        tuned.reread()
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run a test for all instruction sets in a row: they share the oracle's answers."""
    first: dict[str, int] = {}
    for place, item in enumerate(items):
        first.setdefault(_but_for_the_isa(item), place)
    items.sort(key=lambda item: first[_but_for_the_isa(item)])


def pytest_collection_finish() -> None:
    """Take the tests themselves out of every search for garbage: there are many."""
    gc.collect()
    gc.freeze()


def _but_for_the_isa(item: pytest.Item) -> str:
    return re.sub("|".join(cpu.available()), "", item.nodeid)


@pytest.fixture(params=cpu.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine in turn."""
    with cpu.use(request.param):
        yield request.param


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have every call use so many threads, on any machine and for any work."""
    return lambda n: monkeypatch.setattr(threads, "team", lambda work: n)


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Let a test set the number of threads; give it back afterwards."""
    yield
    convcore.set_num_threads(None)
