"""Networks in convcore, in the loop that its guide shows."""

from collections.abc import Callable
from typing import Any

import numpy as np

import convcore
from benchmarks.case import Array, Case, Data
from benchmarks.networks import (
    FIRST_STEPS,
    FIT,
    INFER,
    LEARNING_RATE,
    MOMENTUM,
    Library,
    NetworkCase,
    first_value,
)
from benchmarks.peers import Unsupported
from benchmarks.peers.with_convcore import Convcore
from convcore import nn, optim, train


class ConvcoreNetwork:
    """The library itself, with its memory kept from step to step."""

    def start(self, threads: int) -> dict[str, str]:
        """Set the threads and name the build."""
        self._keeping = convcore.keep_memory()
        self._keeping.__enter__()
        return Convcore().start(threads)

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Any]:
        """Give one training step, or one inference; an epoch of `fit` is one step."""
        if not isinstance(case, NetworkCase):
            raise Unsupported(f"no {case.op}")
        model = case.network.build(Library(nn, nn.ReLU, nn.Residual))
        for index, (name, parameter) in enumerate(model.named_parameters()):
            parameter.value = first_value(name, parameter.value.shape, index)
        self._losses: list[float] = []
        if case.direction == INFER:
            return lambda: model(arrays.x)
        criterion = nn.CrossEntropyLoss()
        optimizer = optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        x, target = arrays.x, case.targets()

        def by_hand() -> float:
            optimizer.zero_grad()
            scores, backward = model.forward(x)
            loss, loss_backward = criterion.forward(scores, target)
            nn.accumulate(backward, loss_backward())
            optimizer.step()
            return float(loss)

        def fitted() -> float:
            history = train.fit(
                model,
                x,
                target,
                loss=criterion,
                optimizer=optimizer,
                epochs=1,
                batch_size=len(x),
                progress=False,
            )
            return history.loss[0]

        def step() -> float:
            value = fitted() if case.direction == FIT else by_hand()
            if len(self._losses) < FIRST_STEPS:
                self._losses.append(value)
            return value

        while len(self._losses) < FIRST_STEPS:
            step()
        return step

    def output(self, result: Any) -> Array:
        """Give the first losses, or the scores."""
        return np.array(self._losses) if self._losses else np.asarray(result)
