"""NumPy as one would write it: `sliding_window_view` and `tensordot`.

Windows are views; `tensordot` gathers them into one matrix, channels and taps in front
so that whole rows are copied at once, and multiplies with BLAS. Groups are a loop. The
result stays the transposed view that it is: making it contiguous would cost extra.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.case import Array, Case, Data, Ints
from benchmarks.peers import Unsupported
from benchmarks.windows import WindowCase, as_convolution


class Window:
    """The NumPy peer; its threads are those of BLAS, set by the environment."""

    def start(self, threads: int) -> dict[str, str]:
        """Name NumPy and its BLAS."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        text = f"{blas['name']} {blas['version']}"
        with suppress(ImportError):  # it knows which kernels BLAS took for this CPU
            pools = import_module("threadpoolctl").threadpool_info()
            text += "".join(
                f" ({p['architecture']})" for p in pools if "architecture" in p
            )
        return {"NumPy": np.__version__, "BLAS": text}

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Array]:
        """Pick the formulation that suits the direction."""
        if not isinstance(case, WindowCase):
            raise Unsupported(f"no {case.op}")
        case, arrays = as_convolution(case, arrays)
        if case.op in ("max_pool", "avg_pool") and case.direction == "fprop":
            if case.ceil_mode:
                raise Unsupported("no ceil_mode")
            return partial(_pool, case, arrays.x)
        if case.op != "conv":
            raise Unsupported(f"no {case.op} {case.direction}")
        if case.direction == "fprop":
            return partial(_fprop, case, arrays.x, arrays.weight)
        if case.direction == "wgrad":
            return partial(_wgrad, case, arrays.x, arrays.grad_y)
        if max(case.stride) == 1:
            return partial(_full_correlation, case, arrays.weight, arrays.grad_y)
        return partial(_scatter, case, arrays.weight, arrays.grad_y)

    def output(self, result: Array) -> Array:
        """Make the view contiguous."""
        return np.ascontiguousarray(result)


def reach(case: WindowCase) -> tuple[int, ...]:
    """Extent of a window along each axis, holes included."""
    return tuple(
        (k - 1) * d + 1 for k, d in zip(case.kernel, case.dilation, strict=True)
    )


def lattice(firsts: Ints, counts: Ints, steps: Ints) -> Any:
    """Index the last axes: `counts` elements, `steps` apart, from `firsts` on."""
    runs = zip(firsts, counts, steps, strict=True)
    return (..., *(slice(f, f + (c - 1) * s + 1, s) for f, c, s in runs))


def padded(array: Array, padding: tuple[tuple[int, int], ...], value: float) -> Array:
    """Surround the spatial axes; a negative padding crops."""
    firsts = tuple(max(-lo, 0) for lo, _ in padding)
    counts = tuple(
        extent + min(lo, 0) + min(hi, 0)
        for extent, (lo, hi) in zip(array.shape[2:], padding, strict=True)
    )
    inner: Array = array[lattice(firsts, counts, (1,) * len(padding))]
    widths = [(max(lo, 0), max(hi, 0)) for lo, hi in padding]
    if not any(map(any, widths)):
        return inner
    return np.pad(inner, ((0, 0), (0, 0), *widths), constant_values=value)


def _windows(case: WindowCase, x: Array, value: float = 0.0) -> Array:
    """Give every window: (n, c, *out, *kernel), a view of the padded x."""
    axes = tuple(range(2, 2 + case.ndim))
    views = sliding_window_view(padded(x, case.padding, value), reach(case), axes)
    firsts = (0,) * (2 * case.ndim)
    counts = (*case.y_shape[2:], *case.kernel)
    windows: Array = views[lattice(firsts, counts, (*case.stride, *case.dilation))]
    return windows


def _pool(case: WindowCase, x: Array) -> Array:
    """Reduce every window."""
    taps = tuple(range(-case.ndim, 0))
    if case.op == "max_pool":
        largest: Array = _windows(case, x, -np.inf).max(axis=taps)
        return largest
    mean: Array = _windows(case, x).mean(axis=taps)
    return mean


