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
# Scratch   the spectra of weights once; per thread those of a block of tiles and their sums
#           for one panel of m, below 8 MB.
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

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange, threadid
from libc.string cimport memset

from convcore.kernels.activation cimport rectify
from convcore.kernels.band cimport Box
from convcore.kernels.buffers cimport (
    LINE, Buffers, call, flags_of, geometry_of, has_type, read_geometry, reals, reals_or_nothing,
    room,
)
from convcore.kernels.fft cimport from_points, list_turns, to_points
from convcore.kernels.fft_tiles cimport (
    LONGEST, PRIVATE_BYTES, Mesh, Place, best_mesh, box_of, bytes_of, image_at, list_numbers,
    is_narrow, padded, place_of, row_of, size_of, step_of, time_of_tiles, turn_tile,
)
from convcore.kernels.geometry cimport (
    CONV_FIELDS, Conv, Window, forward_window, gradient_window, volume,
)
from convcore.kernels.rounds cimport TASKS_PER_THREAD, aligned, ceil_div, round_of
from convcore.kernels.targets cimport write_panel
from convcore.kernels.tile cimport chain, sum_scattered
from convcore.kernels.transpose cimport MOST_LANES, collect, turn_taps
from convcore.kernels.vector cimport (
    MR, MR_QUARTER, NR_BYTES, NV, VEC_BYTES, f32v, f64v, nr, real, vec, zero_lanes,
)
from convcore.kernels.winograd_tiles cimport is_zero, lowest

cdef enum:
    CACHE_BYTES = 16777216    # of weights that are still in L3 for the next tiles
    PANELS_PER_THREAD = 1     # whose weights are transformed between two looks for Ctrl-C

cdef struct Job:
    Conv p
    bint gradient
    Window w
    Mesh m
    Py_ssize_t taps, planes                        # matrices: three for each point
    Py_ssize_t block, blocks                       # tiles of a task
    Py_ssize_t panels, panel_block, panel_tasks    # of m: in a group, in a task
    Py_ssize_t row, channels                       # scalars: of v; channels with padding
    Py_ssize_t sums                                # of the sums of one matrix
    bint narrow                                    # whether a panel is half empty
    Py_ssize_t matrix, panel                       # of the weights: a point's, all of a panel
    Py_ssize_t tile, room, outputs, lists          # of a thread's buffers
    Py_ssize_t tasks, macs                         # macs of one task
    Py_ssize_t packed, shared, private             # scalars of scratch


cdef void lay_out(Job* job, Py_ssize_t item) noexcept nogil:
    """Say how large everything is, for tasks of so many tiles and panels."""
    job.blocks = ceil_div(job.m.tiles, job.block)
    job.panel_tasks = ceil_div(job.panels, job.panel_block)
    job.tasks = job.p.g * job.blocks * job.panel_tasks
    job.sums = step_of(padded(job.block, job.narrow), job.narrow, item)
    job.private = job.block * job.row + size_of(
        job.planes, padded(job.block, job.narrow), job.narrow, item
    ) + (
        job.tile + job.room + job.outputs + job.lists
    )


