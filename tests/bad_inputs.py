"""Runs cases of data/bad_inputs.json: what other libraries crashed, hung or lied on.

The cases have neutral names for operations; OPERATIONS says what each is here. Run as a
program it reads ids of cases, a line each, and answers with a line of JSON: a crash or a
call that does not end costs this process alone.
"""

import base64
import json
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import convcore
from convcore import functional as F
from convcore import init, nn, optim

CASES: dict[str, dict[str, Any]] = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parent / "data" / "bad_inputs.json").read_text(encoding="utf-8")
    )
}

# What is not there to be called, or what was decided otherwise, and why.
SKIPPED_OPERATIONS = {
    "import_onnx": "no import of ONNX models yet",
    "load_safetensors": "no import of safetensors files yet",
}
SKIPPED = {
    "pad-reflect-too-big": "paddings wider than x repeat the pattern, as numpy.pad does",
    "maxpool2d-padding-over-half": "legal: every window has an element, as with full",
    "pad-huge": "the same: the result is legal, of 8 GB",
    "sgd-param-readonly": "a parameter is a copy: nothing is written through the view",
    **dict.fromkeys(
        (
            "conv2d-bwd-input-shape-rank-13",
            "conv2d-bwd-input-shape-negative",
            "conv2d-bwd-input-shape-overflow",
        ),
        "x comes as an array, not as a shape: there is no such array",
    ),
}


def decoded(value: Any, names: dict[str, Any]) -> Any:
    """Give the argument that a case describes."""
    if not isinstance(value, dict):
        return value
    if "expr" in value:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PendingDeprecationWarning)  # of np.matrix
            return eval(value["expr"], {"np": np, **names})  # test data of our own
    if "values" in value:
        return np.array(value["values"], dtype=value["dtype"])
    if "fill" in value:
        shape = tuple(value["shape"])
        if value["fill"] == "arange":
            return np.arange(np.prod(shape)).reshape(shape).astype(value["dtype"])
        return np.full(shape, value["fill"], value["dtype"])
    return {key: decoded(inner, names) for key, inner in value.items()}


def conv_backward_input(input_shape: Any, weight: Any, grad_output: Any) -> Any:
    x = np.zeros(tuple(input_shape), weight.dtype)
    return F.conv2d_backward(grad_output, x, weight, needs=("x",))[0]


def conv_backward_weight(
    x: Any, weight_shape: Any, grad_output: Any, **how: Any
) -> Any:
    weight = np.zeros(tuple(weight_shape), x.dtype)
    return F.conv2d_backward(grad_output, x, weight, needs=("weight",), **how)[1]


def batch_norm(
    x: Any,
    mean: Any = None,
    var: Any = None,
    gamma: Any = None,
    beta: Any = None,
    training: bool = False,
) -> Any:
    if training:
        mean = var = None
    return F.batch_norm(x, mean, var, gamma, beta, training=training)


def sgd_step(param: Any, grad: Any, lr: float) -> None:
    parameter = nn.Parameter(param)
    parameter.grad = grad
    optim.SGD([parameter], lr=lr).step()


def sgd(lr: float, **how: Any) -> Any:
    return optim.SGD([nn.Parameter(np.zeros(1, np.float32))], lr=lr, **how)


def load_state(layer: str, state: Any) -> None:
    eval(f"nn.{layer}", {"nn": nn}).load_state_dict(state)


def kaiming_uniform(shape: Any) -> Any:
    return init.he_uniform(tuple(shape), rng=0)


def load_npz(name: str, file_b64: str = "", generate: str = "") -> Any:
    """Write the file of a case, and load it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if generate:  # one deflated member of 100 MB of zeros
            with (
                zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
                archive.open("a.npy", "w") as member,
            ):
                np.save(member, np.zeros(25_000_000, np.float32))
        else:
            path.write_bytes(base64.b64decode(file_b64))
        return nn.load_npz(path)["a"]


def function(name: str) -> Callable[..., Any]:
    """Find what an operation's name stands for."""
    return OPERATIONS.get(name) or getattr(F, name, None) or getattr(nn, name)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv2d_backward_input": conv_backward_input,
    "conv2d_backward_weight": conv_backward_weight,
    "batch_norm": batch_norm,
    "sgd_step": sgd_step,
    "SGD": sgd,
    "load_state": load_state,
    "kaiming_uniform": kaiming_uniform,
    "load_npz": load_npz,
    "set_num_threads": lambda n: convcore.set_num_threads(n),
}


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case: {"error", "text"}, or {"result": facts about it}."""
    names: dict[str, Any] = {}
    given = dict(case["args"])
    if "setup" in given:
        exec(given.pop("setup"), {"np": np}, names)  # test data of our own
    arguments = {key: decoded(value, names) for key, value in given.items()}
    for size in ("input_shape", "output_size", "kernel_size"):
        if isinstance(arguments.get(size), list):
            arguments[size] = tuple(arguments[size])
    try:
        result = function(case["op"])(**arguments)
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}
    results = result if isinstance(result, tuple) else (result,)
    arrays = [array for array in results if isinstance(array, np.ndarray)]
    return {"result": [facts(array) for array in arrays]}


def facts(array: Any) -> dict[str, Any]:
    """Tell of a result what cases expect."""
    alike = array.size > 0 and bool((array == array.flat[0]).all())
    return {
        "shape": list(array.shape),
        "values": array.tolist() if array.size <= 10_000 else None,
        "all": float(array.flat[0]) if alike else None,
        "sum": float(array.sum(dtype=np.float64)),
    }


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(outcome(CASES[line.strip()])), flush=True)


if __name__ == "__main__":
    main()
