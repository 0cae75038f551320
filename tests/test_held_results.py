"""What a user holds stays as it is, whatever later steps and other threads compute."""

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import numpy as np
import pytest

import convcore
from convcore import nn, optim, train
from convcore.runtime import arrays, buffers
from tests import steady

SMALL = 1 << 12
STEPS = 12
THREADS = 4

# Ways to hold an array: all of it, or a part, without the array itself.
HOLDS: tuple[Callable[[Any], Any], ...] = (
    lambda a: a,
    lambda a: a[1:],
    lambda a: a[..., ::-2],
    lambda a: a.T,
    lambda a: a.reshape(-1)[3:5],
    lambda a: a.view(np.uint32),
    memoryview,
    lambda a: memoryview(a)[1:],
    lambda a: np.frombuffer(a, np.uint8),
    np.from_dlpack,
    lambda a: np.lib.stride_tricks.sliding_window_view(a.reshape(-1), 3),
    lambda a: np.asarray(a.base),
)


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let small results share memory, too, so that short steps try it often."""
    for module, name in ((buffers, "LEAST"), (arrays, "_LEAST")):
        monkeypatch.setattr(module, name, SMALL)
    yield
    convcore.release_memory()


class Held:
    """Parts of results beside copies of them, and how to look at them again."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, Any]] = []

    def hold(self, *results: Any) -> None:
        for result in results:
            if result.nbytes >= SMALL:
                how = HOLDS[len(self._kept) % len(HOLDS)]
                part = how(result)
                self._kept.append((part, np.array(part)))

    def check(self) -> int:
        for part, copy in self._kept:
            np.testing.assert_array_equal(np.asarray(part), copy)
        return len(self._kept)

    def forget_some(self) -> None:
        """Let go of every third: their memory goes to what comes."""
        del self._kept[::3]


def gradients(model: nn.Layer) -> list[Any]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def trained(held: Held, seed: int, steps: int = STEPS) -> None:
    """Hold outputs, gradients and predictions of each step."""
    model, (x, y) = steady.network(), steady.data()
    x, y = x[: steady.BATCH] + np.float32(seed), y[: steady.BATCH]
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    for step in range(steps):
        outputs, grad, grad_x = steady.passes(model, x, y)
        held.hold(outputs, grad, grad_x, *gradients(model))
        optimizer.step()
        held.hold(train.predict(model, x, 5), model(x), model[:3](x))
        held.check()
        if step % 3 == 2:
            held.forget_some()


def test_one_thread() -> None:
    held = Held()
    with convcore.keep_memory():
        trained(held, 0)
    assert held.check() >= len(HOLDS)


def test_threads_at_once() -> None:
    """Each trains a network of its own."""
    failures: list[BaseException] = []
    counts: list[int] = []

    def work(seed: int) -> None:
        held = Held()
        try:
            trained(held, seed, STEPS // 2)
            counts.append(held.check())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    with convcore.keep_memory():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(counts) == THREADS


def test_another_thread_may_hold_what_one_made() -> None:
    """It gets results, keeps them for a while, and lets go of them when it likes."""
    handed: Queue[Any] = Queue()
    failures: list[BaseException] = []

    def keep() -> None:
        late: list[tuple[Any, Any]] = []
        for part, copy in iter(handed.get, None):
            late.append((part, copy))
            del part
            if len(late) > 9:
                part, copy = late.pop(len(late) // 2)
                try:
                    np.testing.assert_array_equal(np.asarray(part), copy)
                except AssertionError as error:
                    failures.append(error)

    class HandOver(train.Callback):
        def on_batch_end(self, run: train.Run) -> None:
            for index, grad in enumerate(gradients(run.model)):
                part = HOLDS[index % len(HOLDS)](grad)
                handed.put((part, np.array(part)))
            y = run.model(x[:7])
            handed.put((y[2:], y[2:].copy()))

    model, (x, y) = steady.network(), steady.data()
    keepers = [threading.Thread(target=keep) for _ in range(2)]
    for keeper in keepers:
        keeper.start()
    train.fit(
        model,
        x,
        y,
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.Adam(model.parameters()),
        epochs=STEPS // 4,
        batch_size=steady.BATCH,
        callbacks=[HandOver()],
        progress=False,
    )
    for _ in keepers:
        handed.put(None)
    for keeper in keepers:
        keeper.join()
    assert not failures


def test_a_backward_pass_that_waits_has_what_it_needs() -> None:
    """Its inputs and masks are held by nobody else, while other steps go on."""
    model, (x, y) = steady.network(), steady.data()
    passes = []
    with convcore.keep_memory():
        for start in range(0, len(x), steady.BATCH):
            some = slice(start, start + steady.BATCH)
            outputs, backward = model.forward(x[some])
            _, of_loss = nn.CrossEntropyLoss().forward(outputs, y[some])
            grad = of_loss()
            del outputs
            passes.append((backward, grad, backward(grad).copy()))
        trained(Held(), 1, 3)
        for backward, grad, right in reversed(passes):
            np.testing.assert_array_equal(backward(grad), right)


def test_what_the_tests_look_for_would_show() -> None:
    held = Held()
    a = arrays.empty((64, 64), np.dtype(np.float32))
    a.fill(1)
    held.hold(a)
    a[5, 5] = 2
    with pytest.raises(AssertionError):
        held.check()
