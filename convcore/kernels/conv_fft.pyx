# Convolution with large kernels and its gradient of x, by Fourier transforms of tiles.
#
# What      y = F^-1 [ sum over c of F(x) * conj F(w) ] for each tile (fft.pxd, fft_tiles.pxd):
#           at each point of the spectrum a complex product of a matrix of tiles by one of
#           weights, as three real ones. The gradient of x is the same with weights turned
#           around.
# Layout    x (n, g*icg, d, h, w), weight (g*ocg, icg, 1, kh, kw), y like x, flat.
#
#                    3 points, c ->                m -> NR                  m ->
#             tile [ v | v | ...   ]          c [ u ]              tile [ sums ]
#               |  [   |   | MR rows]   x     | [   ]    written to  |  [      ]   for each of
#               v  [   |   |        ]         v [   ]                v  [      ]   3 points
#
# Assumes   flat native buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (group, block of tiles, block of m): each writes its own outputs.
#           A sum depends on its tile alone, its order on the number of channels, the length
#           of tiles on the shape of one sample: the bits are the same for any split,
#           thread count and batch.
# Scratch   the spectra of weights, at most 128 MB at a time (fft_tasks.pxd); per thread those
#           of a block of tiles and their sums for one panel of m, below 8 MB.
# Cost      1.5 multiply-adds of a product for each input of a tile where the definition has
#           one for each tap of each output, and the transforms, which few channels do not
#           pay for.
# Finite    A transform spreads what is not finite over a tile, and may overflow: samples
#           with such outputs are named, and computed again by the caller.
# Why not   Complex products of four real ones: 4/3 of the work and of the weights' spectra.
#           The matrices of a point together, as in conv_winograd.pyx: with hundreds of points
#           each store of a transform would be to another page.
# Source    as fft.pxd; Mathieu, Henaff and LeCun, Fast Training of Convolutional Networks
#           through FFTs, arXiv:1312.5851.

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.activation cimport rectify
from convcore.kernels.band cimport Box
from convcore.kernels.buffers cimport (
    LINE, Buffers, call, flags_of, geometry_of, has_type, read_geometry, reals, reals_or_nothing,
    refuse, room,
)
from convcore.kernels.fft cimport from_points, list_turns, scale_of
from convcore.kernels.fft_tasks cimport Job, make_job
from convcore.kernels.fft_tiles cimport (
    Place, box_of, list_numbers, place_of, transform_inputs_of,
)
from convcore.kernels.fft_weights cimport pack_panel, packing_room
from convcore.kernels.finite cimport is_zero
from convcore.kernels.geometry cimport CONV_FIELDS, Conv, volume
from convcore.kernels.rounds cimport TASKS_PER_THREAD, aligned, round_of
from convcore.kernels.targets cimport write_panel
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport chain, sum_scattered
from convcore.kernels.vector cimport (
    MR, MR_QUARTER, NV, VEC_BYTES, all_lanes, f32v, f64v, nr, real, vec, zero_lanes,
)

cdef enum:
    PANELS_PER_THREAD = 1  # whose weights are transformed between two looks for Ctrl-C


