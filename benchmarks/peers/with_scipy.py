"""scipy.signal.correlate, for what it is made for: few channels.

One call correlates all input channels of one sample with one filter; strides and
dilations are zeros put between elements, or outputs thrown away. `method="auto"`
takes the FFT where scipy believes that it is faster.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

import numpy as np

from benchmarks.case import Array, Case, Data, Ints
from benchmarks.peers import Unsupported
from benchmarks.peers.with_window import lattice, padded, reach
from benchmarks.windows import WindowCase, as_convolution

MOST_CALLS = 4096  # a larger layer would time the interpreter
MOST_FLOP = 5e8


class Scipy:
    """The scipy peer: single-threaded, whatever `threads` says."""

    def start(self, threads: int) -> dict[str, str]:
        """Import scipy and name it."""
        self._correlate = import_module("scipy.signal").correlate
        return {"SciPy": import_module("scipy").__version__, "NumPy": np.__version__}

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Array]:
        """Give the loop of calls."""
        if not isinstance(case, WindowCase):
            raise Unsupported(f"no {case.op}")
        case, arrays = as_convolution(case, arrays)
        if case.op != "conv":
            raise Unsupported(f"no {case.op}")
        n, ic, oc = case.x_shape[0], case.x_shape[1], case.y_shape[1]
        calls = {"fprop": n * oc, "dgrad": n * ic, "wgrad": oc * ic // case.groups}
        if calls[case.direction] > MOST_CALLS or case.flop > MOST_FLOP:
            raise Unsupported("too large for a loop of calls")
        if case.direction == "fprop":
            return partial(self._fprop, case, arrays.x, arrays.weight)
        if case.direction == "dgrad":
            return partial(self._dgrad, case, arrays.weight, arrays.grad_y)
        return partial(self._wgrad, case, arrays.x, arrays.grad_y)

    def output(self, result: Array) -> Array:
        """Give it as it is."""
        return result

    def _fprop(self, case: WindowCase, x: Array, weight: Array) -> Array:
        x = padded(x, case.padding, 0.0)
        filters = _spread(weight, case.dilation)
        oc_g, ic_g = weight.shape[0] // case.groups, weight.shape[1]
        y = np.empty(case.y_shape, x.dtype)
        every = lattice((0,) * case.ndim, case.y_shape[2:], case.stride)
        for n, o in np.ndindex(*y.shape[:2]):
            first = o // oc_g * ic_g
            full = self._correlate(x[n, first : first + ic_g], filters[o], "valid")
            y[n, o] = full[0][every]
        return y

    def _dgrad(self, case: WindowCase, weight: Array, grad_y: Array) -> Array:
        oc_g, ic_g = weight.shape[0] // case.groups, weight.shape[1]
        spread = _spread(grad_y, case.stride)
        padding = tuple(
            (r - 1 - lo, i + lo - e)
            for r, (lo, _), i, e in zip(
                reach(case),
                case.padding,
                case.x_shape[2:],
                spread.shape[2:],
                strict=True,
            )
        )
        spread = padded(spread, padding, 0.0)
        turned = np.flip(_spread(weight, case.dilation), tuple(range(2, weight.ndim)))
        grad_x = np.empty(case.x_shape, weight.dtype)
        for n, c in np.ndindex(*grad_x.shape[:2]):
            group = slice(c // ic_g * oc_g, (c // ic_g + 1) * oc_g)
            filters = turned[group, c % ic_g]
            grad_x[n, c] = self._correlate(spread[n, group], filters, "valid")[0]
        return grad_x

    def _wgrad(self, case: WindowCase, x: Array, grad_y: Array) -> Array:
        oc_g, ic_g = case.weight_shape[0] // case.groups, case.weight_shape[1]
        x = padded(x, case.padding, 0.0)
        spread = _spread(grad_y, case.stride)
        grad_weight = np.empty(case.weight_shape, x.dtype)
        every = lattice((0,) * case.ndim, case.kernel, case.dilation)
        for o, c in np.ndindex(oc_g * case.groups, ic_g):
            samples = x[:, o // oc_g * ic_g + c]
            full = self._correlate(samples, spread[:, o], "valid")
            grad_weight[o, c] = full[0][every]
        return grad_weight


def _spread(array: Array, steps: Ints) -> Array:
    """Put step - 1 zeros between the elements of the spatial axes."""
    if max(steps) == 1:
        return array
    counts = array.shape[2:]
    extents = [(c - 1) * step + 1 for c, step in zip(counts, steps, strict=True)]
    wide = np.zeros((*array.shape[:2], *extents), array.dtype)
    wide[lattice((0,) * len(steps), counts, steps)] = array
    return wide
