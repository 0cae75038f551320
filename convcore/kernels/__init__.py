"""The loops: one source each, compiled once for every instruction set.

::

    vector.pxd      one vector type, its registers; the only file that knows an ISA
    tile.pxd        the register tile, in which all arithmetic of convolution happens
    geometry.pxd    which inputs an output sees, for each direction
    pack.pxd        patches and weights in the order in which the tile reads them
    conv_*.pyx      a convolution algorithm each          pool_*.pyx   pooling
    probe.pyx       what the processor can do             omp.pxd    OpenMP's questions
    baseline/  x86_64_v3/  x86_64_v4/     the homes of the compiled copies

A kernel gets flat buffers and a geometry, checks their sizes and nothing else, and runs
without the GIL.
"""

from importlib import import_module
from types import ModuleType

try:
    from convcore.kernels import probe as probe
except ImportError as error:
    raise ImportError(
        f"convcore: no compiled kernels in {__path__[0]}. In a source checkout, build "
        "them in place with `pip install -e .`; after `pip install .`, leave the checkout."
    ) from error


def load(name: str, isa: str) -> ModuleType:
    """Import the copy of a kernel that was compiled for an instruction set."""
    return import_module(f"convcore.kernels.{isa}.{name}")
