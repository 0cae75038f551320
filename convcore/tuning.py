"""Which algorithm is the fastest on this machine: measured, and kept for later."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import numpy as np

from convcore import plan
from convcore.arguments import boolean, one_of, real
from convcore.functional import _convolution
from convcore.plan import Question
from convcore.problem import ConvProblem, Direction
from convcore.runtime import cpu, precision, tuned
from convcore.runtime.arrays import Array

__all__ = ["autotune", "forget_tuned"]

_DIRECTIONS: tuple[Direction, ...] = ("fprop", "dgrad", "wgrad")


def autotune(
    target: Any,
    x: Array | None = None,
    *,
    dtype: str = "float32",
    train: bool = True,
    seconds: float = 0.1,
) -> dict[str, dict[str, float]]:
    """Measure the algorithms of a convolution, or of all those of a model.

    The fastest is kept, in this process and in a file of the user's cache directory, and
    from then on chosen wherever the algorithm is "auto" and the precision "fast": for
    equal problems (the batch included), with the same processor, instruction set and
    version.

    Parameters
    ----------
    target : ConvProblem or nn.Layer
        What to measure. A layer is copied, and called with x to find its convolutions.
    x : ndarray, optional
        An input of the layer, of the batch that matters; no other target has one.
    dtype : "float32" or "float64"
        Of a problem; a layer's is that of x.
    train : bool
        Whether to measure the gradients, too.
    seconds : float
        To spend on each algorithm of each convolution and direction, about.

    Returns
    -------
    dict of str to dict
        The seconds of each algorithm, the fastest first, by problem, direction and dtype;
        " kept" at the end tells that the weights were packed before, as layers keep them
        in inference.

    Raises
    ------
    TypeError, ValueError
        When the target is no problem and no layer with an x, or the dtype another one.

    See Also
    --------
    forget_tuned, precision, explain

    Notes
    -----
    Measurements differ from run to run, and algorithms in their rounding errors. So what
    is kept decides about the last bits of results: they may change with autotune, and
    differ from those of another machine. Under `precision("strict")` no choice looks at
    measurements; there the algorithms that it allows are measured, and nothing is kept.

    What is measured with the present number of threads is chosen with any, so that
    results do not depend on it.

    The file is `convcore/autotune.json` in the directory of `XDG_CACHE_HOME`, or
    `~/.cache` (`~/Library/Caches`, `%LOCALAPPDATA%`); `CONVCORE_CACHE` names another
    directory. It is read once, when the first algorithm is chosen, and left out if it is
    damaged. If it cannot be written, what was measured holds for this process; with
    `CONVCORE_AUTOTUNE=0` it is neither read nor written.

    Examples
    --------
    >>> import convcore
    >>> problem = convcore.ConvProblem.parse("n1g1ic3ih8oc4kh3")
    >>> for question in convcore.autotune(problem, seconds=0.001):
    ...     print(question)
    n1g1ic3ih8oc4kh3 fprop float32
    n1g1ic3ih8oc4kh3 dgrad float32
    n1g1ic3ih8oc4kh3 wgrad float32
    n1g1ic3ih8oc4kh3 fprop float32 kept
    n1g1ic3ih8oc4kh3 dgrad float32 kept
    >>> convcore.forget_tuned()
    """
    seconds = real("autotune", "seconds", seconds, 0)
    found = {}
    try:
        for question in _asked(target, x, dtype, train):
            times = plan.measure(*question, seconds=seconds)
            found[plan.key_of(question)] = times
    finally:  # also after Ctrl-C
        if not precision.is_strict():
            fastest = {key: next(iter(times)) for key, times in found.items()}
            tuned.keep(fastest, cpu.isa())
            _choose_again()
    return found


def forget_tuned() -> None:
    """Forget all that `autotune` kept, of all models and processors: remove its file."""
    tuned.forget()
    _choose_again()


def _choose_again() -> None:
    """Forget which algorithms were chosen."""
    plan.forget()
    _convolution.forget()


def _asked(target: Any, x: Any, dtype: str, train: bool) -> Iterable[Question]:
    """List what is to be measured, each once."""
    boolean("autotune", "train", train)
    if isinstance(target, ConvProblem):
        if x is not None:
            raise TypeError("autotune: x must be None for a problem")
        one_of("autotune", "dtype", dtype, ("float32", "float64"))
        ways = _DIRECTIONS if train else _DIRECTIONS[:1]
        with plan.questions() as asked:
            for way in ways:
                plan.select(target, way, dtype)
            for way in ways:
                if way != "wgrad":
                    plan.select(target, way, dtype, kept=True)
    elif callable(getattr(target, "forward", None)) and isinstance(x, np.ndarray):
        asked = _asked_by(target, x, train)
    else:
        raise TypeError(
            "autotune: target must be a ConvProblem, or a layer with an input x, got "
            f"{type(target).__name__} and {type(x).__name__}"
        )
    return {plan.key_of(q): q for q in asked if q.direction != "bgrad"}.values()


def _asked_by(layer: Any, x: Array, train: bool) -> list[Question]:
    """List the choices of one inference and one step of training, on a copy."""
    layer = deepcopy(layer)
    with plan.questions() as asked:
        layer(x)
        if train:
            y, backward = layer.forward(x)
            backward(np.ones_like(y))
    return asked
