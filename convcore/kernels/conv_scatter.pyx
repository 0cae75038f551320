# The gradient of x where most windows of it would meet padding.
#
# What      dx[m, s*q + d*t - p] = bias[m] + sum over taps t of
#               sum over o of dy[o, q] * weight[o, m, t]
#           only with those q and t whose place lies in dx.
# Layout    dy (n, g*ocg, od, oh, ow), weight (g*ocg, icg, kd, kh, kw), dx like x, flat.
#           A unit is a tap and a vector of channels m; a panel is NV units: of one tap, or
#           of neighbouring taps where channels fill an odd number of vectors.
#
#                   o ->                      units -> NR
#           q  [ dy, MR outputs ]    x    o  [ weight ]     added to sums [place of q, m],
#           v  [ a scalar o     ]         v  [        ]     for each unit at its own place
#
# Assumes   buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (sample, group, planes and band of rows of dx, block of m): each
#           writes its own part of dx. To a sum the panels are added in their order, the
#           outputs of a panel in ascending order: the bits are the same for any split. A
#           chain of o is no longer than the terms of one tap allow.
# Scratch   all weights packed once; per thread the sums of a band, one tile, two lists.
# Cost      2 * oc * icg FLOPs for each pair (q, t) whose place is in dx, and a few others
#           where a panel has two taps; the sums of a tile are added to others.
# Why not   conv_direct.pyx: it multiplies the zeros around dy, 2.6 times the work for a
#           7 x 7 kernel on 16 x 16 without padding. Panels of one tap only: 16 channels
#           fill half of one; 123 GFLOP/s instead of 150 for 5 x 5 on 28 x 28 (but on
#           7 x 7, where taps differ in what they meet, 173 instead of 145).
# Source    Dumoulin and Visin, arXiv:1603.07285, section 4; Chellapilla, Puri and Simard
#           (2006) for the sums over taps ("col2im").

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, conv_of, volume
from convcore.kernels.rounds cimport TASKS_PER_THREAD, aligned, ceil_div, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport SHORT, add_halves_of, chain, sum_scattered
from convcore.kernels.transpose cimport MOST_LANES, lanes_of, spread, turn_taps
from convcore.kernels.vector cimport MR, NV, VEC_BYTES, copy, nr, real

cdef enum:
    SUM_BYTES = 131072  # of a band's sums, a fraction of L2
    FEW_PLACES = 128  # of a band: lists would cost more than sums
    NR_LIMIT = 32  # most scalars of one row of the tile

cdef struct Job:
    Conv p
    Py_ssize_t taps, vectors, blocks          # of a kernel; of all channels; blocks of them
    Py_ssize_t planes, parts, rows, bands     # of dx in a task, and how often
    Py_ssize_t outputs, block                 # most places of a list; o of a chain
    Py_ssize_t tasks, macs
    Py_ssize_t packed, shared, sums, private  # scratch in scalars

cdef struct Part:  # what a task computes
    Py_ssize_t plane, group                   # of (sample, group); the group
    Py_ssize_t z0, z1, y0, y1                 # of dx
    Py_ssize_t block, vectors, channels       # of m: vectors, and scalars that are not empty

cdef struct Unit:  # which outputs a tap brings to a part of dx, and where to
    Py_ssize_t z0, z1, y0, y1, x0, x1         # of dy
    Py_ssize_t first                          # the sum of output 0, 0, 0


