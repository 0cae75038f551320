"""Legal calls of every public function and layer, and what comes of them when mutated.

The legal calls are those of the docstrings' examples: every public function has one that
runs. They are recorded once, then one argument, or one number in it, is replaced by
something else. A mutated call may give a result, or raise ValueError or TypeError with a
text that names the function; nothing else.
"""

import doctest
import inspect
import json
import random
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import convcore
from convcore import functional, init, nn, optim
from tests.nn.test_every_layer import TABLE as LAYERS

MODULES: tuple[ModuleType, ...] = (functional, nn, init, optim, convcore)
MEMORY = 4 << 30  # bytes of address space: what is too large is refused at once

ABSTRACT = {"convcore.nn.Layer", "convcore.optim.Optimizer"}
# Not called by themselves: what they do is measured in seconds, or is another's.
LEFT_OUT = {"autotune", "explain", "forget_tuned"}


class Call(NamedTuple):
    """A legal call."""

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def public() -> dict[str, Callable[..., Any]]:
    """Find every public function and class that can be called."""
    found: dict[str, Callable[..., Any]] = {}
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if name in LEFT_OUT or not callable(value):
                continue
            if not inspect.isclass(value) or issubclass(
                value, (nn.Layer, optim.Optimizer)
            ):
                found.setdefault(f"{module.__name__}.{name}", value)
    return found


def recorded(targets: dict[str, Callable[..., Any]]) -> list[Call]:
    """Run the examples of all docstrings, and keep the calls of `targets` in them."""
    calls: list[Call] = []
    finder = doctest.DocTestFinder(recurse=False)
    for name, target in targets.items():
        names = dict(vars(inspect.getmodule(target) or convcore))
        names.update(np=np, nn=nn, F=functional, init=init, optim=optim)
        short = name.rsplit(".", 1)[1]
        names[short] = _recorder(name, target, calls)
        for test in finder.find(target, short, globs=names):
            runner = doctest.DocTestRunner(verbose=False)
            runner.run(test, out=lambda text: None, clear_globs=False)
    return calls


def completed(calls: list[Call], targets: dict[str, Callable[..., Any]]) -> list[Call]:
    """Add calls of what has no example of its own: as for two axes, or as they come.

    And calls of every layer that the tests make, on an array.
    """
    calls = list(calls)
    known = {call.name: call for call in calls}
    for name, target in targets.items():
        two = known.get(f"{name[:-2]}2d")
        if name not in known and two is not None:
            calls.append(Call(name, target, two.args, two.kwargs))
        elif name not in known and inspect.isclass(target) and name not in ABSTRACT:
            calls.append(Call(name, target, (), {}))
    for name, (make, shape, _) in LAYERS.items():
        calls.append(Call(f"layer {name}", make(), (np.ones(shape),), {}))
    return calls


def _recorder(
    name: str, target: Callable[..., Any], calls: list[Call]
) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        calls.append(Call(name, target, args, dict(kwargs)))
        return target(*args, **kwargs)

    return record


NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    2**31,
    2**31 - 1,
    2**32 + 3,
    2**62,
    2**63,
    -(2**63),
    2**64 + 1,
)
OTHERS: tuple[Any, ...] = (
    *(None, True, 1.5, float("nan"), float("inf"), -1.0, 1e300, "", "same", "zeros"),
    *((), [], {}, (1,), (1, 2, 3, 4), ((1, 2),), ((1, 2), (3, 4)), b"x", 1j),
    *(np.int64(3), np.float32(2), np.array(3)),
)


def _arrays(a: np.ndarray[Any, Any], rng: random.Random) -> Iterator[Any]:
    """Give what may stand in an array's place."""
    yield a[..., :0]
    yield a[:0]
    yield a[None]
    yield a.reshape(-1)
    yield a.ravel()[0] if a.size else a
    yield np.zeros(
        a.shape, rng.choice([np.int64, np.float16, np.complex64, bool, object])
    )
    yield a.astype(rng.choice([np.float32, np.float64, ">f4"]))
    yield np.broadcast_to(a.dtype.type(1), a.shape)
    yield a[..., ::-1]
    yield a.T
    yield np.repeat(a, 2, axis=-1) if a.ndim else a
    if a.dtype.kind == "f":
        yield np.full_like(a, np.nan)
    else:
        yield np.full_like(
            a, rng.choice([2**31, -1, 2**62]) if a.dtype.kind == "i" else 1
        )
    yield np.ma.masked_less(a, 0)
    yield a.tolist()


def changed(value: Any, rng: random.Random) -> Any:
    """Give something in place of a value."""
    if isinstance(value, np.ndarray) and rng.random() < 0.8:
        return rng.choice(list(_arrays(value, rng)))
    if isinstance(value, (tuple, list)) and value and rng.random() < 0.6:
        items = list(value)
        if rng.random() < 0.3:
            items = items[:-1] if rng.random() < 0.5 else [*items, items[-1]]
        else:
            place = rng.randrange(len(items))
            items[place] = changed(items[place], rng)
        return type(value)(items)
    if rng.random() < 0.5:
        return rng.choice(NUMBERS)
    return rng.choice(OTHERS)


def mutated(call: Call, rng: random.Random) -> tuple[Call, str]:
    """Change one argument of a call, or give one that it left out; and name that."""
    parameters = [
        p
        for p in inspect.signature(call.target).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    given = {p.name: value for p, value in zip(parameters, call.args, strict=False)}
    given.update(call.kwargs)
    if not parameters:
        return call, ""
    chosen = rng.choice(parameters).name
    if chosen == "out" and rng.random() < 0.5:  # an input that is written to
        arrays = [v for v in given.values() if isinstance(v, np.ndarray)]
        given[chosen] = rng.choice(arrays) if arrays else None
    else:
        given[chosen] = changed(given.get(chosen), rng)
    positional = [
        p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.name in given
    ]
    args = tuple(given.pop(name) for name in positional)
    return Call(call.name, call.target, args, given), chosen


def verdict(call: Call, names: tuple[str, ...]) -> str | None:
    """Run a mutated call; say what is wrong with what it does, if anything is.

    Errors begin with one of `names`: a layer's may be told by the function behind it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call.target(*call.args, **call.kwargs)
    except (ValueError, TypeError) as error:
        if str(error).startswith(names):
            return None
        return f"{type(error).__name__} without the function's name: {error}"
    except MemoryError:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def beginnings(targets: dict[str, Callable[..., Any]]) -> tuple[str, ...]:
    """Give what an error may begin with."""
    names = {name.rsplit(".", 1)[1] for name in targets} | set(functional.__all__)
    return tuple(f"{name}{end}" for name in names for end in (": ", "."))


def main() -> None:
    """Run the calls whose seeds come on lines, `first stop`; answer two lines each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    targets = public()
    calls, names = completed(recorded(targets), targets), beginnings(targets)
    for line in sys.stdin:
        first, stop = map(int, line.split())
        for seed in range(first, stop):
            rng = random.Random(seed)
            call, chosen = mutated(calls[seed % len(calls)], rng)
            what = f"{call.name}({chosen}={call.kwargs.get(chosen, '?')!r:.60})"
            print(json.dumps({"seed": seed, "what": what}), flush=True)
            print(json.dumps({"seed": seed, "wrong": verdict(call, names)}), flush=True)


if __name__ == "__main__":
    main()
