"""The band that lets the slowest of several devices finish as early as possible."""

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Method = Literal["exact", "sqp"]

# Every step at least halves the error of ln y, and squares it once it is below one (`_root`). So
# 6 steps bring it from half a bracket of 30 decades, ln(1e15), to 0.54, and 6 more to the rounding
# of float64, as 0.54^(2^6) < 1e-16.
_ROOT_STEPS = 12

_SQP_STEPS = 60
_SQP_HALVINGS = 40
_SQP_FLOOR = 1e-3  # of the equal split


class MinMax(NamedTuple):
    """A split of the band and the delay of its slowest device."""

    bandwidth_hz: jax.Array  # [N]; zeros where infeasible
    delay_s: jax.Array  # [], max_n τ_n; inf where infeasible

    @property
    def is_feasible(self) -> jax.Array:
        """Whether the caps leave room for the whole band and for every device: bool []."""
        return jnp.isfinite(self.delay_s)


def min_max_bandwidth(
    fixed_s: ArrayLike,
    work: ArrayLike,
    total_hz: ArrayLike,
    cap_hz: ArrayLike | None = None,
    method: Method = "exact",
) -> MinMax:
    r"""Share the band so that the slowest device finishes as early as possible.

    The small timescale of SFT's problem (27):

    $$ \min_b \max_n \tau_n(b_n), \quad \tau_n = a_n + c_n / b_n, \quad
       \sum_n b_n = B, \quad 0 \le b_n \le b_n^{\max}. $$

    `"exact"` solves $\sum_n \min(c_n / (\tau - a_n), b_n^{\max}) = B$ for τ: devices at their
    cap take what they may, all others finish together at τ. Of the best splits it is the one
    that also finishes the second slowest device as early as possible, and so on. Where a cap
    binds the device at that cap is slower than τ, so the delay is the true maximum over the
    devices. Costs N log N.

    `"sqp"` is SFT's Algorithm 3. Its subproblem (34), which linearises every $\tau_n$, has no
    quadratic term and is solved exactly, as an LP; the step is halved until the maximum falls,
    and b stays above 1e-3·B/N. It stops at the first step that does not help, after at most 60;
    30 reach 1e-12 of its limit on all of 6,500 random problems over six decades, 10 reach 1e-6
    on most. N² work in each. The limit is the delay of `"exact"`, unless the best split has a
    device below the floor: then it is within what 0.1 % of the band is worth.

    A device without work needs no band, and gets some only where all others are at their caps.
    The delay of `"exact"` is differentiable wherever the slowest devices stay the same.

    Args:
      fixed_s: a_n >= 0 in s, what bandwidth does not shorten, shape [N].
      work: c_n >= 0 in Hz·s (bits per bit/s/Hz), shape [N].
      total_hz: B > 0 in Hz, scalar.
      cap_hz: $b_n^{\max}$ >= 0 in Hz, shape [N] or a scalar; inf or None for no cap.
      method: `"exact"` or `"sqp"`.

    Returns:
      `MinMax(bandwidth_hz [N], delay_s [])`. Caps that sum to less than B, or a cap of 0 on a
      device with work, give zeros and inf: `is_feasible` is False. To rounding, caps may fall
      short of B by N ulp.

    Raises:
      ValueError: unknown `method`; shapes that do not fit; and, of numbers that are known while
        tracing, one outside the range above.

    Example:
      >>> import jax.numpy as jnp
      >>> fixed_s, work = jnp.array([1.0, 2.0, 0.5]), jnp.array([3e6, 1e6, 2e6])
      >>> b, delay = min_max_bandwidth(fixed_s, work, 2e6)
      >>> [round(float(x) / 1e6, 3) for x in b], round(float(delay), 3)
      ([0.968, 0.476, 0.556], 4.099)
      >>> capped = min_max_bandwidth(fixed_s, work, 2e6, cap_hz=jnp.array([0.6e6, 1e6, 1e6]))
      >>> [round(float(x) / 1e6, 3) for x in capped.bandwidth_hz], round(float(capped.delay_s), 3)
      ([0.6, 0.712, 0.688], 6.0)
      >>> bool(min_max_bandwidth(fixed_s, work, 2e6, cap_hz=0.5e6).is_feasible)
      False
    """
    if method not in get_args(Method):
        raise ValueError(f"method={method!r} is unknown: choose one of {get_args(Method)}")
    cap_hz = jnp.inf if cap_hz is None else cap_hz
    _check_range("fixed_s", fixed_s, ">= 0")
    _check_range("work", work, ">= 0")
    _check_range("total_hz", total_hz, "> 0")
    _check_range("cap_hz", cap_hz, ">= 0", may_be_inf=True)
    shape = jnp.shape(fixed_s)
    if len(shape) != 1 or shape == (0,) or jnp.shape(work) != shape:
        raise ValueError(
            f"fixed_s has shape {shape} and work {jnp.shape(work)}: give one value per device to "
            "both, shape [N]"
        )
    if jnp.shape(total_hz) or jnp.shape(cap_hz) not in ((), shape):
        raise ValueError(
            f"total_hz has shape {jnp.shape(total_hz)} and cap_hz {jnp.shape(cap_hz)}: give a "
            f"scalar band, and as caps a scalar or shape {shape}"
        )
    dtype = jnp.result_type(fixed_s, work, float)
    fixed_s, work, total_hz = (jnp.asarray(x, dtype) for x in (fixed_s, work, total_hz))
    return _solve(
        fixed_s, work, total_hz, jnp.broadcast_to(jnp.asarray(cap_hz, dtype), shape), method
    )


