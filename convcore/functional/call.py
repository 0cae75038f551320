"""The last step of every compiled operation: scratch, threads, and one kernel call.

And what may be kept between two calls with the same weights.
"""

import os
import re
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from convcore.plan import Plan, operation
from convcore.runtime import buffers, threads, workspace
from convcore.runtime.arrays import Array

_VERBOSE = os.environ.get("CONVCORE_VERBOSE", "0") != "0"
# Whether kernels may be called without `run`, which tells of them.
SILENT = not _VERBOSE


def run(plan: Plan, *buffers: Array | None, packed: Array | None = None) -> None:
    """Run the plan's kernel over contiguous arrays, the outputs last; None is no array.

    `packed` are the weights, the second array, as the kernel packs them.
    """
    team = threads.team(plan.work)
    begin = time.perf_counter() if _VERBOSE else 0.0
    size = plan.scratch_bytes(team, packed is not None)
    given = buffers if packed is None else (buffers[0], packed, *buffers[2:])
    if size:
        scratch = workspace.lend(size)
        try:
            lost = plan.kernel(plan.geometry, *given, scratch, team)
        finally:
            workspace.take_back(scratch)
    else:
        lost = plan.kernel(plan.geometry, *given, None, team)
    if _VERBOSE:
        milliseconds = (time.perf_counter() - begin) * 1e3
        print(
            f"convcore: {plan.problem} {plan.direction} {plan.dtype} {plan.algorithm} "
            f"{plan.isa} threads {team} {milliseconds:.3f} ms",
            file=sys.stderr,
        )
    if lost is not None:
        _run_again(plan, lost, buffers)


def apply(
    module: str,
    function: str,
    sizes: "tuple[int, ...] | array[int]",
    *buffers: Array | None,
    work: int,
    scratch: int = 0,
    of_each: int = 0,
) -> None:
    """Run the kernel of an operation that has only one, over contiguous arrays.

    Parameters
    ----------
    module, function : str
        As in `plan.operation`.
    sizes : ints
        What the kernel has to know of the shapes; an array of int64 may be kept.
    buffers : ndarray or None
        The outputs last; None is no array.
    work : int
        Elements that are looked at, about: decides about threads.
    scratch : int
        Bytes that are lent to the kernel, behind the buffers; without any, it gets none.
    of_each : int
        Bytes of scratch for each thread.
    """
    kernel = single(module, function)
    team = 1 if work < threads.SERIAL_MACS else threads.team(work)
    if type(sizes) is tuple:
        sizes = array("q", sizes)
    if scratch or of_each:
        lent = workspace.lend(scratch + team * of_each)
        try:
            kernel(sizes, *buffers, lent, team)
        finally:
            workspace.take_back(lent)
    else:
        kernel(sizes, *buffers, team)


def single(module: str, function: str) -> Callable[..., Any]:
    """Give the kernel of such an operation, or one that tells of its calls, if wanted."""
    kernel = operation(module, function)
    return _telling(kernel, f"{module}.{function}") if _VERBOSE else kernel


def _telling(kernel: Callable[..., Any], name: str) -> Callable[..., Any]:
    def told(sizes: "array[int]", *buffers: Any) -> None:
        begin = time.perf_counter()
        kernel(sizes, *buffers)
        milliseconds = (time.perf_counter() - begin) * 1e3
        what = f"{name} {tuple(sizes)} threads {buffers[-1]}"
        print(f"convcore: {what} {milliseconds:.3f} ms", file=sys.stderr)

    return told


def _run_again(plan: Plan, lost: bytearray, buffers: tuple[Array | None, ...]) -> None:
    """Compute without transforms the samples that are not finite with them.

    And the gradient of weight, to which all samples add, whole.
    """
    if plan.direction == "wgrad":
        run(plan.exact(), *buffers)
        return
    source, weight, bias, out = buffers
    assert source is not None
    assert out is not None
    sources, outs = source.reshape(len(lost), -1), out.reshape(len(lost), -1)
    for found in re.finditer(rb"[^\0]+", lost):  # neighbours together
        i, j = found.span()
        run(plan.exact(j - i), sources[i:j], weight, bias, outs[i:j])


class PackedWeight:
    """Packed weights, kept from call to call for as long as the weights are the same.

    Whoever keeps them knows when that is, and says so by `renew`. There is one form for
    each algorithm that calls have chosen. Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._kept: dict[object, Array] = {}
        self._state: object = None

    def renew(self, state: object) -> None:
        """Forget the packed weights, unless they were packed in this state."""
        if state != self._state:
            self._kept, self._state = {}, state

    def of(self, plan: Plan, weight: Array) -> Array:
        """Give the packed weights, for a plan that has a `packing`."""
        kept = self._kept  # another thread may put a new one in its place meanwhile
        packed = kept.get(plan.packing)
        if packed is None:
            size = plan.packed_bytes() + workspace.ALIGNMENT
            packed = buffers.empty((size,), np.dtype(np.uint8))
            plan.pack(weight, packed, threads.team(weight.size))
            kept[plan.packing] = packed
        return packed

    def made(self, key: str, make: Callable[[], Array]) -> Array:
        """Give what else is made of the weights, made once."""
        kept = self._kept
        array = kept.get(key)
        if array is None:
            array = kept[key] = make()
        return array

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return PackedWeight, ()