cdef void pack_panels(
    const Job* job, Py_ssize_t first, Py_ssize_t count, const real* weight,
    const real* turns, real* private, Py_ssize_t each, real* packed, int threads,
) noexcept nogil:
    """Transform the weights of some panels."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(count):
            pack_panel(job, first + i, weight, turns, private, packed + i * job.panel)
        return
    for i in prange(count, num_threads=threads, schedule="static"):
        pack_panel(
            job, first + i, weight, turns, private + threadid() * each,
            packed + i * job.panel,
        )


cdef int pack(
    const Job* job, Py_ssize_t first, Py_ssize_t count, const real* weight,
    const real* turns, real* private, Py_ssize_t each, real* packed, int threads,
) except -1:
    """Transform the weights of many, with `each` scalars of scratch for a thread."""
    cdef Py_ssize_t done = 0, here
    while done < count:
        here = min(PANELS_PER_THREAD * threads, count - done)
        with nogil:
            pack_panels(
                job, first + done, here, weight, turns, private, each,
                packed + done * job.panel, threads,
            )
        look()
        done += here
    return 0


cdef void list_biases(const Job* job, const real* bias, real* to) noexcept nogil:
    """Write the biases panel by panel: zeros where there are none."""
    cdef Py_ssize_t lanes = nr(to), group, m
    memset(to, 0, job.p.g * job.panels * lanes * sizeof(real))
    for group in range(job.p.g if bias else 0):
        for m in range(job.w.m):
            to[group * job.panels * lanes + m] = bias[group * job.w.m + m]


cdef void transform_inputs(
    const Job* job, Py_ssize_t first, Py_ssize_t count, const real* source,
    const real* turns, int* numbers, real* tile, real* v,
) noexcept nogil:
    """Write the rows of some tiles."""
    cdef Py_ssize_t i
    cdef Place at
    list_numbers(numbers, job.m.length_x)
    for i in range(count):
        at = place_of(&job.m, &job.w, first + i)
        transform_inputs_of(
            &job.m, &job.w, &at, source, job.w.c, numbers, turns, tile, tile + job.tile,
            v + i * job.row, job.channels,
        )


cdef void multiply(
    const Job* job, Py_ssize_t tiles, const real* v, const real* packed, const real* zeros,
    Py_ssize_t* lists, real* sums, bint narrow,
) noexcept nogil:
    """Sum over channels, at every point, for one panel."""
    cdef Py_ssize_t lanes = nr(v), most = chain(job.w.c), f, k, here, i
    cdef Py_ssize_t* places = lists
    cdef Py_ssize_t* distances = lists + tiles + MR
    for i in range(tiles + MR):
        places[i] = min(i, tiles - 1) * job.row
    for k in range(job.w.c):
        distances[k] = k
    for f in range(job.planes):
        k = 0
        while k < job.w.c:
            here = min(most, job.w.c - k)
            sum_scattered(
                v + f * job.channels, places, distances + k,
                packed + f * job.matrix + k * lanes, here, zeros if k == 0 else NULL,
                sums + f * job.sums, tiles, narrow,
            )
            k += here


cdef inline bint restore_tile(
    const Job* job, const Place* at, const vec* sums, const vec* bias, const vec* turns,
    vec* tile, vec* space, vec* to, bint narrow,
) noexcept nogil:
    """Transform a row of NR channels of a tile back; tell whether all outputs are finite."""
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8), half, y, x
    cdef vec scale = all_lanes(bias, scale_of(&job.m.s, bias))
    cdef vec value, last, check = zero_lanes(bias)
    for half in range(1 if narrow else NV):
        from_points(
            &job.m.s, sums + half, job.sums // lanes, turns, space,
            at.rows if job.m.s.y > 1 else 1, tile,
        )
        last = bias[half]
        for y in range(at.rows):
            for x in range(at.columns):
                value = tile[y * job.m.length_x + x] * scale + last
                check = check + zero_lanes(bias) * value
                to[NV * (y * at.columns + x) + half] = value
    return is_zero(check)


cdef bint write_tile(
    const Job* job, Py_ssize_t index, const real* sums, const real* bias, const real* turns,
    Py_ssize_t rows, real* tile, bint narrow, real* out,
) noexcept nogil:
    """Transform one panel of a tile back and write it; tell whether all is finite."""
    cdef Place at = place_of(&job.m, &job.w, index)
    cdef Box box = box_of(&at, &job.w)
    cdef real* space = tile + job.tile
    cdef real* buffer = space + job.room
    cdef bint finite
    if real is float:
        finite = restore_tile(
            job, &at, <const f32v*>sums, <const f32v*>bias, <const f32v*>turns, <f32v*>tile,
            <f32v*>space, <f32v*>buffer, narrow,
        )
    else:
        finite = restore_tile(
            job, &at, <const f64v*>sums, <const f64v*>bias, <const f64v*>turns, <f64v*>tile,
            <f64v*>space, <f64v*>buffer, narrow,
        )
    if job.p.relu:
        rectify(buffer, at.rows * at.columns * nr(sums))
    write_panel(&job.w, &box, <const real*>buffer, rows, out)
    return finite


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* source, const real* packed,
    const real* biases, const real* zeros, const real* turns, unsigned char* lost,
    real* private, real* out,
) noexcept nogil:
    """Compute the outputs of one task; mark tiles whose outputs are not finite."""
    cdef Py_ssize_t lanes = nr(source), rest = task // job.panel_tasks, i, j
    cdef Py_ssize_t first = rest % job.blocks * job.block, set_ = rest // job.blocks
    cdef Py_ssize_t group = set_ // job.sets, base = set_ % job.sets * job.set_panels
    cdef Py_ssize_t panel0 = base + task % job.panel_tasks * job.panel_block
    cdef Py_ssize_t panel1 = min(
        min(panel0 + job.panel_block, base + job.set_panels), job.panels
    )
    cdef Py_ssize_t tiles = min(job.block, job.m.tiles - first), tail = tiles % MR
    cdef real* tile = private
    cdef real* v = tile + job.tile + job.room + job.outputs + job.lists
    cdef real* sums = v + job.block * job.row
    cdef Py_ssize_t* lists = <Py_ssize_t*>(tile + job.tile + job.room + job.outputs)
    cdef bint narrow
    if panel0 >= panel1:
        return
    packed += (group * job.panels if job.whole else -base) * job.panel
    transform_inputs(
        job, first, tiles, source + group * job.w.c * job.w.source_plane, turns, <int*>lists,
        tile, v,
    )
    for j in range(panel0, panel1):
        narrow = job.w.m - j * lanes <= lanes // 2
        multiply(
            job, tiles, <const real*>v, packed + j * job.panel, zeros, lists, sums,
            job.narrow or (narrow and (tail == 0 or tail > MR_QUARTER)),
        )
        for i in range(tiles):
            if not write_tile(
                job, first + i, <const real*>sums + i * lanes,
                biases + (group * job.panels + j) * lanes, turns,
                min(lanes, job.w.m - j * lanes), tile, narrow,
                out + (group * job.w.m + j * lanes) * job.w.plane,
            ):
                lost[task * job.block + i] = 1


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* source,
    const real* packed, const real* biases, const real* zeros, const real* turns,
    unsigned char* lost, real* private, real* out, int threads,
) noexcept nogil:
    """Do one round of tasks."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, source, packed, biases, zeros, turns, lost, private, out)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, source, packed, biases, zeros, turns, lost,
            private + threadid() * job.private, out,
        )


