# Patches: a part of an image, a vector of channels for each pixel, with what lies around it.
#
# What      Tiles are transformed from patches. For one vector of channels the part of the
#           image is transposed, so that a pixel is a vector:
#
#               plane 0 [ x x x ]          . . . .     one vector
#               plane 1 [ x x x ]   -->    . * * *     a pixel
#               ...                        . * * *
#
#           Where the image is not, a patch is zero, or what the border of x says: there
#           pixels of the patch are copied, or of the image if the patch has not got them.
#           What no window reads (the rest of the last tiles) stays zero.
#           Pixels that lie `apart` from each other are neighbours in a patch: it is sorted
#           by these phases.
# Cost      A load, log2(L) shuffles and a store for each vector. A pixel of the border is
#           looked up once for all channels (by the FFT for each vector of them), then a
#           load and a store, or a load for each lane.

from convcore.kernels.border cimport CONSTANT, ZEROS, source_at
from convcore.kernels.geometry cimport Axis, Window
from convcore.kernels.transpose cimport put_pixels
from convcore.kernels.vector cimport f32v, vec, ahead, all_lanes, cc_seldom, zero_lanes

cdef struct Patch:
    Py_ssize_t y, x                    # its first pixel, which may lie outside
    Py_ssize_t rows, columns
    Py_ssize_t apart_y, apart_x
    Py_ssize_t pitch, size             # pixels of a row of a phase, of a phase
    Py_ssize_t inside_y, inside_x, inside_rows, inside_columns  # of it in the image
    Py_ssize_t border                  # what lies around it: a `Border` of border.pxd
    Py_ssize_t beyond                  # pixels of that

cdef struct Pixel:                     # of the border
    Py_ssize_t place                   # in the patch
    Py_ssize_t source                  # in the plane, or ~ of another one's place


cdef inline Py_ssize_t lowest(const Axis* a) noexcept nogil:
    """Where the first output's lowest tap looks."""
    return a.off0 + min(0, a.off_step * (a.taps - 1))


cdef inline Py_ssize_t behind(const Axis* a) noexcept nogil:
    """Behind where the last output's highest tap looks; neighbours advance by one."""
    return a.off0 + max(0, a.off_step * (a.taps - 1)) + a.extent


