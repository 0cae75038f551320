"""Which of several calls is the fastest: all in turns, and the least time of each."""

from collections.abc import Callable, Mapping
from time import perf_counter

SAMPLE_SECONDS = 0.001  # below it, the clock and the loop are part of the result
LEAST_ROUNDS = 3
HOPELESS = 4.0  # times the least time: one look is enough

Clock = Callable[[], float]


def race(
    calls: Mapping[str, Callable[[], object]],
    seconds: float = 0.1,
    clock: Clock = perf_counter,
) -> dict[str, float]:
    """Time calls in turns, so that what disturbs the machine disturbs all of them.

    Parameters
    ----------
    calls : mapping of str to callable
    seconds : float
        For each call, about; at least three rounds are made of those that are not
        hopeless: four times slower than the fastest when first called.
    clock : callable
        Gives seconds.

    Returns
    -------
    dict of str to float
        The least seconds of one call, the fastest first.

    Examples
    --------
    >>> list(race({"short": lambda: None, "long": lambda: sum(range(10**5))}, 0.01))
    ['short', 'long']
    """
    least = {
        name: min(_time(call, 1, clock) for _ in "ab") for name, call in calls.items()
    }
    bound = HOPELESS * min(least.values(), default=0.0)
    racing = [name for name, time in least.items() if time <= bound]
    repetitions = {n: 1 + int(SAMPLE_SECONDS / max(least[n], 1e-7)) for n in racing}
    spent, rounds = 0.0, 0
    while racing and (rounds < LEAST_ROUNDS or spent < seconds * len(racing)):
        for name in racing:
            time = _time(calls[name], repetitions[name], clock)
            spent += time
            least[name] = min(least[name], time / repetitions[name])
        rounds += 1
    return dict(sorted(least.items(), key=lambda item: item[1]))


def _time(call: Callable[[], object], repetitions: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repetitions):
        call()
    return clock() - start
