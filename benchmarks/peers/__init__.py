"""The libraries that are compared, one a file; each runs in a process of its own.

A peer turns a case into a call without arguments that does the work and nothing else:
arrays are made, converted and laid out before. What it returns, `output` gives back as
a contiguous array, so that the results of all peers can be compared.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from benchmarks.case import Array, Case, Data


class Unsupported(Exception):
    """The library has no such operation, or not in reasonable time; says which."""


class Peer(Protocol):
    """What a library has to offer."""

    def start(self, threads: int) -> dict[str, str]:
        """Set the thread count of the process; give names and versions."""

    def prepare(self, case: Case, arrays: Data) -> Callable[[], Any]:
        """Give the call to be timed, or raise `Unsupported`."""

    def output(self, result: Any) -> Array:
        """Give what a call returned as a C-contiguous array."""


# name: where it lives, and whether it needs convcore in its interpreter
_PEERS = {
    "convcore": ("benchmarks.peers.with_convcore:Convcore", True),
    "reference": ("benchmarks.peers.with_reference:Reference", True),
    "roofline": ("benchmarks.roofline:Roofline", True),
    "window": ("benchmarks.peers.with_window:Window", False),
    "scipy": ("benchmarks.peers.with_scipy:Scipy", False),
    "torch-nchw": ("benchmarks.peers.with_torch:Torch", False),
    "torch-channels_last": ("benchmarks.peers.with_torch:TorchChannelsLast", False),
    "convcore-network": ("benchmarks.peers.convcore_network:ConvcoreNetwork", True),
    "torch-network-nchw": ("benchmarks.peers.torch_network:TorchNetwork", False),
    "torch-network-channels_last": (
        "benchmarks.peers.torch_network:TorchNetworkChannelsLast",
        False,
    ),
}

LIBRARIES = tuple(n for n in _PEERS if n != "roofline" and "-network" not in n)
NETWORK_LIBRARIES = tuple(n for n in _PEERS if "-network" in n)

# A name on the command line, and the peers of which the better one counts.
COLUMNS = {
    "convcore": ("convcore",),
    "reference": ("reference",),
    "window": ("window",),
    "scipy": ("scipy",),
    "torch": ("torch-nchw", "torch-channels_last"),
    "torch-nchw": ("torch-nchw",),
    "torch-channels_last": ("torch-channels_last",),
}


def load(name: str) -> Peer:
    """Import the library of that name; ImportError where it is not installed."""
    module, _, attribute = _PEERS[name][0].partition(":")
    peer: Peer = getattr(import_module(module), attribute)()
    return peer


def needs_convcore(name: str) -> bool:
    """Tell whether the peer runs in the interpreter of convcore."""
    return _PEERS[name][1]
