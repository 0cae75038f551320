"""What this installation is made of, for bug reports and for the curious."""

import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from convcore.kernels import probe
from convcore.runtime import cpu, threads

try:
    __version__ = version("convcore")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0+unknown"


def config() -> dict[str, str]:
    """Give the settings that `show_config` prints."""
    date = probe.openmp()
    return {
        "convcore": __version__,
        "instruction set": f"{cpu.isa()} (runs here: {', '.join(cpu.available())})",
        "OpenMP": str(date) if date else "no: the kernels are serial",
        "threads": str(threads.get_num_threads()),
        "compiler": probe.compiler(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "machine": f"{platform.machine()}, {platform.system()}",
    }


def show_config() -> None:
    """Print the instruction set, OpenMP, threads, compiler and versions in use."""
    settings = config()
    width = max(map(len, settings))
    for name, value in settings.items():
        print(f"{name:<{width}}  {value}")
