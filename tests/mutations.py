"""Runs mutated calls of everything public, in a process that they may end.

Besides the recorded calls there are those of layers and of other objects: each method,
and the gradients that they give.
"""

import faulthandler
import gc
import json
import os
import random
import resource
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import convcore
from benchmarks.calls import Call, completed, public, recorded
from benchmarks.mutations import Mutant, Words, mutated, words_of, wrong
from convcore import ConvProblem, PoolProblem, nn, optim
from tests.nn.test_every_layer import TABLE as LAYERS

MEMORY = 2 << 30  # bytes of address space: what is too large is refused at once
LEAST = 64  # bytes of an object that large data comes with
SECONDS = 60  # of one call, at most: none takes one

# The first gradient of a parameter is the array that came.
KEEPS = ("Parameter.add_grad",)

# Of what all layers inherit, methods without arguments are called on one.
WHOLE = ("Sequential",)

# Their memory is matplotlib's, and they take long.
PICTURES = "convcore.viz."

# Functions without arguments.
PLAIN = (
    *("forget_tuned", "get_num_threads", "keep_memory", "release_memory"),
    "show_config",
)

# Arguments of methods, by the method's name; the others have none.
ARGUMENTS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "add_grad": lambda parameter: (np.zeros_like(parameter.value),),
    "load": lambda layer: (saved(layer),),
    "load_state_dict": lambda keeper: (keeper.state_dict(),),
    "lr_at": lambda schedule: (3,),
    "reset_parameters": lambda layer: (0,),
    "save": lambda layer: ("saved",),
}


def saved(layer: Any) -> str:
    name = f"{type(layer).__name__}.npz"
    layer.save(name)
    return name


def methods(name: str, thing: Any) -> Iterator[Call]:
    """A call of each public method of an object, but for `forward`."""
    for method in dir(thing):
        target = getattr(thing, method)
        if method.startswith("_") or method == "forward" or not callable(target):
            continue
        if isinstance(target, nn.Layer) or hasattr(type(thing), method):
            arguments = ARGUMENTS.get(method, lambda _: ())(thing)
            yield Call(f"{name}.{method}", target, arguments, {})


def passes(name: str, thing: Any, *inputs: Any) -> Iterator[Call]:
    """The call of a layer or a loss, its `forward`, and the gradient of that."""
    yield Call(f"{name}.__call__", thing.__call__, inputs, {})
    yield Call(f"{name}.forward", thing.forward, inputs, {})
    y, backward = thing.forward(*inputs)
    yield Call(f"{name}.backward", backward, (np.ones_like(y),), {})


def of_layers() -> Iterator[Call]:
    for name, (make, shape, _) in LAYERS.items():
        layer = make()
        calls = methods(name, layer)
        yield from calls if name in WHOLE else (c for c in calls if c.args)
        yield from passes(name, layer, np.ones(shape))


