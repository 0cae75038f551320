# Dividing a pooling: rows into blocks, blocks into tasks, tasks into rounds.
#
# What      A block is a piece of one row of y (of dx), small enough for its columns to lie
#           on the stack. A task is as many blocks as are worth a turn of a thread. Between
#           two rounds of tasks the caller looks for Ctrl-C.
# Assumes   nothing of the machine: blocks depend on the shape alone, and no sum on blocks.

from convcore.kernels.windows cimport Axis, Pool

cdef enum:
    SPAN = 512  # columns of a block
    TASK_WORK = 32768  # elements read by one task: some 10 us
    ROUND_WORK = 16777216  # elements of a task or block, at most: some 10 ms
    LOOK_WORK = 4194304  # of a thread between two looks for Ctrl-C, some 10 ns each at most

cdef struct Blocks:  # rows of a (depth, height, width) plane, cut into blocks
    Py_ssize_t depth, height, width, block, per_row
    Py_ssize_t count, work  # blocks in all; elements read for one

cdef struct Block:
    Py_ssize_t plane, z, y, x, n, offset  # n cells from x on; offset of the first

cdef struct Rounds:
    Py_ssize_t count, each, tasks, step  # pieces; of a task; tasks; of a round


cdef inline Blocks cut(
    Py_ssize_t planes, Py_ssize_t depth, Py_ssize_t height, Py_ssize_t width,
    Py_ssize_t block,
) noexcept nogil:
    """Cut all rows into blocks of at most `block` cells."""
    cdef Blocks b
    b.depth, b.height, b.width = depth, height, width
    b.block = max(1, min(block, width))
    b.per_row = (width - 1) // b.block + 1
    b.count = planes * depth * height * b.per_row
    b.work = 1
    return b


cdef inline Block block_at(const Blocks* b, Py_ssize_t i) noexcept nogil:
    """Find the i-th block."""
    cdef Block at
    cdef Py_ssize_t row = i // b.per_row, slab = row // b.height
    at.x = (i - row * b.per_row) * b.block
    at.y = row - slab * b.height
    at.plane = slab // b.depth
    at.z = slab - at.plane * b.depth
    at.n = min(b.block, b.width - at.x)
    at.offset = row * b.width + at.x
    return at


cdef inline Py_ssize_t taps_at_most(const Axis* a) noexcept nogil:
    """Bound the elements of a window along one axis."""
    if a.kernel == 0:
        return min(a.extent, (a.extent - 1) // a.out + 2)
    return min(a.kernel, a.extent)


cdef inline Py_ssize_t columns_for(const Axis* a) noexcept nogil:
    """Give how many windows fit into SPAN columns; 0 where columns do not pay."""
    cdef Py_ssize_t reach = (a.kernel - 1) * a.dilation + 1
    if a.kernel == 0 or reach > SPAN // 2 or a.stride > 2 * reach:
        return 0
    return (SPAN - reach) // a.stride + 1


cdef inline Blocks window_blocks(const Pool* p) noexcept nogil:
    """Cut the rows of y so that a block fits its columns, or its work a round."""
    cdef Py_ssize_t block = columns_for(&p.x)
    cdef double rows = <double>taps_at_most(&p.z) * taps_at_most(&p.y), each
    cdef Blocks b
    each = rows * taps_at_most(&p.x)
    if block == 0:
        block = max(1, min(SPAN, <Py_ssize_t>(ROUND_WORK // 16 / each)))
    b = cut(p.planes, p.z.out, p.y.out, p.x.out, block)
    b.work = <Py_ssize_t>min(each * b.block, ROUND_WORK)
    return b


cdef inline Py_ssize_t windows_at_most(const Axis* a) noexcept nogil:
    """Bound the windows over one element of an axis."""
    if a.kernel == 0:
        return (a.out - 1) // a.extent + 2
    return min(a.out, (a.kernel - 1) // a.stride + 1)


cdef inline Blocks element_blocks(const Pool* p) noexcept nogil:
    """Cut the rows of x so that a block fits SPAN, and its work a round."""
    cdef double along = windows_at_most(&p.x)
    cdef double rows = <double>windows_at_most(&p.z) * windows_at_most(&p.y)
    cdef Py_ssize_t block = <Py_ssize_t>(ROUND_WORK // 16 / (rows + along))
    cdef Blocks b = cut(
        p.planes, p.z.extent, p.y.extent, p.x.extent, max(1, min(block, SPAN))
    )
    b.work = <Py_ssize_t>min(rows * (b.block + along) + b.block * along, ROUND_WORK)
    return b


cdef inline Rounds rounds(Py_ssize_t count, Py_ssize_t work, int threads) noexcept nogil:
    """Group `count` pieces into tasks, and tasks into rounds between looks for Ctrl-C."""
    cdef Rounds r
    r.count = count
    r.each = max(1, min(count, TASK_WORK // max(work, 1)))
    r.tasks = (count + r.each - 1) // r.each
    r.step = max(1, LOOK_WORK // max(r.each * work, 1)) * threads
    return r


cdef inline Py_ssize_t first_piece(const Rounds* r, Py_ssize_t task) noexcept nogil:
    """Give the first piece of a task; of the one behind the last task, the count."""
    return min(task * r.each, r.count)