def _fprop(case: WindowCase, x: Array, weight: Array) -> Array:
    """Multiply weights and windows: y."""
    return _correlate(case.groups, weight, _windows(case, x))


def _full_correlation(case: WindowCase, weight: Array, grad_y: Array) -> Array:
    """Correlate grad_y, fully padded, with turned weights: grad_x of stride 1."""
    g, ndim = case.groups, case.ndim
    padding = tuple(
        (r - 1 - lo, i + lo - o)
        for r, (lo, _), i, o in zip(
            reach(case), case.padding, case.x_shape[2:], case.y_shape[2:], strict=True
        )
    )
    turned = np.flip(weight, axis=tuple(range(2, 2 + ndim)))
    by_group = turned.reshape(g, -1, *turned.shape[1:])  # (g, oc/g, ic/g, *k)
    swapped = by_group.swapaxes(1, 2).reshape(-1, by_group.shape[1], *case.kernel)
    dense = WindowCase(
        "conv",
        "fprop",
        case.dtype,
        y_shape=case.x_shape,
        kernel=case.kernel,
        stride=case.stride,
        padding=padding,
        dilation=case.dilation,
    )
    return _correlate(g, swapped, _windows(dense, grad_y))


def _correlate(g: int, weight: Array, windows: Array) -> Array:
    """Sum over (channels, taps), group by group: (n, oc, *out), a transposed view."""
    ndim = weight.ndim - 2
    oc_g, ic_g = weight.shape[0] // g, weight.shape[1]
    axes = (tuple(range(1, 2 + ndim)), (1, *range(2 + ndim, 2 + 2 * ndim)))
    if g == 1:
        return np.moveaxis(np.tensordot(weight, windows, axes), 0, 1)
    n, extents = windows.shape[0], windows.shape[2 : 2 + ndim]
    y = np.empty((weight.shape[0], n, *extents), weight.dtype)
    for i in range(g):
        out, into = slice(i * oc_g, (i + 1) * oc_g), slice(i * ic_g, (i + 1) * ic_g)
        y[out] = np.tensordot(weight[out], windows[:, into], axes)
    return np.moveaxis(y, 0, 1)


def _scatter(case: WindowCase, weight: Array, grad_y: Array) -> Array:
    """Multiply weights and grad_y, then add tap by tap: grad_x of any stride."""
    g, n, extents = case.groups, case.x_shape[0], case.x_shape[2:]
    oc_g, ic_g = weight.shape[0] // g, weight.shape[1]
    room = tuple(
        max(lo + i, (o - 1) * s + r)
        for i, o, s, (lo, _), r in zip(
            extents,
            grad_y.shape[2:],
            case.stride,
            case.padding,
            reach(case),
            strict=True,
        )
    )
    grad_x = np.zeros((case.x_shape[1], n, *room), weight.dtype)
    for i in range(g):
        out, into = slice(i * oc_g, (i + 1) * oc_g), slice(i * ic_g, (i + 1) * ic_g)
        # (ic/g, *kernel, n, *out)
        spread = np.tensordot(weight[out], grad_y[:, out], ((0,), (1,)))
        for tap in np.ndindex(*case.kernel):
            firsts = tuple(t * d for t, d in zip(tap, case.dilation, strict=True))
            target = grad_x[into]
            target[lattice(firsts, grad_y.shape[2:], case.stride)] += spread[
                (slice(None), *tap)
            ]
    firsts = tuple(lo for lo, _ in case.padding)
    return np.moveaxis(grad_x[lattice(firsts, extents, (1,) * case.ndim)], 0, 1)


def _wgrad(case: WindowCase, x: Array, grad_y: Array) -> Array:
    """Multiply grad_y and windows over (samples, windows): grad_weight."""
    g = case.groups
    oc_g, ic_g = case.weight_shape[0] // g, case.weight_shape[1]
    windows = _windows(case, x)
    summed = (0, *range(2, 2 + case.ndim))
    parts = [
        np.tensordot(
            grad_y[:, i * oc_g : (i + 1) * oc_g],
            windows[:, i * ic_g : (i + 1) * ic_g],
            (summed, summed),
        )
        for i in range(g)
    ]
    return parts[0] if g == 1 else np.concatenate(parts)
