# Packing: what the register tile reads, in the order in which it reads it.
#
# What      columns: the patches that `count` neighbouring outputs see, one row for each
#           term k = (tap, channel) of their sum; the matrix "im2col", a few KB at a time.
#           weights: MR outputs side by side for each term.
# Layout                  outputs ->                       MR channels m ->
#           tap 0, c 0  [. . . . . . . .]      tap 0, c 0  [. . . .]
#           tap 0, c 1  [. . . . . . . .]      tap 0, c 1  [. . . .]
#           ...                                ...
#           Terms run through blocks of CHANNELS channels, in a block through the taps, for
#           a tap through the block's channels: the taps find the channels in L1.
#           Outputs count through samples, rows and columns without a break, so that
#           the lanes are full on small maps, too.
#           A row of a panel that lies in x in one piece is not copied: the tile gets the
#           address of each row.
# How       A run is a piece of one output row. For each tap the runs are clipped to the
#           source once, for all channels. What lies outside is a real zero, or pieces of
#           one scalar: those of the source that the border puts there, or its constant.
# Why not   A padded copy of x: with a dilation of 2**31 it would not fit anywhere.

from cython.parallel cimport prange
from libc.string cimport memset

from convcore.kernels.border cimport ZEROS, source_at
from convcore.kernels.geometry cimport Conv, Window, class_base, class_step
from convcore.kernels.vector cimport (
    MR, NR_BYTES, NV, f32v, f64v, real, vec, ahead, all_lanes, copy, merge, nr,
    zero_lanes,
)

cdef enum:
    RUNS = 128  # most outputs of one call of `columns`
    CHANNELS = 32  # channels that all taps visit before the next ones
    FILLED = -1  # in place of an offset: the constant of the border

cdef struct Class:
    Py_ssize_t before, taps, index  # taps of earlier classes, of this one; place in it

cdef struct Run:
    Py_ssize_t column, count, sample, z, y, x

cdef struct Term:
    Py_ssize_t z, y, x         # the tap
    Py_ssize_t c, first, last  # the channel, and the block of channels that it is in

cdef struct Piece:
    Py_ssize_t column, count, offset
    unsigned long long lanes  # a bit for each column, in a panel


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


cdef inline Py_ssize_t block_end(Py_ssize_t channel, Py_ssize_t channels) noexcept nogil:
    """Give the end of the block of channels that starts at `channel`."""
    return min(channel + CHANNELS, channels)


cdef inline Term term_at(const Window* w, Py_ssize_t k) noexcept nogil:
    """Give the tap and the channel of term k."""
    cdef Term term
    cdef Py_ssize_t rest = k % (CHANNELS * w.taps), size
    term.first = k // (CHANNELS * w.taps) * CHANNELS
    term.last = block_end(term.first, w.c)
    size = term.last - term.first
    term.c = term.first + rest % size
    rest = rest // size
    term.x = rest % w.x.taps
    term.y = rest // w.x.taps % w.y.taps
    term.z = rest // w.x.taps // w.y.taps
    return term


cdef inline void next_tap(const Window* w, Term* term) noexcept nogil:
    """Go on to the first channel of the next tap; without the divisions of `term_at`."""
    term.x += 1
    if term.x == w.x.taps:
        term.x = 0
        term.y += 1
        if term.y == w.y.taps:
            term.y = 0
            term.z += 1
            if term.z == w.z.taps:
                term.z = 0
                term.first = term.last
                term.last = block_end(term.first, w.c)
    term.c = term.first


cdef inline unsigned long long lane_bits(
    Py_ssize_t column, Py_ssize_t count
) noexcept nogil:
    """Set a bit for each of `count` columns from `column` on; beyond a panel none."""
    if column + count > 32:
        return 0
    return ((<unsigned long long>1 << count) - 1) << column


