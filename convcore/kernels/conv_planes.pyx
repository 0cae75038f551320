# Convolution and its gradient of x for few channels a group, pixels in the lanes.
#
# What      out[m, z, y, x] = bias[m] + sum over (c, kz, ky, kx) of
#               weight[m, c, kz, ky, kx] * source[c, z', y', x']
#           with the windows of geometry.pxd. A gradient whose stride along x is two has two
#           phases there; both are computed and stored in turns, so dx is written once.
# Layout    everything stays where it is; see planes_tile.pxd for the tile.
#
#              x ->   one vector                    one vector
#           y  [ row 0 of the source ]  kx, 3 ky    [ row 0, channel m     ]  R rows,
#           |  [ row 1               ]  -------->   [ row 1                ]  1 or 2
#           v  [ ...                 ]              [ ...                  ]  channels
#
# Assumes   flat native buffers of the sizes that the geometry tells; what
#           algorithms/conv_planes.py accepts: strides 1 and 2 along x, few phases.
# Parallel  over tasks = groups of samples, or parts of one: each writes rows that no other
#           task writes. Every output is one sum in the order (c, kz, block of ky, kx, ky),
#           so its bits depend on nothing else.
# Scratch   shared: one row of zeros or of the border's constant, where the rows of each tile
#           of a plane are, the masks of a row, the lists of ring.pxd. Per thread the addresses
#           of the rows of a batch of tiles and, with a stride of 2 or a border, those rows,
#           copied.
# Cost      2 * outputs * terms FLOPs; for K taps a column, N loads for R * K multiply-adds
#           of each channel. x and y pass once through the caches; as tiles go along 7 rows
#           at once, the processor does not see a stream, and lines are asked for early
#           (depthwise 3x3, 112x112x32, batch 8: 0.93 ms instead of 5.8).
# Why not   A padded copy of the rows: a load and a store for each, where masked loads in
#           place cost nothing on AVX-512. Every second column of rows that are not split:
#           two loads and a shuffle for each tap and pair of channels. Packed patches
#           (conv_gemm.pyx): finding them takes ten times as long as a depthwise sum.
# Source    Zhang, Franchetti and Low, High Performance Zero-Memory Overhead Direct
#           Convolutions, ICML 2018; Georganas et al., SC 2018, for loads that several
#           taps share.

from cython.parallel cimport prange, threadid
from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.geometry cimport (
    CONV_FIELDS, Axis, Conv, Window, conv_of, forward_axis, forward_window, gradient_axis,
    gradient_window, phases,
)
from convcore.kernels.planes cimport (
    OUTSIDE, Halves, Rows, ascending, cut_rows, fill_nothing, halves_of,
    list_masks, list_rows, point, point_copies,
)
from convcore.kernels.planes_ends cimport (
    LANES, Ends, Patch, ends_of, list_patches, room_of_patches, run_ends,
)
from convcore.kernels.planes_ring cimport add_ring
from convcore.kernels.planes_tile cimport Head, Reach, Span, Terms, run_channels
from convcore.kernels.ring cimport Extra, Ring, list_ring, ring_of
from convcore.kernels.rounds cimport ROUND_MACS, aligned, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport SHORT, chain, partial_chain
from convcore.kernels.vector cimport ROWS, VEC_BYTES, f32v, f64v, real, vec, ahead

cdef enum:
    SWEEPS = 16  # most phases along z and y together
    ADDRESS = 8  # bytes of an address, at most
    MANY = 99  # channels, so that the ends of a long line are copied
    PATCHED = 6  # tiles: their ends are summed in a pass of their own
    NEAR_BYTES = 131072  # of planes that are still near for their ring
    BATCH = 16384  # bytes of addresses, or of split rows, but for one tile
    TASKS_PER_THREAD = 8  # so that no thread waits long for the last task
    TASK_MACS = 200000  # fewest of a task: some 5 us

cdef struct Sweep:  # one phase along z and y
    Axis z, y
    Rows rows
    Py_ssize_t tiles, blocks  # of a plane; (kz, block of ky)
    Py_ssize_t records        # where those of its tiles are in scratch

