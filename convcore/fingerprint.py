"""A digest of what the library computes from integers: the same on every machine.

Where every sum is exact, its order and the width of vectors mean nothing. So one number
stands for all instruction sets, all platforms, both dtypes, and each algorithm that takes
a convolution and does not transform its operands. Where a result differs from the others,
the digest does.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from convcore import functional
from convcore.algorithms import CONV
from convcore.problem import ConvProblem
from convcore.runtime.arrays import Array
from convcore.runtime.precision import precision

__all__ = ["fingerprint"]

Draw = Callable[..., Array]  # from a shape
Results = Mapping[str, Array | None]
# From the functions, x of some (N, C, ...), and what draws other arrays: y, its index and
# dx, in which each sample stands for itself; and other results, of the whole batch.
Operation = Callable[[Any, Array, Draw], Results]

CHANNELS = 4
# For each number of axes. All in powers of two: means over any part of them are exact.
EXTENTS = {1: (64,), 2: (8, 16), 3: (4, 4, 8)}
# Each algorithm that is exact takes one in each of its directions.
CONVOLUTIONS = (
    "n2g1ic3ih13iw11oc18kh3sh2ph1",
    "n2g1ic20ih9oc17kh3ph1",
    "n2g2ic6id5ih6iw7oc8kd2kh3kw1ph1_0dh2",
    "n3g1ic5iw40oc6kw5pw2",
    "n2g17ic17ih9iw8oc17kh3sh2ph1",
    "n5g1ic9ih3iw2oc7kh3kw2",
    "n1g1ic20ih5oc40kh5",
    "n2g1ic2ih9iw12oc20kh4sh3ph1",
    "n2g1ic4ih8oc6kh3ph2circular",
)
_WINDOW = (2, 2, 0)
_PADDED = (2, 1, 1)


def fingerprint() -> str:
    """Compute every operation that is exact on integers, and digest the results.

    Returns
    -------
    str
        SHA-256 of all results, as 64 hexadecimal digits. It depends on the version of the
        library alone: not on threads, instruction set, machine or NumPy.

    Notes
    -----
    docs/reliability.md has the one of this version. The integers come from a formula.
    Results are digested as little-endian float64, with one zero. Operations with roots,
    exponentials or drawn numbers are left out.

    Examples
    --------
    >>> len(fingerprint())
    64
    """
    digest = hashlib.sha256()
    for name, results in versions():
        seen = {_canonical(result) for result in results}
        digest.update(f"{name} {results[0].shape} ".encode())
        digest.update(b" ".join(sorted(seen)))  # one, if all is right
    return digest.hexdigest()


def versions() -> Iterator[tuple[str, list[Array]]]:
    """Give the name of each result, and the result of each dtype and algorithm."""
    with precision("strict"):
        for name, (axes, operation) in OPERATIONS.items():
            shape = (2, CHANNELS, *EXTENTS[axes])
            single, double = (
                operation(functional, integers(shape, dtype), _drawing(dtype))
                for dtype in ("float32", "float64")
            )
            for key, result in single.items():
                other = double[key]
                if result is not None and other is not None:
                    yield f"{name} {key}", [result, other]
        for text in CONVOLUTIONS:
            problem = ConvProblem.parse(text)
            for direction, names in exact_algorithms(problem).items():
                yield (
                    f"{text} {direction}",
                    [
                        convolved(problem, direction, algorithm, dtype)
                        for algorithm in names
                        for dtype in ("float32", "float64")
                    ],
                )


def exact_algorithms(problem: ConvProblem) -> dict[str, list[str]]:
    """Name, for each direction, the algorithms that take a problem and only add up."""
    found: dict[str, list[str]] = {}
    for card in CONV:
        for direction in card.kernels:
            if not card.transforms and card.accepts(problem.folded, direction).yes:
                found.setdefault(direction, []).append(card.name)
    return dict(sorted(found.items()))


def convolved(
    problem: ConvProblem, direction: str, algorithm: str, dtype: str
) -> Array:
    """Run an algorithm by its name on integers."""
    n, axes = problem.ndim, slice(3 - problem.ndim, None)
    how: dict[str, Any] = {
        "stride": problem.stride[axes],
        "padding": problem.padding[axes],
        "dilation": problem.dilation[axes],
        "groups": problem.g,
        "padding_mode": problem.border,
        "algorithm": algorithm,
    }
    x, w, b = (
        integers(shape, dtype)
        for shape in (problem.x_shape, problem.weight_shape, (problem.oc,))
    )
    if direction == "fprop":
        y: Array = _of(functional, "conv", n)(x, w, b, **how)
        return y
    needed = {"dgrad": "x", "wgrad": "weight", "bgrad": "bias"}[direction]
    grads = _of(functional, "conv", n, "_backward")(
        integers(problem.y_shape, dtype), x, w, needs=(needed,), **how
    )
    return next(grad for grad in grads if grad is not None)


def integers(shape: tuple[int, ...], dtype: Any) -> Array:
    """Give integers from -4 to 4 that look drawn, by a formula: a hash of places.

    That of the first element is the size of the array, so that two arrays differ.
    """
    size = prod(shape)
    place = np.arange(size, 2 * size, dtype=np.uint64) * np.uint64(2654435761)
    mixed = (place ^ place >> np.uint64(15)) & np.uint64(0xFFFFFFFF)
    mixed = (mixed * np.uint64(2246822519) & np.uint64(0xFFFFFFFF)) >> np.uint64(13)
    small = (mixed % np.uint64(9)).astype(np.int64) - 4
    return small.astype(dtype).reshape(shape)


def _drawing(dtype: str) -> Draw:
    return lambda *shape: integers(shape, dtype)


def _canonical(result: Array) -> bytes:
    """Digest values: with one zero, in one type and byte order."""
    values = np.ascontiguousarray(result.astype("<f8") + 0.0)
    return hashlib.sha256(values.tobytes()).hexdigest().encode()


def gradient(y: Array) -> Array:
    """Give a gradient of y: small, by the element alone, and exact where y is."""
    quarter = y * y.dtype.type(0.25)
    g: Array = quarter - np.rint(quarter) + y.dtype.type(0.75)
    return g


def _of(f: ModuleType, name: str, n: int, end: str = "") -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(f, f"{name}{n}d{end}")
    return function


# Operations ------------------------------------------------------------------------


def _convolution(n: int, name: str, kernel: int, *how: Any, **more: Any) -> Operation:
    def run(f: Any, x: Array, draw: Draw) -> Results:
        c = x.shape[1]
        shape = (c, 3) if "transpose" in name else (6, c // 2)
        w, b = draw(*shape, *(kernel,) * n), draw(6)
        y = _of(f, name, n)(x, w, b, *how, groups=2, **more)
        back = _of(f, name, n, "_backward")
        dx, dw, db = back(gradient(y), x, w, *how, groups=2, **more)
        return {"y": y, "dx": dx, "dweight": dw, "dbias": db}

    return run


def _local(n: int) -> Operation:
    def run(f: Any, x: Array, draw: Draw) -> Results:
        out = [i - 1 for i in x.shape[2:]]  # kernels of 2
        rows, last = (out[0], 2) if n == 2 else (), out[-1]
        w = draw(*rows, x.shape[1], 3, 2, last)
        y = _of(f, "locally_connected", n)(x, w, draw(3, *out))
        dx, dw, db = _of(f, "locally_connected", n, "_backward")(gradient(y), x, w)
        return {"y": y, "dx": dx, "dweight": dw, "dbias": db}

    return run


def _linear(f: Any, x: Array, draw: Draw) -> Results:
    w = draw(5, x.shape[-1])
    y = f.linear(x, w, draw(5))
    dx, dw, db = f.linear_backward(gradient(y), x, w)
    return {"y": y, "dx": dx, "dweight": dw, "dbias": db}


def _sparse_linear(f: Any, x: Array, draw: Draw) -> Results:
    w, inputs = draw(70, 5), x.shape[-1]
    connections = f.Connections(np.arange(70 * 5).reshape(70, 5) * 7 % inputs, inputs)
    y = f.sparse_linear(x, w, connections, draw(70))
    dx, dw, db = f.sparse_linear_backward(gradient(y), x, w, connections)
    return {"y": y, "dx": dx, "dweight": dw, "dbias": db}


def _passthrough(n: int) -> Operation:
    def run(f: Any, x: Array, draw: Draw) -> Results:
        inside: Any = (..., *(slice(1, -2),) * n)
        inner = -x[inside]
        y = _of(f, "border_passthrough", n)(x, inner)
        back = _of(f, "border_passthrough", n, "_backward")
        dx, dinner = back(gradient(y), inner.shape)
        return {"y": y, "dx": dx, "dinner": dinner}

    return run


def _pad(mode: str) -> Operation:
    def run(f: Any, x: Array, draw: Draw) -> Results:
        y = f.pad(x, (1, 2, 0, 3), mode)
        return {"y": y, "dx": f.pad_backward(gradient(y), (1, 2, 0, 3), mode)}

    return run


def sums(n: int, name: str, *window: Any, **how: Any) -> Operation:
    """Poolings whose gradient needs the shape of x alone; `channel_...` for n = 0."""

    def run(f: Any, x: Array, draw: Draw) -> Results:
        end = f"{n}d" * bool(n)
        y = getattr(f, f"{name}{end}")(x, *window, **how)
        # Adaptive and global windows follow from the shapes.
        rest = () if name.startswith(("adaptive", "global")) else window
        back = getattr(f, f"{name}{end}_backward")
        return {"y": y, "dx": back(gradient(y), x.shape, *rest, **how)}

    return run


def _maxima(n: int, name: str, *window: Any, **how: Any) -> Operation:
    """Poolings that tell where they found the maxima; `channel_...` for n = 0."""

    def run(f: Any, x: Array, draw: Draw) -> Results:
        end = f"{n}d" * bool(n)
        function = getattr(f, f"{name}{end}")
        y, index = function(x, *window, **how, return_indices=True)
        rest = () if name.startswith(("adaptive", "global")) else window
        back = getattr(f, f"{name}{end}_backward")
        dx = back(gradient(y), index, x.shape, *rest, **how)
        plain = function(x, *window, **how)
        return {"y": y, "y alone": plain, "index": index, "dx": dx}

    return run


def _unpool(n: int) -> Operation:
    def run(f: Any, x: Array, draw: Draw) -> Results:
        _, index = _of(f, "max_pool", n)(x, 2, return_indices=True)
        places: Any = (..., *(slice(None, i // 2 * 2, 2) for i in x.shape[2:]))
        values = x[places]
        y = _of(f, "max_unpool", n)(values, index, 2, output_size=x.shape[2:])
        dx = _of(f, "max_unpool", n, "_backward")(gradient(y), index)
        return {"y": y, "dx": dx}

    return run


def _powers(n: int, name: str, *how: Any) -> Operation:
    """Lp poolings, of norm `how[0]`."""

    def run(f: Any, x: Array, draw: Draw) -> Results:
        y = _of(f, name, n)(x, *how)
        return {"y": y, "dx": _of(f, name, n, "_backward")(gradient(y), x, y, *how)}

    return run


def of_input(name: str, *how: Any) -> Operation:
    """Do an operation whose gradient is computed from x."""

    def run(f: Any, x: Array, draw: Draw) -> Results:
        y = getattr(f, name)(x, *how)
        back = getattr(f, f"{name}_backward")
        return {"y": y, "dx": back(gradient(y), x, *how)}

    return run


def of_result(name: str, *how: Any) -> Operation:
    """Do an operation whose gradient is computed from y."""

    def run(f: Any, x: Array, draw: Draw) -> Results:
        y = getattr(f, name)(x, *how)
        back = getattr(f, f"{name}_backward")
        return {"y": y, "dx": back(gradient(y), y, *how)}

    return run


def _prelu(f: Any, x: Array, draw: Draw) -> Results:
    w = draw(x.shape[1])
    y = f.prelu(x, w)
    dx, dw = f.prelu_backward(gradient(y), x, w)
    return {"y": y, "dx": dx, "dweight": dw}


def _dropout(f: Any, x: Array, draw: Draw) -> Results:
    key = 2**63 + 12345
    y = f.keyed_dropout(x, key)
    dx = f.keyed_dropout_backward(gradient(y), key)
    mask = f.dropout_mask(x.shape, key)
    again = f.dropout_backward(gradient(y), mask)
    return {"all y": y, "all dx": dx, "mask": mask, "all dx of mask": again}


def _flatten(f: Any, x: Array, draw: Draw) -> Results:
    y = f.flatten(x)
    return {"y": y, "dx": f.flatten_backward(gradient(y), x.shape)}


def _squares(reduction: str) -> Operation:
    def run(f: Any, x: Array, draw: Draw) -> Results:
        target = gradient(x)
        loss = np.asarray(f.mse_loss(x, target, reduction))
        g = gradient(loss) if reduction == "none" else 1.0
        dx = f.mse_loss_backward(x, target, reduction, g)
        end = "" if reduction == "none" else " of all"
        return {f"y{end}": loss, f"dx{end}": dx}

    return run


def _ranked(n: int) -> dict[str, Operation]:
    """Operations that there are for n axes."""
    named = {
        "conv": _convolution(n, "conv", 3, 2, 1),
        "conv reflect": _convolution(n, "conv", 3, 1, 2, padding_mode="reflect"),
        "conv_transpose": _convolution(n, "conv_transpose", 3, 2, 1, 1),
        # 2**n taps, of which a power of two are real
        "partial_conv": _convolution(n, "partial_conv", 2, *_PADDED[1:]),
        "border_passthrough": _passthrough(n),
        "max_pool": _maxima(n, "max_pool", *_WINDOW),
        "max_pool 3": _maxima(n, "max_pool", 3, 2, 1),
        "max_pool circular": _maxima(n, "max_pool", 3, 1, 1, padding_mode="circular"),
        "adaptive_max_pool": _maxima(n, "adaptive_max_pool", 4),
        "global_max_pool": _maxima(n, "global_max_pool"),
        "max_unpool": _unpool(n),
        "avg_pool": sums(n, "avg_pool", *_WINDOW),
        "avg_pool padded": sums(n, "avg_pool", *_PADDED, False, False),
        "avg_pool 4": sums(n, "avg_pool", 4, 1, 2, padding_mode="symmetric"),
        "sum_pool": sums(n, "sum_pool", 3, 2, 1, True),
        "adaptive_avg_pool": sums(n, "adaptive_avg_pool", 4),
        "global_avg_pool": sums(n, "global_avg_pool"),
        "lp_pool 1": _powers(n, "lp_pool", 1, 2),
        "lp_pool inf": _powers(n, "lp_pool", np.inf, 3, 2),
        "global_lp_pool 1": _powers(n, "global_lp_pool", 1),
        "blur_pool": sums(n, "blur_pool", 3),
        "blur_pool 4": sums(n, "blur_pool", 4, 1),
    }
    found = {}
    for name, operation in named.items():
        first, *rest = name.split(" ")
        found[" ".join([f"{first}{n}d", *rest])] = operation
    return found


# Name: axes of x, and what is done.
OPERATIONS: dict[str, tuple[int, Operation]] = {
    **{name: (n, op) for n in (1, 2, 3) for name, op in _ranked(n).items()},
    "locally_connected1d": (1, _local(1)),
    "locally_connected2d": (2, _local(2)),
    "linear": (2, _linear),
    "sparse_linear": (1, _sparse_linear),
    **{
        f"pad {mode}": (2, _pad(mode))
        for mode in ("constant", "reflect", "symmetric", "replicate", "circular")
    },
    "channel_avg_pool": (2, sums(0, "channel_avg_pool", 2)),
    "channel_max_pool": (2, _maxima(0, "channel_max_pool", 2)),
    "relu": (2, of_result("relu")),
    "relu6": (2, of_result("relu6")),
    "hardtanh": (2, of_result("hardtanh", -2.0, 3.0)),
    "leaky_relu": (2, of_input("leaky_relu", 0.25)),
    "prelu": (2, _prelu),
    "keyed_dropout": (2, _dropout),
    "flatten": (2, _flatten),
    **{f"mse_loss {how}": (2, _squares(how)) for how in ("none", "sum", "mean")},
}
