# Packing: what the register tile reads, in the order in which it reads it.
#
# What      columns: the patches that `count` neighbouring outputs see, one row for each
#           term k = (tap, channel) of their sum; the matrix "im2col", a few KB at a time.
#           weights: MR outputs side by side for each term.
# Layout                  outputs ->                       MR channels m ->
#           tap 0, c 0  [. . . . . . . .]      tap 0, c 0  [. . . .]
#           tap 0, c 1  [. . . . . . . .]      tap 0, c 1  [. . . .]
#           ...                                ...
#           Outputs count through samples, rows and columns without a break, so that
#           the lanes are full on small maps, too.
# How       A run is a piece of one output row. For each tap the runs are clipped to the
#           source once, for all channels. What lies outside is a real zero.
# Why not   A padded copy of x: with a dilation of 2**31 it would not fit anywhere.

from libc.string cimport memcpy, memset

from convcore.kernels.geometry cimport Axis, Conv, Window, class_base, class_step
from convcore.kernels.vector cimport MR, NR_BYTES, copy, nr, real

cdef enum:
    RUNS = 128  # most outputs of one call of `columns`
    CHANNELS = 16  # input channels that are packed together, to stay within L1

cdef struct Run:
    Py_ssize_t column, count, sample, z, y, x

cdef struct Piece:
    Py_ssize_t column, count, offset


cdef inline Py_ssize_t list_runs(
    const Window* w, Py_ssize_t first, Py_ssize_t count, Run* runs
) noexcept nogil:
    """Split outputs first .. first + count at the ends of rows; return how many runs."""
    cdef Py_ssize_t column = 0, number = 0, rest
    cdef Run r
    r.x = first % w.x.extent
    rest = first // w.x.extent
    r.y = rest % w.y.extent
    rest = rest // w.y.extent
    r.z = rest % w.z.extent
    r.sample = rest // w.z.extent
    while column < count:
        r.column = column
        r.count = min(count - column, w.x.extent - r.x)
        runs[number] = r
        number += 1
        column += r.count
        r.x = 0
        r.y += 1
        if r.y == w.y.extent:
            r.y = 0
            r.z += 1
            if r.z == w.z.extent:
                r.z = 0
                r.sample += 1
    return number


cdef inline Py_ssize_t clip(
    const Window* w, const Run* runs, Py_ssize_t number,
    Py_ssize_t jz, Py_ssize_t jy, Py_ssize_t jx, Piece* pieces,
) noexcept nogil:
    """Keep of each run what tap (jz, jy, jx) finds inside of the source."""
    cdef Py_ssize_t kept = 0, i, iz, iy, low, high, left, right
    cdef Py_ssize_t oz = w.z.off0 + w.z.off_step * jz
    cdef Py_ssize_t oy = w.y.off0 + w.y.off_step * jy
    cdef Py_ssize_t ox = w.x.off0 + w.x.off_step * jx
    cdef Py_ssize_t s = w.x.advance
    cdef Py_ssize_t sample = w.groups * w.c * w.source_plane
    # Outputs low .. high of a row meet columns 0 .. source of the source's row.
    low = 0 if ox >= 0 else (-ox - 1) // s + 1
    high = 0 if ox >= w.x.source else (w.x.source - ox - 1) // s + 1
    for i in range(number):
        iz = w.z.advance * runs[i].z + oz
        iy = w.y.advance * runs[i].y + oy
        if iz < 0 or iz >= w.z.source or iy < 0 or iy >= w.y.source:
            continue
        left = max(runs[i].x, low)
        right = min(runs[i].x + runs[i].count, high)
        if left >= right:
            continue
        pieces[kept].column = runs[i].column + left - runs[i].x
        pieces[kept].count = right - left
        pieces[kept].offset = (
            runs[i].sample * sample
            + (iz * w.y.source + iy) * w.x.source + s * left + ox
        )
        kept += 1
    return kept


