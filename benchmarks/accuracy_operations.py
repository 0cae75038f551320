"""Errors of poolings, normalisations, softmax, activations and losses, beside PyTorch.

The judge is `convcore.reference` in a wider type. A unit is u times the size of what is
added up in an element of the result: u * |result| where nothing cancels, and what a
rounding of an exponent, or of a mean, does to it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from inspect import signature
from math import prod
from typing import Any

import numpy as np

from benchmarks.case import Array, Case, Data
from benchmarks.elementwise import OPERATIONS, ElementwiseCase
from benchmarks.errors import Error, Judged
from benchmarks.peer_results import Results
from benchmarks.peers.with_convcore import Convcore
from benchmarks.render import NONE, number
from benchmarks.rows import ElementwiseRow, PoolRow, named, parse
from convcore import functional, reference
from convcore.problem import PoolProblem
from convcore.runtime import cpu

DATA = {
    "normal": "normal, of deviation 3",
    "uniform": "uniform in [0, 1)",
    "offset": "1000 and normal noise",
}
_DRAWN = ("dropout",)  # nothing is rounded but one product
_NO = Data(*(np.empty(0),) * 3)
_MAP, _ROWS = "n4c24ih19", "n3c50iw771"
_POOLS = (
    ("avg_pool", "n2c16ih57kh3sh2ph1"),
    ("avg_pool", "n2c16ih30kh13ph6"),
    ("avg_pool", "n2c8iw3001kw100sw7pw50"),
    ("avg_pool", "n1c8id9ih11iw14kd3sd2pd1"),
    ("adaptive_avg_pool", "n2c16ih30oh7"),
    ("global_avg_pool", "n4c40ih57oh1"),
)
QUOTIENT = 6  # terms of each of the two polynomials of Phi, in float32
# The powers p.
_POWERS = (
    *((p, "n2c8ih30kh3sh2") for p in (1.0, 2.0, 3.0, 5.0, 1.5)),
    (3.5, "n2c8iw999kw40sw40"),
)
CASES: tuple[tuple[str, str], ...] = (
    *((op, _spelling) for op, _spelling in _POOLS),
    *(
        (op, _ROWS if what.last_axis else f"{_MAP}{'g6' * (op == 'group_norm')}")
        for op, what in OPERATIONS.items()
        if op not in _DRAWN
    ),
)
DIRECTIONS = ("fprop", "dgrad")


@dataclass(frozen=True)
class Found:
    """Errors of one operation: convcore's, and PyTorch's if it has it."""

    op: str
    shape: str
    direction: str
    dtype: str
    data: str
    ours: Error
    torch: Error | None


def measure(
    cases: Iterable[tuple[str, str]], dtypes: Iterable[str], torch: Results | None
) -> Iterator[Found]:
    """Measure all operations."""
    peer = Convcore()
    for op, spelling in cases:
        for dtype in dtypes:
            for direction in DIRECTIONS:
                for kind in DATA:
                    judged = judge(op, spelling, direction, dtype, kind)
                    call = peer.prepare(judged.case, judged.arrays)
                    ours = judged.error_of(peer.output(call()))
                    found = torch.result(judged.case, judged.arrays) if torch else None
                    theirs = None if found is None else judged.error_of(found)
                    where = (op, spelling, direction, dtype, kind)
                    yield Found(*where, ours, theirs)


def measure_powers(dtypes: Iterable[str]) -> Iterator[Found]:
    """Measure Lp pooling, whose result is its own size."""
    for power, spelling in _POWERS:
        problem = parse("lp_pool", spelling)
        assert isinstance(problem, PoolProblem)
        axes = slice(3 - problem.ndim, None)
        how = (power, problem.kernel[axes], problem.stride[axes])
        forward, backward = (
            getattr(functional, f"lp_pool{problem.ndim}d{end}")
            for end in ("", "_backward")
        )
        for dtype in dtypes:
            for kind in DATA:
                rng = np.random.default_rng(0)
                x, g = (
                    _draw(rng, kind, shape).astype(dtype)
                    for shape in (problem.x_shape, problem.y_shape)
                )
                y = forward(x, *how)
                wide, wide_g, wide_y = (a.astype(np.longdouble) for a in (x, g, y))
                right = reference.lp_pool(problem, wide, power)
                slopes = [
                    reference.lp_pool_backward(problem, slope, at, wide_y, power)
                    for slope, at in (
                        (wide_g, wide),
                        (np.abs(wide_g), np.abs(wide)),
                    )
                ]
                u = np.longdouble(np.finfo(dtype).eps) / 2
                terms = np.asarray(float(prod(problem.kernel)))
                where = (dtype, kind)
                for direction, found, value, size in (
                    ("fprop", y, right, right),
                    ("dgrad", backward(g, x, y, *how), *slopes),
                ):
                    judged = Judged(Case("", "", dtype), _NO, value, u * size, terms)
                    name = f"lp_pool {power:g}"
                    error = judged.error_of(found)
                    yield Found(name, spelling, direction, *where, error, None)


def judge(op: str, spelling: str, direction: str, dtype: str, kind: str) -> Judged:
    """Draw data, and compute what is right."""
    row = named("", op, spelling)
    case = row.case(direction, dtype)
    rng = np.random.default_rng(0)
    x, weight, grad_y = (
        _draw(rng, kind if role == "x" else "normal", case.shapes.get(role, (0,)))
        for role in ("x", "weight", "grad_y")
    )
    arrays = Data(*(a.astype(dtype) for a in (x, weight, grad_y)))
    wide: Any = np.float64 if dtype == "float32" else np.longdouble
    wider = Data(*(getattr(arrays, r).astype(wide) for r in ("x", "weight", "grad_y")))
    unit = wide(np.finfo(dtype).eps) / 2
    tiny = wide(np.finfo(dtype).smallest_subnormal)
    if isinstance(row, PoolRow):
        right, size, terms = _pooled(row, direction, wider)
    else:
        assert isinstance(row, ElementwiseRow)
        assert isinstance(case, ElementwiseCase)
        right, size, terms = _elementwise(case, wider, float(np.finfo(dtype).eps))
    return Judged(case, arrays, right, unit * size + tiny, np.asarray(float(terms)))


def _draw(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    if kind == "uniform":
        return rng.random(shape)
    drawn = 3 * rng.standard_normal(shape)
    return drawn + 1000 if kind == "offset" else drawn


Judgement = tuple[Array, Array, int]  # what is right, its size, and terms summed


def _pooled(row: PoolRow, direction: str, arrays: Data) -> Judgement:
    """Judge a mean over windows: its size is the mean of magnitudes."""
    problem, forward = row.problem, direction == "fprop"
    function = getattr(reference, row.op + "_backward" * (not forward))
    operand = arrays.x if forward else arrays.grad_y
    taps = prod(problem.kernel)
    if taps:
        right, size = (function(problem, a) for a in (operand, np.abs(operand)))
        return right, size, taps
    shape: tuple[Any, ...] = (problem.y_shape[2:] if forward else problem.x_shape,)
    if forward and row.op == "global_avg_pool":
        shape = ()
    taps = -(-prod(problem.in_extent) // prod(problem.out_extent))  # about so many
    return function(operand, *shape), function(np.abs(operand), *shape), taps


def _elementwise(case: ElementwiseCase, arrays: Data, eps: float) -> Judgement:
    """Judge an operation of the suite by the reference's function of its name."""
    name = case.operation.function
    channels, kind = case.x_shape[1], case.operation.kind
    known: dict[str, Any] = {
        **case.operation.options,
        "x": arrays.x,
        "grad_y": arrays.grad_y,
        "target": case.targets(),
        "axes": 1,
        "groups": channels if name == "instance_norm" else case.groups,
        "centred": name != "rms_norm",
        "eps": eps if name == "rms_norm" else 1e-5,
        "running_mean": np.zeros(channels, arrays.x.dtype),
        "running_var": np.ones(channels, arrays.x.dtype),
    }
    if case.weight_shape:
        known["weight"], known["bias"] = arrays.weight
    if name == "rms_norm":
        del known["bias"]
    names = {"instance_norm": "group_norm", "rms_norm": "layer_norm"}
    forward = getattr(reference, names.get(name, name))
    right = known["y"] = _called(forward, known)
    if case.backward:
        right = _called(getattr(reference, f"{names.get(name, name)}_backward"), known)
    size: Callable[..., Judgement] = {
        "activation": _activation,
        "softmax": _softmax,
        "loss": _loss,
        "normalisation": _local if name == "local_response_norm" else _normal,
    }[kind]
    return size(case, arrays, known, right)


