# Convolution with 3 taps an axis and its gradient of x, by Winograd's minimal filtering.
#
# What      y = A^T [ sum over c of (G w G^T) * (B^T d B) ] A for each tile (winograd.pxd):
#           at each of up to 36 points a product of a matrix of tiles by one of weights.
#           The gradient of x is the same with weights turned around. With a dilation, tiles
#           lie between each other's pixels (winograd_tiles.pxd).
# Layout    x (n, g*icg, d, h, w), weight (g*ocg, icg, 1, 3 or 1, 3 or 1), y like x, flat.
#
#                 c ->               m -> NR                  m ->
#          tile [ v      ]        c [ u ]              tile [ sums ]
#            |  [ MR rows]   x    | [   ]    added to    |  [      ]     for each point
#            v  [        ]        v [   ]                v  [      ]
#
#           More than MOST_CHANNELS of c in blocks, one after the other, to the same sums.
# Assumes   flat native buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, box of tiles, block of m): each writes its own outputs.
#           A sum depends on its tile alone, its order on the number of channels: the bits
#           are the same for any split, thread count and batch.
# Scratch   the transformed weights once; per thread the matrices of a box, below 8 MB.
#           Weights that would not stay in L3 are transformed panel by panel in each task.
# Cost      2.25 multiply-adds of a point's product where the definition has 9 (F(4 x 4, 3 x 3)),
#           and two transforms, which few channels do not pay for.
# Finite    A transform spreads what is not finite over a tile, and may overflow: samples
#           with such outputs are named, and computed again by the caller.
# Why not   Three passes over memory (transform, multiply, transform back): v is 2.25 times
#           as large as x, and would be written and read once more.
# Source    as winograd.pxd.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.activation cimport rectify
from convcore.kernels.band cimport Box
from convcore.kernels.buffers cimport (
    Buffers, call, flags_of, geometry_of, has_type, read_geometry, reals, reals_or_nothing,
    refuse, room,
)
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, volume
from convcore.kernels.patch cimport Patch, list_places, turn_patch
from convcore.kernels.rounds cimport ROUND_MACS, TASKS_PER_THREAD, aligned, round_of
from convcore.kernels.targets cimport write_panel
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain, sum_scattered
from convcore.kernels.vector cimport MR, NV, f32v, f64v, nr, real
from convcore.kernels.winograd cimport inputs
from convcore.kernels.winograd_job cimport MOST_ROUNDS, Job, make_job
from convcore.kernels.winograd_tiles cimport TileBox, inputs_of, tile_box
from convcore.kernels.winograd_transforms cimport transform_patch, write_tiles
from convcore.kernels.winograd_weights cimport pack_panel

cdef enum:
    FIELDS = CONV_FIELDS + 1  # the problem, and the outputs of a tile along an axis


cdef void pack_nth(
    const Job* job, Py_ssize_t index, const real* weight, real* packed
) noexcept nogil:
    """Transform the weights of panel `index`, counted through the groups."""
    cdef Py_ssize_t group = index // job.panels, panel = index % job.panels
    pack_panel(
        job, group, panel, 0, job.w.c, weight,
        packed + group * job.t.points * job.point + panel * job.w.c * nr(weight),
    )


cdef void pack_panels(
    const Job* job, const real* weight, real* packed, int threads
) noexcept nogil:
    """Transform all weights."""
    cdef Py_ssize_t i, panels = job.p.g * job.panels
    if threads == 1:
        for i in range(panels):
            pack_nth(job, i, weight, packed)
        return
    for i in prange(panels, num_threads=threads, schedule="static"):
        pack_nth(job, i, weight, packed)


cdef void list_biases(const Job* job, const real* bias, real* to) noexcept nogil:
    """Write the biases panel by panel: zeros where there are none."""
    cdef Py_ssize_t lanes = nr(to), group, m
    memset(to, 0, job.p.g * job.panels * lanes * sizeof(real))
    for group in range(job.p.g if bias else 0):
        for m in range(job.w.m):
            to[group * job.panels * lanes + m] = bias[group * job.w.m + m]


