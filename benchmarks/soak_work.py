"""The tasks of `benchmarks.soak`: calls whose answers are known, wrong calls, faults.

Answers are kept as hashes, from a first call before any thread is started.
"""

import copy
import hashlib
import os
import random
import resource
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

import convcore
from benchmarks.calls import Call, completed, public, recorded
from benchmarks.mutations import Words, mutated, words_of, wrong
from convcore import functional as F
from convcore import nn, optim, train
from convcore.kernels import memory
from convcore.runtime import arrays, buffers, workspace

# How often each kind of task comes.
KINDS = {
    **{"legal": 30, "large": 10, "illegal": 40, "training": 6, "settings": 3},
    **{"forks": 1, "starved children": 1, "failed allocations": 12},
    **{"interrupts": 12, "interrupted training": 4},
}
FAULTS = (
    *("forks", "starved children", "failed allocations"),
    *("interrupts", "interrupted training"),
)
IN_MAIN = ("interrupts", "interrupted training")  # where Python handles signals
ROOM = (
    4 << 30
)  # bytes of address space besides those at first: for calls that ask for more
MUTANTS = 5_000  # different wrong calls: caches are full once they have seen these
STEPS = 6  # of a training run
WAIT = 60.0  # seconds for a child
# Not here: pictures are not for threads, and measurements change later choices.
ELSEWHERE = ("convcore.viz", "convcore.autotune", "convcore.forget_tuned")


class Allocations:
    """Stands for NumPy and the memory of results: fails once when a thread asks for it."""

    def __init__(self) -> None:
        self._own = threading.local()

    def fail_after(self, number: int) -> None:
        """Let so many allocations of this thread succeed, and the next one fail."""
        self._own.left = number

    def never(self) -> bool:
        """Let all succeed again; tell whether one has failed."""
        failed = getattr(self._own, "left", 0) < 0
        del self._own.left
        return failed

    def instead(self, allocate: Callable[..., Any]) -> Callable[..., Any]:
        """Give a function that allocates, or fails."""

        def may_fail(*args: Any, **kwargs: Any) -> Any:
            left = getattr(self._own, "left", None)
            if left is not None:
                self._own.left = left - 1
                if left == 0:
                    raise MemoryError("no memory, as a test wants it")
            return allocate(*args, **kwargs)

        return may_fail


class Standing:
    """A module, but for some of its functions."""

    def __init__(self, module: Any, **functions: Callable[..., Any]) -> None:
        self.__dict__.update(functions)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def failing_allocations() -> Iterator[Allocations]:
    """Have all memory of results and scratch come from where it may be refused."""
    made = Allocations()
    empty = made.instead(np.empty)
    block = made.instead(memory.Block)
    places: tuple[tuple[Any, str, Any], ...] = (
        (workspace, "np", Standing(np, empty=empty)),
        (buffers, "np", Standing(np, empty=empty)),
        (buffers, "memory", Standing(memory, Block=block)),
        (arrays, "_empty", empty),
    )
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, standing in places:
        setattr(module, name, standing)
    try:
        yield made
    finally:
        for (module, name, _), old in zip(places, before, strict=True):
            setattr(module, name, old)