def _called(function: Callable[..., Any], known: dict[str, Any]) -> Any:
    given = {p: known[p] for p in signature(function).parameters if p in known}
    result = function(**given)
    return result[0] if isinstance(result, tuple) else result


def _fused() -> bool:
    """Tell whether products are added before they are rounded: then errors are fewer."""
    return cpu.isa() != "baseline"


def _activation(
    case: ElementwiseCase, arrays: Data, known: dict[str, Any], right: Array
) -> Judgement:
    """Its own size; a slope is a sum of terms of about 1."""
    size = np.abs(right)
    if case.backward:
        return right, size if case.op == "prelu" else np.abs(arrays.grad_y), 1
    if case.op == "gelu" and not _fused():  # a quotient of polynomials
        return right, size, QUOTIENT
    if case.op == "gelu_tanh":  # x / (1 + exp(-this)), which is large where x**3 is
        size = size * (1 + 1.6 * np.abs(arrays.x) * (1 + 0.045 * arrays.x**2))
    return right, size, 1


def _softmax(
    case: ElementwiseCase, arrays: Data, known: dict[str, Any], right: Array
) -> Judgement:
    x, g, dim = arrays.x, np.abs(arrays.grad_y), known["dim"]
    below = x.max(axis=dim, keepdims=True) - x
    p = reference.softmax(x, dim)
    logs = np.log(np.exp(-below).sum(axis=dim, keepdims=True))
    wide = p * (1 + below)  # the error of an exponent is one of the result
    if case.operation.function == "log_softmax":
        size = 1 + below + logs  # the logarithm of a sum that is rounded
        if case.backward:
            size = g + p * g.sum(axis=dim, keepdims=True)
    elif case.backward:
        size = wide * (g + (g * wide).sum(axis=dim, keepdims=True))
    else:
        size = wide
    return right, size, x.shape[dim]


