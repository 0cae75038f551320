"""The faults: what is replaced by what, and which tests should find it.

Texts are short and central, so that they outlive most changes; one that is gone, or stands
twice, fails `tests/test_faults.py`.
"""

from typing import NamedTuple

K, F, R = "convcore/kernels/", "convcore/functional/", "convcore/runtime/"


class Edit(NamedTuple):
    """A text that stands once in a file, and what comes in its place."""

    file: str
    old: str
    new: str


class Fault(NamedTuple):
    """What is wrong, and where."""

    name: str
    kind: str
    edits: tuple[Edit, ...]
    tests: str  # files, in the order in which they are run
    modules: tuple[str, ...] = ()  # to build; those of the edits' .pyx files if empty


def fault(
    name: str, kind: str, edit: tuple[str, str, str], tests: str, *modules: str
) -> Fault:
    return Fault(name, kind, (Edit(*edit),), tests, modules)


CONV = "test_conv.py test_conv_promises.py"

FAULTS: tuple[Fault, ...] = (
    fault(
        "direct: group",
        "wrong group offset",
        (
            K + "conv_direct.pyx",
            "weight += group * job.p.ocg * job.p.icg * job.taps",
            "weight += group * job.p.ocg * job.taps",
        ),
        CONV,
    ),
    fault(
        "direct: tail",
        "missing tail of the channels",
        (
            K + "conv_direct.pyx",
            "rows = min(lanes, rows_of_group(job) - first)\n",
            "rows = min(lanes - 1, rows_of_group(job) - first)\n",
        ),
        CONV,
    ),
    fault(
        "planes: strides of the weight",
        "swapped strides",
        (
            K + "conv_planes.pyx",
            "job.weight_m, job.weight_c = job.weight_c, job.weight_m",
            "job.weight_m, job.weight_c = job.weight_m, job.weight_c",
        ),
        CONV,
    ),
    fault(
        "depthwise: dilation",
        "wrong dilation along y",
        (
            K + "conv_depthwise.pyx",
            "(y.off0 + ky * y.off_step) * f.pitch",
            "(y.off0 + ky * (1 if y.off_step > 0 else -1)) * f.pitch",
        ),
        CONV,
    ),
    fault(
        "Winograd: padding",
        "scratch that is not zeroed",
        (
            K + "conv_winograd.pyx",
            "    memset(patch, 0, job.patch * sizeof(real))\n",
            "",
        ),
        "test_winograd.py " + CONV,
    ),
    fault(
        "FFT: blocks of channels",
        "the last block of a sum alone",
        (K + "conv_fft.pyx", "zeros if k == 0 else NULL", "zeros"),
        "test_fft.py " + CONV,
    ),
    fault(
        "bgrad: samples",
        "dropped samples of a sum",
        (
            K + "conv_gemm_weight.pyx",
            "    for n in range(p.n):\n        source = dy + (n * p.g *",
            "    for n in range(p.n - 1):\n        source = dy + (n * p.g *",
        ),
        CONV,
    ),
    Fault(
        "wgrad: chunks",
        "unordered sum: split by the number of threads",
        (
            Edit(
                K + "conv_gemm_weight.pyx",
                "cdef Job make_job(const Conv* p, Py_ssize_t item)",
                "cdef Job make_job(const Conv* p, Py_ssize_t item, int threads)",
            ),
            Edit(
                K + "conv_gemm_weight.pyx",
                "min(min((TASKS - 1) // places + 1, possible), most)",
                "min(min(threads, possible), most)",
            ),
            Edit(
                K + "conv_gemm_weight.pyx",
                "make_job(p, sizeof(real))",
                "make_job(p, sizeof(real), threads)",
            ),
            Edit(
                K + "conv_gemm_weight.pyx",
                "make_job(&p, item)",
                "make_job(&p, item, threads)",
            ),
        ),
        CONV,
    ),
    fault(
        "wgrad: runs of pixels",
        "a run over the end of a sample",
        (
            K + "conv_gemm_weight.pyx",
            "min(min(count - column, plane - pixel), TURN)",
            "min(count - column, TURN)",
        ),
        CONV,
    ),
    fault(
        "taps: rows of a tile",
        "off by one in the packed weights",
        (
            K + "conv_taps.pyx",
            "cdef Py_ssize_t here = min(MR, job.rows - first)",
            "cdef Py_ssize_t here = min(MR, job.rows - first - 1)",
        ),
        CONV,
    ),
    fault(
        "geometry: taps of a phase",
        "dropped tap of a strided gradient",
        (
            K + "geometry.pxd",
            "a.taps = (k - tap - 1) // step + 1 if",
            "a.taps = (k - tap - 1) // step if",
        ),
        CONV,
        "conv_gemm",
    ),
    fault(
        "local: last samples",
        "samples behind the last tile left out",
        (
            K + "conv_local.pyx",
            "ahead(other, x), at.samples - done,",
            "ahead(other, x), 0,",
        ),
        "test_functional_local.py",
    ),
    fault(
        "sparse: samples",
        "missing mask of the last samples",
        (
            K + "sparse.pyx",
            "bits = first_lanes(min(lanes, m.n - at))",
            "bits = first_lanes(lanes)",
        ),
        "test_functional_sparse_linear.py test_functional_promises.py",
    ),
    fault(
        "pad: border index",
        "wrong border index: symmetric as reflect",
        (
            K + "border.pxd",
            "(1 if border == SYMMETRIC else 0)",
            "0",
        ),
        "test_pad.py test_border.py",
        "pad",
    ),
    fault(
        "pad: gradient",
        "gradient folded twice",
        (
            K + "pad.pyx",
            "    add_columns(f, box, right, f.count[2], rows, to)\n",
            "    add_columns(f, box, right, f.count[2], rows, to)\n" * 2,
        ),
        "test_pad.py test_border.py",
    ),
    fault(
        "max pooling: ties",
        "tie broken the wrong way",
        (
            K + "pool_max.pyx",
            "wins(c, b) | (equal & (new < old))",
            "wins(c, b) | (equal & (new > old))",
        ),
        "test_pool.py test_pool_promises.py test_max_choices.py",
    ),
    fault(
        "max pooling: NaN",
        "NaN lost",
        (
            K + "pool_max.pyx",
            "return (best == best) & (not v <= best)",
            "return v > best",
        ),
        "test_pool_promises.py test_pool.py test_max_choices.py",
    ),
    fault(
        "max pooling: index of a gradient",
        "the upper 32 bits of an index lost",
        (
            K + "pool_max_scatter.pyx",
            "bad = bad | high_words(a, b) | ~in_windows",
            "bad = bad | ~in_windows",
        ),
        "test_max_pool_scatter.py test_bad_inputs.py",
    ),
    fault(
        "mean pooling: divisor",
        "wrong divisor at the border",
        (
            K + "pool_average.pyx",
            "if first != cells(axes[i], axes[i].out - 1, p.count_pad):",
            "if False:",
        ),
        "test_pool_average.py test_pool.py",
    ),
    fault(
        "mean pooling: elements",
        "a part of the result that is not written",
        (
            K + "pool_average.pyx",
            "cut((elements_of(&m.p) - 1) // FILL + 1, 1, 1, 1, 1)",
            "cut(max(elements_of(&m.p) // FILL, 1), 1, 1, 1, 1)",
        ),
        "test_pool_average.py",
    ),
    fault(
        "norms: long windows",
        "a window left out behind each block",
        (K + "norm_slopes.pxd", "            o0 += n\n", "            o0 += n + 1\n"),
        "test_pool_power.py",
    ),
    fault(
        "norms: cubes",
        "wrong power in a gradient",
        (K + "norm_lanes.pxd", "v = cc_over(dy, v * v)", "v = cc_over(dy, v)"),
        "test_pool_power.py",
    ),
    fault(
        "blur: far windows",
        "the first element gets nothing",
        (
            K + "pool_blur.pyx",
            "if 0 <= place + j * a.stride < cells:",
            "if 0 < place + j * a.stride < cells:",
        ),
        "test_pool_average.py",
    ),
    fault(
        "blur: phases",
        "phases of a gradient that are not brought back",
        (
            K + "pool_spread.pxd",
            "    for phase in range(stride):\n",
            "    for phase in range(min(stride, 5)):\n",
        ),
        "test_pool_average.py",
        "pool_blur",
    ),
    fault(
        "batch norm: momentum",
        "old and new statistics exchanged",
        (
            K + "norm_channels.pyx",
            "cdef double new = s.momentum, old = 1 - s.momentum",
            "cdef double old = s.momentum, new = 1 - s.momentum",
        ),
        "test_norms.py test_functional_norm.py nn/test_norm.py",
    ),
    fault(
        "batch norm: rounded mean",
        "what the mean loses by rounding is lost",
        (
            K + "norm_channels.pyx",
            "        if f[0] != mean[channel]:\n",
            "        if False:\n",
        ),
        "test_norms.py",
    ),
    fault(
        "layer norm: negative variance",
        "eps under no root",
        (
            K + "norm_rows.pyx",
            "rstd[0] = 1 / sqrt(var + s.eps)",
            "rstd[0] = 1 / (sqrt(var) + s.eps)",
        ),
        "test_norms.py test_functional_norm.py nn/test_row_norm.py",
    ),
    fault(
        "softmax: maximum",
        "the last elements are not looked at",
        (
            K + "log_sum.pxd",
            "best = larger(merge(none, ahead(x, i), first_lanes(n - i)), best)",
            "pass",
        ),
        "test_functional_loss.py test_functional_activation.py",
        "softmax",
    ),
    fault(
        "cross entropy: smoothing",
        "a term of the gradient left out",
        (K + "cross_entropy.pyx", "own += k.each * weight_of(w, c)", "pass"),
        "test_functional_loss.py",
    ),
    fault(
        "dropout: counter",
        "counters overlap",
        (
            K + "philox.pxd",
            "philox(k, COUNTERS * group + c + 1, odd)",
            "philox(k, COUNTERS * group + c, odd)",
        ),
        "test_functional_dropout.py",
        "dropout",
    ),
    fault(
        "Adam: correction",
        "bias correction one step late",
        (
            "convcore/optim/adam.py",
            "self.lr / (1 - beta1**step)",
            "self.lr / (1 - beta1 ** (step + 1))",
        ),
        "test_optim.py",
    ),
    fault(
        "Adam: parts",
        "an element that no thread updates",
        (
            K + "update.pyx",
            "count = size * (t + 1) // threads - first",
            "count = size * (t + 1) // threads - first - 1",
        ),
        "test_optim.py",
    ),
    fault(
        "memory: a block twice",
        "what is lent is lent again",
        (
            K + "memory.pyx",
            "            memory = pieces[i].memory\n            remove(i)\n",
            "            memory = pieces[i].memory\n",
        ),
        "test_buffers.py",
    ),
    fault(
        "buffers: size",
        "one scalar too few is taken",
        (
            K + "buffers.pyx",
            "held.views[index].len // item != count:",
            "held.views[index].len // item < count - 1:",
        ),
        "test_pool.py",
    ),
    fault(
        "scratch: alignment",
        "scratch that is too small",
        (
            R + "workspace.py",
            "if buffer.nbytes < size + ALIGNMENT:",
            "if buffer.nbytes < size // 2:",
        ),
        "test_threads.py " + CONV,
    ),
    fault(
        "out: overlap",
        "missing check of out",
        (
            R + "arrays.py",
            "if array is not None and np.may_share_memory(out, array):",
            "if False:",
        ),
        "test_functional_outs.py test_mutations.py",
    ),
    fault(
        "problem: size",
        "missing check of overflow",
        (
            "convcore/problem/rules.py",
            "if prod(shape) * _ITEM_BYTES > MAX_BYTES:",
            "if prod(shape) % 2**64 * _ITEM_BYTES > MAX_BYTES:",
        ),
        "test_problem.py test_conv_errors.py test_bad_inputs.py",
    ),
    fault(
        "jobs: key",
        "a cache that takes True for 1",
        (
            "convcore/arguments.py",
            "if kind is int or kind is str or value is None:",
            "if kind is int or kind is str or kind is bool or value is None:",
        ),
        "test_conv_errors.py test_pool_errors.py test_mutations.py",
    ),
    fault(
        "jobs: precision",
        "a cache key without the precision",
        (
            F + "_convolution.py",
            "(cpu.isa(), precision.current())",
            '(cpu.isa(), "fast")',
        ),
        "test_transforms.py",
    ),
)
