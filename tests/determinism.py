"""Runs every operation, forward and backward, and digests what comes out.

A process of its own for each number of threads; tests/test_determinism.py compares them.
It repeats each operation with its arrays at other places of memory and with other leavings
in its scratch, runs samples of the batch alone, and tells what differs.

    python -m tests.determinism THREADS REPEATS [deep]
"""

import copy
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from convcore import functional, nn, optim, plan, precision
from convcore.fingerprint import Operation, gradient
from convcore.functional.call import run as run_plan
from convcore.problem import ConvProblem, PoolProblem
from convcore.runtime import arrays, threads
from tests.conv_helpers import accepting, arguments, compute
from tests.every_function import OPERATIONS
from tests.nn import test_every_layer as layers
from tests.oracle import Operands

Array = np.ndarray[Any, Any]
Results = Mapping[str, Any]

# Sizes that no tile, vector or number of threads divides.
BATCH, CHANNELS = 3, 10
EXTENTS = {1: (1037,), 2: (29, 37), 3: (7, 11, 14)}
OFFSETS = (0, 4, 8, 16, 32)  # bytes behind a cache line
LINE = 64  # bytes

# Each algorithm takes one in each of its directions; several tasks for each of 8 threads.
CONVOLUTIONS = (
    "n3g1ic20ih23oc37kh3ph1",
    "n3g1ic3ih50oc37kh5sh3ph2",
    "n3g5ic20ih31oc15kh5sh2ph2",
    "n3g19ic19ih29iw31oc19kh3ph1",
    "n3g37ic37ih17oc37kh3sh2ph1",
    "n37g1ic75ih3oc75kh3",
    "n3g1ic40iw1001oc50kw3pw4dw4",
    "n3g1ic18id6ih9oc50kd3pd1",
    "n3g1ic16ih27oc33kh5ph1circular",
)
POOLINGS: tuple[tuple[Any, ...], ...] = (
    ((3, 10, 29, 37), 3, 2, 1),
    ((3, 10, 29, 37), 3, 1, 1),
    ((3, 70, 7, 5), 2, 2, 0),
    ((3, 10, 1037), 5, 3, 2),
    ((3, 23, 12, 19), (12, 19), 1, 0),
)
ADAPTIVE: tuple[tuple[Any, ...], ...] = (  # narrow windows, and wide ones
    ((3, 10, 29, 37), (12, 17)),
    ((3, 10, 5, 137), (2, 3)),
)


# Data ------------------------------------------------------------------------------


@cache
def drawn(shape: tuple[int, ...], dtype: str) -> Array:
    """Numbers of both signs, the same in each process."""
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


def placed(array: Array, offset: int) -> Array:
    """A copy that begins so many bytes behind a cache line."""
    raw = np.empty(array.nbytes + LINE + offset, np.uint8)
    start = -raw.ctypes.data % LINE + offset
    copied = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


