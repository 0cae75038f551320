# The gradient of weight for few channels a group, pixels in the lanes.
#
# What      dw[o, c, kz, ky, kx] = sum over (n, z, y, x) of
#               dy[n, o, z, y, x] * x[n, c, z', y', x']
#           with the windows of the forward pass (geometry.pxd).
# Layout    everything stays where it is; see planes_sums.pxd for the tile.
#
#              x ->   one vector                one vector
#           y  [ row 0 of x  ]  kx, K ky   [ row 0 of dy ]  R rows    a sum for each tap,
#           |  [ row 1       ]     x       [ row 1       ]            with lanes; the lanes
#           v  [ ...         ]             [ ...         ]            are added at the end
#
#           A row that does not fill a tile is a tile of its own, and lanes without a pixel
#           of dy are masked in x, too: nothing that no window connects is multiplied.
# Assumes   flat native buffers of the sizes that the geometry tells; what
#           algorithms/conv_planes.py accepts.
# Parallel  over tasks = (some groups, chunk of units), a unit being some tiles of a sample.
#           A task owns its sums. How many chunks there are depends on the problem alone;
#           they are added in a fixed tree. So the bits are the same for any thread count.
# Scratch   shared: as conv_planes.pyx and, with several chunks, their sums. Per thread the
#           addresses of a unit's rows, and a vector for each weight of a group.
# Cost      2 * oc * icg * taps * pixels FLOPs; R + 3 N loads for 9 R multiply-adds (3 x 3).
# Why not   One output row at a time: a load for each multiply-add. All pixels in one chain
#           of additions: sums of a unit first keep rounding errors small.
# Source    as conv_planes.pyx; Higham, Accuracy and Stability of Numerical Algorithms
#           (2002), section 4.2, for sums in blocks.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport Buffers, call, geometry_of, reals, room
from convcore.kernels.geometry cimport (
    CONV_FIELDS, Axis, Conv, Window, conv_of, forward_axis, forward_window,
)
from convcore.kernels.planes cimport (
    FIVE_APART, THREE_APART, Halves, Rows, cut_rows, fill_nothing, halves_of, list_rows,
    point, point_copies, span,
)
from convcore.kernels.planes_ends cimport (
    Ends, Patch, add_ends, between_ends, ends_of, list_patches, room_of_patches,
)
from convcore.kernels.planes_sums cimport Columns, add_block, low, shape, single, tall
from convcore.kernels.rounds cimport ROUND_MACS, add_tree, aligned, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain
from convcore.kernels.vector cimport (
    ROWS, ROWS_HALF, VEC_BYTES, f32v, f64v, real, vec, ahead, put_sum, zero_lanes,
)

cdef enum:
    ADDRESSES = 4096  # of the rows of a unit, at most but for one tile
    UNIT = 32  # most tiles of a unit: sums of a unit stay short
    SPLIT = 131072  # bytes of split rows, but for one tile
    ADDRESS = 8  # bytes of an address, at most
    TASKS = 16  # tasks that a problem is split into at least, if it is large enough
    MOST_CHUNKS = 64  # of a group
    SUM_BYTES = 4194304  # of the sums of all chunks
    TASK_MACS = 200000  # fewest of a task: some 5 us

cdef struct Job:
    Conv p
    Window w
    Axis z, y, x
    Rows rows                           # of the tiles
    Columns columns, middle             # all of them; those that look at no border
    Ends ends                           # the others
    Py_ssize_t kernel, weights          # of one o and c; of a group
    Py_ssize_t per_unit, tiles, rest    # tiles of a residue, of a plane; rows without one
    Py_ssize_t band, bands, rest_bands  # tiles of a unit; units of tiles, of single rows
    Py_ssize_t vectors, lanes           # of a row of dy; scalars of one
    Py_ssize_t each, chunk, chunks      # groups of a task; units of a chunk
    Py_ssize_t tasks, macs              # macs of a task
    Py_ssize_t records                  # integers that tell of all tiles
    Py_ssize_t zeros, masks, patches, partial  # scratch in scalars: parts, and where chunks begin,
    Py_ssize_t shared, table, private   # all of it; of a thread, parts and all
    Py_ssize_t sums                     # where the sums of a thread are


