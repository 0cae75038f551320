"""Every operation, forward and backward, as calls that give arrays: for other processes.

Convolutions by every algorithm that accepts them, poolings over shapes that take each way
through the kernels, layers, and all functions. What they give depends
on nothing but the seed, so two processes, threads or settings compare digests.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from convcore import functional as F
from convcore import nn
from convcore.fingerprint import Operation as Function
from convcore.functional import _elementwise
from convcore.problem import ConvProblem
from convcore.runtime import threads
from tests import conv_helpers, oracle
from tests.cases import CASES
from tests.every_function import OPERATIONS
from tests.nn.test_every_layer import TABLE as LAYERS

Operation = Callable[[], Any]

ALL = tuple(CASES.values())
# Spellings of problems, for those who want few: each algorithm and direction is in one.
FEW = (
    "n2g1ic3ih20oc64kh7sh2ph3",
    "n2g1ic20ih13iw11oc31kh3ph1",
    "n1g1ic8ih33oc8kh11ph5",
    "n2g40ic40ih15iw14oc40kh3sh2ph1",
    "n2g7ic7ih9oc7kh3ph1",
    "n7g3ic6ih3iw5oc15kh3kw5",
    "n1g1ic48ih8oc3kh4sh2ph1",
)
# Of functions, for each number of axes.
SPACE = {1: (67,), 2: (9, 11), 3: (6, 7, 8)}
# Planes that lie in lanes, in strips, in rows, and rows longer than a block.
PLANES = ((20, 3, 15, 15), (2, 3, 31, 200), (1, 2, 5, 1700))
# Kernel, stride, padding; the last is longer than what a line holds.
WINDOWS = (
    (2, 2, 0),
    (3, 2, 1),
    (3, 1, 1),
    ((2, 5), (1, 3), (1, 2)),
    ((1, 600), 1, (0, 300)),
)


def every(problems: Any = ALL) -> Iterator[tuple[str, Operation]]:
    """Give all operations, by name."""
    yield from convolutions(problems)
    yield from poolings()
    for name, (make, shape, _) in LAYERS.items():
        yield f"layer {name}", partial(of_layer, make, shape)
    for name, (axes, operation) in OPERATIONS.items():
        yield f"function {name}", partial(of_function, operation, axes)


def convolutions(problems: Any = ALL) -> Iterator[tuple[str, Operation]]:
    """Every algorithm in every direction."""
    for spelling in problems:
        problem = ConvProblem.parse(spelling)
        for algorithm, direction in conv_helpers.accepting(problem):
            for dtype in oracle.DTYPES:
                name = f"{spelling} {algorithm} {direction} {np.dtype(dtype).name}"
                yield name, partial(of_problem, problem, algorithm, direction, dtype)


def poolings() -> Iterator[tuple[str, Operation]]:
    """Every family of pooling."""
    for shape in PLANES:
        for window in WINDOWS:
            if window[0] == (1, 600) and shape[3] < 600:
                continue
            for dtype in oracle.DTYPES:
                name = f"{shape} {window} {np.dtype(dtype).name}"
                yield f"pool {name}", partial(of_pools, shape, window, dtype)


def of_problem(
    problem: ConvProblem, algorithm: str, direction: oracle.Direction, dtype: Any
) -> Any:
    """Run one algorithm."""
    operands = oracle.operands(problem, np.random.default_rng(0), dtype, "normal")
    arrays = conv_helpers.arguments(direction, operands)
    work = conv_helpers.ALL_THREADS
    return conv_helpers.compute(problem, algorithm, direction, *arrays, work=work)


def of_pools(shape: Any, window: Any, dtype: Any) -> list[Any]:
    """Run all poolings with a window, and their gradients."""
    x = oracle.normal(np.random.default_rng(0), shape, dtype)
    found, indices = F.max_pool2d(x, *window, return_indices=True)
    layer, backward = nn.MaxPool2d(*window).forward(x)
    means = F.avg_pool2d(x, *window, count_include_pad=False)
    norms = F.lp_pool2d(x, 2, *window[:2])
    return [
        *(found, indices, layer, means, norms, backward(layer)),
        F.max_pool2d_backward(found, indices, shape, *window),
        F.avg_pool2d_backward(means, shape, *window, count_include_pad=False),
        F.lp_pool2d_backward(norms, x, norms, 2, *window[:2]),
        *(F.avg_pool2d(x, *window), F.adaptive_avg_pool2d(x, 3)),
        *(F.global_avg_pool2d(x), F.global_max_pool2d(x)),
        *(F.adaptive_max_pool2d(x, 2), F.blur_pool2d(x)),
    ]


def of_layer(
    make: Callable[[], Any], shape: tuple[int, ...], batch: int = 9
) -> list[Any]:
    """Run a layer, and its gradients."""
    layer = make()
    x = oracle.normal(np.random.default_rng(0), (batch, *shape[1:]), np.float64)
    y, backward = layer.forward(x)
    return [y, backward(y), *(p.grad for p in layer.parameters())]


def of_function(operation: Function, axes: int) -> list[Any]:
    """Run a function, and its gradients."""
    rng = np.random.default_rng(0)
    x = oracle.normal(rng, (9, 10, *SPACE[axes]))
    results = operation(F, x, lambda *shape: oracle.normal(rng, shape))
    return [result for result in results.values() if result is not None]


def digest(result: Any) -> str:
    """Sum up a result of arrays."""
    found = hashlib.sha256()
    for array in result if isinstance(result, (list, tuple)) else [result]:
        found.update(repr((np.shape(array), np.asarray(array).dtype)).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def digest_of_all(operations: Any) -> str:
    """Sum up the results of operations."""
    found = hashlib.sha256()
    for name, operation in operations:
        found.update(f"{name} {digest(operation())}\n".encode())
    return found.hexdigest()


def digest_of_few(step: int = 1) -> str:
    """Sum up the results of some operations: every so many of `FEW`."""
    return digest_of_all(list(every(FEW))[::step])


def always_use(team: int) -> None:
    """Use so many threads in this process, however small the work is."""
    threads.SERIAL_MACS = _elementwise.SERIAL_MACS = 0
    threads.set_num_threads(team)


def main() -> None:
    """Print the digest of all operations, with so many threads."""
    always_use(int(sys.argv[1]))
    if sys.argv[2:]:  # name each, as a crash tells nothing
        for name, operation in every():
            print(name, flush=True)
            operation()
    print(digest_of_all(every()))


if __name__ == "__main__":
    main()