cdef inline Piece piece_of(
    const Run* run, Py_ssize_t left, Py_ssize_t right, Py_ssize_t offset
) noexcept nogil:
    """Describe outputs left .. right of a row, which find their scalars from `offset` on."""
    cdef Piece piece
    piece.column = run.column + left - run.x
    piece.count = right - left
    piece.lanes = lane_bits(piece.column, piece.count)
    piece.offset = offset
    return piece


cdef inline Py_ssize_t clip_border(
    const Window* w, const Run* run, Py_ssize_t iz, Py_ssize_t iy, Py_ssize_t ox,
    Py_ssize_t low, Py_ssize_t high, Piece* pieces, Py_ssize_t kept,
) noexcept nogil:
    """Add the pieces of a run of which all outputs find something; give their new number."""
    cdef Py_ssize_t x, ix, row, end = run.x + run.count
    cdef Py_ssize_t left = min(max(run.x, low), end), right = max(min(end, high), left)
    iz = source_at(w.z.border, iz, w.z.source)
    iy = source_at(w.y.border, iy, w.y.source)
    if iz < 0 or iy < 0:
        pieces[kept] = piece_of(run, run.x, end, FILLED)
        return kept + 1
    row = (run.sample * w.groups * w.c * w.z.source + iz) * w.y.source + iy
    row *= w.x.source
    x = run.x
    while x < end:
        if x == left and left < right:
            pieces[kept] = piece_of(run, left, right, row + w.x.advance * left + ox)
            x = right
        else:
            ix = source_at(w.x.border, w.x.advance * x + ox, w.x.source)
            pieces[kept] = piece_of(run, x, x + 1, row + ix if ix >= 0 else FILLED)
            x += 1
        kept += 1
    return kept


cdef inline Py_ssize_t clip(
    const Window* w, const Run* runs, Py_ssize_t number, const Term* term,
    Piece* pieces, Py_ssize_t* filled,
) noexcept nogil:
    """Keep of each run what a tap finds inside of the source; count the scalars."""
    cdef Py_ssize_t kept = 0, i, iz, iy, low, high, left, right
    cdef Py_ssize_t oz = w.z.off0 + w.z.off_step * term.z
    cdef Py_ssize_t oy = w.y.off0 + w.y.off_step * term.y
    cdef Py_ssize_t ox = w.x.off0 + w.x.off_step * term.x
    cdef Py_ssize_t s = w.x.advance
    cdef Py_ssize_t sample = w.groups * w.c * w.source_plane
    filled[0] = 0
    # Outputs low .. high of a row meet columns 0 .. source of the source's row.
    if s == 1:
        low, high = -ox, w.x.source - ox
    else:
        low = 0 if ox >= 0 else (-ox - 1) // s + 1
        high = 0 if ox >= w.x.source else (w.x.source - ox - 1) // s + 1
    for i in range(number):
        iz = w.z.advance * runs[i].z + oz
        iy = w.y.advance * runs[i].y + oy
        if w.x.border != ZEROS:
            filled[0] += runs[i].count
            kept = clip_border(w, &runs[i], iz, iy, ox, low, high, pieces, kept)
            continue
        if iz < 0 or iz >= w.z.source or iy < 0 or iy >= w.y.source:
            continue
        left = max(runs[i].x, low)
        right = min(runs[i].x + runs[i].count, high)
        if left >= right:
            continue
        pieces[kept] = piece_of(
            &runs[i], left, right,
            runs[i].sample * sample
            + (iz * w.y.source + iy) * w.x.source + s * left + ox,
        )
        filled[0] += right - left
        kept += 1
    return kept


cdef inline void every(
    real* to, const real* source, Py_ssize_t step, Py_ssize_t count
) noexcept nogil:
    """Copy every `step`-th scalar; the usual steps as constants, for the vectoriser."""
    cdef Py_ssize_t j
    if step == 2:
        for j in range(count):
            to[j] = source[2 * j]
    elif step == 4:
        for j in range(count):
            to[j] = source[4 * j]
    else:
        for j in range(count):
            to[j] = source[step * j]


