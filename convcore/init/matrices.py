"""Weights that are orthogonal matrices."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convcore.arguments import Seed, generator, real
from convcore.init.drawing import float_type, weight_extents
from convcore.init.fans import fans_of
from convcore.runtime.arrays import Array

__all__ = ["orthogonal"]


def orthogonal(
    shape: Sequence[int],
    rng: Seed,
    *,
    groups: int = 1,
    transposed: bool = False,
    gain: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Draw a weight whose matrix is orthogonal, evenly over all such matrices.

    The weight of each group is read as a matrix, its first axis as rows and all others
    as columns. Its rows are orthonormal when it has no more rows than columns, else its
    columns are; times `gain`.

    Parameters and errors as for `glorot_uniform`.

    Notes
    -----
    Householder reflections of normal vectors, in float64 and with NumPy's own sums:
    about 4 r**2 (c - r/3) operations for r rows and c >= r columns, and no LAPACK,
    whose bits depend on its threads.

    References
    ----------
    Saxe, McClelland, Ganguli: Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks, ICLR 2014, section 3. Stewart: The efficient generation
    of random orthogonal matrices, SIAM J. Numer. Anal. 17 (1980), section 3.

    Examples
    --------
    >>> matrix = orthogonal((4, 2, 3, 3), rng=0, dtype=np.float64).reshape(4, 18)
    >>> bool(np.allclose(matrix @ matrix.T, np.eye(4)))
    True
    """
    name = "orthogonal"
    extents = weight_extents(name, shape)
    fans_of(name, extents, groups, transposed)
    factor = real(name, "gain", gain, least=0)
    kind, draw = float_type(name, dtype), generator(name, rng)
    rows, columns = extents[0] // groups, math.prod(extents[1:])
    matrices = np.empty((groups, rows, columns))
    for matrix in matrices:
        matrix[...] = (
            _orthonormal_rows(rows, columns, draw)
            if rows <= columns
            else _orthonormal_rows(columns, rows, draw).T
        )
    return (factor * matrices).astype(kind, copy=False).reshape(extents)


def _orthonormal_rows(rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Draw a rows x columns matrix, rows <= columns, with orthonormal rows.

    The rows are the first columns of H_0 H_1 ... D, where H_k reflects a normal vector
    of columns - k elements onto its first axis, and D holds the signs that make the
    triangular factor positive: without them the matrices would not be even.
    """
    result = np.eye(rows, columns)
    signs = np.empty((rows, 1))
    for k in reversed(range(rows)):  # so that H_k meets only what is not 0 or 1 yet
        mirror = rng.standard_normal(columns - k)
        length = math.sqrt(np.square(mirror).sum())
        signs[k] = -1.0 if mirror[0] >= 0 else 1.0
        mirror[0] -= signs[k, 0] * length  # same sign as mirror[0]: nothing cancels
        block = result[k:, k:]
        along = (block * mirror).sum(axis=1, keepdims=True)
        block -= along * (mirror * (2 / np.square(mirror).sum()))
    return result * signs
