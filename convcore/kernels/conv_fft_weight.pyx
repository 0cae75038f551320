# The gradient of weight for large kernels, by Fourier transforms of tiles.
#
# What      dw = F^-1 [ sum over tiles of F(x) * conj F(dy) ] for each pair of channels
#           (fft.pxd, fft_tiles.pxd): at each point of the spectrum a complex product of
#           matrices over tiles, as three real ones. A tile of dy has zeros behind its outputs.
# Layout    dw like weight, flat.
#
#                  3 points, c ->                o -> NR
#             tile [ x | x | ... ]        tile [ dy  ]     added to sums [panel][3 points][c][o]
#               |  [   |   |     ]   x      |  [     ]
#               v  [   |   |     ]          v  [     ]
#
# Assumes   flat native buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, block of channels, block of o, chunk of tiles). A task owns
#           its sums and transforms them back; the taps of chunks are added in a fixed tree.
#           Blocks and chunks depend on the problem alone: so the bits are the same for any
#           thread count.
# Scratch   per thread the spectra of some tiles and the sums of one task, below 8 MB; with
#           several chunks their taps: as much as dw, and what is left of 8 MB.
# Cost      as conv_fft.pyx; x is transformed once for a block of o, dy once for one of c.
# Finite    If any sum is not, the caller computes all of dw again.
# Source    as conv_fft.pyx.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, geometry_of, reals, room,
)
from convcore.kernels.fft cimport from_points, lift, list_turns, scale_of, to_points
from convcore.kernels.fft_tiles cimport (
    Place, image_at, list_numbers, place_of, transform_inputs_of, turn_tile,
)
from convcore.kernels.fft_weight_tasks cimport Job, make_job
from convcore.kernels.finite cimport are_finite
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, conv_of, volume
from convcore.kernels.rounds cimport (
    TASKS_PER_THREAD, add_tree, aligned, ceil_div, round_of, slot_of, units_of,
)
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain, sum_scattered
from convcore.kernels.transpose cimport spread
from convcore.kernels.vector cimport (
    MR, NR_BYTES, NV, VEC_BYTES, all_lanes, f32v, f64v, nr, real, vec, zero_lanes,
)


cdef inline void place(
    const Job* job, Py_ssize_t part, Py_ssize_t* group, Py_ssize_t* channel, Py_ssize_t* panel
) noexcept nogil:
    """Find the part of dw that a task sums."""
    panel[0] = part % job.panel_tasks * job.panel_block
    channel[0] = part // job.panel_tasks % job.channel_tasks * job.channels
    group[0] = part // (job.panel_tasks * job.channel_tasks)


