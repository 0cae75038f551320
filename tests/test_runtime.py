"""The machine: instruction sets, threads, processes, scratch, arrays at the door."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convcore
from convcore import functional as F
from convcore import plan
from convcore.functional.call import run
from convcore.problem import ConvProblem
from convcore.runtime import arrays, cpu, workspace
from convcore.runtime import threads as runtime_threads
from convcore.runtime.config import config


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a fresh process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Instruction sets ------------------------------------------------------------------


def test_the_best_instruction_set_is_used() -> None:
    assert cpu.available()[-1] == "baseline"
    if "CONVCORE_ISA" not in os.environ:
        assert cpu.isa() == cpu.available()[0]


@pytest.mark.parametrize("isa", cpu.available())
def test_the_environment_lowers_the_choice(isa: str) -> None:
    done = python(
        "from convcore.runtime import cpu; print(cpu.isa())", CONVCORE_ISA=isa
    )
    assert done.stdout.strip() == isa


def test_an_unknown_instruction_set_is_refused() -> None:
    done = python("import convcore", CONVCORE_ISA="x86_64_v9")
    assert done.returncode != 0
    assert "CONVCORE_ISA: the instruction set must be one of" in done.stderr
    with (
        pytest.raises(ValueError, match="use: the instruction set must be"),
        cpu.use("?"),
    ):
        pass


def test_only_the_chosen_copies_are_imported() -> None:
    code = (
        "import sys, numpy as np; from convcore import functional as F; "
        "F.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))); "
        "print([m for m in sys.modules if 'x86_64_v' in m and m.count('.') > 2])"
    )
    assert python(code, CONVCORE_ISA="baseline").stdout.strip() == "[]"


def test_config_tells_what_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    convcore.show_config()
    shown = capsys.readouterr().out
    for name, value in config().items():
        assert name in shown
        assert value in shown
    assert cpu.isa() in shown


def test_verbose_prints_a_line_for_each_call() -> None:
    code = (
        "import numpy as np; from convcore import functional as F; "
        "F.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)))"
    )
    line = python(code, CONVCORE_VERBOSE="1").stderr
    assert line.startswith("convcore: n1g1ic1ih4oc1kh3 fprop float64 planes")
    assert len(line.splitlines()) == 1
    assert python(code).stderr == ""


# Threads ---------------------------------------------------------------------------


@pytest.mark.usefixtures("own_threads")
def test_set_num_threads() -> None:
    if not runtime_threads.probe.openmp():
        pytest.skip("built without OpenMP")
    convcore.set_num_threads(3)
    assert convcore.get_num_threads() == 3
    assert runtime_threads.team(10**9) == 3
    assert runtime_threads.team(10) == 1
    convcore.set_num_threads(None)
    assert convcore.get_num_threads() >= 1


@pytest.mark.parametrize(
    ("n", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (10**6, ValueError),
        (1.0, TypeError),
        (True, TypeError),
        ("2", TypeError),
    ],
)
def test_bad_numbers_of_threads(n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="set_num_threads: n must be"):
        convcore.set_num_threads(n)


def test_omp_num_threads_is_obeyed() -> None:
    code = "import convcore; print(convcore.get_num_threads())"
    expected = "3" if runtime_threads.probe.openmp() else "1"
    assert python(code, OMP_NUM_THREADS="3").stdout.strip() == expected


@pytest.mark.parametrize(
    ("file", "text", "most"),
    [
        ("cpu.max", "150000 100000", 2),
        ("cpu.max", "50000 100000", 1),
        ("cpu.max", "max 100000", None),
        ("cpu/cpu.cfs_quota_us", "100000", 1),
        ("cpu/cpu.cfs_quota_us", "-1", None),
    ],
)
def test_a_cgroup_quota_is_respected(
    tmp_path: Path, file: str, text: str, most: int | None
) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / file).write_text(text + "\n")
    unlimited = runtime_threads.visible_cpus(tmp_path / "nothing")
    expected = unlimited if most is None else min(most, unlimited)
    assert runtime_threads.visible_cpus(tmp_path) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_serially_and_the_same() -> None:
    """OpenMP's threads are gone in the child: a parallel region would hang."""
    code = """
import os, sys, numpy as np, convcore
from convcore import functional as F
convcore.set_num_threads(2)
x, w = np.ones((4, 16, 20, 20), "f4"), np.ones((16, 16, 3, 3), "f4")
y = F.conv2d(x, w)
child = os.fork()
if child == 0:
    right = convcore.get_num_threads() == 1 and F.conv2d(x, w).tobytes() == y.tobytes()
    os._exit(0 if right else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_several_python_threads_at_once() -> None:
    rng = np.random.default_rng(0)
    jobs = [
        (rng.standard_normal((3, c, 15, 15)), rng.standard_normal((c + 3, c, 3, 3)))
        for c in (5, 9, 20, 33)
    ]
    right = [F.conv2d(x, w) for x, w in jobs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if F.conv2d(*jobs[i]).tobytes() != right[i].tobytes():
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_small_stack_is_enough() -> None:
    """Threads of 256 KiB, and OpenMP's of 64 KiB."""
    code = """
import threading, numpy as np, convcore
from convcore import functional as F
threading.stack_size(256 * 1024)
convcore.set_num_threads(2)
def work():
    x, w = np.ones((4, 16, 20, 20)), np.ones((16, 16, 3, 3))
    y = F.conv2d(x, w)
    F.conv2d_backward(y, x, w)
    F.max_pool2d(x, 3)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("done")
"""
    assert python(code, OMP_STACKSIZE="64k").stdout.strip() == "done"


