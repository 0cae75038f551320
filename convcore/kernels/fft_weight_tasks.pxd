# The tasks of a weight gradient by transforms of tiles, and how large everything is.
#
# What      A task sums the products of a chunk of tiles for some channels of x and some panels
#           of NR channels of dy; chunks are added in a tree. Lengths of tiles, channels,
#           panels and chunks are the fastest by an estimate, of those that fit into scratch.
# Layout    tasks:  group  x  block of channels  x  block of panels  x  chunk of tiles
# Choice    By the problem alone, never by the number of threads: it decides about the bits.

from convcore.kernels.fft_tiles cimport (
    LENGTHS, Mesh, bytes_of_lists, is_length, is_narrow, length_at, mesh_of, padded, size_of,
    step_of, time_to_transform,
)
from convcore.kernels.geometry cimport Conv, Window, forward_window
from convcore.kernels.rounds cimport aligned, ceil_div, odd_lines
from convcore.kernels.transpose cimport MOST_LANES
from convcore.kernels.vector cimport MR, MR_HALF, NR_BYTES, NV, VEC_BYTES

cdef enum:
    SCRATCH_BYTES = 8388608  # of one thread, and of the taps of chunks beside those of dw
    PRIVATE_BYTES = 5767168  # of a thread
    TASKS = 16  # tasks that a large problem is split into at least, if they fit
    FEWEST = 64  # tiles of a chunk: with fewer, transforming back is most of its work
    MOST_TILES = 128  # of a block
    L2_BYTES = 786432  # of sums that stay there

cdef struct Job:
    Conv p
    Window w
    Mesh m
    Py_ssize_t taps, planes                        # matrices: three for each point
    Py_ssize_t channels, channel_tasks             # of x: in a task; tasks along them
    Py_ssize_t panels, panel_block, panel_tasks    # panels of NR channels o
    Py_ssize_t block                               # tiles whose spectra are there at once
    Py_ssize_t chunk, chunks                       # tiles of a chunk
    Py_ssize_t tasks
    Py_ssize_t step, row                           # scalars of x: a point, a tile
    bint narrow                                    # whether a panel is half empty
    Py_ssize_t turned, turned_panel                # of dy: a matrix, all of a panel
    Py_ssize_t sums, sums_panel                    # of the sums
    Py_ssize_t kernels                             # of the taps of a task
    Py_ssize_t tile, room, taken, lists            # of a thread's buffers
    Py_ssize_t shared, private                     # scratch in scalars