class Work:
    """Calls and what they should give; `met` counts the faults that came true."""

    def __init__(self, seed: int, allocations: Allocations) -> None:
        self._seed, self._allocations = seed, allocations
        self.met: Counter[str] = Counter()
        targets = {k: v for k, v in public().items() if not k.startswith(ELSEWHERE)}
        self._calls = completed(recorded(targets), targets)
        self._words: Words = words_of(
            [*targets.items(), *((call.name, call.target) for call in self._calls)]
        )
        self._small = [
            call
            for call in self._calls
            if call.name.startswith("convcore.functional")
            and call.target is not F.Connections
        ]
        self._big = large_calls()
        self._answers = {id(c): answer(c) for c in (*self._small, *self._big)}
        self._model = network()
        self._data = np.random.default_rng(1).standard_normal((24, 2, 12, 12))
        self._data = self._data.astype(np.float32)
        self._trained = self._states()
        signal.signal(signal.SIGALRM, self._interrupt)
        self._armed = False
        limit = _address_space() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    def settle(self) -> None:
        """Use as many threads as at first: OpenMP keeps those of the last call."""
        convcore.set_num_threads(None)
        answer(self._big[0])

    def run(self, kind: str, rng: random.Random) -> str | None:
        """Do a task; say what is wrong, if anything is."""
        try:
            found: str | None = getattr(self, "_" + kind.replace(" ", "_"))(rng)
        except MemoryError:  # of the address space, which others may have just then
            self.met["memory refused"] += 1
            return None
        except Exception:
            return traceback.format_exc()
        return found

    def _legal_or_large(self, rng: random.Random) -> Call:
        return rng.choice(self._big if rng.random() < 0.5 else self._small)

    def _check(self, call: Call) -> str | None:
        if answer(call) != self._answers[id(call)]:
            return f"other bits than at first: {call.name}"
        return None

    def _legal(self, rng: random.Random) -> str | None:
        return self._check(rng.choice(self._small))

    def _large(self, rng: random.Random) -> str | None:
        return self._check(rng.choice(self._big))

    def _illegal(self, rng: random.Random) -> str | None:
        seed = self._seed + rng.randrange(MUTANTS)
        made = mutated(_own(self._calls[seed % len(self._calls)]), random.Random(seed))
        found = wrong(made, self._words)
        return found and f"{made.call.name}({made.what}): {found}"

    def _settings(self, rng: random.Random) -> None:
        """Change what must not change any result."""
        if rng.random() < 0.2:
            convcore.release_memory()
        convcore.set_num_threads(rng.choice((None, 1, 2, 3)))

    def _training(self, rng: random.Random) -> str | None:
        if self._states() != self._trained:
            return "other parameters than at first"
        return None

    def _forks(self, rng: random.Random) -> str | None:
        call = self._legal_or_large(rng)
        return self._child(lambda: self._check(call) is None)

    def _starved_children(self, rng: random.Random) -> str | None:
        """Give a child hardly more memory than it has, and then enough again."""
        call, more = rng.choice(self._big), rng.randrange(1 << 22)

        def starve() -> bool:
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + more, hard))
            with suppress(MemoryError):
                if self._check(call):
                    return False
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            return self._check(call) is None

        return self._child(starve)

    def _failed_allocations(self, rng: random.Random) -> str | None:
        call = self._legal_or_large(rng)
        mine = _own(call)
        self._allocations.fail_after(rng.randrange(3))
        found = None
        try:
            if (
                digest(mine.target(*mine.args, **mine.kwargs))
                != self._answers[id(call)]
            ):
                found = f"other bits after a failed allocation: {call.name}"
        except MemoryError:
            self.met["MemoryError raised"] += 1
        finally:
            failed = self._allocations.never()
        self.met["allocation failed"] += failed
        return found or self._check(call)

    def _interrupts(self, rng: random.Random) -> str | None:
        call = rng.choice(self._big)
        mine = _own(call)

        def often() -> None:
            for _ in range(10):
                mine.target(*mine.args, **mine.kwargs)

        if self._interrupted(rng, often):
            self.met["call interrupted"] += 1
        return self._check(call)

    def _interrupted_training(self, rng: random.Random) -> str | None:
        """All or nothing: the parameters are those after one of the steps."""
        model = copy.deepcopy(self._model)
        if self._interrupted(rng, lambda: self._states(model)):
            self.met["training interrupted"] += 1
        if digest(state_of(model)) not in self._trained:
            return "parameters of an unfinished step"
        return None

    def _interrupted(self, rng: random.Random, call: Callable[[], object]) -> bool:
        """Do a call, and let something like Ctrl-C come; tell whether it came."""
        self._armed = True
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 0.03))
            call()
            self._armed = False
        except KeyboardInterrupt:
            return True
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False

    def _interrupt(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt

    def _child(self, action: Callable[[], bool]) -> str | None:
        """Fork, do something in the child, and wait for it."""
        child = os.fork()
        if not child:
            right = False
            try:
                right = action()
            finally:
                os._exit(0 if right else 1)
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return f"a child ended with status {status}" if status else None
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "a child hangs"

    def _states(self, model: nn.Layer | None = None) -> list[str]:
        """Train a copy of the model, or a model; give the state after each step."""
        model = copy.deepcopy(self._model) if model is None else model
        target = np.arange(len(self._data)) % 3
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        found = [digest(state_of(model))]

        class Note(train.Callback):
            def on_batch_end(self, run: train.Run) -> None:
                found.append(digest(state_of(run.model)))

        train.fit(
            *(model, self._data, target),
            loss=nn.CrossEntropyLoss(),
            optimizer=optimizer,
            epochs=2,
            batch_size=2 * len(self._data) // STEPS,
            callbacks=[Note()],
            progress=False,
        )
        return found


def network() -> nn.Layer:
    """Build a model with all kinds of state but random ones."""
    return nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 3, groups=2),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(64),
        nn.Linear(64, 3),
        rng=3,
    )


