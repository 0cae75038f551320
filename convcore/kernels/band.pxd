# Bands: the part of the source that a box of outputs reads, so that every window is whole.
#
# What      A box is a block of outputs (samples, z, y, x). The windows of its outputs
#           together read a box of the source, some of which may lie outside of it. If
#           none does, the band is the source itself; otherwise a copy of a few channels,
#           with real zeros around, or what the border says.
# Layout         x x x x x x              0 0 0 0 0 0 0 0
#                x x x x x x   box  ->    0 x x x x x x 0   pitch scalars a row,
#                x x x x x x              0 x x x x x x 0   sheet a plane z,
#                                         0 x x x x x x 0   plane a channel
#           An output is an address, a term (channel, tap) a distance from it: the sum of
#           the two is where the term's scalar lies, for any stride, dilation and rank.
# Cost      Each scalar of a band is copied once, and read for every tap and output channel.
# Why not   Patches: `taps` copies of every scalar. Addresses without a copy: windows at
#           the border would need a branch for every tap.

from libc.string cimport memset

from convcore.kernels.border cimport ZEROS, source_at
from convcore.kernels.checked cimport check_range
from convcore.kernels.geometry cimport Axis, Window
from convcore.kernels.rounds cimport ceil_div
from convcore.kernels.vector cimport (
    MR, VEC_BYTES, f32v, f64v, real, vec, ahead, cc_fetch, part, zero_lanes,
)

cdef enum:
    BAND_BYTES = 262144  # of a band, a fraction of L2
    MOST_BYTES = 2097152  # of the band of a tile
    SLACK = 16  # scalars of room behind a band
    AHEAD = 2  # channels from the one that is copied to the one that is fetched

cdef struct Boxes:                     # a partition of all outputs
    Py_ssize_t[3] count                # outputs of a box along z, y, x
    Py_ssize_t[3] number               # boxes along each
    Py_ssize_t samples, sample_number  # samples of a box, boxes along the batch
    Py_ssize_t boxes, outputs          # boxes; outputs of the largest
    Py_ssize_t scalars                 # of the largest band

cdef struct Box:
    Py_ssize_t sample, samples         # the first, and how many
    Py_ssize_t[3] first                # along z, y, x
    Py_ssize_t[3] count

cdef struct Span:
    Py_ssize_t first, extent           # of the source, along one axis

cdef struct Cut:                       # a row of a band in vectors, from left to right
    Py_ssize_t before                  # of zeros
    unsigned int head                  # one that starts or ends within: its lanes
    Py_ssize_t whole
    unsigned int tail                  # one that ends within
    Py_ssize_t after                   # of zeros

cdef struct Band:
    Span[3] spans
    Py_ssize_t pitch, sheet, plane     # scalars from row to row, z to z, channel to channel
    Py_ssize_t sample                  # from sample to sample
    bint copied


