"""What the algorithms that transform their operands have in common, for their tests."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from convcore.functional import call
from convcore.kernels import load
from convcore.problem import ConvProblem
from convcore.reference import fft, winograd
from convcore.runtime import cpu
from tests import oracle
from tests.answers import remembered
from tests.conv_helpers import compute

DIRECTIONS: tuple[oracle.Direction, ...] = ("fprop", "dgrad", "wgrad")

LARGE = 1e6  # products of such numbers, and their sums, stay far from overflow


@dataclass(frozen=True)
class Transform:
    """An algorithm, the bound of its card, and problems that it accepts."""

    name: str
    cases: tuple[str, ...]
    of_some_tiles: str  # a problem of two samples and a few tiles
    places: tuple[range, range]  # in it, along y and x: all those of a tile
    of_lines: tuple[str, ...]  # kernels along one axis
    of_many_tasks: tuple[str, ...]
    kernels: st.SearchStrategy[tuple[int, int]]
    dilations: st.SearchStrategy[int]
    most_pixels: int  # along an axis of drawn problems
    magnitudes: Callable[..., Any]  # what its errors are measured in
    factor: Callable[[ConvProblem, oracle.Direction, Any], float]
    smallest: Callable[..., Any]  # what subnormal numbers add to the bound
    lengths: Callable[..., Any]  # of its tiles: all that a bound has of the machine


def folded(
    problem: ConvProblem, direction: oracle.Direction, *arrays: Any
) -> tuple[Any, Any]:
    """The two operands as the kernels see them."""
    seen = problem.folded
    shapes = {
        "fprop": (seen.x_shape, seen.weight_shape),
        "dgrad": (seen.y_shape, seen.weight_shape),
        "wgrad": (seen.x_shape, seen.y_shape),
    }[direction]
    return arrays[0].reshape(shapes[0]), arrays[1].reshape(shapes[1])


def check(
    algorithm: Transform,
    problem: ConvProblem,
    direction: oracle.Direction,
    *arrays: Any,
) -> None:
    """Compute a result, and hold it against the bound of the card.

    Of ordinary numbers it has to be right at once: what is not finite is computed again
    without transforms, and would hide scratch that is read before it is written.
    """
    with pytest.MonkeyPatch.context() as patch:
        if all(_is_ordinary(a) for a in arrays if a is not None):
            patch.setattr(call, "_run_again", _never_again)
        found = compute(problem, algorithm.name, direction, *arrays)
    hold(found, algorithm, problem, direction, *arrays)


def _is_ordinary(a: Any) -> bool:
    return bool((np.abs(a) < LARGE).all())


def _never_again(*_: Any) -> None:
    raise AssertionError("a result of finite numbers is not finite")


def hold(
    found: Any,
    algorithm: Transform,
    problem: ConvProblem,
    direction: oracle.Direction,
    *arrays: Any,
) -> None:
    """Hold a result against the bound of the card."""
    dtype = arrays[0].dtype
    expected = oracle.run_wider(problem, direction, *arrays)
    # What subnormal numbers add takes longer than all else, and is hardly ever needed.
    allowed = _of_ordinary_numbers(algorithm, problem, direction, *arrays)
    if not oracle.within(found, expected, allowed).all():
        allowed = allowed + _of_subnormal_numbers(
            algorithm, problem, direction, *arrays[:2]
        )
    what = f"{algorithm.name} {direction} of {problem}"
    oracle.assert_within(found, expected, allowed, dtype, what)


def allowed(
    algorithm: Transform,
    problem: ConvProblem,
    direction: oracle.Direction,
    *arrays: Any,
) -> Any:
    """The bound of the card, for each element of the result."""
    ordinary = _of_ordinary_numbers(algorithm, problem, direction, *arrays)
    subnormal = _of_subnormal_numbers(algorithm, problem, direction, *arrays[:2])
    return ordinary + subnormal


def _of_ordinary_numbers(
    algorithm: Transform,
    problem: ConvProblem,
    direction: oracle.Direction,
    one: Any,
    two: Any,
    bias: Any = None,
) -> Any:
    """The bound of the card but for subnormal numbers, for each element of the result."""
    total = _asked(algorithm, algorithm.magnitudes, problem, direction, one, two)
    if bias is not None:
        total = total + np.abs(bias).reshape(-1, *(1,) * (total.ndim - 2))
    u = np.finfo(one.dtype).eps / 2
    return algorithm.factor(problem, direction, one.dtype) * u * total


def _of_subnormal_numbers(
    algorithm: Transform, problem: ConvProblem, direction: oracle.Direction, *pair: Any
) -> Any:
    """What subnormal numbers add to the bound."""
    return _asked(algorithm, algorithm.smallest, problem, direction, *pair)


def _asked(
    algorithm: Transform,
    part: Callable[..., Any],
    problem: ConvProblem,
    direction: oracle.Direction,
    *pair: Any,
) -> Any:
    """A part of the bound: every instruction set asks the same, it is computed once."""
    shape = {
        "fprop": problem.y_shape,
        "dgrad": problem.x_shape,
        "wgrad": problem.weight_shape,
    }[direction]

    def make() -> Any:
        ours = part(problem, direction, *folded(problem, direction, *pair))
        return ours.reshape(shape)

    question = part, algorithm.lengths(problem, direction, pair[0].dtype)
    return remembered(make, *question, problem, direction, *pair)


def products(
    problem: ConvProblem, direction: oracle.Direction, outputs: tuple[int, ...]
) -> int:
    """How many products are summed at each point, for tiles of so many outputs."""
    if direction == "fprop":
        return problem.ic // problem.g
    if direction == "dgrad":
        return problem.oc // problem.g
    tiles = [
        -(-e // o) for e, o in zip(problem.folded.out_extent, outputs, strict=True)
    ]
    return problem.n * int(np.prod(tiles))


def lengths_of(
    problem: ConvProblem, direction: oracle.Direction, dtype: Any
) -> tuple[int, int]:
    """The lengths of tiles that the kernel of the FFT chooses."""
    module = load("conv_fft_weight" if direction == "wgrad" else "conv_fft", cpu.isa())
    geometry = array("q", problem.folded.geometry)
    lengths: tuple[int, int] = module.tile_lengths(
        geometry, direction, np.dtype(dtype).itemsize
    )
    return lengths


def _fft_magnitudes(
    problem: ConvProblem, direction: oracle.Direction, *arrays: Any
) -> Any:
    lengths = lengths_of(problem, direction, arrays[0].dtype)
    return fft.convolve(problem.folded, direction, *arrays, lengths, magnitude=True)


def _fft_smallest(
    problem: ConvProblem, direction: oracle.Direction, *arrays: Any
) -> Any:
    one, two = arrays
    lengths = lengths_of(problem, direction, one.dtype)
    tiny = float(np.finfo(one.dtype).tiny)
    added = fft.convolve(
        *(problem.folded, direction, np.zeros_like(one), two, lengths),
        magnitude=True,
        least=tiny,
    )
    u = np.finfo(one.dtype).eps / 2
    return _fft_factor(problem, direction, one.dtype) * u * (added + tiny)


def _fft_factor(problem: ConvProblem, direction: oracle.Direction, dtype: Any) -> float:
    lengths = lengths_of(problem, direction, dtype)
    taps = problem.folded.kernel[1:]
    outputs = (1, *(n - k + 1 for n, k in zip(lengths, taps, strict=True)))
    terms = products(problem, direction, outputs)
    return float(4 * (2 * np.sqrt(terms) + 7 * np.log2(np.prod(lengths))))


def _filtering(name: str, size: int) -> Transform:
    """Winograd's filtering with tiles of so many outputs along an axis."""

    def magnitudes(
        problem: ConvProblem, direction: oracle.Direction, *arrays: Any
    ) -> Any:
        return winograd.convolve(
            problem.folded, direction, *arrays, size, magnitude=True
        )

    def smallest(
        problem: ConvProblem, direction: oracle.Direction, *arrays: Any
    ) -> Any:
        one, two = (np.ones_like(array) for array in arrays)
        total = magnitudes(problem, direction, one, arrays[1])
        if direction == "wgrad":
            total = total + magnitudes(problem, direction, arrays[0], two)
            total = total + magnitudes(problem, direction, one, two)
        # Twice what a rounding loses:
        unit = float(np.finfo(arrays[0].dtype).smallest_subnormal)
        return 4 * unit * (total + 1)

    def factor(problem: ConvProblem, direction: oracle.Direction, dtype: Any) -> float:
        outputs = tuple(size if k > 1 else 1 for k in problem.folded.kernel)
        return float(2 * np.sqrt(products(problem, direction, outputs)) + 22)

    return Transform(
        name,
        cases=(
            "n1g1ic1ih1oc1kh3ph1",
            "n2g1ic5ih7iw9oc3kh3",
            "n1g1ic17ih14oc33kh3ph1",
            "n3g1ic16ih7oc32kh3ph1",
            "n2g3ic9ih12iw5oc6kh3ph1pw0",
            "n1g1ic40ih30iw45oc70kh3ph2",
            "n2g1ic8iw133oc9kw3pw1",
            "n2g1ic8ih20iw19oc9kh1kw3pw1",
            "n2g1ic8ih20iw19oc9kh3kw1ph1",
            "n2g1ic6id4ih9oc5kd1kh3kw3ph1",
            "n1g1ic2ih5iw1oc3kh3kw1",
            "n2g1ic5ih11iw14oc6kh3ph2dh2",
            "n1g2ic34ih19iw8oc20kh3ph3pw0dh3dw2",
            "n1g1ic3ih13oc4kh3ph6dh4",
            "n2g1ic4ih5oc3kh3ph5dh4",
            "n2g1ic9ih2iw40oc17kh1kw3pw7dw9",
            "n1g1ic5ih33iw3oc4kh3kw1ph16dh16",
            "n1g1ic600ih9oc8kh3ph2dh2",
            "n2g1ic3id3ih9iw11oc5kd1kh3kw3ph2pw2dh2dw2",
            "n5g1ic130ih6oc70kh3ph1",
            "n1g2ic128ih9oc66kh3ph1_2",
            "n0g1ic4ih8oc4kh3ph1",
        ),
        of_some_tiles="n2g1ic3ih8oc5kh3ph1",
        places=(range(6), range(6)),
        of_lines=("n1g1ic5ih9oc6kh3kw1ph1", "n1g1ic5ih9oc6kh1kw3pw1"),
        of_many_tasks=(
            "n7g1ic64ih14oc96kh3ph1",
            "n2g1ic33ih56oc64kh3ph1",
            "n1g1ic300ih7oc130kh3ph1",
        ),
        kernels=st.sampled_from([(3, 3), (1, 3), (3, 1)]),
        dilations=st.sampled_from([1, 1, 2, 3, 4]),
        most_pixels=21,
        magnitudes=magnitudes,
        factor=factor,
        smallest=smallest,
        lengths=lambda *_: size,
    )


