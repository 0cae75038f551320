"""Children, and the end: whatever the threads of the parent were doing."""

import importlib.util
import itertools
import os

import pytest

from tests.fresh import answer, python

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# The parent has run parallel regions, and goes on with them in another thread.
PARENT = """
import os, sys, threading, warnings
import numpy as np, convcore
from tests import operations as o
warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
o.always_use(2)
right = o.digest_of_few(7)
x, w = np.ones((8, 64, 56, 56), "f4"), np.ones((64, 64, 3, 3), "f4")
busy = True
def work():
    while busy:
        convcore.functional.conv2d(x, w)
        convcore.functional.relu(x)
thread = threading.Thread(target=work)
"""


@needs_fork
def test_a_forked_child_computes_serially_and_the_same() -> None:
    """OpenMP's threads are gone in the child: a parallel region would hang."""
    code = f"""{PARENT}
thread.start()
bad = 0
for _ in range(5):
    child = os.fork()
    if child == 0:
        serial = convcore.get_num_threads() == 1
        os._exit(0 if serial and o.digest_of_few(7) == right else 1)
    bad += os.waitpid(child, 0)[1] != 0
busy = False
thread.join()
assert o.digest_of_few(7) == right and convcore.get_num_threads() == 2
print(bad)
"""
    assert answer(code) == "0"


@needs_fork
def test_a_child_of_a_child() -> None:
    code = f"""{PARENT}
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(o.digest_of_few(7) != right)
    os._exit(os.waitpid(grandchild, 0)[1] != 0)
print(os.waitpid(child, 0)[1])
"""
    assert answer(code) == "0"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str) -> None:
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    code = f"""{PARENT}
import multiprocessing
thread.start()
with multiprocessing.get_context("{method}").Pool(2) as pool:
    print(set(pool.map(o.digest_of_few, [7, 7, 7])) == {{right}})
busy = False
"""
    assert answer(code) == "True"


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(backend: str) -> None:
    pytest.importorskip("joblib", reason="joblib is not installed")
    code = f"""{PARENT}
import joblib
thread.start()
run = joblib.delayed(o.digest_of_few)
print(set(joblib.Parallel(2, "{backend}")(run(7) for _ in range(3))) == {{right}})
busy = False
"""
    assert answer(code) == "True"


def test_daemon_threads_at_the_end() -> None:
    """They are inside of kernels, and hold blocks of memory."""
    code = f"""{PARENT}
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
import time
time.sleep(0.3)
print("end")
"""
    for _ in range(3):
        done = python(code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_import_starts_no_thread_and_needs_little() -> None:
    code = (
        "import sys, convcore, threading; assert threading.active_count() == 1; "
        "print([m for m in ('scipy', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    assert answer(code) == "[]"


OTHERS = [
    m for m in ("sklearn.utils", "torch") if importlib.util.find_spec(m.split(".")[0])
]


@pytest.mark.parametrize("order", list(itertools.permutations(["convcore", *OTHERS])))
def test_any_order_of_imports(order: tuple[str, ...]) -> None:
    """Others bring an OpenMP of their own."""
    code = f"""
import {", ".join(order)}
from tests import operations as o
o.always_use(1)
right = o.digest_of_few(9)
if "sklearn" in sys.modules:
    from sklearn.cluster import KMeans
    KMeans(2, n_init=1).fit(o.np.eye(500))  # a parallel region of its own
o.always_use(2)
print(o.digest_of_few(9) == right, sys.float_info.min / 2 > 0)
"""
    assert answer("import sys\n" + code) == "True True"


@needs_fork
def test_a_fork_by_a_signal_handler_inside_of_a_call() -> None:
    """The child cannot go on without the other threads: it raises, and does not hang."""
    code = """
import os, signal, sys, threading, time
import numpy as np, convcore
from convcore import functional as F
convcore.set_num_threads(2)
x, w = np.ones((16, 128, 112, 112), "f4"), np.ones((128, 128, 3, 3), "f4")
right, children = F.conv2d(x[:1], w).tobytes(), []
signal.signal(signal.SIGUSR1, lambda *_: children.append(os.fork()))
def kick():
    while not children:
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)
main = os.getpid()
thread = threading.Thread(target=kick)
thread.start()
raised = False
while not children:
    try:
        y = F.conv2d(x, w)
    except RuntimeError as error:
        raised = "forked" in str(error)
if os.getpid() != main:
    alone = F.conv2d(x[:1], w).tobytes() == right
    os._exit(0 if alone and (raised or y[:1].tobytes() == right) else 1)
thread.join()
statuses = [os.waitpid(child, 0)[1] for child in children]
print(y[:1].tobytes() == right, min(statuses))
"""
    assert answer(code) == "True 0"