def _check_range(name: str, value: Any, allowed: str, may_be_inf: bool = False) -> None:
    if isinstance(value, jax.core.Tracer):
        return
    numbers = np.asarray(value, np.float64)
    is_allowed = (numbers > 0) if allowed == "> 0" else (numbers >= 0)
    if not may_be_inf:
        is_allowed &= np.isfinite(numbers)
    if not is_allowed.all():
        finite = "" if may_be_inf else "finite and "
        raise ValueError(f"{name}={numbers[~is_allowed][0]:g}: it must be {finite}{allowed}")


# Compiled here, as otherwise every call outside of jit would compile the loops again.
@partial(jax.jit, static_argnames="method")
def _solve(
    fixed_s: jax.Array, work: jax.Array, total_hz: jax.Array, cap_hz: jax.Array, method: Method
) -> MinMax:
    """Shares of the working devices by the chosen method, and all that surrounds it."""
    # All in shares of the band; nobody can use more than all of it.
    cap = jnp.where(cap_hz < total_hz, cap_hz, total_hz) / total_hz
    alone_s = work / total_hz  # on the whole band
    is_working = work > 0
    slack = 1 - cap.size * jnp.finfo(cap.dtype).eps
    is_feasible = (jnp.sum(cap) >= slack) & jnp.all((cap > 0) | ~is_working)

    # What the working devices cannot take goes to the others, who do not care.
    working_cap, idle_cap = jnp.where(is_working, cap, 0), jnp.where(is_working, 0, cap)
    target = jnp.minimum(jnp.sum(working_cap), 1)
    sum_idle = jnp.sum(idle_cap)
    idle = (1 - target) * (idle_cap / jnp.where(sum_idle > 0, sum_idle, 1))

    share_out = _exact if method == "exact" else _sqp
    share = share_out(
        jnp.where(is_working, fixed_s, 0),
        jnp.where(is_working, alone_s, 0),
        jnp.where(is_working & is_feasible, cap, jnp.where(is_working, 1, 0)),
        jnp.where(is_feasible, target, 1),
    )
    share = _exact_sum(share, working_cap, target) + idle
    bandwidth_hz = jnp.minimum(share * total_hz, cap_hz)
    delay_s = jnp.max(fixed_s + work / jnp.where(is_working & is_feasible, bandwidth_hz, 1))
    return MinMax(
        bandwidth_hz=jnp.where(is_feasible, bandwidth_hz, 0),
        delay_s=jnp.where(is_feasible, delay_s, jnp.inf),
    )


def _exact_sum(share: jax.Array, cap: jax.Array, target: jax.Array) -> jax.Array:
    """Shares within their caps and with the sum `target`, where only rounding is in the way."""
    share = jnp.minimum(share, cap)
    room = cap - share
    left, sum_room = target - jnp.sum(share), jnp.sum(room)
    more = jnp.maximum(left, 0) * (room / jnp.where(sum_room > 0, sum_room, 1))
    fewer = jnp.where(left < 0, target / jnp.where(left < 0, target - left, 1), 1)
    return jnp.minimum((share + more) * fewer, cap)


