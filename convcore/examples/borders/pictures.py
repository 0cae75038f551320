"""The pictures: paths, influence, the triangle, effective receptive fields."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from convcore import analysis, nn, viz
from convcore.examples.borders.remedies import body
from convcore.runtime.arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXTENT = 24  # pixels along an axis
DEPTH = 5
DEPTHS = 10
MAPS = ("valid", "zeros", "reflect", "symmetric")
CHANNELS = 8
INFLUENCE_DRAWS = 300
FIELD_DRAWS = 30
BATCH = 16
FIELD_EXTENT = 41
FIELD_DEPTHS = (2, 4, 8, 16)

# Colours of Okabe and Ito, which the colour-blind can tell apart, each with a line.
STYLES = {
    "valid": ("#D55E00", "-", "o"),
    "zeros": ("#0072B2", "-", "s"),
    "reflect": ("#CC79A7", "-", "^"),
    "symmetric": ("#009E73", "-", "D"),
    "circular": ("#E69F00", "--", "v"),
}
LABELS = {
    "valid": "no padding (valid)",
    "zeros": "zeros (same)",
    "reflect": "reflect",
    "symmetric": "symmetric, circular, full",
}
COLOURS = 256  # of a file
SHADES = "cividis"
COMPARED = "RdBu_r"  # white is 1, as at the centre; blue is less, red is more


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG with few colours, a third of the size of the usual file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, format="PNG", optimize=True)


def all_pictures(seed: int) -> dict[str, Callable[[], "Figure"]]:
    """Give what draws each picture, by the name of its file.

    Examples
    --------
    >>> list(all_pictures(0))
    ['paths', 'path-maps', 'triangle', 'influence', 'effective-field']
    """
    return {
        "paths": paths,
        "path-maps": path_maps,
        "triangle": triangle,
        "influence": lambda: influence(seed),
        "effective-field": lambda: effective_field(seed),
    }


def paths() -> "Figure":
    """Draw the paths of a line of pixels, and the edge beside the centre by depth."""
    figure = _figure(9.2, 3.9)
    line, depth = figure.subplots(1, 2)
    for remedy in MAPS:
        counts = counted(remedy, 1, DEPTH)
        centre = counts[EXTENT // 2]
        _plot(line, remedy, np.arange(EXTENT), counts / centre)
    line.set_title(f"Paths of each pixel, {DEPTH} layers of 3 taps", fontsize=10)
    line.set_xlabel(f"pixel of an input of {EXTENT}")
    line.set_ylabel("paths, centre = 1")
    line.set_ylim(0, None)
    line.legend(frameon=False, fontsize=8, loc="lower center")

    depths = np.arange(1, DEPTHS + 1)
    for remedy in MAPS:
        padding, mode = _padding(remedy)
        for kernel, style in ((3, "-"), (5, ":")):
            ratios = analysis.path_ratio(kernel, DEPTHS, padding, mode)
            _plot(depth, remedy, depths, ratios, style)
    depth.plot([], [], color="0.3", linestyle="-", label="3 taps")
    depth.plot([], [], color="0.3", linestyle=":", label="5 taps")
    depth.legend(*_last(depth, 2), frameon=False, fontsize=8, loc="lower left")
    depth.set_yscale("log")
    depth.set_ylim(1e-4, 2)
    depth.set_title("Edge beside centre, by depth", fontsize=10)
    depth.set_xticks([1, 2, 5, 10])
    depth.set_xlabel("layers")
    depth.set_ylabel("paths of edge / centre (logarithmic)")
    for ax in (line, depth):
        ax.grid(alpha=0.3)
    return figure


def path_maps() -> "Figure":
    """Draw the paths of every pixel of an image."""
    found = [counted(remedy, 2, DEPTH) for remedy in MAPS]
    centre = EXTENT // 2
    shares = [counts / counts[centre, centre] for counts in found]
    captions = [
        f"{LABELS[remedy]}\ncorner {share[0, 0]:.3g}, edge {share[0, centre]:.3g}"
        for remedy, share in zip(MAPS, shares, strict=True)
    ]
    return _maps(shares, captions, "paths, centre = 1")


def triangle() -> "Figure":
    """Draw the triangle of paths for three taps."""
    rows = analysis.path_triangle(3, DEPTH)
    captions = ["output", *(f"{n} below" for n in range(1, DEPTH)), "input"]
    title = "Paths between one output and all that it sees, 3 taps a layer"
    ax = viz.number_triangle(rows, captions=captions, title=title)
    ax.title.set_fontsize(10)
    return _of(ax)


def influence(seed: int) -> "Figure":
    """Draw how far each pixel moves the output of networks with random weights."""
    found = []
    for remedy in MAPS:
        model = _scored(remedy)
        shape = (1, EXTENT, EXTENT)
        found.append(
            analysis.influence_map(
                model, shape, seed, draws=INFLUENCE_DRAWS, batch=BATCH
            )
        )
    middle = slice(EXTENT // 2 - 2, EXTENT // 2 + 2)
    shares = [mean / mean[middle, middle].mean() for mean in found]
    captions = [
        f"{remedy}\ncorner {_corner(share):.2g}, edge {_edge(share, middle):.2g}"
        for remedy, share in zip(MAPS, shares, strict=True)
    ]
    figure = _maps(shares, captions, "mean |d score / d pixel|, centre = 1", 3.9)
    ax = figure.add_subplot(2, 1, 2)
    for remedy, share in zip(MAPS, shares, strict=True):
        profile = share[:, middle].mean(axis=1)
        roots = np.sqrt(counted(remedy, 1, DEPTH).astype(float))
        _plot(ax, remedy, np.arange(EXTENT), (profile + profile[::-1]) / 2)
        colour = STYLES[remedy][0]
        ax.plot(roots / roots[EXTENT // 2], color=colour, linestyle=":", linewidth=1.2)
    ax.plot([], [], color="0.3", linestyle=":", label="root")
    labels = [*MAPS, "root of the number of paths"]
    ax.legend(
        _last(ax, len(labels))[0],
        labels,
        frameon=False,
        fontsize=8,
        loc="lower center",
        ncols=2,
    )
    ax.set_xlabel("pixel of the column through the centre")
    ax.set_ylabel("influence, centre = 1")
    ax.set_ylim(0, None)
    ax.grid(alpha=0.3)
    return figure


def effective_field(seed: int) -> "Figure":
    """Draw what the central output of deeper and deeper networks listens to."""
    from matplotlib.patches import Rectangle

    shape = (1, FIELD_EXTENT, FIELD_EXTENT)
    fields, sizes = {}, {}
    for depth in sorted({1, 6, 12, *FIELD_DEPTHS}):
        model = body("zeros", depth, 4, FIELD_EXTENT, np.random.default_rng(seed))
        fields[depth] = analysis.effective_receptive_field(
            model, shape, seed, draws=FIELD_DRAWS
        )
        sizes[depth] = analysis.receptive_field(model, shape)[-1].size[0]
    captions = [
        f"{depth} layers\nsees {sizes[depth]}, listens to {fields[depth].size:.1f}"
        for depth in FIELD_DEPTHS
    ]
    maps = [fields[depth].map for depth in FIELD_DEPTHS]
    label = "mean |gradient|, largest = 1"
    figure = _maps(maps, captions, label, 3.9, (SHADES, 1))
    for ax, depth in zip(figure.axes, FIELD_DEPTHS, strict=False):
        corner = (FIELD_EXTENT - sizes[depth] - 1) / 2
        frame = Rectangle((corner, corner), sizes[depth], sizes[depth], fill=False)
        frame.set(edgecolor="white", linewidth=1.2, linestyle="--")
        ax.add_patch(frame)
    ax = figure.add_subplot(2, 1, 2)
    depths = list(fields)
    listens = [field.size for field in fields.values()]
    ax.plot(depths, list(sizes.values()), color="#0072B2", marker="s", markersize=4)
    ax.plot(depths, listens, color="#D55E00", marker="o", markersize=4)
    ax.annotate("theoretical: grows with depth", (9, 22), ha="right", color="#0072B2")
    ax.annotate(
        "effective: about the root of depth", (10, 12), ha="left", color="#D55E00"
    )
    ax.set_xlabel("layers of 3 × 3 taps")
    ax.set_ylabel("size in pixels")
    ax.set_ylim(0, None)
    ax.grid(alpha=0.3)
    return figure


def counted(remedy: str, ndim: int, depth: int) -> Array:
    """Count the paths of a chain of 3-tap layers in an input of `EXTENT` pixels.

    Examples
    --------
    >>> counted("valid", 1, 2)[:4]
    array([1, 3, 6, 8])
    """
    model = body(remedy, depth, 1, EXTENT, np.random.default_rng(0))
    counts = analysis.path_count(model, (1, EXTENT, EXTENT))
    if ndim == 2:
        return counts
    # Layers are products of axes, so a plane is the product of a line with itself.
    line: Array = counts[0] // math.isqrt(counts[0, 0])
    return line


def _scored(remedy: str) -> nn.Sequential:
    """Give a network with one score: the mean of each channel, weighed."""
    convolutions = body(remedy, DEPTH, CHANNELS, EXTENT, np.random.default_rng(0))
    return nn.Sequential(
        convolutions, nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(CHANNELS, 1)
    )


def _padding(remedy: str) -> tuple[str, str]:
    """Give the padding and its mode that a name stands for."""
    return ("valid", "zeros") if remedy == "valid" else ("same", remedy)


def _corner(share: Array) -> float:
    return float(share[[0, 0, -1, -1], [0, -1, 0, -1]].mean())


def _edge(share: Array, middle: slice) -> float:
    sides = share[[0, -1], middle].mean() + share[middle, [0, -1]].mean()
    return float(sides / 2)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _of(ax: "Axes") -> "Figure":
    return cast("Figure", ax.figure)


def _plot(ax: "Axes", remedy: str, x: Array, y: Array, style: str = "-") -> None:
    colour, _, marker = STYLES[remedy]
    label = LABELS[remedy] if style == "-" else None
    ax.plot(
        x, y, color=colour, linestyle=style, marker=marker, markersize=4, label=label
    )


def _last(ax: "Axes", count: int) -> tuple[list[Any], list[Any]]:
    handles, labels = ax.get_legend_handles_labels()
    return handles[-count:], labels[-count:]


def _maps(
    maps: list[Array],
    captions: list[str],
    label: str,
    below: float = 0,
    scale: tuple[str, float] = (COMPARED, 2),
) -> "Figure":
    """Draw maps in a row, on one scale from 0; leave room below, in inches."""
    figure = _figure(9.2, 3.0 + below)
    axes = [
        figure.add_subplot(2 if below else 1, len(maps), i + 1)
        for i in range(len(maps))
    ]
    shades, top = scale
    for ax, values, caption in zip(axes, maps, captions, strict=True):
        image = ax.imshow(values.astype(float), cmap=shades, vmin=0, vmax=top)
        ax.set_title(caption, fontsize=9)
        ax.set_xticks([0, values.shape[1] - 1])
        ax.set_yticks([0, values.shape[0] - 1])
        ax.tick_params(labelsize=7)
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return figure
