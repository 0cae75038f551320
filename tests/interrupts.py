"""Ctrl-C at every place where it can come, one after the other.

CPython runs signal handlers only between byte codes, so a KeyboardInterrupt can come
before any byte code and nowhere else. A trace function raises it there.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Any


@contextmanager
def interrupted(codes: int, files: tuple[str, ...]) -> Iterator[None]:
    """Raise KeyboardInterrupt after so many byte codes in files with these endings."""
    left = codes

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(files):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def interrupt_everywhere(
    prepare: Callable[[], Callable[[], Any]],
    check: Callable[[], None],
    files: tuple[str, ...],
    stride: int = 1,
) -> int:
    """Interrupt an action at its first, second, ... byte code until it ends.

    `prepare` makes a fresh action, `check` looks at what an interrupted one left. Gives
    the number of interrupts.
    """
    for done in count():
        action = prepare()
        try:
            with interrupted(done * stride, files):
                action()
        except KeyboardInterrupt:
            check()
        else:
            return done
    raise AssertionError("count() ended")
