"""The last step of every compiled operation: scratch, threads, and one kernel call."""

import os
import sys
import time

import numpy as np

from convcore.plan import Plan
from convcore.runtime import threads, workspace
from convcore.runtime.arrays import Array

_VERBOSE = os.environ.get("CONVCORE_VERBOSE", "0") != "0"


def run(plan: Plan, work: int, *buffers: Array) -> None:
    """Run the plan's kernel over contiguous arrays, the outputs last.

    Parameters
    ----------
    work : int
        Multiply-adds, or what costs as much: decides on the number of threads.
    """
    team = threads.team(work)
    begin = time.perf_counter() if _VERBOSE else 0.0
    with workspace.scratch(plan.scratch_size(team), np.dtype(plan.dtype)) as scratch:
        plan.kernel(plan.geometry, *(b.reshape(-1) for b in buffers), scratch, team)
    if _VERBOSE:
        milliseconds = (time.perf_counter() - begin) * 1e3
        print(
            f"convcore: {plan.problem} {plan.direction} {plan.dtype} {plan.algorithm} "
            f"{plan.isa} threads {team} {milliseconds:.3f} ms",
            file=sys.stderr,
        )