def test_import_starts_no_thread_and_needs_little() -> None:
    code = (
        "import sys, convcore, threading; assert threading.active_count() == 1; "
        "print([m for m in ('scipy', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    assert python(code).stdout.strip() == "[]"


# Memory ----------------------------------------------------------------------------


def test_scratch_is_kept_and_lent_once() -> None:
    first = workspace.lend(1000)
    assert first.nbytes >= 1000
    assert np.isnan(first[:1000].view(np.float32)).all()  # poisoned in tests
    second = workspace.lend(1000)
    assert not np.may_share_memory(first, second)
    workspace.take_back(second)
    workspace.take_back(first)
    assert workspace.lend(10) is first
    workspace.take_back(first)


def test_a_huge_scratch_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "KEPT_BYTES", 10**6)
    huge = workspace.lend(10**7)
    workspace.take_back(huge)
    assert all(kept is not huge for kept in workspace._kept)


def test_scratch_comes_back_after_an_error() -> None:
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    F.conv2d(x, w)
    before = len(workspace._kept)
    chosen = plan.select(ConvProblem.conv("f", x.shape, w.shape), "fprop", "float64")
    with pytest.raises(ValueError, match="buffer does not have"):
        run(chosen, x[0, 0, 0], w, None, np.ones((1, 1, 2, 2)))
    assert len(workspace._kept) == before


def test_the_number_of_kept_buffers_is_bounded() -> None:
    lent = [workspace.lend(10) for _ in range(50)]
    for buffer in lent:
        workspace.take_back(buffer)
    assert len(workspace._kept) <= 16


# Arrays ----------------------------------------------------------------------------


def test_a_ready_array_is_not_copied() -> None:
    x = np.ones((2, 3), np.float32)
    assert arrays.ready("f", "x", x) is x


def test_subclasses_become_plain_arrays(tmp_path: Path) -> None:
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3))
    x[...] = 1
    ready = arrays.ready("f", "x", x)
    assert type(ready) is np.ndarray
    assert (ready == 1).all()


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.longdouble, np.complex64, np.int64, np.uint8, bool, "O", "U1"],
)
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="f: x must be float32 or float64, got"):
        arrays.ready("f", "x", np.ones(3, dtype))


def test_structured_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match="f: x must be float32 or float64"):
        arrays.ready("f", "x", np.zeros(3, [("a", "f4")]))


def test_mixed_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="f: x must have the same dtype .* float32"):
        arrays.ready("f", "x", np.ones(3), np.dtype(np.float32))


def test_outputs_are_poisoned_in_tests() -> None:
    assert np.isnan(arrays.empty((2, 3), np.dtype(np.float32))).all()


# Leaks -----------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow() -> None:
    """Ten thousand calls, right and wrong ones, in a process of their own."""
    code = """
import numpy as np
from convcore import functional as F
x, w = np.ones((2, 3, 9, 9), "f4"), np.ones((4, 3, 3, 3), "f4")
def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
def calls(number):
    for i in range(number):
        y = F.conv2d(x, w)
        F.conv2d_backward(y, x, w)
        F.max_pool2d(x, 3)
        for wrong in ({"stride": 0}, {"groups": 2}, {"out": x}):
            try:
                F.conv2d(x, w, **wrong)
            except (ValueError, TypeError):
                pass
            else:
                raise AssertionError(wrong)
calls(500)
before = megabytes()
calls(10_000)
print(megabytes() - before)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2
