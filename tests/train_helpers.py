"""Small models, and data to train them with."""

import numpy as np

from convcore import nn, optim, train


def line(count=10):
    """Points on y = 3 x - 1."""
    x = np.linspace(-1, 1, count).reshape(count, 1)
    return x, 3 * x - 1


def fit(model, x, y, **settings):
    """`train.fit` with defaults for all that the test does not name."""
    if "optimizer" not in settings:
        lr = settings.pop("lr", 0.1)
        settings["optimizer"] = optim.SGD(model.parameters(), lr=lr)
    defaults = {"loss": nn.MSELoss(), "epochs": 1, "batch_size": 4, "progress": False}
    return train.fit(model, x, y, **{**defaults, **settings})


def linear():
    return nn.Linear(1, 1, dtype=np.float64)


def small_cnn():
    """All kinds of state: weights, running statistics, random dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25, rng=3),
        nn.Linear(64, 3),
    )


def images(count=20):
    draw = np.random.default_rng(5)
    x = draw.standard_normal((count, 1, 8, 8)).astype(np.float32)
    return x, draw.integers(0, 3, count)


def state(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}
