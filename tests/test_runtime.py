"""The machine: instruction sets, scratch, arrays at the door."""

import os
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
from convcore.runtime.config import config
from tests.fresh import python

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


# Scratch ---------------------------------------------------------------------------


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


def test_a_huge_scratch_waits_as_results_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of `train.fit` had new memory for it, which the system had to clear."""
    monkeypatch.setattr(workspace, "KEPT_BYTES", 10**6)
    with convcore.keep_memory():
        huge = workspace.lend(10**7)
        where = huge.ctypes.data
        workspace.take_back(huge)
        del huge
        assert workspace.lend(10**7).ctypes.data == where


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
