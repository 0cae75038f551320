"""Arguments that no caller means: arrays for strings, huge integers, lying generators."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convcore
from convcore import functional as F
from convcore import init, nn, optim
from convcore.analysis import path_ratio
from convcore.runtime import threads, tuned
from tests.fresh import answer

X = np.ones((2, 3, 9, 9), np.float32)
W = np.ones((3, 3, 3, 3), np.float32)
TWO = np.array([1, 2])
NAMES = np.array(["zeros", "same"])
HUGE = 10**5000
OPTIMIZER = optim.SGD([nn.Parameter(np.ones(2), "weight")], lr=1.0)


class Liar:
    def __index__(self) -> Any:
        return 1.5


class Source(np.random.Generator):
    """Draws what it was given."""

    drawn: Any = None

    def random(self, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        return np.full(size, self.drawn, kwargs.get("dtype", np.float64))

    def bytes(self, length: int) -> bytes:
        return b"x" * 9


def source(drawn: Any) -> Source:
    made = Source(np.random.PCG64(0))
    made.drawn = drawn
    return made


def in_block(mode: Any) -> None:
    with convcore.precision(mode):
        pass


def in_threads(n: Any) -> None:
    with convcore.num_threads(n):
        pass


STRINGS: dict[str, Callable[[Any], Any]] = {
    "conv2d: padding_mode": lambda v: F.conv2d(X, W, padding_mode=v),
    "conv2d: algorithm": lambda v: F.conv2d(X, W, algorithm=v),
    "conv2d: activation": lambda v: F.conv2d(X, W, activation=v),
    "conv_transpose2d: padding_mode": lambda v: F.conv_transpose2d(
        X, W, padding_mode=v
    ),
    "max_pool2d: padding_mode": lambda v: F.max_pool2d(X, 2, padding_mode=v),
    "avg_pool2d: padding_mode": lambda v: F.avg_pool2d(X, 2, padding_mode=v),
    "lp_pool2d: padding_mode": lambda v: F.lp_pool2d(X, 2, 2, padding_mode=v),
    "blur_pool2d: padding_mode": lambda v: F.blur_pool2d(X, padding_mode=v),
    "stochastic_pool2d: padding_mode": lambda v: F.stochastic_pool2d(
        X, 2, padding_mode=v, rng=0
    ),
    "gelu: approximate": lambda v: F.gelu(X, v),
    "GELU: approximate": lambda v: nn.GELU(v),
    "precision: mode": in_block,
    "Conv2d: padding_mode": lambda v: nn.Conv2d(3, 3, 3, padding_mode=v),
    "MaxPool2d: padding_mode": lambda v: nn.MaxPool2d(2, padding_mode=v),
    "mse_loss: reduction": lambda v: F.mse_loss(X, X, reduction=v),
    "gain: activation": lambda v: init.gain(v),
    "path_ratio: place": lambda v: path_ratio(3, 2, place=v),
    "path_ratio: padding_mode": lambda v: path_ratio(3, 2, padding_mode=v),
}
NUMBERS: dict[str, Callable[[Any], Any]] = {
    "conv2d: stride": lambda v: F.conv2d(X, W, None, v),
    "conv2d: padding": lambda v: F.conv2d(X, W, None, 1, v),
    "conv2d: groups": lambda v: F.conv2d(X, W, groups=v),
    "max_pool2d: kernel_size": lambda v: F.max_pool2d(X, v),
    "adaptive_avg_pool2d: output_size": lambda v: F.adaptive_avg_pool2d(X, v),
    "softmax: dim": lambda v: F.softmax(X, v),
    "group_norm: num_groups": lambda v: F.group_norm(X, v),
    "cross_entropy: ignore_index": lambda v: F.cross_entropy(
        np.ones((2, 3)), np.zeros(2, int), ignore_index=v
    ),
    "dropout: rng": lambda v: F.dropout(X, rng=v),
    "keyed_dropout: key": lambda v: F.keyed_dropout(X, v),
    "set_num_threads: n": convcore.set_num_threads,
    "num_threads: n": in_threads,
    "Linear: in_features": lambda v: nn.Linear(v, 1),
    "StepLR: step_size": lambda v: optim.StepLR(OPTIMIZER, v),
    "CosineLR: t_max": lambda v: optim.CosineLR(OPTIMIZER, v),
}
REALS: dict[str, Callable[[Any], Any]] = {
    "dropout: p": lambda v: F.dropout(X, v, rng=0),
    "SGD: momentum": lambda v: optim.SGD(OPTIMIZER.parameters, 1.0, v),
    "SGD: lr": lambda v: optim.SGD(OPTIMIZER.parameters, lr=v),
    "max_pool2d: padding_value": lambda v: F.max_pool2d(
        X, 2, padding_mode="constant", padding_value=v
    ),
}


def kind(value: Any) -> str:
    """Python refuses to write very large integers."""
    return type(value).__name__


def refused(name: str, call: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as found:
        call(value)
    assert str(found.value).startswith(f"{name} must "), found.value


@pytest.mark.parametrize("name", STRINGS)
@pytest.mark.parametrize(
    "value", [NAMES, TWO, HUGE, ["zeros"], 1.5, "unknown"], ids=kind
)
def test_what_is_no_such_string(name: str, value: Any) -> None:
    refused(name, STRINGS[name], value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [TWO, HUGE, -HUGE, Liar(), 1.5], ids=kind)
def test_what_is_no_such_integer(name: str, value: Any) -> None:
    refused(name, NUMBERS[name], value)


@pytest.mark.parametrize("name", REALS)
@pytest.mark.parametrize("value", [TWO, HUGE, Liar()], ids=kind)
def test_what_is_no_such_number(name: str, value: Any) -> None:
    refused(name, REALS[name], value)


@pytest.mark.parametrize("training", [TWO, 1, "yes", None])
def test_training_is_a_bool(training: Any) -> None:
    with pytest.raises(TypeError, match="^batch_norm: training must be a bool"):
        F.batch_norm(X, np.zeros(3, "f4"), np.ones(3, "f4"), training=training)


def test_an_algorithm_that_does_not_accept_is_told_by_the_function() -> None:
    with pytest.raises(ValueError, match=r"^conv1d: algorithm 'dot' does not accept"):
        F.conv1d(np.ones((2, 4, 9)), np.ones((5, 4, 3)), algorithm="dot")


@pytest.mark.parametrize("drawn", [2.0**64, np.nan, np.inf, -1.0, 1.0])
def test_drawn_numbers_are_checked(drawn: float) -> None:
    for name in ("fractional_max_pool2d", "stochastic_pool2d"):
        more = (4,) if name[0] == "f" else ()
        with pytest.raises(ValueError, match=f"^{name}: rng must draw"):
            getattr(F, name)(X, 2, *more, rng=source(drawn))
    with pytest.raises(ValueError, match="^stochastic_pool2d: rng must draw"):
        F.stochastic_pool2d(X, 2, 2, 1, padding_mode="reflect", rng=source(drawn))


def test_drawn_numbers_have_the_shape_that_was_asked_for() -> None:
    class Short(Source):
        def random(self, size: Any = None, *args: Any, **kwargs: Any) -> Any:
            return np.zeros(1)

    with pytest.raises(ValueError, match="^fractional_max_pool2d: rng must draw"):
        F.fractional_max_pool2d(X, 2, 4, rng=Short(np.random.PCG64(0)))


def test_drawn_bytes_are_checked() -> None:
    for name, call in (
        ("dropout", lambda rng: F.dropout(X, rng=rng)),
        ("dropout_key", lambda rng: F.dropout_key(rng)),
    ):
        with pytest.raises(ValueError, match=f"^{name}: rng must draw 8 bytes"):
            call(source(0))


NORMS: dict[str, Callable[..., Any]] = {
    "batch_norm": lambda x, m, v, *a: F.batch_norm(x, m, v, *a, training=True),
    "instance_norm": lambda x, m, v, *a: F.instance_norm(x, m, v, *a),
}


@pytest.mark.parametrize("name", NORMS)
def test_running_statistics_overlap_nothing(name: str) -> None:
    call = NORMS[name]
    both = np.arange(1.0, 73.0)
    x, one, two = both.reshape(2, 3, 12), np.zeros(3), np.ones(3)
    pairs: list[tuple[str, Any]] = [
        ("running_mean", (x, both[:3], two)),
        ("running_var", (x, one, both[3:6])),
        ("running_mean", (x, one, one)),
        ("running_mean", (x, one, one[:])),
        ("running_mean", (x, one, two, one)),
        ("running_var", (x, one, two, None, two[:])),
        ("running_mean", (x[..., ::2], both[1:4], two)),
    ]
    for argument, arguments in pairs:
        with pytest.raises(ValueError, match=f"^{name}: {argument} must not overlap"):
            call(*arguments)
    assert both.tolist() == list(range(1, 73))
    assert (one.tolist(), two.tolist()) == ([0] * 3, [1] * 3)
    columns = np.ones((3, 4))
    call(x, *columns.T)
    assert (columns[:, :2] != 1).all()
    assert (columns[:, 2:] == 1).all()


@pytest.mark.parametrize(
    ("text", "asked"),
    [("2", True), (" 4 ", True), ("3,2", True), ("", False), ("abc", False),
     ("0", False), ("-1", False), ("1e3", False), ("2,", False)],
)  # fmt: skip
def test_only_numbers_ask_for_threads(text: str, asked: bool) -> None:
    assert threads._is_asked(text) == asked
    code = "from convcore.runtime import threads as t; print(t._ASKED)"
    assert answer(code, OMP_NUM_THREADS=text) == str(asked)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_only_a_regular_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVCORE_CACHE", str(tmp_path))
    monkeypatch.delenv("CONVCORE_AUTOTUNE", raising=False)
    os.mkfifo(tmp_path / "autotune.json")
    assert tuned._read() == {}


def test_a_rate_beyond_all_floats_is_refused() -> None:
    optimizer = optim.SGD([nn.Parameter(np.ones(2), "weight")], lr=1.0)
    schedule = optim.StepLR(optimizer, 1, 10.0)
    for epoch in (309, 5000, 2**999):
        with pytest.raises(ValueError, match=r"^StepLR\.lr_at: epoch must"):
            schedule.lr_at(epoch)
    for _ in range(308):
        schedule.step()
    with pytest.raises(ValueError, match=r"^StepLR\.lr_at: epoch must"):
        schedule.step()
    assert schedule.epoch == 308
    assert optimizer.lr == 1e308


def test_a_gradient_is_an_array() -> None:
    parameter = nn.Parameter(np.ones(1), "weight")
    parameter.grad = [1]  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"^SGD\.step: gradient of weight must be an"):
        optim.SGD([parameter], lr=1.0).step()


def test_a_gradient_beyond_all_floats() -> None:
    with pytest.raises(ValueError, match="^mse_loss_backward: grad_output must be a"):
        F.mse_loss_backward(X, X, grad_output=HUGE)


FLAGS: dict[str, Callable[[Any], Any]] = {
    "ReLU.load_state_dict: strict": lambda v: nn.ReLU().load_state_dict({}, v),
    "BatchNorm2d: track_running_stats": lambda v: nn.BatchNorm2d(
        2, track_running_stats=v
    ),
    "autotune: train": lambda v: convcore.autotune(nn.ReLU(), X, train=v),
    "BatchNorm2d: affine": lambda v: nn.BatchNorm2d(2, affine=v),
    "he_uniform: transposed": lambda v: init.he_uniform((3, 3, 3), transposed=v, rng=0),
    "AvgPool1d: ceil_mode": lambda v: nn.AvgPool1d(2, ceil_mode=v),
    "GlobalLPPool1d: norm_type": nn.GlobalLPPool1d,
    "LPPool2d: norm_type": lambda v: nn.LPPool2d(v, 2),
    "he_uniform: dtype": lambda v: init.he_uniform((3, 3), dtype=v, rng=0),
    "conv2d_backward: needs": lambda v: F.conv2d_backward(
        X[..., 1:-1, 1:-1], X, W, needs=(v,)
    ),
}


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [TWO, NAMES, HUGE], ids=kind)
def test_what_is_no_such_flag(name: str, value: Any) -> None:
    refused(name, FLAGS[name], value)


def test_a_spelling_with_a_huge_number() -> None:
    with pytest.raises(ValueError, match=r"^ConvProblem\.parse: text must be a spell"):
        convcore.ConvProblem.parse(f"n{'9' * 5000}g1ic3ih9oc4kh3")