class Functions:
    """The public functions, called with arrays at a place; notes who was called."""

    def __init__(self) -> None:
        self.called: set[str] = set()
        self.offset = 0
        self.with_out = False  # whether results are written to that place, too
        self.alone = True  # whether samples are run alone, too

    def __getattr__(self, name: str) -> Any:
        function = getattr(functional, name)
        self.called.add(name)
        return (
            partial(self._call, function) if inspect.isfunction(function) else function
        )

    def _call(self, function: Callable[..., Any], *args: Any, **how: Any) -> Any:
        args = tuple(map(self.moved, args))
        how = {key: self.moved(value) for key, value in how.items()}
        result = function(*args, **how)
        if not (self.with_out and isinstance(result, np.ndarray)):
            return result
        if "out" not in inspect.signature(function).parameters:
            return result
        return function(*args, **how, out=self.moved(np.zeros_like(result)))

    def moved(self, value: Any) -> Any:
        """An array at the place."""
        return placed(value, self.offset) if isinstance(value, np.ndarray) else value

    def aligned(self, array: Array) -> Array:
        """An array near the place, as kernels take them: a multiple of its elements."""
        return placed(array, -(-self.offset // array.itemsize) * array.itemsize)


# What is run -----------------------------------------------------------------------

Entry = Callable[[Functions], Results]


def entries(deep: bool) -> Iterator[tuple[str, Entry]]:
    """Everything, with names that say what it is."""
    for dtype in ("float32", "float64"):
        for name, (axes, operation) in OPERATIONS.items():
            x = drawn((BATCH, CHANNELS, *EXTENTS[axes]), dtype)
            for mode in ("fast", "strict"):
                if mode == "fast" or "conv" in name:  # all else has no choice
                    label = f"{name}, {mode}, {dtype}"
                    yield label, partial(operated, operation, x, mode)
        for text in CONVOLUTIONS if not deep else everything():
            problem = ConvProblem.parse(text)
            for algorithm, direction in accepting(problem):
                label = f"{algorithm} {direction} {text}, {dtype}"
                yield label, partial(convolved, problem, algorithm, direction, dtype)
        made = [PoolProblem.pool("pool", *window) for window in POOLINGS]
        made += [PoolProblem.adaptive("pool", *window) for window in ADAPTIVE]
        for window, problem in zip((*POOLINGS, *ADAPTIVE), made, strict=True):
            for algorithm, direction in pooling(problem):
                label = f"{algorithm} {direction} {window}, {dtype}"
                yield label, partial(pooled, problem, algorithm, direction, dtype)
    for name in layers.NAMES:
        yield f"layer {name}", partial(through_a_layer, name)


def everything() -> tuple[str, ...]:
    """All problems of the tests of convolution."""
    from tests.cases import CASES
    from tests.test_conv_promises import BIG

    return (*CONVOLUTIONS, *BIG, *CASES.values())


def operated(operation: Operation, x: Array, mode: str, f: Functions) -> Results:
    """An operation, of the batch, and of two samples alone where they are told apart.

    Without "strict", an algorithm may be chosen by the batch.
    """

    def draw(*shape: int) -> Array:
        return drawn(shape, x.dtype.name)

    with precision(mode):
        found = dict(operation(f, x, draw))
        if f.alone and (mode == "strict" or operation not in CHOOSING):
            for i in (0, len(x) - 1):
                for key, alone in operation(f, x[i : i + 1], draw).items():
                    if key in ("y", "dx", "index", "y alone"):
                        found[f"{key} of sample {i}"] = same(
                            found[key][i : i + 1], alone
                        )
    return found


CHOOSING = {op for name, (_, op) in OPERATIONS.items() if "conv" in name}


def same(of_batch: Array, alone: Array) -> str:
    """A verdict, in place of a result."""
    return "" if bits(of_batch) == bits(alone) else "differs from the batch"


def convolved(
    problem: ConvProblem, algorithm: str, direction: Any, dtype: str, f: Functions
) -> Results:
    """An algorithm by its name; samples alone, where the result has samples."""
    operands = Operands(
        *(
            f.aligned(drawn(shape, dtype))
            for shape in (
                problem.x_shape,
                problem.weight_shape,
                (problem.oc,),
                problem.y_shape,
                (problem.ic,),
            )
        )
    )
    source, *others = arguments(direction, operands)
    found = {"": compute(problem, algorithm, direction, source, *others)}
    if f.alone and direction in ("fprop", "dgrad") and problem.n:
        one = ConvProblem.parse(str(problem).replace(f"n{problem.n}", "n1", 1))
        for i in {0, problem.n - 1}:
            alone = compute(one, algorithm, direction, source[i : i + 1], *others)
            found[f"sample {i}"] = same(found[""][i : i + 1], alone)
    return found


# What each direction of max pooling reads and writes: x, gradient, index, labels, y, ...
POOL_BUFFERS = {
    "max_values": "x y -",
    "max_fprop": "x y index",
    "max_labels": "x y labels",
    "max_labels_dgrad": "g labels dx",
    "max_dgrad": "g index dx",
    "max_checked_dgrad": "g index dx found",
    "max_check": "index found",
}


def pooling(problem: PoolProblem) -> Iterator[tuple[str, str]]:
    """Every pooling algorithm's name with every direction in which it takes the problem.

    But for directions that have one algorithm: the public functions run it.
    """
    for direction in POOL_BUFFERS:
        for card in plan.choice.cards_of(problem, direction):
            if card.accepts(problem, direction).yes:
                yield card.name, direction


def pooled(
    problem: PoolProblem, algorithm: str, direction: str, dtype: str, f: Functions
) -> Results:
    """A pooling algorithm by its name."""
    shape = problem.y_shape
    x = drawn(problem.x_shape, dtype)
    kind, window = "max_pool", (problem.kernel, problem.stride, problem.padding)
    if 0 in problem.kernel:
        kind, window = "adaptive_max_pool", (problem.out_extent,)
    y, index = getattr(functional, f"{kind}{problem.ndim}d")(
        x, *(value[3 - problem.ndim :] for value in window), return_indices=True
    )
    labels = np.zeros(shape, np.uint8)
    if direction == "max_labels_dgrad":
        forward = plan.select(problem, "max_labels", dtype)
        run_plan(forward, x, y.copy(), labels)
    names = POOL_BUFFERS[direction].split()
    reads = {"x": x, "g": drawn(shape, dtype), "index": index, "labels": labels}
    # The first is read; of "index" and "labels", only a gradient is computed.
    backward = "dgrad" in direction or direction == "max_check"
    written = {
        "y": np.full(shape, np.nan, dtype),
        "dx": np.full(problem.x_shape, np.nan, dtype),
        "found": np.full(1, 7),
        **({} if backward else {"index": index * 0 - 1, "labels": labels + 77}),
    }
    arrays_of = {**reads, **written}
    buffers = {
        name: f.aligned(arrays_of[name]) if name in arrays_of else None
        for name in names
    }
    run_plan(plan.select(problem, direction, dtype, algorithm), *buffers.values())
    return {name: buffers[name] for name in names if name in written}


@cache
def made(name: str) -> tuple[nn.Layer, Array]:
    layer, x = layers.make(name)
    return layer, x


def through_a_layer(name: str, f: Functions) -> Results:
    """A layer, forward and backward, and the gradients of its parameters."""
    layer, x = copy.deepcopy(made(name))
    y, backward = layer.forward(f.moved(x))
    found = {"y": y, "dx": backward(f.moved(gradient(y))), "inference": layer(x)}
    for key, parameter in layer.named_parameters():
        found[f"d{key}"] = parameter.grad
    return found


def trained(steps: int = 50) -> Results:
    """A small network after some steps: three optimisers, each with a third of it."""
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, rng=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Dropout(0.2, rng=2),
        nn.Conv2d(12, 20, 3, stride=2, padding=1, groups=2, rng=3),
        nn.GroupNorm(5, 20),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20 * 9, 10, rng=4),
        nn.LayerNorm(10),
    )
    parameters = list(model.parameters())
    optimisers = (
        optim.SGD(parameters[::3], 0.05, momentum=0.9, nesterov=True),
        optim.SGD(parameters[1::3], 0.05, weight_decay=1e-3),
        optim.Adam(parameters[2::3], 0.01),
    )
    images = drawn((64, 3, 25, 25), "float32")
    classes = np.arange(64) * 7 % 10
    loss = nn.CrossEntropyLoss()
    losses = []
    for step in range(steps):
        batch = slice(step * 13 % 48, step * 13 % 48 + 13)
        y, backward = model.forward(images[batch])
        value, back = loss.forward(y, classes[batch])
        losses.append(value)
        backward(back())
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    return {"losses": np.array(losses), **model.state_dict()}


