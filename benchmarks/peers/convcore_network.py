"""Networks in convcore, in the loop that its guide shows."""

from collections.abc import Callable
from typing import Any

import numpy as np

import convcore
from benchmarks.case import Array, Case, Data
from benchmarks.networks import (
    FIRST_STEPS,
    LEARNING_RATE,
    MOMENTUM,
    TRAIN,
    Library,
    NetworkCase,
    first_value,
)
from benchmarks.peers import Unsupported
from benchmarks.peers.with_convcore import Convcore
from convcore import nn, optim


class ConvcoreNetwork:
    """The library itself, with its memory kept from step to step."""

    def start(self, threads: int) -> dict[str, str]:
        """Set the threads and name the build."""
        self._keeping = convcore.keep_memory()
        self._keeping.__enter__()
        return Convcore().start(threads)

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Any]:
        """Give one training step, or one inference."""
        if not isinstance(case, NetworkCase):
            raise Unsupported(f"no {case.op}")
        model = case.network.build(Library(nn, nn.ReLU, nn.Residual))
        for index, (name, parameter) in enumerate(model.named_parameters()):
            parameter.value = first_value(name, parameter.value.shape, index)
        self._losses: list[float] = []
        if case.direction != TRAIN:
            return lambda: model(arrays.x)
        criterion = nn.CrossEntropyLoss()
        optimizer = optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        x, target = arrays.x, case.targets()

        def step() -> float:
            optimizer.zero_grad()
            scores, backward = model.forward(x)
            loss, loss_backward = criterion.forward(scores, target)
            nn.accumulate(backward, loss_backward())
            optimizer.step()
            if len(self._losses) < FIRST_STEPS:
                self._losses.append(float(loss))
            return float(loss)

        while len(self._losses) < FIRST_STEPS:
            step()
        return step

    def output(self, result: Any) -> Array:
        """Give the first losses, or the scores."""
        return np.array(self._losses) if self._losses else np.asarray(result)
