"""The loops: one source each, compiled once for every instruction set.

::

    vector.pxd      one vector type, its registers; the only file that knows an ISA
    tile.pxd        the register tile, in which all arithmetic of convolution happens
    geometry.pxd    which inputs an output sees, for each direction
    border.pxd      which element lies beyond the border
    pack.pxd        patches and weights in the order in which the tile reads them
    band.pxd        the part of the source that a block of outputs reads
    targets.pxd     where the outputs of a block belong
    transpose.pxd   rows to columns, in registers
    buffers.pyx     the arrays of a call as plain memory
    checked.pxd     assertions on addresses, in builds that find faults
    activation.pxd  what is done to results before they leave the cache
    finite.pxd      whether results are finite
    rounds.pxd      rounds of tasks, parts of scratch, sums of chunks
    patch.pxd       parts of images as vectors of channels, and what lies around x
    winograd.pxd    transforms that save multiplications, and their tiles
    planes.pxd      tiles of rows and columns, for few channels a group
    planes_ends.pxd the ends of their rows, where a border is no zeros
    fft.pxd         Fourier transforms of tiles, channels in the lanes
    fft_tiles.pxd   their lengths, and where they lie in images
    fft_tasks.pxd   how convolutions by them are split, fft_weight_tasks.pxd the gradients
    fft_weights.pxd spectra of weights
    vector_compare.pxd  maxima and their labels, lane by lane
    words.pxd       32-bit integers in lanes
    pool_flat.pxd   planes in which each tap of a pooling is one address offset
    vector_wide.pxd lanes of float64 from either type
    pool_planes.pxd means of whole planes            pool_strips.pxd  of small windows
    pool_pairs.pxd  over pairs of columns
    pool_turned.pxd of small planes, in the lanes    pool_rows.pxd    of others, by rows
    pool_places.pxd which elements a mean takes      pool_sums.pxd    sums along lines
    pool_shares.pxd what windows give back           pool_spread.pxd  the same, by phases
    pool_image.pxd  images of x that are laid out so
    pool_long.pxd   sums of large windows            pool_scatter_labels.pxd  to what won
    elements.pxd    going through arrays element by element
    vector_math.pxd exp, log, tanh and the normal distribution in lanes
    log_sum.pxd     maxima and sums of exponentials, along rows and columns
    truth.pxd       what a target says about each class
    philox.pxd      random numbers of a key and a place
    conv_*.pyx      a convolution algorithm each          pool_*.pyx   pooling
    pad.pyx         an array with what lies around it
    local.pxd       weights that are not shared between places
    sparse.pyx      sums over chosen inputs
    update.pyx      steps of optimisers, in place
    norm_*.pyx      normalisation: of channels, of rows, by neighbours
    moments.pxd     its sums of runs, and the lines that normalise
    channel_sums.pxd  sums over a batch, in parts
    powers.pxd      t to the power -3/4 without roots
    activations.pyx functions of one element              prelu.pyx    learned slopes
    softmax.pyx, cross_entropy.pyx                        dropout.pyx  zeros at random
    probe.pyx       what the processor can do             omp.pxd    OpenMP's questions
    memory.pyx      memory of results, used again         teams.pyx  threads of a call
    baseline/  x86_64_v3/  x86_64_v4/     the homes of the compiled copies

A kernel gets a geometry and contiguous arrays of any rank, checks their types and sizes
and nothing else, and runs without the GIL.
"""

import os
from importlib import import_module
from types import ModuleType

# How long GCC's OpenMP lets a thread wait by turning before it sleeps. Its own 300,000
# turns take a processor from those who need it, the thread that is waited for among
# them; 20,000 are enough from one layer to the next (docs/decisions.md). It reads the
# variable when it is loaded, by the first kernel of a process.
_TURNS = {"GOMP_SPINCOUNT": "20000"}
_ours = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
if _ours:
    os.environ.update(_TURNS)
try:
    from convcore.kernels import probe as probe
except ImportError as error:
    raise ImportError(
        f"convcore: no compiled kernels in {__path__[0]}. In a source checkout, build "
        "them in place with `pip install -e .`; after `pip install .`, leave the checkout."
    ) from error
finally:
    if _ours:
        del os.environ["GOMP_SPINCOUNT"]


def load(name: str, isa: str) -> ModuleType:
    """Import the copy of a kernel that was compiled for an instruction set."""
    return import_module(f"convcore.kernels.{isa}.{name}")
