"""What was measured on this machine: a small JSON file in the user's cache directory.

    {"format": 1, "results": {setting: {question: algorithm}}}

A setting is the version, processor and instruction set; not the number of threads, on
which no choice may depend, because results do not. The file is read when the first
algorithm is chosen. It is a cache: one that is missing, damaged or cannot be written is
no error, and what other versions measured is left out when it is written.

=====================  ===============================================================
CONVCORE_CACHE         the directory, instead of the usual place of a user's caches
CONVCORE_AUTOTUNE=0    the file is neither read nor written
=====================  ===============================================================
"""

import contextlib
import json
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import RLock

from convcore.runtime.config import __version__

FORMAT = 1
_MOST_BYTES = 16 << 20  # a file that is larger is not ours

Results = dict[str, dict[str, str]]

_FILE = "file"

_lock = RLock()  # for changes; nobody who only looks waits
_known: dict[str, Results] = {}  # under _FILE what was measured, once it is read


def lookup(question: str, isa: str) -> str | None:
    """Give the algorithm that was the fastest, if that was measured."""
    known = _known.get(_FILE)
    if known is None:  # of those who read at once, or keep meanwhile, the first counts
        known = _known.setdefault(_FILE, _read())
    return known.get(_setting(isa), {}).get(question) if known else None


def keep(answers: Mapping[str, str], isa: str) -> None:
    """Keep what was measured, for this process and in the file."""
    found = {_setting(isa): answers}
    with _lock:
        stored = _read()  # another process may have written meanwhile
        _known[_FILE] = _joined(_known.get(_FILE, stored), found)
        _write(_joined(stored, found))


def forget() -> None:
    """Forget all that was measured, and remove the file."""
    with _lock:
        _known[_FILE] = {}
        path = _path()
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def reread() -> None:
    """Read the file again when the next algorithm is chosen."""
    _known.clear()


def _joined(one: Results, two: Mapping[str, Mapping[str, str]]) -> Results:
    """Give both; the second counts where both have an answer."""
    return {s: {**one.get(s, {}), **two.get(s, {})} for s in {**one, **two}}


def _path() -> Path | None:
    """Give the file's place; None where there is no home, or where none is wanted."""
    if os.environ.get("CONVCORE_AUTOTUNE") == "0":
        return None
    own = os.environ.get("CONVCORE_CACHE")
    if own:
        return Path(own) / "autotune.json"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local")
    elif sys.platform == "darwin":
        base = home / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "")
        base = base if base.is_absolute() else home / ".cache"
    return base / "convcore" / "autotune.json"


def _read() -> Results:
    """Read the file; nothing if it is not what `_write` writes."""
    path = _path()
    try:
        if path is None:
            return {}
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            return {}
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            return {}
        return {
            str(setting): {str(q): str(a) for q, a in answers.items()}
            for setting, answers in content["results"].items()
            if setting.startswith(_version())
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _write(results: Results) -> None:
    """Write the file, whole or not at all."""
    path = _path()
    if path is None:
        return
    text = json.dumps({"format": FORMAT, "results": results}, indent=1, sort_keys=True)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".tmp", "autotune", path.parent)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _version() -> str:
    return f"convcore {__version__}, "


def _setting(isa: str) -> str:
    return f"{_version()}{_processor()}, {isa}"


@cache
def _processor() -> str:
    """Name the processor's model."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _after_fork() -> None:
    """Open the lock in a child: a thread that it does not have may have held it."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