cdef void transform_inputs(
    const Job* job, const TileBox* box, const real* source, Py_ssize_t depth, int* places,
    real* patch, real* lines, real* v,
) noexcept nogil:
    """Write the matrices of a box for so many channels, vector after vector of them."""
    cdef Py_ssize_t lanes = nr(source) // NV, c = 0, i, image, sample, channels
    cdef Py_ssize_t height = job.w.y.source, width = job.w.x.source
    cdef Py_ssize_t tiles = box.count_y * box.count_x, phase
    cdef Patch p = inputs_of(&job.t, &job.w, box)
    cdef const real* plane
    cdef real* to
    list_places(&job.w, &p, places)
    memset(patch, 0, job.patch * sizeof(real))
    while c < depth:
        channels = min(lanes, depth - c)
        for i in range(box.images):
            image = box.image + i
            sample = image // job.w.z.extent
            plane = source + (sample * job.w.groups * job.w.c + c) * job.w.source_plane + (
                image % job.w.z.extent * height * width
            )
            to = v + i * job.t.phases * tiles * job.row + c
            if real is float:
                turn_patch(
                    &p, places, <const f32v*>plane, job.w.source_plane, channels, width,
                    job.w.value, <f32v*>patch,
                )
                for phase in range(job.t.phases):
                    transform_patch(
                        <inputs*>NULL, &job.t, <const f32v*>patch + phase * p.size, p.pitch,
                        box.count_y, box.count_x, <f32v*>lines,
                        <f32v*>(to + phase * tiles * job.row), job.matrix, job.row,
                    )
            else:
                turn_patch(
                    &p, places, <const f64v*>plane, job.w.source_plane, channels, width,
                    job.w.value, <f64v*>patch,
                )
                for phase in range(job.t.phases):
                    transform_patch(
                        <inputs*>NULL, &job.t, <const f64v*>patch + phase * p.size, p.pitch,
                        box.count_y, box.count_x, <f64v*>lines,
                        <f64v*>(to + phase * tiles * job.row), job.matrix, job.row,
                    )
        c += lanes


cdef void multiply(
    const Job* job, Py_ssize_t tiles, Py_ssize_t depth, Py_ssize_t panel, Py_ssize_t panels,
    const real* v, const real* packed, const real* zeros, Py_ssize_t* lists, real* sums
) noexcept nogil:
    """Sum over so many channels, at every point; `packed` begins with panel `panel`.

    Without `zeros`, what `sums` has is added to.
    """
    cdef Py_ssize_t lanes = nr(v), most = chain(job.w.c), f, j, k, here, i
    cdef Py_ssize_t* places = lists
    cdef Py_ssize_t* distances = lists + tiles + MR
    for i in range(tiles + MR):
        places[i] = min(i, tiles - 1) * job.row
    for k in range(depth):
        distances[k] = k
    for f in range(job.t.points):
        for j in range(panels):
            k = 0
            while k < depth:
                here = min(most, depth - k)
                sum_scattered(
                    v + f * job.matrix, places, distances + k,
                    packed + f * job.point + (j * job.w.c + k) * lanes, here,
                    zeros if k == 0 else NULL, sums + f * job.sums + j * job.panel, tiles,
                    job.w.m - (panel + j) * lanes <= lanes // NV,
                )
                k += here


cdef bint write_image(
    const Job* job, const TileBox* box, Py_ssize_t image, const real* sums, const real* bias,
    Py_ssize_t rows, real* buffer, real* out,
) noexcept nogil:
    """Transform one panel of one image back and write it; tell whether all is finite."""
    cdef Box b
    cdef bint finite
    cdef int vectors = 1 if rows <= nr(sums) // NV else NV  # `multiply` makes no others
    b.sample, b.samples = image // job.w.z.extent, 1
    b.first[0], b.count[0] = image % job.w.z.extent, 1
    b.first[1] = box.y * job.t.out_y * job.t.apart_y
    b.first[2] = box.x * job.t.out_x * job.t.apart_x
    b.count[1] = min(box.count_y * job.t.out_y * job.t.apart_y, job.w.y.extent - b.first[1])
    b.count[2] = min(box.count_x * job.t.out_x * job.t.apart_x, job.w.x.extent - b.first[2])
    if real is float:
        finite = write_tiles(
            &job.t, box, <const f32v*>sums, job.sums, <const f32v*>bias, vectors, b.count[1],
            b.count[2], <f32v*>buffer,
        )
    else:
        finite = write_tiles(
            &job.t, box, <const f64v*>sums, job.sums, <const f64v*>bias, vectors, b.count[1],
            b.count[2], <f64v*>buffer,
        )
    if job.p.relu:
        rectify(buffer, b.count[1] * b.count[2] * nr(sums))
    write_panel(&job.w, &b, <const real*>buffer, rows, out)
    return finite


