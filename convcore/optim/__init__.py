"""Optimisers and learning-rate schedules.

    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = CosineLR(optimizer, t_max=epochs)
    each batch:  zero_grad, forward, backward, optimizer.step()
    each epoch:  schedule.step()

The update formulas are those of `torch.optim`, so that the same gradients give the
same weights up to rounding.

A step is all or nothing. It first checks and prepares everything, where a failure or
Ctrl-C costs nothing; then one call into C updates all values in place. CPython runs
signal handlers only between byte codes, so that no KeyboardInterrupt can come in the
middle of that call.
"""

from convcore.optim.adam import Adam
from convcore.optim.optimizer import Optimizer
from convcore.optim.schedule import CosineLR, Schedule, StepLR
from convcore.optim.sgd import SGD

__all__ = ["SGD", "Adam", "CosineLR", "Optimizer", "Schedule", "StepLR"]