WINOGRAD, WINOGRAD2 = _filtering("winograd", 4), _filtering("winograd2", 2)

FFT = Transform(
    "fft",
    cases=(
        "n1g1ic1ih1oc1kh3ph1",
        "n2g1ic5ih7iw9oc3kh2kw5pw2",
        "n2g1ic17ih14oc33kh7ph3",
        "n3g1ic16ih20oc16kh7ph3",
        "n2g3ic9ih12iw25oc6kh9ph4pw0",
        "n1g1ic40ih30iw45oc70kh5kw7ph2",
        "n2g1ic8iw333oc9kw33pw1",
        "n1g1ic3iw900oc18kw200pw7",
        "n2g1ic8ih20iw19oc9kh1kw12pw1",
        "n2g1ic8ih40iw9oc9kh21kw1ph1",
        "n2g1ic6id4ih9oc5kd1kh4kw4ph1",
        "n1g1ic2ih5iw1oc3kh4kw1",
        "n5g1ic130ih6oc70kh6ph2",
        "n1g2ic128ih9oc66kh3ph1_2",
        "n1g1ic2ih37iw80oc3kh31ph15",
        "n0g1ic4ih8oc4kh7ph3",
    ),
    of_some_tiles="n2g1ic3ih11oc5kh7ph3",
    places=(range(0, 11, 2), range(11)),
    of_lines=("n1g1ic8iw333oc9kw33pw1",),
    of_many_tasks=(
        "n7g1ic40ih14oc96kh7ph3",
        "n3g1ic33ih56oc16kh7ph3",
        "n1g1ic16iw3000oc70kw64",
    ),
    kernels=st.sampled_from([7, 20]).flatmap(
        lambda most: st.tuples(st.integers(1, most), st.integers(1, most)).filter(
            lambda kernel: kernel != (1, 1)
        )
    ),
    dilations=st.just(1),
    most_pixels=25,
    magnitudes=_fft_magnitudes,
    factor=_fft_factor,
    smallest=_fft_smallest,
    lengths=lengths_of,
)

TRANSFORMS = (WINOGRAD, WINOGRAD2, FFT)


@st.composite
def problems(draw: st.DrawFn, algorithm: Transform) -> ConvProblem:
    """Any problem that the card accepts, of moderate size."""
    kernel = draw(algorithm.kernels)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 31, 33])
    shape = [draw(st.integers(1, algorithm.most_pixels)) for _ in range(2)]
    apart = [draw(algorithm.dilations) if k > 1 else 1 for k in kernel]
    reach = [d * (k - 1) + 1 for d, k in zip(apart, kernel, strict=True)]
    pads = [
        (draw(st.integers(0, r + 1)), draw(st.integers(0, r + 1))) if r > 1 else (0, 0)
        for r in reach
    ]
    shape = [max(e, r - sum(p)) for e, r, p in zip(shape, reach, pads, strict=True)]
    c, m = draw(channels), draw(channels)
    return ConvProblem.conv(
        "conv2d",
        (draw(st.integers(0, 4)), groups * c, *shape),
        (groups * m, c, *kernel),
        padding=tuple(pads),
        dilation=tuple(apart),
        groups=groups,
    )