cdef inline void transform_dy_tile(
    const Job* job, const Place* at, const int* numbers, const vec* dy, Py_ssize_t channels,
    const vec* turns, vec* tile, vec* space, vec* v,
) noexcept nogil:
    """Write those of a tile of dy, as the other factor; without channels, zeros."""
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8), f
    cdef Py_ssize_t rows = at.rows if job.m.s.y > 1 else 1
    if channels <= 0:
        for f in range(job.planes):
            memset(v + f * (job.turned // lanes), 0, sizeof(vec))
        return
    turn_tile(
        &job.m, numbers, dy, job.w.plane, channels, job.w.y.extent, job.w.x.extent, at.y,
        at.x, job.m.out_y, job.m.out_x, tile,
    )
    lift(tile, at.rows, at.columns, job.m.length_x)
    to_points(&job.m.s, <const vec*>tile, rows, turns, space, v, job.turned // lanes, True)


cdef void transform_dy(
    const Job* job, const Place* at, const real* dy, Py_ssize_t channels,
    const int* numbers, const real* turns, real* tile, real* v,
) noexcept nogil:
    """Write the points of one panel of a tile of dy; zeros fill the panel."""
    cdef Py_ssize_t lanes = nr(dy) // NV, o = 0
    cdef real* space = tile + job.tile
    dy += image_at(at.image, job.w.z.extent, job.p.g * job.p.ocg * job.w.plane, job.w.plane)
    while o < (lanes if job.narrow else nr(dy)):
        if real is float:
            transform_dy_tile(
                job, at, numbers, <const f32v*>(dy + o * job.w.plane),
                min(lanes, channels - o), <const f32v*>turns, <f32v*>tile, <f32v*>space,
                <f32v*>(v + o),
            )
        else:
            transform_dy_tile(
                job, at, numbers, <const f64v*>(dy + o * job.w.plane),
                min(lanes, channels - o), <const f64v*>turns, <f64v*>tile, <f64v*>space,
                <f64v*>(v + o),
            )
        o += lanes


cdef void multiply(
    const Job* job, Py_ssize_t tiles, Py_ssize_t channels, const real* v,
    const real* turned, Py_ssize_t* lists, const real* zeros, real* sums, bint first,
) noexcept nogil:
    """Add the products of some tiles to the sums of one panel."""
    cdef Py_ssize_t lanes = nr(v), i, k, f, here, most = chain(job.m.tiles)
    cdef Py_ssize_t* places = lists
    cdef Py_ssize_t* distances = places + job.channels + MR
    for i in range(job.channels + MR):
        places[i] = min(i, channels - 1)
    for k in range(tiles):
        distances[k] = k * job.row
    for f in range(job.planes):
        k = 0
        while k < tiles:
            here = min(most, tiles - k)
            sum_scattered(
                v + f * job.step, places, distances + k,
                turned + f * job.turned + k * lanes, here,
                zeros if first and k == 0 else <const real*>NULL, sums + f * job.sums,
                channels, job.narrow,
            )
            k += here


cdef inline void take_taps(const Job* job, const vec* tile, vec* to) noexcept nogil:
    """Write the taps of one vector of kernels, a row of NR apart; zeros if that is half empty."""
    cdef Py_ssize_t y, x, width = job.p.kernel[2]
    cdef vec scale = all_lanes(tile, scale_of(&job.m.s, tile))
    for y in range(job.p.kernel[1]):
        for x in range(width):
            to[NV * (y * width + x)] = tile[y * job.m.length_x + x] * scale
            if job.narrow:
                to[NV * (y * width + x) + 1] = zero_lanes(tile)


cdef inline void restore_vectors(
    const Job* job, const vec* sums, const vec* turns, vec* tile, vec* space, vec* to
) noexcept nogil:
    """Do `restore` on vectors."""
    cdef Py_ssize_t half, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    for half in range(1 if job.narrow else NV):
        from_points(
            &job.m.s, sums + half, job.sums // lanes, turns, space,
            job.p.kernel[1] if job.m.s.y > 1 else 1, tile,
        )
        take_taps(job, <const vec*>tile, to + half)


cdef void restore(
    const Job* job, const real* sums, const real* turns, real* tile, real* to
) noexcept nogil:
    """Transform the sums of a row of NR kernels back to their taps."""
    cdef real* space = tile + job.tile
    if real is float:
        restore_vectors(
            job, <const f32v*>sums, <const f32v*>turns, <f32v*>tile, <f32v*>space, <f32v*>to
        )
    else:
        restore_vectors(
            job, <const f64v*>sums, <const f64v*>turns, <f64v*>tile, <f64v*>space, <f64v*>to
        )


cdef bint write_kernels(
    const Job* job, Py_ssize_t group, Py_ssize_t channel, Py_ssize_t panel, Py_ssize_t count,
    const real* taps, real* dw,
) noexcept nogil:
    """Write the taps of some channels and one panel of o; tell whether all are finite."""
    cdef Py_ssize_t lanes = nr(taps), o = panel * lanes
    cdef bint finite
    if real is float:
        finite = are_finite(<const f32v*>taps, count * job.taps, NV)
    else:
        finite = are_finite(<const f64v*>taps, count * job.taps, NV)
    spread(
        taps, lanes, count * job.taps, min(lanes, job.p.ocg - o),
        dw + ((group * job.p.ocg + o) * job.p.icg + channel) * job.taps,
        job.p.icg * job.taps, 1,
    )
    return finite


cdef void run_task(
    const Job* job, Py_ssize_t task, Py_ssize_t done, Py_ssize_t until, const real* x,
    const real* dy, const real* turns, real* shared, real* private, unsigned char* lost,
    real* dw,
) noexcept nogil:
    """Sum tiles done .. until of a chunk for one part of dw."""
    cdef Py_ssize_t part = task // job.chunks, begin = task % job.chunks * job.chunk
    cdef Py_ssize_t end = min(begin + until, job.m.tiles), first = begin + done
    cdef Py_ssize_t group, channel, panel, i, j, c, tiles, channels, panels, lanes = nr(x)
    cdef Py_ssize_t taps
    cdef real* tile = private
    cdef real* taken = tile + job.tile + job.room
    cdef real* zeros = taken + job.taken
    cdef Py_ssize_t* lists = <Py_ssize_t*>(zeros + aligned(lanes))
    cdef int* numbers = <int*>(lists + job.channels + MR + job.block)
    cdef real* v = zeros + job.lists
    cdef real* turned = v + job.block * job.row
    cdef real* sums = turned + job.panel_block * job.turned_panel
    cdef Place at
    place(job, part, &group, &channel, &panel)
    channels = min(job.channels, job.p.icg - channel)
    panels = min(job.panel_block, job.panels - panel)
    x += (group * job.p.icg + channel) * job.w.source_plane
    dy += (group * job.p.ocg + panel * lanes) * job.w.plane
    memset(zeros, 0, NR_BYTES)
    list_numbers(numbers, job.m.length_x)
    while first < end:
        tiles = min(job.block, end - first)
        for i in range(tiles):
            at = place_of(&job.m, &job.w, first + i)
            transform_inputs_of(
                &job.m, &job.w, &at, x, channels, numbers, turns, tile, tile + job.tile,
                v + i * job.row, job.step,
            )
            for j in range(panels):
                transform_dy(
                    job, &at, dy + j * lanes * job.w.plane,
                    job.p.ocg - (panel + j) * lanes, numbers, turns, tile,
                    turned + j * job.turned_panel + i * lanes,
                )
        for j in range(panels):
            multiply(
                job, tiles, channels, <const real*>v,
                <const real*>turned + j * job.turned_panel, lists,
                <const real*>zeros, sums + j * job.sums_panel, first == begin,
            )
        first += tiles
    if until == job.chunk and job.chunks > 1:
        taps = panels * channels * job.taps * lanes  # what `add_tree` adds behind them is zero
        memset(shared + task * job.kernels + taps, 0, (job.kernels - taps) * sizeof(real))
    for j in range(panels if until == job.chunk else 0):
        for c in range(channels):
            if job.chunks > 1:
                taken = shared + task * job.kernels + (j * channels + c) * job.taps * lanes
            restore(
                job, <const real*>sums + j * job.sums_panel + c * lanes, turns, tile,
                taken,
            )
            if job.chunks == 1 and not write_kernels(
                job, group, channel + c, panel + j, 1, <const real*>taken, dw
            ):
                lost[part] = 1


cdef void add_chunks(
    const Job* job, Py_ssize_t part, real* shared, unsigned char* lost, real* dw
) noexcept nogil:
    """Add the chunks of one part of dw in a tree, and write it."""
    cdef real* taps = shared + part * job.chunks * job.kernels
    cdef Py_ssize_t group, channel, panel, channels, j
    place(job, part, &group, &channel, &panel)
    channels = min(job.channels, job.p.icg - channel)
    add_tree(taps, job.chunks, job.kernels)
    for j in range(min(job.panel_block, job.panels - panel)):
        if not write_kernels(
            job, group, channel, panel + j, channels,
            <const real*>taps + j * channels * job.taps * nr(taps), dw,
        ):
            lost[part] = 1


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t done, Py_ssize_t until,
    const real* x, const real* dy, const real* turns, real* dw, real* shared,
    real* private, unsigned char* lost, int threads,
) noexcept nogil:
    """Do one round of tasks, or a step of them."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, done, until, x, dy, turns, shared, private, lost, dw)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, done, until, x, dy, turns, shared,
            private + slot_of(i, begin, end, threads, threadid()) * job.private, lost, dw,
        )


cdef void add_parts(
    const Job* job, real* shared, unsigned char* lost, real* dw, int threads
) noexcept nogil:
    """Add the chunks of every part of dw."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(job.tasks // job.chunks):
            add_chunks(job, i, shared, lost, dw)
        return
    for i in prange(job.tasks // job.chunks, num_threads=threads, schedule="static"):
        add_chunks(job, i, shared, lost, dw)


cdef inline Py_ssize_t marks_of(const Job* job, Py_ssize_t item) noexcept nogil:
    """Give the scalars that take a byte for each part of dw."""
    return aligned(ceil_div(job.tasks // job.chunks, item))


cdef int run(
    const Job* job, const real* x, const real* dy, real* dw, unsigned char* flags,
    real* scratch, int threads,
) except -1:
    """Do the tasks round by round, then add their chunks."""
    cdef Py_ssize_t begin = 0, end, done, until, each, step, i
    cdef Py_ssize_t macs = job.planes * job.channels * job.panel_block * nr(x)
    cdef unsigned char* lost = <unsigned char*>scratch
    cdef real* turns = scratch + marks_of(job, sizeof(real))
    cdef real* shared = turns + aligned(job.m.s.turns)
    cdef real* private = shared + job.shared
    memset(lost, 0, job.tasks // job.chunks)
    list_turns(&job.m.s, turns)
    each = round_of(macs * job.chunk, TASKS_PER_THREAD, threads)
    step = ceil_div(units_of(macs, job.chunk), job.block) * job.block  # of whole blocks
    if step < job.chunk:
        each = threads
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        done = 0
        while done < job.chunk:
            until = min(done + step, job.chunk)
            with nogil:
                run_tasks(
                    job, begin, end, done, until, x, dy, <const real*>turns, dw, shared,
                    private, lost, threads,
                )
                if until == job.chunk and end == job.tasks and job.chunks > 1:
                    add_parts(job, shared, lost, dw, threads)
            look()
            done = until
        begin = end
    for i in range(job.tasks // job.chunks):
        if lost[i]:
            flags[0] = 1
    return 0


cdef inline Py_ssize_t scalars_of(
    const Job* job, Py_ssize_t item, int threads
) noexcept nogil:
    """Give the scalars of scratch."""
    return (
        marks_of(job, item) + aligned(job.m.s.turns) + job.shared + threads * job.private
    )


cdef int weight_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, dy, dw, scratch and the flag, and sum the gradient of weight."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real))
    cdef const real* x = reals(held, 1, p.n * p.g * p.icg * volume(p.in_extent), like)
    cdef const real* dy = reals(held, 2, p.n * p.g * p.ocg * volume(p.out_extent), like)
    cdef real* dw = reals(held, 3, p.g * p.ocg * p.icg * job.taps, like)
    cdef real* scratch = room(held, 4, scalars_of(&job, sizeof(real), threads), like)
    if p.n:
        return run(&job, x, dy, dw, flags_of(held, 5, 1), scratch, threads)
    memset(dw, 0, p.g * p.ocg * p.icg * job.taps * sizeof(real))
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that wgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, item)
    return scalars_of(&job, item, threads)


def tile_lengths(geometry, str direction, Py_ssize_t item, /):
    """Give the lengths of tiles along y and x."""
    cdef Conv p = conv_of(geometry, 1)
    cdef Job job = make_job(&p, item)
    return job.m.length_y, job.m.length_x


def wgrad(geometry, x, dy, dw, scratch, int threads, /):
    """Write the gradient of weight to dw.

    A flag comes back if it is not finite.
    """
    lost = bytearray(1)
    call(
        (geometry, x, dy), (dw, scratch, lost), threads, weight_gradient[float],
        weight_gradient[double],
    )
    return lost if lost[0] else None