cdef struct Job:
    Conv p
    Window w                       # channels and planes
    Py_ssize_t sweep_count         # phases along z and y
    Sweep[SWEEPS] sweeps
    Axis[2] x                      # phases along x
    Halves halves                  # rows that are copied: split, or with their borders
    Reach[2] reach                 # of each phase along x
    Py_ssize_t x_count, line       # of them; outputs of a tile if rows are one long line
    Py_ssize_t weight_m, weight_c  # weights from one output, input to the next
    Py_ssize_t kernel              # weights of one output and input
    Py_ssize_t planes, each, parts  # groups of all samples; of a task; or tasks of a plane
    Py_ssize_t tasks, macs         # macs of a task
    Py_ssize_t batch               # tiles of which the rows are found at once
    Py_ssize_t[2] masks            # entries of each phase along x
    Ring ring                      # what the border adds to a gradient
    Py_ssize_t masks_at, patches_at  # where they are in scratch; patches of loads
    Py_ssize_t extras_at           # of the ring
    Py_ssize_t near                # planes between their sums and their ring
    Py_ssize_t zeros, shared       # scratch: the zeros; all that is shared;
    Py_ssize_t table, rows, private  # a thread's: where its table is, its rows; all of it

cdef struct Part:  # the work of a task
    Py_ssize_t plane0, plane1, tile0, tile1
    const unsigned int* masks      # of the phases along x
    const unsigned int* masks1


cdef inline Py_ssize_t record_of(const Sweep* s) noexcept nogil:
    """Count the integers that tell of a tile: place, rows, and the rows to load."""
    return 2 + s.blocks * s.rows.loads


cdef inline void cut_line(Job* job, Py_ssize_t lanes) noexcept nogil:
    """Take pieces of a single row for the rows of a tile."""
    cdef Rows* r = &job.sweeps[0].rows
    r.rows = r.loads = ROWS
    r.per_unit = r.tiles = (job.x[0].extent - 1) // (ROWS * lanes) + 1
    job.line = ROWS * lanes