cdef void split(Job* job, Py_ssize_t item, int threads) noexcept nogil:
    """Choose tiles and panels of a task, by the estimated time."""
    cdef Py_ssize_t tiles, tasks
    cdef Py_ssize_t columns = ceil_div(min(job.w.m, NR_BYTES // item) * item, VEC_BYTES)
    cdef bint far = job.packed * item > CACHE_BYTES
    cdef double best = -1, now
    cdef Job other = job[0]
    for tasks in range(1, min(job.panels, 2 * threads) + 1):
        other.panel_block = ceil_div(job.panels, tasks)
        for tiles in range(1, max(min(job.m.tiles, 8 * MR), 1) + 1):
            other.block = tiles
            lay_out(&other, item)
            if best >= 0 and bytes_of(
                &other.m, other.w.c, tiles, job.narrow, item
            ) > PRIVATE_BYTES:
                break
            now = time_of_tiles(
                &other.m, other.w.c, other.panel_block * columns, tiles, item, far
            ) * ceil_div(other.tasks, threads)
            if best < 0 or now < best:
                best = now
                job[0] = other


cdef Job make_job(
    const Conv* p, bint gradient, Py_ssize_t item, int threads
) noexcept nogil:
    """Split the work into blocks of tiles and of panels."""
    cdef Job job
    cdef Py_ssize_t lanes = NR_BYTES // item, pixels
    job.p = p[0]
    job.gradient = gradient
    job.w = gradient_window(p, 0) if gradient else forward_window(p)
    job.m = best_mesh(&job.w, item)
    pixels = job.m.s.y * job.m.s.x
    job.taps = p.kernel[1] * p.kernel[2]
    job.planes = 3 * job.m.s.points
    job.panels = ceil_div(job.w.m, lanes)
    job.row = row_of(&job.m, job.w.c)
    job.channels = aligned(job.w.c)
    job.narrow = is_narrow(job.w.m, item)
    job.matrix = step_of(job.w.c, job.narrow, item)
    job.panel = size_of(job.planes, job.w.c, job.narrow, item)
    job.packed = p.g * job.panels * job.panel
    job.tile = aligned(pixels * (lanes // NV))
    job.room = aligned(job.m.s.room * (lanes // NV))
    job.outputs = aligned((max(pixels, job.taps) + MOST_LANES) * lanes)
    job.lists = aligned(
        (job.m.tiles if job.m.tiles < 8 * MR else 8 * MR) * 8 // item + MR * 8 // item
        + job.w.c * 8 // item + LONGEST * 4 // item + 8
    )
    split(&job, item, threads)
    job.macs = job.planes * job.block * job.w.c * job.panel_block * lanes
    job.shared = (
        aligned(p.g * job.panels * lanes) + aligned(job.tasks * job.block) + aligned(lanes)
        + aligned(job.m.s.turns)
    )
    return job


cdef inline void fill_tile(
    const Job* job, const vec* block, bint backwards, vec* tile
) noexcept nogil:
    """Put the taps of one vector of kernels into a tile of zeros, a row of NR apart."""
    cdef Py_ssize_t y, x, height = job.p.kernel[1], width = job.p.kernel[2], t
    for y in range(height):
        for x in range(width):
            t = y * width + x
            if backwards:
                t = job.taps - 1 - t
            tile[y * job.m.length_x + x] = block[NV * t]


cdef inline void pack_kernels(
    const Job* job, const vec* block, const vec* turns, vec* tile, vec* space, vec* to
) noexcept nogil:
    """Transform the taps of one row of NR kernels."""
    cdef Py_ssize_t half, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef Py_ssize_t rows = job.p.kernel[1] if job.m.s.y > 1 else 1
    cdef double scale = 0.25 / (job.m.s.y * job.m.s.x)
    for half in range(1 if job.narrow else NV):
        fill_tile(job, block + half, job.gradient, tile)
        to_points(
            &job.m.s, <const vec*>tile, rows, turns, space, to + half, job.matrix // lanes, scale
        )


cdef void pack_panel(
    const Job* job, Py_ssize_t index, const real* weight, const real* turns, real* private,
    real* packed,
) noexcept nogil:
    """Transform the weights of panel `index`, counted through the groups."""
    cdef Py_ssize_t lanes = nr(weight), group = index // job.panels
    cdef Py_ssize_t panel = index % job.panels, first = panel * lanes
    cdef Py_ssize_t rows = min(lanes, job.w.m - first), c, t, here
    cdef real* to = packed + index * job.panel
    cdef real* tile = private
    cdef real* space = tile + job.tile
    cdef real* block = space + job.room
    cdef const real* end = weight + job.p.g * job.p.ocg * job.p.icg * job.taps
    weight += group * job.p.ocg * job.p.icg * job.taps
    memset(tile, 0, job.tile * sizeof(real))
    memset(block, 0, job.outputs * sizeof(real))
    for c in range(job.w.c):
        if not job.gradient:
            collect(
                weight + (first * job.w.c + c) * job.taps, job.w.c * job.taps, rows, job.taps,
                block, lanes,
            )
        t = 0
        while t < job.taps and job.gradient:
            here = min(lanes // NV, job.taps - t)
            turn_taps(
                weight + (c * job.w.m + first) * job.taps + t, job.taps, rows, here, end,
                block + t * lanes,
            )
            t += here
        if real is float:
            pack_kernels(
                job, <const f32v*>block, <const f32v*>turns, <f32v*>tile, <f32v*>space,
                <f32v*>(to + c * lanes),
            )
        else:
            pack_kernels(
                job, <const f64v*>block, <const f64v*>turns, <f64v*>tile, <f64v*>space,
                <f64v*>(to + c * lanes),
            )


cdef void pack_panels(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* weight,
    const real* turns, real* private, Py_ssize_t each, real* packed, int threads,
) noexcept nogil:
    """Transform the weights of some panels."""
    cdef Py_ssize_t i
    if threads == 1:
        for i in range(begin, end):
            pack_panel(job, i, weight, turns, private, packed)
        return
    for i in prange(begin, end, num_threads=threads, schedule="static"):
        pack_panel(job, i, weight, turns, private + threadid() * each, packed)


cdef int pack_all(
    const Job* job, const real* weight, const real* turns, real* private, Py_ssize_t each,
    real* packed, int threads,
) except -1:
    """Transform all weights, with `each` scalars of scratch for a thread."""
    cdef Py_ssize_t begin = 0, end, panels = job.p.g * job.panels
    while begin < panels:
        end = min(begin + PANELS_PER_THREAD * threads, panels)
        with nogil:
            pack_panels(job, begin, end, weight, turns, private, each, packed, threads)
        PyErr_CheckSignals()
        begin = end
    return 0


cdef void list_biases(const Job* job, const real* bias, real* to) noexcept nogil:
    """Write the biases panel by panel: zeros where there are none."""
    cdef Py_ssize_t lanes = nr(to), group, m
    memset(to, 0, job.p.g * job.panels * lanes * sizeof(real))
    for group in range(job.p.g if bias else 0):
        for m in range(job.w.m):
            to[group * job.panels * lanes + m] = bias[group * job.w.m + m]


cdef inline void transform_tile(
    const Job* job, const Place* at, const int* numbers, const vec* plane,
    Py_ssize_t channels, const vec* turns, vec* tile, vec* space, vec* v,
) noexcept nogil:
    """Write the points of one vector of channels of a tile."""
    cdef Py_ssize_t lanes = VEC_BYTES // (4 if vec is f32v else 8)
    turn_tile(
        &job.m, numbers, plane, job.w.source_plane, channels, job.w.y.source, job.w.x.source,
        at.y + lowest(&job.w.y), at.x + lowest(&job.w.x), job.m.length_y, job.m.length_x, tile,
    )
    to_points(
        &job.m.s, <const vec*>tile, job.m.s.y, turns, space, v, job.channels // lanes, 0
    )


cdef void transform_inputs(
    const Job* job, Py_ssize_t first, Py_ssize_t count, const real* source,
    const real* turns, int* numbers, real* tile, real* v,
) noexcept nogil:
    """Write the rows of some tiles, one vector of channels after the other."""
    cdef Py_ssize_t lanes = nr(source) // NV, c, i
    cdef const real* plane
    cdef real* space = tile + job.tile
    cdef Place at
    list_numbers(numbers, job.m.length_x)
    for i in range(count):
        at = place_of(&job.m, &job.w, first + i)
        plane = source + image_at(
            at.image, job.w.z.extent, job.w.groups * job.w.c * job.w.source_plane,
            job.w.source_plane,
        )
        c = 0
        while c < job.w.c:
            if real is float:
                transform_tile(
                    job, &at, numbers, <const f32v*>plane, min(lanes, job.w.c - c),
                    <const f32v*>turns, <f32v*>tile, <f32v*>space, <f32v*>(v + i * job.row + c),
                )
            else:
                transform_tile(
                    job, &at, numbers, <const f64v*>plane, min(lanes, job.w.c - c),
                    <const f64v*>turns, <f64v*>tile, <f64v*>space, <f64v*>(v + i * job.row + c),
                )
            plane += lanes * job.w.source_plane
            c += lanes


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
    cdef vec value, last, check = zero_lanes(bias)
    for half in range(1 if narrow else NV):
        from_points(
            &job.m.s, sums + half, job.sums // lanes, turns, space,
            at.rows if job.m.s.y > 1 else 1, tile,
        )
        last = bias[half]
        for y in range(at.rows):
            for x in range(at.columns):
                value = tile[y * job.m.length_x + x] + last
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
    cdef Py_ssize_t panel0 = task % job.panel_tasks * job.panel_block
    cdef Py_ssize_t panel1 = min(panel0 + job.panel_block, job.panels)
    cdef Py_ssize_t group = rest // job.blocks, first = rest % job.blocks * job.block
    cdef Py_ssize_t tiles = min(job.block, job.m.tiles - first), tail = tiles % MR
    cdef real* tile = private
    cdef real* v = tile + job.tile + job.room + job.outputs + job.lists
    cdef real* sums = v + job.block * job.row
    cdef Py_ssize_t* lists = <Py_ssize_t*>(tile + job.tile + job.room + job.outputs)
    cdef bint narrow
    transform_inputs(
        job, first, tiles, source + group * job.w.c * job.w.source_plane, turns, <int*>lists,
        tile, v,
    )
    for j in range(panel0, panel1):
        narrow = job.w.m - j * lanes <= lanes // 2
        multiply(
            job, tiles, <const real*>v,
            packed + (group * job.panels + j) * job.panel, zeros, lists, sums,
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


cdef int run(
    const Job* job, const real* source, const real* weight, const real* packed,
    const real* bias, real* out, unsigned char* flags, real* scratch, int threads,
) except -1:
    """Transform the weights, unless they are, then do the tasks round by round.

    The scratch has biases, zeros, turns, marks, each thread's part, and space for weights.
    """
    cdef Py_ssize_t begin = 0, end, each = round_of(job.macs, TASKS_PER_THREAD, threads)
    cdef real* zeros = scratch + aligned(job.p.g * job.panels * nr(scratch))
    cdef real* turns = zeros + aligned(nr(scratch))
    cdef unsigned char* lost = <unsigned char*>(turns + aligned(job.m.s.turns))
    cdef real* private = scratch + job.shared
    cdef real* here = private + threads * job.private
    list_biases(job, bias, scratch)
    memset(zeros, 0, (private - zeros) * sizeof(real))
    list_turns(&job.m.s, turns)
    if weight and job.tasks:
        pack_all(job, weight, <const real*>turns, private, job.private, here, threads)
        packed = here
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            run_tasks(
                job, begin, end, source, packed, <const real*>scratch, <const real*>zeros,
                <const real*>turns, lost, private, out, threads,
            )
        PyErr_CheckSignals()
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
    if has_type(held, 2, b"B"):  # bytes that `pack` wrote
        packed = room(held, 2, job.packed, like)
    else:
        needed += job.packed
        weight = reals(held, 2, p.g * p.ocg * p.icg * job.taps, like)
    return run(
        &job, source, weight, packed, bias, out, flags_of(held, 6, p.n),
        room(held, 5, needed, like), threads,
    )


cdef Py_ssize_t packing_room(const Job* job) noexcept nogil:
    """Give the scalars that a thread needs to pack."""
    return job.tile + job.room + job.outputs


cdef int start_packing(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, weight, packed and scratch, and pack."""
    cdef const long long* fields = geometry_of(held, CONV_FIELDS)
    cdef const Conv* p = <const Conv*>fields
    cdef Job job = make_job(p, gradient, sizeof(real), threads)
    cdef const real* weight = reals(held, 1, p.g * p.ocg * p.icg * job.taps, like)
    cdef real* packed = room(held, 2, job.packed, like)
    cdef real* turns = room(
        held, 3, aligned(job.m.s.turns) + threads * packing_room(&job), like
    )
    list_turns(&job.m.s, turns)
    return pack_all(
        &job, weight, <const real*>turns, turns + aligned(job.m.s.turns),
        packing_room(&job), packed, threads,
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


def scratch_size(geometry, str direction, Py_ssize_t item, int threads):
    """Give the scalars of scratch that fprop or dgrad needs."""
    cdef Job job = job_of(geometry, direction, item, threads)
    return job.shared + threads * job.private + job.packed


def packed_size(geometry, str direction, Py_ssize_t item):
    """Give the scalars of packed weights, for whatever number of samples."""
    return job_of(geometry, direction, item, 1).packed


def tile_lengths(geometry, str direction, Py_ssize_t item):
    """Give the lengths of tiles along y and x: what packed weights depend on."""
    cdef Job job = job_of(geometry, direction, item, 1)
    return job.m.length_y, job.m.length_x


def pack_fprop(geometry, weight, packed, int threads):
    """Write the weights to bytes, as fprop reads them; it takes those for the weights."""
    call(
        (geometry, weight), (packed, rooms(geometry, "fprop", weight, threads)), threads,
        pack_forward[float], pack_forward[double],
    )


def pack_dgrad(geometry, weight, packed, int threads):
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


def fprop(geometry, x, weight, bias, y, scratch, int threads):
    """Write the convolution of x to y; the bias may be None, the weights packed.

    A flag for each sample comes back, set where y is not finite, if any is.
    """
    lost = bytearray(geometry[0])
    call(
        (geometry, x, weight, bias), (y, scratch, lost), threads, forward[float],
        forward[double],
    )
    return lost if 1 in lost else None


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx.

    The same comes back.
    """
    lost = bytearray(geometry[0])
    call(
        (geometry, dy, weight, bias), (dx, scratch, lost), threads, gradient[float],
        gradient[double],
    )
    return lost if 1 in lost else None