cdef inline Py_ssize_t row_cost(const Rows* r, Py_ssize_t extent, Py_ssize_t rows) noexcept nogil:
    """Estimate the work for all rows of a plane with tiles of so many rows."""
    cdef Py_ssize_t full = extent // r.unit // rows
    return full * r.unit * (2 * rows + 1) + 5 * (extent - full * rows * r.unit)


cdef inline void cut_plane(Job* job, Py_ssize_t item) noexcept nogil:
    """Cut a plane into tiles, rows that are left over, and both into units."""
    cdef Rows* r = &job.rows
    cdef Py_ssize_t addresses
    r[0] = cut_rows(&job.y)
    r.rows = ROWS_HALF
    if r.column != FIVE_APART:
        r.rows = ROWS
        if row_cost(r, job.y.extent, ROWS_HALF) < row_cost(r, job.y.extent, ROWS):
            r.rows = ROWS_HALF
    r.loads = (r.rows - 1) * (2 if r.column == THREE_APART or r.column == FIVE_APART else 1)
    r.loads += r.taps
    job.per_unit = job.y.extent // r.unit // r.rows
    job.tiles = job.z.extent * r.unit * job.per_unit if job.per_unit else 0
    job.rest = job.y.extent - job.per_unit * r.rows * r.unit
    addresses = job.z.taps * r.blocks * r.loads + 1
    job.band = min(ADDRESSES // addresses, UNIT)
    if job.columns.halves.used:
        job.band = min(job.band, SPLIT // item // (addresses * job.columns.halves.room))
    job.band = max(job.band, 1)
    job.records = job.tiles * addresses + job.z.extent * job.rest * (
        job.z.taps * r.blocks * r.taps + 1
    )
    job.bands = (job.tiles + job.band - 1) // job.band
    job.rest_bands = (job.z.extent * job.rest + job.band - 1) // job.band
    job.table = job.band * addresses


cdef Job make_job(const Conv* p, Py_ssize_t item) noexcept nogil:
    """Split the work: by the problem alone, never by the number of threads."""
    cdef Job job
    cdef Py_ssize_t units, possible, macs
    job.p = p[0]
    job.w = forward_window(p)
    job.z, job.y, job.x = forward_axis(p, 0), forward_axis(p, 1), forward_axis(p, 2)
    job.kernel = p.kernel[0] * p.kernel[1] * p.kernel[2]
    job.weights = p.ocg * p.icg * job.kernel
    job.lanes = VEC_BYTES // item
    job.columns.halves = halves_of(
        &job.x, job.x.extent, job.lanes, p.ocg, job.w.value
    )
    cut_plane(&job, item)
    job.columns.column, job.columns.x = job.rows.column, job.x
    job.columns.pitch = job.rows.unit * job.x.extent
    job.columns.kernel_row = p.kernel[2]
    job.vectors = (job.x.extent - 1) // job.lanes + 1
    job.columns.vectors = job.vectors
    job.ends = ends_of(&job.x, &job.rows, job.lanes)
    job.columns.longest = max(chain(p.n * job.w.plane) // (ROWS * UNIT), 32)
    job.middle = job.columns
    if job.columns.halves.patched:
        job.middle = between_ends(&job.columns, &job.ends, job.lanes)
    units = p.n * (job.bands + job.rest_bands)
    macs = job.weights * job.w.plane * p.n
    job.each = max(min(TASK_MACS // max(macs, 1), p.g // TASKS), 1)
    possible = max(min(macs // TASK_MACS, units), 1)
    job.chunks = min((TASKS - 1) // p.g + 1, possible)
    job.chunks = max(job.chunks, min(min(macs // ROUND_MACS, possible), MOST_CHUNKS))
    job.chunks = min(job.chunks, max(SUM_BYTES // (job.weights * p.g * item), 1))
    job.chunk = max((units - 1) // job.chunks + 1, 1)
    job.chunks = max((units - 1) // job.chunk + 1, 1)
    job.tasks = ((p.g - 1) // job.each + 1) * job.chunks
    job.macs = macs * job.each // job.chunks + 1
    job.zeros = aligned(p.in_extent[2])
    if job.columns.halves.used:
        job.zeros = aligned(job.columns.halves.room + max(job.x.off0, 0))
    job.masks = aligned(job.vectors * (job.x.taps + 1))
    job.patches = aligned(room_of_patches(&job.columns.halves, &job.x) // item)
    job.partial = job.zeros + job.masks + job.patches + aligned(job.records * ADDRESS // item)
    job.shared = job.partial
    if job.chunks > 1:
        job.shared += aligned(job.weights * p.g * job.chunks)
    job.sums = aligned(job.table * ADDRESS // item)
    if job.columns.halves.used:
        job.sums += aligned(job.table * job.columns.halves.room)
    job.table = aligned(job.table * ADDRESS // item)
    job.private = job.sums + aligned(2 * job.weights * job.lanes)
    return job


cdef void list_tiles(const Job* job, long long* record) noexcept nogil:
    """Write for each tile of a plane its place in dy and the rows of x; then single rows."""
    cdef Py_ssize_t z, residue, i, y
    for z in range(job.z.extent):
        for residue in range(job.rows.unit if job.per_unit else 0):
            for i in range(job.per_unit):
                y = residue + i * job.rows.rows * job.rows.unit
                record[0] = (z * job.y.extent + y) * job.x.extent
                record += 1 + list_rows(
                    &job.rows, &job.z, &job.y, job.x.source, z, y, job.rows.loads, record + 1
                )
    for z in range(job.z.extent):
        for y in range(job.y.extent - job.rest, job.y.extent):
            record[0] = (z * job.y.extent + y) * job.x.extent
            record += 1 + list_rows(
                &job.rows, &job.z, &job.y, job.x.source, z, y, job.rows.taps, record + 1
            )


cdef void fill_shared(const Job* job, real* scratch) noexcept nogil:
    """Write the row outside of x, the tiles, and for each vector masks of dy and of x."""
    cdef unsigned int* masks = <unsigned int*>(scratch + job.zeros)
    cdef Patch* patches = <Patch*>(scratch + job.zeros + job.masks)
    cdef Py_ssize_t i, kx, at, count, number = 1
    fill_nothing(&job.columns.halves, job.x.border, scratch, job.zeros)
    for i in range(job.vectors):
        count = min(job.lanes, job.x.extent - i * job.lanes)
        masks[0] = span(0, count)
        for kx in range(job.x.taps):
            at = job.x.advance * i * job.lanes + job.x.off0 + job.x.off_step * kx
            masks[1 + kx] = masks[0]
            if not job.columns.halves.used:
                masks[1 + kx] = span(-at, min(job.x.source - at, count))
        if job.columns.halves.patched and not job.ends.left <= i < job.ends.right:
            number = list_patches(
                &job.x, i * job.lanes, count, masks + 1, patches, number
            )
        masks += 1 + job.x.taps
    list_tiles(job, <long long*>(scratch + job.zeros + job.masks + job.patches))


cdef inline void add_unit(
    const Job* job, const long long* record, Py_ssize_t tiles, const vec* x, const vec* dy,
    const vec* nothing, const unsigned int* masks, const vec** table, vec* sums, shape* tile,
) noexcept nogil:
    """Add some tiles of one group of one sample, for every o and c."""
    cdef int loads = job.rows.taps if shape is single else job.rows.loads
    cdef Py_ssize_t apart = job.z.taps * job.rows.blocks * loads, c, o, t, _kz, _block
    cdef const vec** rows
    cdef const vec* plane
    cdef vec* to
    cdef Py_ssize_t first = job.middle.x.off0 - job.x.off0  # the first column without a patch
    for c in range(job.p.icg):
        to = <vec*>ahead(<const vec*>table, job.table)
        plane = ahead(x, c * job.w.source_plane)
        for t in range(tiles):
            if job.columns.halves.used:
                point_copies(
                    &job.columns.halves, &job.x, 0, record + t * (apart + 1) + 1, apart, plane,
                    nothing, table + t * apart, &to,
                )
            else:
                point(
                    table + t * apart, record + t * (apart + 1) + 1, apart, plane, nothing
                )
        for o in range(job.p.ocg):
            rows = table
            to = <vec*>sums + (o * job.p.icg + c) * job.kernel
            for _kz in range(job.z.taps):
                for _block in range(job.rows.blocks):
                    if job.columns.halves.patched:
                        add_ends(
                            &job.columns, &job.ends, <const vec* const*>rows,
                            ahead(dy, o * job.w.plane), record, tiles, apart, masks, to, tile,
                        )
                    add_block(
                        &job.middle, <const vec* const*>rows,
                        ahead(dy, o * job.w.plane + first), record, tiles, apart,
                        c == 0 or o == 0, masks + first // job.lanes * (1 + job.x.taps), to, tile,
                    )
                    rows += loads
                    to += job.rows.taps * job.p.kernel[2]


cdef inline void add_units(
    const Job* job, Py_ssize_t group, Py_ssize_t unit0, Py_ssize_t unit1, const vec* x,
    const vec* dy, const vec* zeros, const vec** table, vec* sums,
) noexcept nogil:
    """Add some units of one group, counted through the samples."""
    cdef Py_ssize_t per_sample = job.bands + job.rest_bands, _unit, tiles
    cdef Py_ssize_t i = unit0 % per_sample, plane = unit0 // per_sample * job.p.g + group
    cdef Py_ssize_t size = job.z.taps * job.rows.blocks * job.rows.loads + 1
    cdef Py_ssize_t rest_size = job.z.taps * job.rows.blocks * job.rows.taps + 1
    cdef const unsigned int* masks = <const unsigned int*>ahead(zeros, job.zeros)
    cdef const long long* record = <const long long*>ahead(
        zeros, job.zeros + job.masks + job.patches
    )
    cdef const long long* rest = record + job.tiles * size
    cdef const Halves* h = &job.columns.halves
    cdef const vec* nothing = ahead(zeros, h.nothing if h.used else 0)
    cdef const vec* xs
    cdef const vec* dys
    for _unit in range(unit0, unit1):
        xs = ahead(x, plane * job.p.icg * job.w.source_plane)
        dys = ahead(dy, plane * job.p.ocg * job.w.plane)
        if i >= job.bands:
            tiles = min(job.band, job.z.extent * job.rest - (i - job.bands) * job.band)
            add_unit(
                job, rest + (i - job.bands) * job.band * rest_size, tiles, xs, dys,
                nothing, masks, table, sums, <single*>NULL,
            )
        else:
            tiles = min(job.band, job.tiles - i * job.band)
            if job.rows.rows == ROWS:
                add_unit(
                    job, record + i * job.band * size, tiles, xs, dys, nothing, masks,
                    table, sums, <tall*>NULL,
                )
            else:
                add_unit(
                    job, record + i * job.band * size, tiles, xs, dys, nothing, masks,
                    table, sums, <low*>NULL,
                )
        i += 1
        if i == per_sample:
            i = 0
            plane += job.p.g


cdef inline void run_group(
    const Job* job, Py_ssize_t group, Py_ssize_t unit0, Py_ssize_t unit1, const vec* x,
    const vec* dy, const vec* zeros, const vec** table, vec* sums, vec* to,
) noexcept nogil:
    """Sum some units of one group, block by block, then the lanes."""
    cdef Py_ssize_t i, end, block = chain(unit1 - unit0)
    cdef vec* totals = sums + job.weights
    for i in range(job.weights):
        totals[i] = zero_lanes(x)
    while unit0 < unit1:
        for i in range(job.weights):
            sums[i] = zero_lanes(x)
        end = min(unit0 + block, unit1)
        add_units(job, group, unit0, end, x, dy, zeros, table, sums)
        for i in range(job.weights):
            totals[i] = totals[i] + sums[i]
        unit0 = end
    for i in range(job.weights):
        put_sum(to, totals[i], i)


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* x, const real* dy, real* shared,
    real* private, real* dw,
) noexcept nogil:
    """Sum one chunk of pixels for some groups."""
    cdef Py_ssize_t chunk = task % job.chunks, group0 = task // job.chunks * job.each
    cdef Py_ssize_t unit0 = chunk * job.chunk, group
    cdef Py_ssize_t unit1 = min(unit0 + job.chunk, job.p.n * (job.bands + job.rest_bands))
    cdef real* sums = private + job.sums
    cdef real* to
    for group in range(group0, min(group0 + job.each, job.p.g)):
        to = dw + group * job.weights
        if job.chunks > 1:
            to = shared + job.partial + (group * job.chunks + chunk) * job.weights
        if real is float:
            run_group(
                job, group, unit0, unit1, <const f32v*>x, <const f32v*>dy,
                <const f32v*>shared, <const f32v**>private, <f32v*>sums, <f32v*>to,
            )
        else:
            run_group(
                job, group, unit0, unit1, <const f64v*>x, <const f64v*>dy,
                <const f64v*>shared, <const f64v**>private, <f64v*>sums, <f64v*>to,
            )


cdef void add_chunks(const Job* job, Py_ssize_t group, real* sums, real* dw) noexcept nogil:
    """Add the chunks of one group in a tree."""
    cdef Py_ssize_t i
    sums += group * job.chunks * job.weights
    add_tree(sums, job.chunks, job.weights)
    for i in range(job.weights):
        dw[group * job.weights + i] = sums[i]


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* x, const real* dy,
    real* dw, real* scratch, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, x, dy, scratch, scratch + job.shared, dw)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, x, dy, scratch, scratch + job.shared + threadid() * job.private, dw
        )


cdef int run(
    const Job* job, const real* x, const real* dy, real* dw, real* scratch, int threads
) except -1:
    """Do the tasks round by round, then add their chunks."""
    cdef Py_ssize_t i, begin = 0, end, each = round_of(job.macs, 1, threads)
    fill_shared(job, scratch)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            run_tasks(job, begin, end, x, dy, dw, scratch, threads)
        look()
        begin = end
    if job.chunks > 1:
        with nogil:
            for i in range(job.p.g):
                add_chunks(job, i, scratch + job.partial, dw)
    return 0


cdef int weight_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, dy, dw and scratch, and sum the gradient of weight."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, sizeof(real))
    cdef const real* x = reals(held, 1, p.n * p.g * p.icg * job.w.source_plane, like)
    cdef const real* dy = reals(held, 2, p.n * p.g * p.ocg * job.w.plane, like)
    cdef real* dw = reals(held, 3, p.g * job.weights, like)
    cdef real* scratch = room(held, 4, job.shared + threads * job.private, like)
    job.ends.patches = <const Patch*>(scratch + job.zeros + job.masks)
    job.ends.constant = scratch
    if p.n:
        return run(&job, x, dy, dw, scratch, threads)
    memset(dw, 0, p.g * job.weights * sizeof(real))
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that wgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, item)
    return job.shared + threads * job.private


def wgrad(geometry, x, dy, dw, scratch, int threads, /):
    """Write the gradient of weight to dw."""
    call(
        (geometry, x, dy), (dw, scratch), threads, weight_gradient[float],
        weight_gradient[double],
    )
