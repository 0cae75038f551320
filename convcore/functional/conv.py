"""Convolution, forward and backward, for 1, 2 and 3 axes.

"Convolution" is what networks call so: cross-correlation, the kernel is not turned
around. `flip=True` turns it around along every axis, the convolution of mathematics.
"""

from collections.abc import Collection
from typing import Any

from convcore.functional._checks import GRADIENTS
from convcore.functional._convolution import Grads, backward, forward
from convcore.functional._outs import Outs
from convcore.functional.partial_conv import renormalised, renormalised_backward
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array


def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    border: str | None = None,
    flip: bool = False,
    activation: str | None = None,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve along one axis.

    As `conv2d`, with x (N, C_in, W) and weight (C_out, C_in / groups, KW).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    >>> conv1d(x, np.array([[[1.0, 10.0]]]))
    array([[[21., 32., 43.]]])
    """
    geometry = (stride, padding, dilation, groups, padding_mode, padding_value)
    how = (*geometry, activation, algorithm)
    operands = (x, weight, bias, out)
    if border is not None:
        return renormalised("conv1d", 1, operands, how, flip, border)
    return forward("conv1d", 1, operands, how, flip)


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    border: str | None = None,
    flip: bool = False,
    activation: str | None = None,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve along two axes.

    Parameters
    ----------
    x : (N, C_in, H, W) or (C_in, H, W), float32 or float64
        Input; any strides, copied once if it is not C-contiguous. N may be 0.
    weight : (C_out, C_in / groups, KH, KW), dtype of x
        One kernel for each pair of an output channel and an input channel of its group.
    bias : (C_out,), dtype of x, optional
        Added to every output of a channel.
    stride : int or (int, int), >= 1
        Elements of x between neighbouring windows.
    padding : int, (int, int), ((lo, hi), (lo, hi)), "valid", "same" or "full"
        Elements before and after each axis of x. "valid" is none, "same" gives
        ceil(H / stride) outputs with the odd one at the end, "full" gives an output for
        every window that meets x. `conv1d` also takes "causal": all of it before x.
    dilation : int or (int, int), >= 1
        Elements of x between neighbouring taps of the kernel; 1 is dense.
    groups : int
        Parts of the channels that do not see each other; divides C_in and C_out.
    padding_mode : str
        What lies there: "zeros", "constant" (`padding_value`), or elements of x: with
        "reflect" its border elements are mirrors, with "symmetric" the mirrors lie
        between two elements, "replicate" repeats the border elements, "circular" starts
        again at the other end. Paddings wider than x repeat the pattern, as in
        `numpy.pad`.
    padding_value : float
        Of a constant border; finite.
    border : "renormalise", optional
        Scale what windows at the border sum by all taps over those on x, so that it
        counts as much as in the middle: `partial_conv2d`, which also takes a mask.
    flip : bool
        Turn the kernel around first: the convolution of mathematics.
    activation : "relu", optional
        Replace negative results by 0 before they leave the cache: the bits that `relu`
        would give, without its pass over memory. `conv2d_backward` is that of the
        convolution alone; it takes what `relu_backward(grad_output, y)` gives.
    out : (N, C_out, OH, OW), dtype of x, optional
        Where to write; C-contiguous, and not overlapping an input.
    algorithm : str
        "auto", or the name of one: see `convcore.explain`.

    Returns
    -------
    y : (N, C_out, OH, OW), dtype of x
        OH = floor((H + lo + hi - dilation * (KH - 1) - 1) / stride) + 1, OW likewise;
        without N when x came without it.

    Raises
    ------
    ValueError
        For a value or shape that does not fit; the message names the argument.
    TypeError
        For a type or dtype that does not fit.

    Notes
    -----
    2 * N * C_out * OH * OW * (C_in / groups) * KH * KW floating-point operations. Sums are
    formed in the dtype of x, in an order that depends on the shape of one sample alone:
    the same bits for any number of threads and any batch. The error is at most
    (2 * sqrt(K) + 4) * u * (sum of |x||weight| + |bias|) for K terms.

    References
    ----------
    .. [1] Dumoulin and Visin, A guide to convolution arithmetic for deep learning,
       arXiv:1603.07285, sections 2 and 5.1 (dilation).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.ones((1, 1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    geometry = (stride, padding, dilation, groups, padding_mode, padding_value)
    how = (*geometry, activation, algorithm)
    operands = (x, weight, bias, out)
    if border is not None:
        return renormalised("conv2d", 2, operands, how, flip, border)
    return forward("conv2d", 2, operands, how, flip)


def conv3d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    border: str | None = None,
    flip: bool = False,
    activation: str | None = None,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve along three axes.

    As `conv2d`, with x (N, C_in, D, H, W) and weight (C_out, C_in / groups, KD, KH, KW).

    Examples
    --------
    >>> import numpy as np
    >>> conv3d(np.ones((1, 2, 3, 3, 3)), np.ones((1, 2, 3, 3, 3))).item()
    54.0
    """
    geometry = (stride, padding, dilation, groups, padding_mode, padding_value)
    how = (*geometry, activation, algorithm)
    operands = (x, weight, bias, out)
    if border is not None:
        return renormalised("conv3d", 3, operands, how, flip, border)
    return forward("conv3d", 3, operands, how, flip)


