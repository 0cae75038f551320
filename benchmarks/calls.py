"""Legal calls of everything public: those of the docstrings' examples, recorded.

Every public function has an example that runs. What has none of its own, such as the
layers for one and three axes, is called as for two, or without arguments.
"""

import doctest
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import convcore
from convcore import analysis, functional, init, nn, optim, train, viz

MODULES: tuple[ModuleType, ...] = (
    *(functional, nn, init, optim, train, analysis, viz),
    convcore,
)

# What nobody calls: types, what others inherit from, and records that functions give.
NOT_CALLED = {
    *("convcore.functional.Approximate", "convcore.functional.Reduction"),
    *("convcore.init.Initializer", "convcore.nn.Backward", "convcore.nn.LossBackward"),
    *("convcore.nn.Layer", "convcore.optim.Optimizer", "convcore.optim.Schedule"),
    *("convcore.train.Callback", "convcore.train.Loss", "convcore.train.History"),
    *("convcore.train.Run", "convcore.analysis.EffectiveField"),
    *("convcore.analysis.ReceptiveField", "convcore.analysis.Pixels"),
    *("convcore.analysis.Window", "convcore.ConvProblem", "convcore.PoolProblem"),
    # Rules for layers, which other functions ask with what they have checked.
    *("convcore.analysis.connect", "convcore.analysis.windows"),
}


class Call(NamedTuple):
    """A legal call."""

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def public() -> dict[str, Callable[..., Any]]:
    """Find every public function and class that can be called."""
    found: dict[str, Callable[..., Any]] = {}
    for module in MODULES:
        for name in module.__all__:
            value, full = getattr(module, name), f"{module.__name__}.{name}"
            if callable(value) and full not in NOT_CALLED:
                found[full] = value
    return found


def recorded(targets: dict[str, Callable[..., Any]]) -> list[Call]:
    """Run the examples of all docstrings, and keep the calls of `targets` in them."""
    calls: list[Call] = []
    finder = doctest.DocTestFinder(recurse=False)
    for name, target in targets.items():
        names = dict(vars(inspect.getmodule(target) or convcore))
        names.update(np=np, nn=nn, F=functional, init=init, optim=optim)
        short = name.rsplit(".", 1)[1]
        names[short] = _recorder(name, target, calls)
        for test in finder.find(target, short, globs=names):
            runner = doctest.DocTestRunner(verbose=False)
            runner.run(test, out=lambda text: None, clear_globs=False)
    return calls


def completed(calls: list[Call], targets: dict[str, Callable[..., Any]]) -> list[Call]:
    """Add calls of what has no example of its own: as for two axes, or as they come."""
    calls = list(calls)
    known = {call.name: call for call in calls}
    for name, target in targets.items():
        two = known.get(f"{name[:-2]}2d")
        if name not in known and two is not None:
            calls.append(Call(name, target, two.args, two.kwargs))
        elif name not in known and inspect.isclass(target):
            calls.append(Call(name, target, (), {}))
    return calls


def _recorder(
    name: str, target: Callable[..., Any], calls: list[Call]
) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        calls.append(Call(name, target, args, dict(kwargs)))
        return target(*args, **kwargs)

    return record
