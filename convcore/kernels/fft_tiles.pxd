# Tiles of the FFT convolution: how long they are, and where they lie in images.
#
# What      Overlap-save: a circular correlation of a tile of `length` inputs with `taps` taps
#           is right for its first length - taps + 1 outputs. Tiles of outputs lie side by
#           side, their inputs overlap by taps - 1. All tiles of all images are numbered.
# Layout    A tile is (length_y, length_x) vectors of channels. Where only y has taps its
#           column is transformed as a row: it lies the same way.
# Choice    The lengths are the cheapest ones by an estimate for one sample, so that
#           neither the batch nor the number of threads decides about the bits.
# Source    Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7.3
#           (overlap-save); Vasilache et al., fbfft, arXiv:1412.7580, for tiles.

from libc.math cimport log2
from libc.string cimport memset

from convcore.kernels.band cimport Box
from convcore.kernels.border cimport ZEROS
from convcore.kernels.fft cimport Spectra, spectra_of, to_points
from convcore.kernels.geometry cimport Window
from convcore.kernels.patch cimport (
    Patch, Pixel, fill_border, list_border, lowest, meet_image,
)
from convcore.kernels.rounds cimport ceil_div, odd_lines
from convcore.kernels.transpose cimport put_pixels
from convcore.kernels.vector cimport (
    MR, MR_HALF, MR_QUARTER, NR_BYTES, NV, VEC_BYTES, ahead, cc_seldom, f32v, f64v, nr, real, vec,
)

cdef enum:
    LENGTHS = 10
    LONGEST = 512            # tile of one axis
    LONGEST_OF_TWO = 128
    ALIGNED = 16
    L3_BYTES = 16777216
    PRIVATE_BYTES = 6553600  # of a thread's points and sums, at most
    SPECTRA_BYTES = 134217728  # of weights that are transformed at a time
    SAMPLES = 4            # that one transform of the weights is thought to serve

cdef struct Mesh:
    Spectra s
    Py_ssize_t length_y, length_x
    Py_ssize_t out_y, out_x            # outputs of a tile
    Py_ssize_t y, x                    # tiles of an image
    Py_ssize_t images, tiles           # samples * planes; all tiles

cdef struct Place:
    Py_ssize_t image                   # of a tile
    Py_ssize_t y, x                    # its first output
    Py_ssize_t rows, columns           # of outputs, within the image


cdef inline Py_ssize_t length_at(Py_ssize_t index) noexcept nogil:
    """Give the lengths that there are, in ascending order."""
    cdef Py_ssize_t[LENGTHS] lengths = [8, 16, 24, 32, 48, 64, 96, 128, 256, 512]
    return lengths[index]


cdef inline Mesh mesh_of(const Window* w, Py_ssize_t y, Py_ssize_t x) noexcept nogil:
    """Describe tiles of these lengths; 1 for an axis without taps."""
    cdef Mesh m
    m.s = spectra_of(y, x) if x > 1 else spectra_of(1, y)
    m.length_y, m.length_x = y, x
    m.out_y, m.out_x = y - w.y.taps + 1, x - w.x.taps + 1
    m.y, m.x = ceil_div(w.y.extent, m.out_y), ceil_div(w.x.extent, m.out_x)
    m.images = w.samples * w.z.extent
    m.tiles = m.images * m.y * m.x
    return m


cdef inline bint is_length(
    Py_ssize_t length, Py_ssize_t taps, Py_ssize_t others, bint along_y
) noexcept nogil:
    """Tell whether tiles may be so long along an axis; `others` are the taps of the other."""
    if taps == 1:
        return length == 1
    if length < taps or length > (LONGEST if others == 1 else LONGEST_OF_TWO):
        return False
    return length != 96 or not along_y or others == 1  # 96 numbers have no two leaves


cdef inline bint is_narrow(Py_ssize_t columns, Py_ssize_t item) noexcept nogil:
    """Tell whether so many columns of a product leave half of each row of NR empty."""
    return columns * item <= VEC_BYTES


