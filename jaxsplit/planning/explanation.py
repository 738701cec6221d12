"""A plan in words, one line per constraint."""

import numpy as np
from jax.typing import ArrayLike

from jaxsplit.planning.large_timescale import Constraint, Plan


def explain(plan: Plan) -> list[str]:
    """Say what was planned and, for every constraint of SFT (27), its slack or why it fails.

    Args:
      plan: of `large_timescale.plan`, concrete and not batched. Devices count from 0.

    Returns:
      Lines for a terminal: the plan, then accuracy, memory, ρ, E, the caps and the band.

    Example:
      >>> from jaxsplit.planning.example import example_problem
      >>> from jaxsplit.planning.large_timescale import plan
      >>> print(explain(plan(example_problem()))[1])
      accuracy: 0.6990 >= 0.7000 - 0.0010, binds
      >>> print(explain(plan(example_problem(0.8)))[1])
      accuracy: cannot be met, the best within the bounds is 0.7500 < 0.8000 (ρ = 0.8415, E = 63)
    """
    binding = plan.binding
    return [
        _headline(plan),
        _accuracy(plan),
        _memory(plan),
        _bounds("ratio ρ", binding.ratio_low, binding.ratio_high, ".4g"),
        _bounds("levels E", binding.levels_low, binding.levels_high, "d"),
        _caps(plan),
        _band(plan),
    ]


def _headline(plan: Plan) -> str:
    choice = (
        f"l = {plan.cut}, ρ = {plan.ratio:.4g}, E = {plan.levels} "
        f"({np.log2(int(plan.levels) + 1):.3g} bits), β = {plan.beta:.4g} (1/{1 / plan.beta:.1f})"
    )
    if plan.feasible:
        return f"plan: {choice}, {plan.delay_s:.4g} s a round"
    return f"no plan meets all constraints; nearest: {choice}, {plan.delay_s:.4g} s a round"


def _accuracy(plan: Plan) -> str:
    accuracy = plan.binding.accuracy
    tolerance = float(accuracy.value - accuracy.slack)  # A_th less the tolerance
    tolerance = max(float(accuracy.limit) - tolerance, 0.0)
    if accuracy.slack < 0:
        return (
            f"accuracy: cannot be met, the best within the bounds is "
            f"{plan.binding.reachable_accuracy:.4f} < {accuracy.limit:.4f} "
            f"(ρ = {plan.binding.reachable_ratio:.4g}, E = {plan.binding.reachable_levels})"
        )
    less = f" - {tolerance:.4f}" if tolerance > 1e-6 else ""
    return (
        f"accuracy: {accuracy.value:.4f} >= {accuracy.limit:.4f}{less}, "
        f"{'binds' if accuracy.binds else f'slack {accuracy.slack:.4f}'}"
    )


def _memory(plan: Plan) -> str:
    memory, table = plan.binding.memory, plan.per_cut
    row = int(np.argmax(np.asarray(table.cut) == int(plan.cut)))
    device = int(np.argmin(np.asarray(memory.slack[row])))
    value, limit = memory.value[row, device], memory.limit[row, device]
    if memory.slack[row, device] < 0:
        return (
            f"memory: cannot be met at any cut, at l = {plan.cut} {_bytes(value)} > "
            f"{_bytes(limit)} of device {device}"
        )
    line = (
        f"memory: {_bytes(value)} <= {_bytes(limit)} of device {device} at l = {plan.cut}, "
        f"slack {_bytes(limit - value)}"
    )
    forbidden = np.asarray(table.cut)[~np.asarray(table.memory_met)].tolist()
    if not forbidden:
        return line
    binds = np.flatnonzero(np.any(np.asarray(memory.binds), axis=1))
    line += f"; it forbids l = {', '.join(map(str, forbidden))}"
    if not len(binds):
        return f"{line}, none faster"
    fastest = binds[np.argmin(np.asarray(table.delay_s)[binds])]
    return f"{line}, binds: l = {table.cut[fastest]} would take {table.delay_s[fastest]:.4g} s"


def _bounds(name: str, low: Constraint, high: Constraint, form: str) -> str:
    value, low_limit, high_limit = (
        format(int(x) if form == "d" else float(x), form)
        for x in (low.value, low.limit, high.limit)
    )
    at = [side for side, bound in (("lower", low), ("upper", high)) if bound.binds]
    state = f"at its {' and '.join(at)} bound" if at else "between its bounds"
    return f"{name}: {low_limit} <= {value} <= {high_limit}, {state}"


def _caps(plan: Plan) -> str:
    caps = plan.binding.caps
    at = np.flatnonzero(np.asarray(caps.binds)).tolist()
    if at:
        return (
            f"caps: {'device' if len(at) == 1 else 'devices'} {', '.join(map(str, at))} at the cap "
            f"({_hz(np.min(np.asarray(caps.limit)[at]))} the least), binds"
        )
    device = int(np.argmin(np.asarray(caps.slack)))
    return f"caps: slack {_hz(caps.slack[device])} or more (device {device})"


def _band(plan: Plan) -> str:
    band = plan.binding.band
    if not np.any(np.asarray(plan.per_cut.caps_met)):
        return (
            f"band: cannot be met, caps sum to {_hz(band.limit + band.slack)} < {_hz(band.limit)}"
        )
    return f"band: {_hz(band.value)} of {_hz(band.limit)} used, binds"


def _bytes(number: ArrayLike) -> str:
    return f"{np.asarray(number) / 1e9:.4g} GB"


def _hz(number: ArrayLike) -> str:
    return f"{np.asarray(number) / 1e6:.4g} MHz"
