"""Every operation on arrays: those of the fingerprint, and those that are not exact.

Each runs forward and backward, on x of any (N, C, ...) and arrays that it asks for.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from convcore import fingerprint
from convcore.fingerprint import Operation, Results, gradient, of_input, of_result

Array = np.ndarray[Any, Any]


def chosen(name: str, *how: Any) -> Operation:
    """Windows, or winners in them, that are drawn: from one source for the batch."""

    def run(f: Any, x: Array, draw: Any) -> Results:
        y, index = getattr(f, name)(
            x, *how, rng=5, **({"return_indices": True} if "frac" in name else {})
        )
        back = getattr(f, f"{name}_backward")
        dx = back(gradient(y), index, x.shape)
        return {"all y": y, "all index": index, "all dx": dx}

    return run


def mean_of(name: str) -> Operation:
    return lambda f, x, draw: {"y": getattr(f, name)(x, 3, 2, 1)}


def powers(n: int, name: str, *how: Any) -> Operation:
    def run(f: Any, x: Array, draw: Any) -> Results:
        y = getattr(f, f"{name}{n}d")(x, *how)
        back = getattr(f, f"{name}{n}d_backward")
        return {"y": y, "dx": back(gradient(y), x, y, *how)}

    return run


def batch_norm(training: bool) -> Operation:
    def run(f: Any, x: Array, draw: Any) -> Results:
        mean, var, w, b = draw(4, x.shape[1])
        state = (None, None) if training else (mean, var**2 + x.dtype.type(0.5))
        y = f.batch_norm(x, *state, w, b, training)
        dx, dw, db = f.batch_norm_backward(gradient(y), x, *state, w, training)
        end = "all " if training else ""
        return {f"{end}y": y, f"{end}dx": dx, "dweight": dw, "dbias": db}

    return run


def norm(
    name: str, shape: Callable[[Array], Any], weights: Any, *how: Any
) -> Operation:
    """Normalisations of a sample; `weights` gives the shape of the gain."""

    def run(f: Any, x: Array, draw: Any) -> Results:
        w = draw(*weights(x))
        bias = {} if name == "rms_norm" else {"bias": w + x.dtype.type(1)}
        y = getattr(f, name)(x, *shape(x), weight=w, **bias)
        back = getattr(f, f"{name}_backward")
        dx, *rest = back(gradient(y), x, *shape(x), weight=w)
        return {"y": y, "dx": dx, **{f"d{i}": part for i, part in enumerate(rest)}}

    return run


def local_norm(f: Any, x: Array, draw: Any) -> Results:
    y = f.local_response_norm(x, 3)
    return {"y": y, "dx": f.local_response_norm_backward(gradient(y), x, 3)}


def cross_entropy(reduction: str, classes: bool) -> Operation:
    def run(f: Any, x: Array, draw: Any) -> Results:
        if classes:
            target = (np.abs(x[:, 0].astype(float)) * 1000).astype(int) % x.shape[1]
            how: dict[str, Any] = {"weight": np.abs(draw(x.shape[1]))}
        else:
            target, how = np.abs(x), {}
        how.update(reduction=reduction, label_smoothing=0.1)
        loss = np.asarray(f.cross_entropy(x, target, **how))
        if reduction == "none":
            how["grad_output"] = gradient(loss)
        dx = f.cross_entropy_backward(x, target, **how)
        end = "" if reduction == "none" else "all "
        return {f"{end}y": loss, f"{end}dx": dx}

    return run


def dropout(f: Any, x: Array, draw: Any) -> Results:
    y, mask = f.dropout(x, 0.3, rng=7)
    dx = f.dropout_backward(gradient(y), mask, 0.3)
    key = np.array(f.dropout_key(7) >> 1)
    return {"all y": y, "mask": mask, "all dx": dx, "key": key}


def channels(x: Array) -> tuple[int, ...]:
    return (x.shape[1],)


def last(x: Array) -> tuple[int, ...]:
    return (x.shape[-1],)


def ranked(n: int) -> dict[str, Operation]:
    """Operations that there are for n axes."""
    names = {
        "avg_pool": fingerprint.sums(n, "avg_pool", 3, 2, 1, True, False),
        "avg_pool 5": fingerprint.sums(n, "avg_pool", 5, 1, 2),
        "lp_pool 2": powers(n, "lp_pool", 2, 3, 2),
        "lp_pool 3.5": powers(n, "lp_pool", 3.5, 2, 1),
        "global_lp_pool 3": powers(n, "global_lp_pool", 3),
        "fractional_max_pool": chosen(f"fractional_max_pool{n}d", 2, 5),
        "stochastic_pool": chosen(f"stochastic_pool{n}d", 3, 2),
        "stochastic_pool mean": mean_of(f"stochastic_pool{n}d_mean"),
    }
    return {f"{name} in {n}": op for name, op in names.items()}


# Name: axes of x, and what is done.
OPERATIONS: dict[str, tuple[int, Operation]] = {
    **fingerprint.OPERATIONS,
    **{name: (n, op) for n in (1, 2, 3) for name, op in ranked(n).items()},
    "batch_norm": (2, batch_norm(False)),
    "batch_norm training": (2, batch_norm(True)),
    "instance_norm": (2, norm("instance_norm", lambda x: (), channels)),
    "group_norm": (2, norm("group_norm", lambda x: (5,), channels)),
    "layer_norm": (2, norm("layer_norm", lambda x: last(x), last)),
    "rms_norm": (1, norm("rms_norm", lambda x: last(x), last)),
    "local_response_norm": (2, local_norm),
    "dropout": (2, dropout),
    **{
        f"{name} {dim}": (2, of_result(name, dim))
        for name in ("softmax", "log_softmax")
        for dim in (1, -1)
    },
    **{name: (2, of_result(name)) for name in ("sigmoid", "tanh")},
    **{
        name: (2, of_input(name))
        for name in ("elu", "selu", "gelu", "silu", "softplus", "hardsigmoid")
    },
    "hardswish": (2, of_input("hardswish")),
    "gelu tanh": (2, of_input("gelu", "tanh")),
    **{
        f"cross_entropy {how} {classes}": (2, cross_entropy(how, classes))
        for how in ("none", "mean")
        for classes in (True, False)
    },
}
