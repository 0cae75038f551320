"""Training: mini-batches, validation, callbacks; prediction in batches.

    history = fit(model, x, y, loss=loss, optimizer=optimizer, epochs=5)
    scores = predict(model, x)

One batch of `fit`::

    zero_grad, model.forward, loss.forward, backward, optimizer.step, callbacks

Only the step changes parameters, and it is all or nothing. So whatever ends `fit`
early (Ctrl-C, a callback's exception, a loss that is not finite) leaves the parameters,
and the running statistics of batch norm, as of the last finished step.

The numbers are the same on every run and for every thread count: the order of samples
comes from the seed alone, and every sum has a fixed order.
"""

from convcore.train.callbacks import Callback, History, Run
from convcore.train.fitting import Loss, fit
from convcore.train.metrics import accuracy, confusion_matrix
from convcore.train.predicting import predict

__all__ = [
    "Callback",
    "History",
    "Loss",
    "Run",
    "accuracy",
    "confusion_matrix",
    "fit",
    "predict",
]
