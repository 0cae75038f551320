"""The tables: ratios of paths, as text that a page can quote."""

from convcore import analysis

DEPTHS = (1, 2, 5, 10)
CASES = (
    ("valid", "zeros", 3),
    ("valid", "zeros", 5),
    ("same", "zeros", 3),
    ("same", "zeros", 5),
    ("same", "reflect", 3),
    ("same", "reflect", 5),
    ("same", "replicate", 3),
    ("same", "replicate", 5),
    ("same", "symmetric", 3),
    ("same", "symmetric", 5),
    ("same", "circular", 3),
    ("full", "zeros", 3),
)
HEAD = [
    "| padding | mode | taps | " + " | ".join(f"depth {d}" for d in DEPTHS) + " |",
    "| --- | --- | ---: |" + " ---: |" * len(DEPTHS),
]


def ratio_rows() -> list[str]:
    """Give the lines of the table: paths of the edge beside those of the centre.

    Examples
    --------
    >>> ratio_rows()[2]
    '| same | zeros | 3 | 0.667 | 0.556 | 0.395 | 0.293 |'
    """
    rows = []
    for padding, mode, kernel in CASES:
        ratios = analysis.path_ratio(kernel, max(DEPTHS), padding, mode)
        cells = " | ".join(_number(ratios[depth - 1]) for depth in DEPTHS)
        shown = mode if padding == "same" else "-"
        rows.append(f"| {padding} | {shown} | {kernel} | {cells} |")
    return rows


def _number(ratio: float) -> str:
    """Give three digits; a power of ten only where it is needed."""
    return f"{ratio:.3f}" if ratio >= 0.001 else f"{ratio:.1e}"
