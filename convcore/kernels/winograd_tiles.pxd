# Tiles of Winograd's filtering: which pixels of an image each of them reads and writes.
#
# What      Images are cut into tiles of outputs; each tile reads a patch that overlaps its
#           neighbours'. A box is some rows of tiles, or some images: what its tiles read
#           of one image is a patch (patch.pxd).
#           With a dilation d, a tile has every d-th pixel along an axis: d * d tiles, the
#           phases, lie between each other's pixels. A box has all phases of its rows, and
#           its patch is sorted by phases.
# Cost      The halo of a box is read twice.
# Source    as winograd.pxd.

from convcore.kernels.geometry cimport Window
from convcore.kernels.patch cimport Patch, lowest, meet_image
from convcore.kernels.rounds cimport ceil_div

cdef struct Tiles:
    Py_ssize_t out_y, out_x            # outputs of a tile
    Py_ssize_t taps_y, taps_x
    Py_ssize_t apart_y, apart_x, phases  # pixels between those of a tile
    Py_ssize_t points_y, points_x, points
    Py_ssize_t y, x                    # tiles of a phase of an image
    Py_ssize_t images                  # samples * planes
    Py_ssize_t count_y, count_x, count_images  # of a box
    Py_ssize_t number_y, number_x, number_images, boxes
    Py_ssize_t most                    # tiles of a box, of all phases

cdef struct TileBox:
    Py_ssize_t image, images           # the first, and how many
    Py_ssize_t y, x                    # the first tile
    Py_ssize_t count_y, count_x


cdef inline Tiles tiles_of(const Window* w, Py_ssize_t size) noexcept nogil:
    """Cut the outputs into tiles of `size` along each axis that has taps."""
    cdef Tiles t
    t.out_y = size if w.y.taps > 1 else 1
    t.out_x = size if w.x.taps > 1 else 1
    t.taps_y, t.taps_x = w.y.taps, w.x.taps
    t.points_y = t.out_y + t.taps_y - 1
    t.points_x = t.out_x + t.taps_x - 1
    t.points = t.points_y * t.points_x
    t.apart_y = max(w.y.off_step, -w.y.off_step) if t.taps_y > 1 else 1
    t.apart_x = max(w.x.off_step, -w.x.off_step) if t.taps_x > 1 else 1
    t.phases = t.apart_y * t.apart_x
    t.y = ceil_div(w.y.extent, t.out_y * t.apart_y)
    t.x = ceil_div(w.x.extent, t.out_x * t.apart_x)
    t.images = w.samples * w.z.extent
    cut_boxes(&t, 1)
    return t


cdef inline void cut_boxes(Tiles* t, Py_ssize_t wanted) noexcept nogil:
    """Make boxes of about so many tiles, as even as they can be."""
    cdef Py_ssize_t left = wanted // t.phases
    t.count_x = max(1, min(t.x, left))
    left = left // t.count_x if t.count_x == t.x else 1
    t.count_y = max(1, min(t.y, left))
    left = left // t.count_y if t.count_y == t.y else 1
    t.count_images = max(1, min(t.images, left))
    t.number_x = ceil_div(t.x, t.count_x)
    t.count_x = ceil_div(t.x, t.number_x)
    t.number_y = ceil_div(t.y, t.count_y)
    t.count_y = ceil_div(t.y, t.number_y)
    t.number_images = ceil_div(t.images, t.count_images)
    t.count_images = ceil_div(t.images, max(t.number_images, 1)) if t.images else 1
    t.boxes = t.number_x * t.number_y * t.number_images
    t.most = t.count_x * t.count_y * t.count_images * t.phases


cdef inline TileBox tile_box(const Tiles* t, Py_ssize_t index) noexcept nogil:
    """Give a box."""
    cdef TileBox b
    b.x = index % t.number_x * t.count_x
    b.count_x = min(t.count_x, t.x - b.x)
    index = index // t.number_x
    b.y = index % t.number_y * t.count_y
    b.count_y = min(t.count_y, t.y - b.y)
    b.image = index // t.number_y * t.count_images
    b.images = min(t.count_images, t.images - b.image)
    return b


cdef inline Patch patch_of(
    const Tiles* t, Py_ssize_t y, Py_ssize_t x, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t height, Py_ssize_t width,
) noexcept nogil:
    """Describe a patch with so many rows and columns of each phase."""
    cdef Patch p
    p.y, p.x = y, x
    p.apart_y, p.apart_x = t.apart_y, t.apart_x
    p.rows, p.columns = rows * t.apart_y, columns * t.apart_x
    p.pitch, p.size = columns, rows * columns
    meet_image(&p, height, width)
    return p


cdef inline Patch inputs_of(const Tiles* t, const Window* w, const TileBox* b) noexcept nogil:
    """Tell which pixels the tiles of a box read."""
    cdef Patch p = patch_of(
        t, b.y * t.out_y * t.apart_y + lowest(&w.y), b.x * t.out_x * t.apart_x + lowest(&w.x),
        (b.count_y - 1) * t.out_y + t.points_y, (b.count_x - 1) * t.out_x + t.points_x,
        w.y.source, w.x.source,
    )
    p.border = w.x.border
    return p


cdef inline Patch outputs_of(const Tiles* t, const Window* w, const TileBox* b) noexcept nogil:
    """Tell which pixels they write."""
    return patch_of(
        t, b.y * t.out_y * t.apart_y, b.x * t.out_x * t.apart_x, b.count_y * t.out_y,
        b.count_x * t.out_x, w.y.extent, w.x.extent,
    )
