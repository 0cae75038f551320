"""Cases of convolutions and poolings: what looks at windows of its input."""

from dataclasses import dataclass, replace
from math import prod

from benchmarks.case import Case, Data, Ints

INDEX_BYTES = 8  # max pooling keeps int64 indices


@dataclass(frozen=True)
class WindowCase(Case):
    """One convolution or pooling, in the caller's rank.

    Parameters
    ----------
    op : str
        "conv", "conv_transpose", "max_pool" (values alone), "max_pool_indices",
        "avg_pool", "adaptive_avg_pool" or "global_avg_pool".
    weight_shape, y_shape : tuple of int
        Of the operation; a pooling has no weight, ().
    kernel, stride, dilation : tuple of int
        One entry per spatial axis; the kernel is 0 where the windows follow from the
        shapes.
    padding : tuple of (int, int)
        One (lo, hi) pair per spatial axis.
    groups : int
    output_padding : tuple of int
        Of a transposed convolution, one entry per spatial axis.
    ceil_mode : bool
        Of a pooling.
    """

    weight_shape: Ints = ()
    y_shape: Ints = ()
    kernel: Ints = ()
    stride: Ints = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: Ints = ()
    groups: int = 1
    output_padding: Ints = ()
    ceil_mode: bool = False

    @property
    def ndim(self) -> int:
        """Spatial axes."""
        return len(self.kernel)

    @property
    def symmetric(self) -> bool:
        """Whether every axis has the same padding at both ends."""
        return all(lo == hi for lo, hi in self.padding)

    @property
    def keeps_winners(self) -> bool:
        """Whether the pooling writes or reads the indices of its maxima."""
        backward = self.op == "max_pool" and self.direction == "dgrad"
        return self.op == "max_pool_indices" or backward

    @property
    def flop(self) -> int:
        """Multiplications and additions, those with padding included; 0 for pools."""
        if not self.weight_shape:
            return 0
        windows = self.x_shape if self.op == "conv_transpose" else self.y_shape
        return 2 * windows[0] * prod(windows[2:]) * prod(self.weight_shape)

    @property
    def bytes(self) -> int:
        """Bytes of every input and output, each touched once."""
        sizes = [prod(s) for s in (self.x_shape, self.weight_shape, self.y_shape) if s]
        indices = INDEX_BYTES * prod(self.y_shape) if self.keeps_winners else 0
        return self.itemsize * sum(sizes) + indices

    @property
    def shapes(self) -> dict[str, Ints]:
        """Shapes of what the direction reads; a pooling's gradient wants x, too."""
        unread = {"fprop": "grad_y", "dgrad": "x", "wgrad": "weight"}[self.direction]
        found = {"x": self.x_shape, "weight": self.weight_shape, "grad_y": self.y_shape}
        if self.direction == "dgrad" and not self.weight_shape:
            unread = ""  # for the winners, or for its shape
        return {r: shape for r, shape in found.items() if shape and r != unread}


def as_convolution(case: WindowCase, arrays: Data) -> tuple[WindowCase, Data]:
    """Turn a transposed convolution into the convolution that it transposes.

    For libraries without transposed convolution: its forward pass is the gradient of
    x there, its gradient of x the forward pass, with x and grad_y in each other's
    place. A plain convolution comes back as it is.
    """
    if case.op != "conv_transpose":
        return case, arrays
    turned = {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad"}[case.direction]
    convolution = replace(
        case,
        op="conv",
        direction=turned,
        x_shape=case.y_shape,
        y_shape=case.x_shape,
        output_padding=(),
    )
    return convolution, Data(x=arrays.grad_y, weight=arrays.weight, grad_y=arrays.x)
