# Convolution and its gradient of x as one blocked matrix product.
#
# What      out[m, q] = bias[m] + sum over k of weight[m, k] * patch[k, q]
#           with the windows of geometry.pxd: m a channel of the output's group, q an
#           output counted through samples and rows, k a (tap, channel) of its sum.
# Layout    x (n, g*icg, id, ih, iw), weight (g*ocg, icg, kd, kh, kw), y like x, flat.
#
#                         q ->   NR     NR
#                       k0   [ patch | patch ]   addresses of rows of x or of packed ones,
#             k ->      |    [       |       ]   KC terms and `panels` panels at a time
#         m  [ weight ] k1   [       |       ]
#         |  [ MR     ]      [ tile  | tile  ]   MR x NR, in registers
#         v  [ MR     ]      [ tile  | tile  ]
#
# Assumes   buffers of the sizes that the geometry tells; extents >= 1.
# Parallel  over tasks = (phase, group, block of q, block of m): each writes outputs that
#           no other task writes. The order of every sum is that of k, so the bits are the
#           same for any split into tasks, any thread count and any batch.
# Scratch   all weights packed once; per thread KC * panels rows of patches, with their
#           addresses, and one tile for each (m, panel) of a task.
# Cost      2 * outputs * depth FLOPs. Each row of patches is found once for MB tiles m,
#           each weight read once for `panels` * NR outputs q.
# Why not   The whole patch matrix at once: kh * kw times the bytes of x.
# Source    Goto and van de Geijn, ACM TOMS 34 (2008), sections 4-6; Chellapilla, Puri
#           and Simard (2006) for the patches.

from cython.parallel cimport prange, threadid

from convcore.kernels.activation cimport rectify
from convcore.kernels.buffers cimport (
    Buffers, call, geometry_of, reals, reals_or_nothing, room,
)
from convcore.kernels.geometry cimport (
    CONV_FIELDS, Conv, Window, conv_of, forward_window, gradient_window, phases, volume,
)
from convcore.kernels.pack cimport Run, list_runs, pack_tiles, rows_of_panel
from convcore.kernels.rounds cimport TASKS_PER_THREAD, aligned, round_of
from convcore.kernels.teams cimport look
from convcore.kernels.tile cimport SHORT, chain, exact_rows, partial_chain, put_rows, put_wide
from convcore.kernels.vector cimport MR, NR_BYTES, WIDE, copy, nr, real

cdef enum:
    KC = 256  # terms of one block: KC rows of NR scalars are 32 KB on AVX-512
    PATCH_BYTES = 131072  # patches of one task, a fraction of L2
    MB = 32  # tiles of m in one task
    NR_LIMIT = 32  # most scalars of one row of the tile
    ADDRESS = 8  # bytes of an address, at most

cdef struct Job:
    Conv p
    bint gradient
    Py_ssize_t phase_count, tiles          # tiles of m in a group
    Py_ssize_t taps, terms, depth          # of a kernel; taps * channels; of a block
    Py_ssize_t panels, pixel_tasks         # panels of a task; tasks along q
    Py_ssize_t tile_block, tile_tasks      # tiles of a task; tasks along m
    Py_ssize_t tasks, macs                 # macs of one task
    Py_ssize_t shared, private             # scratch in scalars: of all, of each thread


