"""Counts of paths, against their definition."""

import itertools
import re
from math import comb

import numpy as np
import pytest

from convcore import analysis, nn
from convcore.analysis.window import Window, axis_counts
from convcore.problem.border import source_index
from tests.analysis_helpers import Unknown, conv, linear, transpose

PAD_MODES = {
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
    "circular": "wrap",
}


def gradient_of_ones(model, shape):
    """What `path_count` counts, if every channel but the first input's is one."""
    y, backward = model.forward(np.ones((1, *shape)))
    return backward(np.ones_like(y))[0, 0]


def enumerated(specs, extent):
    """Count the paths of a chain along one axis, by walking every one of them."""
    padded = []  # of each layer: which input pixel stands where, -1 for none
    for kernel, stride, dilation, (low, high), mode in specs:
        pixels = np.arange(extent)
        if mode in PAD_MODES:
            pixels = np.pad(pixels, (low, high), mode=PAD_MODES[mode])
        else:
            pixels = np.pad(pixels, (low, high), constant_values=-1)
        padded.append(pixels)
        extent = (len(pixels) - (kernel - 1) * dilation - 1) // stride + 1
    counts = np.zeros(padded[0].max() + 1, int)

    def walk(layer, place):
        if layer < 0:
            counts[place] += 1
            return
        kernel, stride, dilation = specs[layer][:3]
        for tap in range(kernel):
            source = padded[layer][place * stride + tap * dilation]
            if source >= 0:
                walk(layer - 1, source)

    for place in range(extent):
        walk(len(specs) - 1, place)
    return counts.tolist()


