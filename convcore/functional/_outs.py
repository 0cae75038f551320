"""`out=` of functions with several results: a tuple in their order, as NumPy's ufuncs.

None in it stands for new memory. All of it is checked before anything is written.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convcore.runtime import buffers
from convcore.runtime.arrays import Array, check_out, empty

Shapes = Sequence[tuple[int, ...] | None]
Outs = tuple[Array | None, ...]
Pair = Array | tuple[Array | None, Array | None]  # for the first of two, or for both


def places(
    function: str,
    out: Any,
    wanted: tuple[Sequence[bool], Sequence[tuple[int, ...]]],
    dtype: np.dtype[Any],
    inputs: Sequence[Array | None],
) -> Outs:
    """Give an array for each result: that of `out`, or a new one.

    Parameters
    ----------
    out : tuple of (ndarray or None), or None
    wanted : whether each result is asked for, and its shape
        What is not stays None.
    inputs : arrays
        What no result may overlap, as it may not overlap another one.
    """
    asked, shapes = wanted
    if out is None:
        return tuple(
            [empty(shapes[i], dtype) if asks else None for i, asks in enumerate(asked)]
        )
    needed = [shapes[i] if asks else None for i, asks in enumerate(asked)]
    check(function, out, needed, (dtype,) * len(needed), inputs)
    return tuple(
        empty(shape, dtype) if given is None and shape is not None else given
        for given, shape in zip(out, needed, strict=True)
    )


def pair(
    function: str,
    out: Any,
    shape: tuple[int, ...],
    dtypes: tuple[np.dtype[Any], np.dtype[Any]],
    *inputs: Array | None,
) -> tuple[Array, Array]:
    """Give arrays for results and what tells where they come from, of one shape.

    `out` may be an array for the first of them, or a tuple for both.
    """
    given: Outs = out if type(out) is tuple else (out, None)
    if given is out:
        check(function, out, (shape, shape), dtypes, inputs)
    elif out is not None:
        check_out(function, out, shape, dtypes[0], inputs)
    first, second = given
    return (
        empty(shape, dtypes[0]) if first is None else first,
        buffers.empty(shape, dtypes[1]) if second is None else second,
    )


def check(
    function: str,
    out: Any,
    shapes: Shapes,
    dtypes: Sequence[np.dtype[Any]],
    inputs: Sequence[Array | None],
) -> None:
    """Check all arrays of `out`, which may not overlap each other either."""
    if type(out) is not tuple:
        raise TypeError(
            f"{function}: out must be a tuple of {len(shapes)}, an array or None for "
            f"each result, got {type(out).__name__}"
        )
    if len(out) != len(shapes):
        raise ValueError(
            f"{function}: out must have {len(shapes)} elements, an array or None for "
            f"each result, got {len(out)}"
        )
    for index, (given, shape) in enumerate(zip(out, shapes, strict=True)):
        if given is None:
            continue
        name = f"out[{index}]"
        if shape is None:
            raise ValueError(
                f"{function}: {name} must be None, as needs does not ask for that "
                f"gradient, got {type(given).__name__}"
            )
        check_out(function, given, shape, dtypes[index], inputs, name)
        for other in out[:index]:
            if other is not None and np.may_share_memory(given, other):
                raise ValueError(f"{function}: {name} must not overlap another of out")