cdef Job make_job(const Conv* p, bint gradient, Py_ssize_t item, int threads) noexcept nogil:
    """Split the work into enough tasks for `threads`, as large as the caches like."""
    cdef Job job
    cdef Window w
    cdef Py_ssize_t lanes = NR_BYTES // item, panel_count
    job.p = p[0]
    job.gradient = gradient
    job.phase_count = phases(p, 0) * phases(p, 1) * phases(p, 2) if gradient else 1
    w = gradient_window(p, 0) if gradient else forward_window(p)
    job.tiles = (w.m - 1) // MR + 1
    job.taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    job.terms = w.c * job.taps
    job.depth = min(job.terms, KC)
    panel_count = (w.columns - 1) // lanes + 1 if w.columns else 0
    job.panels = max(1, PATCH_BYTES // (KC * NR_BYTES))
    job.tile_block = MB
    while True:
        job.tile_block = (job.tiles - 1) // ((job.tiles - 1) // job.tile_block + 1) + 1
        job.tile_tasks = (job.tiles - 1) // job.tile_block + 1
        job.pixel_tasks = (panel_count - 1) // job.panels + 1 if panel_count else 0
        job.tasks = job.phase_count * p.g * job.pixel_tasks * job.tile_tasks
        if job.tasks >= TASKS_PER_THREAD * threads:
            break
        if job.panels > 1:
            job.panels = job.panels // 2
        elif job.tile_block > 4:
            job.tile_block = job.tile_block // 2
        else:
            break
    job.macs = job.panels * lanes * job.tile_block * MR * max(job.depth, w.depth)
    job.shared = p.g * job.tiles * MR * (job.terms + 1)
    job.shared = aligned(job.shared)
    job.private = job.panels * (
        lanes * (job.depth + job.tile_block * MR) + job.depth * ADDRESS // item
    )
    job.private = aligned(job.private)
    return job


cdef inline const real* packed_bias(const Job* job, const real* shared) noexcept nogil:
    """The biases lie behind the packed weights."""
    return shared + job.p.g * job.tiles * MR * job.terms


cdef void write_tile(
    const Window* w, const real* tile, Py_ssize_t rows, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t channel, real* out,
) noexcept nogil:
    """Put `rows` channels of outputs first .. first + count where they belong."""
    cdef Run runs[NR_LIMIT]
    cdef Py_ssize_t i, j, r, number, sample, pixel, length, column = 0
    cdef Py_ssize_t channels = w.groups * w.m
    cdef real* to
    if w.dense:  # the outputs of a sample lie together
        while column < count:
            sample = (first + column) // w.plane
            pixel = (first + column) % w.plane
            length = min(count - column, w.plane - pixel)
            to = out + (sample * channels + channel) * w.plane + pixel
            for i in range(rows):
                copy(to + i * w.plane, tile + i * nr(tile) + column, length)
            column += length
        return
    number = list_runs(w, first, count, runs)
    for r in range(number):
        to = out + (runs[r].sample * channels + channel) * w.plane + (
            (w.z.start + w.z.step * runs[r].z) * w.height
            + w.y.start + w.y.step * runs[r].y
        ) * w.width + w.x.start + w.x.step * runs[r].x
        for i in range(rows):
            for j in range(runs[r].count):
                to[i * w.plane + j * w.x.step] = tile[i * nr(tile) + runs[r].column + j]


cdef inline real* in_place(
    const Window* w, Py_ssize_t first, Py_ssize_t count, Py_ssize_t channel, real* out
) noexcept nogil:
    """Give the address of outputs first .. first + count if they lie together."""
    cdef Py_ssize_t sample = first // w.plane, pixel = first % w.plane
    if not w.dense or pixel + count > w.plane:
        return NULL
    return out + (sample * w.groups * w.m + channel) * w.plane + pixel


cdef void multiply_tiles(
    const Job* job, const Window* w, Py_ssize_t group, Py_ssize_t tile, Py_ssize_t first,
    Py_ssize_t count, Py_ssize_t k, Py_ssize_t depth, const real* const* rows,
    const real* shared, real* sums, real* out,
) noexcept nogil:
    """Add terms k .. k + depth of one tile for `count` outputs, panel after panel.

    A tile of whole rows over neighbouring outputs sums in `out` itself, any other one
    in `sums`, from where the last block of terms puts it into its place.
    """
    cdef Py_ssize_t index = group * job.tiles + tile, lanes = nr(shared), here, j
    cdef Py_ssize_t m = min(MR, w.m - tile * MR), channel = group * w.m + tile * MR
    cdef const real* weights = shared + (index * job.terms + w.tap_first * w.c + k) * MR
    cdef const real* bias = packed_bias(job, shared) + index * MR if k == 0 else NULL
    cdef bint rectified = job.p.relu and k + depth >= w.depth
    cdef real* place
    while count > 0:
        if m == 1 and count >= WIDE * lanes:
            here = WIDE * lanes
            place = in_place(w, first, here, channel, out)
            if place:
                put_wide(weights, MR, rows, job.depth, depth, bias, place, lanes)
                if rectified:
                    rectify(place, here)
            else:
                put_wide(weights, MR, rows, job.depth, depth, bias, sums, MR * lanes)
                for j in range(WIDE if k + depth >= w.depth else 0):
                    if rectified:
                        rectify(sums + j * MR * lanes, lanes)
                    write_tile(
                        w, <const real*>sums + j * MR * lanes, m, first + j * lanes,
                        lanes, channel, out,
                    )
            first += here
            count -= here
            rows += WIDE * job.depth
            sums += WIDE * MR * lanes
            continue
        here = min(lanes, count)
        place = in_place(w, first, here, channel, out)
        if place and here == lanes and exact_rows(m):
            put_rows(weights, 1, MR, rows, depth, bias, place, w.plane, m)
            for j in range(m if rectified else 0):
                rectify(place + j * w.plane, here)
        else:
            put_rows(weights, 1, MR, rows, depth, bias, sums, lanes, m)
            if rectified:
                rectify(sums, m * lanes)
            if k + depth >= w.depth:
                write_tile(w, <const real*>sums, m, first, here, channel, out)
        first += lanes
        count -= lanes
        rows += job.depth
        sums += MR * lanes


cdef void run_task(
    const Job* job, Py_ssize_t task, const real* source, const real* shared,
    real* private, real* out,
) noexcept nogil:
    """Compute the outputs of one task."""
    cdef Py_ssize_t tile_task = task % job.tile_tasks
    cdef Py_ssize_t pixel_task = task // job.tile_tasks % job.pixel_tasks
    cdef Py_ssize_t rest = task // (job.tile_tasks * job.pixel_tasks)
    cdef Py_ssize_t group = rest % job.p.g, phase = rest // job.p.g
    cdef Window w = gradient_window(&job.p, phase) if job.gradient else forward_window(&job.p)
    cdef Py_ssize_t lanes = nr(source), blocks, depth, k = 0, j, t, number, here, most
    cdef Py_ssize_t first = pixel_task * job.panels * lanes, count
    cdef Py_ssize_t tile0 = tile_task * job.tile_block
    cdef Py_ssize_t tile1 = min(tile0 + job.tile_block, job.tiles)
    cdef const real** rows = <const real**>private
    cdef real* patches = private + job.panels * job.depth * ADDRESS // sizeof(real)
    cdef real* sums = patches + job.panels * lanes * job.depth
    cdef Run runs[NR_LIMIT]
    if first >= w.columns:  # later phases may be smaller than the first
        return
    count = min(job.panels * lanes, w.columns - first)
    most = partial_chain(w.depth) if w.taps > SHORT else min(KC, chain(w.depth))
    blocks = (w.depth - 1) // most + 1 if w.depth else 1
    depth = (w.depth - 1) // blocks + 1 if w.depth else 0
    source += group * w.c * w.source_plane
    while True:
        depth = min(depth, w.depth - k)
        for j in range((count - 1) // lanes + 1 if depth else 0):
            number = list_runs(
                &w, first + j * lanes, min(lanes, count - j * lanes), runs
            )
            rows_of_panel(
                &w, source, runs, number, k, k + depth,
                patches + j * lanes * job.depth, rows + j * job.depth,
            )
        j = 0
        while j < count:
            here = count if w.m == 1 else min(lanes, count - j)
            for t in range(tile0, tile1):
                multiply_tiles(
                    job, &w, group, t, first + j, here, k, depth,
                    <const real* const*>rows + j // lanes * job.depth, shared,
                    sums + ((t - tile0) * job.panels * lanes + j) * MR, out,
                )
            j += here
        k += depth
        if k >= w.depth:
            return


cdef void run_tasks(
    const Job* job, Py_ssize_t begin, Py_ssize_t end, const real* source, real* scratch,
    real* out, int threads,
) noexcept nogil:
    """Do tasks begin .. end; OpenMP takes 0.6 us even for one thread."""
    cdef Py_ssize_t i
    cdef real* private = scratch + job.shared
    if threads == 1:
        for i in range(begin, end):
            run_task(job, i, source, <const real*>scratch, private, out)
        return
    for i in prange(begin, end, num_threads=threads, schedule="dynamic"):
        run_task(
            job, i, source, <const real*>scratch, private + threadid() * job.private, out
        )


cdef int run(
    const Job* job, const real* source, const real* weight, const real* bias, real* out,
    real* scratch, int threads,
) except -1:
    """Pack the weights, then do the tasks round by round."""
    cdef Py_ssize_t begin = 0, end
    cdef Py_ssize_t each = round_of(job.macs, TASKS_PER_THREAD, threads)
    while begin < job.tasks:
        end = min(begin + each, job.tasks)
        with nogil:
            if begin == 0:
                pack_tiles(&job.p, job.gradient, job.tiles, weight, bias, scratch, threads)
            run_tasks(job, begin, end, source, scratch, out, threads)
        look()
        begin = end
    return 0


cdef int start(const Buffers* held, bint gradient, int threads, real* like) except -1:
    """Check geometry, source, weight, bias, out and scratch, and run the direction."""
    cdef const Conv* p = <const Conv*>geometry_of(held, CONV_FIELDS)
    cdef Job job = make_job(p, gradient, sizeof(real), threads)
    cdef Py_ssize_t pixels = p.n * p.g * p.icg * volume(p.in_extent)
    cdef Py_ssize_t planes = p.n * p.g * p.ocg * volume(p.out_extent)
    cdef Py_ssize_t channels = p.g * (p.icg if gradient else p.ocg)
    cdef const real* source = reals(held, 1, planes if gradient else pixels, like)
    cdef const real* weight = reals(held, 2, p.g * p.ocg * p.icg * job.taps, like)
    cdef const real* bias = reals_or_nothing(held, 3, channels, like)
    cdef real* out = reals(held, 4, pixels if gradient else planes, like)
    cdef real* scratch = room(held, 5, job.shared + threads * job.private, like)
    return run(&job, source, weight, bias, out, scratch, threads) if job.tasks else 0


cdef int forward(const Buffers* held, int threads, real* like) except -1:
    """Compute y."""
    return start(held, False, threads, like)


cdef int backward(const Buffers* held, int threads, real* like) except -1:
    """Compute dx."""
    return start(held, True, threads, like)


def scratch_size(geometry, str direction, Py_ssize_t item, int threads, /):
    """Give the scalars of scratch that fprop or dgrad needs."""
    cdef bint gradient = direction == "dgrad"
    cdef Conv p = conv_of(geometry, threads)
    cdef Job job = make_job(&p, gradient, item, threads)
    return job.shared + threads * job.private


def fprop(geometry, x, weight, bias, y, scratch, int threads, /):
    """Write the convolution of x to y; a bias of None is none."""
    call((geometry, x, weight, bias), (y, scratch), threads, forward[float], forward[double])


def dgrad(geometry, dy, weight, bias, dx, scratch, int threads, /):
    """Write the gradient of x, plus a bias (of a transposed convolution), to dx."""
    call(
        (geometry, dy, weight, bias), (dx, scratch), threads, backward[float], backward[double]
    )


def tile(Py_ssize_t item, /):
    """Give MR, NR and KC: the sizes at which something changes, for tests."""
    return MR, NR_BYTES // item, KC