cdef void write_panels(
    const Job* job, const TileBox* box, Py_ssize_t group, Py_ssize_t panel,
    Py_ssize_t panels, const real* sums, const real* biases, real* lost, real* buffer,
    real* out,
) noexcept nogil:
    """Write some panels of the images of a box; mark images that are not finite."""
    cdef Py_ssize_t lanes = nr(sums), first, i, j
    cdef Py_ssize_t tiles = job.t.phases * box.count_y * box.count_x
    for i in range(box.images):
        for j in range(panels):
            first = (panel + j) * lanes
            if not write_image(
                job, box, box.image + i, sums + j * job.panel + i * tiles * lanes,
                biases + group * job.panels * lanes + first, min(lanes, job.w.m - first),
                buffer, out + (group * job.w.m + first) * job.w.plane,
            ):
                lost[i] = 1


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* source, const real* weight,
    const real* packed, const real* biases, const real* zeros, real* lost, real* private,
    real* out,
) noexcept nogil:
    """Compute the outputs of one task; mark images whose outputs are not finite."""
    cdef Py_ssize_t lanes = nr(source), rest = task // job.panel_tasks, c = 0, depth, j, here
    cdef Py_ssize_t panel = task % job.panel_tasks * job.panel_block
    cdef Py_ssize_t panels = min(job.panel_block, job.panels - panel)
    cdef Py_ssize_t group = rest // job.t.boxes
    cdef TileBox box = tile_box(&job.t, rest % job.t.boxes)
    cdef real* v = private
    cdef real* sums = v + job.t.points * job.matrix
    cdef real* patch = sums + job.t.points * job.sums
    cdef real* lines = patch + job.patch
    cdef real* buffer = lines + job.lines
    cdef Py_ssize_t* lists = <Py_ssize_t*>(buffer + job.outputs)
    cdef real* fresh = <real*>lists + job.lists
    cdef real* to
    source += group * job.w.c * job.w.source_plane
    packed += (group * job.t.points * job.point + panel * job.w.c * lanes) * (not job.fresh)
    while c < job.w.c:
        depth = min(job.channels, job.w.c - c)
        transform_inputs(
            job, &box, source + c * job.w.source_plane, depth, <int*>lists, patch, lines, v
        )
        j = 0
        while j < panels:
            here = min(job.together, panels - j)
            to = sums + j % job.held * job.panel
            if job.fresh:
                pack_panel(job, group, panel + j, c, c + depth, weight, fresh)
            multiply(
                job, box.images * job.t.phases * box.count_y * box.count_x, depth, panel + j, here,
                <const real*>v, <const real*>fresh if job.fresh else packed + c * lanes,
                zeros if c == 0 else NULL, lists, to,
            )
            if c + depth == job.w.c:
                write_panels(
                    job, &box, group, panel + j, here, <const real*>to, biases,
                    lost + task * job.t.count_images, buffer, out,
                )
            j += here
        c += depth


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* source,
    const real* weight, const real* packed, const real* biases, const real* zeros,
    real* lost, real* private, real* out, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, source, weight, packed, biases, zeros, lost, private, out)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, source, weight, packed, biases, zeros, lost,
            private + threadid() * job.private, out,
        )