cdef inline void meet_image(Patch* p, Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """Fill in which part of a patch lies in an image; around it are zeros."""
    p.inside_y, p.inside_x = max(p.y, 0), max(p.x, 0)
    p.inside_rows = max(min(p.y + p.rows, height) - p.inside_y, 0)
    p.inside_columns = max(min(p.x + p.columns, width) - p.inside_x, 0)
    p.border, p.beyond = ZEROS, 0


cdef inline Py_ssize_t along(
    Py_ssize_t i, Py_ssize_t apart, Py_ssize_t phase, Py_ssize_t step
) noexcept nogil:
    """Give the part of one axis in the place of a pixel."""
    return i * step if apart == 1 else i % apart * phase + i // apart * step


cdef inline Py_ssize_t row_at(const Patch* p, Py_ssize_t y) noexcept nogil:
    """Find row y, counted from the first of the patch."""
    return along(y, p.apart_y, p.apart_x * p.size, p.pitch)


cdef inline Pixel* list_row(
    const Window* w, const Patch* p, Py_ssize_t y, Py_ssize_t columns, Pixel* to
) noexcept nogil:
    """List the pixels of a row that the image has not got; give the end of the list."""
    cdef Py_ssize_t x = 0, source_x, source_y = source_at(w.y.border, p.y + y, w.y.source)
    cdef Py_ssize_t place = row_at(p, y), row = row_at(p, source_y - p.y)
    cdef bint near = p.inside_y <= source_y < p.inside_y + p.inside_rows
    cdef bint here = near and source_y == p.y + y
    while True:
        if here and x == p.inside_x - p.x:
            x += p.inside_columns
        if x >= columns:
            return to
        source_x = source_at(w.x.border, p.x + x, w.x.source)
        to.place = place + along(x, p.apart_x, p.size, 1)
        if near and p.inside_x <= source_x < p.inside_x + p.inside_columns:
            to.source = ~(row + along(source_x - p.x, p.apart_x, p.size, 1))
        else:
            to.source = source_y * w.x.source + source_x
        to += 1
        x += 1


cdef inline void list_border(const Window* w, Patch* p, Pixel* pixels) noexcept nogil:
    """List what windows read of a patch around the image."""
    cdef Py_ssize_t y, columns = min(p.columns, behind(&w.x) - p.x)
    cdef Pixel* to = pixels
    if p.border == ZEROS:
        return
    for y in range(min(p.rows, behind(&w.y) - p.y)):
        to = list_row(w, p, y, columns, to)
    p.beyond = to - pixels


cdef inline vec pixel_of(const vec* plane, Py_ssize_t ld, Py_ssize_t channels) noexcept nogil:
    """Load the first pixel of some planes; lanes without a plane are zero."""
    cdef vec pixel = zero_lanes(plane)
    cdef Py_ssize_t i
    for i in range(channels):
        if vec is f32v:
            (<float*>&pixel)[i] = (<const float*>plane)[i * ld]
        else:
            (<double*>&pixel)[i] = (<const double*>plane)[i * ld]
    return pixel


cdef inline void fill_border(
    const Patch* p, const Pixel* pixels, const vec* plane, Py_ssize_t ld, Py_ssize_t channels,
    double value, vec* to,
) noexcept nogil:
    """Write what `list_border` listed, when a patch has its part of the image."""
    cdef Py_ssize_t i
    cdef vec constant = all_lanes(plane, value)
    if p.border == CONSTANT:
        for i in range(p.beyond):
            to[pixels[i].place] = constant
        return
    for i in range(p.beyond):
        if pixels[i].source < 0:
            to[pixels[i].place] = to[~pixels[i].source]
        else:
            to[pixels[i].place] = pixel_of(ahead(plane, pixels[i].source), ld, channels)


cdef inline Pixel* pixels_behind(const Patch* p, const int* places) noexcept nogil:
    """Find where the pixels of the border are listed."""
    return <Pixel*>(places + (p.inside_rows * p.inside_columns + 1) // 2 * 2)


cdef inline Py_ssize_t bytes_of_lists(const Window* w, Py_ssize_t pixels) noexcept nogil:
    """Give what the lists of a patch of so many pixels take at most."""
    if w.x.border == ZEROS:
        return pixels * sizeof(int)
    return pixels * sizeof(Pixel) + sizeof(Pixel)


cdef inline void list_places(const Window* w, Patch* p, int* places) noexcept nogil:
    """Write where in the patch each pixel goes that lies in the image, then the border."""
    cdef Py_ssize_t y, x, first, at, left = p.inside_x - p.x
    cdef Pixel* pixels = pixels_behind(p, places)
    for y in range(p.inside_y - p.y, p.inside_y - p.y + p.inside_rows):
        for first in range(min(p.apart_x, p.inside_columns)):
            at = row_at(p, y) + along(left + first, p.apart_x, p.size, 1)
            x = first
            while x < p.inside_columns:
                places[x] = <int>at
                at += 1
                x += p.apart_x
        places += p.inside_columns
    list_border(w, p, pixels)


cdef inline void turn_patch(
    const Patch* p, const int* places, const vec* plane, Py_ssize_t ld, Py_ssize_t channels,
    Py_ssize_t width, double value, vec* to,
) noexcept nogil:
    """Transpose a patch of some planes; where nothing is listed, it has to be zero."""
    cdef Py_ssize_t y
    cdef const vec* source = ahead(plane, p.inside_y * width + p.inside_x)
    if p.inside_columns == width:
        put_pixels(source, ld, channels, p.inside_rows * width, places, to)
    else:
        for y in range(p.inside_rows):
            put_pixels(
                ahead(source, y * width), ld, channels, p.inside_columns,
                places + y * p.inside_columns, to,
            )
    if cc_seldom(p.beyond > 0):
        fill_border(p, pixels_behind(p, places), plane, ld, channels, value, to)