# -- exact -----------------------------------------------------------------------------------------


def _exact(fixed_s: jax.Array, alone_s: jax.Array, cap: jax.Array, target: jax.Array) -> jax.Array:
    """Shares of the devices with work (`alone_s` > 0); they sum to `target`, to rounding.

    A device needs its whole cap up to the time at which it would finish on it. Which devices are
    at their cap follows from the first of these times, in ascending order, at which all demands
    fit into the band; the others have a common time to finish.
    """
    num_devices = fixed_s.size
    is_working = alone_s > 0
    least_s = alone_s / jnp.where(is_working, cap, 1)  # at the cap
    earliest_s = jnp.where(is_working, fixed_s + least_s, jnp.inf)
    order = jnp.argsort(earliest_s)

    def time_left(i: jax.Array) -> jax.Array:
        """From everyone's fixed time to device i's earliest finish."""
        # Not earliest_s[i] - fixed_s: where the fixed times are long, the difference of two
        # times would be all rounding.
        return (fixed_s[i] - fixed_s) + least_s[i]

    def narrow(_: int, between: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = between
        middle = (low + high) // 2
        device = order[middle]
        demand = alone_s / jnp.where(is_working, jnp.maximum(time_left(device), least_s), 1)
        fits = ~is_working[device] | (jnp.sum(demand) < target)
        return jnp.where(fits, low, middle + 1), jnp.where(fits, middle, high)

    ends = jnp.zeros((), jnp.int32), jnp.full((), num_devices, jnp.int32)
    first, _ = jax.lax.fori_loop(0, num_devices.bit_length(), narrow, ends)
    device = order[jnp.minimum(first, num_devices - 1)]  # the first that is at its cap ...
    has_bound = (first < num_devices) & is_working[device]  # ... if there is one
    # The second condition counts ties of the first as free. Too many free devices do no harm:
    # what the caps then leave over is rounding of the times.
    is_bound = is_working & (time_left(device) <= least_s) & (earliest_s >= earliest_s[device])
    is_free = is_working & ~(is_bound & has_bound)

    latest_s = jnp.max(fixed_s, where=is_free, initial=0)
    offset_s = jnp.where(is_free, latest_s - fixed_s, 0)
    alone_s = jnp.where(is_free, alone_s, 0)
    eps = jnp.finfo(target.dtype).eps
    free_target = jnp.maximum(target - jnp.sum(jnp.where(is_free, 0, cap)), eps * target)
    # Where the caps take nearly all, what is left of the band has few digits; but before the
    # first capped device is done, the free ones are, too.
    deadline_s = (fixed_s[device] - latest_s) + least_s[device]
    # Rounding may take this to 0, but no device finishes in less time than at its cap.
    least_s = jnp.max(least_s, where=is_free & (offset_s == 0), initial=0)
    last_s = jnp.where(has_bound, jnp.maximum(deadline_s, least_s), jnp.inf)
    time_s = _root(offset_s, alone_s, free_target, last_s)
    return jnp.where(is_free, alone_s / (offset_s + time_s), cap)


def _root(
    offset_s: jax.Array, alone_s: jax.Array, target: jax.Array, last_s: jax.Array
) -> jax.Array:
    r"""The y > 0 with $G(y) = \sum_n u_n / (d_n + y) = C$; the least d_n with u_n > 0 is 0.

    1/G is concave in y, and G is concave in 1/y. So from any y Newton on the one gives a lower
    bound of the root, and on the other an upper bound; one of them lies on the root's side of y.
    The next y is their geometric mean.

    Args:
      offset_s: d_n >= 0, shape [N].
      alone_s: u_n >= 0, shape [N]; all 0 gives some y > 0.
      target: C > 0.
      last_s: no y above this.
    """
    # The bound on the root's side of y keeps one half of the bracket of ln y, at most. And as
    # |x f''(x) / f'(x)| <= 2 for both functions, an error e of ln y leaves about e² in the bounds.
    fixed = jax.lax.stop_gradient((offset_s, alone_s, target))

    def bounds(
        time_s: jax.Array, offset_s: jax.Array, alone_s: jax.Array, target: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        need = alone_s / (offset_s + time_s)
        total = jnp.sum(need)
        slope = jnp.sum(need * (time_s / (offset_s + time_s)))  # -y G'(y)
        excess = total - target
        low = time_s * (1 + excess * total / (target * slope))
        return low, time_s * slope / jnp.where(excess < slope, slope - excess, 0)

    def step(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        new_low, new_high = bounds(jnp.sqrt(low) * jnp.sqrt(high), *fixed)
        low = jnp.clip(new_low, low, high)
        return low, jnp.clip(new_high, low, high)

    offset, alone, goal = fixed
    is_any = jnp.any(alone > 0)
    # A device without offset alone; all devices without offset.
    low = jnp.max(alone, where=offset == 0, initial=0) / goal
    high = jnp.sum(alone) / goal
    low, high = (jnp.where(is_any, bound, 1) for bound in (low, high))
    low, high = jax.lax.fori_loop(0, _ROOT_STEPS, step, (low, high))
    time_s = jnp.sqrt(low) * jnp.sqrt(high)
    # One more step carries the root's derivative (the implicit function theorem).
    alone_s = jnp.where(is_any, alone_s, 1)
    _, polished = bounds(time_s, offset_s, alone_s, target)
    return jnp.minimum(polished, last_s)


# -- Algorithm 3 -----------------------------------------------------------------------------------


def _sqp(fixed_s: jax.Array, alone_s: jax.Array, cap: jax.Array, target: jax.Array) -> jax.Array:
    """As `_exact`, by SFT's Algorithm 3."""
    is_working = alone_s > 0
    count = jnp.maximum(jnp.sum(is_working), 1).astype(cap.dtype)
    cap = jnp.where(is_working, cap, 0)
    sum_cap = jnp.sum(cap)
    start = target * (cap / jnp.where(sum_cap > 0, sum_cap, 1))  # equal without caps
    floor = jnp.minimum(_SQP_FLOOR * target / count, start)

    def delays(share: jax.Array) -> jax.Array:
        return fixed_s + alone_s / jnp.where(is_working, share, 1)

    def slowest(share: jax.Array) -> jax.Array:
        return jnp.max(delays(share), where=is_working, initial=0)

    def best_linearised(share: jax.Array) -> jax.Array:
        """Solve (34): the least common level of the linearised delays that the band allows."""
        delay_s = delays(share)
        share_per_second = share * (share / jnp.where(is_working, alone_s, 1))
        seconds_per_share = alone_s / jnp.where(is_working, share, 1) ** 2
        # The band for a level is linear between the levels at which a device meets a bound.
        levels_s = jnp.concatenate(
            [
                delay_s - (cap - share) * seconds_per_share,
                delay_s - (floor - share) * seconds_per_share,
            ]
        )

        def shares_at(level_s: jax.Array) -> jax.Array:
            return jnp.clip(share + (delay_s - level_s) * share_per_second, floor, cap)

        used = jnp.sum(jax.vmap(shares_at)(levels_s), axis=1)
        # Levels of devices without work are their delays, where nothing bends: harmless.
        is_enough = used >= target
        left_s = jnp.max(jnp.where(is_enough, levels_s, jnp.min(levels_s)))
        right_s = jnp.min(jnp.where(is_enough, jnp.max(levels_s), levels_s))
        left, right = shares_at(left_s), shares_at(right_s)
        drop = jnp.sum(left) - jnp.sum(right)
        part = jnp.where(drop > 0, (jnp.sum(left) - target) / jnp.where(drop > 0, drop, 1), 0)
        return left + jnp.clip(part, 0, 1) * (right - left)

    halves = 0.5 ** jnp.arange(_SQP_HALVINGS, dtype=cap.dtype)

    def go_on(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        step, _, is_done = state
        return (step < _SQP_STEPS) & ~is_done

    def improve(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        step, share, _ = state
        change = best_linearised(share) - share
        delay_s = jax.vmap(lambda part: slowest(share + part * change))(halves)
        falls = delay_s < slowest(share)
        part = jnp.where(jnp.any(falls), halves[jnp.argmax(falls)], 0)
        return step + 1, share + part * change, part == 0

    begin = jnp.zeros((), jnp.int32), start, jnp.zeros((), bool)
    return jax.lax.while_loop(go_on, improve, begin)[1]
