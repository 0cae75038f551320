"""What a padding mode finds beyond the border of an axis."""

BORDERS = ("zeros", "constant", "reflect", "symmetric", "replicate", "circular")


def source_index(i: int, extent: int, mode: str) -> int | None:
    """Give the element that stands at position `i`, or None where there is none.

    Parameters
    ----------
    i : int
        Position; those below 0 and from `extent` on lie in the padding.
    extent : int, >= 1
        Elements of the axis; at least 2 for "reflect".
    mode : "zeros", "constant", "reflect", "symmetric", "replicate" or "circular"
        As in `numpy.pad`, where "replicate" is "edge" and "circular" is "wrap".

    Examples
    --------
    >>> [source_index(i, 4, "reflect") for i in range(-3, 7)]
    [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    >>> [source_index(i, 4, "symmetric") for i in range(-3, 7)]
    [2, 1, 0, 0, 1, 2, 3, 3, 2, 1]
    >>> [source_index(i, 4, "circular") for i in range(-3, 7)]
    [1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    """
    if 0 <= i < extent:
        return i
    if mode in ("zeros", "constant"):
        return None
    if mode == "replicate":
        return 0 if i < 0 else extent - 1
    if mode == "circular":
        return i % extent
    if mode == "symmetric":
        i %= 2 * extent
        return min(i, 2 * extent - 1 - i)
    i %= 2 * (extent - 1)
    return min(i, 2 * (extent - 1) - i)