def of_others() -> Iterator[Call]:
    """Calls of what has no example, and of the methods of what is no layer."""
    scores, classes = np.ones((4, 3)), np.array([0, 2, 1, 1])
    places = np.arange(12).reshape(4, 3) % 6
    yield from passes("CrossEntropyLoss", nn.CrossEntropyLoss(), scores, classes)
    yield from passes("MSELoss", nn.MSELoss(), scores, scores + 1)
    yield from passes("MaxUnpool1d", nn.MaxUnpool1d(2), scores, places)
    parameter = nn.Parameter(np.ones((2, 3)), "weight")
    yield from methods("Parameter", parameter)
    for make in (optim.SGD, optim.Adam):
        optimizer = make([parameter], lr=0.1)
        yield from methods(make.__name__, optimizer)
        for schedule in (optim.StepLR(optimizer, 2), optim.CosineLR(optimizer, 5)):
            yield from methods(type(schedule).__name__, schedule)
    shape, weight = (2, 4, 9, 8), (6, 2, 3, 3)
    how = {"stride": 2, "padding": 1, "groups": 2}
    conv = ConvProblem.conv("conv", shape, weight, **how)
    yield Call("ConvProblem.conv", ConvProblem.conv, ("conv", shape, weight), how)
    yield Call("ConvProblem.parse", ConvProblem.parse, (str(conv),), {})
    yield Call("PoolProblem.pool", PoolProblem.pool, ("pool", shape, 3), {"padding": 1})
    yield Call("PoolProblem.adaptive", PoolProblem.adaptive, ("pool", shape, 3), {})
    turned = ConvProblem.transposed
    yield Call("ConvProblem.transposed", turned, ("conv", shape, (4, 3, 3, 3)), how)
    nothing = nn.ReLU(), np.ones((1, 2), np.float32)
    yield Call("convcore.autotune", convcore.autotune, nothing, {"seconds": 1e-3})
    yield Call("convcore.set_num_threads", convcore.set_num_threads, (2,), {})
    yield Call("convcore.num_threads", num_threads, (2,), {})
    yield Call("convcore.precision", precision, ("strict",), {})
    for name in PLAIN:
        yield Call(f"convcore.{name}", getattr(convcore, name), (), {})
    state = {"weight": np.ones((2, 3)), "steps": np.array([1, 2])}
    yield Call("convcore.nn.save_npz", nn.save_npz, ("saved.npz", state), {})
    nn.save_npz("kept.npz", state)
    yield Call("convcore.nn.load_npz", nn.load_npz, ("kept.npz",), {})


def precision(mode: str) -> None:
    """Enter the block: before, it does nothing."""
    with convcore.precision(mode):
        pass


def num_threads(n: int) -> None:
    """Do the same."""
    with convcore.num_threads(n):
        pass


def legal() -> tuple[list[Call], Words]:
    """Give all calls, and what their errors may name."""
    targets = public()
    called = {k: v for k, v in targets.items() if k != "convcore.autotune"}  # seconds
    calls = [*completed(recorded(called), called), *of_layers(), *of_others()]
    return calls, words_of([*targets.items(), *((c.name, c.target) for c in calls)])


def mutant(calls: list[Call], seed: int) -> Mutant:
    return mutated(calls[seed % len(calls)], random.Random(seed))


def leak(made: Mutant, words: Words) -> str | None:
    """Run a call again and again; say what has become more with each.

    Python keeps some hundred objects to use them again, so what a few calls leave is
    looked at with more of them; and what a call keeps once, as weights packed for an
    algorithm that was just measured to be faster, is not left a second time.
    """
    for times in (3, 8, 64, 512, 512):
        before = _held()
        for _ in range(times):
            wrong(made, words, KEEPS)
        more = {name: number - before[name] for name, number in _held().items()}
        objects = max(more["blocks"], more["files"], more["threads"])
        if times > 3 and objects < times and more["bytes"] < LEAST * times:
            return None
    return f"leaves in {times} calls {more}"


def _held() -> dict[str, int]:
    """What must not grow: memory of Python and NumPy, open files, threads."""
    gc.collect()
    return {
        "bytes": tracemalloc.get_traced_memory()[0],
        "blocks": sys.getallocatedblocks(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def main(words: list[str]) -> None:
    """Run the calls of the seeds from the first to the last, and print what is wrong.

    With "leaks", run each many times, and print what it leaves behind.
    """
    first, stop, *what = words
    leaks = what == ["leaks"]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    calls, names = legal()
    if leaks:
        gc.freeze()  # what is there already is looked through no more
        tracemalloc.start()
    for seed in range(int(first), int(stop)):
        made = mutant(calls, seed)
        text = json.dumps(f"{made.call.name}({made.what})")
        print(f'{{"seed": {seed}, "what": {text}', end="", flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        if leaks and not made.call.name.startswith(PICTURES):
            found = leak(made, names)
        else:
            found = wrong(made, names, KEEPS)
        faulthandler.cancel_dump_traceback_later()
        print(f', "found": {json.dumps(found)}}}', flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CONVCORE_CACHE"] = folder
        os.chdir(folder)
        main(sys.argv[1:])