cdef inline void cut_tasks(Job* job, int threads) noexcept nogil:
    """Give a task some planes, or a part of one."""
    cdef Py_ssize_t plane = job.w.m * job.w.c * job.kernel * job.w.plane
    cdef Py_ssize_t wanted = TASKS_PER_THREAD * threads
    job.planes = job.p.n * job.p.g
    job.each = max(job.planes // wanted, TASK_MACS // plane)
    job.each = max(min(job.each, ROUND_MACS // plane), 1)
    job.parts = 1
    if job.each == 1:
        job.parts = max(wanted // max(job.planes, 1), plane // ROUND_MACS)
        job.parts = max(min(job.parts, plane // TASK_MACS), 1)
    job.tasks = ((job.planes - 1) // job.each + 1) * job.parts if job.planes else 0
    job.macs = plane // job.parts * job.each + 1


cdef inline void reach_taps(Job* job, Py_ssize_t lanes) noexcept nogil:
    """Find out how far it is from a column to its taps."""
    cdef int i
    cdef const Axis* x
    cdef Reach* r
    for i in range(2):
        x = &job.x[min(i, job.x_count - 1)]
        r = &job.reach[i]
        r.taps, r.at, r.tap0, r.tap_step = x.taps, x.off0, x.tap0, x.tap_step
        r.steps[0] = r.steps[1] = x.off_step
    job.halves = halves_of(
        &job.x[0], job.line if job.line else job.x[0].extent, lanes,
        MANY if job.line else job.w.m, job.w.value,
    )
    if job.halves.used:
        r = &job.reach[0]
        r.at = job.halves.at
        r.steps[0], r.steps[1] = job.halves.steps[0], job.halves.steps[1]
        job.zeros = max(
            job.zeros, job.x[0].extent + job.halves.room + max(r.at, job.halves.nothing)
        )


cdef inline void mask_taps(
    const Job* job, int phase, Py_ssize_t x, unsigned int* masks
) noexcept nogil:
    """Tell for each tap which lanes of column x are in the row: copies have them all."""
    cdef Py_ssize_t kx
    if not job.halves.used:
        list_masks(&job.x[phase], x, masks)
        return
    for kx in range(job.x[phase].taps):
        masks[kx] = LANES


cdef Job make_job(const Conv* p, bint gradient, Py_ssize_t item, int threads) noexcept nogil:
    """Cut the planes into tiles and the work into tasks."""
    cdef Job job
    cdef Sweep* s
    cdef Py_ssize_t i, ny = phases(p, 1) if gradient else 1, table = 0, terms = 0
    cdef Py_ssize_t rows
    cdef Py_ssize_t lanes = VEC_BYTES // item
    job.p = p[0]
    job.w = gradient_window(p, 0) if gradient else forward_window(p)
    job.kernel = p.kernel[0] * p.kernel[1] * p.kernel[2]
    job.weight_m, job.weight_c = p.icg * job.kernel, job.kernel
    job.x_count = 1
    job.x[0] = forward_axis(p, 2)
    job.sweep_count = 1
    if gradient:
        job.weight_m, job.weight_c = job.weight_c, job.weight_m
        job.x_count = phases(p, 2)
        for i in range(job.x_count):
            job.x[i] = ascending(gradient_axis(p, 2, i))
        job.sweep_count = phases(p, 0) * ny
    job.line = 0
    for i in range(job.sweep_count):
        s = &job.sweeps[i]
        s.z = ascending(gradient_axis(p, 0, i // ny)) if gradient else forward_axis(p, 0)
        s.y = ascending(gradient_axis(p, 1, i % ny)) if gradient else forward_axis(p, 1)
        s.rows = cut_rows(&s.y)
        if job.sweep_count == 1 and s.y.extent == 1 and s.y.taps == 1:
            cut_line(&job, lanes)
        s.tiles = s.z.extent * s.rows.tiles
        s.blocks = s.z.taps * s.rows.blocks
        terms = max(terms, s.blocks * job.w.c)
        table = max(table, s.blocks * job.w.c * s.rows.loads)
    cut_tasks(&job, threads)
    job.zeros = p.out_extent[2] if gradient else p.in_extent[2]
    reach_taps(&job, lanes)
    job.zeros = aligned(job.zeros)
    job.shared = job.zeros
    for i in range(job.sweep_count):
        s = &job.sweeps[i]
        s.records = job.shared
        job.shared += aligned(s.tiles * record_of(s) * ADDRESS // item)
    job.masks_at = job.shared
    for i in range(job.x_count):
        job.masks[i] = job.x[i].taps
        if not job.line:
            job.masks[i] *= (job.x[0].extent - 1) // lanes + 1
        job.shared += aligned(job.masks[i])
    job.patches_at = job.shared
    job.shared += aligned(room_of_patches(&job.halves, &job.x[0]) // item)
    job.ring = ring_of(p, gradient)
    job.extras_at = job.shared
    job.shared += aligned((job.ring.rows + job.ring.columns) * sizeof(Extra) // item)
    job.table = aligned(job.x[0].taps + job.x[job.x_count - 1].taps)
    rows = table * job.halves.room if job.halves.used else 0
    job.batch = BATCH // (ADDRESS * table + sizeof(Head))
    if rows:
        job.batch = min(job.batch, BATCH // item // rows)
    if job.halves.patched:
        job.batch = min(job.batch, PATCHED)
    job.batch = 1 if job.line else max(job.batch, 1)
    job.rows = job.table + aligned(
        (job.batch * (ADDRESS * table + sizeof(Head)) + terms * ADDRESS) // item
    )
    job.private = job.rows + job.batch * rows
    job.near = job.each
    if job.ring.rows + job.ring.columns:
        job.near = max(NEAR_BYTES // item // (job.w.plane + job.w.source_plane), 1)
    return job


cdef inline unsigned int* masks_of(const Job* job, const real* scratch, int phase) noexcept nogil:
    """Give the masks of a phase along x, for every vector of columns."""
    return <unsigned int*>(
        scratch + job.masks_at + (aligned(job.masks[0]) if phase else 0)
    )


cdef void list_tiles(const Job* job, const Sweep* s, long long* record) noexcept nogil:
    """Write for each tile of a plane its place in `out`, its rows and what they read."""
    cdef Py_ssize_t z, residue, i, j, first, row
    for z in range(s.z.extent):
        for residue in range(s.rows.tiles // s.rows.per_unit):
            for i in range(s.rows.per_unit):
                first = 0 if job.line else residue + i * s.rows.rows * s.rows.unit
                row = (s.z.start + s.z.step * z) * job.w.height + s.y.start + s.y.step * first
                record[0] = row * job.w.width
                record[1] = max((s.y.extent - 1 - first) // s.rows.unit + 1, 0)
                if first >= s.y.extent:
                    record[1] = 0
                record[1] = i if job.line else min(record[1], s.rows.rows)
                list_rows(
                    &s.rows, &s.z, &s.y, job.x[0].source, z, first, s.rows.loads, record + 2
                )
                for j in range(s.blocks * s.rows.loads if job.line else 0):
                    if j % s.rows.loads:  # `run_line` looks for these
                        record[2 + j] = OUTSIDE
                record += record_of(s)


cdef void fill_shared(const Job* job, real* scratch) noexcept nogil:
    """Write the row outside of the source, the tiles of a plane and the masks of a row."""
    cdef Py_ssize_t x, lanes = VEC_BYTES // sizeof(real), number = 1
    cdef unsigned int* masks
    cdef Patch* patches = <Patch*>(scratch + job.patches_at)
    cdef int i
    fill_nothing(&job.halves, job.x[0].border, scratch, job.zeros)
    for i in range(job.sweep_count):
        list_tiles(job, &job.sweeps[i], <long long*>(scratch + job.sweeps[i].records))
    for i in range(job.x_count if not job.line else 0):
        masks = masks_of(job, <const real*>scratch, i)
        x = 0
        while x < job.x[0].extent:
            mask_taps(job, i, x, masks)
            if job.halves.patched:
                number = list_patches(
                    &job.x[0], x, min(lanes, job.x[0].extent - x), masks, patches, number
                )
            masks += job.x[i].taps
            x += lanes


cdef inline bint inside(const Job* job, Py_ssize_t x, Py_ssize_t length) noexcept nogil:
    """Tell whether a piece of a line reads and writes nothing outside of it."""
    cdef Py_ssize_t i, first, last
    for i in range(job.x_count):
        first = job.x[i].advance * x + job.x[i].off0
        last = first + job.x[i].advance * length + job.x[i].off_step * (job.x[i].taps - 1)
        if first < 0 or last > job.x[i].source or x + length > job.x[i].extent:
            return False
    return x + length <= job.x[0].extent


cdef inline void run_line(
    const Job* job, const Terms* t, Py_ssize_t piece, const vec** table, const Head* first,
    const vec* weight, const vec* bias, const vec* nothing, unsigned int* masks, vec* to,
) noexcept nogil:
    """Compute a piece of a single row: its vectors are the rows of the tile."""
    cdef Py_ssize_t x = piece * job.line, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef Py_ssize_t x_end = min(x + job.line, job.x[0].extent), i, j, count
    cdef unsigned int* masks1 = masks + job.x[0].taps
    cdef Head head = first[0]
    cdef Span where
    where.masks, where.masks1, where.tiles = masks, masks1, 1
    where.to_row = job.x_count * lanes
    while x < x_end:
        # As many vectors as need no masks; or one, which has masks of its own.
        count = (x_end - x) // lanes
        while count > 1 and not job.halves.used and not inside(job, x, count * lanes):
            count -= 1
        count = max(count, 1)
        for i in range(t.blocks):
            for j in range(1, ROWS):
                table[i * ROWS + j] = table[i * ROWS]
                if j < count and table[i * ROWS] != nothing:
                    table[i * ROWS + j] = ahead(table[i * ROWS], j * lanes)
        mask_taps(job, 0, x, masks)
        if job.x_count == 2:
            mask_taps(job, 1, x, masks1)
        where.x, where.x_end, head.count = x, min(x + lanes, x_end), count
        run_channels(t, <const vec* const*>table, &head, weight, bias, &where, to)
        x += count * lanes


cdef inline void run_rows(
    const Job* job, const Terms* t, const Ends* ends, const vec* const* table,
    const Head* heads, const vec* weights, const vec* biases, const Span* where, vec* out,
) noexcept nogil:
    """Compute a batch of tiles: rows but for the ends that need patches, then these."""
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef Span middle = where[0]
    if job.halves.patched:
        middle.x = ends.left * lanes
        middle.x_end = min(ends.right * lanes, where.x_end)
        middle.masks += ends.left * t.reach[0].taps
    if middle.x < middle.x_end:
        run_channels(t, table, heads, weights, biases, &middle, out)
    if job.halves.patched:  # what they read is near by now
        run_ends(t, ends, table, heads, weights, biases, where, out)


cdef inline void list_offsets(
    const Job* job, const Sweep* s, Py_ssize_t* offsets
) noexcept nogil:
    """List where the weights of each (c, kz, block of ky) are."""
    cdef Py_ssize_t c, kz, block, row
    for c in range(job.w.c):
        for kz in range(s.z.taps):
            for block in range(s.rows.blocks):
                row = (s.z.tap0 + s.z.tap_step * kz) * job.p.kernel[1]
                row += s.y.tap0 + s.y.tap_step * block * s.rows.taps
                offsets[0] = c * job.weight_c + row * job.p.kernel[2]
                offsets += 1


cdef inline void point_tile(
    const Job* job, const Sweep* s, const long long* record, const vec* planes,
    const vec* nothing, const vec** table, vec** to,
) noexcept nogil:
    """Give the addresses of the rows that a tile reads."""
    cdef Py_ssize_t _c, count = s.blocks * s.rows.loads, x = record[1] * job.line
    cdef bint copied = job.halves.used
    if job.line and not job.halves.split:  # of a line only the ends
        copied = copied and not inside(job, x, job.line)
    for _c in range(job.w.c):
        if copied:
            point_copies(
                &job.halves, &job.x[0], x, record + 2, count, planes, nothing, table, to
            )
        else:
            point(table, record + 2, count, planes, nothing)
        table += count
        planes = ahead(planes, job.w.source_plane)


cdef Py_ssize_t run_of(const Job* job, const Sweep* s) noexcept nogil:
    """Choose how many blocks of terms make a chain: of whole channels, if they fit."""
    cdef Py_ssize_t terms = max(
        s.rows.taps * max(job.x[0].taps, job.x[job.x_count - 1].taps), 1
    )
    cdef Py_ssize_t channel = max(s.blocks, 1), depth = job.w.c * channel * terms
    cdef Py_ssize_t most = max(chain(depth), SHORT)
    if channel * terms <= most:
        return channel * (most // (channel * terms))
    return max(partial_chain(depth) // terms, 1)


cdef void run_tiles(
    const Job* job, const Sweep* s, const Part* work, const vec* source,
    const vec* weights, const vec* biases, const vec* zeros, vec* private, vec* out,
) noexcept nogil:
    """Compute some tiles of some planes, in one phase: batch after batch."""
    cdef Py_ssize_t plane, group = work.plane0 % job.p.g, _i, size = record_of(s), count = 0
    cdef Head* heads = <Head*>ahead(private, job.table)
    cdef const vec** table = <const vec**>(heads + job.batch)
    cdef vec* rows = <vec*>ahead(private, job.rows)
    cdef const vec* nothing = ahead(zeros, job.halves.nothing if job.halves.used else 0)
    cdef const long long* record
    cdef Head* head
    cdef Span where
    cdef Terms t
    cdef Ends ends = ends_of(&job.x[0], &s.rows, VEC_BYTES // (4 if vec is f32v else 8))
    ends.patches, ends.constant = <const Patch*>ahead(zeros, job.patches_at), zeros
    t.column, t.high = s.rows.column, s.rows.rows == ROWS
    t.blocks = job.w.c * s.blocks
    t.run = run_of(job, s)
    t.m, t.m_step = job.w.m, job.weight_m
    t.plane, t.width = job.w.plane, job.w.width
    t.phases = <int>job.x_count
    t.relu = job.p.relu
    t.reach[0], t.reach[1] = job.reach[0], job.reach[1]
    t.y_step = s.y.tap_step * job.p.kernel[2]
    t.loads = t.blocks * s.rows.loads
    t.offsets = <const Py_ssize_t*>(table + job.batch * t.loads)
    list_offsets(job, s, <Py_ssize_t*>t.offsets)
    where.masks, where.masks1 = work.masks, work.masks1
    where.x, where.x_end = 0, job.x[0].extent
    where.to_row = s.y.step * s.rows.unit * job.w.width
    for plane in range(work.plane0, work.plane1):
        record = <const long long*>ahead(zeros, s.records) + work.tile0 * size
        for _i in range(work.tile0, work.tile1):
            head = heads + count
            head.weight = group * job.w.m * job.w.c * job.kernel
            head.bias = group * job.w.m
            head.out = plane * job.w.m * job.w.plane + record[0]
            head.count = record[1]
            point_tile(
                job, s, record, ahead(source, plane * job.w.c * job.w.source_plane), nothing,
                table + count * t.loads, &rows,
            )
            record += size
            count += 1
            if count == job.batch or (plane + 1 == work.plane1 and _i + 1 == work.tile1):
                where.tiles = count
                if job.line:
                    run_line(
                        job, &t, head.count, table, head, weights, biases, nothing,
                        <unsigned int*>private, out,
                    )
                else:
                    run_rows(
                        job, &t, &ends, <const vec* const*>table, heads, weights, biases,
                        &where, out,
                    )
                count = 0
                rows = <vec*>ahead(private, job.rows)
        group = group + 1 if group + 1 < job.p.g else 0


cdef void list_extras_of(Job* job, Extra* extras) noexcept nogil:
    """List what the border adds to a gradient, if it does."""
    if job.ring.rows + job.ring.columns:
        list_ring(&job.ring, &job.p, extras)


cdef void add_rings(
    const Job* job, Py_ssize_t plane0, Py_ssize_t plane1, const real* source,
    const real* weight, real* out,
) noexcept nogil:
    """Add to some planes, each the only one of its group, what lies beyond their border."""
    cdef Py_ssize_t plane
    for plane in range(plane0, plane1):
        add_ring(
            &job.p, &job.ring, weight + plane % job.p.g * job.kernel,
            source + plane * job.w.source_plane, out + plane * job.w.plane,
        )


cdef void run_part(
    const Job* job, Part* work, Py_ssize_t part, const real* source, const real* weight,
    const real* bias, const real* shared, real* private, real* out,
) noexcept nogil:
    """Compute a part of some planes, phase after phase."""
    cdef Py_ssize_t i
    cdef const Sweep* s
    for i in range(job.sweep_count):
        s = &job.sweeps[i]
        work.tile0 = s.tiles * part // job.parts
        work.tile1 = s.tiles * (part + 1) // job.parts
        if real is float:
            run_tiles(
                job, s, work, <const f32v*>source, <const f32v*>weight, <const f32v*>bias,
                <const f32v*>shared, <f32v*>private, <f32v*>out,
            )
        else:
            run_tiles(
                job, s, work, <const f64v*>source, <const f64v*>weight, <const f64v*>bias,
                <const f64v*>shared, <f64v*>private, <f64v*>out,
            )


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* source, const real* weight,
    const real* bias, const real* shared, real* private, real* out,
) noexcept nogil:
    """Compute some planes, or a part of one."""
    cdef Py_ssize_t first = task // job.parts * job.each
    cdef Py_ssize_t end = min(first + job.each, job.planes)
    cdef Part work
    work.masks = <const unsigned int*>masks_of(job, shared, 0)
    work.masks1 = <const unsigned int*>masks_of(job, shared, 1)
    while first < end:
        work.plane0, work.plane1 = first, min(first + job.near, end)
        run_part(
            job, &work, task % job.parts, source, weight, bias, shared, private, out
        )
        if job.ring.extras and job.parts == 1:
            add_rings(job, first, work.plane1, source, weight, out)
        first += job.near


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* source,
    const real* weight, const real* bias, real* scratch, real* out, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(
                job, i, source, weight, bias, <const real*>scratch, scratch + job.shared, out
            )
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, source, weight, bias, <const real*>scratch,
            scratch + job.shared + threadid() * job.private, out,
        )


cdef int run(
    Job* job, const real* source, const real* weight, const real* bias, real* out,
    real* scratch, int threads,
) except -1:
    """Do the tasks round by round."""
    cdef Py_ssize_t begin = 0, end, step = round_of(job.macs, 1, threads)
    fill_shared(job, scratch)
    list_extras_of(job, <Extra*>(scratch + job.extras_at))
    while begin < job.tasks:
        end = min(begin + step, job.tasks)
        with nogil:
            run_tasks(job, begin, end, source, weight, bias, scratch, out, threads)
        look()
        begin = end
    if job.ring.extras and job.parts > 1:
        with nogil:
            add_rings(job, 0, job.planes, source, weight, out)
    return 0


cdef int start(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, source, weight, bias, out and scratch, and run the direction."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, gradient, sizeof(real), threads)
    cdef const real* source = reals(held, 1, p.n * p.g * job.w.c * job.w.source_plane, like)
    cdef const real* weight = reals(held, 2, p.g * p.ocg * p.icg * job.kernel, like)
    cdef const real* bias = reals_or_nothing(held, 3, p.g * job.w.m, like)
    cdef real* out = reals(held, 4, p.n * p.g * job.w.m * job.w.plane, like)
    cdef real* scratch = room(held, 5, job.shared + threads * job.private, like)
    return run(&job, source, weight, bias, out, scratch, threads) if job.tasks else 0


cdef int forward(const Buffers* held, int threads, real* like) except -1:
    """Run fprop."""
    return start(held, False, threads, like)


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Run dgrad."""
    return start(held, True, threads, like)


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that fprop or dgrad needs."""
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, direction == "dgrad", item, threads)
    return job.shared + threads * job.private


def fprop(geometry, x, weight, bias, y, scratch, int threads, /):
    """Write the convolution of x to y; the bias may be None."""
    call((geometry, x, weight, bias), (y, scratch), threads, forward[float], forward[double])


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call((geometry, dy, weight, bias), (dx, scratch), threads, gradient[float], gradient[double])
