"""Training and prediction: order, numbers, callbacks, interrupts."""

import math
import sys

import numpy as np
import pytest

import convcore
from convcore import nn, optim, train
from tests.interrupts import interrupt_everywhere
from tests.train_helpers import fit, images, line, linear, small_cnn, state


class Recorder(train.Callback):
    """Keeps the order of the calls and the states after each step."""

    def __init__(self):
        self.calls, self.states, self.losses = [], [], []

    def on_epoch_begin(self, run):
        self.calls.append(("begin", run.epoch))

    def on_batch_end(self, run):
        self.calls.append(("batch", run.epoch, run.batch))
        self.states.append(state(run.model))
        self.losses.append(run.loss)

    def on_epoch_end(self, run):
        self.calls.append(("end", run.epoch, len(run.history.loss)))


class Shown:
    """A loss that remembers which targets it saw."""

    def __init__(self):
        self.loss, self.batches = nn.MSELoss(), []

    def __call__(self, x, target):
        return self.loss(x, target)

    def forward(self, x, target):
        self.batches.append(target.ravel().tolist())
        return self.loss.forward(x, target)


def test_fit_learns_a_line():
    model = linear()
    history = fit(model, *line(), epochs=60, lr=0.3)
    assert model.weight.value[0, 0] == pytest.approx(3, abs=1e-3)
    assert model.bias.value[0] == pytest.approx(-1, abs=1e-3)
    assert history.loss[-1] < 1e-5 < history.loss[0]


def test_one_batch_is_one_step_of_gradient_descent():
    model, (x, y) = linear(), line()
    weight, bias = model.weight.value[0, 0], model.bias.value[0]
    error = weight * x + bias - y
    fit(model, x, y, batch_size=10, lr=0.25)
    expected = weight - 0.25 * (2 * error * x).mean(), bias - 0.25 * (2 * error).mean()
    found = model.weight.value[0, 0], model.bias.value[0]
    assert found == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 99])
def test_every_epoch_shows_every_sample_once(batch_size):
    loss, count = Shown(), 10
    y = np.arange(float(count)).reshape(count, 1)
    fit(linear(), y / count, y, loss=loss, epochs=3, batch_size=batch_size, lr=0)
    sizes = [len(batch) for batch in loss.batches]
    full, rest = divmod(count, batch_size)
    assert sizes == ([batch_size] * full + [rest] * (rest > 0)) * 3
    shown = np.concatenate(loss.batches).reshape(3, count)
    np.testing.assert_array_equal(np.sort(shown), np.tile(y.T, (3, 1)))
    assert not np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], np.sort(shown[0]))


def test_the_seed_gives_the_order():
    orders = []
    for seed in (1, 1, 2, np.random.default_rng(1)):
        loss = Shown()
        fit(linear(), *line(), loss=loss, seed=seed, epochs=2)
        orders.append(loss.batches)
    assert orders[0] == orders[1] == orders[3] != orders[2]


def test_history_weighs_batches_by_their_size():
    """With lr 0 the mean over an epoch is the loss on all samples, tails included."""
    model, (x, y) = linear(), line()
    history = fit(model, x, y, lr=0, epochs=2, batch_size=4)
    assert history.loss == pytest.approx([float(nn.MSELoss()(model(x), y))] * 2)


def test_history_of_validation_metrics_and_schedule():
    model, (x, y) = linear(), line()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    recorded = []

    def worst(outputs, targets):
        recorded.append(outputs)
        return float(abs(outputs - targets).max())

    history = fit(
        model,
        x,
        y,
        optimizer=optimizer,
        epochs=3,
        validation=(x[:3], y[:3]),
        metrics={"worst": worst},
        schedule=optim.StepLR(optimizer, 1, 0.5),
    )
    assert history.lr == [0.5, 0.25, 0.125]
    assert optimizer.lr == 0.0625
    assert len(history.loss) == len(history.validation_loss) == 3
    np.testing.assert_array_equal(recorded[-1], model(x[:3]))
    loss = float(nn.MSELoss()(model(x[:3]), y[:3]))
    assert history.validation_loss[-1] == pytest.approx(loss, rel=1e-14)
    assert history.metrics["worst"][-1] == abs(model(x[:3]) - y[:3]).max()


def test_validation_is_inference():
    """Held-out data neither move the running statistics nor meet dropout."""
    x, y = images()
    plain, checked = small_cnn(), small_cnn()
    loss = nn.CrossEntropyLoss()
    fit(plain, x, y, loss=loss, epochs=2)
    fit(checked, x, y, loss=loss, epochs=2, validation=(x * 5, y))
    assert state(plain) == state(checked)


def test_no_epoch_changes_nothing():
    model = linear()
    before = state(model)
    assert fit(model, *line(), epochs=0) == train.History()
    assert state(model) == before


def test_callbacks_come_in_order():
    recorder = Recorder()
    fit(linear(), *line(), epochs=2, batch_size=5, callbacks=[recorder])
    assert recorder.calls == [
        ("begin", 0),
        ("batch", 0, 0),
        ("batch", 0, 1),
        ("end", 0, 1),
        ("begin", 1),
        ("batch", 1, 0),
        ("batch", 1, 1),
        ("end", 1, 2),
    ]


def test_a_callback_may_stop():
    class Stop(train.Callback):
        def on_epoch_end(self, run):
            run.stop = run.epoch == 1

    history = fit(linear(), *line(), epochs=5, callbacks=[Stop()])
    assert len(history.loss) == 2


