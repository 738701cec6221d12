"""Accuracy and speed of lambertw and bandwidth_for_rate.

``python benchmarks/lambertw.py`` checks the numerics first and exits with 1 if a bound fails; then
it times against SciPy and against a Halley loop, and writes results/lambertw-<device>.json beside
itself. ``--accuracy`` stops after the checks. Needs scipy and mpmath.
"""

import platform
import sys
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import scipy
from jaxsplit_kernels import bandwidth_for_rate, lambertw
from jaxsplit_kernels.bandwidth import cases as bandwidth_cases
from jaxsplit_kernels.bandwidth import ref as bandwidth_ref
from jaxsplit_kernels.lambertw import cases, ref
from timing import RUNS, compiled, interleaved, medians, row, save, table

ELEMENTS = 4_000_000


# -- accuracy --------------------------------------------------------------------------------------


def with_branch_point(dtype, branch, count):
    near = cases.next_to_branch_point(dtype, max(count // 50, 50))
    return np.concatenate([cases.domain(dtype, branch, count), near])


def exact(z, branch):
    """W in 40 digits; -1 at the float nearest to -1/e, which lies just outside the domain."""
    w = [float(mpmath.lambertw(mpmath.mpf(float(a)), branch).real) for a in z]
    return np.where(z.astype(np.float64) <= float(z.dtype.type(-cases.INV_E)), -1.0, w)


def ulps(got, truth):
    spacing = np.spacing(np.abs(truth).astype(got.dtype)).astype(np.float64)
    return float(np.max(np.abs(got.astype(np.float64) - truth) / spacing))


def backward_ulps(z, w):
    """Error of w in ulp by linearising log(z / w) - w in extended precision, away from -1/e."""
    far = np.abs(1 + w) > 1e-2
    z, w = z[far].astype(np.longdouble), w[far].astype(np.longdouble)
    residual = np.log(np.abs(z)) - np.log(np.abs(w)) - w
    # what the evaluation of the residual itself loses
    noise = 4 * np.finfo(np.longdouble).eps * (np.abs(np.log(np.abs(z))) + np.abs(w) + 1)
    error = np.maximum(np.abs(residual) - noise, 0) * np.abs(w / (1 + w))
    return float(np.max(error / np.spacing(np.abs(w).astype(np.float64))))


def slope_error(dtype, branch):
    z = with_branch_point(dtype, branch, 100_000)
    z = z[z != dtype(-cases.INV_E)]
    if branch == -1:
        z = z[np.abs(z) > 10 * np.finfo(dtype).tiny]  # W' ~ 1/z overflows
    function = partial(lambertw, branch=branch)
    slope = jax.jit(lambda z: jax.jvp(function, (z,), (jnp.ones_like(z),))[1])(z)
    expected = ref.derivative(z, branch)
    normal = np.abs(expected) >= np.finfo(dtype).tiny
    return float(np.max(np.abs(np.asarray(slope, np.float64) / expected - 1)[normal]))


def bandwidth_error(dtype, count):
    rate, snr_hz = bandwidth_cases.feasible(dtype, count)
    got = np.asarray(jax.jit(bandwidth_for_rate)(rate, snr_hz), np.float64)
    if dtype == np.float32:
        return float(np.max(np.abs(got / bandwidth_ref.bandwidth_for_rate(rate, snr_hz) - 1)))
    worst = 0.0
    with mpmath.workdps(80):
        for y, s, b in zip(rate, snr_hz, got, strict=True):
            bits = mpmath.mpf(float(y)) * mpmath.log(2)
            c = bits / mpmath.mpf(float(s))
            truth = -bits / (c + mpmath.lambertw(-c * mpmath.exp(-c), -1).real)
            worst = max(worst, abs(float(b / truth - 1)))
    return worst


def accuracy():
    """Yield (what, measured, bound), everything under jit."""
    mpmath.mp.dps = 40
    for branch in (0, -1):
        name = f"W{branch}"
        function = jax.jit(partial(lambertw, branch=branch))
        z = with_branch_point(np.float32, branch, 10_000)
        truth = exact(z, branch)
        error = float(np.max(np.abs(ref.lambertw(z, branch) / truth - 1)))
        yield f"{name} reference against mpmath, {z.size} points, relative", error, 1e-13
        z = with_branch_point(np.float32, branch, 1_000_000)
        error = ulps(np.asarray(function(z)), ref.lambertw(z, branch))
        yield f"{name} float32, {z.size} points, ulp", error, 4
        yield f"{name} float32 JVP, relative", slope_error(np.float32, branch), 1e-5
        with jax.enable_x64(True):
            z = with_branch_point(np.float64, branch, 20_000)
            error = ulps(np.asarray(function(z)), exact(z, branch))
            yield f"{name} float64, {z.size} mpmath points, ulp", error, 4
            z = cases.domain(np.float64, branch, 1_000_000)
            error = backward_ulps(z, np.asarray(function(z)))
            yield f"{name} float64 residual, {z.size} points, ulp", error, 4
            yield f"{name} float64 JVP, relative", slope_error(np.float64, branch), 1e-5
    error = bandwidth_error(np.float32, 1_000_000)
    yield "bandwidth_for_rate float32, 1e6 points, relative", error, 2e-6
    with jax.enable_x64(True):
        error = bandwidth_error(np.float64, 2000)
        yield "bandwidth_for_rate float64, 2000 mpmath points, relative", error, 2e-15


# -- speed -----------------------------------------------------------------------------------------


def halley_loop(z):
    """Principal branch by the method of TensorFlow Probability, written anew.

    Halley's iteration from Winitzki's approximation until every element of the batch has converged
    to 2e-6 (its float32 tolerance), at most 100 times.
    """
    log = jnp.log1p(z)
    start = log * (1 - jnp.log1p(log) / (2 + log))

    def unfinished(carry):
        _, converged, count = carry
        return ~converged & (count < 100)

    def step(carry):
        w, _, count = carry
        excess = w - z * jnp.exp(-w)
        change = excess / (1 + w - (2 + w) * excess / (2 * (1 + w)))
        converged = jnp.all(jnp.abs(change) <= 2e-6 * jnp.abs(w - change))
        return w - change, converged, count + 1

    w, _, count = jax.lax.while_loop(unfinished, step, (start, False, 0))
    return w, count


def scipy_bandwidth(rate, snr_hz):
    bits = rate * np.log(2)
    c = bits / snr_hz
    return -bits / (c + scipy.special.lambertw(-c * np.exp(-c), -1).real)


def speed():
    """Yield (what, figures), milliseconds for float32 arrays of ELEMENTS."""
    rng = np.random.default_rng(0)
    below = (-cases.INV_E * rng.uniform(1e-6, 0.9999, ELEMENTS)).astype(np.float32)
    above = np.concatenate(
        [
            -cases.INV_E * rng.uniform(0.001, 0.999, ELEMENTS // 2),
            10.0 ** rng.uniform(-3, 6, ELEMENTS - ELEMENTS // 2),
        ]
    ).astype(np.float32)
    rate = np.full(ELEMENTS, 1e6, np.float32)
    snr_hz = (10.0 ** rng.uniform(6, 9, ELEMENTS)).astype(np.float32)

    ours, compile_s = compiled(partial(lambertw, branch=-1), jnp.asarray(below))
    mine, peer = medians(ours, partial(scipy.special.lambertw, below, -1))
    yield "W-1 against scipy.special.lambertw", row(mine, peer, compile_s)

    # Positive inputs are the loop's best case; beside the branch point float32 noise in 1 + w keeps
    # its stopping test from passing, and the whole batch waits.
    positive = (10.0 ** rng.uniform(-3, 6, ELEMENTS)).astype(np.float32)
    for what, z in (("z > 0", positive), ("half of z < 0", above)):
        ours, compile_s = compiled(lambertw, jnp.asarray(z))
        halley, _ = compiled(halley_loop, jnp.asarray(z))
        count = int(halley()[1])
        mine, peer = medians(ours, halley)
        yield (
            f"W0, {what}, against TFP's Halley loop",
            row(mine, peer, compile_s) | {"halley_iterations": count},
        )

    for branch, z in ((0, above), (-1, below)):
        special = z.copy()
        special[ELEMENTS // 3] = np.nan
        special[ELEMENTS // 2] = -cases.INV_E
        # One program, three inputs; the copy of the plain input shows the noise of the machine.
        program = jax.jit(partial(lambertw, branch=branch))
        inputs = [jnp.asarray(a) for a in (z, z.copy(), special)]
        times = interleaved(*(partial(program, a) for a in inputs), runs=10 * RUNS)
        plain, control, other = np.quantile(times, 0.25, axis=1)
        yield (
            f"W{branch} with NaN and -1/e lanes, against without",
            {
                "ours_ms": round(float(plain), 3),
                "peer_ms": round(float(other), 3),
                "ratio": round(float(other / plain), 3),
                "ratio_of_two_plain_inputs": round(float(control / plain), 3),
            },
        )

    ours, compile_s = compiled(bandwidth_for_rate, jnp.asarray(rate), jnp.asarray(snr_hz))
    mine, peer = medians(ours, partial(scipy_bandwidth, rate, snr_hz))
    yield "bandwidth_for_rate against (25) in SciPy", row(mine, peer, compile_s)


def main():
    device = jax.devices()[0].device_kind
    record = {
        "device": device,
        "machine": platform.machine(),
        "jax": jax.__version__,
        "scipy": scipy.__version__,
        "elements": ELEMENTS,
        "runs": RUNS,
        "accuracy": {},
        "speed": {},
    }
    passed = True
    for what, measured, bound in accuracy():
        good = measured <= bound
        passed &= good
        record["accuracy"][what] = {"measured": float(f"{measured:.3g}"), "bound": bound}
        print(f"{what:62} {measured:9.3g}  <= {bound:<7g} {'ok' if good else 'FAILED'}", flush=True)
    if not passed:
        sys.exit(1)
    if "--accuracy" in sys.argv[1:]:
        return
    table(f"{device}, {ELEMENTS} float32", speed(), record["speed"])
    save("lambertw", record)


if __name__ == "__main__":
    main()
