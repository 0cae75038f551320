"""Find the polynomials of `convcore/kernels/vector_math.pxd`, with exact arithmetic.

    python -m benchmarks.fit_polynomials

prints, for each function and type, the coefficients (the constant first) and the largest
error. They interpolate the function at Chebyshev's points of its range, which is within a
small factor of the best polynomial of that degree; the degree is the least whose error is
far below the rounding of the result. What P of atanh errs is multiplied by s^2, so that
its points may lie farther from 0: for float32 that saves a degree.

    exp    e^r = 1 + r + r^2 P(r)                  |r| <= ln(2) / 2
    atanh  atanh(s) = s + s^3 P(s^2)               0 <= s <= 1/3
    tail   e^(t^2/2) Phi(-t) = P(t) / Q(t)         0 <= t <= T

Phi is the distribution function of the standard normal distribution. Sources: Trefethen,
Approximation Theory and Approximation Practice, chapters 2 to 4 and 15 (interpolation at
Chebyshev's points); Abramowitz, Stegun, 26.2.11 and 26.2.14 (series and continued
fraction of Phi).
"""

from collections.abc import Callable
from decimal import Decimal as D
from decimal import getcontext

getcontext().prec = 130
ONE, HALF = D(1), D("0.5")
LN2 = D(2).ln()
K = D(4)
POINTS = 400  # where errors are looked at

Function = Callable[[D], D]


def pi() -> D:
    """Sum Machin's formula."""

    def arctan_of_inverse(n: int) -> D:
        power, total, k = ONE / n, ONE / n, 1
        while abs(power) > D(10) ** -128:
            power /= -n * n
            k += 2
            total += power / k
        return total

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))


PI = pi()


def exp_rest(r: D) -> D:
    """Give (e^r - 1 - r) / r^2."""
    term, total, k = HALF, HALF, 2
    while abs(term) > D(10) ** -120 and r:
        k += 1
        term *= r / k
        total += term
    return total


def atanh_rest(square: D) -> D:
    """Give (atanh(s) - s) / s^3 for s^2."""
    term, total, k = ONE, ONE / 3, 3
    while term > D(10) ** -120:
        term *= square
        k += 2
        total += term / k
    return total


def tail(t: D) -> D:
    """Give e^(t^2/2) Phi(-t)."""
    if t < 9:  # 1/2 e^(t^2/2) less the series of 26.2.11
        term, total, k = t, t, 1
        while term > D(10) ** -120:
            k += 2
            term *= t * t / k
            total += term
        return HALF * (t * t / 2).exp() - total / (2 * PI).sqrt()
    fraction = t  # 26.2.14, from the far end
    for k in range(600, 0, -1):
        fraction = t + k / fraction
    return ONE / fraction / (2 * PI).sqrt()


def chebyshev_points(lo: D, hi: D, count: int) -> list[D]:
    """Give the zeros of Chebyshev's polynomial, moved to lo .. hi."""
    return [
        (lo + hi) / 2 + (hi - lo) / 2 * cosine(PI * (2 * i + 1) / (2 * count))
        for i in range(count)
    ]


def cosine(angle: D) -> D:
    """Sum Taylor's series."""
    term, total, k = ONE, ONE, 0
    while abs(term) > D(10) ** -125:
        k += 2
        term *= -angle * angle / (k * (k - 1))
        total += term
    return total


def interpolate(function: Function, lo: D, hi: D, degree: int) -> list[D]:
    """Give the polynomial through Chebyshev's points."""
    return through(function, chebyshev_points(lo, hi, degree + 1))


def through(function: Function, points: list[D]) -> list[D]:
    """Give the coefficients of the polynomial, by Newton's divided differences."""
    degree = len(points) - 1
    differences = [function(point) for point in points]
    for step in range(1, degree + 1):
        for i in range(degree, step - 1, -1):
            gap = points[i] - points[i - step]
            differences[i] = (differences[i] - differences[i - 1]) / gap
    coefficients = [differences[degree]]
    for i in range(degree - 1, -1, -1):
        moved = [D(0), *coefficients]
        for j, value in enumerate(coefficients):
            moved[j] -= points[i] * value
        moved[0] += differences[i]
        coefficients = moved
    return coefficients


def value_at(coefficients: list[D], x: D) -> D:
    """Give the polynomial's value, by Horner's rule."""
    total = D(0)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def quotient(most: D, degree: int) -> list[list[D]]:
    """Give P and Q, one degree higher and with 1 before its last power, of `tail`.

    They are right at Chebyshev's points of v = (t - K) / (t + K).
    """
    last = (most - K) / (most + K)
    points = chebyshev_points(-ONE, last, 2 * degree + 2)
    lines = []
    for t in (K * (1 + v) / (1 - v) for v in points):
        powers = [t**i for i in range(degree + 2)]
        value = tail(t)  # P(t) - value (Q(t) - t^n) = value t^n
        right = [-value * power for power in powers]
        lines.append([*powers[:-1], *right[:-1], -right[-1]])
    found = solve(lines)
    return [found[: degree + 1], [*found[degree + 1 :], ONE]]


def solve(lines: list[list[D]]) -> list[D]:
    """Solve linear equations, the right sides last, by elimination."""
    for i in range(len(lines)):
        pivot = max(range(i, len(lines)), key=lambda k: abs(lines[k][i]))
        lines[i], lines[pivot] = lines[pivot], lines[i]
        lines[i] = [value / lines[i][i] for value in lines[i]]
        for k, line in enumerate(lines):
            if k != i:
                above = zip(line, lines[i], strict=True)
                lines[k] = [value - line[i] * one for value, one in above]
    return [line[-1] for line in lines]


def show(
    name: str,
    found: list[list[D]],
    right: Function,
    ends: tuple[D, D],
    weight: Function,
) -> None:
    """Print a polynomial, or P and Q, and the logarithm to base 2 of its largest error."""
    worst = D(0)
    for i in range(POINTS + 1):
        x = ends[0] + (ends[1] - ends[0]) * i / POINTS
        value = value_at(found[0], x)
        if len(found) > 1:
            value /= value_at(found[1], x)
        worst = max(worst, abs((value - right(x)) * weight(x)))
    print(f"{name}: 2^{float(worst.ln() / LN2):.1f}")
    for polynomial in found:
        print(f"    degree {len(polynomial) - 1}")
        for coefficient in polynomial:
            print(f"        {float(coefficient)!r},")


def atanh_points() -> list[D]:
    """Give all of five Chebyshev's points up to 1 / 9 but the first, which is 0."""
    half = ONE / 9 / (1 + cosine(PI / 10))
    return chebyshev_points(ONE / 9 - 2 * half, ONE / 9, 5)[:-1]


def main() -> None:
    """Print all of them."""
    end = LN2 / 2 * D("1.0001")
    for degree in (5, 10):
        found = interpolate(exp_rest, -end, end, degree)
        show("exp", [found], exp_rest, (-end, end), lambda r: r * r / r.exp())
    atanh32 = through(atanh_rest, atanh_points())
    for found in (atanh32, interpolate(atanh_rest, D(0), ONE / 9, 9)):
        show("atanh", [found], atanh_rest, (D(0), ONE / 9), lambda q: q)
    for degree, most in ((4, D(15)), (10, D(40))):
        both = quotient(most, degree)
        show("tail", both, tail, (D(0), most), lambda t: 1 / tail(t))


if __name__ == "__main__":
    main()