@pytest.mark.parametrize("method", ["on_epoch_begin", "on_batch_end", "on_epoch_end"])
def test_a_failing_callback_leaves_the_last_step(method):
    x, y = images()
    recorder = Recorder()
    loss = nn.CrossEntropyLoss()
    fit(small_cnn(), x, y, loss=loss, epochs=2, callbacks=[recorder])

    def fail(run):
        if run.epoch == 1:
            raise RuntimeError("enough")

    model, failing, seen = small_cnn(), train.Callback(), Recorder()
    setattr(failing, method, fail)
    with pytest.raises(RuntimeError, match="enough"):
        fit(model, x, y, loss=loss, epochs=2, callbacks=[seen, failing])
    assert state(model) == seen.states[-1] == recorder.states[len(seen.states) - 1]


def test_an_interrupt_leaves_the_last_step():
    """Ctrl-C at any byte code: weights and running statistics of one finished step."""
    x = np.random.default_rng(0).standard_normal((6, 2))
    y = x[:, :1] - x[:, 1:]
    left = []

    def prepare():
        nonlocal model
        model = nn.Sequential(
            nn.Linear(2, 2, dtype=np.float64),
            nn.BatchNorm1d(2, dtype=np.float64),
            nn.Linear(2, 1, dtype=np.float64),
        )
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        return lambda: fit(model, x, y, optimizer=optimizer, batch_size=3)

    def check():
        left.append(state(model))

    model, recorder = None, Recorder()
    prepare()
    states = [state(model)]
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    fit(model, x, y, optimizer=optimizer, batch_size=3, callbacks=[recorder])
    states += recorder.states
    files = ("fitting.py", "optimizer.py", "adam.py", "norm.py", "container.py")
    assert interrupt_everywhere(prepare, check, files, stride=7) > 100
    assert all(found in states for found in left)
    assert left[0] == states[0]
    assert left[-1] == states[-1]
    assert states[1] in left


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_makes_no_step(value):
    x, y = images()
    x[13] = value
    recorder, model = Recorder(), small_cnn()
    loss = nn.CrossEntropyLoss()
    with pytest.raises(FloatingPointError, match=r"^fit: loss must be finite, got nan"):
        fit(model, x, y, loss=loss, epochs=2, batch_size=2, callbacks=[recorder])
    assert state(model) == (recorder.states or [state(small_cnn())])[-1]
    assert all(np.isfinite(array).all() for array in model.state_dict().values())


def test_same_numbers_on_every_run_and_thread_count():
    x, y = images(40)
    results = []
    try:
        for threads in (1, 1, 2, 3):
            convcore.set_num_threads(threads)
            model, recorder = small_cnn(), Recorder()
            optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            history = fit(
                model,
                x,
                y,
                loss=nn.CrossEntropyLoss(),
                optimizer=optimizer,
                epochs=3,
                batch_size=16,
                validation=(x, y),
                callbacks=[recorder],
            )
            results.append((state(model), history, recorder.losses))
    finally:
        convcore.set_num_threads(None)
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 256])
def test_predict_is_the_model_on_all_samples(batch_size):
    model, (x, _) = small_cnn(), images(10)
    outputs = train.predict(model, x, batch_size)
    assert outputs.shape == (10, 3)
    assert outputs.dtype == np.float32
    # Batches may choose another algorithm: equal up to rounding.
    np.testing.assert_allclose(outputs, model(x), rtol=1e-4, atol=1e-5)
    again = train.predict(model, x, batch_size)
    np.testing.assert_array_equal(outputs, again)


def test_predict_nothing():
    assert train.predict(small_cnn(), images(0)[0]).shape == (0, 3)


SCORES = np.array([[0.1, 0.7, 0.2], [0.9, 0.0, 0.1], [0.5, 0.5, 0.0], [0.0, 0.1, 0.9]])


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        (SCORES, [1, 0, 0, 2], 1.0),
        (SCORES, [1, 0, 1, 0], 0.5),  # of equal scores the first counts
        (np.array([1, 2, 3]), [1, 2, 0], 2 / 3),
        (SCORES[None].transpose(0, 2, 1), [[1, 0, 2, 1]], 0.5),  # one row of positions
    ],
)
def test_accuracy_by_hand(outputs, targets, expected):
    assert train.accuracy(outputs, np.array(targets)) == expected


def test_confusion_matrix_by_hand():
    targets = np.array([1, 0, 2, 0])
    expected = [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert train.confusion_matrix(SCORES, targets).tolist() == expected
    wide = train.confusion_matrix(np.array([0]), np.array([1], np.uint8), classes=3)
    assert wide.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_progress_bar(capsys):
    pytest.importorskip("tqdm")
    model, (x, y) = linear(), line()
    metrics = {"worst": lambda a, b: float(abs(a - b).max())}
    for progress in (True, None):
        fit(
            model,
            x,
            y,
            epochs=2,
            validation=(x, y),
            metrics=metrics,
            progress=progress,
        )
        out, err = capsys.readouterr()
        assert not out
        assert "epoch 2/2" in err
        assert "6/6" in err
        assert "loss=" in err
        assert "worst=" in err


def test_progress_bar_closes_after_a_failure(capsys):
    tqdm = pytest.importorskip("tqdm").tqdm
    x, y = line()
    with pytest.raises(FloatingPointError):
        fit(linear(), x * math.nan, y, progress=True)
    assert capsys.readouterr().err
    assert not getattr(tqdm, "_instances", ())


def test_no_progress_bar(capsys, monkeypatch):
    fit(linear(), *line(), progress=False)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    fit(linear(), *line(), progress=None)
    assert capsys.readouterr() == ("", "")
    message = r'needs tqdm, .*; run: pip install "convcore\[demo\]"'
    with pytest.raises(ModuleNotFoundError, match=message):
        fit(linear(), *line(), progress=True)
