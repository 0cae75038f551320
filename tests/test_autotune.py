"""Measurements that choices look at: what is kept, where, and what is not.

Nothing here looks at a time: where a measurement is needed, the test says its result.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convcore
from convcore import ConvProblem, algorithms, autotune, nn, plan
from convcore import functional as F
from convcore.runtime import cpu, stopwatch, tuned

PROBLEM = ConvProblem.parse("n2g1ic20ih9oc24kh5")
OTHER = ConvProblem.parse("n3g1ic20ih9oc24kh5")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory of the test's own, that nobody has made yet."""
    with monkeypatch.context() as patch:
        patch.setenv("CONVCORE_CACHE", str(tmp_path / "own"))
        patch.delenv("CONVCORE_AUTOTUNE", raising=False)
        afresh()
        yield tmp_path / "own"
    afresh()


@pytest.fixture
def gemm_wins(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have the algorithm that ends the list win, and tell what was measured."""
    seen: list[Any] = []

    def measure(*question: Any, seconds: float) -> dict[str, float]:
        seen.append(plan.Question(*question))
        return {"gemm": 1e-3, "direct": 2e-3}

    monkeypatch.setattr(plan, "measure", measure)
    return seen


def afresh() -> None:
    """Be a new process."""
    tuned.reread()
    plan.forget()


def chosen(problem: ConvProblem = PROBLEM, dtype: str = "float32", **how: bool) -> str:
    return plan.select(problem, "fprop", dtype, **how).algorithm


def test_the_fastest_is_chosen_from_then_on(gemm_wins: list[Any]) -> None:
    before = chosen()
    assert before != "gemm"
    found = autotune(PROBLEM)
    assert list(found[f"{PROBLEM} fprop float32"]) == ["gemm", "direct"]
    assert len(gemm_wins) == len(found) == 5
    assert chosen() == chosen(kept=True) == "gemm"
    assert chosen(OTHER) == chosen(dtype="float64") == before
    afresh()
    assert chosen() == "gemm"


def test_functions_look_at_it_at_once(
    gemm_wins: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    x, w = np.ones(PROBLEM.x_shape, np.float32), np.ones(PROBLEM.weight_shape, "f4")
    right = F.conv2d(x, w, algorithm="gemm")
    F.conv2d(x, w)
    autotune(PROBLEM, train=False)
    assert "autotune found gemm" in convcore.explain(PROBLEM)
    np.testing.assert_array_equal(F.conv2d(x, w), right)


def test_an_activation_makes_no_difference(gemm_wins: list[Any]) -> None:
    autotune(PROBLEM)
    assert chosen(ConvProblem.parse(f"{PROBLEM}relu")) == "gemm"


def test_strict_choices_look_at_no_measurement(gemm_wins: list[Any]) -> None:
    with convcore.precision("strict"):
        before = chosen()
    autotune(PROBLEM)
    with convcore.precision("strict"):
        assert chosen() == before != "gemm"
        assert "autotune" not in convcore.explain(PROBLEM)


def test_strict_keeps_nothing(gemm_wins: list[Any], folder: Path) -> None:
    with convcore.precision("strict"):
        autotune(PROBLEM)
    assert not folder.exists()
    assert chosen() != "gemm"


def test_forgetting(gemm_wins: list[Any], folder: Path) -> None:
    before = chosen()
    autotune(PROBLEM)
    convcore.forget_tuned()
    assert chosen() == before
    assert list(folder.iterdir()) == []
    convcore.forget_tuned()


def test_what_others_wrote_meanwhile_stays(gemm_wins: list[Any]) -> None:
    autotune(PROBLEM)
    tuned.reread()  # another process, which does not look before it writes
    autotune(OTHER)
    afresh()
    assert chosen() == chosen(OTHER) == "gemm"


def test_another_setting_is_another_measurement(
    gemm_wins: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = chosen()
    autotune(PROBLEM)
    for name, value in (("_processor", lambda: "other"), ("__version__", "0.0")):
        with monkeypatch.context() as patch:
            patch.setattr(tuned, name, value)
            plan.forget()
            assert chosen() == before


def test_choices_do_not_depend_on_the_number_of_threads(gemm_wins: list[Any]) -> None:
    count = convcore.get_num_threads()
    autotune(PROBLEM)
    try:
        convcore.set_num_threads(count + 1)
        afresh()
        assert chosen() == "gemm"
    finally:
        convcore.set_num_threads(count)


def test_other_versions_are_left_out_of_the_file(
    gemm_wins: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tuned, "__version__", "0.0")
        autotune(PROBLEM)
    afresh()
    autotune(OTHER)
    content = json.loads((folder / "autotune.json").read_text())
    assert [setting.split(",")[0] for setting in content["results"]] == [
        f"convcore {convcore.__version__}"
    ]


def test_each_instruction_set_has_its_own(gemm_wins: list[Any]) -> None:
    autotune(PROBLEM)
    for isa in cpu.available()[1:]:
        with cpu.use(isa):
            assert chosen() != "gemm"


GOOD = {"format": tuned.FORMAT, "results": {}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"text"',
        "\x00" * 100,
        "[" * 100_000,
        json.dumps(GOOD | {"format": 999}),
        json.dumps({"format": tuned.FORMAT}),
        json.dumps(GOOD | {"results": []}),
        json.dumps(GOOD | {"results": {"here": []}}),
        json.dumps(GOOD | {"results": None}),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_damaged_file_is_left_out(
    text: str, folder: Path, gemm_wins: list[Any]
) -> None:
    before = chosen()
    folder.mkdir()
    (folder / "autotune.json").write_text(text)
    afresh()
    assert chosen() == before
    autotune(PROBLEM)
    afresh()
    assert chosen() == "gemm"


def test_bytes_that_are_no_text_are_left_out(folder: Path) -> None:
    folder.mkdir()
    (folder / "autotune.json").write_bytes(b"\xff\xfe" * 9)
    chosen()


@pytest.mark.parametrize("answer", ["nonsense", "dot", 7, None, ["gemm"]])
def test_an_answer_that_does_not_fit_is_left_out(
    answer: Any, folder: Path, gemm_wins: list[Any]
) -> None:
    before = chosen()
    autotune(PROBLEM)
    file = folder / "autotune.json"
    content = json.loads(file.read_text())
    for answers in content["results"].values():
        for question in answers:
            answers[question] = answer
    file.write_text(json.dumps(content))
    afresh()
    assert chosen() == before


def test_float64_never_transforms_whatever_the_file_says() -> None:
    problem = ConvProblem.parse("n2g1ic64ih28oc64kh3ph1")
    for dtype in ("float32", "float64"):
        question = plan.Question(problem, "fprop", dtype, False)
        tuned.keep({plan.key_of(question): "winograd"}, cpu.isa())
    plan.forget()
    assert chosen(problem) == "winograd"
    assert chosen(problem, "float64") == "direct"


def test_a_place_that_cannot_be_written_is_no_error(
    folder: Path, gemm_wins: list[Any]
) -> None:
    folder.write_text("a file, no folder")
    autotune(PROBLEM)
    assert chosen() == "gemm"
    afresh()
    assert chosen() != "gemm"
    convcore.forget_tuned()


def test_a_write_that_fails_leaves_the_file_as_it_was(
    folder: Path, gemm_wins: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    autotune(PROBLEM)
    before = (folder / "autotune.json").read_text()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tuned.os, "replace", fail)
    autotune(OTHER)
    assert (folder / "autotune.json").read_text() == before
    assert [file.name for file in folder.iterdir()] == ["autotune.json"]


def test_the_file_can_be_ignored(
    gemm_wins: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    autotune(PROBLEM)
    monkeypatch.setenv("CONVCORE_AUTOTUNE", "0")
    afresh()
    before = (folder / "autotune.json").read_text()
    assert chosen() != "gemm"
    autotune(OTHER)
    assert chosen(OTHER) == "gemm"
    assert (folder / "autotune.json").read_text() == before


def test_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVCORE_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    for xdg, place in (
        (str(tmp_path / "xdg"), tmp_path / "xdg"),
        ("", tmp_path / ".cache"),
        ("relative", tmp_path / ".cache"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
        assert tuned._path() == place / "convcore" / "autotune.json"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tuned._path() == tmp_path / "Library/Caches/convcore/autotune.json"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert tuned._path() == tmp_path / "local/convcore/autotune.json"


def test_without_a_home_nothing_is_kept(
    gemm_wins: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("CONVCORE_CACHE")
    monkeypatch.setattr(Path, "home", homeless)
    autotune(PROBLEM)
    assert chosen() == "gemm"
    convcore.forget_tuned()


def test_importing_reads_nothing() -> None:
    code = (
        "import convcore; from convcore.runtime import tuned; assert not tuned._known"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Models


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.Flatten(),
    )


def test_a_model_is_measured_layer_by_layer(gemm_wins: list[Any]) -> None:
    x = np.ones((2, 3, 8, 8), np.float32)
    model()(x)  # choices that are known already are asked again
    found = autotune(model(), x)
    first, second = "n2g1ic3ih8oc8kh3ph1", "n2g1ic8ih8oc8kh3sh2"
    ways = ("fprop float32", "fprop float32 kept", "dgrad float32", "wgrad float32")
    assert found.keys() == {f"{name} {way}" for name in (first, second) for way in ways}
    assert len(gemm_wins) == len(found)
    assert chosen(ConvProblem.parse(first)) == "gemm"


def test_inference_alone(gemm_wins: list[Any]) -> None:
    found = autotune(model(), np.ones((1, 3, 8, 8), np.float32), train=False)
    assert all(question.endswith("fprop float32 kept") for question in found)


def test_questions_are_collected_under_either_precision() -> None:
    own, x = model(), np.ones((1, 3, 8, 8), np.float32)
    for mode in ("fast", "strict"):
        with convcore.precision(mode):
            own(x)
            for _ in range(2):
                with plan.questions() as asked:
                    own(x)
                assert [q.kept for q in asked] == [True, True]


def test_questions_are_collected_under_a_precision_of_the_model_itself() -> None:
    class Own(nn.Sequential):
        def __call__(self, x: Any) -> Any:
            with convcore.precision("fast"):
                return super().__call__(x)

    own, x = Own(nn.Conv2d(3, 8, 3)), np.ones((1, 3, 8, 8), np.float32)
    own(x)
    with plan.questions() as asked:
        own(x)
    assert len(asked) == 1


def test_what_was_found_before_an_interruption_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(problem: Any, direction: str, *_: Any, **__: Any) -> dict[str, float]:
        if direction == "wgrad":
            raise KeyboardInterrupt
        return {"gemm": 1.0}

    monkeypatch.setattr(plan, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        autotune(PROBLEM)
    assert chosen() == "gemm"


def test_a_model_is_left_as_it_was(gemm_wins: list[Any]) -> None:
    own = model()
    before = own.state_dict()
    own.zero_grad()
    autotune(own, np.ones((2, 3, 8, 8), np.float32))
    for name, value in own.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert all(p.grad is None or not p.grad.any() for p in own.parameters())


def test_a_layer_has_the_same_bits_whether_it_keeps_its_weights() -> None:
    layer = nn.Conv2d(64, 64, 3, padding=1, rng=0)
    x = np.random.default_rng(0).standard_normal((1, 64, 14, 14), np.float32)
    alone = layer(x)
    held = layer.weight.value  # nobody can tell when it changes
    np.testing.assert_array_equal(layer(x), alone)
    del held


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((PROBLEM, np.ones(3)), TypeError, "autotune: x must be None"),
        (("n1",), TypeError, "autotune: target must be a ConvProblem, or a layer.*str"),
        ((nn.ReLU(),), TypeError, "autotune: target must be .*ReLU and NoneType"),
    ],
)
def test_errors(arguments: tuple[Any, ...], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        autotune(*arguments)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="autotune: dtype must be .*'float16'"):
        autotune(PROBLEM, dtype="float16")


# Measuring


class Clock:
    """A clock that calls move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Any:
        """Give what takes so long, the last time from then on."""
        times = list(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return run


def test_the_least_time_of_each_counts_and_the_fastest_is_first() -> None:
    clock = Clock()
    calls = {
        "slow": clock.call("slow", 0.5, 0.2),
        "fast": clock.call("fast", 9, 0.3, 0.1),
    }
    found = stopwatch.race(calls, 0, clock)
    assert list(found) == ["fast", "slow"]
    assert list(found.values()) == pytest.approx([0.1, 0.2])
    assert clock.calls[4:] == ["slow", "fast"] * stopwatch.LEAST_ROUNDS


def test_what_is_hopeless_has_two_calls() -> None:
    clock = Clock()
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", 4.1)}
    assert stopwatch.race(calls, 10, clock) == pytest.approx({"a": 1.0, "b": 4.1})
    assert clock.calls.count("b") == 2
    assert clock.calls.count("a") >= 10


def test_short_calls_are_repeated() -> None:
    clock = Clock()
    found = stopwatch.race({"a": clock.call("a", 1e-5)}, 0, clock)
    assert found == pytest.approx({"a": 1e-5})
    assert len(clock.calls) > 2 + stopwatch.LEAST_ROUNDS * 50


def test_nothing_to_measure() -> None:
    assert stopwatch.race({}) == {}


@pytest.mark.parametrize("direction", ["fprop", "dgrad", "wgrad", "bgrad"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kept", [False, True])
def test_what_may_be_chosen_is_measured(
    direction: Any, dtype: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every algorithm runs, on finite numbers: none gives a sample up."""
    raced: dict[str, Any] = {}
    monkeypatch.setattr(
        stopwatch, "race", lambda calls, *_: raced.update(calls) or dict(calls)
    )
    problem = ConvProblem.parse("n2g1ic20ih9oc24kh3ph1")
    plan.measure(problem, direction, dtype, kept, hopeless=np.inf)
    names = {
        card.name
        for card in algorithms.CONV
        if direction in card.kernels
        and card.accepts(problem, direction).yes
        and (dtype == "float32" or not card.transforms)
    }
    assert raced.keys() == names
    for call in raced.values():
        call()
    with convcore.precision("strict"):
        assert not any(
            name.startswith("winograd")
            for name in plan.measure(problem, direction, dtype, kept, hopeless=np.inf)
        )