cdef inline Py_ssize_t padded(Py_ssize_t rows, bint narrow) noexcept nogil:
    """Count the rows that the register tile writes."""
    cdef Py_ssize_t rest = rows % MR
    rows -= rest
    if rest > MR_HALF:
        return rows + MR
    if rest > MR_QUARTER or (narrow and rest):
        return rows + MR_HALF
    return rows + MR_QUARTER if rest else rows


cdef inline Py_ssize_t step_of(Py_ssize_t rows, bint narrow, Py_ssize_t item) noexcept nogil:
    """Give the scalars from one matrix of rows of NR to the next.

    Of narrow ones every second lies in the empty halves of the one before: an odd number of
    vectors further on, so that the second next begins behind it.
    """
    if narrow:
        return (rows | 1) * VEC_BYTES // item
    return odd_lines(rows * NR_BYTES // item)


cdef inline Py_ssize_t size_of(
    Py_ssize_t matrices, Py_ssize_t rows, bint narrow, Py_ssize_t item
) noexcept nogil:
    """Give the scalars of some such matrices."""
    cdef Py_ssize_t step = step_of(rows, narrow, item)
    return odd_lines(matrices * step + (rows * NR_BYTES // item if narrow else 0))


cdef inline bint is_far(Py_ssize_t bytes) noexcept nogil:
    """Tell whether so many bytes of spectra leave L3 from one block of tiles to the next."""
    return bytes > L3_BYTES


cdef inline double rows_that_cost(Py_ssize_t rows) noexcept nogil:
    """Count rows of the register tile by its time: small ones wait for their loads."""
    cdef Py_ssize_t rest = rows % MR
    rows -= rest
    if rest > MR_HALF:
        return rows + MR
    if rest > MR_QUARTER:
        return rows + 1.125 * MR_HALF
    return rows + 1.5 * MR_QUARTER if rest else rows


cdef inline double time_to_transform(const Mesh* m) noexcept nogil:
    """Estimate the cycles of one vector of a tile, one way."""
    cdef double n = m.s.y * m.s.x
    return 1.7 * n * log2(n)


cdef inline Py_ssize_t row_of(const Mesh* m, Py_ssize_t channels) noexcept nogil:
    """Scalars of a tile's points, of whole vectors of channels."""
    return odd_lines(3 * m.s.points * ceil_div(channels, ALIGNED) * ALIGNED)


cdef inline Py_ssize_t bytes_of(
    const Mesh* m, Py_ssize_t channels, Py_ssize_t tiles, bint narrow, Py_ssize_t item
) noexcept nogil:
    """Give the bytes of the points of so many tiles, and of one panel of their sums."""
    return item * (
        tiles * row_of(m, channels)
        + size_of(3 * m.s.points, padded(tiles, narrow), narrow, item)
    )


cdef inline double time_of_tiles(
    const Mesh* m, Py_ssize_t channels, Py_ssize_t columns, Py_ssize_t tiles, Py_ssize_t item,
    bint far,
) noexcept nogil:
    """Estimate the cycles of some tiles and vectors of outputs.

    The numbers are from 16 to 256 channels on one core with AVX-512, 2026-11.
    """
    cdef double products = rows_that_cost(tiles) / 2 + (4.5 if far else 1)
    return (
        3 * m.s.points * channels * columns * products
        + time_to_transform(m) * tiles * (ceil_div(channels * item, VEC_BYTES) + columns)
    )


cdef inline double time_of_sample(
    const Mesh* m, const Window* w, Py_ssize_t item
) noexcept nogil:
    """Estimate the cycles of one sample and its share of the transforms of weights."""
    cdef Py_ssize_t each = m.y * m.x * w.z.extent, t
    cdef bint narrow = is_narrow(w.m, item)
    cdef Py_ssize_t columns = ceil_div(w.m * item, VEC_BYTES)
    cdef double spectra = 3.0 * m.s.points * w.c * columns
    cdef bint far = is_far(<Py_ssize_t>(w.groups * spectra * VEC_BYTES))
    cdef double now, best = -1
    for t in range(1, 2 * MR + 1):
        if t > 1 and (
            t > SAMPLES * each or bytes_of(m, w.c, t, narrow, item) > PRIVATE_BYTES
        ):
            break
        now = time_of_tiles(m, w.c, columns, t, item, far) / t
        if best < 0 or now < best:
            best = now
    return each * best + (
        time_to_transform(m) * w.c * columns + (12 if far else 4) * spectra
    ) / SAMPLES


cdef inline Mesh best_mesh(const Window* w, Py_ssize_t item) noexcept nogil:
    """Choose the lengths of tiles; the shortest are taken if none fits."""
    cdef Mesh m
    cdef Mesh best = mesh_of(
        w, LONGEST if w.y.taps > 1 else 1, LONGEST if w.x.taps > 1 else 1
    )
    cdef double now, least = -1
    cdef bint fits, narrow = is_narrow(w.m, item)
    cdef Py_ssize_t y, x, length_y, length_x
    for y in range(LENGTHS if w.y.taps > 1 else 1):
        for x in range(LENGTHS if w.x.taps > 1 else 1):
            length_y = length_at(y) if w.y.taps > 1 else 1
            length_x = length_at(x) if w.x.taps > 1 else 1
            if is_length(length_y, w.y.taps, w.x.taps, True) and is_length(
                length_x, w.x.taps, w.y.taps, False
            ):
                m = mesh_of(w, length_y, length_x)
                now = time_of_sample(&m, w, item)
                fits = (
                    bytes_of(&m, w.c, 1, narrow, item) <= PRIVATE_BYTES
                    and size_of(3 * m.s.points, w.c, narrow, item) * item <= SPECTRA_BYTES
                )
                if least < 0 or (now < least and fits):
                    least, best = now, m
    return best


cdef inline Place place_of(const Mesh* m, const Window* w, Py_ssize_t tile) noexcept nogil:
    """Find a tile."""
    cdef Place p
    p.x = tile % m.x * m.out_x
    tile = tile // m.x
    p.y = tile % m.y * m.out_y
    p.image = tile // m.y
    p.rows = min(m.out_y, w.y.extent - p.y)
    p.columns = min(m.out_x, w.x.extent - p.x)
    return p


cdef inline Box box_of(const Place* p, const Window* w) noexcept nogil:
    """Describe the outputs of a tile."""
    cdef Box b
    b.sample, b.samples = p.image // w.z.extent, 1
    b.first[0], b.count[0] = p.image % w.z.extent, 1
    b.first[1], b.first[2] = p.y, p.x
    b.count[1], b.count[2] = p.rows, p.columns
    return b


cdef inline Py_ssize_t image_at(
    Py_ssize_t image, Py_ssize_t depth, Py_ssize_t sample, Py_ssize_t plane
) noexcept nogil:
    """Find an image: `depth` to a sample, one behind the other in a channel's plane."""
    return image // depth * sample + image % depth * (plane // depth)


cdef inline Patch inputs_of(const Mesh* m, const Window* w, const Place* at) noexcept nogil:
    """Tell which pixels a tile reads."""
    cdef Patch p
    p.y, p.x = at.y + lowest(&w.y), at.x + lowest(&w.x)
    p.rows, p.columns = m.length_y, m.length_x
    p.apart_y, p.apart_x = 1, 1
    p.pitch, p.size = m.length_x, m.length_y * m.length_x
    meet_image(&p, w.y.source, w.x.source)
    p.border = w.x.border
    return p


cdef inline void turn_tile(
    const Mesh* m, const int* places, const vec* plane, Py_ssize_t ld, Py_ssize_t channels,
    Py_ssize_t height, Py_ssize_t width, Py_ssize_t y, Py_ssize_t x, Py_ssize_t rows,
    Py_ssize_t columns, vec* tile,
) noexcept nogil:
    """Transpose rows x columns pixels of some planes, from (y, x) on, to a tile.

    Outside of the image, and behind those rows and columns, it is zero. `places` counts.
    """
    cdef Py_ssize_t first_y = max(y, 0), first_x = max(x, 0), _row
    cdef Py_ssize_t count_y = min(y + rows, height) - first_y
    cdef Py_ssize_t count_x = min(x + columns, width) - first_x
    if count_y < m.length_y or count_x < m.length_x:
        memset(tile, 0, m.length_y * m.length_x * sizeof(vec))
    if count_x <= 0:
        return
    tile += (first_y - y) * m.length_x + first_x - x
    plane = ahead(plane, first_y * width + first_x)
    for _row in range(count_y):
        put_pixels(plane, ld, channels, count_x, places, tile)
        plane = ahead(plane, width)
        tile += m.length_x


cdef inline void list_numbers(int* to, Py_ssize_t count) noexcept nogil:
    """Write 0, 1, 2 ..."""
    cdef Py_ssize_t i
    for i in range(count):
        to[i] = <int>i


cdef inline Pixel* pixels_of(const int* numbers) noexcept nogil:
    """Find where the pixels of the border are listed."""
    return <Pixel*>(numbers + LONGEST)


cdef inline Py_ssize_t bytes_of_lists(const Mesh* m, const Window* w) noexcept nogil:
    """Give what those lists take."""
    cdef Py_ssize_t pixels = m.length_y * m.length_x * (w.x.border != ZEROS)
    return LONGEST * sizeof(int) + pixels * sizeof(Pixel)


cdef inline void surround(
    const Mesh* m, const Window* w, const Place* at, const vec* plane, Py_ssize_t channels,
    Pixel* pixels, vec* tile,
) noexcept nogil:
    """Write what lies around the image to a tile.

    It is listed for each vector of channels again: with the list outside of the loop,
    compilers spread the transforms over functions, and these took up to 1.3 times as long.
    """
    cdef Patch p = inputs_of(m, w, at)
    list_border(w, &p, pixels)
    fill_border(&p, pixels, plane, w.source_plane, channels, w.value, tile)


cdef inline void transform_vector(
    const Mesh* m, const Window* w, const Place* at, const vec* plane, Py_ssize_t channels,
    const int* numbers, const vec* turns, vec* tile, vec* space, vec* v, Py_ssize_t step,
) noexcept nogil:
    """Write the points of one vector of channels of the inputs of a tile, `step` apart."""
    turn_tile(
        m, numbers, plane, w.source_plane, channels, w.y.source, w.x.source,
        at.y + lowest(&w.y), at.x + lowest(&w.x), m.length_y, m.length_x, tile,
    )
    if cc_seldom(w.x.border != ZEROS):
        surround(m, w, at, plane, channels, pixels_of(numbers), tile)
    to_points(&m.s, <const vec*>tile, m.s.y, turns, space, v, step, False)


cdef inline void transform_inputs_of(
    const Mesh* m, const Window* w, const Place* at, const real* source, Py_ssize_t channels,
    const int* numbers, const real* turns, real* tile, real* space, real* v, Py_ssize_t step,
) noexcept nogil:
    """Write those of some channels, one vector after the other."""
    cdef Py_ssize_t lanes = nr(source) // NV, c = 0, here
    source += image_at(
        at.image, w.z.extent, w.groups * w.c * w.source_plane, w.source_plane
    )
    while c < channels:
        here = min(lanes, channels - c)
        if real is float:
            transform_vector(
                m, w, at, <const f32v*>(source + c * w.source_plane), here, numbers,
                <const f32v*>turns, <f32v*>tile, <f32v*>space, <f32v*>(v + c), step // lanes,
            )
        else:
            transform_vector(
                m, w, at, <const f64v*>(source + c * w.source_plane), here, numbers,
                <const f64v*>turns, <f64v*>tile, <f64v*>space, <f64v*>(v + c), step // lanes,
            )
        c += lanes
