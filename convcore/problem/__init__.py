"""Problems: the checked, frozen integers of one convolution or one pooling.

Every shape rule of the library, and every error about a shape, lives here.
What passes is folded to three spatial axes (D, H, W), leading ones for the lower
ranks, so that everything behind this door has one code path for 1-D, 2-D and 3-D.

Along one axis, with `lo` and `hi` elements of padding::

    input   i elements          |<- lo ->|<------ i ------>|<- hi ->|
    window  reach = (k-1)*d + 1 |<- reach ->|
    output  o = (lo + i + hi - reach) // s + 1      windows, s apart

All arithmetic is done in Python integers, which do not overflow; a problem whose
arrays could not be addressed with 63 bits is refused.
"""

from convcore.problem.conv import ConvProblem, Direction
from convcore.problem.pool import PoolProblem
from convcore.problem.rules import Padding, Pair, Size, Triple

__all__ = [
    "ConvProblem",
    "Direction",
    "Padding",
    "Pair",
    "PoolProblem",
    "Size",
    "Triple",
]