cdef inline void lay_out(Job* job, Py_ssize_t item) noexcept nogil:
    """Say how large everything is."""
    cdef Py_ssize_t lanes = NR_BYTES // item, pixels = job.m.s.y * job.m.s.x
    job.channel_tasks = ceil_div(job.p.icg, job.channels)
    job.panel_tasks = ceil_div(job.panels, job.panel_block)
    job.planes = 3 * job.m.s.points
    job.step = aligned(job.channels)
    job.row = odd_lines(job.planes * job.step)
    job.turned = step_of(job.block, job.narrow, item)
    job.sums = step_of(padded(job.channels, job.narrow), job.narrow, item)
    job.turned_panel = size_of(job.planes, job.block, job.narrow, item)
    job.sums_panel = size_of(
        job.planes, padded(job.channels, job.narrow), job.narrow, item
    )
    job.kernels = aligned((job.panel_block * job.channels * job.taps + MOST_LANES) * lanes)
    job.tile = aligned(pixels * (lanes // NV))
    job.room = aligned(job.m.s.room * (lanes // NV))
    job.taken = aligned((job.taps + MOST_LANES) * lanes)
    job.lists = aligned(
        (job.block + job.channels + MR) * 8 // item
        + bytes_of_lists(&job.m, &job.w) // item + 8
    ) + aligned(lanes)
    job.private = (
        job.block * job.row + job.panel_block * (job.turned_panel + job.sums_panel)
        + job.tile + job.room + job.taken + job.lists + aligned(job.m.s.turns)
    )


cdef inline double time_of(const Job* job, Py_ssize_t item) noexcept nogil:
    """Estimate the cycles of all tasks: products, sums in memory, transforms.

    The numbers are from 16 to 256 channels on one core with AVX-512, 2026-11.
    """
    cdef double each = time_to_transform(&job.m)
    cdef double columns = 1 if job.narrow else job.panel_block * NV
    cdef double sums = job.planes * columns * job.channels
    cdef double tiles = max(job.m.tiles, 1), blocks = ceil_div(job.m.tiles, job.block)
    cdef double far = 12 if sums * VEC_BYTES > L2_BYTES else 3
    cdef double products = sums * padded(job.channels, job.narrow) / job.channels
    cdef double work = (
        tiles * products / 2 + blocks * sums * far
        + tiles * each * (ceil_div(job.channels * item, VEC_BYTES) + 0.9 * columns)
        + each * columns * job.channels
    )
    return work * job.channel_tasks * job.panel_tasks


cdef inline Py_ssize_t next_part(Py_ssize_t whole, Py_ssize_t part) noexcept nogil:
    """Give the next smaller part of a whole that is cut into equal ones, all but the last."""
    return ceil_div(whole, ceil_div(whole, part - 1))


cdef inline void fill_scratch(Job* job, Py_ssize_t item) noexcept nogil:
    """Choose the most tiles that fit, by bisection; one if none does."""
    cdef Py_ssize_t fits = 1, most = min(max(job.m.tiles, 1), MOST_TILES)
    job.block = most
    lay_out(job, item)
    if job.private * item <= PRIVATE_BYTES:
        return
    while fits + 1 < most:
        job.block = (fits + most) // 2
        lay_out(job, item)
        if job.private * item <= PRIVATE_BYTES:
            fits = job.block
        else:
            most = job.block
    job.block = fits
    lay_out(job, item)


cdef inline void choose_blocks(
    Job* best, double* least, const Mesh* m, Py_ssize_t item
) noexcept nogil:
    """Choose channels, panels and tiles of a block for tiles of one length."""
    cdef Job job = best[0]
    cdef Py_ssize_t lanes = VEC_BYTES // item
    cdef double now, unfit = 1e30  # cycles, more than any time: for what does not fit
    job.m = m[0]
    job.channels = job.p.icg
    while True:
        job.panel_block = job.panels
        while True:
            fill_scratch(&job, item)
            now = time_of(&job, item)
            if job.private * item > PRIVATE_BYTES:
                now = unfit * job.private
            if least[0] < 0 or now < least[0]:
                least[0] = now
                best[0] = job
            if job.panel_block == 1:
                break
            job.panel_block = next_part(job.panels, job.panel_block)
        if job.channels <= MR_HALF or (job.channels <= lanes and least[0] < unfit):
            break
        if job.channels <= lanes:
            job.channels = MR_HALF  # for the longest tiles
        else:
            job.channels = lanes * next_part(
                ceil_div(job.p.icg, lanes), ceil_div(job.channels, lanes)
            )


cdef inline Job make_job(const Conv* p, Py_ssize_t item) noexcept nogil:
    """Split the work: by the problem alone, never by the number of threads."""
    cdef Job job
    cdef Mesh m
    cdef double least = -1
    cdef Py_ssize_t y, x, length_y, length_x, parts, most
    job.p = p[0]
    job.w = forward_window(p)
    job.taps = p.kernel[1] * p.kernel[2]
    job.panels = ceil_div(p.ocg, NR_BYTES // item)
    job.narrow = is_narrow(p.ocg, item)
    for y in range(LENGTHS if job.w.y.taps > 1 else 1):
        for x in range(LENGTHS if job.w.x.taps > 1 else 1):
            length_y = length_at(y) if job.w.y.taps > 1 else 1
            length_x = length_at(x) if job.w.x.taps > 1 else 1
            if is_length(length_y, job.w.y.taps, job.w.x.taps, True) and is_length(
                length_x, job.w.x.taps, job.w.y.taps, False
            ):
                m = mesh_of(&job.w, length_y, length_x)
                choose_blocks(&job, &least, &m, item)
    parts = p.g * job.channel_tasks * job.panel_tasks
    most = 1 + max(0, SCRATCH_BYTES // item - job.private) // (parts * job.kernels)
    job.chunks = max(1, min(min(ceil_div(TASKS, parts), most), job.m.tiles // FEWEST))
    job.chunk = max(1, ceil_div(job.m.tiles, job.chunks))
    job.chunks = max(1, ceil_div(job.m.tiles, job.chunk))
    job.tasks = parts * job.chunks
    job.shared = job.tasks * job.kernels if job.chunks > 1 else 0
    return job
