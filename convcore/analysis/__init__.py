"""What a network connects with what: paths, influence, receptive fields.

    path_count(model, shape)      paths from each pixel of the input to the output, exact
    path_ratio(kernel, depth)     those of the border beside those of the centre
    path_triangle(kernel, layers) those between one pixel and all that it sees

    influence_map(model, shape, rng)              mean |d output / d input|, pixel by pixel
    effective_receptive_field(model, shape, rng)  what one output listens to
    receptive_field(model, shape)                 what it could listen to, layer by layer

Counts know nothing of weights; influence is measured with random weights and inputs, or
with those of the model. It is read from layers alone, so nothing here knows a kernel.
`connect` and `windows` hold the rules of what a layer connects; a layer of one's own gets
one by `connect.register` or `windows.register`.
"""

import convcore.analysis.remedies  # noqa: F401 (its rules)
from convcore.analysis.connections import Pixels, connect
from convcore.analysis.field import ReceptiveField, receptive_field
from convcore.analysis.influence import (
    EffectiveField,
    effective_receptive_field,
    influence_map,
)
from convcore.analysis.paths import path_count, path_ratio, path_triangle
from convcore.analysis.rules import windows
from convcore.analysis.window import Window, axis_counts

__all__ = [
    "EffectiveField",
    "Pixels",
    "ReceptiveField",
    "Window",
    "axis_counts",
    "connect",
    "effective_receptive_field",
    "influence_map",
    "path_count",
    "path_ratio",
    "path_triangle",
    "receptive_field",
    "windows",
]