def chained(specs, extent):
    """Count the same paths by windows."""
    windows = []
    for kernel, stride, dilation, pads, mode in specs:
        out = (extent + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1
        windows.append(Window(extent, out, kernel, stride, dilation, pads, mode))
        extent = out
    counts = np.ones(extent, np.int64)
    for window in reversed(windows):
        counts = window.pull(counts, 0)
    return counts.tolist()


MODELS = {
    "plain": (lambda: conv(1, 1, 1, 3), (1, 8)),
    "even": (lambda: conv(1, 1, 1, 4, padding="same"), (1, 9)),
    "stride": (lambda: conv(1, 1, 1, 3, stride=2, padding=1), (1, 10)),
    "dilation": (lambda: conv(1, 1, 1, 3, dilation=3, padding=2), (1, 11)),
    "unequal padding": (lambda: conv(1, 1, 1, 5, padding=[(3, 1)]), (1, 9)),
    "full": (lambda: conv(2, 1, 1, (2, 3), padding="full"), (1, 4, 5)),
    "skipped pixels": (lambda: conv(1, 1, 1, 1, stride=3), (1, 8)),
    "two axes": (
        lambda: nn.Sequential(
            conv(2, 1, 1, (3, 2), stride=(1, 2), padding=[(1, 0), (2, 2)]),
            nn.ReLU(),
            conv(2, 1, 1, 3, dilation=(1, 2), padding=1),
        ),
        (1, 7, 9),
    ),
    "three axes": (
        lambda: nn.Sequential(
            conv(3, 1, 1, (1, 2, 3), padding=(0, 1, 1)),
            nn.SumPool3d((2, 2, 1), stride=1),
        ),
        (1, 4, 5, 6),
    ),
    "pooling": (
        lambda: nn.Sequential(
            conv(2, 1, 1, 3, padding=1), nn.SumPool2d(3, stride=2, padding=1)
        ),
        (1, 8, 7),
    ),
    "ceil_mode": (
        lambda: nn.SumPool2d((3, 2), stride=2, padding=(1, 0), ceil_mode=True),
        (1, 6, 5),
    ),
    "transposed": (
        lambda: transpose(1, 1, 1, 3, stride=2, padding=1, output_padding=1),
        (1, 5),
    ),
    "transposed, dilated": (
        lambda: nn.Sequential(
            transpose(2, 1, 1, (2, 3), stride=(2, 1), dilation=(1, 2)),
            conv(2, 1, 1, 2),
        ),
        (1, 4, 3),
    ),
    "flat": (
        lambda: nn.Sequential(
            conv(2, 1, 1, 3, padding=1), nn.Flatten(), linear(12, 1), linear(1, 1)
        ),
        (1, 3, 4),
    ),
    "flat and open": (lambda: nn.Sequential(conv(2, 1, 1, 2), nn.Flatten()), (1, 4, 4)),
    "axes joined": (
        lambda: nn.Sequential(conv(3, 1, 1, 2), nn.Flatten(2, 3), conv(2, 1, 1, 2)),
        (1, 3, 4, 5),
    ),
    "mixed last axis": (
        lambda: nn.Sequential(conv(2, 1, 1, 2), linear(4, 3), conv(2, 1, 1, 2)),
        (1, 4, 5),
    ),
    "residual": (
        lambda: nn.Sequential(
            nn.Residual(
                nn.Sequential(conv(1, 1, 1, 3, padding=1), conv(1, 1, 1, 3, padding=1))
            ),
            nn.Residual(conv(1, 1, 1, 3, stride=2, padding=1), conv(1, 1, 1, 1, 2)),
        ),
        (1, 9),
    ),
    "concat": (
        lambda: nn.Sequential(
            nn.Concat(
                conv(1, 1, 1, 1),
                conv(1, 1, 1, 3, padding=1),
                conv(1, 1, 1, 5, padding=2),
            ),
            conv(1, 3, 1, 2),
        ),
        (1, 9),
    ),
    "concat of pixels": (
        lambda: nn.Sequential(
            nn.Concat(conv(2, 1, 1, (1, 2)), conv(2, 1, 1, (3, 2)), dim=-2),
            conv(2, 1, 1, 2),
        ),
        (1, 5, 6),
    ),
    "concat of rows": (
        lambda: nn.Sequential(
            nn.Concat(
                nn.Sequential(conv(1, 1, 1, 2), nn.Flatten()),
                nn.Sequential(conv(1, 1, 1, 4), nn.Flatten()),
            ),
            linear(12, 1),
        ),
        (1, 8),
    ),
    "nothing": (lambda: nn.Sequential(), (1, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_path_count_is_the_gradient_of_a_network_of_ones(name):
    build, shape = MODELS[name]
    model = build()
    counts = analysis.path_count(model, shape)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, gradient_of_ones(model, shape))
    floats = analysis.path_count(model, shape, dtype=np.float64)
    assert floats.dtype == np.float64
    np.testing.assert_array_equal(floats, counts)


@pytest.mark.parametrize("mode", ["zeros", "constant", *PAD_MODES])
def test_counts_are_those_of_walking_every_path(mode):
    rng = np.random.default_rng(0)
    for _ in range(40):
        extent, specs = int(rng.integers(4, 8)), []
        room = extent
        for _ in range(int(rng.integers(1, 4))):
            dilation = int(rng.integers(1, 3))
            kernel = int(rng.integers(1, 4))
            stride = int(rng.integers(1, 3))
            pads = tuple(int(p) for p in rng.integers(0, 4, 2))
            out = (room + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1
            if out < 2:
                break
            specs.append((kernel, stride, dilation, pads, mode))
            room = out
        if specs:
            assert chained(specs, extent) == enumerated(specs, extent), specs


@pytest.mark.parametrize("mode", PAD_MODES)
def test_borders_are_those_of_numpy(mode):
    for extent in range(1 + (mode == "reflect"), 6):
        padded = np.pad(np.arange(extent), 13, mode=PAD_MODES[mode])
        found = [source_index(i, extent, mode) for i in range(-13, extent + 13)]
        assert found == padded.tolist()


def test_counts_of_one_axis_by_hand():
    assert axis_counts(5, 3).tolist() == [1, 2, 3, 2, 1]
    assert axis_counts(5, 3, padding=(1, 1)).tolist() == [2, 3, 3, 3, 2]
    assert axis_counts(5, 3, padding=(2, 2)).tolist() == [3] * 5
    assert axis_counts(5, 3, padding=(1, 1), mode="replicate").tolist() == [3] * 5
    assert axis_counts(5, 3, padding=(1, 1), mode="symmetric").tolist() == [3] * 5
    assert axis_counts(5, 3, padding=(1, 1), mode="circular").tolist() == [3] * 5
    assert axis_counts(5, 5, padding=(2, 2), mode="replicate").tolist() == [
        6,
        4,
        5,
        4,
        6,
    ]
    assert axis_counts(6, 3, 3, 2, (1, 1)).tolist() == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("kernel", "padding", "mode", "ratios"),
    [
        (3, "same", "zeros", [0.667, 0.556, 0.395, 0.293]),
        (5, "same", "zeros", [0.600, 0.480, 0.328, 0.239]),
        (3, "same", "reflect", [0.667, 0.667, 0.605, 0.576]),
        *((k, "full", "zeros", [1, 1, 1, 1]) for k in (2, 3, 5)),
        *((k, "same", m, [1] * 4) for k in (3, 5) for m in ("symmetric", "circular")),
        (3, "same", "replicate", [1, 1, 1, 1]),
        *((k, "valid", "zeros", [k**-d for d in (1, 2, 5, 10)]) for k in (2, 3, 5)),
    ],
)
def test_path_ratios_that_are_published(kernel, padding, mode, ratios):
    found = analysis.path_ratio(kernel, 10, padding, mode)
    np.testing.assert_allclose(found[[0, 1, 4, 9]], ratios, rtol=1e-12, atol=0.0005)
    corner = analysis.path_ratio(kernel, 10, padding, mode, place="corner", ndim=3)
    np.testing.assert_allclose(corner, found**3, rtol=1e-12)


def test_path_ratio_is_that_of_a_model():
    counts = analysis.path_count(
        nn.Sequential(*[conv(2, 1, 1, 3, padding=1) for _ in range(3)]), (1, 31, 31)
    )
    edge = analysis.path_ratio(3, 3)[-1]
    corner = analysis.path_ratio(3, 3, place="corner")[-1]
    assert counts[0, 15] / counts[15, 15] == edge
    assert counts[0, 0] / counts[15, 15] == corner


@pytest.mark.parametrize("mode", PAD_MODES)
def test_a_layer_says_its_padding_mode(mode):
    layers = [conv(2, 1, 1, 3, padding=1) for _ in range(2)]
    for layer in layers:
        layer.padding_mode = mode
    counts = analysis.path_count(nn.Sequential(*layers), (1, 6, 7))
    specs = [(3, 1, 1, (1, 1), mode)] * 2
    expected = np.outer(enumerated(specs, 6), enumerated(specs, 7))
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("mode", PAD_MODES)
def test_a_pooling_says_its_padding_mode(mode):
    pool = nn.SumPool1d(3, 2, 1)
    pool.padding_mode = mode
    specs = [(3, 2, 1, (1, 1), mode)]
    assert analysis.path_count(pool, (1, 8)).tolist() == enumerated(specs, 8)
    pool.ceil_mode = True  # a last window that sees two pixels beyond the border
    specs = [(3, 2, 1, (1, 2), mode)]
    assert analysis.path_count(pool, (1, 8)).tolist() == enumerated(specs, 8)


@pytest.mark.parametrize("mode", PAD_MODES)
def test_modes_of_layers_are_what_they_compute(mode):
    layers = {
        "conv": (lambda: conv(1, 1, 1, 5, 2, 3, padding_mode=mode), (1, 9)),
        "conv, twice": (
            lambda: nn.Sequential(
                conv(2, 1, 1, 3, padding="same", padding_mode=mode),
                conv(2, 1, 1, (2, 3), dilation=2, padding="same", padding_mode=mode),
            ),
            (1, 5, 6),
        ),
        "transposed": (
            lambda: transpose(1, 1, 1, 3, stride=2, padding=1, padding_mode=mode),
            (1, 6),
        ),
        "causal": (
            lambda: conv(1, 1, 1, 3, padding="causal", padding_mode=mode),
            (1, 6),
        ),
    }
    for name, (build, shape) in layers.items():
        model = build()
        expected = gradient_of_ones(model, shape)
        np.testing.assert_array_equal(analysis.path_count(model, shape), expected, name)


def test_counts_of_axes_multiply():
    def chain(ndim):
        return nn.Sequential(
            conv(ndim, 1, 1, 3, padding=1),
            nn.MaxPool2d(2) if ndim == 2 else nn.MaxPool1d(2),
            conv(ndim, 1, 1, 5, padding=1),
        )

    lines = [analysis.path_count(chain(1), (1, extent)) for extent in (14, 17)]
    plane = analysis.path_count(chain(2), (1, 14, 17))
    np.testing.assert_array_equal(plane, np.multiply.outer(*lines))


@pytest.mark.parametrize("kind", ["Avg", "Max", "Stochastic", "LP"])
def test_every_kind_of_pooling_has_the_same_windows(kind):
    first = (2,) if kind == "LP" else ()
    options = {"rng": 0} if kind == "Stochastic" else {}
    pool = getattr(nn, f"{kind}Pool2d")(*first, 3, stride=2, padding=1, **options)
    expected = analysis.path_count(nn.SumPool2d(3, 2, 1), (2, 7, 8))
    np.testing.assert_array_equal(analysis.path_count(pool, (2, 7, 8)), expected)


def test_pooling_of_the_whole_map():
    ones = np.ones((3, 4), int)
    for layer in (nn.GlobalAvgPool2d(), nn.GlobalMaxPool2d(), nn.GlobalLPPool2d(2)):
        np.testing.assert_array_equal(analysis.path_count(layer, (5, 3, 4)), ones)
    adaptive = nn.AdaptiveAvgPool1d(3)
    assert analysis.path_count(adaptive, (1, 7)).tolist() == [1, 1, 2, 1, 2, 1, 1]
    assert analysis.path_count(nn.AdaptiveMaxPool1d(7), (1, 7)).tolist() == [1] * 7
    blur = nn.BlurPool1d(3, 2)
    assert analysis.path_count(blur, (1, 6)).tolist() == [1, 3, 1, 2, 1, 1]


def test_layers_that_leave_pixels_where_they_are():
    layers = [
        *(nn.BatchNorm2d(4), nn.Dropout(0.5, rng=0), nn.GELU(), nn.Softmax(1)),
        *(nn.GroupNorm(2, 4), nn.LocalResponseNorm(3), nn.ChannelMaxPool(2)),
    ]
    counts = analysis.path_count(nn.Sequential(*layers), (4, 3, 5))
    np.testing.assert_array_equal(counts, np.ones((3, 5)))


def test_large_counts_are_exact():
    chain = nn.Sequential(*[conv(1, 1, 1, 3, padding="full") for _ in range(60)])
    counts = analysis.path_count(chain, (1, 4))
    assert counts.dtype == object
    assert counts.tolist() == [3**60] * 4
    assert type(counts[0]) is int
    floats = analysis.path_count(chain, (1, 4), dtype=np.float64)
    np.testing.assert_allclose(floats, 3.0**60)
    deep = nn.Sequential()
    for _ in range(70):
        deep = nn.Residual(deep)
    assert analysis.path_count(deep, (1, 1)).tolist() == [71]
    twice = nn.Sequential(*[nn.Residual(nn.Sequential()) for _ in range(70)])
    assert analysis.path_count(twice, (1, 1)).tolist() == [2**70]


def test_path_triangle():
    rows = analysis.path_triangle(2, 6)
    assert rows == [[comb(n, i) for i in range(n + 1)] for n in range(7)]
    five = analysis.path_triangle(3, 5)
    assert five[5] == [1, 5, 15, 30, 45, 51, 45, 30, 15, 5, 1]
    assert [sum(row) for row in five] == [3**n for n in range(6)]
    chain = nn.Sequential(*[conv(1, 1, 1, 3) for _ in range(5)])
    assert analysis.path_count(chain, (1, 11)).tolist() == five[5]  # to one output
    assert analysis.path_triangle(1, 3) == [[1]] * 4
    assert analysis.path_triangle(4, 0) == [[1]]
    for kernel, depth in itertools.product((2, 3, 4, 7), (1, 5, 9)):
        row = np.array(analysis.path_triangle(kernel, depth)[-1], float)
        places = np.arange(len(row)) - (len(row) - 1) / 2
        variance = (row * places**2).sum() / row.sum()
        assert variance == pytest.approx(depth * (kernel**2 - 1) / 12)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (lambda: nn.Sequential(nn.ReLU(), Unknown()), (1, 4), "got Unknown, which"),
        (lambda: nn.Residual(Unknown()), (1, 4), "got Unknown, which"),
        (
            lambda: nn.FractionalMaxPool2d(2, 3, rng=0),
            (1, 8, 8),
            "got FractionalMaxPool2d",
        ),
        (
            lambda: nn.Conv2d(1, 1, 3),
            (1, 8),
            "Conv2d must have an input with 2 spatial",
        ),
        (lambda: nn.Conv2d(1, 1, 5), (1, 4, 8), "Conv2d: the kernel must fit"),
        (lambda: nn.MaxPool2d(2), (1, 8), "MaxPool2d must have an input with 2"),
        (lambda: nn.GlobalAvgPool2d(), (1, 8), "GlobalAvgPool2d must have"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Conv1d(1, 1, 3)),
            (1, 8),
            "Conv1d must not stand behind Flatten",
        ),
        (lambda: nn.Flatten(1, 2), (2, 4, 4), "Flatten must join all axes"),
        (lambda: nn.Flatten(0), (2, 4), "Flatten must join all axes"),
        (lambda: nn.Linear(5, 2), (2, 4), "in_features 4 as the last axis"),
        (
            lambda: nn.Residual(nn.Conv1d(1, 1, 3)),
            (1, 8),
            "Residual must give the same extents, got (6,) and (8,)",
        ),
        (
            lambda: nn.Concat(nn.Conv1d(1, 1, 3), nn.Conv1d(1, 1, 2)),
            (1, 8),
            "Concat must give the same extents, got (6,), (7,)",
        ),
        (lambda: nn.Concat(nn.ReLU(), nn.ReLU(), dim=0), (1, 8), "must not join"),
        (lambda: nn.ReLU(), (1,), "path_count: input_shape must be (C, *spatial)"),
        (lambda: nn.ReLU(), (1, 0), "path_count: input_shape must be >= 1"),
    ],
)
def test_what_cannot_be_counted_is_named(model, shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        analysis.path_count(model(), shape)


def test_nothing_is_reflected_on_a_single_pixel():
    layer = conv(1, 1, 1, 3, padding=1)
    layer.padding_mode = "reflect"
    with pytest.raises(ValueError, match='"reflect" needs an extent of 2'):
        analysis.path_count(layer, (1, 1))


def test_wrong_arguments():
    with pytest.raises(TypeError, match="path_count: model must be a layer"):
        analysis.path_count(3, (1, 8))
    with pytest.raises(ValueError, match="dtype must be float64 or None"):
        analysis.path_count(nn.ReLU(), (1, 8), dtype=np.float32)
    with pytest.raises(ValueError, match="path_ratio: depth must be >= 1"):
        analysis.path_ratio(3, 0)
    with pytest.raises(ValueError, match="path_ratio: place must be"):
        analysis.path_ratio(3, 1, place="middle")
    with pytest.raises(ValueError, match="path_ratio: padding_mode must be one of"):
        analysis.path_ratio(3, 1, padding_mode="mirror")
    with pytest.raises(ValueError, match="path_triangle: layers must be >= 0"):
        analysis.path_triangle(3, -1)
    with pytest.raises(TypeError, match="influence_map: rng must be"):
        analysis.influence_map(nn.ReLU(), (1, 8), None)
    with pytest.raises(ValueError, match="must have 1 spatial axes, as the input"):
        analysis.effective_receptive_field(nn.Flatten(), (1, 8), 0)


def test_a_layer_of_ones_own_gets_a_rule():
    class Skip(nn.Layer):
        def __call__(self, x):
            return x[..., ::3]

        def forward(self, x):
            raise NotImplementedError

    @analysis.windows.register
    def skip(layer: Skip, extents):
        return tuple(Window(i, -(-i // 3), 1, 3) for i in extents)

    assert analysis.path_count(Skip(), (1, 7)).tolist() == [1, 0, 0, 1, 0, 0, 1]
    assert analysis.receptive_field(Skip(), (1, 7))[0].jump == (3,)
