"""Pictures: arrays in, matplotlib Axes or Figures out.

    tile(images) -> one array          the grid itself; needs no matplotlib
    filter_grid(weight)      -> Axes   what the first layer looks for
    activation_grid(steps)   -> Figure one input on its way through the layers
    loss_curve(losses)       -> Axes   a training run
    image_grid(images)       -> Figure inputs with a caption each
    number_triangle(rows)    -> Axes   paths between one pixel and those that it sees

matplotlib is imported when a picture is drawn, never before. Figures are made without
pyplot, so that nothing global changes and no window is needed: `figure.savefig(path)`
writes a file, a notebook shows a returned figure. Functions that return Axes draw into
`ax` when it is given; their figure is `ax.figure`.
"""

from convcore.viz.curves import loss_curve
from convcore.viz.grids import activation_grid, filter_grid, image_grid
from convcore.viz.tiles import tile
from convcore.viz.triangle import number_triangle

__all__ = [
    "activation_grid",
    "filter_grid",
    "image_grid",
    "loss_curve",
    "number_triangle",
    "tile",
]