cdef inline void copy_row(
    const Piece* pieces, Py_ssize_t kept, const real* plane, Py_ssize_t step,
    real* to, Py_ssize_t filled, Py_ssize_t length, double value,
) noexcept nogil:
    """Write one row of patches from its pieces, `filled` scalars, and zeros between."""
    cdef Py_ssize_t i, j
    if filled < length:
        memset(to, 0, length * sizeof(real))
    for i in range(kept):
        if pieces[i].offset < 0:
            for j in range(pieces[i].count):
                to[pieces[i].column + j] = <real>value
        elif step == 1:
            copy(to + pieces[i].column, plane + pieces[i].offset, pieces[i].count)
        else:
            every(to + pieces[i].column, plane + pieces[i].offset, step, pieces[i].count)


cdef inline void assemble_vectors(
    const Piece* pieces, Py_ssize_t kept, const vec* plane, vec* to, double value
) noexcept nogil:
    """Do `assemble` on vectors."""
    cdef Py_ssize_t i, v, lanes = NR_BYTES // NV // (4 if vec is f32v else 8)
    cdef vec row
    cdef vec constant = all_lanes(plane, value)
    cdef const vec* source
    for v in range(NV):
        row = zero_lanes(plane)
        for i in range(kept):
            source = &constant
            if pieces[i].offset >= 0:
                source = ahead(plane, pieces[i].offset - pieces[i].column + v * lanes)
            row = merge(row, source, pieces[i].lanes >> (v * lanes))
        to[v] = row


cdef inline void assemble(
    const Piece* pieces, Py_ssize_t kept, const real* plane, real* to, double value
) noexcept nogil:
    """Write one row of a panel from its pieces in registers, zeros between them."""
    if real is float:
        assemble_vectors(pieces, kept, <const f32v*>plane, <f32v*>to, value)
    else:
        assemble_vectors(pieces, kept, <const f64v*>plane, <f64v*>to, value)


cdef inline void columns(
    const Window* w, const real* source, const Run* runs, Py_ssize_t number,
    Py_ssize_t k_first, Py_ssize_t k_last, real* to, Py_ssize_t ld,
) noexcept nogil:
    """Write rows k_first .. k_last of the patches of some runs, `ld` apart.

    `source` is channel 0 of the group in sample 0. What the runs do not fill is zero.
    """
    cdef Piece pieces[RUNS]
    cdef Py_ssize_t k = k_first, c, c_last, kept, filled
    cdef Term term = term_at(w, k_first)
    while k < k_last:
        kept = clip(w, runs, number, &term, pieces, &filled)
        c_last = min(term.last, term.c + k_last - k)
        k += c_last - term.c
        for c in range(term.c, c_last):
            copy_row(
                pieces, kept, source + c * w.source_plane, w.x.advance, to, filled, ld,
                w.value,
            )
            to += ld
        next_tap(w, &term)


cdef inline void rows_of_panel(
    const Window* w, const real* source, const Run* runs, Py_ssize_t number,
    Py_ssize_t k_first, Py_ssize_t k_last, real* to, const real** rows,
) noexcept nogil:
    """Find rows k_first .. k_last of one panel: addresses of NR scalars each.

    A row that is in the source in one piece stays there, any other one is written to
    its place in `to`.
    """
    cdef Piece pieces[RUNS]
    cdef Py_ssize_t k = k_first, c, c_last, kept, filled, lanes = nr(source)
    cdef Term term = term_at(w, k_first)
    cdef const real* plane
    while k < k_last:
        kept = clip(w, runs, number, &term, pieces, &filled)
        c_last = min(term.last, term.c + k_last - k)
        k += c_last - term.c
        plane = source + term.c * w.source_plane
        if kept == 1 and filled == lanes and w.x.advance == 1 and pieces[0].offset >= 0:
            plane += pieces[0].offset
            for c in range(c_last - term.c):
                rows[c] = plane + c * w.source_plane
        else:
            for c in range(c_last - term.c):
                rows[c] = to + c * lanes
                if w.x.advance == 1:
                    assemble(
                        pieces, kept, plane + c * w.source_plane, to + c * lanes, w.value
                    )
                else:
                    copy_row(
                        pieces, kept, plane + c * w.source_plane, w.x.advance,
                        to + c * lanes, filled, lanes, w.value,
                    )
        rows += c_last - term.c
        to += (c_last - term.c) * lanes
        next_tap(w, &term)