cdef inline void columns(
    const Window* w, const real* source, const Run* runs, Py_ssize_t number,
    Py_ssize_t count, Py_ssize_t k_first, Py_ssize_t k_last, real* to, Py_ssize_t ld,
) noexcept nogil:
    """Write rows k_first .. k_last of the patches of `count` outputs, `ld` apart.

    `source` is channel 0 of the group in sample 0; with `count` below `ld`, the rest of
    each row is zero.
    """
    cdef Piece pieces[RUNS]
    cdef Py_ssize_t k = k_first, tap, c, c_last, i, j, filled, kept
    cdef Py_ssize_t s = w.x.advance
    cdef const real* plane
    cdef const real* piece
    cdef real* into
    while k < k_last:
        tap = k // w.c
        c = k % w.c
        c_last = min(w.c, c + k_last - k)
        kept = clip(
            w, runs, number, tap // (w.y.taps * w.x.taps),
            tap // w.x.taps % w.y.taps, tap % w.x.taps, pieces,
        )
        filled = 0
        for i in range(kept):
            filled += pieces[i].count
        k += c_last - c
        if filled == ld and kept == 1 and s == 1 and ld == nr(source):
            piece = source + c * w.source_plane + pieces[0].offset
            for c in range(c, c_last):  # the usual case: one whole row of the tile
                memcpy(to, piece, NR_BYTES)
                piece += w.source_plane
                to += ld
            continue
        for c in range(c, c_last):
            plane = source + c * w.source_plane
            if filled < ld:
                memset(to, 0, ld * sizeof(real))
            for i in range(kept):
                piece = plane + pieces[i].offset
                into = to + pieces[i].column
                if s == 1:
                    copy(into, piece, pieces[i].count)
                else:
                    for j in range(pieces[i].count):
                        into[j] = piece[j * s]
            to += ld


cdef inline Py_ssize_t tap_position(
    const Conv* p, bint gradient, Py_ssize_t kz, Py_ssize_t ky, Py_ssize_t kx
) noexcept nogil:
    """Give a tap's place in the packed weights: class by class in a gradient of x."""
    cdef Py_ssize_t nz = p.kernel[0], ny = p.kernel[1], nx = p.kernel[2]
    cdef Py_ssize_t sz, sy, sx, cz, cy, cx
    if not gradient:
        return (kz * ny + ky) * nx + kx
    sz, sy, sx = class_step(p, 0), class_step(p, 1), class_step(p, 2)
    cz = (nz - kz % sz - 1) // sz + 1  # taps of this class along each axis
    cy = (ny - ky % sy - 1) // sy + 1
    cx = (nx - kx % sx - 1) // sx + 1
    return (
        class_base(nz, sz, kz % sz) * ny * nx
        + cz * (class_base(ny, sy, ky % sy) * nx + cy * class_base(nx, sx, kx % sx))
        + (kz // sz * cy + ky // sy) * cx + kx // sx
    )


cdef inline void pack_weights(
    const Conv* p, bint gradient, const real* weight, Py_ssize_t first, real* to
) noexcept nogil:
    """Pack all terms of outputs first .. first + MR of one group; missing ones are zero.

    `weight` is the group's first weight. In a gradient of x the outputs are the input
    channels and the terms run over the output channels.
    """
    cdef Py_ssize_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    cdef Py_ssize_t outputs, terms, output_step, term_step
    cdef Py_ssize_t rows, block, i, c, t, position, last = 0
    if gradient:
        outputs, terms, output_step, term_step = p.icg, p.ocg, taps, p.icg * taps
    else:
        outputs, terms, output_step, term_step = p.ocg, p.icg, p.icg * taps, taps
    rows = min(MR, outputs - first)
    weight += first * output_step
    if rows < MR:
        memset(to, 0, taps * terms * MR * sizeof(real))
    while last < terms:
        block = last
        last = min(block + CHANNELS, terms)
        for t in range(taps):
            position = tap_position(
                p, gradient, t // (p.kernel[1] * p.kernel[2]),
                t // p.kernel[2] % p.kernel[1], t % p.kernel[2],
            )
            for c in range(block, last):
                for i in range(rows):
                    to[(position * terms + c) * MR + i] = weight[
                        i * output_step + c * term_step + t
                    ]