def conv1d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    border: str | None = None,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv1d`; as `conv2d_backward`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[1.0, 10.0]]])
    >>> conv1d_backward(np.ones((1, 1, 2)), x, weight)
    (array([[[ 1., 11., 10.]]]), array([[[3., 5.]]]), array([2.]))
    """
    geometry = (stride, padding, dilation, groups, padding_mode, padding_value)
    how = (*geometry, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _gradients("conv1d_backward", 1, operands, how, (flip, border), out)


def conv2d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    border: str | None = None,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv2d` with respect to x, weight and bias.

    Parameters
    ----------
    grad_output : (N, C_out, OH, OW) or (C_out, OH, OW), float32 or float64
        Gradient of the loss with respect to the result of the convolution.
    x, weight : arrays
    stride, padding, dilation, groups, padding_mode, padding_value, border, flip, algorithm
        What `conv2d` was called with.
    needs : collection of "x", "weight", "bias"
        Which gradients to compute.
    out : tuple of (array or None), optional
        Where to write the three results, in their order; None for new memory.

    Returns
    -------
    grad_x, grad_weight, grad_bias : arrays of the shapes of x, weight, (C_out,), or None
        None where not needed.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`, and when grad_output does not have the shape of the result.

    Notes
    -----
    As many operations for each of grad_x and grad_weight as `conv2d` needs. A strided
    gradient of x is computed phase by phase; no zero is ever inserted and multiplied.
    Elements of x that no window reaches get exactly 0. Where elements of x lie beyond
    its border, too, they get the gradient of both places. The bits of all three do not
    depend on the number of threads.

    References
    ----------
    .. [1] Dumoulin and Visin, arXiv:1603.07285, section 4.
    .. [2] Goodfellow, Bengio and Courville, Deep Learning (2016), section 9.5.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> grad_x, _, _ = conv2d_backward(np.ones((1, 1, 2, 2)), x, weight, needs=["x"])
    >>> grad_x
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    geometry = (stride, padding, dilation, groups, padding_mode, padding_value)
    how = (*geometry, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _gradients("conv2d_backward", 2, operands, how, (flip, border), out)


def conv3d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    border: str | None = None,
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv3d`; as `conv2d_backward`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 2, 2, 2)), np.ones((1, 1, 2, 2, 2))
    >>> conv3d_backward(np.ones((1, 1, 1, 1, 1)), x, weight, needs=["bias"])
    (None, None, array([1.]))
    """
    geometry = (stride, padding, dilation, groups, padding_mode, padding_value)
    how = (*geometry, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return _gradients("conv3d_backward", 3, operands, how, (flip, border), out)


def _gradients(
    function: str,
    ndim: int,
    operands: tuple[Array, Array, Array, Collection[str]],
    how: tuple[Any, ...],
    kernel: tuple[bool, str | None],
    out: Any,
) -> Grads:
    """Do the backward pass in any rank; `kernel` is flip and border."""
    flip, border = kernel
    if border is None:
        return backward(function, ndim, operands, how, flip, out=out)
    return renormalised_backward(function, ndim, operands, how, flip, border, out)