cdef Job make_job(const Conv* p, Py_ssize_t item, int threads) noexcept nogil:
    """Split the work into enough tasks for `threads`."""
    cdef Job job
    cdef Py_ssize_t lanes = VEC_BYTES // item, ih = p.in_extent[1], iw = p.in_extent[2]
    cdef Py_ssize_t place, planes
    job.p = p[0]
    job.taps = volume(p.kernel)
    job.vectors = ceil_div(p.icg, lanes)
    job.blocks = max(1, job.vectors // NV)
    place = VEC_BYTES * (job.vectors if job.vectors < NV else NV + job.vectors % NV)
    job.rows = min(ih, max(1, SUM_BYTES // (iw * place)))
    job.planes = min(p.in_extent[0], max(1, SUM_BYTES // (job.rows * iw * place)))
    while True:
        job.bands = ceil_div(ih, job.rows)
        job.rows = ceil_div(ih, job.bands)
        job.parts = ceil_div(p.in_extent[0], job.planes)
        job.planes = ceil_div(p.in_extent[0], job.parts)
        job.tasks = p.n * p.g * job.parts * job.bands * job.blocks
        if job.tasks >= TASKS_PER_THREAD * threads:
            break
        if job.planes > 1 and job.planes * job.rows * iw > FEW_PLACES:
            job.planes = ceil_div(job.planes, 2)
        elif job.rows > 4:
            job.rows = ceil_div(job.rows, 2)
        else:
            break
    planes = min(p.out_extent[0], job.planes)
    job.outputs = NV * planes * min(p.out_extent[1], job.rows) * min(p.out_extent[2], iw)
    job.block = ceil_div(p.ocg, ceil_div(p.ocg, max(SHORT, chain(p.ocg))))
    job.macs = job.planes * job.rows * iw * (place // item) * p.ocg * job.taps
    job.packed = aligned(p.g * ceil_div(job.vectors * job.taps + 1, NV) * NV * lanes * p.ocg)
    job.shared = job.packed + aligned(p.g * job.vectors * lanes)
    job.sums = aligned((job.planes * job.rows * iw + MOST_LANES) * (place // item))
    job.private = (
        job.sums + (MR + 1) * NV * lanes
        + aligned((3 * (job.outputs + MR) + p.ocg) * sizeof(Py_ssize_t) // item)
    )
    return job


cdef inline Part part_of(const Job* job, Py_ssize_t task, Py_ssize_t lanes) noexcept nogil:
    """Find what a task computes."""
    cdef Part t
    cdef Py_ssize_t rest = task // job.blocks
    t.block = task % job.blocks
    t.vectors = min(NV, job.vectors)
    if t.block == job.blocks - 1:
        t.vectors = job.vectors - NV * t.block
    t.channels = min(t.vectors * lanes, job.p.icg - NV * t.block * lanes)
    t.y0 = rest % job.bands * job.rows
    t.y1 = min(t.y0 + job.rows, job.p.in_extent[1])
    rest = rest // job.bands
    t.z0 = rest % job.parts * job.planes
    t.z1 = min(t.z0 + job.planes, job.p.in_extent[0])
    t.plane = rest // job.parts
    t.group = t.plane % job.p.g
    return t


cdef inline Py_ssize_t weights_of(
    const Job* job, Py_ssize_t group, Py_ssize_t block, Py_ssize_t lanes
) noexcept nogil:
    """Find the packed weights of a block: all but the last one have NV vectors."""
    cdef Py_ssize_t panels = ceil_div(job.vectors * job.taps + 1, NV)
    return (group * panels + block * job.taps) * NV * lanes * job.p.ocg


cdef void pack_block(
    const Job* job, Py_ssize_t index, const real* weight, const real* bias, real* scratch
) noexcept nogil:
    """Pack weights, a row for each (panel, o), and biases of one block of a group."""
    cdef real turned[MOST_LANES * NR_LIMIT]
    cdef Py_ssize_t lanes = lanes_of(weight), icg = job.p.icg, ocg = job.p.ocg
    cdef Py_ssize_t group = index // job.blocks, block = index % job.blocks
    cdef Py_ssize_t vectors, first, rows, here, t, o, i, v, w, unit
    cdef real* to = scratch + weights_of(job, group, block, lanes)
    cdef real* biases = scratch + job.packed + group * job.vectors * lanes
    vectors = min(NV, job.vectors)
    if block == job.blocks - 1:
        vectors = job.vectors - NV * block
    weight += group * ocg * icg * job.taps
    memset(turned, 0, sizeof(turned))
    for v in range(ceil_div(vectors, NV)):
        first = NV * (block + v) * lanes
        rows = min(NV * lanes, icg - first)
        t = 0
        while t < job.taps:
            here = min(lanes, job.taps - t)
            for o in range(ocg):
                turn_taps(
                    weight + (o * icg + first) * job.taps + t, job.taps, rows, here,
                    weight + ocg * icg * job.taps, turned,
                )
                for i in range(here):
                    for w in range(min(NV, vectors - NV * v)):
                        unit = (t + i) * vectors + NV * v + w
                        copy(
                            to + (unit // NV * ocg + o) * NV * lanes + unit % NV * lanes,
                            <const real*>turned + (i * NV + w) * lanes, lanes,
                        )
            t += here
    for v in range(vectors):
        first = (NV * block + v) * lanes
        memset(biases + first, 0, lanes * sizeof(real))
        if bias:
            copy(biases + first, bias + group * icg + first, min(lanes, icg - first))


cdef inline Py_ssize_t lowest(Py_ssize_t from_, Py_ssize_t stride) noexcept nogil:
    """Give the least q >= 0 with stride * q >= from_."""
    return ceil_div(from_, stride) if from_ > 0 else 0


cdef inline Py_ssize_t beyond(
    Py_ssize_t limit, Py_ssize_t stride, Py_ssize_t extent
) noexcept nogil:
    """Give the least q that has stride * q >= limit, at most `extent`."""
    return min(extent, ceil_div(limit, stride)) if limit > 0 else 0


cdef Unit unit_of(
    const Job* job, const Part* part, Py_ssize_t unit, Py_ssize_t lanes
) noexcept nogil:
    """Find what a unit brings; nothing, if there is no such unit."""
    cdef const Conv* p = &job.p
    cdef Unit u
    cdef Py_ssize_t t = unit // part.vectors, kx = t % p.kernel[2], oz, oy, ox
    cdef Py_ssize_t ky = t // p.kernel[2] % p.kernel[1], kz = t // p.kernel[2] // p.kernel[1]
    oz = p.dilation[0] * kz - p.pad[0]
    oy = p.dilation[1] * ky - p.pad[1]
    ox = p.dilation[2] * kx - p.pad[2]
    u.z0 = lowest(part.z0 - oz, p.stride[0])
    u.z1 = beyond(part.z1 - oz, p.stride[0], p.out_extent[0]) if kz < p.kernel[0] else 0
    u.y0 = lowest(part.y0 - oy, p.stride[1])
    u.y1 = beyond(part.y1 - oy, p.stride[1], p.out_extent[1])
    u.x0 = lowest(-ox, p.stride[2])
    u.x1 = beyond(p.in_extent[2] - ox, p.stride[2], p.out_extent[2])
    u.first = ((oz - part.z0) * (part.y1 - part.y0) + oy - part.y0) * p.in_extent[2] + ox
    u.first = (u.first * part.vectors + unit % part.vectors) * lanes
    if u.y1 <= u.y0 or u.x1 <= u.x0:
        u.z1 = 0
    return u


cdef inline bint within(Py_ssize_t i, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Tell whether i is in first .. last."""
    return (i >= first) & (i < last)


cdef Py_ssize_t list_places(
    const Job* job, const Part* part, const Unit* a, const Unit* b, Py_ssize_t lanes,
    Py_ssize_t nowhere, Py_ssize_t* places,
) noexcept nogil:
    """List outputs of two units: behind the places where to, for the one and the other."""
    cdef const Conv* p = &job.p
    cdef Py_ssize_t* to_a = places + job.outputs + MR
    cdef Py_ssize_t* to_b = to_a + job.outputs + MR
    cdef Py_ssize_t step = p.stride[2] * part.vectors * lanes, number = 0, z, y, x, place, at
    cdef Py_ssize_t x0 = min(a.x0, b.x0), x1 = max(a.x1, b.x1)
    cdef bint same = a.x0 == b.x0 and a.x1 == b.x1, in_a, in_b
    for z in range(min(a.z0, b.z0), max(a.z1, b.z1)):
        for y in range(min(a.y0, b.y0), max(a.y1, b.y1)):
            in_a = within(z, a.z0, a.z1) & within(y, a.y0, a.y1)
            in_b = within(z, b.z0, b.z1) & within(y, b.y0, b.y1)
            place = (z * p.out_extent[1] + y) * p.out_extent[2]
            at = (p.stride[0] * z * (part.y1 - part.y0) + p.stride[1] * y) * p.in_extent[2]
            at *= part.vectors * lanes
            if in_a and in_b and same:
                for x in range(x1 - x0):
                    places[number + x] = place + x0 + x
                    to_a[number + x] = at + a.first + (x0 + x) * step
                    to_b[number + x] = at + b.first + (x0 + x) * step
                number += x1 - x0
            elif in_a or in_b:
                for x in range(x0, x1):
                    places[number] = place + x
                    to_a[number] = nowhere
                    to_b[number] = nowhere
                    if in_a & within(x, a.x0, a.x1):
                        to_a[number] = at + a.first + x * step
                    if in_b & within(x, b.x0, b.x1):
                        to_b[number] = at + b.first + x * step
                    number += (to_a[number] != nowhere) | (to_b[number] != nowhere)
    return number


cdef void add_panel(
    const Job* job, const real* dy, const Py_ssize_t* places, Py_ssize_t number,
    const Py_ssize_t* distances, const real* weights, real* tile, real* sums,
) noexcept nogil:
    """Add what one panel brings."""
    cdef const real* zeros = <const real*>tile + MR * nr(dy)
    cdef const Py_ssize_t* first = places + job.outputs + MR
    cdef const Py_ssize_t* second = first + job.outputs + MR
    cdef Py_ssize_t q = 0, o, here, rows
    while q < number:
        rows = min(MR, number - q)
        o = 0
        while o < job.p.ocg:
            here = min(job.block, job.p.ocg - o)
            sum_scattered(
                dy, places + q, distances + o, weights + o * nr(dy), here,
                zeros if o == 0 else NULL, tile, rows, False,
            )
            o += here
        add_halves_of(<const real*>tile, first + q, second + q, sums)
        q += MR


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* dy, const real* packed, real* private,
    real* dx,
) noexcept nogil:
    """Compute a part of some channels of one sample's dx."""
    cdef const Conv* p = &job.p
    cdef Py_ssize_t lanes = lanes_of(dy), number, z, i, plane, size, nowhere, unit
    cdef Part part = part_of(job, task, lanes)
    cdef Unit a, b
    cdef real* sums = private
    cdef real* tile = sums + job.sums
    cdef Py_ssize_t* places = <Py_ssize_t*>(tile + (MR + 1) * NV * lanes)
    cdef Py_ssize_t* distances = places + 3 * (job.outputs + MR)
    cdef const real* weights = packed + weights_of(job, part.group, part.block, lanes)
    cdef const real* biases = (
        packed + job.packed + (part.group * job.vectors + NV * part.block) * lanes
    )
    memset(tile, 0, (MR + 1) * NV * lanes * sizeof(real))
    size = (part.y1 - part.y0) * p.in_extent[2]
    nowhere = (part.z1 - part.z0) * size * part.vectors * lanes
    for i in range((part.z1 - part.z0) * size):
        copy(sums + i * part.vectors * lanes, biases, part.vectors * lanes)
    memset(sums + nowhere, 0, lanes * sizeof(real))
    plane = volume(p.out_extent)
    for i in range(p.ocg):
        distances[i] = i * plane
    dy += part.plane * p.ocg * plane
    unit = 0
    while unit < job.taps * part.vectors:
        a = unit_of(job, &part, unit, lanes)
        b = unit_of(job, &part, unit + 1, lanes)
        number = list_places(job, &part, &a, &b, lanes, nowhere, places)
        for i in range(MR if number else 0):
            places[number + i] = places[number - 1]
            places[job.outputs + MR + number + i] = nowhere
            places[2 * (job.outputs + MR) + number + i] = nowhere
        add_panel(
            job, dy, <const Py_ssize_t*>places, number, <const Py_ssize_t*>distances,
            weights + unit // NV * p.ocg * NV * lanes, tile, sums,
        )
        unit += NV
    plane = volume(p.in_extent)
    dx += (part.plane * p.icg + NV * part.block * lanes) * plane
    for z in range(part.z0, part.z1):
        spread(
            <const real*>sums + (z - part.z0) * size * part.vectors * lanes,
            part.vectors * lanes, size, part.channels,
            dx + (z * p.in_extent[1] + part.y0) * p.in_extent[2], plane, 1,
        )


cdef void pack_blocks(
    const Job* job, const real* weight, const real* bias, real* scratch, int threads
) noexcept nogil:
    """Pack all weights and biases."""
    cdef Py_ssize_t i, blocks = job.p.g * job.blocks
    if threads == 1:
        for i in range(blocks):
            pack_block(job, i, weight, bias, scratch)
        return
    for i in prange(blocks, num_threads=threads, schedule="static"):
        pack_block(job, i, weight, bias, scratch)


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* dy, real* scratch,
    real* dx, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, dy, <const real*>scratch, scratch + job.shared, dx)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, dy, <const real*>scratch,
            scratch + job.shared + threadid() * job.private, dx,
        )


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, weight, bias, dx and scratch, and compute dx round by round."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real), threads)
    cdef Py_ssize_t planes = p.n * p.g * p.ocg * volume(p.out_extent)
    cdef const real* dy = reals(held, 1, planes, like)
    cdef const real* weight = reals(held, 2, p.g * p.ocg * p.icg * job.taps, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.g * p.icg, like)
    cdef real* dx = reals(held, 4, p.n * p.g * p.icg * volume(p.in_extent), like)
    cdef real* scratch = room(held, 5, job.shared + threads * job.private, like)
    cdef Py_ssize_t begin = 0, end
    cdef Py_ssize_t each = round_of(job.macs, TASKS_PER_THREAD, threads)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            if begin == 0:
                pack_blocks(&job, weight, bias, scratch, threads)
            run_tasks(&job, begin, end, dy, scratch, dx, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that dgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, item, threads)
    return job.shared + threads * job.private


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call(
        (geometry, dy, weight, bias), (dx, scratch), threads, gradient[float], gradient[double]
    )
