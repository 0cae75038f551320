"""Networks in PyTorch, eager, as its tutorials write the loop."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

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


class TorchNetwork:
    """The default layout."""

    channels_last = False

    def start(self, threads: int) -> dict[str, str]:
        """Import torch and set its threads."""
        self._torch = torch = import_module("torch")
        torch.set_num_threads(threads)
        capability = torch.backends.cpu.get_cpu_capability()
        return {"PyTorch": f"{torch.__version__} ({capability})"}

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Any]:
        """Give one training step, or one inference."""
        if not isinstance(case, NetworkCase):
            raise Unsupported(f"no {case.op}")
        torch = self._torch
        model = case.network.build(_library(torch))
        with torch.no_grad():
            for index, (name, parameter) in enumerate(model.named_parameters()):
                value = first_value(name, tuple(parameter.shape), index)
                parameter.copy_(torch.from_numpy(value))
        x = torch.from_numpy(arrays.x)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        self._losses: list[float] = []
        if case.direction == INFER:
            model.eval()

            def infer() -> Any:
                with torch.inference_mode():
                    return model(x)

            return infer
        criterion = torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(
            model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM
        )
        target = torch.from_numpy(case.targets())

        def step() -> float:
            samples, classes = x, target
            if case.direction == FIT:  # as a loader does that draws their order
                order = torch.randperm(len(x))
                samples, classes = x[order], target[order]
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(model(samples), classes)
            loss.backward()
            optimizer.step()
            value = float(loss.item())
            if len(self._losses) < FIRST_STEPS:
                self._losses.append(value)
            return value

        while len(self._losses) < FIRST_STEPS:
            step()
        return step

    def output(self, result: Any) -> Array:
        """Give the first losses, or the scores."""
        if self._losses:
            return np.array(self._losses)
        scores: Array = result.contiguous().numpy()
        return scores


class TorchNetworkChannelsLast(TorchNetwork):
    """The layout that oneDNN likes best."""

    channels_last = True


def _library(torch: Any) -> Library:
    """Give torch.nn with ReLU and sums in place, as torchvision has them."""

    class Residual(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, body: Any, shortcut: Any = None) -> None:
            super().__init__()
            self.body, self.downsample = body, shortcut

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            y += x if self.downsample is None else self.downsample(x)
            return y

    return Library(torch.nn, lambda: torch.nn.ReLU(inplace=True), Residual)
