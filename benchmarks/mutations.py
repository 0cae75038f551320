"""Legal calls with one thing wrong, and what may come of them.

One argument of a call, or one number in it, is replaced by something else: another type,
another rank, nothing, huge and negative numbers, NaN, another argument's array, an `out`
that lies over an input; or it is left out. Such a call may give a result, or raise
ValueError or TypeError with a text that names the function and an argument; nothing else.
It keeps no reference to its arrays, and writes to none but `out`.
"""

import gc
import inspect
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.calls import Call

Words = dict[str, set[str]]  # of a function's name: what its arguments are called


class Mutant(NamedTuple):
    """A call with one thing wrong; `what` names it, `refused` if it has to be."""

    call: Call
    what: str
    refused: bool = False


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
# What layers call what they get; an error of one may come from the function behind it.
ARRAYS = {
    "x",
    "weight",
    "grad_output",
    "grad_y",
    "child",
    "output",
    "input",
    "result",
    "state",
}
# They say how long to work: large ones are legal, and would take for ever.
DURATIONS = {"draws", "epochs", "seconds", "step_size"}
SLOW = "convcore.analysis"  # goes through pixels in Python
WRITTEN = {"running_mean", "running_var"}  # in training, and so it says
MOST = 1 << 20  # elements of an array that is looked at


class Liar:
    """What says that it is an integer, and is none."""

    def __index__(self) -> Any:
        return 1.5


OTHERS: tuple[Any, ...] = (
    *(None, True, 1.5, float("nan"), float("inf"), -1.0, 1e300, "", "same", "zeros"),
    *((), [], {}, (1,), (1, 2, 3, 4), ((1, 2),), ((1, 2), (3, 4)), b"x", 1j),
    *(np.int64(3), np.float32(2), np.array(3), np.array([1, 2]), np.array([1.5, 2])),
    *(np.array(["a", "b"]), np.array([True, False]), 10**5000, -(10**5000), Liar()),
)


def _arrays(a: np.ndarray[Any, Any], rng: random.Random) -> Iterator[Any]:
    """Give what may stand in an array's place."""
    if a.ndim:
        yield a[..., :0]
        yield a[:0]
        yield a[..., ::-1]
        yield np.repeat(a, 2, axis=-1)
    yield a[None]
    yield a.reshape(-1)
    yield a.ravel()[0] if a.size else a
    yield np.zeros(
        a.shape, rng.choice([np.int64, np.float16, np.complex64, bool, object])
    )
    yield a.astype(rng.choice(["f4", "f8", ">f4"]))
    yield np.broadcast_to(a.dtype.type(1), a.shape)
    yield a.T
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
    if isinstance(value, Mapping) and value and rng.random() < 0.8:
        state, name = dict(value), rng.choice(list(value))
        item = state.pop(name)
        return state if rng.random() < 0.2 else {**state, name: changed(item, rng)}
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


def mutated(call: Call, rng: random.Random) -> Mutant:
    """Change one argument of a call, give or leave out one."""
    parameters = [
        p
        for p in inspect.signature(call.target).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name != "function"  # in whose name a problem raises errors
    ]
    given = {p.name: value for p, value in zip(parameters, call.args, strict=False)}
    given.update(call.kwargs)
    if not parameters or rng.random() < 0.02:
        strange = call._replace(kwargs={**call.kwargs, "unknown": 1})
        return Mutant(strange, "unknown=1")
    chosen = rng.choice(parameters).name
    others = [v for k, v in given.items() if isinstance(v, np.ndarray) and k != chosen]
    refused = False
    if chosen == "out" and others:
        refused = rng.random() < 0.7 and _overlap(call, given, rng)
        if not refused:
            given["out"] = rng.choice(others)
    elif chosen in given and rng.random() < 0.05:
        del given[chosen]
    elif others and isinstance(given.get(chosen), np.ndarray) and rng.random() < 0.1:
        given[chosen] = rng.choice(others)
    else:
        given[chosen] = changed(given.get(chosen), rng)
    slow = chosen in DURATIONS or call.name.startswith(SLOW)
    if slow and _is_long(given.get(chosen)):
        given[chosen] = 2
    what = f"{chosen}={_text(given.get(chosen, '?'))}"
    positional = [
        p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.name in given
    ]
    args = tuple(given.pop(name) for name in positional)
    return Mutant(Call(call.name, call.target, args, given), what, refused)