cdef void name_lost(const Job* job, const real* lost, unsigned char* flags) noexcept nogil:
    """Set the flags of samples with an output that is not finite."""
    cdef Py_ssize_t task, i
    cdef TileBox box
    for task in range(job.tasks):
        box = tile_box(&job.t, task // job.panel_tasks % job.t.boxes)
        for i in range(box.images):
            if lost[task * job.t.count_images + i]:
                flags[(box.image + i) // job.w.z.extent] = 1


cdef int run(
    const Job* job, const real* source, const real* weight, const real* packed,
    const real* bias, real* out, unsigned char* flags, real* scratch, int threads,
) except -1:
    """Transform the weights, unless they are, then do the tasks round by round.

    The scratch has biases, zeros, marks, each thread's part, and room for weights.
    """
    cdef Py_ssize_t begin = 0, end, round = ROUND_MACS, each = round_of(
        job.macs, max(1, min(TASKS_PER_THREAD, 2 * MOST_ROUNDS * round // job.macs)), threads
    )
    cdef real* zeros = scratch + aligned(job.p.g * job.panels * nr(scratch))
    cdef real* lost = zeros + aligned(nr(scratch))
    cdef real* private = scratch + job.shared
    cdef real* here = private + threads * job.private
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            if begin == 0:
                list_biases(job, bias, scratch)
                memset(zeros, 0, (private - zeros) * sizeof(real))
                if weight and not job.fresh:
                    pack_panels(job, weight, here, threads)
                    packed = here
            run_tasks(
                job, begin, end, source, weight, packed, <const real*>scratch,
                <const real*>zeros, lost, private, out, threads,
            )
        look()
        begin = end
    name_lost(job, <const real*>lost, flags)
    return 0


cdef int start(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, source, weight, bias, out, scratch and flags, and run the direction."""
    cdef const long long* fields = geometry_of(held, FIELDS)
    cdef const Conv* p = <const Conv*>fields
    cdef Job job = make_job(p, fields[CONV_FIELDS], gradient, sizeof(real), threads)
    cdef Py_ssize_t pixels = p.n * p.g * p.icg * volume(p.in_extent)
    cdef Py_ssize_t planes = p.n * p.g * p.ocg * volume(p.out_extent)
    cdef const real* source = reals(held, 1, planes if gradient else pixels, like)
    cdef const real* weight = NULL
    cdef const real* packed = NULL
    cdef const real* bias = reals_or_nothing(held, 3, p.g * job.w.m, like)
    cdef real* out = reals(held, 4, pixels if gradient else planes, like)
    cdef Py_ssize_t needed = job.shared + threads * job.private
    if has_type(held, 2, b"B"):  # bytes that `pack` wrote
        packed = room(held, 2, job.packed, like)
    else:
        needed += job.packed
        weight = reals(held, 2, p.g * p.ocg * p.icg * job.taps, like)
    return run(
        &job, source, weight, packed, bias, out, flags_of(held, 6, p.n),
        room(held, 5, needed, like), threads,
    )


cdef int start_packing(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, weight and packed, and pack."""
    cdef const long long* fields = geometry_of(held, FIELDS)
    cdef const Conv* p = <const Conv*>fields
    cdef Job job = make_job(p, fields[CONV_FIELDS], gradient, sizeof(real), threads)
    cdef const real* weight = reals(held, 1, p.g * p.ocg * p.icg * job.taps, like)
    cdef real* packed = room(held, 2, job.packed, like)
    if job.fresh:
        refuse()
    with nogil:
        pack_panels(&job, weight, packed, threads)
    return 0


cdef int pack_forward(const Buffers* held, int threads, real* like) except -1:
    """Pack for fprop."""
    return start_packing(held, False, threads, like)


cdef int pack_gradient_of_x(const Buffers* held, int threads, real* like) except -1:
    """Pack for dgrad."""
    return start_packing(held, True, threads, like)


cdef int forward(const Buffers* held, int threads, real* like) except -1:
    """Run fprop."""
    return start(held, False, threads, like)


cdef int gradient(const Buffers* held, int threads, real* like) except -1:
    """Run dgrad."""
    return start(held, True, threads, like)


cdef Job job_of(geometry, str direction, Py_ssize_t item, int threads) except *:
    """Read a problem outside of a call."""
    cdef long long[FIELDS] fields
    if threads < 1:
        raise ValueError(f"kernel: threads must be >= 1, got {threads}")
    read_geometry(geometry, fields, FIELDS)
    return make_job(
        <const Conv*>fields, fields[CONV_FIELDS], direction == "dgrad", item, threads
    )


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that fprop or dgrad needs."""
    cdef Job job = job_of(geometry, direction, item, threads)
    return job.shared + threads * job.private + job.packed


def packed_size(geometry, str direction, Py_ssize_t item, /):
    """Give the scalars of packed weights, for whatever extents and number of samples.

    There are none where they would be too many.
    """
    return job_of(geometry, direction, item, 1).packed


def pack_fprop(geometry, weight, packed, int threads, /):
    """Write the weights to bytes, as fprop reads them; it takes those for the weights."""
    call((geometry, weight), (packed,), threads, pack_forward[float], pack_forward[double])


def pack_dgrad(geometry, weight, packed, int threads, /):
    """Do the same for dgrad."""
    call(
        (geometry, weight), (packed,), threads, pack_gradient_of_x[float],
        pack_gradient_of_x[double],
    )


def fprop(geometry, x, weight, bias, y, scratch, int threads, /):
    """Write the convolution of x to y; the bias may be None, the weights packed.

    A flag for each sample comes back, set where y is not finite, if any is.
    """
    lost = bytearray(geometry[0])
    call(
        (geometry, x, weight, bias), (y, scratch, lost), threads, forward[float],
        forward[double],
    )
    return lost if 1 in lost else None


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx.

    The same comes back.
    """
    lost = bytearray(geometry[0])
    call(
        (geometry, dy, weight, bias), (dx, scratch, lost), threads, gradient[float],
        gradient[double],
    )
    return lost if 1 in lost else None
