"""The suite `elementwise`: each operation beyond the caches, and on a small tensor.

Shapes of networks; where the batch is free, arrays of some 26 MB in float32, so that two
of them are larger than most last-level caches.
"""

from collections.abc import Iterator

from benchmarks.elementwise import OPERATIONS

_ACTIVATIONS = tuple(n for n, op in OPERATIONS.items() if op.kind == "activation")
_SOFTMAXES = ("softmax", "log_softmax")
_BATCH = ("batch_norm", "batch_norm_inference")
_FEATURES = ("layer_norm", "rms_norm")

_SHAPES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((*_ACTIVATIONS, "dropout"), "resnet_50/res2", "n32c64ih56"),
    (("relu", "silu"), "resnet_50/conv1", "n8c64ih112"),
    (("gelu", "gelu_tanh"), "vit_base/mlp", "n8c197iw3072"),
    ((*_ACTIVATIONS, "dropout"), "small/map", "n1c16ih28"),
    (("relu",), "small/features", "n64c120"),
    (_SOFTMAXES, "segmentation", "n8c21ih256"),
    (tuple(f"{name}_last" for name in _SOFTMAXES), "vit_base/attention", "n8c12ih197"),
    (tuple(f"{name}_last" for name in _SOFTMAXES), "imagenet/scores", "n8192c1000"),
    (_SOFTMAXES, "small/map", "n1c21ih28"),
    (tuple(f"{name}_last" for name in _SOFTMAXES), "small/scores", "n64c10"),
    (("cross_entropy",), "imagenet/loss", "n8192c1000"),
    (("cross_entropy",), "segmentation/loss", "n8c21ih256"),
    (("cross_entropy",), "small/mnist", "n64c10"),
    (("cross_entropy",), "small/imagenet", "n8c1000"),
    (_BATCH, "resnet_50/res2", "n32c64ih56"),
    (_BATCH, "resnet_50/conv1", "n8c64ih112"),
    (_BATCH, "resnet_50/res5", "n64c2048ih7"),
    (("batch_norm",), "dense/features", "n8192c1024"),
    (_BATCH, "small/map", "n4c16ih14"),
    (_FEATURES, "vit_base/block", "n64c197iw768"),
    (_FEATURES, "llama/block", "n1c2048iw4096"),
    (_FEATURES, "small/tokens", "n1c20iw768"),
    (("group_norm",), "resnet_50_gn/res2", "n32c64ih56g32"),
    (("group_norm",), "unet/block1", "n8c128ih64g32"),
    (("group_norm",), "small/map", "n1c32ih16g8"),
    (("instance_norm",), "style/conv1", "n8c64ih112"),
    (("instance_norm",), "style/residual", "n16c128ih56"),
    (("instance_norm",), "small/map", "n1c16ih28"),
    (("local_response_norm",), "alexnet/norm1", "n32c96ih55"),
    (("local_response_norm",), "alexnet/norm2", "n32c256ih27"),
    (("local_response_norm",), "small/map", "n1c16ih28"),
)

_TINY: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (tuple(OPERATIONS), "tiny/map", "n2c6ih4iw3g3"),
    (tuple(OPERATIONS), "tiny/signal", "n2c4iw5g2"),
    ((*_ACTIVATIONS, "cross_entropy", "softmax"), "tiny/features", "n3c5"),
)


def _entries(
    shapes: tuple[tuple[tuple[str, ...], str, str], ...],
) -> Iterator[tuple[str, str, str]]:
    for ops, name, spelling in shapes:
        for op in ops:
            yield name, op, spelling


ELEMENTWISE = tuple(_entries(_SHAPES))
TINY_ELEMENTWISE = tuple(_entries(_TINY))
