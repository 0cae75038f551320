# The gradient of x of few channels: all taps of all channels are the rows of one product.
#
# What      dx[c, s*q + d*t - p] = bias[c] + sum over (c, t) of product[(c, t), q]
#           product[(c, t), q] = sum over o of weight[o, (c, t)] * dy[o, q]
#           with q a place of dy and t a tap; only places that lie in dx are kept.
# Layout    dy (n, g*ocg, od, oh, ow), weight (g*ocg, icg, kd, kh, kw), dx like x, flat.
#
#                       o ->                  q -> NR
#           (c, t)  [ weight, MR ]       o  [ dy, in   ]     added to sums of (c, kx):
#             v     [ rows       ]   x   v  [ a plane  ]     rows Y, columns q
#
#           A row of sums is one of dx along y and z, but of dy along x, one for each kx.
#           So NR places, whatever rows of dy they are in, stay neighbours: a vector is
#           added in one piece. Rows Y of one phase of the stride are neighbours, too. At
#           last the kw rows of sums are added to dx, each shifted by its kx.
# Assumes   buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (sample, group, planes of dx, band of rows of dx): each writes
#           its own part of dx. To a sum the places are added in descending order, to dx
#           the kx in ascending order: the bits are the same for any split.
# Scratch   all weights packed once; per thread the sums, a list of the product's rows,
#           and a block of dy, copied where its channels would push each other out of L1.
# Cost      2 * oc * icg * taps FLOPs for each place of dy; one addition for each of the
#           oc terms of a product, no search for patches, no products with padding.
# Why not   One row of sums for all kx (not tried): neighbouring taps would add to vectors
#           that overlap in part, and such a load waits until the store before is done.
#           Channels in the lanes (conv_scatter.pyx): 35 GFLOP/s instead of 162 for 7 x 7
#           of 3 channels, stride 2.
# Source    Chellapilla, Puri and Simard (2006); Vasudevan, Anderson and Gregg, Parallel
#           Multi Channel Convolution using GEMM, arXiv:1704.04428, for taps as rows.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, conv_of, phases, volume
from convcore.kernels.rounds cimport ALIGNED, TASKS_PER_THREAD, aligned, ceil_div, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport SHORT, add_packed, chain
from convcore.kernels.transpose cimport MOST_LANES, zip_rows
from convcore.kernels.vector cimport (
    MR, NR_BYTES, NV, VEC_BYTES, f32v, f64v, real, vec, copy, nr, part as part_of,
)

cdef enum:
    SUM_BYTES = 524288  # of a task's sums, a fraction of L2
    BLOCK_BYTES = 65536  # of a block of dy
    PANELS = 4  # most of a block
    LINE = 64  # bytes of a line of L1
    CROWDED = 16384  # channels * bytes: 256 channels, each in a line of its own set
    NOWHERE = 1099511627776  # 2 ** 40, the shift of a row that meets no sum

cdef struct Job:
    Conv p
    Py_ssize_t taps, rows, tiles              # of a kernel; of a group's product
    Py_ssize_t phases_y, phases_x             # of dx
    Py_ssize_t planes, plane_parts            # of dx in a task; parts of all
    Py_ssize_t height, bands                  # rows of each phase in a task; bands
    Py_ssize_t line, group, unit              # scalars of sums: a phase, a plane, a (c, kx)
    Py_ssize_t block, panels                  # o of a chain; panels of a block of dy
    bint packs                                # copy blocks of dy
    Py_ssize_t tasks, macs
    Py_ssize_t packed, sums, private          # scratch in scalars

cdef struct Part:  # what a task computes
    Py_ssize_t sample, group                  # counted with all groups
    Py_ssize_t z0, z1, y0, y1                 # planes of dx; rows of each phase

cdef struct Panel:  # NR neighbouring places of dy, from o to o a distance
    const void* dy
    Py_ssize_t ld, count                      # of them, `count` lie in dy
    const void* next                          # what is to be fetched
    Py_ssize_t next_ld
    const void* soon                          # and by one tile
    Py_ssize_t soon_ld


cdef inline Py_ssize_t floor_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """Divide, and round down."""
    return a // b if a >= 0 else -ceil_div(-a, b)


