"""The demo and the command line: split, tables, pictures, exit codes."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import convcore
from convcore import cli, demo, nn, reference, train
from convcore.demo import data, flip_twice, report, timing
from convcore.demo.model import build, trace
from convcore.problem import ConvProblem
from tests import oracle

SHORT = ["demo", "--quick", "--epochs", "1", "--no-pictures"]


@pytest.fixture
def extras():
    """Skip a test of the demo itself where its packages are not installed."""
    for name in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(name)


@pytest.fixture
def few(extras, monkeypatch):
    """Let the demo have few digits, and small batches."""
    all_digits = data.load()
    digits = data.Digits(
        all_digits.x_train[:200],
        all_digits.y_train[:200],
        all_digits.x_test[:100],
        all_digits.y_test[:100],
    )
    monkeypatch.setattr(data, "load", lambda: digits)
    monkeypatch.setattr(demo, "BATCH", 16)


def numbers(output):
    """What has to be the same on every run: all before the times."""
    same, _, times = output.partition("\ntrained in ")
    assert times
    return same


class TestData:
    def test_stratified_takes_the_same_share_of_each_class(self):
        y = np.repeat([0, 1, 2], [40, 10, 2])
        chosen = data.stratified(y, 0.25, np.random.default_rng(0))
        assert np.bincount(y[chosen], minlength=3).tolist() == [10, 2, 0]
        again = data.stratified(y, 0.25, np.random.default_rng(0))
        np.testing.assert_array_equal(chosen, again)
        other = data.stratified(y, 0.25, np.random.default_rng(1))
        assert (chosen != other).any()

    def test_shifted_by_hand(self):
        x = np.array([[[[1, 2], [3, 4]]]], np.float32)
        moved, labels = data.shifted(x, np.array([7]))
        assert moved.dtype == np.float32
        assert labels.tolist() == [7] * 5
        assert moved[:, 0].tolist() == [
            [[1, 2], [3, 4]],
            [[0, 1], [0, 3]],  # right
            [[2, 0], [4, 0]],  # left
            [[0, 0], [1, 2]],  # down
            [[3, 4], [0, 0]],  # up
        ]

    def test_load(self, extras):
        digits = data.load()
        assert digits.x_train.shape == (1347, 1, 8, 8)
        assert digits.x_test.shape == (450, 1, 8, 8)
        assert digits.x_train.dtype == np.float32
        assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
        counts = np.bincount(digits.y_test) / (
            np.bincount(digits.y_test) + np.bincount(digits.y_train)
        )
        np.testing.assert_allclose(counts, 0.25, atol=0.5 / 174)  # 174 of a class
        images = np.concatenate([digits.x_train, digits.x_test]).reshape(1797, 64)
        from sklearn.datasets import load_digits

        expected = (load_digits().data / 16).astype(np.float32)
        np.testing.assert_array_equal(
            np.sort(images, axis=0), np.sort(expected, axis=0)
        )


def test_build_is_seeded():
    first, again, other = (build(seed).state_dict() for seed in (1, 1, 2))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        assert name.endswith("bias") or (array != other[name]).all()


def test_trace_is_the_model():
    model = build(0)
    x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    steps = trace(model, x)
    assert len(steps) == len(model.children())
    assert steps[0][1] is x
    np.testing.assert_array_equal(steps[-1][2], model(x))


def test_compare_times_every_convolution_and_checks_the_results():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3, dilation=2, padding=2, bias=False),
    )
    x = np.random.default_rng(0).random((3, 2, 9, 9), np.float32)
    timings = timing.compare(model, x, seconds=0)
    assert [str(t.problem) for t in timings] == [
        "n3g2ic2ih9oc4kh3sh2ph1",
        "n3g1ic4ih5oc3kh3ph2dh2",
    ]
    assert all(t.kernels > 0 and t.numpy > 0 for t in timings)
    assert all(t.difference < 1e-5 for t in timings)


def test_compare_notices_wrong_kernels(monkeypatch):
    def wrong(problem, x, w, b=None):
        return 2 * conv(problem, x, w, b)

    conv = reference.conv
    monkeypatch.setattr(reference, "conv", wrong)
    x = np.ones((1, 1, 4, 4), np.float32)
    with pytest.raises(ArithmeticError, match="differ"):
        timing.compare(nn.Sequential(nn.Conv2d(1, 1, 3)), x, seconds=0)


def test_tables_by_hand():
    history = train.History([0.5], [0.1], [0.25], {"accuracy": [0.9375]})
    assert report.history_table(history).splitlines() == [
        "epoch    loss  held-out loss  held-out accuracy",
        "    1  0.5000         0.2500             93.75%",
    ]
    problem = ConvProblem.parse("n1g1ic1ih8oc1kh3")
    rows = [
        timing.Timing("first", problem, 0.001, 0.01, 0.0),
        timing.Timing("second", problem, 0.003, 0.006, 0.0),
    ]
    assert report.timing_table(rows).splitlines() == [
        "layer      kernels       NumPy  times faster",
        "first      1.00 ms     10.0 ms          10.0",
        "second     3.00 ms      6.0 ms           2.0",
        "all        4.00 ms     16.0 ms           4.0",
    ]


@pytest.mark.parametrize("wrong", [0, 1, 40])
def test_misread_shows_what_was_misread(wrong):
    pytest.importorskip("matplotlib")
    y = np.arange(60) % 10
    read = y.copy()
    read[5 : 5 + wrong] = (read[5 : 5 + wrong] + 1) % 10
    x = np.random.default_rng(0).random((60, 1, 8, 8), np.float32)
    figure = report.misread(x, y, np.eye(10)[read])
    captions = [ax.get_title() for ax in figure.axes]
    assert len(captions) == {0: 8, 1: 1, 40: 32}[wrong]
    assert captions[0] == ("5 read as 6" if wrong else "0 read as 0")
    assert f"{wrong} of 60" in figure.get_suptitle()


def test_the_demo_from_the_command_line(extras, tmp_path):
    """The whole run, as a user starts it: 98 % of digits that it has not seen."""
    done = subprocess.run(
        [sys.executable, "-m", "convcore", "demo", "--out", "here/there"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 8/8" in done.stderr  # the progress bar
    line = done.stdout.partition("held-out accuracy ")[2].partition("\n")[0]
    right, held_out = map(int, line.partition(": ")[2].split(" of "))
    assert held_out == 450
    assert right >= 0.98 * 450
    assert line.startswith(f"{right / held_out:.2%}: ")
    matrix = done.stdout.partition("digit 0")[2].partition("\n\n")[0]
    assert len(matrix.splitlines()) == 10
    assert "32 to 32 channels, 8 x 8" in done.stdout
    names = ["activations.png", "filters.png", "loss.png", "misread.png"]
    files = sorted((tmp_path / "here" / "there").iterdir())
    assert [file.name for file in files] == names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_the_quick_demo_learns(extras, capsys):
    assert cli.main(["demo", "--quick", "--no-pictures"]) == 0
    out, err = capsys.readouterr()
    assert "epoch 3/3" in err
    accuracy = float(out.partition("held-out accuracy ")[2].partition("%")[0])
    assert accuracy > 92  # of three short epochs; ten classes by chance: 10


def test_same_numbers_for_every_thread_count(few, own_threads, capsys):
    outputs = []
    for count in ("1", "2", "3"):
        assert cli.main([*SHORT, "--threads", count]) == 0
        outputs.append(numbers(capsys.readouterr().out))
    assert outputs[0] == outputs[1] == outputs[2]
    assert cli.main([*SHORT, "--seed", "1"]) == 0
    assert numbers(capsys.readouterr().out) != outputs[0]


@pytest.mark.parametrize(
    ("modules", "names"),
    [
        (["sklearn.datasets"], "scikit-learn"),
        (["matplotlib.figure"], "matplotlib"),
        (["tqdm"], "tqdm"),
        (["sklearn.datasets", "tqdm"], "scikit-learn and tqdm"),
    ],
)
def test_a_missing_extra_is_one_line(extras, modules, names, monkeypatch, capsys):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["demo"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err == (
        f"convcore demo: needs {names}, not installed here; "
        'run: pip install "convcore[demo]"\n'
    )


def test_no_pictures_need_no_matplotlib(few, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(SHORT) == 0
    assert "pictures" not in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_an_interrupt_is_one_line(extras):
    with subprocess.Popen(
        [sys.executable, "-m", "convcore", "demo", "--epochs", "999", "--no-pictures"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        begun = b""
        while b"epoch 1/999" not in begun:
            begun += process.stderr.read(1) or pytest.fail(begun.decode())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().splitlines()[-1] == "convcore demo: interrupted"
    assert b"Traceback" not in begun + err
    assert b"accuracy" not in out


def test_the_directory_for_pictures_is_tried_first(extras, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["demo", "--out", str(tmp_path / "file")]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("convcore demo: cannot make the directory ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["demo", "--epochs", "0"], "argument --epochs: must be >= 1, got 0"),
        (["demo", "--epochs", "x"], "argument --epochs: invalid integer value: 'x'"),
        (["demo", "--seed", "-1"], "argument --seed: must be >= 0, got -1"),
        (["demo", "--threads", "0"], "argument --threads: must be >= 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_too_many_threads(capsys):
    assert cli.main(["demo", "--threads", "1000000"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(
        "convcore demo: --threads: set_num_threads: n must be in 1 .."
    )


def test_info_and_version(capsys):
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    convcore.show_config()
    assert shown == capsys.readouterr().out != ""
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"convcore {convcore.__version__}\n"


def test_run_gives_the_accuracy(few, capsys):
    accuracy = demo.run(demo.Settings(quick=True, epochs=1, out=None))
    assert f"held-out accuracy {accuracy:.2%}" in capsys.readouterr().out


class TestFlipTwice:
    def test_a_run_with_turned_kernels_is_the_same_run(self, few, capsys, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["flip_twice", "--epochs", "2"])
        flip_twice.main()
        lines = capsys.readouterr().out.splitlines()[2:6]
        assert lines[1].split()[:2] == ["kernels", "turned"]
        assert lines[1].split()[4:] == ["equal"] * 3
        assert "equal" not in lines[3]

    def test_what_is_equal_and_what_only_close(self, few):
        first, kernels, images, same = flip_twice.runs(data.load(), epochs=2)
        assert kernels.losses == first.losses
        oracle.assert_bits_equal(kernels.scores, first.scores)
        for one, other in zip(first.kernels, kernels.kernels, strict=True):
            oracle.assert_bits_equal(one, other)
        np.testing.assert_allclose(images.losses, first.losses, rtol=1e-4)
        np.testing.assert_allclose(images.scores, first.scores, rtol=0.01, atol=0.01)
        assert not np.allclose(same.losses, first.losses, rtol=1e-3)