cdef inline Class class_of(const Conv* p, bint gradient, Py_ssize_t t) noexcept nogil:
    """Find the class of tap t, and its place in it; without a gradient all are one."""
    cdef Class found
    cdef Py_ssize_t ny = p.kernel[1], nx = p.kernel[2]
    cdef Py_ssize_t z = t // (ny * nx), y = t // nx % ny, x = t % nx
    cdef Py_ssize_t sz = 1, sy = 1, sx = 1, cz, cy, cx
    if gradient:
        sz, sy, sx = class_step(p, 0), class_step(p, 1), class_step(p, 2)
    cz = (p.kernel[0] - z % sz - 1) // sz + 1  # taps of this class along each axis
    cy = (ny - y % sy - 1) // sy + 1
    cx = (nx - x % sx - 1) // sx + 1
    found.before = (
        class_base(p.kernel[0], sz, z % sz) * ny * nx
        + cz * (class_base(ny, sy, y % sy) * nx + cy * class_base(nx, sx, x % sx))
    )
    found.taps = cz * cy * cx
    found.index = (z // sz * cy + y // sy) * cx + x // sx
    return found


cdef inline void pack_weights(
    const Conv* p, bint gradient, const real* weight, Py_ssize_t first, real* to
) noexcept nogil:
    """Pack all terms of outputs first .. first + MR of one group; missing ones are zero.

    `weight` is the group's first weight. In a gradient of x the outputs are the input
    channels and the terms run over the output channels.
    """
    cdef Py_ssize_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    cdef Py_ssize_t outputs, terms, output_step, term_step
    cdef Py_ssize_t rows, block, i, c, t, k, last = 0
    cdef Class tap
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
        last = block_end(block, terms)
        for t in range(taps):
            tap = class_of(p, gradient, t)
            k = tap.before * terms + block * tap.taps + tap.index * (last - block)
            for c in range(block, last):
                for i in range(rows):
                    to[k * MR + i] = weight[i * output_step + c * term_step + t]
                k += 1


cdef inline void pack_tile(
    const Conv* p, bint gradient, Py_ssize_t tiles, Py_ssize_t index, const real* weight,
    const real* bias, real* to,
) noexcept nogil:
    """Pack weights and biases of tile `index`, counted through the groups' `tiles`."""
    cdef Py_ssize_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    cdef Py_ssize_t m = p.icg if gradient else p.ocg, c = p.ocg if gradient else p.icg
    cdef Py_ssize_t group = index // tiles, first = index % tiles * MR, i
    cdef real* biases = to + (p.g * tiles * c * taps + index) * MR
    pack_weights(
        p, gradient, weight + group * p.ocg * p.icg * taps, first, to + index * c * taps * MR
    )
    for i in range(MR):
        biases[i] = bias[group * m + first + i] if bias and first + i < m else 0


cdef inline void pack_tiles(
    const Conv* p, bint gradient, Py_ssize_t tiles, const real* weight, const real* bias,
    real* to, int threads,
) noexcept nogil:
    """Pack all weights, tile by tile, and the biases behind them."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(p.g * tiles):
            pack_tile(p, gradient, tiles, i, weight, bias, to)
        return
    for i in prange(p.g * tiles, num_threads=threads, schedule="static"):
        pack_tile(p, gradient, tiles, i, weight, bias, to)
