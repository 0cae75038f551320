# Where the outputs of a box belong: the other end of band.pxd.
#
# What      Sums of a panel come as rows of NR channels, output after output through a box
#           (samples, z, y, x). Each channel's go to lines of `out`; outputs of a phase of
#           a strided gradient lie a step apart, those of two phases take turns.
# Layout    sums [output][lane]  ->  out (n, channel, z, y, x), transposed in registers
# Cost      One transposition of the sums. Lines that lie together are one.
# Why not   A pass over `out` of its own: it would read and write memory once more.

from convcore.kernels.band cimport Box
from convcore.kernels.geometry cimport Window
from convcore.kernels.transpose cimport spread, spread_pair
from convcore.kernels.vector cimport nr, real


cdef inline Py_ssize_t line_at(
    const Window* w, const Box* box, Py_ssize_t n, Py_ssize_t z, Py_ssize_t y
) noexcept nogil:
    """Say where in `out` a line of a box begins, in channel 0."""
    return (box.sample + n) * w.groups * w.m * w.plane + (
        (w.z.start + w.z.step * (box.first[0] + z)) * w.height
        + w.y.start + w.y.step * (box.first[1] + y)
    ) * w.width + w.x.start + w.x.step * box.first[2]


cdef inline void list_targets(
    const Window* w, const Box* box, Py_ssize_t* targets
) noexcept nogil:
    """Write where in `out` each output of channel 0 belongs."""
    cdef Py_ssize_t n, z, y, x, line
    for n in range(box.samples):
        for z in range(box.count[0]):
            for y in range(box.count[1]):
                line = line_at(w, box, n, z, y)
                for x in range(box.count[2]):
                    targets[0] = line + w.x.step * x
                    targets += 1


cdef inline void write_panel(
    const Window* w, const Box* box, const real* sums, Py_ssize_t rows, real* out
) noexcept nogil:
    """Put the sums of one panel where they belong; `out` is its first channel."""
    cdef Py_ssize_t run = box.count[2], lines = box.count[1], sheets = box.count[0], n, z, y
    if w.dense and run == w.x.extent:
        run, lines = run * lines, 1
        if box.count[1] == w.y.extent:
            run, sheets = run * sheets, 1
    for n in range(box.samples):
        for z in range(sheets):
            for y in range(lines):
                spread(
                    sums, nr(sums), run, rows, out + line_at(w, box, n, z, y), w.plane,
                    w.x.step,
                )
                sums += run * nr(sums)


cdef inline void write_pair(
    const Window* w, const Box* box, const real* even, const real* odd,
    Py_ssize_t even_count, Py_ssize_t rows, real* out,
) noexcept nogil:
    """Put the sums of two phases that alternate along the rows where they belong.

    The window and the box are those of the odd phase.
    """
    cdef Py_ssize_t n, z, y
    for n in range(box.samples):
        for z in range(box.count[0]):
            for y in range(box.count[1]):
                spread_pair(
                    even, odd, nr(even), even_count + box.count[2], rows,
                    out + line_at(w, box, n, z, y), w.plane,
                )
                even += even_count * nr(even)
                odd += box.count[2] * nr(odd)
