"""Pictures: the grid array by hand, and what the axes of each figure hold."""

import subprocess
import sys

import numpy as np
import pytest

from convcore import viz

NAN = np.nan


def test_tile_by_hand():
    images = np.array([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]])
    expected = [[1, 2, NAN, 3, 4], [NAN] * 5, [5, 6, NAN, NAN, NAN]]
    np.testing.assert_array_equal(viz.tile(images, columns=2), expected)
    wide = [[1, 2, NAN, NAN, 3, 4, NAN, NAN, 5, 6]]
    np.testing.assert_array_equal(viz.tile(images, columns=9, gap=2), wide)
    np.testing.assert_array_equal(
        viz.tile(images, columns=1, gap=0), images.reshape(3, 2)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (5, 2, 3), (16, 4, 4)]
)
def test_tile_is_as_square_as_it_can(count, rows, columns, dtype):
    grid = viz.tile(np.zeros((count, 3, 5), dtype))
    assert grid.shape == (rows * 4 - 1, columns * 6 - 1)
    assert grid.dtype == dtype


def test_tile_needs_no_matplotlib():
    """Neither does importing the library: matplotlib comes with the first picture."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, convcore.viz\n"
        "print(convcore.viz.tile(np.zeros((4, 2, 2))).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(5, 5)\n"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: viz.tile([[1.0]]), TypeError, "tile: images must be a float array"),
        (lambda: viz.tile(np.ones((2, 2, 2), int)), TypeError, "tile: .*, got int64"),
        (
            lambda: viz.tile(np.ones((2, 2))),
            ValueError,
            "tile: images must have 3 axes",
        ),
        (lambda: viz.tile(np.ones((0, 2, 2))), ValueError, "tile: .* no empty one"),
        (lambda: viz.tile(np.ones((1, 2, 2)), 0), ValueError, "tile: columns must be"),
        (lambda: viz.tile(np.ones((1, 2, 2)), gap=-1), ValueError, "tile: gap must be"),
        (
            lambda: viz.filter_grid(np.ones((2, 3, 3))),
            ValueError,
            "filter_grid: weight",
        ),
        (lambda: viz.filter_grid(None), TypeError, "filter_grid: weight must be a fl"),
        (lambda: viz.activation_grid([]), ValueError, "activation_grid: steps must"),
        (
            lambda: viz.activation_grid([("conv", np.ones((2, 2)))]),
            ValueError,
            "activation_grid: steps .conv. must have 3 axes",
        ),
        (
            lambda: viz.image_grid(np.ones((2, 2))),
            ValueError,
            "image_grid: images must",
        ),
        (
            lambda: viz.image_grid(np.ones((2, 2, 2)), ["a"]),
            ValueError,
            "image_grid: captions must be 2, one for each image, got 1",
        ),
        (lambda: viz.loss_curve([]), ValueError, "loss_curve: loss must hold at least"),
        (
            lambda: viz.loss_curve([1.0, 0.5], [1.0]),
            ValueError,
            "loss_curve: validation must have 2 epochs, got 1",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


class TestFigures:
    """What is drawn; how it looks has to be seen."""

    @pytest.fixture(autouse=True)
    def _matplotlib(self):
        pytest.importorskip("matplotlib")

    def test_filter_grid_shows_every_plane_on_one_scale(self):
        weight = np.random.default_rng(0).standard_normal((4, 3, 2, 2))
        ax = viz.filter_grid(weight, title="Mine")
        (image,) = ax.images
        shown = image.get_array().filled(NAN)
        elements = shown[np.isfinite(shown)]
        np.testing.assert_array_equal(np.unique(elements), np.unique(weight))
        assert image.get_clim() == (-abs(weight).max(), abs(weight).max())
        assert len(ax.patches) == 12
        # filters go down, input channels to the right
        assert shown[0, 0] == weight[0, 0, 0, 0]
        assert shown[0, -1] == weight[0, 2, 0, 1]
        assert shown[-1, 0] == weight[3, 0, 1, 0]
        assert ax.get_title() == "Mine"

    def test_filter_grid_draws_where_it_is_told(self):
        from matplotlib.figure import Figure

        ax = Figure().add_subplot()
        assert viz.filter_grid(np.zeros((2, 1, 3, 3)), ax=ax) is ax
        assert ax.images[0].get_clim() == (-1, 1)  # all zero: a scale all the same

    def test_activation_grid(self):
        steps = [
            ("image", np.ones((1, 4, 4))),
            ("conv", np.linspace(-3, 1, 20 * 4).reshape(20, 2, 2)),
            ("scores", np.array([1.0, -2.0, 0.5])),
        ]
        figure = viz.activation_grid(steps, most=5, title="Way")
        image, conv, scores = figure.axes
        assert conv.get_title(loc="left") == "conv  20 × 2 × 2, first 5"
        assert image.get_title(loc="left") == "image  1 × 4 × 4"
        assert len(conv.patches) == 5
        assert conv.images[0].get_clim() == (-3, 3)
        # one channel is as wide as one of five, however many elements it has
        assert len(image.patches) == 1
        widths = [
            ax.patches[0].get_width() / (ax.get_xlim()[1] - ax.get_xlim()[0])
            for ax in (image, conv)
        ]
        assert widths[0] == pytest.approx(widths[1], rel=0.05)
        assert [bar.get_height() for bar in scores.patches] == [1.0, -2.0, 0.5]
        assert scores.get_xticks().tolist() == [0, 1, 2]

    def test_image_grid(self):
        images = np.arange(24.0).reshape(6, 2, 2)
        figure = viz.image_grid(images, list("abcdef"), columns=4, title="Six")
        assert [ax.get_title() for ax in figure.axes] == list("abcdef")
        assert {ax.images[0].get_clim() for ax in figure.axes} == {(0.0, 23.0)}
        tops = [round(ax.get_subplotspec().rowspan.start) for ax in figure.axes]
        assert tops == [0, 0, 0, 0, 1, 1]

    def test_loss_curve(self):
        ax = viz.loss_curve([1.0, 0.1], [2.0, 0.2], title="Run")
        training, held_out = ax.lines
        assert training.get_xdata().tolist() == [1, 2]
        assert list(held_out.get_ydata()) == [2.0, 0.2]
        assert ax.get_yscale() == "log"
        assert len(viz.loss_curve([1.0]).lines) == 1

    def test_number_triangle(self):
        ax = viz.number_triangle([[1], [1, 20, 1]], captions=["a", "b"], title="Two")
        assert [text.get_text() for text in ax.texts] == ["1", "1", "20", "1"]
        places = [text.get_position() for text in ax.texts]
        assert places == [(0, 0.5), (-1, 1.5), (0, 1.5), (1, 1.5)]
        assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
        assert ax.get_title() == "Two"
        assert viz.number_triangle([[0]], ax=ax) is ax
        with pytest.raises(ValueError, match="number_triangle: rows must hold"):
            viz.number_triangle([[1], []])
        with pytest.raises(ValueError, match="number_triangle: captions must be 1"):
            viz.number_triangle([[1]], captions=[])

    def test_figures_are_saved(self, tmp_path):
        figures = [
            viz.filter_grid(np.ones((3, 1, 3, 3))).figure,
            viz.activation_grid([("x", np.ones((2, 3, 3))), ("y", np.ones(30))]),
            viz.image_grid(np.ones((1, 4, 4)), title="A title wider than the image"),
            viz.loss_curve([1.0, 0.0]).figure,
        ]
        for index, figure in enumerate(figures):
            path = tmp_path / f"{index}.png"
            figure.savefig(path)
            assert path.read_bytes().startswith(b"\x89PNG")
