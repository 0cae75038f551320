"""What training refuses, before the first step."""

import numpy as np
import pytest

from convcore import nn, optim, train
from tests.train_helpers import fit, images, line, linear, small_cnn, state

X, Y = line()
SCORES = np.array([[0.1, 0.7, 0.2], [0.9, 0.0, 0.1], [0.5, 0.5, 0.0], [0.0, 0.1, 0.9]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X.tolist()}, TypeError, "x must be a numpy.ndarray, got list"),
        ({"y": 1.0}, TypeError, "y must be a numpy.ndarray, got float"),
        ({"x": np.ones(())}, ValueError, "x must have a first axis"),
        ({"y": Y[:9]}, ValueError, "x and y must be equally many samples, at least 1"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "at least 1, got 0 and 0"),
        ({"epochs": -1}, ValueError, "epochs must be >= 0, got -1"),
        ({"epochs": 1.0}, TypeError, "epochs must be an integer, got 1.0"),
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1, got 0"),
        ({"seed": None}, TypeError, "seed must be a numpy.random.Generator or an int"),
        (
            {"validation": (X.astype(np.float32), Y)},
            TypeError,
            "validation x must be float64 as x is, got float32",
        ),
        ({"validation": X}, TypeError, "validation must be a pair, got array"),
        ({"validation": (X, Y[:2])}, ValueError, "validation x and validation y must"),
        ({"metrics": {"a": max}}, ValueError, "metrics must come with validation data"),
        ({"callbacks": [print]}, TypeError, "callbacks must be train.Callback objects"),
        (
            {"callbacks": [train.Callback]},
            TypeError,
            "callbacks must be train.Callback",
        ),
        ({"progress": 1}, TypeError, "progress must be True, False or None, got 1"),
        (
            {"optimizer": None},
            TypeError,
            "optimizer must be an Optimizer, got NoneType",
        ),
        (
            {"optimizer": optim.SGD(nn.Linear(1, 1).parameters(), lr=1)},
            ValueError,
            "optimizer must hold parameters of model only, got 2 others",
        ),
    ],
)
def test_bad_arguments_of_fit(change, error, message):
    model = linear()
    before = state(model)
    arguments = {"x": X, "y": Y, **change}
    with pytest.raises(error) as caught:
        fit(model, **arguments)
    assert str(caught.value).startswith("fit: ")
    assert message in str(caught.value)
    assert state(model) == before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: train.predict(linear(), [[1.0]]),
            TypeError,
            "predict: x must be a numpy.ndarray, got list",
        ),
        (
            lambda: train.predict(linear(), X, 0),
            ValueError,
            "predict: batch_size must be >= 1, got 0",
        ),
        (
            lambda: train.predict(lambda x: x[0], X),
            ValueError,
            "predict: model must give one output per sample",
        ),
        (
            lambda: train.accuracy(SCORES, np.array([0.0] * 4)),
            TypeError,
            "accuracy: targets must be integers, got float64",
        ),
        (
            lambda: train.accuracy(SCORES, np.array([0, 1])),
            ValueError,
            "accuracy: outputs and targets must be as many",
        ),
        (
            lambda: train.accuracy(SCORES[:0], np.array([], int)),
            ValueError,
            "accuracy: targets must hold at least one",
        ),
        (
            lambda: train.accuracy(np.array([0.5]), np.array([0])),
            TypeError,
            "accuracy: outputs must be float scores",
        ),
        (
            lambda: train.confusion_matrix(np.array([3]), np.array([0]), 3),
            ValueError,
            r"confusion_matrix: classes must be in 0 \.\.\. 2, got 3",
        ),
        (
            lambda: train.confusion_matrix(np.array([0]), np.array([-1])),
            ValueError,
            r"confusion_matrix: classes must be in 0 \.\.\. 0, got -1",
        ),
    ],
)
def test_bad_arguments_of_the_others(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"schedule": "cos"},
            TypeError,
            "schedule must be an optim.Schedule, got 'cos'",
        ),
        ({"schedule": optim.CosineLR}, TypeError, "schedule must be an optim.Schedule"),
        ({"metrics": [train.accuracy]}, TypeError, "metrics must map names"),
        ({"metrics": {"a": 3}}, TypeError, "metrics must map names"),
        ({"loss": None}, TypeError, "loss must have a method forward"),
        ({"loss": nn.CrossEntropyLoss}, TypeError, "loss must have a method forward"),
        ({"callbacks": 3}, TypeError, "callbacks must be a sequence"),
    ],
)
def test_helpers_are_checked_before_any_step(change, error, message):
    x, y = images(8)
    model = small_cnn()
    before = state(model)
    arguments = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": optim.SGD(model.parameters(), lr=0.1),
        "epochs": 1,
        "validation": (x, y),
        "progress": False,
        **change,
    }
    with pytest.raises(error, match=f"fit: {message}"):
        fit(model, x, y, **arguments)
    assert state(model) == before


def test_validation_is_tried_before_any_step():
    x, y = images(8)
    model = small_cnn()
    before = state(model)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for wrong in ((x[:, :0], y), (x, y + 100)):
        with pytest.raises(ValueError, match="must"):
            fit(
                model,
                x,
                y,
                loss=nn.CrossEntropyLoss(),
                optimizer=optimizer,
                epochs=1,
                validation=wrong,
                progress=False,
            )
    assert state(model) == before


def test_a_schedule_of_another_optimizer_is_refused():
    x, y = images(8)
    model = small_cnn()
    mine, other = (optim.SGD(model.parameters(), lr=0.1) for _ in "ab")
    with pytest.raises(ValueError, match="fit: schedule must be made for optimizer"):
        fit(
            model,
            x,
            y,
            loss=nn.CrossEntropyLoss(),
            optimizer=mine,
            epochs=1,
            schedule=optim.StepLR(other, 1),
            progress=False,
        )
