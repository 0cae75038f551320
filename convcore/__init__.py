"""Convolution, pooling and their backward passes for NumPy arrays.

`convcore.functional` has the operations as functions of arrays, `convcore.nn` the layers
made of them; `import convcore.reference` for the same operations from their definitions.
Importing
compiles nothing, starts no thread, and leaves the floating-point mode alone.

Examples
--------
>>> import numpy as np
>>> from convcore import functional as F
>>> F.conv2d(np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)).shape
(1, 4, 6, 6)
"""

from convcore import functional, init, nn, optim, train
from convcore.plan import explain
from convcore.problem import ConvProblem, PoolProblem
from convcore.runtime.buffers import keep_memory
from convcore.runtime.config import __version__, show_config
from convcore.runtime.precision import precision
from convcore.runtime.threads import get_num_threads, num_threads, set_num_threads
from convcore.runtime.workspace import release_memory
from convcore.tuning import autotune, forget_tuned

__all__ = [
    "ConvProblem",
    "PoolProblem",
    "__version__",
    "autotune",
    "explain",
    "forget_tuned",
    "functional",
    "get_num_threads",
    "init",
    "keep_memory",
    "nn",
    "num_threads",
    "optim",
    "precision",
    "release_memory",
    "set_num_threads",
    "show_config",
    "train",
]
