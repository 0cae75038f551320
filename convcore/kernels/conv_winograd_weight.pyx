# The gradient of weight by Winograd's minimal filtering.
#
# What      dw = G^T [ sum over tiles of (B^T x B) * (A dy A^T) ] G for each pair of channels
#           (winograd.pxd): at each of up to 36 points a product of matrices over tiles.
# Layout    x and dy are turned into a matrix for each point; dw like weight, flat.
#
#                 tile ->             o -> NR
#             c [ v      ]     tile [ dy  ]         added to sums [point][panel][c][o]
#             | [ MR rows]   x   |  [     ]
#             v [        ]       v  [     ]
#
# Assumes   flat native buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, block of channels, block of o, chunk of boxes). A task owns
#           its sums. Boxes and chunks depend on the problem alone; the sums of chunks are
#           added in a fixed tree. So the bits are the same for any thread count.
# Scratch   per thread the matrices of a box and the sums of one task; with several chunks
#           the sums of all tasks instead, of which there are < 2 * TASKS.
# Cost      as conv_winograd.pyx; x is transformed once for a block of o, dy once for one of c.
# Finite    If any sum is not, the caller computes all of dw again.
# Source    as winograd.pxd: the form of Lavin and Gray, read the other way round.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, geometry_of, read_geometry, reals, room,
)
from convcore.kernels.finite cimport are_finite
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, Window, forward_window, volume
from convcore.kernels.patch cimport Patch, bytes_of_lists, list_places, turn_patch
from convcore.kernels.rounds cimport (
    TASKS_PER_THREAD, add_tree, aligned, ceil_div, odd_lines, round_of, slot_of, units_of,
)
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain, sum_scattered
from convcore.kernels.transpose cimport MOST_LANES, spread
from convcore.kernels.vector cimport MR, NR_BYTES, NV, f32v, f64v, nr, real
from convcore.kernels.winograd cimport gradients, inputs
from convcore.kernels.winograd_tiles cimport (
    TileBox, Tiles, cut_boxes, inputs_of, outputs_of, tile_box, tiles_of,
)
from convcore.kernels.winograd_transforms cimport (
    patches, transform_patch, weights_from_tile,
)

cdef enum:
    FIELDS = CONV_FIELDS + 1  # the problem, and the outputs of a tile along an axis
    TILES = 96  # of a box, so that its sums are not read and written too often
    PRIVATE_BYTES = 3145728  # of the matrices of a box
    TASK_BYTES = 2621440  # of the sums of one task
    SUM_BYTES = 4194304  # of the sums of all chunks
    TASKS = 8  # tasks that a large problem is split into at least
    FEWEST = 32  # channels of a task, or all: with fewer, transforms are most of its work

cdef struct Job:
    Conv p
    Window w
    Tiles t
    Py_ssize_t taps
    Py_ssize_t channels, channel_tasks             # of x: in a task; tasks along them
    Py_ssize_t panels, panel_block, panel_tasks    # panels of NR channels o
    Py_ssize_t chunk, chunks                       # boxes of a chunk
    Py_ssize_t tasks, sums                         # scalars of one task's sums
    Py_ssize_t row, matrix                         # scalars of x's matrices
    Py_ssize_t panel, turned                       # of dy's: a panel, all of a point
    Py_ssize_t rows, point                         # of the sums: a panel, all of a point
    Py_ssize_t patch, lines, lists                 # of a thread's buffers
    Py_ssize_t shared, private                     # scratch in scalars

cdef struct Side:                                  # x or dy, as a box reads it
    Patch patch
    Py_ssize_t width, plane, sample                # scalars of a row, a channel, a sample
    Py_ssize_t matrix, row                         # of its matrices