def _text(value: Any) -> str:
    """Give the start of a value's text: Python refuses that of very large integers."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return f"a {type(value).__name__} that is too long"


def _is_long(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_is_long, value))
    return isinstance(value, (int, float, np.number)) and bool(value > 10)


def _overlap(call: Call, given: dict[str, Any], rng: random.Random) -> bool:
    """Put an input and an `out` of the right shape where they overlap, if that can be."""
    legal = {name: value for name, value in given.items() if name != "out"}
    try:
        results = call.target(**legal)
    except Exception:  # positions only, or a call that needs its `out`
        return False
    several = isinstance(results, tuple)
    pairs = [
        (place, y, name)
        for place, y in enumerate(results if several else (results,))
        for name, x in legal.items()
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
        if x.dtype == y.dtype and x.size > 1 and y.size
    ]
    if not pairs:
        return False
    place, y, name = rng.choice(pairs)
    x = given[name]
    both = np.zeros(x.size + y.size, x.dtype)
    first = rng.randrange(1, x.size)
    given[name] = both[: x.size].reshape(x.shape)
    given[name][...] = x
    out = both[first : first + y.size].reshape(y.shape)
    given["out"] = out
    if several:
        given["out"] = tuple(out if i == place else None for i in range(len(results)))
    return True


def wrong(mutant: Mutant, words: Words, keeps: Iterable[str] = ()) -> str | None:
    """Run a mutated call; say what is wrong with what it does, if anything is.

    What is named in `keeps` may keep its arrays.
    """
    call = mutant.call
    given: dict[Any, Any] = {**dict(enumerate(call.args)), **call.kwargs}
    inputs = [
        (name, value, value.tobytes())
        for name, value in given.items()
        if type(value) is np.ndarray and value.size < MOST and not value.dtype.hasobject
    ]
    counts = _held(inputs)
    found = _said(mutant, words) or _written(inputs, given.get("out"))
    if call.name not in keeps and _held(inputs) != counts:
        gc.collect()
        if _held(inputs) != counts:
            found = found or "keeps a reference to an argument"
    return found


def _written(inputs: list[tuple[Any, ...]], out: Any) -> str | None:
    """Name an input that is not as it was before."""
    for name, value, before in inputs:
        may = value is out or name in WRITTEN
        if not may and value.tobytes() != before:
            return f"writes to {name}"
    return None


def _held(inputs: list[tuple[Any, ...]]) -> list[int]:
    """Count the references to each array."""
    return [sys.getrefcount(inputs[i][1]) for i in range(len(inputs))]


def _said(mutant: Mutant, words: Words) -> str | None:
    """Run it, and judge what it says."""
    call = mutant.call
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call.target(*call.args, **call.kwargs)
    except (ValueError, TypeError) as error:
        return _unnamed(str(error), call, words)
    except (MemoryError, OSError, FloatingPointError):
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "should have been refused" if mutant.refused else None


def _unnamed(text: str, call: Call, words: Words) -> str | None:
    """Say what the text of an error does not name.

    A layer's error may be told by the function behind it, whose arguments it names.
    """
    if re.match(r"[\w.<>]+\(\) (got|missing|takes) ", text):  # Python's own
        return None
    head = re.match(r"(?:ConvProblem\.)?(\w+)[.\w ]*: ", text)
    if head is None or head[1] not in words:
        return f"without the function's name: {text}"
    arguments = words[head[1]] | words[call.name] | ARRAYS
    for value in call.kwargs.values():  # an entry of a state is an argument of its own
        arguments |= set(value) if isinstance(value, dict) else set()
    if arguments.isdisjoint(re.findall(r"[\w.]+", text[head.end() :])):
        return f"without an argument's name: {text}"
    return None


def words_of(targets: Iterable[tuple[str, Callable[..., Any]]]) -> Words:
    """Give the names that an error may begin with, and those of the arguments."""
    words: Words = {
        "Adam": {"beta1", "beta2"},
        "analysis": {"layer", "input", "Flatten"},
    }
    for name, target in targets:
        arguments = set(inspect.signature(target).parameters)
        for known in (name, name.rsplit(".", 1)[1]):
            words.setdefault(known, {"unknown"}).update(arguments)
    return words
