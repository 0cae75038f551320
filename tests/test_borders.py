"""The example about borders: its experiment, its pictures, its command."""

import sys

import numpy as np
import pytest

from convcore import analysis, nn
from convcore.demo import data
from convcore.examples.borders import __main__ as command
from convcore.examples.borders import experiment, numbers, pictures
from convcore.examples.borders.remedies import REMEDIES, body

PADDINGS = (
    *("valid", "zeros", "full"),
    *("reflect", "symmetric", "replicate", "circular"),
)


@pytest.mark.parametrize("remedy", PADDINGS)
def test_paths_of_a_padding(remedy):
    counts = analysis.path_count(
        body(remedy, 2, 3, 9, np.random.default_rng(0)), (1, 9, 9)
    )
    padding = remedy if remedy in ("valid", "full") else "same"
    mode = remedy if padding == "same" else "zeros"
    [edge] = analysis.path_ratio(3, 2, padding, mode)[-1:]
    assert counts[0, 4] / counts[4, 4] == edge
    layer = nn.Conv2d(1, 1, 3, padding=padding)
    layer.padding_mode = mode
    chain = nn.Sequential(layer, layer)
    np.testing.assert_array_equal(analysis.path_count(chain, (1, 9, 9)), counts)


def test_a_mirror_moves_the_output_more_only_where_places_are_summed():
    """Two paths with the same weights add up in the mean of a map, as the guide says."""
    chain = body("symmetric", 2, 4, 8, np.random.default_rng(0))
    heads = {
        "mean": [nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(4, 1)],
        "weighed": [nn.Flatten(), nn.Linear(4 * 64, 1)],
    }
    found = {}
    for name, head in heads.items():
        model = nn.Sequential(*chain, *head)
        moved = analysis.influence_map(model, (1, 8, 8), 0, draws=300, batch=2)
        rim = [moved[0, 2:6], moved[-1, 2:6], moved[2:6, 0], moved[2:6, -1]]
        found[name] = np.mean(rim) / moved[3:5, 3:5].mean()
    assert found["mean"] > 1.12
    assert found["weighed"] == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_every_remedy_can_read(remedy):
    model = REMEDIES[remedy](np.random.default_rng(0))
    y, backward = model.forward(np.ones((2, 1, 12, 12), np.float32))
    assert y.shape == (2, 10)
    assert backward(np.ones_like(y)).shape == (2, 1, 12, 12)


def test_places():
    assert len(experiment.EDGES) == 12
    assert not set(experiment.EDGES) & {experiment.CENTRE, *experiment.CORNERS}
    images = np.arange(1.0, 129.0).reshape(2, 1, 8, 8)
    canvas = experiment.put(images, np.array([[0, 4], [2, 2]]))
    np.testing.assert_array_equal(canvas[0, :, :8, 4:], images[0])
    np.testing.assert_array_equal(canvas[1, :, 2:10, 2:10], images[1])
    assert canvas.sum() == images.sum()


def few():
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 1, 8, 8), np.float32), np.arange(40) % 10
    return data.Digits(x, y, x[:10], y[:10])


def test_circular_maps_know_no_place():
    [result] = experiment.run(
        few(), remedies=["circular"], learned=["centre"], seeds=[0, 1], epochs=1
    )
    assert result.shares["centre"] == result.shares["corner"]
    np.testing.assert_allclose(result.shares["edge"], result.shares["centre"])


def test_the_experiment_is_seeded():
    def run():
        found = experiment.run(
            few(), remedies=["valid"], learned=["anywhere"], seeds=[0], epochs=1
        )
        return [experiment.row(result) for result in found]

    assert run() == run()
    assert run()[0].startswith("| anywhere | valid | ")


def test_rows_of_ratios():
    rows = numbers.ratio_rows()
    assert "| valid | - | 5 | 0.200 | 0.040 | 3.2e-04 | 1.0e-07 |" in rows
    assert all(row.count("|") == numbers.HEAD[0].count("|") for row in rows)


def test_counts_of_a_line():
    for remedy in pictures.MAPS:
        line, plane = (pictures.counted(remedy, ndim, 3) for ndim in (1, 2))
        np.testing.assert_array_equal(np.outer(line, line), plane)


def test_command(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(data, "load", few)
    monkeypatch.setattr(pictures, "INFLUENCE_DRAWS", 2)
    monkeypatch.setattr(pictures, "FIELD_DRAWS", 2)
    usual = {**experiment.run.__kwdefaults__, "remedies": ["valid", "zeros"]}
    monkeypatch.setattr(experiment.run, "__kwdefaults__", usual)
    drawn = {f"{name}.png" for name in pictures.all_pictures(0)}
    out = tmp_path / "here" / "there"
    assert (
        command.main(["--out", str(out), "--experiment", "--seeds=2", "--epochs=1"])
        == 0
    )
    names = {path.name for path in out.iterdir()}
    assert names == drawn | {"numbers.md", "experiment.md"}
    assert all((out / n).read_bytes().startswith(b"\x89PNG") for n in drawn)
    printed = capsys.readouterr().out
    for page in ("numbers.md", "experiment.md"):
        rows = [
            line for line in (out / page).read_text().splitlines() if line[:1] == "|"
        ]
        assert len(rows) > 4
        assert all(line in printed for line in rows)
    assert "--seeds 2 --epochs 1" in (out / "experiment.md").read_text()


def test_what_is_missing_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert command.main(["--out", str(tmp_path)]) == 2
    assert "needs matplotlib, not installed here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert command.main(["--no-pictures", "--experiment"]) == 2
    assert "needs scikit-learn, not installed here" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert command.main(["--no-pictures", "--out", str(tmp_path / "file")]) == 2
    assert "cannot make the directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--seeds", "0"])
