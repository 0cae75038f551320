"""The algorithms, in order of preference: the one place that ranks them.

`plan.select` takes the first card of a list that accepts and prefers a problem, or one that
transforms, if it is estimated to be faster. A new algorithm is a kernel, a card, and one
line here.
"""

from convcore.algorithms.base import DirectAlgorithm, PoolAlgorithm, TransformAlgorithm
from convcore.algorithms.conv_depthwise import ConvDepthwise
from convcore.algorithms.conv_direct import ConvDirect
from convcore.algorithms.conv_dot import ConvDot
from convcore.algorithms.conv_fft import ConvFft
from convcore.algorithms.conv_gemm import ConvGemm
from convcore.algorithms.conv_phases import ConvPhases
from convcore.algorithms.conv_planes import ConvPlanes
from convcore.algorithms.conv_scatter import ConvScatter
from convcore.algorithms.conv_taps import ConvTaps
from convcore.algorithms.conv_winograd import ConvWinograd
from convcore.algorithms.pool_max_flat import PoolMaxFlat
from convcore.algorithms.pool_max_places import PoolMaxPlaces
from convcore.algorithms.pool_max_planes import PoolMaxPlanes
from convcore.algorithms.pool_max_rows import PoolMaxRows
from convcore.algorithms.pool_max_same import PoolMaxSame
from convcore.algorithms.pool_max_scatter import PoolMaxScatter
from convcore.algorithms.pool_max_turned import PoolMaxTurned
from convcore.algorithms.pool_window import PoolWindow

CONV: tuple[DirectAlgorithm | TransformAlgorithm, ...] = (
    ConvDot(),
    ConvDepthwise(),
    ConvWinograd("winograd", 4),
    ConvWinograd("winograd2", 2),
    ConvFft(),
    ConvPlanes(),
    ConvTaps(),
    ConvPhases(),
    ConvScatter(),
    ConvDirect(),
    ConvGemm(),
)
POOL: tuple[PoolAlgorithm, ...] = (
    PoolMaxScatter(),
    PoolMaxPlanes(),
    PoolMaxRows(),
    PoolMaxTurned(),
    PoolMaxPlaces(),
    PoolMaxSame(),
    PoolMaxFlat(),
    PoolWindow(),
)