# The process -----------------------------------------------------------------------


def bits(value: Any) -> bytes:
    """Everything about a result."""
    if value is None or isinstance(value, str):
        return repr(value).encode()
    array = np.asarray(value)
    return f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()


def digest(results: Results) -> str:
    whole = hashlib.sha256()
    for key in sorted(results):
        whole.update(f"{key}: ".encode() + bits(results[key]))
    return whole.hexdigest()[:16]


def repeated(repeats: int, deep: bool) -> dict[str, Any]:
    """Run everything so many times; give digests, what differed, and who was called."""
    f = Functions()
    digests: dict[str, str] = {}
    wrong: list[str] = []
    for name, entry in entries(deep):
        first: dict[str, bytes] = {}
        fewer = "float64" in name or name.startswith("layer ")
        for repeat in range(min(repeats, len(OFFSETS)) if fewer else repeats):
            f.offset = OFFSETS[repeat % len(OFFSETS)]
            f.with_out = repeat == 2
            f.alone = repeat < len(OFFSETS)
            arrays.POISON = repeat % 2 == 0  # or what was left before
            results = entry(f)
            if repeat == 0:
                digests[name] = digest(results)
            for key, value in results.items():
                if isinstance(value, str) and value:
                    wrong.append(f"{name}: {key} {value}, offset {f.offset}")
                elif first.setdefault(key, bits(value)) != bits(value):
                    wrong.append(f"{name}: {key} in repeat {repeat}, offset {f.offset}")
    for repeat in range(max(1, repeats // 5)):
        arrays.POISON = repeat % 2 == 0
        found = digest(trained())
        if digests.setdefault("50 steps of training", found) != found:
            wrong.append(f"50 steps of training: repeat {repeat}")
    return {"digests": digests, "wrong": wrong, "called": sorted(f.called)}


def main() -> None:
    team, repeats, *deep = sys.argv[1:]
    # Whatever the work, and more threads than `set_num_threads` takes on a small machine.
    threads.SERIAL_MACS = 0
    threads.team = lambda work: int(team)
    json.dump(repeated(int(repeats), bool(deep)), sys.stdout)


if __name__ == "__main__":
    main()
