"""Libraries in this process, started once a file."""

from collections.abc import Iterator

import pytest

from benchmarks import peers

IN_PROCESS = ("convcore", "window", "scipy")


@pytest.fixture(scope="module")
def libraries() -> Iterator[dict[str, peers.Peer]]:
    started = {name: peers.load(name) for name in IN_PROCESS}
    for library in started.values():
        library.start(2)
    yield started
    import convcore

    convcore.set_num_threads(None)
