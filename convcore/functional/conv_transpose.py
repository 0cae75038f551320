"""Transposed convolution, forward and backward, for 1, 2 and 3 axes."""

from collections.abc import Collection

from convcore.functional._checks import GRADIENTS
from convcore.functional._convolution import Grads, backward, forward
from convcore.functional._outs import Outs
from convcore.problem import Padding, Size
from convcore.runtime.arrays import Array


def conv_transpose1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    flip: bool = False,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve transposed along one axis.

    As `conv_transpose2d`, with x (N, C_in, W) and weight (C_in, C_out / groups, KW).

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose1d(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]]), stride=2)
    array([[[ 1., 10.,  2., 20.]]])
    """
    geometry = (stride, padding, output_padding, groups, dilation, padding_mode)
    how = (*geometry, None, algorithm)
    return forward("conv_transpose1d", 1, (x, weight, bias, out), how, flip, True)


def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    flip: bool = False,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve transposed along two axes: the adjoint of `conv2d`, plus a bias.

    Parameters
    ----------
    x : (N, C_in, H, W) or (C_in, H, W), float32 or float64
    weight : (C_in, C_out / groups, KH, KW), dtype of x
    bias : (C_out,), dtype of x, optional
    stride : int or (int, int), >= 1
        Elements of the result between the kernels that neighbours in x put there.
    padding : int, (int, int), ((lo, hi), (lo, hi)), "valid", "same" or "full"
        Elements cut from the result: the padding of the convolution that is transposed.
        "same" gives H * stride + output_padding outputs.
    output_padding : int or (int, int)
        Elements added at the end of each axis; below the stride or the dilation.
    padding_mode : str
        Of the convolution that is transposed, all but "constant", which has no
        transpose: what "zeros" cuts from the result, the others add to the elements of
        it that would have lain there.
    groups, dilation, flip, out, algorithm
        As in `conv2d`; groups divides C_in.

    Returns
    -------
    y : (N, C_out, OH, OW), dtype of x
        OH = (H - 1) * stride - lo - hi + dilation * (KH - 1) + output_padding + 1.

    Raises
    ------
    ValueError, TypeError
        For an argument that does not fit; the message names it.

    Notes
    -----
    Computed as the gradient of x of a convolution, with its cost, bounds and promises.

    References
    ----------
    .. [1] Dumoulin and Visin, arXiv:1603.07285, section 4.
    .. [2] Zeiler et al., Deconvolutional Networks, CVPR 2010.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    geometry = (stride, padding, output_padding, groups, dilation, padding_mode)
    how = (*geometry, None, algorithm)
    return forward("conv_transpose2d", 2, (x, weight, bias, out), how, flip, True)


def conv_transpose3d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    flip: bool = False,
    out: Array | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve transposed along three axes.

    As `conv_transpose2d`, with x (N, C_in, D, H, W) and weight
    (C_in, C_out / groups, KD, KH, KW).

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose3d(np.ones((1, 1, 1, 1, 1)), np.ones((1, 2, 2, 2, 2))).shape
    (1, 2, 2, 2, 2)
    """
    geometry = (stride, padding, output_padding, groups, dilation, padding_mode)
    how = (*geometry, None, algorithm)
    return forward("conv_transpose3d", 3, (x, weight, bias, out), how, flip, True)


def conv_transpose1d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv_transpose1d`.

    As `conv_transpose2d_backward`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]])
    >>> conv_transpose1d_backward(np.ones((1, 1, 3)), x, weight)
    (array([[[11., 11.]]]), array([[[3., 3.]]]), array([3.]))
    """
    geometry = (stride, padding, output_padding, groups, dilation, padding_mode)
    how = (*geometry, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return backward("conv_transpose1d_backward", 1, operands, how, flip, True, out)


def conv_transpose2d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv_transpose2d` with respect to x, weight and bias.

    Parameters
    ----------
    grad_output : (N, C_out, OH, OW) or (C_out, OH, OW), float32 or float64
        Gradient of the loss with respect to the result.
    x, weight : arrays
    stride, padding, output_padding, groups, dilation, padding_mode, flip, algorithm
        What `conv_transpose2d` was called with.
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
        As `conv_transpose2d`, and when grad_output does not have the result's shape.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))
    >>> grads = conv_transpose2d_backward(np.ones((1, 1, 3, 3)), x, weight)
    >>> [grad.ravel().tolist() for grad in grads]
    [[4.0, 4.0, 4.0, 4.0], [4.0, 4.0, 4.0, 4.0], [9.0]]
    """
    geometry = (stride, padding, output_padding, groups, dilation, padding_mode)
    how = (*geometry, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return backward("conv_transpose2d_backward", 2, operands, how, flip, True, out)


def conv_transpose3d_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    padding_mode: str = "zeros",
    flip: bool = False,
    needs: Collection[str] = GRADIENTS,
    out: Outs | None = None,
    algorithm: str = "auto",
) -> Grads:
    """Compute the gradients of `conv_transpose3d`.

    As `conv_transpose2d_backward`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 1, 1, 1, 1)), np.ones((1, 1, 2, 2, 2))
    >>> conv_transpose3d_backward(np.ones((1, 1, 2, 2, 2)), x, weight, needs=["x"])
    (array([[[[[8.]]]]]), None, None)
    """
    geometry = (stride, padding, output_padding, groups, dilation, padding_mode)
    how = (*geometry, None, algorithm)
    operands = (grad_output, x, weight, needs)
    return backward("conv_transpose3d_backward", 3, operands, how, flip, True, out)
