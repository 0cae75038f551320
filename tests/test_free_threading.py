"""Python without its global lock: the kernels leave it off, and calls do not meet.

`tests/test_threads.py` and `tests/test_buffers.py` have the calls at once.
"""

import sysconfig

import pytest

from tests.fresh import answer


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has the lock"
)
def test_the_lock_stays_off() -> None:
    """A module that does not declare itself turns it on, with a warning."""
    code = """
import sys, warnings
warnings.simplefilter("error")
import convcore
from convcore.kernels import load
from convcore.runtime import cpu
from tests.test_architecture import KERNELS, ONCE
for isa in cpu.available():
    for file in KERNELS.glob("*.pyx"):
        if file.name not in ONCE:
            try:
                load(file.stem, isa)
            except ModuleNotFoundError:
                pass  # of another instruction set
print(sys._is_gil_enabled())
"""
    assert answer(code, PYTHON_GIL="") == "False"