cdef inline Span span_of(const Axis* a, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """Give what `count` outputs read along an axis."""
    cdef Span s
    cdef Py_ssize_t reach = a.off_step * (a.taps - 1)
    s.first = a.advance * first + a.off0 + min(0, reach)
    s.extent = a.advance * (count - 1) + max(reach, -reach) + 1
    return s


cdef inline bint inside(const Span* s, const Axis* a) noexcept nogil:
    """Tell whether the source holds all of a span."""
    return s.first >= 0 and s.first + s.extent <= a.source


cdef inline Band band_of(const Window* w, const Box* box, Py_ssize_t channels) noexcept nogil:
    """Describe the band of a box, `channels` at a time."""
    cdef Band b
    b.spans[0] = span_of(&w.z, box.first[0], box.count[0])
    b.spans[1] = span_of(&w.y, box.first[1], box.count[1])
    b.spans[2] = span_of(&w.x, box.first[2], box.count[2])
    b.copied = not (
        inside(&b.spans[0], &w.z) and inside(&b.spans[1], &w.y)
        and inside(&b.spans[2], &w.x)
    )
    if b.copied:
        b.pitch = b.spans[2].extent
        b.sheet = b.pitch * b.spans[1].extent
        b.plane = b.sheet * b.spans[0].extent
        b.sample = b.plane * channels
    else:
        b.pitch = w.x.source
        b.sheet = b.pitch * w.y.source
        b.plane = w.source_plane
        b.sample = b.plane * w.groups * w.c
    return b


cdef inline unsigned int lane_bits(Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Set the bits of lanes first .. last."""
    return (<unsigned int>1 << last) - (<unsigned int>1 << first)


cdef inline Cut cut_row(const Window* w, const Band* b, Py_ssize_t lanes) noexcept nogil:
    """Cut a row of the band into vectors that the source fills, in part or not at all."""
    cdef Cut cut
    cdef Py_ssize_t left = min(max(-b.spans[2].first, 0), b.pitch), i, all_vectors
    cdef Py_ssize_t right = max(min(w.x.source - b.spans[2].first, b.pitch), left)
    all_vectors = ceil_div(b.pitch, lanes)
    cut.before = left // lanes if left < right else all_vectors
    cut.head, cut.tail, cut.whole = 0, 0, 0
    i = cut.before
    if left < right and (left % lanes or right < (i + 1) * lanes):
        cut.head = lane_bits(left - i * lanes, min(lanes, right - i * lanes))
        i += 1
    if i * lanes < right:
        cut.whole = right // lanes - i
        i += cut.whole
        if right % lanes:
            cut.tail = lane_bits(0, right % lanes)
            i += 1
    cut.after = all_vectors - i
    return cut


cdef inline void copy_vectors(
    const vec* row, Py_ssize_t step, Py_ssize_t rows, const Cut* cut, Py_ssize_t later,
    vec* to, Py_ssize_t pitch,
) noexcept nogil:
    """Do `copy_rows` on vectors."""
    cdef Py_ssize_t i, _j, lanes = VEC_BYTES // (4 if vec is f32v else 8)
    cdef vec* here
    cdef const vec* source
    for _j in range(rows):
        here, source = to, row
        for i in range(cut.before):
            here[i] = zero_lanes(row)
        here, source = here + cut.before, ahead(source, cut.before * lanes)
        if cut.head:
            cc_fetch(ahead(source, later))
            here[0] = part(source, cut.head)
            here, source = here + 1, ahead(source, lanes)
        for i in range(cut.whole):
            cc_fetch(ahead(source, later))
            here[i] = source[0]
            source = ahead(source, lanes)
        here = here + cut.whole
        if cut.tail:
            cc_fetch(ahead(source, later))
            here[0] = part(source, cut.tail)
            here = here + 1
        for i in range(cut.after):
            here[i] = zero_lanes(row)
        row = ahead(row, step)
        to = <vec*>ahead(<const vec*>to, pitch)


cdef inline void copy_rows(
    const real* row, Py_ssize_t step, Py_ssize_t rows, const Cut* cut, Py_ssize_t later,
    real* to, Py_ssize_t pitch,
) noexcept nogil:
    """Copy some rows, and fetch what lies `later` on.

    Whole vectors are written: what is too much of one row the next one puts right.
    """
    if real is float:
        copy_vectors(<const f32v*>row, step, rows, cut, later, <f32v*>to, pitch)
    else:
        copy_vectors(<const f64v*>row, step, rows, cut, later, <f64v*>to, pitch)


cdef inline void fill_scalars(real* to, Py_ssize_t count, real value) noexcept nogil:
    """Write one value some times."""
    cdef Py_ssize_t i
    for i in range(count):
        to[i] = value


cdef inline void fill_ends(
    const Axis* a, const Span* s, const real* row, real value, real* to
) noexcept nogil:
    """Write what lies left and right of the source in a row of a band."""
    cdef Py_ssize_t i, j, left = min(max(-s.first, 0), s.extent)
    for i in range(left):
        j = source_at(a.border, s.first + i, a.source)
        to[i] = row[j] if j >= 0 else value
    for i in range(max(a.source - s.first, left), s.extent):
        j = source_at(a.border, s.first + i, a.source)
        to[i] = row[j] if j >= 0 else value


cdef inline void copy_framed(
    const Window* w, const Band* b, const Cut* cut, const real* sheet, real* to
) noexcept nogil:
    """Copy the rows of a band, with what lies around the source."""
    cdef Py_ssize_t i, y, pitch = b.pitch
    cdef real value = <real>w.value
    cdef const real* row
    for i in range(b.spans[1].extent):
        y = source_at(w.y.border, b.spans[1].first + i, w.y.source)
        if y < 0:
            fill_scalars(to + i * pitch, pitch, value)
        else:
            row = sheet + y * w.x.source
            copy_rows(
                row + b.spans[2].first, w.x.source, 1, cut, AHEAD * w.source_plane,
                to + i * pitch, pitch,
            )
            fill_ends(&w.x, &b.spans[2], row, value, to + i * pitch)


cdef inline void copy_plane_with_border(
    const Window* w, const Band* b, const Cut* cut, const real* source, real* to
) noexcept nogil:
    """Do `copy_plane` where there is more than zeros around the source.

    Rows are written from the first to the last one: see `copy_rows`.
    """
    cdef Py_ssize_t i, z
    for i in range(b.spans[0].extent):
        z = source_at(w.z.border, b.spans[0].first + i, w.z.source)
        if z < 0:
            fill_scalars(to, b.sheet, <real>w.value)
        else:
            copy_framed(w, b, cut, source + z * w.y.source * w.x.source, to)
        to += b.sheet


cdef inline void copy_plane(
    const Window* w, const Band* b, const Cut* cut, const real* source, real* to
) noexcept nogil:
    """Copy the band of one channel of one sample; meanwhile fetch a later channel's."""
    cdef Py_ssize_t i, z, rows = b.spans[1].extent
    cdef Py_ssize_t top = min(max(-b.spans[1].first, 0), rows)
    cdef Py_ssize_t bottom = max(min(w.y.source - b.spans[1].first, rows), top)
    for i in range(b.spans[0].extent):
        z = b.spans[0].first + i
        if not 0 <= z < w.z.source:
            memset(to, 0, b.sheet * sizeof(real))
        else:
            memset(to, 0, top * b.pitch * sizeof(real))
            copy_rows(
                source + (z * w.y.source + b.spans[1].first + top) * w.x.source
                + b.spans[2].first,
                w.x.source, bottom - top, cut, AHEAD * w.source_plane,
                to + top * b.pitch, b.pitch,
            )
            memset(to + bottom * b.pitch, 0, (rows - bottom) * b.pitch * sizeof(real))
        to += b.sheet


cdef inline Py_ssize_t read_of(
    const Band* b, const Box* box, Py_ssize_t channels
) noexcept nogil:
    """Count the scalars from the first to the last one of some channels of a band."""
    return (
        (box.samples - 1) * b.sample + (channels - 1) * b.plane
        + (b.spans[0].extent - 1) * b.sheet + (b.spans[1].extent - 1) * b.pitch
        + b.spans[2].extent
    )


cdef inline const real* fill(
    const Window* w, const Band* b, const Box* box, const real* source,
    Py_ssize_t channel, Py_ssize_t channels, real* to,
) noexcept nogil:
    """Give the band's first scalar, for some channels; copy them to `to` if need be.

    `source` is channel 0 of the group in sample 0. Behind the band there has to be room
    for SLACK scalars.
    """
    cdef Py_ssize_t n, c
    cdef Cut cut
    cdef const real* here
    source += (box.sample * w.groups * w.c + channel) * w.source_plane
    if not b.copied:
        source += (
            b.spans[0].first * b.sheet + b.spans[1].first * b.pitch + b.spans[2].first
        )
        check_range(source, read_of(b, box, channels) * sizeof(real))
        return source
    check_range(to, box.samples * b.sample * sizeof(real))
    cut = cut_row(w, b, VEC_BYTES // sizeof(real))
    for n in range(box.samples):
        for c in range(channels):
            here = source + (n * w.groups * w.c + c) * w.source_plane
            if w.x.border == ZEROS:
                copy_plane(w, b, &cut, here, to + n * b.sample + c * b.plane)
            else:
                copy_plane_with_border(w, b, &cut, here, to + n * b.sample + c * b.plane)
    return to


cdef inline void list_outputs(
    const Window* w, const Band* b, const Box* box, Py_ssize_t* places
) noexcept nogil:
    """Write where in a band each output of a box looks: the place of its lowest tap."""
    cdef Py_ssize_t n, z, y, x, at
    for n in range(box.samples):
        for z in range(box.count[0]):
            for y in range(box.count[1]):
                at = n * b.sample + w.z.advance * z * b.sheet + w.y.advance * y * b.pitch
                for x in range(box.count[2]):
                    places[0] = at + w.x.advance * x
                    places += 1


cdef inline Py_ssize_t lowest(const Axis* a) noexcept nogil:
    """How far the first tap lies above the lowest one."""
    return max(0, -a.off_step * (a.taps - 1))


cdef inline void list_terms(
    const Window* w, const Band* b, Py_ssize_t channels, Py_ssize_t* distances
) noexcept nogil:
    """Write how far from its output each term lies: channel after channel, tap by tap."""
    cdef Py_ssize_t c, z, y, x, at
    for c in range(channels):
        for z in range(w.z.taps):
            for y in range(w.y.taps):
                at = (
                    c * b.plane + (lowest(&w.z) + w.z.off_step * z) * b.sheet
                    + (lowest(&w.y) + w.y.off_step * y) * b.pitch
                )
                for x in range(w.x.taps):
                    distances[0] = at + lowest(&w.x) + w.x.off_step * x
                    distances += 1


cdef inline Py_ssize_t plane_size(const Band* b) noexcept nogil:
    """Count the scalars of one channel of a band of one sample."""
    return b.spans[0].extent * b.spans[1].extent * b.spans[2].extent


cdef inline bint padded(const Window* w) noexcept nogil:
    """Tell whether any window leaves the source."""
    cdef Box box
    cdef int i
    for i in range(3):
        box.first[i] = 0
    box.count[0], box.count[1], box.count[2] = w.z.extent, w.y.extent, w.x.extent
    return band_of(w, &box, 1).copied


cdef inline Py_ssize_t reach(
    const Window* w, const Boxes* boxes, Py_ssize_t channels
) noexcept nogil:
    """Count the scalars that lie between the first and the last of a box's band."""
    cdef Band b
    cdef Box box
    cdef int i
    for i in range(3):
        box.first[i], box.count[i] = 0, boxes.count[i]
    b = band_of(w, &box, 1)
    return boxes.samples * channels * plane_size(&b)


cdef inline Boxes choose_boxes(
    const Window* w, Py_ssize_t channels, Py_ssize_t wanted, Py_ssize_t item
) noexcept nogil:
    """Make boxes of about `wanted` outputs: of whole rows, planes, samples if they are small.

    They are smaller where the band of `channels` channels would have too many bytes.
    """
    cdef Boxes b
    cdef Py_ssize_t[3] extent
    cdef Py_ssize_t left = wanted
    cdef int i, j
    extent[0], extent[1], extent[2] = w.z.extent, w.y.extent, w.x.extent
    for j in range(3):
        i = 2 - j
        b.count[i] = max(1, min(extent[i], left))
        left = left // b.count[i] if b.count[i] == extent[i] else 1
    b.samples = max(1, min(w.samples, left))
    while reach(w, &b, channels) > BAND_BYTES // item:
        if b.samples > 1:
            b.samples = b.samples // 2
        elif b.count[0] > 1:
            b.count[0] = b.count[0] // 2
        elif b.count[1] > 1:
            b.count[1] = b.count[1] // 2
        elif b.count[2] > 1:
            b.count[2] = b.count[2] // 2
        else:
            break
    for i in range(3):
        b.number[i] = ceil_div(extent[i], b.count[i])
        b.count[i] = ceil_div(extent[i], b.number[i])
    if b.number[2] > 1:  # whole tiles, unless wide dilations make their band enormous
        left = b.count[2]
        b.count[2] = min(extent[2], ceil_div(left, MR) * MR)
        if reach(w, &b, channels) > MOST_BYTES // item:
            b.count[2] = left
        b.number[2] = ceil_div(extent[2], b.count[2])
    b.sample_number = ceil_div(w.samples, b.samples)
    b.samples = max(1, ceil_div(w.samples, max(b.sample_number, 1)))
    b.boxes = b.sample_number * b.number[0] * b.number[1] * b.number[2]
    b.outputs = b.samples * b.count[0] * b.count[1] * b.count[2]
    b.scalars = reach(w, &b, channels) + SLACK if padded(w) else 0
    return b


cdef inline Box box_at(const Boxes* b, const Window* w, Py_ssize_t index) noexcept nogil:
    """Give a box; it may be empty for a window that is smaller than that of the boxes."""
    cdef Box box
    cdef Py_ssize_t[3] extent
    cdef int i, j
    extent[0], extent[1], extent[2] = w.z.extent, w.y.extent, w.x.extent
    for j in range(3):
        i = 2 - j
        box.first[i] = index % b.number[i] * b.count[i]
        box.count[i] = max(0, min(b.count[i], extent[i] - box.first[i]))
        index = index // b.number[i]
    box.sample = index * b.samples
    box.samples = min(b.samples, w.samples - box.sample)
    return box


cdef inline Py_ssize_t outputs_of(const Box* box) noexcept nogil:
    return box.samples * box.count[0] * box.count[1] * box.count[2]
