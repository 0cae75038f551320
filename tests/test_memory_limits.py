"""Memory that is refused, and memory that is never given back."""

import sys

import pytest

from tests.fresh import answer

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="as on Linux")

# Every array of 64 KiB and more is a mapping of its own, if no hole is left for it of what
# was imported: each is refused once, as the limit rises in steps that are smaller than the
# arrays.
REFUSE = """
import resource, sys
from functools import partial
import numpy as np
import convcore
from tests import conv_helpers, operations as o, oracle
o.always_use(2)
rng = np.random.default_rng(0)
STEP = 192 << 10
# When a ufunc of NumPy 2.4 gets no memory to buffer elements, it raises without holding
# the lock, and the process ends: here its buffers have 128 bytes instead of 64 KiB.
np.setbufsize(16)

def limited(room):
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))

def unlimited():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

def refusals(run):
    right = o.digest(run())
    for count in range(500):
        convcore.release_memory()
        limited(count * STEP)
        try:
            result = run()
        except MemoryError:
            result = None
        finally:
            unlimited()
        if result is not None:
            assert o.digest(result) == o.digest(run()) == right
            return count
        if count % 5 == 0:
            assert o.digest(run()) == right
    raise AssertionError("never enough")
"""
KINDS = {
    "convolutions": """
for spelling in ("n1g1ic32ih48oc32kh3ph1", "n1g64ic64ih48oc64kh3sh2ph1"):
    problem = o.ConvProblem.parse(spelling)
    operands = oracle.operands(problem, rng, "f4", "normal")
    for algorithm, direction in conv_helpers.accepting(problem):
        arrays = conv_helpers.arguments(direction, operands)
        yield f"{spelling} {algorithm} {direction}", partial(
            conv_helpers.compute, problem, algorithm, direction, *arrays
        )
""",
    "poolings": """
for window in o.WINDOWS[:3]:
    yield str(window), partial(o.of_pools, (1, 24, 60, 60), window, "f4")
""",
    "functions": """
from tests.test_functional_promises import TABLE
for name, (function, count, _) in TABLE.items():
    arrays = [oracle.normal(rng, (12_000, 6, 5)) for _ in range(count)]
    yield name, partial(function, *arrays)
""",
    "layers": """
def both(layer, x):
    layer.zero_grad()
    y, backward = layer.forward(x)
    return [y, backward(y), *(p.grad for p in layer.parameters())]
for name, (make, shape, _) in o.LAYERS.items():
    if name[-2:] not in ("1d", "3d") and "Pool" not in name and "Drop" not in name:
        x = oracle.normal(rng, (60_000 // np.prod(shape[1:]), *shape[1:]), np.float64)
        yield name, partial(both, make(), x)
""",
}


@needs_linux
@pytest.mark.parametrize("kind", KINDS)
def test_memory_that_is_refused_is_an_error_and_no_more(kind: str) -> None:
    body = KINDS[kind].replace("\n", "\n    ")
    code = f"""{REFUSE}
def operations():
    {body}
for name, run in operations():
    try:
        print(refusals(run), name)
    except BaseException as error:
        sys.exit(f"{{name}}: {{error!r}}")
"""
    counts = [
        int(line.split(" ", 1)[0])
        for line in answer(code, MALLOC_MMAP_THRESHOLD_="65536").splitlines()
    ]
    assert sum(count > 0 for count in counts) > len(counts) / 2  # some need too little


@needs_linux
def test_memory_does_not_grow() -> None:
    """Ten thousand calls, right and wrong ones, in a process of their own."""
    code = """
import os
import numpy as np
from convcore import functional as F
x, w = np.ones((2, 3, 9, 9), "f4"), np.ones((4, 3, 3, 3), "f4")
def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
def calls(number):
    for i in range(number):
        y = F.conv2d(x, w)
        F.conv2d_backward(y, x, w)
        F.max_pool2d(x, 3)
        for wrong in ({"stride": 0}, {"groups": 2}, {"out": x}):
            try:
                F.conv2d(x, w, **wrong)
            except (ValueError, TypeError):
                pass
            else:
                raise AssertionError(wrong)
calls(500)
before = megabytes()
calls(10_000)
print(megabytes() - before)
"""
    assert float(answer(code)) < 2
