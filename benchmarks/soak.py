"""Random legal and illegal calls, training and faults, from several threads, for long.

    python -m benchmarks.soak --minutes 10

Each legal call and each training run must give the bits that it gave at the beginning,
when nothing else was running; each illegal call must be refused by name; and memory, open
files and threads must be the same at the end. The exit code is 1 when anything is wrong.
What is done: `benchmarks.soak_work`.
"""

import argparse
import faulthandler
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.command_line import count
from benchmarks.flat import Sample, gather_memory, growth, sample
from benchmarks.soak_work import FAULTS, IN_MAIN, KINDS, Work, failing_allocations
from convcore.runtime import cpu

SECONDS = 120  # without an end of a task: then something hangs
SETTLING = 20.0  # seconds
LIFE = 200  # tasks of a thread: then another one takes its place
MOST_TOLD = 20
# A run that is shorter fills the caches all the time; growth over its second half says
# nothing of leaks.
LEAST_SECONDS = 60.0
MOST_BYTES = 16 << 20  # by which memory may grow over the second half


@dataclass
class Soak:
    """What runs, and what it found."""

    work: Work
    seed: int
    until: float
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    heard: dict[int, float] = field(default_factory=dict)  # when a thread ended a task
    started: int = 0  # threads

    def step(self, rng: random.Random, me: int, kinds: tuple[str, ...]) -> None:
        """Do one task."""
        kind = rng.choices(kinds, [KINDS[name] for name in kinds])[0]
        found = self.work.run(kind, rng)
        self.done[kind] += 1  # a lost count of another thread would be no harm
        self.heard[me] = time.monotonic()
        if found:
            self.wrong.append(f"{kind}: {found}")

    def live(self, me: int) -> None:
        """Do tasks until the life of a thread is over."""
        rng = random.Random(f"{self.seed} {me}")
        kinds = tuple(kind for kind in KINDS if kind not in IN_MAIN)
        for _ in range(LIFE):
            if time.monotonic() > self.until:
                break
            self.step(rng, me, kinds)
        self.heard.pop(me, None)

    def start(self) -> threading.Thread:
        """Start another thread."""
        self.started += 1
        self.heard[self.started] = time.monotonic()
        thread = threading.Thread(target=self.live, args=(self.started,))
        thread.start()
        return thread

    def run(self, threads: int) -> list[Sample]:
        """Keep so many threads alive, do tasks in this one, and look at the process."""
        rng = random.Random(f"{self.seed} main")
        samples: list[Sample] = []
        alive = [self.start() for _ in range(threads)]
        every = min(1.0, max(0.05, (self.until - time.monotonic()) / 300))
        while time.monotonic() < self.until:
            self.step(rng, 0, tuple(KINDS))
            alive = [t if t.is_alive() else self.start() for t in alive]
            if not samples or time.monotonic() - samples[-1].at > every:
                samples.append(sample())
            if time.monotonic() - min(self.heard.values()) < SECONDS / 2:
                faulthandler.dump_traceback_later(SECONDS, exit=True)
        for thread in alive:
            thread.join()
        faulthandler.cancel_dump_traceback_later()
        return samples


def soak(seconds: float, threads: int, seed: int) -> int:
    """Run for so long; print a summary, and give the exit code."""
    with failing_allocations() as allocations:
        work = Work(seed, allocations)
        work.settle()
        before = sample()
        begin = time.monotonic()
        running = Soak(work, seed, begin + seconds)
        samples = running.run(threads)
        after = settled(work, before)
    lines, bad = judged(samples, before, after, seconds)
    wrong = [*running.wrong, *bad]
    calls = ", ".join(f"{running.done[k]:,} {k}" for k in KINDS if k not in FAULTS)
    faults = ", ".join(f"{running.done[k]:,} {k}" for k in FAULTS)
    came = ", ".join(f"{n:,} {k}" for k, n in sorted(work.met.items()))
    print(
        f"{time.monotonic() - begin:.0f} s, seed {seed}, {threads} threads beside the "
        f"main one, {running.started} in all, {cpu.isa()}\n"
        f"calls     {calls}\n"
        f"faults    {faults}: all survived but those below; met: {came}\n"
        + "\n".join(lines)
    )
    for text, times in Counter(wrong).most_common(MOST_TOLD):
        print(f"WRONG     {times} times: {text}")
    print(f"{len(wrong)} wrong" if wrong else "nothing wrong")
    return int(bool(wrong))


def settled(work: Work, before: Sample) -> Sample:
    """Look at the process once the system has taken away the threads that ended."""
    until = time.monotonic() + SETTLING
    while True:
        work.settle()
        after = sample()
        if after.threads <= before.threads or time.monotonic() > until:
            return after
        time.sleep(0.05)


def judged(
    samples: list[Sample], before: Sample, after: Sample, seconds: float
) -> tuple[list[str], list[str]]:
    """Tell of memory, files and threads; and what is wrong with them."""
    half = samples[len(samples) // 2 :]
    grown = growth([(s.at, s.resident) for s in half])
    files = growth([(s.at, s.files) for s in half])
    lines = [
        f"memory    {before.resident / 2**20:.0f} MiB at first, "
        f"{half[0].resident / 2**20:.0f} MiB in the middle, "
        f"{after.resident / 2**20:.0f} MiB at the end; "
        f"{grown / 2**20:+.1f} MiB over the second half by a straight line",
        f"files     {before.files} at first, {after.files} at the end",
        f"threads   {before.threads} at first, {max(s.threads for s in samples)} at most, "
        f"{after.threads} at the end",
    ]
    bad = []
    if seconds >= LEAST_SECONDS and grown > MOST_BYTES:
        bad.append(f"memory grows by {grown / 2**20:.1f} MiB")
    if after.files > before.files or (seconds >= LEAST_SECONDS and files > 1):
        bad.append(f"open files: {before.files} at first, {after.files} at the end")
    if after.threads > before.threads:
        bad.append(f"threads: {before.threads} at first, {after.threads} at the end")
    return lines, bad


def main(arguments: list[str] | None = None) -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Random calls and faults, for long.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=count, default=4, help="beside the main one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    faulthandler.enable()
    gather_memory()
    with tempfile.TemporaryDirectory() as folder:  # where wrong paths may lead to
        os.chdir(folder)
        return soak(60 * options.minutes, options.threads, options.seed)


if __name__ == "__main__":
    sys.exit(main())
