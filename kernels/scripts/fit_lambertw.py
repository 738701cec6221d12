"""Fit the rational approximations in ``jaxsplit_kernels/lambertw/coefficients.py``.

Run ``python kernels/scripts/fit_lambertw.py`` (needs mpmath) to print that file anew. Every fit
minimises the maximum of |P/Q - f| / tolerance by Lawson's iteration: linearised least squares in a
Chebyshev basis, reweighted by the error of the round before.
"""

from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
from numpy.polynomial import chebyshev

POINTS = 1500
ITERATIONS = 400
SERIES_TERMS = 12


def lawson(x, f, tolerance, n, m):
    """Rational P/Q of degrees n, m with least maximum of |P/Q - f| / tolerance on the points x."""
    low, high = x.min(), x.max()
    t = (2 * x - low - high) / (high - low)
    tp, tq = chebyshev.chebvander(t, n), chebyshev.chebvander(t, m)
    weight, q = np.full_like(x, 1 / len(x)), np.ones_like(x)
    best_error, best = np.inf, None
    for i in range(ITERATIONS):
        scale = np.sqrt(weight) / (tolerance * np.abs(q))
        rows = np.concatenate([tp, -f[:, None] * tq], axis=1) * scale[:, None]
        norms = np.linalg.norm(rows, axis=0)
        c = np.linalg.svd(rows / norms, full_matrices=False)[2][-1] / norms
        p, q = tp @ c[: n + 1], tq @ c[n + 1 :]
        if q[0] < 0:
            p, q, c = -p, -q, -c
        error = np.abs(p / q - f) / tolerance
        if q.min() > 0 and error.max() < best_error:
            best_error, best = error.max(), c
        if i >= 4:  # let the denominator settle before the weights move
            weight = weight * np.sqrt(error / error.max() + 1e-6)
            weight /= weight.sum()
        q = q / np.abs(q).max()
    p, q = (monomials(c, low, high) for c in (best[: n + 1], best[n + 1 :]))
    p, q = [float(c / q[0]) for c in p], [float(c / q[0]) for c in q]
    return p, q, float(best_error)


def monomials(c, low, high):
    """Coefficients in powers of x, exact in mpmath, of a Chebyshev sum on [low, high]."""
    slope = 2 / (mpmath.mpf(high) - mpmath.mpf(low))
    t = [-(mpmath.mpf(high) + mpmath.mpf(low)) / (mpmath.mpf(high) - mpmath.mpf(low)), slope]
    basis = [[mpmath.mpf(1)], t]
    while len(basis) < len(c):
        previous, last = basis[-2], basis[-1]
        product = [mpmath.mpf(0)] * (len(last) + 1)
        for j, a in enumerate(last):
            product[j] += 2 * a * t[0]
            product[j + 1] += 2 * a * t[1]
        for j, a in enumerate(previous):
            product[j] -= a
        basis.append(product)
    total = [mpmath.mpf(0)] * len(c)
    for weight, powers in zip(c, basis, strict=True):
        for j, a in enumerate(powers):
            total[j] += mpmath.mpf(float(weight)) * a
    return total


def crowded(low, high):
    """Chebyshev points in the square root: denser at the lower end, where the functions bend."""
    k = (np.arange(POINTS) + 0.5) / POINTS
    return low + (high - low) * (0.5 - 0.5 * np.cos(np.pi * k)) ** 2


def tabulate(function: Callable, x) -> np.ndarray:
    """Evaluate an mpmath function at the points x and round to float64."""
    return np.array([float(function(mpmath.mpf(a))) for a in x])


def fit_below():
    """Log(1 + v) / s on the branch -1 side, v - log(1 + v) = s^2 / 2; ten times looser past 19."""
    s = crowded(1e-3, 56.0)
    start = lambda s: s + s * s / 3 if s < 2 else s * s / 2 + mpmath.log(1 + s * s / 2)  # noqa: E731
    v = tabulate(lambda s: mpmath.findroot(lambda v: v - mpmath.log1p(v) - s * s / 2, start(s)), s)
    tolerance = (s * s / 2 + np.log1p(v)) / s * np.where(s < 19, 1, 10)
    return lawson(s, np.log1p(v) / s, tolerance, 4, 5)


def fit_middle():
    """W0(z) / z as a function of p = sqrt(2 (e z + 1)), z from -1/e to 20."""
    p = crowded(1e-6, np.sqrt(2 * (20 * np.e + 1)) + 0.01)
    w = tabulate(lambda p: mpmath.lambertw((p * p / 2 - 1) / mpmath.e).real, p)
    return lawson(p, np.exp(-w), np.exp(-w), 4, 5)


def fit_large():
    """Log W0 as a function of x = log z, 2.99 to 710; a thousand times looser past float32."""
    x = crowded(2.99, 710.0)
    w = tabulate(lambda x: mpmath.findroot(lambda w: w + mpmath.log(w) - x, x - mpmath.log(x)), x)
    return lawson(x, np.log(w), w * np.where(x < 89, 1, 1000), 5, 5)


def branch_point_series(terms):
    """W0 in powers of p = sqrt(2 (e z + 1)): Corless et al. 1996, equations (4.22)-(4.25)."""
    mu, alpha = [Fraction(-1), Fraction(1)], [Fraction(2), Fraction(-1)]
    for k in range(2, terms):
        alpha.append(sum((mu[j] * mu[k + 1 - j] for j in range(2, k)), Fraction(0)))
        mu.append(
            Fraction(k - 1, k + 1) * (mu[k - 2] / 2 + alpha[k - 2] / 4)
            - alpha[k] / 2
            - mu[k - 1] / (k + 1)
        )
    return mu


def show(name, comment, values):
    """Print one tuple of coefficients, constant term first."""
    print(f"\n# {comment}\n{name} = (")
    for value in values:
        print(f"    {value},")
    print(")")


def main():
    """Print coefficients.py."""
    mpmath.mp.dps = 40
    print('"""Coefficients of the Lambert W approximations, constant term first.')
    print("\nWritten by ``kernels/scripts/fit_lambertw.py``, which also says what each one fits.")
    print('"""')
    series = branch_point_series(SERIES_TERMS)
    show(
        "ONE_PLUS_W0_SERIES",
        "(1 + W0) / p in powers of p: Corless et al. 1996, (4.22)",
        [f"{c.numerator} / {c.denominator}" for c in series[1:]],
    )
    for name, what, (p, q, error) in (
        ("BELOW", "log(1 + v) / s in powers of s = sqrt(2 u)", fit_below()),
        ("MIDDLE", "W0(z) / z in powers of p, -1/e <= z <= 20", fit_middle()),
        ("LARGE", "log W0(e^x) in powers of x, 2.99 <= x <= 710", fit_large()),
    ):
        show(f"{name}_NUMERATOR", f"{what}: relative error {error:.1e}", p)
        show(f"{name}_DENOMINATOR", f"{what}: denominator", q)


if __name__ == "__main__":
    main()
