"""The last step of every compiled operation: scratch, threads, and one kernel call."""

import os
import sys
import time

from convcore.plan import Plan
from convcore.runtime import threads, workspace
from convcore.runtime.arrays import Array

_VERBOSE = os.environ.get("CONVCORE_VERBOSE", "0") != "0"


def run(plan: Plan, *buffers: Array | None) -> None:
    """Run the plan's kernel over contiguous arrays, the outputs last; None is no array."""
    team = threads.team(plan.work)
    begin = time.perf_counter() if _VERBOSE else 0.0
    size = plan.scratch_bytes(team)
    if size:
        scratch = workspace.lend(size)
        try:
            plan.kernel(plan.geometry, *buffers, scratch, team)
        finally:
            workspace.take_back(scratch)
    else:
        plan.kernel(plan.geometry, *buffers, None, team)
    if _VERBOSE:
        milliseconds = (time.perf_counter() - begin) * 1e3
        print(
            f"convcore: {plan.problem} {plan.direction} {plan.dtype} {plan.algorithm} "
            f"{plan.isa} threads {team} {milliseconds:.3f} ms",
            file=sys.stderr,
        )
