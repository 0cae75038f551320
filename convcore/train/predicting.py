"""Prediction in batches."""

from convcore.arguments import integer
from convcore.nn import Layer
from convcore.runtime import buffers
from convcore.runtime.arrays import Array, empty
from convcore.train.samples import check_samples


@buffers.keep_memory()
def predict(model: Layer, x: Array, batch_size: int = 256) -> Array:
    """Run a model on samples, batch by batch, in inference mode.

    Parameters
    ----------
    model : nn.Layer
        Not changed.
    x : (N, ...) ndarray of float32 or float64
        Samples; N may be 0.
    batch_size : int
        Samples that the model gets at once; bounds the memory of a call.

    Returns
    -------
    (N, ...) ndarray
        What the model gives for each sample, in one array.

    Raises
    ------
    ValueError, TypeError
        When an argument has a wrong value or type.

    Examples
    --------
    >>> import numpy as np
    >>> from convcore import nn
    >>> predict(nn.ReLU(), np.array([[-1.0], [2.0], [3.0]]), batch_size=2)
    array([[0.],
           [2.],
           [3.]])
    """
    if not callable(model):
        raise TypeError(f"predict: model must be a Layer, got {type(model).__name__}")
    check_samples("predict", "x", x)
    batch_size = integer("predict", "batch_size", batch_size, 1)
    outputs: Array | None = None
    for start in range(0, max(len(x), 1), batch_size):
        batch = x[start : start + batch_size]
        part = model(batch)
        if part.shape[:1] != batch.shape[:1]:
            raise ValueError(
                f"predict: model must give one output per sample, got shape "
                f"{part.shape} for {len(batch)}"
            )
        if outputs is None:
            outputs = empty((len(x), *part.shape[1:]), part.dtype)
        outputs[start : start + len(part)] = part
    assert outputs is not None  # the loop runs at least once
    return outputs
