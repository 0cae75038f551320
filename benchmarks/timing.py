"""Time one call, inside of the process that makes it."""

from collections.abc import Callable
from time import perf_counter

SAMPLE_SECONDS = 0.02  # below it, clock and scheduler are part of the result
MAX_REPETITIONS = 100_000
LONG_SECONDS = 0.2  # calls of this length are their own warm-up
# A process that slept 0.1 s computes at half its speed for some 30 ms on a virtual
# machine (two threads, 28 ms of CPU time for what takes 15 ms a little later).
WARM_SECONDS = 0.1
WARM_CALLS = 2  # the first builds plans and primitives, the second has warm pages

Call = Callable[[], object]


def calibrate(call: Call) -> int:
    """Warm up, and give the repetitions that make a sample.

    Parameters
    ----------
    call : callable without arguments

    Returns
    -------
    int
        Enough for `SAMPLE_SECONDS`, at most `MAX_REPETITIONS`; 1 for slow calls.
    """
    for _ in range(WARM_CALLS):
        seconds = _time(call, 1)
        if seconds > LONG_SECONDS:
            return 1
    repetitions = 1
    while repetitions < MAX_REPETITIONS:
        seconds = _time(call, repetitions)
        if seconds >= SAMPLE_SECONDS:
            break
        # Aim a tenth above, and never more than tenfold on one doubtful reading.
        factor = min(1.1 * SAMPLE_SECONDS / max(seconds, 1e-9), 10.0)
        repetitions = max(repetitions + 1, int(repetitions * factor))
    return min(repetitions, MAX_REPETITIONS)


def sample(call: Call, repetitions: int) -> float:
    """Measure the seconds of one call, as the mean of `repetitions`.

    Another process had the caches and the threads slept, so calls are made for
    `WARM_SECONDS` before the clock starts; a slow call is its own warm-up, and its
    time the sample.
    """
    end = perf_counter() + WARM_SECONDS
    while perf_counter() < end:
        seconds = _time(call, 1)
        if seconds > LONG_SECONDS:
            return seconds
    return _time(call, repetitions) / repetitions


def _time(call: Call, repetitions: int) -> float:
    start = perf_counter()
    for _ in range(repetitions):
        call()
    return perf_counter() - start