cdef void lay_out(Job* job, Py_ssize_t item) noexcept nogil:
    """Say how large everything is."""
    cdef Py_ssize_t lanes = NR_BYTES // item, most = job.t.most
    cdef Py_ssize_t rows = (job.t.count_y - 1) * job.t.out_y + job.t.points_y
    cdef Py_ssize_t pitch = (job.t.count_x - 1) * job.t.out_x + job.t.points_x
    job.channel_tasks = ceil_div(job.p.icg, job.channels)
    job.channels = ceil_div(job.p.icg, job.channel_tasks)
    job.panel_tasks = ceil_div(job.panels, job.panel_block)
    job.panel_block = ceil_div(job.panels, job.panel_tasks)
    job.row = odd_lines(job.channels + lanes)
    job.matrix = odd_lines(most * job.row)
    job.panel = most * lanes
    job.turned = odd_lines(job.panel_block * job.panel)
    job.rows = (job.channels + MR) * lanes
    job.point = odd_lines(job.panel_block * job.rows)
    job.sums = job.t.points * job.point
    job.patch = aligned(job.t.phases * rows * pitch * (lanes // NV))
    job.lines = aligned(job.t.points_y * pitch * (lanes // NV))
    job.lists = aligned(max(
        (most + job.channels + MR) * sizeof(Py_ssize_t),
        bytes_of_lists(&job.w, job.t.phases * rows * pitch),
    ) // item + 1)
    job.private = (
        job.t.points * (job.matrix + job.turned) + job.patch + job.lines + job.lists
        + aligned(lanes) + aligned((job.channels * job.taps + MOST_LANES) * lanes)
    )


cdef Job make_job(const Conv* p, Py_ssize_t size, Py_ssize_t item) noexcept nogil:
    """Split the work: by the problem alone, never by the number of threads."""
    cdef Job job
    cdef Py_ssize_t parts, most, wanted = TILES, tiles
    cdef bint fits
    job.p = p[0]
    job.w = forward_window(p)
    job.taps = p.kernel[1] * p.kernel[2]
    job.panels = ceil_div(p.ocg, NR_BYTES // item)
    job.channels, job.panel_block = p.icg, job.panels
    job.t = tiles_of(&job.w, size)
    tiles = job.t.images * job.t.y * job.t.x * job.t.phases
    while True:
        lay_out(&job, item)
        parts = p.g * job.channel_tasks * job.panel_tasks
        fits = job.sums * item <= TASK_BYTES
        # Chunks first, they repeat no work; but their sums have to fit into caches.
        most = max(1, SUM_BYTES // item // (parts * job.sums))
        if fits and parts * min(most, ceil_div(tiles, TILES)) >= TASKS:
            break
        if job.channels * NV * 2 > job.panel_block * NR_BYTES // item and job.channels > FEWEST:
            job.channels = ceil_div(job.channels, 2)
        elif job.panel_block > 1:
            job.panel_block = ceil_div(job.panel_block, 2)
        elif job.channels > FEWEST:
            job.channels = ceil_div(job.channels, 2)
        else:
            break
    while True:
        cut_boxes(&job.t, wanted)
        lay_out(&job, item)
        if job.private * item <= PRIVATE_BYTES or wanted == 1:
            break
        wanted = ceil_div(wanted, 2)
    job.chunks = max(1, min(min(ceil_div(TASKS, parts), most), job.t.boxes))
    job.chunk = max(1, ceil_div(job.t.boxes, job.chunks))
    job.chunks = max(1, ceil_div(job.t.boxes, job.chunk))
    job.tasks = parts * job.chunks
    job.shared = job.tasks * job.sums if job.chunks > 1 else 0
    if job.chunks == 1:
        job.private += job.sums
    return job


cdef inline void place(
    const Job* job, Py_ssize_t part, Py_ssize_t* group, Py_ssize_t* channel, Py_ssize_t* panel
) noexcept nogil:
    """Find the part of dw that a task sums."""
    panel[0] = part % job.panel_tasks * job.panel_block
    channel[0] = part // job.panel_tasks % job.channel_tasks * job.channels
    group[0] = part // (job.panel_tasks * job.channel_tasks)


cdef Side side_of(const Job* job, const TileBox* box, bint gradient) noexcept nogil:
    """Describe x, or dy, as a box reads it."""
    cdef Side s
    if gradient:
        s.patch = outputs_of(&job.t, &job.w, box)
        s.width, s.plane = job.w.x.extent, job.w.plane
        s.sample = job.p.g * job.p.ocg * s.plane
        s.matrix, s.row = job.turned, job.panel // job.t.most
    else:
        s.patch = inputs_of(&job.t, &job.w, box)
        s.width, s.plane = job.w.x.source, job.w.source_plane
        s.sample = job.p.g * job.p.icg * s.plane
        s.matrix, s.row = job.matrix, job.row
    return s


cdef void transform_side(
    patches* what, const Job* job, const TileBox* box, const Side* s, const real* source,
    Py_ssize_t channels, int* places, real* patch, real* v,
) noexcept nogil:
    """Write one vector of channels of a box to its columns of the matrices."""
    cdef Py_ssize_t tiles = box.count_y * box.count_x, i, image, phase, depth = job.w.z.extent
    cdef real* lines = patch + job.patch
    cdef const real* here
    cdef real* to
    for i in range(box.images):
        image = box.image + i
        to = v + i * job.t.phases * tiles * s.row
        here = source + image // depth * s.sample + image % depth * (s.plane // depth)
        if real is float:
            turn_patch(
                &s.patch, places, <const f32v*>here, s.plane, channels, s.width,
                job.w.value, <f32v*>patch,
            )
            for phase in range(job.t.phases):
                transform_patch(
                    what, &job.t, <const f32v*>patch + phase * s.patch.size, s.patch.pitch,
                    box.count_y, box.count_x, <f32v*>lines,
                    <f32v*>(to + phase * tiles * s.row), s.matrix, s.row,
                )
        else:
            turn_patch(
                &s.patch, places, <const f64v*>here, s.plane, channels, s.width,
                job.w.value, <f64v*>patch,
            )
            for phase in range(job.t.phases):
                transform_patch(
                    what, &job.t, <const f64v*>patch + phase * s.patch.size, s.patch.pitch,
                    box.count_y, box.count_x, <f64v*>lines,
                    <f64v*>(to + phase * tiles * s.row), s.matrix, s.row,
                )


cdef void transform_x(
    const Job* job, const TileBox* box, const real* x, Py_ssize_t channels, int* places,
    real* patch, real* v,
) noexcept nogil:
    """Write the matrices of some channels of x."""
    cdef Py_ssize_t half = nr(x) // NV, c = 0
    cdef Side s = side_of(job, box, False)
    list_places(&job.w, &s.patch, places)
    memset(patch, 0, job.patch * sizeof(real))
    while c < channels:
        transform_side(
            <inputs*>NULL, job, box, &s, x + c * s.plane, min(half, channels - c), places,
            patch, v + c,
        )
        c += half


cdef void transform_dy(
    const Job* job, const TileBox* box, const real* dy, Py_ssize_t channels, int* places,
    real* patch, real* v,
) noexcept nogil:
    """Write the matrices of some channels of dy, panel by panel; zeros fill the last."""
    cdef Py_ssize_t half = nr(dy) // NV, o = 0, f, t, tiles = job.t.most
    cdef real* to
    cdef Side s = side_of(job, box, True)
    list_places(&job.w, &s.patch, places)
    memset(patch, 0, job.patch * sizeof(real))
    while o < ceil_div(channels, nr(dy)) * nr(dy):
        to = v + o // s.row * job.panel + o % s.row
        if o < channels:
            transform_side(
                <gradients*>NULL, job, box, &s, dy + o * s.plane, min(half, channels - o),
                places, patch, to,
            )
        for f in range(job.t.points if o >= channels else 0):
            for t in range(tiles):
                memset(to + f * s.matrix + t * s.row, 0, half * sizeof(real))
        o += half


cdef void sum_box(
    const Job* job, const TileBox* box, Py_ssize_t channel, Py_ssize_t panel,
    const real* x, const real* dy, real* private, real* sums, bint first,
) noexcept nogil:
    """Add the products of one box; x and dy begin with their group."""
    cdef Py_ssize_t lanes = nr(x), i, j, k, f, here
    cdef Py_ssize_t tiles = box.images * job.t.phases * box.count_y * box.count_x
    cdef Py_ssize_t channels = min(job.channels, job.p.icg - channel)
    cdef Py_ssize_t panels = min(job.panel_block, job.panels - panel)
    cdef Py_ssize_t most = chain(job.t.images * job.t.y * job.t.x * job.t.phases)
    cdef real* v = private
    cdef real* turned = v + job.t.points * job.matrix
    cdef real* patch = turned + job.t.points * job.turned
    cdef real* zeros = patch + job.patch + job.lines
    cdef Py_ssize_t* places = <Py_ssize_t*>(zeros + aligned(lanes))
    cdef Py_ssize_t* distances = places + job.channels + MR
    transform_x(
        job, box, x + channel * job.w.source_plane, channels, <int*>places, patch, v
    )
    transform_dy(
        job, box, dy + panel * lanes * job.w.plane,
        min(panels * lanes, job.p.ocg - panel * lanes), <int*>places, patch, turned,
    )
    memset(zeros, 0, NR_BYTES)
    for i in range(job.channels + MR):
        places[i] = min(i, channels - 1)
    for k in range(tiles):
        distances[k] = k * job.row
    for f in range(job.t.points):
        for j in range(panels):
            k = 0
            while k < tiles:
                here = min(most, tiles - k)
                sum_scattered(
                    <const real*>v + f * job.matrix, places, distances + k,
                    <const real*>turned + f * job.turned + j * job.panel + k * lanes, here,
                    <const real*>zeros if first and k == 0 else <const real*>NULL,
                    sums + f * job.point + j * job.rows, channels,
                    job.p.ocg - (panel + j) * lanes <= lanes // NV,
                )
                k += here


cdef bint write_sums(
    const Job* job, Py_ssize_t part, const real* sums, real* block, real* dw
) noexcept nogil:
    """Transform the sums of one part back and write them; tell whether all are finite."""
    cdef Py_ssize_t group, channel, panel, lanes = nr(sums), j, c, channels, columns
    cdef bint finite = True, here
    cdef int vectors
    place(job, part, &group, &channel, &panel)
    channels = min(job.channels, job.p.icg - channel)
    for j in range(panel, min(panel + job.panel_block, job.panels)):
        columns = min(lanes, job.p.ocg - j * lanes)
        vectors = 1 if columns <= lanes // NV else NV  # `sum_box` makes no others
        for c in range(channels):
            if real is float:
                weights_from_tile(
                    &job.t, <const f32v*>(sums + c * lanes), job.point,
                    <f32v*>(block + c * job.taps * lanes), lanes,
                )
            else:
                weights_from_tile(
                    &job.t, <const f64v*>(sums + c * lanes), job.point,
                    <f64v*>(block + c * job.taps * lanes), lanes,
                )
        if real is float:
            here = are_finite(<const f32v*>block, channels * job.taps, vectors)
        else:
            here = are_finite(<const f64v*>block, channels * job.taps, vectors)
        finite = finite and here
        spread(
            <const real*>block, lanes, channels * job.taps, columns,
            dw + ((group * job.p.ocg + j * lanes) * job.p.icg + channel) * job.taps,
            job.p.icg * job.taps, 1,
        )
        sums += job.rows
    return finite


cdef void run_task(
    const Job* job, Py_ssize_t task, Py_ssize_t done, Py_ssize_t until, const real* x,
    const real* dy, real* shared, real* private, unsigned char* lost, real* dw,
) noexcept nogil:
    """Sum boxes done .. until of a chunk for one part of dw."""
    cdef Py_ssize_t part = task // job.chunks, first = task % job.chunks * job.chunk
    cdef Py_ssize_t group, channel, panel, i
    cdef real* sums = shared + task * job.sums
    cdef TileBox box
    if job.chunks == 1:
        sums = private + job.private - job.sums
    place(job, part, &group, &channel, &panel)
    for i in range(first + done, min(first + until, job.t.boxes)):
        box = tile_box(&job.t, i)
        sum_box(
            job, &box, channel, panel, x + group * job.p.icg * job.w.source_plane,
            dy + group * job.p.ocg * job.w.plane, private, sums, i == first,
        )
    if job.chunks == 1 and until == job.chunk:
        lost[part] = not write_sums(
            job, part, <const real*>sums, block_of(job, private, sums), dw
        )


cdef inline real* block_of(const Job* job, real* private, const real* like) noexcept nogil:
    """Find a thread's room for the weights of one panel."""
    cdef Py_ssize_t end = job.private - (job.sums if job.chunks == 1 else 0)
    return private + end - aligned((job.channels * job.taps + MOST_LANES) * nr(like))


cdef void add_chunks(
    const Job* job, Py_ssize_t part, real* shared, real* private, unsigned char* lost, real* dw
) noexcept nogil:
    """Add the chunks of one part of dw in a tree."""
    cdef real* sums = shared + part * job.chunks * job.sums
    add_tree(sums, job.chunks, job.sums)
    lost[part] = not write_sums(
        job, part, <const real*>sums, block_of(job, private, sums), dw
    )


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t done, Py_ssize_t until,
    const real* x, const real* dy, real* dw, real* scratch, unsigned char* lost, int threads,
) noexcept nogil:
    """Do one round of tasks, or a step of them."""
    cdef Py_ssize_t i
    cdef real* private = scratch + job.shared
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, done, until, x, dy, scratch, private, lost, dw)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, done, until, x, dy, scratch,
            private + slot_of(i, begin, end, threads, threadid()) * job.private, lost, dw,
        )


cdef void add_parts(
    const Job* job, real* scratch, unsigned char* lost, real* dw, int threads
) noexcept nogil:
    """Add the chunks of every part of dw."""
    cdef Py_ssize_t i
    cdef real* private = scratch + job.shared
    if threads == 1:
        for i in range(job.tasks // job.chunks):
            add_chunks(job, i, scratch, private, lost, dw)
        return
    for i in prange(job.tasks // job.chunks, num_threads=threads, schedule="static"):
        add_chunks(job, i, scratch, private + threadid() * job.private, lost, dw)


cdef int run(
    const Job* job, const real* x, const real* dy, real* dw, unsigned char* flags,
    real* scratch, int threads,
) except -1:
    """Do the tasks round by round, then add their chunks."""
    cdef Py_ssize_t begin = 0, end, done, until, i, macs = job.sums * job.t.most
    cdef Py_ssize_t each = round_of(macs * job.chunk, TASKS_PER_THREAD, threads)
    cdef Py_ssize_t step = units_of(macs, job.chunk)
    cdef unsigned char* lost = <unsigned char*>scratch
    scratch += aligned(job.tasks)
    if step < job.chunk:
        each = threads
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        done = 0
        while done < job.chunk:
            until = min(done + step, job.chunk)
            with nogil:
                run_tasks(job, begin, end, done, until, x, dy, dw, scratch, lost, threads)
                if until == job.chunk and end == job.tasks and job.chunks > 1:
                    add_parts(job, scratch, lost, dw, threads)
            look()
            done = until
        begin = end
    for i in range(job.tasks // job.chunks):
        if lost[i]:
            flags[0] = 1
    return 0


cdef int weight_gradient(const Buffers* held, int threads, real* like) except -1:
    """Check geometry, x, dy, dw, scratch and the flag, and sum the gradient of weight."""
    cdef const long long* fields = geometry_of(held, FIELDS)
    cdef const Conv* p = <const Conv*>fields
    cdef Job job = make_job(p, fields[CONV_FIELDS], sizeof(real))
    cdef const real* x = reals(held, 1, p.n * p.g * p.icg * volume(p.in_extent), like)
    cdef const real* dy = reals(held, 2, p.n * p.g * p.ocg * volume(p.out_extent), like)
    cdef real* dw = reals(held, 3, p.g * p.ocg * p.icg * job.taps, like)
    cdef real* scratch = room(
        held, 4, aligned(job.tasks) + job.shared + threads * job.private, like
    )
    if p.n:
        return run(&job, x, dy, dw, flags_of(held, 5, 1), scratch, threads)
    memset(dw, 0, p.g * p.ocg * p.icg * job.taps * sizeof(real))
    return 0


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that wgrad needs."""
    cdef long long[FIELDS] fields
    cdef Job job
    if threads < 1:
        raise ValueError(f"kernel: threads must be >= 1, got {threads}")
    read_geometry(geometry, fields, FIELDS)
    job = make_job(<const Conv*>fields, fields[CONV_FIELDS], item)
    return aligned(job.tasks) + job.shared + threads * job.private


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