def large_calls() -> list[Call]:
    """Make calls that take some milliseconds, of most kernels."""
    rng = np.random.default_rng(2)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
    for x, w, how in (
        ((2, 32, 56, 56), (48, 32, 3, 3), {"padding": 1}),
        ((2, 64, 28, 28), (64, 64, 3, 3), {"stride": 2, "padding": 1}),
        ((1, 3, 112, 112), (32, 3, 7, 7), {"stride": 2, "padding": 3}),
        ((2, 96, 40, 40), (96, 1, 3, 3), {"padding": 1, "groups": 96}),
        ((2, 16, 40, 40), (32, 16, 9, 9), {"padding": 4, "padding_mode": "reflect"}),
        ((2, 32, 30, 30), (32, 16, 3, 3), {"dilation": 2, "groups": 2}),
        ((4, 256, 14, 14), (128, 256, 1, 1), {}),
    ):
        xs, ws = draw(*x), draw(*w)
        y = F.conv2d(xs, ws, **how)
        calls += [
            (F.conv2d, (xs, ws, draw(w[0])), how),
            (F.conv2d_backward, (draw(*y.shape), xs, ws), how),
        ]
    x = draw(4, 32, 56, 56)
    y = F.max_pool2d(x, 3, 2, 1)
    _, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    weight, bias = draw(32), draw(32)
    calls += [
        (F.max_pool2d, (x, 3, 2, 1), {"return_indices": True}),
        (F.max_pool2d_backward, (y, indices, x.shape, 3, 2, 1), {}),
        (F.avg_pool2d, (x, 3, 2, 1), {}),
        (F.avg_pool2d_backward, (y, x.shape, 3, 2, 1), {}),
        (F.batch_norm, (x, None, None, weight, bias), {"training": True}),
        (F.gelu, (x,), {}),
        (F.softmax, (draw(500, 1000),), {"dim": 1}),
        (F.cross_entropy, (draw(500, 1000), np.arange(500)), {}),
        (F.keyed_dropout, (x, 7, 0.3), {}),
        (F.linear, (draw(64, 512), draw(512, 512), draw(512)), {}),
        (F.pad, (x, (3, 3, 3, 3), "reflect"), {}),
    ]
    return [Call(f.__name__, f, args, how) for f, args, how in calls]


def _own(call: Call) -> Call:
    """Copy a call, with all that it might change."""
    args, kwargs = copy.deepcopy((call.args, call.kwargs))
    return call._replace(args=args, kwargs=kwargs)


def answer(call: Call) -> str:
    """Call, and hash what it gives."""
    mine = _own(call)
    return digest(mine.target(*mine.args, **mine.kwargs))


def digest(result: Any) -> str:
    """Hash all bits of a result."""
    found = hashlib.sha256()
    for part in result if isinstance(result, tuple) else (result,):
        array = np.asarray(0 if part is None else part)
        found.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def state_of(model: nn.Layer) -> tuple[Any, ...]:
    """Give all parameters and statistics."""
    return tuple(model.state_dict().values())


def _address_space() -> int:
    """Give the bytes of addresses that this process has."""
    try:
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    except OSError:
        return ROOM
    return pages * os.sysconf("SC_PAGE_SIZE")