cdef Job make_job(const Conv* p, Py_ssize_t item, int threads) noexcept nogil:
    """Split the work into enough tasks for `threads`."""
    cdef Job job
    cdef Py_ssize_t lanes = NR_BYTES // item, rows_y, row, apart
    job.p = p[0]
    job.taps = volume(p.kernel)
    job.rows = p.icg * job.taps
    job.tiles = ceil_div(job.rows, MR)
    job.phases_y = phases(p, 1)
    job.phases_x = phases(p, 2)
    rows_y = ceil_div(p.in_extent[1], job.phases_y)
    row = p.icg * p.kernel[2] * job.phases_y * p.out_extent[2] * item
    job.height = min(rows_y, max(1, SUM_BYTES // row))
    row = p.icg * p.kernel[2] * job.phases_y * item  # with the room around each line
    row *= job.height * p.out_extent[2] + 2 * lanes + ALIGNED
    job.planes = min(p.in_extent[0], max(1, SUM_BYTES // row))
    while True:
        job.bands = ceil_div(rows_y, job.height)
        job.height = ceil_div(rows_y, job.bands)
        job.plane_parts = ceil_div(p.in_extent[0], job.planes)
        job.tasks = p.n * p.g * job.plane_parts * job.bands
        if job.tasks >= TASKS_PER_THREAD * threads:
            break
        if job.height > 1 and job.height * job.phases_y > 4 * p.kernel[1]:
            job.height = ceil_div(job.height, 2)
        elif job.planes > max(4 * p.kernel[0], 1):
            job.planes = ceil_div(job.planes, 2)
        else:
            break
    job.line = aligned(job.height * p.out_extent[2] + 2 * lanes)
    job.group = job.phases_y * job.line
    job.unit = job.planes * job.group
    job.block = ceil_div(p.ocg, ceil_div(p.ocg, max(SHORT, chain(p.ocg))))
    job.panels = max(1, min(PANELS, BLOCK_BYTES // (p.ocg * NR_BYTES)))
    apart = volume(p.out_extent) * item
    # Channels that lie a power of two apart share a few sets of L1.
    job.packs = p.ocg * max(apart & -apart, LINE) > CROWDED
    job.macs = job.rows * p.ocg * job.planes * job.phases_y * job.height * p.out_extent[2]
    job.packed = aligned(p.g * job.tiles * MR * p.ocg)
    job.sums = aligned(p.icg * p.kernel[2] * job.unit)
    job.private = (
        job.sums + aligned(job.panels * p.ocg * lanes) + MR * lanes
        + aligned(2 * job.tiles * MR * sizeof(Py_ssize_t) // item)
        + aligned((job.phases_x + 2) * (
            ceil_div(p.in_extent[2], job.phases_x) + 2 * MOST_LANES
        ))
    )
    return job


cdef inline Part work_of(const Job* job, Py_ssize_t task) noexcept nogil:
    """Find what a task computes."""
    cdef Part t
    cdef Py_ssize_t band = task % job.bands, rest = task // job.bands
    t.y0 = band * job.height
    t.y1 = min(t.y0 + job.height, ceil_div(job.p.in_extent[1], job.phases_y))
    t.z0 = rest % job.plane_parts * job.planes
    t.z1 = min(t.z0 + job.planes, job.p.in_extent[0])
    rest = rest // job.plane_parts
    t.sample = rest // job.p.g
    t.group = rest % job.p.g
    return t


cdef void pack_tile(
    const Job* job, Py_ssize_t index, const real* weight, real* packed
) noexcept nogil:
    """Pack MR rows of a group, those of one o together."""
    cdef Py_ssize_t group = index // job.tiles, first = index % job.tiles * MR, o
    cdef Py_ssize_t here = min(MR, job.rows - first)
    weight += group * job.p.ocg * job.rows + first
    packed += index * MR * job.p.ocg
    if here < MR:
        memset(packed, 0, MR * job.p.ocg * sizeof(real))
    for o in range(job.p.ocg):
        copy(packed + o * MR, weight + o * job.rows, here)


cdef bint list_rows(
    const Job* job, const Part* part, Py_ssize_t z, Py_ssize_t* shifts, Py_ssize_t* bases
) noexcept nogil:
    """Find for each row of the product where the sums of a plane of dy lie.

    Place q of the plane belongs to place q + shift behind the base, if that is at least
    0 and before the end of a phase's rows.
    """
    cdef const Conv* p = &job.p
    cdef Py_ssize_t r, c, kz, ky, kx, to_z, to_y, to
    cdef bint any_row = False
    for r in range(job.tiles * MR):
        shifts[r] = -NOWHERE
        bases[r] = 0
    for kz in range(p.kernel[0]):
        to_z = p.stride[0] * z + p.dilation[0] * kz - p.pad[0]
        if to_z < part.z0 or to_z >= part.z1:
            continue
        for ky in range(p.kernel[1]):
            to_y = p.dilation[1] * ky - p.pad[1]
            to = floor_div(to_y, p.stride[1])
            to_y -= to * p.stride[1]
            if to_y >= job.phases_y:
                continue
            any_row = True
            for c in range(p.icg):
                r = ((c * p.kernel[0] + kz) * p.kernel[1] + ky) * p.kernel[2]
                for kx in range(p.kernel[2]):
                    shifts[r + kx] = (to - part.y0) * p.out_extent[2]
                    bases[r + kx] = (
                        (c * p.kernel[2] + kx) * job.unit + (to_z - part.z0) * job.group
                        + to_y * job.line
                    )
    return any_row


cdef inline bint find_targets(
    const Py_ssize_t* shifts, const Py_ssize_t* bases, Py_ssize_t q, Py_ssize_t limit,
    real* sums, real** to,
) noexcept nogil:
    """Point to the sums of NR places for MR rows; tell whether any are kept.

    Before and behind the sums there is room for those that are not.
    """
    cdef Py_ssize_t i, place, lanes = nr(<const real*>sums)
    cdef bint kept = False
    for i in range(MR):
        place = q + shifts[i]
        kept |= (place > -lanes) & (place < limit)
        to[i] = sums + bases[i] + lanes + max(-lanes, min(place, limit))
    return kept


cdef inline void add_places(const vec* row, Py_ssize_t count, vec* to) noexcept nogil:
    """Add the first `count` scalars of a row, which may be followed by NaN."""
    cdef unsigned long long bits = (<unsigned long long>1 << count) - 1
    to[0] = to[0] + part_of(row, bits)
    to[1] = to[1] + part_of(row + 1, bits >> (VEC_BYTES // (4 if vec is f32v else 8)))


cdef void add_tile(
    const Job* job, const real* weights, const Panel* panel, Py_ssize_t rows, real* tile,
    real* const* to,
) noexcept nogil:
    """Add the product of one tile of weights and one panel of dy to sums."""
    cdef Py_ssize_t i, o = 0, here
    cdef const real* dy = <const real*>panel.dy
    cdef const real* soon = <const real*>panel.soon
    cdef real* own[MR]
    if panel.count == nr(dy) and job.block >= job.p.ocg:
        add_packed(weights, dy, panel.ld, job.p.ocg, soon, panel.soon_ld, to, rows)
        return
    for i in range(MR):
        own[i] = tile + i * nr(dy)
    memset(tile, 0, MR * nr(dy) * sizeof(real))
    while o < job.p.ocg:
        here = min(job.block, job.p.ocg - o)
        add_packed(
            weights + o * MR, dy + o * panel.ld, panel.ld, here,
            soon + o * panel.soon_ld, panel.soon_ld, <real* const*>own, rows,
        )
        o += here
    for i in range(rows):
        if real is float:
            add_places(<const f32v*>own[i], panel.count, <f32v*>to[i])
        else:
            add_places(<const f64v*>own[i], panel.count, <f64v*>to[i])


cdef void pack_block(
    const Job* job, const real* plane, Py_ssize_t ld, Py_ssize_t count, real* block
) noexcept nogil:
    """Pack `count` neighbouring places of all o into panels."""
    cdef Py_ssize_t o, q, here, lanes = nr(plane)
    for o in range(job.p.ocg):
        q = 0
        while q < count:
            here = min(lanes, count - q)
            if here < lanes:
                memset(block + (q * job.p.ocg + o * lanes), 0, NR_BYTES)
            copy(block + (q * job.p.ocg + o * lanes), plane + o * ld + q, here)
            q += lanes


cdef void add_panel(
    const Job* job, Panel* panel, const real* weights, const Py_ssize_t* shifts,
    const Py_ssize_t* bases, Py_ssize_t q, Py_ssize_t limit, real* sums, real* tile,
) noexcept nogil:
    """Add all that NR places of dy from q on bring."""
    cdef Py_ssize_t t, lanes = nr(weights)
    cdef real* to[MR]
    for t in range(job.tiles):
        panel.soon, panel.soon_ld = panel.dy, panel.ld
        if t < NV and panel.next:
            panel.soon = <const real*>panel.next + t * (lanes // NV)
            panel.soon_ld = panel.next_ld
        if find_targets(shifts + t * MR, bases + t * MR, q, limit, sums, <real**>to):
            add_tile(
                job, weights + t * MR * job.p.ocg, panel, min(MR, job.rows - t * MR), tile,
                <real* const*>to,
            )


cdef void add_plane(
    const Job* job, const Part* part, const real* dy, const real* weights,
    const Py_ssize_t* shifts, const Py_ssize_t* bases, real* sums, real* block, real* tile,
) noexcept nogil:
    """Add what one plane of dy brings."""
    cdef const Conv* p = &job.p
    cdef Py_ssize_t lanes = nr(dy), size = p.out_extent[1] * p.out_extent[2]
    cdef Py_ssize_t far = floor_div((p.kernel[1] - 1) * p.dilation[1] - p.pad[1], p.stride[1])
    cdef Py_ssize_t near = floor_div(-p.pad[1], p.stride[1])
    cdef Py_ssize_t first = max(0, part.y0 - far) * p.out_extent[2]
    cdef Py_ssize_t last = min(p.out_extent[1], part.y1 - near) * p.out_extent[2]
    cdef Py_ssize_t limit = (part.y1 - part.y0) * p.out_extent[2]
    cdef Py_ssize_t step = job.panels * lanes, ld = p.out_extent[0] * size, q, here, j
    cdef bint packed
    cdef Panel panel
    if last <= first:
        return
    q = first + (last - first - 1) // step * step
    while q >= first:
        here = min(step, size - q)
        here = min(here, ceil_div(last - q, lanes) * lanes)
        packed = job.packs or here % lanes != 0
        if packed:
            pack_block(job, dy + q, ld, here, block)
        for j in range(ceil_div(here, lanes) - 1, -1, -1):
            if packed:
                panel.dy = block + j * p.ocg * lanes
            else:
                panel.dy = dy + q + j * lanes
            panel.ld = lanes if packed else ld
            panel.next = dy + q - step + j * lanes if q > first else NULL
            panel.next_ld = ld
            panel.count = min(lanes, here - j * lanes)
            add_panel(
                job, &panel, weights, shifts, bases, q + j * lanes, limit, sums, tile
            )
        q -= step


cdef void write_row(
    const Job* job, const real* sums, real bias, real* lines, real* out
) noexcept nogil:
    """Add the kw rows of sums to one row of dx: `sums` of kx = 0, the others a unit on."""
    cdef const Conv* p = &job.p
    cdef Py_ssize_t width = ceil_div(p.in_extent[2], job.phases_x), ld, kx, to, f, x, i
    cdef Py_ssize_t first, last, extent
    cdef real* line
    cdef const real* source
    ld = width + 2 * MOST_LANES
    if job.phases_x == 1:
        lines = out
    for i in range(ld * (job.phases_x - 1) + width):
        lines[i] = bias
    for kx in range(p.kernel[2]):
        f = p.dilation[2] * kx - p.pad[2]
        to = floor_div(f, p.stride[2])
        f -= to * p.stride[2]
        if f >= job.phases_x:
            continue
        extent = (p.in_extent[2] - f - 1) // p.stride[2] + 1
        first = max(0, -to)
        last = min(p.out_extent[2], extent - to)
        line = lines + f * ld + to
        source = sums + kx * job.unit
        for x in range(first, last):
            line[x] += source[x]
    if job.phases_x == 2:
        line = lines + 2 * ld
        zip_rows(<const real*>lines, <const real*>lines + ld, line, width)
        copy(out, <const real*>line, p.in_extent[2])
    elif job.phases_x > 2:
        for f in range(job.phases_x):
            line = lines + f * ld
            for x in range((p.in_extent[2] - f - 1) // p.stride[2] + 1):
                out[f + x * p.stride[2]] = line[x]


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* dy, const real* packed, const real* bias,
    real* private, real* dx,
) noexcept nogil:
    """Compute some rows of all channels of a group of one sample's dx."""
    cdef const Conv* p = &job.p
    cdef Part part = work_of(job, task)
    cdef Py_ssize_t lanes = nr(dy), size = p.out_extent[1] * p.out_extent[2]
    cdef Py_ssize_t index = part.sample * p.g + part.group, z, y, c
    cdef real* sums = private
    cdef real* block = sums + job.sums
    cdef real* tile = block + aligned(job.panels * p.ocg * lanes)
    cdef Py_ssize_t* shifts = <Py_ssize_t*>(tile + MR * lanes)
    cdef Py_ssize_t* bases = shifts + job.tiles * MR
    cdef real* lines = tile + MR * lanes + aligned(
        2 * job.tiles * MR * sizeof(Py_ssize_t) // sizeof(real)
    )
    memset(sums, 0, job.sums * sizeof(real))
    dy += index * p.ocg * p.out_extent[0] * size
    for z in range(p.out_extent[0] - 1, -1, -1):
        if list_rows(job, &part, z, shifts, bases):
            add_plane(
                job, &part, dy + z * size, packed + part.group * job.tiles * MR * p.ocg,
                shifts, bases, sums, block, tile,
            )
    for c in range(p.icg):
        for z in range(part.z0, part.z1):
            for y in range(
                part.y0 * job.phases_y, min(part.y1 * job.phases_y, p.in_extent[1])
            ):
                write_row(
                    job, <const real*>sums + c * p.kernel[2] * job.unit
                    + (z - part.z0) * job.group + y % job.phases_y * job.line + lanes
                    + (y // job.phases_y - part.y0) * p.out_extent[2],
                    bias[part.group * p.icg + c] if bias else 0, lines,
                    dx + (((index * p.icg + c) * p.in_extent[0] + z) * p.in_extent[1] + y)
                    * p.in_extent[2],
                )


cdef void pack_tiles(
    const Job* job, const real* weight, real* packed, int threads
) noexcept nogil:
    """Pack all weights."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(job.p.g * job.tiles):
            pack_tile(job, i, weight, packed)
        return
    for i in prange(job.p.g * job.tiles, num_threads=threads, schedule="static"):
        pack_tile(job, i, weight, packed)


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* dy, const real* bias,
    real* scratch, real* dx, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    cdef real* private = scratch + job.packed
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, dy, <const real*>scratch, bias, private, dx)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, dy, <const real*>scratch, bias, private + threadid() * job.private, dx
        )


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, dy, weight, bias, dx and scratch, and compute dx round by round."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real), threads)
    cdef const real* dy = reals(held, 1, p.n * p.g * p.ocg * volume(p.out_extent), like)
    cdef const real* weight = reals(held, 2, p.g * p.ocg * job.rows, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.g * p.icg, like)
    cdef real* dx = reals(held, 4, p.n * p.g * p.icg * volume(p.in_extent), like)
    cdef real* scratch = room(held, 5, job.packed + threads * job.private, like)
    cdef Py_ssize_t begin = 0, end
    cdef Py_ssize_t each = round_of(job.macs, TASKS_PER_THREAD, threads)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            if begin == 0:
                pack_tiles(&job, weight, scratch, threads)
            run_tasks(&job, begin, end, dy, bias, scratch, dx, threads)
        look()
        begin = end
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that dgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, item, threads)
    return job.packed + threads * job.private


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call(
        (geometry, dy, weight, bias), (dx, scratch), threads, gradient[float], gradient[double]
    )