def _loss(
    case: ElementwiseCase, arrays: Data, known: dict[str, Any], right: Array
) -> Judgement:
    x = arrays.x
    p = reference.softmax(x, 1)
    below = x.max(axis=1, keepdims=True) - x
    count = prod(x.shape) // x.shape[1]
    if case.backward:
        truth = np.expand_dims(known["target"], 1)
        classes = np.arange(x.shape[1]).reshape(-1, *(1,) * (x.ndim - 2))
        return right, (p * (1 + below) + (truth == classes)) / count, x.shape[1]
    logs = np.log(np.exp(-below).sum(axis=1, keepdims=True))
    chosen = np.take_along_axis(below, np.expand_dims(known["target"], 1), 1)
    return right, np.asarray((chosen + logs).mean()), count


def _normal(
    case: ElementwiseCase, arrays: Data, known: dict[str, Any], right: Array
) -> Judgement:
    """Sizes of what is normalised, times the gain, and of the shift."""
    x, name = arrays.x, case.operation.function
    rows, axes = x, tuple(range(2, x.ndim))
    gain, shift = np.abs(arrays.weight)
    if case.operation.last_axis:
        axes = (x.ndim - 1,)
    else:
        gain, shift = (v.reshape(-1, *(1,) * (x.ndim - 2)) for v in (gain, shift))
    if name == "batch_norm":
        axes = (0, *axes)
    if name == "group_norm":
        rows = x.reshape(len(x), known["groups"], -1)
        axes = (2,)
    if case.operation.options.get("training", True):
        mean = rows.mean(axis=axes, keepdims=True) if known["centred"] else 0.0
        var = ((rows - mean) ** 2).mean(axis=axes, keepdims=True)
    else:
        mean, var, axes = 0.0, np.ones_like(rows), ()
    rstd = 1 / np.sqrt(var + known["eps"])
    h = np.abs((rows - mean) * rstd)
    terms = prod(rows.shape[a] for a in axes)
    if not case.backward:  # the mean is rounded, too
        h = h + np.abs(rows).mean(axis=axes, keepdims=True) * rstd if axes else h
        return right, h.reshape(x.shape) * gain + shift, terms
    size = (np.abs(arrays.grad_y) * gain).reshape(rows.shape)
    whole = size
    if axes:
        whole = size + size.mean(axis=axes, keepdims=True)
        whole = whole + h * (size * h).mean(axis=axes, keepdims=True)
    return right, (whole * rstd).reshape(x.shape), terms


def _local(
    case: ElementwiseCase, arrays: Data, known: dict[str, Any], right: Array
) -> Judgement:
    if not case.backward:
        return right, np.abs(right), known["size"]
    g, x = np.abs(arrays.grad_y), np.abs(arrays.x)
    own = g * np.abs(known["y"]) / x
    less = reference.local_response_norm_backward(g, x, known["size"])
    size = 2 * own - less  # own + what the neighbours take
    return right, size, known["size"] * (1 if _fused() else 2)  # a sum of sums


Table = tuple[list[str], list[list[str]]]


def table(found: Iterable[Found], goal: float) -> Table:
    """Tabulate the worst errors of each operation, over shapes and data."""
    groups: dict[tuple[str, str, str], list[Found]] = {}
    for f in found:
        groups.setdefault((f.op, f.dtype, f.direction), []).append(f)
    head = ["operation", "dtype", "direction", "worst, units", "in", "of the bound"]
    head += ["torch", f"<= {goal}"]
    lines = []
    for key, several in groups.items():
        worst = max(several, key=lambda f: f.ours.worst)
        part = max(f.ours.of_bound for f in several)
        theirs = [f.torch.worst for f in several if f.torch]
        lines.append(
            [
                *key,
                number(worst.ours.worst),
                f"{worst.shape}, {worst.data}",
                f"{part:.0%}",
                number(max(theirs)) if theirs else NONE,
                "yes" if worst.ours.worst <= goal else "no",
            ]
        )
    return head, lines


def beyond(found: Iterable[Found]) -> list[str]:
    """Name what is beyond 2 * sqrt(K) + 4 units: nothing."""
    return [
        f"{f.op} {f.direction} {f.dtype} of {f.shape}, {f.data}: {f.ours.of_bound:.0%}"
        for f in found
        if not f.ours.of_bound <= 1
    ]