cdef void name_lost(
    const Job* job, const unsigned char* lost, unsigned char* flags
) noexcept nogil:
    """Set the flags of samples with an output that is not finite."""
    cdef Py_ssize_t task, i, first
    for task in range(job.tasks):
        first = task // job.panel_tasks % job.blocks * job.block
        for i in range(min(job.block, job.m.tiles - first)):
            if lost[task * job.block + i]:
                flags[(first + i) // (job.m.y * job.m.x * job.w.z.extent)] = 1


cdef int pack_set(
    const Job* job, Py_ssize_t index, const real* weight, const real* turns, real* private,
    real* packed, int threads,
) except -1:
    """Transform the weights of a set of panels, or all."""
    cdef Py_ssize_t first = index % job.sets * job.set_panels
    cdef Py_ssize_t count = min(job.set_panels, job.panels - first)
    if job.whole:
        first, count = 0, job.p.g * job.panels
    else:
        first += index // job.sets * job.panels
    return pack(job, first, count, weight, turns, private, job.private, packed, threads)


cdef int run(
    const Job* job, const real* source, const real* weight, const real* packed,
    const real* bias, real* out, unsigned char* flags, real* scratch, int threads,
) except -1:
    """Transform the weights, unless they are, and do the tasks, round by round.

    The scratch has biases, zeros, turns, marks, each thread's part, and space for weights.
    """
    cdef Py_ssize_t begin = 0, end, each = round_of(job.macs, TASKS_PER_THREAD, threads)
    cdef Py_ssize_t together = job.tasks // (1 if job.whole else job.p.g * job.sets)
    cdef real* zeros = scratch + aligned(job.p.g * job.panels * nr(scratch))
    cdef real* turns = zeros + aligned(nr(scratch))
    cdef unsigned char* lost = <unsigned char*>(turns + aligned(job.m.s.turns))
    cdef real* private = scratch + job.shared
    cdef real* here = private + threads * job.private
    list_biases(job, bias, scratch)
    memset(zeros, 0, (private - zeros) * sizeof(real))
    list_turns(&job.m.s, turns)
    while begin < job.tasks:
        if weight and begin % together == 0:
            pack_set(
                job, begin // together, weight, <const real*>turns, private, here, threads
            )
            packed = here
        end = min(begin + each, (begin // together + 1) * together)
        with nogil:
            run_tasks(
                job, begin, end, source, packed, <const real*>scratch, <const real*>zeros,
                <const real*>turns, lost, private, out, threads,
            )
        look()
        begin = end
    name_lost(job, lost, flags)
    return 0


cdef int start(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, source, weight, bias, out, scratch and flags, and run the direction."""
    cdef const long long* fields = geometry_of(held, CONV_FIELDS)
    cdef const Conv* p = <const Conv*>fields
    cdef Job job = make_job(p, gradient, sizeof(real), threads)
    cdef Py_ssize_t pixels = p.n * p.g * p.icg * volume(p.in_extent)
    cdef Py_ssize_t planes = p.n * p.g * p.ocg * volume(p.out_extent)
    cdef const real* source = reals(held, 1, planes if gradient else pixels, like)
    cdef const real* weight = NULL
    cdef const real* packed = NULL
    cdef const real* bias = reals_or_nothing(held, 3, p.g * job.w.m, like)
    cdef real* out = reals(held, 4, pixels if gradient else planes, like)
    cdef Py_ssize_t needed = job.shared + threads * job.private
    if has_type(held, 2, b"B") and job.whole:  # bytes that `pack` wrote
        packed = room(held, 2, job.packed, like)
    else:
        needed += job.packed
        weight = reals(held, 2, p.g * p.ocg * p.icg * job.taps, like)
    return run(
        &job, source, weight, packed, bias, out, flags_of(held, 6, p.n),
        room(held, 5, needed, like), threads,
    )


cdef int start_packing(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, weight, packed and scratch, and pack."""
    cdef const long long* fields = geometry_of(held, CONV_FIELDS)
    cdef const Conv* p = <const Conv*>fields
    cdef Job job = make_job(p, gradient, sizeof(real), threads)
    cdef const real* weight = reals(held, 1, p.g * p.ocg * p.icg * job.taps, like)
    cdef real* packed = room(held, 2, job.packed, like)
    if not job.whole:
        refuse()
    cdef real* turns = room(
        held, 3, aligned(job.m.s.turns) + threads * packing_room(&job), like
    )
    list_turns(&job.m.s, turns)
    return pack(
        &job, 0, job.p.g * job.panels, weight, <const real*>turns,
        turns + aligned(job.m.s.turns), packing_room(&job), packed, threads,
    )


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
    cdef Conv p
    if threads < 1:
        raise ValueError(f"kernel: threads must be >= 1, got {threads}")
    read_geometry(geometry, <long long*>&p, CONV_FIELDS)
    return make_job(&p, direction == "dgrad", item, threads)


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that fprop or dgrad needs."""
    cdef Job job = job_of(geometry, direction, item, threads)
    return job.shared + threads * job.private + job.packed


def packed_size(geometry, str direction, Py_ssize_t item, /):
    """Give the scalars of packed weights, for whatever number of samples.

    There are none where they would be too many.
    """
    cdef Job job = job_of(geometry, direction, item, 1)
    return job.packed if job.whole else 0


def tile_lengths(geometry, str direction, Py_ssize_t item, /):
    """Give the lengths of tiles along y and x: what packed weights depend on."""
    cdef Job job = job_of(geometry, direction, item, 1)
    return job.m.length_y, job.m.length_x


def pack_fprop(geometry, weight, packed, int threads, /):
    """Write the weights to bytes, as fprop reads them; it takes those for the weights."""
    call(
        (geometry, weight), (packed, rooms(geometry, "fprop", weight, threads)), threads,
        pack_forward[float], pack_forward[double],
    )


def pack_dgrad(geometry, weight, packed, int threads, /):
    """Do the same for dgrad."""
    call(
        (geometry, weight), (packed, rooms(geometry, "dgrad", weight, threads)), threads,
        pack_gradient_of_x[float], pack_gradient_of_x[double],
    )


cdef bytearray rooms(geometry, str direction, weight, int threads):
    """Make room for the transforms of weights."""
    cdef Py_ssize_t item = weight.itemsize
    cdef Job job = job_of(geometry, direction, item, threads)
    return bytearray((aligned(job.m.s.turns) + threads * packing_room(&job)) * item + LINE)


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
