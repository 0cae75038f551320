# Around the loops: rounds of tasks, parts of scratch, sums of chunks.
#
# What      round_of: the tasks between two looks for Ctrl-C.  units_of: the same for tasks
#           that take longer themselves.  aligned: the scalars that a
#           part of scratch takes, so that the next one begins with a cache line.
#           add_tree: chunks of a sum, added in an order that depends on their number alone.
# Why not   One function that also runs the tasks: it would call them through a pointer,
#           and a kernel's arguments would have to go through a struct of void pointers.

from convcore.kernels.vector cimport real

cdef enum:
    ROUND_MACS = 300000000  # work of a thread in a round: a few ms
    TASKS_PER_THREAD = 4  # so that no thread waits long for the last task
    EVEN = 32
    LEAST_MACS = 2000000  # of a task: some 20 us
    ALIGNED = 16  # scalars


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """Divide, and round up."""
    return (a + b - 1) // b


cdef inline Py_ssize_t aligned(Py_ssize_t scalars) noexcept nogil:
    """Round up to whole cache lines."""
    return ceil_div(scalars, ALIGNED) * ALIGNED


cdef inline Py_ssize_t odd_lines(Py_ssize_t scalars) noexcept nogil:
    """Round up to an odd number of cache lines: rows so far apart share no set."""
    return (ceil_div(scalars, ALIGNED) | 1) * ALIGNED


cdef inline bint spread_evenly(Py_ssize_t tasks, Py_ssize_t macs, int threads) noexcept nogil:
    """Tell whether so many equal tasks keep all threads busy until the end.

    With an idle share below 1 / EVEN they do; and where tasks are small already, of so
    many multiply-adds each, smaller ones would cost more than they win.
    """
    cdef Py_ssize_t idle = ceil_div(tasks, threads) * threads - tasks
    return tasks >= TASKS_PER_THREAD * threads and (
        idle * EVEN <= tasks or macs < 2 * LEAST_MACS
    )


cdef inline Py_ssize_t round_of(
    Py_ssize_t macs, Py_ssize_t least, int threads
) noexcept nogil:
    """Count the tasks of a round, of so many multiply-adds each; `least` for a thread."""
    return max(ROUND_MACS // max(macs, 1), least) * threads


cdef inline Py_ssize_t units_of(Py_ssize_t macs, Py_ssize_t units) noexcept nogil:
    """Count the units of a task, of so many multiply-adds each, between two looks."""
    return max(1, min(units, ROUND_MACS // max(macs, 1)))


cdef inline Py_ssize_t slot_of(
    Py_ssize_t task, Py_ssize_t begin, Py_ssize_t end, int threads, int thread
) noexcept nogil:
    """Choose a part of scratch: where there is one for each task, it stays the task's."""
    return task - begin if end - begin <= threads else thread


cdef inline void add_tree(real* sums, Py_ssize_t chunks, Py_ssize_t size) noexcept nogil:
    """Add all chunks to the first: neighbours, then pairs of them, and so on."""
    cdef Py_ssize_t apart = 1, chunk, i
    while apart < chunks:
        chunk = 0
        while chunk + apart < chunks:
            for i in range(size):
                sums[chunk * size + i] += sums[(chunk + apart) * size + i]
            chunk += 2 * apart
        apart *= 2
