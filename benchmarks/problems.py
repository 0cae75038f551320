"""Suites: the named layers that are measured.

The rows of data/layers.json come from public benchmarks (sources and licences in its
`meta`); a few are written here, and those that are bound by memory in
`elementwise_suite` and `pool_extra`.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.elementwise_suite import ELEMENTWISE, TINY_ELEMENTWISE
from benchmarks.pool_extra import POOL_EXTRA, TINY_POOL_EXTRA
from benchmarks.rows import Row, named

_DATA = Path(__file__).parent / "data" / "layers.json"

# Call overhead shows here: the first is the smallest convolution that anyone calls.
_SMALL = (
    ("small/one_channel", "conv", "n1g1ic1ih8oc1kh3"),
    ("small/one_channel_same", "conv", "n1g1ic1ih8oc1kh3ph1"),
    ("small/lenet_conv1", "conv", "n1g1ic1ih28oc6kh5"),
    ("small/lenet_conv2", "conv", "n1g1ic6ih12oc16kh5"),
    ("small/rgb", "conv", "n1g1ic3ih32oc16kh3ph1"),
    ("small/depthwise", "conv", "n1g16ic16ih16oc16kh3ph1"),
    ("small/signal", "conv", "n1g1ic1iw256oc4kw9pw4"),
    ("small/max_pool", "max_pool", "n1c6ih24kh2sh2"),
    ("small/avg_pool", "avg_pool", "n1c6ih24kh2sh2"),
)

# Over in a moment, and no two alike: for tests, and to try the tool.
_TINY = (
    ("tiny/plain", "conv", "n2g1ic3ih8iw9oc4kh3ph1"),
    ("tiny/strided_groups", "conv", "n2g2ic4ih9oc6kh3kw2sh2ph1"),
    ("tiny/dilated", "conv", "n1g1ic2ih11oc3kh3ph2dh2"),
    ("tiny/lopsided", "conv", "n2g1ic2ih7oc3kh4sh2ph1_2pw0_1"),
    ("tiny/depthwise", "conv", "n2g5ic5ih10oc10kh3sh2ph1"),
    ("tiny/pointwise", "conv", "n2g1ic5ih6oc7kh1sh2"),
    ("tiny/signal", "conv", "n2g1ic3iw20oc4kw5pw4dw2"),
    ("tiny/volume", "conv", "n1g1ic2id5ih6iw7oc3kd2kh3pd1"),
    ("tiny/transposed", "conv_transpose", "n2g2ic4ih9oc6kh3sh2ph1"),
    ("tiny/transposed_rest", "conv_transpose", "n1g1ic3ih8oc2kh3sh2ph1"),
    ("tiny/transposed_signal", "conv_transpose", "n2g1ic3iw16oc2kw4sw3pw1"),
    ("tiny/max_pool", "max_pool", "n2c3ih9kh3sh2ph1"),
    ("tiny/max_pool_dilated", "max_pool", "n1c2iw12kw3sw2pw1dw2"),
    ("tiny/max_pool_volume", "max_pool", "n1c2id6kd2sd2"),
    ("tiny/avg_pool", "avg_pool", "n2c3ih9kh3sh2ph1ceil"),
    ("tiny/avg_pool_signal", "avg_pool", "n2c3iw10kw4sw3pw1"),
    ("tiny/global", "global_avg_pool", "n2c3ih5iw4oh1"),
    ("tiny/global_signal", "global_avg_pool", "n2c3iw9ow1"),
    ("tiny/adaptive", "adaptive_avg_pool", "n1c2ih7oh3"),
    ("tiny/adaptive_volume", "adaptive_avg_pool", "n1c2id4od2"),
)

# Pooling layers that the source of the others does not have: the end of networks, a
# squeeze (Hu et al. 2018), a pyramid (Zhao et al. 2017), sound, a video network.
_POOL = (
    ("resnet_50/pool1", "max_pool", "n8c64ih112kh3sh2ph1"),
    ("resnet_50/pool5", "global_avg_pool", "n64c2048ih7oh1"),
    ("mobilenet_v2/pool", "global_avg_pool", "n8c1280ih7oh1"),
    ("se_resnet_50/squeeze2", "global_avg_pool", "n32c256ih56oh1"),
    ("tcn/pool", "global_avg_pool", "n64c512iw1000ow1"),
    ("slow_50/pool5", "global_avg_pool", "n8c2048id4ih7iw7od1"),
    ("vgg_16/pool", "adaptive_avg_pool", "n32c512ih14oh7"),
    ("pspnet/pool6", "adaptive_avg_pool", "n8c512ih60oh6"),
    ("pspnet/pool7", "adaptive_avg_pool", "n8c512ih60oh7"),
    ("m5/pool1", "max_pool", "n64c128iw4000kw4"),
    ("m5/pool1", "avg_pool", "n64c128iw4000kw4sw4"),
    ("wavenet/pool", "max_pool", "n8c64iw32000kw3sw2pw1"),
    ("c3d/pool2", "max_pool", "n4c128id16ih56iw56kd2sd2"),
    ("i3d/pool3a", "max_pool", "n2c192id16ih56iw56kd1kh3kw3sd1sh2sw2pd0ph1pw1"),
    ("r3d/pool", "avg_pool", "n4c64id16ih56iw56kd2sd2"),
)

# Twenty rows of the suites around `core`, to be measured with it.
_EXTRA = (
    "dilated/18",
    "dilated/20",
    "dilated/42/dw",
    "tails/21",
    "tails/23",
    "tails/5~3",
    "small_spatial/1",
    "small_spatial/2",
    "small_spatial/3",
    "1d/8",
    "1d/21",
    "1d/3~2",
    "3d_i3d/row05",
    "3d_i3d/row20",
    "3d_resnext101/conv_3d:2",
    "movinet_dw/conv_3",
    "deconv_1d/alexnet:deconv2",
    "deconv_2d/googlenet_v1:conv1/7x7_s2",
    "deconv_2d/resnet_50:res3a_branch1",
    "deconv_3d/unet_3d:deconv8",
)


def suites() -> tuple[str, ...]:
    """Names that `suite` knows."""
    return (*_layers()["suites"], *_WRITTEN, "extra")


def suite(name: str) -> tuple[Row, ...]:
    """Give the rows of a suite, in their order, with the batch to be measured.

    Raises
    ------
    ValueError
        When there is no suite of that name.

    Examples
    --------
    >>> suite("core")[0].spelling
    'n13g1ic3ih224oc64kh7sh2ph3'
    """
    if name not in suites():
        raise ValueError(
            f"suite: name must be one of {', '.join(suites())}, got {name!r}"
        )
    if name == "extra":
        known = {row.name: row for other in _layers()["suites"] for row in suite(other)}
        return tuple(known[wanted] for wanted in _EXTRA)
    written = _POOL if name == "pool" else _WRITTEN.get(name, ())
    rows = [row for entry in written for row in _rows(*entry)]
    for entry in _layers()["suites"].get(name, ()):
        for op in entry["op"] if isinstance(entry["op"], list) else [entry["op"]]:
            batch = entry.get("bench_n")
            rows += [
                row.with_batch(batch) if batch else row
                for row in _rows(entry["name"], op, entry["problem"])
            ]
    return tuple(rows)


def _rows(name: str, op: str, spelling: str) -> Iterator[Row]:
    """Give the row; a max pooling is measured without and with its indices."""
    yield named(name, op, spelling)
    if op == "max_pool":
        yield named(name, "max_pool_indices", spelling)


@cache
def _layers() -> dict[str, Any]:
    layers: dict[str, Any] = json.loads(_DATA.read_text("utf-8"))
    return layers


_WRITTEN = {
    "small": _SMALL,
    "tiny": _TINY,
    "elementwise": ELEMENTWISE,
    "tiny_elementwise": TINY_ELEMENTWISE,
    "pool_extra": POOL_EXTRA,
    "tiny_pool_extra": TINY_POOL_EXTRA,
}
