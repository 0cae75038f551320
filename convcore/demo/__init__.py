"""The main job, end to end: learn to read handwritten digits.

    data     scikit-learn's 1,797 digits, a quarter of them held out
    model    the network, and its layer-by-layer trace
    timing   the kernels against plain NumPy on the same layers
    report   tables and pictures
    flip_twice   the network with correlation and with convolution; a command of its own

`run` joins them; `convcore demo` is its command line. All numbers but times are the
same on every run and for every number of threads.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter

import convcore
from convcore import nn, optim, train
from convcore.demo import data, report, timing
from convcore.demo.model import build
from convcore.runtime.arrays import Array

__all__ = ["CannotRun", "Settings", "run"]

BATCH = 64
LR = 2e-3
EPOCHS = 8
QUICK_EPOCHS = 3
TIMING_SECONDS = 1.0
QUICK_TIMING_SECONDS = 0.1

# What is imported, and the name under which pip knows it.
_NEEDED = {"sklearn.datasets": "scikit-learn", "tqdm": "tqdm"}
_NEEDED_TO_DRAW = {"matplotlib.figure": "matplotlib"}


class CannotRun(Exception):
    """The demo cannot start: something is not installed, or an argument is no good."""


@dataclass(frozen=True)
class Settings:
    """What the command line sets.

    Parameters
    ----------
    quick : bool
        Fewer epochs on fewer images, and shorter timing.
    seed : int
        Of the first weights and of the order of the images.
    epochs : int, optional
        Instead of the usual number.
    out : Path, optional
        Where the pictures go; none are drawn when not given.
    """

    quick: bool = False
    seed: int = 0
    epochs: int | None = None
    out: Path | None = Path("convcore-demo")


def run(settings: Settings) -> float:
    """Train, test, time and draw; print what comes out.

    Returns
    -------
    float
        Share of the held-out digits that are read well.

    Raises
    ------
    CannotRun
        Before any work, when a package is missing or an argument cannot be used.
    """
    _prepare(settings)
    digits = data.load()
    x, y = digits.x_train, digits.y_train
    if not settings.quick:
        x, y = data.shifted(x, y)
    model = build(settings.seed)
    weights = sum(parameter.value.size for parameter in model.parameters())
    print(
        f"{len(digits.y_train)} digits to learn from, as {len(x)} images; "
        f"{len(digits.y_test)} held out\n"
        f"{weights} weights in {len(model.children())} layers\n",
        flush=True,
    )

    start = perf_counter()
    history = _train(model, x, y, digits, settings)
    seconds = perf_counter() - start
    scores = train.predict(model, digits.x_test)
    matrix = train.confusion_matrix(scores, digits.y_test, data.CLASSES)
    right = int(matrix.trace())
    accuracy = right / len(digits.y_test)
    print(
        f"{report.history_table(history)}\n\n{report.confusion_table(matrix)}\n\n"
        f"held-out accuracy {accuracy:.2%}: {right} of {len(digits.y_test)}",
        flush=True,
    )
    if settings.out is not None:
        paths = report.save_pictures(
            settings.out, model, history, digits.x_test, digits.y_test
        )
        print(f"pictures in {settings.out}: {', '.join(path.name for path in paths)}")

    # From here on nothing is the same twice.
    limit = QUICK_TIMING_SECONDS if settings.quick else TIMING_SECONDS
    timings = timing.compare(model, digits.x_test[:BATCH], limit)
    threads = convcore.get_num_threads()
    print(
        f"\ntrained in {seconds:.1f} s; threads: {threads}\n\n"
        f"forward and backward of each convolution on {BATCH} digits: kernels on "
        f"{threads} threads,\nand convcore.reference, which is NumPy on one\n"
        f"{report.timing_table(timings)}"
    )
    return accuracy


def _prepare(settings: Settings) -> None:
    """Find out what would stop the demo later."""
    needed = _NEEDED | (_NEEDED_TO_DRAW if settings.out is not None else {})
    missing = []
    for module, package in needed.items():
        try:
            import_module(module)
        except ImportError:
            missing.append(package)
    if missing:
        raise CannotRun(
            f"needs {' and '.join(missing)}, not installed here; "
            'run: pip install "convcore[demo]"'
        )
    if settings.out is not None:
        try:
            settings.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotRun(
                f"cannot make the directory {settings.out}: {error}"
            ) from None


def _train(
    model: nn.Sequential, x: Array, y: Array, digits: data.Digits, settings: Settings
) -> train.History:
    """Fit the model with Adam and a cosine."""
    usual = QUICK_EPOCHS if settings.quick else EPOCHS
    epochs = usual if settings.epochs is None else settings.epochs
    optimizer = optim.Adam(model.parameters(), lr=LR)
    return train.fit(
        model,
        x,
        y,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=BATCH,
        seed=settings.seed,
        validation=(digits.x_test, digits.y_test),
        metrics={"accuracy": train.accuracy},
        schedule=optim.CosineLR(optimizer, t_max=epochs),
        progress=True,
    )
