# The tasks of a convolution by transforms of tiles, and how large everything is.
#
# What      A task makes the outputs of some tiles in some panels of NR channels. All weights
#           are transformed before the first one if their spectra take at most SPECTRA_BYTES,
#           else set by set of panels: then nothing is kept, and each set transforms all
#           inputs again, which costs less than the pages of so much new memory.
# Layout    tasks:  group  x  set of panels  x  block of tiles  x  block of a set's panels
# Choice    The lengths of tiles depend on the shape of one sample alone (fft_tiles.pxd); how
#           tiles and panels are dealt out decides about no bits, and so is the fastest by
#           an estimate for the threads that there are.

from convcore.kernels.fft_tiles cimport (
    PRIVATE_BYTES, SPECTRA_BYTES, Mesh, best_mesh, bytes_of, bytes_of_lists, is_far, is_narrow,
    padded, row_of, size_of, step_of, time_of_tiles,
)
from convcore.kernels.geometry cimport Conv, Window, forward_window, gradient_window
from convcore.kernels.rounds cimport aligned, ceil_div
from convcore.kernels.transpose cimport MOST_LANES
from convcore.kernels.vector cimport MR, NR_BYTES, NV, VEC_BYTES

cdef enum:
    MOST_TILES = 8 * MR  # of a task

cdef struct Job:
    Conv p
    bint gradient
    Window w
    Mesh m
    Py_ssize_t taps, planes                        # matrices: three for each point
    Py_ssize_t block, blocks                       # tiles of a task
    Py_ssize_t panels, panel_block, panel_tasks    # of m: in a group, in a task
    Py_ssize_t sets, set_panels                    # of a group; panels of a set
    bint whole                                     # whether all spectra are there at once
    Py_ssize_t row, channels                       # scalars: of v; channels with padding
    Py_ssize_t sums                                # of the sums of one matrix
    bint narrow                                    # whether a panel is half empty
    Py_ssize_t matrix, panel                       # of the weights: a point's, all of a panel
    Py_ssize_t tile, room, outputs, lists          # of a thread's buffers
    Py_ssize_t tasks, macs                         # macs of one task
    Py_ssize_t packed, shared, private             # scalars of spectra, and of scratch


cdef inline void lay_out(Job* job, Py_ssize_t item) noexcept nogil:
    """Say how large everything is, for tasks of so many tiles and panels."""
    job.blocks = ceil_div(job.m.tiles, job.block)
    job.panel_tasks = ceil_div(job.set_panels, job.panel_block)
    job.tasks = job.p.g * job.sets * job.blocks * job.panel_tasks
    job.sums = step_of(padded(job.block, job.narrow), job.narrow, item)
    job.private = (
        job.block * job.row
        + size_of(job.planes, padded(job.block, job.narrow), job.narrow, item)
        + job.tile + job.room + job.outputs + job.lists
    )


cdef inline void cut_sets(Job* job, Py_ssize_t item) noexcept nogil:
    """Choose the panels whose weights are transformed at once."""
    cdef Py_ssize_t most = max(1, SPECTRA_BYTES // (job.panel * item))
    job.whole = job.p.g * job.panels <= most
    job.sets = 1 if job.whole else ceil_div(job.panels, most)
    job.set_panels = ceil_div(job.panels, job.sets)  # of about the same size
    job.sets = ceil_div(job.panels, job.set_panels)
    job.packed = (job.p.g * job.panels if job.whole else job.set_panels) * job.panel


cdef inline void split(Job* job, Py_ssize_t item, int threads) noexcept nogil:
    """Choose tiles and panels of a task, by the estimated time."""
    cdef Py_ssize_t tiles, tasks
    cdef Py_ssize_t columns = ceil_div(min(job.w.m, NR_BYTES // item) * item, VEC_BYTES)
    cdef bint far = is_far(job.packed * item)
    cdef double best = -1, now
    cdef Job other = job[0]
    for tasks in range(1, min(job.set_panels, 2 * threads) + 1):
        other.panel_block = ceil_div(job.set_panels, tasks)
        for tiles in range(1, max(min(job.m.tiles, MOST_TILES), 1) + 1):
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


cdef inline Job make_job(
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
    cut_sets(&job, item)
    job.tile = aligned(pixels * (lanes // NV))
    job.room = aligned(job.m.s.room * (lanes // NV))
    job.outputs = aligned((max(pixels, job.taps) + MOST_LANES) * lanes)
    job.lists = aligned(
        (min(job.m.tiles, MOST_TILES) + MR + job.w.c) * 8 // item
        + bytes_of_lists(&job.m, &job.w) // item + 8
    )
    split(&job, item, threads)
    job.macs = job.planes * job.block * job.w.c * job.panel_block * lanes
    job.shared = (
        aligned(p.g * job.panels * lanes) + aligned(lanes) + aligned(job.m.s.turns)
        + aligned(ceil_div(job.tasks * job.block, item))
    )
    return job
